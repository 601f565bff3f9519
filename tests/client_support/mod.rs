//! A recorder in the test's own process: the real protocol machine on real sockets, keeping parts in memory, with the failures that a
//! test asks for.
#![allow(dead_code, unreachable_pub, clippy::disallowed_methods, clippy::disallowed_types)]

pub mod disk;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use castkeep::cast::parse_event;
use castkeep::limits;
use castkeep::time::Tick;
use castkeep::upload::server::{
    Event, HowEnded, Kind, Protocol, Request, RequestId, Server, ServerConfig,
};

/// What a recorder is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// As it should be.
    Good,
    /// Without the extension: stock v1 and v2.
    Stock,
    /// Says that it received everything and never commits.
    NeverCommits,
    /// Answers 503 to everything.
    Refuses,
}

/// One part of a recording, as it would stand in a file.
#[derive(Clone, Debug)]
pub struct Part {
    pub recording: Option<[u8; 16]>,
    pub protocol: Protocol,
    /// Offset of the first byte behind the header line; 0: from the beginning.
    pub offset: u64,
    /// The body, header line and all.
    pub body: Vec<u8>,
    pub ended: Option<bool>,
}

pub struct Recorder {
    pub addr: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    manner: Manner,
    /// RUNS, FROZEN (accepts, reads and answers nothing) or DEAD.
    mode: AtomicU8,
    drain: AtomicBool,
    /// Bytes after which every connection is cut.
    cut_after: AtomicUsize,
    parts: Mutex<Vec<Part>>,
    highest: Mutex<BTreeMap<[u8; 16], u64>>,
    started: Instant,
}

const RUNS: u8 = 0;
const FROZEN: u8 = 1;
const DEAD: u8 = 2;

impl Recorder {
    pub fn start(manner: Manner) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), manner)
    }

    /// At an address, for a recorder that comes back.
    pub fn start_at(addr: SocketAddr, manner: Manner) -> Self {
        let listener = {
            let by = Instant::now() + Duration::from_secs(10);
            loop {
                match TcpListener::bind(addr) {
                    Ok(listener) => break listener,
                    Err(e) if Instant::now() < by => {
                        assert_eq!(e.kind(), ErrorKind::AddrInUse);
                        thread::yield_now();
                    }
                    Err(e) => panic!("{addr}: {e}"),
                }
            }
        };
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            manner,
            mode: AtomicU8::new(RUNS),
            drain: AtomicBool::new(false),
            cut_after: AtomicUsize::new(usize::MAX),
            parts: Mutex::default(),
            highest: Mutex::default(),
            started: Instant::now(),
        });
        listener.set_nonblocking(true).unwrap();
        let all = Arc::clone(&shared);
        thread::spawn(move || {
            while all.mode.load(SeqCst) != DEAD {
                match listener.accept() {
                    Ok((stream, _)) => {
                        let shared = Arc::clone(&all);
                        thread::spawn(move || serve(&shared, stream));
                    }
                    Err(_) => thread::sleep(Duration::from_millis(2)),
                }
            }
        });
        Self { addr, shared }
    }

    /// As SIGKILL: the sockets are gone at once.
    pub fn kill(&self) {
        self.shared.mode.store(DEAD, SeqCst);
    }

    /// As SIGSTOP and SIGCONT.
    pub fn freeze(&self, on: bool) {
        self.shared.mode.store(if on { FROZEN } else { RUNS }, SeqCst);
    }

    /// Asks clients to go elsewhere.
    pub fn drain(&self) {
        self.shared.drain.store(true, SeqCst);
    }

    /// Cuts every connection after so many bytes from its client.
    pub fn cut_after(&self, bytes: usize) {
        self.shared.cut_after.store(bytes, SeqCst);
    }

    pub fn parts(&self) -> Vec<Part> {
        self.shared.parts.lock().unwrap().clone()
    }

    /// Bytes of all parts together.
    pub fn stored(&self) -> usize {
        self.shared.parts.lock().unwrap().iter().map(|p| p.body.len()).sum()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.kill();
    }
}

struct Open {
    at: usize,
    received: u64,
    commits: bool,
}

fn serve(shared: &Shared, mut stream: TcpStream) {
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let now = || Tick(shared.started.elapsed().as_micros() as u64);
    let cfg = ServerConfig {
        h2_only: false,
        h1_only: false,
        extension: shared.manner != Manner::Stock,
        ack_period_stock: limits::ACK_PERIOD_STOCK,
        ack_period_commit: limits::ACK_PERIOD_COMMIT,
        head_time: limits::HEAD_TIME,
        idle_time: limits::IDLE_TIME,
        ping_time: limits::PING_TIME,
        banner: "test".to_owned(),
    };
    let mut server = Server::new(cfg, now());
    if shared.manner == Manner::Refuses {
        server.set_available(Err("no space"));
    }
    let mut open: BTreeMap<RequestId, Open> = BTreeMap::new();
    let (mut input, mut got, mut eof, mut drained) = (Vec::new(), 0, false, false);
    let mut buf = vec![0; 64 * 1024];
    loop {
        match shared.mode.load(SeqCst) {
            DEAD => return reset(&stream),
            FROZEN => {
                thread::sleep(Duration::from_millis(2));
                continue;
            }
            _ => {}
        }
        if !eof {
            match stream.read(&mut buf) {
                Ok(0) => {
                    eof = true;
                    server.handle_eof(now());
                }
                Ok(n) => {
                    let left = shared.cut_after.load(SeqCst).saturating_sub(got);
                    got += n;
                    input.extend_from_slice(&buf[..n.min(left)]);
                }
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => return,
            }
        }
        // The recorder may have died while it waited.
        if shared.mode.load(SeqCst) != RUNS {
            continue;
        }
        loop {
            let taken = server.handle_input(now(), &input);
            input.drain(..taken);
            let mut any = taken > 0;
            while let Some(event) = server.poll_event() {
                any = true;
                handle(shared, &mut server, &mut open, event, now());
            }
            if !any || input.is_empty() {
                break;
            }
        }
        if shared.drain.load(SeqCst) && !drained {
            drained = true;
            for id in open.keys() {
                server.drain(now(), *id);
            }
        }
        server.handle_timeout(now());
        loop {
            let n = server.poll_transmit(now(), &mut buf);
            if n == 0 {
                break;
            }
            if stream.write_all(&buf[..n]).is_err() {
                return;
            }
        }
        if got > shared.cut_after.load(SeqCst) {
            return reset(&stream);
        }
        if server.is_closed() {
            return;
        }
        if eof {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

fn handle(
    shared: &Shared,
    server: &mut Server,
    open: &mut BTreeMap<RequestId, Open>,
    event: Event,
    now: Tick,
) {
    match event {
        Event::Request(Request { id, kind: Kind::Record { protocol, resume } }) => {
            let offset = resume.map_or(0, |r| r.offset);
            if let Some(resume) = resume {
                let mut highest = shared.highest.lock().unwrap();
                let seen = highest.entry(resume.recording).or_default();
                if resume.attempt <= *seen {
                    return server.refuse(now, id, 409, "attempt");
                }
                *seen = resume.attempt;
            }
            let mut parts = shared.parts.lock().unwrap();
            parts.push(Part {
                recording: resume.map(|r| r.recording),
                protocol,
                offset,
                body: Vec::new(),
                ended: None,
            });
            let commits = resume.is_some() && shared.manner == Manner::Good;
            open.insert(id, Open { at: parts.len() - 1, received: 0, commits });
            server.accept(now, id, resume.map(|_| offset));
        }
        Event::Request(Request { id, .. }) => server.refuse(now, id, 404, "no"),
        Event::Body { id, .. } => {
            let Some(open) = open.get_mut(&id) else { return };
            let body = server.body(id).to_vec();
            server.consume(now, id, body.len());
            let mut parts = shared.parts.lock().unwrap();
            let part = &mut parts[open.at];
            part.body.extend_from_slice(&body);
            open.received += body.len() as u64;
            let commit = open.commits.then(|| part.end());
            drop(parts);
            server.progress(now, id, open.received, commit);
        }
        Event::End { id, how } => {
            let Some(open) = open.remove(&id) else { return };
            let end = {
                let mut parts = shared.parts.lock().unwrap();
                let part = &mut parts[open.at];
                part.ended = Some(how != HowEnded::Truncated);
                part.end()
            };
            if how != HowEnded::Truncated && shared.manner != Manner::NeverCommits {
                server.seal(now, id, end);
            }
        }
    }
}

impl Part {
    /// The bytes with an offset: all, or those behind the header line of a continuation.
    pub fn bytes(&self) -> &[u8] {
        if self.offset == 0 {
            return &self.body;
        }
        let line = self.body.iter().position(|b| *b == b'\n').map_or(self.body.len(), |at| at + 1);
        &self.body[line..]
    }

    pub fn end(&self) -> u64 {
        self.offset + self.bytes().len() as u64
    }
}

fn reset(stream: &TcpStream) {
    let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
}

/// The one stream out of all parts; parts must agree where they overlap and leave nothing out.
pub fn join(parts: &[Part]) -> Vec<u8> {
    let mut parts: Vec<&Part> = parts.iter().collect();
    parts.sort_by_key(|p| p.offset);
    let mut stream: Vec<u8> = Vec::new();
    for part in parts {
        let at = part.offset as usize;
        assert!(at <= stream.len(), "bytes {} to {at} are missing", stream.len());
        let bytes = part.bytes();
        let overlap = bytes.len().min(stream.len() - at);
        assert!(stream[at..at + overlap] == bytes[..overlap], "parts differ behind {at}");
        stream.extend_from_slice(&bytes[overlap..]);
    }
    stream
}

/// A recording in words.
#[derive(Debug, Default)]
pub struct Told {
    pub header: String,
    pub output: String,
    pub stderr: String,
    pub input: String,
    pub sizes: Vec<String>,
    pub markers: Vec<String>,
    pub exit: Option<String>,
}

pub fn tell(stream: &[u8]) -> Told {
    let mut told = Told::default();
    let mut to_stderr = false;
    for (at, line) in stream.split_inclusive(|b| *b == b'\n').enumerate() {
        assert!(line.ends_with(b"\n"), "a torn line: {:?}", String::from_utf8_lossy(line));
        if at == 0 {
            told.header = String::from_utf8_lossy(line).into_owned();
            continue;
        }
        let event = parse_event(&line[..line.len() - 1]).expect("an event");
        let data = event.data.as_ref();
        match event.code {
            b'o' if to_stderr => told.stderr += data,
            b'o' => told.output += data,
            b'i' => told.input += data,
            b'r' => told.sizes.push(data.to_owned()),
            b'x' => told.exit = Some(data.to_owned()),
            b'm' => match data {
                "castkeep:stderr" => to_stderr = true,
                "castkeep:stdout" => to_stderr = false,
                other => told.markers.push(other.to_owned()),
            },
            _ => {}
        }
    }
    told
}

/// Waits for something that another thread does; a test that waits longer than this hangs.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let by = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < by, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}
