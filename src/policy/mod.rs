//! Who is recorded, where and how hard. Pure: no file, socket or clock.
//!
//! ```text
//! policy file ─► PolicyFile ─┬─► Decider ─► Verdict: accept, reject, recorders          one question
//! nodes file  ─► Registry  ──┼─► compile ─► ssh::SshPolicy ─► ssh::Evaluator ─► the same, all questions to one node,
//! announced   ─► Recorders ──┘                                                     as control sends it
//! ```
//!
//! [`explain`] says rule by rule why, [`ssh_tests`] runs the tests of the file.
//!
//! Sources: Tailscale's documentation of the policy file, and the JSON that its control plane sends to SSH servers.
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

pub mod compile;
pub mod decide;
mod diagnostic;
pub mod explain;
pub mod file;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
#[allow(missing_docs)]
pub mod fuzzing;
pub mod hujson;
mod json;
mod matching;
mod messages;
pub mod nodes;
pub mod notify;
mod own_nodes;
mod reader;
mod recorders;
mod rule;
mod scan;
mod selector;
pub mod ssh;
pub mod ssh_tests;
mod status;
mod test_entry;
#[cfg(test)]
mod tests;
mod timestamp;

pub use compile::{CompileOptions, RecorderInfo, compile};
pub use decide::{Decider, Grant, Question, Refusal, Subject, Verdict};
pub use diagnostic::{Diagnostic, Position, Severity};
pub use file::PolicyFile;
pub use messages::Messages;
pub use nodes::{Node, RecorderPort, Registry, User};
pub use recorders::{LiveRecorder, Recorder, Recorders};
pub use rule::{Action, CheckPeriod, Rule};
pub use selector::{Account, Network, Source, Target};
pub use test_entry::{Party, SshTest};
pub use timestamp::Timestamp;
