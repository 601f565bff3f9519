//! One connection of a recorder, HTTP/1.1 or HTTP/2, without a socket: docs/protocol.md §1 to §6.
//!
//! The loop of the shell, in this order:
//!
//! ```text
//! read bytes into a buffer
//! n = handle_input(now, buffer)            n < len: keep the rest and offer it again after consume()
//! while let Some(event) = poll_event()     Request: accept() or refuse(); Body: body(), consume(); End
//! while poll_transmit(now, out) > 0        write it
//! wait for the socket, the storage, or poll_timeout(); then handle_timeout(now)
//! is_closed(): write what is left, close
//! ```

use alloc::string::String;

use crate::time::{Span, Tick};
use crate::upload::wire::ResumeHeaders;

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
    /// Body bytes wait: read [`Server::body`], then [`Server::consume`]. Comes again while some are left.
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
#[derive(Debug)]
pub struct Server {
    _p: (),
}

impl Server {
    /// A connection that was just accepted.
    #[must_use]
    pub fn new(cfg: ServerConfig, now: Tick) -> Self {
        let _ = (cfg, now);
        todo!()
    }

    /// Bytes came; returns how many were taken. Fewer than all: offer the rest again when body was consumed.
    pub fn handle_input(&mut self, now: Tick, input: &[u8]) -> usize {
        let _ = (now, input);
        todo!()
    }

    /// The peer closed its side.
    pub fn handle_eof(&mut self, now: Tick) {
        let _ = now;
        todo!()
    }

    /// The connection is lost.
    pub fn handle_lost(&mut self) {
        todo!()
    }

    /// The time of [`Server::poll_timeout`] came. Harmless at any time.
    pub fn handle_timeout(&mut self, now: Tick) {
        let _ = now;
        todo!()
    }

    /// When [`Server::handle_timeout`] is wanted.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Tick> {
        todo!()
    }

    /// What the shell has to do.
    pub fn poll_event(&mut self) -> Option<Event> {
        todo!()
    }

    /// Waiting body bytes of a request.
    #[must_use]
    pub fn body(&self, id: RequestId) -> &[u8] {
        let _ = id;
        todo!()
    }

    /// The first `n` bytes of [`Server::body`] are done with.
    pub fn consume(&mut self, now: Tick, id: RequestId, n: usize) {
        let _ = (now, id, n);
        todo!()
    }

    /// Whether new recordings can be taken; `why` is the text of the 503.
    pub fn set_available(&mut self, available: Result<(), &'static str>) {
        let _ = available;
        todo!()
    }

    /// Takes the request: 200, 100 or 101. `commit` is the first commit of the extension.
    pub fn accept(&mut self, now: Tick, id: RequestId, commit: Option<u64>) {
        let _ = (now, id, commit);
        todo!()
    }

    /// Refuses it instead. `text` becomes one line of body.
    pub fn refuse(&mut self, now: Tick, id: RequestId, status: u16, text: &str) {
        let _ = (now, id, status, text);
        todo!()
    }

    /// How far storage is. The machine decides when an ack object goes out.
    pub fn progress(&mut self, now: Tick, id: RequestId, received: u64, commit: Option<u64>) {
        let _ = (now, id, received, commit);
        todo!()
    }

    /// Everything is durable: the last ack object (`sealed`, with the extension), then the end of the answer; 200 on v1.
    /// `end` is the offset of the end of the stream, not of this body.
    pub fn seal(&mut self, now: Tick, id: RequestId, end: u64) {
        let _ = (now, id, end);
        todo!()
    }

    /// Storing failed: `{"error":text}` and the end of the answer; 500 or 507 on v1.
    pub fn fail(&mut self, now: Tick, id: RequestId, text: &str) {
        let _ = (now, id, text);
        todo!()
    }

    /// Asks a castkeep client to go elsewhere; nothing happens on stock uploads.
    pub fn drain(&mut self, now: Tick, id: RequestId) {
        let _ = (now, id);
        todo!()
    }

    /// Answers an event: 200, or another status with a line of text.
    pub fn finish(&mut self, now: Tick, id: RequestId, status: u16, text: &str) {
        let _ = (now, id, status, text);
        todo!()
    }

    /// Takes no new requests: GOAWAY or `Connection: close`; what runs goes on.
    pub fn shutdown(&mut self, now: Tick) {
        let _ = now;
        todo!()
    }

    /// Bytes for the peer.
    pub fn poll_transmit(&mut self, now: Tick, out: &mut [u8]) -> usize {
        let _ = (now, out);
        todo!()
    }

    /// Whether the connection is over as soon as [`Server::poll_transmit`] gives nothing more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        todo!()
    }
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
