//! What a recorder keeps: parts, journals, sidecars, as docs/storage.md lays down.
//!
//! ```text
//! begin() ─► Upload ─ append() ─► file (page cache)         notify: commit grew, sealed, failed
//!              │                     │ dirty                            ▲
//!              └ end() ──────────► commit group: slot, sync, announce ──┴─► seal: sidecar, rename, journal removed
//! ```
//!
//! One thread, the commit group, makes many parts durable with one flush and begins the next as soon as the last one
//! ended while anything is dirty. A commit is announced only behind a sync that succeeded; a sync that failed ends every
//! part it covered, for good.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod begin;
mod disk;
mod events;
mod group;
mod journal;
mod lag;
mod layout;
mod part;
mod quota;
pub mod read;
mod recover;
mod sidecar;
mod stamp;

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::limits;
use crate::upload::server::Protocol;

pub use disk::{Disk, RealDisk, Times};
pub use layout::node_name;
pub use quota::Quota;
pub use recover::Recovery;
pub use sidecar::{How as Ended, PeerFacts, Sidecar};
pub use stamp::{format_time, parse_time};

use part::Part;

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The directory.
    pub dst: PathBuf,
    /// New recordings are refused when fewer bytes are free; those that have begun go on, see `reserve`.
    pub min_free: u64,
    /// Open recordings are ended with `disk full` when fewer bytes are free.
    pub reserve: u64,
    /// How long a recording without a connection can be resumed.
    pub resume_window: Duration,
    /// Directories 0750 and files 0640 instead of 0700 and 0600.
    pub group_readable: bool,
    /// How long [`Store::shutdown`] waits for a flush that hangs.
    pub stop_wait: Duration,
    /// Bounds on sessions and nodes.
    pub quotas: Quotas,
    /// The system calls; another one in tests.
    pub disk: Arc<dyn Disk>,
}

impl StoreConfig {
    /// Defaults for a directory.
    #[must_use]
    pub fn new(dst: impl Into<PathBuf>) -> Self {
        Self {
            dst: dst.into(),
            min_free: limits::MIN_FREE_BYTES,
            reserve: limits::RESERVE_BYTES,
            resume_window: Duration::from_micros(limits::RESUME_WINDOW.0),
            group_readable: false,
            stop_wait: Duration::from_micros(limits::STOP_WAIT.0),
            quotas: Quotas::default(),
            disk: Arc::new(RealDisk),
        }
    }
}

/// Bounds on what one session or one node may take. None is no bound.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quotas {
    /// Bytes of one recording here: its parts together.
    pub part_bytes: Option<u64>,
    /// Bytes stored of one node: all of its parts that are in its directory.
    pub node_bytes: Option<u64>,
    /// Open parts of one node.
    pub node_open: Option<u32>,
    /// Bytes per second of one session, averaged over ten seconds.
    pub session_rate: Option<u64>,
    /// Uploads begun per second by one node.
    pub node_opens: Option<u32>,
}

/// Who uploads.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Address and port.
    pub address: SocketAddr,
    /// The authenticated name, if there is one.
    pub identity: Option<String>,
    /// Whether `identity` was authenticated.
    pub verified: bool,
    /// What else is known of it.
    pub about: About,
}

/// What is known of a peer beside its name. The default: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// What authenticated it.
    pub by: Option<By>,
    /// How the tailnet calls the node; may be empty.
    pub name: String,
    /// Whose the node is; None for a tagged one.
    pub user: Option<String>,
    /// The node's tags.
    pub tags: Vec<String>,
}

/// What authenticated a peer. Names of one are not names of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Its client certificate.
    Certificate,
    /// Tailscale's WhoIs.
    WhoIs,
}

impl By {
    /// The word in the sidecar.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::WhoIs => "whois",
        }
    }
}

/// The request fields of the extension.
#[derive(Clone, Debug)]
pub struct ResumeClaim {
    /// Recording id.
    pub recording: [u8; 16],
    /// Resume secret.
    pub secret: [u8; 16],
    /// Attempt number.
    pub attempt: u64,
    /// Stream offset of the first byte behind the header line.
    pub offset: u64,
    /// Bytes of stream that the client can hold.
    pub window: u64,
}

/// Told when the progress of an upload changed. Called from any thread, so it must be cheap and must not call back.
pub trait Notify: Send + Sync {
    /// Something changed.
    fn wake(&self);
}

/// A new upload.
pub struct Begin {
    /// Who.
    pub peer: Peer,
    /// How.
    pub protocol: Protocol,
    /// With the extension.
    pub resume: Option<ResumeClaim>,
    /// Whom to tell.
    pub notify: Arc<dyn Notify>,
}

/// Why an upload or an event was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// One line for the peer.
    pub text: String,
}

impl Refusal {
    fn new(status: u16, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }
}

/// How the client ended its upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// In order.
    Clean,
    /// Gone without an end.
    Truncated,
    /// In order, after a drain.
    Moved,
}

/// Where an upload stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Bytes may come.
    Open,
    /// A newer connection has taken the recording over.
    Superseded,
    /// Storing ended; the text is for the error object.
    Failed(String),
    /// Closed and durable; the stream ends here.
    Sealed(u64),
}

/// How far an upload is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Body bytes of this upload that were taken.
    pub received: u64,
    /// Stream offset up to which everything is durable.
    pub commit: u64,
    /// See [`State`].
    pub state: State,
}

/// Bytes were not taken: [`Upload::progress`] says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure;

/// One upload into one part.
pub struct Upload {
    part: Arc<Part>,
    /// Which connection of the part this is.
    connection: u64,
    start_commit: u64,
    store: Arc<Inner>,
    ended: bool,
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Upload({} #{})", self.part.name(), self.connection)
    }
}

impl Upload {
    /// The `castkeep-commit` of the accepting answer.
    #[must_use]
    pub const fn start_commit(&self) -> u64 {
        self.start_commit
    }

    /// Body bytes, in order. Writes to the file; durable once a commit says so.
    ///
    /// # Errors
    ///
    /// [`Failure`]: the upload is over, [`Upload::progress`] says why.
    ///
    /// # Blocking
    ///
    /// As long as write(2) takes.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if bytes.is_empty() {
            return Ok(());
        }
        let result = self.part.append(&self.store, self.connection, bytes);
        // Also when it failed: the part has to be closed.
        match result {
            Ok(false) => self.store.group.dirty(&self.part),
            Ok(true) | Err(Failure) => self.store.group.urgent(&self.part),
        }
        result.map(|_| ())
    }

    /// How far it is. Cheap.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let mut progress = self.part.progress(self.connection);
        if progress.state == State::Open && self.store.stopped.load(Ordering::Acquire) {
            // Nobody is left to commit it, or to say so.
            progress.state = State::Failed("stopping".to_owned());
        }
        progress
    }

    /// No more comes. Everything is made durable and the part is closed behind the caller's back;
    /// [`Upload::progress`] shows `Sealed` then. A truncated upload with the extension stays open for a resume.
    pub fn end(&mut self, how: How) {
        if !self.ended {
            self.ended = true;
            if self.part.end(self.connection, how) {
                self.store.group.urgent(&self.part);
            }
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.end(How::Truncated);
    }
}

/// Figures for metrics and status. Counters only grow.
#[derive(Clone, Copy, Debug, Default)]
pub struct Status {
    /// Bytes free for the recorder.
    pub free_bytes: u64,
    /// Parts that are not closed, detached ones included.
    pub open_parts: u64,
    /// Parts begun.
    pub parts: u64,
    /// Body bytes written.
    pub bytes: u64,
    /// Flushes of the commit group.
    pub flushes: u64,
    /// Microseconds in flushes.
    pub flush_us: u64,
    /// Microseconds of the last flush.
    pub last_flush_us: u64,
    /// Parts committed, one for each part and flush.
    pub commits: u64,
    /// Parts closed.
    pub sealed: u64,
    /// Parts ended by an error.
    pub failed: u64,
    /// Uploads refused or ended by a quota, in the order of [`Quota::ALL`].
    pub over_quota: [u64; Quota::ALL.len()],
    /// Bytes that were received and are not committed.
    pub uncommitted_bytes: u64,
    /// How long ago the oldest of them was received.
    pub uncommitted_us: u64,
}

#[derive(Debug, Default)]
struct Counters {
    parts: AtomicU64,
    bytes: AtomicU64,
    flushes: AtomicU64,
    flush_us: AtomicU64,
    last_flush_us: AtomicU64,
    commits: AtomicU64,
    sealed: AtomicU64,
    failed: AtomicU64,
    over_quota: [AtomicU64; Quota::ALL.len()],
}

impl Counters {
    /// Counts it; the text that the peer is told.
    fn over(&self, quota: Quota) -> &'static str {
        if let Some(counter) = self.over_quota.get(quota as usize) {
            add(counter, 1);
        }
        quota.text()
    }
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

/// An authenticated name, and what authenticated it.
type Identity = (Option<By>, String);

/// One recording that can be resumed here.
#[derive(Debug)]
struct Entry {
    secret_sha256: [u8; 32],
    identity: Option<Identity>,
    attempt: u64,
    parts: u32,
    part: Arc<Part>,
}

/// What all uploads share.
#[derive(Debug)]
struct Inner {
    config: StoreConfig,
    dirs: layout::Dirs,
    /// Holds the lock on the directory until the store is shut down.
    lock: Mutex<Option<File>>,
    registry: Mutex<Registry>,
    /// All parts that are not closed. A lock of its own, held for moments: figures are asked for when other things hang.
    open: Mutex<HashMap<String, Weak<Part>>>,
    group: group::Group,
    counters: Counters,
    free: disk::Free,
    events: Mutex<Option<events::Journal>>,
    /// No new recordings; set before the commit group ends.
    stopping: AtomicBool,
    /// The commit group has ended.
    stopped: AtomicBool,
}

#[derive(Debug, Default)]
struct Registry {
    recordings: HashMap<[u8; 16], Entry>,
    nodes: HashMap<String, quota::Node>,
    /// Recordings that a quota ended, and when: coming back would give them a new quota.
    over_quota: HashMap<[u8; 16], Instant>,
}

impl Registry {
    /// A recording is not taken again for as long as it could have been resumed.
    fn bar(&mut self, id: [u8; 16], window: Duration) {
        if self.over_quota.len() >= limits::OVER_QUOTA_MAX {
            self.over_quota.retain(|_, since| since.elapsed() < window);
        }
        if self.over_quota.len() < limits::OVER_QUOTA_MAX {
            self.over_quota.insert(id, Instant::now());
        }
    }

    fn is_barred(&self, id: &[u8; 16], window: Duration) -> bool {
        self.over_quota.get(id).is_some_and(|since| since.elapsed() < window)
    }
}

impl Inner {
    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> MutexGuard<'_, HashMap<String, Weak<Part>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of the bytes that a node has stored. None: there is no bound on them.
    fn stored(&self, node: &str) -> Option<Arc<quota::Stored>> {
        self.config.quotas.node_bytes?;
        let mut registry = self.registry();
        Some(Arc::clone(&registry.nodes.entry(node.to_owned()).or_default().stored))
    }

    /// Whether uploads are taken and so many bytes are free; the text is for the 503.
    fn has_room(&self, bytes: u64) -> Result<(), &'static str> {
        if self.stopping.load(Ordering::Acquire) {
            return Err("stopping: this recorder takes no new recordings");
        }
        if self.stopped.load(Ordering::Acquire) {
            return Err("io: nothing can be committed here any more");
        }
        if self.free.bytes(&*self.config.disk, self.dirs.root()) < bytes {
            return Err("disk full: this recorder takes no new recordings");
        }
        Ok(())
    }

    /// The free space that a recording needs to go on: a session that runs is not given up for room that is kept from new
    /// ones, but what its client holds must fit, or it would be accepted only to be ended.
    fn room_to_go_on(&self, window: u64) -> u64 {
        self.config.reserve.saturating_add(window).min(self.config.min_free)
    }

    /// A part is closed, or lost for good: it can no longer be resumed.
    fn forget(&self, part: &Arc<Part>) {
        if part.forgotten.swap(true, Ordering::AcqRel) {
            return;
        }
        self.open().remove(&part.name());
        let over_quota = part.is_over_quota();
        let mut registry = self.registry();
        if over_quota && let Some(id) = part.recording() {
            registry.bar(*id, self.config.resume_window);
        }
        if let Some(node) = registry.nodes.get_mut(part.node()) {
            node.open = node.open.saturating_sub(1);
        }
        if let Some(id) = part.recording()
            && registry.recordings.get(id).is_some_and(|e| Arc::ptr_eq(&e.part, part))
        {
            registry.recordings.remove(id);
        }
    }
}

/// Why a store cannot be opened: what, where, why, and what to do.
#[derive(Debug)]
pub struct StoreError {
    /// What failed.
    pub what: String,
    /// Why.
    pub why: String,
    /// What the reader can do.
    pub todo: String,
}

impl StoreError {
    fn new(what: impl Into<String>, why: impl fmt::Display, todo: impl Into<String>) -> Self {
        Self { what: what.into(), why: why.to_string(), todo: todo.into() }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.what, self.why, self.todo)
    }
}

impl std::error::Error for StoreError {}

/// A storage directory, open for writing. One at a time a directory.
#[derive(Debug)]
pub struct Store {
    inner: Arc<Inner>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Store {
    /// Opens a directory, makes it when it is missing, recovers what a crash left, and starts the commit group.
    ///
    /// # Errors
    ///
    /// [`StoreError`] says what failed, where, and what to do.
    pub fn open(config: StoreConfig) -> Result<(Arc<Self>, Recovery), StoreError> {
        let dirs = layout::Dirs::open(&config.dst, config.group_readable)?;
        let lock = dirs.lock(&config.dst)?;
        dirs.check_layout(&config.dst, &*config.disk)?;
        let free = disk::Free::new(&*config.disk, dirs.root());
        let inner = Arc::new(Inner {
            dirs,
            lock: Mutex::new(Some(lock)),
            registry: Mutex::default(),
            open: Mutex::default(),
            group: group::Group::default(),
            counters: Counters::default(),
            free,
            events: Mutex::new(None),
            stopping: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            config,
        });
        let recovery = recover::recover(&inner)?;
        let for_thread = Arc::clone(&inner);
        let thread = std::thread::Builder::new()
            .name("commit-group".into())
            .stack_size(256 * 1024)
            .spawn(move || group::run(&for_thread))
            .map_err(|e| {
                StoreError::new("starting the commit thread", e, "raise the limit on threads")
            })?;
        Ok((Arc::new(Self { inner, thread: Mutex::new(Some(thread)) }), recovery))
    }

    /// Whether a new recording can be taken now; the text is for the 503.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn available(&self) -> Result<(), &'static str> {
        self.inner.has_room(self.inner.config.min_free)
    }

    /// Whether any upload can be taken now: a recording that has begun may go on where a new one is refused.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn available_to_go_on(&self) -> Result<(), &'static str> {
        self.inner.has_room(self.inner.config.reserve)
    }

    /// Begins an upload: docs/protocol.md §3.3.
    ///
    /// # Errors
    ///
    /// [`Refusal`] is the answer to give instead.
    pub fn begin(&self, begin: Begin) -> Result<Upload, Refusal> {
        begin::begin(&self.inner, begin)
    }

    /// Stores one event, durably.
    ///
    /// # Errors
    ///
    /// 400 when it is not a JSON object, 503 when it cannot be stored.
    pub fn event(&self, peer: &Peer, body: &[u8]) -> Result<(), Refusal> {
        self.available().map_err(|text| Refusal::new(503, text))?;
        events::store(&self.inner, peer, body)
    }

    /// Figures for metrics.
    #[must_use]
    pub fn status(&self) -> Status {
        let c = &self.inner.counters;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (mut uncommitted_bytes, mut uncommitted_us) = (0_u64, 0);
        // Nothing here waits for a lock that a hanging write can hold.
        let open: Vec<_> = self.inner.open().values().cloned().collect();
        let open_parts = open.len() as u64;
        for part in open.iter().filter_map(Weak::upgrade) {
            let (bytes, age_us) = part.lag.uncommitted();
            uncommitted_bytes = uncommitted_bytes.saturating_add(bytes);
            uncommitted_us = uncommitted_us.max(age_us);
        }
        Status {
            free_bytes: self.inner.free.bytes(&*self.inner.config.disk, self.inner.dirs.root()),
            open_parts,
            parts: get(&c.parts),
            bytes: get(&c.bytes),
            flushes: get(&c.flushes),
            flush_us: get(&c.flush_us),
            last_flush_us: get(&c.last_flush_us),
            commits: get(&c.commits),
            sealed: get(&c.sealed),
            failed: get(&c.failed),
            over_quota: c.over_quota.each_ref().map(get),
            uncommitted_bytes,
            uncommitted_us,
        }
    }

    /// Flushes everything, closes what has ended, leaves resumable parts in their journals, and ends the thread.
    ///
    /// # Blocking
    ///
    /// As long as that takes, at most [`StoreConfig::stop_wait`]. A flush that hangs longer is left behind, and with it the
    /// lock on the directory: until it is over nobody else may write there.
    pub fn shutdown(&self) {
        // Who asks again has waited already.
        let again = self.inner.stopping.swap(true, Ordering::AcqRel);
        self.inner.group.stop();
        let wait = if again { Duration::ZERO } else { self.inner.config.stop_wait };
        if !self.inner.group.wait_ended(wait) {
            log::error!("the disk hangs: what is not committed is left to the next start");
            return;
        }
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic there has ended its parts already.
            let _ = thread.join();
        }
        // Uploads that still exist take nothing more: the directory may belong to another recorder from here on.
        self.inner.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.shutdown();
    }
}
