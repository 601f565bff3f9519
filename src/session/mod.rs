//! The one façade of the client: what is recorded, where it goes, and what happens when it cannot.
//!
//! [`Machine`] owns the encoder, the ring and every upload of one session. It owns no socket, thread or clock: those are
//! in `client`, which runs the loop below and decides nothing.
//!
//! ```text
//! the host calls   output, input, resize, marker, exit, finish
//! a socket says    handle_link(Up | Down | Eof), handle_input(bytes)
//! the clock says   handle_timeout()
//! then, in this order, until nothing comes:
//!   poll_action()               connect, close
//!   poll_transmit(link, out)    for each link; write it
//!   poll_event()                start, refused, room, terminated, finished …
//! and wait until  a socket is ready | the host calls | poll_timeout()
//! ```
//!
//! ```
//! use castkeep::cast::{Header, Stream};
//! use castkeep::session::*;
//! use castkeep::time::Tick;
//!
//! let recorder = Recorder { group: 0, authority: "100.64.0.9:80".into(), tls: false };
//! let config = Config {
//!     header: Header { width: 80, height: 24, ..Header::default() },
//!     recording: [1; 16],     // random
//!     resume_secret: [2; 16], // random
//!     ring_bytes: castkeep::limits::RING_DEFAULT_BYTES,
//!     recorders: vec![recorder],
//!     on_failure: OnFailure { reject_message: Some("no recording".into()), terminate_message: None },
//!     release: Release::Ring,
//!     protocols: Protocols::default(),
//!     deadlines: Deadlines::default(),
//!     record_input: false,
//!     stock_with_release_commit: false,
//!     volume_bytes: None,
//!     refusal: None,
//!     # #[cfg(feature = "ask")]
//!     ask: None,
//!     jitter_seed: 3,         // random
//! };
//! let mut machine = Machine::new(config, Tick(0))?;
//! let Some(Action::Connect { link, .. }) = machine.poll_action() else { panic!() };
//! // Nothing is taken before a recorder accepted; this one cannot be reached, and the policy is closed.
//! assert_eq!(machine.room(), 0);
//! machine.handle_link(Tick(1), link, LinkEvent::Down(castkeep::error::Error::Link(castkeep::error::Link::Unreachable)));
//! assert_eq!(machine.state(), State::SessionRejected);
//! assert_eq!(machine.message(), "no recording");
//! assert!(machine.output(Tick(2), Stream::Stdout, b"never shown").is_err());
//! # Ok::<(), castkeep::Error>(())
//! ```
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

mod config;
mod events;
mod flow;
#[cfg(all(feature = "http2", any(test, feature = "fuzzing")))]
#[doc(hidden)]
#[allow(missing_docs)]
pub mod fuzzing;
mod hunt;
mod intake;
mod link;
mod machine;
#[cfg(feature = "ask")]
mod policy;
mod report;
mod sha256;
mod state;
pub mod volume;

#[cfg(feature = "ask")]
pub use config::Ask;
pub use config::{Config, Deadlines, OnFailure, Protocols, Recorder, Release};
pub use machine::Machine;
pub use report::AttemptText;
#[cfg(feature = "ask")]
pub use report::PolicyText;
#[cfg(feature = "ask")]
pub use state::POLICY;
pub use state::{Action, Event, LinkEvent, LinkId, Reason, State, Stats};
