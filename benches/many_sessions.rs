//! 2,000 sessions at one recorder: stock v2 over h2c, 1 MiB each, then idle. No ack may be missed, and a session may cost at
//! most 64 KiB of resident memory. The client side speaks HTTP/2 by hand, in one thread, so that what is measured is the
//! recorder.
#![allow(missing_docs, clippy::disallowed_methods, clippy::disallowed_types)]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use common::{Args, Dir, Goal, Recorder, Report};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Resource, getrlimit, setrlimit};

/// A stock client gives a recorder up after 30 s of silence; the protocol asks for an object every 5 s.
const LONGEST_SILENCE: Duration = Duration::from_secs(6);
const FRAME: usize = 4096;

fn main() {
    let args = Args::parse();
    let sessions = args.size(2_000, 20);
    let bytes = args.size(1 << 20, 64 << 10);
    let idle = Duration::from_secs(args.size(20, 6));
    raise_descriptors(sessions as u64 * 4 + 200);

    let dir = Dir::new("sessions");
    let recorder = Recorder::start(&dir.join("dst"), &[]);
    let text = cast(bytes);

    // One session first, so that what the process needs once is not counted as a session's.
    let mut warm = Session::open(&recorder, 1);
    run_until(std::slice::from_mut(&mut warm), &text, Duration::from_secs(60), |s| {
        s.sent == text.len()
    });
    let (before, before_anon) = recorder.resident();

    let started = Instant::now();
    let mut all = Vec::with_capacity(sessions);
    for n in 0..sessions {
        all.push(Session::open(&recorder, n));
        // Opens in step with their answers: a burst of 2,000 is another measurement.
        if n % 50 == 49 {
            let from = n - 49;
            run_until(&mut all[from..=n], &text, Duration::from_secs(60), |s| s.accepted);
        }
    }
    run_until(&mut all, &text, Duration::from_secs(900), |s| s.sent == text.len());
    run_until(&mut all, &text, Duration::from_secs(120), |s| s.acked as usize == text.len());
    let spent = started.elapsed();
    println!(
        "{sessions} sessions of {bytes} bytes accepted, sent and acknowledged in {spent:.1?} ({:.0} MB/s)",
        (sessions * bytes) as f64 / 1e6 / spent.as_secs_f64()
    );
    let (busy, busy_anon) = recorder.resident();

    for session in &mut all {
        session.heard = Instant::now();
        session.longest = Duration::ZERO;
        session.objects = 0;
    }
    let end = Instant::now() + idle;
    run_until(&mut all, &text, idle + Duration::from_secs(60), |_| Instant::now() >= end);
    let now = Instant::now();
    let longest = all.iter().map(|s| s.longest.max(now - s.heard)).max().unwrap_or_default();
    let missed =
        all.iter().filter(|s| s.longest.max(now - s.heard) > LONGEST_SILENCE || s.closed).count();
    let fewest = all.iter().map(|s| s.objects).min().unwrap_or(0);
    let (after, after_anon) = recorder.resident();

    let per = |a: u64, b: u64| a.saturating_sub(b) as f64 / 1024.0 / sessions as f64;
    println!(
        "resident: {before} bytes with one session, {busy} busy, {after} idle; anonymous {:.1} KiB a session busy, {:.1} idle",
        per(busy_anon, before_anon),
        per(after_anon, before_anon)
    );
    println!(
        "idle for {idle:?}: longest silence {longest:.2?}, fewest objects at a session {fewest}"
    );
    let mut report = Report::new(&args);
    let how = format!(
        "{sessions} stock v2 sessions over h2c, {bytes} bytes each, then idle for {} s",
        idle.as_secs()
    );
    report.result("resident a session, idle", per(after, before), " KiB", Goal::AtMost(64.0), &how);
    report.result(
        "resident a session, right after sending",
        per(busy, before),
        " KiB",
        Goal::AtMost(64.0),
        &how,
    );
    report.result(
        "sessions that missed an ack",
        missed as f64,
        "",
        Goal::AtMost(0.0),
        &format!(
            "silence above {} s counts; longest seen {:.2} s",
            LONGEST_SILENCE.as_secs(),
            longest.as_secs_f64()
        ),
    );
    report.finish();
}

/// One upload: the frames that are still to go out, and what came back.
struct Session {
    link: TcpStream,
    /// Frames that did not fit into the socket.
    out: Vec<u8>,
    /// Bytes of a frame that is not yet whole.
    input: Vec<u8>,
    connection_window: i64,
    stream_window: i64,
    initial_window: i64,
    accepted: bool,
    closed: bool,
    sent: usize,
    acked: u64,
    objects: u64,
    heard: Instant,
    longest: Duration,
}

impl Session {
    fn open(recorder: &Recorder, n: usize) -> Self {
        let link = TcpStream::connect(recorder.addr).unwrap_or_else(|e| panic!("session {n}: {e}"));
        link.set_nonblocking(true).expect("a non-blocking socket");
        link.set_nodelay(true).expect("TCP_NODELAY");
        let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        frame(&mut out, 4, 0, 0, &[]);
        // HPACK without a table: POST, http, then two literals with indexed names.
        let mut head = vec![0x83, 0x86];
        for (name, value) in [(0x04, "/v2/record".to_owned()), (0x01, recorder.addr.to_string())] {
            head.push(name);
            head.push(value.len() as u8);
            head.extend_from_slice(value.as_bytes());
        }
        frame(&mut out, 1, 4, 1, &head);
        Self {
            link,
            out,
            input: Vec::new(),
            connection_window: 65_535,
            stream_window: 65_535,
            initial_window: 65_535,
            accepted: false,
            closed: false,
            sent: 0,
            acked: 0,
            objects: 0,
            heard: Instant::now(),
            longest: Duration::ZERO,
        }
    }

    fn wants_to_write(&self, text: &[u8]) -> bool {
        let windows = self.connection_window.min(self.stream_window);
        !self.out.is_empty() || (self.accepted && self.sent < text.len() && windows > 0)
    }

    fn write(&mut self, text: &[u8]) {
        while self.wants_to_write(text) {
            if self.out.is_empty() {
                let windows = self.connection_window.min(self.stream_window) as usize;
                let n = windows.min(FRAME).min(text.len() - self.sent);
                frame(&mut self.out, 0, 0, 1, &text[self.sent..self.sent + n]);
                self.sent += n;
                self.connection_window -= n as i64;
                self.stream_window -= n as i64;
            }
            match self.link.write(&self.out) {
                Ok(n) => drop(self.out.drain(..n)),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.closed = true;
                    return;
                }
            }
        }
    }

    fn read(&mut self) {
        let mut buf = [0; 4096];
        match self.link.read(&mut buf) {
            Ok(0) => self.closed = true,
            Ok(n) => self.input.extend_from_slice(&buf[..n]),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.closed = true,
        }
        while let Some((kind, flags, stream, body)) = next_frame(&mut self.input) {
            let number = |at: usize| {
                body.get(at..at + 4)
                    .map_or(0, |b| i64::from(u32::from_be_bytes([b[0], b[1], b[2], b[3]])))
            };
            match kind {
                0 => self.handle_objects(&body),
                1 => self.accepted = true,
                4 if flags & 1 == 0 => {
                    for at in (0..body.len()).step_by(6) {
                        if body.get(at..at + 2) == Some(&[0, 4]) {
                            self.stream_window += number(at + 2) - self.initial_window;
                            self.initial_window = number(at + 2);
                        }
                    }
                    frame(&mut self.out, 4, 1, 0, &[]);
                }
                6 if flags & 1 == 0 => frame(&mut self.out, 6, 1, 0, &body),
                8 if stream == 0 => self.connection_window += number(0),
                8 => self.stream_window += number(0),
                3 | 7 => self.closed = true,
                _ => {}
            }
        }
    }

    /// Ack objects come whole: a recorder flushes each.
    fn handle_objects(&mut self, body: &[u8]) {
        for line in body.split(|&b| b == b'\n').filter(|line| !line.is_empty()) {
            let now = Instant::now();
            self.longest = self.longest.max(now - self.heard);
            self.heard = now;
            self.objects += 1;
            let text = String::from_utf8_lossy(line);
            assert!(!text.contains("error"), "the recorder reports {text}");
            if let Some((_, rest)) = text.split_once("\"ack\":") {
                let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
                self.acked = digits.parse().unwrap_or(self.acked);
            }
        }
    }
}

fn run_until(all: &mut [Session], text: &[u8], limit: Duration, done: impl Fn(&Session) -> bool) {
    let guard = Instant::now() + limit;
    while !all.iter().all(&done) {
        let lost = all.iter().filter(|s| s.closed).count();
        assert!(lost == 0, "the recorder closed {lost} of {} sessions", all.len());
        assert!(
            Instant::now() < guard,
            "{} sessions are not there after {limit:?}",
            all.iter().filter(|s| !done(s)).count()
        );
        let ready: Vec<_> = {
            let mut fds: Vec<_> = all
                .iter()
                .map(|s| {
                    let write =
                        if s.wants_to_write(text) { PollFlags::OUT } else { PollFlags::empty() };
                    PollFd::from_borrowed_fd(s.link.as_fd(), PollFlags::IN | write)
                })
                .collect();
            let tick = rustix::event::Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
            poll(&mut fds, Some(&tick)).expect("poll");
            fds.iter().map(PollFd::revents).collect()
        };
        for (session, ready) in all.iter_mut().zip(ready) {
            if ready.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                session.read();
            }
            if !ready.is_empty() {
                session.write(text);
            }
        }
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, body: &[u8]) {
    out.extend_from_slice(&(body.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(body);
}

fn next_frame(input: &mut Vec<u8>) -> Option<(u8, u8, u32, Vec<u8>)> {
    let head: [u8; 9] = input.get(..9)?.try_into().ok()?;
    let len = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
    if input.len() < 9 + len {
        return None;
    }
    let body = input[9..9 + len].to_vec();
    input.drain(..9 + len);
    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
    Some((head[3], head[4], stream, body))
}

/// A cast of exactly `bytes` bytes: a header line and output events of one log line each.
fn cast(bytes: usize) -> Vec<u8> {
    let mut text = br#"{"version":2,"width":80,"height":24,"timestamp":1795410000,"srcNode":"","srcNodeID":"","env":null,"sshUser":"u","localUser":"u","connectionID":"c"}"#.to_vec();
    text.push(b'\n');
    let log = common::log_text(bytes);
    for (n, line) in log.split(|&b| b == b'\n').enumerate() {
        writeln!(text, "[{n}.000001,\"o\",\"{}\\r\\n\"]", String::from_utf8_lossy(line))
            .expect("memory");
    }
    text.truncate(bytes);
    text
}

fn raise_descriptors(wanted: u64) {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|now| now < wanted) {
        limit.current = limit.maximum.map_or(Some(wanted), |most| Some(most.min(wanted)));
        let _ = setrlimit(Resource::Nofile, limit);
    }
    if getrlimit(Resource::Nofile).current.is_some_and(|now| now < wanted) {
        println!(
            "only {:?} descriptors may be open, {wanted} are wanted: ulimit -n",
            getrlimit(Resource::Nofile).current
        );
    }
}
