//! What an idle connection of a recorder keeps on the heap: thousands of them are idle at a time.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use castkeep::http2::{Config, Connection, Event as H2Event};
use castkeep::time::Tick;
use castkeep::upload::server::{Event, Server, ServerConfig};

thread_local! {
    static HEAP: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: everything is passed on to the system's allocator; the counter does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HEAP.set(HEAP.get() + layout.size() as isize);
        // SAFETY: as promised by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HEAP.set(HEAP.get() - layout.size() as isize);
        // SAFETY: as promised by the caller.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Uploads `body` and answers its acks; the heap that the server's end holds afterwards.
fn after_upload(body: &[u8]) -> isize {
    let now = Tick(0);
    let before = HEAP.get();
    let mut server = Server::new(ServerConfig::default(), now);
    let mut held = HEAP.get() - before;
    let mut client = Connection::client(&Config::default());
    let request = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "recorder"),
        (":path", "/v2/record"),
        ("castkeep-recording", "00112233445566778899aabbccddeeff"),
        ("castkeep-resume", "00112233445566778899aabbccddeeff"),
        ("castkeep-attempt", "1"),
    ];
    let stream = client.open(&request, false).unwrap();
    let mut out = vec![0; 70_000];
    let mut back = vec![0; 70_000];
    let mut at = 0;
    let mut received = 0;
    loop {
        let sent = client.write_data(stream, &body[at..], false, &mut out);
        at += sent.taken;
        let before = HEAP.get();
        assert_eq!(server.handle_input(now, &out[..sent.written]), sent.written);
        while let Some(event) = server.poll_event() {
            match event {
                Event::Request(request) => server.accept(now, request.id, Some(0)),
                Event::Body { id, len } => {
                    received += len;
                    server.consume(now, id, len);
                    server.progress(now, id, received as u64, Some(received as u64));
                }
                Event::End { .. } => panic!("it does not end"),
            }
        }
        let n = server.poll_transmit(now, &mut back);
        held += HEAP.get() - before;
        let mut rest = &back[..n];
        while let Some(event) = client.handle_input(now, &mut rest) {
            if let H2Event::Data { stream, data, .. } = event {
                client.credit(stream, data.len());
            }
        }
        if sent.written == 0 && n == 0 {
            assert_eq!((at, received), (body.len(), body.len()));
            return held;
        }
    }
}

#[test]
fn an_idle_upload_keeps_little() {
    let body = vec![b'x'; 1024 * 1024];
    let held = after_upload(&body);
    assert!(held < 8 * 1024, "{held} bytes");
}

#[test]
fn a_connection_without_a_byte_keeps_next_to_nothing() {
    let before = HEAP.get();
    let server = Server::new(ServerConfig::default(), Tick(0));
    assert!(HEAP.get() - before < 256);
    assert!(size_of_val(&server) < 512);
}
