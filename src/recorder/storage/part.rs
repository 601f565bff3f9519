//! One part: the file that is being written, and what is known to be durable of it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::disk::Times;
use super::journal::Slot;
use super::lag::Lag;
use super::layout::hex;
use super::quota::{Quota, Rate, Stored};
use super::sidecar::{How as Ended, PeerFacts, Sidecar, peer_json};
use super::stamp::format_time;
use super::{Counters, Failure, How, Inner, Notify, Progress, State, add};
use crate::limits;

/// What is urgent for a client that does not say what it can hold: a quarter of 1 MiB.
const FLUSH_FROM_BYTES: u64 = 256 * 1024;
/// A tiny window must not lead to a flush for every append.
const FLUSH_FROM_MIN_BYTES: u64 = 16 * 1024;
/// With more than this the flush itself takes long.
const FLUSH_FROM_MAX_BYTES: u64 = 4 * 1024 * 1024;
/// Bytes compared at a time: on the stack of a connection thread.
const COMPARE_BYTES: usize = 4096;

/// What does not change while a part is open.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) recording: Option<[u8; 16]>,
    pub(crate) secret_sha256: Option<[u8; 32]>,
    pub(crate) node: String,
    pub(crate) stamp: String,
    pub(crate) start: u64,
    pub(crate) number: u32,
    pub(crate) peer: PeerFacts,
    pub(crate) protocol: String,
    pub(crate) started_us: u64,
    /// By both clocks; none after a restart, when only the journal tells.
    pub(crate) began: Option<Times>,
    /// Bytes of the recording's earlier parts here: the quota is on all of them.
    pub(crate) before: u64,
    /// Found in a journal at the start: ended as interrupted when nobody resumes it.
    pub(crate) recovered: bool,
}

impl Facts {
    /// Names of files in `open/`.
    pub(crate) fn open_name(&self, extension: &str) -> String {
        format!("{},{}.{extension}", self.node, self.stamp)
    }

    pub(crate) fn cast_name(&self) -> String {
        format!("{}.cast", self.stamp)
    }

    /// The journal's header.
    pub(crate) fn header(&self, attempt: u64) -> serde_json::Value {
        json!({
            "journal": 1,
            "recording": self.recording.map(|id| hex(&id)),
            "resumeSecretSha256": self.secret_sha256.map(|hash| hex(&hash)),
            "node": self.node,
            "file": self.cast_name(),
            "peer": peer_json(&self.peer),
            "protocol": self.protocol,
            "started": format_time(self.started_us),
            "start": self.start,
            "part": self.number,
            "attempt": attempt,
        })
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Part {
    facts: Facts,
    state: Mutex<PartState>,
    /// What is not committed of it.
    pub(crate) lag: Lag,
    /// Whether the commit group has it in its queue.
    pub(crate) queued: AtomicBool,
    /// Whether it was taken out of the figures; twice would count another part out.
    pub(crate) forgotten: AtomicBool,
}

/// What the body of the connection is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The repeated header line of a new part, which is kept.
    StoreHeader,
    /// The repeated header line of a resume, which is there already; so many bytes of it were seen.
    SkipHeader(usize),
    /// Bytes that are there already, from this place in the file on.
    Compare(u64),
    /// New bytes.
    Append,
}

/// What is hashed as it is written.
#[derive(Clone, Debug)]
pub(crate) struct Sums {
    pub(crate) crc32: crc32fast::Hasher,
    pub(crate) sha256: Sha256,
}

impl Sums {
    pub(crate) fn new() -> Self {
        Self { crc32: crc32fast::Hasher::new(), sha256: Sha256::new() }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.crc32.update(bytes);
        self.sha256.update(bytes);
    }
}

struct PartState {
    file: Arc<File>,
    journal: Arc<File>,
    /// Directories have to be synced before the first commit.
    fresh: bool,
    len: u64,
    /// Length of the repeated header line, as far as it is there.
    header_bytes: u64,
    /// Whether that line is whole; true when there is none.
    header_done: bool,
    sums: Sums,
    durable: Slot,
    attempt: u64,
    commits: Commits,
    // The connection.
    connection: u64,
    connections: u32,
    notify: Option<Arc<dyn Notify>>,
    received: u64,
    offset: u64,
    phase: Phase,
    rate: Option<Rate>,
    /// What its node has stored, when that is bounded.
    stored: Option<Arc<Stored>>,
    /// So many bytes that are not durable are urgent.
    flush_from: u64,
    /// That was told since the last flush began.
    urged: bool,
    detached: Option<Instant>,
    // The end.
    failed: Option<String>,
    ending: Option<Ended>,
    closing: bool,
    dead: bool,
    sealed: Option<u64>,
    conflict: Option<u64>,
}

impl std::fmt::Debug for PartState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PartState(len {}, durable {})", self.len, self.durable.length)
    }
}

/// What a flush covers of a part.
pub(crate) struct Snapshot {
    pub(crate) slot: Slot,
    pub(crate) file: Arc<File>,
    pub(crate) journal: Arc<File>,
    pub(crate) fresh: bool,
}

/// How a part is found on disk or begun.
pub(crate) struct Start {
    pub(crate) file: File,
    pub(crate) journal: File,
    pub(crate) fresh: bool,
    pub(crate) len: u64,
    pub(crate) header_bytes: u64,
    pub(crate) header_done: bool,
    pub(crate) sums: Sums,
    pub(crate) durable: Slot,
    pub(crate) attempt: u64,
}

impl Part {
    pub(crate) fn new(facts: Facts, start: Start) -> Self {
        let phase = if start.header_done { Phase::Append } else { Phase::StoreHeader };
        let mut commits = Commits::default();
        if start.durable.length > 0 {
            commits.push((start.durable.length, start.durable.crc32));
        }
        let offset = facts.start;
        let state = PartState {
            file: Arc::new(start.file),
            journal: Arc::new(start.journal),
            fresh: start.fresh,
            len: start.len,
            header_bytes: start.header_bytes,
            header_done: start.header_done,
            sums: start.sums,
            durable: start.durable,
            attempt: start.attempt,
            commits,
            connection: 0,
            connections: 0,
            notify: None,
            received: 0,
            offset,
            phase,
            rate: None,
            stored: None,
            flush_from: FLUSH_FROM_BYTES,
            urged: false,
            detached: facts.recovered.then(Instant::now),
            failed: None,
            ending: None,
            closing: false,
            dead: false,
            sealed: None,
            conflict: None,
        };
        Self {
            facts,
            state: Mutex::new(state),
            lag: Lag::default(),
            queued: AtomicBool::new(false),
            forgotten: AtomicBool::new(false),
        }
    }

    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }

    pub(crate) fn node(&self) -> &str {
        &self.facts.node
    }

    pub(crate) fn recording(&self) -> Option<&[u8; 16]> {
        self.facts.recording.as_ref()
    }

    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.facts.node, self.facts.stamp)
    }

    fn lock(&self) -> MutexGuard<'_, PartState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client can hold so many bytes (0: it does not say): a quarter of it that is not durable is urgent.
    pub(crate) fn set_window(&self, window: u64) {
        let quarter = if window == 0 { FLUSH_FROM_BYTES } else { window / 4 };
        self.lock().flush_from = quarter.clamp(FLUSH_FROM_MIN_BYTES, FLUSH_FROM_MAX_BYTES);
    }

    /// A recording that goes on in a new part has the rate that the old one left: coming back gives no new burst.
    pub(crate) fn set_rate_of(&self, old: &Self) {
        let rate = old.lock().rate.clone();
        self.lock().rate = rate;
    }

    /// Where what is stored of its node is counted.
    pub(crate) fn set_stored(&self, stored: Option<Arc<Stored>>) {
        self.lock().stored = stored;
    }

    /// The first connection of a new part. Returns its number.
    pub(crate) fn attach_first(&self, notify: Arc<dyn Notify>) -> u64 {
        let mut s = self.lock();
        s.attach(notify);
        s.connection
    }

    /// A resume from `offset`: the number of the connection and the first commit. None: this part cannot take it, because
    /// the offset lies outside or the part is at its end; a new part has to begin.
    pub(crate) fn resume(
        &self,
        offset: u64,
        attempt: u64,
        notify: Arc<dyn Notify>,
    ) -> Option<(u64, u64)> {
        let mut s = self.lock();
        // From here on the older connection cannot write: it finds another number than its own.
        if let Some(old) = s.notify.take() {
            s.connection += 1;
            // When no newer part takes its place after all, it is closed like any that was left.
            s.detached = Some(Instant::now());
            old.wake();
        }
        let fits = offset >= self.facts.start && offset <= self.stream_end(&s) && s.header_done;
        if !fits || s.failed.is_some() || s.closing || s.sealed.is_some() || s.dead {
            return None;
        }
        s.ending = None;
        s.detached = None;
        s.attempt = attempt;
        s.offset = offset;
        let at = if self.facts.start == 0 {
            offset
        } else {
            s.header_bytes + (offset - self.facts.start)
        };
        s.phase = if offset > 0 { Phase::SkipHeader(0) } else { Phase::Compare(at) };
        s.attach(notify);
        Some((s.connection, self.durable_end(&s).max(offset)))
    }

    /// An older part of a recording whose resume went elsewhere: it is closed.
    pub(crate) fn abandon(&self) -> bool {
        let mut s = self.lock();
        let close = s.ending.is_none() && s.sealed.is_none() && !s.dead;
        if close {
            s.ending = Some(Ended::Truncated);
        }
        close
    }

    /// Takes body bytes of a connection. True: so much is not durable now that the client may wait for it.
    pub(crate) fn append(
        &self,
        store: &Inner,
        connection: u64,
        bytes: &[u8],
    ) -> Result<bool, Failure> {
        let mut s = self.lock();
        if s.connection != connection || s.failed.is_some() || s.ending.is_some() || s.dead {
            return Err(Failure);
        }
        if store.stopped.load(Ordering::Acquire) {
            s.die("stopping");
            return Err(Failure);
        }
        s.received += bytes.len() as u64;
        let mut rest = bytes;
        while !rest.is_empty() {
            match s.phase {
                Phase::Append => {
                    self.write(store, &mut s, rest)?;
                    rest = &[];
                }
                Phase::StoreHeader => {
                    let line = memchr::memchr(b'\n', rest).map_or(rest.len(), |i| i + 1);
                    let (head, tail) = rest.split_at(line);
                    if s.len + line as u64 > 2 * limits::HEADER_LINE_BYTES as u64 {
                        return Err(s.fail("malformed: the repeated header line is too long"));
                    }
                    self.write(store, &mut s, head)?;
                    s.header_bytes = s.len;
                    if head.ends_with(b"\n") {
                        s.header_done = true;
                        s.phase = Phase::Append;
                    }
                    rest = tail;
                }
                Phase::SkipHeader(seen) => match memchr::memchr(b'\n', rest) {
                    Some(i) => {
                        rest = rest.get(i + 1..).unwrap_or_default();
                        s.phase = Phase::Compare(self.file_at(&s, s.offset));
                    }
                    None => {
                        let seen = seen + rest.len();
                        if seen > 2 * limits::HEADER_LINE_BYTES {
                            return Err(s.fail("malformed: the repeated header line is too long"));
                        }
                        s.phase = Phase::SkipHeader(seen);
                        rest = &[];
                    }
                },
                Phase::Compare(at) if at >= s.len => s.phase = Phase::Append,
                Phase::Compare(at) => {
                    let mut stored = [0; COMPARE_BYTES];
                    let left = usize::try_from(s.len - at).unwrap_or(usize::MAX);
                    let n = rest.len().min(COMPARE_BYTES).min(left);
                    let stored = &mut stored[..n];
                    if let Err(e) = s.file.read_exact_at(stored, at) {
                        return Err(s.fail(&format!("io: {e}")));
                    }
                    let (head, tail) = rest.split_at(n);
                    if let Some(i) = stored.iter().zip(head).position(|(a, b)| a != b) {
                        s.conflict = Some(self.stream_at(&s, at + i as u64));
                        return Err(s.fail("conflict"));
                    }
                    s.phase = Phase::Compare(at + n as u64);
                    rest = tail;
                }
            }
        }
        // Told once a flush: the client frees its ring by what is committed.
        let much = s.len - s.durable.length >= s.flush_from && !s.urged;
        s.urged |= much;
        Ok(much)
    }

    fn write(&self, store: &Inner, s: &mut PartState, bytes: &[u8]) -> Result<(), Failure> {
        let config = &store.config;
        if let Some(per_second) = config.quotas.session_rate
            && !s.rate.get_or_insert_with(|| Rate::new(per_second)).take(bytes.len(), per_second)
        {
            return Err(s.fail(store.counters.over(Quota::SessionRate)));
        }
        let all = self.facts.before.saturating_add(s.len).saturating_add(bytes.len() as u64);
        if config.quotas.part_bytes.is_some_and(|most| all > most) {
            return Err(s.fail(store.counters.over(Quota::PartBytes)));
        }
        if store.free.bytes(&*config.disk, store.dirs.root()) < config.reserve {
            return Err(s.fail("disk full"));
        }
        let taken = bytes.len() as u64;
        let measure = || store.dirs.stored_bytes(&self.facts.node);
        if let Some((stored, most)) = s.stored.as_ref().zip(config.quotas.node_bytes)
            && !stored.take(taken, most, measure)
        {
            return Err(s.fail(store.counters.over(Quota::NodeBytes)));
        }
        self.lag.received(s.len + taken - s.durable.length);
        if let Err(e) = config.disk.write_at(&s.file, bytes, s.len) {
            if let Some(stored) = &s.stored {
                stored.give_back(taken);
            }
            self.lag.received(s.len - s.durable.length);
            let full =
                matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            if full {
                store.free.took(u64::MAX);
            }
            return Err(s.fail(&if full { "disk full".to_owned() } else { format!("io: {e}") }));
        }
        s.len += bytes.len() as u64;
        store.free.took(bytes.len() as u64);
        s.sums.update(bytes);
        add(&store.counters.bytes, bytes.len() as u64);
        Ok(())
    }

    /// How far a connection is.
    pub(crate) fn progress(&self, connection: u64) -> Progress {
        let s = self.lock();
        if s.connection != connection {
            return Progress { received: 0, commit: 0, state: State::Superseded };
        }
        let state = match (&s.failed, s.sealed) {
            (Some(text), _) => State::Failed(text.clone()),
            (None, Some(end)) => State::Sealed(end),
            (None, None) => State::Open,
        };
        Progress { received: s.received, commit: self.durable_end(&s).max(s.offset), state }
    }

    /// A connection has ended. True when the commit group has something to do.
    pub(crate) fn end(&self, connection: u64, how: How) -> bool {
        let mut s = self.lock();
        if s.connection != connection || s.ending.is_some() || s.failed.is_some() || s.dead {
            return false;
        }
        match how {
            How::Clean if matches!(s.phase, Phase::StoreHeader | Phase::SkipHeader(_)) => {
                // Where the stream ends was not said.
                let _ = s.fail("malformed: the body ends inside its header line");
                true
            }
            How::Clean => {
                if let Phase::Compare(at) = s.phase
                    && at < s.len
                {
                    // The stream ends before bytes that are stored: they cannot be one recording.
                    s.conflict = Some(self.stream_at(&s, at));
                    let _ = s.fail("conflict");
                } else {
                    s.ending = Some(Ended::Sealed);
                }
                true
            }
            How::Moved => {
                s.ending = Some(Ended::Moved);
                true
            }
            How::Truncated if self.facts.recording.is_some() => {
                s.notify = None;
                s.detached = Some(Instant::now());
                false
            }
            How::Truncated => {
                s.ending = Some(Ended::Truncated);
                s.notify = None;
                true
            }
        }
    }

    /// Closes a part whose time to resume has passed. True when the commit group has something to do.
    pub(crate) fn expire(&self, window: std::time::Duration) -> bool {
        let mut s = self.lock();
        let over = s.detached.is_some_and(|since| since.elapsed() >= window);
        if !over || s.ending.is_some() || s.sealed.is_some() || s.dead {
            return false;
        }
        let how = if self.facts.recovered && s.connections == 0 {
            Ended::Interrupted
        } else {
            Ended::Truncated
        };
        s.ending = Some(how);
        true
    }

    /// Begins a flush: writes the next slot when there is something to commit.
    pub(crate) fn prepare(&self, store: &Inner) -> Option<Snapshot> {
        let mut s = self.lock();
        s.urged = false;
        if s.dead || s.sealed.is_some() {
            return None;
        }
        if s.failed.is_some() {
            // What a failed write left behind the last whole append is not part of the recording.
            let _ = s.file.set_len(s.len);
        }
        if s.len == s.durable.length && s.attempt == s.durable.attempt && !s.fresh {
            return None;
        }
        let slot = Slot {
            generation: s.durable.generation + 1,
            length: s.len,
            crc32: s.sums.crc32.clone().finalize(),
            attempt: s.attempt,
        };
        if let Err(e) = slot.write(&*store.config.disk, &s.journal) {
            log::error!("{}: writing the journal: {e}", self.name());
            s.die("io");
            add(&store.counters.failed, 1);
            return None;
        }
        self.lag.flushing();
        let (file, journal) = (Arc::clone(&s.file), Arc::clone(&s.journal));
        Some(Snapshot { slot, file, journal, fresh: s.fresh })
    }

    /// The flush succeeded.
    pub(crate) fn announce(&self, slot: Slot) {
        let mut s = self.lock();
        if slot.length > s.durable.length {
            s.commits.push((slot.length, slot.crc32));
        }
        s.durable = slot;
        s.fresh = false;
        self.lag.committed(s.len - s.durable.length);
        if let Some(notify) = &s.notify {
            notify.wake();
        }
    }

    /// A sync failed: nothing of this part is promised any more, and it is never synced again.
    pub(crate) fn die(&self, counters: &Counters) {
        let mut s = self.lock();
        if !s.dead {
            s.die("io");
            add(&counters.failed, 1);
        }
    }

    /// The highest attempt seen.
    pub(crate) fn attempt(&self) -> u64 {
        self.lock().attempt
    }

    /// Bytes of the recording up to the end of this part, for its quota.
    pub(crate) fn bytes_so_far(&self) -> u64 {
        self.facts.before.saturating_add(self.lock().len)
    }

    /// Whether a quota ended it.
    pub(crate) fn is_over_quota(&self) -> bool {
        self.lock().failed.as_ref().is_some_and(|text| text.starts_with("quota"))
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.lock().dead
    }

    /// Whether everything is durable and the part has ended: then its sidecar can be written. Marks it so that no resume
    /// comes between.
    pub(crate) fn close(&self, now: Times) -> Option<Sidecar> {
        let mut s = self.lock();
        let how = s.ending?;
        if s.dead || s.closing || s.sealed.is_some() || s.durable.length != s.len {
            return None;
        }
        s.closing = true;
        Some(Sidecar {
            file: self.facts.cast_name(),
            node: self.facts.node.clone(),
            recording: self.facts.recording.map(|id| hex(&id)),
            resume_secret_sha256: self.facts.secret_sha256.map(|hash| hex(&hash)),
            part: self.facts.number,
            start: self.facts.start,
            end: self.stream_end(&s),
            header_bytes: if self.facts.start == 0 { 0 } else { s.header_bytes },
            bytes: s.len,
            sha256: hex(&s.sums.sha256.clone().finalize()),
            started_us: self.facts.started_us,
            ended_us: now.wall_us,
            clock_step_us: self.facts.began.map(|began| now.step_us(began)),
            how,
            reason: s.failed.clone(),
            conflict: s.conflict,
            peer: self.facts.peer.clone(),
            protocol: self.facts.protocol.clone(),
            connections: s.connections,
            attempt: s.attempt,
            commits: s.commits.points.clone(),
        })
    }

    /// It could not be closed now, and will be later.
    pub(crate) fn reopen(&self) {
        self.lock().closing = false;
    }

    /// The sidecar is durable under its name.
    pub(crate) fn closed(&self) {
        let mut s = self.lock();
        s.sealed = Some(self.stream_end(&s));
        if let Some(notify) = s.notify.take() {
            notify.wake();
        }
    }

    fn stream_end(&self, s: &PartState) -> u64 {
        self.stream_at(s, s.len)
    }

    fn durable_end(&self, s: &PartState) -> u64 {
        self.stream_at(s, s.durable.length)
    }

    /// The stream offset of a place in the file; places inside the repeated header line count as the start.
    fn stream_at(&self, s: &PartState, at: u64) -> u64 {
        if self.facts.start == 0 {
            at
        } else {
            self.facts.start.saturating_add(at.saturating_sub(s.header_bytes))
        }
    }

    fn file_at(&self, s: &PartState, offset: u64) -> u64 {
        if self.facts.start == 0 {
            offset
        } else {
            s.header_bytes + offset.saturating_sub(self.facts.start)
        }
    }

    /// Puts the part into a queue, once.
    pub(crate) fn mark_queued(&self) -> bool {
        !self.queued.swap(true, Ordering::AcqRel)
    }
}

impl PartState {
    fn attach(&mut self, notify: Arc<dyn Notify>) {
        self.connection += 1;
        self.connections += 1;
        self.notify = Some(notify);
        self.received = 0;
    }

    fn fail(&mut self, text: &str) -> Failure {
        self.failed = Some(text.to_owned());
        self.ending = Some(Ended::Error);
        Failure
    }

    fn die(&mut self, text: &str) {
        self.dead = true;
        self.failed = Some(text.to_owned());
        if let Some(notify) = &self.notify {
            notify.wake();
        }
    }
}

/// Commit points for the sidecar: all of the first, then every second, every fourth, … so that their number stays bounded.
#[derive(Debug, Default)]
struct Commits {
    points: Vec<(u64, u32)>,
    seen: u64,
    every_log2: u32,
}

impl Commits {
    fn push(&mut self, point: (u64, u32)) {
        if self.seen & ((1 << self.every_log2) - 1) == 0 {
            if self.points.len() >= limits::SIDECAR_COMMITS {
                let mut keep = false;
                self.points.retain(|_| {
                    keep = !keep;
                    keep
                });
                self.every_log2 += 1;
            }
            self.points.push(point);
        }
        self.seen += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commit_points_stay_few() {
        let mut commits = Commits::default();
        for i in 0..100_000_u64 {
            commits.push((i, 0));
        }
        assert!(commits.points.len() <= limits::SIDECAR_COMMITS);
        assert!(commits.points.windows(2).all(|w| w[0].0 < w[1].0));
    }
}
