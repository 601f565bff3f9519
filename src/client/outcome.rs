//! What a session tells those who opened it.

use crate::session::{Reason, State};

/// How a recording ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything that was taken is stored, or nothing was to be recorded.
    Complete,
    /// So many encoded bytes are not known to be stored.
    Incomplete {
        /// Bytes behind the last commit.
        bytes: u64,
    },
}

/// A change of state, for the observer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The old state.
    pub from: State,
    /// The new one.
    pub to: State,
    /// Why.
    pub reason: Reason,
}
