//! The client of Tailscale's LocalAPI against a stand-in that answers well, badly, slowly and not at all.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

#[path = "localapi_support/mod.rs"]
mod localapi;
#[path = "recorder_support/mod.rs"]
#[allow(unused_imports)]
mod support;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use castkeep::limits;
use castkeep::localapi::{LocalApi, LocalApiError};
use localapi::{LocalApiServer, Mode, Peer};
use support::{GUARD, Temp};

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn stand_in(name: &str) -> (Temp, LocalApiServer, LocalApi) {
    let dir = Temp::new(name);
    let server = LocalApiServer::start(&dir.join("tailscaled.sock"));
    server.add(&Peer::new("nA1CNTRL", "100.64.0.5"));
    server.add(&Peer::tagged("nB2CNTRL", "fd7a:115c:a1e0::9", "tag:prod"));
    let api = LocalApi::new(server.path());
    (dir, server, api)
}

#[test]
fn peers_are_known_by_both_families_and_strangers_are_nobody() {
    let (_dir, server, api) = stand_in("whois");
    for mode in [Mode::Honest, Mode::Chunked, Mode::UntilClose] {
        server.set_mode(mode);
        let alice = api.whois(at("100.64.0.5:40022"), GUARD).unwrap().unwrap();
        assert_eq!(alice.id, "nA1CNTRL");
        assert_eq!(alice.name, "na1cntrl.tail1.ts.net");
        assert_eq!(alice.user.unwrap().login, "alice@example.com");
        let mapped = api.whois(at("[::ffff:100.64.0.5]:40022"), GUARD).unwrap().unwrap();
        assert_eq!(mapped.id, "nA1CNTRL");
        let tagged = api.whois(at("[fd7a:115c:a1e0::9]:1"), GUARD).unwrap().unwrap();
        assert_eq!((tagged.tags, tagged.user), (vec!["tag:prod".to_owned()], None));
        assert_eq!(api.whois(at("100.64.0.6:1"), GUARD).unwrap(), None);
    }
    // What tailscaled passes on from loopback is told apart by the port.
    server.add_at("127.0.0.1:4000", &Peer::new("nC3CNTRL", "100.64.0.7"));
    assert_eq!(api.whois(at("127.0.0.1:4000"), GUARD).unwrap().unwrap().id, "nC3CNTRL");
    assert_eq!(api.whois(at("127.0.0.1:4001"), GUARD).unwrap(), None);
}

#[test]
fn no_answer_has_an_end_and_a_restart_is_nothing() {
    let (_dir, mut server, api) = stand_in("silent");
    let ask = |ms| api.whois(at("100.64.0.5:1"), Duration::from_millis(ms));
    for mode in [Mode::Silent, Mode::Slow(Duration::from_millis(20))] {
        server.set_mode(mode.clone());
        let begun = Instant::now();
        assert!(matches!(ask(150), Err(LocalApiError::TimedOut)), "{mode:?}");
        assert!(begun.elapsed() < GUARD, "{mode:?}");
    }
    server.set_mode(Mode::Honest);
    server.stop();
    let error = ask(2_000).unwrap_err();
    assert!(matches!(error, LocalApiError::Unreachable(_)));
    assert!(error.to_string().contains("does tailscaled run?"), "{error}");
    server.start_again();
    assert!(ask(30_000).unwrap().is_some());
    // Nobody takes connections: connect(2) itself would block once the queue is full.
    let path = server.path().with_extension("full");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let full = LocalApi::new(&path);
    let mut held = Vec::new();
    let timed_out = loop {
        let fd = rustix::net::socket_with(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::STREAM,
            rustix::net::SocketFlags::NONBLOCK,
            None,
        )
        .unwrap();
        let address = rustix::net::SocketAddrUnix::new(&path).unwrap();
        match rustix::net::connect(&fd, &address) {
            Ok(()) => held.push(fd),
            Err(_) => break full.whois(at("100.64.0.5:1"), Duration::from_millis(100)),
        }
    };
    assert!(matches!(timed_out, Err(LocalApiError::TimedOut)), "{timed_out:?}");
    drop((listener, held));
}

#[test]
fn half_an_answer_and_garbage_are_errors_and_no_identity() {
    let (_dir, server, api) = stand_in("garbage");
    let ask = || api.whois(at("100.64.0.5:1"), GUARD);
    server.set_mode(Mode::Honest);
    let whole = ask().unwrap().unwrap();
    let json = Peer::new("nA1CNTRL", "100.64.0.5").json();
    let head = format!(
        "HTTP/1.1 200 X\r\nTailscale-Version: 1.0-test\r\nContent-Length: {}\r\n\r\n",
        json.len()
    );
    for at in [0, 1, 9, 20, head.len() - 1, head.len(), head.len() + 1, head.len() + json.len() - 1]
    {
        server.set_mode(Mode::Cut(at));
        assert!(matches!(ask(), Err(LocalApiError::Broken(_))), "cut at {at}");
    }
    server.set_mode(Mode::Cut(head.len() + json.len()));
    assert_eq!(ask().unwrap().unwrap(), whole);
    let http = |head: &str, body: &str| {
        Mode::Raw(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}").into_bytes())
    };
    let huge = "x".repeat(limits::WHOIS_BYTES + 1);
    for (what, mode) in [
        ("another protocol", Mode::Raw(b"SSH-2.0-dropbear\r\n".to_vec())),
        ("HTTP/2", Mode::Raw(b"\0\0\x12\x04\0\0\0\0\0".to_vec())),
        ("two lengths", http("Content-Length: 2\r\nContent-Length: 3", "{}")),
        ("length and chunks", http("Content-Length: 2\r\nTransfer-Encoding: chunked", "{}")),
        ("compressed", http("Transfer-Encoding: gzip", "{}")),
        ("a chunk size that is none", http("Transfer-Encoding: chunked", "zz\r\n{}\r\n0\r\n\r\n")),
        ("chunks without an end", http("Transfer-Encoding: chunked", "2\r\n{}\r\n")),
        ("a promise of too much", http("Content-Length: 99999999999", "{}")),
        ("too much without a promise", http("X: y", &huge)),
        ("a head without end", Mode::Raw(format!("HTTP/1.1 200 OK\r\nX: {huge}").into_bytes())),
    ] {
        server.set_mode(mode);
        let error = ask().unwrap_err();
        assert!(matches!(error, LocalApiError::Broken(_)), "{what}: {error}");
    }
    for body in ["", "{}", "null", "{\"Node\":{}}", "[[", "\u{1}"] {
        server.set_mode(http(&format!("Content-Length: {}", body.len()), body));
        assert!(matches!(ask(), Err(LocalApiError::Unusable(_))), "{body}");
    }
    // A 404 from something else does not mean that the peer is unknown.
    server.set_mode(Mode::Status(404, "404 page not found"));
    assert!(matches!(ask(), Err(LocalApiError::Refused { status: 404, .. })));
    server.set_mode(Mode::Status(500, "no \u{1b}[2J netmap"));
    assert!(!ask().unwrap_err().to_string().contains('\u{1b}'));
}

#[test]
fn status_and_certificates() {
    let (_dir, server, api) = stand_in("others");
    server.set_status("{\"Self\":{\"ID\":\"nS\"},\"Peer\":{}}");
    server.set_mode(Mode::Chunked);
    assert_eq!(api.status().unwrap(), "{\"Self\":{\"ID\":\"nS\"},\"Peer\":{}}");
    let chain = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let key = "-----BEGIN PRIVATE KEY-----\nBBBB\n-----END PRIVATE KEY-----\n";
    server.set_certificate("rec.tail1.ts.net", chain, key);
    let got = api.certificate("rec.tail1.ts.net", GUARD).unwrap();
    assert_eq!(got, (chain.as_bytes().to_vec(), key.as_bytes().to_vec()));
    let error = api.certificate("other.tail1.ts.net", GUARD).unwrap_err().to_string();
    assert!(error.contains("500") && error.contains("invalid domain"), "{error}");
    server.set_mode(Mode::Status(403, "cert access denied"));
    let error = api.certificate("rec.tail1.ts.net", GUARD).unwrap_err().to_string();
    assert!(error.contains("cert access denied"), "{error}");
}
