//! The one call that needs `unsafe`: signals must not be delivered to the worker.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::ptr;

/// Runs `spawn` with every signal blocked in this thread, so that a thread started in it has them blocked from its first
/// instruction on. Handlers of the host run on the host's own threads only.
pub(super) fn with_signals_blocked<T>(spawn: impl FnOnce() -> T) -> T {
    struct Restore(Option<libc::sigset_t>);
    impl Drop for Restore {
        fn drop(&mut self) {
            if let Some(old) = &self.0 {
                // SAFETY: `old` was filled by pthread_sigmask below; a null third argument is allowed.
                unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, old, ptr::null_mut()) };
            }
        }
    }
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let mut old = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: both point to memory of the right type and live across the calls; sigfillset cannot fail on a valid pointer and
    // initialises the set before it is read. `old` is read only when pthread_sigmask said that it filled it.
    let restore = unsafe {
        libc::sigfillset(all.as_mut_ptr());
        let done = libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), old.as_mut_ptr());
        Restore((done == 0).then(|| old.assume_init()))
    };
    let value = spawn();
    drop(restore);
    value
}
