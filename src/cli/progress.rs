//! How far a long command is, on a line of standard error that is wiped away at the end.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use rustix::termios::isatty;

/// Says nothing unless standard error is a terminal and the command has taken a second.
pub(super) struct Progress {
    on: bool,
    shown: bool,
    next: Instant,
}

impl Progress {
    /// For a command whose standard output may go to the terminal too: then that output is the progress.
    pub(super) fn beside_output() -> Self {
        Self::new(!isatty(io::stdout()))
    }

    /// For a command that writes nothing until it is done.
    pub(super) fn before_output() -> Self {
        Self::new(true)
    }

    fn new(wanted: bool) -> Self {
        let on = wanted && isatty(io::stderr());
        Self { on, shown: false, next: Instant::now() + PATIENCE }
    }

    /// Shows the text when it is time to.
    pub(super) fn show(&mut self, text: impl FnOnce() -> String) {
        if !self.on {
            return;
        }
        let now = Instant::now();
        if now < self.next {
            return;
        }
        self.next = now + PERIOD;
        self.shown = true;
        // To the beginning of the line, the text, and nothing behind it.
        let _ = write!(io::stderr(), "\rcastkeep: {}\x1b[K", text());
    }

    /// `done` of `total` bytes.
    pub(super) fn bytes(&mut self, verb: &str, done: u64, total: u64) {
        self.show(|| {
            let percent = done.saturating_mul(100).checked_div(total).unwrap_or(100).min(100);
            format!("{verb} {} of {} ({percent}%)", size(done), size(total))
        });
    }

    /// Wipes the line away: what is said next begins at its beginning.
    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

/// A writer that counts what goes through it.
pub(super) struct Counting<W> {
    inner: W,
    done: u64,
    total: u64,
    progress: Progress,
}

impl<W: Write> Counting<W> {
    pub(super) fn new(inner: W, total: u64, progress: Progress) -> Self {
        Self { inner, done: 0, total, progress }
    }

    pub(super) fn into_inner(self) -> W {
        self.inner
    }
}

impl<W: Write> Write for Counting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.done = self.done.saturating_add(n as u64);
        self.progress.bytes("joined", self.done, self.total);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// A number of bytes for people.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

const PATIENCE: Duration = Duration::from_secs(1);
const PERIOD: Duration = Duration::from_millis(200);
