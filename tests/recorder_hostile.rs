//! Bad input to the recorder's port: a clear answer, nothing lost beside it, no panic, no hang.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

#[path = "recorder_support/mod.rs"]
mod support;

use std::io::{Read, Write};
use std::time::Duration;

use support::*;

/// The recorder is unharmed: a whole upload works.
fn works(address: std::net::SocketAddr) {
    let head = upload_v1(&mut connect(address), &cast(2000));
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
}

#[test]
fn garbage_is_answered_and_closed() {
    let dir = Temp::new("garbage");
    let (_recorder, address) = start(&dir, |_| {});
    for garbage in [
        &b"\0\0\0\0\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"POST /record HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        b"POST /record HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /record HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"\xff\xfe\xfd\xfc\r\n\r\n",
    ] {
        let answer = exchange(address, garbage);
        // To what does not even name HTTP an answer in HTTP says nothing.
        let http = garbage.windows(6).any(|w| w == b" HTTP/");
        assert!(
            answer.starts_with("HTTP/1.1 400") || (!http && answer.is_empty()),
            "{garbage:?}: {answer:?}"
        );
    }
    // A preface and then nothing that is HTTP/2: GOAWAY or a close, not silence.
    let answer =
        exchange(address, &[&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &[0xff; 64]].concat());
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer:?}");
    works(address);
}

#[test]
fn a_chunk_that_is_none_keeps_what_came_before() {
    let dir = Temp::new("chunk");
    let (_recorder, address) = start(&dir, |c| c.resume_window = Duration::ZERO);
    let mut tcp = connect(address);
    assert!(begin_v1(&mut tcp).starts_with("HTTP/1.1 100"));
    let body = cast(500);
    write_chunk(&mut tcp, &body);
    tcp.write_all(b"zz\r\nnonsense").unwrap();
    let mut answer = String::new();
    let _ = tcp.read_to_string(&mut answer);
    assert!(!answer.contains("200 OK"), "{answer}");
    let (bytes, sidecar) = only_recording(&dir.join("dst"));
    assert_eq!(bytes, body);
    assert_eq!(sidecar["how"], "truncated");
    works(address);
}

#[test]
fn heads_that_are_too_large_or_too_slow() {
    let dir = Temp::new("heads");
    let (_recorder, address) = start(&dir, |c| c.head_time = Duration::from_millis(300));
    let mut huge = b"POST /record HTTP/1.1\r\nHost: a\r\nX: ".to_vec();
    huge.resize(64 * 1024, b'x');
    let answer = exchange(address, &huge);
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer:?}");
    let mut many = b"POST /record HTTP/1.1\r\n".to_vec();
    for n in 0..200 {
        many.extend_from_slice(format!("X-{n}: y\r\n").as_bytes());
    }
    many.extend_from_slice(b"\r\n");
    let answer = exchange(address, &many);
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer:?}");
    // One byte now and then does not keep the connection: the deadline is for the head as a whole.
    let mut tcp = connect(address);
    tcp.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut answer = Vec::new();
    eventually("an answer to a slow head", || {
        let _ = tcp.write_all(b"G");
        let mut buf = [0; 512];
        match tcp.read(&mut buf) {
            Ok(0) => Some(()),
            Ok(n) => {
                answer.extend_from_slice(&buf[..n]);
                None
            }
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => None,
            Err(_) => Some(()),
        }
    });
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    works(address);
}

#[test]
fn a_silent_connection_is_closed() {
    let dir = Temp::new("idle");
    let (_recorder, address) = start(&dir, |c| c.idle_time = Duration::from_millis(200));
    let mut tcp = connect(address);
    let mut answer = String::new();
    let _ = tcp.read_to_string(&mut answer);
    assert_eq!(answer, "");
}

#[test]
fn wrong_methods_paths_and_browsers() {
    let dir = Temp::new("paths");
    let (_recorder, address) = start(&dir, |_| {});
    let h1 = |line: &str, more: &str| {
        exchange(
            address,
            format!("{line} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{more}\r\n").as_bytes(),
        )
    };
    assert!(h1("GET /", "").contains("castkeep"));
    assert!(h1("GET /../../etc/passwd", "").starts_with("HTTP/1.1 404"));
    let answer = h1("DELETE /record", "");
    assert!(answer.starts_with("HTTP/1.1 405") && answer.contains("Allow: POST"), "{answer}");
    assert!(h1("HEAD /v2/record", "").starts_with("HTTP/1.1 505"));
    let answer = h1("POST /record", "Content-Length: 3\r\nOrigin: https://evil.example\r\n");
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    let answer = h1("POST /record", "Content-Length: 3\r\nSec-Fetch-Site: none\r\n");
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    let mut h2 = H2::new(connect(address));
    let get = h2.open("GET", "/", &[], true);
    let delete = h2.open("DELETE", "/v2/record", &[], true);
    let nowhere = h2.open("POST", "/v3/record", &[], true);
    let browser = h2.open("POST", "/v2/record", &[("origin", "https://evil.example")], true);
    let broken = h2.open("POST", "/v2/record", &[("castkeep-recording", "../..")], true);
    assert_eq!(h2.status(get), 200);
    assert_eq!(h2.status(delete), 405);
    assert_eq!(h2.status(nowhere), 404);
    assert_eq!(h2.status(browser), 403);
    assert_eq!(h2.status(broken), 400);
    assert!(files(&dir.join("dst"), ".cast").is_empty());
}

#[test]
fn past_the_bound_there_is_a_503_and_not_a_hang() {
    let dir = Temp::new("bound");
    let (_recorder, address) = start(&dir, |c| c.max_connections = 2);
    let (mut one, mut two) = (connect(address), connect(address));
    assert!(begin_v1(&mut one).starts_with("HTTP/1.1 100"));
    assert!(begin_v1(&mut two).starts_with("HTTP/1.1 100"));
    let mut third = connect(address);
    let head = begin_v1(&mut third);
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    let mut h2 = H2::new(connect(address));
    let probe = h2.open("HEAD", "/v2/record", &[], true);
    assert_eq!(h2.status(probe), 503);
    // And far past it too, where there is no thread for it any more.
    let many: Vec<_> = (0..100).map(|_| connect(address)).collect();
    let mut last = connect(address);
    let mut answer = String::new();
    let _ = last.write_all(b"POST /record HTTP/1.1\r\nHost: a\r\n\r\n");
    let _ = last.read_to_string(&mut answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 503"), "{answer}");
    drop((many, third, h2));
    write_chunk(&mut one, &cast(100));
    one.write_all(b"0\r\n\r\n").unwrap();
    assert!(read_head(&mut one).starts_with("HTTP/1.1 200"));
    drop(one);
    eventually("a place that became free", || {
        let head = begin_v1(&mut connect(address));
        head.starts_with("HTTP/1.1 100").then_some(())
    });
}

#[test]
fn peers_that_may_not_upload_get_403() {
    let dir = Temp::new("allow");
    let (_recorder, address) =
        start(&dir, |c| c.allow_upload = Some("192.0.2.0/24".parse().unwrap()));
    let head = begin_v1(&mut connect(address));
    assert!(head.starts_with("HTTP/1.1 403"), "{head}");
    let mut h2 = H2::new(connect(address));
    let post = h2.open("POST", "/v2/record", &[], false);
    assert_eq!(h2.status(post), 403);
    // Headers alone: with a body the stock client would never get to its next recorder.
    let alone = |s: &Said| matches!(s, Said::Headers { stream, end: true, .. } if *stream == post);
    assert!(h2.said.iter().any(alone), "{:?}", h2.said);
    let post = h2.open("POST", "/v2/record", &Resume::new(1, 1, 0).fields(), false);
    assert_eq!(h2.status(post), 403);
    h2.until_text(post, "may not upload");
    assert!(files(&dir.join("dst"), ".cast").is_empty());
}

#[test]
fn peers_that_may_not_upload_take_no_places() {
    let dir = Temp::new("strangers");
    let (_recorder, address) = start(&dir, |c| {
        c.allow_upload = Some("127.0.0.1/32".parse().unwrap());
        c.max_connections = 3;
    });
    let connect_as_stranger = || {
        use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&socket, &"127.0.0.2:0".parse::<std::net::SocketAddr>().unwrap()).unwrap();
        connect(&socket, &address).unwrap();
        let tcp = std::net::TcpStream::from(socket);
        tcp.set_read_timeout(Some(GUARD)).unwrap();
        tcp
    };
    // Many that say nothing, far more than there are places.
    let mut silent: Vec<_> = (0..100).map(|_| connect_as_stranger()).collect();
    works(address);
    // Within the bound for them they are told, and none of them is kept for long.
    let mut asking = connect_as_stranger();
    let _ = asking.write_all(b"POST /record HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut answer = String::new();
    let _ = asking.read_to_string(&mut answer);
    assert!(!answer.contains(" 100 ") && !answer.contains(" 200 "), "{answer}");
    for tcp in &mut silent {
        let _ = tcp.read_to_end(&mut Vec::new());
    }
    drop(silent);
    eventually("a 403 for one that asks", || {
        let head = begin_v1(&mut connect_as_stranger());
        head.starts_with("HTTP/1.1 403").then_some(())
    });
}

#[test]
fn a_body_that_is_no_cast_is_kept_as_it_is() {
    let dir = Temp::new("nocast");
    let (_recorder, address) = start(&dir, |_| {});
    let mut body = vec![0u8, 0xff, 0x1b];
    body.resize(3 << 20, b'x');
    let head = upload_v1(&mut connect(address), &body);
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let (bytes, _) = only_recording(&dir.join("dst"));
    assert!(bytes == body);
}

#[test]
fn a_panic_ends_one_connection_only() {
    let dir = Temp::new("panic");
    let (_recorder, address) = start(&dir, |c| {
        c.panic_at = Some(700);
        c.resume_window = Duration::ZERO;
    });
    let mut other = H2::new(connect(address));
    let post = other.open("POST", "/v2/record", &[], false);
    assert_eq!(other.status(post), 200);
    let mut tcp = connect(address);
    assert!(begin_v1(&mut tcp).starts_with("HTTP/1.1 100"));
    write_chunk(&mut tcp, &cast(600));
    write_chunk(&mut tcp, &cast(600));
    let mut answer = String::new();
    let _ = tcp.read_to_string(&mut answer);
    assert_eq!(answer, "");
    let sidecar = eventually("the part closed", || files(&dir.join("dst"), ".json").pop());
    let sidecar: serde_json::Value =
        serde_json::from_slice(&std::fs::read(sidecar).unwrap()).unwrap();
    assert_eq!(sidecar["how"], "truncated");
    other.send(post, &cast(500), true);
    assert!(other.until_end(post).contains("\"ack\":"));
}
