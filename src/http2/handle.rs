//! What the frames mean that are needed whole: everything but DATA.

use super::connection::{Connection, PING_DATA};
use super::frame::{self, Head, MAX_31};
use super::hpack::{Block, Rules};
use super::receive::{FLOOD, FRAME_SIZE, Fault, OpenBlock, Outcome, PROTOCOL};
use super::stream::{Closed, Stream};
use super::{Code, Event, Fields};
use crate::limits::{H2_BLOCK_BYTES, H2_CONTINUATIONS};
use crate::time::Tick;

impl Connection {
    pub(super) fn handle_frame(&mut self, now: Tick, head: Head, payload: &[u8]) -> Outcome {
        match head.kind {
            frame::HEADERS => self.handle_headers(now, head, payload),
            frame::CONTINUATION => self.handle_continuation(now, head, payload),
            frame::PRIORITY => self.handle_priority(head, payload),
            frame::RST_STREAM => self.handle_rst_stream(head, payload),
            frame::SETTINGS => self.handle_settings(head, payload),
            frame::PING => self.handle_ping(head, payload),
            frame::GOAWAY => self.handle_goaway(head, payload),
            frame::WINDOW_UPDATE => self.handle_window_update(head, payload),
            _ => Ok(None),
        }
    }

    fn handle_headers(&mut self, now: Tick, head: Head, payload: &[u8]) -> Outcome {
        if head.stream.is_multiple_of(2) {
            return Err(PROTOCOL);
        }
        let mut fragment = payload;
        let mut pad = 0usize;
        if head.has(frame::PADDED) {
            let (length, rest) = fragment.split_first().ok_or(FRAME_SIZE)?;
            pad = usize::from(*length);
            fragment = rest;
        }
        let mut depends_on_itself = false;
        if head.has(frame::PRIORITIZED) {
            let on = frame::read_u32(fragment).ok_or(FRAME_SIZE)? & MAX_31;
            depends_on_itself = on == head.stream;
            fragment = fragment.get(5..).ok_or(FRAME_SIZE)?;
        }
        let end = fragment.len().checked_sub(pad).ok_or(PROTOCOL)?;
        let fragment = fragment.get(..end).ok_or(PROTOCOL)?;
        let end = head.has(frame::END_STREAM);
        if head.has(frame::END_HEADERS) {
            return self.handle_block(now, head.stream, end, depends_on_itself, fragment);
        }
        if fragment.is_empty() && !self.useless.add(now) {
            return Err(FLOOD);
        }
        self.collected.block = Some(OpenBlock {
            stream: head.stream,
            end,
            depends_on_itself,
            fragments: fragment.to_vec(),
            continuations: 0,
        });
        Ok(None)
    }

    fn handle_continuation(&mut self, now: Tick, head: Head, payload: &[u8]) -> Outcome {
        let Some(mut block) = self.collected.block.take() else { return Err(PROTOCOL) };
        block.continuations = block.continuations.saturating_add(1);
        let size = block.fragments.len().saturating_add(payload.len());
        if block.continuations > H2_CONTINUATIONS || size > H2_BLOCK_BYTES {
            return Err(FLOOD);
        }
        block.fragments.extend_from_slice(payload);
        if head.has(frame::END_HEADERS) {
            let OpenBlock { stream, end, depends_on_itself, fragments, .. } = block;
            return self.handle_block(now, stream, end, depends_on_itself, &fragments);
        }
        self.collected.block = Some(block);
        Ok(None)
    }

    /// A whole header block. It is decoded whatever becomes of its stream: the compression state goes on (RFC 9113, 4.3).
    fn handle_block(
        &mut self,
        now: Tick,
        id: u32,
        end: bool,
        depends_on_itself: bool,
        block: &[u8],
    ) -> Outcome {
        let known = self.streams.get(id).map(|s| (s.head_done, s.recv_open));
        let new = known.is_none() && !self.client && id > self.last_peer_stream;
        let rules = match known {
            Some((true, _)) => Rules::Trailers,
            _ if self.client => Rules::Response,
            _ => Rules::Request,
        };
        let decoded = self.decoder.decode(block, rules);
        if matches!(decoded, Block::Broken) {
            return Err(Fault::Connection(Code::CompressionError));
        }
        if new {
            self.last_peer_stream = id;
        } else if known.is_none() {
            return match self.streams.closed(id) {
                Some(Closed::ResetByUs) => Ok(None),
                Some(Closed::Ended) => Err(Fault::Connection(Code::StreamClosed)),
                None => Err(PROTOCOL),
            };
        }
        if let Some((_, false)) = known {
            return Err(Fault::Stream(id, Code::StreamClosed));
        }
        if new && self.is_refused(id) {
            return Err(Fault::Stream(id, Code::RefusedStream));
        }
        if depends_on_itself {
            return Err(Fault::Stream(id, Code::ProtocolError));
        }
        let (fields, content_length, too_large) = match decoded {
            Block::Fields { fields, content_length } => (fields, content_length, false),
            Block::TooLarge => (Fields::default(), None, true),
            Block::Malformed | Block::Broken => {
                return Err(Fault::Stream(id, Code::ProtocolError));
            }
        };
        if new {
            let stream = Stream::new(id, self.config.stream_window, self.peer.initial_window);
            self.streams.insert(stream);
        }
        let Some(stream) = self.streams.get_mut(id) else { return Ok(None) };
        if stream.head_done {
            // Trailers. They end the stream, or they are malformed.
            if !end {
                return Err(Fault::Stream(id, Code::ProtocolError));
            }
            self.count_data(id, &[], true)?;
            return Ok(Some(Event::Data { stream: id, data: &[], end: true }));
        }
        let interim = fields.status().is_some_and(|s| s < 200);
        if interim && end {
            return Err(Fault::Stream(id, Code::ProtocolError));
        }
        if interim && !self.useless.add(now) {
            return Err(FLOOD);
        }
        stream.head_done = !interim;
        if !self.client {
            stream.content_length = content_length;
            if end && !stream.length_fits(true) {
                return Err(Fault::Stream(id, Code::ProtocolError));
            }
        }
        if end {
            stream.recv_open = false;
            self.streams.sweep(id);
        }
        Ok(Some(Event::Headers { stream: id, fields, end, too_large }))
    }

    /// Whether a new stream of the peer is one too many, or came behind our GOAWAY.
    fn is_refused(&self, id: u32) -> bool {
        let full = self.streams.len() >= self.config.max_streams as usize;
        full || self.goaway_sent.is_some_and(|last| id > last)
    }

    fn handle_priority(&self, head: Head, payload: &[u8]) -> Outcome {
        if head.stream == 0 {
            return Err(PROTOCOL);
        }
        let fault = if payload.len() != 5 {
            Code::FrameSizeError
        } else if frame::read_u32(payload).is_some_and(|on| on & MAX_31 == head.stream) {
            Code::ProtocolError
        } else {
            return Ok(None);
        };
        // RST_STREAM must not go to an idle stream, nor has it a meaning for one that is gone.
        if self.is_idle(head.stream) {
            return Err(Fault::Connection(fault));
        }
        Err(Fault::Stream(head.stream, fault))
    }

    fn handle_rst_stream(&mut self, head: Head, payload: &[u8]) -> Outcome {
        if payload.len() != 4 {
            return Err(FRAME_SIZE);
        }
        if head.stream == 0 || self.is_idle(head.stream) {
            return Err(PROTOCOL);
        }
        let code = Code::from_wire(frame::read_u32(payload).unwrap_or(0));
        if self.streams.get(head.stream).is_none() {
            return Ok(None);
        }
        self.streams.close(head.stream, Closed::Ended);
        Ok(Some(Event::Reset { stream: head.stream, code, by_peer: true }))
    }

    fn handle_settings(&mut self, head: Head, payload: &[u8]) -> Outcome {
        if head.stream != 0 {
            return Err(PROTOCOL);
        }
        if head.has(frame::ACK) {
            return if payload.is_empty() { Ok(None) } else { Err(FRAME_SIZE) };
        }
        let (settings, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() {
            return Err(FRAME_SIZE);
        }
        for [i0, i1, v0, v1, v2, v3] in settings {
            let value = u32::from_be_bytes([*v0, *v1, *v2, *v3]);
            match u16::from_be_bytes([*i0, *i1]) {
                frame::SET_ENABLE_PUSH if value > 1 || (value == 1 && self.client) => {
                    return Err(PROTOCOL);
                }
                frame::SET_MAX_STREAMS => self.peer.max_streams = value,
                frame::SET_INITIAL_WINDOW => {
                    if value > MAX_31 {
                        return Err(Fault::Connection(Code::FlowControlError));
                    }
                    let by = i64::from(value).saturating_sub(i64::from(self.peer.initial_window));
                    self.peer.initial_window = value;
                    if !self.streams.shift_send_windows(by) {
                        return Err(Fault::Connection(Code::FlowControlError));
                    }
                }
                // We never send more than the least that every peer takes.
                frame::SET_MAX_FRAME if !(16_384..=0xff_ffff).contains(&value) => {
                    return Err(PROTOCOL);
                }
                _ => {}
            }
        }
        frame::push(self.output(), frame::SETTINGS, frame::ACK, 0, &[]);
        Ok(None)
    }

    fn handle_ping(&mut self, head: Head, payload: &[u8]) -> Outcome {
        if payload.len() != 8 {
            return Err(FRAME_SIZE);
        }
        if head.stream != 0 {
            return Err(PROTOCOL);
        }
        if head.has(frame::ACK) {
            return Ok((payload == PING_DATA).then_some(Event::Pong));
        }
        frame::push(self.output(), frame::PING, frame::ACK, 0, payload);
        Ok(None)
    }

    fn handle_goaway(&mut self, head: Head, payload: &[u8]) -> Outcome {
        if head.stream != 0 {
            return Err(PROTOCOL);
        }
        let last = frame::read_u32(payload).ok_or(FRAME_SIZE)? & MAX_31;
        let code = frame::read_u32(payload.get(4..).unwrap_or_default()).ok_or(FRAME_SIZE)?;
        self.goaway_received = true;
        Ok(Some(Event::GoAway { last, code: Code::from_wire(code) }))
    }

    fn handle_window_update(&mut self, head: Head, payload: &[u8]) -> Outcome {
        if payload.len() != 4 {
            return Err(FRAME_SIZE);
        }
        if head.stream != 0 && self.is_idle(head.stream) {
            return Err(PROTOCOL);
        }
        let increment = i64::from(frame::read_u32(payload).unwrap_or(0) & MAX_31);
        if head.stream == 0 {
            self.send_window = self.send_window.saturating_add(increment);
            if increment == 0 {
                return Err(PROTOCOL);
            }
            if self.send_window > i64::from(MAX_31) {
                return Err(Fault::Connection(Code::FlowControlError));
            }
            return Ok(None);
        }
        let Some(stream) = self.streams.get_mut(head.stream) else { return Ok(None) };
        stream.send_window = stream.send_window.saturating_add(increment);
        if increment == 0 {
            return Err(Fault::Stream(head.stream, Code::ProtocolError));
        }
        if stream.send_window > i64::from(MAX_31) {
            return Err(Fault::Stream(head.stream, Code::FlowControlError));
        }
        Ok(None)
    }
}
