//! Asking who is recorded: a question to an agent or a coordination server, and the verdicts that come back. docs/control.md, the
//! part on `decide`; without sockets.
//!
//! ```text
//! Question ── encode ──► Exchange ──► POST /castkeep/1/decide ──► agent
//!                        Exchange ◄── one line for each verdict ◄─┘
//! Verdict ◄── parse ─────┘
//! ```
//!
//! A verdict stands until the next line; the connection stays open for as long as the session runs. All memory may be refused.
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

mod exchange;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
#[allow(missing_docs)]
pub mod fuzzing;
mod notice;
mod question;
mod text;
mod verdict;

pub use exchange::Exchange;
pub use notice::{EventType, Notice};
pub use question::Question;
pub use verdict::{Identity, Named, Verdict};

/// Where a verdict is asked for.
pub const DECIDE_PATH: &str = "/castkeep/1/decide";
/// Where a failure is told.
pub const NOTIFY_PATH: &str = "/castkeep/1/notify";
