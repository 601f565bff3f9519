//! Bounds a node and a session.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Quotas, Refusal};

/// Which bound was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quota {
    /// Bytes stored of one node.
    NodeBytes,
    /// Open parts of one node.
    NodeOpen,
    /// Uploads begun per second by one node.
    NodeOpens,
    /// Bytes of one recording.
    PartBytes,
    /// Bytes per second of one session.
    SessionRate,
}

impl Quota {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 5] =
        [Self::NodeBytes, Self::NodeOpen, Self::NodeOpens, Self::PartBytes, Self::SessionRate];

    /// The word in metrics: the option of `castkeep serve` that sets it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::NodeBytes => "max-node-bytes",
            Self::NodeOpen => "max-node-open",
            Self::NodeOpens => "max-node-rate",
            Self::PartBytes => "max-part",
            Self::SessionRate => "max-rate",
        }
    }

    /// What the peer is told.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::NodeBytes => "quota: this node has stored as much as it may",
            Self::NodeOpen => "quota: too many open recordings of this node",
            Self::NodeOpens => "quota: this node begins too many recordings a second",
            Self::PartBytes => "quota: the recording is too large",
            Self::SessionRate => "quota: too many bytes a second",
        }
    }

    pub(crate) fn refusal(self) -> Refusal {
        Refusal::new(429, self.text())
    }
}

/// What is known of one node.
#[derive(Debug, Default)]
pub(crate) struct Node {
    /// Parts that are not closed.
    pub(crate) open: u32,
    /// Uploads begun in the second that `since` began.
    begun: u32,
    since: Option<Instant>,
    /// Shared with its open parts; only looked at when there is a bound.
    pub(crate) stored: Arc<Stored>,
}

impl Node {
    /// Whether one more upload may begin now; counts it.
    pub(crate) fn begin(&mut self, quotas: &Quotas, now: Instant) -> Result<(), Quota> {
        if quotas.node_open.is_some_and(|most| self.open >= most) {
            return Err(Quota::NodeOpen);
        }
        if let Some(most) = quotas.node_opens {
            if self.since.is_none_or(|s| now.duration_since(s).as_secs() >= 1) {
                self.since = Some(now);
                self.begun = 0;
            }
            if self.begun >= most {
                return Err(Quota::NodeOpens);
            }
            self.begun += 1;
        }
        Ok(())
    }

    /// Whether nothing is lost when this entry is dropped.
    pub(crate) fn is_idle(&self, now: Instant) -> bool {
        self.open == 0 && self.since.is_none_or(|s| now.duration_since(s).as_secs() >= 1)
    }
}

/// Bytes that a node has stored, its open parts included.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    used: AtomicU64,
    measured: Mutex<Option<Instant>>,
}

/// What was removed by hand counts again as free after this time at the latest.
const MEASURE_EVERY: Duration = Duration::from_secs(2);

impl Stored {
    /// Whether anything more may be stored.
    pub(crate) fn has_room(&self, most: u64, measure: impl Fn() -> u64) -> bool {
        self.measure(&measure, Duration::MAX);
        let free = || self.used.load(Ordering::Relaxed) < most;
        free() || self.measure(&measure, MEASURE_EVERY) && free()
    }

    /// Takes room for `bytes`, or nothing.
    pub(crate) fn take(&self, bytes: u64, most: u64, measure: impl Fn() -> u64) -> bool {
        self.measure(&measure, Duration::MAX);
        self.add(bytes, most) || self.measure(&measure, MEASURE_EVERY) && self.add(bytes, most)
    }

    /// They were not written after all.
    pub(crate) fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn add(&self, bytes: u64, most: u64) -> bool {
        let fits = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= most);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    /// Measures when that was never done, or is longer ago than `every`. False: it was not.
    fn measure(&self, measure: impl Fn() -> u64, every: Duration) -> bool {
        let mut measured = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        if measured.is_some_and(|at| at.elapsed() < every) {
            return false;
        }
        let before = self.used.load(Ordering::Relaxed);
        // What is written meanwhile stays in; if it was measured too it counts twice until the next time.
        self.used.fetch_add(measure().wrapping_sub(before), Ordering::Relaxed);
        *measured = Some(Instant::now());
        true
    }
}

/// Bytes over time of one session: a bucket that holds ten seconds' worth.
#[derive(Clone, Debug)]
pub(crate) struct Rate {
    credit: f64,
    since: Instant,
}

impl Rate {
    pub(crate) fn new(per_second: u64) -> Self {
        Self { credit: per_second as f64 * 10.0, since: Instant::now() }
    }

    /// Whether `bytes` more are within the rate.
    pub(crate) fn take(&mut self, bytes: usize, per_second: u64) -> bool {
        let now = Instant::now();
        let per_second = per_second as f64;
        let earned = now.duration_since(self.since).as_secs_f64() * per_second;
        self.since = now;
        self.credit = (self.credit + earned).min(per_second * 10.0) - bytes as f64;
        self.credit >= 0.0
    }
}
