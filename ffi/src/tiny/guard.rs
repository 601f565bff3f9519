//! Who may call the driver now: one caller at a time, in the process that made it. There is no thread here.
#![allow(unsafe_code)]

use core::cell::{Cell, UnsafeCell};
use core::time::Duration;

use core_lib::client::Mark;

use crate::guard::State;
use crate::status::castkeep_status::{self, *};

pub(crate) struct Guard {
    state: UnsafeCell<State>,
    inside: Cell<bool>,
    made_in: Mark,
}

impl Guard {
    pub(crate) fn new(state: State, _: bool) -> Self {
        let made_in = state.driver.mark();
        Self { state: UnsafeCell::new(state), inside: Cell::new(false), made_in }
    }

    pub(crate) fn is_forked(&self) -> bool {
        self.made_in.is_forked()
    }

    /// Whether this is a call out of a callback.
    pub(crate) const fn is_inside(&self) -> bool {
        self.inside.get()
    }

    pub(crate) const fn is_threaded(&self) -> bool {
        false
    }

    pub(crate) fn enter<T>(
        &self,
        call: impl FnOnce(&mut State) -> Result<T, castkeep_status>,
    ) -> Result<T, castkeep_status> {
        if self.is_forked() {
            return Err(CASTKEEP_STATUS_FORKED);
        }
        if self.inside.replace(true) {
            return Err(CASTKEEP_STATUS_REENTRANT);
        }
        // SAFETY: `inside` was false: nobody else has it, and the header has one thread call at a time.
        let answer = call(unsafe { &mut *self.state.get() });
        self.inside.set(false);
        answer
    }

    /// Only the threaded driver waits for another's steps.
    #[allow(clippy::unused_self)]
    pub(crate) fn wait_for<T>(
        &self,
        _: Duration,
        _: impl FnMut(&mut State) -> Result<Option<T>, castkeep_status>,
    ) -> Result<Option<T>, castkeep_status> {
        Err(CASTKEEP_STATUS_UNSUPPORTED)
    }

    /// For the free functions: also in a forked child.
    pub(crate) fn at_end(&self, call: impl FnOnce(&mut State)) {
        if !self.inside.replace(true) {
            // SAFETY: as in `enter`.
            call(unsafe { &mut *self.state.get() });
            self.inside.set(false);
        }
    }
}
