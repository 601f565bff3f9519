//! Bounds on what strangers, single identities and everybody together may take.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::limits;
use crate::time::Tick;

/// How many of each key there are.
#[derive(Debug)]
pub(super) struct Counted<K: Ord> {
    most: usize,
    held: Mutex<BTreeMap<K, usize>>,
}

/// A place among them.
#[derive(Debug)]
pub(super) struct Place<K: Ord + Clone> {
    of: Arc<Counted<K>>,
    key: K,
}

impl<K: Ord + Clone> Counted<K> {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, held: Mutex::default() })
    }

    /// None: there are as many of this key as may be.
    pub(super) fn enter(self: &Arc<Self>, key: K) -> Option<Place<K>> {
        let mut held = lock(&self.held);
        let n = held.entry(key.clone()).or_insert(0);
        if *n >= self.most {
            return None;
        }
        *n += 1;
        drop(held);
        Some(Place { of: Arc::clone(self), key })
    }
}

impl<K: Ord + Clone> Place<K> {
    pub(super) fn key(&self) -> &K {
        &self.key
    }
}

impl<K: Ord + Clone> Drop for Place<K> {
    fn drop(&mut self) {
        let mut held = lock(&self.of.held);
        if let Some(n) = held.get_mut(&self.key) {
            *n = n.saturating_sub(1);
            if *n == 0 {
                held.remove(&self.key);
            }
        }
    }
}

/// Strangers by address, connections by identity.
pub(super) type Strangers = Counted<IpAddr>;
/// See [`Strangers`].
pub(super) type Known = Counted<String>;

/// How often each identity does something, over time.
#[derive(Debug)]
pub(super) struct Rates {
    a_second: u64,
    burst: u64,
    /// What is left of the burst, in thousandths of a request, and when that was so.
    buckets: Mutex<BTreeMap<String, (u64, Tick)>>,
}

impl Rates {
    pub(super) fn new(a_second: u32, burst: u32) -> Self {
        Self { a_second: a_second.into(), burst: burst.into(), buckets: Mutex::default() }
    }

    /// Whether this identity may do it once more now.
    pub(super) fn allow(&self, now: Tick, who: &str) -> bool {
        let full = self.burst * REQUEST;
        let mut buckets = lock(&self.buckets);
        if buckets.len() > BUCKETS {
            // Whoever is left out begins with a full one, which is what a rest would have given.
            buckets.retain(|_, (_, at)| now.since(*at).0 < REST_US);
        }
        let (left, at) = buckets.get(who).copied().unwrap_or((full, now));
        let more = now.since(at).0.saturating_mul(self.a_second) / 1_000;
        let left = left.saturating_add(more).min(full);
        let Some(rest) = left.checked_sub(REQUEST) else { return false };
        buckets.insert(who.to_owned(), (rest, now));
        true
    }
}

/// Something of which there is only so much for everybody.
#[derive(Debug)]
pub(super) struct Budget {
    total: usize,
    left: Mutex<usize>,
    given_back: Condvar,
}

/// A part of it.
#[derive(Debug)]
pub(super) struct Part {
    of: Arc<Budget>,
    amount: usize,
}

impl Budget {
    pub(super) fn new(total: usize) -> Arc<Self> {
        Arc::new(Self { total, left: Mutex::new(total), given_back: Condvar::new() })
    }

    /// Waits for so much to be free. None: the time is over.
    pub(super) fn take(self: &Arc<Self>, amount: usize, timeout: Duration) -> Option<Part> {
        let amount = amount.min(self.total);
        let (mut left, _) = self
            .given_back
            .wait_timeout_while(lock(&self.left), timeout, |left| *left < amount)
            .unwrap_or_else(PoisonError::into_inner);
        *left = left.checked_sub(amount)?;
        drop(left);
        Some(Part { of: Arc::clone(self), amount })
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        *lock(&self.of.left) += self.amount;
        self.of.given_back.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const REQUEST: u64 = 1_000;
const BUCKETS: usize = 20_000;
/// After which a bucket is full again, at least.
const REST_US: u64 = 60_000_000;
const _: () = assert!(limits::CONTROL_BURST / limits::CONTROL_RATE < 60);
const _: () = assert!(limits::RECORDER_CHANGE_BURST / limits::RECORDER_CHANGE_RATE < 60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Span;

    #[test]
    fn places_are_given_back() {
        let gate: Arc<Strangers> = Counted::new(2);
        let (a, b) = ("127.0.0.1".parse::<IpAddr>().unwrap(), "127.0.0.2".parse().unwrap());
        let held = [gate.enter(a).unwrap(), gate.enter(a).unwrap()];
        assert!(gate.enter(a).is_none());
        assert_eq!(*gate.enter(b).unwrap().key(), b);
        drop(held);
        assert!(gate.enter(a).is_some());
        assert!(lock(&gate.held).is_empty());
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let rates = Rates::new(limits::CONTROL_RATE, limits::CONTROL_BURST);
        let start = Tick(1_000_000_000);
        let burst = (0..1_000).filter(|_| rates.allow(start, "a")).count();
        assert_eq!(burst, limits::CONTROL_BURST as usize);
        assert!(rates.allow(start, "b"));
        let later = start.after(Span::from_secs(1));
        let more = (0..1_000).filter(|_| rates.allow(later, "a")).count();
        assert_eq!(more, limits::CONTROL_RATE as usize);
    }

    #[test]
    fn a_budget_is_waited_for_and_never_exceeded() {
        let budget = Budget::new(10);
        let part = budget.take(7, Duration::ZERO).unwrap();
        assert!(budget.take(4, Duration::ZERO).is_none());
        let all = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| budget.take(1_000, Duration::from_secs(60)));
            drop(part);
            waiting.join().unwrap()
        });
        assert!(all.is_some() && budget.take(1, Duration::ZERO).is_none());
        drop(all);
        assert!(budget.take(10, Duration::ZERO).is_some());
    }
}
