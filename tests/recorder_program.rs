//! `castkeep serve` as a process: start-up, clear errors, signals, kill -9, full and read-only disks.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

#[path = "recorder_support/mod.rs"]
mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use support::*;

#[test]
fn killed_in_mid_session_it_keeps_what_it_committed() {
    let dir = Temp::new("kill9");
    let dst = dir.join("dst");
    let body = cast(3 << 20);
    let mut committed = 0;
    let mut serve = Serve::start(&dst, &[]);
    // Killed again and again, each time in the middle of the stream; the client resumes from the last commit.
    for attempt in 1..=4u64 {
        let resume = Resume::new(1, attempt, committed as u64);
        let mut h2 = H2::new(connect(serve.address));
        let post = h2.open("POST", "/v2/record", &resume.fields(), false);
        let start: usize = h2.field(post, "castkeep-commit").unwrap().parse().unwrap();
        assert!(start >= committed, "committed bytes are gone: {start} < {committed}");
        let part = match committed {
            0 => body.clone(),
            _ => continuation(&body, &resume.id, committed),
        };
        if attempt == 4 {
            h2.send(post, &part, true);
            let text = h2.until_end(post);
            assert_eq!(last_number(&text, "sealed"), Some(body.len() as u64), "{text}");
            break;
        }
        h2.send(post, &part[..part.len() / 3], false);
        h2.until("a commit that grew", |said| {
            said.iter().rev().find_map(|s| match s {
                Said::Data { text, .. } => {
                    last_number(text, "commit").filter(|n| *n > committed as u64)
                }
                _ => None,
            })
        });
        let commit = last_number(&h2.text(post), "commit").unwrap() as usize;
        serve.signal("KILL");
        serve.wait();
        // What the client keeps begins at a line.
        committed = body[..commit].iter().rposition(|b| *b == b'\n').unwrap() + 1;
        serve = Serve::start(&dst, &[]);
    }
    serve.signal("TERM");
    assert_eq!(serve.wait().code(), Some(0));
    let (bytes, sidecar) = only_recording(&dst);
    assert!(bytes == body, "{} bytes of {}", bytes.len(), body.len());
    assert_eq!(sidecar["attempt"], 4);
}

/// Waits until new uploads are refused. Asked with a probe: an upload that is let in before the signal arrives would be a recording.
fn drains(address: std::net::SocketAddr) {
    eventually("503 while it drains", || {
        let mut h2 = H2::new(connect(address));
        let probe = h2.open("HEAD", "/v2/record", &[], true);
        (h2.status(probe) == 503).then_some(())
    });
}

#[test]
fn sigterm_drains_and_a_second_signal_does_not_wait() {
    let dir = Temp::new("sigterm");
    let dst = dir.join("dst");
    let mut serve = Serve::start(&dst, &[]);
    let mut tcp = connect(serve.address);
    assert!(begin_v1(&mut tcp).starts_with("HTTP/1.1 100"));
    write_chunk(&mut tcp, &cast(1000));
    serve.signal("TERM");
    drains(serve.address);
    tcp.write_all(b"0\r\n\r\n").unwrap();
    assert!(read_head(&mut tcp).starts_with("HTTP/1.1 200"));
    assert_eq!(serve.wait().code(), Some(0));
    assert_eq!(only_recording(&dst).1["how"], "sealed");

    let mut serve = Serve::start(&dst, &[]);
    let mut tcp = connect(serve.address);
    assert!(begin_v1(&mut tcp).starts_with("HTTP/1.1 100"));
    write_chunk(&mut tcp, &cast(1000));
    serve.signal("INT");
    drains(serve.address);
    serve.signal("INT");
    assert_eq!(serve.wait().code(), Some(1));
    // And what was open is recovered.
    let mut serve = Serve::start(&dst, &["--resume-window", "0s"]);
    eventually("the interrupted part", || {
        let found = files(&dst, ".json");
        (found.len() == 2).then_some(())
    });
    serve.signal("TERM");
    assert_eq!(serve.wait().code(), Some(0));
}

#[test]
fn it_says_what_is_wrong_and_what_to_do() {
    let dir = Temp::new("errors");
    let dst = dir.join("dst");
    let dst = dst.to_str().unwrap();
    let (status, text) = serve_fails(&[]);
    assert_eq!(status, Some(2));
    assert!(text.contains("--dst"), "{text}");
    let (status, text) = serve_fails(&["--dst", dst, "--lisen", "x"]);
    assert_eq!(status, Some(2));
    assert!(text.contains("--listen"), "{text}");
    let (status, text) = serve_fails(&["--dst", dst, "--listen", "0.0.0.0:0"]);
    assert_eq!(status, Some(1));
    assert!(text.contains("--allow-upload"), "{text}");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (status, text) = serve_fails(&["--dst", dst, "--listen", &address]);
    assert_eq!(status, Some(1));
    assert!(text.contains(&address) && text.contains("another program"), "{text}");
    let (status, text) = serve_fails(&["--dst", "/proc/nowhere", "--listen", "127.0.0.1:0"]);
    assert_eq!(status, Some(1));
    assert!(text.contains("/proc/nowhere"), "{text}");
    let (_, text) = serve_fails(&["--dst", dst, "--tls-cert", "missing.pem"]);
    assert!(text.contains("--tls-key"), "{text}");
    let (_, text) =
        serve_fails(&["--dst", dst, "--tls-cert", "missing.pem", "--tls-key", "missing.pem"]);
    assert!(text.contains("missing.pem"), "{text}");
    let (_, text) = serve_fails(&["--dst", dst, "--allow-upload", "everyone"]);
    assert!(text.contains("everyone") && text.contains("anyone"), "{text}");
    let file = dir.join("file");
    std::fs::write(&file, "x").unwrap();
    let (status, text) = serve_fails(&["--dst", file.to_str().unwrap(), "--listen", "127.0.0.1:0"]);
    assert_eq!(status, Some(1));
    assert!(text.contains("file"), "{text}");
    assert!(!text.contains("panicked") && !text.contains("internal error"), "{text}");
}

#[test]
fn one_directory_has_one_recorder() {
    let dir = Temp::new("lock");
    let dst = dir.join("dst");
    let _serve = Serve::start(&dst, &[]);
    let (status, text) = serve_fails(&["--dst", dst.to_str().unwrap(), "--listen", "127.0.0.1:0"]);
    assert_eq!(status, Some(1));
    assert!(text.contains("dst") && text.contains("recorder"), "{text}");
}

#[test]
fn a_layout_of_the_future_is_left_alone() {
    let dir = Temp::new("layout");
    let dst = dir.join("dst");
    std::fs::create_dir(&dst).unwrap();
    std::fs::write(dst.join("castkeep.json"), "{\"layout\":2}").unwrap();
    let (status, text) = serve_fails(&["--dst", dst.to_str().unwrap(), "--listen", "127.0.0.1:0"]);
    assert_eq!(status, Some(1));
    assert!(text.contains("layout"), "{text}");
}

#[test]
fn readiness_goes_to_a_descriptor_too() {
    let dir = Temp::new("ready");
    let file = dir.join("ready");
    // The shell opens the file as descriptor 3 of the program.
    let script = format!(
        "exec \"$0\" serve --dst \"$1\" --listen 127.0.0.1:0 --metrics-listen 127.0.0.1:0 --ready-fd 3 3>{}",
        file.display()
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_castkeep")]).arg(dir.join("dst"));
    let mut serve = Serve::spawn(&mut command);
    let text = eventually("the lines", || {
        std::fs::read_to_string(&file).ok().filter(|t| t.contains("metrics on 127.0.0.1:"))
    });
    assert!(text.contains(&format!("listening on {}\n", serve.address)), "{text}");
    serve.signal("TERM");
    assert_eq!(serve.wait().code(), Some(0));
}

#[test]
fn below_min_free_it_refuses_before_it_accepts() {
    let dir = Temp::new("minfree");
    let mut serve = Serve::start(&dir.join("dst"), &["--min-free", "1000TiB"]);
    assert!(begin_v1(&mut connect(serve.address)).starts_with("HTTP/1.1 503"));
    let mut h2 = H2::new(connect(serve.address));
    let post = h2.open("POST", "/v2/record", &[], false);
    assert_eq!(h2.status(post), 503);
    let new = h2.open("POST", "/v2/record", &Resume::new(1, 1, 0).fields(), false);
    assert_eq!(h2.status(new), 503);
    // A session that runs already comes from another recorder: it is not given up for that.
    let resume = Resume::new(2, 2, 500);
    let goes_on = h2.open("POST", "/v2/record", &resume.fields(), false);
    assert_eq!(h2.status(goes_on), 200);
    h2.send(goes_on, &continuation(&cast(1_000), &resume.id, 500), true);
    assert!(h2.until_end(goes_on).contains("\"sealed\":"));
    serve.signal("TERM");
    assert_eq!(serve.wait().code(), Some(0));
}

/// A small file system of its own, in a mount namespace that ends with the process: root only.
fn on_small_disk(dst: &std::path::Path, flags: &str) -> Option<Serve> {
    let probe = Command::new("unshare")
        .args(["-m", "sh", "-c", "mount -t tmpfs -o size=3m tmpfs \"$0\""])
        .arg(dst)
        .output();
    if !probe.is_ok_and(|o| o.status.success()) {
        eprintln!("skipped: no mount namespaces here");
        return None;
    }
    // The directory is looked at through the process's own root: nobody else sees the mount.
    let script = format!(
        "mount -t tmpfs -o size=3m tmpfs \"$1\" && exec \"$0\" serve --dst \"$1\" --listen 127.0.0.1:0 {flags}"
    );
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &script, env!("CARGO_BIN_EXE_castkeep")]).arg(dst);
    Some(Serve::spawn(&mut command))
}

#[test]
fn a_disk_that_fills_up_ends_uploads_well() {
    let dir = Temp::new("full");
    let dst = dir.join("dst");
    std::fs::create_dir(&dst).unwrap();
    let Some(mut serve) = on_small_disk(&dst, "--min-free 256KiB") else { return };
    let mut h2 = H2::new(connect(serve.address));
    let post = h2.open("POST", "/v2/record", &Resume::new(1, 1, 0).fields(), false);
    assert_eq!(h2.status(post), 200);
    let body = cast(6 << 20);
    let mut rest = &body[..];
    while !rest.is_empty() && !h2.text(post).contains("error") {
        let n = h2.connection.send_data(post, &rest[..rest.len().min(65_536)], false);
        rest = &rest[n..];
        h2.flush();
        if n == 0 {
            h2.pump();
        }
    }
    let text = h2.until_end(post);
    assert!(text.contains("{\"error\":\"disk full"), "{text}");
    // New ones are told before they begin, and what was there is closed well.
    eventually("503 on a full disk", || {
        begin_v1(&mut connect(serve.address)).starts_with("HTTP/1.1 503").then_some(())
    });
    let inside = std::path::PathBuf::from(format!("/proc/{}/root", serve.child.id()))
        .join(dst.strip_prefix("/").unwrap());
    let (bytes, sidecar) = only_recording(&inside);
    assert_eq!(sidecar["how"], "error");
    assert!(sidecar["reason"].as_str().unwrap().starts_with("disk full"), "{sidecar}");
    assert!(body.starts_with(&bytes));
    let commit = last_number(&text, "commit").unwrap();
    assert!(bytes.len() as u64 >= commit, "{} < {commit}", bytes.len());
    serve.signal("TERM");
    assert_eq!(serve.wait().code(), Some(0));
}

#[test]
fn a_read_only_directory_is_named_at_the_start() {
    let dir = Temp::new("readonly");
    let dst = dir.join("dst");
    std::fs::create_dir(&dst).unwrap();
    if rustix::process::geteuid().is_root() {
        // Root may write everywhere: a read-only mount is what stops it.
        let script = "mount -t tmpfs -o ro tmpfs \"$1\" && exec \"$0\" serve --dst \"$1\" --listen 127.0.0.1:0";
        let output = Command::new("unshare")
            .args(["-m", "sh", "-c", script, env!("CARGO_BIN_EXE_castkeep")])
            .arg(&dst)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        if text.contains("unshare:") || text.contains("mount:") {
            eprintln!("skipped: no mount namespaces here");
            return;
        }
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("dst") && text.to_lowercase().contains("read-only"), "{text}");
    } else {
        std::fs::set_permissions(&dst, std::fs::Permissions::from_mode(0o500)).unwrap();
        let (status, text) =
            serve_fails(&["--dst", dst.to_str().unwrap(), "--listen", "127.0.0.1:0"]);
        assert_eq!(status, Some(1));
        assert!(text.contains("dst"), "{text}");
        std::fs::set_permissions(&dst, std::fs::Permissions::from_mode(0o700)).unwrap();
    }
}

#[test]
fn out_of_descriptors_it_refuses_and_goes_on() {
    let dir = Temp::new("emfile");
    let script = "ulimit -n 40; exec \"$0\" serve --dst \"$1\" --listen 127.0.0.1:0";
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_castkeep")]).arg(dir.join("dst"));
    let serve = Serve::spawn(&mut command);
    let many: Vec<_> = (0..60).map(|_| connect(serve.address)).collect();
    let mut one = connect(serve.address);
    let mut answer = String::new();
    let _ = one.write_all(b"POST /record HTTP/1.1\r\nHost: a\r\n\r\n");
    let _ = one.read_to_string(&mut answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 503"), "{answer}");
    drop(many);
    eventually("service after the shortage", || {
        let mut tcp = connect(serve.address);
        tcp.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        let _ = tcp.read_to_string(&mut answer);
        answer.contains("200 OK").then_some(())
    });
}

#[test]
fn the_log_leaves_the_terminal_alone() {
    let dir = Temp::new("log");
    let log = dir.join("log");
    let script = format!("exec \"$0\" serve --dst \"$1\" --listen 127.0.0.1:0 2>{}", log.display());
    let mut command = Command::new("sh");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_castkeep")]).arg(dir.join("dst"));
    let mut serve = Serve::spawn(&mut command);
    exchange(serve.address, b"GET /\x1b]0;evil\x07 HTTP/1.1\r\n\r\n");
    exchange(serve.address, b"POST /record HTTP/1.1\r\nX: \x1b[2J\r\n\r\n");
    assert!(upload_v1(&mut connect(serve.address), b"\x1b[2J").starts_with("HTTP/1.1 200"));
    serve.signal("TERM");
    assert_eq!(serve.wait().code(), Some(0));
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.contains("listening on") && text.contains("accepted"), "{text}");
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
}

#[test]
fn a_hangup_is_answered_truthfully() {
    let dir = Temp::new("hup");
    let log = dir.join("log");
    let script = format!("exec \"$0\" serve --dst \"$1\" --listen 127.0.0.1:0 2>{}", log.display());
    let mut command = Command::new("sh");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_castkeep")]).arg(dir.join("dst"));
    let mut serve = Serve::spawn(&mut command);
    serve.signal("HUP");
    let text = eventually("a line about it", || {
        std::fs::read_to_string(&log).ok().filter(|t| t.contains("SIGHUP"))
    });
    assert!(text.contains("nothing to read again") && !text.contains("files read again"), "{text}");
    serve.signal("TERM");
    assert_eq!(serve.wait().code(), Some(0));
}
