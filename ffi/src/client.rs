//! The client: one in a process that has sessions, made behind the fork.
// See version.rs; and the caller's pointers.
#![allow(unsafe_code)]

use core::ffi::c_int;
use std::cell::{Cell, RefCell};
use std::os::fd::AsRawFd as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process;
use std::sync::Once;
use std::time::Duration;

use core_lib::client::{Decision, Notice, Polled, Release, SessionId};
use core_lib::error::{Error, Misuse};

use crate::config::castkeep_config;
use crate::session::castkeep_session;
use crate::status::castkeep_status::{self, *};

/// For castkeep_client_new: no thread; the host waits for castkeep_client_fd and calls castkeep_client_process.
pub const CASTKEEP_DRIVER_POLLED: i32 = 1;
/// For castkeep_client_new: one thread of the library's own for all sessions of the client. Not in this version:
/// UNSUPPORTED.
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
/// privileges are dropped. One thread at a time.
pub struct castkeep_client {
    pub(crate) driver: RefCell<Polled>,
    /// What each session is opened with, and how long finish may take.
    pub(crate) decision: Decision,
    pub(crate) close_wait: Duration,
    pid: u32,
    poisoned: Cell<bool>,
    /// Handles that point here.
    pub(crate) sessions: RefCell<Vec<*mut castkeep_session>>,
}

impl castkeep_client {
    pub(crate) fn status(&self, error: Error) -> castkeep_status {
        match error {
            Error::Misuse(_) if self.is_forked() => CASTKEEP_STATUS_FORKED,
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

    pub(crate) fn is_forked(&self) -> bool {
        process::id() != self.pid
    }

    /// What every call of a client and its sessions passes through.
    pub(crate) fn enter<T>(
        &self,
        call: impl FnOnce(&mut Polled) -> Result<T, castkeep_status>,
    ) -> Result<T, castkeep_status> {
        if self.is_forked() {
            return Err(CASTKEEP_STATUS_FORKED);
        }
        if self.poisoned.get() {
            return Err(CASTKEEP_STATUS_INTERNAL);
        }
        let Ok(mut driver) = self.driver.try_borrow_mut() else {
            return Err(CASTKEEP_STATUS_REENTRANT);
        };
        catch_unwind(AssertUnwindSafe(|| call(&mut driver))).unwrap_or_else(|_| {
            self.poisoned.set(true);
            Err(CASTKEEP_STATUS_INTERNAL)
        })
    }

    fn session(&self, id: SessionId) -> *mut castkeep_session {
        let is = |session: &&*mut castkeep_session| {
            // SAFETY: handles take themselves out of the list before they are freed.
            unsafe { session.as_ref() }.is_some_and(|session| session.id.get() == Some(id))
        };
        self.sessions.borrow().iter().find(is).copied().unwrap_or(core::ptr::null_mut())
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
/// driver   : CASTKEEP_DRIVER_POLLED
/// client   : out, for castkeep_client_free; NULL unless OK
/// Returns  : OK; BAD_PARAMETER; UNSUPPORTED (the driver; or output is to be stored before it is shown and the
///            host has not said that it can: CASTKEEP_OPTION_HOST_RELEASES); NO_MEMORY; INTERNAL
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
    match driver {
        CASTKEEP_DRIVER_POLLED => {}
        CASTKEEP_DRIVER_THREADED => return CASTKEEP_STATUS_UNSUPPORTED as i32,
        _ => return CASTKEEP_STATUS_BAD_PARAMETER as i32,
    }
    if config.release == Release::Commit && !config.host_releases {
        return CASTKEEP_STATUS_UNSUPPORTED as i32;
    }
    // This library's own copy of the hook: the default one would print on the host's standard error.
    static QUIET: Once = Once::new();
    QUIET.call_once(|| std::panic::set_hook(Box::new(|_| {})));
    let made = catch_unwind(AssertUnwindSafe(|| {
        let driver = Polled::new(config.client()).map_err(|e| match e {
            Error::NoMemory => CASTKEEP_STATUS_NO_MEMORY,
            _ => CASTKEEP_STATUS_BAD_PARAMETER,
        })?;
        Ok::<_, castkeep_status>(Box::new(castkeep_client {
            driver: RefCell::new(driver),
            decision: config.decision(),
            close_wait: config.close_wait,
            pid: process::id(),
            poisoned: Cell::new(false),
            sessions: RefCell::new(Vec::new()),
        }))
    }));
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

/// The one descriptor of a client, the same for its life: an epoll instance. Wait until it is readable (poll, select,
/// epoll), then call castkeep_client_process. It belongs to the client: do not close it, read it, or wait for it to be writable.
/// Returns  : a descriptor; -1 for NULL
/// Threads  : any.   Blocks: never.   Since: 0.1
///
/// # Safety
/// `client` is NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn castkeep_client_fd(client: *const castkeep_client) -> c_int {
    // SAFETY: the caller's promise.
    let client = unsafe { client.as_ref() };
    client
        .and_then(|client| client.driver.try_borrow().ok().map(|driver| driver.fd().as_raw_fd()))
        .unwrap_or(-1)
}

/// Does what can be done without waiting: sends, receives, connects, keeps deadlines. Then ask castkeep_client_next_event.
/// Returns  : OK; BAD_PARAMETER; FORKED; REENTRANT; INTERNAL
/// Threads  : one at a time.   Blocks: never.   Since: 0.1
///
/// # Safety
/// `client` is NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn castkeep_client_process(client: *mut castkeep_client) -> i32 {
    // SAFETY: the caller's promise.
    let Some(client) = (unsafe { client.as_ref() }) else {
        return CASTKEEP_STATUS_BAD_PARAMETER as i32;
    };
    answer(client.enter(|driver| driver.process().map_err(|e| client.status(e))))
}

/// The next thing to tell. Call it until there is none, after castkeep_client_process and after any other call
/// that the host does not follow with a wait.
/// event    : out, CASTKEEP_EVENT_...; NONE when there is nothing
/// session  : out, whose event it is; NULL with NONE
/// Returns  : OK; BAD_PARAMETER; FORKED; REENTRANT; INTERNAL
/// Threads  : one at a time.   Blocks: never.   Since: 0.1
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
    answer(client.enter(|driver| {
        while let Some((id, notice)) = driver.next_event() {
            let handle = client.session(id);
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
            if handle.is_null() {
                continue;
            }
            // SAFETY: as above.
            unsafe {
                event.write(number);
                session.write(handle);
            }
            break;
        }
        Ok(())
    }))
}

/// Gives up what its sessions have not stored yet, and frees the client. The sessions' handles stay, answer CLOSED, and are
/// still to be freed. In a forked child it only closes descriptors.
/// client   : may be NULL
/// Threads  : one at a time.   Blocks: never.   Since: 0.1
///
/// # Safety
/// `client` is NULL or one that was made and not freed, and no call of it is running.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn castkeep_client_free(client: *mut castkeep_client) {
    if client.is_null() {
        return;
    }
    // SAFETY: made by Box, and not freed yet.
    let client = unsafe { Box::from_raw(client) };
    for session in client.sessions.borrow().iter() {
        // SAFETY: handles take themselves out of the list before they are freed.
        if let Some(session) = unsafe { session.as_ref() } {
            session.orphan();
        }
    }
    let _ = catch_unwind(AssertUnwindSafe(|| drop(client)));
}
