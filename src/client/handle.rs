//! The handle of a session.

use std::fmt;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::outcome::Outcome;
use super::shared::{Inner, Shared, Slot, Wake};
use crate::cast::{ExitStatus, Stream};
use crate::error::{Error, Phase};
use crate::limits;
use crate::session::{State, Stats};
use crate::time::Span;

/// Whether the program may start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// Not known yet.
    Pending,
    /// Start it; a recorder has the recording.
    Recorded,
    /// Do not start it: show the message and end with the status.
    Refused {
        /// For the user, as policy words it.
        message: String,
        /// 254.
        exit_status: u8,
    },
    /// Start it; nothing is recorded, by decision or because policy lets it go on.
    Unrecorded,
}

/// One recording.
///
/// What [`Session::output`] took is in the ring, and goes to a recorder as long as one can be had within the grace. Show bytes to the
/// user after that (with [`Release::Commit`](super::Release::Commit): as far as [`Session::released`] says), and what is shown is recorded.
///
/// Dropping it without [`Session::close`] gives up what is not stored yet.
pub struct Session {
    shared: Arc<Shared>,
    slot: Arc<Slot>,
    ring_bytes: usize,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("recording", &self.slot.recording).finish_non_exhaustive()
    }
}

impl Session {
    pub(super) const fn new(shared: Arc<Shared>, slot: Arc<Slot>, ring_bytes: usize) -> Self {
        Self { shared, slot, ring_bytes }
    }

    /// The recording id: 32 hexadecimal digits.
    #[must_use]
    pub fn recording(&self) -> &str {
        &self.slot.recording
    }

    /// Waits until it is known whether the program may start; `Pending` when it still is not after `timeout`.
    ///
    /// # Blocking
    /// At most `timeout`, and never longer than the start limit of the decision plus a moment.
    #[must_use]
    pub fn wait_start(&self, timeout: Duration) -> Start {
        self.wait(timeout, |inner| match &inner.start {
            Start::Pending => inner.end.map(|_| self.gone()),
            known => Some(known.clone()),
        })
        .unwrap_or_else(|e| {
            if e == Error::TimedOut(Phase::Start) { Start::Pending } else { self.gone() }
        })
    }

    /// What a session is told whose worker is gone: without one nothing can be recorded.
    fn gone(&self) -> Start {
        Start::Refused {
            message: "session recording failed\n".to_owned(),
            exit_status: EXIT_STATUS,
        }
    }

    /// Gives output of the program to the recording, all of it; then it may be shown.
    ///
    /// # Errors
    /// `Closed` after termination, `exit` or `close`: what was not taken is to be discarded. `TimedOut` when there was no room within
    /// all limits of the session, which is not expected. `Misuse` in a forked child, `Bug` after the worker panicked.
    ///
    /// # Blocking
    /// While the ring is full, or a lost recorder is being replaced under a fail-closed policy: at most the grace, then the session is
    /// terminated. Under a fail-open policy at most the stall limit. Allocates nothing.
    pub fn output(&self, stream: Stream, data: &[u8]) -> Result<(), Error> {
        self.shared.check()?;
        let mut rest = data;
        let mut since = None;
        let mut inner = self.slot.lock();
        while !rest.is_empty() {
            let took = self.take(&mut inner, stream, rest)?;
            if took > 0 {
                rest = rest.get(took..).unwrap_or_default();
                since = None;
                continue;
            }
            let begun = *since.get_or_insert_with(Instant::now);
            if begun.elapsed() > OUTPUT_LIMIT {
                return Err(Error::TimedOut(Phase::Progress));
            }
            // A writer that waits for a little of room would be woken for every commit.
            let least = rest.len().min(self.ring_bytes / WAKE_SHARE);
            inner.wanted = Some(inner.wanted.map_or(least, |other| other.min(least)));
            self.notify(Wake::Now);
            inner = self.pause(inner, RETRY);
            self.shared.check()?;
        }
        let soon = if inner.fresh >= limits::GATHER_BYTES { Wake::Now } else { Wake::Soon };
        drop(inner);
        self.notify(soon);
        Ok(())
    }

    /// As [`Session::output`], but takes only what there is room for, and says how much; 0 when there is none.
    ///
    /// # Errors
    /// As [`Session::output`].
    ///
    /// # Blocking
    /// Never. Allocates nothing.
    pub fn try_output(&self, stream: Stream, data: &[u8]) -> Result<usize, Error> {
        self.shared.check()?;
        let mut inner = self.slot.lock();
        let took = self.take(&mut inner, stream, data)?;
        let now = took < data.len() || inner.fresh >= limits::GATHER_BYTES;
        drop(inner);
        self.notify(if now { Wake::Now } else { Wake::Soon });
        Ok(took)
    }

    /// How many bytes [`Session::try_output`] takes whole now. `usize::MAX` when nothing is recorded.
    #[must_use]
    pub fn room(&self) -> usize {
        self.peek(0, |inner| inner.machine.room())
    }

    fn take(
        &self,
        inner: &mut MutexGuard<'_, Inner>,
        stream: Stream,
        data: &[u8],
    ) -> Result<usize, Error> {
        let now = self.shared.now();
        let mut took = 0usize;
        loop {
            let rest = data.get(took..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            match inner.machine.output(now, stream, rest) {
                Ok(0) | Err(Error::Full) => break,
                Ok(n) => took = took.saturating_add(n),
                // What was taken before is reported first; the next call says why it ends.
                Err(_) if took > 0 => break,
                Err(e) => return Err(e),
            }
        }
        inner.fresh = inner.fresh.saturating_add(took);
        Ok(took)
    }

    /// Records input of the user, if the decision says so. Never holds input back: what has no room is left out.
    pub fn input(&self, data: &[u8]) {
        self.with(Wake::Soon, |inner, now| inner.machine.input(now, data));
    }

    /// The terminal has a new size. Before the start it goes into the first line.
    pub fn resize(&self, cols: u16, rows: u16) {
        self.with(Wake::Soon, |inner, now| inner.machine.resize(now, cols, rows));
    }

    /// Puts a marker into the recording; labels past `limits::MARKER_BYTES` are cut.
    ///
    /// # Errors
    /// `Full` without room, `Closed` after the end.
    pub fn marker(&self, label: &str) -> Result<(), Error> {
        self.shared.check()?;
        self.with(Wake::Soon, |inner, now| inner.machine.marker(now, label)).unwrap_or(Ok(()))
    }

    /// The program ended: the last event. Only [`Session::close`] follows.
    pub fn exit(&self, status: ExitStatus<'_>) {
        self.with(Wake::Now, |inner, now| inner.machine.exit(now, status));
    }

    /// How many bytes of a stream may be shown, from its beginning: all that was taken, or with
    /// [`Release::Commit`](super::Release::Commit) what is stored.
    #[must_use]
    pub fn released(&self, stream: Stream) -> u64 {
        self.peek(0, |inner| inner.machine.released(stream))
    }

    /// Waits until [`Session::released`] is above `seen`, the session is terminated or ended, or `timeout` has passed; then says what
    /// it is.
    #[must_use]
    pub fn wait_released(&self, stream: Stream, seen: u64, timeout: Duration) -> u64 {
        let _ = self.wait(timeout, |inner| {
            let more = inner.machine.released(stream) > seen;
            (more || inner.terminated || inner.end.is_some()).then_some(())
        });
        self.released(stream)
    }

    /// The terminate message, once policy ended the session: show it, send HUP to the program, then `exit` and `close`.
    #[must_use]
    pub fn terminated(&self) -> Option<String> {
        let message = |inner: &Inner| inner.terminated.then(|| inner.machine.message().to_owned());
        self.peek(None, message)
    }

    /// How a recorder of [`Stats::recorder`] is called.
    #[must_use]
    pub fn recorder_label(&self, recorder: usize) -> Option<String> {
        if self.shared.is_forked() {
            return None;
        }
        self.slot.recorder(recorder).ok().map(|addr| addr.label().to_owned())
    }

    /// Whether the session goes on when recording fails in its middle; with a policy known from its start.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.peek(false, |inner| inner.machine.ends_open())
    }

    /// What policy has to say to the user before the session begins; empty: nothing.
    #[must_use]
    pub fn banner(&self) -> String {
        self.peek(String::new(), |inner| inner.machine.banner().to_owned())
    }

    /// Whether [`Session::terminated`] has something to say. Cheaper.
    #[must_use]
    pub fn is_terminated(&self) -> bool {
        self.peek(false, |inner| inner.terminated)
    }

    /// Where the session is; `Incomplete` in a forked child.
    #[must_use]
    pub fn state(&self) -> State {
        self.peek(State::Incomplete, |inner| inner.machine.state())
    }

    /// Its numbers.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.peek(Stats::default(), |inner| inner.machine.stats())
    }

    /// Ends the recording without waiting; [`Session::wait_closed`] or [`Session::close`] tell how.
    pub fn finish(&self) {
        self.with(Wake::Now, |inner, now| inner.machine.finish(now));
    }

    /// As [`Session::finish`], and what is not stored within `wait` is given up. Called again it can only make it shorter.
    pub fn finish_within(&self, wait: Duration) {
        let wait = Span(u64::try_from(wait.as_micros()).unwrap_or(u64::MAX));
        self.with(Wake::Now, |inner, now| inner.machine.finish_within(now, wait));
    }

    /// How the recording ended, once it has.
    #[must_use]
    pub fn wait_closed(&self, timeout: Duration) -> Option<Outcome> {
        self.wait(timeout, |inner| inner.end).ok()
    }

    /// Ends the recording and waits until everything is stored, at most `timeout`; then the rest is given up.
    ///
    /// # Blocking
    /// At most `timeout` plus a moment.
    pub fn close(&self, timeout: Duration) -> Outcome {
        self.finish_within(timeout);
        if let Some(outcome) = self.wait_closed(timeout.saturating_add(MOMENT)) {
            return outcome;
        }
        self.with(Wake::Now, |inner, now| inner.machine.abandon(now));
        self.wait_closed(MOMENT).unwrap_or_else(|| {
            let stats = self.stats();
            Outcome::Incomplete { bytes: stats.encoded.saturating_sub(stats.committed) }
        })
    }

    /// Looks. In a forked child the mutex may be held by a thread that is not there.
    fn peek<T>(&self, forked: T, look: impl FnOnce(&Inner) -> T) -> T {
        if self.shared.is_forked() {
            return forked;
        }
        look(&self.slot.lock())
    }

    /// Does something to the machine and tells the worker. Nothing in a forked child.
    fn with<T>(
        &self,
        wake: Wake,
        act: impl FnOnce(&mut MutexGuard<'_, Inner>, crate::time::Tick) -> T,
    ) -> Option<T> {
        if self.shared.is_forked() {
            return None;
        }
        let value = act(&mut self.slot.lock(), self.shared.now());
        self.notify(wake);
        Some(value)
    }

    fn notify(&self, wake: Wake) {
        self.slot.dirty.store(true, SeqCst);
        self.shared.wake(wake);
    }

    fn wait<T>(
        &self,
        timeout: Duration,
        mut done: impl FnMut(&Inner) -> Option<T>,
    ) -> Result<T, Error> {
        self.shared.check()?;
        let begun = Instant::now();
        let mut inner = self.slot.lock();
        loop {
            if let Some(value) = done(&inner) {
                return Ok(value);
            }
            let left = timeout.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Err(Error::TimedOut(Phase::Start));
            }
            inner = self.pause(inner, left.min(TICK));
            self.shared.check()?;
        }
    }

    fn pause<'a>(&self, inner: MutexGuard<'a, Inner>, at_most: Duration) -> MutexGuard<'a, Inner> {
        let waited = self.slot.changed.wait_timeout(inner, at_most);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let ended = self.shared.failed.load(Relaxed) || self.shared.is_forked();
        if !ended && self.slot.lock().end.is_none() {
            self.with(Wake::Now, |inner, now| inner.machine.abandon(now));
        }
    }
}

/// What upstream's SSH server answers when recording is required and impossible.
pub(super) const EXIT_STATUS: u8 = 254;
/// A waiting writer looks by itself this often: the stall limit of a fail-open session is time, not an event.
const RETRY: Duration = Duration::from_millis(100);
/// Every other wait looks this often, whatever is missed.
const TICK: Duration = Duration::from_millis(250);
/// The worker's share of a wait: it learns of a deadline within its own tick.
const MOMENT: Duration = Duration::from_millis(500);
/// A waiting writer is woken when this part of the ring is free.
const WAKE_SHARE: usize = 16;
/// Longer than any deadline of the machine that ends a wait for room.
const OUTPUT_LIMIT: Duration = Duration::from_secs(120);
