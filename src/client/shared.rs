//! What the worker and the handles share.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rustix::event::{EventfdFlags, eventfd};
use rustix::process::{Pid, getpid};

use super::config::{Observer, PolicySource, RecorderAddr};
use super::handle::Start;
use super::log::LogSink;
use super::outcome::Outcome;
use crate::error::{Error, Misuse};
use crate::session::{Machine, POLICY};
use crate::time::Tick;

/// One per client.
pub(super) struct Shared {
    origin: Instant,
    pid: Pid,
    wake: OwnedFd,
    /// AWAKE, LINGERING or ASLEEP.
    sleep: AtomicU8,
    /// Something was done that the worker has to look at without delay.
    urgent: AtomicBool,
    pub(super) inbox: Mutex<Vec<Arc<Slot>>>,
    pub(super) stop: AtomicBool,
    /// The worker panicked.
    pub(super) failed: AtomicBool,
    pub(super) sessions: AtomicUsize,
    pub(super) log: Arc<dyn LogSink>,
}

/// One per session.
pub(super) struct Slot {
    inner: Mutex<Inner>,
    /// Start, room, release, end: all that a caller can wait for.
    pub(super) changed: Condvar,
    /// A caller did something since the worker last looked.
    pub(super) dirty: AtomicBool,
    pub(super) recording: String,
    pub(super) recorders: Vec<RecorderAddr>,
    pub(super) policy: Option<PolicySource>,
    pub(super) observer: Option<Observer>,
}

/// Under the mutex: held for copies within memory, never for I/O or a callback.
pub(super) struct Inner {
    pub(super) machine: Machine,
    pub(super) start: Start,
    pub(super) terminated: bool,
    pub(super) end: Option<Outcome>,
    /// Least room that a waiting writer wants; none waits when this is none.
    pub(super) wanted: Option<usize>,
    /// Raw bytes taken since the worker last looked.
    pub(super) fresh: usize,
}

/// How soon the worker has to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wake {
    /// When it looks next; at once if it would not look soon.
    Soon,
    /// At once.
    Now,
}

impl Shared {
    pub(super) fn new(log: Arc<dyn LogSink>) -> Result<Self, Error> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|_| Error::NoMemory)?;
        Ok(Self {
            origin: Instant::now(),
            pid: getpid(),
            wake,
            sleep: AtomicU8::new(AWAKE),
            urgent: AtomicBool::new(false),
            inbox: Mutex::new(Vec::new()),
            stop: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            sessions: AtomicUsize::new(0),
            log,
        })
    }

    pub(super) fn now(&self) -> Tick {
        Tick(u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// Whether this is the process that made the client, and its worker lives.
    pub(super) fn check(&self) -> Result<(), Error> {
        if getpid() != self.pid {
            return Err(Error::Misuse(Misuse::WrongState));
        }
        if self.failed.load(SeqCst) {
            return Err(Error::Bug);
        }
        Ok(())
    }

    pub(super) fn is_forked(&self) -> bool {
        getpid() != self.pid
    }

    pub(super) fn inbox(&self) -> MutexGuard<'_, Vec<Arc<Slot>>> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called after the change was made and marked (`Slot::dirty`, the inbox, `stop`). The order of the two, against that in
    /// [`Shared::fall_asleep`], is what makes a lost wake-up impossible.
    pub(super) fn wake(&self, how: Wake) {
        if how == Wake::Now {
            self.urgent.store(true, SeqCst);
        }
        match self.sleep.load(SeqCst) {
            ASLEEP => {}
            LINGERING if how == Wake::Now => {}
            _ => return,
        }
        if self.sleep.swap(AWAKE, SeqCst) != AWAKE {
            let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        }
    }

    /// The worker is about to wait. `false`: there is something to do already.
    pub(super) fn fall_asleep(&self, linger: bool, is_idle: impl FnOnce() -> bool) -> bool {
        self.sleep.store(if linger { LINGERING } else { ASLEEP }, SeqCst);
        let idle = !self.urgent.load(SeqCst) && (linger || is_idle());
        if !idle {
            self.sleep.store(AWAKE, SeqCst);
        }
        idle
    }

    /// The worker looks at everything from here on.
    pub(super) fn rise(&self) {
        self.sleep.store(AWAKE, SeqCst);
        self.urgent.store(false, SeqCst);
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.wake, &mut count);
    }

    pub(super) fn wake_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

impl Slot {
    pub(super) fn new(
        machine: Machine,
        recording: String,
        recorders: Vec<RecorderAddr>,
        policy: Option<PolicySource>,
        observer: Option<Observer>,
    ) -> Self {
        Self {
            inner: Mutex::new(Inner {
                machine,
                start: Start::Pending,
                terminated: false,
                end: None,
                wanted: None,
                fresh: 0,
            }),
            changed: Condvar::new(),
            // The machine has its first actions ready.
            dirty: AtomicBool::new(true),
            recording,
            recorders,
            policy,
            observer,
        }
    }

    /// The address of a recorder, or of policy. Not under the lock.
    pub(super) fn recorder(&self, recorder: usize) -> Result<RecorderAddr, Error> {
        if let Some(policy) = &self.policy {
            if recorder == POLICY {
                return policy.at.copy();
            }
            if let Some(named) = self.lock().machine.named(recorder) {
                return policy.recorder(named);
            }
        }
        self.recorders.get(recorder).ok_or(Error::Bug)?.copy()
    }

    /// A panic under the lock is that of the worker or of a caller; `Shared::failed` and the machine's own state say what still
    /// works, so the poison adds nothing.
    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const AWAKE: u8 = 0;
const LINGERING: u8 = 1;
const ASLEEP: u8 = 2;
