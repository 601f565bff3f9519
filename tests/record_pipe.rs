//! `castkeep record` without a terminal: two streams, exact bytes, standard input, back-pressure, exit statuses.
#![allow(missing_docs, clippy::disallowed_methods, clippy::disallowed_types)]

mod client_support;

use std::io::{Read as _, Write as _};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use client_support::disk::CASTKEEP;
use client_support::{Manner, Recorder, join, tell};

fn record(recorder: &Recorder, options: &[&str], command: &[&str]) -> Command {
    let mut record = Command::new(CASTKEEP);
    record
        .args(["record", "--recorders", &recorder.addr.to_string()])
        .args(options)
        .arg("--")
        .args(command)
        .env("CASTKEEP_CONFIG", "")
        .stdin(Stdio::null());
    record
}

#[test]
fn two_streams_and_the_status() {
    let recorder = Recorder::start(Manner::Good);
    let Output { status, stdout, stderr } =
        record(&recorder, &["--quiet"], &["sh", "-c", "echo out; echo err >&2; exit 42"])
            .output()
            .unwrap();
    assert_eq!(status.code(), Some(42));
    assert_eq!(stdout, b"out\n");
    assert_eq!(stderr, b"err\n", "--quiet adds nothing");
    let told = tell(&join(&recorder.parts()));
    assert_eq!((&*told.output, &*told.stderr), ("out\n", "err\n"));
    assert_eq!(told.exit.as_deref(), Some("42"));
}

#[test]
fn every_byte_comes_through_and_can_be_had_back() {
    let recorder = Recorder::start(Manner::Good);
    let bytes: Vec<u8> = (0..=255u8).cycle().take(100_000).collect();
    let mut child = record(&recorder, &["--enforce"], &["cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let sent = bytes.clone();
    let writer = thread::spawn(move || stdin.write_all(&sent).unwrap());
    let mut shown = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut shown).unwrap();
    writer.join().unwrap();
    assert!(child.wait().unwrap().success());
    assert!(shown == bytes);

    let mut raw = castkeep::cast::Raw::new();
    let stream = join(&recorder.parts());
    let mut exact = Vec::new();
    for line in stream.split(|b| *b == b'\n').skip(1).filter(|l| !l.is_empty()) {
        let event = castkeep::cast::parse_event(line).unwrap();
        if let Some(done) = raw.push(&event).filter(|e| e.code == b'o') {
            exact.extend_from_slice(&done.data);
        }
    }
    if let Some(done) = raw.finish().filter(|e| e.code == b'o') {
        exact.extend_from_slice(&done.data);
    }
    assert!(exact == bytes, "{} of {}", exact.len(), bytes.len());
}

#[test]
fn a_full_ring_stops_the_program_and_loses_nothing() {
    let recorder = Recorder::start(Manner::Good);
    let mut child = record(
        &recorder,
        &["--enforce", "--ring", "64KiB", "--quiet"],
        &["sh", "-c", "printf 'ready\\n'; seq 300000"],
    )
    .stdout(Stdio::piped())
    .spawn()
    .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut first = [0; 6];
    stdout.read_exact(&mut first).unwrap();
    recorder.freeze(true);
    let reader = thread::spawn(move || {
        let mut shown = String::new();
        stdout.read_to_string(&mut shown).unwrap();
        shown
    });
    // Less than the silence after which a recorder counts as lost.
    thread::sleep(Duration::from_millis(700));
    assert!(child.try_wait().unwrap().is_none(), "the program waits for room");
    recorder.freeze(false);
    let shown = reader.join().unwrap();
    assert!(child.wait().unwrap().success());
    let wanted = (1..=300_000).fold(String::new(), |all, n| all + &format!("{n}\n"));
    assert!(shown == wanted);
    assert!(tell(&join(&recorder.parts())).output == "ready\n".to_owned() + &wanted);
}

#[test]
fn a_reader_that_goes_away_is_known_to_the_program() {
    let recorder = Recorder::start(Manner::Good);
    let mut child = record(&recorder, &[], &["yes"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut some = [0; 100];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut some).unwrap();
    drop(stdout);
    use std::os::unix::process::ExitStatusExt as _;
    assert_eq!(child.wait().unwrap().signal(), Some(13));
}

#[test]
fn what_cannot_be_run_has_the_statuses_of_a_shell() {
    let recorder = Recorder::start(Manner::Good);
    for (command, wanted) in [("no-such-command-here", 127), ("/etc/passwd", 126)] {
        let output = record(&recorder, &[], &[command]).output().unwrap();
        assert_eq!(output.status.code(), Some(wanted));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(command), "{said}");
    }
}

#[test]
fn with_release_commit_output_waits_for_the_commit() {
    let recorder = Recorder::start(Manner::NeverCommits);
    let mut child = record(
        &recorder,
        &["--enforce", "--release", "commit", "--close-wait", "300ms"],
        &["echo", "shown"],
    )
    .stdout(Stdio::piped())
    .stderr(Stdio::piped())
    .spawn()
    .unwrap();
    let mut shown = String::new();
    child.stdout.take().unwrap().read_to_string(&mut shown).unwrap();
    assert_eq!(shown, "", "nothing is stored, so nothing is shown");
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("are not known to be stored"), "{said}");
    child.wait().unwrap();

    let recorder = Recorder::start(Manner::Good);
    let output = record(&recorder, &["--release", "commit"], &["sh", "-c", "echo a; echo b >&2"])
        .output()
        .unwrap();
    assert_eq!(output.stdout, b"a\n");
    assert!(output.stderr.starts_with(b"b\n"));
}

#[test]
fn bad_options_are_said() {
    for (options, wanted) in [
        (&["--recorders", "host:port"][..], "--recorders"),
        (&["--recorders", "a:1", "--enforce", "--open"], "exclude"),
        (&["--recorders", "a:1", "--ring", "1"], "64KiB"),
        (&["--recorders", "a:1", "--release", "never"], "commit"),
        (&["--recorders", "a:1", "--tls-ca", "/no/such/file"], "/no/such/file"),
        (&["--recorders", "a:1", "--tls-pin", "x"], "SHA-256"),
        (&[], "no recorder"),
    ] {
        let output = Command::new(CASTKEEP)
            .arg("record")
            .args(options)
            .args(["--", "true"])
            .env("CASTKEEP_CONFIG", "")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{options:?}");
        assert!(said.contains(wanted), "{options:?}: {said}");
    }
}

#[test]
fn a_name_that_does_not_resolve_is_refused_when_closed_and_said_when_open() {
    let run = |policy: &str| {
        Command::new(CASTKEEP)
            .args(["record", "--recorders", "no-such-host.invalid:80", policy, "--", "echo", "ran"])
            .env("CASTKEEP_CONFIG", "")
            .output()
            .unwrap()
    };
    let closed = run("--enforce");
    assert_eq!(closed.status.code(), Some(254));
    assert!(closed.stdout.is_empty());
    let open = run("--open");
    assert_eq!(open.status.code(), Some(0));
    assert_eq!(open.stdout, b"ran\n");
    assert!(String::from_utf8_lossy(&open.stderr).contains("no-such-host.invalid"));
}
