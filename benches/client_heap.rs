//! What a session takes from the heap, with a counting allocator: its ring plus at most 64 KiB, from open to the end, and
//! nothing at all on the path of output.
#![allow(missing_docs, unsafe_code, clippy::disallowed_methods, clippy::disallowed_types)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use castkeep::client::{
    Client, ClientConfig, Decision, Metadata, Outcome, RecorderAddr, Start, Stream,
};
use castkeep::limits::{RING_DEFAULT_BYTES, RING_THROUGHPUT_BYTES};
use common::{Args, Dir, Goal, Recorder, Report, log_text};

struct Counting;

static NOW: AtomicI64 = AtomicI64::new(0);
static PEAK: AtomicI64 = AtomicI64::new(0);
thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

fn count(change: i64) {
    let now = NOW.fetch_add(change, Relaxed) + change;
    PEAK.fetch_max(now, Relaxed);
    // A thread that is ending has no counter any more.
    let _ = CALLS.try_with(|calls| calls.set(calls.get() + 1));
}

// SAFETY: every call is handed to the system's allocator as it came; counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as i64));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as i64 - layout.size() as i64);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() {
    let args = Args::parse();
    let dir = Dir::new("heap");
    let recorder = Recorder::start(&dir.join("dst"), &[]);
    let text = log_text(args.size(64 << 20, 1 << 20));
    let mut report = Report::new(&args);
    for (name, ring, http2) in [
        ("256 KiB, HTTP/2", RING_DEFAULT_BYTES, true),
        ("4 MiB, HTTP/2", RING_THROUGHPUT_BYTES, true),
        ("256 KiB, castkeep/1", RING_DEFAULT_BYTES, false),
    ] {
        let (heap, calls) = session(&recorder, ring, http2, &text);
        report.result(
            &format!("heap of a session above its ring ({name})"),
            (heap - ring as i64) as f64 / 1024.0,
            " KiB",
            Goal::AtMost(64.0),
            &format!("highest over a whole session of {} MB of output", text.len() / 1_000_000),
        );
        report.result(
            &format!("allocations in `output` ({name})"),
            calls as f64,
            "",
            Goal::AtMost(0.0),
            "counted on the calling thread, from the first byte to the last",
        );
    }
    report.finish();
}

/// The most heap that one session had at a time, and the allocator calls of `output`.
fn session(recorder: &Recorder, ring: usize, http2: bool, text: &[u8]) -> (i64, u64) {
    let mut config = ClientConfig::default();
    config.ring_bytes = ring;
    config.protocols.http2 = http2;
    let client = Client::new(config).expect("a client");
    // The first session also brings what the client needs once: the second one is measured, when the first one's
    // connection is gone.
    let mut result = (0, 0);
    for round in 0..2 {
        if round > 0 {
            std::thread::sleep(Duration::from_secs(2));
        }
        let metadata = Metadata { size: (80, 24), ..Metadata::default() };
        let decision = Decision::closed(
            vec![RecorderAddr::tcp(recorder.addr)],
            "no recorder",
            "recording failed",
        );
        let before = NOW.load(Relaxed);
        PEAK.store(before, Relaxed);
        let session = client.open(metadata, decision).expect("a session");
        let start = session.wait_start(Duration::from_secs(30));
        assert!(matches!(start, Start::Recorded), "{start:?}");
        let calls = CALLS.get();
        for part in text.chunks(16 << 10) {
            session.output(Stream::Stdout, part).expect("output is taken");
        }
        let calls = CALLS.get() - calls;
        let outcome = session.close(Duration::from_secs(60));
        assert!(matches!(outcome, Outcome::Complete), "{outcome:?}");
        result = (PEAK.load(Relaxed) - before, calls);
    }
    result
}
