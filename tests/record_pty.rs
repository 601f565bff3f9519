//! `castkeep record` on a terminal: raw mode, sizes, keys, exit statuses, signals. The terminal is a real pty, whose other end the test
//! holds.
#![allow(missing_docs, clippy::disallowed_methods, clippy::disallowed_types)]

mod client_support;

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use client_support::disk::CASTKEEP;
use client_support::{Manner, Recorder, Told, join, tell, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

/// castkeep on a terminal.
struct OnTty {
    master: File,
    /// Kept open, so that the terminal's settings can be looked at when castkeep has ended.
    slave: File,
    child: Child,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl OnTty {
    fn start(recorder: &Recorder, options: &[&str], command: &[&str]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = OpenOptions::new().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        resize(&master, 80, 24);
        let end = || Stdio::from(slave.try_clone().unwrap());
        // setsid makes the terminal the controlling one, and becomes castkeep.
        let child = Command::new("setsid")
            .args(["--ctty", CASTKEEP, "record", "--recorders", &recorder.addr.to_string()])
            .args(options)
            .arg("--")
            .args(command)
            .env("CASTKEEP_CONFIG", "")
            .env("TERM", "xterm")
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .expect("setsid of util-linux");
        let shown = Arc::new(Mutex::new(Vec::new()));
        let master = File::from(master);
        let (mut reader, all) = (master.try_clone().unwrap(), Arc::clone(&shown));
        thread::spawn(move || {
            let mut buf = [0; 4096];
            loop {
                match reader.read(&mut buf) {
                    Ok(n) if n > 0 => all.lock().unwrap().extend_from_slice(&buf[..n]),
                    Err(e) if e.kind() == ErrorKind::Interrupted => {}
                    _ => return,
                }
            }
        });
        Self { master, slave, child, shown }
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned()
    }

    fn wait_for(&self, text: &str) {
        wait_until(text, || self.shown().contains(text));
    }

    fn keys(&mut self, keys: &[u8]) {
        self.master.write_all(keys).unwrap();
    }

    fn is_canonical(&self) -> bool {
        let modes = tcgetattr(&self.slave).unwrap().local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32).unwrap()
    }

    fn end(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

fn resize(master: impl std::os::fd::AsFd, cols: u16, rows: u16) {
    let size = Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(master, size).unwrap();
}

fn told(recorder: &Recorder) -> Told {
    tell(&join(&recorder.parts()))
}

#[test]
fn raw_while_it_runs_and_as_before_when_it_ends() {
    let recorder = Recorder::start(Manner::Good);
    let script = "stty size; printf 'ready\\n'; read x; echo got $x; exit 5";
    let mut tty = OnTty::start(&recorder, &["--enforce"], &["sh", "-c", script]);
    tty.wait_for("ready");
    assert!(tty.shown().contains("24 80"), "{}", tty.shown());
    assert!(!tty.is_canonical(), "the outer terminal is raw");
    tty.keys(b"hello\r");
    assert_eq!(tty.end().code(), Some(5));
    assert!(tty.is_canonical(), "as it was before");
    tty.wait_for("got hello");
    tty.wait_for("castkeep: recorded ");
    let told = told(&recorder);
    assert!(told.output.contains("got hello\r\n"), "{}", told.output);
    assert!(told.header.contains("\"width\":80,\"height\":24"), "{}", told.header);
    assert!(told.header.contains("\"TERM\":\"xterm\""), "{}", told.header);
    assert_eq!(told.exit.as_deref(), Some("5"));
    assert_eq!(told.input, "", "input is recorded only when asked for");
}

#[test]
fn ssh_tty_names_the_terminal_of_the_program() {
    let recorder = Recorder::start(Manner::Good);
    let script = "SSH_TTY=/dev/null exec \"$0\" record --recorders \"$1\" -- \
        sh -c 'test \"$(tty)\" = \"$SSH_TTY\" && printf same'";
    let addr = recorder.addr.to_string();
    let mut tty = OnTty::start(&recorder, &[], &["sh", "-c", script, CASTKEEP, &addr]);
    assert_eq!(tty.end().code(), Some(0));
    tty.wait_for("same");
}

#[test]
fn a_new_size_is_passed_on_and_recorded() {
    let recorder = Recorder::start(Manner::Good);
    let script = "printf 'ready\\n'; while [ \"$(stty size)\" != '40 100' ]; do sleep 0.02; done";
    let mut tty = OnTty::start(&recorder, &[], &["sh", "-c", script]);
    tty.wait_for("ready");
    resize(&tty.master, 100, 40);
    assert_eq!(tty.end().code(), Some(0));
    assert_eq!(told(&recorder).sizes.last().map(String::as_str), Some("100x40"));
}

#[test]
fn keys_that_signal_reach_the_program_and_not_castkeep() {
    let recorder = Recorder::start(Manner::Good);
    let script = "trap 'echo int; exit 6' INT; printf 'ready\\n'; while :; do sleep 0.02; done";
    let mut tty = OnTty::start(&recorder, &[], &["sh", "-c", script]);
    tty.wait_for("ready");
    tty.keys(b"\x03");
    assert_eq!(tty.end().code(), Some(6));
    assert!(told(&recorder).output.contains("int"));
}

#[test]
fn a_signal_that_ends_the_program_ends_castkeep() {
    let recorder = Recorder::start(Manner::Good);
    for (name, number) in [("TERM", 15), ("KILL", 9), ("SEGV", 11)] {
        let script = format!("printf 'ready\\n'; kill -{name} $$");
        let mut tty = OnTty::start(&recorder, &[], &["sh", "-c", &script]);
        assert_eq!(tty.end().signal(), Some(number), "{}", tty.shown());
        assert!(tty.is_canonical(), "{name}");
    }
}

#[test]
fn term_and_hangup_end_the_program_and_the_recording_is_closed() {
    for signal in [Signal::TERM, Signal::HUP] {
        let recorder = Recorder::start(Manner::Good);
        let script = "printf 'ready\\n'; exec sleep 60";
        let mut tty = OnTty::start(&recorder, &[], &["sh", "-c", script]);
        tty.wait_for("ready");
        kill_process(tty.pid(), signal).unwrap();
        assert_eq!(tty.end().signal(), Some(signal.as_raw()), "{}", tty.shown());
        assert!(tty.is_canonical());
        let parts = recorder.parts();
        assert_eq!(parts[0].ended, Some(true));
        let exit = (128 + signal.as_raw()).to_string();
        assert_eq!(told(&recorder).exit.as_deref(), Some(&*exit));
    }
}

#[test]
fn a_program_that_ignores_the_hangup_is_ended_in_bounded_time() {
    let recorder = Recorder::start(Manner::Good);
    let script = "trap '' HUP TERM; printf 'ready\\n'; while :; do sleep 0.05; done";
    let mut tty = OnTty::start(&recorder, &[], &["sh", "-c", script]);
    tty.wait_for("ready");
    kill_process(tty.pid(), Signal::HUP).unwrap();
    let begun = std::time::Instant::now();
    assert_eq!(tty.end().signal(), Some(9));
    assert!(begun.elapsed() < std::time::Duration::from_secs(10));
    assert_eq!(told(&recorder).exit.as_deref(), Some("137"));
}

#[test]
fn a_session_that_policy_ends_leaves_the_terminal_as_it_was() {
    let recorder = Recorder::start(Manner::Good);
    let script = "printf 'ready\\n'; while :; do echo x; sleep 0.02; done";
    let options =
        ["--terminate-message", "TERMINATED", "--grace", "300ms", "--close-wait", "300ms"];
    let mut tty = OnTty::start(&recorder, &options, &["sh", "-c", script]);
    tty.wait_for("ready");
    recorder.kill();
    assert_eq!(tty.end().code(), Some(254));
    assert!(tty.is_canonical());
    tty.wait_for("TERMINATED");
    tty.wait_for("are not known to be stored");
}

#[test]
fn typed_input_is_recorded_when_asked_for_and_masked_without_echo() {
    let recorder = Recorder::start(Manner::Good);
    let script =
        "printf 'name\\n'; read x; stty -echo; printf 'password\\n'; read y; stty echo; echo $x-$y";
    let mut tty = OnTty::start(&recorder, &["--record-input"], &["sh", "-c", script]);
    tty.wait_for("name");
    tty.keys(b"alice\r");
    tty.wait_for("password");
    tty.keys(b"secret\r");
    assert_eq!(tty.end().code(), Some(0));
    tty.wait_for("alice-secret");
    assert_eq!(told(&recorder).input, "alice\r******\r");
}

#[test]
fn something_left_behind_does_not_keep_the_session_open() {
    let recorder = Recorder::start(Manner::Good);
    let script = "setsid sleep 30 & echo bye";
    let begun = std::time::Instant::now();
    let mut tty = OnTty::start(&recorder, &[], &["sh", "-c", script]);
    assert_eq!(tty.end().code(), Some(0));
    assert!(begun.elapsed() < std::time::Duration::from_secs(10));
    assert!(told(&recorder).output.contains("bye"));
}
