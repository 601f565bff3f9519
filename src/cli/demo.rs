//! `castkeep demo`: two recorders, a real shell session, the first recorder is killed, nothing is lost.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::Winsize;

use super::pty::Pty;
use super::signals::{self, Signals};
use super::{Args, Exit, Failure, Opt, Spec};
use crate::cast::text::{Filter, escape_control};

pub(crate) const SPEC: Spec = Spec {
    name: "demo",
    summary: "shows a recorder dying in mid-session, and that nothing is lost",
    operands: "",
    options: &[
        Opt::switch(
            "keep",
            "Leaves the directory with both recorders' files, and says where it is.",
        ),
        Opt::value(
            "lines",
            "N",
            "Lines that the session prints while the recorder is killed. Default 200.",
        ),
    ],
    about: "Starts two recorders on loopback, in a temporary directory, and a shell under `castkeep record` that uploads to \
the first. While the shell prints numbered lines the first recorder is killed (SIGKILL); the session goes on through the \
second. Then the parts on both are listed, joined and played, and what was recorded is compared, byte for byte, with what \
was shown. It works without a terminal too.",
    exits: "1  something was lost, or did not work; a message says what",
    examples: "castkeep demo\ncastkeep demo --keep",
    environment: true,
    stops_at_operand: false,
};

pub(crate) fn run(args: &Args) -> Result<Exit, Failure> {
    let lines = args.parse_as::<u32>("lines", "a number from 20 to 100000")?.unwrap_or(200);
    if !(20..=100_000).contains(&lines) {
        return Err(args.wrong("lines", "a number from 20 to 100000"));
    }
    let mut demo = Demo::new(args.switch("keep")?)?;
    let result = demo.play(lines);
    if let Some(signal) = demo.ended_by {
        drop(demo);
        signals::end_by(signal.as_raw());
        return Ok(Exit::FAILURE);
    }
    if result.is_err() {
        demo.show_logs();
    }
    if demo.keep {
        say(&format!("everything is in {}", demo.dir.display()));
    }
    result.map(|()| Exit::OK)
}

struct Demo {
    program: PathBuf,
    dir: PathBuf,
    keep: bool,
    signals: Signals,
    ended_by: Option<Signal>,
    recorders: Vec<Running>,
}

/// A child that does not outlive this.
struct Running {
    child: Child,
    address: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.recorders.clear();
        if !self.keep {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

impl Demo {
    fn new(keep: bool) -> Result<Self, Failure> {
        let mut random = [0; 8];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
            .map_err(|e| Failure::new(format!("random bytes: {e}")))?;
        let name = format!("castkeep-demo-{:016x}", u64::from_ne_bytes(random));
        let dir = std::env::temp_dir().join(name);
        let wrong = |what: &str, e: io::Error| Failure::new(format!("{what}: {e}"));
        let program = std::env::current_exe().map_err(|e| wrong("the path of castkeep", e))?;
        let signals = Signals::catch().map_err(|e| wrong("signals", e))?;
        fs::create_dir(&dir).map_err(|e| wrong(&dir.display().to_string(), e))?;
        let demo = Self { program, dir, keep, signals, ended_by: None, recorders: Vec::new() };
        // Whatever is configured on this machine is not for the demonstration.
        fs::write(demo.path("empty.hujson"), "{}\n").map_err(|e| wrong("the directory", e))?;
        Ok(demo)
    }

    fn play(&mut self, lines: u32) -> Result<(), Failure> {
        for name in ["a", "b"] {
            let recorder = self.serve(name)?;
            say(&format!(
                "recorder {name} listens on {}, process {}",
                recorder.address,
                recorder.child.id()
            ));
            self.recorders.push(recorder);
        }
        let addresses: Vec<&str> = self.recorders.iter().map(|r| r.address.as_str()).collect();
        let addresses = addresses.join(",");
        say(&format!("a shell under `castkeep record --enforce --recorders {addresses}`:"));
        let shown = self.session(&addresses, lines)?;
        say(&format!(
            "the shell ended with status 7, which `record` passed on; {} bytes were shown",
            shown.len()
        ));

        let (a, b) = (self.path("a"), self.path("b"));
        say("castkeep ls a b");
        self.run_shown(self.castkeep("ls").arg(&a).arg(&b))?;
        let whole = self.path("whole.cast");
        say("castkeep join -o whole.cast a b");
        self.run_shown(self.castkeep("join").arg("-o").arg(&whole).arg(&a).arg(&b))?;

        say("castkeep play --raw whole.cast, compared with what was shown");
        let output = self
            .castkeep("play")
            .arg("--raw")
            .arg(&whole)
            .stdin(Stdio::null())
            .output()
            .map_err(|e| Failure::new(format!("castkeep play: {e}")))?;
        compare(&shown, &output.stdout, lines)?;
        say(&format!("  equal, byte for byte: {} bytes, every line once", output.stdout.len()));

        say("castkeep play --speed 4 --idle-limit 100ms whole.cast");
        let speed = ["--speed", "4", "--idle-limit", "100ms", "--quiet"];
        self.run_shown(self.castkeep("play").args(speed).arg(&whole))?;
        println!();
        self.stop_second()?;
        say("nothing was lost");
        Ok(())
    }

    /// Starts a recorder and waits until it says where it listens.
    fn serve(&self, name: &str) -> Result<Running, Failure> {
        let wrong = |e: io::Error| Failure::new(format!("recorder {name}: {e}"));
        let log = File::create(self.path(&format!("{name}.log"))).map_err(wrong)?;
        let mut child = self
            .castkeep("serve")
            .args(["--listen", "127.0.0.1:0", "--min-free", "1MiB", "--dst"])
            .arg(self.path(name))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(wrong)?;
        let stdout = child.stdout.take();
        let mut running = Running { child, address: String::new() };
        let (tell, told) = mpsc::channel();
        if let Some(stdout) = stdout {
            // Reads on to the end, so that the recorder never writes into a closed pipe.
            let read = move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    let _ = tell.send(line);
                }
            };
            thread::Builder::new().spawn(read).map_err(wrong)?;
        }
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = told
                .recv_timeout(left)
                .map_err(|_| Failure::new(format!("recorder {name} did not start")))?;
            if let Some(address) = line.strip_prefix("listening on ") {
                running.address = address.to_owned();
                return Ok(running);
            }
        }
    }

    /// The shell session, with the first recorder's death in it. Gives what it showed.
    fn session(&mut self, addresses: &str, lines: u32) -> Result<Vec<u8>, Failure> {
        let wrong = |e: io::Error| Failure::new(format!("the session: {e}"));
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        let (pty, slave) = Pty::open(None, size).map_err(wrong)?;
        let mut command = self.castkeep("record");
        command
            .args(["--enforce", "--quiet", "--recorders", addresses, "--", "/bin/sh", "-i"])
            .env("PS1", PROMPT)
            .env("HOME", &self.dir)
            .env("TERM", "dumb")
            .env_remove("ENV")
            .current_dir(&self.dir);
        let child = Pty::spawn(command, &slave).map_err(wrong)?;
        drop(slave);
        let mut session = Session {
            pty,
            record: Running { child, address: String::new() },
            shown: Vec::new(),
            seen: 0,
            typed: VecDeque::new(),
            printer: Printer::default(),
        };
        session.until(self, PROMPT)?;
        // What is waited for is never what is typed: the terminal shows that too.
        session.enter("echo \"hello from $((40 + 2))\"");
        session.until(self, "hello from 42")?;
        session.until(self, PROMPT)?;
        session.enter("uname -s");
        session.until(self, PROMPT)?;
        session.enter(&format!(
            "i=0; while [ $i -lt {lines} ]; do i=$((i+1)); echo \"line $i.\"; sleep 0.005; done; echo \"all $i\""
        ));
        session.until(self, &format!("line {}.", lines / 2))?;
        let Some(first) = self.recorders.first_mut() else {
            return Err(Failure::new("there is no recorder"));
        };
        first.child.kill().and_then(|()| first.child.wait()).map_err(wrong)?;
        session.printer.end_line();
        say(&format!(
            "recorder a is killed with SIGKILL at line {}; the session goes on:",
            lines / 2
        ));
        session.until(self, &format!("all {lines}"))?;
        session.until(self, PROMPT)?;
        session.enter("echo \"still $((1 + 1))\"; exit 7");
        session.until(self, "still 2")?;
        session.finish(self)
    }

    fn stop_second(&mut self) -> Result<(), Failure> {
        let Some(second) = self.recorders.get_mut(1) else { return Ok(()) };
        if let Some(pid) = Pid::from_raw(i32::try_from(second.child.id()).unwrap_or(0)) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            match second.child.try_wait() {
                Ok(Some(status)) if status.success() => {
                    say("recorder b was told to stop (SIGTERM) and did");
                    return Ok(());
                }
                Ok(Some(status)) => {
                    return Err(Failure::new(format!("recorder b ended: {status}")));
                }
                _ => thread::sleep(Duration::from_millis(20)),
            }
        }
        Err(Failure::new("recorder b did not stop"))
    }

    /// This program, with nothing of this machine's configuration.
    fn castkeep(&self, name: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(name).arg("--config").arg(self.path("empty.hujson"));
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("CASTKEEP_") {
                command.env_remove(variable);
            }
        }
        command
    }

    fn run_shown(&self, command: &mut Command) -> Result<(), Failure> {
        let _ = io::stdout().flush();
        let name = command.get_args().next().unwrap_or_default().to_string_lossy().into_owned();
        let status = command.stdin(Stdio::null()).status();
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(Failure::new(format!("castkeep {name} failed: {status}"))),
            Err(e) => Err(Failure::new(format!("castkeep {name}: {e}"))),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn show_logs(&self) {
        for name in ["a.log", "b.log"] {
            let Ok(text) = fs::read_to_string(self.path(name)) else { continue };
            for line in text.lines().rev().take(10).collect::<Vec<_>>().into_iter().rev() {
                eprintln!("{name}: {}", escape_control(line));
            }
        }
    }
}

/// `castkeep record` on a terminal of ours.
struct Session {
    pty: Pty,
    record: Running,
    shown: Vec<u8>,
    /// Up to where what is waited for was found.
    seen: usize,
    typed: VecDeque<u8>,
    printer: Printer,
}

impl Session {
    fn enter(&mut self, line: &str) {
        self.typed.extend(line.bytes());
        self.typed.push_back(b'\r');
    }

    /// Reads and types until a text was shown.
    fn until(&mut self, demo: &mut Demo, text: &str) -> Result<(), Failure> {
        let end = Instant::now() + PATIENCE;
        loop {
            let rest = self.shown.get(self.seen..).unwrap_or_default();
            if let Some(at) = memchr::memmem::find(rest, text.as_bytes()) {
                self.seen += at + text.len();
                return Ok(());
            }
            if !self.turn(demo, end)? {
                self.printer.end_line();
                return Err(Failure::new(format!("the session ended before it showed `{text}`")));
            }
            if Instant::now() >= end {
                self.printer.end_line();
                return Err(Failure::new(format!("the session did not show `{text}`")));
            }
        }
    }

    /// To the end of the session.
    fn finish(mut self, demo: &mut Demo) -> Result<Vec<u8>, Failure> {
        let end = Instant::now() + PATIENCE;
        while self.turn(demo, end)? {
            if Instant::now() >= end {
                return Err(Failure::new("the session did not end"));
            }
        }
        self.printer.end_line();
        let status = self.record.child.wait();
        match status {
            // The shell's own.
            Ok(status) if status.code() == Some(7) => Ok(std::mem::take(&mut self.shown)),
            Ok(status) => Err(Failure::new(format!("castkeep record ended with {status}"))),
            Err(e) => Err(Failure::new(format!("castkeep record: {e}"))),
        }
    }

    /// Waits for something to read or room to type; false at the end of the session.
    fn turn(&mut self, demo: &mut Demo, end: Instant) -> Result<bool, Failure> {
        let master = self.pty.master();
        let mut wanted = PollFlags::IN;
        if !self.typed.is_empty() {
            wanted |= PollFlags::OUT;
        }
        let left = end.saturating_duration_since(Instant::now());
        let timeout =
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        let mut fds = [PollFd::new(master, wanted), PollFd::new(&demo.signals, PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(Failure::new(format!("waiting: {e}"))),
        }
        let [pty, signals] = fds.map(|f| f.revents());
        if !signals.is_empty() {
            demo.signals.rise();
            if let Some(signal) = demo.signals.take_end() {
                demo.ended_by = Some(signal);
                return Err(Failure::new("ended by a signal"));
            }
        }
        if pty.contains(PollFlags::OUT) {
            let (front, _) = self.typed.as_slices();
            if let Ok(n) = rustix::io::write(master, front) {
                self.typed.drain(..n);
            }
        }
        if pty.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            let mut bytes = [0; 4096];
            return match rustix::io::read(master, &mut bytes) {
                // The other end of a terminal is gone: EIO.
                Ok(0) | Err(Errno::IO) => Ok(false),
                Ok(n) => {
                    let piece = bytes.get(..n).unwrap_or_default();
                    self.shown.extend_from_slice(piece);
                    self.printer.print(piece);
                    Ok(true)
                }
                Err(Errno::AGAIN | Errno::INTR) => Ok(true),
                Err(e) => Err(Failure::new(format!("the session's terminal: {e}"))),
            };
        }
        Ok(true)
    }
}

/// Shows the session line by line, set apart from what the demonstration says.
#[derive(Default)]
struct Printer {
    line: Vec<u8>,
}

impl Printer {
    fn print(&mut self, piece: &[u8]) {
        for byte in piece {
            if *byte == b'\n' {
                self.end_line();
            } else {
                self.line.push(*byte);
            }
        }
    }

    fn end_line(&mut self) {
        if self.line.is_empty() {
            return;
        }
        let mut text = String::new();
        Filter::new().push(&String::from_utf8_lossy(&self.line), &mut text);
        println!("    | {}", text.trim_end_matches('\r'));
        self.line.clear();
    }
}

/// Every line once, and nothing else than what was shown.
fn compare(shown: &[u8], recorded: &[u8], lines: u32) -> Result<(), Failure> {
    for i in 1..=lines {
        let line = format!("\nline {i}.\r\n");
        let count = memchr::memmem::find_iter(recorded, line.as_bytes()).count();
        if count != 1 {
            return Err(Failure::new(format!("line {i} is {count} times in the recording")));
        }
    }
    if shown != recorded {
        let at = shown.iter().zip(recorded).position(|(a, b)| a != b);
        let at = at.unwrap_or_else(|| shown.len().min(recorded.len()));
        return Err(Failure::new(format!(
            "the recording differs from what was shown, at byte {at} ({} bytes shown, {} recorded)",
            shown.len(),
            recorded.len()
        )));
    }
    Ok(())
}

fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "demo: {}", escape_control(text)).and_then(|()| out.flush());
}

const PROMPT: &str = "demo$ ";
const PATIENCE: Duration = Duration::from_secs(60);
