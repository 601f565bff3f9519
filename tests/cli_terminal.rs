//! What the reading commands show on a terminal: how far they are, and pauses that are cut short. The terminal is a pty whose other end
//! the test holds.
#![allow(missing_docs, clippy::disallowed_methods, clippy::disallowed_types)]

mod cli_support;

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use cli_support::*;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};

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

/// `play` on a terminal of its own, whose keys the test types.
struct Playing {
    master: File,
    said: mpsc::Receiver<String>,
    shown: String,
    child: Child,
    before: Termios,
}

impl Playing {
    fn start(file: &std::path::Path) -> Self {
        let (master, slave) = terminal();
        let before = tcgetattr(&master).unwrap();
        let end = || Stdio::from(slave.try_clone().unwrap());
        let child = castkeep(&["play", "-i", "none", text(file)])
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        let said = all_of(master.try_clone().unwrap());
        Self { master, said, shown: String::new(), child, before }
    }

    fn keys(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// Everything up to and with `wanted`.
    fn until(&mut self, wanted: &str) -> String {
        let guard = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(at) = self.shown.find(wanted) {
                let rest = self.shown.split_off(at + wanted.len());
                return std::mem::replace(&mut self.shown, rest);
            }
            assert!(Instant::now() < guard, "{wanted:?} is not in {:?}", self.shown);
            self.shown.extend(self.said.recv_timeout(Duration::from_millis(50)));
        }
    }

    /// Ends in order, with the terminal as it was; the rest of what was shown.
    fn ends(mut self) -> String {
        assert!(self.child.wait().unwrap().success());
        let after = tcgetattr(&self.master).unwrap();
        assert_eq!(
            (after.local_modes, after.input_modes, after.output_modes),
            (self.before.local_modes, self.before.input_modes, self.before.output_modes)
        );
        // Its end is open in this process too: what there is has come when the child is gone.
        self.shown.extend(self.said.recv_timeout(Duration::from_millis(500)));
        self.shown
    }
}

/// Four events; hours lie between the last ones, so that without keys nothing would come.
fn slow_cast(dir: &Temp) -> std::path::PathBuf {
    let events =
        [(0.0, "one "), (4.0, "two "), (8.0, "three "), (7200.0, "four "), (14400.0, "five ")];
    let events: Vec<_> = events.iter().map(|(time, data)| event(*time, "o", data)).collect();
    let events: Vec<&str> = events.iter().map(String::as_str).collect();
    dir.file("a.cast", cast("\"width\":80,\"height\":24", &events))
}

#[test]
fn a_step_shows_one_event_and_q_ends() {
    let dir = Temp::new("step");
    let mut play = Playing::start(&slow_cast(&dir));
    play.until("one ");
    // All in one read, as from a key that is held down.
    play.keys("...");
    assert_eq!(play.until("four "), "two three four ");
    // Space: it plays on, and the next event is hours away.
    play.keys(" q");
    assert!(!play.ends().contains("five"));
}

#[test]
fn arrows_jump_five_seconds_in_either_direction() {
    let dir = Temp::new("arrows");
    let mut play = Playing::start(&slow_cast(&dir));
    play.until("one ");
    // Paused at once, so that only keys move it; an unknown key and its letters do nothing.
    play.keys(" \x1b[1;5Q\x1b[C");
    play.until("two ");
    play.keys("\x1b[C");
    play.until("three ");
    play.keys("\x1bOD");
    let again = play.until("two ");
    assert!(again.contains("\x1b[2J") && again.contains("one "), "{again:?}");
    play.keys("q");
    let rest = play.ends();
    assert!(!rest.contains("three"), "{rest:?}");
}

#[test]
fn plus_plays_hours_in_no_time_and_a_pause_holds() {
    let dir = Temp::new("plus");
    let mut play = Playing::start(&slow_cast(&dir));
    play.until("one ");
    play.keys(&format!(" {}", "+".repeat(30)));
    play.keys(".");
    // Paused: the step brings one event, though at this speed all would be due.
    assert_eq!(play.until("two "), "two ");
    play.keys(" ");
    assert_eq!(play.until("five "), "three four five ");
    play.ends();
}
