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
mod report;
mod state;

pub use config::{Config, Deadlines, OnFailure, Protocols, Recorder, Release};
pub use machine::Machine;
pub use report::AttemptText;
pub use state::{Action, Event, LinkEvent, LinkId, Reason, State, Stats};
