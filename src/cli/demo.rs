//! `castkeep demo`: a recorder dies in mid-session, and nothing is lost. Everything runs as a user would run it: this program
//! starts itself as two recorders, as `record` in a terminal of its own, and as the tools afterwards.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::Winsize;

use super::pty::Pty;
use super::{Args, Exit, Failure, Opt, Spec, locate};
use crate::recorder::storage::read;

pub(crate) const SPEC: Spec = Spec {
    name: "demo",
    summary: "shows what happens when a recorder dies in mid-session",
    operands: "",
    options: &[
        Opt::switch("keep", "Keeps the recordings and says where they are."),
        Opt::value("speed", "N", "How fast the result is played at the end. Default 4."),
    ],
    about: "Starts two recorders on loopback, records a shell session through the first, kills that recorder in the middle \
of a command, lets the session go on through the second, then lists, joins and plays the result. Fails when anything is \
missing from it.",
    exits: "",
    examples: "castkeep demo\ncastkeep demo --keep",
    environment: true,
    stops_at_operand: false,
};

/// Any step that takes longer has failed.
const GUARD: Duration = Duration::from_secs(60);
/// Lines of the command during which the recorder is killed.
const LINES: u32 = 20_000;

pub(crate) fn run(args: &Args) -> Result<Exit, Failure> {
    let keep = args.switch("keep")?;
    let speed = args.string("speed")?.unwrap_or_else(|| "4".into());
    let scratch = Scratch::new(keep)?;
    let result = story(&scratch.0, &speed);
    if keep {
        say(&format!("kept in {}", scratch.0.display()));
    }
    result.map(|()| Exit::OK)
}

fn story(dir: &Path, speed: &str) -> Result<(), Failure> {
    let (one, two) = (dir.join("recorder-1"), dir.join("recorder-2"));
    let mut first = Recorder::start(&one)?;
    let second = Recorder::start(&two)?;
    say(&format!("two recorders: {} and {}", first.address, second.address));
    say("a shell session, recorded through the first; the second stands by");
    let recorders = format!("{},{}", first.address, second.address);
    let mut session = Session::start(&recorders)?;
    session.type_line("echo this is a real shell; tty")?;
    session.wait_for("/dev/pts/")?;
    session.type_line("uname -sm")?;
    session.wait_for("Linux")?;
    session.type_line(&format!("seq -f 'line %.0f of {LINES}' {LINES}"))?;
    session.show(false);
    session.wait_for("line 500 of")?;
    first.kill();
    session.wait_for(&format!("line {LINES} of {LINES}"))?;
    session.show(true);
    println!("\r");
    say(
        "the first recorder was killed (SIGKILL) in the middle of those lines; the session went on",
    );
    session.type_line("echo still here")?;
    session.wait_for("still here\r\n")?;
    session.type_line("exit 7")?;
    let status = session.end()?;
    if status != Some(7) {
        return Err(Failure::new(format!("the shell's exit status 7 came back as {status:?}")));
    }
    say("the shell's exit status 7 was passed on");
    drop(second);

    say("castkeep ls recorder-1 recorder-2");
    tool(dir, ["ls", "recorder-1", "recorder-2"])?;
    let found = locate::list(&[one, two])?;
    let [recording] = found.as_slice() else {
        return Err(Failure::new(format!("{} recordings where one should be", found.len())));
    };
    if recording.parts.len() < 2 {
        return Err(Failure::new("the recording has one part: the recorder died too late"));
    }
    let id = recording.id.get(..8).unwrap_or(&recording.id);
    say(&format!("castkeep join -o whole.cast recorder-1 recorder-2 {id}"));
    tool(dir, ["join", "-o", "whole.cast", "recorder-1", "recorder-2", id])?;
    check_lines(recording)?;
    say(&format!("all {LINES} lines are in it, each once"));
    say(&format!("castkeep play --speed {speed} --idle-limit 0.5s whole.cast"));
    tool(dir, ["play", "--speed", speed, "--idle-limit", "0.5s", "whole.cast"])?;
    println!("\r");
    say("that was the recording; a recorder died in it");
    Ok(())
}

/// Counts the lines in what was recorded, not in what was shown.
fn check_lines(recording: &read::Recording) -> Result<(), Failure> {
    let mut cast = Vec::new();
    read::join(&recording.parts, &mut cast).map_err(|e| Failure::new(e.to_string()))?;
    let mut text = String::new();
    for line in cast.split(|b| *b == b'\n').skip(1) {
        if let Ok(event) = crate::cast::parse_event(line)
            && event.code == b'o'
        {
            text.push_str(&event.data);
        }
    }
    let wanted = (1..=LINES).map(|n| format!("line {n} of {LINES}"));
    let found = text
        .split("\r\n")
        .filter(|l| l.starts_with("line ") && l.ends_with(&format!(" of {LINES}")));
    if found.eq(wanted) {
        Ok(())
    } else {
        Err(Failure::new("a line is missing from the recording, or is there twice"))
    }
}

fn say(text: &str) {
    println!("\r\x1b[1m== {text}\x1b[0m\r");
    let _ = io::stdout().flush();
}

fn this_program() -> Result<Command, Failure> {
    let path = std::env::current_exe()
        .map_err(|e| Failure::new(format!("where this program is cannot be found out: {e}")))?;
    let mut command = Command::new(path);
    // The demo is the same whatever is configured here.
    let ours = std::env::vars_os().filter(|(k, _)| k.as_encoded_bytes().starts_with(b"CASTKEEP_"));
    for (key, _) in ours {
        command.env_remove(key);
    }
    Ok(command)
}

/// Runs a tool with the user's own output.
fn tool<'a>(dir: &Path, args: impl IntoIterator<Item = &'a str>) -> Result<(), Failure> {
    let mut command = this_program()?;
    // Keys pressed meanwhile are not for `play`.
    let status = command.args(args).current_dir(dir).stdin(Stdio::null()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::new(format!("that ended with {status}"))),
        Err(e) => Err(Failure::new(format!("that could not be started: {e}"))),
    }
}

/// A directory that goes away with the demo.
struct Scratch(PathBuf, bool);

impl Scratch {
    fn new(keep: bool) -> Result<Self, Failure> {
        use std::os::unix::fs::DirBuilderExt as _;
        let base = std::env::temp_dir();
        for n in 0..100 {
            let path = base.join(format!("castkeep-demo-{}-{n}", std::process::id()));
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path, keep)),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(Failure::new(format!("making {}: {e}", path.display()))),
            }
        }
        Err(Failure::new(format!("no free name in {}", base.display())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.1 {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// `castkeep serve` as a child.
struct Recorder {
    child: Child,
    address: String,
}

impl Recorder {
    fn start(dst: &Path) -> Result<Self, Failure> {
        let mut command = this_program()?;
        command.args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--min-free",
            "1MiB",
            "--log-level",
            "error",
            "--dst",
        ]);
        command.arg(dst).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command
            .spawn()
            .map_err(|e| Failure::new(format!("a recorder cannot be started: {e}")))?;
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            // It says where it listens, or ends with a message of its own.
            let _ = BufReader::new(out).read_line(&mut line);
        }
        match line.trim().strip_prefix("listening on ") {
            Some(address) => Ok(Self { child, address: address.to_owned() }),
            None => {
                let _ = child.kill();
                let _ = child.wait();
                Err(Failure::new("a recorder did not start"))
            }
        }
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Recorder {
    /// In order, so that the recording is closed.
    fn drop(&mut self) {
        if let Ok(Some(_)) = self.child.try_wait() {
            return;
        }
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id().cast_signed()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end {
            if let Ok(Some(_)) = self.child.try_wait() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.kill();
    }
}

/// `castkeep record` with a shell, in a terminal of its own.
struct Session {
    child: Child,
    pty: Pty,
    /// What it showed and nobody waited for yet.
    seen: Vec<u8>,
    shown: bool,
}

impl Session {
    fn start(recorders: &str) -> Result<Self, Failure> {
        let failed = |e: io::Error| Failure::new(format!("a terminal cannot be opened: {e}"));
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        let (pty, slave): (Pty, OwnedFd) = Pty::open(None, size).map_err(failed)?;
        let mut command = this_program()?;
        command.args(["record", "--enforce", "--recorders", recorders, "--", "/bin/sh", "-i"]);
        // The user's own start-up files and prompt have no place in it.
        command.env("PS1", "demo$ ").env_remove("ENV").env("TERM", "xterm");
        let child = Pty::spawn(command, &slave).map_err(failed)?;
        drop(slave);
        Ok(Self { child, pty, seen: Vec::new(), shown: true })
    }

    fn show(&mut self, shown: bool) {
        self.shown = shown;
        if !shown {
            say("(20,000 lines, not shown here)");
        }
    }

    /// Types at the prompt, as a person would.
    fn type_line(&mut self, line: &str) -> Result<(), Failure> {
        self.wait_for("demo$ ")?;
        let mut text = line.as_bytes().to_vec();
        text.push(b'\n');
        let mut rest: &[u8] = &text;
        while !rest.is_empty() {
            match rustix::io::write(self.pty.master(), rest) {
                Ok(n) => rest = rest.get(n..).unwrap_or_default(),
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(e) => return Err(Failure::new(format!("typing into the session: {e}"))),
            }
        }
        // The echo is not an answer.
        self.wait_for("\n")
    }

    /// Shows what the session shows until it showed this.
    fn wait_for(&mut self, text: &str) -> Result<(), Failure> {
        let end = Instant::now() + GUARD;
        let wanted = memchr::memmem::Finder::new(text);
        loop {
            if let Some(at) = wanted.find(&self.seen) {
                self.seen.drain(..at + text.len());
                return Ok(());
            }
            if !self.read(end)? {
                return Err(Failure::new(format!("the session ended before it showed `{text}`")));
            }
            if Instant::now() >= end {
                return Err(Failure::new(format!("the session did not show `{text}`")));
            }
            // Enough to find the text across two reads.
            let keep = text.len().max(4096);
            if self.seen.len() > 64 * keep {
                self.seen.drain(..self.seen.len() - keep);
            }
        }
    }

    /// False: the terminal is closed.
    fn read(&mut self, end: Instant) -> Result<bool, Failure> {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: 1_000_000 };
        let mut fds = [PollFd::from_borrowed_fd(self.pty.master().as_fd(), PollFlags::IN)];
        let _ = poll(&mut fds, Some(&timeout));
        let mut buffer = [0; 4096];
        match rustix::io::read(self.pty.master(), &mut buffer) {
            Ok(0) | Err(rustix::io::Errno::IO) => Ok(false),
            Ok(n) => {
                let piece = buffer.get(..n).unwrap_or_default();
                if self.shown {
                    let mut out = io::stdout().lock();
                    let _ = out.write_all(piece).and_then(|()| out.flush());
                }
                self.seen.extend_from_slice(piece);
                Ok(true)
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(true),
            Err(e) => Err(Failure::new(format!("reading from the session: {e}"))),
        }
    }

    /// Waits for the end of `record`.
    fn end(mut self) -> Result<Option<i32>, Failure> {
        let end = Instant::now() + GUARD;
        while Instant::now() < end && self.read(end)? {}
        let status = self.child.wait().map_err(|e| Failure::new(format!("waiting: {e}")))?;
        Ok(status.code())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
