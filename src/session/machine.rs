//! The façade: what the host, the links and the clock say. What follows from it stands in `flow`.

use alloc::string::String;
use alloc::vec::Vec;

use super::config::{Config, Deadlines, OnFailure, Protocols, Recorder, Release};
use super::events::Events;
use super::hunt::Hunt;
use super::intake::Intake;
use super::link::{Links, Role, Stage};
#[cfg(feature = "ask")]
use super::policy::Asking;
use super::state::{Action, Event, LinkEvent, LinkId, Reason, State, Stats};
use crate::cast::{self, Castkeep, ExitStatus, Stream};
use crate::error::{Error, Misuse};
#[cfg(feature = "ask")]
use crate::limits::LINKS_MAX;
use crate::limits::{AUTHORITY_BYTES, MESSAGE_BYTES, RECORDERS_MAX, RESUME_PAUSE_MIN};
use crate::space;
use crate::time::{Span, Tick};
use crate::upload::wire::format_id;

/// One recorded session. See the module for the loop around it.
#[derive(Debug)]
pub struct Machine {
    pub(super) header: cast::Header,
    pub(super) recording: [u8; 16],
    pub(super) resume_secret: [u8; 16],
    pub(super) recorders: Vec<Recorder>,
    /// What is known of each recorder.
    pub(super) known: Vec<Known>,
    pub(super) on_failure: OnFailure,
    pub(super) protocols: Protocols,
    pub(super) waits: Deadlines,
    record_input: bool,
    /// Only recorders that tell what they have stored are used.
    pub(super) need_commit: bool,
    pub(super) random: u64,

    pub(super) intake: Intake,
    pub(super) links: Links,
    pub(super) events: Events,
    pub(super) state: State,
    pub(super) hunt: Option<Hunt>,

    /// Start was told: the stream exists, output is taken.
    pub(super) started: bool,
    /// Streaming was reached: the middle policy applies.
    pub(super) streamed: bool,
    /// Terminated was told: nothing new is taken.
    pub(super) terminated: bool,
    /// Nothing is recorded, by decision: everything is let through.
    pub(super) passing: bool,
    /// The exit event was written: nothing new is taken.
    exited: bool,
    /// The session ends: no policy applies any more, only the close timeout.
    pub(super) finishing: bool,

    /// All recorders together have to answer by then, at the start.
    pub(super) start_by: Option<Tick>,
    /// Fail open: the program starts then, with or without a recorder.
    pub(super) go_by: Option<Tick>,
    /// From the first loss until a commit advances.
    pub(super) grace_by: Option<Tick>,
    /// Before the next search, when nothing was stored since the last loss.
    pub(super) pause: Span,
    /// The next search in the background.
    pub(super) retry_at: Option<Tick>,
    /// Grows with every search in the background.
    pub(super) backoff: Span,
    /// The end of everything.
    pub(super) close_by: Option<Tick>,

    /// The stream is stored up to here.
    pub(super) stored: u64,
    /// See [`Stats::doubtful`].
    pub(super) doubtful: u64,
    /// Up to here doubt was counted.
    pub(super) held: u64,
    pub(super) attempts: u64,
    pub(super) losses: u32,
    /// The recorder in use speaks v1, since then.
    pub(super) v1_since: Option<Tick>,
    /// The recorder that was used last.
    pub(super) last_recorder: Option<usize>,
    /// Whether room was seen last.
    had_room: bool,
    pub(super) peer_text: String,
    /// Whoever names the recorders, and what it said.
    #[cfg(feature = "ask")]
    pub(super) asking: Option<Asking>,
}

/// What a recorder was seen to speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Known {
    #[default]
    Nothing,
    Upgrade,
    V1,
    /// It is never spoken to in v1.
    V2,
}

impl Machine {
    /// Opens a session: reserves all its memory and begins to look for a recorder.
    ///
    /// # Errors
    ///
    /// [`Error::Misuse`] for a parameter out of range, [`Error::TooBig`] for a header, message or list past its limit,
    /// [`Error::NoMemory`].
    pub fn new(cfg: Config, now: Tick) -> Result<Self, Error> {
        let mut cfg = cfg;
        let refused = cfg.refusal.is_some();
        if refused {
            cfg.on_failure.reject_message = cfg.refusal.take();
        }
        let messages = [&cfg.on_failure.reject_message, &cfg.on_failure.terminate_message];
        if messages.iter().any(|m| m.as_ref().is_some_and(|m| m.len() > MESSAGE_BYTES))
            || cfg.recorders.len() > RECORDERS_MAX
            || cfg.recorders.iter().any(|r| r.authority.len() > AUTHORITY_BYTES)
        {
            return Err(Error::TooBig);
        }
        let printable = |r: &Recorder| r.authority.bytes().all(|b| b.is_ascii_graphic());
        if !cfg.recorders.iter().all(printable) {
            return Err(Error::Misuse(Misuse::BadParameter));
        }
        let mut header = cfg.header;
        let id = space::lossy(&format_id(&cfg.recording))?;
        match &mut header.castkeep {
            Some(castkeep) => castkeep.recording = id,
            None => {
                let (node, kind) = (String::new(), space::string("shell")?);
                let client = space::string(concat!("castkeep/", env!("CARGO_PKG_VERSION")))?;
                let source_by = None;
                header.castkeep = Some(Castkeep { recording: id, node, kind, client, source_by });
            }
        }
        header.continues = None;
        header.encode_continuation(u64::MAX)?;
        let marks = cfg.release == Release::Commit;
        let mut known = Vec::new();
        space::reserve(&mut known, cfg.recorders.len())?;
        for _ in &cfg.recorders {
            space::push(&mut known, Known::Nothing)?;
        }
        let mut machine = Self {
            header,
            recording: cfg.recording,
            resume_secret: cfg.resume_secret,
            recorders: cfg.recorders,
            known,
            on_failure: cfg.on_failure,
            protocols: cfg.protocols,
            waits: cfg.deadlines,
            record_input: cfg.record_input,
            need_commit: marks && !cfg.stock_with_release_commit,
            random: cfg.jitter_seed | 1,
            intake: Intake::new(cfg.ring_bytes, marks, cfg.volume_bytes, now)?,
            links: Links::default(),
            events: Events::new()?,
            state: State::Connecting,
            hunt: None,
            started: false,
            streamed: false,
            terminated: false,
            passing: false,
            exited: false,
            finishing: false,
            start_by: None,
            go_by: None,
            grace_by: None,
            pause: RESUME_PAUSE_MIN,
            retry_at: None,
            backoff: cfg.deadlines.backoff_min,
            close_by: None,
            stored: 0,
            doubtful: 0,
            held: 0,
            attempts: 0,
            losses: 0,
            v1_since: None,
            last_recorder: None,
            had_room: false,
            peer_text: String::new(),
            #[cfg(feature = "ask")]
            asking: match cfg.ask {
                Some(ask) => Some(Asking::new(ask, now)?),
                None => None,
            },
        };
        if refused {
            machine.refuse();
        } else {
            machine.begin(now);
        }
        machine.step(now);
        Ok(machine)
    }

    // ---- host ----

    /// How many bytes the next [`Machine::output`] takes whole. 0 while opening, when the ring is full, while the loss of
    /// the recorder is known under fail closed, and after termination; `usize::MAX` when nothing is recorded.
    #[must_use]
    pub fn room(&self) -> usize {
        match self.refusal() {
            Some(_) => 0,
            None if self.passing => usize::MAX,
            None => self.intake.room(),
        }
    }

    /// Why more than [`Machine::room`] is not taken now, as [`Machine::output`] would say it.
    #[must_use]
    pub fn why_no_room(&self) -> Error {
        self.refusal().unwrap_or(Error::Full)
    }

    /// Output of the program: takes a prefix and returns its length. What was taken may be shown (with
    /// [`Release::Commit`]: when [`Machine::released`] reaches it).
    ///
    /// # Errors
    ///
    /// [`Error::Full`] when nothing can be taken now: an [`Event::Room`] follows. [`Error::Closed`] after termination,
    /// `exit` or `finish`: what it was given is to be discarded.
    pub fn output(&mut self, now: Tick, stream: Stream, data: &[u8]) -> Result<usize, Error> {
        if let Some(e) = self.refusal() {
            self.had_room = false;
            return Err(e);
        }
        if self.passing {
            self.intake.pass(stream, data.len());
            return Ok(data.len());
        }
        let taken = self.intake.output(now, stream, data);
        self.settle_intake(now);
        if taken == 0 && !data.is_empty() {
            self.had_room = false;
            return Err(Error::Full);
        }
        Ok(taken)
    }

    /// Input of the user, recorded when the configuration says so. Never holds input back: what has no room is left out.
    pub fn input(&mut self, now: Tick, data: &[u8]) {
        if !self.record_input || self.refusal().is_some() || self.intake.is_counting() {
            return;
        }
        self.intake.input(now, data);
        self.settle_intake(now);
    }

    /// The terminal has a new size. Before the start it goes into the header. Without room it waits; the last one counts.
    pub fn resize(&mut self, now: Tick, cols: u16, rows: u16) {
        if !self.started {
            (self.header.width, self.header.height) = (cols, rows);
        } else if !self.is_closed() && !self.passing {
            self.intake.resize(now, cols, rows);
            self.settle_intake(now);
        }
    }

    /// A marker of the host.
    ///
    /// # Errors
    ///
    /// [`Error::Full`] when there is no room for it, [`Error::Closed`] after the end.
    pub fn marker(&mut self, now: Tick, label: &str) -> Result<(), Error> {
        match self.refusal() {
            Some(e) => return Err(e),
            None if self.passing => return Ok(()),
            None => {}
        }
        if self.intake.is_counting() || !self.intake.marker(now, label) {
            return Err(Error::Full);
        }
        self.settle_intake(now);
        Ok(())
    }

    /// The program ended: the last event. There is always room for it. Only [`Machine::finish`] follows.
    pub fn exit(&mut self, now: Tick, status: ExitStatus<'_>) {
        if self.exited || self.finishing || self.state.is_end() {
            return;
        }
        self.exited = true;
        if self.started && !self.passing {
            self.intake.exit(now, status);
            self.settle_intake(now);
        }
    }

    /// Ends the session: [`Event::Finished`] or [`Event::Incomplete`] follows within [`Deadlines::close_wait`]. Calling it
    /// again changes nothing.
    pub fn finish(&mut self, now: Tick) {
        self.finish_within(now, self.waits.close_wait);
    }

    /// As [`Machine::finish`] with a time of its own; called again it can only make it shorter.
    pub fn finish_within(&mut self, now: Tick, wait: Span) {
        let by = now.after(wait);
        self.close_by = Some(self.close_by.map_or(by, |at| at.min(by)));
        self.begin_finish(now);
        self.step(now);
    }

    /// Gives the session up at once: links are reset, [`Event::Incomplete`] follows.
    pub fn abandon(&mut self, now: Tick) {
        if !self.state.is_end() {
            self.conclude(now, Reason::Abandoned);
        }
    }

    /// Raw bytes of a stream that may be shown, from its beginning.
    #[must_use]
    pub fn released(&self, stream: Stream) -> u64 {
        self.intake.released().of(stream)
    }

    /// Where the session is.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// Its numbers.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let raw = self.intake.raw();
        let current = self.links.current();
        let last = self.last_recorder.filter(|_| self.state.is_end());
        Stats {
            encoded: self.intake.window.end(),
            committed: self.stored,
            stdout: raw.stdout,
            stderr: raw.stderr,
            unrecorded: self.intake.unrecorded,
            gaps: self.intake.gaps,
            doubtful: self.doubtful,
            attempts: self.attempts,
            losses: self.losses,
            recorder: current.map(|l| l.recorder).or(last),
            protocol: current.and_then(|l| l.client.protocol()),
        }
    }

    /// The message for [`Event::Refused`] or [`Event::Terminated`]; empty otherwise.
    #[must_use]
    pub fn message(&self) -> &str {
        let message = match self.state {
            State::SessionRejected => &self.on_failure.reject_message,
            _ if self.terminated => &self.on_failure.terminate_message,
            _ => &None,
        };
        message.as_deref().unwrap_or_default()
    }

    /// The text of the last `{"error":…}`, untrusted; empty when there was none.
    #[must_use]
    pub fn peer_text(&self) -> &str {
        &self.peer_text
    }

    /// Whether [`Machine::poll_event`] has something.
    #[must_use]
    pub fn has_event(&self) -> bool {
        !self.events.is_empty()
    }

    /// What the host and the observer have to know.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop()
    }

    // ---- links ----

    /// What the owner of the sockets has to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        let action = self.links.poll_action(cfg!(feature = "http2") && self.protocols.http2);
        #[cfg(feature = "ask")]
        let action = action.or_else(|| self.asking.as_mut()?.poll_action());
        action
    }

    /// Something happened to a link. What is said about a link that is closed already is ignored.
    pub fn handle_link(&mut self, now: Tick, link: LinkId, event: LinkEvent) {
        #[cfg(feature = "ask")]
        if link.slot() >= LINKS_MAX {
            self.policy_link(now, link, event);
            return self.step(now);
        }
        let end = self.intake.window.end();
        match (self.links.get(link), event) {
            (Some(l), LinkEvent::Up) => {
                if matches!(l.stage, Stage::Dialing { .. }) {
                    l.stage = Stage::Up;
                }
            }
            (Some(l), LinkEvent::Eof) if l.stage == Stage::Up => l.client.handle_eof(now, end),
            (Some(_), LinkEvent::Eof) => {}
            (Some(_), LinkEvent::Down(e)) => self.link_down(now, link, e),
            (None, LinkEvent::Down(_)) => self.links.forget(link),
            (None, _) => {}
        }
        self.step(now);
    }

    /// Bytes came from a recorder; all of them are taken.
    pub fn handle_input(&mut self, now: Tick, link: LinkId, input: &[u8]) {
        #[cfg(feature = "ask")]
        if link.slot() >= LINKS_MAX {
            self.policy_input(now, link, input);
            return self.step(now);
        }
        let end = self.intake.window.end();
        if let Some(l) = self.links.get(link).filter(|l| l.stage == Stage::Up) {
            l.client.handle_input(now, input, end);
        }
        self.step(now);
    }

    /// Bytes for a recorder: fills `out` as far as there are some. 0: nothing now.
    pub fn poll_transmit(&mut self, now: Tick, link: LinkId, out: &mut [u8]) -> usize {
        #[cfg(feature = "ask")]
        if link.slot() >= LINKS_MAX {
            return self.policy_transmit(link, out);
        }
        let Some(l) = self.links.get(link).filter(|l| l.stage == Stage::Up) else { return 0 };
        let n = l.client.poll_transmit(now, &self.intake.window, out);
        if n > 0 && l.role == Role::Current {
            self.release(now);
            self.settle_intake(now);
        }
        n
    }

    /// The time of [`Machine::poll_timeout`] came. Harmless at any time.
    pub fn handle_timeout(&mut self, now: Tick) {
        self.step(now);
    }

    /// When [`Machine::handle_timeout`] is wanted. May lie in the past.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Tick> {
        if self.state.is_end() {
            return None;
        }
        let racing = self.links.racing();
        let hunt = self.hunt.as_ref().filter(|_| self.links.has_room());
        let hunt = hunt.and_then(|h| h.poll_timeout(racing));
        let intake = self.intake.poll_timeout(self.is_open(), self.waits.stall_limit);
        let own = [
            self.start_by,
            self.go_by,
            self.grace_by.filter(|_| self.grace_counts()),
            self.retry_at,
            self.close_by,
            hunt,
            intake.filter(|_| self.started),
        ];
        let links = self.links.iter().flat_map(|l| {
            let stage = match l.stage {
                Stage::Wanted { until } | Stage::Dialing { until } => Some(until),
                _ => l.client.poll_timeout(),
            };
            let role = match l.role {
                Role::Leaving { until } => Some(until),
                _ => None,
            };
            [stage, role]
        });
        let due = own.into_iter().chain(links).flatten().min();
        #[cfg(feature = "ask")]
        let due = due.into_iter().chain(self.asking.as_ref().and_then(Asking::poll_timeout)).min();
        due
    }

    // ---- shared with `flow` ----

    /// Whether the session goes on when recording fails in its middle.
    #[must_use]
    pub const fn ends_open(&self) -> bool {
        self.on_failure.terminate_message.is_none()
    }

    /// The `recorder` of an [`Action::Connect`] or [`Event::Attempt`], as a verdict named it; none for those of the configuration.
    #[cfg(feature = "ask")]
    #[must_use]
    pub fn named(&self, recorder: usize) -> Option<&crate::ask::Named> {
        self.asking.as_ref()?.named(recorder)
    }

    /// What policy has to say to the user before the session begins; empty: nothing.
    #[cfg(feature = "ask")]
    #[must_use]
    pub fn banner(&self) -> &str {
        self.asking.as_ref().map_or("", Asking::banner)
    }

    /// Whether the policy that applies now lets the session go on without recording.
    pub(super) const fn is_open(&self) -> bool {
        if self.streamed {
            self.on_failure.terminate_message.is_none()
        } else {
            self.on_failure.reject_message.is_none()
        }
    }

    /// Whether nothing new is taken any more.
    const fn is_closed(&self) -> bool {
        self.exited || self.finishing || self.terminated || self.state.is_end()
    }

    /// Why output is not taken now. The room of the ring is looked at elsewhere.
    fn refusal(&self) -> Option<Error> {
        if self.is_closed() {
            return Some(Error::Closed);
        }
        if self.passing {
            return None;
        }
        // Fail closed: nothing while the loss is known, and nothing that is only counted.
        let held = !self.is_open() && (self.links.current().is_none() || self.intake.is_counting());
        (!self.started || held).then_some(Error::Full)
    }

    /// After anything that moved the ring or the time.
    pub(super) fn settle_intake(&mut self, now: Tick) {
        if !self.started || self.passing || self.state.is_end() {
            return;
        }
        let open = self.is_open();
        self.intake.advance(now, open, self.waits.stall_limit);
        let unrecorded = matches!(self.state, State::ContinueUnrecorded | State::SessionAllowed)
            || self.intake.is_counting();
        let more = open
            && if unrecorded {
                self.intake.release_all()
            } else {
                self.intake.release_overdue(now, self.waits.stall_limit)
            };
        if more {
            self.events.push(Event::Released);
        }
        let end = self.intake.window.end();
        if let Some(link) = self.links.current_mut() {
            link.client.update(now, end);
        }
        let room = self.room();
        if room == 0 {
            self.had_room = false;
        } else if !self.had_room {
            self.had_room = true;
            self.events.push(Event::Room);
        }
    }
}
