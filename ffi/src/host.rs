//! What the host brings along, as C gives it: a log function, a function that connects, connections of its own.
// Functions of the caller's, and its pointers.
#![allow(unsafe_code)]

use core::ffi::{c_char, c_int, c_void};
use core::fmt::{self, Write as _};

use core_lib::client::{Dial, Host, HostLink, Io, Level, LinkWants};

use crate::config::{castkeep_config, change};
use crate::status::castkeep_status::*;

/// For a log function: something failed for good.
pub const CASTKEEP_LOG_ERROR: i32 = 0;
/// For a log function: a recorder was lost or could not be used.
pub const CASTKEEP_LOG_WARNING: i32 = 1;
/// For a log function: a recorder took a session.
pub const CASTKEEP_LOG_INFO: i32 = 2;
/// For a log function: each step.
pub const CASTKEEP_LOG_DEBUG: i32 = 3;

/// What a transport's wants answers: when its descriptor is readable.
pub const CASTKEEP_WANTS_READ: i32 = 1;
/// What a transport's wants answers: when its descriptor is writable.
pub const CASTKEEP_WANTS_WRITE: i32 = 2;

/// Takes a message of a client: one line without its end, of addresses, recording ids and reasons, never of
/// terminal bytes or secrets. The text lives until the function returns and does not end in NUL. The function
/// is called by whoever calls the client, and with the threaded driver by its thread; it must not block, call into that
/// client, exit or jump away.
pub type castkeep_log_fn =
    Option<unsafe extern "C" fn(user: *mut c_void, level: i32, text: *const c_char, len: usize)>;

/// Connects to a recorder for a client: for hosts that have to bind, mark, tunnel or resolve. The address is the text that
/// was added, without its scheme, and does not end in NUL. fd is to be set to a stream socket that does not block and
/// may still be connecting; it is the client's from then on. Returns OK, WOULD_BLOCK when the host goes on by itself and calls
/// castkeep_client_dialed with the ticket, or any other number: the next recorder is tried. It must not block, call into the
/// client, exit or jump away.
pub type castkeep_dial_fn = Option<
    unsafe extern "C" fn(
        user: *mut c_void,
        ticket: u64,
        address: *const c_char,
        len: usize,
        fd: *mut c_int,
    ) -> i32,
>;

/// Connections of the host's own, such as TLS of a library that it has already; the shape is that of mbedTLS's BIO. All
/// functions are needed. None may block, call into the client, exit or jump away.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct castkeep_transport {
    /// sizeof(castkeep_transport), set by the caller.
    pub size: u64,
    /// Connects, handshake included. *link is NULL at first, and whatever the function puts there is handed to the
    /// others. Returns OK when bytes can be sent; WOULD_BLOCK to be called again when what wants says has come; any
    /// other number when there is no connection (close is still called unless *link is NULL).
    pub start: Option<
        unsafe extern "C" fn(
            user: *mut c_void,
            address: *const c_char,
            len: usize,
            link: *mut *mut c_void,
        ) -> i32,
    >,
    /// Returns the number of bytes read, at least 1; 0 when the peer has sent everything, in order; WOULD_BLOCK; any
    /// other negative number when the connection is lost.
    pub read: Option<
        unsafe extern "C" fn(user: *mut c_void, link: *mut c_void, buf: *mut u8, len: usize) -> i64,
    >,
    /// Returns the number of bytes taken, at least 1; WOULD_BLOCK; any other negative number when the connection is lost.
    pub write: Option<
        unsafe extern "C" fn(
            user: *mut c_void,
            link: *mut c_void,
            data: *const u8,
            len: usize,
        ) -> i64,
    >,
    /// What the connection is waiting for; more is 1 when there are bytes to write. *fd is to be set to its descriptor, or
    /// to -1 when there is none: then it is asked again every 20 ms. Returns CASTKEEP_WANTS_READ and
    /// CASTKEEP_WANTS_WRITE, or both.
    pub wants: Option<
        unsafe extern "C" fn(
            user: *mut c_void,
            link: *mut c_void,
            more: i32,
            fd: *mut c_int,
        ) -> i32,
    >,
    /// Ends the connection and frees what it has. abort is 1 when the peer must not take it for an orderly end.
    pub close: Option<unsafe extern "C" fn(user: *mut c_void, link: *mut c_void, abort: i32)>,
}

/// What a configuration knows of its host.
#[derive(Clone, Copy)]
pub(crate) struct Surroundings {
    log: castkeep_log_fn,
    log_user: *mut c_void,
    dial: castkeep_dial_fn,
    dial_user: *mut c_void,
    transport: Option<Transport>,
}

#[derive(Clone, Copy)]
struct Transport {
    table: castkeep_transport,
    user: *mut c_void,
}

// SAFETY: the pointers are only handed back. Who sets them promises that the functions may be called by whichever thread calls
// the client, and by the thread of a threaded driver.
unsafe impl Send for Surroundings {}
// SAFETY: as above.
unsafe impl Sync for Surroundings {}

impl Default for Surroundings {
    fn default() -> Self {
        let none = core::ptr::null_mut();
        Self { log: None, log_user: none, dial: None, dial_user: none, transport: None }
    }
}

impl Surroundings {
    /// Whether names of recorders mean something to the host.
    pub(crate) const fn connects(&self) -> bool {
        self.dial.is_some() || self.transport.is_some()
    }
}

impl Host for Surroundings {
    fn log(&self, level: Level, message: fmt::Arguments<'_>) {
        let Some(function) = self.log else { return };
        let level = match level {
            Level::Error => CASTKEEP_LOG_ERROR,
            Level::Warn => CASTKEEP_LOG_WARNING,
            Level::Info => CASTKEEP_LOG_INFO,
            Level::Debug => CASTKEEP_LOG_DEBUG,
        };
        let mut line = Line { bytes: [0; LINE_BYTES], len: 0 };
        let _ = line.write_fmt(message);
        // SAFETY: the text lives until the call is over; the function is one, by the promise of who set it.
        unsafe { function(self.log_user, level, line.bytes.as_ptr().cast::<c_char>(), line.len) };
    }

    fn dial(&self, ticket: u64, to: &str) -> Dial {
        let Some(function) = self.dial else { return Dial::Own };
        let mut fd = -1;
        // SAFETY: as above.
        let answer = unsafe {
            let address = to.as_ptr().cast::<c_char>();
            function(self.dial_user, ticket, address, to.len(), &raw mut fd)
        };
        if answer == CASTKEEP_STATUS_OK as i32 && fd >= 0 {
            Dial::Connected(fd)
        } else if answer == CASTKEEP_STATUS_WOULD_BLOCK as i32 {
            Dial::Pending
        } else {
            Dial::Failed
        }
    }

    fn links(&self) -> Option<&dyn HostLink> {
        self.transport.as_ref().map(|transport| transport as &dyn HostLink)
    }
}

impl HostLink for Transport {
    fn start(&self, to: &str, link: &mut usize) -> Io {
        let Some(function) = self.table.start else { return Io::Failed };
        let mut pointer = core::ptr::with_exposed_provenance_mut::<c_void>(*link);
        // SAFETY: the text and the place live until the call is over; the function is one, by the promise of who set it.
        let answer = unsafe {
            function(self.user, to.as_ptr().cast::<c_char>(), to.len(), &raw mut pointer)
        };
        *link = pointer.expose_provenance();
        if answer == CASTKEEP_STATUS_OK as i32 {
            Io::Done(1)
        } else if answer == CASTKEEP_STATUS_WOULD_BLOCK as i32 {
            Io::Again
        } else {
            Io::Failed
        }
    }

    fn read(&self, link: usize, buf: &mut [u8]) -> Io {
        let Some(function) = self.table.read else { return Io::Failed };
        // SAFETY: the function writes at most `len` bytes, by the promise of who set it.
        amount(unsafe { function(self.user, pointer(link), buf.as_mut_ptr(), buf.len()) })
    }

    fn write(&self, link: usize, bytes: &[u8]) -> Io {
        let Some(function) = self.table.write else { return Io::Failed };
        // SAFETY: the function reads at most `len` bytes.
        match amount(unsafe { function(self.user, pointer(link), bytes.as_ptr(), bytes.len()) }) {
            Io::End => Io::Failed,
            io => io,
        }
    }

    fn wants(&self, link: usize, more: bool) -> LinkWants {
        let mut fd = -1;
        let Some(function) = self.table.wants else {
            return LinkWants { fd, read: false, write: false };
        };
        // SAFETY: the place lives until the call is over.
        let flags = unsafe { function(self.user, pointer(link), i32::from(more), &raw mut fd) };
        LinkWants {
            fd,
            read: flags & CASTKEEP_WANTS_READ != 0,
            write: flags & CASTKEEP_WANTS_WRITE != 0,
        }
    }

    fn close(&self, link: usize, abort: bool) {
        if let Some(function) = self.table.close {
            // SAFETY: the link came from `start` and is not used again.
            unsafe { function(self.user, pointer(link), i32::from(abort)) };
        }
    }
}

fn pointer(link: usize) -> *mut c_void {
    core::ptr::with_exposed_provenance_mut(link)
}

fn amount(answer: i64) -> Io {
    match usize::try_from(answer) {
        Ok(0) => Io::End,
        Ok(n) => Io::Done(n),
        Err(_) if answer == i64::from(CASTKEEP_STATUS_WOULD_BLOCK as i32) => Io::Again,
        Err(_) => Io::Failed,
    }
}

/// A message, cut where it is too long. 0 <= len <= LINE_BYTES
struct Line {
    bytes: [u8; LINE_BYTES],
    len: usize,
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            let end = self.len.saturating_add(c.len_utf8());
            let Some(place) = self.bytes.get_mut(self.len..end) else { return Err(fmt::Error) };
            let mut encoded = [0; 4];
            place.iter_mut().zip(c.encode_utf8(&mut encoded).bytes()).for_each(|(to, b)| *to = b);
            self.len = end;
        }
        Ok(())
    }
}

/// An address, an id and a reason.
const LINE_BYTES: usize = 512;

/// Sets where messages of clients go. Without it nothing is logged.
/// function : NULL logs nothing
/// user     : handed to the function
/// Returns  : OK; BAD_PARAMETER
/// Threads  : one at a time.   Blocks: never.   Since: 0.1
///
/// # Safety
/// `config` is NULL or valid; the function may be called as long as a client made of it lives.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn castkeep_config_set_log(
    config: *mut castkeep_config,
    function: castkeep_log_fn,
    user: *mut c_void,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        change(config, |config| {
            (config.host.log, config.host.log_user) = (function, user);
            Ok(())
        })
    }
}

/// Sets who connects to recorders, in place of the library. The library's TLS goes over what it brings.
/// function : NULL lets the library connect
/// user     : handed to the function
/// Returns  : OK; BAD_PARAMETER
/// Threads  : one at a time.   Blocks: never.   Since: 0.1
///
/// # Safety
/// `config` is NULL or valid; the function may be called as long as a client made of it lives.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn castkeep_config_set_dial(
    config: *mut castkeep_config,
    function: castkeep_dial_fn,
    user: *mut c_void,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        change(config, |config| {
            (config.host.dial, config.host.dial_user) = (function, user);
            Ok(())
        })
    }
}

/// Sets connections of the host's own, for all recorders. They are addressed without https://, because what is sent is
/// encrypted by the host or by nobody.
/// table    : copied; NULL for the library's own connections
/// user     : handed to the functions
/// Returns  : OK; BAD_PARAMETER (a size or a function is missing)
/// Threads  : one at a time.   Blocks: never.   Since: 0.1
///
/// # Safety
/// The pointers are NULL or valid; the functions may be called as long as a client made of it lives.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn castkeep_config_set_transport(
    config: *mut castkeep_config,
    table: *const castkeep_transport,
    user: *mut c_void,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        change(config, |config| {
            if table.is_null() {
                config.host.transport = None;
                return Ok(());
            }
            // The first member is there in every version; a shorter table is of an older one, and this is the first.
            let size = (&raw const (*table).size).read();
            if usize::try_from(size).is_ok_and(|size| size < size_of::<castkeep_transport>()) {
                return Err(CASTKEEP_STATUS_BAD_PARAMETER);
            }
            let table = table.read();
            if table.start.is_none()
                || table.read.is_none()
                || table.write.is_none()
                || table.wants.is_none()
                || table.close.is_none()
            {
                return Err(CASTKEEP_STATUS_BAD_PARAMETER);
            }
            config.host.transport = Some(Transport { table, user });
            Ok(())
        })
    }
}
