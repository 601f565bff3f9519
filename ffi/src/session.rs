//! A session: one channel whose output is recorded.
// See version.rs; and the caller's pointers.
#![allow(unsafe_code)]

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::ffi::c_char;
use core::time::Duration;

#[cfg(feature = "std")]
use core_lib::client::Question;
use core_lib::client::heap::boxed;
use core_lib::client::{ExitStatus, Metadata, Outcome, SessionId, State as Stage, Stream};
use core_lib::error::Error;
use core_lib::space;

use crate::bytes::{bytes, copy_out, text};
use crate::client::{answer, castkeep_client};
use crate::guard::{Driver, State};
use crate::status::castkeep_status::{self, *};

/// For castkeep_session_set_text: the command; a session without one is a shell.
pub const CASTKEEP_TEXT_COMMAND: i32 = 1;
/// For castkeep_session_set_text: the user that the client asked for.
pub const CASTKEEP_TEXT_SSH_USER: i32 = 2;
/// For castkeep_session_set_text: the user that the session runs as.
pub const CASTKEEP_TEXT_LOCAL_USER: i32 = 3;
/// For castkeep_session_set_text: TERM.
pub const CASTKEEP_TEXT_TERM: i32 = 4;
/// For castkeep_session_set_text: "shell", "exec" or "subsystem". Unless set, by whether there is a command.
pub const CASTKEEP_TEXT_KIND: i32 = 5;
/// For castkeep_session_set_text: name or address that the user came from.
pub const CASTKEEP_TEXT_SOURCE: i32 = 6;
/// For castkeep_session_set_text: a stable id of that node. Unless set, as SOURCE.
pub const CASTKEEP_TEXT_SOURCE_ID: i32 = 7;
/// For castkeep_session_set_text: whose node that is.
pub const CASTKEEP_TEXT_SOURCE_USER: i32 = 8;
/// For castkeep_session_set_text: what all sessions of one SSH connection share.
pub const CASTKEEP_TEXT_CONNECTION_ID: i32 = 9;
/// For castkeep_session_set_text: the node that the session runs on. Recorders keep recordings by it.
pub const CASTKEEP_TEXT_NODE: i32 = 10;
/// For castkeep_session_set_text: program and version that records, such as "dropbear/2026.94".
pub const CASTKEEP_TEXT_PROGRAM: i32 = 11;

/// For castkeep_session_set_text: where the connection comes from, for CASTKEEP_OPTION_POLICY: "192.0.2.7", "192.0.2.7:40022" or
/// "[2001:db8::7]:40022". An agent believes SOURCE, SOURCE_ID and SOURCE_USER of root alone, and only where it cannot find out itself.
pub const CASTKEEP_TEXT_SOURCE_ADDRESS: i32 = 12;

/// For castkeep_session_output and castkeep_session_released: standard output, or a terminal.
pub const CASTKEEP_STDOUT: i32 = 1;
/// For castkeep_session_output and castkeep_session_released: standard error.
pub const CASTKEEP_STDERR: i32 = 2;

/// For castkeep_session_exit: the program ended with this status.
pub const CASTKEEP_EXIT_CODE: i32 = 1;
/// For castkeep_session_exit: the program was ended by this signal, by its number on this system.
pub const CASTKEEP_EXIT_SIGNAL: i32 = 2;
/// For castkeep_session_exit: the user's connection is gone and nobody knows how the program ends. The value is 0.
pub const CASTKEEP_EXIT_DISCONNECTED: i32 = 3;

/// Numbers of a session. size is the caller's: set it to sizeof before the call; only what fits is written.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct castkeep_stats {
    /// sizeof(castkeep_stats), set by the caller.
    pub size: u64,
    /// Bytes of the recording so far.
    pub encoded: u64,
    /// Of these, bytes known to be stored (or received, where the recorder says no more).
    pub committed: u64,
    /// Bytes of output that were taken, both streams.
    pub taken: u64,
    /// Bytes of output that were shown and not recorded.
    pub unrecorded: u64,
    /// Recorders lost in mid-session.
    pub losses: u64,
}

/// One recording. Its calls count as calls of its client.
pub struct castkeep_session {
    client: Cell<*const castkeep_client>,
    pub(crate) id: Cell<Option<SessionId>>,
    /// Bytes that count against the client's limit.
    reserved_bytes: Cell<usize>,
    metadata: RefCell<Metadata>,
}

impl castkeep_session {
    /// The client is gone.
    pub(crate) fn orphan(&self) {
        self.client.set(core::ptr::null());
        self.id.set(None);
    }

    fn client(&self) -> Option<&castkeep_client> {
        // SAFETY: the client tells its sessions before it goes (`orphan`).
        unsafe { self.client.get().as_ref() }
    }

    fn open_call<T>(
        &self,
        call: impl FnOnce(&castkeep_client, &mut Driver, SessionId) -> Result<T, castkeep_status>,
    ) -> Result<T, castkeep_status> {
        let client = self.client().ok_or(CASTKEEP_STATUS_CLOSED)?;
        client.guard.enter(|state| {
            let id = self.id.get().ok_or(CASTKEEP_STATUS_WRONG_STATE)?;
            call(client, &mut state.driver, id)
        })
    }

    /// As `open_call`, again after each step of the worker until there is an answer; None when `wait` is over first.
    fn wait_for<T>(
        &self,
        wait: Duration,
        mut call: impl FnMut(&castkeep_client, &mut Driver, SessionId) -> Found<T>,
    ) -> Found<T> {
        let client = self.client().ok_or(CASTKEEP_STATUS_CLOSED)?;
        client.guard.wait_for(wait, |state| {
            let id = self.id.get().ok_or(CASTKEEP_STATUS_WRONG_STATE)?;
            call(client, &mut state.driver, id)
        })
    }
}

/// What a look at a session gave: nothing yet, or an answer.
type Found<T> = Result<Option<T>, castkeep_status>;

/// # Safety
/// `session` is NULL or valid.
unsafe fn call(
    session: *const castkeep_session,
    call: impl FnOnce(&castkeep_client, &mut Driver, SessionId) -> Result<(), castkeep_status>,
) -> i32 {
    // SAFETY: the caller's promise.
    let Some(session) = (unsafe { session.as_ref() }) else {
        return CASTKEEP_STATUS_BAD_PARAMETER as i32;
    };
    answer(session.open_call(call))
}

/// Asks `known` until it answers; with the polled driver what has to be moved is moved here.
///
/// # Safety
/// `session` is NULL or valid.
unsafe fn wait(
    session: *const castkeep_session,
    timeout_ms: u32,
    mut known: impl FnMut(&castkeep_client, &mut Driver, SessionId) -> Found<castkeep_status>,
) -> i32 {
    // SAFETY: the caller's promise.
    let Some(session) = (unsafe { session.as_ref() }) else {
        return CASTKEEP_STATUS_BAD_PARAMETER as i32;
    };
    let limit = Duration::from_millis(timeout_ms.into());
    let found = if session.client().is_some_and(|client| client.guard.is_threaded()) {
        session.wait_for(limit, known)
    } else {
        session.open_call(|client, driver, id| {
            let mut failed = None;
            let found = driver.wait_until(limit, |driver| {
                known(client, driver, id).unwrap_or_else(|status| {
                    failed = Some(status);
                    Some(status)
                })
            });
            match failed {
                Some(status) => Err(status),
                None => found.map_err(|e| client.status(e)),
            }
        })
    };
    match found {
        Ok(Some(status)) | Err(status) => status as i32,
        Ok(None) => CASTKEEP_STATUS_TIMED_OUT as i32,
    }
}

/// Copies a text of the session out; its length.
///
/// # Safety
/// The pointers are valid for their lengths.
unsafe fn tell(
    session: *const castkeep_session,
    buf: *mut c_char,
    cap: usize,
    what: impl FnOnce(&Driver, SessionId) -> &str,
) -> usize {
    // SAFETY: the caller's promise.
    let told = (unsafe { session.as_ref() }).and_then(|session| {
        // SAFETY: the caller's promise.
        session.open_call(|_, driver, id| Ok(unsafe { copy_out(what(driver, id), buf, cap) })).ok()
    });
    // SAFETY: the caller's promise.
    told.unwrap_or_else(|| unsafe { copy_out("", buf, cap) })
}

#[cfg(feature = "std")]
fn message(driver: &Driver, id: SessionId) -> &str {
    match driver.message(id) {
        "" => driver.banner(id),
        message => message,
    }
}

#[cfg(not(feature = "std"))]
fn message(driver: &Driver, id: SessionId) -> &str {
    driver.message(id)
}

/// What the host says of the source is what it claims.
#[cfg(feature = "std")]
fn claim(metadata: &mut Metadata) -> Result<(), Error> {
    let mut question = metadata.question.take().unwrap_or_default();
    question.node = space::string(&metadata.src_node)?;
    question.node_id = space::string(&metadata.src_node_id)?;
    question.user_login = space::string(metadata.src_node_user.as_deref().unwrap_or_default())?;
    metadata.question = Some(question);
    Ok(())
}

fn stream(number: i32) -> Result<Stream, castkeep_status> {
    match number {
        CASTKEEP_STDOUT => Ok(Stream::Stdout),
        CASTKEEP_STDERR => Ok(Stream::Stderr),
        _ => Err(CASTKEEP_STATUS_BAD_PARAMETER),
    }
}

/// SSH's names (RFC 4254 section 6.10) of this system's numbers.
fn signal_name(number: i64) -> Option<&'static str> {
    let known = [
        (libc::SIGABRT, "ABRT"),
        (libc::SIGALRM, "ALRM"),
        (libc::SIGBUS, "BUS"),
        (libc::SIGFPE, "FPE"),
        (libc::SIGHUP, "HUP"),
        (libc::SIGILL, "ILL"),
        (libc::SIGINT, "INT"),
        (libc::SIGKILL, "KILL"),
        (libc::SIGPIPE, "PIPE"),
        (libc::SIGQUIT, "QUIT"),
        (libc::SIGSEGV, "SEGV"),
        (libc::SIGSYS, "SYS"),
        (libc::SIGTERM, "TERM"),
        (libc::SIGTRAP, "TRAP"),
        (libc::SIGUSR1, "USR1"),
        (libc::SIGUSR2, "USR2"),
        (libc::SIGXCPU, "XCPU"),
        (libc::SIGXFSZ, "XFSZ"),
    ];
    known.iter().find(|(n, _)| i64::from(*n) == number).map(|(_, name)| *name)
}

/// A session that is not open yet: set its text and size, then castkeep_session_open.
/// session  : out, for castkeep_session_free; NULL unless OK
/// Returns  : OK; BAD_PARAMETER; NO_MEMORY; FORKED; REENTRANT; INTERNAL
/// Threads  : polled: one at a time; threaded: any.   Blocks: never.   Since: 0.1
///
/// # Safety
/// The pointers are NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn castkeep_session_new(
    client: *mut castkeep_client,
    session: *mut *mut castkeep_session,
) -> i32 {
    if session.is_null() {
        return CASTKEEP_STATUS_BAD_PARAMETER as i32;
    }
    // SAFETY: not NULL, and the caller's.
    unsafe { session.write(core::ptr::null_mut()) };
    // SAFETY: the caller's promise.
    let Some(owner) = (unsafe { client.as_ref() }) else {
        return CASTKEEP_STATUS_BAD_PARAMETER as i32;
    };
    answer(owner.guard.enter(|state| {
        let State { sessions, .. } = state;
        let made = boxed(castkeep_session {
            client: Cell::new(client.cast_const()),
            id: Cell::new(None),
            reserved_bytes: Cell::new(0),
            metadata: RefCell::default(),
        });
        let made = Box::into_raw(made.map_err(|_| CASTKEEP_STATUS_NO_MEMORY)?);
        if space::push(sessions, made).is_err() {
            // SAFETY: just made, and nobody else's.
            drop(unsafe { Box::from_raw(made) });
            return Err(CASTKEEP_STATUS_NO_MEMORY);
        }
        // SAFETY: as above.
        unsafe { session.write(made) };
        Ok(())
    }))
}

/// Says something about the session for the first line of the recording. Before castkeep_session_open.
/// what     : CASTKEEP_TEXT_...
/// data,len : copied; any bytes, of which those that are not UTF-8 are replaced
/// Returns  : OK; BAD_PARAMETER; TOO_BIG; NO_MEMORY; WRONG_STATE (it is open); CLOSED; FORKED; REENTRANT; INTERNAL
/// Threads  : polled: one at a time; threaded: any.   Blocks: never.   Since: 0.1
///
/// # Safety
/// The pointers are valid for their lengths.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn castkeep_session_set_text(
    session: *mut castkeep_session,
    what: i32,
    data: *const c_char,
    len: usize,
) -> i32 {
    // SAFETY: the caller's promise.
    let Some(session) = (unsafe { session.as_ref() }) else {
        return CASTKEEP_STATUS_BAD_PARAMETER as i32;
    };
    // SAFETY: the caller's promise.
    let text = match unsafe { text(data, len) } {
        Ok(text) => text,
        Err(status) => return status as i32,
    };
    let Some(client) = session.client() else { return CASTKEEP_STATUS_CLOSED as i32 };
    answer(client.guard.enter(|_| {
        if session.id.get().is_some() {
            return Err(CASTKEEP_STATUS_WRONG_STATE);
        }
        let Ok(mut metadata) = session.metadata.try_borrow_mut() else {
            return Err(CASTKEEP_STATUS_REENTRANT);
        };
        match what {
            CASTKEEP_TEXT_COMMAND => metadata.command = Some(text),
            CASTKEEP_TEXT_SSH_USER => metadata.ssh_user = text,
            CASTKEEP_TEXT_LOCAL_USER => metadata.local_user = text,
            CASTKEEP_TEXT_TERM => {
                let name = space::string("TERM").map_err(|e| client.status(e))?;
                let mut env = Vec::new();
                space::push(&mut env, (name, text)).map_err(|e| client.status(e))?;
                metadata.env = Some(env);
            }
            CASTKEEP_TEXT_KIND => metadata.kind = text,
            CASTKEEP_TEXT_SOURCE => metadata.src_node = text,
            CASTKEEP_TEXT_SOURCE_ID => metadata.src_node_id = text,
            CASTKEEP_TEXT_SOURCE_USER => metadata.src_node_user = Some(text),
            CASTKEEP_TEXT_CONNECTION_ID => metadata.connection_id = text,
            CASTKEEP_TEXT_NODE => metadata.node = text,
            CASTKEEP_TEXT_PROGRAM => metadata.program = text,
            #[cfg(feature = "std")]
            CASTKEEP_TEXT_SOURCE_ADDRESS => {
                let mut question = Question::default();
                question.set_source(&text).map_err(|e| client.status(e))?;
                metadata.question = Some(question);
            }
            // It would be asked, and nobody is.
            #[cfg(not(feature = "std"))]
            CASTKEEP_TEXT_SOURCE_ADDRESS => {}
            _ => return Err(CASTKEEP_STATUS_BAD_PARAMETER),
        }
        Ok(())
    }))
}

/// Opens the session: reserves its memory and begins to look for a recorder. CASTKEEP_EVENT_START or
/// CASTKEEP_EVENT_REFUSED follows, at the latest after the start limit. Until START the program must not run: fork it, and let
/// the child wait on a pipe.
/// Returns  : OK; LIMIT; BAD_PARAMETER; TOO_BIG; NO_MEMORY; WRONG_STATE (it is open); CLOSED; FORKED; REENTRANT; INTERNAL. After a failure the
///            session is only to be freed
/// Threads  : polled: one at a time; threaded: any.   Blocks: never, but for the kernel's random generator shortly after boot.   Since: 0.1
///
/// # Safety
/// `session` is NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn castkeep_session_open(session: *mut castkeep_session) -> i32 {
    // SAFETY: the caller's promise.
    let Some(session) = (unsafe { session.as_ref() }) else {
        return CASTKEEP_STATUS_BAD_PARAMETER as i32;
    };
    let Some(client) = session.client() else { return CASTKEEP_STATUS_CLOSED as i32 };
    answer(client.guard.enter(|state| {
        if session.id.get().is_some() {
            return Err(CASTKEEP_STATUS_WRONG_STATE);
        }
        // A session that is not recorded keeps nothing.
        let decision = &client.decision;
        let asks = false;
        #[cfg(feature = "std")]
        let asks = asks || decision.policy.is_some();
        let records = !decision.recorders.is_empty() || asks;
        let bytes = if records { client.ring_bytes } else { 0 };
        let reserved = state.reserved_bytes.saturating_add(bytes);
        if reserved > client.max_bytes {
            return Err(CASTKEEP_STATUS_LIMIT);
        }
        let Ok(mut metadata) =
            session.metadata.try_borrow_mut().map(|mut m| core::mem::take(&mut *m))
        else {
            return Err(CASTKEEP_STATUS_REENTRANT);
        };
        #[cfg(feature = "std")]
        if asks {
            claim(&mut metadata).map_err(|e| client.status(e))?;
        }
        if metadata.src_node_id.is_empty() {
            metadata.src_node_id =
                space::string(&metadata.src_node).map_err(|e| client.status(e))?;
        }
        client.transfers.apply(&mut metadata).map_err(|e| client.status(e))?;
        let id = state.driver.open(metadata, &client.decision).map_err(|e| match e {
            Error::Full => CASTKEEP_STATUS_LIMIT,
            e => client.status(e),
        })?;
        session.id.set(Some(id));
        session.reserved_bytes.set(bytes);
        state.reserved_bytes = reserved;
        Ok(())
    }))
}

/// Waits until it is known whether the program may start, for hosts without an event loop. The events come as well.
/// timeout_ms: longest wait
/// Returns  : OK (the program may start); REFUSED (it must not: show castkeep_session_message, end with 254); TIMED_OUT (not
///            known yet); BAD_PARAMETER; WRONG_STATE; CLOSED (it is over); FORKED; REENTRANT; INTERNAL
/// Threads  : polled: one at a time; threaded: any.   Blocks: at most timeout_ms.   Since: 0.1
///
/// # Safety
/// `session` is NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn castkeep_session_wait_start(
    session: *mut castkeep_session,
    timeout_ms: u32,
) -> i32 {
    let known = |_: &castkeep_client, driver: &mut Driver, id| {
        Ok(match driver.state(id) {
            Stage::Connecting
            | Stage::CheckPolicy
            | Stage::FindRecorder
            | Stage::TryPrimary
            | Stage::TryFailover
            | Stage::RecordingFailed => None,
            Stage::SessionRejected => Some(CASTKEEP_STATUS_REFUSED),
            // Closed, or over before anybody asked.
            Stage::SessionComplete | Stage::SessionTerminated | Stage::Incomplete => {
                Some(CASTKEEP_STATUS_CLOSED)
            }
            _ => Some(CASTKEEP_STATUS_OK),
        })
    };
    // SAFETY: the caller's promise.
    unsafe { wait(session, timeout_ms, known) }
}

/// How many bytes the next castkeep_session_output takes whole: 0 while opening, when what waits for the recorder has
/// filled its memory, and after the end; SIZE_MAX when nothing is recorded; otherwise at least 2,048. Behind a 0 comes
/// CASTKEEP_EVENT_ROOM. Do not read from the program while it is 0, and at
/// most so much: a descriptor that is not read is what holds a program back. Output of both streams shares it, so ask again after each output.
/// Returns  : bytes; 0 for NULL, before castkeep_session_open, and in a forked child
/// Threads  : polled: one at a time; threaded: any.   Blocks: never.   Since: 0.1
///
/// # Safety
/// `session` is NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn castkeep_session_room(session: *const castkeep_session) -> usize {
    // SAFETY: the caller's promise.
    let Some(session) = (unsafe { session.as_ref() }) else { return 0 };
    session.open_call(|_, driver, id| Ok(driver.room(id))).unwrap_or(0)
}

/// Gives output of the program to the recording, before it is shown: what was not taken must not be.
/// Polled: all of it or none. Threaded: all of it, waiting for room.
/// stream   : CASTKEEP_STDOUT or CASTKEEP_STDERR
/// data,len : copied before return, any bytes, any split; data may be NULL only when len is 0
/// Returns  : OK; WOULD_BLOCK (polled: len is more than castkeep_session_room); CLOSED (the session is over: discard
///            what was given); BAD_PARAMETER; WRONG_STATE (not open); FORKED; REENTRANT; INTERNAL
/// Threads  : polled: one at a time; threaded: any.   Since: 0.1
/// Blocks   : polled: never. Threaded: while there is no room; what policy does about a lost recorder bounds it.
///
/// # Safety
/// The pointers are valid for their lengths.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn castkeep_session_output(
    session: *mut castkeep_session,
    from: i32,
    data: *const u8,
    len: usize,
) -> i32 {
    // SAFETY: the caller's promise.
    let Some(handle) = (unsafe { session.as_ref() }) else {
        return CASTKEEP_STATUS_BAD_PARAMETER as i32;
    };
    // SAFETY: the caller's promise.
    let mut rest = match unsafe { bytes(data, len) } {
        Ok(data) => data,
        Err(status) => return status as i32,
    };
    if !handle.client().is_some_and(|client| client.guard.is_threaded()) {
        return answer(handle.open_call(|client, driver, id| {
            driver.output(id, stream(from)?, rest).map_err(|e| client.status(e))
        }));
    }
    let taken = handle.wait_for(Duration::MAX, |client, driver, id| {
        let from = stream(from)?;
        let room = driver.room(id).min(rest.len());
        // With no room this asks why.
        let now = rest.get(..room).filter(|now| !now.is_empty()).unwrap_or(rest);
        match driver.output(id, from, now) {
            Ok(()) => rest = rest.get(now.len()..).unwrap_or_default(),
            Err(Error::Full) => return Ok(None),
            Err(e) => return Err(client.status(e)),
        }
        Ok(rest.is_empty().then_some(()))
    });
    answer(taken.map(|_| ()))
}

/// Gives what the user typed to the recording, when the configuration records it. Never held back: what has no room is
/// left out. Do not give it what is typed without echo.
/// data,len : copied before return
/// Returns  : OK; BAD_PARAMETER; WRONG_STATE; CLOSED; FORKED; REENTRANT; INTERNAL
/// Threads  : polled: one at a time; threaded: any.   Blocks: never.   Since: 0.1
///
/// # Safety
/// The pointers are valid for their lengths.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn castkeep_session_input(
    session: *mut castkeep_session,
    data: *const u8,
    len: usize,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        call(session, |client, driver, id| {
            driver.input(id, bytes(data, len)?).map_err(|e| client.status(e))
        })
    }
}

/// The terminal has this size. Before castkeep_session_open, and until START, it goes into the recording's first line.
/// cols,rows: cells
/// Returns  : OK; BAD_PARAMETER; CLOSED; FORKED; REENTRANT; INTERNAL
/// Threads  : polled: one at a time; threaded: any.   Blocks: never.   Since: 0.1
///
/// # Safety
/// `session` is NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn castkeep_session_resize(
    session: *mut castkeep_session,
    cols: u16,
    rows: u16,
) -> i32 {
    // SAFETY: the caller's promise.
    let Some(handle) = (unsafe { session.as_ref() }) else {
        return CASTKEEP_STATUS_BAD_PARAMETER as i32;
    };
    let Some(client) = handle.client() else { return CASTKEEP_STATUS_CLOSED as i32 };
    answer(client.guard.enter(|state| match handle.id.get() {
        Some(id) => state.driver.resize(id, cols, rows).map_err(|e| client.status(e)),
        None => {
            let metadata = handle.metadata.try_borrow_mut();
            metadata.map_err(|_| CASTKEEP_STATUS_REENTRANT)?.size = (cols, rows);
            Ok(())
        }
    }))
}

/// Puts a marker into the recording; players jump to it.
/// data,len : its label, cut to 256 bytes
/// Returns  : OK; WOULD_BLOCK; BAD_PARAMETER; TOO_BIG; NO_MEMORY; WRONG_STATE; CLOSED; FORKED; REENTRANT; INTERNAL
/// Threads  : polled: one at a time; threaded: any.   Blocks: never.   Since: 0.1
///
/// # Safety
/// The pointers are valid for their lengths.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn castkeep_session_marker(
    session: *mut castkeep_session,
    data: *const c_char,
    len: usize,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        call(session, |client, driver, id| {
            driver.marker(id, &text(data, len)?).map_err(|e| client.status(e))
        })
    }
}

/// How many bytes of a stream may be shown, from its beginning: all that output took, or with CASTKEEP_OPTION_RELEASE_COMMIT
/// what is stored.
/// stream   : CASTKEEP_STDOUT or CASTKEEP_STDERR
/// Returns  : bytes; 0 for NULL, another stream, before castkeep_session_open, and in a forked child
/// Threads  : polled: one at a time; threaded: any.   Blocks: never.   Since: 0.1
///
/// # Safety
/// `session` is NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn castkeep_session_released(
    session: *const castkeep_session,
    of: i32,
) -> u64 {
    // SAFETY: the caller's promise.
    let Some(session) = (unsafe { session.as_ref() }) else { return 0 };
    session.open_call(|_, driver, id| Ok(driver.released(id, stream(of)?))).unwrap_or(0)
}

/// The message for the user behind CASTKEEP_EVENT_REFUSED and CASTKEEP_EVENT_TERMINATED; behind CASTKEEP_EVENT_START what policy has
/// to say before the session begins, without a line end.
/// buf,cap  : out, cut to fit and ended with NUL; may be NULL with 0
/// Returns  : the length of the whole message without the NUL; 0 when there is none
/// Threads  : polled: one at a time; threaded: any.   Blocks: never.   Since: 0.1
///
/// # Safety
/// The pointers are valid for their lengths.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn castkeep_session_message(
    session: *const castkeep_session,
    buf: *mut c_char,
    cap: usize,
) -> usize {
    // SAFETY: the caller's promise.
    unsafe { tell(session, buf, cap, |driver, id| message(driver, id)) }
}

/// The recording's id: 32 hexadecimal digits, by which `castkeep ls`, `play` and `join` know it.
/// buf,cap  : out, cut to fit and ended with NUL; may be NULL with 0
/// Returns  : 32; 0 before castkeep_session_open
/// Threads  : polled: one at a time; threaded: any.   Blocks: never.   Since: 0.1
///
/// # Safety
/// The pointers are valid for their lengths.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn castkeep_session_recording(
    session: *const castkeep_session,
    buf: *mut c_char,
    cap: usize,
) -> usize {
    // SAFETY: the caller's promise.
    unsafe { tell(session, buf, cap, |driver, id| driver.recording(id).unwrap_or("")) }
}

/// Numbers of the session.
/// stats    : in, its size; out, the numbers
/// Returns  : OK; BAD_PARAMETER (NULL, or a size below 8); WRONG_STATE; CLOSED; FORKED; REENTRANT; INTERNAL
/// Threads  : polled: one at a time; threaded: any.   Blocks: never.   Since: 0.1
///
/// # Safety
/// The pointers are NULL or valid; `stats` for as many bytes as its size says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn castkeep_session_stats(
    session: *const castkeep_session,
    stats: *mut castkeep_stats,
) -> i32 {
    if stats.is_null() {
        return CASTKEEP_STATUS_BAD_PARAMETER as i32;
    }
    // SAFETY: not NULL; the first member is there in every version.
    let size = unsafe { (&raw const (*stats).size).read() };
    if size < 8 {
        return CASTKEEP_STATUS_BAD_PARAMETER as i32;
    }
    // SAFETY: the caller's promise.
    unsafe {
        call(session, |_, driver, id| {
            let found = driver.stats(id);
            let ours = castkeep_stats {
                size,
                encoded: found.encoded,
                committed: found.committed,
                taken: found.stdout.saturating_add(found.stderr),
                unrecorded: found.unrecorded,
                losses: u64::from(found.losses),
            };
            let n = usize::try_from(size).unwrap_or(usize::MAX).min(size_of::<castkeep_stats>());
            core::ptr::copy_nonoverlapping((&raw const ours).cast::<u8>(), stats.cast::<u8>(), n);
            Ok(())
        })
    }
}

/// The program has ended: the recording's last event. Only castkeep_session_finish or castkeep_session_close follows.
/// how      : CASTKEEP_EXIT_...
/// value    : the status or the signal's number
/// Returns  : OK; BAD_PARAMETER; WRONG_STATE; CLOSED; FORKED; REENTRANT; INTERNAL
/// Threads  : polled: one at a time; threaded: any.   Blocks: never.   Since: 0.1
///
/// # Safety
/// `session` is NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn castkeep_session_exit(
    session: *mut castkeep_session,
    how: i32,
    value: i32,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        call(session, |client, driver, id| {
            let status = match how {
                CASTKEEP_EXIT_CODE => ExitStatus::Code(value),
                CASTKEEP_EXIT_SIGNAL => match signal_name(value.into()) {
                    Some(name) => ExitStatus::Signal(name),
                    // As shells say it.
                    None => ExitStatus::Code(128_i32.saturating_add(value)),
                },
                CASTKEEP_EXIT_DISCONNECTED => {
                    let _ = driver.marker(id, "castkeep:disconnected");
                    return Ok(());
                }
                _ => return Err(CASTKEEP_STATUS_BAD_PARAMETER),
            };
            driver.exit(id, status).map_err(|e| client.status(e))
        })
    }
}

/// Ends the session without waiting: CASTKEEP_EVENT_FINISHED or CASTKEEP_EVENT_INCOMPLETE follows within
/// CASTKEEP_OPTION_CLOSE_WAIT_MS. Keep the program's exit status from the user until then, and wait on castkeep_client_fd as before.
/// Returns  : OK; BAD_PARAMETER; WRONG_STATE; CLOSED; FORKED; REENTRANT; INTERNAL
/// Threads  : polled: one at a time; threaded: any.   Blocks: never.   Since: 0.1
///
/// # Safety
/// `session` is NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn castkeep_session_finish(session: *mut castkeep_session) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        call(session, |client, driver, id| {
            driver.finish(id, client.close_wait).map_err(|e| client.status(e))
        })
    }
}

/// Ends the session and waits until it is stored: for a process that is about to exit. Other sessions of the client are
/// served meanwhile; their events wait for castkeep_client_next_event. After it the session is only to be freed.
/// timeout_ms: longest wait; 0 sends what can be sent at once
/// Returns  : OK (everything is stored); TIMED_OUT (not everything is known to be); BAD_PARAMETER; WRONG_STATE;
///            CLOSED; FORKED; REENTRANT; INTERNAL
/// Threads  : polled: one at a time; threaded: any.   Blocks: at most timeout_ms.   Since: 0.1
///
/// # Safety
/// `session` is NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn castkeep_session_close(
    session: *mut castkeep_session,
    timeout_ms: u32,
) -> i32 {
    // SAFETY: the caller's promise.
    let Some(handle) = (unsafe { session.as_ref() }) else {
        return CASTKEEP_STATUS_BAD_PARAMETER as i32;
    };
    let limit = Duration::from_millis(timeout_ms.into());
    let waits = handle.client().is_some_and(|client| client.guard.is_threaded());
    if !waits {
        return answer(handle.open_call(|client, driver, id| {
            match driver.close(id, limit).map_err(|e| client.status(e))? {
                Outcome::Complete => Ok(()),
                Outcome::Incomplete { .. } => Err(CASTKEEP_STATUS_TIMED_OUT),
            }
        }));
    }
    let begun = handle
        .open_call(|client, driver, id| driver.finish(id, limit).map_err(|e| client.status(e)));
    if let Err(status) = begun {
        return status as i32;
    }
    let ended = handle.wait_for(limit, |_, driver, id| {
        Ok(match driver.state(id) {
            Stage::SessionComplete | Stage::SessionRejected => Some(true),
            Stage::Incomplete => Some(false),
            _ => None,
        })
    });
    let freed = handle.open_call(|_, driver, id| {
        driver.free(id);
        Ok(())
    });
    answer(match ended {
        Ok(Some(true)) => freed,
        Ok(_) => Err(CASTKEEP_STATUS_TIMED_OUT),
        Err(status) => Err(status),
    })
}

/// Gives up what is not stored yet, and frees the session. In a forked child it only closes descriptors; out of a callback
/// of its client it does nothing.
/// session  : may be NULL
/// Threads  : polled: one at a time; threaded: any.   Blocks: never.   Since: 0.1
///
/// # Safety
/// `session` is NULL or one that was made and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn castkeep_session_free(session: *mut castkeep_session) {
    if session.is_null() {
        return;
    }
    // SAFETY: the caller's promise.
    if unsafe { &*session }.client().is_some_and(|client| client.guard.is_inside()) {
        return;
    }
    // SAFETY: made by Box, and not freed yet.
    let handle = unsafe { Box::from_raw(session) };
    let Some(client) = handle.client() else { return };
    client.guard.at_end(|state| {
        state.sessions.retain(|other| *other != session);
        state.reserved_bytes = state.reserved_bytes.saturating_sub(handle.reserved_bytes.get());
        if let Some(id) = handle.id.get() {
            state.driver.free(id);
        }
    });
}
