//! Signals as something to poll for.

use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use rustix::process::Signal;
use signal_hook::{flag, low_level};

/// The signals that `record` looks after; caught from the making of this on.
pub(super) struct Signals {
    pipe: UnixStream,
    flags: Vec<(Signal, Arc<AtomicBool>)>,
}

impl Signals {
    pub(super) fn catch() -> io::Result<Self> {
        let (pipe, end) = UnixStream::pair()?;
        pipe.set_nonblocking(true)?;
        end.set_nonblocking(true)?;
        let mut flags = Vec::new();
        for signal in CAUGHT {
            let seen = Arc::new(AtomicBool::new(false));
            // In this order: who is woken by the pipe finds the flag set.
            flag::register(signal.as_raw(), Arc::clone(&seen))?;
            low_level::pipe::register(signal.as_raw(), end.try_clone()?)?;
            flags.push((signal, seen));
        }
        Ok(Self { pipe, flags })
    }

    /// Whether a signal came since the last question.
    pub(super) fn take(&self, signal: Signal) -> bool {
        self.flags.iter().any(|(of, seen)| *of == signal && seen.swap(false, SeqCst))
    }

    /// One of those that end a program, if one came.
    pub(super) fn take_end(&self) -> Option<Signal> {
        ENDING.into_iter().find(|signal| self.take(*signal))
    }

    /// Empties the pipe, before the flags are looked at.
    pub(super) fn rise(&self) {
        let mut bytes = [0; 64];
        while matches!((&self.pipe).read(&mut bytes), Ok(n) if n > 0) {}
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

/// Ends this process by a signal, as the program ended. Returns when that signal ends nothing.
pub(super) fn end_by(signal: i32) {
    use rustix::process::{Resource, Rlimit, setrlimit};
    // The program's own memory image, if there is one, is the one to look at.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let _ = low_level::emulate_default_handler(signal);
}

/// `SIGTERM` for 15.
pub(super) fn name(signal: i32) -> String {
    low_level::signal_name(signal).map_or_else(|| format!("SIG{signal}"), str::to_owned)
}

const ENDING: [Signal; 4] = [Signal::HUP, Signal::TERM, Signal::INT, Signal::QUIT];
const CAUGHT: [Signal; 6] =
    [Signal::HUP, Signal::TERM, Signal::INT, Signal::QUIT, Signal::WINCH, Signal::CHILD];
