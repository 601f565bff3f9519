//! Storage through its own interface: what is committed is there, what is refused is refused, whatever happens between.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod storage_support;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};

use castkeep::recorder::storage::{
    About, By, Ended, How, Peer, Sidecar, State, Store, StoreConfig, node_name,
};
use storage_support::{Claim, Dir, TestDisk, until};

const HEADER: &[u8] = b"{\"version\":2,\"width\":80,\"height\":24}\n";

fn line(n: u32) -> Vec<u8> {
    format!("[{n}.000000,\"o\",\"line {n}\\r\\n\"]\n").into_bytes()
}

fn body(lines: std::ops::Range<u32>) -> Vec<u8> {
    lines.flat_map(line).collect()
}

#[test]
fn a_stock_upload_becomes_a_file_and_a_sidecar() {
    let dir = Dir::new();
    let store = dir.store();
    let mut upload = store.begin(dir.stock()).unwrap();
    upload.append(HEADER).unwrap();
    upload.append(&body(0..100)).unwrap();
    upload.end(How::Clean);
    let progress = dir.wait(&upload, |p| matches!(p.state, State::Sealed(_)));
    let whole: Vec<u8> = [HEADER, &body(0..100)].concat();
    assert_eq!(progress.state, State::Sealed(whole.len() as u64));
    assert_eq!(progress.received, whole.len() as u64);
    let (cast, sidecar) = dir.only_part("127.0.0.1");
    assert_eq!(fs::read(&cast).unwrap(), whole);
    assert_eq!(sidecar.how, Ended::Sealed);
    assert_eq!(sidecar.bytes, whole.len() as u64);
    assert_eq!(sidecar.end, whole.len() as u64);
    assert_eq!(sidecar.sha256, storage_support::sha256(&whole));
    assert_eq!(sidecar.recording, None);
    for (length, crc) in &sidecar.commits {
        assert_eq!(crc32fast::hash(&whole[..*length as usize]), *crc);
    }
    assert_eq!(fs::metadata(&cast).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(cast.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(dir.open_files(), Vec::<String>::new());
}

#[test]
fn commits_come_while_the_session_runs_and_survive_a_kill() {
    let dir = Dir::new();
    let claim = Claim::new(1);
    let stream: Vec<u8> = [HEADER, &body(0..50)].concat();
    {
        let store = dir.store();
        let mut upload = store.begin(dir.resumable(&claim, 1, 0)).unwrap();
        assert_eq!(upload.start_commit(), 0);
        upload.append(&stream).unwrap();
        dir.wait(&upload, |p| p.commit == stream.len() as u64);
        // As a kill leaves it: bytes behind the last commit, no sidecar.
        dir.append_behind(&upload, b"[9.0,\"o\",\"never comm");
        std::mem::forget(upload);
        store.shutdown();
    }
    let (store, recovery) = Store::open(StoreConfig::new(dir.path())).unwrap();
    assert_eq!(recovery.resumable, 1);
    assert_eq!(recovery.cut_bytes, 20);
    // A wrong secret, a seen attempt, another identity.
    let refused = |b| store.begin(b).unwrap_err().status;
    assert_eq!(refused(dir.resumable(&Claim::new(1).with_secret(9), 2, 0)), 403);
    assert_eq!(refused(dir.resumable(&claim, 1, 0)), 409);
    let mut other = dir.resumable(&claim, 2, 0);
    other.peer = Peer { identity: Some("other".into()), verified: true, ..other.peer };
    assert_eq!(refused(other), 403);
    let named = |by| {
        let mut begin = dir.resumable(&Claim::new(7), 1, 0);
        let about = About { by: Some(by), ..About::default() };
        begin.peer = Peer { identity: Some("nA1".into()), verified: true, about, ..begin.peer };
        begin
    };
    // A node's id and a name in a certificate are two things, even when they read alike.
    let _node = store.begin(named(By::WhoIs)).unwrap();
    assert_eq!(refused(named(By::Certificate)), 403);
    // A resume from a line start inside the part: the overlap is compared, the rest appended.
    let n = (HEADER.len() + line(0).len()) as u64;
    let mut upload = store.begin(dir.resumable(&claim, 3, n)).unwrap();
    assert_eq!(upload.start_commit(), stream.len() as u64);
    upload.append(b"{\"version\":2,\"castkeepContinues\":{}}\n").unwrap();
    let rest: Vec<u8> = body(1..80);
    for piece in rest.chunks(7) {
        upload.append(piece).unwrap();
    }
    upload.end(How::Clean);
    let whole: Vec<u8> = [HEADER, &body(0..80)].concat();
    dir.wait(&upload, |p| p.state == State::Sealed(whole.len() as u64));
    let (cast, sidecar) = dir.only_part("127.0.0.1");
    assert_eq!(fs::read(cast).unwrap(), whole);
    assert_eq!(sidecar.sha256, storage_support::sha256(&whole));
    assert_eq!((sidecar.attempt, sidecar.connections, sidecar.start), (3, 1, 0));
}

#[test]
fn a_differing_overlap_is_a_conflict_and_changes_nothing() {
    let dir = Dir::new();
    let store = dir.store();
    let claim = Claim::new(2);
    let stream: Vec<u8> = [HEADER, &body(0..10)].concat();
    let mut first = store.begin(dir.resumable(&claim, 1, 0)).unwrap();
    first.append(&stream).unwrap();
    dir.wait(&first, |p| p.commit == stream.len() as u64);
    let mut second = store.begin(dir.resumable(&claim, 2, HEADER.len() as u64)).unwrap();
    assert_eq!(first.progress().state, State::Superseded);
    assert!(first.append(b"late").is_err());
    second.append(b"{}\n").unwrap();
    assert!(second.append(b"[0.000000,\"o\",\"LINE").is_err());
    assert_eq!(second.progress().state, State::Failed("conflict".into()));
    let sidecar = dir.wait_sidecar("127.0.0.1");
    assert_eq!(sidecar.how, Ended::Error);
    assert_eq!(sidecar.conflict, Some(HEADER.len() as u64 + 15));
    let (cast, _) = dir.only_part("127.0.0.1");
    assert_eq!(fs::read(cast).unwrap(), stream);
}

#[test]
fn a_continuation_from_elsewhere_is_a_part_of_its_own() {
    let dir = Dir::new();
    let store = dir.store();
    let claim = Claim::new(3);
    let mut upload = store.begin(dir.resumable(&claim, 4, 1_000_000)).unwrap();
    assert_eq!(upload.start_commit(), 1_000_000);
    let header = b"{\"version\":2,\"castkeepContinues\":{\"offset\":1000000}}\n";
    upload.append(&header[..10]).unwrap();
    dir.wait(&upload, |p| p.received == 10);
    assert_eq!(upload.progress().commit, 1_000_000);
    upload.append(&header[10..]).unwrap();
    upload.append(&line(1)).unwrap();
    let end = 1_000_000 + line(1).len() as u64;
    dir.wait(&upload, |p| p.commit == end);
    // A gap: the next part begins behind the end.
    let mut next = store.begin(dir.resumable(&claim, 5, end + 10)).unwrap();
    next.append(header).unwrap();
    next.append(&line(2)).unwrap();
    next.end(How::Moved);
    dir.wait(&next, |p| matches!(p.state, State::Sealed(_)));
    let parts = dir.sidecars("127.0.0.1", 2);
    assert_eq!((parts[0].part, parts[0].start, parts[0].end), (1, 1_000_000, end));
    assert_eq!(parts[0].header_bytes, header.len() as u64);
    assert_eq!(parts[0].how, Ended::Truncated);
    assert_eq!((parts[1].part, parts[1].start, parts[1].how), (2, end + 10, Ended::Moved));
}

#[test]
fn a_vanished_client_can_come_back_until_the_window_is_over() {
    let dir = Dir::new();
    let mut config = StoreConfig::new(dir.path());
    config.resume_window = std::time::Duration::from_millis(1);
    let (store, _) = Store::open(config).unwrap();
    let claim = Claim::new(4);
    let mut upload = store.begin(dir.resumable(&claim, 1, 0)).unwrap();
    upload.append(HEADER).unwrap();
    drop(upload);
    assert_eq!(dir.wait_sidecar("127.0.0.1").how, Ended::Truncated);
    until("the part to be forgotten", || store.status().open_parts == 0);
    // It begins a new part then.
    let upload = store.begin(dir.resumable(&claim, 2, 0)).unwrap();
    assert_eq!(upload.start_commit(), 0);
}

#[test]
fn a_failed_sync_ends_the_part_for_good() {
    let dir = Dir::new();
    let disk = TestDisk::new();
    let mut config = StoreConfig::new(dir.path());
    config.disk = disk.clone();
    let (store, _) = Store::open(config).unwrap();
    let claim = Claim::new(5);
    let mut upload = store.begin(dir.resumable(&claim, 1, 0)).unwrap();
    upload.append(HEADER).unwrap();
    let before = dir.wait(&upload, |p| p.commit == HEADER.len() as u64).commit;
    disk.fail_syncs(true);
    upload.append(&line(1)).unwrap();
    let failed = dir.wait(&upload, |p| matches!(p.state, State::Failed(_)));
    assert_eq!(failed.state, State::Failed("io".into()));
    assert_eq!(failed.commit, before);
    assert!(upload.append(&line(2)).is_err());
    disk.fail_syncs(false);
    let syncs = disk.syncs();
    drop(upload);
    // Others go on, and nothing is synced on the failed descriptor again.
    let mut other = store.begin(dir.resumable(&Claim::new(6), 1, 0)).unwrap();
    other.append(HEADER).unwrap();
    dir.wait(&other, |p| p.commit == HEADER.len() as u64);
    assert!(disk.syncs() > syncs);
    drop(other);
    store.shutdown();
    // What was committed is there after a restart.
    let (store, recovery) = Store::open(StoreConfig::new(dir.path())).unwrap();
    assert_eq!(recovery.resumable, 2);
    let upload = store.begin(dir.resumable(&claim, 2, 0)).unwrap();
    assert!(upload.start_commit() >= before);
}

#[test]
fn a_full_disk_refuses_new_recordings_and_ends_open_ones_well() {
    let dir = Dir::new();
    let disk = TestDisk::new();
    let mut config = StoreConfig::new(dir.path());
    config.disk = disk.clone();
    let (store, _) = Store::open(config).unwrap();
    let mut upload = store.begin(dir.stock()).unwrap();
    upload.append(HEADER).unwrap();
    disk.fill_after(5);
    assert!(upload.append(&line(1)).is_err());
    assert_eq!(upload.progress().state, State::Failed("disk full".into()));
    let sidecar = dir.wait_sidecar("127.0.0.1");
    assert_eq!((sidecar.how, sidecar.reason.as_deref()), (Ended::Error, Some("disk full")));
    let (cast, _) = dir.only_part("127.0.0.1");
    assert_eq!(fs::read(cast).unwrap(), HEADER, "the torn write is taken back");
    disk.set_free(1024);
    until("the free space to be looked at", || store.available().is_err());
    let refusal = store.begin(dir.stock()).unwrap_err();
    assert_eq!(refusal.status, 503);
    assert!(refusal.text.starts_with("disk full"), "{}", refusal.text);
    disk.set_free(u64::MAX);
    until("the free space to be looked at", || store.available().is_ok());
    assert!(store.begin(dir.stock()).is_ok());
}

#[test]
fn quotas_end_one_session_and_leave_the_others() {
    let dir = Dir::new();
    let mut config = StoreConfig::new(dir.path());
    config.quotas.part_bytes = Some(100);
    config.quotas.node_open = Some(2);
    let (store, _) = Store::open(config).unwrap();
    let mut a = store.begin(dir.stock()).unwrap();
    let mut b = store.begin(dir.stock()).unwrap();
    assert_eq!(store.begin(dir.stock()).unwrap_err().status, 429);
    assert!(a.append(&[b'x'; 101]).is_err());
    let State::Failed(text) = a.progress().state else { panic!() };
    assert!(text.starts_with("quota"), "{text}");
    b.append(HEADER).unwrap();
    b.end(How::Clean);
    dir.wait(&b, |p| matches!(p.state, State::Sealed(_)));
}

#[test]
fn one_recorder_a_directory_and_one_layout() {
    let dir = Dir::new();
    let store = dir.store();
    let error = Store::open(StoreConfig::new(dir.path())).unwrap_err().to_string();
    assert!(error.contains("another recorder is running"), "{error}");
    drop(store);
    fs::write(dir.path().join("castkeep.json"), "{\"layout\":2}").unwrap();
    let error = Store::open(StoreConfig::new(dir.path())).unwrap_err().to_string();
    assert!(error.contains("layout 2"), "{error}");
}

#[test]
fn links_and_foreign_things_in_the_directory_are_not_followed() {
    let dir = Dir::new();
    let outside = Dir::new();
    drop(dir.store());
    symlink(outside.path(), dir.path().join("127.0.0.1")).unwrap();
    let store = dir.store();
    let refusal = store.begin(dir.stock()).unwrap_err();
    assert_eq!(refusal.status, 503);
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    fs::remove_file(dir.path().join("127.0.0.1")).unwrap();
    fs::create_dir(dir.path().join("127.0.0.1")).unwrap();
    assert!(store.begin(dir.stock()).is_ok());
    drop(store);
    // A journal that cannot be read is put aside, one that names another part too; the store opens all the same.
    fs::write(dir.path().join("open/x,y.journal"), b"garbage").unwrap();
    let mut forged = vec![0; 12_288];
    let header = br#"{"journal":1,"recording":null,"resumeSecretSha256":null,"node":"..","file":"../../etc/x.cast","peer":{},"protocol":"v1","started":"2026-01-01T00:00:00Z","start":0,"part":1}"#;
    forged[..header.len()].copy_from_slice(header);
    forged[header.len()] = b'\n';
    fs::write(dir.path().join("open/a,b.journal"), forged).unwrap();
    symlink("/etc/passwd", dir.path().join("open/l,l.journal")).unwrap();
    let (_store, recovery) = Store::open(StoreConfig::new(dir.path())).unwrap();
    assert_eq!(recovery.bad.len(), 3, "{:?}", recovery.bad);
    assert!(dir.path().join("open/x,y.journal.bad").exists());
}

#[test]
fn power_lost_at_any_moment_keeps_every_commit() {
    // Whatever was written and not synced may be gone, wholly or in part, in any order.
    for seed in 0..60 {
        let dir = Dir::new();
        let disk = TestDisk::remembering();
        let mut config = StoreConfig::new(dir.path());
        config.disk = disk.clone();
        let (store, _) = Store::open(config).unwrap();
        let claim = Claim::new(7);
        let mut upload = store.begin(dir.resumable(&claim, 1, 0)).unwrap();
        let mut stream = HEADER.to_vec();
        upload.append(HEADER).unwrap();
        let mut committed = 0;
        for n in 0..(seed % 13) * 3 {
            let line = line(n);
            upload.append(&line).unwrap();
            stream.extend_from_slice(&line);
            if n % 3 == seed % 3 {
                committed = dir.wait(&upload, |p| p.commit == stream.len() as u64).commit;
            }
        }
        let lost = disk.cut_power(u64::from(seed));
        std::mem::forget(upload);
        store.shutdown();
        drop(store);
        lost.apply();
        let (store, recovery) = Store::open(StoreConfig::new(dir.path())).unwrap();
        if committed == 0 && !recovery.bad.is_empty() {
            // The part was not durable yet, so nothing was promised of it.
            continue;
        }
        assert_eq!(recovery.bad, Vec::<String>::new(), "seed {seed}");
        let upload = store.begin(dir.resumable(&claim, 2, 0)).unwrap();
        assert!(upload.start_commit() >= committed, "seed {seed}");
        let (cast, _) = dir.only_open("127.0.0.1");
        let kept = fs::read(cast).unwrap();
        assert_eq!(kept, stream[..kept.len()], "seed {seed}");
        assert!(kept.len() as u64 >= committed, "seed {seed}");
    }
}

#[test]
fn events_are_lines_with_an_id() {
    let dir = Dir::new();
    let store = dir.store();
    let peer = dir.stock().peer;
    store.event(&peer, b" {\"type\":\"kubernetes-api-request\",\"id\":\"\"} ").unwrap();
    store.event(&peer, b"{\"type\":\"x\"}\n").unwrap();
    assert_eq!(store.event(&peer, b"[]").unwrap_err().status, 400);
    assert_eq!(store.event(&peer, b"{").unwrap_err().status, 400);
    drop(store);
    let file = fs::read_dir(dir.path().join("events")).unwrap().next().unwrap().unwrap().path();
    // A line torn by a crash is overwritten by the next event.
    fs::OpenOptions::new().append(true).open(&file).unwrap().write_all(b"{\"torn").unwrap();
    dir.store().event(&peer, b"{\"type\":\"y\"}").unwrap();
    let text = fs::read_to_string(&file).unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0]["destination"]["nodeID"], "127.0.0.1");
    assert_ne!(lines[0]["id"], lines[1]["id"]);
}

#[test]
fn names_of_the_same_moment_do_not_collide() {
    let dir = Dir::new();
    let store = dir.store();
    let mut uploads: Vec<_> = (0..200).map(|_| store.begin(dir.stock()).unwrap()).collect();
    for upload in &mut uploads {
        upload.append(HEADER).unwrap();
        upload.end(How::Clean);
    }
    for upload in &uploads {
        dir.wait(upload, |p| matches!(p.state, State::Sealed(_)));
    }
    assert_eq!(dir.sidecars("127.0.0.1", 200).len(), 200);
    assert_eq!(node_name(b"../.."), "=2E.=2F..");
}

#[test]
fn a_sidecar_is_never_half_written() {
    let dir = Dir::new();
    let store = dir.store();
    let mut upload = store.begin(dir.stock()).unwrap();
    upload.append(HEADER).unwrap();
    upload.end(How::Clean);
    dir.wait(&upload, |p| matches!(p.state, State::Sealed(_)));
    let (cast, _) = dir.only_part("127.0.0.1");
    let bytes = fs::read(cast.with_extension("json")).unwrap();
    assert!(bytes.ends_with(b"}\n"));
    for cut in 1..bytes.len() - 2 {
        assert!(Sidecar::parse(&bytes[..cut]).is_err(), "{cut}");
    }
    let file = fs::File::open(&cast).unwrap();
    let mut first = [0; 2];
    file.read_exact_at(&mut first, 0).unwrap();
}
