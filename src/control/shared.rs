//! What all threads of control share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustls::ServerConfig;

use super::config::ControlConfig;
use super::events::EventLog;
use super::gates::{Budget, Counted, Known, Rates, Strangers};
use super::keeper::Keeper;
use super::webhook::WebhookCounters;
use crate::limits;
use crate::recorder::StartError;
use crate::recorder::tls::Tls;
use crate::recorder::wake::Waker;
use crate::time::Tick;

/// See the module.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: ControlConfig,
    pub(super) keeper: Keeper,
    pub(super) events: Arc<EventLog>,
    pub(super) counters: Counters,
    pub(super) webhook: Arc<WebhookCounters>,
    pub(super) strangers: Arc<Strangers>,
    pub(super) known: Arc<Known>,
    pub(super) rates: Rates,
    /// Of recorders.
    pub(super) changes: Rates,
    pub(super) compiling: Arc<Budget>,
    pub(super) sending: Arc<Budget>,
    tls: Option<(Tls, Mutex<Arc<ServerConfig>>)>,
    origin: Instant,
    stopping: AtomicBool,
    live: Mutex<Live>,
    changed: Condvar,
}

/// Threads that wait, and whom to wake when something changes.
#[derive(Debug, Default)]
struct Live {
    next: u64,
    wakers: BTreeMap<u64, Arc<Waker>>,
}

/// What the metrics listener tells.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) connections: AtomicU64,
    pub(super) open: AtomicUsize,
    pub(super) metrics_open: AtomicUsize,
    pub(super) refused: AtomicU64,
    pub(super) accept_errors: AtomicU64,
    pub(super) tls_failures: AtomicU64,
    pub(super) unauthorized: AtomicU64,
    pub(super) limited: AtomicU64,
    pub(super) policies: AtomicU64,
    pub(super) unchanged: AtomicU64,
    pub(super) waiting: AtomicUsize,
    pub(super) announcements: AtomicU64,
    pub(super) events: AtomicU64,
    pub(super) unrecorded: AtomicU64,
}

impl Shared {
    pub(super) fn new(
        config: ControlConfig,
        keeper: Keeper,
        events: EventLog,
        tls: Option<Tls>,
        origin: Instant,
    ) -> Self {
        Self {
            config,
            keeper,
            events: Arc::new(events),
            counters: Counters::default(),
            webhook: Arc::default(),
            strangers: Counted::new(limits::CONTROL_UNKNOWN_PER_ADDRESS),
            known: Counted::new(limits::CONTROL_CONNECTIONS_EACH),
            rates: Rates::new(limits::CONTROL_RATE, limits::CONTROL_BURST),
            changes: Rates::new(limits::RECORDER_CHANGE_RATE, limits::RECORDER_CHANGE_BURST),
            compiling: Budget::new(limits::CONTROL_COMPILING),
            sending: Budget::new(limits::CONTROL_ANSWER_BYTES),
            tls: tls.map(|tls| {
                let config = Mutex::new(http1_only(&tls));
                (tls, config)
            }),
            origin,
            stopping: AtomicBool::new(false),
            live: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Monotonic time since control started.
    pub(super) fn now(&self) -> Tick {
        Tick(u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// The TLS set-up for a new connection.
    pub(super) fn tls(&self) -> Option<Arc<ServerConfig>> {
        let (_, config) = self.tls.as_ref()?;
        Some(Arc::clone(&config.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Reads the certificate files again. On an error the old ones stay.
    pub(super) fn reload_tls(&self) -> Result<(), StartError> {
        let Some((tls, config)) = &self.tls else { return Ok(()) };
        tls.reload()?;
        *config.lock().unwrap_or_else(PoisonError::into_inner) = http1_only(tls);
        Ok(())
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Wakes every thread that waits: there is something new.
    pub(super) fn wake_all(&self) {
        let live = self.live();
        live.wakers.values().for_each(|w| w.wake());
        self.changed.notify_all();
    }

    /// Begins the end.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.events.stop();
        self.wake_all();
    }

    /// Enters a thread that waits; it is woken when something changes, until the guard is dropped.
    pub(super) fn enter(self: &Arc<Self>, waker: &Arc<Waker>) -> Entered {
        let mut live = self.live();
        let key = live.next;
        live.next += 1;
        live.wakers.insert(key, Arc::clone(waker));
        Entered { shared: Arc::clone(self), key }
    }

    /// Waits for the end, or for the time to pass.
    pub(super) fn pause(&self, time: Duration) {
        let end = Instant::now() + time;
        let mut live = self.live();
        while !self.is_stopping() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            (live, _) =
                self.changed.wait_timeout(live, left).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until every thread that entered has left, or the time is over.
    pub(super) fn wait_gone(&self, timeout: Duration) -> bool {
        let (live, _) = self
            .changed
            .wait_timeout_while(self.live(), timeout, |live| !live.wakers.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        live.wakers.is_empty()
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Shared::enter`].
#[derive(Debug)]
pub(super) struct Entered {
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

/// Adds one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The recorder's TLS without the HTTP/2 that is not spoken here.
fn http1_only(tls: &Tls) -> Arc<ServerConfig> {
    let mut config = ServerConfig::clone(&tls.current());
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}
