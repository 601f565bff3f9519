//! The thread of the threaded driver: what a host's event loop does with the polled one.
// eventfd, poll and signal masks.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::ptr;
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};

use crate::guard::Guard;
use crate::status::castkeep_status::{self, *};

pub(crate) struct Worker {
    thread: Option<JoinHandle<()>>,
    stop: OwnedFd,
    /// Readable while there is something to tell.
    news: Arc<OwnedFd>,
}

impl Worker {
    pub(crate) fn start(guard: &Arc<Guard>, driver: RawFd) -> Result<Self, castkeep_status> {
        let (stop, news) = (eventfd()?, Arc::new(eventfd()?));
        let (shared, stopped, tell) = (Arc::downgrade(guard), stop.as_raw_fd(), Arc::clone(&news));
        let run = move || {
            while wait(driver, stopped) && step(&shared, &tell) {}
        };
        // Signals are the host's: none is ever delivered to this thread. A new thread has the mask of the one that makes it.
        let builder = thread::Builder::new().name("castkeep".into()).stack_size(STACK_BYTES);
        let thread = without_signals(|| builder.spawn(run));
        Ok(Self { thread: Some(thread.map_err(|_| CASTKEEP_STATUS_NO_MEMORY)?), stop, news })
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.news.as_raw_fd()
    }

    /// Everything was told.
    pub(crate) fn quiet(&self) {
        let mut count = [0u8; 8];
        // SAFETY: writes at most eight bytes; an eventfd is not blocking.
        let _ = unsafe { libc::read(self.news.as_raw_fd(), count.as_mut_ptr().cast(), 8) };
    }

    /// Ends the thread and waits for it; it never waits for a peer.
    pub(crate) fn stop(&mut self) {
        signal(self.stop.as_raw_fd());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    /// In a forked child there is no such thread.
    pub(crate) fn forget(&mut self) {
        if let Some(thread) = self.thread.take() {
            std::mem::forget(thread);
        }
    }
}

/// False: to stop.
fn wait(driver: RawFd, stop: RawFd) -> bool {
    let entry = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let mut fds = [entry(driver), entry(stop)];
    // SAFETY: two entries, which live across the call.
    unsafe { libc::poll(fds.as_mut_ptr(), 2, -1) };
    fds[1].revents == 0
}

/// Moves everything, and says so. False: nobody may call the driver any more.
fn step(guard: &Weak<Guard>, news: &OwnedFd) -> bool {
    // Held for the step alone: in a forked child, where this thread is missing, the last one is the client's.
    let Some(guard) = guard.upgrade() else { return false };
    let moved = guard.enter(|state| {
        state.driver.process().map_err(|_| CASTKEEP_STATUS_INTERNAL)?;
        state.hear();
        if !state.told.is_empty() {
            signal(news.as_raw_fd());
        }
        Ok(())
    });
    guard.wake();
    moved.is_ok()
}

fn eventfd() -> Result<OwnedFd, castkeep_status> {
    // SAFETY: takes numbers.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(CASTKEEP_STATUS_NO_MEMORY);
    }
    // SAFETY: just made, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn signal(fd: RawFd) {
    // SAFETY: reads eight bytes.
    let _ = unsafe { libc::write(fd, 1u64.to_ne_bytes().as_ptr().cast(), 8) };
}

fn without_signals<T>(call: impl FnOnce() -> T) -> T {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let mut old = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: both are written before they are read.
    let set = unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), old.as_mut_ptr()) == 0
    };
    let made = call();
    if set {
        // SAFETY: written by the call above.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, old.as_ptr(), ptr::null_mut()) };
    }
    made
}

/// What the driver needs is far less (see the header); a thread's pages are taken when they are touched.
const STACK_BYTES: usize = 256 * 1024;
