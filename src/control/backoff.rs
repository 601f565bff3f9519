//! Pauses that grow, with jitter: those who lost the same server must not come back at the same moment.

use std::time::Duration;

use rustix::rand::{GetRandomFlags, getrandom};

/// See the module.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    most: Duration,
    now: Duration,
}

impl Backoff {
    pub(super) fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, now: first }
    }

    /// The pause before the next attempt: between half of a length that doubles, and all of it.
    pub(super) fn next(&mut self) -> Duration {
        let pause = jitter(self.now);
        self.now = self.now.saturating_mul(2).min(self.most);
        pause
    }

    pub(super) fn reset(&mut self) {
        self.now = self.first;
    }
}

/// Between half of a length and all of it.
pub(super) fn jitter(length: Duration) -> Duration {
    let mut random = [0; 4];
    // Without randomness everything still works, only less evenly.
    let _ = getrandom(&mut random, GetRandomFlags::NONBLOCK);
    let part = f64::from(u32::from_ne_bytes(random)) / f64::from(u32::MAX);
    length.mul_f64(0.5 + part / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_bound_and_begin_anew() {
        let second = Duration::from_secs(1);
        let mut backoff = Backoff::new(second, second * 10);
        for most in [1, 2, 4, 8, 10, 10] {
            let pause = backoff.next();
            assert!(pause >= second * most / 2 && pause <= second * most, "{pause:?}");
        }
        backoff.reset();
        assert!(backoff.next() <= second);
    }
}
