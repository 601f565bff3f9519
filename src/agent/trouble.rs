//! Says once that something fails, once when the reason is another, and once when it is over.

use std::sync::{Mutex, PoisonError};

/// Something that can fail for a long time.
#[derive(Debug)]
pub(super) struct Trouble {
    /// What fails, for the log.
    of: String,
    /// What follows while it does.
    therefore: &'static str,
    reason: Mutex<Option<String>>,
}

impl Trouble {
    pub(super) fn new(of: impl Into<String>, therefore: &'static str) -> Self {
        Self { of: of.into(), therefore, reason: Mutex::new(None) }
    }

    /// It fails, and why.
    pub(super) fn is(&self, reason: &str) {
        let mut last = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_deref() != Some(reason) {
            log::warn!("{}: {reason}; {}", self.of, self.therefore);
            *last = Some(reason.to_owned());
        }
    }

    /// It works.
    pub(super) fn over(&self) {
        if self.reason.lock().unwrap_or_else(PoisonError::into_inner).take().is_some() {
            log::info!("{}: works again", self.of);
        }
    }
}
