//! The client against recorders in this process.
#![allow(missing_docs, clippy::disallowed_methods, clippy::disallowed_types)]

mod client_support;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use castkeep::client::{
    Client, ClientConfig, Decision, ExitStatus, Level, LogSink, Metadata, Outcome, RecorderAddr,
    Release, Session, Start, State, Stream,
};
use castkeep::error::Error;
use castkeep::upload::server::Protocol;
use client_support::{Manner, Part, Recorder, join, tell, wait_until};

const LONG: Duration = Duration::from_secs(30);

fn addrs(recorders: &[&Recorder]) -> Vec<RecorderAddr> {
    recorders.iter().map(|r| RecorderAddr::tcp(r.addr)).collect()
}

fn nobody() -> SocketAddr {
    // Bound and dropped: nothing listens there.
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn client() -> Client {
    Client::new(ClientConfig::default()).expect("a client")
}

fn metadata() -> Metadata {
    Metadata { size: (80, 24), local_user: "tester".to_owned(), ..Metadata::default() }
}

fn closed(recorders: Vec<RecorderAddr>) -> Decision {
    Decision::closed(recorders, "rejected\n", "terminated\n")
}

fn started(client: &Client, decision: Decision) -> Session {
    let session = client.open(metadata(), decision).expect("open");
    assert_eq!(session.wait_start(LONG), Start::Recorded);
    session
}

/// Numbered lines from `from`, and the text that they make.
fn lines(session: &Session, from: usize, count: usize) -> String {
    let mut all = String::new();
    for n in from..from + count {
        let line = format!("line {n:08}\r\n");
        session.output(Stream::Stdout, line.as_bytes()).expect("output");
        all += &line;
    }
    all
}

fn all_parts(recorders: &[&Recorder]) -> Vec<Part> {
    recorders.iter().flat_map(|r| r.parts()).collect()
}

#[test]
fn everything_that_happens_is_recorded() {
    let recorder = Recorder::start(Manner::Good);
    let client = client();
    let mut decision = closed(addrs(&[&recorder]));
    decision.record_input = true;
    let session = started(&client, decision);
    session.output(Stream::Stdout, b"hello\r\n").unwrap();
    session.output(Stream::Stderr, b"oops\n").unwrap();
    session.input(b"ls\r");
    session.resize(100, 30);
    session.marker("here").unwrap();
    session.output(Stream::Stdout, b"bye\r\n").unwrap();
    session.exit(ExitStatus::Code(3));
    assert_eq!(session.close(LONG), Outcome::Complete);
    assert_eq!(session.state(), State::SessionComplete);

    let parts = recorder.parts();
    assert_eq!(parts.len(), 1);
    assert_eq!(parts[0].ended, Some(true));
    let told = tell(&join(&parts));
    assert!(told.header.contains("\"localUser\":\"tester\""), "{}", told.header);
    assert!(told.header.contains(session.recording()), "{}", told.header);
    assert_eq!(told.output, "hello\r\nbye\r\n");
    assert_eq!(told.stderr, "oops\n");
    assert_eq!(told.input, "ls\r");
    assert_eq!(told.sizes, ["100x30"]);
    assert_eq!(told.markers, ["here"]);
    assert_eq!(told.exit.as_deref(), Some("3"));
}

#[test]
fn each_protocol_is_spoken() {
    for (manner, http2, upgrade, wanted) in [
        (Manner::Good, true, true, Protocol::V2Commit),
        (Manner::Good, false, true, Protocol::Upgrade),
        (Manner::Stock, true, true, Protocol::V2),
        (Manner::Stock, false, false, Protocol::V1),
    ] {
        let recorder = Recorder::start(manner);
        let mut config = ClientConfig::default();
        config.protocols.http2 = http2;
        config.protocols.upgrade = upgrade;
        let client = Client::new(config).unwrap();
        let session = started(&client, closed(addrs(&[&recorder])));
        let text = lines(&session, 0, 20_000);
        session.exit(ExitStatus::Code(0));
        assert_eq!(session.close(LONG), Outcome::Complete, "{wanted:?}");
        let parts = recorder.parts();
        assert_eq!(parts.len(), 1, "{wanted:?}");
        assert_eq!(parts[0].protocol, wanted);
        assert_eq!(tell(&join(&parts)).output, text, "{wanted:?}");
    }
}

#[test]
fn closed_and_no_recorder_is_refused_with_the_message() {
    let refusing = Recorder::start(Manner::Refuses);
    let mut addrs = addrs(&[&refusing]);
    addrs.push(RecorderAddr::tcp(nobody()));
    let client = client();
    let session = client.open(metadata(), closed(addrs)).unwrap();
    let refused = Start::Refused { message: "rejected\n".to_owned(), exit_status: 254 };
    assert_eq!(session.wait_start(LONG), refused);
    assert_eq!(session.output(Stream::Stdout, b"x"), Err(Error::Closed));
    assert!(refusing.parts().is_empty());
}

#[test]
fn open_and_no_recorder_starts_within_the_stall_limit_and_records_the_gap() {
    // A recorder that accepts connections and answers nothing holds the start up, were it waited for.
    let recorder = Recorder::start(Manner::Good);
    recorder.freeze(true);
    let client = client();
    let begun = Instant::now();
    let session = client.open(metadata(), Decision::open(addrs(&[&recorder]))).unwrap();
    assert_eq!(session.wait_start(LONG), Start::Unrecorded);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    // More than the ring holds.
    let block = vec![b'x'; 64 * 1024];
    for _ in 0..16 {
        let before = Instant::now();
        session.output(Stream::Stdout, &block).unwrap();
        assert!(before.elapsed() < Duration::from_millis(2_500), "{:?}", before.elapsed());
    }
    recorder.freeze(false);
    wait_until("a recorder", || session.stats().recorder.is_some());
    // Until the marker is written, output is counted: there is room for any of it.
    wait_until("the end of the gap", || session.stats().gaps > 0);
    session.output(Stream::Stdout, b"recorded again\r\n").unwrap();
    session.exit(ExitStatus::Code(0));
    assert_eq!(session.close(LONG), Outcome::Complete);
    let told = tell(&join(&recorder.parts()));
    assert!(told.output.ends_with("recorded again\r\n"));
    let gap = told.markers.iter().find(|m| m.starts_with("castkeep:gap ")).expect("a gap marker");
    let bytes = castkeep::cast::label::parse_gap(gap).expect("a gap").0;
    let recorded = told.output.len() as u64 - "recorded again\r\n".len() as u64;
    assert_eq!(recorded + bytes, 16 * 64 * 1024);
}

#[test]
fn the_next_recorder_goes_on_where_the_first_was_lost() {
    for how in ["kill", "freeze", "drain", "cut"] {
        let (a, b) = (Recorder::start(Manner::Good), Recorder::start(Manner::Good));
        if how == "cut" {
            a.cut_after(300_001);
        }
        let client = client();
        let session = started(&client, closed(addrs(&[&a, &b])));
        let mut text = lines(&session, 0, 20_000);
        match how {
            "kill" => a.kill(),
            "freeze" => a.freeze(true),
            "drain" => a.drain(),
            _ => {}
        }
        text += &lines(&session, 20_000, 20_000);
        session.exit(ExitStatus::Code(0));
        assert_eq!(session.close(LONG), Outcome::Complete, "{how}");
        a.freeze(false);
        let told = tell(&join(&all_parts(&[&a, &b])));
        assert!(told.output == text, "{how}: {} of {}", told.output.len(), text.len());
        assert_eq!(told.exit.as_deref(), Some("0"), "{how}");
        assert!(!b.parts().is_empty(), "{how}");
        assert!(b.parts()[0].body.starts_with(b"{\"version\":2"), "{how}: a part is a cast");
    }
}

#[test]
fn a_stock_recorder_continues_what_a_castkeep_recorder_began() {
    let (a, b) = (Recorder::start(Manner::Good), Recorder::start(Manner::Stock));
    let client = client();
    let session = started(&client, closed(addrs(&[&a, &b])));
    let mut text = lines(&session, 0, 10_000);
    a.kill();
    text += &lines(&session, 10_000, 10_000);
    session.exit(ExitStatus::Code(0));
    assert_eq!(session.close(LONG), Outcome::Complete);
    let mut parts = all_parts(&[&a, &b]);
    // A stock recorder is told the offset by the header line alone.
    for part in parts.iter_mut().filter(|p| p.recording.is_none()) {
        let line = part.body.split(|b| *b == b'\n').next().unwrap();
        let header = castkeep::cast::Header::parse(line).unwrap();
        part.offset = header.continues.map_or(0, |c| c.offset);
    }
    assert!(tell(&join(&parts)).output == text);
}

#[test]
fn the_same_recorder_is_resumed_after_a_restart() {
    let a = Recorder::start(Manner::Good);
    let client = client();
    let session = started(&client, closed(addrs(&[&a])));
    let mut text = lines(&session, 0, 5_000);
    let (addr, before) = (a.addr, a);
    before.kill();
    let again = Recorder::start_at(addr, Manner::Good);
    text += &lines(&session, 5_000, 5_000);
    session.exit(ExitStatus::Code(0));
    assert_eq!(session.close(LONG), Outcome::Complete);
    assert!(tell(&join(&all_parts(&[&before, &again]))).output == text);
}

#[test]
fn closed_and_all_lost_is_terminated_after_the_grace() {
    let a = Recorder::start(Manner::Good);
    let client = client();
    let mut decision = closed(addrs(&[&a]));
    decision.grace = Some(Duration::from_millis(700));
    let session = started(&client, decision);
    let _ = lines(&session, 0, 100);
    a.kill();
    let begun = Instant::now();
    let ended = loop {
        if let Err(e) = session.output(Stream::Stdout, b"more and more\r\n") {
            break e;
        }
        assert!(begun.elapsed() < LONG);
    };
    assert_eq!(ended, Error::Closed);
    wait_until("the message", || session.is_terminated());
    assert_eq!(session.terminated().as_deref(), Some("terminated\n"));
    assert!(begun.elapsed() >= Duration::from_millis(600), "{:?}", begun.elapsed());
    session.exit(ExitStatus::Signal("HUP"));
    assert!(
        matches!(session.close(Duration::from_millis(300)), Outcome::Incomplete { bytes } if bytes > 0)
    );
}

#[test]
fn open_and_all_lost_goes_on() {
    let a = Recorder::start(Manner::Good);
    let client = client();
    let mut decision = Decision::open(addrs(&[&a]));
    decision.grace = Some(Duration::from_millis(200));
    decision.stall_limit = Some(Duration::from_millis(200));
    let session = started(&client, decision);
    let _ = lines(&session, 0, 100);
    a.kill();
    let block = vec![b'y'; 64 * 1024];
    for _ in 0..16 {
        let before = Instant::now();
        session.output(Stream::Stdout, &block).expect("open means open");
        assert!(before.elapsed() < Duration::from_secs(2));
    }
    assert!(session.terminated().is_none());
    assert!(session.stats().unrecorded > 0);
}

#[test]
fn with_release_commit_nothing_is_released_that_is_not_committed() {
    let (good, lazy) = (Recorder::start(Manner::Good), Recorder::start(Manner::NeverCommits));
    let client = client();
    for (recorder, commits) in [(&good, true), (&lazy, false)] {
        let mut decision = closed(addrs(&[recorder]));
        decision.release = Release::Commit;
        let session = started(&client, decision);
        session.output(Stream::Stdout, b"hello").unwrap();
        session.output(Stream::Stderr, b"error").unwrap();
        let wait = if commits { LONG } else { Duration::from_millis(300) };
        let released = session.wait_released(Stream::Stderr, 0, wait);
        assert_eq!(released, if commits { 5 } else { 0 });
        assert_eq!(session.released(Stream::Stdout), if commits { 5 } else { 0 });
    }
}

#[test]
fn callers_are_answered_in_bounded_time_when_the_client_goes() {
    let recorder = Recorder::start(Manner::NeverCommits);
    let client = client();
    let session = Arc::new(started(&client, closed(addrs(&[&recorder]))));
    let writer = Arc::clone(&session);
    let thread = std::thread::spawn(move || {
        let block = vec![b'z'; 64 * 1024];
        loop {
            if let Err(e) = writer.output(Stream::Stdout, &block) {
                return e;
            }
        }
    });
    wait_until("a full ring", || session.room() < 64 * 1024 && session.stats().stdout > 100_000);
    drop(client);
    assert_eq!(thread.join().unwrap(), Error::Closed);
    assert!(matches!(session.close(LONG), Outcome::Incomplete { .. }));
}

#[test]
fn sessions_past_the_limit_are_refused_and_room_comes_back() {
    let mut config = ClientConfig::default();
    config.max_sessions = 1;
    let client = Client::new(config).unwrap();
    let first = client.open(metadata(), Decision::open(Vec::new())).unwrap();
    assert_eq!(client.open(metadata(), Decision::open(Vec::new())).err(), Some(Error::Full));
    assert_eq!(first.close(LONG), Outcome::Complete);
    wait_until("room", || client.open(metadata(), Decision::open(Vec::new())).is_ok());
}

#[test]
fn a_recorder_behind_a_unix_socket() {
    use std::os::unix::net::UnixListener;
    let recorder = Recorder::start(Manner::Good);
    let dir = client_support::disk::Dir::new();
    let path = dir.0.join("recorder");
    let listener = UnixListener::bind(&path).unwrap();
    let to = recorder.addr;
    std::thread::spawn(move || {
        for near in listener.incoming().flatten() {
            let far = std::net::TcpStream::connect(to).unwrap();
            let (mut a, mut b) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut a, &mut b);
                let _ = b.shutdown(std::net::Shutdown::Write);
            });
            let (mut a, mut b) = (far, near);
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut a, &mut b);
                let _ = b.shutdown(std::net::Shutdown::Write);
            });
        }
    });
    let client = client();
    let nowhere = RecorderAddr::unix(dir.0.join("nowhere"));
    let session = started(&client, closed(vec![nowhere, RecorderAddr::unix(&path)]));
    let text = lines(&session, 0, 5_000);
    session.exit(ExitStatus::Code(0));
    assert_eq!(session.close(LONG), Outcome::Complete);
    assert!(tell(&join(&recorder.parts())).output == text);
}

#[test]
fn a_panic_in_the_worker_fails_its_sessions_and_nothing_else() {
    let recorder = Recorder::start(Manner::Good);
    let (broken, sound) = (client(), client());
    let mut decision = closed(addrs(&[&recorder]));
    decision.observer = Some(Arc::new(|t| assert_ne!(t.to, State::Streaming, "on purpose")));
    let session = broken.open(metadata(), decision).unwrap();
    wait_until("the panic", || session.output(Stream::Stdout, b"x") == Err(Error::Bug));
    assert!(matches!(session.close(LONG), Outcome::Incomplete { .. }));
    assert_eq!(broken.open(metadata(), closed(Vec::new())).err(), Some(Error::Bug));
    drop(broken);
    let other = started(&sound, closed(addrs(&[&recorder])));
    other.output(Stream::Stdout, b"fine").unwrap();
    other.exit(ExitStatus::Code(0));
    assert_eq!(other.close(LONG), Outcome::Complete);
}

/// Keeps what it is told.
#[derive(Default)]
struct Keep(Mutex<Vec<(Level, String)>>);

impl LogSink for Keep {
    fn log(&self, level: Level, message: std::fmt::Arguments<'_>) {
        self.0.lock().unwrap().push((level, message.to_string()));
    }
}

#[test]
fn the_log_and_the_observer_tell_what_happened_and_hold_no_terminal_bytes() {
    let recorder = Recorder::start(Manner::Good);
    let kept = Arc::new(Keep::default());
    let mut config = ClientConfig::default();
    config.log = kept.clone();
    let client = Client::new(config).unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mut decision = closed(vec![RecorderAddr::tcp(nobody()), RecorderAddr::tcp(recorder.addr)]);
    let states = Arc::clone(&seen);
    decision.observer = Some(Arc::new(move |t| states.lock().unwrap().push((t.from, t.to))));
    let session = started(&client, decision);
    session.output(Stream::Stdout, b"hunter2").unwrap();
    session.exit(ExitStatus::Code(0));
    assert_eq!(session.close(LONG), Outcome::Complete);
    drop(client);
    let seen = seen.lock().unwrap();
    assert_eq!(seen.first().map(|s| s.0), Some(State::Connecting));
    assert_eq!(seen.last().map(|s| s.1), Some(State::SessionComplete));
    assert!(seen.windows(2).all(|w| w[0].1 == w[1].0), "{seen:?}");
    let log = kept.0.lock().unwrap();
    let warned = log.iter().find(|(level, _)| *level == Level::Warn).expect("a failed attempt");
    assert!(warned.1.contains("error starting recording on"), "{}", warned.1);
    assert!(log.iter().any(|(_, text)| text.contains(&recorder.addr.to_string())));
    assert!(!log.iter().any(|(_, text)| text.contains("hunter2")), "{log:?}");
}
