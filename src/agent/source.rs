//! Where the policy comes from: one interface for all.

mod control;
mod files;

pub(super) use control::{ControlSource, back_off};
pub(super) use files::{CompiledSource, FilesSource, Nodes};

use std::time::Duration;

use serde_json::{Map, Value};

/// A place that policies come from.
pub(super) trait Source: Send {
    /// What it is called in the log and in the state on disk.
    fn name(&self) -> &str;

    /// Looks for news; may block while the source holds its answer back. `etag` belongs to the answer that is in force.
    ///
    /// # Errors
    ///
    /// Why there is no answer, in words that stay the same while the reason does.
    fn next(&mut self, etag: Option<&str>) -> Result<News, String>;

    /// How long to wait before the next look, after so many failures in a row.
    fn pause(&self, failures: u32) -> Duration;

    /// Looks again at everything, also at what seems unchanged.
    fn forget(&mut self) {}
}

/// What a look at a source brought.
#[derive(Debug)]
pub(super) enum News {
    /// A document; without a version the keeper gives it one.
    Document { document: Map<String, Value>, etag: Option<String> },
    /// Nothing new.
    Same,
}
