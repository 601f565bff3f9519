//! Reading frames.

use super::connection::{Connection, PING_DATA};
use super::frame::{self, Head, MAX_31};
use super::hpack::{Block, Rules};
use super::stream::{Closed, Stream};
use super::{Code, Event, Fields, PREFACE};
use crate::limits::{
    H2_BLOCK_BYTES, H2_CONTINUATIONS, H2_FRAME_BYTES, H2_USELESS_FRAMES, H2_USELESS_WINDOW,
    UNREAD_BYTES,
};
use crate::time::Tick;

/// Where in the input the connection is.
///
/// ```text
/// Preface ─► Head ─► Data ─► Head …      DATA is lent piece by piece
///              ├──► Skip ─► Head         unknown frames, DATA that nobody wants
///              └──► Collect ─► Head      everything else is needed whole
/// ```
#[derive(Clone, Copy, Debug)]
pub(super) enum Parse {
    /// So many bytes of the preface were seen.
    Preface(u8),
    /// So many bytes of a frame header were seen.
    Head { bytes: [u8; frame::HEAD], have: u8, first: bool },
    /// In a DATA frame: `pad_unknown` before the pad length was read.
    Data { stream: u32, left: u32, pad: u32, end: bool, pad_unknown: bool, wanted: bool },
    /// In a frame that is read over.
    Skip(u32),
    /// In a frame that is needed whole.
    Collect(Head),
}

impl Parse {
    pub(super) const fn start(client: bool) -> Self {
        if client { Self::head(true) } else { Self::Preface(0) }
    }

    const fn head(first: bool) -> Self {
        Self::Head { bytes: [0; frame::HEAD], have: 0, first }
    }
}

/// What is kept between inputs.
#[derive(Debug, Default)]
pub(super) struct Collected {
    /// The part of a frame that came, when it did not come at once.
    frame: Vec<u8>,
    /// A header block that goes on in CONTINUATION.
    block: Option<OpenBlock>,
}

#[derive(Debug)]
struct OpenBlock {
    stream: u32,
    end: bool,
    depends_on_itself: bool,
    fragments: Vec<u8>,
    continuations: u32,
}

/// Counts frames that make work and bring nothing.
#[derive(Debug, Default)]
pub(super) struct Useless {
    since: Tick,
    count: u32,
}

impl Useless {
    /// One more; false when it is one too many.
    fn add(&mut self, now: Tick) -> bool {
        if now.since(self.since) >= H2_USELESS_WINDOW {
            self.since = now;
            self.count = 0;
        }
        self.count = self.count.saturating_add(1);
        self.count <= H2_USELESS_FRAMES
    }
}

/// What was wrong with a frame.
enum Fault {
    Connection(Code),
    Stream(u32, Code),
}

type Outcome = Result<Option<Event<'static>>, Fault>;

const PROTOCOL: Fault = Fault::Connection(Code::ProtocolError);
const FRAME_SIZE: Fault = Fault::Connection(Code::FrameSizeError);
const FLOOD: Fault = Fault::Connection(Code::EnhanceYourCalm);

impl Connection {
    /// Reads on until there is something to tell and takes what it read off the front of `input`. Call it until it returns
    /// None: then all of `input` was read.
    pub fn handle_input<'a>(&mut self, now: Tick, input: &mut &'a [u8]) -> Option<Event<'a>> {
        loop {
            if self.failed.is_some() {
                *input = &[];
                return None;
            }
            if self.queued() > UNREAD_BYTES {
                // It asks and asks, and reads no answer.
                *input = &[];
                return Some(self.fail(Code::EnhanceYourCalm));
            }
            let outcome = match self.parse {
                Parse::Preface(seen) => self.read_preface(seen, input)?,
                Parse::Head { bytes, have, first } => {
                    self.read_head(now, bytes, have, first, input)?
                }
                Parse::Data { .. } => match self.read_data(input)? {
                    Ok(Some((stream, data, end))) => {
                        return Some(Event::Data { stream, data, end });
                    }
                    Ok(None) => Ok(None),
                    Err(fault) => Err(fault),
                },
                Parse::Skip(left) => {
                    let skipped = split(input, left);
                    let left = left.saturating_sub(len32(skipped));
                    self.parse = if left == 0 { Parse::head(false) } else { Parse::Skip(left) };
                    if left > 0 {
                        return None;
                    }
                    Ok(None)
                }
                Parse::Collect(head) => self.collect(now, head, input)?,
            };
            match outcome {
                Ok(None) => {}
                Ok(Some(event)) => return Some(event),
                Err(Fault::Connection(code)) => {
                    *input = &[];
                    return Some(self.fail(code));
                }
                Err(Fault::Stream(stream, code)) => {
                    if let Some(event) = self.stream_fault(now, stream, code) {
                        return Some(event);
                    }
                }
            }
        }
    }

    /// A stream error stays one: the other streams do not notice.
    fn stream_fault<'a>(&mut self, now: Tick, stream: u32, code: Code) -> Option<Event<'a>> {
        let existed = self.streams.close(stream, Closed::ResetByUs);
        frame::push_reset(self.output(), stream, code);
        // Each makes us answer, so they are counted like frames that bring nothing.
        if !self.useless.add(now) {
            return Some(self.fail(Code::EnhanceYourCalm));
        }
        existed.then_some(Event::Reset { stream, code, by_peer: false })
    }

    /// None: the input is used up.
    fn read_preface(&mut self, seen: u8, input: &mut &[u8]) -> Option<Outcome> {
        if input.is_empty() {
            return None;
        }
        let wanted = PREFACE.get(usize::from(seen)..).unwrap_or_default();
        let got = split(input, len32(wanted));
        if wanted.get(..got.len()) != Some(got) {
            return Some(Err(PROTOCOL));
        }
        self.parse = if got.len() == wanted.len() {
            Parse::head(true)
        } else {
            Parse::Preface(seen.saturating_add(u8::try_from(got.len()).unwrap_or(0)))
        };
        Some(Ok(None))
    }

    /// None: the input is used up.
    fn read_head(
        &mut self,
        now: Tick,
        mut bytes: [u8; frame::HEAD],
        have: u8,
        first: bool,
        input: &mut &[u8],
    ) -> Option<Outcome> {
        if input.is_empty() {
            return None;
        }
        let got = if have == 0
            && let Some((whole, rest)) = input.split_first_chunk::<{ frame::HEAD }>()
        {
            bytes = *whole;
            *input = rest;
            frame::HEAD
        } else {
            let missing = bytes.get_mut(usize::from(have)..)?;
            let part = split(input, u32::try_from(missing.len()).unwrap_or(0));
            missing.get_mut(..part.len())?.copy_from_slice(part);
            part.len().saturating_add(usize::from(have))
        };
        if got < frame::HEAD {
            self.parse = Parse::Head { bytes, have: u8::try_from(got).unwrap_or(0), first };
            return None;
        }
        Some(self.start_frame(now, Head::parse(bytes), first))
    }

    /// Looks at a frame's header and decides what becomes of its payload.
    fn start_frame(&mut self, now: Tick, head: Head, first: bool) -> Outcome {
        if first && (head.kind != frame::SETTINGS || head.has(frame::ACK)) {
            return Err(PROTOCOL);
        }
        if head.length as usize > H2_FRAME_BYTES {
            return Err(FRAME_SIZE);
        }
        match &self.collected.block {
            Some(block) if head.kind != frame::CONTINUATION || head.stream != block.stream => {
                return Err(PROTOCOL);
            }
            None if head.kind == frame::CONTINUATION => return Err(PROTOCOL),
            _ => {}
        }
        let useless = match head.kind {
            frame::PING | frame::SETTINGS | frame::PRIORITY | frame::RST_STREAM => true,
            frame::GOAWAY | 0xa.. => true,
            frame::DATA => head.length == 0 && !head.has(frame::END_STREAM),
            frame::CONTINUATION => head.length == 0,
            _ => false,
        };
        if useless && !self.useless.add(now) {
            return Err(FLOOD);
        }
        match head.kind {
            frame::DATA => self.start_data(head),
            frame::HEADERS
            | frame::PRIORITY
            | frame::RST_STREAM
            | frame::SETTINGS
            | frame::PING
            | frame::GOAWAY
            | frame::WINDOW_UPDATE
            | frame::CONTINUATION => {
                self.parse = Parse::Collect(head);
                Ok(None)
            }
            frame::PUSH_PROMISE => Err(PROTOCOL),
            _ => {
                self.parse = Parse::Skip(head.length);
                Ok(None)
            }
        }
    }

    fn start_data(&mut self, head: Head) -> Outcome {
        if head.stream == 0 || self.is_idle(head.stream) {
            return Err(PROTOCOL);
        }
        let padded = head.has(frame::PADDED);
        if padded && head.length == 0 {
            return Err(FRAME_SIZE);
        }
        // The whole payload counts, padding included, whatever becomes of it (RFC 9113, 6.9).
        if !self.recv.take(head.length) {
            return Err(Fault::Connection(Code::FlowControlError));
        }
        let ours = self.streams.closed(head.stream) == Some(Closed::ResetByUs);
        let refused = match self.streams.get_mut(head.stream) {
            Some(s) if !s.recv_open => Some(Code::StreamClosed),
            Some(s) if !s.head_done => Some(Code::ProtocolError),
            Some(s) => (!s.recv.take(head.length)).then_some(Code::FlowControlError),
            None if ours => None,
            None => Some(Code::StreamClosed),
        };
        let wanted = refused.is_none() && !ours;
        self.parse = Parse::Data {
            stream: head.stream,
            left: head.length,
            pad: 0,
            end: head.has(frame::END_STREAM),
            pad_unknown: padded,
            wanted,
        };
        match refused {
            Some(code) => Err(Fault::Stream(head.stream, code)),
            None => Ok(None),
        }
    }

    /// Within a DATA frame. None: the input is used up. Some(Ok(None)): go on.
    #[allow(clippy::type_complexity)]
    fn read_data<'a>(
        &mut self,
        input: &mut &'a [u8],
    ) -> Option<Result<Option<(u32, &'a [u8], bool)>, Fault>> {
        let Parse::Data { stream, mut left, mut pad, end, pad_unknown, wanted } = self.parse else {
            return None;
        };
        if pad_unknown {
            let (length, rest) = input.split_first()?;
            *input = rest;
            left = left.saturating_sub(1);
            pad = u32::from(*length);
            if pad > left {
                return Some(Err(PROTOCOL));
            }
            left = left.saturating_sub(pad);
            // Padding and its length are used up by being read.
            self.credit(stream, pad.saturating_add(1) as usize);
        }
        let data = split(input, left);
        left = left.saturating_sub(len32(data));
        if left == 0 {
            pad = pad.saturating_sub(len32(split(input, pad)));
        }
        let done = left == 0 && pad == 0;
        self.parse = if done {
            Parse::head(false)
        } else {
            Parse::Data { stream, left, pad, end, pad_unknown: false, wanted }
        };
        // The stream may have been reset since the frame began.
        let wanted = wanted && self.streams.get(stream).is_some();
        if !wanted {
            self.credit(stream, data.len());
        }
        let end = end && done && wanted;
        if wanted && (!data.is_empty() || end) {
            return Some(self.count_data(stream, data, end).map(|()| Some((stream, data, end))));
        }
        if done { Some(Ok(None)) } else { None }
    }

    /// The body must be as long as its head said.
    fn count_data(&mut self, stream: u32, data: &[u8], end: bool) -> Result<(), Fault> {
        let Some(s) = self.streams.get_mut(stream) else { return Ok(()) };
        s.received = s.received.saturating_add(data.len() as u64);
        if !s.length_fits(end) {
            self.credit(stream, data.len());
            return Err(Fault::Stream(stream, Code::ProtocolError));
        }
        if end {
            s.recv_open = false;
            self.streams.sweep(stream);
        }
        Ok(())
    }

    /// None: the input is used up.
    fn collect(&mut self, now: Tick, head: Head, input: &mut &[u8]) -> Option<Outcome> {
        let missing = head.length.saturating_sub(len32(&self.collected.frame));
        let got = split(input, missing);
        if got.len() < missing as usize {
            self.collected.frame.extend_from_slice(got);
            return None;
        }
        self.parse = Parse::head(false);
        if self.collected.frame.is_empty() {
            return Some(self.handle_frame(now, head, got));
        }
        let mut whole = core::mem::take(&mut self.collected.frame);
        whole.extend_from_slice(got);
        Some(self.handle_frame(now, head, &whole))
    }

    fn handle_frame(&mut self, now: Tick, head: Head, payload: &[u8]) -> Outcome {
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

    /// Whether the stream was never opened.
    const fn is_idle(&self, id: u32) -> bool {
        if id.is_multiple_of(2) {
            return true;
        }
        if self.client { id >= self.next_stream } else { id > self.last_peer_stream }
    }
}

/// Takes up to `n` bytes off the front.
fn split<'a>(input: &mut &'a [u8], n: u32) -> &'a [u8] {
    let n = (n as usize).min(input.len());
    let Some((front, rest)) = input.split_at_checked(n) else { return &[] };
    *input = rest;
    front
}

fn len32(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}
