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

mod connection;
mod frame;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
#[allow(missing_docs)]
pub mod fuzzing;
mod handle;
mod hpack;
mod receive;
mod stream;

pub use connection::Connection;

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
    /// Receive window of a stream. At least 65,535.
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

    /// Whether there is a field of this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|f| f.name == name.as_bytes())
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

impl Code {
    /// The code of a frame.
    #[must_use]
    pub const fn from_wire(code: u32) -> Self {
        match code {
            0 => Self::NoError,
            1 => Self::ProtocolError,
            2 => Self::InternalError,
            3 => Self::FlowControlError,
            4 => Self::SettingsTimeout,
            5 => Self::StreamClosed,
            6 => Self::FrameSizeError,
            7 => Self::RefusedStream,
            8 => Self::Cancel,
            9 => Self::CompressionError,
            10 => Self::ConnectError,
            11 => Self::EnhanceYourCalm,
            12 => Self::InadequateSecurity,
            13 => Self::Http11Required,
            other => Self::Unknown(other),
        }
    }

    /// The code for a frame.
    #[must_use]
    pub const fn to_wire(self) -> u32 {
        match self {
            Self::NoError => 0,
            Self::ProtocolError => 1,
            Self::InternalError => 2,
            Self::FlowControlError => 3,
            Self::SettingsTimeout => 4,
            Self::StreamClosed => 5,
            Self::FrameSizeError => 6,
            Self::RefusedStream => 7,
            Self::Cancel => 8,
            Self::CompressionError => 9,
            Self::ConnectError => 10,
            Self::EnhanceYourCalm => 11,
            Self::InadequateSecurity => 12,
            Self::Http11Required => 13,
            Self::Unknown(code) => code,
        }
    }
}

impl Default for Config {
    /// A window that loopback does not notice, and that bounds what lies around unconsumed.
    fn default() -> Self {
        Self {
            stream_window: crate::limits::H2_WINDOW_BYTES,
            connection_window: crate::limits::H2_WINDOW_BYTES,
            max_streams: crate::limits::H2_STREAMS,
        }
    }
}
