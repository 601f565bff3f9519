//! `Session::output` allocates nothing after open: counted for the calling thread, while recorder and worker do as they like.
#![allow(missing_docs, unsafe_code, clippy::disallowed_methods, clippy::disallowed_types)]

mod client_support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use castkeep::client::{
    Client, ClientConfig, Decision, ExitStatus, Metadata, Outcome, RecorderAddr, Start, Stream,
};
use client_support::{Manner, Recorder, join, tell};

struct Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is passed on to the system's allocator unchanged; the counter is a plain cell of the thread, whose access
// allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps GlobalAlloc's contract, which is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
        // SAFETY: as above.
        unsafe { System.realloc(block, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn output_allocates_nothing() {
    let recorder = Recorder::start(Manner::Good);
    let client = Client::new(ClientConfig::default()).unwrap();
    let decision = Decision::closed(vec![RecorderAddr::tcp(recorder.addr)], "no", "no");
    let session = client.open(Metadata::default(), decision).unwrap();
    assert_eq!(session.wait_start(Duration::from_secs(30)), Start::Recorded);

    // Text, escapes, broken UTF-8, both streams; several times the ring, so that it waits for room as well.
    let mut blocks = vec![b"plain text of a log\r\n".repeat(1_000)];
    blocks.push(b"\x1b[1m\"quoted\"\x1b[0m\t\\\r\n".repeat(1_000));
    blocks.push((0..=255u8).cycle().take(20_000).collect());
    let before = COUNT.get();
    for round in 0..100 {
        let stream = if round % 7 == 0 { Stream::Stderr } else { Stream::Stdout };
        session.output(stream, &blocks[round % 3]).unwrap();
        let _ = session.try_output(stream, b"a key\r\n").unwrap();
    }
    assert_eq!(COUNT.get() - before, 0, "allocations in output");

    session.exit(ExitStatus::Code(0));
    assert_eq!(session.close(Duration::from_secs(30)), Outcome::Complete);
    assert!(tell(&join(&recorder.parts())).output.len() > 1_000_000);
}
