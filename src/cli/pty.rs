//! Terminals: the one that the program gets, and the user's.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{
    LocalModes, OptionalActions, Termios, Winsize, ioctl_tiocexcl, ioctl_tiocnxcl, isatty,
    tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr, tcsetwinsize,
};

use super::pty_sys;

/// Our end of the program's terminal, non-blocking.
#[derive(Debug)]
pub(super) struct Pty {
    master: OwnedFd,
    path: String,
}

impl Pty {
    /// A new terminal with the settings and size of the user's.
    pub(super) fn open(like: Option<&Termios>, size: Winsize) -> io::Result<(Self, OwnedFd)> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?;
        let path = name.to_str().map_err(|_| io::Error::from(Errno::INVAL))?;
        let flags = i32::try_from(OFlags::NOCTTY.bits()).unwrap_or(0);
        let slave =
            OpenOptions::new().read(true).write(true).custom_flags(flags).open(Path::new(path))?;
        if let Some(termios) = like {
            tcsetattr(&slave, OptionalActions::Now, termios)?;
        }
        tcsetwinsize(&slave, size)?;
        let flags = fcntl_getfl(&master)?;
        fcntl_setfl(&master, flags | OFlags::NONBLOCK)?;
        Ok((Self { master, path: path.to_owned() }, slave.into()))
    }

    /// Starts the program on the other end, which this process does not keep open.
    pub(super) fn spawn(mut command: Command, slave: &OwnedFd) -> io::Result<Child> {
        command
            .stdin(Stdio::from(slave.try_clone()?))
            .stdout(Stdio::from(slave.try_clone()?))
            .stderr(Stdio::from(slave.try_clone()?));
        pty_sys::own_terminal(&mut command);
        // `command` holds copies of the slave; dropped here, or the end would never be seen.
        command.spawn()
    }

    pub(super) const fn master(&self) -> &OwnedFd {
        &self.master
    }

    /// The program's end in the file system.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn resize(&self, size: Winsize) {
        let _ = tcsetwinsize(&self.master, size);
    }

    /// Whether what is typed is shown; passwords are typed while it is not.
    pub(super) fn echoes(&self) -> bool {
        tcgetattr(&self.master).is_ok_and(|t| t.local_modes.contains(LocalModes::ECHO))
    }

    /// Signals the program and what runs in the foreground.
    pub(super) fn signal(&self, leader: Pid, signal: Signal) {
        let _ = kill_process_group(leader, signal);
        if tcgetpgrp(&self.master).is_ok_and(|foreground| foreground != leader) {
            self.signal_foreground(signal);
        }
    }

    /// Signals what runs in the foreground.
    pub(super) fn signal_foreground(&self, signal: Signal) {
        if let Ok(foreground) = tcgetpgrp(&self.master) {
            let _ = kill_process_group(foreground, signal);
        }
    }
}

/// The user's terminal in raw mode, until this is dropped.
#[derive(Debug)]
pub(super) struct RawMode {
    before: Termios,
    exclusive: bool,
}

impl RawMode {
    pub(super) fn enter() -> io::Result<Self> {
        let before = tcgetattr(rustix::stdio::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self { before, exclusive: false })
    }

    /// Nobody but root opens this terminal from here on, though it belongs to the user: what a program wrote there would be shown and
    /// not be recorded.
    pub(super) fn close_to_others(&mut self) {
        self.exclusive = true;
        close_terminal(rustix::stdio::stdin());
    }

    /// How the terminal was.
    pub(super) const fn before(&self) -> &Termios {
        &self.before
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // Drain: what the program showed last is for the terminal as the program left it. A terminal that is gone needs nothing.
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Drain, &self.before);
        if self.exclusive {
            let _ = ioctl_tiocnxcl(rustix::stdio::stdin());
        }
    }
}

/// See [`RawMode::close_to_others`]. Nothing happens to what is no terminal.
pub(super) fn close_terminal(fd: BorrowedFd<'_>) {
    let _ = ioctl_tiocexcl(fd);
}

/// Whether the user's terminal went away.
pub(super) fn is_hung_up() -> bool {
    let stdout = rustix::stdio::stdout();
    let mut fds = [PollFd::from_borrowed_fd(stdout, PollFlags::empty())];
    isatty_or_hung_up(stdout)
        && poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok()
        && fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
}

/// A terminal that was hung up answers EIO, anything else ENOTTY.
fn isatty_or_hung_up(fd: BorrowedFd<'_>) -> bool {
    !matches!(tcgetattr(fd), Err(Errno::NOTTY))
}

/// Whether a person sits in front of it: the program gets a terminal then.
pub(super) fn is_interactive() -> bool {
    isatty(rustix::stdio::stdin()) && isatty(rustix::stdio::stdout())
}

/// Size of the user's terminal.
pub(super) fn outer_size() -> Winsize {
    tcgetwinsize(rustix::stdio::stdout().as_fd()).unwrap_or(Winsize {
        ws_row: 24,
        ws_col: 80,
        ws_xpixel: 0,
        ws_ypixel: 0,
    })
}
