//! The driver without threads: for a daemon whose event loop waits for one descriptor more.
//!
//! ```text
//!  host loop: poll(fd) readable ──► process() ──► next_event() until None
//!             room() > 0 and data ──► output() ──► (the timer makes fd readable within GATHER)
//! ```
//!
//! [`Polled::fd`] is an epoll instance that holds the sockets and one timerfd. It stays the same for the driver's life, so that a
//! failover changes nothing for the host, and the host waits for *readable* only.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::process::{Pid, getpid};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

use super::api::machine_config;
use super::config::{ClientConfig, Decision, Metadata, RecorderAddr};
use super::driver::timespec;
use super::handle::{Outcome, Transition};
use super::link::{Closing, LinkIo};
use super::log::Level;
use super::transport::{Got, Transport};
use crate::cast::{ExitStatus, Stream};
use crate::error::{Error, Misuse};
use crate::limits;
use crate::session::{Action, AttemptText, Event, LinkEvent, LinkId, Machine, State, Stats};
use crate::time::{Span, Tick};

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
pub struct Polled {
    epoll: OwnedFd,
    timer: OwnedFd,
    origin: Instant,
    pid: Pid,
    config: ClientConfig,
    sessions: Vec<Option<Driven>>,
    generation: u32,
    closing: Vec<Watched<Closing>>,
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
    wants: epoll::EventFlags,
}

struct Driven {
    generation: u32,
    machine: Machine,
    recording: String,
    recorders: Vec<RecorderAddr>,
    observer: Option<super::Observer>,
    links: [Option<Watched<LinkIo>>; limits::LINKS_MAX],
    /// Raw bytes taken since it was last served.
    fresh: usize,
    end: Option<Outcome>,
}

impl fmt::Debug for Polled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Polled").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Polled {
    /// Makes the descriptors and reserves what all sessions share. Nothing is connected.
    ///
    /// # Errors
    /// `Misuse` for a configuration out of range, `NoMemory` when memory or a descriptor cannot be had.
    pub fn new(config: ClientConfig) -> Result<Self, Error> {
        let rings = limits::RING_MIN_BYTES..=limits::RING_MAX_BYTES;
        let count = usize::from(u16::MAX);
        if !rings.contains(&config.ring_bytes) || config.max_sessions > count {
            return Err(Error::Misuse(Misuse::BadParameter));
        }
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|_| Error::NoMemory)?;
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, flags).map_err(|_| Error::NoMemory)?;
        let data = epoll::EventData::new_u64(TIMER);
        epoll::add(&epoll, &timer, data, epoll::EventFlags::IN).map_err(|_| Error::NoMemory)?;
        let mut sessions = Vec::new();
        sessions.try_reserve_exact(config.max_sessions).map_err(|_| Error::NoMemory)?;
        let mut input = Vec::new();
        input.try_reserve_exact(INPUT_BYTES).map_err(|_| Error::NoMemory)?;
        input.resize(INPUT_BYTES, 0);
        Ok(Self {
            epoll,
            timer,
            origin: Instant::now(),
            pid: getpid(),
            config,
            sessions,
            generation: 0,
            closing: Vec::new(),
            serial: TIMER,
            input,
            armed: None,
            turn: 0,
        })
    }

    /// Wait until it is readable, then call [`Polled::process`].
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Opens a session and returns at once; a notice tells when the program may start.
    ///
    /// # Errors
    /// As [`Client::open`](super::Client::open).
    pub fn open(&mut self, metadata: Metadata, decision: Decision) -> Result<SessionId, Error> {
        self.check()?;
        let free = self.sessions.iter().position(Option::is_none);
        if free.is_none() && self.sessions.len() >= self.config.max_sessions {
            return Err(Error::Full);
        }
        let (observer, recorders) = (decision.observer.clone(), decision.recorders.clone());
        let (id, config) = machine_config(&self.config, metadata, decision)?;
        let machine = Machine::new(config, self.now())?;
        self.generation = self.generation.wrapping_add(1);
        let driven = Driven {
            generation: self.generation,
            machine,
            recording: id,
            recorders,
            observer,
            links: [const { None }; limits::LINKS_MAX],
            fresh: 0,
            end: None,
        };
        let at = free.unwrap_or(self.sessions.len());
        match self.sessions.get_mut(at) {
            Some(place) => *place = Some(driven),
            None => self.sessions.push(Some(driven)),
        }
        self.arm(NOW);
        let at = u16::try_from(at).map_err(|_| Error::Full)?;
        Ok(SessionId { at, generation: self.generation })
    }

    /// Moves everything that can be moved without waiting. Call it when [`Polled::fd`] is readable; harmless at any time.
    ///
    /// # Errors
    /// `Misuse` in a forked child.
    pub fn process(&mut self) -> Result<(), Error> {
        self.check()?;
        let mut ready = [const { NOTHING }; READY];
        let found = epoll::wait(&self.epoll, &mut ready[..], Some(&NO_TIME)).unwrap_or(0);
        for event in ready.iter().take(found) {
            let (serial, flags) = (event.data.u64(), event.flags);
            if serial == TIMER {
                let _ = rustix::io::read(&self.timer, &mut [0; 8]);
                self.armed = None;
            } else {
                self.serve_socket(serial, flags);
            }
        }
        let mut busy = found == READY;
        for at in 0..self.sessions.len() {
            busy |= self.serve(at);
        }
        self.settle(busy);
        Ok(())
    }

    /// The next notice of any session; none when there is nothing more to tell now.
    pub fn next_event(&mut self) -> Option<(SessionId, Notice)> {
        if self.check().is_err() {
            return None;
        }
        for _ in 0..self.sessions.len() {
            let at = self.turn.checked_rem(self.sessions.len()).unwrap_or(0);
            let log = &self.config.log;
            if let Some(Some(driven)) = self.sessions.get_mut(at) {
                while let Some(event) = driven.machine.poll_event() {
                    if let Some(notice) = driven.notice(event, &**log) {
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
        let now = self.now();
        let driven = self.get(id)?;
        if data.len() > driven.machine.room() {
            // Which of the reasons it is, the machine knows.
            return match driven.machine.output(now, stream, &[]) {
                Err(e) => Err(e),
                Ok(_) => Err(Error::Full),
            };
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
        let much = driven.fresh >= limits::GATHER_BYTES;
        self.arm(if much { NOW } else { now.after(limits::GATHER) });
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
        let wait = Span(u64::try_from(wait.as_micros()).unwrap_or(u64::MAX));
        self.with(id, |driven, now| driven.machine.finish_within(now, wait))
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
        let by = self.now().after(Span(u64::try_from(wait.as_micros()).unwrap_or(u64::MAX)));
        let outcome = loop {
            self.process()?;
            let now = self.now();
            let driven = self.get(id)?;
            let encoded = driven.machine.stats();
            let behind = encoded.encoded.saturating_sub(encoded.committed);
            match driven.machine.state() {
                State::SessionComplete | State::SessionRejected => break Outcome::Complete,
                State::Incomplete => break Outcome::Incomplete { bytes: behind },
                _ if now >= by => break Outcome::Incomplete { bytes: behind },
                _ => {}
            }
            let pause = timespec(by.since(now));
            let _ = poll(&mut [PollFd::new(&self.epoll, PollFlags::IN)], Some(&pause));
        };
        self.free(id);
        Ok(outcome)
    }

    /// Gives the session up; what is not stored yet is lost. In a forked child it only closes descriptors.
    pub fn free(&mut self, id: SessionId) {
        let Some(place) = self.sessions.get_mut(usize::from(id.at)) else { return };
        let Some(mut driven) = place.take_if(|driven| driven.generation == id.generation) else {
            return;
        };
        if getpid() != self.pid {
            // The epoll instance is the parent's too: taking a socket out of it would make the parent deaf.
            return;
        }
        let now = self.now();
        driven.machine.abandon(now);
        while let Some(action) = driven.machine.poll_action() {
            self.act(&mut driven, now, action);
        }
        for link in driven.links.iter_mut().filter_map(Option::take) {
            let _ = epoll::delete(&self.epoll, link.io.transport().fd());
            link.io.reset();
        }
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

    fn now(&self) -> Tick {
        Tick(u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    fn check(&self) -> Result<(), Error> {
        if getpid() == self.pid { Ok(()) } else { Err(Error::Misuse(Misuse::WrongState)) }
    }

    fn find(&self, id: SessionId) -> Option<&Driven> {
        let driven = self.sessions.get(usize::from(id.at))?.as_ref()?;
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
        let now = self.now();
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
            let now = self.now();
            driven.machine.handle_timeout(now);
            driven.fresh = 0;
            let mut more = false;
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
        let Driven { links, machine, .. } = driven;
        let Some(Some(link)) = links.get_mut(slot) else { return false };
        let id = link.io.id;
        link.io.fill(|out| machine.poll_transmit(now, id, out));
        match link.io.send() {
            Ok(sent) => {
                watch(&self.epoll, link, flags(link.io.wants()));
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
                let Some(link) = driven.take(id) else { return };
                if abort {
                    let _ = epoll::delete(&self.epoll, link.io.transport().fd());
                    link.io.reset();
                } else {
                    self.leave(link, now);
                }
            }
            Action::Connect { link: id, recorder, http2 } => {
                let made = driven.recorders.get(recorder).ok_or(Error::Bug).and_then(|to| {
                    let mut io = LinkIo::new(id, Transport::connect(to, http2)?)?;
                    let up = io.establish().inspect_err(|_| self.explain(driven, &io))?;
                    Ok((io, up))
                });
                let up = match made {
                    Ok((io, up)) => {
                        self.serial = self.serial.wrapping_add(1);
                        let wants = flags(io.wants());
                        let data = epoll::EventData::new_u64(self.serial);
                        let fd = io.transport().fd();
                        if epoll::add(&self.epoll, fd, data, wants).is_err() {
                            Err(Error::NoMemory)
                        } else {
                            if let Some(place) = driven.links.get_mut(id.slot()) {
                                *place = Some(Watched { io, serial: self.serial, wants });
                            }
                            Ok(up)
                        }
                    }
                    Err(why) => Err(why),
                };
                match up {
                    Ok(true) => driven.machine.handle_link(now, id, LinkEvent::Up),
                    Ok(false) => {}
                    Err(why) => driven.machine.handle_link(now, id, LinkEvent::Down(why)),
                }
            }
        }
    }

    /// Its last bytes still go out, and its peer's end is waited for.
    fn leave(&mut self, link: Watched<LinkIo>, now: Tick) {
        let Watched { io, serial, wants } = link;
        let fd = io.transport().fd();
        // Out of the set first: when it is closed at once, the set must not know it any more.
        let _ = epoll::delete(&self.epoll, fd);
        let Some(closing) = io.close(now) else { return };
        let wanted = flags(closing.wants());
        let data = epoll::EventData::new_u64(serial);
        if epoll::add(&self.epoll, closing.transport().fd(), data, wanted).is_ok() {
            let _ = wants;
            self.closing.push(Watched { io: closing, serial, wants: wanted });
        }
    }

    fn lose(&self, driven: &mut Driven, now: Tick, id: LinkId, why: Error) {
        if let Some(link) = driven.take(id) {
            let _ = epoll::delete(&self.epoll, link.io.transport().fd());
            self.explain(driven, &link.io);
        }
        driven.machine.handle_link(now, id, LinkEvent::Down(why));
    }

    /// What TLS has to say about a connection that failed.
    fn explain(&self, driven: &Driven, link: &LinkIo) {
        if let Some(text) = link.transport().tls_trouble() {
            self.config.log.log(Level::Warn, format_args!("{}: {text}", driven.recording));
        }
    }

    fn serve_socket(&mut self, serial: u64, ready: epoll::EventFlags) {
        if let Some(at) = self.closing.iter().position(|link| link.serial == serial) {
            let Some(link) = self.closing.get_mut(at) else { return };
            if link.io.advance(&mut self.input) {
                let wanted = flags(link.io.wants());
                watch(&self.epoll, link, wanted);
            } else {
                let link = self.closing.swap_remove(at);
                let _ = epoll::delete(&self.epoll, link.io.transport().fd());
            }
            return;
        }
        let owns = |driven: &Driven| driven.links.iter().flatten().any(|l| l.serial == serial);
        let Some(at) = self.sessions.iter().position(|s| s.as_ref().is_some_and(owns)) else {
            return;
        };
        let Some(mut driven) = self.sessions.get_mut(at).and_then(Option::take) else { return };
        self.receive(&mut driven, serial, ready);
        if let Some(place) = self.sessions.get_mut(at) {
            *place = Some(driven);
        }
    }

    fn receive(&mut self, driven: &mut Driven, serial: u64, ready: epoll::EventFlags) {
        let now = self.now();
        let Driven { links, machine, .. } = driven;
        let Some(link) = links.iter_mut().flatten().find(|link| link.serial == serial) else {
            return;
        };
        let id = link.io.id;
        link.io.unblock();
        let lost = if !link.io.up {
            match link.io.establish() {
                Ok(true) => {
                    machine.handle_link(now, id, LinkEvent::Up);
                    None
                }
                Ok(false) => None,
                Err(why) => Some(why),
            }
        } else if link.io.eof {
            // Only an error can have been reported: nothing is read any more.
            ready
                .intersects(epoll::EventFlags::ERR | epoll::EventFlags::HUP)
                .then_some(Error::Link(crate::error::Link::Reset))
        } else {
            let mut lost = None;
            for _ in 0..ROUNDS {
                match link.io.read(&mut self.input) {
                    Ok(Got::Bytes(n)) => {
                        machine.handle_input(now, id, self.input.get(..n).unwrap_or_default());
                        if n < self.input.len() {
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
    }

    /// Ends what waited too long, and sets the timer for what comes next.
    fn settle(&mut self, busy: bool) {
        let now = self.now();
        while let Some(at) = self.closing.iter().position(|link| link.io.until <= now) {
            let link = self.closing.swap_remove(at);
            let _ = epoll::delete(&self.epoll, link.io.transport().fd());
        }
        let due = self.sessions.iter().flatten().filter_map(|driven| driven.machine.poll_timeout());
        let due = due.chain(self.closing.iter().map(|link| link.io.until)).min();
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
        // Never zero, which would switch it off.
        let it_value = timespec(at.since(self.now()));
        let spec = Itimerspec { it_interval: NO_TIME, it_value };
        if timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &spec).is_ok() {
            self.armed = Some(at);
        }
    }
}

impl Driven {
    fn take(&mut self, id: LinkId) -> Option<Watched<LinkIo>> {
        self.links.get_mut(id.slot())?.take_if(|link| link.io.id == id)
    }

    /// What of an event is for the host; the rest goes to the log and the observer.
    fn notice(&mut self, event: Event, log: &dyn super::LogSink) -> Option<Notice> {
        let id = &self.recording;
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
                if let Some(addr) = self.recorders.get(recorder) {
                    match error {
                        None => log.log(Level::Info, format_args!("{id}: recorded by {addr}")),
                        Some(error) => log.log(
                            Level::Warn,
                            format_args!(
                                "{id}: {}",
                                AttemptText { authority: &addr.to_string(), error }
                            ),
                        ),
                    }
                }
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

impl Drop for Polled {
    fn drop(&mut self) {
        if self.check().is_err() {
            return;
        }
        for link in self.sessions.iter().flatten().flat_map(|d| d.links.iter().flatten()) {
            let _ = epoll::delete(&self.epoll, link.io.transport().fd());
        }
        for link in &self.closing {
            let _ = epoll::delete(&self.epoll, link.io.transport().fd());
        }
    }
}

/// What is waited for, changed only when it differs.
fn watch<T>(epoll: &OwnedFd, link: &mut Watched<T>, wants: epoll::EventFlags)
where
    Watched<T>: HasFd,
{
    if link.wants != wants {
        let data = epoll::EventData::new_u64(link.serial);
        if epoll::modify(epoll, link.fd(), data, wants).is_ok() {
            link.wants = wants;
        }
    }
}

trait HasFd {
    fn fd(&self) -> BorrowedFd<'_>;
}

impl HasFd for Watched<LinkIo> {
    fn fd(&self) -> BorrowedFd<'_> {
        self.io.transport().fd()
    }
}

impl HasFd for Watched<Closing> {
    fn fd(&self) -> BorrowedFd<'_> {
        self.io.transport().fd()
    }
}

fn flags(wants: PollFlags) -> epoll::EventFlags {
    let mut flags = epoll::EventFlags::empty();
    if wants.contains(PollFlags::IN) {
        flags |= epoll::EventFlags::IN;
    }
    if wants.contains(PollFlags::OUT) {
        flags |= epoll::EventFlags::OUT;
    }
    flags
}

/// The timer is to fire at once.
const NOW: Tick = Tick(0);
/// The serial of the timer.
const TIMER: u64 = 0;
/// Descriptors served in one call; more make it readable again at once.
const READY: usize = 32;
/// Turns of one session, and reads of one link, before others have theirs.
const ROUNDS: usize = 8;
/// What one read of a link takes: acks are short.
const INPUT_BYTES: usize = 4096;
const NO_TIME: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
const NOTHING: epoll::Event =
    epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) };
