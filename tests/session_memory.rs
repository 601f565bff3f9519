//! What a session takes from the heap: nothing on the write path, and its ring and 64 KiB in all.
#![allow(unsafe_code)]
#![cfg(feature = "http2")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use castkeep::cast::{Header, Stream};
use castkeep::limits::RING_DEFAULT_BYTES;
use castkeep::session::{
    Action, Config, Deadlines, Event, LinkEvent, LinkId, Machine, OnFailure, Protocols, Recorder,
    Release,
};
use castkeep::time::{Span, Tick};
use castkeep::upload::server::{self, Kind, Server, ServerConfig};

/// Counts what this thread allocates.
struct Counting;

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<i64> = const { Cell::new(0) };
    static PEAK: Cell<i64> = const { Cell::new(0) };
}

fn count(calls: u64, bytes: i64) {
    // While a thread ends its counters are gone; nobody looks at them then.
    let _ = CALLS.try_with(|c| c.set(c.get() + calls));
    let _ = BYTES.try_with(|b| {
        b.set(b.get() + bytes);
        let _ = PEAK.try_with(|p| p.set(p.get().max(b.get())));
    });
}

// SAFETY: everything is handed to the system's allocator unchanged; counting touches thread-local cells only.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as i64);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(0, -(layout.size() as i64));
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(1, size as i64 - layout.size() as i64);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Calls of the allocator while `f` runs.
fn calls<T>(total: &mut u64, f: impl FnOnce() -> T) -> T {
    let before = CALLS.get();
    let result = f();
    *total += CALLS.get() - before;
    result
}

struct Session {
    machine: Machine,
    server: Server,
    link: LinkId,
    request: Option<server::RequestId>,
    received: u64,
    now: Tick,
    in_output: u64,
    in_transmit: u64,
}

/// One recorder, no network: what one side sends the other reads.
impl Session {
    fn open(protocols: Protocols, extension: bool) -> Self {
        let now = Tick(0);
        let recorder = Recorder { group: 0, authority: "127.0.0.1:80".into(), tls: false };
        let cfg = Config {
            header: Header { width: 80, height: 24, ..Header::default() },
            recording: [1; 16],
            resume_secret: [2; 16],
            ring_bytes: RING_DEFAULT_BYTES,
            recorders: vec![recorder],
            on_failure: OnFailure {
                reject_message: Some("no".into()),
                terminate_message: Some("over".into()),
            },
            release: Release::Ring,
            protocols,
            deadlines: Deadlines::default(),
            record_input: false,
            stock_with_release_commit: false,
            volume_bytes: None,
            refusal: None,
            #[cfg(feature = "ask")]
            ask: None,
            jitter_seed: 1,
        };
        let mut machine = Machine::new(cfg, now).unwrap();
        let Some(Action::Connect { link, .. }) = machine.poll_action() else { panic!() };
        machine.handle_link(now, link, LinkEvent::Up);
        let server = Server::new(ServerConfig { extension, ..ServerConfig::default() }, now);
        let (request, received) = (None, 0);
        let (in_output, in_transmit) = (0, 0);
        let mut s = Self { machine, server, link, request, received, now, in_output, in_transmit };
        for _ in 0..20 {
            s.exchange();
        }
        (s.in_output, s.in_transmit) = (0, 0);
        s
    }

    fn exchange(&mut self) {
        self.now = self.now.after(Span::from_ms(1));
        let mut buffer = [0u8; 16 * 1024];
        loop {
            let n = calls(&mut self.in_transmit, || {
                self.machine.poll_transmit(self.now, self.link, &mut buffer)
            });
            let mut sent = &buffer[..n];
            while !sent.is_empty() {
                let taken = self.server.handle_input(self.now, sent);
                sent = &sent[taken..];
                self.record();
            }
            if n == 0 {
                break;
            }
        }
        self.server.handle_timeout(self.now);
        loop {
            let n = self.server.poll_transmit(self.now, &mut buffer);
            if n == 0 {
                break;
            }
            self.machine.handle_input(self.now, self.link, &buffer[..n]);
        }
        while self.machine.poll_event().is_some_and(|e| e != Event::Refused) {}
        // An HTTP/1.1 recorder: the next protocol, on a new link.
        while let Some(action) = self.machine.poll_action() {
            if let Action::Connect { link, .. } = action {
                self.link = link;
                self.server = Server::new(
                    ServerConfig { extension: false, ..ServerConfig::default() },
                    self.now,
                );
                self.machine.handle_link(self.now, link, LinkEvent::Up);
            }
        }
    }

    /// The recorder stores at once.
    fn record(&mut self) {
        while let Some(event) = self.server.poll_event() {
            match event {
                server::Event::Request(r) => {
                    let Kind::Record { resume, .. } = r.kind else { panic!() };
                    self.server.accept(self.now, r.id, resume.map(|r| r.offset));
                    self.request = Some(r.id);
                }
                server::Event::Body { id, len } => {
                    self.server.consume(self.now, id, len);
                    self.received += len as u64;
                    self.server.progress(self.now, id, self.received, Some(self.received));
                }
                server::Event::End { .. } => {}
            }
        }
    }

    fn write(&mut self, n: usize, data: &[u8]) {
        for i in 0..n {
            let mut rest = data;
            let stream = if i % 17 == 0 { Stream::Stderr } else { Stream::Stdout };
            while !rest.is_empty() {
                let (machine, now) = (&mut self.machine, self.now);
                match calls(&mut self.in_output, || machine.output(now, stream, rest)) {
                    Ok(taken) => rest = &rest[taken..],
                    Err(_) => self.exchange(),
                }
            }
            if i % 5 == 0 {
                self.exchange();
            }
        }
    }
}

const TEXT: &[u8] = b"drwxr-xr-x 2 root root 4096 Nov 23 05:32 target \xc3\xa4\xff\xe2\x82\r\n";

#[test]
fn output_allocates_nothing_on_any_path() {
    let all = [(true, true, true), (false, true, true), (false, false, false), (true, true, false)];
    for (http2, upgrade, extension) in all {
        let mut s = Session::open(Protocols { http2, upgrade }, extension);
        let protocol = s.machine.stats().protocol;
        assert!(protocol.is_some(), "{http2} {upgrade} {extension} {:?}", s.machine.state());
        s.write(5_000, TEXT);
        s.write(100, &TEXT.repeat(200));
        assert_eq!(s.in_output, 0, "{protocol:?}");
        // Over HTTP/2 as well, as it turned out.
        assert_eq!(s.in_transmit, 0, "{protocol:?}");
        assert!(s.received > 1_000_000);
    }
}

#[test]
fn a_session_takes_its_ring_and_64_kib() {
    let before = BYTES.get();
    PEAK.set(before);
    let mut s = Session::open(Protocols { http2: true, upgrade: true }, true);
    // The recorder shares the thread: what it holds is measured and taken off.
    s.write(2_000, TEXT);
    s.write(100, &TEXT.repeat(200));
    assert_eq!(s.machine.stats().protocol, Some(castkeep::upload::client::Protocol::V2Commit));
    let both = PEAK.get() - before;
    assert!(both > RING_DEFAULT_BYTES as i64);
    let held = BYTES.get();
    drop(s.machine);
    let machine = held - BYTES.get();
    let limit = (RING_DEFAULT_BYTES + 64 * 1024) as i64;
    assert!(machine <= limit, "{machine} bytes held, {limit} allowed");
    println!("held {machine}, ring {RING_DEFAULT_BYTES}, peak with the recorder {both}");
}
