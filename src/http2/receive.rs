//! Finding frames in the input and lending what is in DATA. What the others mean is in `handle`.

use super::connection::Connection;
use super::frame::{self, Head};
use super::stream::Closed;
use super::{Code, Event, PREFACE};
use crate::limits::{H2_FRAME_BYTES, H2_USELESS_FRAMES, H2_USELESS_WINDOW, UNREAD_BYTES};
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
    pub(super) block: Option<OpenBlock>,
}

#[derive(Debug)]
pub(super) struct OpenBlock {
    pub(super) stream: u32,
    pub(super) end: bool,
    pub(super) depends_on_itself: bool,
    pub(super) fragments: Vec<u8>,
    pub(super) continuations: u32,
}

/// Counts frames that make work and bring nothing.
#[derive(Debug, Default)]
pub(super) struct Useless {
    since: Tick,
    count: u32,
}

impl Useless {
    /// One more; false when it is one too many.
    pub(super) fn add(&mut self, now: Tick) -> bool {
        if now.since(self.since) >= H2_USELESS_WINDOW {
            self.since = now;
            self.count = 0;
        }
        self.count = self.count.saturating_add(1);
        self.count <= H2_USELESS_FRAMES
    }
}

/// What was wrong with a frame.
pub(super) enum Fault {
    Connection(Code),
    Stream(u32, Code),
}

pub(super) type Outcome = Result<Option<Event<'static>>, Fault>;

pub(super) const PROTOCOL: Fault = Fault::Connection(Code::ProtocolError);
pub(super) const FRAME_SIZE: Fault = Fault::Connection(Code::FrameSizeError);
pub(super) const FLOOD: Fault = Fault::Connection(Code::EnhanceYourCalm);

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
                Parse::Data { .. } => match self.read_data(now, input)? {
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
        now: Tick,
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
            // Padding around nothing is as useless as an empty frame.
            if left == 0 && !end && !self.useless.add(now) {
                return Some(Err(FLOOD));
            }
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
    pub(super) fn count_data(&mut self, stream: u32, data: &[u8], end: bool) -> Result<(), Fault> {
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

    /// Whether the stream was never opened.
    pub(super) const fn is_idle(&self, id: u32) -> bool {
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
