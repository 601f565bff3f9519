//! One request and its answer, the same for both versions.

use alloc::string::String;

use super::acks::Acks;
use super::buffer::Buffer;
use super::{Event, HowEnded, Kind, Protocol, RequestId};
use crate::limits::{ACK_OBJECT_BYTES, EVENT_BODY_BYTES};
use crate::time::{Span, Tick};
use crate::upload::wire::AckObject;

/// One request.
///
/// ```text
/// Pending ─accept─► Open ─the body ended and was consumed─► Ended ─seal, fail, finish─► Answered
///    └──refuse──────────────────────────────────────────────────────────────────────────►┘
/// ```
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) id: RequestId,
    /// HTTP/2 stream; 0 on HTTP/1.1.
    pub(super) stream: u32,
    /// None: answered inside, the shell never hears of it.
    pub(super) kind: Option<Kind>,
    phase: Phase,
    pub(super) expects_continue: bool,
    /// A refusal has no body: the head ends the stream. HTTP/2 only.
    pub(super) bare_refusal: bool,
    /// Body bytes that the shell did not take yet.
    pub(super) body: Buffer,
    /// Whether the shell knows of what is in `body`.
    announced: bool,
    /// The body's end came.
    ended: Option<HowEnded>,
    total: u64,
    pub(super) acks: Acks,
    /// Bytes of the answer that wait for the peer.
    pub(super) out: Buffer,
    /// Nothing follows `out`.
    pub(super) out_end: bool,
    /// When the answer was first seen to be complete.
    pub(super) answered_at: Option<Tick>,
    /// Body bytes that came after the answer.
    pub(super) discarded: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Pending,
    Open,
    Ended,
    Answered,
}

impl Exchange {
    pub(super) fn new(id: RequestId, stream: u32, kind: Option<Kind>) -> Self {
        Self {
            id,
            stream,
            kind,
            phase: if kind.is_some() { Phase::Pending } else { Phase::Answered },
            expects_continue: false,
            bare_refusal: false,
            body: Buffer::default(),
            announced: false,
            ended: None,
            total: 0,
            acks: Acks::default(),
            out: Buffer::default(),
            out_end: false,
            answered_at: None,
            discarded: 0,
        }
    }

    pub(super) const fn is_pending(&self) -> bool {
        matches!(self.phase, Phase::Pending)
    }

    pub(super) const fn is_answered(&self) -> bool {
        matches!(self.phase, Phase::Answered)
    }

    /// Whether the shell has to hear that it is gone.
    pub(super) const fn is_of_interest(&self) -> bool {
        matches!(self.phase, Phase::Pending | Phase::Open)
    }

    pub(super) const fn body_ended(&self) -> bool {
        self.ended.is_some()
    }

    pub(super) const fn protocol(&self) -> Option<Protocol> {
        match self.kind {
            Some(Kind::Record { protocol, .. }) => Some(protocol),
            _ => None,
        }
    }

    /// Whether the answer is a stream of ack objects.
    pub(super) const fn has_acks(&self) -> bool {
        !matches!(self.phase, Phase::Pending | Phase::Answered)
            && matches!(
                self.protocol(),
                Some(Protocol::V2 | Protocol::V2Commit | Protocol::Upgrade)
            )
    }

    /// The shell takes it.
    pub(super) fn accept(&mut self, now: Tick, period: Option<Span>, commit: Option<u64>) {
        self.phase = Phase::Open;
        if let Some(period) = period {
            self.acks.start(now, period, commit);
        }
    }

    /// Body bytes came. False: too many, answer 413.
    pub(super) fn push_body(&mut self, data: &[u8]) -> bool {
        self.total = self.total.saturating_add(data.len() as u64);
        if self.kind == Some(Kind::Event) && self.total > EVENT_BODY_BYTES as u64 {
            return false;
        }
        if !data.is_empty() {
            self.body.push(data);
            self.announced = false;
        }
        true
    }

    pub(super) fn end_body(&mut self, how: HowEnded) {
        self.ended.get_or_insert(how);
    }

    pub(super) fn consume(&mut self, n: usize) -> usize {
        self.announced = false;
        self.body.consume(n)
    }

    pub(super) fn drain(&mut self) {
        self.acks.drain();
    }

    /// What the shell has to know of it.
    pub(super) fn poll_event(&mut self) -> Option<Event> {
        if self.phase != Phase::Open {
            return None;
        }
        if !self.body.is_empty() {
            let fresh = !core::mem::replace(&mut self.announced, true);
            return fresh.then(|| Event::Body { id: self.id, len: self.body.len() });
        }
        let how = self.ended?;
        // Nobody waits for an answer to what was cut off.
        let over = how == HowEnded::Truncated;
        self.phase = if over { Phase::Answered } else { Phase::Ended };
        let moved = how == HowEnded::Clean && self.acks.is_drained();
        Some(Event::End { id: self.id, how: if moved { HowEnded::Moved } else { how } })
    }

    /// Puts the ack object that is due behind the output, when the peer took all before it.
    pub(super) fn run_acks(&mut self, now: Tick) {
        while self.out.is_empty() || self.acks.due() == Some(Tick(0)) && self.out.len() < 256 {
            let Some(object) = self.acks.poll(now) else { return };
            self.push_object(&object);
        }
    }

    pub(super) fn seal(&mut self, end: u64) {
        let sealed = self.acks.seal(end);
        let last = self.acks.object();
        self.push_object(&last);
        if let Some(sealed) = sealed {
            self.push_object(&sealed);
        }
        self.close_answer();
    }

    pub(super) fn fail(&mut self, text: &str) {
        self.acks.stop();
        let error = Some(String::from(text)).filter(|t| !t.is_empty());
        let error = error.or_else(|| Some(String::from("io")));
        self.push_object(&AckObject { error, ..AckObject::default() });
        self.close_answer();
    }

    /// The peer broke its framing: the last object says so, and what came before it is still read.
    pub(super) fn break_off(&mut self, text: &str) {
        let phase = self.phase;
        self.fail(text);
        self.phase = phase;
    }

    /// The answer has all its bytes; what is left of the body is of no use.
    pub(super) fn close_answer(&mut self) {
        self.acks.stop();
        self.phase = Phase::Answered;
        self.out_end = true;
    }

    fn push_object(&mut self, object: &AckObject) {
        let mut small = [0u8; 160];
        if let Some(n) = object.encode(&mut small) {
            self.out.push(small.get(..n).unwrap_or_default());
            return;
        }
        let mut large = alloc::vec![0u8; ACK_OBJECT_BYTES];
        if let Some(n) = object.encode(&mut large) {
            self.out.push(large.get(..n).unwrap_or_default());
        }
    }
}
