//! The bounds of `castkeep serve`, by its options, its environment and its file: who meets one is told, and nobody else.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

#[path = "recorder_support/mod.rs"]
mod support;

use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use support::*;

/// A port that nobody else has now, for the one line that is read before the metrics are told.
fn with_metrics(dst: &std::path::Path, flags: &[&str]) -> (Serve, SocketAddr) {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let listen = free.to_string();
    let serve = Serve::start(dst, &[&["--metrics-listen", &listen], flags].concat());
    (serve, free)
}

fn value(metrics: SocketAddr, name: &str) -> u64 {
    let page = exchange(metrics, b"GET /metrics HTTP/1.1\r\nHost: m\r\n\r\n");
    let value = page.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {name} in {page}")).parse().unwrap()
}

fn over(quota: &str) -> String {
    format!("castkeep_over_quota_total{{quota=\"{quota}\"}}")
}

/// A connection from another address of this machine: another node.
fn connect_from(node: &str, to: SocketAddr) -> TcpStream {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &format!("{node}:0").parse::<SocketAddr>().unwrap()).unwrap();
    connect(&socket, &to).unwrap();
    let tcp = TcpStream::from(socket);
    tcp.set_read_timeout(Some(GUARD)).unwrap();
    tcp
}

fn begin(address: SocketAddr, node: &str) -> (H2, u32, u16) {
    let mut h2 = H2::new(connect_from(node, address));
    let post = h2.open("POST", "/v2/record", &[], false);
    let status = h2.status(post);
    (h2, post, status)
}

/// Sends until the recorder ends it; what it said last.
fn send_until_ended(h2: &mut H2, post: u32, body: &[u8]) -> String {
    let mut rest = body;
    while !rest.is_empty() && !h2.text(post).contains("error") {
        let n = h2.connection.send_data(post, &rest[..rest.len().min(16_384)], false);
        rest = &rest[n..];
        h2.flush();
        if n == 0 {
            h2.pump();
        }
    }
    h2.until_end(post)
}

#[test]
fn bytes_of_a_recording() {
    let dir = Temp::new("maxpart");
    let (serve, metrics) = with_metrics(&dir.join("dst"), &["--max-part", "64KiB"]);
    let (mut small, small_post, _) = begin(serve.address, "127.0.0.1");
    let (mut large, large_post, _) = begin(serve.address, "127.0.0.1");
    let text = send_until_ended(&mut large, large_post, &cast(200_000));
    assert!(text.contains("{\"error\":\"quota: the recording is too large\"}"), "{text}");
    small.send(small_post, &cast(60_000), true);
    assert!(small.until_end(small_post).contains("\"ack\""));
    assert_eq!(value(metrics, &over("max-part")), 1);
    assert_eq!(value(metrics, &over("max-rate")), 0);
}

#[test]
fn bytes_a_second_by_the_environment() {
    let dir = Temp::new("maxrate");
    let mut command = Command::new(env!("CARGO_BIN_EXE_castkeep"));
    command.arg("serve").arg("--dst").arg(dir.join("dst"));
    command.args(["--listen", "127.0.0.1:0"]).env("CASTKEEP_SERVE_MAX_RATE", "10KiB");
    let serve = Serve::spawn(&mut command);
    let (mut fast, post, _) = begin(serve.address, "127.0.0.1");
    // A burst of ten seconds' worth is allowed.
    fast.send(post, &cast(60_000), false);
    fast.until_text(post, "\"ack\":6");
    let text = send_until_ended(&mut fast, post, &cast(1_000_000));
    assert!(text.contains("{\"error\":\"quota: too many bytes a second\"}"), "{text}");
}

#[test]
fn open_recordings_and_their_number_a_second_of_a_node() {
    let dir = Temp::new("maxnode");
    let flags = ["--max-node-open", "2", "--max-node-rate", "5"];
    let (serve, metrics) = with_metrics(&dir.join("dst"), &flags);
    let (mut one, post, status) = begin(serve.address, "127.0.0.1");
    assert_eq!(status, 200);
    let (_two, _, status) = begin(serve.address, "127.0.0.1");
    assert_eq!(status, 200);
    assert_eq!(begin(serve.address, "127.0.0.1").2, 429);
    // Another node has bounds of its own, and over HTTP/1.1 they are the same.
    let head = begin_v1(&mut connect_from("127.0.0.2", serve.address));
    assert!(head.starts_with("HTTP/1.1 100"), "{head}");
    let head = begin_v1(&mut connect_from("127.0.0.1", serve.address));
    assert!(head.starts_with("HTTP/1.1 429"), "{head}");
    assert_eq!(value(metrics, &over("max-node-open")), 2);
    // One that ends makes room for the next.
    one.send(post, &cast(100), true);
    one.until_end(post);
    eventually("room for one more", || (begin(serve.address, "127.0.0.1").2 == 200).then_some(()));
    // Six in a second: the sixth at the latest is too many, unless a second ends in between.
    eventually("too many a second", || {
        for _ in 0..6 {
            let mut h2 = H2::new(connect_from("127.0.0.3", serve.address));
            let post = h2.open("POST", "/v2/record", &[], true);
            h2.status(post);
        }
        (value(metrics, &over("max-node-rate")) > 0).then_some(())
    });
}

#[test]
fn bytes_of_a_node_by_the_file_and_the_lag_of_commits() {
    let dir = Temp::new("maxbytes");
    let file = dir.join("castkeep.hujson");
    std::fs::write(&file, "{ \"serve\": { \"max-node-bytes\": \"100KiB\" }, }").unwrap();
    let flags = ["--config", file.to_str().unwrap()];
    let (serve, metrics) = with_metrics(&dir.join("dst"), &flags);
    let (mut one, post, _) = begin(serve.address, "127.0.0.1");
    let text = send_until_ended(&mut one, post, &cast(300_000));
    assert!(text.contains("{\"error\":\"quota: this node has stored"), "{text}");
    // Up to the bound it was taken: the next has what is left, or is refused.
    let stored = files(&dir.join("dst"), ".cast")[0].metadata().unwrap().len();
    assert!(stored > 60 * 1024 && stored <= 100 * 1024, "{stored}");
    let (mut two, post, _) = begin(serve.address, "127.0.0.2");
    two.send(post, &cast(50_000), true);
    assert!(two.until_end(post).contains("\"ack\""));
    assert_eq!(value(metrics, &over("max-node-bytes")), 1);
    eventually("everything committed", || {
        let lag = ["castkeep_uncommitted_bytes", "castkeep_uncommitted_microseconds"];
        lag.iter().all(|name| value(metrics, name) == 0).then_some(())
    });
}

#[test]
fn who_may_read_what_is_stored() {
    for (flags, dir_mode, file_mode) in
        [(&[][..], 0o700, 0o600), (&["--group-readable"][..], 0o750, 0o640)]
    {
        let dir = Temp::new("modes");
        let dst = dir.join("dst");
        // The umask takes nothing away that was asked for, and gives nothing.
        let script = "umask 0000; dst=$1; shift; exec \"$0\" serve --dst \"$dst\" --listen 127.0.0.1:0 \"$@\"";
        let mut command = Command::new("sh");
        command.args(["-c", script, env!("CARGO_BIN_EXE_castkeep")]).arg(&dst).args(flags);
        let mut serve = Serve::spawn(&mut command);
        let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o7777;
        let (mut open, post, _) = begin(serve.address, "127.0.0.1");
        open.send(post, &cast(100), false);
        let mut h2 = H2::new(connect(serve.address));
        let event = h2.open("POST", "/v2/event", &[], false);
        h2.send(event, b"{\"type\":\"x\"}", true);
        assert_eq!(h2.status(event), 200);
        let head = upload_v1(&mut connect(serve.address), &cast(100));
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let mut seen = 0;
        let mut all = vec![dst.clone()];
        while let Some(path) = all.pop() {
            seen += 1;
            if path.is_dir() {
                assert_eq!(mode(&path), dir_mode, "{}", path.display());
                all.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
            } else {
                assert_eq!(mode(&path), file_mode, "{}", path.display());
            }
        }
        // Four directories; layout, lock, events, two casts, a sidecar, a journal and its seal.
        assert_eq!(seen, 4 + 8, "{flags:?}");
        serve.signal("TERM");
        drop((open, h2));
        assert_eq!(serve.wait().code(), Some(0));
    }
}
