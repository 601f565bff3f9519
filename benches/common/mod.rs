//! What the measuring programs share: their options, the recorder that they start, and how a result is printed.
#![allow(dead_code, unreachable_pub, clippy::disallowed_methods, clippy::disallowed_types)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How a program was called.
pub(crate) struct Args {
    /// Small sizes: shows that the program works, measures nothing.
    pub(crate) smoke: bool,
    /// A missed goal is a failure.
    pub(crate) strict: bool,
}

impl Args {
    /// From the command line; cargo adds words of its own, which are passed over.
    pub(crate) fn parse() -> Self {
        let has = |name: &str| std::env::args().any(|arg| arg == name);
        Self { smoke: has("--smoke"), strict: has("--strict") }
    }

    /// `full`, or `smoke` in a smoke run.
    pub(crate) fn size<T>(&self, full: T, smoke: T) -> T {
        if self.smoke { smoke } else { full }
    }
}

/// What a measured number is held against.
#[derive(Clone, Copy)]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

/// Prints results and remembers whether all goals were met.
pub(crate) struct Report<'a> {
    args: &'a Args,
    missed: bool,
}

impl<'a> Report<'a> {
    pub(crate) fn new(args: &'a Args) -> Self {
        Self { args, missed: false }
    }

    /// One line for people and for ci/bench, which makes a row of BENCHMARKS.md of it.
    pub(crate) fn result(&mut self, name: &str, measured: f64, unit: &str, goal: Goal, how: &str) {
        let (met, goal) = match goal {
            Goal::AtLeast(least) => (measured >= least, format!("at least {least}{unit}")),
            Goal::AtMost(most) => (measured <= most, format!("at most {most}{unit}")),
        };
        let verdict = match (met, self.args.smoke) {
            (_, true) => "smoke run, says nothing",
            (true, _) => "met",
            (false, _) => "MISSED",
        };
        self.missed |= !met && !self.args.smoke;
        println!("RESULT | {name} | {measured:.2}{unit} | {goal} | {verdict} | {how}");
    }

    /// The exit status: a missed goal is a failure only when asked for.
    pub(crate) fn finish(self) {
        if self.missed && self.args.strict {
            std::process::exit(1);
        }
    }
}

/// The middle of the measurements.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A directory under the target directory, so on a disk and not in memory, removed at the end.
pub(crate) struct Dir(pub(crate) PathBuf);

impl Dir {
    pub(crate) fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("bench-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a directory for the measurement");
        Self(path)
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// `castkeep serve` as a process of its own, on a free port of loopback.
pub(crate) struct Recorder {
    child: Child,
    pub(crate) addr: SocketAddr,
}

impl Recorder {
    pub(crate) fn start(dst: &Path, more: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_castkeep"))
            .args(["serve", "--listen", "127.0.0.1:0", "--dst"])
            .arg(dst)
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("castkeep serve");
        let (send, receive) = std::sync::mpsc::channel();
        let out = child.stdout.take().expect("a pipe");
        let err = child.stderr.take().expect("a pipe");
        for pipe in [Box::new(out) as Box<dyn Read + Send>, Box::new(err)] {
            let send = send.clone();
            // Goes on reading to the end, so that the recorder never waits for us.
            std::thread::spawn(move || {
                for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                    let _ = send.send(line);
                }
            });
        }
        let guard = Instant::now() + Duration::from_secs(20);
        let mut seen = String::new();
        loop {
            let left = guard.saturating_duration_since(Instant::now());
            match receive.recv_timeout(left) {
                Ok(line) => {
                    if let Some(addr) = address_in(&line) {
                        return Self { child, addr };
                    }
                    seen += &line;
                    seen += "\n";
                }
                Err(_) => {
                    let _ = child.kill();
                    let _ = child.wait();
                    panic!("castkeep serve does not say what it listens on:\n{seen}");
                }
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory of the process in bytes: all of it, and what is not backed by files.
    pub(crate) fn resident(&self) -> (u64, u64) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("procfs");
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).unwrap_or(0) * 1024
        };
        (field("VmRSS:"), field("RssAnon:"))
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn address_in(line: &str) -> Option<SocketAddr> {
    line.split(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':'))
        .filter_map(|word| word.trim_end_matches([':', '.']).parse().ok())
        .find(|addr: &SocketAddr| addr.ip().is_loopback() && addr.port() != 0)
}

/// Lines of 79 columns as a log has them, ended by LF, `bytes` of them.
pub(crate) fn log_text(bytes: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes + 80);
    let mut n = 0u32;
    while text.len() < bytes {
        writeln!(
            text,
            "2026-11-23T05:00:{:02}Z app[{:05}]: request {n:08} took {:03} ms, answered with 200 ok..",
            n % 60,
            n % 65_536,
            n % 997
        )
        .expect("memory");
        n += 1;
    }
    text.truncate(bytes);
    text
}
