//! The recorder: what `castkeep serve` runs, and what tests and the demo start inside their own process.
//!
//! ```text
//! listener ── accept ──► connection thread ── bytes ──► upload::server::Server ── body ──► storage::Upload
//!    │ bound, 503 past it     ▲      ▲ poll(socket, eventfd)                                  │
//!    │                        │      └──────────────── Notify: progress, sealed, failed ◄─────┘
//!    └ metrics listener       └ Control: drain, stop (one eventfd write each)
//! ```
//!
//! No protocol decision is made here: [`crate::upload::server`] decides what is said, [`storage`] what is kept. This shell
//! owns the sockets, the threads, the clock and the signals' effects.
//!
//! # Threads and memory
//!
//! One thread a connection, with a stack of [`CONNECTION_STACK`]. Only touched pages of a stack count, so its depth is kept
//! small: read buffers are borrowed from a pool for the time in which bytes are moved and given back before the thread
//! waits. An idle connection holds its stack's few pages, the state machine and two descriptors.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod allow;
mod config;
pub mod storage;

pub use allow::{AllowUpload, Cidr};
pub use config::{Listen, Quotas, RecorderConfig, StartError, TlsFiles};

use std::net::SocketAddr;

/// Stack of a connection thread: address space, not memory. A TLS handshake in a debug build uses about a quarter of it;
/// an idle connection has touched two or three pages.
pub const CONNECTION_STACK: usize = 256 * 1024;

/// A running recorder. Dropping it ends it at once, without drain: what was committed stays, what was not is truncated.
#[derive(Debug)]
pub struct Recorder {
    _p: (),
}

impl Recorder {
    /// Opens the storage, recovers what a crash left, binds the listeners and starts to serve.
    ///
    /// # Errors
    ///
    /// [`StartError`] says what failed, where, and what to do about it.
    pub fn start(config: RecorderConfig) -> Result<Self, StartError> {
        let _ = config;
        todo!()
    }

    /// The bound addresses of the listeners, in the order of [`RecorderConfig::listen`], with real port numbers.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        todo!()
    }

    /// The bound addresses of the metrics listeners.
    #[must_use]
    pub fn metrics_addresses(&self) -> &[SocketAddr] {
        todo!()
    }

    /// The start-up line: where it listens, what it stores into, what a commit means, what recovery found.
    #[must_use]
    pub fn describe(&self) -> &str {
        todo!()
    }

    /// Reads certificate, key and client CA again; new connections use them. On an error the old ones stay.
    ///
    /// # Errors
    ///
    /// As at the start: what, where, what to do.
    pub fn reload(&self) -> Result<(), StartError> {
        todo!()
    }

    /// Begins the orderly stop and returns at once: probes and new uploads get 503, castkeep clients are asked to go
    /// elsewhere, stock uploads are served until the drain timeout has passed.
    pub fn drain(&self) {
        todo!()
    }

    /// Begins the orderly stop, waits for its end and closes the storage.
    pub fn stop(self) {
        todo!()
    }

    /// Ends it at once, as a crash would look to the clients: connections are reset, open recordings stay open on disk.
    pub fn abort(self) {
        todo!()
    }
}
