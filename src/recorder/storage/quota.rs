//! Bounds a node and a session.

use std::time::Instant;

use super::{Quotas, Refusal};

/// What is known of one node.
#[derive(Debug, Default)]
pub(crate) struct Node {
    /// Parts that are not closed.
    pub(crate) open: u32,
    /// Uploads begun in the second that `since` began.
    begun: u32,
    since: Option<Instant>,
}

impl Node {
    /// Whether one more upload may begin now; counts it.
    pub(crate) fn begin(&mut self, quotas: &Quotas, now: Instant) -> Result<(), Refusal> {
        if quotas.node_open.is_some_and(|most| self.open >= most) {
            return Err(Refusal::new(429, "quota: too many open recordings of this node"));
        }
        if let Some(most) = quotas.node_opens {
            if self.since.is_none_or(|s| now.duration_since(s).as_secs() >= 1) {
                self.since = Some(now);
                self.begun = 0;
            }
            if self.begun >= most {
                return Err(Refusal::new(
                    429,
                    "quota: this node begins too many recordings a second",
                ));
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

/// Bytes over time of one session: a bucket that holds ten seconds' worth.
#[derive(Debug)]
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
