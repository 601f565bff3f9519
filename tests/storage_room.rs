//! Room on the disk: who is refused for it, before anything is accepted, and who is not.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod storage_support;

use std::fs;

use castkeep::recorder::storage::{How, State, Store, StoreConfig};
use storage_support::{Claim, Dir, TestDisk, until};

const HEADER: &[u8] = b"{\"version\":2,\"width\":80,\"height\":24}\n";
const AGAIN: &[u8] = b"{\"version\":2,\"width\":80,\"height\":24,\"castkeepContinues\":{}}\n";
const LINE: &[u8] = b"[1.000000,\"o\",\"line\\r\\n\"]\n";
const MIB: u64 = 1 << 20;
/// What [`Dir::resumable`] says that its client can hold.
const WINDOW: u64 = 65_536;

#[test]
fn a_session_that_runs_goes_on_where_a_new_one_is_refused() {
    let dir = Dir::new();
    let disk = TestDisk::new();
    let mut config = StoreConfig::new(dir.path());
    config.disk = disk.clone();
    (config.min_free, config.reserve) = (256 * MIB, 64 * MIB);
    let (store, _) = Store::open(config).unwrap();
    let free = |bytes: u64| {
        disk.set_free(bytes);
        until("the free space to be looked at", || store.status().free_bytes == bytes);
    };
    let claim = Claim::new(1);
    let mut first = store.begin(dir.resumable(&claim, 1, 0)).unwrap();
    first.append(HEADER).unwrap();
    dir.wait(&first, |p| p.commit == HEADER.len() as u64);

    free(256 * MIB - 1);
    assert_eq!(store.begin(dir.stock()).unwrap_err().status, 503);
    assert_eq!(store.begin(dir.resumable(&Claim::new(2), 1, 0)).unwrap_err().status, 503);
    assert_eq!(store.begin(dir.resumable(&Claim::new(2), 9, 0)).unwrap_err().status, 503);
    // The one that is here comes back, and one comes from another recorder.
    let mut second = store.begin(dir.resumable(&claim, 2, HEADER.len() as u64)).unwrap();
    second.append(AGAIN).unwrap();
    second.append(LINE).unwrap();
    let end = (HEADER.len() + LINE.len()) as u64;
    dir.wait(&second, |p| p.commit == end);
    let mut moved = store.begin(dir.resumable(&Claim::new(3), 2, 500)).unwrap();
    moved.append(AGAIN).unwrap();
    moved.append(LINE).unwrap();
    moved.end(How::Clean);
    dir.wait(&moved, |p| matches!(p.state, State::Sealed(_)));

    // What its client holds would not fit: refused before it is accepted, and the older connection goes on.
    free(64 * MIB + WINDOW - 1);
    let refusal = store.begin(dir.resumable(&claim, 3, end)).unwrap_err();
    assert_eq!((refusal.status, refusal.text.starts_with("disk full")), (503, true));
    assert_eq!(store.begin(dir.resumable(&Claim::new(4), 2, 500)).unwrap_err().status, 503);
    assert_eq!(second.progress().state, State::Open);
    second.append(LINE).unwrap();
    let end = end + LINE.len() as u64;
    dir.wait(&second, |p| p.commit == end);
    drop(second);
    // Nor did it lose its place: with room again it goes on from there.
    assert_eq!(store.begin(dir.resumable(&claim, 4, end)).unwrap_err().status, 503);
    free(64 * MIB + WINDOW);
    let mut last = store.begin(dir.resumable(&claim, 5, end)).unwrap();
    assert_eq!(last.start_commit(), end);
    last.append(AGAIN).unwrap();
    last.append(LINE).unwrap();
    last.end(How::Clean);
    dir.wait(&last, |p| p.state == State::Sealed(end + LINE.len() as u64));
    let whole = [HEADER, LINE, LINE, LINE].concat();
    let casts = fs::read_dir(dir.path().join("127.0.0.1")).unwrap();
    let paths = casts.map(|e| e.unwrap().path()).filter(|p| p.extension().unwrap() == "cast");
    assert_eq!(paths.filter(|p| fs::read(p).unwrap() == whole).count(), 1);
}
