//! How a store ends when it cannot end well: a disk that hangs, a commit thread that panics.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod storage_support;

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use castkeep::recorder::storage::{Disk, How, RealDisk, State, Store, StoreConfig};
use storage_support::{Claim, Dir, until};

const HEADER: &[u8] = b"{\"version\":2,\"width\":80,\"height\":24}\n";

/// The real disk, until a test wants something else of its syncs.
#[derive(Debug, Default)]
struct Bad {
    panics: AtomicU8,
    hangs: Mutex<bool>,
    changed: Condvar,
}

impl Bad {
    fn hang(&self, hangs: bool) {
        *self.hangs.lock().unwrap() = hangs;
        self.changed.notify_all();
    }

    fn pass(&self) {
        assert_eq!(self.panics.load(Ordering::SeqCst), 0, "asked for by a test");
        drop(self.changed.wait_while(self.hangs.lock().unwrap(), |hangs| *hangs).unwrap());
    }

    fn store(self: &Arc<Self>, dir: &Dir) -> Result<Arc<Store>, String> {
        let mut config = StoreConfig::new(dir.path());
        config.disk = Arc::clone(self) as _;
        config.stop_wait = Duration::from_millis(200);
        Store::open(config).map(|(store, _)| store).map_err(|e| e.to_string())
    }
}

impl Disk for Bad {
    fn write_at(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        RealDisk.write_at(file, bytes, at)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        self.pass();
        RealDisk.sync(file)
    }

    fn sync_fs(&self, dir: &File) -> io::Result<()> {
        self.pass();
        RealDisk.sync_fs(dir)
    }

    fn sync_dir(&self, dir: &File) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }

    fn free_bytes(&self, _dir: &File) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}

#[test]
fn a_disk_that_hangs_does_not_hold_up_the_end() {
    let dir = Dir::new();
    let disk = Arc::new(Bad::default());
    let store = disk.store(&dir).unwrap();
    let mut upload = store.begin(dir.resumable(&Claim::new(1), 1, 0)).unwrap();
    upload.append(HEADER).unwrap();
    dir.wait(&upload, |p| p.commit == HEADER.len() as u64);
    disk.hang(true);
    upload.append(b"more\n").unwrap();
    let begun = Instant::now();
    store.shutdown();
    // A guard: the wait of this store is far below it.
    assert!(begun.elapsed() < Duration::from_secs(20));
    drop((upload, store));
    // The flush may still write: until it is over the directory belongs to nobody else.
    let error = disk.store(&dir).unwrap_err();
    assert!(error.contains("another recorder is running"), "{error}");
    disk.hang(false);
    until("the flush to end", || disk.store(&dir).is_ok());
    let store = disk.store(&dir).unwrap();
    let upload = store.begin(dir.resumable(&Claim::new(1), 2, 0)).unwrap();
    assert!(upload.start_commit() >= HEADER.len() as u64);
}

#[test]
fn without_its_commit_thread_a_store_takes_nothing() {
    let dir = Dir::new();
    let disk = Arc::new(Bad::default());
    let store = disk.store(&dir).unwrap();
    let mut waits = store.begin(dir.stock()).unwrap();
    waits.append(HEADER).unwrap();
    dir.wait(&waits, |p| p.commit == HEADER.len() as u64);
    disk.panics.store(1, Ordering::SeqCst);
    waits.append(b"more\n").unwrap();
    waits.end(How::Clean);
    // Whoever waits for a commit that cannot come is told, and nobody new is accepted.
    dir.wait(&waits, |p| matches!(p.state, State::Failed(_)));
    until("the store to say so", || store.available().is_err());
    assert_eq!(store.begin(dir.stock()).unwrap_err().status, 503);
    assert_eq!(store.begin(dir.resumable(&Claim::new(1), 2, 50)).unwrap_err().status, 503);
    drop((waits, store));
    disk.panics.store(0, Ordering::SeqCst);
    let (_store, recovery) = Store::open(StoreConfig::new(dir.path())).unwrap();
    assert_eq!((recovery.interrupted, recovery.bad), (1, Vec::new()));
}
