//! Out of file descriptors: what was begun is not given up for it, neither while the recorder runs nor when it starts.
//!
//! One test: the limit is the process's.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod storage_support;

use std::fs::File;

use castkeep::recorder::storage::{How, State, Store, StoreConfig};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use storage_support::{Claim, Dir, until};

const HEADER: &[u8] = b"{\"version\":2,\"width\":80,\"height\":24}\n";

/// Takes every descriptor that the process may still open but `left`.
fn exhaust(left: usize) -> Vec<File> {
    let mut all: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    all.truncate(all.len() - left);
    all
}

#[test]
fn recordings_outlive_a_shortage_of_descriptors() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(200), maximum }).unwrap();

    let dir = Dir::new();
    let store = dir.store();
    let mut ends = store.begin(dir.stock()).unwrap();
    let mut many: Vec<_> =
        (1..=4).map(|n| store.begin(dir.resumable(&Claim::new(n), 1, 0)).unwrap()).collect();
    ends.append(HEADER).unwrap();
    dir.wait(&ends, |p| p.commit == HEADER.len() as u64);
    // One begins, and its names are not durable yet when nothing more can be opened.
    let mut fresh = store.begin(dir.stock()).unwrap();
    let taken = exhaust(0);
    assert_eq!(store.begin(dir.stock()).unwrap_err().status, 503);
    fresh.append(HEADER).unwrap();
    ends.end(How::Clean);
    let seen = store.status().flushes;
    many[0].append(HEADER).unwrap();
    dir.wait(&many[0], |p| p.commit == HEADER.len() as u64);
    until("flushes behind it", || store.status().flushes > seen);
    assert_eq!(ends.progress().state, State::Open, "it waits");
    assert_eq!(fresh.progress().state, State::Open, "it waits");
    drop(taken);
    dir.wait(&ends, |p| p.state == State::Sealed(HEADER.len() as u64));
    fresh.end(How::Clean);
    dir.wait(&fresh, |p| p.state == State::Sealed(HEADER.len() as u64));
    assert_eq!(store.status().failed, 0);

    // At the start: more was open than can be opened now. That is told, and nothing is put aside.
    for upload in &mut many {
        upload.append(&[b'x'; 10]).unwrap();
    }
    many.into_iter().for_each(std::mem::forget);
    store.shutdown();
    drop(store);
    let mut told = 0;
    for left in 0..16 {
        let taken = exhaust(left);
        let opened = Store::open(StoreConfig::new(dir.path()));
        drop(taken);
        match opened {
            Err(e) => told += usize::from(e.to_string().contains("raise the limit on open files")),
            Ok((_, recovery)) => assert_eq!(recovery.resumable, 4, "{left}: {recovery:?}"),
        }
    }
    assert!(told > 0);
    let (_store, recovery) = Store::open(StoreConfig::new(dir.path())).unwrap();
    assert_eq!((recovery.resumable, recovery.bad), (4, Vec::new()));
}
