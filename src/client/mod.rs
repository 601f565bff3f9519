//! The client: sockets and one thread around [`crate::session::Machine`].
//!
//! A [`Client`] is made once in a process and owns one worker thread, which does all the I/O of all its sessions. A [`Session`]
//! is one recording: the program gives it what the terminal shows, and shows only what the session took.
//!
//! ```text
//!  host thread                        worker thread ("castkeep")
//!  output() ── encodes into the ring ──► takes from the ring ──► socket ──► recorder
//!      ▲            (one mutex per session, held for a copy)  ◄── acks, commits ◄──┘
//!      └── waits for room ◄── room, start, end ──┘
//! ```
//!
//! # Threads
//! All handles are `Send + Sync`. Calls for one session are put in order by its mutex; no I/O is done and no callback is called
//! under it. Callbacks (the observer of a session, the log sink) are called by the worker or by the calling thread and must not
//! block.
//!
//! # Fork
//! Threads do not survive `fork`. Handles remember their process; in a child every call answers `Misuse(WrongState)`, sends
//! nothing, and dropping them only closes descriptors. Make the client behind the fork.
//!
//! # Names
//! Nothing is resolved in here: the resolver of libc has no deadline. Recorders are addresses; several addresses of one recorder
//! share a group, see [`RecorderAddr::group`].
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]
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

#[cfg(feature = "client")]
mod api;
mod config;
#[cfg(feature = "tls")]
mod der;
#[cfg(feature = "client")]
mod driver;
#[doc(hidden)]
mod fork;
#[cfg(feature = "client")]
mod handle;
pub mod heap;
mod host;
mod link;
mod log;
mod opening;
mod outcome;
mod polled;
#[cfg(feature = "client")]
mod shared;
#[cfg(feature = "client")]
mod signals;
mod sys;
#[cfg(feature = "tls")]
mod tls;
mod transport;

#[cfg(feature = "client")]
pub use self::api::Client;
#[cfg(feature = "client")]
pub use self::config::ClientConfig;
#[cfg(feature = "ask")]
pub use self::config::PolicySource;
pub use self::config::{Decision, Endpoint, Metadata, Observer, RecorderAddr};
pub use self::fork::Mark;
#[cfg(feature = "client")]
pub use self::handle::{Session, Start};
pub use self::host::{Dial, Host, HostLink, Io, LinkWants, Surroundings};
pub use self::log::Level;
#[cfg(feature = "client")]
pub use self::log::{LogFacade, LogSink, NoLog};
pub use self::outcome::{Outcome, Transition};
pub use self::polled::{Notice, Polled, SessionId, Settings};
#[cfg(feature = "control")]
pub(crate) use self::tls::explain as explain_tls;
#[cfg(feature = "tls")]
pub use self::tls::{Tls, TlsConfig, TlsError};
#[cfg(feature = "ask")]
pub use crate::ask::Question;
pub use crate::cast::{ExitStatus, Stream};
pub use crate::session::{Protocols, Reason, Release, State, Stats};
