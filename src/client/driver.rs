//! The worker: one thread for all sessions of a client.
//!
//! Its loop is that of `session`: for each session that has something to do, under the session's mutex, actions and events are taken out
//! and bytes copied into the link's buffer; then, without the mutex, sockets are served and callbacks called.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::config::RecorderAddr;
use super::handle::{EXIT_STATUS, Start};
use super::link::{Closing, LinkIo};
use super::log::Level;
use super::outcome::{Outcome, Transition};
use super::shared::{Inner, Shared, Slot};
use super::sys::Wants;
use super::transport::{Got, Transport};
use crate::error::Error;
use crate::limits;
use crate::session::{Action, AttemptText, Event, LinkEvent, LinkId, PolicyText};
use crate::time::{Span, Tick};

pub(super) struct Worker {
    shared: Arc<Shared>,
    sessions: Vec<Driven>,
    closing: Vec<Closing>,
    input: Vec<u8>,
    actions: Vec<Action>,
    notes: Vec<Event>,
}

/// A session with its links.
struct Driven {
    slot: Arc<Slot>,
    links: [Option<LinkIo>; limits::LINK_SLOTS],
    due: Option<Tick>,
    /// Work was left for the next turn, so that others have theirs.
    busy: bool,
    ended: bool,
    /// What there is to tell about the TLS failure that the machine reports next.
    trouble: Option<String>,
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>) -> Result<Self, Error> {
        let mut input = Vec::new();
        input.try_reserve_exact(limits::WORKER_IN_BYTES).map_err(|_| Error::NoMemory)?;
        input.resize(limits::WORKER_IN_BYTES, 0);
        Ok(Self {
            shared,
            sessions: Vec::new(),
            closing: Vec::new(),
            input,
            actions: Vec::new(),
            notes: Vec::new(),
        })
    }

    /// The body of the thread. A panic fails the sessions of this client and nothing else.
    pub(super) fn run(&mut self) {
        if catch_unwind(AssertUnwindSafe(|| self.work())).is_err() {
            self.shared.failed.store(true, SeqCst);
            let _ = catch_unwind(AssertUnwindSafe(|| {
                self.shared
                    .log
                    .log(Level::Error, format_args!("internal error: the worker failed"));
            }));
        }
        let left = std::mem::take(&mut *self.shared.inbox());
        for slot in left.iter().chain(self.sessions.iter().map(|driven| &driven.slot)) {
            slot.changed.notify_all();
        }
    }

    fn work(&mut self) {
        let mut stop_by = None;
        loop {
            self.shared.rise();
            self.take_new();
            if self.shared.stop.load(SeqCst) && stop_by.is_none() {
                stop_by = Some(self.shared.now().after(limits::LINK_CLOSE));
                for driven in &self.sessions {
                    driven.slot.lock().machine.abandon(self.shared.now());
                    driven.slot.dirty.store(true, SeqCst);
                }
            }
            let mut sent = false;
            for at in 0..self.sessions.len() {
                sent |= self.serve(at);
            }
            self.forget_ended();
            if stop_by.is_some_and(|by| {
                self.sessions.is_empty() && (self.closing.is_empty() || self.shared.now() >= by)
            }) {
                return;
            }
            // Small output comes in crowds: after something was sent, the next is gathered for a moment, and callers wake nobody for it.
            self.wait(sent);
        }
    }

    fn take_new(&mut self) {
        let mut inbox = self.shared.inbox();
        for slot in inbox.drain(..) {
            let links = [const { None }; limits::LINK_SLOTS];
            self.sessions.push(Driven {
                slot,
                links,
                due: None,
                busy: true,
                ended: false,
                trouble: None,
            });
        }
    }

    /// Serves a session as far as it goes without waiting; whether it sent something.
    fn serve(&mut self, at: usize) -> bool {
        let Self { shared, sessions, closing, actions, notes, .. } = self;
        let Some(driven) = sessions.get_mut(at) else { return false };
        let now = shared.now();
        let due = driven.due.is_some_and(|due| due <= now);
        if !driven.slot.dirty.swap(false, SeqCst) && !driven.busy && !due {
            return false;
        }
        driven.busy = true;
        let mut sent_any = false;
        for _ in 0..ROUNDS {
            let now = shared.now();
            driven.turn(now, actions, notes);
            let mut more = !actions.is_empty() || !notes.is_empty();
            for action in actions.drain(..) {
                driven.act(now, action, closing);
            }
            let sent = driven.send(now);
            sent_any |= sent;
            more |= sent;
            for note in notes.drain(..) {
                let trouble = driven.trouble.take_if(|_| matches!(note, Event::Attempt { .. }));
                report(shared, &driven.slot, note, trouble.as_deref());
            }
            if !more {
                driven.busy = false;
                break;
            }
        }
        sent_any
    }

    fn forget_ended(&mut self) {
        let Self { shared, sessions, closing, .. } = self;
        sessions.retain_mut(|driven| {
            if !driven.ended {
                return true;
            }
            for link in driven.links.iter_mut().filter_map(Option::take) {
                closing.extend(link.close(shared.now(), None));
            }
            shared.sessions.fetch_sub(1, SeqCst);
            false
        });
        let now = shared.now();
        closing.retain(|link| now < link.until);
    }

    /// Waits for sockets, callers and deadlines, and reads what came.
    fn wait(&mut self, linger: bool) {
        let Self { shared, sessions, closing, input, .. } = self;
        let busy = sessions.iter().any(|driven| driven.busy);
        let now = shared.now();
        let cap = if sessions.is_empty() && closing.is_empty() {
            limits::TICK_IDLE
        } else if linger {
            limits::GATHER
        } else {
            limits::TICK
        };
        let mut pause = sessions
            .iter()
            .filter_map(|driven| driven.due)
            .fold(cap, |least, due| least.min(due.since(now)));
        let idle = || {
            let clean = |driven: &Driven| !driven.slot.dirty.load(SeqCst);
            sessions.iter().all(clean) && shared.inbox().is_empty()
        };
        if busy || !shared.fall_asleep(linger, idle) {
            pause = Span(0);
        }

        let mut fds = Vec::with_capacity(
            sessions.len().saturating_mul(2).saturating_add(closing.len()).saturating_add(1),
        );
        fds.push(PollFd::from_borrowed_fd(shared.wake_fd(), PollFlags::IN));
        for link in sessions.iter().flat_map(|driven| driven.links.iter().flatten()) {
            push(&mut fds, link.transport().socket(), link.socket_wants());
        }
        for link in closing.iter() {
            push(&mut fds, link.transport().socket(), link.socket_wants());
        }
        // EINTR cannot come, signals are blocked; any other failure is like a wait that found nothing.
        let _ = poll(&mut fds, Some(&timespec(pause)));
        let ready: Vec<PollFlags> = fds.iter().skip(1).map(PollFd::revents).collect();
        drop(fds);

        let mut ready = ready.into_iter();
        for driven in sessions.iter_mut() {
            driven.serve_sockets(shared, input, &mut ready);
        }
        closing.retain_mut(|link| match ready.next() {
            Some(flags) if !flags.is_empty() => link.advance(input, None),
            _ => true,
        });
    }
}

impl Driven {
    /// What is done under the mutex.
    fn turn(&mut self, now: Tick, actions: &mut Vec<Action>, notes: &mut Vec<Event>) {
        let mut inner = self.slot.lock();
        inner.machine.handle_timeout(now);
        while let Some(action) = inner.machine.poll_action() {
            actions.push(action);
        }
        for link in self.links.iter_mut().flatten() {
            let id = link.id;
            // A link that is to be closed gets what was handed over before, no more.
            if !actions.iter().any(|a| matches!(a, Action::Close { link, .. } if *link == id)) {
                link.fill(|out| inner.machine.poll_transmit(now, id, out));
            }
        }
        let mut changed = false;
        while let Some(event) = inner.machine.poll_event() {
            changed |= inner.apply(event);
            notes.push(event);
        }
        if inner.wanted.is_some_and(|wanted| changed || inner.machine.room() >= wanted) {
            inner.wanted = None;
            changed = true;
        }
        inner.fresh = 0;
        self.ended = inner.end.is_some();
        self.due = inner.machine.poll_timeout();
        drop(inner);
        if changed {
            self.slot.changed.notify_all();
        }
    }

    fn act(&mut self, now: Tick, action: Action, closing: &mut Vec<Closing>) {
        match action {
            Action::Close { link: id, abort } => {
                let Some(link) = self.take(id) else { return };
                if abort {
                    link.reset(None);
                } else {
                    closing.extend(link.close(now, None));
                }
            }
            Action::Connect { link: id, recorder, http2 } => {
                let recorders = id.slot() < limits::LINKS_MAX;
                let out_bytes =
                    if recorders { limits::LINK_OUT_BYTES } else { limits::ASK_OUT_BYTES };
                let made = self.slot.recorder(recorder).and_then(|to| {
                    let mut link = LinkIo::new(id, Transport::connect(&to, http2)?, out_bytes)?;
                    let up = link.establish(None)?;
                    Ok((link, up))
                });
                match made {
                    Ok((link, up)) => {
                        if let Some(place) = self.links.get_mut(id.slot()) {
                            *place = Some(link);
                        }
                        if up {
                            self.tell(now, id, LinkEvent::Up);
                        }
                    }
                    Err(why) => self.tell(now, id, LinkEvent::Down(why)),
                }
            }
        }
    }

    /// Sends what the links hold; whether one of them can take more.
    fn send(&mut self, now: Tick) -> bool {
        let mut sent = false;
        for at in 0..self.links.len() {
            let Some(Some(link)) = self.links.get_mut(at) else { continue };
            match link.send(None) {
                Ok(done) => sent |= done,
                Err(why) => {
                    let id = link.id;
                    self.lose(now, id, why);
                    sent = true;
                }
            }
        }
        sent
    }

    /// Takes one entry of `ready` for each link, in the order in which `Worker::wait` asked.
    fn serve_sockets(
        &mut self,
        shared: &Shared,
        input: &mut [u8],
        ready: &mut impl Iterator<Item = PollFlags>,
    ) {
        for at in 0..self.links.len() {
            let Some(Some(link)) = self.links.get_mut(at) else { continue };
            let Some(flags) = ready.next().filter(|flags| !flags.is_empty()) else { continue };
            self.busy = true;
            let (id, now) = (link.id, shared.now());
            link.unblock();
            if !link.up {
                match link.establish(None) {
                    Ok(true) => self.tell(now, id, LinkEvent::Up),
                    Ok(false) => {}
                    Err(why) => self.lose(now, id, why),
                }
                continue;
            }
            if link.eof {
                // Only an error can have been reported: nothing is read any more.
                if flags.intersects(PollFlags::ERR | PollFlags::HUP) {
                    self.lose(now, id, Error::Link(crate::error::Link::Reset));
                }
                continue;
            }
            for _ in 0..ROUNDS {
                let Some(Some(link)) = self.links.get_mut(at) else { break };
                match link.read(input, None) {
                    Ok(Got::Bytes(n)) => {
                        let bytes = input.get(..n).unwrap_or_default();
                        self.slot.lock().machine.handle_input(now, id, bytes);
                        if n < input.len() {
                            break;
                        }
                    }
                    Ok(Got::Nothing) => break,
                    Ok(Got::Eof) => {
                        link.eof = true;
                        self.tell(now, id, LinkEvent::Eof);
                        break;
                    }
                    Err(why) => {
                        self.lose(now, id, why);
                        break;
                    }
                }
            }
        }
    }

    fn lose(&mut self, now: Tick, id: LinkId, why: Error) {
        let link = self.take(id);
        #[cfg(feature = "tls")]
        {
            self.trouble = link.and_then(|link| link.transport().tls_trouble());
        }
        #[cfg(not(feature = "tls"))]
        drop(link);
        self.tell(now, id, LinkEvent::Down(why));
    }

    fn tell(&self, now: Tick, id: LinkId, event: LinkEvent) {
        self.slot.lock().machine.handle_link(now, id, event);
    }

    fn take(&mut self, id: LinkId) -> Option<LinkIo> {
        self.links.get_mut(id.slot())?.take_if(|link| link.id == id)
    }
}

impl Inner {
    /// Keeps what callers ask for later; whether one may be waiting for it.
    fn apply(&mut self, event: Event) -> bool {
        match event {
            Event::Start { recorded } => {
                self.start = if recorded { Start::Recorded } else { Start::Unrecorded };
            }
            Event::Refused => {
                let message = self.machine.message().to_owned();
                self.start = Start::Refused { message, exit_status: EXIT_STATUS };
                self.end = Some(Outcome::Complete);
            }
            Event::Terminated { .. } => self.terminated = true,
            Event::Finished => self.end = Some(Outcome::Complete),
            Event::Incomplete { bytes } => self.end = Some(Outcome::Incomplete { bytes }),
            Event::Released => {}
            // Room is compared with what the waiting writer wants.
            _ => return false,
        }
        true
    }
}

/// Tells the observer and the log.
fn report(shared: &Shared, slot: &Slot, event: Event, trouble: Option<&str>) {
    let id = &slot.recording;
    let log = |level, text: std::fmt::Arguments<'_>| shared.log.log(level, text);
    match event {
        Event::Attempt { recorder, error } => {
            let Ok(addr) = slot.recorder(recorder) else { return };
            match error {
                None => log(Level::Info, format_args!("{id}: recorded by {addr}")),
                Some(error) => {
                    let text = attempt(&addr, error);
                    let (colon, trouble) = trouble.map_or(("", ""), |text| (": ", text));
                    log(Level::Warn, format_args!("{id}: {text}{colon}{trouble}"));
                }
            }
        }
        Event::Transition { from, to, reason } => {
            let level = Level::of(to);
            log(level, format_args!("{id}: {from} to {to}: {reason}"));
            if let Some(observer) = &slot.observer {
                observer(&Transition { from, to, reason });
            }
        }
        Event::Policy { error } => log(Level::Warn, format_args!("{id}: {}", PolicyText(error))),
        Event::Incomplete { bytes } => {
            log(Level::Error, format_args!("{id}: {bytes} bytes are not known to be stored"));
        }
        Event::Terminated { bytes } => log(
            Level::Error,
            format_args!("{id}: session ended by policy, {bytes} bytes were shown and not stored"),
        ),
        _ => {}
    }
}

fn attempt(addr: &RecorderAddr, error: Error) -> String {
    AttemptText { authority: &addr.to_string(), error }.to_string()
}

/// Each link has its entry, in the order in which `serve_sockets` takes them.
fn push<'a>(fds: &mut Vec<PollFd<'a>>, socket: Option<BorrowedFd<'a>>, wants: Wants) {
    let Some(socket) = socket else { return };
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::IN, wants.read);
    flags.set(PollFlags::OUT, wants.write);
    fds.push(PollFd::from_borrowed_fd(socket, flags));
}

fn timespec(span: Span) -> Timespec {
    // Rounded up: waking before the deadline would only mean waiting again.
    let us = span.0.saturating_add(1);
    Timespec {
        tv_sec: i64::try_from(us / 1_000_000).unwrap_or(i64::MAX),
        // Its type differs between processors.
        tv_nsec: (us % 1_000_000).saturating_mul(1_000).try_into().unwrap_or(0),
    }
}

/// Turns of one session before the others have theirs; also reads of one link.
const ROUNDS: usize = 16;
