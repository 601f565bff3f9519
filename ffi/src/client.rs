//! The client: one in a process that has sessions, made behind the fork.
// See version.rs; and the caller's pointers.
#![allow(unsafe_code)]

use alloc::boxed::Box;
use core::ffi::c_int;
use core::time::Duration;
#[cfg(feature = "std")]
use std::sync::Arc;

use core_lib::client::heap::boxed;
use core_lib::client::{Decision, Notice, Polled, Release, SessionId};
use core_lib::error::{Error, Misuse};

use crate::config::{Transfers, castkeep_config};
use crate::fence::fenced;
use crate::guard::{Guard, State};
use crate::session::castkeep_session;
use crate::status::castkeep_status::{self, *};
#[cfg(feature = "std")]
use crate::worker::Worker;

/// A thread has its own hold on the guard. (`Arc::new` ends the process when memory is refused.)
#[cfg(feature = "std")]
pub(crate) enum Held {
    Alone(Box<Guard>),
    Shared(Arc<Guard>),
}
#[cfg(not(feature = "std"))]
type Held = Guard;

#[cfg(feature = "std")]
impl core::ops::Deref for Held {
    type Target = Guard;

    fn deref(&self) -> &Guard {
        match self {
            Self::Alone(guard) => guard,
            Self::Shared(guard) => guard,
        }
    }
}

/// For castkeep_client_new: no thread; the host waits for castkeep_client_fd and calls castkeep_client_process.
pub const CASTKEEP_DRIVER_POLLED: i32 = 1;
/// For castkeep_client_new: one thread of the library's own for all sessions of the client. All calls may come from any
/// thread at any time, and castkeep_session_output waits for room.
pub const CASTKEEP_DRIVER_THREADED: i32 = 2;

/// For castkeep_client_next_event: nothing more to tell now.
pub const CASTKEEP_EVENT_NONE: i32 = 0;
/// The program may start.
pub const CASTKEEP_EVENT_START: i32 = 1;
/// The program must not start: show castkeep_session_message, end with 254. The session's last event.
pub const CASTKEEP_EVENT_REFUSED: i32 = 2;
/// There is room again: see castkeep_session_room.
pub const CASTKEEP_EVENT_ROOM: i32 = 3;
/// More may be shown: see castkeep_session_released.
pub const CASTKEEP_EVENT_RELEASED: i32 = 4;
/// Recording failed and policy ends the session: show castkeep_session_message, send SIGHUP to the program, then
/// castkeep_session_exit and castkeep_session_finish.
pub const CASTKEEP_EVENT_TERMINATED: i32 = 5;
/// Everything is stored, or nothing was to be recorded. The session's last event.
pub const CASTKEEP_EVENT_FINISHED: i32 = 6;
/// The session ended and not everything is known to be stored. The session's last event.
pub const CASTKEEP_EVENT_INCOMPLETE: i32 = 7;

/// Moves the sessions of one process. Made after authentication, in the process that has the sessions, before
/// privileges are dropped. Polled: one thread at a time. Threaded: any.
pub struct castkeep_client {
    pub(crate) guard: Held,
    #[cfg(feature = "std")]
    worker: Option<Worker>,
    /// What each session is opened with, and how long finish may take.
    pub(crate) decision: Decision,
    pub(crate) close_wait: Duration,
    /// What one session keeps in its ring, and all of them may.
    pub(crate) ring_bytes: usize,
    pub(crate) max_bytes: usize,
    pub(crate) transfers: Transfers,
    /// The driver's.
    fd: c_int,
}

impl castkeep_client {
    pub(crate) fn status(&self, error: Error) -> castkeep_status {
        match error {
            Error::Misuse(_) if self.guard.is_forked() => CASTKEEP_STATUS_FORKED,
            Error::Misuse(Misuse::WrongState) => CASTKEEP_STATUS_WRONG_STATE,
            Error::Misuse(Misuse::Unsupported) => CASTKEEP_STATUS_UNSUPPORTED,
            Error::Misuse(_) => CASTKEEP_STATUS_BAD_PARAMETER,
            Error::Closed => CASTKEEP_STATUS_CLOSED,
            Error::Full => CASTKEEP_STATUS_WOULD_BLOCK,
            Error::TooBig => CASTKEEP_STATUS_TOO_BIG,
            Error::NoMemory => CASTKEEP_STATUS_NO_MEMORY,
            Error::Link(_) => CASTKEEP_STATUS_LINK,
            Error::TimedOut(_) => CASTKEEP_STATUS_TIMED_OUT,
            Error::Peer(_) => CASTKEEP_STATUS_RECORDER,
            _ => CASTKEEP_STATUS_INTERNAL,
        }
    }

    #[cfg(feature = "std")]
    fn hear(&self, state: &mut State) -> Option<(SessionId, Notice)> {
        let Some(worker) = &self.worker else { return state.driver.next_event() };
        let heard = state.told.pop_front();
        if state.told.is_empty() {
            worker.quiet();
        }
        heard
    }

    #[cfg(not(feature = "std"))]
    #[allow(clippy::unused_self)]
    fn hear(&self, state: &mut State) -> Option<(SessionId, Notice)> {
        state.driver.next_event()
    }

    fn next(&self, state: &mut State) -> Option<(i32, *mut castkeep_session)> {
        loop {
            let (id, notice) = self.hear(state)?;
            let number = match notice {
                Notice::Start { .. } => CASTKEEP_EVENT_START,
                Notice::Refused => CASTKEEP_EVENT_REFUSED,
                Notice::Room => CASTKEEP_EVENT_ROOM,
                Notice::Released => CASTKEEP_EVENT_RELEASED,
                Notice::Terminated { .. } => CASTKEEP_EVENT_TERMINATED,
                Notice::Finished => CASTKEEP_EVENT_FINISHED,
                Notice::Incomplete { .. } => CASTKEEP_EVENT_INCOMPLETE,
                // Of a later version of the core: nothing that this header knows.
                _ => continue,
            };
            let handle = state.handle(id);
            if !handle.is_null() {
                return Some((number, handle));
            }
        }
    }
}

pub(crate) fn answer(result: Result<(), castkeep_status>) -> i32 {
    match result {
        Ok(()) => CASTKEEP_STATUS_OK as i32,
        Err(status) => status as i32,
    }
}

/// A client. Nothing is connected, and nothing is read from files.
/// config   : copied
/// driver   : CASTKEEP_DRIVER_POLLED or CASTKEEP_DRIVER_THREADED
/// client   : out, for castkeep_client_free; NULL unless OK
/// Returns  : OK; BAD_PARAMETER; CONFIG (see castkeep_config_check); UNSUPPORTED (the driver; or output is to be
///            stored before it is shown and the host has not said that it can:
///            CASTKEEP_OPTION_HOST_RELEASES); NO_MEMORY; INTERNAL
/// Threads  : any.   Blocks: never.   Since: 0.1
///
/// # Safety
/// The pointers are NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn castkeep_client_new(
    config: *const castkeep_config,
    driver: i32,
    client: *mut *mut castkeep_client,
) -> i32 {
    if client.is_null() {
        return CASTKEEP_STATUS_BAD_PARAMETER as i32;
    }
    // SAFETY: not NULL, and the caller's.
    unsafe { client.write(core::ptr::null_mut()) };
    // SAFETY: the caller's promise.
    let Some(config) = (unsafe { config.as_ref() }) else {
        return CASTKEEP_STATUS_BAD_PARAMETER as i32;
    };
    let threaded = match driver {
        CASTKEEP_DRIVER_POLLED => false,
        CASTKEEP_DRIVER_THREADED if cfg!(feature = "std") => true,
        CASTKEEP_DRIVER_THREADED => return CASTKEEP_STATUS_UNSUPPORTED as i32,
        _ => return CASTKEEP_STATUS_BAD_PARAMETER as i32,
    };
    if config.release == Release::Commit && !config.host_releases {
        return CASTKEEP_STATUS_UNSUPPORTED as i32;
    }
    match fenced(|| make(config, threaded)) {
        Some(Ok(made)) => {
            // SAFETY: as above.
            unsafe { client.write(Box::into_raw(made)) };
            CASTKEEP_STATUS_OK as i32
        }
        Some(Err(status)) => status as i32,
        None => CASTKEEP_STATUS_INTERNAL as i32,
    }
}

fn make(config: &castkeep_config, threaded: bool) -> Result<Box<castkeep_client>, castkeep_status> {
    let decision = config.decision().map_err(|wrong| wrong.status())?;
    config.check_host().map_err(|wrong| wrong.status())?;
    let driver = Polled::with_host(config.settings(), config.host).map_err(|e| match e {
        Error::NoMemory => CASTKEEP_STATUS_NO_MEMORY,
        _ => CASTKEEP_STATUS_BAD_PARAMETER,
    })?;
    let fd = driver.raw_fd();
    let guard = Guard::new(State::new(driver), threaded);
    #[cfg(feature = "std")]
    let (guard, worker) = if threaded {
        let guard = Arc::new(guard);
        let worker = Worker::start(&guard, fd)?;
        (Held::Shared(guard), Some(worker))
    } else {
        (Held::Alone(boxed(guard).map_err(|_| CASTKEEP_STATUS_NO_MEMORY)?), None)
    };
    let client = castkeep_client {
        #[cfg(feature = "std")]
        worker,
        guard,
        decision,
        close_wait: config.close_wait,
        ring_bytes: config.ring_bytes,
        max_bytes: config.max_bytes,
        transfers: config.transfers,
        fd,
    };
    boxed(client).map_err(|_| CASTKEEP_STATUS_NO_MEMORY)
}

/// The one descriptor of a client, the same for its life. Polled: an epoll instance; wait until it is readable (poll, select,
/// epoll), then call castkeep_client_process. Threaded: an eventfd, readable while castkeep_client_next_event has something to
/// tell. It belongs to the client: do not close it, read it, or wait for it to be writable.
/// Returns  : a descriptor; -1 for NULL
/// Threads  : any.   Blocks: never.   Since: 0.1
///
/// # Safety
/// `client` is NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn castkeep_client_fd(client: *const castkeep_client) -> c_int {
    // SAFETY: the caller's promise.
    let Some(client) = (unsafe { client.as_ref() }) else { return -1 };
    #[cfg(feature = "std")]
    if let Some(worker) = &client.worker {
        return worker.fd();
    }
    client.fd
}

/// Does what can be done without waiting: sends, receives, connects, keeps deadlines. Then ask castkeep_client_next_event.
/// With the threaded driver its thread does this, and the call does nothing.
/// Returns  : OK; BAD_PARAMETER; FORKED; REENTRANT; INTERNAL
/// Threads  : polled: one at a time; threaded: any.   Blocks: never.   Since: 0.1
///
/// # Safety
/// `client` is NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn castkeep_client_process(client: *mut castkeep_client) -> i32 {
    // SAFETY: the caller's promise.
    let Some(client) = (unsafe { client.as_ref() }) else {
        return CASTKEEP_STATUS_BAD_PARAMETER as i32;
    };
    answer(client.guard.enter(|state| {
        if client.guard.is_threaded() {
            return Ok(());
        }
        state.driver.process().map_err(|e| client.status(e))
    }))
}

/// The connection that a dial function left pending, or that there is none.
/// ticket   : as the dial function was given it
/// fd       : a stream socket that does not block and may still be connecting; -1 when there is none. It is the client's from
///            now on, whatever the answer
/// Returns  : OK; CLOSED (nobody waits for it any more, and it was closed); BAD_PARAMETER; FORKED; REENTRANT; INTERNAL
/// Threads  : polled: one at a time; threaded: any.   Blocks: never.   Since: 0.1
///
/// # Safety
/// `client` is NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn castkeep_client_dialed(
    client: *mut castkeep_client,
    ticket: u64,
    fd: c_int,
) -> i32 {
    let mut given = Given(fd);
    // SAFETY: the caller's promise.
    let Some(client) = (unsafe { client.as_ref() }) else {
        return CASTKEEP_STATUS_BAD_PARAMETER as i32;
    };
    answer(
        client
            .guard
            .enter(|state| state.driver.dialed(ticket, given.take()).map_err(|e| client.status(e))),
    )
}

/// A descriptor that is the client's whatever the answer: closed unless the driver has it.
struct Given(c_int);

impl Given {
    const fn take(&mut self) -> c_int {
        core::mem::replace(&mut self.0, -1)
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        if self.0 >= 0 {
            // SAFETY: the caller gave it away.
            unsafe { libc::close(self.0) };
        }
    }
}

/// The next thing to tell. Call it until there is none, after castkeep_client_process and after any other call
/// that the host does not follow with a wait.
/// event    : out, CASTKEEP_EVENT_...; NONE when there is nothing
/// session  : out, whose event it is; NULL with NONE
/// Returns  : OK; BAD_PARAMETER; FORKED; REENTRANT; INTERNAL
/// Threads  : polled: one at a time; threaded: any.   Blocks: never.   Since: 0.1
///
/// # Safety
/// The pointers are NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn castkeep_client_next_event(
    client: *mut castkeep_client,
    event: *mut i32,
    session: *mut *mut castkeep_session,
) -> i32 {
    if event.is_null() || session.is_null() {
        return CASTKEEP_STATUS_BAD_PARAMETER as i32;
    }
    // SAFETY: not NULL, and the caller's.
    unsafe {
        event.write(CASTKEEP_EVENT_NONE);
        session.write(core::ptr::null_mut());
    }
    // SAFETY: the caller's promise.
    let Some(client) = (unsafe { client.as_ref() }) else {
        return CASTKEEP_STATUS_BAD_PARAMETER as i32;
    };
    answer(client.guard.enter(|state| {
        if let Some((number, handle)) = client.next(state) {
            // SAFETY: as above.
            unsafe {
                event.write(number);
                session.write(handle);
            }
        }
        Ok(())
    }))
}

/// Gives up what its sessions have not stored yet, and frees the client. The sessions' handles stay, answer CLOSED, and are
/// still to be freed. In a forked child it only closes descriptors; out of a callback of the client it does nothing.
/// client   : may be NULL; no call of it or its sessions is running
/// Threads  : any.   Blocks: with the threaded driver, until its thread has ended; it waits for no peer.   Since: 0.1
///
/// # Safety
/// `client` is NULL or one that was made and not freed, and no call of it is running.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn castkeep_client_free(client: *mut castkeep_client) {
    if client.is_null() {
        return;
    }
    // SAFETY: the caller's promise.
    if unsafe { &*client }.guard.is_inside() {
        return;
    }
    #[cfg(feature = "std")]
    {
        // SAFETY: made by Box, not freed yet, and nobody calls it.
        let castkeep_client { worker, guard, .. } = unsafe { &mut *client };
        match worker {
            Some(worker) if guard.is_forked() => worker.forget(),
            Some(worker) => worker.stop(),
            None => {}
        }
    }
    // While the handle is still there: a transport's close may call.
    // SAFETY: as above.
    unsafe { &*client }.guard.at_end(|state| {
        state.driver.end();
        for session in &state.sessions {
            // SAFETY: handles take themselves out of the list before they are freed.
            if let Some(session) = unsafe { session.as_ref() } {
                session.orphan();
            }
        }
    });
    // SAFETY: as above.
    let _ = fenced(|| drop(unsafe { Box::from_raw(client) }));
}
