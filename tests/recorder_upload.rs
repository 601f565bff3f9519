//! Uploads over real sockets: every protocol, resume, supersession, events, drain.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

#[path = "recorder_support/mod.rs"]
mod support;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use support::*;

#[test]
fn v1_is_answered_once_it_is_stored() {
    let dir = Temp::new("v1");
    let (_recorder, address) = start(&dir, |_| {});
    let body = cast(100_000);
    let mut tcp = connect(address);
    let head = upload_v1(&mut tcp, &body);
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let (bytes, sidecar) = only_recording(&dir.join("dst"));
    assert!(bytes == body);
    assert_eq!(sidecar["protocol"], "v1");
    assert_eq!(sidecar["how"], "sealed");
    assert_eq!(sidecar["node"], "127.0.0.1");
    assert_eq!(sidecar["peer"]["address"], tcp.local_addr().unwrap().to_string());
}

#[test]
fn a_client_without_expect_and_with_a_length_is_served_too() {
    let dir = Temp::new("length");
    let (_recorder, address) = start(&dir, |_| {});
    let body = cast(5_000);
    let mut request =
        format!("POST /record HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len())
            .into_bytes();
    request.extend_from_slice(&body);
    let mut tcp = connect(address);
    tcp.write_all(&request).unwrap();
    assert!(read_head(&mut tcp).starts_with("HTTP/1.1 200"));
    assert!(only_recording(&dir.join("dst")).0 == body);
}

#[test]
fn v2_of_a_stock_client() {
    let dir = Temp::new("v2");
    let (_recorder, address) = start(&dir, |_| {});
    let body = cast(1 << 20);
    let mut h2 = H2::new(connect(address));
    let probe = h2.open("HEAD", "/v2/record", &[], true);
    assert_eq!(h2.status(probe), 200);
    let post = h2.open("POST", "/v2/record", &[("user-agent", "Go-http-client/2.0")], false);
    // The answer's head comes before any body.
    assert_eq!(h2.status(post), 200);
    h2.send(post, &body[..5000], false);
    h2.send(post, &body[5000..], true);
    let text = h2.until_end(post);
    assert_eq!(last_number(&text, "ack"), Some(body.len() as u64), "{text}");
    assert!(!text.contains("commit") && !text.contains("sealed"), "{text}");
    let (bytes, sidecar) = only_recording(&dir.join("dst"));
    assert!(bytes == body);
    assert_eq!(sidecar["protocol"], "v2");
}

#[test]
fn an_idle_v2_upload_is_acked_all_the_same() {
    let dir = Temp::new("idleack");
    let (_recorder, address) = start(&dir, |_| {});
    let mut h2 = H2::new(connect(address));
    let resume = Resume::new(9, 1, 0);
    let post = h2.open("POST", "/v2/record", &resume.fields(), false);
    h2.send(post, &cast(300), false);
    h2.until("three acks", |said| {
        let acks =
            said.iter().filter(|s| matches!(s, Said::Data { text, .. } if text.contains("ack")));
        (acks.count() >= 4).then_some(())
    });
}

#[test]
fn v2_with_commit_tells_what_is_durable_and_seals() {
    let dir = Temp::new("commit");
    let (_recorder, address) = start(&dir, |_| {});
    let body = cast(200_000);
    let mut h2 = H2::new(connect(address));
    let probe = h2.open("HEAD", "/v2/record", &[], true);
    assert_eq!(h2.field(probe, "castkeep-features").as_deref(), Some("commit, resume"));
    assert_eq!(h2.field(probe, "castkeep-ack-ms").as_deref(), Some("1000"));
    let resume = Resume::new(1, 1, 0);
    let post = h2.open("POST", "/v2/record", &resume.fields(), false);
    assert_eq!(h2.field(post, "castkeep-commit").as_deref(), Some("0"));
    h2.send(post, &body[..100_000], false);
    h2.until_text(post, "\"commit\":100000");
    h2.send(post, &body[100_000..], true);
    let text = h2.until_end(post);
    assert!(
        text.contains("\"sealed\":") && last_number(&text, "sealed") == Some(body.len() as u64),
        "{text}"
    );
    let (bytes, sidecar) = only_recording(&dir.join("dst"));
    assert!(bytes == body);
    assert_eq!(sidecar["recording"], resume.id);
    assert_eq!(sidecar["protocol"], "v2+commit");
}

#[test]
fn a_lost_connection_goes_on_where_it_was() {
    let dir = Temp::new("resume");
    let (_recorder, address) = start(&dir, |_| {});
    let body = cast(50_000);
    let cut = 20_000 + body[20_000..].iter().position(|b| *b == b'\n').unwrap() + 1;
    let mut h2 = H2::new(connect(address));
    let first = Resume::new(2, 1, 0);
    let post = h2.open("POST", "/v2/record", &first.fields(), false);
    h2.send(post, &body[..cut + 7], false);
    h2.until_text(post, &format!("\"commit\":{}", cut + 7));
    drop(h2);
    let again = Resume::new(2, 2, cut as u64);
    let mut h2 = H2::new(connect(address));
    let post = h2.open("POST", "/v2/record", &again.fields(), false);
    // This recorder holds more than the client asks for.
    assert_eq!(h2.field(post, "castkeep-commit"), Some((cut + 7).to_string()));
    h2.send(post, &continuation(&body, &again.id, cut), true);
    let text = h2.until_end(post);
    assert_eq!(last_number(&text, "sealed"), Some(body.len() as u64), "{text}");
    let (bytes, sidecar) = only_recording(&dir.join("dst"));
    assert!(bytes == body);
    assert_eq!(sidecar["connections"], 2);
    assert_eq!(sidecar["attempt"], 2);
}

#[test]
fn a_wrong_secret_and_an_old_attempt_are_refused() {
    let dir = Temp::new("secret");
    let (_recorder, address) = start(&dir, |_| {});
    let mut h2 = H2::new(connect(address));
    let mine = Resume::new(3, 5, 0);
    let post = h2.open("POST", "/v2/record", &mine.fields(), false);
    assert_eq!(h2.status(post), 200);
    h2.send(post, &cast(1000), false);
    let thief = Resume { secret: "ab".repeat(16), attempt: "6".into(), ..Resume::new(3, 6, 0) };
    let other = h2.open("POST", "/v2/record", &thief.fields(), false);
    assert_eq!(h2.status(other), 403);
    let old = Resume::new(3, 5, 0);
    let other = h2.open("POST", "/v2/record", &old.fields(), false);
    assert_eq!(h2.status(other), 409);
    // The upload that is right does not notice.
    h2.send(post, &cast(1000)[..0], true);
    assert!(h2.until_end(post).contains("sealed"));
}

#[test]
fn two_live_posts_with_one_id_end_as_one() {
    let dir = Temp::new("two");
    let (_recorder, address) = start(&dir, |_| {});
    let body = cast(30_000);
    let mut one = H2::new(connect(address));
    let first = Resume::new(4, 1, 0);
    let post = one.open("POST", "/v2/record", &first.fields(), false);
    one.send(post, &body[..10_000], false);
    one.until_text(post, "\"commit\":10000");
    let mut two = H2::new(connect(address));
    let second = Resume::new(4, 2, 0);
    let again = two.open("POST", "/v2/record", &second.fields(), false);
    assert_eq!(two.field(again, "castkeep-commit").as_deref(), Some("10000"));
    let text = one.until_end(post);
    assert!(text.contains("{\"error\":\"superseded"), "{text}");
    two.send(again, &body, true);
    assert!(two.until_end(again).contains("sealed"));
    let (bytes, _) = only_recording(&dir.join("dst"));
    assert!(bytes == body);
}

#[test]
fn bytes_that_differ_are_a_conflict() {
    let dir = Temp::new("conflict");
    let (_recorder, address) = start(&dir, |c| c.resume_window = Duration::ZERO);
    let body = cast(5_000);
    let mut h2 = H2::new(connect(address));
    let post = h2.open("POST", "/v2/record", &Resume::new(5, 1, 0).fields(), false);
    h2.send(post, &body, false);
    h2.until_text(post, &format!("\"commit\":{}", body.len()));
    let mut lie = body.clone();
    lie[3_000] ^= 1;
    let again = h2.open("POST", "/v2/record", &Resume::new(5, 2, 0).fields(), false);
    assert_eq!(h2.status(again), 200);
    h2.send(again, &lie, false);
    let text = h2.until_end(again);
    assert!(text.contains("{\"error\":\"conflict"), "{text}");
    let (bytes, sidecar) = only_recording(&dir.join("dst"));
    assert!(bytes == body);
    assert_eq!(sidecar["conflict"], 3_000);
}

/// `POST /castkeep/1/record`; the socket behind the 101.
fn upgrade(address: SocketAddr, resume: &Resume) -> (std::net::TcpStream, String) {
    let mut tcp = connect(address);
    let mut head = String::from(
        "POST /castkeep/1/record HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: castkeep/1\r\n",
    );
    for (name, value) in resume.fields() {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    tcp.write_all(head.as_bytes()).unwrap();
    let answer = read_head(&mut tcp);
    (tcp, answer)
}

#[test]
fn the_extension_over_http_1() {
    let dir = Temp::new("upgrade");
    let (_recorder, address) = start(&dir, |_| {});
    let body = cast(40_000);
    let (mut tcp, head) = upgrade(address, &Resume::new(6, 1, 0));
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert!(head.to_lowercase().contains("castkeep-commit: 0"), "{head}");
    for piece in body.chunks(7_000) {
        tcp.write_all(&(piece.len() as u32).to_be_bytes()).unwrap();
        tcp.write_all(piece).unwrap();
    }
    tcp.write_all(&[0; 4]).unwrap();
    let mut text = String::new();
    tcp.read_to_string(&mut text).unwrap();
    assert!(text.ends_with(&format!("{{\"sealed\":{}}}\n", body.len())), "{text}");
    assert!(only_recording(&dir.join("dst")).0 == body);
    let (_, head) = upgrade(address, &Resume { id: "x".into(), ..Resume::new(6, 2, 0) });
    assert!(head.starts_with("HTTP/1.1 400"), "{head}");
    let (mut tcp, _) = upgrade(address, &Resume::new(7, 1, 0));
    tcp.write_all(&[0xff; 8]).unwrap();
    let mut text = String::new();
    tcp.read_to_string(&mut text).unwrap();
    assert!(text.contains("{\"error\":\"malformed"), "{text}");
}

#[test]
fn events_are_stored_with_who_sent_them() {
    let dir = Temp::new("event");
    let (_recorder, address) = start(&dir, |_| {});
    let mut h2 = H2::new(connect(address));
    let probe = h2.open("HEAD", "/v2/event", &[], true);
    assert_eq!(h2.status(probe), 200);
    let post = h2.open("POST", "/v2/event", &[], false);
    h2.send(post, b"{\"timestamp\":5,\"kubernetes\":null}", true);
    assert_eq!(h2.status(post), 200);
    let bad = h2.open("POST", "/v2/event", &[], false);
    h2.send(bad, b"[1,2]", true);
    assert_eq!(h2.status(bad), 400);
    // The parser calls itself for each level, on the small stack of a connection.
    for (levels, status) in [(60, 200), (100, 400), (3_000, 400)] {
        let deep = format!("{{\"deep\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        let post = h2.open("POST", "/v2/event", &[], false);
        h2.send(post, deep.as_bytes(), true);
        assert_eq!(h2.status(post), status, "{levels}");
    }
    let over_h1 = exchange(
        address,
        b"POST /v2/event HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 7\r\n\r\n{\"a\":1}",
    );
    assert!(over_h1.starts_with("HTTP/1.1 200"), "{over_h1}");
    let large = exchange(
        address,
        b"POST /v2/event HTTP/1.1\r\nHost: a\r\nContent-Length: 4194305\r\n\r\n{",
    );
    assert!(large.starts_with("HTTP/1.1 413"), "{large}");
    let stored = eventually("stored events", || {
        let days = std::fs::read_dir(dir.join("dst").join("events")).ok()?;
        days.flatten().map(|d| std::fs::read_to_string(d.path()).unwrap()).next()
    });
    let lines: Vec<serde_json::Value> =
        stored.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0]["timestamp"], 5);
    assert!(lines[0]["id"].is_string() && lines[0].get("destination").is_some(), "{stored}");
}

#[test]
fn a_client_that_vanishes_leaves_a_truncated_recording() {
    let dir = Temp::new("vanish");
    let (_recorder, address) = start(&dir, |c| c.resume_window = Duration::ZERO);
    let body = cast(10_000);
    let mut h2 = H2::new(connect(address));
    let post = h2.open("POST", "/v2/record", &[], false);
    h2.send(post, &body, false);
    h2.until("an ack of everything", |said| {
        let all = format!("\"ack\":{}", body.len());
        said.iter()
            .any(|s| matches!(s, Said::Data { text, .. } if text.contains(&all)))
            .then_some(())
    });
    // A reset, as when the client's machine or process died.
    rustix::net::sockopt::set_socket_linger(&h2.stream, Some(Duration::ZERO)).unwrap();
    drop(h2);
    let (bytes, sidecar) = only_recording(&dir.join("dst"));
    assert!(bytes == body);
    assert_eq!(sidecar["how"], "truncated");
}

#[test]
fn a_slow_reader_of_acks_does_not_stop_the_upload() {
    let dir = Temp::new("slow");
    let (_recorder, address) = start(&dir, |_| {});
    let body = cast(4 << 20);
    let mut tcp = connect(address);
    assert!(begin_v1(&mut tcp).starts_with("HTTP/1.1 100"));
    write_chunk(&mut tcp, &body);
    tcp.write_all(b"0\r\n\r\n").unwrap();
    assert!(read_head(&mut tcp).starts_with("HTTP/1.1 200"));
    assert!(only_recording(&dir.join("dst")).0 == body);
}

#[test]
fn the_orderly_stop() {
    let dir = Temp::new("drain");
    let (recorder, address) = start(&dir, |_| {});
    let body = cast(20_000);
    let mut ours = H2::new(connect(address));
    let post = ours.open("POST", "/v2/record", &Resume::new(8, 1, 0).fields(), false);
    ours.send(post, &body[..10_000], false);
    assert_eq!(ours.status(post), 200);
    let mut stock = H2::new(connect(address));
    let stock_post = stock.open("POST", "/v2/record", &[], false);
    assert_eq!(stock.status(stock_post), 200);
    recorder.drain();
    ours.until_text(post, "{\"drain\":true}");
    let mut late = H2::new(connect(address));
    let probe = late.open("HEAD", "/v2/record", &[], true);
    assert_eq!(late.status(probe), 503);
    assert!(begin_v1(&mut connect(address)).starts_with("HTTP/1.1 503"));
    let stopping = std::thread::spawn(move || recorder.stop());
    // The castkeep client ends its part here and goes on elsewhere.
    ours.send(post, &[], true);
    assert!(ours.until_end(post).contains("\"sealed\":10000"));
    // The stock client is served to its end.
    stock.send(stock_post, &body, true);
    let text = stock.until_end(stock_post);
    assert_eq!(last_number(&text, "ack"), Some(body.len() as u64), "{text}");
    stopping.join().unwrap();
    let sidecars: Vec<serde_json::Value> = files(&dir.join("dst"), ".json")
        .iter()
        .map(|f| serde_json::from_slice(&std::fs::read(f).unwrap()).unwrap())
        .collect();
    assert_eq!(sidecars.len(), 2);
    let moved = sidecars.iter().find(|s| s["recording"].is_string()).unwrap();
    assert_eq!(moved["how"], "moved");
    let stock = sidecars.iter().find(|s| s["recording"].is_null()).unwrap();
    assert_eq!(stock["how"], "sealed");
}

#[test]
fn past_the_drain_timeout_there_is_an_error_object() {
    let dir = Temp::new("drain2");
    let (recorder, address) = start(&dir, |c| c.drain_timeout = Duration::from_millis(100));
    let mut stock = H2::new(connect(address));
    let post = stock.open("POST", "/v2/record", &[], false);
    stock.send(post, &cast(1000), false);
    assert_eq!(stock.status(post), 200);
    let stopping = std::thread::spawn(move || recorder.stop());
    let text = stock.until_end(post);
    assert!(text.contains("{\"error\":\"stopping"), "{text}");
    stopping.join().unwrap();
    let (_, sidecar) = only_recording(&dir.join("dst"));
    assert_ne!(sidecar["how"], "sealed");
}

#[test]
fn health_and_metrics() {
    let dir = Temp::new("health");
    let (recorder, address) = start(&dir, |c| {
        c.metrics_listen = vec!["127.0.0.1:0".parse().unwrap()];
    });
    let metrics = recorder.metrics_addresses()[0];
    let get = |path: &str| {
        exchange(metrics, format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes())
    };
    assert!(get("/healthz").starts_with("HTTP/1.1 200"));
    assert!(get("/readyz").starts_with("HTTP/1.1 200"));
    assert!(get("/nowhere").starts_with("HTTP/1.1 404"));
    assert!(exchange(metrics, b"POST /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405"));
    assert!(exchange(metrics, b"\x01\x02\r\n\r\n").starts_with("HTTP/1.1 400"));
    upload_v1(&mut connect(address), &cast(1000));
    let page = get("/metrics");
    assert!(page.contains("\ncastkeep_uploads_total{protocol=\"v1\"} 1\n"), "{page}");
    assert!(page.contains("\ncastkeep_ready 1\n"), "{page}");
    // Uploads are not taken there, and metrics not told on the upload port.
    let head = begin_v1(&mut connect(metrics));
    assert!(head.starts_with("HTTP/1.1 405"), "{head}");
    assert!(
        exchange(address, b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .starts_with("HTTP/1.1 404")
    );
    recorder.drain();
    let answer = get("/readyz");
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("stopping"), "{answer}");
    assert!(get("/healthz").starts_with("HTTP/1.1 200"));
}
