//! Who may call the driver now: one caller at a time, in the process that made it, and nobody after a fault.
//!
//! ```text
//!  polled     the host calls; a call while another runs is one out of a callback: REENTRANT
//!  threaded   host threads and the worker take turns; a call out of a callback is still REENTRANT
//! ```
// Handles are the caller's pointers.
#![allow(unsafe_code)]

#[cfg(feature = "std")]
use alloc::collections::VecDeque;
use alloc::vec::Vec;

#[cfg(feature = "std")]
use core_lib::client::Notice;
use core_lib::client::{Polled, SessionId};

use crate::host::Surroundings;
use crate::session::castkeep_session;

#[cfg(not(feature = "std"))]
pub(crate) use crate::tiny::guard::Guard;
#[cfg(feature = "std")]
pub(crate) use crate::turns::Guard;

/// What moves the sessions.
pub(crate) type Driver = Polled<Surroundings>;

pub(crate) struct State {
    pub(crate) driver: Driver,
    /// Handles that point here. They take themselves out before they are freed.
    pub(crate) sessions: Vec<*mut castkeep_session>,
    /// Bytes that open sessions keep in their rings.
    pub(crate) reserved_bytes: usize,
    #[cfg(feature = "std")]
    /// What the worker heard and the host did not ask for yet. One ROOM and one RELEASED a session at most.
    pub(crate) told: VecDeque<(SessionId, Notice)>,
}

// SAFETY: the handles are touched by whoever is inside only, and the header has the caller keep them alive until then.
unsafe impl Send for State {}

impl State {
    pub(crate) const fn new(driver: Driver) -> Self {
        Self {
            driver,
            sessions: Vec::new(),
            reserved_bytes: 0,
            #[cfg(feature = "std")]
            told: VecDeque::new(),
        }
    }

    #[cfg(feature = "std")]
    /// Takes over what the driver has to tell, as far as there is memory to keep it.
    pub(crate) fn hear(&mut self) {
        while self.told.try_reserve(1).is_ok() {
            let Some(heard) = self.driver.next_event() else { break };
            let again = matches!(heard.1, Notice::Room | Notice::Released);
            if !again || !self.told.contains(&heard) {
                self.told.push_back(heard);
            }
        }
    }

    /// The handle of a session.
    pub(crate) fn handle(&self, id: SessionId) -> *mut castkeep_session {
        let is = |session: &&*mut castkeep_session| {
            // SAFETY: see `sessions`.
            unsafe { session.as_ref() }.is_some_and(|session| session.id.get() == Some(id))
        };
        self.sessions.iter().find(is).copied().unwrap_or(core::ptr::null_mut())
    }
}
