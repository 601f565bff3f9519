//! What all threads of a recorder share: the phase it is in, who is connected, what was counted.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::allow::AllowUpload;
use super::config::RecorderConfig;
use super::pool::Pool;
use super::storage::Store;
use super::tailnet::Tailnet;
use super::tls::Tls;
use super::wake::Waker;
use crate::time::{Span, Tick};

/// How far the end is. It only rises.
///
/// ```text
/// Running ─► Draining ─► Stopping ─► (no connection is left)
///     └──────────┴───────────┴────► Aborting
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Takes recordings.
    Running,
    /// Takes none, castkeep clients are asked to leave, stock uploads go on.
    Draining,
    /// What is left gets an error object.
    Stopping,
    /// Everything is cut at once.
    Aborting,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: RecorderConfig,
    pub(crate) allow: AllowUpload,
    pub(crate) store: Arc<Store>,
    pub(crate) tls: Option<Arc<Tls>>,
    pub(crate) tailnet: Option<Tailnet>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) counters: Counters,
    origin: Instant,
    phase: AtomicU8,
    /// When a shortage was logged last.
    warned: AtomicU64,
    live: Mutex<Live>,
    changed: Condvar,
}

/// Connections and uploads that run, and whom to wake when the phase changes.
#[derive(Debug, Default)]
struct Live {
    next: u64,
    wakers: BTreeMap<u64, Arc<Waker>>,
    uploads: usize,
}

/// What the metrics listener tells.
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub(crate) struct Counters {
    pub(crate) connections: AtomicU64,
    pub(crate) open: AtomicUsize,
    pub(crate) strangers: AtomicUsize,
    pub(crate) metrics_open: AtomicUsize,
    pub(crate) refused: AtomicU64,
    pub(crate) accept_errors: AtomicU64,
    pub(crate) tls_failures: AtomicU64,
    pub(crate) panics: AtomicU64,
    pub(crate) received: AtomicU64,
    pub(crate) v1: AtomicU64,
    pub(crate) v2: AtomicU64,
    pub(crate) v2_commit: AtomicU64,
    pub(crate) upgrade: AtomicU64,
    pub(crate) events: AtomicU64,
    pub(crate) events_open: AtomicUsize,
    pub(crate) refusals: AtomicU64,
    pub(crate) failures: AtomicU64,
}

impl Shared {
    pub(crate) fn new(
        config: RecorderConfig,
        allow: AllowUpload,
        store: Arc<Store>,
        tls: Option<Arc<Tls>>,
    ) -> Self {
        let tailnet = config.tailscale.as_deref().map(Tailnet::new);
        Self {
            config,
            allow,
            store,
            tls,
            tailnet,
            pool: Arc::default(),
            counters: Counters::default(),
            origin: Instant::now(),
            phase: AtomicU8::new(0),
            warned: AtomicU64::new(0),
            live: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Monotonic time since the recorder started.
    pub(crate) fn now(&self) -> Tick {
        Tick(u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Running,
            1 => Phase::Draining,
            2 => Phase::Stopping,
            _ => Phase::Aborting,
        }
    }

    /// Goes on to a later phase and wakes every thread; going back is not possible.
    pub(crate) fn set_phase(&self, phase: Phase) {
        let before = self.phase.fetch_max(phase as u8, Ordering::AcqRel);
        if before < phase as u8 {
            let live = self.live();
            live.wakers.values().for_each(|w| w.wake());
            self.changed.notify_all();
        }
    }

    /// Why no new recording can be taken now, if so.
    pub(crate) fn available(&self) -> Result<(), &'static str> {
        if self.phase() != Phase::Running {
            return Err("stopping: this recorder takes no new recordings");
        }
        self.store.available()
    }

    /// Why nothing can be taken now, not even a recording that has begun, if so.
    pub(crate) fn available_to_go_on(&self) -> Result<(), &'static str> {
        if self.phase() != Phase::Running {
            return Err("stopping: this recorder takes no new recordings");
        }
        self.store.available_to_go_on()
    }

    /// Logs that a connection was refused for want of something, not more often than every few seconds.
    pub(crate) fn warn_short(&self, why: &str) {
        let now = self.now().0;
        let last = self.warned.load(Ordering::Relaxed);
        if (last == 0 || now.saturating_sub(last) >= WARN_EVERY.0)
            && self.warned.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            log::warn!("connections are refused: {why}");
        }
    }

    /// Enters a thread that waits; it is woken when the phase changes, until the guard is dropped.
    pub(crate) fn enter(self: &Arc<Self>, waker: &Arc<Waker>) -> Entered {
        let mut live = self.live();
        let key = live.next;
        live.next += 1;
        live.wakers.insert(key, Arc::clone(waker));
        drop(live);
        Entered { shared: Arc::clone(self), key }
    }

    /// Counts an upload or event as running, until the guard is dropped.
    pub(crate) fn begin_upload(self: &Arc<Self>) -> Running {
        self.live().uploads += 1;
        Running { shared: Arc::clone(self) }
    }

    /// Waits until no upload runs, a later phase than `phase` is set, or the time is over. True: no upload runs.
    pub(crate) fn wait_idle(&self, phase: Phase, timeout: Duration) -> bool {
        self.wait(timeout, |live| live.uploads == 0 || self.phase() > phase);
        self.live().uploads == 0
    }

    /// Waits until every thread that entered has left. False: the time is over.
    pub(crate) fn wait_gone(&self, timeout: Duration) -> bool {
        self.wait(timeout, |live| live.wakers.is_empty())
    }

    fn wait(&self, timeout: Duration, done: impl Fn(&Live) -> bool) -> bool {
        let live = self.live();
        let (live, _) = self
            .changed
            .wait_timeout_while(live, timeout, |live| !done(live))
            .unwrap_or_else(PoisonError::into_inner);
        done(&live)
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Shared::enter`].
#[derive(Debug)]
pub(crate) struct Entered {
    shared: Arc<Shared>,
    key: u64,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut live = self.shared.live();
        live.wakers.remove(&self.key);
        if live.wakers.is_empty() {
            self.shared.changed.notify_all();
        }
    }
}

/// See [`Shared::begin_upload`].
#[derive(Debug)]
pub(crate) struct Running {
    shared: Arc<Shared>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut live = self.shared.live();
        live.uploads = live.uploads.saturating_sub(1);
        if live.uploads == 0 {
            self.shared.changed.notify_all();
        }
    }
}

/// Adds one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

const WARN_EVERY: Span = Span::from_secs(10);
