//! The driver without threads against recorders in this process: the loop of a host that waits for one descriptor.
#![allow(missing_docs, clippy::disallowed_methods, clippy::disallowed_types)]

mod client_support;

use std::time::{Duration, Instant};

use castkeep::client::{
    ClientConfig, Decision, ExitStatus, Metadata, Notice, Outcome, Polled, RecorderAddr, Release,
    SessionId, State, Stream,
};
use castkeep::error::Error;
use client_support::{Manner, Recorder, join, tell};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

const LONG: Duration = Duration::from_secs(30);

fn addrs(recorders: &[&Recorder]) -> Vec<RecorderAddr> {
    recorders.iter().map(|r| RecorderAddr::tcp(r.addr)).collect()
}

fn closed(recorders: Vec<RecorderAddr>) -> Decision {
    Decision::closed(recorders, "rejected\n", "terminated\n")
}

fn metadata() -> Metadata {
    Metadata { size: (80, 24), local_user: "tester".to_owned(), ..Metadata::default() }
}

fn readable(driver: &Polled, wait: Duration) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(driver.fd(), PollFlags::IN)];
    let wait = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() };
    poll(&mut fds, Some(&wait)).unwrap() > 0
}

/// The host's loop, until a notice is what is wanted; the others on the way.
fn until(
    driver: &mut Polled,
    wanted: impl Fn(SessionId, Notice) -> bool,
) -> Vec<(SessionId, Notice)> {
    let guard = Instant::now() + LONG;
    let mut seen = Vec::new();
    loop {
        while let Some((id, notice)) = driver.next_event() {
            seen.push((id, notice));
            if wanted(id, notice) {
                return seen;
            }
        }
        assert!(Instant::now() < guard, "waited in vain; seen: {seen:?}");
        if readable(driver, Duration::from_millis(200)) {
            driver.process().unwrap();
        }
    }
}

fn started(driver: &mut Polled, decision: Decision) -> SessionId {
    let id = driver.open(metadata(), &decision).unwrap();
    until(driver, |of, notice| of == id && notice == Notice::Start { recorded: true });
    id
}

/// Gives everything, waiting for room as a host does; at most `room` at a time.
fn give(driver: &mut Polled, id: SessionId, mut data: &[u8]) {
    while !data.is_empty() {
        let n = driver.room(id).min(data.len());
        if n == 0 {
            until(driver, |of, notice| of == id && notice == Notice::Room);
            continue;
        }
        driver.output(id, Stream::Stdout, &data[..n]).unwrap();
        data = &data[n..];
    }
}

fn lines(from: usize, count: usize) -> String {
    (from..from + count).fold(String::new(), |all, n| all + &format!("line {n:08}\r\n"))
}

#[test]
fn everything_that_happens_is_recorded() {
    let recorder = Recorder::start(Manner::Good);
    let mut driver = Polled::new(ClientConfig::default()).unwrap();
    let mut decision = closed(addrs(&[&recorder]));
    decision.record_input = true;
    let id = driver.open(metadata(), &decision).unwrap();
    assert_eq!(driver.room(id), 0, "nothing is taken before a recorder has it");
    assert_eq!(driver.output(id, Stream::Stdout, b"early"), Err(Error::Full));
    // Before the start: it goes into the header.
    driver.resize(id, 132, 50).unwrap();
    until(&mut driver, |_, notice| notice == Notice::Start { recorded: true });
    driver.output(id, Stream::Stdout, b"hello\r\n").unwrap();
    driver.output(id, Stream::Stderr, b"oops\n").unwrap();
    driver.input(id, b"ls\r").unwrap();
    driver.resize(id, 100, 30).unwrap();
    driver.marker(id, "here").unwrap();
    driver.exit(id, ExitStatus::Code(3)).unwrap();
    driver.finish(id, LONG).unwrap();
    until(&mut driver, |of, notice| of == id && notice == Notice::Finished);
    assert_eq!(driver.state(id), State::SessionComplete);
    driver.free(id);
    assert_eq!(driver.state(id), State::Incomplete, "what was freed is not there");

    let stream = join(&recorder.parts());
    let told = tell(&stream);
    let header = String::from_utf8_lossy(&stream);
    assert!(header.contains("\"width\":132,\"height\":50"), "{header}");
    assert_eq!(told.output, "hello\r\n");
    assert_eq!(told.stderr, "oops\n");
    assert_eq!(told.input, "ls\r");
    assert_eq!(told.sizes, ["100x30"]);
    assert_eq!(
        (told.markers.as_slice(), told.exit.as_deref()),
        (["here".to_owned()].as_slice(), Some("3"))
    );
}

#[test]
fn room_holds_to_the_byte() {
    let recorder = Recorder::start(Manner::Good);
    let mut driver = Polled::new(ClientConfig::default()).unwrap();
    let id = started(&mut driver, closed(addrs(&[&recorder])));
    // Without a turn of the loop nothing leaves the ring.
    let mut given = Vec::new();
    loop {
        let room = driver.room(id);
        if room == 0 {
            break;
        }
        // The worst that can be: every byte has to be written as an escape or kept aside.
        let n = room.min(10_000);
        let piece: Vec<u8> = (0..n).map(|i| [0x1b, 0xff, 0x00, b'"'][i % 4]).collect();
        if n == room {
            let more = vec![b'x'; n + 1];
            assert_eq!(driver.output(id, Stream::Stdout, &more), Err(Error::Full));
        }
        driver.output(id, Stream::Stdout, &piece).unwrap();
        given.extend(piece);
    }
    assert!(given.len() > 10_000);
    assert_eq!(driver.stats(id).stdout, given.len() as u64);
    assert_eq!(driver.close(id, LONG), Ok(Outcome::Complete));
}

#[test]
fn a_recorder_that_is_lost_costs_no_byte_and_changes_no_descriptor() {
    use std::os::fd::AsRawFd as _;
    let (a, b) = (Recorder::start(Manner::Good), Recorder::start(Manner::Good));
    let mut driver = Polled::new(ClientConfig::default()).unwrap();
    let id = started(&mut driver, closed(addrs(&[&a, &b])));
    let before = driver.fd().as_raw_fd();
    let all = lines(0, 60_000);
    let (first, second) = all.as_bytes().split_at(all.len() / 2);
    give(&mut driver, id, first);
    a.kill();
    give(&mut driver, id, second);
    driver.exit(id, ExitStatus::Code(0)).unwrap();
    driver.finish(id, LONG).unwrap();
    until(&mut driver, |of, notice| of == id && notice == Notice::Finished);
    assert_eq!(driver.fd().as_raw_fd(), before);
    assert_eq!(driver.stats(id).losses, 1);
    let parts: Vec<_> = [&a, &b].iter().flat_map(|r| r.parts()).collect();
    assert!(tell(&join(&parts)).output == all);
}

#[test]
fn sessions_of_one_driver_do_not_wait_for_each_other() {
    let (good, frozen) = (Recorder::start(Manner::Good), Recorder::start(Manner::Good));
    let mut driver = Polled::new(ClientConfig::default()).unwrap();
    let slow = started(&mut driver, closed(addrs(&[&frozen])));
    let quick = started(&mut driver, closed(addrs(&[&good])));
    frozen.freeze(true);
    while driver.room(slow) > 0 {
        let n = driver.room(slow).min(8192);
        driver.output(slow, Stream::Stdout, &vec![b'x'; n]).unwrap();
        driver.process().unwrap();
    }
    let all = lines(0, 30_000);
    give(&mut driver, quick, all.as_bytes());
    driver.finish(quick, LONG).unwrap();
    until(&mut driver, |of, notice| of == quick && notice == Notice::Finished);
    assert!(tell(&join(&good.parts())).output == all);
    driver.free(slow);
    frozen.freeze(false);
}

#[test]
fn an_idle_session_wakes_nobody() {
    let recorder = Recorder::start(Manner::Good);
    let mut driver = Polled::new(ClientConfig::default()).unwrap();
    let id = started(&mut driver, closed(addrs(&[&recorder])));
    let mut turns = 0;
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        if readable(&driver, until.saturating_duration_since(Instant::now())) {
            driver.process().unwrap();
            turns += 1;
        }
    }
    assert!(turns < 40, "{turns} turns in which nothing was to do");
    assert_eq!(driver.close(id, LONG), Ok(Outcome::Complete));
}

#[test]
fn policies_are_told() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut driver = Polled::new(ClientConfig::default()).unwrap();
    let id = driver.open(metadata(), &closed(vec![RecorderAddr::tcp(nobody)])).unwrap();
    until(&mut driver, |of, notice| of == id && notice == Notice::Refused);
    assert_eq!(driver.message(id), "rejected\n");
    driver.free(id);

    let id = driver.open(metadata(), &Decision::open(Vec::new())).unwrap();
    until(&mut driver, |of, notice| of == id && notice == Notice::Start { recorded: false });
    assert_eq!(driver.room(id), usize::MAX);
    driver.output(id, Stream::Stdout, b"unrecorded").unwrap();
    assert_eq!(driver.close(id, LONG), Ok(Outcome::Complete));

    let recorder = Recorder::start(Manner::Good);
    let mut decision = closed(addrs(&[&recorder]));
    decision.grace = Some(Duration::from_millis(300));
    let id = started(&mut driver, decision);
    driver.output(id, Stream::Stdout, b"seen").unwrap();
    recorder.kill();
    until(&mut driver, |of, notice| of == id && matches!(notice, Notice::Terminated { .. }));
    assert_eq!(driver.message(id), "terminated\n");
    assert_eq!(driver.output(id, Stream::Stdout, b"more"), Err(Error::Closed));
    assert_eq!(driver.room(id), 0);
    driver.exit(id, ExitStatus::Code(254)).unwrap();
    driver.finish(id, Duration::from_millis(200)).unwrap();
    until(&mut driver, |of, notice| of == id && matches!(notice, Notice::Incomplete { .. }));
}

#[test]
fn with_release_commit_output_waits_for_the_commit() {
    let recorder = Recorder::start(Manner::Good);
    let mut driver = Polled::new(ClientConfig::default()).unwrap();
    let mut decision = closed(addrs(&[&recorder]));
    decision.release = Release::Commit;
    let id = started(&mut driver, decision);
    driver.output(id, Stream::Stdout, b"first").unwrap();
    assert_eq!(driver.released(id, Stream::Stdout), 0);
    until(&mut driver, |of, notice| of == id && notice == Notice::Released);
    assert_eq!(driver.released(id, Stream::Stdout), 5);
    assert_eq!(driver.close(id, LONG), Ok(Outcome::Complete));
}

#[test]
fn the_number_of_sessions_is_bounded_and_old_names_are_known_as_such() {
    let mut config = ClientConfig::default();
    config.max_sessions = 1;
    let mut driver = Polled::new(config).unwrap();
    let first = driver.open(metadata(), &Decision::open(Vec::new())).unwrap();
    assert_eq!(driver.open(metadata(), &Decision::open(Vec::new())), Err(Error::Full));
    driver.free(first);
    let second = driver.open(metadata(), &Decision::open(Vec::new())).unwrap();
    assert_ne!(first, second);
    assert!(driver.output(first, Stream::Stdout, b"x").is_err());
    driver.free(first);
    driver.output(second, Stream::Stdout, b"x").unwrap();
}

/// The SHA-256 that the gap of a stream names, and its number of bytes.
fn gap(markers: &[String], stream: &str) -> (u64, String) {
    let end = format!(" stream={stream}");
    let gaps: Vec<_> =
        markers.iter().filter(|m| m.starts_with("castkeep:gap ") && m.ends_with(&end)).collect();
    assert_eq!(gaps.len(), 1, "{markers:?}");
    let field = |name: &str| {
        gaps[0].split(' ').find_map(|word| word.strip_prefix(name)).expect("a field").to_owned()
    };
    (field("bytes=").parse().unwrap(), field("sha256="))
}

fn hash(bytes: &[u8]) -> String {
    use sha2::{Digest as _, Sha256};
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn of_a_transfer_the_beginning_of_each_stream_is_recorded() {
    for release in [Release::Ring, Release::Commit] {
        let recorder = Recorder::start(Manner::Good);
        let mut driver = Polled::new(ClientConfig::default()).unwrap();
        let mut decision = closed(addrs(&[&recorder]));
        decision.release = release;
        let metadata = Metadata { volume_bytes: Some(1000), ..metadata() };
        let id = driver.open(metadata, &decision).unwrap();
        until(&mut driver, |of, notice| of == id && notice == Notice::Start { recorded: true });
        let all = lines(0, 100_000);
        give(&mut driver, id, all.as_bytes());
        driver.output(id, Stream::Stderr, b"short").unwrap_or_else(|_| {
            until(&mut driver, |of, notice| of == id && notice == Notice::Room);
            driver.output(id, Stream::Stderr, b"short").unwrap();
        });
        driver.exit(id, ExitStatus::Code(0)).unwrap();
        driver.finish(id, LONG).unwrap();
        until(&mut driver, |of, notice| of == id && notice == Notice::Finished);
        assert_eq!(driver.released(id, Stream::Stdout), all.len() as u64);
        assert_eq!(driver.stats(id).unrecorded, all.len() as u64 - 1000);
        let told = tell(&join(&recorder.parts()));
        assert_eq!(told.output, all[..1000]);
        assert_eq!(told.stderr, "short");
        assert!(told.markers.contains(&"castkeep:capped stream=stdout after=1000".to_owned()));
        let rest = &all.as_bytes()[1000..];
        assert_eq!(gap(&told.markers, "stdout"), (rest.len() as u64, hash(rest)));
        assert_eq!(told.exit.as_deref(), Some("0"));
    }
}

#[test]
fn of_a_transfer_nothing_is_shown_before_what_came_before_it_is_stored() {
    let recorder = Recorder::start(Manner::NeverCommits);
    let mut driver = Polled::new(ClientConfig::default()).unwrap();
    let mut decision = closed(addrs(&[&recorder]));
    decision.release = Release::Commit;
    let id = driver.open(Metadata { volume_bytes: Some(10), ..metadata() }, &decision).unwrap();
    until(&mut driver, |of, notice| of == id && notice == Notice::Start { recorded: true });
    driver.output(id, Stream::Stdout, &[b'x'; 2000]).unwrap();
    assert_eq!((driver.released(id, Stream::Stdout), driver.room(id)), (0, 0));
    assert_eq!(driver.output(id, Stream::Stdout, b"y"), Err(Error::Full));
}

#[test]
fn policy_refuses_a_session_that_could_be_recorded() {
    let recorder = Recorder::start(Manner::Good);
    let mut driver = Polled::new(ClientConfig::default()).unwrap();
    let refused = Metadata { refusal: Some("not here\n".to_owned()), ..metadata() };
    // Whatever the policy is for recorders that fail.
    for decision in [
        closed(addrs(&[&recorder])),
        Decision::open(addrs(&[&recorder])),
        Decision::open(Vec::new()),
    ] {
        let id = driver.open(refused.clone(), &decision).unwrap();
        until(&mut driver, |of, notice| of == id && notice == Notice::Refused);
        assert_eq!(driver.message(id), "not here\n");
        assert!(driver.output(id, Stream::Stdout, b"x").is_err());
        driver.free(id);
    }
    assert!(recorder.parts().is_empty());
}
