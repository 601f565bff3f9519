//! HTTP/1.1, both roles, without sockets: heads, bodies and the few things around them (RFC 9112).
//!
//! Heads are parsed where they lie, in the caller's buffer; bodies are lent as slices of the caller's input. Nothing here
//! allocates.
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

mod body;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
#[allow(missing_docs)]
pub mod fuzzing;
mod head;
mod write;

pub use body::{BodyDecoder, BodyKind, LAST_CHUNK, Piece, Sent, encode_chunk};
pub(crate) use head::parse_decimal;
#[cfg(feature = "http2")]
pub(crate) use head::path_of;
pub use head::{Fields, HeadError, RequestHead, ResponseHead, parse_request, parse_response};
pub use write::{CONTINUE, reason, write_request, write_response};
