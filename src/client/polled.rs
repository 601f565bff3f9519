//! The driver without threads: for a daemon whose event loop waits for one descriptor more.
//!
//! ```text
//!  host loop: poll(fd) readable ──► process() ──► next_event() until None
//!             room() > 0 and data ──► output() ──► (the timer makes fd readable within GATHER)
//! ```
//!
//! [`Polled::fd`] is an epoll instance that holds the sockets and one timerfd. It stays the same for the driver's life, so that a
//! failover changes nothing for the host, and the host waits for *readable* only.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ffi::c_int;
use core::fmt;
use core::time::Duration;

#[cfg(feature = "client")]
use super::ClientConfig;
use super::Level;
#[cfg(feature = "ask")]
use super::config::PolicySource;
use super::config::{Decision, Metadata, Observer, RecorderAddr};
use super::fork::{Mark, Process};
use super::heap::boxed;
use super::host::{Dial, Host, LinkWants, Surroundings};
use super::link::{Closing, LinkIo};
use super::opening::{RecordingId, machine_config, span};
use super::outcome::{Outcome, Transition};
use super::sys::{self, Fd, NOTHING, READY, Wants};
use super::transport::{Got, Transport};
use crate::cast::{ExitStatus, Stream};
use crate::error::{Error, Link, Misuse};
use crate::limits;
use crate::session::{
    Action, AttemptText, Event, LinkEvent, LinkId, Machine, Protocols, State, Stats,
};
#[cfg(feature = "ask")]
use crate::session::{POLICY, PolicyText};
use crate::space;
use crate::time::Tick;

/// What all sessions of a driver share.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Bytes of a session that are kept until a recorder has them for good; between `limits::RING_MIN_BYTES` and
    /// `limits::RING_MAX_BYTES`. The rate of a session is bounded by ring / commit latency.
    pub ring_bytes: usize,
    /// Most sessions at a time; past them [`Polled::open`] answers `Full`.
    pub max_sessions: usize,
    /// What is spoken.
    pub protocols: Protocols,
    /// Bytes between a ring and its socket: what one system call sends at most.
    pub link_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ring_bytes: limits::RING_DEFAULT_BYTES,
            max_sessions: limits::SESSIONS_DEFAULT,
            protocols: Protocols::default(),
            link_bytes: limits::LINK_OUT_BYTES,
        }
    }
}

/// Names a session of a driver. What was freed is recognised, also when its place is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId {
    at: u16,
    generation: u32,
}

/// What a session tells its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// The program may start.
    Start {
        /// Whether a recorder has it.
        recorded: bool,
    },
    /// It must not start: show [`Polled::message`], end with 254. The last notice.
    Refused,
    /// There is room again after there was none.
    Room,
    /// More may be shown, see [`Polled::released`].
    Released,
    /// Show [`Polled::message`], send HUP to the program, then `exit` and `finish`.
    Terminated {
        /// Encoded bytes that were accepted and are not known to be stored.
        bytes: u64,
    },
    /// Everything is stored, or nothing was to be recorded. The last notice.
    Finished,
    /// So many encoded bytes are not known to be stored. The last notice.
    Incomplete {
        /// Bytes behind the last commit.
        bytes: u64,
    },
}

/// See the module. Not `Sync`: one thread calls it, and no call blocks but [`Polled::close`].
pub struct Polled<H: Host = Surroundings> {
    epoll: Fd,
    timer: Fd,
    process: Process,
    settings: Settings,
    host: H,
    sessions: Vec<Option<Box<Driven>>>,
    generation: u32,
    closing: Vec<Watched<Closing>>,
    dials: Vec<Dialing>,
    serial: u64,
    input: Vec<u8>,
    /// When the timer fires.
    armed: Option<Tick>,
    /// Where `next_event` looks first, so that no session hides the others.
    turn: usize,
}

/// Something in the epoll set.
struct Watched<T> {
    io: T,
    serial: u64,
    /// As the set has it; a descriptor of -1 is not in it.
    known: LinkWants,
}

/// A connection that the host is making.
struct Dialing {
    ticket: u64,
    at: usize,
    generation: u32,
    link: LinkId,
    recorder: usize,
    http2: bool,
}

struct Driven {
    /// Its place, where it is while nobody works on it.
    at: u16,
    generation: u32,
    machine: Machine,
    recording: RecordingId,
    recorders: Vec<RecorderAddr>,
    #[cfg(feature = "ask")]
    policy: Option<PolicySource>,
    observer: Option<Observer>,
    links: [Option<Watched<LinkIo>>; limits::LINK_SLOTS],
    /// Raw bytes taken since it was last served.
    fresh: usize,
    end: Option<Outcome>,
}

impl<H: Host> fmt::Debug for Polled<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Polled").field("settings", &self.settings).finish_non_exhaustive()
    }
}

#[cfg(feature = "client")]
impl Polled {
    /// Makes the descriptors and reserves what all sessions share. Nothing is connected.
    ///
    /// # Errors
    /// `Misuse` for a configuration out of range, `NoMemory` when memory or a descriptor cannot be had.
    pub fn new(config: ClientConfig) -> Result<Self, Error> {
        let ClientConfig { ring_bytes, max_sessions, protocols, log } = config;
        let link_bytes = limits::LINK_OUT_BYTES;
        let settings = Settings { ring_bytes, max_sessions, protocols, link_bytes };
        Self::with_host(settings, Surroundings { log })
    }
}

#[cfg(feature = "client")]
impl<H: Host> Polled<H> {
    /// Wait until it is readable, then call [`Polled::process`].
    #[must_use]
    pub fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.epoll)
    }
}

impl<H: Host> Polled<H> {
    /// As `new`, for a host that brings its own log or connections.
    ///
    /// # Errors
    /// As `new`.
    pub fn with_host(settings: Settings, host: H) -> Result<Self, Error> {
        let rings = limits::RING_MIN_BYTES..=limits::RING_MAX_BYTES;
        let links = limits::LINK_OUT_MIN_BYTES..=limits::LINK_OUT_BYTES;
        let count = usize::from(u16::MAX);
        if !rings.contains(&settings.ring_bytes)
            || !links.contains(&settings.link_bytes)
            || settings.max_sessions > count
        {
            return Err(Error::Misuse(Misuse::BadParameter));
        }
        let (Ok(epoll), Ok(timer)) = (sys::epoll(), sys::timer()) else {
            return Err(Error::NoMemory);
        };
        if !sys::watch(&epoll, timer.raw(), TIMER, Wants { read: true, write: false }) {
            return Err(Error::NoMemory);
        }
        let mut sessions = Vec::new();
        space::reserve(&mut sessions, settings.max_sessions)?;
        Ok(Self {
            epoll,
            timer,
            process: Process::this(),
            settings,
            host,
            sessions,
            generation: 0,
            closing: Vec::new(),
            dials: Vec::new(),
            serial: TIMER,
            input: space::zeros(INPUT_BYTES.min(settings.link_bytes))?,
            armed: None,
            turn: 0,
        })
    }

    /// The number of the descriptor.
    #[must_use]
    pub const fn raw_fd(&self) -> c_int {
        self.epoll.raw()
    }

    /// Opens a session and returns at once; a notice tells when the program may start.
    ///
    /// # Errors
    /// `Misuse` in a forked child and for parameters out of range, `TooBig` for a header, message or list past its limit,
    /// `Full` past `max_sessions`, `NoMemory`.
    ///
    /// # Blocking
    /// It does not block, but for the kernel's random generator shortly after boot.
    pub fn open(&mut self, metadata: Metadata, decision: &Decision) -> Result<SessionId, Error> {
        self.check()?;
        let free = self.sessions.iter().position(Option::is_none);
        if free.is_none() && self.sessions.len() >= self.settings.max_sessions {
            return Err(Error::Full);
        }
        let mut recorders = Vec::new();
        space::reserve(&mut recorders, decision.recorders.len())?;
        for recorder in &decision.recorders {
            space::push(&mut recorders, recorder.copy()?)?;
        }
        let Settings { ring_bytes, protocols, .. } = self.settings;
        let (recording, config) = machine_config(ring_bytes, protocols, metadata, decision)?;
        let machine = Machine::new(config, sys::now())?;
        self.generation = self.generation.wrapping_add(1);
        let at = free.unwrap_or(self.sessions.len());
        let id = SessionId {
            at: u16::try_from(at).map_err(|_| Error::Full)?,
            generation: self.generation,
        };
        let driven = boxed(Driven {
            at: id.at,
            generation: self.generation,
            machine,
            recording,
            recorders,
            #[cfg(feature = "ask")]
            policy: decision.policy.as_ref().map(PolicySource::copy).transpose()?,
            observer: decision.observer.clone(),
            links: [const { None }; limits::LINK_SLOTS],
            fresh: 0,
            end: None,
        })?;
        match self.sessions.get_mut(at) {
            Some(place) => *place = Some(driven),
            None => space::push(&mut self.sessions, Some(driven))?,
        }
        self.arm(NOW);
        Ok(id)
    }

    /// Moves everything that can be moved without waiting. Call it when [`Polled::fd`] is readable; harmless at any time.
    ///
    /// # Errors
    /// `Misuse` in a forked child.
    pub fn process(&mut self) -> Result<(), Error> {
        self.check()?;
        let mut ready = [NOTHING; READY];
        let found = sys::ready(&self.epoll, &mut ready);
        for event in ready.iter().take(found) {
            if event.serial == TIMER {
                sys::clear_timer(&self.timer);
                self.armed = None;
            } else {
                self.serve_socket(event.serial, event.broken);
            }
        }
        let mut busy = found == READY;
        for at in 0..self.sessions.len() {
            busy |= self.serve(at);
        }
        self.settle(busy);
        Ok(())
    }

    /// Whether the caller is a forked child, for whoever cannot ask the driver itself then. Good as long as the driver lives.
    pub const fn mark(&self) -> Mark {
        self.process.mark()
    }

    /// Answers a [`Dial::Pending`]: a stream socket, which may still be connecting and must not block; -1 when there is none. The
    /// descriptor is the driver's from now on.
    ///
    /// # Errors
    /// `Closed` when nobody waits for it any more: the descriptor is closed. `Misuse` in a forked child.
    pub fn dialed(&mut self, ticket: u64, fd: c_int) -> Result<(), Error> {
        let fd = (fd >= 0).then(|| Fd::from_raw(fd));
        self.check()?;
        let at = self.dials.iter().position(|dial| dial.ticket == ticket).ok_or(Error::Closed)?;
        let dial = swap_out(&mut self.dials, at).ok_or(Error::Bug)?;
        let place = self.sessions.get_mut(dial.at);
        let mut driven = place
            .and_then(|place| place.take_if(|driven| driven.generation == dial.generation))
            .ok_or(Error::Closed)?;
        let made = match fd {
            Some(fd) => {
                driven.with_recorder(dial.recorder, |to| Transport::over(fd, true, to, dial.http2))
            }
            None => Err(Error::Link(Link::Unreachable)),
        };
        self.begin(&mut driven, sys::now(), dial.link, made);
        if let Some(place) = self.sessions.get_mut(dial.at) {
            *place = Some(driven);
        }
        self.arm(NOW);
        Ok(())
    }

    /// The next notice of any session; none when there is nothing more to tell now.
    pub fn next_event(&mut self) -> Option<(SessionId, Notice)> {
        if self.check().is_err() {
            return None;
        }
        for _ in 0..self.sessions.len() {
            let at = self.turn.checked_rem(self.sessions.len()).unwrap_or(0);
            if let Some(Some(driven)) = self.sessions.get_mut(at) {
                while let Some(event) = driven.machine.poll_event() {
                    if let Some(notice) = driven.notice(event, &self.host) {
                        let id = SessionId {
                            at: u16::try_from(at).unwrap_or(u16::MAX),
                            generation: driven.generation,
                        };
                        return Some((id, notice));
                    }
                }
            }
            self.turn = at.wrapping_add(1);
        }
        None
    }

    /// How many bytes the next [`Polled::output`] takes whole: 0 while opening, when the ring is full and after termination;
    /// `usize::MAX` when nothing is recorded. Do not read from the program while it is 0, and at most so much.
    #[must_use]
    pub fn room(&self, id: SessionId) -> usize {
        self.peek(id, 0, |driven| driven.machine.room())
    }

    /// Output of the program, all of it or none.
    ///
    /// # Errors
    /// `Full` when `data` is longer than [`Polled::room`]; `Closed` after the end: discard it.
    pub fn output(&mut self, id: SessionId, stream: Stream, data: &[u8]) -> Result<(), Error> {
        let now = sys::now();
        let driven = self.get(id)?;
        if data.len() > driven.machine.room() {
            // Nothing changes by it, not even the room.
            return Err(driven.machine.why_no_room());
        }
        let mut rest = data;
        while !rest.is_empty() {
            match driven.machine.output(now, stream, rest)? {
                0 => return Err(Error::Bug),
                n => rest = rest.get(n..).unwrap_or_default(),
            }
        }
        driven.fresh = driven.fresh.saturating_add(data.len());
        // Small output comes in crowds: it is gathered for a moment, so that not every call costs a turn of the host's loop.
        if driven.fresh < limits::GATHER_BYTES {
            self.arm(now.after(limits::GATHER));
        } else if self.host.links().is_some() {
            self.arm(NOW);
        } else {
            // It goes out at once: the timer, and the turn of the loop that it causes, would cost more than what is sent.
            let at = usize::from(id.at);
            let busy = self.serve(at);
            let told = |driven: &Driven| driven.machine.has_event();
            let told = self.sessions.get(at).and_then(Option::as_deref).is_some_and(told);
            self.settle(busy || told);
        }
        Ok(())
    }

    /// See [`Session::input`](super::Session::input).
    ///
    /// # Errors
    /// `Misuse` for a session that was freed and in a forked child, as for all calls below.
    pub fn input(&mut self, id: SessionId, data: &[u8]) -> Result<(), Error> {
        self.with(id, |driven, now| driven.machine.input(now, data))
    }

    /// See [`Session::resize`](super::Session::resize).
    ///
    /// # Errors
    /// As [`Polled::input`].
    pub fn resize(&mut self, id: SessionId, cols: u16, rows: u16) -> Result<(), Error> {
        self.with(id, |driven, now| driven.machine.resize(now, cols, rows))
    }

    /// See [`Session::marker`](super::Session::marker).
    ///
    /// # Errors
    /// As [`Polled::input`]; `Full` without room, `Closed` after the end.
    pub fn marker(&mut self, id: SessionId, label: &str) -> Result<(), Error> {
        self.with(id, |driven, now| driven.machine.marker(now, label))?
    }

    /// See [`Session::exit`](super::Session::exit).
    ///
    /// # Errors
    /// As [`Polled::input`].
    pub fn exit(&mut self, id: SessionId, status: ExitStatus<'_>) -> Result<(), Error> {
        self.with(id, |driven, now| driven.machine.exit(now, status))
    }

    /// Ends the session without waiting: a last notice follows within `wait`.
    ///
    /// # Errors
    /// As [`Polled::input`].
    pub fn finish(&mut self, id: SessionId, wait: Duration) -> Result<(), Error> {
        self.with(id, |driven, now| driven.machine.finish_within(now, span(wait)))
    }

    /// Ends the session and waits for it, at most `wait`; for a process that is about to exit. The session is freed.
    ///
    /// # Errors
    /// As [`Polled::input`].
    ///
    /// # Blocking
    /// Until everything is stored or `wait` is over. Other sessions of the driver are served meanwhile.
    pub fn close(&mut self, id: SessionId, wait: Duration) -> Result<Outcome, Error> {
        self.finish(id, wait)?;
        let complete = self.wait_until(wait, |driver| match driver.state(id) {
            State::SessionComplete | State::SessionRejected => Some(true),
            State::Incomplete => Some(false),
            _ => None,
        })?;
        let stats = self.stats(id);
        self.free(id);
        Ok(match complete {
            Some(true) => Outcome::Complete,
            _ => Outcome::Incomplete { bytes: stats.encoded.saturating_sub(stats.committed) },
        })
    }

    /// Serves all sessions until `known` has an answer, at most `wait`.
    ///
    /// # Errors
    /// As [`Polled::process`].
    ///
    /// # Blocking
    /// At most `wait`.
    pub fn wait_until<T>(
        &mut self,
        wait: Duration,
        mut known: impl FnMut(&mut Self) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let by = sys::now().after(span(wait));
        loop {
            self.process()?;
            if let Some(answer) = known(self) {
                return Ok(Some(answer));
            }
            let now = sys::now();
            if now >= by {
                return Ok(None);
            }
            sys::wait(&self.epoll, by.since(now));
        }
    }

    /// Gives the session up; what is not stored yet is lost. In a forked child it only closes descriptors.
    pub fn free(&mut self, id: SessionId) {
        let Some(place) = self.sessions.get_mut(usize::from(id.at)) else { return };
        let Some(mut driven) = place.take_if(|driven| driven.generation == id.generation) else {
            return;
        };
        if !self.process.is_this() {
            // The epoll instance is the parent's too: taking a socket out of it would make the parent deaf.
            return;
        }
        let now = sys::now();
        driven.machine.abandon(now);
        // A host that never asks for events has its log all the same.
        while let Some(event) = driven.machine.poll_event() {
            driven.notice(event, &self.host);
        }
        while let Some(action) = driven.machine.poll_action() {
            self.act(&mut driven, now, action);
        }
        for link in driven.links.iter_mut().filter_map(Option::take) {
            self.unwatch(&link.known);
            link.io.reset(self.host.links());
        }
        self.dials.retain(|dial| dial.generation != id.generation);
        self.settle(false);
    }

    /// The recording id: 32 hexadecimal digits.
    #[must_use]
    pub fn recording(&self, id: SessionId) -> Option<&str> {
        self.find(id).map(|driven| driven.recording.as_str())
    }

    /// The message of policy behind [`Notice::Refused`] and [`Notice::Terminated`]; empty otherwise.
    #[must_use]
    pub fn message(&self, id: SessionId) -> &str {
        self.find(id).map_or("", |driven| driven.machine.message())
    }

    /// What policy has to say to the user before the session begins; empty: nothing.
    #[cfg(feature = "ask")]
    #[must_use]
    pub fn banner(&self, id: SessionId) -> &str {
        self.find(id).map_or("", |driven| driven.machine.banner())
    }

    /// See [`Session::released`](super::Session::released).
    #[must_use]
    pub fn released(&self, id: SessionId, stream: Stream) -> u64 {
        self.peek(id, 0, |driven| driven.machine.released(stream))
    }

    /// Where the session is; `Incomplete` when it was freed and in a forked child.
    #[must_use]
    pub fn state(&self, id: SessionId) -> State {
        self.peek(id, State::Incomplete, |driven| driven.machine.state())
    }

    /// Its numbers.
    #[must_use]
    pub fn stats(&self, id: SessionId) -> Stats {
        self.peek(id, Stats::default(), |driven| driven.machine.stats())
    }

    // ---- inside ----

    fn check(&self) -> Result<(), Error> {
        if self.process.is_this() { Ok(()) } else { Err(Error::Misuse(Misuse::WrongState)) }
    }

    fn find(&self, id: SessionId) -> Option<&Driven> {
        let driven = self.sessions.get(usize::from(id.at))?.as_deref()?;
        (driven.generation == id.generation).then_some(driven)
    }

    fn get(&mut self, id: SessionId) -> Result<&mut Driven, Error> {
        self.check()?;
        match self.sessions.get_mut(usize::from(id.at)) {
            Some(Some(driven)) if driven.generation == id.generation => Ok(driven),
            _ => Err(Error::Misuse(Misuse::WrongState)),
        }
    }

    fn peek<T>(&self, id: SessionId, absent: T, look: impl FnOnce(&Driven) -> T) -> T {
        match self.find(id) {
            Some(driven) if self.check().is_ok() => look(driven),
            _ => absent,
        }
    }

    fn with<T>(
        &mut self,
        id: SessionId,
        change: impl FnOnce(&mut Driven, Tick) -> T,
    ) -> Result<T, Error> {
        let now = sys::now();
        let result = change(self.get(id)?, now);
        self.arm(NOW);
        Ok(result)
    }

    /// A session as far as it goes without waiting; true when it was stopped to let others have their turn.
    fn serve(&mut self, at: usize) -> bool {
        // Taken out, so that the sockets' set can be changed beside it.
        let Some(mut driven) = self.sessions.get_mut(at).and_then(Option::take) else {
            return false;
        };
        let mut busy = true;
        for _ in 0..ROUNDS {
            let now = sys::now();
            driven.machine.handle_timeout(now);
            driven.fresh = 0;
            let mut more = false;
            if self.host.links().is_some() {
                // What a host's library has read ahead makes no descriptor readable.
                for slot in 0..driven.links.len() {
                    more |= self.receive(&mut driven, slot, false);
                }
            }
            while let Some(action) = driven.machine.poll_action() {
                more = true;
                self.act(&mut driven, now, action);
            }
            for slot in 0..driven.links.len() {
                more |= self.send(&mut driven, slot, now);
            }
            if !more {
                busy = false;
                break;
            }
        }
        if let Some(place) = self.sessions.get_mut(at) {
            *place = Some(driven);
        }
        busy
    }

    fn send(&self, driven: &mut Driven, slot: usize, now: Tick) -> bool {
        let links = self.host.links();
        let Driven { links: held, machine, .. } = driven;
        let Some(Some(link)) = held.get_mut(slot) else { return false };
        let id = link.io.id;
        link.io.fill(|out| machine.poll_transmit(now, id, out));
        match link.io.send(links) {
            Ok(sent) => {
                let wants = link.io.wants(links);
                rewatch(&self.epoll, link, wants);
                sent
            }
            Err(why) => {
                self.lose(driven, now, id, why);
                true
            }
        }
    }

    fn act(&mut self, driven: &mut Driven, now: Tick, action: Action) {
        match action {
            Action::Close { link: id, abort } => {
                let at = self
                    .dials
                    .iter()
                    .position(|dial| dial.link == id && dial.generation == driven.generation);
                if let Some(at) = at {
                    swap_out(&mut self.dials, at);
                }
                let Some(link) = driven.take(id) else { return };
                // Out of the set first: when it is closed at once, the set must not know it any more.
                self.unwatch(&link.known);
                if abort {
                    link.io.reset(self.host.links());
                } else {
                    self.leave(link, now);
                }
            }
            Action::Connect { link, recorder, http2 } => {
                let (at, generation) = (driven.at.into(), driven.generation);
                let made = driven.with_recorder(recorder, |to| {
                    if self.host.links().is_some() && !is_agent(recorder, to) {
                        return Transport::hosted(to).map(Some);
                    }
                    self.serial = self.serial.wrapping_add(1);
                    let ticket = self.serial;
                    match self.host.dial(ticket, &to.address) {
                        Dial::Own => Transport::connect(to, http2).map(Some),
                        Dial::Connected(fd) if fd >= 0 => {
                            Transport::over(Fd::from_raw(fd), true, to, http2).map(Some)
                        }
                        Dial::Pending => {
                            let dial = Dialing { ticket, at, generation, link, recorder, http2 };
                            space::push(&mut self.dials, dial).map(|()| None)
                        }
                        Dial::Connected(_) | Dial::Failed => Err(Error::Link(Link::Unreachable)),
                    }
                });
                let made = match made {
                    Ok(None) => return,
                    Ok(Some(transport)) => Ok(transport),
                    Err(why) => Err(why),
                };
                self.begin(driven, now, link, made);
            }
        }
    }

    /// Puts a new connection into its place.
    fn begin(
        &mut self,
        driven: &mut Driven,
        now: Tick,
        id: LinkId,
        made: Result<Transport, Error>,
    ) {
        let links = self.host.links();
        // A question is short.
        let recorders = id.slot() < limits::LINKS_MAX;
        let out_bytes = if recorders { self.settings.link_bytes } else { limits::ASK_OUT_BYTES };
        let made = made.and_then(|transport| LinkIo::new(id, transport, out_bytes));
        let up = match made {
            Ok(mut io) => match io.establish(links) {
                Ok(up) => {
                    self.serial = self.serial.wrapping_add(1);
                    let wants = io.wants(links);
                    let mut link = Watched { io, serial: self.serial, known: UNKNOWN };
                    if rewatch(&self.epoll, &mut link, wants) {
                        if let Some(place) = driven.links.get_mut(id.slot()) {
                            *place = Some(link);
                        }
                        Ok(up)
                    } else {
                        link.io.reset(links);
                        Err(Error::NoMemory)
                    }
                }
                Err(why) => {
                    self.explain(driven, &io);
                    io.reset(links);
                    Err(why)
                }
            },
            Err(why) => Err(why),
        };
        match up {
            Ok(true) => driven.machine.handle_link(now, id, LinkEvent::Up),
            Ok(false) => {}
            Err(why) => driven.machine.handle_link(now, id, LinkEvent::Down(why)),
        }
    }

    /// Its last bytes still go out, and its peer's end is waited for.
    fn leave(&mut self, link: Watched<LinkIo>, now: Tick) {
        let links = self.host.links();
        let Watched { io, serial, .. } = link;
        let Some(closing) = io.close(now, links) else { return };
        let wants = closing.wants(links);
        let mut link = Watched { io: closing, serial, known: UNKNOWN };
        if self.closing.len() == self.closing.capacity() && self.closing.try_reserve(1).is_err()
            || !rewatch(&self.epoll, &mut link, wants)
        {
            link.io.end(links);
            return;
        }
        // There is room, as was just seen.
        let _ = space::push(&mut self.closing, link);
    }

    fn lose(&self, driven: &mut Driven, now: Tick, id: LinkId, why: Error) {
        if let Some(link) = driven.take(id) {
            self.unwatch(&link.known);
            self.explain(driven, &link.io);
            link.io.end(self.host.links());
        }
        driven.machine.handle_link(now, id, LinkEvent::Down(why));
    }

    /// What TLS has to say about a connection that failed.
    #[cfg(feature = "tls")]
    fn explain(&self, driven: &Driven, link: &LinkIo) {
        if let Some(text) = link.transport().tls_trouble() {
            let id = driven.recording.as_str();
            self.host.log(Level::Warn, format_args!("{id}: {text}"));
        }
    }

    #[cfg(not(feature = "tls"))]
    #[allow(clippy::unused_self)]
    const fn explain(&self, _: &Driven, _: &LinkIo) {}

    fn unwatch(&self, known: &LinkWants) {
        if known.fd >= 0 {
            sys::unwatch(&self.epoll, known.fd);
        }
    }

    fn serve_socket(&mut self, serial: u64, broken: bool) {
        if let Some(at) = self.closing.iter().position(|link| link.serial == serial) {
            self.advance(at);
            return;
        }
        let owns = |driven: &Driven| driven.links.iter().flatten().any(|l| l.serial == serial);
        let Some(at) = self.sessions.iter().position(|s| s.as_deref().is_some_and(owns)) else {
            return;
        };
        let Some(mut driven) = self.sessions.get_mut(at).and_then(Option::take) else { return };
        let slot = driven
            .links
            .iter()
            .position(|link| link.as_ref().is_some_and(|link| link.serial == serial));
        if let Some(slot) = slot {
            self.receive(&mut driven, slot, broken);
        }
        if let Some(place) = self.sessions.get_mut(at) {
            *place = Some(driven);
        }
    }

    /// A connection that is closing goes on, or ends.
    fn advance(&mut self, at: usize) {
        let links = self.host.links();
        let Some(link) = self.closing.get_mut(at) else { return };
        if link.io.advance(&mut self.input, links) {
            let wants = link.io.wants(links);
            rewatch(&self.epoll, link, wants);
        } else if let Some(link) = swap_out(&mut self.closing, at) {
            self.unwatch(&link.known);
            link.io.end(links);
        }
    }

    /// Reads what came on a link; whether there may be more.
    fn receive(&mut self, driven: &mut Driven, slot: usize, broken: bool) -> bool {
        let now = sys::now();
        let links = self.host.links();
        let Driven { links: held, machine, .. } = driven;
        let Some(Some(link)) = held.get_mut(slot) else { return false };
        let id = link.io.id;
        link.io.unblock();
        let mut more = false;
        let lost = if !link.io.up {
            match link.io.establish(links) {
                Ok(true) => {
                    machine.handle_link(now, id, LinkEvent::Up);
                    more = true;
                    None
                }
                Ok(false) => None,
                Err(why) => Some(why),
            }
        } else if link.io.eof {
            // Only an error can have been reported: nothing is read any more.
            broken.then_some(Error::Link(Link::Reset))
        } else {
            let mut lost = None;
            for _ in 0..ROUNDS {
                more = false;
                match link.io.read(&mut self.input, links) {
                    Ok(Got::Bytes(n)) => {
                        machine.handle_input(now, id, self.input.get(..n).unwrap_or_default());
                        more = true;
                        // A socket that had less has no more; TLS and hosts give in their own portions.
                        if n < self.input.len() && !link.io.transport().is_hosted() {
                            break;
                        }
                    }
                    Ok(Got::Nothing) => break,
                    Ok(Got::Eof) => {
                        link.io.eof = true;
                        machine.handle_link(now, id, LinkEvent::Eof);
                        break;
                    }
                    Err(why) => {
                        lost = Some(why);
                        break;
                    }
                }
            }
            lost
        };
        if let Some(why) = lost {
            self.lose(driven, now, id, why);
        }
        more
    }

    /// Ends what waited too long, and sets the timer for what comes next.
    fn settle(&mut self, busy: bool) {
        let now = sys::now();
        let hosted = self.host.links().is_some();
        let mut at = 0;
        while at < self.closing.len() {
            if hosted {
                let before = self.closing.len();
                self.advance(at);
                if self.closing.len() < before {
                    continue;
                }
            }
            if self.closing.get(at).is_some_and(|link| link.io.until <= now) {
                if let Some(link) = swap_out(&mut self.closing, at) {
                    self.unwatch(&link.known);
                    link.io.end(self.host.links());
                }
                continue;
            }
            at = at.wrapping_add(1);
        }
        let due = self.sessions.iter().flatten().filter_map(|driven| driven.machine.poll_timeout());
        let mut due = due.chain(self.closing.iter().map(|link| link.io.until)).min();
        let unseen = |driven: &Driven| driven.links.iter().flatten().any(|l| l.known.fd < 0);
        if self.sessions.iter().flatten().any(|driven| unseen(driven))
            || self.closing.iter().any(|link| link.known.fd < 0)
        {
            let soon = now.after(limits::HOST_LINK_PAUSE);
            due = Some(due.map_or(soon, |due| due.min(soon)));
        }
        match due {
            _ if busy => self.arm(NOW),
            Some(due) => self.arm(due),
            None => {}
        }
    }

    /// The timer fires at `at` or before.
    fn arm(&mut self, at: Tick) {
        if self.armed.is_some_and(|armed| armed <= at) {
            return;
        }
        if sys::set_timer(&self.timer, at.since(sys::now())) {
            self.armed = Some(at);
        }
    }
}

impl Driven {
    /// Does something with the address of a recorder, or of policy.
    fn with_recorder<T>(
        &self,
        recorder: usize,
        act: impl FnOnce(&RecorderAddr) -> Result<T, Error>,
    ) -> Result<T, Error> {
        #[cfg(feature = "ask")]
        if let Some(policy) = &self.policy {
            if recorder == POLICY {
                return act(&policy.at);
            }
            if let Some(named) = self.machine.named(recorder) {
                return act(&policy.recorder(named)?);
            }
        }
        act(self.recorders.get(recorder).ok_or(Error::Bug)?)
    }

    fn take(&mut self, id: LinkId) -> Option<Watched<LinkIo>> {
        self.links.get_mut(id.slot())?.take_if(|link| link.io.id == id)
    }

    /// What of an event is for the host; the rest goes to the log and the observer.
    fn notice(&mut self, event: Event, log: &impl Host) -> Option<Notice> {
        let id = self.recording.as_str();
        match event {
            Event::Start { recorded } => Some(Notice::Start { recorded }),
            Event::Refused => {
                self.end = Some(Outcome::Complete);
                Some(Notice::Refused)
            }
            Event::Room => Some(Notice::Room),
            Event::Released => Some(Notice::Released),
            Event::Terminated { bytes } => {
                log.log(
                    Level::Error,
                    format_args!(
                        "{id}: session ended by policy, {bytes} bytes were shown and not stored"
                    ),
                );
                Some(Notice::Terminated { bytes })
            }
            Event::Finished => {
                self.end = Some(Outcome::Complete);
                Some(Notice::Finished)
            }
            Event::Incomplete { bytes } => {
                self.end = Some(Outcome::Incomplete { bytes });
                log.log(
                    Level::Error,
                    format_args!("{id}: {bytes} bytes are not known to be stored"),
                );
                Some(Notice::Incomplete { bytes })
            }
            Event::Attempt { recorder, error } => {
                let _ = self.with_recorder(recorder, |addr| {
                    let authority = addr.label();
                    match error {
                        None => {
                            log.log(Level::Info, format_args!("{id}: recorded by {authority}"));
                        }
                        Some(error) => {
                            let text = AttemptText { authority, error };
                            log.log(Level::Warn, format_args!("{id}: {text}"));
                        }
                    }
                    Ok(())
                });
                None
            }
            #[cfg(feature = "ask")]
            Event::Policy { error } => {
                log.log(Level::Warn, format_args!("{id}: {}", PolicyText(error)));
                None
            }
            Event::Transition { from, to, reason } => {
                log.log(Level::of(to), format_args!("{id}: {from} to {to}: {reason}"));
                if let Some(observer) = &self.observer {
                    observer(&Transition { from, to, reason });
                }
                None
            }
        }
    }
}

impl<H: Host> Drop for Polled<H> {
    fn drop(&mut self) {
        self.end();
    }
}

impl<H: Host> Polled<H> {
    /// Gives up everything that is not stored, and closes all connections. In a forked child nothing.
    pub fn end(&mut self) {
        if self.check().is_err() {
            return;
        }
        let links = self.host.links();
        for mut driven in self.sessions.iter_mut().filter_map(Option::take) {
            for link in driven.links.iter_mut().filter_map(Option::take) {
                if link.known.fd >= 0 {
                    sys::unwatch(&self.epoll, link.known.fd);
                }
                link.io.end(links);
            }
        }
        while let Some(link) = self.closing.pop() {
            if link.known.fd >= 0 {
                sys::unwatch(&self.epoll, link.known.fd);
            }
            link.io.end(links);
        }
    }
}

/// What is waited for, changed where it differs; false: the set cannot have it.
fn rewatch<T>(epoll: &Fd, link: &mut Watched<T>, wanted: LinkWants) -> bool {
    let known = link.known;
    if known == wanted {
        return true;
    }
    let wants = Wants { read: wanted.read, write: wanted.write };
    let same = known.fd == wanted.fd;
    if !same && known.fd >= 0 {
        sys::unwatch(epoll, known.fd);
    }
    // A host may have closed a descriptor and opened another with its number: then the set has lost it.
    let done = wanted.fd < 0
        || same && sys::rewatch(epoll, wanted.fd, link.serial, wants)
        || sys::watch(epoll, wanted.fd, link.serial, wants);
    link.known = if done { wanted } else { UNKNOWN };
    done
}

/// Whether it is the agent of this machine, which no host needs to bring a transport for.
fn is_agent(recorder: usize, to: &RecorderAddr) -> bool {
    #[cfg(feature = "ask")]
    return recorder == POLICY && matches!(to.endpoint, super::Endpoint::Unix(_));
    #[cfg(not(feature = "ask"))]
    {
        let _ = (recorder, to);
        false
    }
}

/// As `swap_remove`, and nothing past the end.
fn swap_out<T>(list: &mut Vec<T>, at: usize) -> Option<T> {
    if at >= list.len() {
        return None;
    }
    let last = list.pop()?;
    match list.get_mut(at) {
        Some(place) => Some(core::mem::replace(place, last)),
        None => Some(last),
    }
}

/// The timer is to fire at once.
const NOW: Tick = Tick(0);
/// The serial of the timer.
const TIMER: u64 = 0;
/// Turns of one session, and reads of one link, before others have theirs.
const ROUNDS: usize = 8;
/// What one read of a link takes: acks are short.
const INPUT_BYTES: usize = 4096;
/// Not in the set.
const UNKNOWN: LinkWants = LinkWants { fd: -1, read: false, write: false };
