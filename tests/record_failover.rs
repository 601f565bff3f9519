//! `castkeep record` while its recorders fail: what is stored, and what was shown. What is stored is what `castkeep join` makes of
//! the recorders' directories. The number of rounds comes from CASTKEEP_ROUNDS (2 unless set; `make full` takes 20), the moments from
//! a seed that a failure prints; CASTKEEP_SEED sets it.
#![allow(missing_docs, clippy::disallowed_methods, clippy::disallowed_types)]

mod client_support;

use std::fs::File;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use client_support::disk::{CASTKEEP, Dir, Serve, cutting_proxy, flaky_proxy, parts};
use client_support::{Told, join, tell, wait_until};
use rustix::process::{Pid, Signal, kill_process};

/// Numbered lines, said at full speed.
const LINES: usize = 150_000;
/// The program waits behind these for the failure, so that none comes too late.
const FIRST: usize = LINES / 2;
/// Fewer bytes than the first lines have in any recording.
const MOMENTS: u64 = (FIRST * LINE) as u64;
const LINE: usize = "line 00000000\n".len();

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

/// As [`seq`], but waits behind the first lines until the file is there.
fn gated_seq(gate: &Path) -> String {
    let (gate, next) = (gate.display(), FIRST + 1);
    format!(
        "seq -f 'line %08.0f' {FIRST}; while [ ! -e '{gate}' ]; do sleep 0.01; done; \
         seq -f 'line %08.0f' {next} {LINES}"
    )
}

/// Random moments.
struct Moments(u64);

impl Moments {
    fn new(test: &str) -> Self {
        let seed = std::env::var("CASTKEEP_SEED").ok().and_then(|s| s.parse().ok());
        let seed = seed.unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
            now.as_nanos() as u64
        });
        println!("{test}: CASTKEEP_SEED={seed}");
        // Tests that run at once are not to hit the same moments.
        Self(test.bytes().fold(seed, |all, b| all.rotate_left(7) ^ u64::from(b)))
    }

    /// splitmix64.
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
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

/// What has arrived in a directory, headers and all.
fn stored_bytes(dir: &Path) -> u64 {
    let nodes = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let files =
        nodes.flat_map(|node| std::fs::read_dir(node.path()).into_iter().flatten().flatten());
    let casts = files.filter(|file| file.path().extension().is_some_and(|e| e == "cast"));
    casts.filter_map(|cast| cast.metadata().ok()).map(|facts| facts.len()).sum()
}

fn expected() -> String {
    (1..=LINES).fold(String::new(), |all, n| all + &format!("line {n:08}\n"))
}

/// `castkeep join` of both directories, held against the events and against the union of the files.
fn joined_is_whole(what: &str, dirs: &[&Path], wanted: &str) {
    let out = Dir::new();
    let whole = out.0.join("whole.cast");
    let joined = Command::new(CASTKEEP)
        .args(["join", "-o"])
        .arg(&whole)
        .args(dirs)
        .env("CASTKEEP_CONFIG", "")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&joined.stderr);
    assert!(joined.status.success(), "{what}: {said}");
    assert!(!said.contains("not closed in order"), "{what}: {said}");
    println!("{what}: {}", said.trim_end());
    let bytes = std::fs::read(&whole).unwrap();
    // Every numbered line exactly once, in order.
    let told = tell(&bytes);
    let (have, want) = (told.output.len(), wanted.len());
    assert!(told.output == wanted, "{what}: stored {have} of {want}: {said}");
    assert_eq!(told.exit.as_deref(), Some("0"), "{what}");
    // The files hold these bytes and no others, what was never committed included.
    let union = join(&parts(dirs));
    assert!(bytes == union, "{what}: joined {} bytes, the files {}", bytes.len(), union.len());
}

/// A session that says numbered lines to two recorders, and waits in the middle for what happens to them.
struct Round {
    what: String,
    a: Serve,
    b: Serve,
    gate: std::path::PathBuf,
    session: thread::JoinHandle<(ExitStatus, String, String)>,
    _dirs: [Dir; 3],
}

impl Round {
    /// Comes back when `moment` bytes have arrived at the first recorder.
    fn start(what: &str, moment: u64) -> Self {
        Self::start_through(what, |a, b| vec![a, b], moment)
    }

    fn start_through(
        what: &str,
        recorders: impl FnOnce(SocketAddr, SocketAddr) -> Vec<SocketAddr>,
        moment: u64,
    ) -> Self {
        let dirs = [Dir::new(), Dir::new(), Dir::new()];
        let (a, b) = (Serve::start(&dirs[0].0), Serve::start(&dirs[1].0));
        let gate = dirs[2].0.join("gate");
        let script = gated_seq(&gate);
        let child =
            spawn(record(&recorders(a.addr, b.addr), &["--enforce"], &["sh", "-c", &script]));
        let session = thread::spawn(move || finish(child));
        let what = format!("{what} at {moment}");
        wait_until(&what, || {
            assert!(!session.is_finished(), "{what}: ended early");
            stored_bytes(&a.dir) > moment
        });
        Self { what, a, b, gate, session, _dirs: dirs }
    }

    /// Lets the program say the rest.
    fn go_on(&self) {
        File::create(&self.gate).unwrap();
    }

    /// To the session's end: everything was shown, and everything is stored.
    fn end(self) -> Ended {
        self.go_on();
        let Self { what, a, b, session, _dirs, .. } = self;
        let (status, shown, said) = session.join().unwrap();
        assert!(status.success(), "{what}: {status}: {said}");
        let wanted = expected();
        assert!(shown == wanted, "{what}: shown {} of {}", shown.len(), wanted.len());
        joined_is_whole(&what, &[&a.dir, &b.dir], &wanted);
        Ended { what, a, b, wanted, _dirs }
    }
}

struct Ended {
    what: String,
    a: Serve,
    b: Serve,
    wanted: String,
    _dirs: [Dir; 3],
}

impl Ended {
    /// The session was taken to the other recorder.
    fn moved(self) -> Self {
        assert!(stored_bytes(&self.b.dir) > 0, "{}: nothing went to the other one", self.what);
        self
    }

    /// The same once both recorders were stopped in order, having written everything that they still had.
    fn whole_after_the_recorders_stop(mut self) {
        for serve in [&mut self.a, &mut self.b] {
            serve.stop_if_alive();
        }
        let what = format!("{}, recorders stopped", self.what);
        joined_is_whole(&what, &[&self.a.dir, &self.b.dir], &self.wanted);
    }
}

#[test]
fn a_killed_recorder_loses_nothing() {
    let mut moments = Moments::new("SIGKILL");
    for _ in 0..rounds() {
        let mut round = Round::start("SIGKILL", moments.below(MOMENTS));
        round.a.kill();
        round.end().moved().whole_after_the_recorders_stop();
    }
}

/// A black hole; it wakes up when all is over.
#[test]
fn a_stopped_recorder_loses_nothing() {
    let mut moments = Moments::new("SIGSTOP");
    for _ in 0..rounds() {
        let round = Round::start("SIGSTOP", moments.below(MOMENTS));
        round.a.signal(Signal::STOP);
        let ended = round.end().moved();
        ended.a.signal(Signal::CONT);
        ended.whole_after_the_recorders_stop();
    }
}

/// Split brain: the first recorder wakes up, and writes what it still had, while the session goes on at the other one.
#[test]
fn a_recorder_that_wakes_up_while_the_session_is_elsewhere_does_not_diverge() {
    let mut moments = Moments::new("split brain");
    for _ in 0..rounds() {
        let round = Round::start("split brain", moments.below(MOMENTS));
        round.a.signal(Signal::STOP);
        wait_until("the other recorder", || stored_bytes(&round.b.dir) > 0);
        let at = stored_bytes(&round.b.dir);
        round.a.signal(Signal::CONT);
        round.go_on();
        wait_until("the session to go on", || stored_bytes(&round.b.dir) > at);
        round.end().moved().whole_after_the_recorders_stop();
    }
}

#[test]
fn an_orderly_stop_loses_nothing() {
    let mut moments = Moments::new("SIGTERM");
    for _ in 0..rounds() {
        let round = Round::start("SIGTERM", moments.below(MOMENTS));
        round.a.stop();
        round.end().moved().whole_after_the_recorders_stop();
    }
}

#[test]
fn a_recorder_that_comes_back_is_resumed() {
    let mut moments = Moments::new("restart");
    for _ in 0..rounds() {
        let mut round = Round::start("restart", moments.below(MOMENTS));
        // Only the first one can be had.
        round.b.kill();
        round.a.kill();
        round.a = Serve::start_at(round.a.addr, &round.a.dir.clone());
        let ended = round.end();
        assert_eq!(parts(&[&ended.a.dir]).len(), 1, "the same part goes on");
        assert_eq!(stored_bytes(&ended.b.dir), 0);
        ended.whole_after_the_recorders_stop();
    }
}

#[test]
fn a_connection_cut_in_the_middle_of_a_frame_loses_nothing() {
    let mut moments = Moments::new("cut");
    for _ in 0..rounds() {
        let cut = 100_000 + moments.below(MOMENTS) as usize;
        let through = |a, b| vec![cutting_proxy(a, cut), b];
        Round::start_through(&format!("cut after {cut}"), through, 0)
            .end()
            .moved()
            .whole_after_the_recorders_stop();
    }
}

/// The same recorder takes the session up again, behind each cut.
#[test]
fn connections_cut_again_and_again_are_resumed() {
    let mut moments = Moments::new("cuts");
    for _ in 0..rounds() {
        let cuts: Vec<_> = (0..3).map(|_| 50_000 + moments.below(MOMENTS / 3) as usize).collect();
        let what = format!("cuts after {cuts:?}");
        let round = Round::start_through(&what, |a, _| vec![flaky_proxy(a, cuts)], 0);
        let ended = round.end();
        assert_eq!(parts(&[&ended.a.dir]).len(), 1, "{what}: the same part goes on");
        ended.whole_after_the_recorders_stop();
    }
}

#[test]
fn with_release_commit_what_was_shown_is_stored_though_the_client_is_killed() {
    let mut moments = Moments::new("SIGKILL of both");
    for _ in 0..rounds() {
        let (dir, out) = (Dir::new(), Dir::new());
        let mut server = Serve::start(&dir.0);
        let shown = out.0.join("shown");
        let mut command =
            record(&[server.addr], &["--enforce", "--release", "commit"], &["sh", "-c", &seq()]);
        command.stdout(File::create(&shown).unwrap()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let moment = moments.below(MOMENTS);
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
