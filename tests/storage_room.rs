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

#[test]
fn what_a_node_has_stored_is_bounded_and_counted_anew() {
    let dir = Dir::new();
    // What is there before the start counts too.
    {
        let store = dir.store();
        let mut upload = store.begin(dir.stock()).unwrap();
        upload.append(&[b'x'; 400]).unwrap();
        upload.end(How::Clean);
        dir.wait(&upload, |p| matches!(p.state, State::Sealed(_)));
    }
    let mut config = StoreConfig::new(dir.path());
    config.quotas.node_bytes = Some(1_000);
    let (store, _) = Store::open(config).unwrap();
    let claim = Claim::new(1);
    let mut a = store.begin(dir.resumable(&claim, 1, 0)).unwrap();
    let mut b = store.begin(dir.stock()).unwrap();
    a.append(&[b'a'; 300]).unwrap();
    b.append(&[b'b'; 300]).unwrap();
    // Full to the byte: nobody is ended for that, but nothing more begins.
    assert_eq!(store.begin(dir.stock()).unwrap_err().status, 429);
    let mut elsewhere = dir.stock();
    elsewhere.peer.address = "127.0.0.9:4000".parse().unwrap();
    let mut elsewhere = store.begin(elsewhere).unwrap();
    elsewhere.append(&[b'e'; 900]).unwrap();
    // A resume that brings what is there is no new byte.
    a.end(How::Truncated);
    let mut a = store.begin(dir.resumable(&claim, 2, 0)).unwrap();
    a.append(&[b'a'; 300]).unwrap();
    assert_eq!(a.progress().state, State::Open);
    assert!(b.append(b"b").is_err());
    let State::Failed(text) = b.progress().state else { panic!() };
    assert!(text.starts_with("quota: this node"), "{text}");
    // What was taken before it was refused is kept, and the others go on.
    until("the end of b", || store.status().sealed == 1);
    a.end(How::Clean);
    dir.wait(&a, |p| p.state == State::Sealed(300));
    let casts = || {
        let entries = fs::read_dir(dir.path().join("127.0.0.1")).unwrap();
        let paths = entries.map(|e| e.unwrap().path());
        paths.filter(|p| p.extension().unwrap() == "cast").collect::<Vec<_>>()
    };
    let mut sizes: Vec<u64> = casts().iter().map(|p| p.metadata().unwrap().len()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [300, 300, 400]);
    let over = store.status().over_quota[castkeep::recorder::storage::Quota::NodeBytes as usize];
    assert_eq!(over, 2);
    // Removed by hand: noticed without a restart.
    for cast in casts() {
        fs::remove_file(&cast).unwrap();
        let _ = fs::remove_file(cast.with_extension("json"));
    }
    until("room for the node", || store.begin(dir.stock()).is_ok());
}
