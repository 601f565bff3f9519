//! Peers that are dead, slow, or never read: docs/protocol.md §6.

use castkeep::http2::Code;
use castkeep::limits::{ACK_PERIOD_COMMIT, IDLE_TIME, LINGER_TIME, PING_TIME};
use castkeep::time::Span;
use castkeep::upload::server::HowEnded;

use super::support::{H2, Peer, RESUME, upload};

#[test]
fn a_dead_http2_peer_is_noticed() {
    let mut h2 = H2::new();
    let (_, request) = upload(&mut h2, RESUME);
    h2.peer.server.accept(h2.peer.now, request.id, Some(0));
    h2.answer();
    // Alive: it answers the PING.
    for _ in 0..5 {
        h2.peer.advance(PING_TIME);
        h2.exchange();
    }
    assert!(!h2.peer.server.is_closed());
    // Dead: bytes go out and none come back.
    h2.peer.advance(PING_TIME);
    h2.peer.read();
    h2.peer.advance(PING_TIME);
    assert_eq!(h2.peer.body(request.id).1, Some(HowEnded::Truncated));
    h2.peer.read();
    assert!(h2.peer.server.is_closed());
}

#[test]
fn a_slow_reader_gets_one_ack_for_many() {
    let mut h2 = H2::new();
    let (_, request) = upload(&mut h2, RESUME);
    h2.peer.server.accept(h2.peer.now, request.id, Some(0));
    h2.answer();
    for n in 1..10_000u64 {
        h2.peer.server.progress(h2.peer.now, request.id, n, Some(n));
    }
    assert_eq!(h2.answer().body, "{\"ack\":9999,\"commit\":9999}\n");
}

#[test]
fn who_asks_and_never_reads_is_let_go() {
    // HTTP/1.1, pipelined.
    let mut peer = Peer::new();
    let many = "GET / HTTP/1.1\r\n\r\n".repeat(1000);
    for _ in 0..20 {
        assert_eq!(peer.send(&many), many.len());
    }
    let answers = peer.read().len();
    assert!(answers < 100_000, "{answers}");
    peer.advance(LINGER_TIME);
    assert!(peer.server.is_closed());

    // HTTP/2.
    let mut h2 = H2::new();
    let mut out = [0; 4096];
    for _ in 0..20_000 {
        let fields =
            [(":method", "HEAD"), (":scheme", "http"), (":authority", "r"), (":path", "/v2/event")];
        // The client believes that its streams ended.
        let stream = h2.client.open(&fields, true).unwrap();
        let n = h2.client.poll_transmit(&mut out);
        h2.client.reset(stream, Code::Cancel);
        h2.peer.send(&out[..n]);
        if h2.peer.server.is_closed() {
            break;
        }
    }
    assert!(h2.peer.server.is_closed());
    assert!(h2.peer.read().len() < 100_000);
}

#[test]
fn a_request_without_end_holds_no_connection() {
    let mut h2 = H2::new();
    let stream = h2.open("GET", "/", &[], false);
    assert!(h2.answer().ended);
    let mut waited = Span(0);
    while h2.client.is_open(stream) && waited.0 < 2 * IDLE_TIME.0 {
        h2.peer.advance(Span::from_secs(5));
        waited = Span(waited.0 + 5_000_000);
        h2.client.ping();
        h2.exchange();
    }
    assert!((IDLE_TIME.0..IDLE_TIME.0 + 10_000_000).contains(&waited.0), "{waited:?}");
    h2.peer.advance(IDLE_TIME);
    h2.exchange();
    assert!(h2.peer.server.is_closed());
}

#[test]
fn a_due_ack_is_told_once_while_the_socket_is_full() {
    let mut h2 = H2::new();
    let (_, request) = upload(&mut h2, RESUME);
    h2.peer.server.accept(h2.peer.now, request.id, Some(0));
    h2.answer();
    h2.peer.advance(ACK_PERIOD_COMMIT);
    let next = h2.peer.server.poll_timeout().unwrap();
    assert!(next > h2.peer.now, "no busy loop");
    h2.peer.server.progress(h2.peer.now, request.id, 9, Some(9));
    assert!(h2.peer.server.poll_timeout().unwrap() > h2.peer.now);
    assert_eq!(h2.answer().body, "{\"ack\":9,\"commit\":9}\n");
    h2.peer.server.progress(h2.peer.now, request.id, 10, Some(10));
    assert!(h2.peer.server.poll_timeout().unwrap() <= h2.peer.now);
}
