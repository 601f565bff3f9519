//! What the reading commands show on a terminal: how far they are, and pauses that are cut short. The terminal is a pty whose other end
//! the test holds.
#![allow(missing_docs, clippy::disallowed_methods, clippy::disallowed_types)]

mod cli_support;

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use cli_support::*;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// Both ends of a terminal.
fn terminal() -> (File, File) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let size = Winsize { ws_col: 100, ws_row: 30, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&master, size).unwrap();
    let slave = OpenOptions::new().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    (File::from(master), slave)
}

/// What comes out of a terminal until nobody has its other end any more.
fn all_of(mut master: File) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut buf = [0; 4096];
        while let Ok(n @ 1..) = master.read(&mut buf) {
            if sender.send(String::from_utf8_lossy(&buf[..n]).into_owned()).is_err() {
                return;
            }
        }
    });
    receiver
}

#[test]
fn a_slow_join_says_how_far_it_is_and_wipes_it_away() {
    let dir = Temp::new("progress");
    let line = event(1.0, "o", &"x".repeat(1000));
    let lines: Vec<&str> = (0..4000).map(|_| line.as_str()).collect();
    let file = dir.file("a.cast", cast("\"width\":80,\"height\":24", &lines));
    let (master, slave) = terminal();
    let mut child = castkeep(&["join", text(&file)])
        .stdout(Stdio::piped())
        .stderr(Stdio::from(slave))
        .spawn()
        .unwrap();
    let said = all_of(master);
    // The reader of its output is slow until there is something on the terminal.
    let mut output = child.stdout.take().unwrap();
    let (mut err, mut got, mut buf) = (String::new(), 0, [0; 4096]);
    let begun = Instant::now();
    while !err.contains("joined") && begun.elapsed() < Duration::from_secs(60) {
        got += output.read(&mut buf).unwrap();
        err.extend(said.recv_timeout(Duration::from_millis(20)));
    }
    assert!(begun.elapsed() >= Duration::from_secs(1), "{err:?}");
    got += std::io::copy(&mut output, &mut std::io::sink()).unwrap() as usize;
    assert!(child.wait().unwrap().success());
    assert_eq!(got, std::fs::read(&file).unwrap().len());
    err.extend(said.iter());
    assert!(err.contains("\rcastkeep: joined ") && err.contains("%)\x1b[K"), "{err:?}");
    let last = err.rsplit("\r\x1b[K").next().unwrap();
    assert!(last.contains("out of 1 part") && !last.contains('%'), "{err:?}");
}

#[test]
fn a_quick_command_shows_no_progress() {
    let dir = Temp::new("quick");
    let file = dir.file("n/a.cast", cast("\"width\":80,\"height\":24", &[&event(0.0, "o", "x")]));
    for args in [&["ls", text(&dir.0)][..], &["cat", text(&file)], &["play", "--raw", text(&file)]]
    {
        let (master, slave) = terminal();
        let status = castkeep(args).stdout(Stdio::null()).stderr(Stdio::from(slave)).status();
        assert!(status.unwrap().success());
        assert_eq!(all_of(master).iter().collect::<String>(), "", "{args:?}");
    }
}

#[test]
fn a_pause_of_years_is_cut_and_told() {
    let dir = Temp::new("years");
    let events = [event(0.0, "o", "one "), event(1e9, "o", "two "), event(1e9 + 1.0, "o", "three")];
    let events: Vec<&str> = events.iter().map(String::as_str).collect();
    let file = dir.file("a.cast", cast("\"width\":80,\"height\":24", &events));
    let (master, slave) = terminal();
    let begun = Instant::now();
    // A minute at most, thousand times as fast.
    let mut child = castkeep(&["play", "--speed", "1000", text(&file)])
        .stdout(Stdio::from(slave.try_clone().unwrap()))
        .stderr(Stdio::from(slave))
        .spawn()
        .unwrap();
    let said = all_of(master);
    assert!(child.wait().unwrap().success());
    assert!(begun.elapsed() < Duration::from_secs(30));
    let shown: String = said.iter().collect();
    assert!(shown.starts_with("one two three"), "{shown:?}");
    let note = "pauses were played shorter (pauses: 1, 31 years 259 days left out); --idle-limit none plays them in full";
    assert!(shown.contains(note), "{shown:?}");
}

#[test]
fn none_plays_pauses_as_recorded() {
    let dir = Temp::new("none");
    let events = [event(0.0, "o", "one "), event(200.0, "o", "two")];
    let events: Vec<&str> = events.iter().map(String::as_str).collect();
    let file = dir.file("a.cast", cast("\"width\":80,\"height\":24", &events));
    let timed = |limit: &[&str]| {
        let begun = Instant::now();
        let (status, out, err) = run(&[&["play", "-s", "100"], limit, &[text(&file)]].concat());
        assert_eq!((status, out.as_str(), err.as_str()), (0, "one two", ""));
        begun.elapsed()
    };
    assert!(timed(&["-i", "none"]) >= Duration::from_secs(2));
    let cut = timed(&[]);
    assert!(cut >= Duration::from_millis(600), "{cut:?}");
}

#[test]
fn exact_bytes_do_not_go_to_a_terminal() {
    let dir = Temp::new("exact");
    let file = dir.file("a.cast", cast("\"width\":80,\"height\":24", &[&event(0.0, "o", "x")]));
    for args in [&["join", text(&file)][..], &["play", "--raw", text(&file)]] {
        let (master, slave) = terminal();
        let (status, _, err) = said(castkeep(args).stdout(Stdio::from(slave)).output().unwrap());
        assert_eq!(status, 2, "{args:?}");
        assert!(err.contains("terminal"), "{err}");
        assert_eq!(all_of(master).iter().collect::<String>(), "", "{args:?}");
    }
}
