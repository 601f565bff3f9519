//! A storage directory of its own for a test, and a disk that can fail or forget.
#![allow(dead_code, unreachable_pub, clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use castkeep::recorder::storage::{
    About, Begin, Disk, Notify, Peer, Progress, RealDisk, ResumeClaim, Sidecar, Store, StoreConfig,
    Upload,
};
use castkeep::upload::server::Protocol;
use sha2::Digest as _;

/// A hang guard, never a measurement.
const GUARD: Duration = Duration::from_secs(60);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A directory, and whether it goes away with this value.
pub struct Dir(PathBuf, bool);

impl Dir {
    pub fn new() -> Self {
        loop {
            let n = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("castkeep-storage-{}-{n}", std::process::id());
            let path = std::env::temp_dir().join(name);
            match fs::create_dir(&path) {
                Ok(()) => return Self(path, true),
                // Left by a process that was killed and had the same number.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => panic!("{}: {e}", path.display()),
            }
        }
    }

    /// One that belongs to somebody else.
    pub fn borrowed(path: &str) -> Self {
        Self(PathBuf::from(path), false)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn store(&self) -> Arc<Store> {
        Store::open(StoreConfig::new(&self.0)).unwrap().0
    }

    pub fn stock(&self) -> Begin {
        Begin {
            peer: Peer {
                address: "127.0.0.1:4000".parse().unwrap(),
                identity: None,
                verified: false,
                about: About::default(),
            },
            protocol: Protocol::V2,
            resume: None,
            notify: Arc::new(Nobody),
        }
    }

    pub fn resumable(&self, claim: &Claim, attempt: u64, offset: u64) -> Begin {
        let resume = ResumeClaim {
            recording: [claim.id; 16],
            secret: [claim.secret; 16],
            attempt,
            offset,
            window: 65_536,
        };
        Begin { protocol: Protocol::V2Commit, resume: Some(resume), ..self.stock() }
    }

    /// Polls until the progress is as wanted.
    pub fn wait(&self, upload: &Upload, wanted: impl Fn(&Progress) -> bool) -> Progress {
        let end = Instant::now() + GUARD;
        loop {
            let progress = upload.progress();
            if wanted(&progress) {
                return progress;
            }
            assert!(Instant::now() < end, "still {progress:?}");
            std::thread::yield_now();
        }
    }

    fn with_extension(&self, node: &str, extension: &str) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.0.join(node)) else { return Vec::new() };
        let mut paths: Vec<PathBuf> = entries
            .map(|e| e.unwrap().path())
            .filter(|p| p.extension().is_some_and(|e| e == extension))
            .collect();
        paths.sort();
        paths
    }

    pub fn only_open(&self, node: &str) -> (PathBuf, Vec<PathBuf>) {
        let mut casts = self.with_extension(node, "cast");
        assert_eq!(casts.len(), 1, "{casts:?}");
        (casts.remove(0), self.with_extension(node, "json"))
    }

    pub fn only_part(&self, node: &str) -> (PathBuf, Sidecar) {
        let sidecar = self.sidecars(node, 1).remove(0);
        (self.only_open(node).0, sidecar)
    }

    pub fn wait_sidecar(&self, node: &str) -> Sidecar {
        self.sidecars(node, 1).remove(0)
    }

    /// Waits for so many sidecars; sorted by part number.
    pub fn sidecars(&self, node: &str, count: usize) -> Vec<Sidecar> {
        until("sidecars", || self.with_extension(node, "json").len() >= count);
        let mut all: Vec<Sidecar> = self
            .with_extension(node, "json")
            .iter()
            .map(|p| Sidecar::parse(&fs::read(p).unwrap()).unwrap())
            .collect();
        assert_eq!(all.len(), count);
        all.sort_by_key(|s| s.part);
        all
    }

    pub fn open_files(&self) -> Vec<String> {
        let list = || -> Vec<String> {
            let entries = fs::read_dir(self.0.join("open")).unwrap();
            entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect()
        };
        until("open/ to be empty", || list().is_empty());
        list()
    }

    /// Bytes in the file that no commit covers.
    pub fn append_behind(&self, _upload: &Upload, bytes: &[u8]) {
        let (cast, _) = self.only_open("127.0.0.1");
        let file = fs::OpenOptions::new().write(true).open(cast).unwrap();
        let end = file.metadata().unwrap().len();
        file.write_all_at(bytes, end).unwrap();
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        if self.1 {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

pub struct Claim {
    id: u8,
    secret: u8,
}

impl Claim {
    pub fn new(id: u8) -> Self {
        Self { id, secret: id }
    }

    pub fn with_secret(self, secret: u8) -> Self {
        Self { secret, ..self }
    }
}

struct Nobody;

impl Notify for Nobody {
    fn wake(&self) {}
}

pub fn until(what: &str, done: impl Fn() -> bool) {
    let end = Instant::now() + GUARD;
    while !done() {
        assert!(Instant::now() < end, "waiting for {what}");
        std::thread::yield_now();
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    sha2::Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// The real disk with faults, and, if wanted, a memory of what was not synced.
#[derive(Debug)]
pub struct TestDisk {
    failing: AtomicBool,
    syncs: AtomicU64,
    left: AtomicI64,
    free: AtomicU64,
    remember: bool,
    unsynced: Mutex<BTreeMap<(u64, u64), Unsynced>>,
}

#[derive(Debug)]
struct Unsynced {
    file: File,
    /// Before-images in order: offset, what stood there, length of the file before.
    writes: Vec<(u64, Vec<u8>, u64)>,
}

impl TestDisk {
    pub fn new() -> Arc<Self> {
        Self::make(false)
    }

    pub fn remembering() -> Arc<Self> {
        Self::make(true)
    }

    fn make(remember: bool) -> Arc<Self> {
        Arc::new(Self {
            failing: AtomicBool::new(false),
            syncs: AtomicU64::new(0),
            left: AtomicI64::new(i64::MAX),
            free: AtomicU64::new(u64::MAX),
            remember,
            unsynced: Mutex::default(),
        })
    }

    pub fn fail_syncs(&self, failing: bool) {
        self.failing.store(failing, Ordering::SeqCst);
    }

    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::SeqCst)
    }

    /// One more write gets so many bytes in, and then the disk is full for that file's content.
    pub fn fill_after(&self, bytes: i64) {
        self.left.store(bytes, Ordering::SeqCst);
    }

    pub fn set_free(&self, bytes: u64) {
        self.left.store(i64::MAX, Ordering::SeqCst);
        self.free.store(bytes, Ordering::SeqCst);
    }

    fn sync_result(&self) -> io::Result<()> {
        self.syncs.fetch_add(1, Ordering::SeqCst);
        if self.failing.load(Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(5));
        }
        Ok(())
    }

    /// What a loss of power at this moment undoes: a random half of what was not synced, torn in places.
    pub fn cut_power(&self, seed: u64) -> Lost {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut undo = Vec::new();
        for (_, unsynced) in std::mem::take(&mut *self.unsynced.lock().unwrap()) {
            let keep = random() % (unsynced.writes.len() as u64 + 1);
            for (i, (at, before, len)) in unsynced.writes.into_iter().enumerate().rev() {
                if (i as u64) < keep && random() % 4 != 0 {
                    continue;
                }
                undo.push((unsynced.file.try_clone().unwrap(), at, before, len, i as u64 >= keep));
            }
        }
        Lost(undo)
    }
}

/// See [`TestDisk::cut_power`].
pub struct Lost(Vec<(File, u64, Vec<u8>, u64, bool)>);

impl Lost {
    pub fn apply(self) {
        for (file, at, before, len, shorten) in self.0 {
            let now = file.metadata().unwrap().len();
            if shorten && len < now {
                file.set_len(len).unwrap();
            }
            let fits = before.len().min(usize::try_from(now.saturating_sub(at)).unwrap_or(0));
            if at + fits as u64 <= file.metadata().unwrap().len() {
                file.write_all_at(&before[..fits], at).unwrap();
            }
        }
    }
}

impl Disk for TestDisk {
    fn write_at(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        let is_cast = bytes.first() == Some(&b'[');
        let left = self.left.load(Ordering::SeqCst);
        if is_cast && (bytes.len() as i64) > left {
            RealDisk.write_at(file, &bytes[..left as usize], at)?;
            return Err(io::Error::from_raw_os_error(28));
        }
        if self.remember {
            let meta = file.metadata()?;
            let mut before = vec![0; bytes.len()];
            let there = meta.len().saturating_sub(at).min(bytes.len() as u64) as usize;
            file.read_exact_at(&mut before[..there], at)?;
            let mut unsynced = self.unsynced.lock().unwrap();
            let entry = unsynced.entry((meta.dev(), meta.ino())).or_insert_with(|| Unsynced {
                file: file.try_clone().unwrap(),
                writes: Vec::new(),
            });
            RealDisk.write_at(file, bytes, at)?;
            entry.writes.push((at, before, meta.len()));
            return Ok(());
        }
        RealDisk.write_at(file, bytes, at)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        self.sync_result()?;
        if self.remember {
            let meta = file.metadata()?;
            self.unsynced.lock().unwrap().remove(&(meta.dev(), meta.ino()));
            return Ok(());
        }
        RealDisk.sync(file)
    }

    fn sync_fs(&self, dir: &File) -> io::Result<()> {
        self.sync_result()?;
        self.unsynced.lock().unwrap().clear();
        let _ = dir;
        Ok(())
    }

    fn sync_dir(&self, dir: &File) -> io::Result<()> {
        self.sync_result()?;
        RealDisk.sync_dir(dir)
    }

    fn free_bytes(&self, _dir: &File) -> io::Result<u64> {
        Ok(self.free.load(Ordering::SeqCst))
    }
}
