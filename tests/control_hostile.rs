//! Control against those who do not keep to the protocol. Whatever they do, a node gets its policy.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

#[path = "control_support/mod.rs"]
mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use castkeep::control::http_client::HttpError;
use support::*;

const POLICY_PATH: &str = "/castkeep/1/policy";

fn still_serves(site: &Site, control: &Running) {
    assert_eq!(get(&site.client(control.address(), "n2-node"), POLICY_PATH).status, 200);
}

#[test]
fn what_is_no_request_is_refused_in_its_own_words() {
    let site = Site::new("malformed");
    let control = site.start();
    let address = control.address();
    let known = "Authorization: Bearer n2-node\r\n";
    let long = format!("GET /{} HTTP/1.1\r\nHost: c\r\n\r\n", "a".repeat(20_000));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(100));
    for (request, status) in [
        ("nonsense\r\n\r\n".to_owned(), 400),
        ("\u{16}\u{3}\u{1}\0\u{5}hello hello hello\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/2.0\r\n\r\n".to_owned(), 505),
        (long, 431),
        (many, 431),
        (format!("GET {POLICY_PATH} HTTP/1.1\r\nHost: c\r\n{known}Content-Length: x\r\n\r\n"), 400),
        (
            format!(
                "POST /castkeep/1/notify HTTP/1.1\r\nHost: c\r\n{known}Content-Length: 10485760\r\n\r\n{}",
                "x".repeat(1 << 20)
            ),
            413,
        ),
        (
            format!(
                "POST /castkeep/1/notify HTTP/1.1\r\nHost: c\r\n{known}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
            ),
            400,
        ),
        (
            format!(
                "POST /castkeep/1/notify HTTP/1.1\r\nHost: c\r\n{known}Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n"
            ),
            400,
        ),
        (format!("PUT {POLICY_PATH} HTTP/1.1\r\nHost: c\r\nConnection: close\r\n{known}\r\n"), 405),
        (
            format!(
                "GET /castkeep/1/../etc/passwd HTTP/1.1\r\nHost: c\r\nConnection: close\r\n{known}\r\n"
            ),
            404,
        ),
        (
            format!(
                "GET {POLICY_PATH}?wait=-1 HTTP/1.1\r\nHost: c\r\nConnection: close\r\n{known}\r\n"
            ),
            400,
        ),
        // Before its body is looked at, it must be somebody's.
        (
            "POST /castkeep/1/notify HTTP/1.1\r\nHost: c\r\nContent-Length: 10485760\r\n\r\n"
                .to_owned(),
            401,
        ),
    ] {
        let answer = exchange(address, request.as_bytes());
        let first = request.lines().next().unwrap_or_default();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{:.80}: {answer}", first);
    }
    // JSON that is deep.
    let deep = format!("{{\"EventType\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let request = format!(
        "POST /castkeep/1/notify HTTP/1.1\r\nHost: c\r\nConnection: close\r\n{known}Content-Length: {}\r\n\r\n{deep}",
        deep.len()
    );
    let answer = exchange(address, request.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    // A body without end, chunk by chunk.
    let mut tcp = connect(address);
    write!(
        tcp,
        "POST /castkeep/1/notify HTTP/1.1\r\nHost: c\r\n{known}Transfer-Encoding: chunked\r\n\r\n"
    )
    .unwrap();
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(4096));
    while tcp.write_all(chunk.as_bytes()).is_ok() {}
    let mut answer = String::new();
    let _ = tcp.read_to_string(&mut answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 413 "), "{answer}");
    still_serves(&site, &control);
}

#[test]
fn half_a_head_and_silence_cost_their_senders_only() {
    let site = Site::new("half");
    let control = site.start_with(|c| c.head_time = Duration::from_millis(200));
    let mut half = connect(control.address());
    half.write_all(b"GET /castkeep/1/policy HTTP/1.1\r\nHost").unwrap();
    let mut silent = connect(control.address());
    let mut answer = String::new();
    half.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    answer.clear();
    silent.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "");
    still_serves(&site, &control);
}

#[test]
fn strangers_without_end_do_not_keep_a_node_out() {
    let site = Site::new("flood");
    let control = site.start();
    let node = site.client(control.address(), "n2-node");
    assert_eq!(get(&node, POLICY_PATH).status, 200);
    // Far more than one address may have; each holds on for as long as it is let.
    let flood: Vec<TcpStream> =
        (0..200).filter_map(|_| TcpStream::connect(control.address()).ok()).collect();
    eventually("refusals", || (control.metric("connections_refused_total") > 100).then_some(()));
    assert!(control.metric("connections") < 100);
    // The node's connection is not theirs to take.
    assert_eq!(get(&node, POLICY_PATH).status, 200);
    // Nor does somebody at another address feel it.
    let mut other = from_address(Ipv4Addr::new(127, 0, 0, 2), control.address());
    let request = format!(
        "GET {POLICY_PATH} HTTP/1.1\r\nHost: c\r\nConnection: close\r\nAuthorization: Bearer n4-node\r\n\r\n"
    );
    other.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    other.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    drop(flood);
    eventually("room again", || {
        let again =
            site.client(control.address(), "n2-node").get(POLICY_PATH, None, GUARD, 1 << 20);
        again.is_ok_and(|a| a.status == 200).then_some(())
    });
}

#[test]
fn one_node_cannot_take_what_belongs_to_all() {
    let site = Site::new("greedy");
    let control = site.start();
    // Connections of one identity.
    let request =
        format!("GET {POLICY_PATH} HTTP/1.1\r\nHost: c\r\nAuthorization: Bearer n2-node\r\n\r\n");
    let mut held = Vec::new();
    let mut refused = 0;
    for _ in 0..30 {
        let mut tcp = connect(control.address());
        tcp.write_all(request.as_bytes()).unwrap();
        let mut status = [0; 12];
        tcp.read_exact(&mut status).unwrap();
        match &status {
            b"HTTP/1.1 200" => held.push(tcp),
            b"HTTP/1.1 429" => refused += 1,
            other => panic!("{:?}", other.escape_ascii().to_string()),
        }
    }
    assert!(held.len() >= 4 && refused > 10, "{} and {refused}", held.len());
    assert_eq!(get(&site.client(control.address(), "n4-node"), POLICY_PATH).status, 200);
    drop(held);
    // Requests, one behind the other.
    let mut tcp = eventually("its place back", || {
        let mut tcp = connect(control.address());
        tcp.write_all(request.as_bytes()).unwrap();
        let mut status = [0; 12];
        tcp.read_exact(&mut status).unwrap();
        (&status == b"HTTP/1.1 200").then_some(tcp)
    });
    tcp.write_all(request.repeat(500).as_bytes()).unwrap();
    let mut answers = String::new();
    let _ = tcp.read_to_string(&mut answers);
    assert!(answers.contains("HTTP/1.1 429 "), "no bound");
    assert!(answers.contains("HTTP/1.1 200 "));
    assert_eq!(get(&site.client(control.address(), "n4-node"), POLICY_PATH).status, 200);
}

#[test]
fn a_node_that_vanishes_while_it_waits_is_noticed() {
    let site = Site::new("vanish");
    let control = site.start();
    let etag = get(&site.client(control.address(), "n2-node"), POLICY_PATH).etag.unwrap();
    let mut tcp = connect(control.address());
    write!(
        tcp,
        "GET {POLICY_PATH}?wait=55 HTTP/1.1\r\nHost: c\r\nAuthorization: Bearer n2-node\r\nIf-None-Match: {etag}\r\n\r\n"
    )
    .unwrap();
    eventually("one that waits", || (control.metric("waiting") == 1).then_some(()));
    drop(tcp);
    eventually("none that waits", || (control.metric("waiting") == 0).then_some(()));
}

#[test]
fn the_client_has_bounds_of_its_own() {
    let site = Site::new("client");
    let control = site.start();
    let node = site.client(control.address(), "n2-node");
    assert_eq!(node.get(POLICY_PATH, None, GUARD, 100), Err(HttpError::TooBig));
    let etag = get(&node, POLICY_PATH).etag.unwrap();
    let short = Duration::from_millis(50);
    let late = node.get(&format!("{POLICY_PATH}?wait=55"), Some(&etag), short, 1 << 20);
    assert_eq!(late, Err(HttpError::TimedOut));
    // A wait can be ended from another thread.
    let waiting = poll(&node, &etag);
    eventually("one that waits", || (control.metric("waiting") == 1).then_some(()));
    node.shutdown();
    assert!(matches!(waiting.join().unwrap(), Err(HttpError::Link(_) | HttpError::Protocol(_))));

    // Servers that hang, say nothing, or say half of it.
    for said in [
        "",
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nContent-Len",
        "no HTTP\r\n\r\n",
    ] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = site.client(listener.local_addr().unwrap(), "n2-node");
        let server = std::thread::spawn(move || {
            let (mut tcp, _) = listener.accept().unwrap();
            let mut head = [0; 512];
            let _ = tcp.read(&mut head);
            tcp.write_all(said.as_bytes()).unwrap();
        });
        let answer = client.get(POLICY_PATH, None, GUARD, 1 << 20);
        assert!(answer.is_err(), "{said:?}: {answer:?}");
        server.join().unwrap();
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let hangs = site.client(listener.local_addr().unwrap(), "n2-node");
    assert_eq!(hangs.get(POLICY_PATH, None, short, 1 << 20), Err(HttpError::TimedOut));
}

fn from_address(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let fd = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&fd, &SocketAddr::from((from, 0))).unwrap();
    connect(&fd, &to).unwrap();
    let tcp = TcpStream::from(fd);
    tcp.set_read_timeout(Some(GUARD)).unwrap();
    tcp
}
