//! A connection that speaks HTTP/1.1.

use alloc::string::String;
use alloc::vec::Vec;

use super::buffer::Buffer;
use super::exchange::Exchange;
use super::route::{self, Head, Route};
use super::{HowEnded, Protocol, Request, RequestId, ServerConfig, Shared};
use crate::http1::{self, BodyDecoder, BodyKind, HeadError, RequestHead};
use crate::limits::{HEAD_BYTES, LINGER_BYTES, LINGER_TIME, SERVER_BODY_BYTES, UNREAD_BYTES};
use crate::time::Tick;
use crate::upload::upgrade::FrameDecoder;
use crate::upload::wire::{Decimal, H_ACK_MS, H_COMMIT, UPGRADE};

/// The connection.
///
/// ```text
/// Head ─► Body ─► Waiting ─► Head …       keep-alive
///   └──────┴────────┴──► Linger ─► Closed
/// ```
#[derive(Debug)]
pub(super) struct H1 {
    state: State,
    /// The request that is under way.
    pub(super) exchange: Option<Exchange>,
    /// Bytes for the peer.
    out: Buffer,
    keep_alive: bool,
    eof: bool,
    /// The shell was told that an ack is due: until it asks for output, it is not told again.
    ack_told: bool,
}

#[derive(Debug)]
enum State {
    /// Collecting a head. `since` is when its first byte came, `idle` when the connection became idle.
    Head { head: Vec<u8>, since: Option<Tick>, idle: Tick },
    /// Reading a body. None before a 101: nothing is read until it went out.
    Body(Body),
    /// The body ended; the answer is missing.
    Waiting,
    /// The answer is out and the peer may still be sending: its bytes are read over for a while, because closing a socket
    /// with unread bytes resets it and can destroy the answer.
    Linger { until: Tick, left: usize },
    /// Over.
    Closed,
}

#[derive(Debug)]
enum Body {
    Http(BodyDecoder),
    Frames(FrameDecoder),
}

impl H1 {
    /// `first` are bytes that were taken while the version was not known.
    pub(super) fn new(now: Tick, first: &[u8]) -> Self {
        let since = (!first.is_empty()).then_some(now);
        Self {
            state: State::Head { head: first.to_vec(), since, idle: now },
            exchange: None,
            out: Buffer::default(),
            keep_alive: true,
            eof: false,
            ack_told: false,
        }
    }

    pub(super) fn handle_input(&mut self, shared: &mut Shared, now: Tick, input: &[u8]) -> usize {
        let mut taken = 0usize;
        while let Some(rest) = input.get(taken..).filter(|r| !r.is_empty()) {
            let n = match &mut self.state {
                State::Head { .. } => self.read_head(shared, now, rest),
                State::Body(_) => self.read_body(shared, now, rest),
                State::Waiting => 0,
                State::Linger { left, .. } => {
                    *left = left.saturating_sub(rest.len());
                    if *left == 0 {
                        self.state = State::Closed;
                    }
                    rest.len()
                }
                State::Closed => rest.len(),
            };
            if n == 0 {
                break;
            }
            taken = taken.saturating_add(n);
        }
        taken
    }

    fn read_head(&mut self, shared: &mut Shared, now: Tick, input: &[u8]) -> usize {
        let State::Head { head, since, .. } = &mut self.state else { return 0 };
        since.get_or_insert(now);
        let before = head.len();
        let room = HEAD_BYTES.saturating_sub(before).min(input.len());
        let part = input.get(..room).unwrap_or_default();
        let head = core::mem::take(head);
        // Most heads come in one piece and need no copy; a new parse is worth it only when a line came to its end.
        if before == 0 {
            return self.parse_head(shared, now, part, 0);
        }
        let mut head = head;
        head.extend_from_slice(part);
        if !part.contains(&b'\n') && head.len() < HEAD_BYTES {
            self.keep_head(head);
            return part.len();
        }
        self.parse_head(shared, now, &head, before)
    }

    fn keep_head(&mut self, bytes: Vec<u8>) {
        if let State::Head { head, .. } = &mut self.state {
            *head = bytes;
        }
    }

    /// `before` bytes of `head` were taken earlier. How many more were taken.
    fn parse_head(&mut self, shared: &mut Shared, now: Tick, head: &[u8], before: usize) -> usize {
        match http1::parse_request(head) {
            Ok(Some((request, used))) => {
                self.handle_request(shared, now, &request);
                used.saturating_sub(before)
            }
            Ok(None) => {
                self.keep_head(head.to_vec());
                head.len().saturating_sub(before)
            }
            Err(HeadError::Malformed | HeadError::Version) if !looks_like_http(head) => {
                self.state = State::Closed;
                head.len().saturating_sub(before)
            }
            Err(error) => {
                let (status, text) = match error {
                    HeadError::Malformed => (400, "the request cannot be parsed"),
                    HeadError::TooLarge => (431, "the request head is too large"),
                    HeadError::Version => (505, "this is not HTTP/1.1"),
                };
                self.refuse_connection(now, status, text);
                head.len().saturating_sub(before)
            }
        }
    }

    fn handle_request(&mut self, shared: &mut Shared, now: Tick, request: &RequestHead<'_>) {
        let fields = &request.fields;
        // One that asks and asks and reads no answer is let go.
        let reads = self.out.len() < UNREAD_BYTES;
        self.keep_alive = request.keep_alive() && reads && !shared.shutdown;
        let length = match request.body {
            BodyKind::Length(n) => Some(n),
            _ => None,
        };
        let what = route::route(&Head {
            method: request.method,
            path: request.path(),
            http2: false,
            find: |name: &str| fields.get(name),
            from_browser: fields.count("origin") > 0 || fields.count("sec-fetch-site") > 0,
            upgrade: request.upgrades_to(UPGRADE),
            has_body: request.body != BodyKind::None,
            content_length: length,
            extension: shared.cfg.extension,
            available: shared.available,
        });
        let Route::Ask(kind) = what else {
            // A body that comes with it is of no use, and cannot be told from the next request without reading it.
            self.keep_alive &= request.body == BodyKind::None;
            self.answer_inside(&shared.cfg, now, request.method == "HEAD", &what);
            return;
        };
        let id = shared.new_id();
        let mut exchange = Exchange::new(id, 0, Some(kind));
        exchange.expects_continue = request.expects_continue();
        shared.requests.push_back(Request { id, kind });
        let upgrades = exchange.protocol() == Some(Protocol::Upgrade);
        self.state = if upgrades {
            State::Body(Body::Frames(FrameDecoder::new()))
        } else if request.body == BodyKind::None {
            exchange.end_body(HowEnded::Clean);
            State::Waiting
        } else {
            State::Body(Body::Http(BodyDecoder::new(request.body)))
        };
        self.exchange = Some(exchange);
    }

    fn read_body(&mut self, shared: &mut Shared, now: Tick, input: &[u8]) -> usize {
        let (State::Body(body), Some(exchange)) = (&mut self.state, &mut self.exchange) else {
            return 0;
        };
        if exchange.body.len() >= SERVER_BODY_BYTES {
            return 0;
        }
        let (piece, done) = match body {
            // Before its 101 a client has nothing to say; if it does, it waits.
            Body::Frames(_) if exchange.is_pending() => return 0,
            Body::Frames(frames) => (frames.decode(input), frames.is_done()),
            Body::Http(decoder) => (decoder.decode(input), decoder.is_done()),
        };
        let Ok(piece) = piece else {
            self.break_body(now);
            return input.len();
        };
        if !exchange.push_body(piece.data) {
            let id = exchange.id;
            shared.lose(exchange);
            self.answer(now, true, id, 413, "the event is too large");
            return input.len();
        }
        if done {
            exchange.end_body(HowEnded::Clean);
            self.state = State::Waiting;
        }
        piece.consumed
    }

    /// The framing is broken: what came before it counts, the connection is of no more use.
    fn break_body(&mut self, now: Tick) {
        let Some(exchange) = &mut self.exchange else { return };
        exchange.end_body(HowEnded::Truncated);
        self.keep_alive = false;
        if exchange.has_acks() {
            exchange.break_off("malformed frame");
            self.ended(now);
        } else {
            self.state = State::Waiting;
        }
    }

    pub(super) fn handle_eof(&mut self, shared: &mut Shared) {
        self.eof = true;
        match &mut self.state {
            State::Body(_) => {
                self.handle_lost(shared);
            }
            // The answer may still be wanted: a peer can close one side only.
            State::Waiting => {}
            State::Head { .. } | State::Linger { .. } | State::Closed => {
                self.state = State::Closed;
            }
        }
    }

    /// Nothing goes out any more. What was received is still read.
    pub(super) fn handle_lost(&mut self, shared: &mut Shared) {
        self.out.clear();
        self.state = State::Closed;
        self.exchange.take_if(|exchange| {
            if exchange.is_of_interest() && !exchange.is_pending() {
                exchange.end_body(HowEnded::Truncated);
                exchange.acks.stop();
                return false;
            }
            shared.lose(exchange);
            true
        });
    }

    /// Forgets a request whose end was told and that nobody waits for.
    pub(super) fn sweep(&mut self) {
        if self.exchange.take_if(|e| e.is_answered()).is_some() {
            match &self.state {
                State::Waiting if !self.eof => {
                    let text = "the body cannot be parsed";
                    push_text(&mut self.out, 400, &[], false, false, text);
                    self.state = State::Closed;
                }
                State::Waiting => self.state = State::Closed,
                _ => {}
            }
        }
    }

    pub(super) fn handle_timeout(&mut self, shared: &Shared, now: Tick) {
        self.ack_told = self.ack_due().is_some_and(|due| due <= now);
        match &self.state {
            State::Head { since: Some(since), .. } if now >= since.after(shared.cfg.head_time) => {
                self.refuse_connection(now, 408, "the request head took too long");
            }
            State::Head { since: None, idle, .. } if now >= idle.after(shared.cfg.idle_time) => {
                self.state = State::Closed;
            }
            State::Linger { until, .. } if now >= *until => self.state = State::Closed,
            _ => {}
        }
    }

    pub(super) fn poll_timeout(&self, cfg: &ServerConfig) -> Option<Tick> {
        let own = match &self.state {
            State::Head { since: Some(since), .. } => Some(since.after(cfg.head_time)),
            State::Head { since: None, idle, .. } => Some(idle.after(cfg.idle_time)),
            State::Linger { until, .. } => Some(*until),
            _ => None,
        };
        [own, self.ack_due().filter(|_| !self.ack_told)].into_iter().flatten().min()
    }

    /// With output waiting the peer is the one to be waited for, not the clock.
    fn ack_due(&self) -> Option<Tick> {
        let ready = self.exchange.as_ref().filter(|e| self.out.is_empty() && e.out.is_empty());
        ready.and_then(|e| e.acks.due())
    }

    pub(super) fn accept(
        &mut self,
        cfg: &ServerConfig,
        now: Tick,
        id: RequestId,
        commit: Option<u64>,
    ) {
        let Some(exchange) = self.exchange.as_mut().filter(|e| e.id == id && e.is_pending()) else {
            return;
        };
        if exchange.protocol() == Some(Protocol::Upgrade) {
            let commit = commit.unwrap_or(0);
            exchange.accept(now, Some(cfg.ack_period_commit), Some(commit));
            push_head(
                &mut self.out,
                101,
                &[
                    ("Connection", "Upgrade"),
                    ("Upgrade", UPGRADE),
                    (H_COMMIT, Decimal::new(commit).as_str()),
                    (H_ACK_MS, Decimal::new(cfg.ack_period_commit.0 / 1000).as_str()),
                ],
            );
            return;
        }
        exchange.accept(now, None, None);
        if exchange.expects_continue {
            self.out.push(http1::CONTINUE);
        }
    }

    /// The final answer to the request.
    pub(super) fn answer(
        &mut self,
        now: Tick,
        shutdown: bool,
        id: RequestId,
        status: u16,
        text: &str,
    ) {
        let Some(exchange) = self.exchange.take_if(|e| e.id == id && !e.is_answered()) else {
            return;
        };
        // A client that expects 100 and gets a final answer may or may not send its body.
        let whole = matches!(self.state, State::Waiting)
            && exchange.body.is_empty()
            && exchange.body_ended();
        self.keep_alive &= whole && !shutdown;
        push_text(&mut self.out, status, &[], self.keep_alive, false, text);
        self.after_answer(now, exchange.body_ended());
    }

    /// Answers that the shell does not hear of.
    fn answer_inside(&mut self, cfg: &ServerConfig, now: Tick, is_head: bool, what: &Route) {
        let keep = self.keep_alive;
        match what {
            Route::Refuse { status, text, allow } => {
                let mut fields: Vec<(&str, &str)> = Vec::new();
                fields.extend(allow.map(|a| ("Allow", a)));
                if *status == 426 {
                    fields.push(("Upgrade", UPGRADE));
                }
                push_text(&mut self.out, *status, &fields, keep, is_head, text);
            }
            Route::Banner => push_text(&mut self.out, 200, &[], keep, is_head, &cfg.banner),
            Route::EventProbe | Route::Probe | Route::Ask(_) => {
                push_text(&mut self.out, 200, &[], keep, is_head, "");
            }
        }
        self.after_answer(now, keep);
    }

    fn after_answer(&mut self, now: Tick, body_ended: bool) {
        self.state = if self.keep_alive && !self.eof {
            State::Head { head: Vec::new(), since: None, idle: now }
        } else if body_ended || self.eof {
            State::Closed
        } else {
            State::Linger { until: now.after(LINGER_TIME), left: LINGER_BYTES }
        };
    }

    /// The ack stream has its last object: it goes out, then the connection ends.
    pub(super) fn ended(&mut self, now: Tick) {
        let mut whole = false;
        if let Some(exchange) = &mut self.exchange {
            self.out.push(exchange.out.bytes());
            exchange.out.clear();
            if !exchange.is_of_interest() {
                whole = exchange.body_ended();
                self.exchange = None;
            }
        }
        self.keep_alive = false;
        self.after_answer(now, whole);
    }

    /// Answers what is not even a request, and ends the connection.
    pub(super) fn refuse_connection(&mut self, now: Tick, status: u16, text: &str) {
        self.keep_alive = false;
        push_text(&mut self.out, status, &[], false, false, text);
        self.after_answer(now, false);
    }

    pub(super) const fn wants_shutdown(&self) -> bool {
        matches!(self.state, State::Linger { .. }) && self.out.is_empty()
    }

    pub(super) fn shutdown(&mut self) {
        self.keep_alive = false;
        if let State::Head { since: None, .. } = self.state {
            self.state = State::Closed;
        }
    }

    pub(super) fn poll_transmit(&mut self, now: Tick, out: &mut [u8]) -> usize {
        self.ack_told = false;
        if let Some(exchange) = &mut self.exchange
            && self.out.is_empty()
        {
            exchange.run_acks(now);
            self.out.push(exchange.out.bytes());
            exchange.out.clear();
        }
        self.out.drain_into(out)
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed) && self.exchange.is_none()
    }
}

/// Whether the first line names HTTP. To a peer that speaks something else, such as a broken HTTP/2 preface, an answer in
/// HTTP/1.1 says nothing.
fn looks_like_http(head: &[u8]) -> bool {
    let line = head.split(|b| *b == b'\n').next().unwrap_or_default();
    line.windows(6).any(|w| w == b" HTTP/")
}

fn push_head(out: &mut Buffer, status: u16, fields: &[(&str, &str)]) {
    let mut head = [0u8; 1024];
    if let Ok(n) = http1::write_response(&mut head, status, fields) {
        out.push(head.get(..n).unwrap_or_default());
    }
}

/// A final answer with one line of text.
fn push_text(
    out: &mut Buffer,
    status: u16,
    fields: &[(&str, &str)],
    keep_alive: bool,
    is_head: bool,
    text: &str,
) {
    let mut line = String::from(text);
    if !line.is_empty() {
        line.push('\n');
    }
    let length = Decimal::new(line.len() as u64);
    let mut all: Vec<(&str, &str)> = fields.to_vec();
    if !line.is_empty() {
        all.push(("Content-Type", "text/plain; charset=utf-8"));
    }
    all.push(("Content-Length", length.as_str()));
    if !keep_alive {
        all.push(("Connection", "close"));
    }
    push_head(out, status, &all);
    if !is_head {
        out.push(line.as_bytes());
    }
}
