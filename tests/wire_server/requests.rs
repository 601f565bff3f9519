//! What each request gets: docs/protocol.md §1 and §5.

use castkeep::limits::{EVENT_BODY_BYTES, HEAD_BYTES, HEAD_TIME, IDLE_TIME, LINGER_TIME};
use castkeep::time::{Span, Tick};
use castkeep::upload::server::{Event, HowEnded, Kind, Protocol, Request, ServerConfig};

use super::support::{H2, ID, Peer, RESUME, upload};
use super::upgrade::upgrade;

#[test]
fn every_row_of_the_table_over_http2() {
    let mut h2 = H2::new();
    let probe = h2.ask("HEAD", "/v2/record", &[]);
    assert_eq!((probe.status[0], probe.body.as_str(), probe.ended), (200, "", true));
    assert_eq!(probe.field("castkeep-features"), Some("commit, resume"));
    assert_eq!(probe.field("castkeep-ack-ms"), Some("1000"));
    assert_eq!(h2.ask("HEAD", "/v2/event", &[]).status, [200]);
    let hello = h2.ask("GET", "/", &[]);
    assert_eq!((hello.status[0], hello.body.lines().count()), (200, 1));
    assert!(hello.body.contains("castkeep"));
    for (method, path, status, allow) in [
        ("PUT", "/v2/record", 405, Some("HEAD, POST")),
        ("GET", "/v2/record", 405, Some("HEAD, POST")),
        ("GET", "/record", 405, Some("POST")),
        ("DELETE", "/v2/event", 405, Some("HEAD, POST")),
        ("POST", "/", 405, Some("GET, HEAD")),
        ("POST", "/castkeep/1/record", 505, None),
        ("GET", "/other", 404, None),
        ("POST", "/record/", 404, None),
        ("OPTIONS", "*", 404, None),
    ] {
        let answer = h2.ask(method, path, &[]);
        assert_eq!(answer.status, [status], "{method} {path}");
        assert_eq!(answer.field("allow"), allow, "{method} {path}");
        assert_eq!(answer.body.lines().count(), 1, "one line of text");
    }
    for field in ["origin", "sec-fetch-site"] {
        assert_eq!(h2.ask("POST", "/v2/record", &[(field, "https://x")]).status, [403]);
        assert_eq!(h2.ask("GET", "/", &[(field, "https://x")]).status, [403]);
    }
    let long = "x".repeat(HEAD_BYTES);
    assert_eq!(h2.ask("HEAD", "/v2/record", &[("x", &long)]).status, [431]);
    for broken in [
        &[("castkeep-recording", ID)][..],
        &[("castkeep-recording", ID), ("castkeep-resume", ID), ("castkeep-attempt", "x")],
    ] {
        assert_eq!(h2.ask("POST", "/v2/record", broken).status, [400]);
    }
    assert_eq!(h2.peer.server.poll_event(), None, "the shell hears of none of these");
}

#[test]
fn every_row_of_the_table_over_http1() {
    let mut peer = Peer::new();
    for (request, status, has) in [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 200, "castkeep"),
        ("HEAD /v2/record HTTP/1.1\r\nHost: x\r\n\r\n", 505, ""),
        ("HEAD /v2/event HTTP/1.1\r\nHost: x\r\n\r\n", 200, ""),
        ("GET /record HTTP/1.1\r\nHost: x\r\n\r\n", 405, "Allow: POST"),
        ("GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", 404, "no such path"),
        ("PUT /v2/event HTTP/1.1\r\nHost: x\r\n\r\n", 405, "Allow: HEAD, POST"),
        ("GET / HTTP/1.1\r\nHost: x\r\nOrigin: http://e\r\n\r\n", 403, "browsers"),
        ("GET / HTTP/1.1\r\nHost: x\r\nSec-Fetch-Site: none\r\n\r\n", 403, "browsers"),
        ("POST /castkeep/1/record HTTP/1.1\r\nHost: x\r\n\r\n", 426, "Upgrade: castkeep/1"),
        (
            "POST /castkeep/1/record HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: castkeep/1\r\n\r\n",
            400,
            "malformed",
        ),
    ] {
        // All on one connection: a refusal does not end it.
        assert_eq!(peer.send(request), request.len(), "{request}");
        let answer = peer.text();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
        assert!(answer.contains(has), "{answer}");
        assert!(!answer.contains("Connection: close"), "{answer}");
        let head = answer.split("\r\n\r\n").next().unwrap().len() + 4;
        if request.starts_with("HEAD") {
            assert_eq!(head, answer.len(), "no body: {answer}");
        } else {
            assert_eq!(answer[head..].lines().count(), 1, "one line: {answer}");
        }
    }
    assert!(!peer.server.is_closed());
}

#[test]
fn what_is_no_request_is_answered_and_closed() {
    let fields: String = (0..100).map(|i| format!("x{i}: y\r\n")).collect();
    for (bytes, status) in [
        (
            "POST /record HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
                .into(),
            400,
        ),
        ("BAD\x01 / HTTP/1.1\r\n\r\n".to_string(), 400),
        ("GET / HTTP/4.0\r\n\r\n".to_string(), 505),
        (format!("GET / HTTP/1.1\r\n{fields}\r\n"), 431),
        (format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(HEAD_BYTES)), 431),
    ] {
        for step in [1, 3, 50_000] {
            let mut peer = Peer::new();
            for piece in bytes.as_bytes().chunks(step) {
                assert_eq!(peer.send(piece), piece.len());
            }
            let answer = peer.text();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{bytes:.40}: {answer}");
            assert!(answer.contains("Connection: close"));
            assert!(peer.server.wants_shutdown());
            peer.advance(LINGER_TIME);
            assert!(peer.server.is_closed());
        }
    }
    for garbage in
        [&b"\x16\x03\x01\x02\x00\x01\x00"[..], b"PRI * HTTP/2.0\r\n\r\nXX", b"SSH-2.0-x\r\n"]
    {
        let mut peer = Peer::new();
        peer.send(garbage);
        let answer = peer.text();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 505"), "{answer}");
        peer.advance(HEAD_TIME);
        peer.text();
        peer.advance(LINGER_TIME);
        assert!(peer.server.is_closed());
    }
}

#[test]
fn a_slow_head_gets_408_and_a_silent_peer_is_closed() {
    for slow in ["P", "PRI * HTTP/2.0\r\n", "GET / HTTP/1.1\r\nHost:"] {
        let mut peer = Peer::new();
        peer.send(slow);
        assert_eq!(peer.server.poll_timeout(), Some(Tick(1).after(HEAD_TIME)));
        peer.advance(Span(HEAD_TIME.0 - 1));
        assert!(!peer.server.is_closed());
        assert_eq!(peer.text(), "");
        peer.advance(Span(1));
        assert!(peer.text().starts_with("HTTP/1.1 408 "));
        peer.advance(LINGER_TIME);
        assert!(peer.server.is_closed());
    }
    let mut peer = Peer::new();
    peer.advance(Span(IDLE_TIME.0 - 1));
    assert!(!peer.server.is_closed());
    peer.advance(Span(1));
    assert!(peer.server.is_closed());

    let mut peer = Peer::new();
    peer.send("GET / HTTP/1.1\r\n\r\n");
    peer.text();
    peer.advance(IDLE_TIME);
    assert!(peer.server.is_closed());

    let mut h2 = H2::new();
    h2.peer.advance(IDLE_TIME);
    h2.exchange();
    assert!(h2.peer.server.is_closed());
}

#[test]
fn requests_behind_each_other_are_answered_in_order() {
    let mut peer = Peer::new();
    let one = "POST /v2/event HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}";
    let all = format!("{one}GET / HTTP/1.1\r\n\r\n");
    assert_eq!(peer.send(&all), one.len());
    let Request { id, kind } = peer.request();
    assert_eq!(kind, Kind::Event);
    peer.server.accept(peer.now, id, None);
    assert_eq!(peer.body(id), (b"{}".to_vec(), Some(HowEnded::Clean)));
    peer.server.finish(peer.now, id, 200, "");
    assert!(peer.text().starts_with("HTTP/1.1 200 "));
    peer.send(&all[one.len()..]);
    assert!(peer.text().contains("castkeep"));
}

#[test]
fn events_over_both_versions() {
    let mut h2 = H2::new();
    let stream = h2.open("POST", "/v2/event", &[], false);
    h2.exchange();
    let id = h2.peer.request().id;
    h2.peer.server.accept(h2.peer.now, id, None);
    h2.send(stream, b"{\"a\":1}", true);
    assert_eq!(h2.peer.body(id), (b"{\"a\":1}".to_vec(), Some(HowEnded::Clean)));
    h2.peer.server.finish(h2.peer.now, id, 400, "not an object");
    let answer = h2.answer();
    assert_eq!(
        (answer.status[0], answer.body.as_str(), answer.ended),
        (400, "not an object\n", true)
    );

    // Too large, told and untold.
    let mut peer = Peer::new();
    peer.send(format!(
        "POST /v2/event HTTP/1.1\r\nContent-Length: {}\r\n\r\n",
        EVENT_BODY_BYTES + 1
    ));
    assert!(peer.text().starts_with("HTTP/1.1 413 "));
    let mut peer = Peer::new();
    peer.send("POST /v2/event HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
    let id = peer.request().id;
    peer.server.accept(peer.now, id, None);
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    for _ in 0..EVENT_BODY_BYTES / 0x10000 {
        peer.send(&chunk);
        assert_eq!(peer.body(id).1, None);
    }
    peer.send(&chunk);
    assert_eq!(peer.server.poll_event(), Some(Event::End { id, how: HowEnded::Truncated }));
    assert!(peer.text().starts_with("HTTP/1.1 413 "));
}

#[test]
fn refusals_come_instead_of_the_answer() {
    let mut h2 = H2::new();
    h2.peer.server.set_available(Err("disk reserve"));
    for (method, path) in [("HEAD", "/v2/record"), ("POST", "/v2/record"), ("POST", "/record")] {
        let answer = h2.ask(method, path, &[]);
        assert_eq!((answer.status.as_slice(), answer.ended), (&[503][..], true));
        // A stock client waits for ever behind a refusal on v2 that has a body.
        assert_eq!(answer.body.is_empty(), path == "/v2/record");
    }
    assert_eq!(h2.ask("HEAD", "/v2/event", &[]).status, [200]);
    h2.peer.server.set_available(Ok(()));
    for status in [403, 409, 429, 503] {
        let (_, request) = upload(&mut h2, RESUME);
        h2.peer.server.refuse(h2.peer.now, request.id, status, "why");
        let answer = h2.answer();
        assert_eq!((answer.status[0], answer.body.as_str()), (status, "why\n"));
        let (_, request) = upload(&mut h2, &[]);
        h2.peer.server.refuse(h2.peer.now, request.id, status, "why");
        let answer = h2.answer();
        assert_eq!((answer.status[0], answer.body.as_str(), answer.ended), (status, "", true));
    }
}

#[test]
fn without_the_extension_it_is_a_stock_recorder() {
    let cfg = ServerConfig { extension: false, ..ServerConfig::default() };
    let mut h2 = H2::with(cfg.clone());
    assert_eq!(h2.ask("HEAD", "/v2/record", &[]).field("castkeep-features"), None);
    let (_, request) = upload(&mut h2, RESUME);
    assert_eq!(request.kind, Kind::Record { protocol: Protocol::V2, resume: None });
    let mut peer = Peer::with(cfg);
    peer.send(upgrade());
    assert!(peer.text().starts_with("HTTP/1.1 404 "));
}

#[test]
fn alpn_decides_where_there_is_tls() {
    let mut peer = Peer::with(ServerConfig { h2_only: true, ..ServerConfig::default() });
    peer.send("GET / HTTP/1.1\r\n\r\n");
    peer.read();
    assert!(peer.server.is_closed());
    let mut peer = Peer::with(ServerConfig { h1_only: true, ..ServerConfig::default() });
    peer.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert!(peer.text().starts_with("HTTP/1.1 505 "));
}
