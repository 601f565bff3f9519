//! `castkeep record` of `cat` of a 100 MB file, into a recorder, against `script` writing a local file. Both on a pty whose
//! other end is drained by this program, in turn, so that the machine's mood falls on both.
#![allow(missing_docs, clippy::disallowed_methods, clippy::disallowed_types)]

mod common;

use std::fs;
use std::io::{ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Args, Dir, Goal, Recorder, Report, log_text, median};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

fn main() {
    let args = Args::parse();
    let bytes = args.size(100_000_000, 1_000_000);
    let rounds = args.size(5, 1);
    let dir = Dir::new("record");
    let file = dir.join("log.txt");
    fs::write(&file, log_text(bytes)).expect("the file to show");
    let recorder = Recorder::start(&dir.join("dst"), &[]);

    let mut ratios = Vec::new();
    for round in 1..=rounds {
        let script = run(
            Command::new("script")
                .arg("-qc")
                .arg(format!("cat {}", file.display()))
                .arg(dir.join("typescript")),
            &dir.0,
            bytes,
        );
        let record = run(
            Command::new(env!("CARGO_BIN_EXE_castkeep"))
                .args([
                    "record",
                    "--enforce",
                    "--recorders",
                    &recorder.addr.to_string(),
                    "--",
                    "cat",
                ])
                .arg(&file),
            &dir.0,
            bytes,
        );
        println!(
            "round {round}: script {script:.2?} ({:.0} MB/s), castkeep record {record:.2?} ({:.0} MB/s)",
            bytes as f64 / 1e6 / script.as_secs_f64(),
            bytes as f64 / 1e6 / record.as_secs_f64()
        );
        ratios.push(script.as_secs_f64() / record.as_secs_f64());
        // What was stored is looked at once; it would fill the disk over the rounds.
        let stored = stored_bytes(&dir.join("dst"));
        assert!(stored > bytes as u64, "only {stored} bytes are stored");
        let _ = fs::remove_file(dir.join("typescript"));
    }
    let mut report = Report::new(&args);
    report.result(
        "speed of `castkeep record` over `script`",
        median(&mut ratios),
        "x",
        Goal::AtLeast(1.0),
        &format!("`cat` of {} MB, median of {rounds} alternating rounds", bytes / 1_000_000),
    );
    report.finish();
}

/// Runs it on a pty of its own and takes everything it shows; the time from its start to its end.
fn run(command: &mut Command, home: &Path, least: usize) -> Duration {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pty");
    grantpt(&master).expect("grantpt");
    unlockpt(&master).expect("unlockpt");
    let name = ptsname(&master, Vec::new()).expect("ptsname");
    let name = name.to_str().expect("a path").to_owned();
    let slave = || -> OwnedFd {
        fs::OpenOptions::new().read(true).write(true).open(&name).expect("the slave").into()
    };
    let started = Instant::now();
    let mut child = command
        .env("HOME", home)
        .env("TERM", "xterm")
        .stdin(Stdio::from(slave()))
        .stdout(Stdio::from(slave()))
        .stderr(Stdio::from(slave()))
        .spawn()
        .expect("a program to measure");
    // The command holds the three ends until it is dropped, and the master sees no end while one is open.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());

    let mut master = fs::File::from(master);
    let mut shown = 0;
    let mut tail = Vec::new();
    let mut buf = vec![0; 64 << 10];
    loop {
        match master.read(&mut buf) {
            Ok(0) => break,
            Ok(n) => {
                shown += n;
                tail = buf[..n].to_vec();
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            // EIO: all other ends are closed.
            Err(_) => break,
        }
    }
    let status = child.wait().expect("a program that ends");
    let spent = started.elapsed();
    assert!(
        status.success() && shown >= least,
        "{command:?}: {status}, {shown} of {least} bytes shown, at last: {}",
        String::from_utf8_lossy(&tail)
    );
    spent
}

fn stored_bytes(dst: &Path) -> u64 {
    let mut sum = 0;
    for node in fs::read_dir(dst).expect("the recorder's directory").flatten() {
        for file in fs::read_dir(node.path()).into_iter().flatten().flatten() {
            if file.path().extension().is_some_and(|e| e == "cast") {
                sum += file.metadata().map_or(0, |meta| meta.len());
                let _ = fs::remove_file(file.path());
            }
        }
    }
    sum
}
