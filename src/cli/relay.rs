//! A program under recording, from its start to its end: terminal or pipes, signals, sizes, and what is said to the user.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::copy::{Bell, Copy, Source, mark};
use super::pty::{self, Pty, RawMode};
use super::recording::Settings;
use super::screen::Screen;
use super::signals::{self, Signals};
use super::volume::Volume;
use super::{Exit, Failure};
use crate::cast::label;
use crate::cast::text::escape_control;
use crate::client::{
    self, Client, ClientConfig, Level, LogSink, Outcome, Release, Session, Start, Stats, Stream,
};
use crate::limits;

/// What is started.
pub(super) struct Job {
    pub(super) program: OsString,
    pub(super) arguments: Vec<OsString>,
    /// What the program sees as its own name, when that is not `program`.
    pub(super) name: Option<OsString>,
    pub(super) environment: Vec<(OsString, OsString)>,
    /// For the recording; none for a shell.
    pub(super) command: Option<String>,
    /// Without a terminal: how much of each stream is recorded; none: everything.
    pub(super) volume_bytes: Option<u64>,
    /// Nobody but us may open the user's terminal while the program runs.
    pub(super) exclusive: bool,
    /// A file server: of what goes through its standard input and output, length and hash are recorded. It does not get ours, though
    /// that would be less work: nobody but root is told how much a program has moved.
    pub(super) is_sftp: bool,
}

impl Job {
    /// With everything as it is for `record`.
    pub(super) fn new(
        program: OsString,
        arguments: Vec<OsString>,
        command: Option<String>,
    ) -> Self {
        Self {
            program,
            arguments,
            name: None,
            environment: Vec::new(),
            command,
            volume_bytes: None,
            exclusive: false,
            is_sftp: false,
        }
    }
}

/// Records a program and gives back its exit status; does not come back when a signal ended it.
pub(super) fn run(settings: Settings, job: Job) -> Result<Exit, Failure> {
    let signals = Signals::catch().map_err(|e| Failure::new(format!("signals: {e}")))?;
    let interactive = pty::is_interactive() && !job.is_sftp;
    let Settings { decision, mut metadata, ring_bytes, close_wait, quiet, verbose, unresolved } =
        settings;
    let talk = Talk { quiet };
    let trouble = Arc::new(Trouble { said: Mutex::new(unresolved), verbose });
    if decision.recorders.is_empty() && decision.policy.is_none() {
        // No address is not the same as a decision not to record.
        trouble.show();
        if let Some(message) = &decision.reject_message {
            return Ok(refused(message));
        }
    }
    metadata.command.clone_from(&job.command);
    if job.is_sftp {
        metadata.kind = "subsystem".to_owned();
    }
    if interactive {
        let size = pty::outer_size();
        metadata.size = (size.ws_col, size.ws_row);
    }

    let bell = Bell::new().map_err(|e| Failure::new(e.to_string()))?;
    let config = ClientConfig { ring_bytes, log: trouble.clone(), ..ClientConfig::default() };
    let client = Client::new(config).map_err(|e| Failure::new(format!("recording: {e}")))?;
    let by_commit = decision.release == Release::Commit;
    let record_input = decision.record_input;
    let stall_limit = decision.stall_limit.unwrap_or(Duration::from_micros(limits::STALL_LIMIT.0));
    let mut decision = decision;
    let rung = Arc::clone(&bell);
    decision.observer = Some(Arc::new(move |_| rung.ring()));
    let session =
        client.open(metadata, decision).map_err(|e| Failure::new(format!("recording: {e}")))?;

    // Until the start is known, nothing runs that a signal could be passed on to.
    let start = loop {
        match session.wait_start(Duration::from_millis(200)) {
            Start::Pending => {}
            known => break known,
        }
        if let Some(signal) = signals.take_end() {
            drop(session);
            drop(client);
            signals::end_by(signal.as_raw());
            return Ok(Exit::FAILURE);
        }
    };
    match start {
        Start::Refused { message, .. } => {
            // The worker has said everything when it is gone.
            drop(session);
            drop(client);
            trouble.show();
            return Ok(refused(&message));
        }
        Start::Unrecorded if !quiet => {
            trouble.show();
            talk.note("recording could not start; this session goes on without it for now");
        }
        _ => {}
    }
    trouble.forget();
    let banner = session.banner();
    if interactive && !banner.is_empty() {
        // It comes from another machine and goes to a terminal.
        eprintln!("{}", escape_control(&banner));
    }

    let mut relay = Relay {
        session: Arc::new(session),
        signals,
        bell,
        by_commit,
        record_input,
        raw: None,
        pty: None,
        input_volume: if job.is_sftp { Some(0) } else { job.volume_bytes }
            .map(|bytes| Volume::new("stdin", bytes)),
        ends: None,
        terminated: None,
    };
    let (child, copy) = match relay.start(&job, interactive) {
        Ok(started) => started,
        Err(e) => {
            relay.raw = None;
            let missing = e.kind() == io::ErrorKind::NotFound;
            let status = if missing { 127 } else { 126 };
            relay.session.exit(client::ExitStatus::Code(status.into()));
            let _ = relay.session.close(close_wait);
            let program = job.program.to_string_lossy().into_owned();
            return Err(Failure::new(format!("cannot run {program}: {e}")).with_exit(Exit(status)));
        }
    };
    let status = relay.serve(child, &copy);
    if let Some(label) = relay.input_volume.as_mut().and_then(Volume::finish) {
        mark(&relay.session, &label);
    }
    let Relay { session, raw, terminated, .. } = relay;
    let by_signal = status.and_then(|status| status.signal()).map(signals::name);
    session.exit(match (status, &by_signal) {
        (Some(_), Some(name)) => client::ExitStatus::Signal(name),
        (Some(status), None) => client::ExitStatus::Code(status.code().unwrap_or(1)),
        (None, _) => client::ExitStatus::Signal("KILL"),
    });
    let recorder = session.stats().recorder;
    // Nobody is held up for a recorder that is not there, unless policy wants it recorded.
    let wait = if session.is_open() && recorder.is_none() {
        stall_limit.min(close_wait)
    } else {
        close_wait
    };
    let outcome = close(&session, wait, &talk, raw.is_some());
    copy.finish(Duration::from_secs(2));
    drop(raw);

    let stats = session.stats();
    let recorder = stats.recorder.or(recorder).and_then(|at| session.recorder_label(at));
    talk.report(&session, outcome, &stats, recorder);
    drop(session);
    drop(client);
    if terminated.is_some() {
        return Ok(Exit::NOT_RECORDED);
    }
    let Some(status) = status else { return Ok(Exit::FAILURE) };
    if let Some(signal) = status.signal() {
        signals::end_by(signal);
        return Ok(Exit(u8::try_from(128 + signal).unwrap_or(255)));
    }
    Ok(Exit(u8::try_from(status.code().unwrap_or(1) & 0xff).unwrap_or(1)))
}

fn refused(message: &str) -> Exit {
    eprintln!("{}", message.trim_end_matches('\n'));
    Exit::NOT_RECORDED
}

fn close(session: &Session, wait: Duration, talk: &Talk, raw: bool) -> Outcome {
    session.finish_within(wait);
    // Most recordings are stored by now; who waits is told for what.
    if let Some(outcome) = session.wait_closed(wait.min(Duration::from_secs(1))) {
        return outcome;
    }
    if !talk.quiet {
        let end = if raw { "\r\n" } else { "\n" };
        eprint!("castkeep: waiting for the recorder to store the rest{end}");
    }
    session.close(wait.saturating_sub(Duration::from_secs(1)))
}

/// A running program.
struct Relay {
    session: Arc<Session>,
    signals: Signals,
    bell: Arc<Bell>,
    by_commit: bool,
    record_input: bool,
    raw: Option<RawMode>,
    pty: Option<Pty>,
    input_volume: Option<Volume>,
    /// When patience ends: the program was told to end, by a signal or because its recording failed.
    ends: Option<Instant>,
    terminated: Option<String>,
}

/// A child and how to reach it.
struct Running {
    child: Child,
    pid: Pid,
    /// It leads a process group of its own.
    leads: bool,
    status: Option<ExitStatus>,
    killed: bool,
}

/// What is typed, on its way to the program.
struct Input {
    to: Option<OwnedFd>,
    open: bool,
    held: Vec<u8>,
}

impl Relay {
    fn start(&mut self, job: &Job, interactive: bool) -> io::Result<((Running, Input), Copy)> {
        let mut command = Command::new(&job.program);
        command.args(&job.arguments);
        command.envs(job.environment.iter().map(|(k, v)| (k, v)));
        if let Some(name) = &job.name {
            command.arg0(name);
        }
        let (child, input, sources, leads);
        let mut screen = None;
        if interactive {
            let mut raw = RawMode::enter()?;
            // Before nobody can open it any more, us included.
            screen = if self.by_commit { None } else { Screen::open() };
            if job.exclusive {
                raw.close_to_others();
            }
            let (pty, slave) = Pty::open(Some(raw.before()), pty::outer_size())?;
            self.raw = Some(raw);
            if std::env::var_os("SSH_TTY").is_some() {
                // What the program finds there is to be its own terminal.
                command.env("SSH_TTY", pty.path());
            }
            child = Pty::spawn(command, &slave)?;
            leads = true;
            input = Input::new(Some(pty.master().try_clone()?));
            sources = vec![Source {
                fd: pty.master().try_clone()?,
                stream: Stream::Stdout,
                is_pipe: false,
                volume: None,
            }];
            self.pty = Some(pty);
        } else {
            // With a terminal around, the program stays in the group that the terminal's keys signal.
            leads = std::fs::File::open("/dev/tty").is_err();
            if leads {
                command.process_group(0);
            }
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            if self.record_input || job.is_sftp {
                command.stdin(Stdio::piped());
            }
            if job.is_sftp {
                mark(&self.session, label::SFTP);
            }
            let mut started = command.spawn()?;
            input = Input::new(match started.stdin.take() {
                Some(stdin) => Some(unblocked(stdin.into())?),
                None => None,
            });
            let mut pipes = Vec::new();
            let ends = [
                (started.stdout.take().map(OwnedFd::from), Stream::Stdout),
                (started.stderr.take().map(OwnedFd::from), Stream::Stderr),
            ];
            for (fd, stream) in ends {
                if let Some(fd) = fd {
                    // Large pipes mean few turns for a program that says much.
                    let _ = rustix::pipe::fcntl_setpipe_size(&fd, PIPE_BYTES);
                    let name = if stream == Stream::Stdout { "stdout" } else { "stderr" };
                    let files = job.is_sftp && stream == Stream::Stdout;
                    let cap = if files { Some(0) } else { job.volume_bytes };
                    let volume = cap.map(|bytes| Volume::new(name, bytes));
                    pipes.push(Source { fd: unblocked(fd)?, stream, is_pipe: true, volume });
                }
            }
            (child, sources) = (started, pipes);
        }
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("no process id"))?;
        let bell = Arc::clone(&self.bell);
        let copy = Copy::start(&self.session, sources, screen, self.by_commit, bell)?;
        let running = Running { child, pid, leads, status: None, killed: false };
        Ok(((running, input), copy))
    }

    /// Until the program has ended and everything it said is copied; its status, when it ended in time.
    fn serve(&mut self, started: (Running, Input), copy: &Copy) -> Option<ExitStatus> {
        let (mut running, mut input) = started;
        loop {
            self.signals.rise();
            self.bell.rise();
            if running.status.is_none() {
                running.status = running.child.try_wait().ok().flatten();
                if running.status.is_some() && self.pty.is_some() {
                    copy.stop();
                }
            }
            if running.status.is_some() && copy.is_done() {
                return running.status;
            }
            self.heed_signals(&running);
            self.heed_termination(&running, copy);
            if let Some(by) = self.ends {
                let now = Instant::now();
                if now >= by && !running.killed {
                    running.killed = true;
                    running.signal(self.pty.as_ref(), Signal::KILL);
                    copy.stop();
                } else if now >= by + KILL_WAIT {
                    return running.status;
                }
            }
            self.wait(&mut input);
        }
    }

    fn heed_signals(&mut self, running: &Running) {
        if self.signals.take(Signal::WINCH)
            && let Some(pty) = &self.pty
        {
            let size = pty::outer_size();
            // Recorded first: what the program draws for the new size comes behind it.
            self.session.resize(size.ws_col, size.ws_row);
            pty.resize(size);
        }
        while let Some(signal) = self.signals.take_end() {
            let keys = matches!(signal, Signal::INT | Signal::QUIT);
            if keys && !running.leads {
                // The terminal gave it to the program as well.
                continue;
            }
            if signal == Signal::HUP && pty::is_hung_up() {
                let _ = self.session.marker(label::DISCONNECTED);
            }
            running.signal(self.pty.as_ref(), signal);
            if !keys {
                self.end_within(END_WAIT);
            }
        }
    }

    fn heed_termination(&mut self, running: &Running, copy: &Copy) {
        if self.terminated.is_some() || !self.session.is_terminated() {
            return;
        }
        copy.settle();
        let message = self.session.terminated().unwrap_or_default();
        // The message is for a terminal as the user knows it.
        self.raw = None;
        eprintln!("{}", message.trim_end_matches('\n'));
        self.terminated = Some(message);
        running.signal(self.pty.as_ref(), Signal::HUP);
        running.signal(self.pty.as_ref(), Signal::CONT);
        self.end_within(KILL_WAIT);
    }

    fn end_within(&mut self, wait: Duration) {
        let by = Instant::now() + wait;
        self.ends = Some(self.ends.map_or(by, |other| other.min(by)));
    }

    /// Waits for a signal, the recording, the program's end, or something typed, and passes that on.
    fn wait(&mut self, input: &mut Input) {
        let pause = self.ends.map_or(TICK, |by| {
            let left = by.saturating_duration_since(Instant::now());
            if left.is_zero() { Duration::from_millis(50) } else { left.min(TICK) }
        });
        let stdin = rustix::stdio::stdin();
        let mut fds = vec![
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::from_borrowed_fd(self.bell.fd(), PollFlags::IN),
        ];
        let reads = input.open && input.held.is_empty();
        if reads {
            fds.push(PollFd::from_borrowed_fd(stdin, PollFlags::IN));
        } else if let Some(to) = input.to.as_ref().filter(|_| !input.held.is_empty()) {
            fds.push(PollFd::from_borrowed_fd(to.as_fd(), PollFlags::OUT));
        }
        let pause = Timespec {
            tv_sec: i64::try_from(pause.as_secs()).unwrap_or(1),
            tv_nsec: pause.subsec_nanos().into(),
        };
        // A signal interrupts it, which is as good as the pipe.
        let _ = poll(&mut fds, Some(&pause));
        let ready = fds.get(2).is_some_and(|fd| !fd.revents().is_empty());
        drop(fds);
        if !ready {
            return;
        }
        if reads {
            self.read_input(input);
        }
        input.pass_on();
    }

    fn read_input(&mut self, input: &mut Input) {
        let mut typed = [0; INPUT_BYTES];
        match rustix::io::read(rustix::stdio::stdin(), &mut typed) {
            Err(Errno::INTR | Errno::AGAIN) => {}
            Ok(n) if n > 0 => {
                let typed = &typed[..n];
                self.record_typed(typed);
                input.held.extend_from_slice(typed);
            }
            // The end: of a pipe, or of a terminal that went away, for which SIGHUP comes.
            _ => input.end(),
        }
    }
}

impl Relay {
    fn record_typed(&mut self, typed: &[u8]) {
        let typed = match &mut self.input_volume {
            Some(volume) => volume.take(typed).0,
            None => typed,
        };
        if !self.record_input || typed.is_empty() {
            return;
        }
        if self.pty.as_ref().is_none_or(Pty::echoes) {
            self.session.input(typed);
        } else {
            let masked: Vec<u8> =
                typed.iter().map(|b| if matches!(b, b'\r' | b'\n') { *b } else { b'*' }).collect();
            self.session.input(&masked);
        }
    }
}

impl Input {
    fn new(to: Option<OwnedFd>) -> Self {
        Self { open: to.is_some(), to, held: Vec::new() }
    }

    fn pass_on(&mut self) {
        while let Some(to) = self.to.as_ref().filter(|_| !self.held.is_empty()) {
            match rustix::io::write(to, &self.held) {
                Ok(n) => drop(self.held.drain(..n)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    self.held.clear();
                    self.end();
                }
            }
        }
        if !self.open {
            self.to = None;
        }
    }

    fn end(&mut self) {
        self.open = false;
        if self.held.is_empty() {
            self.to = None;
        }
    }
}

impl Running {
    fn signal(&self, pty: Option<&Pty>, signal: Signal) {
        if self.status.is_some() {
            // The id may belong to somebody else by now; what the program left behind in its group is still reached.
            if let Some(pty) = pty {
                pty.signal_foreground(signal);
            }
            return;
        }
        match pty {
            Some(pty) => pty.signal(self.pid, signal),
            None if self.leads => drop(kill_process_group(self.pid, signal)),
            None => drop(kill_process(self.pid, signal)),
        }
    }
}

fn unblocked(fd: OwnedFd) -> io::Result<OwnedFd> {
    let flags = fcntl_getfl(&fd)?;
    fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
    Ok(fd)
}

/// What the user reads on standard error.
struct Talk {
    quiet: bool,
}

impl Talk {
    fn note(&self, text: &str) {
        if !self.quiet {
            eprintln!("castkeep: {text}");
        }
    }

    /// One line about what happened; a loss is said in any case.
    fn report(&self, session: &Session, outcome: Outcome, stats: &Stats, recorder: Option<String>) {
        let id = session.recording();
        let at = recorder.as_ref().map_or_else(String::new, |r| format!(" at {r}"));
        let mut line = match outcome {
            Outcome::Complete if recorder.is_none() => {
                return self.note("nothing was recorded");
            }
            Outcome::Complete => format!("recorded {id}{at}: {} bytes", stats.encoded),
            Outcome::Incomplete { bytes } => format!(
                "recording {id}{at} is incomplete: {bytes} of {} bytes are not known to be stored",
                stats.encoded
            ),
        };
        if stats.gaps > 0 || stats.unrecorded > 0 {
            line += &format!(
                ", {} gaps, {} bytes of output shown and not recorded",
                stats.gaps, stats.unrecorded
            );
        }
        if stats.losses > 0 {
            line += &format!(", {} recorders lost on the way", stats.losses);
        }
        if stats.doubtful > 0 {
            line += &format!(
                ", {} bytes went to a recorder that never said whether it stored them",
                stats.doubtful
            );
        }
        let lost = outcome != Outcome::Complete || stats.unrecorded > 0 || stats.doubtful > 0;
        if lost || !self.quiet {
            eprintln!("castkeep: {}", escape_control(&line));
        }
    }
}

/// Keeps what went wrong until it is known whether it matters, or says it at once when that is asked for.
struct Trouble {
    said: Mutex<Vec<String>>,
    verbose: bool,
}

impl Trouble {
    fn said(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self) {
        let said = std::mem::take(&mut *self.said());
        for line in said.iter().filter(|_| !self.verbose) {
            eprintln!("castkeep: {}", escape_control(line));
        }
    }

    fn forget(&self) {
        self.said().clear();
    }
}

impl LogSink for Trouble {
    fn log(&self, level: Level, message: std::fmt::Arguments<'_>) {
        if self.verbose {
            // The terminal may be raw.
            eprint!("castkeep: {}\r\n", escape_control(&message.to_string()));
        } else if level <= Level::Warn {
            let text = message.to_string();
            // The recording's name says nothing to whoever has none.
            let text =
                text.split_once(": ").filter(|(id, _)| id.len() == 32).map_or(&*text, |s| s.1);
            // The policy's own message follows.
            if text.contains(" to SessionRejected: ") {
                return;
            }
            let mut said = self.said();
            if said.len() < TROUBLE_LINES {
                said.push(text.to_owned());
            }
        }
    }
}

/// Every wait looks around this often.
const TICK: Duration = Duration::from_secs(1);
/// How long a program may take to end after it was told to by HUP or TERM, before it is killed.
const END_WAIT: Duration = Duration::from_secs(5);
/// The same when its recording failed, and how long its end may take after it was killed.
const KILL_WAIT: Duration = Duration::from_secs(2);
/// Read at a time; a file server is sent much.
const INPUT_BYTES: usize = 32 * 1024;
const TROUBLE_LINES: usize = 32;
const PIPE_BYTES: usize = 256 * 1024;
