//! Uploads over v1: docs/protocol.md §2.1.

use castkeep::http2::Code;
use castkeep::limits::{LINGER_TIME, SERVER_BODY_BYTES};
use castkeep::upload::server::{Event, HowEnded, Kind, Protocol};

use super::support::{H2, Peer, upload};

pub(super) const V1: &str = "POST /record HTTP/1.1\r\nHost: r\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n";

#[test]
fn v1_waits_for_100_and_ends_with_200() {
    for step in [1, 5, 1000] {
        let mut peer = Peer::new();
        for piece in V1.as_bytes().chunks(step) {
            peer.send(piece);
        }
        let request = peer.request();
        assert_eq!(request.kind, Kind::Record { protocol: Protocol::V1, resume: None });
        assert_eq!(peer.text(), "", "nothing before the shell decided");
        peer.server.accept(peer.now, request.id, None);
        assert_eq!(peer.text(), "HTTP/1.1 100 Continue\r\n\r\n");
        let mut all = Vec::new();
        let mut how = None;
        for piece in b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n".chunks(step) {
            peer.send(piece);
            let (more, end) = peer.body(request.id);
            all.extend(more);
            how = how.or(end);
            peer.server.progress(peer.now, request.id, all.len() as u64, None);
            assert_eq!(peer.text(), "", "there are no acks on v1");
        }
        assert_eq!((&all[..], how), (&b"hello world"[..], Some(HowEnded::Clean)));
        assert_eq!(peer.text(), "", "the answer waits for storage");
        peer.server.seal(peer.now, request.id, 11);
        assert!(peer.text().starts_with("HTTP/1.1 200 OK\r\n"));
        assert!(!peer.server.is_closed(), "keep-alive");
        peer.send(V1);
        assert_ne!(peer.request().id, request.id);
    }
}

#[test]
fn v1_takes_clients_that_expect_nothing() {
    for (head, body) in [
        ("POST /record HTTP/1.1\r\nHost: r\r\nContent-Length: 5\r\n\r\n", "hello"),
        ("POST /record HTTP/1.0\r\nContent-Length: 5\r\n\r\n", "hello"),
        ("POST /record HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n"),
    ] {
        let mut peer = Peer::new();
        peer.send(format!("{head}{body}"));
        let id = peer.request().id;
        peer.server.accept(peer.now, id, None);
        assert_eq!(peer.text(), "");
        assert_eq!(peer.body(id), (b"hello".to_vec(), Some(HowEnded::Clean)));
        peer.server.seal(peer.now, id, 5);
        assert!(peer.text().starts_with("HTTP/1.1 200 "));
        assert_eq!(peer.server.is_closed(), head.contains("1.0"));
    }
    // An upload of nothing.
    let mut peer = Peer::new();
    peer.send("POST /record HTTP/1.1\r\nHost: r\r\n\r\n");
    let id = peer.request().id;
    peer.server.accept(peer.now, id, None);
    assert_eq!(peer.body(id), (vec![], Some(HowEnded::Clean)));
}

#[test]
fn v1_is_refused_instead_of_continued() {
    let mut peer = Peer::new();
    peer.send(V1);
    let id = peer.request().id;
    peer.server.refuse(peer.now, id, 503, "disk full");
    let answer = peer.text();
    assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\ndisk full\n") && answer.contains("Connection: close"));
    assert!(peer.server.wants_shutdown());
    assert_eq!(peer.server.poll_event(), None);

    let mut peer = Peer::new();
    peer.server.set_available(Err("draining"));
    peer.send(V1);
    assert!(peer.text().contains("503") && peer.server.poll_event().is_none());
}

#[test]
fn v1_that_breaks_or_ends_early_is_truncated() {
    let start = |peer: &mut Peer| {
        peer.send(V1);
        let id = peer.request().id;
        peer.server.accept(peer.now, id, None);
        peer.text();
        peer.send("5\r\nhello\r\n");
        id
    };
    let mut peer = Peer::new();
    let id = start(&mut peer);
    peer.server.handle_eof(peer.now);
    assert_eq!(peer.body(id), (b"hello".to_vec(), Some(HowEnded::Truncated)));
    assert!(peer.server.is_closed());

    let mut peer = Peer::new();
    let id = start(&mut peer);
    peer.server.handle_lost();
    assert_eq!(peer.body(id), (b"hello".to_vec(), Some(HowEnded::Truncated)));
    assert!(peer.server.is_closed());

    let mut peer = Peer::new();
    let id = start(&mut peer);
    peer.send("zz\r\n");
    assert_eq!(peer.body(id), (b"hello".to_vec(), Some(HowEnded::Truncated)));
    assert!(peer.text().starts_with("HTTP/1.1 400 "));
    assert!(peer.server.is_closed());

    let mut peer = Peer::new();
    let id = start(&mut peer);
    peer.server.fail(peer.now, id, "disk full");
    assert!(peer.text().starts_with("HTTP/1.1 507 "));
    assert_eq!(peer.send("5\r\nmore!\r\n"), 10, "read over");
    peer.advance(LINGER_TIME);
    assert!(peer.server.is_closed());
    assert_eq!(peer.server.poll_event(), None);
}

#[test]
fn an_unread_v1_body_is_not_taken_without_end() {
    let mut peer = Peer::new();
    peer.send("POST /record HTTP/1.1\r\nContent-Length: 9999999999\r\n\r\n");
    let id = peer.request().id;
    let chunk = vec![b'x'; 50_000];
    let mut taken = 0;
    loop {
        let n = peer.send(&chunk);
        taken += n;
        if n < chunk.len() {
            break;
        }
    }
    assert!((SERVER_BODY_BYTES..SERVER_BODY_BYTES + 50_001).contains(&taken), "{taken}");
    peer.server.accept(peer.now, id, None);
    assert_eq!(peer.body(id).0.len(), taken);
    assert_eq!(peer.send(&chunk), chunk.len(), "it goes on");
}

#[test]
fn v1_over_http2_and_one_before_the_decision() {
    let mut h2 = H2::new();
    let stream = h2.open("POST", "/record", &[("expect", "100-continue")], false);
    h2.exchange();
    let id = h2.peer.request().id;
    h2.peer.server.accept(h2.peer.now, id, None);
    assert_eq!(h2.answer().status, [100]);
    h2.send(stream, b"abc", true);
    assert_eq!(h2.peer.body(id), (b"abc".to_vec(), Some(HowEnded::Clean)));
    h2.peer.server.seal(h2.peer.now, id, 3);
    assert_eq!(h2.answer().status, [200]);

    // A client that gives up before the shell decided: the shell never hears of it, or hears that it is gone.
    let stream = h2.open("POST", "/record", &[], false);
    h2.exchange();
    h2.client.reset(stream, Code::Cancel);
    h2.exchange();
    assert_eq!(h2.peer.server.poll_event(), None);
    let (stream, request) = upload(&mut h2, &[]);
    h2.client.reset(stream, Code::Cancel);
    h2.exchange();
    let gone = Event::End { id: request.id, how: HowEnded::Truncated };
    assert_eq!(h2.peer.server.poll_event(), Some(gone));
    h2.peer.server.accept(h2.peer.now, request.id, None);
    assert_eq!(h2.exchange(), []);
}
