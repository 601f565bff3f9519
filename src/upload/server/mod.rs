//! One connection of a recorder, HTTP/1.1 or HTTP/2, without a socket: docs/protocol.md §1 to §6.
//!
//! The loop of the shell, in this order:
//!
//! ```text
//! read bytes into a buffer
//! n = handle_input(now, buffer)            n < len: keep the rest and offer it again after consume()
//! while let Some(event) = poll_event()     Request: accept() or refuse(); Body: body(), consume(); End
//! while poll_transmit(now, out) > 0        write it
//! wants_shutdown(): shut the sending side down
//! wait for the socket, the storage, or poll_timeout(); then handle_timeout(now)
//! is_closed(): write what is left, close
//! end of file: handle_eof() once, and read no more; the loop goes on until is_closed()
//! ```

mod acks;
mod buffer;
mod exchange;
mod h1;
mod h2;
mod route;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;

use crate::http2::PREFACE;
use crate::time::{Span, Tick};
use crate::upload::wire::ResumeHeaders;
use exchange::Exchange;
use h1::H1;
use h2::H2;

/// How a connection behaves.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// ALPN chose h2: no other protocol is accepted. Otherwise the preface decides.
    pub h2_only: bool,
    /// ALPN chose http/1.1.
    pub h1_only: bool,
    /// Whether the extension is offered.
    pub extension: bool,
    /// Period of ack objects for stock peers.
    pub ack_period_stock: Span,
    /// Period of ack objects for castkeep peers.
    pub ack_period_commit: Span,
    /// Time for a request head.
    pub head_time: Span,
    /// A connection without a request.
    pub idle_time: Span,
    /// HTTP/2: a PING goes out when the peer was silent so long, and the connection ends when it stays so once more.
    pub ping_time: Span,
    /// The line that `GET /` answers.
    pub banner: String,
}

/// One request of the connection: small, with a generation, never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u32);

/// How a recording is uploaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `POST /record`.
    V1,
    /// `POST /v2/record` of a stock client.
    V2,
    /// `POST /v2/record` with the extension.
    V2Commit,
    /// `POST /castkeep/1/record`.
    Upgrade,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A recording.
    Record {
        /// How.
        protocol: Protocol,
        /// The fields of the extension: always there with V2Commit and Upgrade, never otherwise.
        resume: Option<ResumeHeaders>,
    },
    /// One event: its body ends with `End`; then answer with `finish`.
    Event,
}

/// A request that wants `accept` or `refuse`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Names it from now on.
    pub id: RequestId,
    /// What it is.
    pub kind: Kind,
}

/// Why the body of a request is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HowEnded {
    /// END_STREAM, the last chunk, the empty frame: the client ended it in order.
    Clean,
    /// In order, after `drain` was sent: the client goes on elsewhere.
    Moved,
    /// The connection was lost, the stream reset, or the framing broken: the recording is open for a resume.
    Truncated,
}

/// What the shell has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Answer with [`Server::accept`] or [`Server::refuse`].
    Request(Request),
    /// Body bytes wait: read [`Server::body`], then [`Server::consume`]. Comes again when more came, and when some were
    /// consumed and others are left.
    Body {
        /// Whose.
        id: RequestId,
        /// How many.
        len: usize,
    },
    /// No more body comes. Truncated: the request is gone. Otherwise end it with [`Server::seal`], [`Server::fail`] or
    /// [`Server::finish`].
    End {
        /// Whose.
        id: RequestId,
        /// How.
        how: HowEnded,
    },
}

/// One connection.
///
/// ```text
/// Undecided ─► H1 or H2 ─► closed
/// ```
#[derive(Debug)]
pub struct Server {
    shared: Shared,
    link: Link,
}

/// What both versions need to know.
#[derive(Debug)]
struct Shared {
    cfg: ServerConfig,
    available: Result<(), &'static str>,
    next_id: u32,
    /// Requests that the shell was not told of yet.
    requests: VecDeque<Request>,
    /// Ends of requests that are gone already.
    gone: VecDeque<RequestId>,
    shutdown: bool,
}

#[derive(Debug)]
enum Link {
    /// So many bytes of the preface were seen; None is for a peer that sent nothing.
    Undecided {
        seen: u8,
        opened: Tick,
        first: Option<Tick>,
    },
    H1(Box<H1>),
    H2(Box<H2>),
    Closed,
}

impl Shared {
    fn new_id(&mut self) -> RequestId {
        self.next_id = self.next_id.wrapping_add(1);
        RequestId(self.next_id)
    }

    /// The request is no more; the shell is told when it knew of it.
    fn lose(&mut self, exchange: &Exchange) {
        let before = self.requests.len();
        self.requests.retain(|r| r.id != exchange.id);
        if before == self.requests.len() && exchange.is_of_interest() {
            self.gone.push_back(exchange.id);
        }
    }
}

impl Server {
    /// A connection that was just accepted.
    #[must_use]
    pub fn new(cfg: ServerConfig, now: Tick) -> Self {
        let link = if cfg.h2_only {
            Link::H2(Box::new(H2::new(now)))
        } else if cfg.h1_only {
            Link::H1(Box::new(H1::new(now, &[])))
        } else {
            Link::Undecided { seen: 0, opened: now, first: None }
        };
        let shared = Shared {
            cfg,
            available: Ok(()),
            next_id: 0,
            requests: VecDeque::new(),
            gone: VecDeque::new(),
            shutdown: false,
        };
        Self { shared, link }
    }

    /// Bytes came; returns how many were taken. Fewer than all: offer the rest again when body was consumed or a request
    /// was answered.
    pub fn handle_input(&mut self, now: Tick, input: &[u8]) -> usize {
        let mut taken = 0usize;
        if let Link::Undecided { seen, first, .. } = &mut self.link {
            let wanted = PREFACE.get(usize::from(*seen)..).unwrap_or_default();
            let same = wanted.iter().zip(input).take_while(|(w, i)| w == i).count();
            if same == input.len() && same < wanted.len() {
                *seen = seen.saturating_add(u8::try_from(same).unwrap_or(0));
                *first = first.or((same > 0).then_some(now));
                return same;
            }
            let before = PREFACE.get(..usize::from(*seen)).unwrap_or_default();
            if same == wanted.len() {
                let mut h2 = H2::new(now);
                h2.handle_input(&mut self.shared, now, before);
                self.link = Link::H2(Box::new(h2));
            } else {
                self.link = Link::H1(Box::new(H1::new(now, before)));
            }
        }
        match &mut self.link {
            Link::H1(h1) => taken = h1.handle_input(&mut self.shared, now, input),
            Link::H2(h2) => taken = h2.handle_input(&mut self.shared, now, input),
            Link::Closed => taken = input.len(),
            Link::Undecided { .. } => {}
        }
        taken
    }

    /// The peer closed its side.
    pub fn handle_eof(&mut self, now: Tick) {
        let _ = now;
        match &mut self.link {
            Link::H1(h1) => h1.handle_eof(&mut self.shared),
            Link::H2(h2) => h2.handle_eof(&mut self.shared),
            Link::Undecided { .. } => self.link = Link::Closed,
            Link::Closed => {}
        }
    }

    /// The connection is lost.
    pub fn handle_lost(&mut self) {
        match &mut self.link {
            Link::H1(h1) => h1.handle_lost(&mut self.shared),
            Link::H2(h2) => h2.handle_lost(&mut self.shared),
            Link::Undecided { .. } | Link::Closed => self.link = Link::Closed,
        }
    }

    /// The time of [`Server::poll_timeout`] came. Harmless at any time.
    pub fn handle_timeout(&mut self, now: Tick) {
        match &mut self.link {
            Link::H1(h1) => h1.handle_timeout(&self.shared, now),
            Link::H2(h2) => h2.handle_timeout(&mut self.shared, now),
            Link::Undecided { opened, first, .. } => {
                if let Some(first) = first
                    && now >= first.after(self.shared.cfg.head_time)
                {
                    let mut h1 = H1::new(*first, b"");
                    h1.refuse_connection(now, 408, "the request head took too long");
                    self.link = Link::H1(Box::new(h1));
                } else if now >= opened.after(self.shared.cfg.idle_time) {
                    self.link = Link::Closed;
                }
            }
            Link::Closed => {}
        }
    }

    /// When [`Server::handle_timeout`] is wanted.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Tick> {
        let cfg = &self.shared.cfg;
        match &self.link {
            Link::H1(h1) => h1.poll_timeout(cfg),
            Link::H2(h2) => h2.poll_timeout(cfg),
            Link::Undecided { opened, first, .. } => Some(match first {
                Some(first) => first.after(cfg.head_time),
                None => opened.after(cfg.idle_time),
            }),
            Link::Closed => None,
        }
    }

    /// What the shell has to do.
    pub fn poll_event(&mut self) -> Option<Event> {
        if let Some(request) = self.shared.requests.pop_front() {
            return Some(Event::Request(request));
        }
        if let Some(id) = self.shared.gone.pop_front() {
            return Some(Event::End { id, how: HowEnded::Truncated });
        }
        let event = self.exchanges().find_map(Exchange::poll_event);
        if matches!(event, Some(Event::End { how: HowEnded::Truncated, .. })) {
            match &mut self.link {
                Link::H1(h1) => h1.sweep(),
                Link::H2(h2) => h2.sweep(),
                _ => {}
            }
        }
        event
    }

    /// Waiting body bytes of a request.
    #[must_use]
    pub fn body(&self, id: RequestId) -> &[u8] {
        let exchange = match &self.link {
            Link::H1(h1) => h1.exchange.as_ref().filter(|e| e.id == id),
            Link::H2(h2) => h2.exchanges.iter().find(|e| e.id == id),
            _ => None,
        };
        exchange.map_or(&[], |e| e.body.bytes())
    }

    /// The first `n` bytes of [`Server::body`] are done with.
    pub fn consume(&mut self, now: Tick, id: RequestId, n: usize) {
        let _ = now;
        let Some(exchange) = self.exchange(id) else { return };
        let stream = exchange.stream;
        let n = exchange.consume(n);
        if let Link::H2(h2) = &mut self.link {
            h2.credit(stream, n);
        }
    }

    /// Whether new recordings can be taken; `why` is the text of the 503.
    pub fn set_available(&mut self, available: Result<(), &'static str>) {
        self.shared.available = available;
    }

    /// Takes the request: 200, 100 or 101. `commit` is the first commit of the extension.
    pub fn accept(&mut self, now: Tick, id: RequestId, commit: Option<u64>) {
        match &mut self.link {
            Link::H1(h1) => h1.accept(&self.shared.cfg, now, id, commit),
            Link::H2(h2) => h2.accept(&self.shared.cfg, now, id, commit),
            _ => {}
        }
    }

    /// Refuses it instead. `text` becomes one line of body.
    pub fn refuse(&mut self, now: Tick, id: RequestId, status: u16, text: &str) {
        self.answer(now, id, status, text);
    }

    /// How far storage is. The machine decides when an ack object goes out.
    pub fn progress(&mut self, now: Tick, id: RequestId, received: u64, commit: Option<u64>) {
        let _ = now;
        if let Some(exchange) = self.exchange(id) {
            exchange.acks.progress(received, commit);
        }
    }

    /// Everything is durable: the last ack object (`sealed`, with the extension), then the end of the answer; 200 on v1.
    /// `end` is the offset of the end of the stream, not of this body.
    pub fn seal(&mut self, now: Tick, id: RequestId, end: u64) {
        let Some(exchange) = self.exchange(id) else { return };
        if exchange.has_acks() {
            exchange.seal(end);
            self.ended(now, id);
        } else {
            self.answer(now, id, 200, "stored");
        }
    }

    /// Storing failed: `{"error":text}` and the end of the answer; 500 or 507 on v1.
    pub fn fail(&mut self, now: Tick, id: RequestId, text: &str) {
        let Some(exchange) = self.exchange(id) else { return };
        if exchange.has_acks() {
            exchange.fail(text);
            self.ended(now, id);
        } else {
            let full = text.starts_with("disk full") || text.starts_with("quota");
            self.answer(now, id, if full { 507 } else { 500 }, text);
        }
    }

    /// Asks a castkeep client to go elsewhere; nothing happens on stock uploads.
    pub fn drain(&mut self, now: Tick, id: RequestId) {
        let _ = now;
        if let Some(exchange) = self.exchange(id) {
            exchange.drain();
        }
    }

    /// Answers an event: 200, or another status with a line of text.
    pub fn finish(&mut self, now: Tick, id: RequestId, status: u16, text: &str) {
        self.answer(now, id, status, text);
    }

    /// Takes no new requests: GOAWAY or `Connection: close`; what runs goes on.
    pub fn shutdown(&mut self, now: Tick) {
        let _ = now;
        self.shared.shutdown = true;
        match &mut self.link {
            Link::H1(h1) => h1.shutdown(),
            Link::H2(h2) => h2.shutdown(),
            Link::Undecided { .. } => self.link = Link::Closed,
            Link::Closed => {}
        }
    }

    /// Bytes for the peer.
    pub fn poll_transmit(&mut self, now: Tick, out: &mut [u8]) -> usize {
        match &mut self.link {
            Link::H1(h1) => h1.poll_transmit(now, out),
            Link::H2(h2) => h2.poll_transmit(now, out),
            _ => 0,
        }
    }

    /// Whether nothing will be written any more although the connection is not closed: shut the sending side down, so that the
    /// peer sees the end.
    #[must_use]
    pub fn wants_shutdown(&self) -> bool {
        match &self.link {
            Link::H1(h1) => h1.wants_shutdown(),
            _ => false,
        }
    }

    /// Whether the connection is over as soon as [`Server::poll_transmit`] gives nothing more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        match &self.link {
            Link::H1(h1) => h1.is_closed(),
            Link::H2(h2) => h2.is_closed(),
            Link::Undecided { .. } => false,
            Link::Closed => true,
        }
    }

    fn answer(&mut self, now: Tick, id: RequestId, status: u16, text: &str) {
        let shutdown = self.shared.shutdown;
        match &mut self.link {
            Link::H1(h1) => h1.answer(now, shutdown, id, status, text),
            Link::H2(h2) => h2.answer(now, id, status, text),
            _ => {}
        }
    }

    /// The ack stream of a request has its last object.
    fn ended(&mut self, now: Tick, id: RequestId) {
        match &mut self.link {
            Link::H1(h1) => h1.ended(now),
            Link::H2(h2) => h2.ended(id),
            _ => {}
        }
    }

    fn exchange(&mut self, id: RequestId) -> Option<&mut Exchange> {
        self.exchanges().find(|e| e.id == id)
    }

    fn exchanges(&mut self) -> impl Iterator<Item = &mut Exchange> {
        exchanges_of(&mut self.link)
    }
}

fn exchanges_of(link: &mut Link) -> impl Iterator<Item = &mut Exchange> {
    let (one, many) = match link {
        Link::H1(h1) => (h1.exchange.as_mut(), [].iter_mut()),
        Link::H2(h2) => (None, h2.exchanges.iter_mut()),
        _ => (None, [].iter_mut()),
    };
    one.into_iter().chain(many)
}

impl Default for ServerConfig {
    fn default() -> Self {
        use crate::limits;
        Self {
            h2_only: false,
            h1_only: false,
            extension: true,
            ack_period_stock: limits::ACK_PERIOD_STOCK,
            ack_period_commit: limits::ACK_PERIOD_COMMIT,
            head_time: limits::HEAD_TIME,
            idle_time: limits::IDLE_TIME,
            ping_time: limits::PING_TIME,
            banner: String::from("castkeep recorder"),
        }
    }
}
