//! The encoder allocates nothing, whatever it is given.
#![allow(missing_docs, unsafe_code)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use castkeep::{
    cast::{CONTROL_EVENT_BYTES, Encoder, ExitStatus, Stream, worst_case_bytes},
    limits::EVENT_INPUT_BYTES,
    time::Span,
};

struct Counting;

thread_local! {
    // Per thread: the test harness allocates on its own.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is passed on to the system's allocator; the counter neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|n| n.set(n.get() + 1));
        // SAFETY: the caller's promises are those of this call.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as above; `ptr` came from `alloc` and so from the system's allocator.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static GLOBAL: Counting = Counting;

#[test]
fn encoding_allocates_nothing() {
    let mut out = vec![0; worst_case_bytes(EVENT_INPUT_BYTES)];
    let text = b"a line of 80 columns \x1b[1mwith colours\x1b[0m \"quotes\" \xe2\x82\xac and \xff\xfe bytes\r\n";
    let data: Vec<u8> = text.iter().copied().cycle().take(10 * EVENT_INPUT_BYTES).collect();
    let counted = || ALLOCATIONS.with(Cell::get);

    let control = Box::new(counted());
    assert!(counted() > *control, "the counter counts");

    let before = counted();
    let mut encoder = Encoder::new();
    let mut written = 0;
    for (n, size) in [1, 2, 3, 7, 64, 1000, EVENT_INPUT_BYTES, data.len()].into_iter().enumerate() {
        let mut rest = &data[..];
        while !rest.is_empty() {
            let t = Span(n as u64);
            let stream = if n % 2 == 0 { Stream::Stdout } else { Stream::Stderr };
            let piece = &rest[..size.min(rest.len())];
            let done = encoder.output(t, stream, piece, &mut out);
            written += done.written;
            rest = &rest[done.taken..];
            written += encoder.input(t, &piece[..1], &mut out).written;
        }
        let t = Span(n as u64);
        assert!(out.len() >= CONTROL_EVENT_BYTES);
        written += encoder.flush(t, &mut out);
        written += encoder.resize(t, 80, 24, &mut out);
        written += encoder.marker(t, "a marker", &mut out);
        written += encoder.gap(t, 1, 2, &mut out);
        written += encoder.exit(t, ExitStatus::Signal("TERM"), &mut out);
    }
    let after = counted();
    assert_eq!(after - before, 0, "for {written} bytes");
}
