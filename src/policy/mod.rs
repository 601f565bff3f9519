//! Who is recorded, where and how hard. Pure: no file, socket or clock.
//!
//! ```text
//! policy file ─► file::PolicyFile ─┐
//! nodes file  ─► nodes::Registry  ─┼─► compile ─► ssh::SshPolicy ─► ssh::Evaluator ─► accept, reject, recorders
//! announced recorders ─────────────┘   (for one node, as control sends it)
//! ```
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

mod json;
pub mod notify;
pub mod ssh;
mod timestamp;

pub use timestamp::Timestamp;
