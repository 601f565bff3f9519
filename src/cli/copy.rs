//! From the program through the recording to the user: a thread that copies, and with `--release commit` one for each stream that shows.

use std::collections::VecDeque;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use super::screen::Screen;
use super::volume::Volume;
use crate::client::{Session, Stream};
use crate::error::Error;

/// What a program's output comes out of, and where it is shown.
pub(super) struct Source {
    pub(super) fd: OwnedFd,
    pub(super) stream: Stream,
    /// A pipe whose reader went away is closed towards the program too; a terminal stays.
    pub(super) is_pipe: bool,
    /// How much of it is recorded; none: everything.
    pub(super) volume: Option<Volume>,
}

/// An event that another thread can be waited for with.
pub(super) struct Bell(OwnedFd);

impl Bell {
    pub(super) fn new() -> std::io::Result<Arc<Self>> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Arc::new(Self(fd)))
    }

    pub(super) fn ring(&self) {
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    pub(super) fn rise(&self) {
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The threads of one program.
pub(super) struct Copy {
    state: Arc<State>,
    copier: JoinHandle<()>,
    showers: Vec<JoinHandle<()>>,
}

struct State {
    /// The program has ended: what can be read now is all there is.
    stop: AtomicBool,
    stop_bell: Arc<Bell>,
    done: AtomicBool,
    /// The recording has ended: what is not released now never is.
    closed: AtomicBool,
    waiting: [Mutex<VecDeque<u8>>; 2],
    /// Bytes that the threads that show have taken and written.
    shown: [AtomicU64; 2],
    by_commit: bool,
    /// Bytes that wait for the terminal.
    held: AtomicUsize,
}

impl Copy {
    /// `bell` is rung when everything was copied. `screen` shows what is not held until it is stored.
    pub(super) fn start(
        session: &Arc<Session>,
        sources: Vec<Source>,
        screen: Option<Screen>,
        by_commit: bool,
        bell: Arc<Bell>,
    ) -> std::io::Result<Self> {
        let state = Arc::new(State {
            stop: AtomicBool::new(false),
            stop_bell: Bell::new()?,
            done: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            waiting: [Mutex::default(), Mutex::default()],
            shown: [AtomicU64::new(0), AtomicU64::new(0)],
            by_commit,
            held: AtomicUsize::new(0),
        });
        let mut showers = Vec::new();
        if by_commit {
            for source in &sources {
                let (stream, state, session) = (source.stream, state.clone(), session.clone());
                let shower = thread::Builder::new().name("show".to_owned());
                showers.push(shower.spawn(move || show_released(&session, &state, stream))?);
            }
        }
        let (session, copied) = (Arc::clone(session), Arc::clone(&state));
        let copier = thread::Builder::new().name("copy".to_owned()).spawn(move || {
            // Also when it panics: nobody may wait for it for ever.
            struct Done(Arc<State>, Arc<Bell>);
            impl Drop for Done {
                fn drop(&mut self) {
                    self.0.done.store(true, SeqCst);
                    self.1.ring();
                }
            }
            let done = Done(copied, bell);
            copy(&session, &done.0, sources, screen);
        })?;
        Ok(Self { state, copier, showers })
    }

    /// The program has ended: copy what is there, then stop.
    pub(super) fn stop(&self) {
        self.state.stop.store(true, SeqCst);
        self.state.stop_bell.ring();
    }

    /// Waits until the terminal has taken what it was given, so that what is said next is not scrolled away; not for long.
    pub(super) fn settle(&self) {
        let by = Instant::now() + SETTLE;
        while self.state.held.load(SeqCst) > 0 && Instant::now() < by {
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.state.done.load(SeqCst)
    }

    /// The recording has ended; waits until what may be shown is shown, but not for a terminal that takes nothing.
    pub(super) fn finish(self, at_most: Duration) {
        self.state.closed.store(true, SeqCst);
        let by = Instant::now() + at_most;
        for thread in self.showers.into_iter().chain([self.copier]) {
            while !thread.is_finished() && Instant::now() < by {
                thread::sleep(Duration::from_millis(5));
            }
            if thread.is_finished() {
                let _ = thread.join();
            }
        }
    }
}

fn copy(session: &Session, state: &State, mut sources: Vec<Source>, screen: Option<Screen>) {
    let buffer = vec![0; BUFFER_BYTES];
    let mut copier = Copier { session, state, screen, buffer, recorded: [0; 2] };
    let mut ended = false;
    while !sources.is_empty() && !ended {
        let full = copier.advance();
        let mut idle = true;
        if !full {
            sources.retain_mut(|source| {
                let turn = copier.pass(source);
                idle &= turn == Turn::Nothing;
                ended |= turn == Turn::SessionOver;
                matches!(turn, Turn::Moved | Turn::Nothing) || source.end(session)
            });
        }
        if idle && !ended && !sources.is_empty() {
            ended = !copier.wait(&mut sources, full);
        }
    }
    for source in &mut sources {
        source.end(session);
    }
    if let Some(screen) = &mut copier.screen {
        screen.flush(|| state.closed.load(SeqCst));
        state.held.store(0, SeqCst);
    }
}

struct Copier<'a> {
    session: &'a Session,
    state: &'a State,
    screen: Option<Screen>,
    buffer: Vec<u8>,
    /// Bytes of each stream that the recording was given.
    recorded: [u64; 2],
}

/// What came of looking at a source.
#[derive(PartialEq, Eq)]
enum Turn {
    Moved,
    Nothing,
    SessionOver,
    SourceOver,
}

impl Copier<'_> {
    /// Shows what waits; whether the screen is full.
    fn advance(&mut self) -> bool {
        let Some(screen) = &mut self.screen else { return false };
        screen.advance();
        self.state.held.store(screen.waiting(), SeqCst);
        !screen.has_room()
    }

    /// One read: recorded, then shown.
    fn pass(&mut self, source: &mut Source) -> Turn {
        let n = match rustix::io::read(&source.fd, &mut *self.buffer) {
            Err(Errno::AGAIN | Errno::INTR) => return Turn::Nothing,
            Ok(n) if n > 0 => n,
            // EIO: nothing has the terminal open any more.
            _ => return Turn::SourceOver,
        };
        let before = source.volume.as_ref().and_then(Volume::begins).is_some();
        let (bytes, beyond) = match &mut source.volume {
            Some(volume) => volume.take(&self.buffer[..n]),
            None => (&self.buffer[..n], &[][..]),
        };
        let stream = source.stream;
        self.recorded[index(stream)] += bytes.len() as u64;
        if self.state.by_commit {
            // Before it is given away: it may be released at once.
            lock(&self.state.waiting[index(stream)]).extend(bytes);
        }
        if self.session.output(stream, bytes).is_err() {
            return Turn::SessionOver;
        }
        match &mut self.screen {
            Some(screen) => screen.show(bytes),
            None if self.state.by_commit => {}
            None if show(stream, bytes).is_err() && source.is_pipe => return Turn::SourceOver,
            None => {}
        }
        if beyond.is_empty() {
            return Turn::Moved;
        }
        if !before && let Some(label) = source.volume.as_ref().and_then(Volume::begins) {
            mark(self.session, &label);
        }
        // Behind what was recorded, and not once the session is over.
        if !await_shown(self.session, self.state, stream, self.recorded[index(stream)]) {
            return Turn::SessionOver;
        }
        if show(stream, beyond).is_ok() { Turn::Moved } else { Turn::SourceOver }
    }

    /// Waits for a source, or for the screen when that is full. False: the program has ended, and this was all.
    fn wait(&self, sources: &mut Vec<Source>, full: bool) -> bool {
        // Read before the wait: what came before the stop is seen by the read behind it.
        let stop = self.state.stop.load(SeqCst);
        let held = self.screen.as_ref().filter(|screen| screen.waiting() > 0);
        let polled = if full { &[] } else { &**sources };
        let fds = polled.iter().map(|source| PollFd::new(&source.fd, PollFlags::IN));
        let fds = fds.chain(held.map(|s| PollFd::from_borrowed_fd(s.fd(), PollFlags::OUT)));
        let bell = PollFd::from_borrowed_fd(self.state.stop_bell.fd(), PollFlags::IN);
        let fds = fds.chain((!stop).then_some(bell));
        // A reader that went away is known to the program at once, and not only when it writes.
        let pipes: Vec<_> = polled.iter().filter(|s| s.is_pipe).map(|s| s.stream).collect();
        let readers = pipes.iter().map(|s| PollFd::from_borrowed_fd(fd_of(*s), PollFlags::empty()));
        let mut fds: Vec<_> = fds.chain(readers).collect();
        let ready = poll(&mut fds, Some(if stop { &QUIET } else { &LONG }));
        let readers = fds.len() - pipes.len();
        let gone: Vec<_> = (fds[readers..].iter().zip(pipes))
            .filter(|(fd, _)| fd.revents().intersects(PollFlags::ERR | PollFlags::HUP))
            .map(|(_, stream)| stream)
            .collect();
        drop(fds);
        sources.retain_mut(|source| !gone.contains(&source.stream) || source.end(self.session));
        !(stop && !full && ready == Ok(0))
    }
}

impl Source {
    /// Nothing more comes from here, or goes anywhere: says what was left out. Gives false, for `retain`.
    fn end(&mut self, session: &Session) -> bool {
        if let Some(label) = self.volume.as_mut().and_then(Volume::finish) {
            mark(session, &label);
        }
        false
    }
}

/// Puts in a marker, as soon as there is room; not for long.
pub(super) fn mark(session: &Session, label: &str) {
    let by = Instant::now() + MARK_WAIT;
    while session.marker(label) == Err(Error::Full) && Instant::now() < by {
        thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until so many recorded bytes are shown; false when the session ends before.
fn await_shown(session: &Session, state: &State, stream: Stream, recorded: u64) -> bool {
    loop {
        if session.is_terminated() || state.closed.load(SeqCst) {
            return false;
        }
        if !state.by_commit || state.shown[index(stream)].load(SeqCst) >= recorded {
            return true;
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Shows what is stored, as it becomes so.
fn show_released(session: &Session, state: &State, stream: Stream) {
    let waiting = &state.waiting[index(stream)];
    let (mut shown, mut gone) = (0, false);
    loop {
        let closed = state.closed.load(SeqCst);
        let released = session.wait_released(stream, shown, Duration::from_millis(100));
        let more = usize::try_from(released - shown.min(released)).unwrap_or(usize::MAX);
        let bytes: Vec<u8> = {
            let mut waiting = lock(waiting);
            let more = more.min(waiting.len()).min(BUFFER_BYTES);
            waiting.drain(..more).collect()
        };
        shown += bytes.len() as u64;
        if bytes.is_empty() {
            if closed {
                return;
            }
            if session.is_terminated() {
                // The wait above does not wait any more.
                thread::sleep(Duration::from_millis(10));
            }
        }
        gone = gone || show(stream, &bytes).is_err();
        state.shown[index(stream)].store(shown, SeqCst);
    }
}

/// Writes everything.
fn show(stream: Stream, mut bytes: &[u8]) -> Result<(), Errno> {
    let fd = fd_of(stream);
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(Errno::INTR) => {}
            // Somebody else made it non-blocking.
            Err(Errno::AGAIN) => {
                let _ = poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::OUT)], Some(&LONG));
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn fd_of(stream: Stream) -> BorrowedFd<'static> {
    match stream {
        Stream::Stdout => rustix::stdio::stdout(),
        Stream::Stderr => rustix::stdio::stderr(),
    }
}

const fn index(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}

fn lock(queue: &Mutex<VecDeque<u8>>) -> std::sync::MutexGuard<'_, VecDeque<u8>> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

const BUFFER_BYTES: usize = 64 * 1024;
/// How long a marker waits for room.
const MARK_WAIT: Duration = Duration::from_secs(5);
const SETTLE: Duration = Duration::from_millis(500);
const LONG: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// A program that has ended says nothing more; something it left behind may go on talking, and is not waited for.
const QUIET: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
