//! HTTP/2 connections, both roles, without sockets (RFC 9113).
//!
//! The interface is made for moving bytes: received DATA is lent as slices of the caller's input, DATA is sent from the
//! caller's buffer straight into the caller's output. HPACK and the rules for fields come from `shiguredo_http2`; frames,
//! streams and flow control are ours, because the crate's copies and allocations cost more than the whole upload.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use crate::error::Error;
use crate::http1::Sent;
use crate::time::Tick;

/// The first bytes of a client.
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Error codes of RFC 9113, 7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Code {
    NoError,
    ProtocolError,
    InternalError,
    FlowControlError,
    SettingsTimeout,
    StreamClosed,
    FrameSizeError,
    RefusedStream,
    Cancel,
    CompressionError,
    ConnectError,
    EnhanceYourCalm,
    InadequateSecurity,
    Http11Required,
    /// A code that this list does not have.
    Unknown(u32),
}

/// What a side allows the other.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Receive window of a stream.
    pub stream_window: u32,
    /// Receive window of the connection: bounds what all streams together leave unconsumed. At least 65,535.
    pub connection_window: u32,
    /// Streams that the peer may have open (server).
    pub max_streams: u32,
}

/// One field of a head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Lower case; pseudo-fields with their colon.
    pub name: Vec<u8>,
    /// As it came.
    pub value: Vec<u8>,
}

/// The fields of a head, pseudo-fields first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(pub Vec<Field>);

impl Fields {
    /// The value of the first field of this name, when it is ASCII text. `name` is lower case; `:path` for pseudo-fields.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let field = self.0.iter().find(|f| f.name == name.as_bytes())?;
        core::str::from_utf8(&field.value).ok().filter(|v| v.is_ascii())
    }

    /// `:status` of a response.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.get(":status")?.parse().ok()
    }
}

/// What came in.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A request (server) or a response, interim ones included (client). Trailers are reported as the end of data.
    Headers {
        /// The stream.
        stream: u32,
        /// Its fields.
        fields: Fields,
        /// No data follows.
        end: bool,
        /// The fields were larger than allowed and are not here: answer 431 (server).
        too_large: bool,
    },
    /// Body bytes, maybe none. Give them back with [`Connection::credit`] when they are done with.
    Data {
        /// The stream.
        stream: u32,
        /// A part of the input.
        data: &'a [u8],
        /// END_STREAM: the orderly end.
        end: bool,
    },
    /// The stream ended by RST_STREAM, the peer's or ours after an error of the peer.
    Reset {
        /// The stream.
        stream: u32,
        /// Why.
        code: Code,
        /// Whether the peer sent it.
        by_peer: bool,
    },
    /// The answer to [`Connection::ping`].
    Pong,
    /// The peer takes no streams above `last`; those at and below it go on.
    GoAway {
        /// The last stream that it looked at.
        last: u32,
        /// Why.
        code: Code,
    },
    /// The peer broke the protocol. GOAWAY is queued: write what [`Connection::poll_transmit`] gives, then close.
    Failed(Code),
}

/// One HTTP/2 connection.
#[derive(Debug)]
pub struct Connection {
    _p: (),
}

impl Connection {
    /// The client's end; its preface and SETTINGS are queued.
    #[must_use]
    pub fn client(config: &Config) -> Self {
        let _ = config;
        todo!()
    }

    /// The server's end; its SETTINGS are queued. It expects the whole client preface as its first input.
    #[must_use]
    pub fn server(config: &Config) -> Self {
        let _ = config;
        todo!()
    }

    /// Reads on until there is something to tell and takes what it read off the front of `input`. Call it until it returns
    /// None: then all of `input` was read.
    pub fn handle_input<'a>(&mut self, now: Tick, input: &mut &'a [u8]) -> Option<Event<'a>> {
        let _ = (now, input);
        todo!()
    }

    /// Opens a stream with a request (client).
    ///
    /// # Errors
    ///
    /// [`Error::Full`] when the peer allows no more streams now, [`Error::Closed`] after GOAWAY or a failure.
    pub fn open(&mut self, fields: &[(&str, &str)], end: bool) -> Result<u32, Error> {
        let _ = (fields, end);
        todo!()
    }

    /// Sends a response head (server). A stream that is gone is not an error: nothing is sent.
    pub fn send_headers(&mut self, stream: u32, fields: &[(&str, &str)], end: bool) {
        let _ = (stream, fields, end);
        todo!()
    }

    /// Writes what is queued and then one DATA frame of as much of `data` as fits the windows and `out`, straight from
    /// the one into the other. `end` counts when all of `data` was taken; `data` may be empty then.
    pub fn write_data(&mut self, stream: u32, data: &[u8], end: bool, out: &mut [u8]) -> Sent {
        let _ = (stream, data, end, out);
        todo!()
    }

    /// Queues as much of `data` as the windows and the small output buffer allow. `end` counts when all was taken.
    pub fn send_data(&mut self, stream: u32, data: &[u8], end: bool) -> usize {
        let _ = (stream, data, end);
        todo!()
    }

    /// Bytes that may be sent on the stream now.
    #[must_use]
    pub fn send_window(&self, stream: u32) -> usize {
        let _ = stream;
        todo!()
    }

    /// `n` received bytes of this stream are done with: the peer may send as many more. Also for streams that have ended.
    pub fn credit(&mut self, stream: u32, n: usize) {
        let _ = (stream, n);
        todo!()
    }

    /// Ends a stream with RST_STREAM.
    pub fn reset(&mut self, stream: u32, code: Code) {
        let _ = (stream, code);
        todo!()
    }

    /// Says that no new streams are taken; open ones go on.
    pub fn goaway(&mut self, code: Code) {
        let _ = code;
        todo!()
    }

    /// Sends a PING; [`Event::Pong`] answers it.
    pub fn ping(&mut self) {
        todo!()
    }

    /// Moves queued output into `out` and returns how many bytes.
    pub fn poll_transmit(&mut self, out: &mut [u8]) -> usize {
        let _ = out;
        todo!()
    }

    /// Whether [`Connection::poll_transmit`] has something.
    #[must_use]
    pub fn wants_write(&self) -> bool {
        todo!()
    }

    /// Streams that are open or half closed.
    #[must_use]
    pub fn open_streams(&self) -> usize {
        todo!()
    }

    /// Whether the connection failed.
    #[must_use]
    pub fn is_failed(&self) -> bool {
        todo!()
    }
}
