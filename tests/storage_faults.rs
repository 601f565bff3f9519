//! Storage where it is most easily wrong: races at the beginning, what a crash leaves half made, lies of a disk, figures.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod storage_support;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use castkeep::recorder::storage::{Disk, Ended, How, RealDisk, State, Store, StoreConfig, read};
use storage_support::{Claim, Dir, TestDisk, until};

const HEADER: &[u8] = b"{\"version\":2,\"width\":80,\"height\":24}\n";
const AGAIN: &[u8] = b"{\"version\":2,\"width\":80,\"height\":24,\"castkeepContinues\":{}}\n";

fn line(n: u32) -> Vec<u8> {
    format!("[{n}.000000,\"o\",\"line {n}\\r\\n\"]\n").into_bytes()
}

#[test]
fn a_dead_part_is_counted_out_once() {
    let dir = Dir::new();
    let disk = TestDisk::new();
    let mut config = StoreConfig::new(dir.path());
    config.disk = disk.clone();
    let (store, _) = Store::open(config).unwrap();
    let mut dies = store.begin(dir.resumable(&Claim::new(1), 1, 0)).unwrap();
    let mut lives = store.begin(dir.resumable(&Claim::new(2), 1, 0)).unwrap();
    for upload in [&mut dies, &mut lives] {
        upload.append(HEADER).unwrap();
        dir.wait(upload, |p| p.commit == HEADER.len() as u64);
    }
    disk.fail_syncs(true);
    dies.append(&line(1)).unwrap();
    dir.wait(&dies, |p| matches!(p.state, State::Failed(_)));
    disk.fail_syncs(false);
    for n in 1..4 {
        // It comes into the queue again each time.
        assert!(dies.append(&line(n)).is_err());
        let before = lives.progress().commit;
        lives.append(&line(n)).unwrap();
        dir.wait(&lives, |p| p.commit > before);
    }
    assert_eq!(store.status().open_parts, 1);
    assert_eq!(store.status().failed, 1);
}

#[test]
fn of_two_posts_with_one_attempt_one_is_taken() {
    let dir = Dir::new();
    let store = dir.store();
    for round in 0..40 {
        let barrier = Barrier::new(2);
        let post = |secret: u8| {
            let begin = dir.resumable(&Claim::new(round).with_secret(secret), 1, 0);
            barrier.wait();
            store.begin(begin).map_err(|e| e.status)
        };
        // In every other round the second one is somebody else's.
        let other = if round % 2 == 0 { 200 } else { 201 };
        let (a, b) = std::thread::scope(|s| {
            let a = s.spawn(|| post(200));
            let b = s.spawn(|| post(other));
            (a.join().unwrap(), b.join().unwrap())
        });
        let (kept, refused) = match (a, b) {
            (Ok(kept), Err(status)) | (Err(status), Ok(kept)) => (kept, status),
            other => panic!("round {round}: {other:?}"),
        };
        assert_eq!(refused, if round % 2 == 0 { 409 } else { 403 }, "round {round}");
        assert_eq!(kept.progress().state, State::Open, "round {round}");
    }
}

#[test]
fn a_later_attempt_is_never_superseded_by_an_earlier_one() {
    let dir = Dir::new();
    let store = dir.store();
    for round in 0..40 {
        let barrier = Barrier::new(2);
        let post = |attempt: u64| {
            let begin = dir.resumable(&Claim::new(round), attempt, 0);
            barrier.wait();
            store.begin(begin)
        };
        let (first, second) = std::thread::scope(|s| {
            let first = s.spawn(|| post(1));
            let second = s.spawn(|| post(2));
            (first.join().unwrap(), second.join().unwrap())
        });
        assert_eq!(second.unwrap().progress().state, State::Open, "round {round}");
        match first {
            Ok(upload) => assert_eq!(upload.progress().state, State::Superseded, "round {round}"),
            Err(e) => assert_eq!(e.status, 409, "round {round}"),
        }
    }
}

#[test]
fn a_crash_in_the_repeated_header_line_leaves_no_byte_of_the_stream() {
    let dir = Dir::new();
    let claim = Claim::new(3);
    {
        let store = dir.store();
        let mut upload = store.begin(dir.resumable(&claim, 1, 1000)).unwrap();
        upload.append(&AGAIN[..10]).unwrap();
        std::mem::forget(upload);
        store.shutdown();
    }
    // The rest came after the last commit.
    let (cast, _) = dir.only_open("127.0.0.1");
    let rest = [&AGAIN[10..], &line(1)].concat();
    fs::OpenOptions::new().write(true).open(&cast).unwrap().write_all_at(&rest, 10).unwrap();
    let (store, recovery) = Store::open(StoreConfig::new(dir.path())).unwrap();
    assert_eq!((recovery.resumable, recovery.cut_bytes), (1, rest.len() as u64));
    let mut upload = store.begin(dir.resumable(&claim, 2, 1000)).unwrap();
    assert_eq!(upload.start_commit(), 1000);
    upload.append(AGAIN).unwrap();
    upload.append(&line(1)).unwrap();
    upload.end(How::Clean);
    let end = 1000 + line(1).len() as u64;
    dir.wait(&upload, |p| p.state == State::Sealed(end));
    let sidecars = dir.sidecars("127.0.0.1", 2);
    assert_eq!((sidecars[0].start, sidecars[0].end, sidecars[0].header_bytes), (1000, 1000, 10));
    assert_eq!((sidecars[1].start, sidecars[1].end), (1000, end));
    // The reader sees the same.
    let recordings = read::group(read::parts(dir.path()).unwrap());
    assert_eq!(recordings.len(), 1);
    assert!(!recordings[0].parts.iter().any(|p| matches!(p.kept, read::Kept::Broken(_))));
}

#[test]
fn a_part_that_got_nothing_does_not_spoil_the_recording() {
    let (a, b) = (Dir::new(), Dir::new());
    let claim = Claim::new(4);
    for close in [false, true] {
        let upload = a.store().begin(a.resumable(&claim, 1, 0));
        if close {
            let mut config = StoreConfig::new(a.path());
            config.resume_window = Duration::ZERO;
            let (_store, _) = Store::open(config).unwrap();
            a.wait_sidecar("127.0.0.1");
        }
        drop(upload);
        let whole = [HEADER, &line(1)].concat();
        if !close {
            let store = b.store();
            let mut upload = store.begin(b.resumable(&claim, 2, 0)).unwrap();
            upload.append(&whole).unwrap();
            upload.end(How::Clean);
            b.wait(&upload, |p| p.state == State::Sealed(whole.len() as u64));
        }
        let mut parts = read::parts(a.path()).unwrap();
        parts.extend(read::parts(b.path()).unwrap());
        let recordings = read::group(parts);
        let recording = recordings.iter().find(|r| r.end() > 0).unwrap();
        assert!(recording.parts.len() >= 2);
        let mut joined = Vec::new();
        let done = read::join(&recording.parts, &mut joined).unwrap();
        assert_eq!((joined, done.complete), (whole, true));
    }
}

#[test]
fn a_resume_that_is_refused_in_the_end_leaves_nothing_open_for_ever() {
    let dir = Dir::new();
    let mut config = StoreConfig::new(dir.path());
    config.quotas.node_open = Some(1);
    config.resume_window = Duration::from_millis(1);
    let (store, _) = Store::open(config).unwrap();
    let claim = Claim::new(5);
    let mut first = store.begin(dir.resumable(&claim, 1, 0)).unwrap();
    first.append(HEADER).unwrap();
    // Behind the end: a new part is wanted, and the node may not have one.
    assert_eq!(store.begin(dir.resumable(&claim, 2, 5000)).unwrap_err().status, 429);
    assert_eq!(first.progress().state, State::Superseded);
    assert_eq!(dir.wait_sidecar("127.0.0.1").how, Ended::Truncated);
    until("the part to be forgotten", || store.status().open_parts == 0);
}

#[test]
fn an_offset_out_of_this_world_is_refused() {
    let dir = Dir::new();
    let store = dir.store();
    for offset in [u64::MAX, u64::MAX - 10, (1 << 53) + 1] {
        assert_eq!(store.begin(dir.resumable(&Claim::new(6), 1, offset)).unwrap_err().status, 400);
    }
    let mut upload = store.begin(dir.resumable(&Claim::new(6), 1, 1 << 53)).unwrap();
    upload.append(AGAIN).unwrap();
    upload.append(&line(1)).unwrap();
    dir.wait(&upload, |p| p.commit == (1 << 53) + line(1).len() as u64);
}

#[test]
fn coming_back_gives_no_new_quota() {
    let dir = Dir::new();
    let mut config = StoreConfig::new(dir.path());
    config.quotas.part_bytes = Some(200);
    let (store, _) = Store::open(config).unwrap();
    let claim = Claim::new(7);
    let mut first = store.begin(dir.resumable(&claim, 1, 0)).unwrap();
    first.append(&[HEADER, &[b'x'; 100]].concat()).unwrap();
    // A part of its own, and the quota is on both.
    let mut second = store.begin(dir.resumable(&claim, 2, 5000)).unwrap();
    second.append(AGAIN).unwrap();
    assert!(second.append(&[b'y'; 100]).is_err());
    let State::Failed(text) = second.progress().state else { panic!() };
    assert!(text.starts_with("quota"), "{text}");
    assert_eq!(store.begin(dir.resumable(&claim, 3, 6000)).unwrap_err().status, 429);
    until("both parts to be closed", || store.status().open_parts == 0);
    assert_eq!(store.begin(dir.resumable(&claim, 4, 6000)).unwrap_err().status, 429);
    assert!(store.begin(dir.resumable(&Claim::new(8), 1, 0)).is_ok());
}

#[test]
fn damage_is_reported_and_not_cut_away() {
    let dir = Dir::new();
    let claim = Claim::new(9);
    {
        let store = dir.store();
        let mut upload = store.begin(dir.resumable(&claim, 1, 0)).unwrap();
        upload.append(HEADER).unwrap();
        for n in 0..3 {
            let before = upload.progress().commit;
            upload.append(&line(n)).unwrap();
            dir.wait(&upload, |p| p.commit > before);
        }
        std::mem::forget(upload);
        store.shutdown();
    }
    let (cast, _) = dir.only_open("127.0.0.1");
    fs::OpenOptions::new().write(true).open(&cast).unwrap().write_all_at(b"#", 3).unwrap();
    let damaged = fs::read(&cast).unwrap();
    let (_store, recovery) = Store::open(StoreConfig::new(dir.path())).unwrap();
    assert_eq!(recovery.bad.len(), 1);
    assert!(recovery.bad[0].contains("not what was committed"), "{:?}", recovery.bad);
    assert_eq!(fs::read(&cast).unwrap(), damaged);
}

#[test]
fn a_journal_that_names_a_place_outside_is_put_aside() {
    let outer = Dir::new();
    let dst = outer.path().join("dst");
    drop(Store::open(StoreConfig::new(&dst)).unwrap());
    let stamp = "20261123T050102.123456Z";
    let target = outer.path().join(format!("{stamp}.cast"));
    fs::write(&target, b"not ours").unwrap();
    let header = format!(
        "{{\"journal\":1,\"recording\":null,\"resumeSecretSha256\":null,\"node\":\"..\",\"file\":\"{stamp}.cast\",\
         \"peer\":{{}},\"protocol\":\"v1\",\"started\":\"2026-01-01T00:00:00Z\",\"start\":0,\"part\":1}}\n"
    );
    let mut journal = header.into_bytes();
    journal.resize(12_288, 0);
    fs::write(dst.join(format!("open/..,{stamp}.journal")), journal).unwrap();
    let (_store, recovery) = Store::open(StoreConfig::new(&dst)).unwrap();
    assert_eq!(recovery.bad.len(), 1, "{recovery:?}");
    assert_eq!(fs::read(&target).unwrap(), b"not ours");
}

#[test]
fn an_end_inside_the_header_line_seals_nothing() {
    let dir = Dir::new();
    let store = dir.store();
    let claim = Claim::new(10);
    let mut first = store.begin(dir.resumable(&claim, 1, 0)).unwrap();
    first.append(&[HEADER, &line(0)].concat()).unwrap();
    let mut second = store.begin(dir.resumable(&claim, 2, HEADER.len() as u64)).unwrap();
    second.append(&AGAIN[..5]).unwrap();
    second.end(How::Clean);
    let State::Failed(text) = second.progress().state else { panic!() };
    assert!(text.starts_with("malformed"), "{text}");
    let sidecar = dir.wait_sidecar("127.0.0.1");
    assert_eq!((sidecar.how, sidecar.end), (Ended::Error, (HEADER.len() + line(0).len()) as u64));
}

/// A disk whose failed sync leaves the bytes in the system's memory, marked clean, and not on the device: they can be read until
/// the memory is dropped.
#[derive(Debug, Default)]
struct Forgetful {
    failing: AtomicBool,
    unsynced: Mutex<Vec<(u64, u64)>>,
    /// Files and the length that is on the device.
    lost: Mutex<Vec<(u64, u64)>>,
}

impl Disk for Forgetful {
    fn write_at(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        let inode = file.metadata()?.ino();
        let mut unsynced = self.unsynced.lock().unwrap();
        if !unsynced.iter().any(|(i, _)| *i == inode) {
            unsynced.push((inode, at));
        }
        drop(unsynced);
        RealDisk.write_at(file, bytes, at)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        let inode = file.metadata()?.ino();
        let mut unsynced = self.unsynced.lock().unwrap();
        let dirty = unsynced.iter().position(|(i, _)| *i == inode).map(|i| unsynced.remove(i));
        if self.failing.load(Ordering::SeqCst) {
            self.lost.lock().unwrap().extend(dirty);
            return Err(io::Error::from_raw_os_error(5));
        }
        Ok(())
    }

    fn sync_fs(&self, _dir: &File) -> io::Result<()> {
        self.unsynced.lock().unwrap().clear();
        Ok(())
    }

    fn sync_dir(&self, dir: &File) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }

    fn drop_cache(&self, file: &File) {
        let inode = file.metadata().unwrap().ino();
        let lost = self.lost.lock().unwrap();
        let Some((_, len)) = lost.iter().find(|(i, _)| *i == inode) else { return };
        let end = file.metadata().unwrap().len();
        // The size was recorded; the content was not.
        file.write_all_at(&vec![0; (end - len) as usize], *len).unwrap();
    }

    fn free_bytes(&self, _dir: &File) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}

#[test]
fn what_a_failed_sync_left_in_memory_proves_no_commit() {
    let dir = Dir::new();
    let disk = Arc::new(Forgetful::default());
    let config = || {
        let mut config = StoreConfig::new(dir.path());
        config.disk = Arc::clone(&disk) as Arc<dyn Disk>;
        config
    };
    let claim = Claim::new(11);
    let store = Store::open(config()).unwrap().0;
    let mut upload = store.begin(dir.resumable(&claim, 1, 0)).unwrap();
    upload.append(HEADER).unwrap();
    let committed = dir.wait(&upload, |p| p.commit == HEADER.len() as u64).commit;
    disk.failing.store(true, Ordering::SeqCst);
    upload.append(&line(1)).unwrap();
    dir.wait(&upload, |p| matches!(p.state, State::Failed(_)));
    disk.failing.store(false, Ordering::SeqCst);
    drop(upload);
    drop(store);
    let (cast, _) = dir.only_open("127.0.0.1");
    // The program is started again, the machine is not.
    let (store, recovery) = Store::open(config()).unwrap();
    assert_eq!((recovery.resumable, recovery.bad.len()), (1, 0));
    let upload = store.begin(dir.resumable(&claim, 2, 0)).unwrap();
    assert_eq!(upload.start_commit(), committed);
    assert_eq!(fs::read(cast).unwrap(), HEADER);
}

/// Counts the syncs of the root's names.
#[derive(Debug)]
struct Roots {
    inode: u64,
    synced: AtomicBool,
}

impl Disk for Roots {
    fn write_at(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        RealDisk.write_at(file, bytes, at)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        RealDisk.sync(file)
    }

    fn sync_fs(&self, dir: &File) -> io::Result<()> {
        RealDisk.sync_fs(dir)
    }

    fn sync_fs_reports(&self) -> bool {
        false
    }

    fn sync_dir(&self, dir: &File) -> io::Result<()> {
        if dir.metadata()?.ino() == self.inode {
            self.synced.store(true, Ordering::SeqCst);
        }
        RealDisk.sync_dir(dir)
    }

    fn free_bytes(&self, _dir: &File) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}

#[test]
fn a_node_directory_of_a_dead_process_is_made_durable() {
    let dir = Dir::new();
    drop(dir.store());
    // Killed between making it and syncing its parent.
    fs::create_dir(dir.path().join("127.0.0.1")).unwrap();
    let inode = fs::metadata(dir.path()).unwrap().ino();
    let disk = Arc::new(Roots { inode, synced: AtomicBool::new(false) });
    let mut config = StoreConfig::new(dir.path());
    config.disk = Arc::clone(&disk) as Arc<dyn Disk>;
    let (store, _) = Store::open(config).unwrap();
    disk.synced.store(false, Ordering::SeqCst);
    let mut upload = store.begin(dir.resumable(&Claim::new(12), 1, 0)).unwrap();
    upload.append(HEADER).unwrap();
    dir.wait(&upload, |p| p.commit == HEADER.len() as u64);
    assert!(disk.synced.load(Ordering::SeqCst));
}

/// Not a test of its own: joins a directory with few open files allowed.
#[test]
fn child() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let Ok(path) = std::env::var("CASTKEEP_JOIN_DIR") else { return };
    setrlimit(Resource::Nofile, Rlimit { current: Some(32), maximum: Some(32) }).unwrap();
    let recordings = read::group(read::parts(path.as_ref()).unwrap());
    assert_eq!(recordings.len(), 1);
    let done = read::join(&recordings[0].parts, &mut io::sink()).unwrap();
    println!("joined {} of {} parts", done.bytes, done.parts);
}

#[test]
fn a_recording_may_have_more_parts_than_a_process_open_files() {
    let dir = Dir::new();
    let id = "0123456789abcdef0123456789abcdef";
    let mut end = 0;
    for n in 0..100 {
        let continues = match n {
            0 => String::new(),
            _ => {
                format!(",\"castkeepContinues\":{{\"recording\":\"{id}\",\"offset\":{end}}}")
            }
        };
        let header = format!(
            "{{\"version\":2,\"width\":80,\"height\":24,\"castkeep\":{{\"recording\":\"{id}\",\"node\":\"\",\
             \"kind\":\"shell\",\"client\":\"\"}}{continues}}}\n"
        );
        let event = format!("[{n}.0,\"o\",\"x\"]\n");
        end += event.len() + if n == 0 { header.len() } else { 0 };
        fs::write(dir.path().join(format!("{n}.cast")), header + &event).unwrap();
    }
    let out = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env("CASTKEEP_JOIN_DIR", dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(text.contains(&format!("joined {end} of 100 parts")), "{text}\n{out:?}");
}

#[test]
fn a_sidecar_that_is_none_takes_no_journal_away() {
    let sidecar_of_another = |dir: &Dir| {
        let other = Dir::new();
        let store = other.store();
        let mut upload = store.begin(dir.stock()).unwrap();
        upload.append(HEADER).unwrap();
        upload.end(How::Clean);
        other.wait(&upload, |p| matches!(p.state, State::Sealed(_)));
        fs::read(other.only_open("127.0.0.1").1.remove(0)).unwrap()
    };
    for case in ["empty", "garbage", "of another part", "a link"] {
        let dir = Dir::new();
        let claim = Claim::new(8);
        {
            let store = dir.store();
            let mut upload = store.begin(dir.resumable(&claim, 1, 0)).unwrap();
            upload.append(HEADER).unwrap();
            upload.append(&line(1)).unwrap();
            dir.wait(&upload, |p| p.commit > HEADER.len() as u64);
            std::mem::forget(upload);
            store.shutdown();
        }
        let (cast, _) = dir.only_open("127.0.0.1");
        let json = cast.with_extension("json");
        match case {
            "empty" => fs::write(&json, b"").unwrap(),
            "garbage" => fs::write(&json, b"{\"schema\":1}\n").unwrap(),
            "a link" => std::os::unix::fs::symlink("/etc/passwd", &json).unwrap(),
            _ => fs::write(&json, sidecar_of_another(&dir)).unwrap(),
        }
        let before = fs::read(&cast).unwrap();
        let (store, recovery) = Store::open(StoreConfig::new(dir.path())).unwrap();
        assert_eq!(recovery.bad.len(), 1, "{case}: {recovery:?}");
        assert!(recovery.bad[0].contains("sidecar"), "{case}: {recovery:?}");
        // What was committed is still there to be looked at, and so is what proves it.
        let open = fs::read_dir(dir.path().join("open")).unwrap();
        let names: Vec<_> = open.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        assert!(names.iter().any(|n| n.ends_with(".journal.bad")), "{case}: {names:?}");
        assert_eq!(fs::read(&cast).unwrap(), before, "{case}");
        // And the session goes on in a part of its own.
        let at = before.len() as u64;
        let mut upload = store.begin(dir.resumable(&claim, 2, at)).unwrap();
        upload.append(AGAIN).unwrap();
        upload.append(&line(2)).unwrap();
        dir.wait(&upload, |p| p.commit == at + line(2).len() as u64);
    }
}

#[test]
fn coming_back_gives_no_new_burst() {
    let dir = Dir::new();
    let mut config = StoreConfig::new(dir.path());
    config.quotas.session_rate = Some(100);
    let (store, _) = Store::open(config).unwrap();
    let claim = Claim::new(9);
    let mut upload = store.begin(dir.resumable(&claim, 1, 0)).unwrap();
    upload.append(HEADER).unwrap();
    upload.append(&[b'x'; 800]).unwrap();
    let end = HEADER.len() as u64 + 800;
    // On in the same part, and in a new one: of the burst of 1,000 bytes only so much is left.
    let mut same = store.begin(dir.resumable(&claim, 2, end)).unwrap();
    same.append(AGAIN).unwrap();
    same.append(b"y").unwrap();
    let mut new = store.begin(dir.resumable(&claim, 3, end + 500)).unwrap();
    new.append(AGAIN).unwrap();
    assert!(new.append(&[b'x'; 800]).is_err());
    let State::Failed(text) = new.progress().state else { panic!() };
    assert!(text.starts_with("quota: too many bytes a second"), "{text}");
}
