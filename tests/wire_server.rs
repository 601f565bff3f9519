//! The recorder's side of a connection: docs/protocol.md §1 to §6, row by row, with a virtual clock.

use castkeep::http1;
use castkeep::http2::{self, Code, Config, Connection};
use castkeep::limits::{
    ACK_PERIOD_COMMIT, ACK_PERIOD_STOCK, EVENT_BODY_BYTES, HEAD_BYTES, HEAD_TIME, IDLE_TIME,
    LINGER_TIME, PING_TIME, SERVER_BODY_BYTES,
};
use castkeep::time::{Span, Tick};
use castkeep::upload::server::{
    Event, HowEnded, Kind, Protocol, Request, RequestId, Server, ServerConfig,
};
use castkeep::upload::upgrade::{END_FRAME, encode_frame};

const ID: &str = "00112233445566778899aabbccddeeff";

/// A connection with its clock.
struct Peer {
    server: Server,
    now: Tick,
}

impl Peer {
    fn new() -> Self {
        Self::with(ServerConfig::default())
    }

    fn with(cfg: ServerConfig) -> Self {
        Self { server: Server::new(cfg, Tick(1)), now: Tick(1) }
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) -> usize {
        self.server.handle_input(self.now, bytes.as_ref())
    }

    fn read(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        let mut out = [0; 777];
        loop {
            let n = self.server.poll_transmit(self.now, &mut out);
            if n == 0 {
                return all;
            }
            all.extend_from_slice(&out[..n]);
        }
    }

    fn text(&mut self) -> String {
        String::from_utf8_lossy(&self.read()).into_owned()
    }

    fn advance(&mut self, by: Span) {
        self.now = self.now.after(by);
        self.server.handle_timeout(self.now);
    }

    fn request(&mut self) -> Request {
        match self.server.poll_event() {
            Some(Event::Request(request)) => request,
            other => panic!("no request but {other:?}"),
        }
    }

    /// All body bytes that wait, and how it ended.
    fn body(&mut self, id: RequestId) -> (Vec<u8>, Option<HowEnded>) {
        let mut all = Vec::new();
        while let Some(event) = self.server.poll_event() {
            match event {
                Event::Body { id: of, len } => {
                    assert_eq!((of, len), (id, self.server.body(id).len()));
                    all.extend_from_slice(self.server.body(id));
                    self.server.consume(self.now, id, len);
                }
                Event::End { id: of, how } => {
                    assert_eq!(of, id);
                    return (all, Some(how));
                }
                Event::Request(_) => panic!("another request"),
            }
        }
        (all, None)
    }
}

/// A HTTP/2 client at the other end.
struct H2 {
    peer: Peer,
    client: Connection,
}

/// What the client saw of one stream.
#[derive(Debug, Default, PartialEq)]
struct Answer {
    status: Vec<u16>,
    fields: Vec<(String, String)>,
    body: String,
    ended: bool,
    reset: Option<Code>,
}

impl Answer {
    fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

impl H2 {
    fn new() -> Self {
        Self::with(ServerConfig::default())
    }

    fn with(cfg: ServerConfig) -> Self {
        let mut this =
            Self { peer: Peer::with(cfg), client: Connection::client(&Config::default()) };
        this.exchange();
        this
    }

    /// Carries bytes both ways until both are silent; what the client saw, by stream.
    fn exchange(&mut self) -> Vec<(u32, Answer)> {
        let mut answers: Vec<(u32, Answer)> = Vec::new();
        let mut out = [0; 4096];
        loop {
            let n = self.client.poll_transmit(&mut out);
            if n > 0 {
                assert_eq!(self.peer.send(&out[..n]), n);
            }
            let back = self.peer.read();
            if n == 0 && back.is_empty() {
                return answers;
            }
            let mut rest = &back[..];
            while let Some(event) = self.client.handle_input(self.peer.now, &mut rest) {
                let mut of = |stream: u32| {
                    answers.iter().position(|(s, _)| *s == stream).unwrap_or_else(|| {
                        answers.push((stream, Answer::default()));
                        answers.len() - 1
                    })
                };
                match event {
                    http2::Event::Headers { stream, fields, end, .. } => {
                        let at = of(stream);
                        let answer = &mut answers[at].1;
                        answer.status.push(fields.status().unwrap());
                        answer.ended |= end;
                        for f in fields.0 {
                            let text = |b: Vec<u8>| String::from_utf8(b).unwrap();
                            answer.fields.push((text(f.name), text(f.value)));
                        }
                    }
                    http2::Event::Data { stream, data, end } => {
                        let n = data.len();
                        let at = of(stream);
                        answers[at].1.body.push_str(core::str::from_utf8(data).unwrap());
                        answers[at].1.ended |= end;
                        self.client.credit(stream, n);
                    }
                    http2::Event::Reset { stream, code, .. } => {
                        let at = of(stream);
                        answers[at].1.reset = Some(code);
                    }
                    http2::Event::GoAway { .. } | http2::Event::Pong => {}
                    http2::Event::Failed(code) => panic!("the server broke HTTP/2: {code:?}"),
                }
            }
        }
    }

    fn open(&mut self, method: &str, path: &str, more: &[(&str, &str)], end: bool) -> u32 {
        let mut fields = vec![
            (":method", method),
            (":scheme", "http"),
            (":authority", "recorder:80"),
            (":path", path),
        ];
        fields.extend_from_slice(more);
        self.client.open(&fields, end).unwrap()
    }

    fn ask(&mut self, method: &str, path: &str, more: &[(&str, &str)]) -> Answer {
        self.open(method, path, more, true);
        self.exchange().pop().unwrap().1
    }

    fn send(&mut self, stream: u32, data: &[u8], end: bool) -> Option<Answer> {
        let mut at = 0;
        let mut answers = Vec::new();
        loop {
            at += self.client.send_data(stream, &data[at..], end);
            answers.extend(self.exchange());
            if at == data.len() || !self.client.sends(stream) {
                break;
            }
        }
        answers.pop().map(|(_, a)| a)
    }

    /// What the client saw after the server's owner did something.
    fn answer(&mut self) -> Answer {
        self.exchange().pop().map(|(_, a)| a).unwrap_or_default()
    }
}

const RESUME: &[(&str, &str)] = &[
    ("castkeep-recording", ID),
    ("castkeep-resume", ID),
    ("castkeep-attempt", "1"),
    ("castkeep-window", "262144"),
];

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

const V1: &str = "POST /record HTTP/1.1\r\nHost: r\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n";

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

fn upload(h2: &mut H2, fields: &[(&str, &str)]) -> (u32, Request) {
    let stream = h2.open("POST", "/v2/record", fields, false);
    assert_eq!(h2.exchange(), [], "nothing before the shell decided");
    (stream, h2.peer.request())
}

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
fn refusals_come_instead_of_the_answer() {
    let mut h2 = H2::new();
    h2.peer.server.set_available(Err("disk reserve"));
    for (method, path) in [("HEAD", "/v2/record"), ("POST", "/v2/record"), ("POST", "/record")] {
        let answer = h2.ask(method, path, &[]);
        assert_eq!((answer.status.as_slice(), answer.ended), (&[503][..], true));
        assert_eq!(answer.body.is_empty(), method == "HEAD");
    }
    assert_eq!(h2.ask("HEAD", "/v2/event", &[]).status, [200]);
    h2.peer.server.set_available(Ok(()));
    for status in [403, 409, 429, 503] {
        let (_, request) = upload(&mut h2, RESUME);
        h2.peer.server.refuse(h2.peer.now, request.id, status, "why");
        let answer = h2.answer();
        assert_eq!((answer.status[0], answer.body.as_str()), (status, "why\n"));
    }
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

fn upgrade() -> String {
    format!(
        "POST /castkeep/1/record HTTP/1.1\r\nHost: r\r\nConnection: Upgrade\r\nUpgrade: castkeep/1\r\n\
         castkeep-recording: {ID}\r\ncastkeep-resume: {ID}\r\ncastkeep-attempt: 3\r\ncastkeep-offset: 40\r\n\r\n"
    )
}

fn frames(parts: &[&[u8]]) -> Vec<u8> {
    let mut wire = Vec::new();
    let mut out = vec![0; 100_000];
    for part in parts {
        let sent = encode_frame(part, &mut out);
        wire.extend_from_slice(&out[..sent.written]);
    }
    wire
}

#[test]
fn the_extension_over_http1() {
    let mut peer = Peer::new();
    peer.send(upgrade());
    let Request { id, kind } = peer.request();
    let Kind::Record { protocol: Protocol::Upgrade, resume: Some(resume) } = kind else {
        panic!("{kind:?}");
    };
    assert_eq!((resume.attempt, resume.offset), (3, 40));
    peer.server.accept(peer.now, id, Some(40));
    let answer = peer.text();
    let (head, used) = http1::parse_response(answer.as_bytes()).unwrap().unwrap();
    assert_eq!((head.status, head.fields.get("upgrade")), (101, Some("castkeep/1")));
    assert_eq!(head.fields.get("castkeep-commit"), Some("40"));
    assert_eq!(head.fields.get("castkeep-ack-ms"), Some("1000"));
    assert_eq!(&answer[used..], "{\"ack\":0,\"commit\":40}\n");
    peer.send(frames(&[b"hel", b"lo"]));
    assert_eq!(peer.body(id).0, b"hello");
    peer.server.progress(peer.now, id, 5, Some(45));
    assert_eq!(peer.text(), "{\"ack\":5,\"commit\":45}\n");
    peer.advance(ACK_PERIOD_COMMIT);
    assert_eq!(peer.text(), "{\"ack\":5,\"commit\":45}\n");
    peer.server.drain(peer.now, id);
    assert_eq!(peer.text(), "{\"drain\":true}\n");
    peer.send(END_FRAME);
    assert_eq!(peer.body(id).1, Some(HowEnded::Moved));
    peer.server.seal(peer.now, id, 45);
    assert_eq!(peer.text(), "{\"ack\":5,\"commit\":45}\n{\"sealed\":45}\n");
    assert!(peer.server.is_closed());
}

#[test]
fn the_extension_over_http1_when_things_break() {
    let start = || {
        let mut peer = Peer::new();
        peer.send(upgrade());
        let id = peer.request().id;
        peer.server.accept(peer.now, id, Some(40));
        peer.text();
        (peer, id)
    };
    // A frame that is too long: what came before it counts.
    let (mut peer, id) = start();
    peer.send([&frames(&[b"good"])[..], &[0, 16, 0, 1]].concat());
    assert!(peer.text().starts_with("{\"error\":\"malformed"));
    assert_eq!(peer.body(id), (b"good".to_vec(), Some(HowEnded::Truncated)));
    peer.advance(LINGER_TIME);
    assert!(peer.server.is_closed());
    // The link ends within a frame.
    let (mut peer, id) = start();
    peer.send(&frames(&[b"whole"])[..7]);
    peer.server.handle_eof(peer.now);
    assert_eq!(peer.body(id), (b"who".to_vec(), Some(HowEnded::Truncated)));
    assert!(peer.server.is_closed());
    // Storage fails.
    let (mut peer, id) = start();
    peer.send(frames(&[b"data"]));
    peer.server.fail(peer.now, id, "io: no more");
    assert_eq!(peer.text(), "{\"error\":\"io: no more\"}\n");
    assert!(peer.server.wants_shutdown());
    // Refused, and refused for a body that has no place.
    let mut peer = Peer::new();
    peer.send(upgrade());
    let id = peer.request().id;
    peer.server.refuse(peer.now, id, 409, "another attempt is newer");
    assert!(peer.text().starts_with("HTTP/1.1 409 Conflict\r\n"));
    let mut peer = Peer::new();
    peer.send(upgrade().replace("Host: r", "Content-Length: 4"));
    assert!(peer.text().starts_with("HTTP/1.1 400 "));
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

/// A small generator: the same numbers in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) as usize) % n
    }
}

/// Plays `wire` into a connection in pieces of at most `most` bytes; what was stored, how it ended and what was answered.
fn play(wire: &[u8], most: usize, random: &mut Random) -> (Vec<u8>, Vec<String>, Vec<u8>) {
    let mut peer = Peer::new();
    let (mut stored, mut told, mut answers) = (Vec::new(), Vec::new(), Vec::new());
    let mut received = 0;
    let (mut at, mut stuck) = (0, 0);
    while at < wire.len() && stuck < 3 {
        let piece = &wire[at..wire.len().min(at + 1 + random.below(most))];
        let taken = peer.send(piece);
        at += taken;
        stuck = if taken == 0 { stuck + 1 } else { 0 };
        while let Some(event) = peer.server.poll_event() {
            match event {
                Event::Request(Request { id, kind }) => {
                    told.push(format!("{kind:?}"));
                    peer.server.accept(peer.now, id, Some(0));
                }
                Event::Body { id, len } => {
                    stored.extend_from_slice(peer.server.body(id));
                    received += len;
                    peer.server.consume(peer.now, id, len);
                }
                Event::End { id, how } => {
                    told.push(format!("{how:?}"));
                    peer.server.seal(peer.now, id, received as u64);
                }
            }
        }
        answers.extend(peer.read());
    }
    // Streams that come in one piece are told of before their bodies are.
    told.sort();
    (stored, told, answers)
}

#[test]
fn a_connection_is_the_same_however_its_bytes_are_split() {
    let event = "POST /v2/event HTTP/1.1\r\nContent-Length: 7\r\n\r\n{\"a\":1}";
    let get = "GET / HTTP/1.1\r\n\r\nHEAD /v2/record HTTP/1.1\r\n\r\n";
    let v1 = format!("{V1}5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n");
    let http1 = format!("{get}{event}{v1}{get}{v1}BAD\x01 HTTP/1.1\r\n\r\n").into_bytes();
    let upgraded =
        [upgrade().as_bytes(), &frames(&[b"one", &[7; 3000], b"x"]), &END_FRAME].concat();
    let mut client = Connection::client(&Config::default());
    let mut http2 = Vec::new();
    let mut out = vec![0; 30_000];
    for round in 0..3 {
        let fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "r"),
            (":path", "/v2/record"),
        ];
        let stream = client.open(&fields, false).unwrap();
        for part in [&b"one"[..], &[7; 9000], b"three"] {
            let sent = client.write_data(stream, part, round < 2 && part == b"three", &mut out);
            http2.extend_from_slice(&out[..sent.written]);
        }
    }
    let mut random = Random(3);
    for (wire, stored) in [(&http1, 7 + 6 + 6), (&upgraded, 3004), (&http2, 3 * 9008)] {
        let whole = play(wire, 1_000_000, &mut random);
        assert_eq!(whole.0.len(), stored);
        for most in [1, 2, 7, 30, 500, 5000] {
            let split = play(wire, most, &mut random);
            assert!(split.0 == whole.0, "pieces of {most} are stored otherwise");
            assert_eq!(split.1, whole.1, "pieces of {most}");
            if wire == &http1 {
                let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
                assert_eq!(text(&split.2), text(&whole.2));
            }
        }
    }
}

#[test]
fn random_bytes_and_calls_do_no_harm() {
    let mut random = Random(11);
    let words: Vec<Vec<u8>> = vec![
        V1.into(),
        upgrade().into(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec(),
        b"5\r\nhello\r\n".to_vec(),
        b"0\r\n\r\n".to_vec(),
        vec![0, 0, 0, 4, 1, 2, 3, 4],
        vec![0, 0, 4, 1, 5, 0, 0, 0, 1, 0x83, 0x86, 0x84, 0x41],
        vec![0, 0, 1, 0, 0, 0, 0, 0, 1, 9],
        vec![0xff; 20],
    ];
    for _ in 0..1_000 {
        let mut peer = Peer::new();
        for _ in 0..20 {
            let id = RequestId(random.below(4) as u32);
            match random.below(14) {
                0..=6 => {
                    let mut word = words[random.below(words.len())].clone();
                    if random.below(4) == 0 {
                        let at = random.below(word.len());
                        word[at] ^= 1 << random.below(8);
                    }
                    peer.send(&word[..1 + random.below(word.len())]);
                }
                7 => peer.server.accept(peer.now, id, Some(random.below(9) as u64)),
                8 => peer.server.refuse(peer.now, id, 503, "no"),
                9 => peer.server.seal(peer.now, id, 5),
                10 => peer.server.fail(peer.now, id, "io"),
                11 => peer.advance(Span(random.below(20_000_000) as u64)),
                12 => peer.server.handle_eof(peer.now),
                _ => {
                    peer.server.drain(peer.now, id);
                    peer.server.consume(peer.now, id, random.below(9));
                    peer.server.shutdown(peer.now);
                }
            }
            for _ in 0..10 {
                let _ = peer.server.poll_event();
            }
            assert!(peer.read().len() < 100_000);
        }
        peer.server.handle_lost();
        while let Some(event) = peer.server.poll_event() {
            if let Event::Body { id, len } = event {
                peer.server.consume(peer.now, id, len);
            }
        }
        assert!(peer.server.is_closed());
    }
}
