//! Uploads over v2, stock and with the extension: docs/protocol.md §2.2 and §3.

use castkeep::http2::Code;
use castkeep::limits::{ACK_PERIOD_COMMIT, ACK_PERIOD_STOCK};
use castkeep::time::Span;
use castkeep::upload::server::{HowEnded, Kind, Protocol};

use super::support::{H2, Peer, RESUME, upload};

#[test]
fn v2_is_answered_before_its_body_and_acked_every_five_seconds() {
    let mut h2 = H2::new();
    let (stream, request) = upload(&mut h2, &[]);
    assert_eq!(request.kind, Kind::Record { protocol: Protocol::V2, resume: None });
    let id = request.id;
    h2.peer.server.accept(h2.peer.now, id, None);
    let answer = h2.answer();
    assert_eq!((answer.status.as_slice(), answer.ended), (&[200][..], false));
    assert_eq!(answer.field("castkeep-commit"), None);
    assert_eq!(answer.body, "{\"ack\":0}\n", "one at once");
    assert_eq!(h2.send(stream, b"0123456789", false), None, "and then none until it is due");
    assert_eq!(h2.peer.body(id).0, b"0123456789");
    h2.peer.server.progress(h2.peer.now, id, 10, Some(10));
    assert_eq!(h2.exchange(), []);
    for _ in 0..5 {
        let due = h2.peer.server.poll_timeout().unwrap();
        assert_eq!(due, h2.peer.now.after(ACK_PERIOD_STOCK));
        h2.peer.advance(Span(ACK_PERIOD_STOCK.0 - 1));
        assert_eq!(h2.exchange(), []);
        h2.peer.advance(Span(1));
        assert_eq!(h2.answer().body, "{\"ack\":10}\n", "also when idle");
    }
    h2.send(stream, b"x", true);
    assert_eq!(h2.peer.body(id), (b"x".to_vec(), Some(HowEnded::Clean)));
    assert_eq!(h2.exchange(), [], "the end waits for storage");
    h2.peer.server.progress(h2.peer.now, id, 11, None);
    h2.peer.server.seal(h2.peer.now, id, 11);
    let answer = h2.answer();
    assert_eq!((answer.body.as_str(), answer.ended), ("{\"ack\":11}\n", true));
    assert_eq!(h2.client.open_streams(), 0);
}

#[test]
fn v2_commit_is_told_at_once_and_every_second() {
    let mut h2 = H2::new();
    let (stream, request) = upload(&mut h2, RESUME);
    let Kind::Record { protocol: Protocol::V2Commit, resume: Some(resume) } = request.kind else {
        panic!("{request:?}");
    };
    assert_eq!((resume.attempt, resume.offset, resume.window), (1, 0, 262144));
    let id = request.id;
    h2.peer.server.accept(h2.peer.now, id, Some(100));
    let answer = h2.answer();
    assert_eq!(answer.field("castkeep-commit"), Some("100"));
    assert_eq!(answer.field("castkeep-ack-ms"), Some("1000"));
    assert_eq!(answer.body, "{\"ack\":0,\"commit\":100}\n");
    h2.peer.server.progress(h2.peer.now, id, 50, Some(100));
    assert_eq!(h2.exchange(), [], "more received is not news enough");
    h2.peer.server.progress(h2.peer.now, id, 60, Some(150));
    assert_eq!(h2.answer().body, "{\"ack\":60,\"commit\":150}\n");
    h2.peer.server.progress(h2.peer.now, id, 61, Some(149));
    assert_eq!(h2.exchange(), [], "a commit never falls");
    h2.peer.advance(ACK_PERIOD_COMMIT);
    assert_eq!(h2.answer().body, "{\"ack\":61,\"commit\":150}\n");
    h2.send(stream, b"", true);
    assert_eq!(h2.peer.body(id).1, Some(HowEnded::Clean));
    h2.peer.server.seal(h2.peer.now, id, 161);
    let answer = h2.answer();
    assert_eq!(answer.body, "{\"ack\":61,\"commit\":161}\n{\"sealed\":161}\n");
    assert!(answer.ended);
}

#[test]
fn drain_is_told_to_those_who_understand_it() {
    let mut h2 = H2::new();
    let (stream, request) = upload(&mut h2, RESUME);
    h2.peer.server.accept(h2.peer.now, request.id, Some(0));
    h2.answer();
    h2.peer.server.drain(h2.peer.now, request.id);
    h2.peer.server.drain(h2.peer.now, request.id);
    assert_eq!(h2.answer().body, "{\"drain\":true}\n");
    h2.send(stream, b"rest", true);
    assert_eq!(h2.peer.body(request.id), (b"rest".to_vec(), Some(HowEnded::Moved)));

    let (_, stock) = upload(&mut h2, &[]);
    h2.peer.server.accept(h2.peer.now, stock.id, None);
    h2.answer();
    h2.peer.server.drain(h2.peer.now, stock.id);
    assert_eq!(h2.exchange(), []);
}

#[test]
fn a_failure_is_the_last_object() {
    for fields in [&[][..], RESUME] {
        let mut h2 = H2::new();
        let (stream, request) = upload(&mut h2, fields);
        h2.peer.server.accept(h2.peer.now, request.id, Some(0));
        h2.answer();
        h2.send(stream, b"unread", false);
        h2.peer.server.fail(h2.peer.now, request.id, "disk \"full\"");
        let answer = h2.answer();
        assert_eq!(answer.body, "{\"error\":\"disk \\\"full\\\"\"}\n");
        assert!(answer.ended && answer.reset.is_none());
        assert_eq!(h2.peer.server.poll_event(), None);
        // The stock client ends its side in order then; nothing more happens.
        assert_eq!(h2.send(stream, b"more", true), None);
        assert_eq!(h2.client.open_streams(), 0);
        assert_eq!(h2.ask("HEAD", "/v2/record", &[]).status, [200]);
    }
    // One that does not stop is told to.
    let mut h2 = H2::new();
    let (stream, request) = upload(&mut h2, &[]);
    h2.peer.server.refuse(h2.peer.now, request.id, 503, "no");
    assert_eq!(h2.answer().status, [503]);
    let answer = h2.send(stream, &vec![0; 300_000], false);
    assert_eq!(answer.unwrap().reset, Some(Code::NoError));
}

#[test]
fn a_stream_that_is_reset_leaves_the_others_alone() {
    let mut h2 = H2::new();
    let (a, first) = upload(&mut h2, &[]);
    h2.peer.server.accept(h2.peer.now, first.id, None);
    h2.answer();
    let (b, second) = upload(&mut h2, RESUME);
    h2.peer.server.accept(h2.peer.now, second.id, Some(0));
    h2.answer();
    h2.send(a, b"received", false);
    h2.client.reset(a, Code::Cancel);
    h2.exchange();
    assert_eq!(h2.peer.body(first.id), (b"received".to_vec(), Some(HowEnded::Truncated)));
    h2.peer.server.seal(h2.peer.now, first.id, 8);
    h2.send(b, b"fine", true);
    assert_eq!(h2.peer.body(second.id), (b"fine".to_vec(), Some(HowEnded::Clean)));
    h2.peer.server.seal(h2.peer.now, second.id, 4);
    assert!(h2.answer().body.ends_with("{\"sealed\":4}\n"));
}

#[test]
fn a_lost_http2_connection_keeps_what_came() {
    for lost in [true, false] {
        let mut h2 = H2::new();
        let (stream, request) = upload(&mut h2, RESUME);
        h2.peer.server.accept(h2.peer.now, request.id, Some(0));
        h2.send(stream, b"received", false);
        if lost {
            h2.peer.server.handle_lost();
        } else {
            h2.peer.server.handle_eof(h2.peer.now);
        }
        assert!(!h2.peer.server.is_closed(), "the shell has not read all");
        let end = h2.peer.body(request.id);
        assert_eq!(end, (b"received".to_vec(), Some(HowEnded::Truncated)));
        h2.peer.read();
        assert!(h2.peer.server.is_closed());
    }
}

#[test]
fn shutdown_lets_uploads_finish() {
    let mut h2 = H2::new();
    let (stream, request) = upload(&mut h2, RESUME);
    h2.peer.server.accept(h2.peer.now, request.id, Some(0));
    h2.answer();
    h2.peer.server.shutdown(h2.peer.now);
    h2.exchange();
    h2.send(stream, b"x", true);
    assert_eq!(h2.peer.body(request.id), (b"x".to_vec(), Some(HowEnded::Clean)));
    assert!(!h2.peer.server.is_closed());
    h2.peer.server.seal(h2.peer.now, request.id, 1);
    assert!(h2.answer().ended);
    assert!(h2.peer.server.is_closed());

    let mut peer = Peer::new();
    peer.send("GET / HTTP/1.1\r\n\r\n");
    peer.text();
    peer.server.shutdown(peer.now);
    assert!(peer.server.is_closed());
}
