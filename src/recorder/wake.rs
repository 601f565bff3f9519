//! Waking a thread that waits in `poll`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};

/// Wakes one waiting thread, from any other; many wakes before it looks are one.
#[derive(Debug)]
pub(crate) struct Waker {
    fd: OwnedFd,
    pending: AtomicBool,
}

impl Waker {
    pub(crate) fn new() -> rustix::io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { fd, pending: AtomicBool::new(false) })
    }

    /// Whatever was stored before this call is seen behind the [`Waker::clear`] that follows.
    pub(crate) fn wake(&self) {
        if !self.pending.swap(true, Ordering::AcqRel) {
            // The counter cannot be full: one write goes with each clear.
            let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
        }
    }

    /// Takes the wake-up. Call it first, look at the state afterwards.
    pub(crate) fn clear(&self) {
        if self.pending.load(Ordering::Acquire) {
            let _ = rustix::io::read(&self.fd, &mut [0u8; 8]);
            self.pending.swap(false, Ordering::AcqRel);
        }
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
