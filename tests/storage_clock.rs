//! The wall clock is set while things are recorded: nothing is lost, confused or called by a name twice.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod storage_support;

use std::fs::{self, File};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use castkeep::recorder::storage::{
    Disk, Ended, How, RealDisk, State, Store, StoreConfig, Times, Upload, read,
};
use storage_support::{Claim, Dir};

const HEADER: &[u8] = b"{\"version\":2,\"width\":80,\"height\":24}\n";
const AGAIN: &[u8] = b"{\"version\":2,\"width\":80,\"height\":24,\"castkeepContinues\":{}}\n";
const SECOND_US: u64 = 1_000_000;
const HOUR_US: u64 = 3_600 * SECOND_US;
/// 2026-11-23T05:00:00Z
const NOW_US: u64 = 1_795_410_000 * SECOND_US;

/// The real disk with clocks that only move when a test says so.
#[derive(Debug)]
struct Clocks {
    /// `u64::MAX` for a clock before 1970.
    wall_us: AtomicU64,
    steady_us: AtomicU64,
}

impl Clocks {
    fn new(wall_us: u64) -> Arc<Self> {
        Arc::new(Self { wall_us: wall_us.into(), steady_us: (90 * SECOND_US).into() })
    }

    /// Somebody sets the wall clock.
    fn set(&self, wall_us: u64) {
        self.wall_us.store(wall_us, Ordering::SeqCst);
    }

    fn before_1970(&self) {
        self.set(u64::MAX);
    }

    /// Time goes by.
    fn pass(&self, us: u64) {
        self.steady_us.fetch_add(us, Ordering::SeqCst);
        if self.wall_us.load(Ordering::SeqCst) != u64::MAX {
            self.wall_us.fetch_add(us, Ordering::SeqCst);
        }
    }

    fn store(self: &Arc<Self>, dir: &Dir, change: impl FnOnce(&mut StoreConfig)) -> Arc<Store> {
        let mut config = StoreConfig::new(dir.path());
        config.disk = Arc::clone(self) as _;
        change(&mut config);
        Store::open(config).unwrap().0
    }
}

impl Disk for Clocks {
    fn times(&self) -> Times {
        let wall = Some(self.wall_us.load(Ordering::SeqCst)).filter(|us| *us != u64::MAX);
        Times::from_clocks(wall.map(Duration::from_micros), self.steady_us.load(Ordering::SeqCst))
    }

    fn write_at(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        RealDisk.write_at(file, bytes, at)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        RealDisk.sync(file)
    }

    fn sync_fs(&self, dir: &File) -> io::Result<()> {
        RealDisk.sync_fs(dir)
    }

    fn sync_dir(&self, dir: &File) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }

    fn free_bytes(&self, _dir: &File) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}

fn line(n: u32) -> Vec<u8> {
    format!("[{n}.000000,\"o\",\"line {n}\\r\\n\"]\n").into_bytes()
}

fn seal(dir: &Dir, upload: &mut Upload) {
    upload.end(How::Clean);
    dir.wait(upload, |p| matches!(p.state, State::Sealed(_)));
}

fn joined(recording: &read::Recording) -> Vec<u8> {
    let mut out = Vec::new();
    assert!(read::join(&recording.parts, &mut out).unwrap().complete);
    out
}

#[test]
fn a_sidecar_says_how_far_the_clock_was_set() {
    let year = 365 * 24 * HOUR_US;
    let hour_back = -i64::try_from(HOUR_US).unwrap();
    for (name, to, step) in [
        ("not at all", None, 0),
        ("an hour back", Some(NOW_US - HOUR_US), hour_back),
        ("a year on", Some(NOW_US + year), i64::try_from(year).unwrap()),
        ("before 1970", Some(u64::MAX), 90_000_000 - i64::try_from(NOW_US).unwrap()),
    ] {
        let dir = Dir::new();
        let clocks = Clocks::new(NOW_US);
        let store = clocks.store(&dir, |_| {});
        let mut upload = store.begin(dir.stock()).unwrap();
        upload.append(HEADER).unwrap();
        if let Some(to) = to {
            clocks.set(to);
        }
        clocks.pass(10 * SECOND_US);
        upload.append(&line(1)).unwrap();
        seal(&dir, &mut upload);
        let (cast, sidecar) = dir.only_part("127.0.0.1");
        assert_eq!(cast.file_name().unwrap(), "20261123T050000.000000Z.cast", "{name}");
        assert_eq!(sidecar.started_us, NOW_US, "{name}");
        assert_eq!(sidecar.ended_us, clocks.times().wall_us, "{name}");
        assert_eq!(sidecar.clock_step_us, Some(step), "{name}");
        let recordings = read::group(read::parts(dir.path()).unwrap());
        assert_eq!(recordings[0].lasted_us(), Some(10 * SECOND_US), "{name}");
        assert_eq!(joined(&recordings[0]), [HEADER, &line(1)].concat(), "{name}");
    }
}

#[test]
fn names_stay_apart_when_the_same_time_comes_again() {
    let dir = Dir::new();
    let clocks = Clocks::new(NOW_US);
    let store = clocks.store(&dir, |_| {});
    let mut uploads = Vec::new();
    // The same microsecond twice at once, again after the clock went back, and before 1970 with a clock that stands.
    for round in 0..3 {
        clocks.set(NOW_US);
        for n in 0..2 {
            let mut upload = store.begin(dir.stock()).unwrap();
            upload.append(HEADER).unwrap();
            upload.append(&line(round * 2 + n)).unwrap();
            uploads.push(upload);
        }
        clocks.before_1970();
        for n in 0..2 {
            let mut upload = store.begin(dir.stock()).unwrap();
            upload.append(HEADER).unwrap();
            upload.append(&line(100 + round * 2 + n)).unwrap();
            uploads.push(upload);
            clocks.pass(SECOND_US);
        }
    }
    // One half is closed by this run, the other by the next.
    let rest = uploads.split_off(6);
    for upload in &mut uploads {
        seal(&dir, upload);
    }
    for upload in rest {
        std::mem::forget(upload);
    }
    store.shutdown();
    drop(store);
    clocks.set(NOW_US);
    let store = clocks.store(&dir, |_| {});
    let mut last = store.begin(dir.stock()).unwrap();
    last.append(HEADER).unwrap();
    last.append(&line(200)).unwrap();
    seal(&dir, &mut last);
    assert_eq!(dir.sidecars("127.0.0.1", 13).len(), 13);
    let recordings = read::group(read::parts(dir.path()).unwrap());
    assert_eq!(recordings.len(), 13);
    let mut bodies = std::collections::BTreeSet::new();
    for recording in &recordings {
        let part = &recording.parts[0];
        assert!(matches!(part.kept, read::Kept::Closed(_)), "{part:?}");
        bodies.insert(fs::read(&part.path).unwrap());
    }
    assert_eq!(bodies.len(), 13);
    // A clock before 1970 gives no heap of one name: those of one run are in their order.
    let early: Vec<_> = recordings.iter().filter(|r| r.started_us() < NOW_US).collect();
    let first = early[0].parts[0].path.file_name().unwrap().to_str().unwrap();
    assert_eq!((early.len(), first), (6, "19700101T000130.000000Z.cast"));
}

#[test]
fn parts_are_put_in_order_by_offset_and_attempt_not_by_time() {
    let (a, b) = (Dir::new(), Dir::new());
    let clocks = Clocks::new(NOW_US);
    let first = clocks.store(&a, |c| c.resume_window = Duration::ZERO);
    let second = clocks.store(&b, |_| {});
    let claim = Claim::new(1);
    let mut stream = [HEADER, &line(1)].concat();
    let mut upload = first.begin(a.resumable(&claim, 1, 0)).unwrap();
    upload.append(&stream).unwrap();
    a.wait(&upload, |p| p.commit == stream.len() as u64);
    upload.end(How::Truncated);
    assert_eq!(a.wait_sidecar("127.0.0.1").how, Ended::Truncated);
    // The next recorder's clock is an hour late, and goes to a day before that in the middle.
    clocks.set(NOW_US - HOUR_US);
    let at = stream.len() as u64;
    let mut upload = second.begin(b.resumable(&claim, 2, at)).unwrap();
    upload.append(AGAIN).unwrap();
    clocks.set(NOW_US - 25 * HOUR_US);
    upload.append(&line(2)).unwrap();
    stream.extend_from_slice(&line(2));
    let at = stream.len() as u64;
    b.wait(&upload, |p| p.commit == at);
    drop(upload);
    clocks.set(NOW_US - 26 * HOUR_US);
    // And a third part that brings nothing but the end.
    let mut upload = first.begin(a.resumable(&claim, 3, at)).unwrap();
    upload.append(AGAIN).unwrap();
    seal(&a, &mut upload);
    let mut parts = read::parts(a.path()).unwrap();
    parts.extend(read::parts(b.path()).unwrap());
    let recordings = read::group(parts);
    assert_eq!(recordings.len(), 1);
    assert_eq!(joined(&recordings[0]), stream);
    assert_eq!(recordings[0].last().unwrap().kept, read::Kept::Closed(Ended::Sealed));
}

#[test]
fn a_clock_that_is_set_ends_no_window_and_lifts_no_quota() {
    let dir = Dir::new();
    let clocks = Clocks::new(NOW_US);
    let store = clocks.store(&dir, |c| {
        c.resume_window = Duration::from_secs(600);
        c.quotas.part_bytes = Some(1_000);
        c.quotas.node_opens = Some(1_000);
    });
    let (claim, greedy) = (Claim::new(1), Claim::new(2));
    let mut upload = store.begin(dir.resumable(&claim, 1, 0)).unwrap();
    upload.append(HEADER).unwrap();
    let mut over = store.begin(dir.resumable(&greedy, 1, 0)).unwrap();
    assert!(over.append(&[b'x'; 1_001]).is_err());
    drop((upload, over));
    let day = 24 * HOUR_US;
    for (attempt, to) in (2..).zip([NOW_US + 365 * day, NOW_US - day, u64::MAX, NOW_US]) {
        clocks.set(to);
        // One that lasts as long as the group takes to look for what is over.
        let mut other = store.begin(dir.stock()).unwrap();
        other.append(HEADER).unwrap();
        seal(&dir, &mut other);
        let mut upload = store.begin(dir.resumable(&claim, attempt, 0)).unwrap();
        upload.append(HEADER).unwrap();
        upload.append(&[b'x'; 100]).unwrap_or_else(|_| panic!("{:?}", upload.progress()));
        assert_eq!(store.begin(dir.resumable(&greedy, attempt, 0)).unwrap_err().status, 429);
        // The next attempt brings the same bytes and is compared with these.
        drop(upload);
    }
    let mut upload = store.begin(dir.resumable(&claim, 9, 0)).unwrap();
    upload.append(HEADER).unwrap();
    upload.append(&[b'x'; 100]).unwrap();
    seal(&dir, &mut upload);
    let sidecars = dir.sidecars("127.0.0.1", 6);
    let mine = sidecars.iter().find(|s| s.connections == 6).unwrap();
    assert_eq!((mine.end, mine.how), (HEADER.len() as u64 + 100, Ended::Sealed));
}

#[test]
fn recovery_does_not_look_at_the_clock() {
    for to in [NOW_US - HOUR_US, NOW_US + 365 * 24 * HOUR_US, u64::MAX, NOW_US] {
        let dir = Dir::new();
        let clocks = Clocks::new(NOW_US);
        let claim = Claim::new(1);
        {
            let store = clocks.store(&dir, |_| {});
            let mut upload = store.begin(dir.resumable(&claim, 1, 0)).unwrap();
            upload.append(HEADER).unwrap();
            dir.wait(&upload, |p| p.commit == HEADER.len() as u64);
            std::mem::forget(upload);
            store.shutdown();
        }
        clocks.set(to);
        let store = clocks.store(&dir, |_| {});
        let mut upload = store.begin(dir.resumable(&claim, 2, 0)).unwrap();
        assert_eq!(upload.start_commit(), HEADER.len() as u64);
        upload.append(HEADER).unwrap();
        upload.append(&line(1)).unwrap();
        seal(&dir, &mut upload);
        let sidecar = dir.wait_sidecar("127.0.0.1");
        assert_eq!((sidecar.started_us, sidecar.clock_step_us), (NOW_US, None));
        assert_eq!(sidecar.ended_us, clocks.times().wall_us);
        let recordings = read::group(read::parts(dir.path()).unwrap());
        assert_eq!(joined(&recordings[0]), [HEADER, &line(1)].concat());
    }
}
