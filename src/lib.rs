//! castkeep: session recording for SSH, from inside the SSH server, on recorders that the user controls.
//!
//! The tree follows the bytes from left to right: [`cast`] encodes terminal output, [`session`] decides what happens to
//! it, [`upload`] moves it over [`http1`] or `http2`. These modules are pure: bytes, events and the time go in, bytes,
//! actions and deadlines come out. The shells around them (`client`, `recorder`, `cli`) own sockets, files, threads and
//! clocks. See ARCHITECTURE.md for the whole picture and docs/protocol.md for the wire.
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

#[cfg(feature = "ask")]
pub mod ask;
pub mod cast;
mod chunks;
#[cfg(feature = "recorder")]
mod depth;
pub mod error;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
#[allow(missing_docs)]
pub mod fuzzing;
pub mod http1;
#[cfg(feature = "http2")]
pub mod http2;
pub mod limits;
#[cfg(feature = "policy")]
pub mod policy;
pub mod session;
#[doc(hidden)]
pub mod space;
pub mod time;
pub mod upload;

#[cfg(feature = "policy")]
mod suggest;

#[cfg(feature = "agent")]
pub mod agent;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "polled")]
pub mod client;
#[cfg(feature = "control")]
pub mod control;
#[cfg(feature = "localapi")]
pub mod localapi;
#[cfg(feature = "recorder")]
pub mod recorder;

pub use error::Error;

/// The version of this library and program, as in Cargo.toml.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
