//! How far commits are behind: figures for whoever watches a recorder, most of all when its disk hangs.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod storage_support;

use std::fs::File;
use std::io;
use std::sync::{Arc, Condvar, Mutex};

use castkeep::recorder::storage::{Disk, How, RealDisk, State, Store, StoreConfig};
use storage_support::{Claim, Dir, until};

/// The real disk; syncs and writes of casts wait while it hangs.
#[derive(Debug, Default)]
struct Hanging {
    state: Mutex<(bool, bool)>,
    changed: Condvar,
}

impl Hanging {
    fn set(&self, syncs: bool, writes: bool) {
        *self.state.lock().unwrap() = (syncs, writes);
        self.changed.notify_all();
    }

    fn wait(&self, hangs: impl Fn(&(bool, bool)) -> bool) {
        let guard = self.state.lock().unwrap();
        drop(self.changed.wait_while(guard, |state| hangs(state)).unwrap());
    }
}

impl Disk for Hanging {
    fn write_at(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        if bytes.starts_with(b"x") {
            self.wait(|(_, writes)| *writes);
        }
        RealDisk.write_at(file, bytes, at)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        self.wait(|(syncs, _)| *syncs);
        RealDisk.sync(file)
    }

    fn sync_fs(&self, dir: &File) -> io::Result<()> {
        self.wait(|(syncs, _)| *syncs);
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
fn what_is_received_and_not_committed_is_told() {
    let dir = Dir::new();
    let disk = Arc::new(Hanging::default());
    let mut config = StoreConfig::new(dir.path());
    config.disk = Arc::clone(&disk) as _;
    let (store, _) = Store::open(config).unwrap();
    let lag = || (store.status().uncommitted_bytes, store.status().uncommitted_us);
    let mut a = store.begin(dir.resumable(&Claim::new(1), 1, 0)).unwrap();
    let mut b = store.begin(dir.stock()).unwrap();
    a.append(&[b'x'; 10]).unwrap();
    dir.wait(&a, |p| p.commit == 10);
    until("nothing uncommitted", || lag() == (0, 0));

    // The syncs hang: bytes before and behind the running flush count, by the oldest.
    disk.set(true, false);
    a.append(&[b'x'; 100]).unwrap();
    b.append(&[b'x'; 1_000]).unwrap();
    let young = store.status();
    assert_eq!(young.uncommitted_bytes, 1_100);
    until("the lag to grow", || lag().1 > young.uncommitted_us + 20_000);
    a.append(&[b'x'; 10_000]).unwrap();
    let old = store.status();
    assert_eq!(old.uncommitted_bytes, 11_100);
    assert!(old.uncommitted_us > young.uncommitted_us);
    disk.set(false, false);
    dir.wait(&a, |p| p.commit == 10_110);
    until("nothing uncommitted", || lag() == (0, 0));

    // A write hangs: the figures are there all the same, and what it has not written is among them.
    disk.set(false, true);
    let mut a = std::thread::scope(|scope| {
        let mut writer = a;
        scope.spawn(move || writer.append(&[b'x'; 7]).unwrap());
        until("the write to begin", || lag().0 == 7);
        // Its client comes back and waits for it too, with whatever it holds.
        let back = scope.spawn(|| store.begin(dir.resumable(&Claim::new(1), 2, 0)));
        until("the lag to grow", || lag().1 > 50_000);
        assert_eq!(store.status().open_parts, 2);
        disk.set(false, false);
        back.join().unwrap().unwrap()
    });
    a.append(&[b'x'; 10_117]).unwrap();
    dir.wait(&a, |p| p.commit == 10_117);
    for upload in [&mut a, &mut b] {
        upload.end(How::Clean);
        dir.wait(upload, |p| matches!(p.state, State::Sealed(_)));
    }
    assert_eq!(lag(), (0, 0));
}
