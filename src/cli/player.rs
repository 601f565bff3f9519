//! Playing in time: waiting for the next event or a key, whichever is first.

use std::collections::VecDeque;
use std::io::{self, StdoutLock, Write};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use rustix::termios::isatty;

use super::play::writing;
use super::pty::{self, RawMode};
use super::signals::{self, Signals};
use super::stream::{self, Reader, Shown};
use super::{Exit, Failure};
use crate::cast::text::Filter;
use crate::cast::{label, parse_size};
use crate::recorder::storage::read::Recording;

/// How to play.
pub(super) struct Settings {
    pub(super) speed: f64,
    /// Microseconds.
    pub(super) idle_limit: Option<u64>,
    /// The limit was not asked for: say so when it took effect.
    pub(super) tell_cuts: bool,
    /// Microseconds; what was before is shown at once.
    pub(super) seek: u64,
    pub(super) quiet: bool,
}

pub(super) struct Player {
    recording: Recording,
    reader: Reader,
    settings: Settings,
    out: StdoutLock<'static>,
    filter: Filter,
    buffer: String,
    /// The user's terminal, when keys come from it.
    raw: Option<RawMode>,
    /// Caught when standard output is a terminal, which must be left in order.
    signals: Option<Signals>,
    is_terminal: bool,
    paused: bool,
    /// When the event in hand is due.
    due: Instant,
    /// Events before this are shown at once.
    target: u64,
    position: u64,
    /// Typed and not heeded yet.
    typed: VecDeque<u8>,
    tally: Tally,
}

/// What is told at the end.
#[derive(Default)]
struct Tally {
    resizes: u64,
    size: Option<(u16, u16)>,
    gaps: u64,
    gap_bytes: u64,
    /// Pauses that were not played in full, and by how much.
    cut: u64,
    cut_us: u64,
    exit: Option<String>,
}

enum Key {
    Due,
    Quit,
    Pause,
    Step,
    Faster,
    Slower,
    Forward,
    Back,
    Other,
    Signal(Signal),
}

/// What comes of an event.
enum Turn {
    Show,
    Again,
    End,
    EndBy(Signal),
}

impl Player {
    pub(super) fn new(recording: Recording, settings: Settings) -> Result<Self, Failure> {
        let reader = Reader::open(&recording)?;
        let is_terminal = isatty(io::stdout());
        let terminal = |e: io::Error| Failure::new(format!("the terminal: {e}"));
        let signals = is_terminal.then(Signals::catch).transpose().map_err(terminal)?;
        let raw = pty::is_interactive().then(RawMode::enter).transpose().map_err(terminal)?;
        let target = settings.seek;
        Ok(Self {
            recording,
            reader,
            settings,
            out: io::stdout().lock(),
            filter: Filter::new(),
            buffer: String::new(),
            raw,
            signals,
            is_terminal,
            paused: false,
            due: Instant::now(),
            target,
            position: 0,
            typed: VecDeque::new(),
            tally: Tally::default(),
        })
    }

    pub(super) fn play(mut self) -> Result<Exit, Failure> {
        self.tell_size();
        let result = self.run();
        // In this order, on every path: what the recording changed in the terminal, its own settings, the notes.
        self.buffer.clear();
        self.filter.finish(&mut self.buffer);
        if self.is_terminal {
            let _ = self.out.write_all(self.buffer.as_bytes());
        }
        let _ = self.out.flush();
        self.raw = None;
        match result {
            Ok(None) => {}
            Ok(Some(signal)) => {
                signals::end_by(signal.as_raw());
                return Ok(Exit::FAILURE);
            }
            Err(Some(failure)) => return Err(failure),
            Err(None) => return Ok(Exit::OK),
        }
        if !self.settings.quiet {
            if self.is_terminal {
                eprintln!();
            }
            stream::tell(&self.reader.notes());
            self.tell_tally();
        }
        Ok(Exit::OK)
    }

    /// Ends with a signal, or with none at the end. An error of none: nobody reads standard output any more.
    fn run(&mut self) -> Result<Option<Signal>, Option<Failure>> {
        while let Some(event) = self.reader.next().map_err(Some)? {
            match self.turn(&event).map_err(Some)? {
                Turn::Show => {}
                Turn::Again => continue,
                Turn::End => return Ok(None),
                Turn::EndBy(signal) => return Ok(Some(signal)),
            }
            match self.show(&event) {
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Err(None),
                shown => shown.map_err(|e| Some(writing(e)))?,
            }
            self.position = self.position.max(event.time);
        }
        Ok(None)
    }

    /// Waits until an event is due, and does what keys say meanwhile.
    fn turn(&mut self, event: &Shown) -> Result<Turn, Failure> {
        if event.time < self.target {
            self.due = Instant::now();
            return Ok(if self.ended_while_skipping()? { Turn::End } else { Turn::Show });
        }
        self.due = later(self.due, self.pause_before(event));
        self.count_cut(event);
        let mut left = Duration::ZERO;
        if self.paused {
            left = self.due.saturating_duration_since(Instant::now());
        }
        loop {
            let key = self.wait()?;
            let now = Instant::now();
            match key {
                Key::Due => return Ok(Turn::Show),
                Key::Quit => return Ok(Turn::End),
                Key::Signal(signal) => return Ok(Turn::EndBy(signal)),
                Key::Pause if self.paused => {
                    self.paused = false;
                    self.due = now + left;
                }
                Key::Pause => {
                    self.paused = true;
                    left = self.due.saturating_duration_since(now);
                }
                Key::Step => {
                    self.paused = true;
                    self.due = now;
                    return Ok(Turn::Show);
                }
                Key::Faster | Key::Slower => {
                    let factor = if matches!(key, Key::Faster) { 2.0 } else { 0.5 };
                    let before = self.settings.speed;
                    self.settings.speed = (before * factor).clamp(SLOWEST, FASTEST);
                    let rest = self.due.saturating_duration_since(now).as_secs_f64();
                    self.due = later(now, rest * before / self.settings.speed);
                }
                Key::Forward => {
                    self.target = self.position.max(self.target).saturating_add(JUMP_US);
                    if event.time <= self.target {
                        self.due = now;
                        return Ok(Turn::Show);
                    }
                    // In a pause that is cut short, what is left of it gets shorter as well.
                    let rest =
                        if self.paused { left } else { self.due.saturating_duration_since(now) };
                    let jump = Duration::from_secs_f64(JUMP_US as f64 / 1e6 / self.settings.speed);
                    let full = later(now, self.pause_before(event));
                    self.due = full.min(now + rest.saturating_sub(jump));
                    left = self.due.saturating_duration_since(now);
                }
                Key::Back => {
                    self.target = self.position.max(self.target).saturating_sub(JUMP_US);
                    self.position = 0;
                    self.due = now;
                    self.reader = Reader::open(&self.recording)?;
                    self.tally = Tally::default();
                    self.buffer.clear();
                    self.filter.finish(&mut self.buffer);
                    self.buffer.push_str("\x1b[H\x1b[2J");
                    self.out.write_all(self.buffer.as_bytes()).map_err(writing)?;
                    return Ok(Turn::Again);
                }
                Key::Other => {}
            }
        }
    }

    /// A pause that is not played in full is told at the end.
    fn count_cut(&mut self, event: &Shown) {
        let gap = event.time.saturating_sub(self.position.max(self.target));
        let cut = self.settings.idle_limit.map_or(0, |most| gap.saturating_sub(most));
        if cut > 0 {
            self.tally.cut += 1;
            self.tally.cut_us = self.tally.cut_us.saturating_add(cut);
        }
    }

    /// Seconds between what is shown now and an event.
    fn pause_before(&self, event: &Shown) -> f64 {
        let gap = event.time.saturating_sub(self.position.max(self.target));
        let gap = self.settings.idle_limit.map_or(gap, |most| gap.min(most));
        gap as f64 / 1e6 / self.settings.speed
    }

    /// A jump over hours of output can be ended too.
    fn ended_while_skipping(&self) -> Result<bool, Failure> {
        let Some(signals) = &self.signals else { return Ok(false) };
        let mut fds = [PollFd::new(signals, PollFlags::IN)];
        let ready = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap_or(0);
        if ready == 0 {
            return Ok(false);
        }
        signals.rise();
        Ok(signals.take_end().is_some())
    }

    fn wait(&mut self) -> Result<Key, Failure> {
        if let Some(key) = key(&mut self.typed) {
            return Ok(key);
        }
        let Some(signals) = &self.signals else {
            thread::sleep(self.due.saturating_duration_since(Instant::now()));
            return Ok(Key::Due);
        };
        let mut left = LONGEST_WAIT;
        if !self.paused {
            left = left.min(self.due.saturating_duration_since(Instant::now()));
        }
        let timeout =
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        let stdin = rustix::stdio::stdin();
        let mut fds = vec![PollFd::new(signals, PollFlags::IN)];
        if self.raw.is_some() {
            fds.push(PollFd::new(&stdin, PollFlags::IN));
        }
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(Failure::new(format!("waiting: {e}"))),
        }
        let signalled = fds.first().is_some_and(|f| !f.revents().is_empty());
        let typed = fds.get(1).is_some_and(|f| !f.revents().is_empty());
        if signalled {
            signals.rise();
            if let Some(signal) = signals.take_end() {
                return Ok(Key::Signal(signal));
            }
        }
        if typed {
            let mut bytes = [0; 16];
            return Ok(match rustix::io::read(stdin, &mut bytes) {
                Ok(0) => Key::Quit,
                Ok(n) => {
                    self.typed.extend(bytes.iter().take(n));
                    key(&mut self.typed).unwrap_or(Key::Other)
                }
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => Key::Other,
                Err(_) => Key::Quit,
            });
        }
        Ok(if !self.paused && self.due <= Instant::now() { Key::Due } else { Key::Other })
    }

    fn show(&mut self, event: &Shown) -> io::Result<()> {
        match event.code {
            b'o' => {
                self.buffer.clear();
                // Without a terminal nobody put a carriage return before the line feed, and a raw terminal does not either.
                if self.reader.header().width == 0 && self.raw.is_some() {
                    let text = event.data.replace("\r\n", "\n").replace('\n', "\r\n");
                    self.filter.push(&text, &mut self.buffer);
                } else {
                    self.filter.push(&event.data, &mut self.buffer);
                }
                self.out.write_all(self.buffer.as_bytes())?;
                self.out.flush()?;
            }
            b'r' => {
                self.tally.resizes += 1;
                self.tally.size =
                    parse_size(&event.data, self.reader.header().rows_first()).or(self.tally.size);
            }
            b'm' => {
                if let Some((bytes, _)) = label::parse_gap(&event.data) {
                    self.tally.gaps += 1;
                    self.tally.gap_bytes = self.tally.gap_bytes.saturating_add(bytes);
                }
            }
            b'x' => self.tally.exit = Some(event.data.chars().take(16).collect()),
            _ => {}
        }
        Ok(())
    }

    /// A smaller terminal shows it differently: better known before than wondered about.
    fn tell_size(&self) {
        if !self.is_terminal || self.settings.quiet || self.reader.header().width == 0 {
            return;
        }
        let (cols, rows) = self.reader.header().display_size();
        let here = pty::outer_size();
        if cols > here.ws_col || rows > here.ws_row {
            eprint!(
                "castkeep: recorded on a terminal of {cols}x{rows}, this one has {}x{}\r\n",
                here.ws_col, here.ws_row
            );
        }
    }

    fn tell_tally(&self) {
        let mut notes = Vec::new();
        if self.tally.gaps > 0 {
            notes.push(format!(
                "{} bytes were shown and not recorded (gaps: {})",
                self.tally.gap_bytes, self.tally.gaps
            ));
        }
        if self.is_terminal {
            if self.tally.cut > 0 && self.settings.tell_cuts {
                notes.push(format!(
                    "pauses were played shorter (pauses: {}, {} left out); --idle-limit none plays them in full",
                    self.tally.cut,
                    length(self.tally.cut_us / 1_000_000)
                ));
            }
            if let Some((cols, rows)) = self.tally.size {
                let resizes = self.tally.resizes;
                notes.push(format!(
                    "the terminal changed its size, last to {cols}x{rows} (changes: {resizes})"
                ));
            }
            if let Some(status) = &self.tally.exit {
                notes.push(format!("the session ended with status {status}"));
            }
        }
        stream::tell(&notes);
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        // Only after a panic is there anything left to do: `raw` restores the settings by its own drop.
        if thread::panicking() && self.is_terminal {
            let mut text = String::new();
            self.filter.finish(&mut text);
            let _ = self.out.write_all(text.as_bytes());
        }
    }
}

/// Takes the next key out of what was typed; none when there is none. Keys that are held down come many at a time.
fn key(typed: &mut VecDeque<u8>) -> Option<Key> {
    let first = typed.pop_front()?;
    Some(match first {
        b'q' | b'Q' | 3 | 4 => Key::Quit,
        b' ' => Key::Pause,
        b'.' => Key::Step,
        b'+' | b'=' => Key::Faster,
        b'-' | b'_' => Key::Slower,
        // CSI or SS3 up to its final byte, so that no letter of an unknown key is taken for one of ours.
        0x1b if matches!(typed.front(), Some(b'[' | b'O')) => {
            typed.pop_front();
            let mut last = typed.pop_front();
            while let Some(0x20..=0x3f) = last {
                last = typed.pop_front();
            }
            match last {
                Some(b'C') => Key::Forward,
                Some(b'D') => Key::Back,
                _ => Key::Other,
            }
        }
        _ => Key::Other,
    })
}

/// A length of time, in its two largest units.
fn length(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{minutes} min {} s", seconds % 60),
        3_600..86_400 => format!("{hours} h {} min", minutes % 60),
        86_400..31_536_000 => format!("{days} days {} h", hours % 24),
        _ => format!("{} years {} days", days / 365, days % 365),
    }
}

/// Times in a file may be anything; a wait of thirty years is as long as any.
fn later(from: Instant, seconds: f64) -> Instant {
    from.checked_add(Duration::from_secs_f64(seconds.clamp(0.0, 1e9))).unwrap_or(from)
}

const JUMP_US: u64 = 5_000_000;
const SLOWEST: f64 = 1.0 / 16.0;
const FASTEST: f64 = 1e6;
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
