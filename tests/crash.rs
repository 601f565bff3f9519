//! SIGKILL at every step of ingest and seal: what was committed is there, and can be gone on with.
//!
//! The test runs itself as a child whose disk kills the process at its n-th call, for every n that the child's story has, before
//! and after the call; and a second time at random moments in real time.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod storage_support;

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use castkeep::recorder::storage::{Disk, How, RealDisk, Sidecar, State, Store, StoreConfig, read};
use storage_support::{Claim, Dir};

const HEADER: &[u8] = b"{\"version\":2,\"width\":80,\"height\":24}\n";

/// The stream of the story: any prefix can be told from any other bytes.
fn stream(lines: u32) -> Vec<u8> {
    let mut all = HEADER.to_vec();
    for n in 0..lines {
        all.extend_from_slice(format!("[{n}.5,\"o\",\"line {n}\"]\n").as_bytes());
    }
    all
}

/// Kills this process at its n-th call: even numbers before it is done, odd ones behind it.
#[derive(Debug)]
struct Killer {
    at: u64,
    calls: AtomicU64,
}

impl Killer {
    fn step<T>(&self, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let n = self.calls.fetch_add(2, Ordering::SeqCst);
        if n == self.at {
            die();
        }
        let result = call();
        if n + 1 == self.at {
            die();
        }
        result
    }
}

fn die() -> ! {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    loop {
        std::thread::park();
    }
}

impl Disk for Killer {
    fn write_at(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        // A write that is killed in the middle leaves a part of itself.
        let n = self.calls.fetch_add(2, Ordering::SeqCst);
        if n == self.at {
            let _ = RealDisk.write_at(file, &bytes[..bytes.len() / 2], at);
            die();
        }
        let result = RealDisk.write_at(file, bytes, at);
        if n + 1 == self.at {
            die();
        }
        result
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        self.step(|| RealDisk.sync(file))
    }

    fn sync_fs(&self, dir: &File) -> io::Result<()> {
        self.step(|| RealDisk.sync_fs(dir))
    }

    fn sync_dir(&self, dir: &File) -> io::Result<()> {
        self.step(|| RealDisk.sync_dir(dir))
    }

    fn free_bytes(&self, dir: &File) -> io::Result<u64> {
        RealDisk.free_bytes(dir)
    }
}

/// Not a test of its own: what the child does.
#[test]
fn child() {
    let Ok(path) = std::env::var("CASTKEEP_CRASH_DIR") else { return };
    let at = std::env::var("CASTKEEP_CRASH_AT").ok().and_then(|n| n.parse().ok());
    let lines: u32 = std::env::var("CASTKEEP_CRASH_LINES").unwrap().parse().unwrap();
    let mut config = StoreConfig::new(&path);
    config.disk = Arc::new(Killer { at: at.unwrap_or(u64::MAX), calls: AtomicU64::new(0) });
    let (store, _) = Store::open(config).unwrap();
    let dir = Dir::borrowed(&path);
    let mut upload = store.begin(dir.resumable(&Claim::new(1), 1, 0)).unwrap();
    let mut out = io::stdout();
    let mut told = 0;
    let mut tell = |commit: u64| {
        if commit > told {
            told = commit;
            // Said only once it is true: the parent holds us to it.
            writeln!(out, "commit {commit}").unwrap();
            out.flush().unwrap();
        }
    };
    for piece in stream(lines).chunks(40) {
        upload.append(piece).unwrap();
        tell(upload.progress().commit);
    }
    upload.end(How::Clean);
    loop {
        let progress = upload.progress();
        tell(progress.commit);
        match progress.state {
            State::Sealed(end) => break tell_sealed(end),
            State::Open => std::thread::yield_now(),
            other => panic!("{other:?}"),
        }
    }
}

fn tell_sealed(end: u64) {
    println!("sealed {end}");
}

/// What a child has said until it was killed.
#[derive(Debug, Default)]
struct Told {
    commit: u64,
    sealed: bool,
    killed: bool,
}

fn run_child(dir: &Dir, at: Option<u64>, lines: u32, kill_after: Option<Duration>) -> Told {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture"]).stdout(Stdio::piped());
    command.env("CASTKEEP_CRASH_DIR", dir.path()).env("CASTKEEP_CRASH_LINES", lines.to_string());
    if let Some(at) = at {
        command.env("CASTKEEP_CRASH_AT", at.to_string());
    }
    let mut child = command.spawn().unwrap();
    let mut told = Told::default();
    let mut said = Vec::new();
    let out = BufReader::new(child.stdout.take().unwrap());
    if let Some(after) = kill_after {
        // The moment is the point here; nothing is waited for.
        std::thread::sleep(after);
        child.kill().unwrap();
    }
    for line in out.lines().map_while(Result::ok) {
        if let Some(commit) = line.strip_prefix("commit ").and_then(|n| n.parse().ok()) {
            told.commit = commit;
        }
        told.sealed |= line.starts_with("sealed ");
        said.push(line);
    }
    let status = child.wait().unwrap();
    told.killed = status.code().is_none();
    assert!(told.killed || told.sealed, "the child ended with {status} and said {said:?}");
    told
}

/// After a kill: what was told is there, and a resume leads to the whole recording.
fn check(dir: &Dir, told: &Told, lines: u32, what: &str) {
    let whole = stream(lines);
    let (store, recovery) = Store::open(StoreConfig::new(dir.path())).unwrap();
    // A journal that the kill tore before anything was committed is the only bad one.
    assert!(told.commit == 0 || recovery.bad.is_empty(), "{what}: {:?}", recovery.bad);
    for part in read::parts(dir.path()).unwrap() {
        let kept = fs::read(&part.path).unwrap();
        assert_eq!(kept, whole[..kept.len()], "{what}: what is kept is what was sent");
        assert!(told.commit <= kept.len() as u64, "{what}: a commit was broken");
        let sidecar = part.path.with_extension("json");
        if sidecar.exists() {
            let sidecar = Sidecar::parse(&fs::read(sidecar).unwrap()).unwrap();
            assert_eq!(sidecar.sha256, storage_support::sha256(&kept), "{what}");
        }
        if told.sealed {
            assert_eq!(kept.len(), whole.len(), "{what}: sealed and not whole");
        }
    }
    if told.sealed {
        return;
    }
    let mut upload = store.begin(dir.resumable(&Claim::new(1), 2, 0)).unwrap();
    assert!(upload.start_commit() >= told.commit || recovery.resumable == 0, "{what}");
    upload.append(&whole).unwrap();
    upload.end(How::Clean);
    dir.wait(&upload, |p| p.state == State::Sealed(whole.len() as u64));
    let recordings = read::group(read::parts(dir.path()).unwrap());
    let mut joined = Vec::new();
    let whole_parts: Vec<_> = recordings
        .iter()
        .flat_map(|r| r.parts.iter())
        .filter(|p| !matches!(p.kept, read::Kept::Broken(_)))
        .cloned()
        .collect();
    read::join(&whole_parts, &mut joined).unwrap();
    assert_eq!(joined, whole, "{what}");
}

#[test]
fn killed_at_every_step() {
    let lines = 6;
    let mut killed = 0;
    for at in 0.. {
        let dir = Dir::new();
        let told = run_child(&dir, Some(at), lines, None);
        check(&dir, &told, lines, &format!("killed at step {at}"));
        if !told.killed {
            assert!(told.sealed);
            break;
        }
        killed += 1;
    }
    println!("killed at {killed} steps");
    assert!(killed >= 20, "the story has more steps than that");
}

#[test]
fn killed_at_random_moments() {
    let rounds = std::env::var("CASTKEEP_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(8);
    let seed = std::env::var("CASTKEEP_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    println!("seed {seed}");
    let mut state: u64 = seed;
    for round in 0..rounds {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let after = Duration::from_micros(2_000 + (state >> 33) % 60_000);
        let dir = Dir::new();
        let told = run_child(&dir, None, 20_000, Some(after));
        check(&dir, &told, 20_000, &format!("round {round}, killed after {after:?}"));
    }
}
