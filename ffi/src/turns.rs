//! Turns of callers: one at a time, and nobody after a fault.
// pthread_self.
#![allow(unsafe_code)]
// This crate is a shell: it waits.
#![allow(clippy::disallowed_methods)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use core_lib::client::Mark;

use crate::guard::State;
use crate::status::castkeep_status::{self, *};

pub(crate) struct Guard {
    state: Mutex<State>,
    /// The thread that is inside, as a number; 0 is none.
    inside: AtomicUsize,
    poisoned: AtomicBool,
    made_in: Mark,
    /// Callers wait for each other and for what the worker does.
    threaded: bool,
    changed: Condvar,
}

impl Guard {
    pub(crate) fn new(state: State, threaded: bool) -> Self {
        let made_in = state.driver.mark();
        Self {
            state: Mutex::new(state),
            inside: AtomicUsize::new(0),
            poisoned: AtomicBool::new(false),
            made_in,
            threaded,
            changed: Condvar::new(),
        }
    }

    pub(crate) fn is_forked(&self) -> bool {
        self.made_in.is_forked()
    }

    /// Whether this is a call out of a callback.
    pub(crate) fn is_inside(&self) -> bool {
        self.inside.load(Ordering::Relaxed) == this_thread()
    }

    pub(crate) const fn is_threaded(&self) -> bool {
        self.threaded
    }

    /// One call, alone with the driver.
    pub(crate) fn enter<T>(
        &self,
        call: impl FnOnce(&mut State) -> Result<T, castkeep_status>,
    ) -> Result<T, castkeep_status> {
        let mut state = self.take()?;
        let result = catch_unwind(AssertUnwindSafe(|| call(&mut state)));
        self.leave(state);
        result.unwrap_or_else(|_| Err(self.poison()))
    }

    /// Calls again after each step of the worker until there is an answer; None when `wait` is over first.
    pub(crate) fn wait_for<T>(
        &self,
        wait: Duration,
        mut call: impl FnMut(&mut State) -> Result<Option<T>, castkeep_status>,
    ) -> Result<Option<T>, castkeep_status> {
        // Far away is never.
        let by = Instant::now().checked_add(wait);
        let mut state = self.take()?;
        loop {
            let answer = catch_unwind(AssertUnwindSafe(|| call(&mut state)));
            let left = by.map_or(STEP, |by| by.saturating_duration_since(Instant::now()));
            match answer {
                Ok(Ok(None)) if !left.is_zero() => {}
                Ok(answer) => {
                    self.leave(state);
                    return answer;
                }
                Err(_) => {
                    self.leave(state);
                    return Err(self.poison());
                }
            }
            self.inside.store(0, Ordering::Relaxed);
            let waited = self.changed.wait_timeout(state, left.min(STEP));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            self.inside.store(this_thread(), Ordering::Relaxed);
            if self.is_poisoned() {
                self.leave(state);
                return Err(CASTKEEP_STATUS_INTERNAL);
            }
        }
    }

    /// Those who wait look again.
    pub(crate) fn wake(&self) {
        self.changed.notify_all();
    }

    fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Acquire)
    }

    /// For the free functions: also in a forked child and after a fault. Nothing is done where another thread was inside when the
    /// process forked.
    pub(crate) fn at_end(&self, call: impl FnOnce(&mut State)) {
        let state = match self.state.try_lock() {
            Ok(state) => Some(state),
            Err(TryLockError::Poisoned(state)) => Some(state.into_inner()),
            Err(TryLockError::WouldBlock) if self.threaded && !self.is_forked() => {
                Some(self.state.lock().unwrap_or_else(PoisonError::into_inner))
            }
            Err(TryLockError::WouldBlock) => None,
        };
        if let Some(mut state) = state {
            // What it calls back may call back in turn.
            self.inside.store(this_thread(), Ordering::Relaxed);
            let _ = catch_unwind(AssertUnwindSafe(|| call(&mut state)));
            self.leave(state);
        }
    }

    fn take(&self) -> Result<MutexGuard<'_, State>, castkeep_status> {
        if self.is_forked() {
            return Err(CASTKEEP_STATUS_FORKED);
        }
        if self.is_poisoned() {
            return Err(CASTKEEP_STATUS_INTERNAL);
        }
        if self.is_inside() {
            return Err(CASTKEEP_STATUS_REENTRANT);
        }
        let state = if self.threaded {
            self.state.lock().unwrap_or_else(PoisonError::into_inner)
        } else {
            match self.state.try_lock() {
                Ok(state) => state,
                Err(TryLockError::Poisoned(state)) => state.into_inner(),
                Err(TryLockError::WouldBlock) => return Err(CASTKEEP_STATUS_REENTRANT),
            }
        };
        self.inside.store(this_thread(), Ordering::Relaxed);
        Ok(state)
    }

    fn leave(&self, state: MutexGuard<'_, State>) {
        self.inside.store(0, Ordering::Relaxed);
        drop(state);
    }

    fn poison(&self) -> castkeep_status {
        self.poisoned.store(true, Ordering::Release);
        self.wake();
        CASTKEEP_STATUS_INTERNAL
    }
}

/// The calling thread as a number that no other running thread has.
fn this_thread() -> usize {
    // SAFETY: takes nothing and cannot fail. A pointer with one C library, a number with the other.
    #[allow(clippy::unnecessary_cast)]
    let this = unsafe { libc::pthread_self() } as usize;
    this
}

/// How long a waiting caller trusts that it will be woken.
const STEP: Duration = Duration::from_millis(500);
