//! The client: one in a process that has sessions, made behind the fork.
// See version.rs; and the caller's pointers.
#![allow(unsafe_code)]

use core::ffi::c_int;
use std::os::fd::AsRawFd as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Once};
use std::time::Duration;

use core_lib::client::{Decision, Notice, Polled, Release};
use core_lib::error::{Error, Misuse};

use crate::config::castkeep_config;
use crate::guard::{Guard, State};
use crate::session::castkeep_session;
use crate::status::castkeep_status::{self, *};
use crate::worker::Worker;

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
    pub(crate) guard: Arc<Guard>,
    worker: Option<Worker>,
    /// What each session is opened with, and how long finish may take.
    pub(crate) decision: Decision,
    pub(crate) close_wait: Duration,
    /// What one session keeps in its ring, and all of them may.
    pub(crate) ring_bytes: usize,
    pub(crate) max_bytes: usize,
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

    /// Waits until the driver has something to do.
    pub(crate) fn pause(&self, longest: Duration) {
        let mut entry = libc::pollfd { fd: self.fd, events: libc::POLLIN, revents: 0 };
        let ms = c_int::try_from(longest.as_millis()).unwrap_or(c_int::MAX).saturating_add(1);
        // SAFETY: one entry, which lives across the call.
        unsafe { libc::poll(&raw mut entry, 1, ms) };
    }

    fn next(&self, state: &mut State) -> Option<(i32, *mut castkeep_session)> {
        loop {
            let heard = match &self.worker {
                None => state.driver.next_event(),
                Some(worker) => {
                    let heard = state.told.pop_front();
                    if state.told.is_empty() {
                        worker.quiet();
                    }
                    heard
                }
            };
            let (id, notice) = heard?;
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
        CASTKEEP_DRIVER_THREADED => true,
        _ => return CASTKEEP_STATUS_BAD_PARAMETER as i32,
    };
    if config.release == Release::Commit && !config.host_releases {
        return CASTKEEP_STATUS_UNSUPPORTED as i32;
    }
    // This library's own copy of the hook: the default one would print on the host's standard error.
    static QUIET: Once = Once::new();
    QUIET.call_once(|| std::panic::set_hook(Box::new(|_| {})));
    let made = catch_unwind(AssertUnwindSafe(|| make(config, threaded)));
    match made {
        Ok(Ok(made)) => {
            // SAFETY: as above.
            unsafe { client.write(Box::into_raw(made)) };
            CASTKEEP_STATUS_OK as i32
        }
        Ok(Err(status)) => status as i32,
        Err(_) => CASTKEEP_STATUS_INTERNAL as i32,
    }
}

fn make(config: &castkeep_config, threaded: bool) -> Result<Box<castkeep_client>, castkeep_status> {
    let decision = config.decision().map_err(|_| CASTKEEP_STATUS_CONFIG)?;
    let driver = Polled::new(config.client()).map_err(|e| match e {
        Error::NoMemory => CASTKEEP_STATUS_NO_MEMORY,
        _ => CASTKEEP_STATUS_BAD_PARAMETER,
    })?;
    let fd = driver.fd().as_raw_fd();
    let guard = Arc::new(Guard::new(driver, threaded));
    let worker = if threaded { Some(Worker::start(&guard, fd)?) } else { None };
    Ok(Box::new(castkeep_client {
        guard,
        worker,
        decision,
        close_wait: config.close_wait,
        ring_bytes: config.ring_bytes,
        max_bytes: config.max_bytes,
        fd,
    }))
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
    match &client.worker {
        Some(worker) => worker.fd(),
        None => client.fd,
    }
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
    answer(client.guard.enter(|state| match client.worker {
        Some(_) => Ok(()),
        None => state.driver.process().map_err(|e| client.status(e)),
    }))
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
    // SAFETY: made by Box, and not freed yet.
    let mut client = unsafe { Box::from_raw(client) };
    if let Some(worker) = &mut client.worker {
        if client.guard.is_forked() {
            worker.forget();
        } else {
            worker.stop();
        }
    }
    client.guard.at_end(|state| {
        for session in &state.sessions {
            // SAFETY: handles take themselves out of the list before they are freed.
            if let Some(session) = unsafe { session.as_ref() } {
                session.orphan();
            }
        }
    });
    let _ = catch_unwind(AssertUnwindSafe(|| drop(client)));
}
