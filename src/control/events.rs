//! The log of what recording could not do: rejected, terminated and unrecorded sessions, told by nodes.
//!
//! JSON lines in `events-<first number>.jsonl`, each with a number that rises by one. A line is on disk before it is answered
//! with 201. The files are also the queue of the webhook: what was not passed on yet waits in them, across restarts.

use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::disk;
use crate::limits;

/// See the module.
#[derive(Debug)]
pub(super) struct EventLog {
    dir: PathBuf,
    file_bytes: u64,
    state: Mutex<State>,
    grown: Condvar,
}

#[derive(Debug)]
struct State {
    /// The number of the next event.
    next: u64,
    /// First numbers of the files, rising; the last is the one that grows.
    files: Vec<u64>,
    current: Option<Current>,
    remembered: Remembered,
    stopped: bool,
}

#[derive(Debug)]
struct Current {
    file: File,
    bytes: u64,
}

/// What is to be kept.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) time: &'a str,
    /// Who tells it, and from where.
    pub(super) node: &'a str,
    pub(super) address: &'a str,
    /// The event in words, under the key that chat systems show.
    pub(super) text: &'a str,
    pub(super) event: &'a Value,
}

/// An event as it stands in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) number: u64,
    pub(super) text: String,
}

impl EventLog {
    /// Opens the log in `dir`, which is there. A line that a crash tore was never answered and is removed.
    pub(super) fn open(dir: &Path, file_bytes: u64) -> io::Result<Self> {
        let mut files = Vec::new();
        for entry in fs::read_dir(dir)? {
            let name = entry?.file_name();
            let number =
                name.to_str().and_then(|n| n.strip_prefix("events-")?.strip_suffix(".jsonl"));
            files.extend(number.and_then(|n| n.parse::<u64>().ok()));
        }
        files.sort_unstable();
        let mut state = State {
            next: files.last().copied().unwrap_or(1),
            files,
            current: None,
            remembered: Remembered::default(),
            stopped: false,
        };
        for first in state.files.clone() {
            let whole = each_line(&path(dir, first), |line| {
                if let Ok(value) = serde_json::from_str::<Value>(line) {
                    let number = value.get("number").and_then(Value::as_u64).unwrap_or(0);
                    state.next = state.next.max(number.saturating_add(1));
                    let node = value.get("node").and_then(Value::as_str).unwrap_or_default();
                    let event = value.get("event").unwrap_or(&Value::Null);
                    state.remembered.insert(digest(node, event));
                }
                true
            })?;
            if Some(&first) == state.files.last() {
                let file = OpenOptions::new().append(true).open(path(dir, first))?;
                file.set_len(whole)?;
                state.current = Some(Current { file, bytes: whole });
            }
        }
        Ok(Self {
            dir: dir.to_owned(),
            file_bytes,
            state: Mutex::new(state),
            grown: Condvar::new(),
        })
    }

    /// Keeps an event and returns its number; it is on disk then. None: it is kept already, a node sent it again.
    ///
    /// # Errors
    ///
    /// As the disk says. Nothing is kept then.
    pub(super) fn append(&self, entry: &Entry<'_>) -> io::Result<Option<u64>> {
        let Entry { time, node, address, text, event } = entry;
        let mut state = self.state();
        let digest = digest(node, event);
        if state.remembered.contains(&digest) {
            return Ok(None);
        }
        let number = state.next;
        let line = json!({ "number": number, "time": time, "node": node, "from": address, "text": text, "event": event });
        let line = format!("{line}\n");
        if state.current.as_ref().is_none_or(|c| c.bytes >= self.file_bytes) {
            self.begin_file(&mut state, number)?;
        }
        let Some(current) = &mut state.current else { return Err(io::Error::other("no file")) };
        let written =
            current.file.write_all(line.as_bytes()).and_then(|()| current.file.sync_data());
        if let Err(e) = written {
            // A descriptor whose sync failed once says nothing reliable any more: the file is opened anew, at its last whole line.
            let bytes = current.bytes;
            let first = state.files.last().copied().unwrap_or(number);
            let again = OpenOptions::new().append(true).open(path(&self.dir, first));
            state.current =
                again.and_then(|file| file.set_len(bytes).map(|()| Current { file, bytes })).ok();
            return Err(e);
        }
        current.bytes = current.bytes.saturating_add(line.len() as u64);
        state.next = number.saturating_add(1);
        state.remembered.insert(digest);
        drop(state);
        self.grown.notify_all();
        Ok(Some(number))
    }

    /// Events with a number above `since`, in order, at least one and at most `max_bytes` of them; none when there are none.
    pub(super) fn read(&self, since: u64, max_bytes: usize) -> io::Result<Vec<Line>> {
        let files = {
            let state = self.state();
            if since.saturating_add(1) >= state.next {
                return Ok(Vec::new());
            }
            state.files.clone()
        };
        let from =
            files.partition_point(|first| *first <= since.saturating_add(1)).saturating_sub(1);
        let (mut lines, mut bytes) = (Vec::new(), 0usize);
        for first in files.into_iter().skip(from) {
            let result = each_line(&path(&self.dir, first), |line| {
                let Some(number) = number_of(line).filter(|n| *n > since) else { return true };
                bytes = bytes.saturating_add(line.len());
                if !lines.is_empty() && bytes > max_bytes {
                    return false;
                }
                lines.push(Line { number, text: line.to_owned() });
                true
            });
            match result {
                Ok(_) if bytes > max_bytes => break,
                Ok(_) => {}
                // Rotated away between two looks.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(lines)
    }

    /// The number of the last event; 0 when there is none.
    pub(super) fn last(&self) -> u64 {
        self.state().next.saturating_sub(1)
    }

    /// Waits until there is an event above `since`, the log was stopped, or the time is over. False: it was stopped.
    pub(super) fn wait(&self, since: u64, timeout: Duration) -> bool {
        let idle = |s: &mut State| !s.stopped && s.next <= since.saturating_add(1);
        let state = self.state();
        let (state, _) = self
            .grown
            .wait_timeout_while(state, timeout, idle)
            .unwrap_or_else(PoisonError::into_inner);
        !state.stopped
    }

    /// Waits for the time to pass. False: the log was stopped.
    pub(super) fn pause(&self, time: Duration) -> bool {
        self.wait(u64::MAX - 1, time)
    }

    /// Lets those go that wait.
    pub(super) fn stop(&self) {
        self.state().stopped = true;
        self.grown.notify_all();
    }

    fn begin_file(&self, state: &mut State, first: u64) -> io::Result<()> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path(&self.dir, first))?;
        file.set_len(0)?;
        disk::sync_dir(&self.dir)?;
        state.current = Some(Current { file, bytes: 0 });
        if state.files.last() != Some(&first) {
            state.files.push(first);
        }
        while state.files.len() > limits::EVENT_FILES {
            let oldest = state.files.remove(0);
            fs::remove_file(path(&self.dir, oldest))?;
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was kept last, so that it is not kept twice.
#[derive(Debug, Default)]
struct Remembered {
    order: VecDeque<[u8; 32]>,
    known: BTreeSet<[u8; 32]>,
}

impl Remembered {
    fn contains(&self, digest: &[u8; 32]) -> bool {
        self.known.contains(digest)
    }

    fn insert(&mut self, digest: [u8; 32]) {
        if self.known.insert(digest) {
            self.order.push_back(digest);
        }
        if self.order.len() > limits::EVENTS_REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

/// By which an event is known when it comes again: the id that castkeep's agents give it, else all of it.
fn digest(node: &str, event: &Value) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(node.as_bytes());
    match event.get("castkeepEvent").and_then(Value::as_str) {
        Some(id) => {
            hash.update([1]);
            hash.update(id.as_bytes());
        }
        None => {
            hash.update([0]);
            hash.update(event.to_string().as_bytes());
        }
    }
    hash.finalize().into()
}

fn path(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("events-{first:020}.jsonl"))
}

/// Shows every whole line until `f` has enough, and returns the bytes up to the end of the last whole one shown.
fn each_line(path: &Path, mut f: impl FnMut(&str) -> bool) -> io::Result<u64> {
    let mut file = BufReader::new(File::open(path)?);
    let (mut line, mut whole) = (Vec::new(), 0u64);
    loop {
        line.clear();
        let n = file.read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            return Ok(whole);
        }
        whole = whole.saturating_add(n as u64);
        let text = String::from_utf8_lossy(&line);
        if !f(text.trim_end()) {
            return Ok(whole);
        }
    }
}

/// Of a line that we wrote.
fn number_of(line: &str) -> Option<u64> {
    let digits = line.strip_prefix("{\"number\":")?;
    digits.get(..digits.find(',')?)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let dir =
                std::env::temp_dir().join(format!("castkeep-ev-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&dir);
            fs::create_dir_all(&dir).unwrap();
            Self(dir)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn add(log: &EventLog, n: u64) -> Option<u64> {
        let event = json!({ "ConnectionID": n.to_string() });
        let entry =
            Entry { time: "t", node: "nA", address: "127.0.0.1", text: "words", event: &event };
        log.append(&entry).unwrap()
    }

    fn numbers(log: &EventLog, since: u64, max_bytes: usize) -> Vec<u64> {
        log.read(since, max_bytes).unwrap().iter().map(|l| l.number).collect()
    }

    #[test]
    fn numbers_go_on_over_restarts_and_a_torn_line_is_forgotten() {
        let dir = Dir::new("restart");
        let log = EventLog::open(&dir.0, 1_000_000).unwrap();
        assert_eq!((add(&log, 1), add(&log, 2), add(&log, 2)), (Some(1), Some(2), None));
        drop(log);
        let file = fs::read_dir(&dir.0).unwrap().next().unwrap().unwrap().path();
        let whole = fs::read(&file).unwrap();
        fs::write(&file, [&whole[..], b"{\"number\":3,\"ti"].concat()).unwrap();
        let log = EventLog::open(&dir.0, 1_000_000).unwrap();
        assert_eq!(fs::read(&file).unwrap(), whole);
        assert_eq!((add(&log, 1), add(&log, 3)), (None, Some(3)));
        assert_eq!(numbers(&log, 0, 1_000_000), [1, 2, 3]);
        assert_eq!(numbers(&log, 2, 1_000_000), [3]);
        assert_eq!(numbers(&log, 0, 1), [1], "at least one");
        assert_eq!(numbers(&log, 3, 1_000_000), Vec::<u64>::new());
        assert_eq!(log.last(), 3);
    }

    #[test]
    fn the_log_has_an_end_and_the_oldest_goes() {
        let dir = Dir::new("rotate");
        let log = EventLog::open(&dir.0, 200).unwrap();
        for n in 1..=100 {
            add(&log, n);
        }
        let files = fs::read_dir(&dir.0).unwrap().count();
        assert_eq!(files, limits::EVENT_FILES);
        let kept = numbers(&log, 0, 1_000_000);
        assert!(kept.len() < 100 && kept.last() == Some(&100), "{kept:?}");
        assert!(kept.windows(2).all(|w| w[0] + 1 == w[1]), "{kept:?}");
        drop(log);
        let log = EventLog::open(&dir.0, 200).unwrap();
        assert_eq!(add(&log, 101), Some(101));
        assert_eq!(numbers(&log, 99, 1_000_000), [100, 101]);
    }

    #[test]
    fn a_stop_lets_the_waiting_go() {
        let dir = Dir::new("stop");
        let log = EventLog::open(&dir.0, 200).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| log.wait(0, Duration::from_secs(60)));
            log.stop();
            assert!(!waiting.join().unwrap());
        });
    }
}
