//! HTTP/2 floods over real sockets against the program: the connection is ended and told why, memory stays where it was, and an
//! upload that runs beside it loses nothing.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

#[path = "recorder_support/mod.rs"]
mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use support::*;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;
const COMPRESSION_ERROR: u32 = 9;

/// More frames than any limit allows: who gets so many through is not stopped.
const ENOUGH: usize = 300_000;
/// What all floods together may add to the highest resident memory of the process.
const MEMORY_KIB: u64 = 12 * 1024;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A HPACK block of literals; the texts are shorter than 127 bytes.
fn block(method: &str, path: &str) -> Vec<u8> {
    let fields =
        [(":method", method), (":scheme", "http"), (":path", path), (":authority", "recorder")];
    let mut block = Vec::new();
    for text in fields.iter().flat_map(|(name, value)| [("\0", *name), ("", *value)]) {
        block.extend_from_slice(text.0.as_bytes());
        block.push(text.1.len() as u8);
        block.extend_from_slice(text.1.as_bytes());
    }
    block
}

fn post(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &block("POST", "/v2/record"))
}

/// How a flood ended: the code of the GOAWAY, and how many frames were sent.
#[derive(Debug)]
struct End {
    goaway: Option<u32>,
    frames: usize,
}

/// Sends `first`, then frames of `next` without end, until the recorder closes.
fn flood(address: SocketAddr, first: &[u8], next: impl Fn(usize) -> Vec<u8>) -> End {
    let mut tcp = connect(address);
    let mut wire = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    wire.extend(frame(SETTINGS, 0, 0, &[]));
    wire.extend_from_slice(first);
    let reader = tcp.try_clone().unwrap();
    let closed = AtomicBool::new(false);
    thread::scope(|scope| {
        let goaway = scope.spawn(|| {
            let code = read_goaway(reader);
            closed.store(true, Ordering::SeqCst);
            code
        });
        let mut frames = 0;
        let mut alive = tcp.write_all(&wire).is_ok();
        while alive && !closed.load(Ordering::SeqCst) && frames < ENOUGH {
            let batch: Vec<u8> = (frames..frames + 50).flat_map(&next).collect();
            alive = tcp.write_all(&batch).is_ok();
            frames += 50;
        }
        let _ = tcp.shutdown(Shutdown::Write);
        End { goaway: goaway.join().unwrap(), frames }
    })
}

/// Reads frames to the end of the connection.
fn read_goaway(mut tcp: TcpStream) -> Option<u32> {
    let mut code = None;
    let mut all = Vec::new();
    let mut buf = [0; 16 * 1024];
    loop {
        match tcp.read(&mut buf) {
            Ok(0) => return code,
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => panic!("it was not closed"),
            Err(_) => return code,
            Ok(n) => all.extend_from_slice(&buf[..n]),
        }
        while let Some(head) = all.get(..9) {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            if all.len() < 9 + length {
                break;
            }
            if head[3] == GOAWAY {
                code = Some(u32::from_be_bytes(all[13..17].try_into().unwrap()));
            }
            all.drain(..9 + length);
        }
    }
}

/// The highest resident memory of a process since it was last asked to forget it.
fn peak_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn forget_peak(pid: u32) {
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
}

/// An upload that has done nothing: it sends piece after piece, each once the one before is committed.
struct Innocent {
    h2: H2,
    post: u32,
    sent: Vec<u8>,
}

impl Innocent {
    fn new(address: SocketAddr) -> Self {
        let mut h2 = H2::new(connect(address));
        let post = h2.open("POST", "/v2/record", &Resume::new(1, 1, 0).fields(), false);
        assert_eq!(h2.status(post), 200);
        let mut innocent = Self { h2, post, sent: Vec::new() };
        innocent.go_on(cast(1_000));
        innocent
    }

    fn go_on(&mut self, piece: Vec<u8>) {
        self.h2.send(self.post, &piece, false);
        self.sent.extend(piece);
        let wanted = format!("\"commit\":{}}}", self.sent.len());
        self.h2.until_text(self.post, &wanted);
        // What was said is read once.
        self.h2.said.retain(|s| !matches!(s, Said::Data { .. }));
    }

    /// Runs beside something and goes on until that is over, at least once.
    fn beside<T: Send>(&mut self, other: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let other = scope.spawn(other);
            loop {
                let n = self.sent.len();
                self.go_on(format!("[{n}.0,\"o\",\"{}\"]\n", "x".repeat(2_000)).into_bytes());
                if other.is_finished() {
                    return other.join().unwrap();
                }
            }
        })
    }
}

#[test]
fn floods_end_their_own_connection_and_nothing_else() {
    let dir = Temp::new("floods");
    let dst = dir.join("dst");
    let mut serve = Serve::start(&dst, &["--log-level", "error"]);
    let (address, pid) = (serve.address, serve.child.id());
    let mut innocent = Innocent::new(address);

    let head = block("HEAD", "/v2/record");
    let open_block = frame(HEADERS, END_STREAM, 1, &head[..10]);
    // One long field that goes into the table, then references to it.
    let mut bomb = vec![0x40, 1, b'z', 0x7f, 0x81, 0x1e];
    bomb.extend_from_slice(&[b'v'; 3_968]);
    bomb.extend_from_slice(&[0xbe; 10_000]);
    let long = {
        let mut field = vec![0, 1, b'a', 0x7f, 0x81, 0x3e];
        field.extend_from_slice(&[b'v'; 8_064]);
        field
    };
    type Next = Box<dyn Fn(usize) -> Vec<u8> + Sync>;
    let same = |bytes: Vec<u8>| -> Next { Box::new(move |_| bytes.clone()) };
    let stream = |n: usize| 1 + 2 * n as u32;
    let first = post(1);
    let reset_probe = head;
    let floods: Vec<(&str, u32, Vec<u8>, Next)> = vec![
        ("SETTINGS", ENHANCE_YOUR_CALM, vec![], same(frame(SETTINGS, 0, 0, &[]))),
        (
            "SETTINGS that change the header table",
            ENHANCE_YOUR_CALM,
            vec![],
            Box::new(move |n| frame(SETTINGS, 0, 0, &[0, 1, 0, 0, (n % 16) as u8, 0])),
        ),
        ("PING", ENHANCE_YOUR_CALM, vec![], same(frame(PING, 0, 0, &[7; 8]))),
        ("PRIORITY", ENHANCE_YOUR_CALM, vec![], same(frame(PRIORITY, 0, 9, &[0, 0, 0, 1, 0]))),
        ("unknown frames", ENHANCE_YOUR_CALM, vec![], same(frame(0xbb, 0, 0, &[1; 100]))),
        (
            "rapid reset of probes",
            ENHANCE_YOUR_CALM,
            vec![],
            Box::new(move |n| {
                let mut wire = frame(HEADERS, END_HEADERS | END_STREAM, stream(n), &reset_probe);
                wire.extend(frame(RST_STREAM, 0, stream(n), &[0, 0, 0, 8]));
                wire
            }),
        ),
        (
            "rapid reset of uploads",
            ENHANCE_YOUR_CALM,
            vec![],
            Box::new(move |n| {
                let mut wire = post(stream(n));
                wire.extend(frame(RST_STREAM, 0, stream(n), &[0, 0, 0, 8]));
                wire
            }),
        ),
        (
            "more streams than are allowed",
            ENHANCE_YOUR_CALM,
            vec![],
            Box::new(move |n| post(stream(n))),
        ),
        ("empty CONTINUATION", ENHANCE_YOUR_CALM, open_block.clone(), {
            same(frame(CONTINUATION, 0, 1, &[]))
        }),
        ("CONTINUATION", ENHANCE_YOUR_CALM, open_block.clone(), {
            same(frame(CONTINUATION, 0, 1, &[0, 1, b'a', 1, b'b']))
        }),
        ("long CONTINUATION", ENHANCE_YOUR_CALM, open_block, {
            same(frame(CONTINUATION, 0, 1, &long.repeat(2)))
        }),
        ("empty DATA", ENHANCE_YOUR_CALM, first.clone(), same(frame(DATA, 0, 1, &[]))),
        ("DATA of padding alone", ENHANCE_YOUR_CALM, first, same(frame(DATA, PADDED, 1, &[0]))),
        (
            "header bombs",
            COMPRESSION_ERROR,
            vec![],
            Box::new(move |n| frame(HEADERS, END_HEADERS | END_STREAM, stream(n), &bomb)),
        ),
    ];
    forget_peak(pid);
    let before = peak_kib(pid);
    for (what, code, first, next) in &floods {
        let end = innocent.beside(|| flood(address, first, next));
        assert_eq!(end.goaway, Some(*code), "{what}: {end:?}");
        assert!(end.frames < ENOUGH, "{what}: {end:?}");
    }
    // Many at a time do not add up either.
    let pings = || flood(address, &[], |_| frame(PING, 0, 0, &[7; 8])).goaway;
    let ends: Vec<_> = innocent.beside(|| {
        thread::scope(|scope| {
            let all: Vec<_> = (0..16).map(|_| scope.spawn(pings)).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        })
    });
    assert_eq!(ends, [Some(ENHANCE_YOUR_CALM); 16]);
    let peak = peak_kib(pid);
    println!("peak resident memory: {before} KiB before the floods, {peak} KiB in them");
    assert!(peak < before + MEMORY_KIB, "{before} KiB, then {peak} KiB");

    innocent.h2.send(innocent.post, b"", true);
    let sealed = format!("\"sealed\":{}}}", innocent.sent.len());
    innocent.h2.until_text(innocent.post, &sealed);
    let stored = files(&dst, ".cast").into_iter().map(|f| std::fs::read(f).unwrap());
    assert_eq!(stored.filter(|bytes| *bytes == innocent.sent).count(), 1);
    serve.signal("TERM");
    assert_eq!(serve.wait().code(), Some(0));
}

#[test]
fn padded_data_is_taken_for_what_it_holds() {
    let dir = Temp::new("padded");
    let (_recorder, address) = start(&dir, |_| {});
    let mut tcp = connect(address);
    let body = cast(20_000);
    let mut wire = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    wire.extend(frame(SETTINGS, 0, 0, &[]));
    wire.extend(post(1));
    tcp.write_all(&wire).unwrap();
    let reader = tcp.try_clone().unwrap();
    let reader = thread::spawn(move || read_goaway(reader));
    // 5 MiB of padding around 20 KB: five times the windows, which only come back when padding is paid back.
    for byte in &body {
        let mut payload = vec![255, *byte];
        payload.resize(257, 0);
        tcp.write_all(&frame(DATA, PADDED, 1, &payload)).unwrap();
    }
    tcp.write_all(&frame(DATA, END_STREAM, 1, &[])).unwrap();
    let (bytes, sidecar) = only_recording(&dir.join("dst"));
    assert!(bytes == body);
    assert_eq!(sidecar["how"], "sealed");
    tcp.shutdown(Shutdown::Write).unwrap();
    assert_eq!(reader.join().unwrap().filter(|code| *code != 0), None);
}
