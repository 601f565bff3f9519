//! How far the commits of a part are behind what was received, for figures. Read without the part's lock, which a write to a
//! disk that hangs can hold for ever: that is when the figures are wanted.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// See the module. Changed under the part's lock.
#[derive(Debug, Default)]
pub(crate) struct Lag {
    bytes: AtomicU64,
    /// When the oldest byte that the running flush covers was received; 0 for none.
    covered_us: AtomicU64,
    /// The same of the bytes that came after it began.
    later_us: AtomicU64,
}

impl Lag {
    /// So many bytes are not committed, the newest of them from now.
    pub(crate) fn received(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
        if bytes > 0 && self.later_us.load(Ordering::Relaxed) == 0 {
            self.later_us.store(now_us(), Ordering::Relaxed);
        }
    }

    /// A flush begins that covers everything.
    pub(crate) fn flushing(&self) {
        let later = self.later_us.swap(0, Ordering::Relaxed);
        if self.covered_us.load(Ordering::Relaxed) == 0 {
            self.covered_us.store(later, Ordering::Relaxed);
        }
    }

    /// It succeeded; so many bytes came since it began.
    pub(crate) fn committed(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
        self.covered_us.store(0, Ordering::Relaxed);
    }

    /// Bytes that are not committed, and how many microseconds ago the oldest of them was received.
    pub(crate) fn uncommitted(&self) -> (u64, u64) {
        let bytes = self.bytes.load(Ordering::Relaxed);
        let since = [&self.covered_us, &self.later_us].map(|us| us.load(Ordering::Relaxed));
        let oldest = since.into_iter().filter(|us| *us > 0).min();
        match oldest {
            Some(us) if bytes > 0 => (bytes, now_us().saturating_sub(us)),
            _ => (bytes, 0),
        }
    }
}

/// Microseconds since the first call; never 0.
fn now_us() -> u64 {
    static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(ORIGIN.elapsed().as_micros()).unwrap_or(u64::MAX).max(1)
}
