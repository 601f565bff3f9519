//! What a host of the driver without threads brings along: dialling, and whole connections.
#![allow(missing_docs, clippy::disallowed_methods, clippy::disallowed_types)]

mod client_support;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd as _, IntoRawFd as _};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use castkeep::client::{
    Decision, Dial, ExitStatus, Host, HostLink, Io, LinkWants, Metadata, Notice, Outcome, Polled,
    RecorderAddr, SessionId, Settings, Stream,
};
use client_support::{Manner, Recorder, join, tell};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

const LONG: Duration = Duration::from_secs(30);

fn closed(names: &[&str]) -> Decision {
    let recorders = names.iter().map(|name| RecorderAddr::named(name).unwrap()).collect();
    Decision::closed(recorders, "rejected\n", "terminated\n")
}

fn turn<H: Host>(driver: &mut Polled<H>) {
    let wait = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
    let ready = poll(&mut [PollFd::from_borrowed_fd(driver.fd(), PollFlags::IN)], Some(&wait));
    if ready.unwrap() > 0 {
        driver.process().unwrap();
    }
}

/// The host's loop, until a notice is what is wanted.
fn until<H: Host>(driver: &mut Polled<H>, id: SessionId, wanted: impl Fn(Notice) -> bool) {
    let guard = Instant::now() + LONG;
    loop {
        while let Some((of, notice)) = driver.next_event() {
            if of == id && wanted(notice) {
                return;
            }
        }
        assert!(Instant::now() < guard, "waited in vain");
        turn(driver);
    }
}

fn give<H: Host>(driver: &mut Polled<H>, id: SessionId, mut data: &[u8]) {
    while !data.is_empty() {
        let n = driver.room(id).min(data.len());
        if n == 0 {
            until(driver, id, |notice| notice == Notice::Room);
            continue;
        }
        driver.output(id, Stream::Stdout, &data[..n]).unwrap();
        data = &data[n..];
    }
}

fn finish<H: Host>(driver: &mut Polled<H>, id: SessionId) {
    driver.exit(id, ExitStatus::Code(0)).unwrap();
    driver.finish(id, LONG).unwrap();
    until(driver, id, |notice| notice == Notice::Finished);
}

fn lines(count: usize) -> String {
    (0..count).fold(String::new(), |all, n| all + &format!("line {n:08}\r\n"))
}

// ---- dialling ----

/// Connects by name, at once or when the test says so.
#[derive(Clone)]
struct Dialler(Arc<Mutex<Dialling>>);

struct Dialling {
    book: Vec<(&'static str, Option<SocketAddr>)>,
    pending: bool,
    asked: Vec<(u64, String)>,
}

impl Dialler {
    fn new(book: Vec<(&'static str, Option<SocketAddr>)>, pending: bool) -> Self {
        Self(Arc::new(Mutex::new(Dialling { book, pending, asked: Vec::new() })))
    }

    fn state(&self) -> MutexGuard<'_, Dialling> {
        self.0.lock().unwrap()
    }

    fn asked(&self) -> Vec<(u64, String)> {
        self.state().asked.clone()
    }

    fn connect(&self, to: &str) -> Option<i32> {
        let (_, addr) = self.state().book.iter().find(|(name, _)| *name == to).copied()?;
        let stream = TcpStream::connect(addr?).ok()?;
        stream.set_nonblocking(true).unwrap();
        Some(stream.into_raw_fd())
    }
}

impl Host for Dialler {
    fn dial(&self, ticket: u64, to: &str) -> Dial {
        let mut state = self.state();
        state.asked.push((ticket, to.to_owned()));
        let pending = state.pending;
        drop(state);
        if pending {
            return Dial::Pending;
        }
        self.connect(to).map_or(Dial::Failed, Dial::Connected)
    }
}

#[test]
fn a_host_that_cannot_dial_the_first_recorder_gets_asked_for_the_next() {
    let recorder = Recorder::start(Manner::Good);
    let dialler =
        Dialler::new(vec![("one.test:80", None), ("two.test:80", Some(recorder.addr))], false);
    let mut driver = Polled::with_host(Settings::default(), dialler.clone()).unwrap();
    let id = driver.open(Metadata::default(), &closed(&["one.test:80", "two.test:80"])).unwrap();
    until(&mut driver, id, |notice| notice == Notice::Start { recorded: true });
    let all = lines(5000);
    give(&mut driver, id, all.as_bytes());
    finish(&mut driver, id);
    assert!(tell(&join(&recorder.parts())).output == all);
    let names: Vec<_> = dialler.asked().into_iter().map(|(_, name)| name).collect();
    assert_eq!(names.first().map(String::as_str), Some("one.test:80"));
    assert!(names.iter().any(|name| name == "two.test:80"));
}

#[test]
fn a_dial_may_be_answered_later() {
    let recorder = Recorder::start(Manner::Good);
    let dialler = Dialler::new(vec![("late.test:80", Some(recorder.addr))], true);
    let mut driver = Polled::with_host(Settings::default(), dialler.clone()).unwrap();
    let id = driver.open(Metadata::default(), &closed(&["late.test:80"])).unwrap();
    let mut answered = 0;
    let guard = Instant::now() + LONG;
    loop {
        // Whatever it asks for is answered a turn later: the probe, and the connection that records.
        while let Some((ticket, name)) = dialler.asked().get(answered).cloned() {
            assert_eq!(driver.room(id), 0);
            turn(&mut driver);
            let fd = dialler.connect(&name).unwrap();
            driver.dialed(ticket, fd).unwrap();
            answered += 1;
        }
        if let Some((_, Notice::Start { recorded: true })) = driver.next_event() {
            break;
        }
        assert!(Instant::now() < guard, "waited in vain");
        turn(&mut driver);
    }
    assert!(answered > 0);
    driver.output(id, Stream::Stdout, b"late").unwrap();
    assert_eq!(driver.close(id, LONG), Ok(Outcome::Complete));
    assert_eq!(tell(&join(&recorder.parts())).output, "late");
}

#[test]
fn a_dial_that_is_answered_with_nothing_or_too_late_is_no_connection() {
    let dialler = Dialler::new(Vec::new(), true);
    let mut driver = Polled::with_host(Settings::default(), dialler.clone()).unwrap();
    let id = driver.open(Metadata::default(), &closed(&["nobody.test:80"])).unwrap();
    let guard = Instant::now() + LONG;
    let mut answered = 0;
    while driver.message(id).is_empty() {
        while let Some((ticket, _)) = dialler.asked().get(answered) {
            driver.dialed(*ticket, -1).unwrap();
            answered += 1;
        }
        assert!(Instant::now() < guard, "waited in vain");
        turn(&mut driver);
    }
    assert_eq!(driver.message(id), "rejected\n");
    driver.free(id);
    // A ticket that nobody waits for any more: its descriptor is closed.
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let (ticket, _) = dialler.asked()[0].clone();
    assert!(driver.dialed(ticket, theirs.into_raw_fd()).is_err());
    ours.set_read_timeout(Some(LONG)).unwrap();
    assert_eq!((&ours).read(&mut [0; 8]).unwrap(), 0);
}

// ---- connections ----

/// Connections that say "not now" before each step, move few bytes at a time, and can be broken.
#[derive(Clone)]
struct Wires(Arc<Mutex<Wiring>>);

#[derive(Default)]
struct Wiring {
    links: Vec<Wire>,
    /// Bytes written until the first recorder's connections break.
    breaks_after: usize,
    first: Option<SocketAddr>,
}

struct Wire {
    stream: Option<TcpStream>,
    shy: bool,
    is_first: bool,
    ended: Option<bool>,
}

/// More than a TLS record's head, less than what the driver has.
const PIECE: usize = 300;

impl Wires {
    fn new(first: Option<SocketAddr>, breaks_after: usize) -> Self {
        Self(Arc::new(Mutex::new(Wiring { first, breaks_after, ..Wiring::default() })))
    }

    fn state(&self) -> MutexGuard<'_, Wiring> {
        self.0.lock().unwrap()
    }

    fn with(&self, link: usize, step: impl FnOnce(&mut TcpStream) -> std::io::Result<usize>) -> Io {
        let mut state = self.state();
        let wire = &mut state.links[link - 1];
        assert!(wire.ended.is_none(), "used after close");
        wire.shy = !wire.shy;
        if wire.shy {
            return Io::Again;
        }
        match step(wire.stream.as_mut().unwrap()) {
            Ok(0) => Io::End,
            Ok(n) => Io::Done(n),
            Err(e) if e.kind() == ErrorKind::WouldBlock => Io::Again,
            Err(_) => Io::Failed,
        }
    }
}

impl Host for Wires {
    fn links(&self) -> Option<&dyn HostLink> {
        Some(self)
    }
}

impl HostLink for Wires {
    fn start(&self, to: &str, link: &mut usize) -> Io {
        let mut state = self.state();
        if *link == 0 {
            let addr: SocketAddr = to.parse().unwrap();
            let Ok(stream) = TcpStream::connect(addr) else { return Io::Failed };
            stream.set_nonblocking(true).unwrap();
            let is_first = state.first == Some(addr);
            state.links.push(Wire { stream: Some(stream), shy: false, is_first, ended: None });
            *link = state.links.len();
            return Io::Again;
        }
        Io::Done(1)
    }

    fn read(&self, link: usize, buf: &mut [u8]) -> Io {
        let most = buf.len().min(PIECE);
        self.with(link, |stream| stream.read(&mut buf[..most]))
    }

    fn write(&self, link: usize, bytes: &[u8]) -> Io {
        {
            let mut state = self.state();
            if state.links[link - 1].is_first {
                let n = bytes.len().min(PIECE);
                state.breaks_after = state.breaks_after.saturating_sub(n);
                if state.breaks_after == 0 {
                    return Io::Failed;
                }
            }
        }
        self.with(link, |stream| stream.write(&bytes[..bytes.len().min(PIECE)]))
    }

    fn wants(&self, link: usize, more: bool) -> LinkWants {
        let state = self.state();
        // Some TLS libraries have no descriptor to name while they shake hands.
        let fd = state.links[link - 1].stream.as_ref().unwrap().as_raw_fd();
        LinkWants { fd, read: true, write: more }
    }

    fn close(&self, link: usize, abort: bool) {
        let wire = &mut self.state().links[link - 1];
        assert_eq!(wire.ended.replace(abort), None, "closed twice");
        wire.stream = None;
    }
}

fn addr(recorder: &Recorder) -> String {
    recorder.addr.to_string()
}

#[test]
fn a_session_goes_over_connections_of_the_hosts() {
    let recorder = Recorder::start(Manner::Good);
    let wires = Wires::new(None, 0);
    let mut driver = Polled::with_host(Settings::default(), wires.clone()).unwrap();
    let id = driver.open(Metadata::default(), &closed(&[&addr(&recorder)])).unwrap();
    until(&mut driver, id, |notice| notice == Notice::Start { recorded: true });
    let all = lines(10_000);
    give(&mut driver, id, all.as_bytes());
    finish(&mut driver, id);
    drop(driver);
    assert!(tell(&join(&recorder.parts())).output == all);
    // Each is closed, once.
    assert!(wires.state().links.iter().all(|wire| wire.ended.is_some()));
}

#[test]
fn a_connection_of_the_hosts_that_breaks_costs_no_byte() {
    let (a, b) = (Recorder::start(Manner::Good), Recorder::start(Manner::Good));
    let wires = Wires::new(Some(a.addr), 100_000);
    let mut driver = Polled::with_host(Settings::default(), wires).unwrap();
    let id = driver.open(Metadata::default(), &closed(&[&addr(&a), &addr(&b)])).unwrap();
    until(&mut driver, id, |notice| notice == Notice::Start { recorded: true });
    let all = lines(20_000);
    give(&mut driver, id, all.as_bytes());
    finish(&mut driver, id);
    assert_eq!(driver.stats(id).losses, 1);
    let parts: Vec<_> = [&a, &b].iter().flat_map(|r| r.parts()).collect();
    assert_eq!(parts.len(), 2);
    assert!(tell(&join(&parts)).output == all);
}

#[test]
fn what_is_given_up_in_its_middle_ends_disorderly() {
    let recorder = Recorder::start(Manner::Good);
    let wires = Wires::new(None, 0);
    let mut driver = Polled::with_host(Settings::default(), wires.clone()).unwrap();
    let id = driver.open(Metadata::default(), &closed(&[&addr(&recorder)])).unwrap();
    until(&mut driver, id, |notice| notice == Notice::Start { recorded: true });
    driver.output(id, Stream::Stdout, b"and then").unwrap();
    driver.free(id);
    drop(driver);
    assert_eq!(wires.state().links.last().unwrap().ended, Some(true));
    assert!(wires.state().links.iter().all(|wire| wire.ended.is_some()));
}
