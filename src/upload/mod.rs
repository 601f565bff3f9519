//! Moving a recording from a client to a recorder: docs/protocol.md, without sockets.
//!
//! [`wire`] holds the words that both sides share: paths, header fields, ack objects. [`upgrade`] is the framing of
//! `castkeep/1` over HTTP/1.1. `server` is one connection of a recorder.
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

pub mod client;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
#[allow(missing_docs)]
pub mod fuzzing;
pub(crate) mod json;
pub mod marks;
#[cfg(feature = "http2")]
pub mod server;
pub mod upgrade;
pub mod window;
pub mod wire;
