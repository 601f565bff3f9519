//! Whether this is the process that made something, or a forked child of it: asked at each call, so without a system call where the
//! kernel helps (a page that children find empty, Linux 4.14).
#![allow(unsafe_code)]

use core::ffi::c_int;
#[cfg(feature = "client")]
use core::ffi::c_void;

/// The process that made this.
pub(super) struct Process(Mark);

/// Where the answer comes from, for whoever cannot ask the driver; good as long as that lives.
#[derive(Clone, Copy)]
pub struct Mark {
    /// One byte that is 1 here and 0 in children; NULL where it could not be had.
    page: *mut u8,
    pid: c_int,
}

// SAFETY: the byte is written before there is a second thread that knows of it, and only read then.
unsafe impl Send for Mark {}
// SAFETY: as above.
unsafe impl Sync for Mark {}

impl Process {
    pub(super) fn this() -> Self {
        Self(Mark { page: page(), pid: pid() })
    }

    pub(super) const fn mark(&self) -> Mark {
        self.0
    }

    pub(super) fn is_this(&self) -> bool {
        !self.0.is_forked()
    }
}

impl Mark {
    /// Whether a child asks.
    #[must_use]
    pub fn is_forked(&self) -> bool {
        if self.page.is_null() {
            return pid() != self.pid;
        }
        // SAFETY: mapped as long as its owner lives. Volatile, because what empties it is not in the program.
        unsafe { self.page.read_volatile() == 0 }
    }
}

#[cfg(feature = "client")]
impl Drop for Process {
    fn drop(&mut self) {
        if !self.0.page.is_null() {
            // SAFETY: mapped by `page`, and nobody asks any more.
            unsafe { libc::munmap(self.0.page.cast::<c_void>(), PAGE_BYTES) };
        }
    }
}

/// NULL when the kernel cannot.
#[cfg(feature = "client")]
fn page() -> *mut u8 {
    let (access, kind) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping, wherever there is room.
    let page = unsafe { libc::mmap(core::ptr::null_mut(), PAGE_BYTES, access, kind, -1, 0) };
    if page == libc::MAP_FAILED {
        return core::ptr::null_mut();
    }
    // SAFETY: the mapping is ours, and long enough for a byte.
    unsafe {
        if libc::madvise(page, PAGE_BYTES, libc::MADV_WIPEONFORK) != 0 {
            libc::munmap(page, PAGE_BYTES);
            return core::ptr::null_mut();
        }
        page.cast::<u8>().write_volatile(1);
    }
    page.cast::<u8>()
}

/// A page is more than a small machine wants to give for it.
#[cfg(not(feature = "client"))]
const fn page() -> *mut u8 {
    core::ptr::null_mut()
}

fn pid() -> c_int {
    // SAFETY: always succeeds.
    unsafe { libc::getpid() }
}

/// The kernel rounds up to its own.
#[cfg(feature = "client")]
const PAGE_BYTES: usize = 4096;
