//! `castkeep record` while its recorders fail: what is stored, and what was shown. The number of rounds comes from CASTKEEP_ROUNDS
//! (2 unless set; `make full` takes 20).
#![allow(missing_docs, clippy::disallowed_methods, clippy::disallowed_types)]

mod client_support;

use std::fs::File;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use client_support::disk::{CASTKEEP, Dir, Serve, cutting_proxy, parts};
use client_support::{Told, join, tell, wait_until};
use rustix::process::{Pid, Signal, kill_process};

/// Numbered lines at full speed.
const LINES: usize = 150_000;

fn rounds() -> u32 {
    std::env::var("CASTKEEP_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(2)
}

fn record(recorders: &[SocketAddr], options: &[&str], command: &[&str]) -> Command {
    let list: Vec<_> = recorders.iter().map(ToString::to_string).collect();
    let mut record = Command::new(CASTKEEP);
    record
        .args(["record", "--recorders", &list.join(",")])
        .args(options)
        .arg("--")
        .args(command)
        .env("CASTKEEP_CONFIG", "")
        .stdin(Stdio::null());
    record
}

fn seq() -> String {
    format!("seq -f 'line %08.0f' {LINES}")
}

/// Runs to the end, with its output drained.
fn finish(mut child: Child) -> (ExitStatus, String, String) {
    let mut stderr = child.stderr.take().unwrap();
    let said = thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).unwrap();
        text
    });
    let mut shown = String::new();
    child.stdout.take().unwrap().read_to_string(&mut shown).unwrap();
    (child.wait().unwrap(), shown, said.join().unwrap())
}

fn spawn(mut command: Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn stored(dirs: &[&Path]) -> Told {
    tell(&join(&parts(dirs)))
}

fn stored_bytes(dir: &Path) -> usize {
    parts(&[dir]).iter().map(|p| p.body.len()).sum()
}

fn expected() -> String {
    (1..=LINES).fold(String::new(), |all, n| all + &format!("line {n:08}\n"))
}

/// One round: numbered lines at full speed, `fail` in the middle of it; everything is stored once, and everything was shown.
fn nothing_is_lost(what: &str, round: u32, fail: impl FnOnce(&mut Serve, &mut Serve)) {
    let (a_dir, b_dir) = (Dir::new(), Dir::new());
    let (mut a, mut b) = (Serve::start(&a_dir.0), Serve::start(&b_dir.0));
    let child = spawn(record(&[a.addr, b.addr], &["--enforce"], &["sh", "-c", &seq()]));
    let reader = thread::spawn(move || finish(child));
    // A random moment, by how much has arrived.
    let moment =
        1 + (std::process::id().wrapping_mul(7919) ^ round.wrapping_mul(104_729)) % 1_500_000;
    wait_until("the first bytes", || {
        stored_bytes(&a_dir.0) > moment as usize || reader.is_finished()
    });
    fail(&mut a, &mut b);
    let (status, shown, said) = reader.join().unwrap();
    a.signal_if_alive(Signal::CONT);
    assert!(status.success(), "{what} {round}: {status}: {said}");
    let wanted = expected();
    assert!(shown == wanted, "{what} {round}: shown {} of {}", shown.len(), wanted.len());
    let told = stored(&[&a_dir.0, &b_dir.0]);
    let (have, want) = (told.output.len(), wanted.len());
    assert!(told.output == wanted, "{what} {round}: stored {have} of {want}: {said}");
    assert_eq!(told.exit.as_deref(), Some("0"), "{what} {round}");
}

#[test]
fn a_killed_recorder_loses_nothing() {
    for round in 0..rounds() {
        nothing_is_lost("SIGKILL", round, |a, _| a.kill());
    }
}

#[test]
fn a_stopped_recorder_loses_nothing() {
    for round in 0..rounds() {
        nothing_is_lost("SIGSTOP", round, |a, _| a.signal(Signal::STOP));
    }
}

#[test]
fn an_orderly_stop_loses_nothing() {
    for round in 0..rounds() {
        nothing_is_lost("SIGTERM", round, |a, _| a.stop());
    }
}

#[test]
fn a_recorder_that_comes_back_is_resumed() {
    for round in 0..rounds() {
        nothing_is_lost("restart", round, |a, b| {
            // Only the first one can be had.
            b.kill();
            a.kill();
            *a = Serve::start_at(a.addr, &a.dir.clone());
        });
    }
}

#[test]
fn a_connection_cut_in_the_middle_of_a_frame_loses_nothing() {
    for round in 0..rounds() {
        let (a_dir, b_dir) = (Dir::new(), Dir::new());
        let (a, b) = (Serve::start(&a_dir.0), Serve::start(&b_dir.0));
        let proxy = cutting_proxy(a.addr, 500_003 + 10_007 * round as usize);
        let child = spawn(record(&[proxy, b.addr], &["--enforce"], &["sh", "-c", &seq()]));
        let (status, shown, said) = finish(child);
        assert!(status.success(), "{status}: {said}");
        let wanted = expected();
        assert!(shown == wanted);
        assert!(stored(&[&a_dir.0, &b_dir.0]).output == wanted, "{said}");
    }
}

#[test]
fn with_release_commit_what_was_shown_is_stored_though_the_client_is_killed() {
    for round in 0..rounds() {
        let (dir, out) = (Dir::new(), Dir::new());
        let mut server = Serve::start(&dir.0);
        let shown = out.0.join("shown");
        let mut command =
            record(&[server.addr], &["--enforce", "--release", "commit"], &["sh", "-c", &seq()]);
        command.stdout(File::create(&shown).unwrap()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let moment = u64::from(1 + round * 300_000);
        wait_until("something shown", || std::fs::metadata(&shown).unwrap().len() > moment);
        child.kill().unwrap();
        child.wait().unwrap();
        // And the recorder as well: what counts is what is on its disk.
        server.kill();
        let shown = std::fs::read(&shown).unwrap();
        let mut stream = join(&parts(&[&dir.0]));
        let whole = stream.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        stream.truncate(whole);
        let told = tell(&stream);
        assert!(
            told.output.as_bytes().starts_with(&shown),
            "shown {} bytes, stored {}",
            shown.len(),
            told.output.len()
        );
    }
}

/// The message, 254, and a command that never ran.
#[test]
fn reject_and_terminate_in_all_pairs() {
    let pairs = [(false, false), (true, false), (false, true), (true, true)];
    for (reject, terminate) in pairs {
        let mut options = vec!["--grace", "500ms", "--stall-limit", "300ms", "--close-wait", "1s"];
        if reject {
            options.extend(["--reject-message", "REJECTED"]);
        }
        if terminate {
            options.extend(["--terminate-message", "TERMINATED"]);
        }
        at_the_start(&options, reject);
        in_the_middle(&options, terminate);
        at_the_end(&options);
    }
}

fn at_the_start(options: &[&str], reject: bool) {
    let nobody = "127.0.0.1:1".parse().unwrap();
    let Output { status, stdout, stderr } =
        record(&[nobody], options, &["echo", "started"]).output().unwrap();
    let said = String::from_utf8_lossy(&stderr);
    if reject {
        assert_eq!(status.code(), Some(254), "{said}");
        assert!(said.contains("REJECTED"), "{said}");
        assert!(stdout.is_empty(), "the command never ran");
    } else {
        assert_eq!(status.code(), Some(0), "{said}");
        assert_eq!(stdout, b"started\n");
    }
}

fn in_the_middle(options: &[&str], terminate: bool) {
    let dir = Dir::new();
    let mut server = Serve::start(&dir.0);
    let script = "trap 'echo hup >&2; exit 9' HUP; i=0; while [ $i -lt 60 ]; do echo $i; i=$((i+1)); sleep 0.05; done";
    let child = spawn(record(&[server.addr], options, &["sh", "-c", script]));
    wait_until("a recording", || stored_bytes(&dir.0) > 0);
    server.kill();
    let begun = Instant::now();
    let (status, shown, said) = finish(child);
    if terminate {
        assert_eq!(status.code(), Some(254), "{said}");
        assert!(said.contains("TERMINATED"), "{said}");
        assert!(said.contains("are not known to be stored"), "{said}");
        assert!(!shown.contains("59\n"));
        assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    } else {
        assert_eq!(status.code(), Some(0), "{said}");
        assert!(shown.ends_with("59\n"), "{shown}");
    }
}

/// The command has ended already: its status counts, and what is not stored is said.
fn at_the_end(options: &[&str]) {
    let dir = Dir::new();
    let server = Serve::start(&dir.0);
    let child =
        spawn(record(&[server.addr], options, &["sh", "-c", "echo a; sleep 0.3; echo b; exit 7"]));
    wait_until("a recording", || stored_bytes(&dir.0) > 0);
    server.signal(Signal::STOP);
    let begun = Instant::now();
    let (status, _, said) = finish(child);
    assert!(begun.elapsed() < Duration::from_secs(8));
    assert_eq!(status.code(), Some(7), "{said}");
    assert!(said.contains("are not known to be stored"), "{said}");
    server.signal(Signal::CONT);
}

#[test]
fn term_is_passed_on_and_the_recording_is_closed_well() {
    let dir = Dir::new();
    let server = Serve::start(&dir.0);
    let child = spawn(record(
        &[server.addr],
        &["--enforce"],
        &["sh", "-c", r"printf '\165\160\n'; exec sleep 60"],
    ));
    let pid = Pid::from_raw(child.id() as i32).unwrap();
    wait_until("the start", || {
        parts(&[&dir.0]).iter().any(|p| p.body.windows(2).any(|w| w == b"up"))
    });
    kill_process(pid, Signal::TERM).unwrap();
    let (status, shown, said) = finish(child);
    use std::os::unix::process::ExitStatusExt as _;
    assert_eq!(status.signal(), Some(15), "{said}");
    assert_eq!(shown, "up\n");
    let told = stored(&[&dir.0]);
    assert_eq!(told.exit.as_deref(), Some("143"));
    assert!(told.markers.iter().any(|m| m.contains("TERM")), "{:?}", told.markers);
}
