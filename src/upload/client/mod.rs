//! One upload over one link: docs/protocol.md from the client's side, without a socket.
//!
//! ```text
//! new ─► Probing ─► Ready ─ post() ─► Posting ─► Streaming ─ finish() | leave() ─► Ending ─► Over
//!          │ (HTTP/2 only)               │            └── any fault ────────────────────────►┘
//!          └► News::unsupported          └► News::unsupported: another protocol, on a new link
//! ```
//!
//! What happened is collected in [`News`]; the session takes it after each call and decides.

mod h1;
#[cfg(feature = "http2")]
mod h2;
mod progress;

use alloc::string::String;
use alloc::vec::Vec;

use crate::error::{Error, Link, PeerFault, Phase};
use crate::time::{Span, Tick};
use crate::upload::window::Window;
use crate::upload::wire::{AckObject, AckParser, ResumeHeaders};
use progress::Progress;

/// How a recorder is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `POST /castkeep/1/record`: commit and resume over HTTP/1.1.
    Upgrade,
    /// `POST /record`, without acks.
    V1,
    /// `POST /v2/record`, with acks.
    V2,
    /// `POST /v2/record` with commit and resume.
    V2Commit,
}

impl Protocol {
    /// Whether the recorder tells what it has stored.
    #[must_use]
    pub const fn has_commit(self) -> bool {
        matches!(self, Self::Upgrade | Self::V2Commit)
    }
}

/// What is tried on a link. Another one needs a new link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// `castkeep/1` over HTTP/1.1.
    Upgrade,
    /// Stock over HTTP/1.1.
    V1,
    /// HTTP/2: the probe tells what the peer can.
    V2,
}

/// The waits of an upload.
#[derive(Clone, Copy, Debug)]
pub struct Waits {
    /// Response headers, 100 or 101.
    pub accept: Span,
    /// Silence of a castkeep recorder while data is outstanding.
    pub ack_silence_commit: Span,
    /// Silence of a stock v2 recorder.
    pub ack_silence_stock: Span,
    /// Bytes without progress.
    pub progress: Span,
}

/// What the POST says.
#[derive(Clone, Debug)]
pub struct Post {
    /// The fields of the extension; `offset` counts for stock peers as well.
    pub resume: ResumeHeaders,
    /// The header line of the continuation; empty with offset 0.
    pub header: Vec<u8>,
}

/// What happened since it was last taken. Several may be set; they count in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// The peer speaks v2: it is never to be spoken to in v1.
    pub spoke_v2: bool,
    /// [`Client::post`] may be called.
    pub ready: bool,
    /// The recorder accepted.
    pub accepted: Option<Protocol>,
    /// The stream is stored (stock: received) up to here; it grew.
    pub stored: Option<u64>,
    /// The recorder wants us to go elsewhere.
    pub drain: bool,
    /// The upload is over in order and everything is stored.
    pub sealed: bool,
    /// The peer does not know this protocol.
    pub unsupported: bool,
    /// The upload is over with a fault.
    pub failed: Option<Error>,
}

/// One upload.
#[derive(Debug)]
pub struct Client {
    wire: Wire,
    state: State,
    waits: Waits,
    news: News,
    text: String,
}

#[derive(Debug)]
enum Wire {
    H1(h1::Wire),
    #[cfg(feature = "http2")]
    H2(Box<h2::Wire>),
}

/// See the picture of the module.
#[derive(Debug)]
enum State {
    /// The probe was sent.
    #[cfg_attr(not(feature = "http2"), allow(dead_code))]
    Probing { deadline: Tick },
    /// The owner decides when to post.
    Ready,
    /// The request was sent.
    Posting { deadline: Tick, body: Body },
    /// Accepted.
    Streaming { protocol: Protocol, body: Body, progress: Progress, acks: AckParser },
    /// Done with, or failed.
    Over,
}

/// What of the body was sent.
#[derive(Debug)]
struct Body {
    /// Header line of the continuation, sent first.
    header: Vec<u8>,
    /// 0 <= header_sent <= header.len()
    header_sent: usize,
    /// Offset behind the header line.
    from: u64,
    /// The next byte of the stream to be sent; from <= cursor.
    cursor: u64,
    end: End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// More may come.
    Open,
    /// The upload ends at this offset.
    At(u64),
    /// The end was sent.
    Sent(u64),
}

/// What a wire found in its input.
enum Found<'a> {
    /// The probe was answered: 200 or not.
    #[cfg_attr(not(feature = "http2"), allow(dead_code))]
    Probe { supported: bool, extension: bool, ack: Option<Span>, refused: Option<Error> },
    /// The POST was accepted.
    Accepted { protocol: Protocol, commit: Option<u64>, ack: Option<Span> },
    /// The peer does not know the protocol.
    Unsupported,
    /// Bytes of the ack stream.
    Acks(&'a [u8]),
    /// The answer ended in order.
    Ended,
    /// v1: everything is stored.
    Stored,
    /// It is over.
    Failed(Error),
}

impl Client {
    /// An upload over a link that is being made. `probe_by` ends the wait for the answer to the probe.
    #[must_use]
    pub fn new(plan: Plan, authority: &str, tls: bool, waits: Waits, probe_by: Tick) -> Self {
        let h1 = |upgrade| Wire::H1(h1::Wire::new(upgrade, authority));
        let (wire, state) = match plan {
            Plan::Upgrade => (h1(true), State::Ready),
            #[cfg(feature = "http2")]
            Plan::V2 => (
                Wire::H2(Box::new(h2::Wire::new(authority, tls))),
                State::Probing { deadline: probe_by },
            ),
            #[cfg(not(feature = "http2"))]
            Plan::V2 => {
                let _ = (tls, probe_by);
                (h1(false), State::Ready)
            }
            Plan::V1 => (h1(false), State::Ready),
        };
        let ready = matches!(state, State::Ready);
        let news = News { ready, ..News::default() };
        Self { wire, state, waits, news, text: String::new() }
    }

    /// Makes the request. Its answer has to come within [`Waits::accept`].
    pub fn post(&mut self, now: Tick, post: Post) {
        if !matches!(self.state, State::Ready) {
            return;
        }
        let sent = match &mut self.wire {
            Wire::H1(wire) => wire.post(&post.resume),
            #[cfg(feature = "http2")]
            Wire::H2(wire) => wire.post(&post.resume),
        };
        if let Err(e) = sent {
            return self.fail(e);
        }
        let from = post.resume.offset;
        let body = Body { header: post.header, header_sent: 0, from, cursor: from, end: End::Open };
        self.state = State::Posting { deadline: now.after(self.waits.accept), body };
    }

    /// Bytes came. `end` is the end of the stream so far.
    pub fn handle_input(&mut self, now: Tick, mut input: &[u8], end: u64) {
        loop {
            if matches!(self.state, State::Over) {
                return;
            }
            let found = match &mut self.wire {
                Wire::H1(wire) => wire.handle_input(&mut input),
                #[cfg(feature = "http2")]
                Wire::H2(wire) => wire.handle_input(now, &mut input),
            };
            let Some(found) = found else { return };
            match found {
                Found::Acks(bytes) => {
                    if let Err(e) = handle_acks(
                        &mut self.state,
                        &mut self.news,
                        &mut self.text,
                        now,
                        bytes,
                        end,
                    ) {
                        self.fail(e);
                    }
                }
                other => {
                    let owned = own(other);
                    self.handle_found(now, owned, end);
                }
            }
        }
    }

    /// The peer closed its side.
    pub fn handle_eof(&mut self, now: Tick, end: u64) {
        let ended = match &self.wire {
            Wire::H1(wire) => wire.ends_at_eof(),
            #[cfg(feature = "http2")]
            Wire::H2(_) => false,
        };
        match &self.state {
            State::Over => {}
            State::Probing { .. } => self.unsupported(),
            _ if ended => self.handle_found(now, Found::Ended, end),
            _ => self.fail(Error::Link(Link::Closed)),
        }
    }

    /// Fills `out` from the ring as far as there is something to send.
    pub fn poll_transmit(&mut self, now: Tick, window: &Window, out: &mut [u8]) -> usize {
        let mut written = match &mut self.wire {
            Wire::H1(wire) => wire.poll_head(out),
            #[cfg(feature = "http2")]
            Wire::H2(wire) => wire.poll_queued(out),
        };
        let State::Streaming { body, progress, .. } = &mut self.state else { return written };
        loop {
            let header = body.header.get(body.header_sent..).unwrap_or_default();
            let (data, is_header) = if header.is_empty() {
                let data = window.bytes(body.cursor);
                let data = match body.end {
                    End::Open => data,
                    End::At(end) | End::Sent(end) => {
                        let left = usize::try_from(end.saturating_sub(body.cursor));
                        data.get(..left.unwrap_or(usize::MAX).min(data.len())).unwrap_or_default()
                    }
                };
                (data, false)
            } else {
                (header, true)
            };
            if !is_header && data.is_empty() && body.cursor < window.start() {
                // Only an upload that is being left: its bytes went with those that follow at the next recorder.
                return written;
            }
            let Some(room) = out.get_mut(written..).filter(|r| !r.is_empty()) else { break };
            let at_end = !is_header
                && matches!(body.end, End::At(end) if body.cursor.saturating_add(data.len() as u64) == end);
            let sent = match &mut self.wire {
                Wire::H1(wire) => wire.write(data, at_end, room),
                #[cfg(feature = "http2")]
                Wire::H2(wire) => wire.write(data, at_end, room),
            };
            written = written.saturating_add(sent.written);
            if is_header {
                body.header_sent = body.header_sent.saturating_add(sent.taken);
            } else {
                body.cursor = body.cursor.saturating_add(sent.taken as u64);
            }
            if sent.taken > 0 {
                progress.sent(now, body.cursor);
            }
            if at_end && sent.ended {
                body.end = End::Sent(body.cursor);
                break;
            }
            if sent.written == 0 {
                break;
            }
        }
        self.update(now, window.end());
        written
    }

    /// The stream ends at `end`: the upload ends there in order, and the recorder seals it.
    pub fn finish(&mut self, now: Tick, end: u64) {
        match &mut self.state {
            State::Streaming { body, .. } if body.end == End::Open => body.end = End::At(end),
            _ => {}
        }
        self.update(now, end);
    }

    /// The upload goes on elsewhere: ends this one behind the line that is being sent.
    pub fn leave(&mut self, now: Tick, window: &Window) {
        match &mut self.state {
            State::Streaming { body, .. } if body.end == End::Open => {
                body.end = End::At(window.next_line_start(body.cursor).max(body.cursor));
            }
            _ => {}
        }
        self.update(now, window.end());
    }

    /// Tells the clocks how far the stream is.
    pub fn update(&mut self, now: Tick, end: u64) {
        if let State::Streaming { body, progress, .. } = &mut self.state {
            let header = body.header_sent < body.header.len();
            let ending = body.end != End::Open;
            progress.update(now, body.cursor, end, header, ending);
        }
    }

    /// The time of [`Client::poll_timeout`] came. Harmless at any time.
    pub fn handle_timeout(&mut self, now: Tick) {
        match &self.state {
            State::Probing { deadline } if *deadline <= now => self.unsupported(),
            State::Posting { deadline, .. } if *deadline <= now => {
                self.fail(Error::TimedOut(Phase::Accept));
            }
            State::Streaming { progress, .. } => {
                let deadline = progress.deadline(&self.waits);
                if let Some((_, phase)) = deadline.filter(|(at, _)| *at <= now) {
                    self.fail(Error::TimedOut(phase));
                }
            }
            _ => {}
        }
    }

    /// When [`Client::handle_timeout`] is wanted.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Tick> {
        match &self.state {
            State::Probing { deadline } | State::Posting { deadline, .. } => Some(*deadline),
            State::Streaming { progress, .. } => progress.deadline(&self.waits).map(|d| d.0),
            State::Ready | State::Over => None,
        }
    }

    /// What happened since the last call.
    pub fn take_news(&mut self) -> News {
        core::mem::take(&mut self.news)
    }

    /// Whether the request was made and not answered.
    #[must_use]
    pub const fn is_posting(&self) -> bool {
        matches!(self.state, State::Posting { .. })
    }

    /// Whether [`Client::post`] may be called.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready)
    }

    /// Where this upload began in the stream, once it was posted.
    #[must_use]
    pub const fn from(&self) -> Option<u64> {
        match &self.state {
            State::Posting { body, .. } | State::Streaming { body, .. } => Some(body.from),
            _ => None,
        }
    }

    /// How far the stream was sent.
    #[must_use]
    pub const fn cursor(&self) -> Option<u64> {
        match &self.state {
            State::Streaming { body, .. } => Some(body.cursor),
            _ => None,
        }
    }

    /// Whether everything up to the end of the stream went out, END included when it was asked for.
    #[must_use]
    pub fn is_sent(&self, end: u64) -> bool {
        match &self.state {
            State::Streaming { body, .. } => match body.end {
                End::Open => body.header_sent == body.header.len() && body.cursor >= end,
                End::At(_) => false,
                End::Sent(_) => true,
            },
            _ => false,
        }
    }

    /// How it is spoken.
    #[must_use]
    pub const fn protocol(&self) -> Option<Protocol> {
        match &self.state {
            State::Streaming { protocol, .. } => Some(*protocol),
            _ => None,
        }
    }

    /// Whether the probe offered commit and resume. None before it was answered, and without probe.
    #[must_use]
    pub const fn offers_commit(&self) -> Option<bool> {
        match &self.wire {
            Wire::H1(wire) => Some(wire.is_upgrade()),
            #[cfg(feature = "http2")]
            Wire::H2(wire) => wire.offers_commit(),
        }
    }

    /// The last text of the peer, untrusted.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    fn handle_found(&mut self, now: Tick, found: Found<'_>, end: u64) {
        match (core::mem::replace(&mut self.state, State::Over), found) {
            (State::Probing { .. }, Found::Probe { supported: true, .. }) => {
                self.state = State::Ready;
                self.news.spoke_v2 = true;
                self.news.ready = true;
            }
            (State::Probing { .. }, Found::Probe { refused: Some(e), .. }) => {
                self.news.spoke_v2 = true;
                self.fail(e);
            }
            (State::Probing { .. }, _) => self.unsupported(),
            (State::Posting { .. }, Found::Unsupported) => self.unsupported(),
            (State::Posting { body, .. }, Found::Accepted { protocol, commit, ack }) => {
                let from = body.from;
                let first = match commit {
                    Some(m) if protocol.has_commit() && (m < from || m > end) => {
                        return self.fail(Error::Peer(PeerFault::CommitOutOfRange));
                    }
                    Some(m) if protocol.has_commit() => m,
                    _ => from,
                };
                let mut progress = Progress::new(now, protocol, first, ack);
                progress.update(now, body.cursor, end, !body.header.is_empty(), false);
                self.state = State::Streaming { protocol, body, progress, acks: AckParser::new() };
                self.news.accepted = Some(protocol);
                if protocol.has_commit() && commit.is_some() {
                    self.news.stored = Some(first);
                }
            }
            (
                State::Streaming { protocol, body, progress, acks },
                found @ (Found::Ended | Found::Stored),
            ) => {
                let between = acks.is_between();
                let all = match (body.end, protocol) {
                    (End::Sent(_), Protocol::V1) => matches!(found, Found::Stored),
                    (End::Sent(_), Protocol::V2) => between,
                    (End::Sent(at), _) => between && progress.stored() >= at,
                    _ => false,
                };
                match (body.end, all) {
                    (End::Sent(at), true) => {
                        self.news.stored = Some(at.max(progress.stored()));
                        self.news.sealed = true;
                    }
                    _ if !between => self.fail(Error::Peer(PeerFault::BadAck)),
                    _ => self.fail(Error::Peer(PeerFault::EndedEarly)),
                }
            }
            (_, Found::Failed(e)) => self.fail(e),
            (_, Found::Ended | Found::Stored) => self.fail(Error::Peer(PeerFault::EndedEarly)),
            _ => self.fail(Error::Peer(PeerFault::Http)),
        }
    }

    fn unsupported(&mut self) {
        self.state = State::Over;
        self.news.unsupported = true;
    }

    fn fail(&mut self, e: Error) {
        self.state = State::Over;
        self.news.failed = Some(self.news.failed.unwrap_or(e));
    }
}

/// Everything but ack bytes borrows nothing.
fn own(found: Found<'_>) -> Found<'static> {
    match found {
        Found::Acks(_) => Found::Acks(&[]),
        Found::Probe { supported, extension, ack, refused } => {
            Found::Probe { supported, extension, ack, refused }
        }
        Found::Accepted { protocol, commit, ack } => Found::Accepted { protocol, commit, ack },
        Found::Unsupported => Found::Unsupported,
        Found::Ended => Found::Ended,
        Found::Stored => Found::Stored,
        Found::Failed(e) => Found::Failed(e),
    }
}

/// Reads ack objects.
fn handle_acks(
    state: &mut State,
    news: &mut News,
    text: &mut String,
    now: Tick,
    mut bytes: &[u8],
    end: u64,
) -> Result<(), Error> {
    let State::Streaming { protocol, body, progress, acks } = state else {
        return Err(Error::Peer(PeerFault::Http));
    };
    while let Some(object) = acks.next(&mut bytes)? {
        if news.sealed {
            break;
        }
        let AckObject { ack, commit, sealed, error, drain, .. } = object;
        progress.object(now);
        if let Some(error) = error.filter(|e| !e.is_empty()) {
            let fault = match error.split([' ', ':']).next() {
                Some("conflict") => PeerFault::Conflict,
                Some("superseded") => PeerFault::Superseded,
                _ => PeerFault::Reported,
            };
            *text = error;
            return Err(Error::Peer(fault));
        }
        if protocol.has_commit() {
            if let Some(m) = commit {
                if m < progress.stored() || m > end {
                    return Err(Error::Peer(PeerFault::CommitOutOfRange));
                }
                if progress.stored_up_to(now, m) {
                    news.stored = Some(m);
                }
            }
            let all_sent = body.header_sent == body.header.len() && body.cursor >= end;
            if all_sent && ack.is_some_and(|a| a >= body.sent()) && progress.stored() >= end {
                // Nothing was left to commit, and the recorder shows that it is well.
                news.stored = Some(progress.stored());
            }
            news.drain |= drain;
            if let Some(t) = sealed {
                match body.end {
                    End::Sent(at) if t == at => {
                        progress.stored_up_to(now, t);
                        news.stored = Some(t);
                        news.sealed = true;
                    }
                    _ => return Err(Error::Peer(PeerFault::CommitOutOfRange)),
                }
            }
        } else if let Some(a) = ack {
            let received = body.offset_of(a);
            if received > progress.stored() {
                progress.stored_up_to(now, received);
                news.stored = Some(received);
            }
        }
    }
    Ok(())
}

impl Body {
    /// Body bytes that were sent.
    fn sent(&self) -> u64 {
        (self.header_sent as u64).saturating_add(self.cursor.saturating_sub(self.from))
    }

    /// The offset in the stream of a count of body bytes: without the header line of the continuation, and never past
    /// what was sent, whatever the peer counts.
    fn offset_of(&self, ack: u64) -> u64 {
        let behind = ack.saturating_sub(self.header.len() as u64);
        self.from.saturating_add(behind).min(self.cursor)
    }
}
