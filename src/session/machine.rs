//! The machine.

use super::{Action, Config, Event, LinkEvent, LinkId, State, Stats};
use crate::cast::{ExitStatus, Stream};
use crate::error::Error;
use crate::time::Tick;

/// One recorded session. See the module for the loop around it.
#[derive(Debug)]
pub struct Machine {
    _p: (),
}

impl Machine {
    /// Opens a session: reserves all its memory and begins to look for a recorder.
    ///
    /// # Errors
    ///
    /// [`Error::Misuse`] for a parameter out of range, [`Error::TooBig`] for a header, message or list past its limit,
    /// [`Error::NoMemory`].
    pub fn new(cfg: Config, now: Tick) -> Result<Self, Error> {
        let _ = (cfg, now);
        todo!()
    }

    // ---- host ----

    /// How many bytes the next [`Machine::output`] takes whole. 0 while opening, when the ring is full, while the loss of
    /// the recorder is known under fail closed, and after termination; `usize::MAX` when nothing is recorded.
    #[must_use]
    pub fn room(&self) -> usize {
        todo!()
    }

    /// Output of the program: takes a prefix and returns its length. What was taken may be shown (with
    /// [`Release::Commit`](super::Release::Commit): when [`Machine::released`] reaches it).
    ///
    /// # Errors
    ///
    /// [`Error::Full`] when nothing can be taken now: an [`Event::Room`] follows. [`Error::Closed`] after termination,
    /// `exit` or `finish`: what it was given is to be discarded.
    pub fn output(&mut self, now: Tick, stream: Stream, data: &[u8]) -> Result<usize, Error> {
        let _ = (now, stream, data);
        todo!()
    }

    /// Input of the user, recorded when the configuration says so. Never holds input back: what has no room is left out.
    pub fn input(&mut self, now: Tick, data: &[u8]) {
        let _ = (now, data);
        todo!()
    }

    /// The terminal has a new size. Before the start it goes into the header. Without room it waits; the last one counts.
    pub fn resize(&mut self, now: Tick, cols: u16, rows: u16) {
        let _ = (now, cols, rows);
        todo!()
    }

    /// A marker of the host.
    ///
    /// # Errors
    ///
    /// [`Error::Full`] when there is no room for it, [`Error::Closed`] after the end.
    pub fn marker(&mut self, now: Tick, label: &str) -> Result<(), Error> {
        let _ = (now, label);
        todo!()
    }

    /// The program ended: the last event. There is always room for it. Only [`Machine::finish`] follows.
    pub fn exit(&mut self, now: Tick, status: ExitStatus<'_>) {
        let _ = (now, status);
        todo!()
    }

    /// Ends the session: [`Event::Finished`] or [`Event::Incomplete`] follows within
    /// [`Deadlines::close_wait`](super::Deadlines::close_wait). Calling it again changes nothing.
    pub fn finish(&mut self, now: Tick) {
        let _ = now;
        todo!()
    }

    /// As [`Machine::finish`] with a time of its own; called again it can only make it shorter.
    pub fn finish_within(&mut self, now: Tick, wait: crate::time::Span) {
        let _ = (now, wait);
        todo!()
    }

    /// Gives the session up at once: links are reset, [`Event::Incomplete`] follows.
    pub fn abandon(&mut self, now: Tick) {
        let _ = now;
        todo!()
    }

    /// Raw bytes of a stream that may be shown, from its beginning.
    #[must_use]
    pub fn released(&self, stream: Stream) -> u64 {
        let _ = stream;
        todo!()
    }

    /// Where the session is.
    #[must_use]
    pub fn state(&self) -> State {
        todo!()
    }

    /// Its numbers.
    #[must_use]
    pub fn stats(&self) -> Stats {
        todo!()
    }

    /// The message for [`Event::Refused`] or [`Event::Terminated`]; empty otherwise.
    #[must_use]
    pub fn message(&self) -> &str {
        todo!()
    }

    /// The text of the last `{"error":…}` or refusal, untrusted; empty when there was none.
    #[must_use]
    pub fn peer_text(&self) -> &str {
        todo!()
    }

    /// What the host and the observer have to know.
    pub fn poll_event(&mut self) -> Option<Event> {
        todo!()
    }

    // ---- links ----

    /// What the owner of the sockets has to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        todo!()
    }

    /// Something happened to a link. What is said about a link that is closed already is ignored.
    pub fn handle_link(&mut self, now: Tick, link: LinkId, event: LinkEvent) {
        let _ = (now, link, event);
        todo!()
    }

    /// Bytes came from a recorder; all of them are taken.
    pub fn handle_input(&mut self, now: Tick, link: LinkId, input: &[u8]) {
        let _ = (now, link, input);
        todo!()
    }

    /// Bytes for a recorder: fills `out` as far as there are some. 0: nothing now.
    pub fn poll_transmit(&mut self, now: Tick, link: LinkId, out: &mut [u8]) -> usize {
        let _ = (now, link, out);
        todo!()
    }

    /// The time of [`Machine::poll_timeout`] came. Harmless at any time.
    pub fn handle_timeout(&mut self, now: Tick) {
        let _ = now;
        todo!()
    }

    /// When [`Machine::handle_timeout`] is wanted. May lie in the past.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Tick> {
        todo!()
    }
}
