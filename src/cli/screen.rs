//! The user's terminal, written without waiting for it: a program and its recording go on while the terminal is busy, by as much
//! as is held here.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// Bytes that wait for the terminal before no more are read: what a user who stops the output still sees come.
const HELD_BYTES: usize = 64 * 1024;
const TURN: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// See the module.
pub(super) struct Screen {
    /// Its own open file description: whoever shares standard output keeps it as it was, blocking.
    own: OwnedFd,
    held: Vec<u8>,
    shown: usize,
    /// The terminal went away: nothing is shown any more, and nothing is held.
    gone: bool,
}

impl Screen {
    /// None: standard output is no terminal that can be opened again, and is written to as it is.
    pub(super) fn open() -> Option<Self> {
        let stdout = rustix::stdio::stdout();
        if !rustix::termios::isatty(stdout) {
            return None;
        }
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        // By number, not by its name in /dev, which may be another terminal's in this root or namespace.
        let own = rustix::fs::open("/proc/self/fd/1", flags, Mode::empty()).ok()?;
        // One read of a source past the bound is held too.
        Some(Self { own, held: Vec::with_capacity(2 * HELD_BYTES), shown: 0, gone: false })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.own.as_fd()
    }

    /// Whether it takes more; otherwise [`Screen::advance`] is to be called when `fd` is writable.
    pub(super) const fn has_room(&self) -> bool {
        self.waiting() < HELD_BYTES
    }

    pub(super) const fn waiting(&self) -> usize {
        self.held.len() - self.shown
    }

    /// Shows `bytes` behind what waits.
    pub(super) fn show(&mut self, mut bytes: &[u8]) {
        if self.waiting() == 0 {
            let n = self.write(bytes);
            bytes = &bytes[n..];
        }
        if !bytes.is_empty() && !self.gone {
            self.held.drain(..self.shown);
            self.shown = 0;
            self.held.extend_from_slice(bytes);
        }
    }

    /// Shows of what waits as much as the terminal takes.
    pub(super) fn advance(&mut self) {
        if self.waiting() > 0 {
            let held = std::mem::take(&mut self.held);
            self.shown += self.write(&held[self.shown..]);
            self.held = held;
        }
        if self.gone || self.shown == self.held.len() {
            self.held.clear();
            self.shown = 0;
        }
    }

    /// Waits until everything is shown, as long as the terminal needs; `is_over` is asked now and then whether nobody waits any more.
    pub(super) fn flush(&mut self, is_over: impl Fn() -> bool) {
        while self.waiting() > 0 && !is_over() {
            let _ = poll(&mut [PollFd::new(&self.own, PollFlags::OUT)], Some(&TURN));
            self.advance();
        }
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        match rustix::io::write(&self.own, bytes) {
            Ok(n) => n,
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Err(_) => {
                self.gone = true;
                0
            }
        }
    }
}
