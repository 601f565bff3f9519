//! A session over h2c on loopback into `castkeep serve`, ring of 4 MiB, against a plain TCP copy of the same bytes into a file.
//! `fdatasync` on both; in turn, so that the disk's mood falls on both. The bytes that count are those of the stream, as stored.
#![allow(missing_docs, clippy::disallowed_methods, clippy::disallowed_types)]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use castkeep::client::{
    Client, ClientConfig, Decision, Metadata, Outcome, RecorderAddr, Start, Stream,
};
use castkeep::limits::RING_THROUGHPUT_BYTES;
use common::{Args, Dir, Goal, Recorder, Report, log_text, median};

fn main() {
    let args = Args::parse();
    let bytes = args.size(512 << 20, 4 << 20);
    let rounds = args.size(5, 1);
    let dir = Dir::new("upload");
    // Repeated: what a session shows is not in the cache of the program that shows it, but making it is not measured either.
    let piece = log_text(4 << 20);
    let recorder = Recorder::start(&dir.join("dst"), &[]);
    let mut config = ClientConfig::default();
    config.ring_bytes = RING_THROUGHPUT_BYTES;
    config.protocols.upgrade = false;
    let client = Client::new(config).expect("a client");

    let mut ratios = Vec::new();
    for round in 1..=rounds {
        let upload = upload(&client, &recorder, &piece, bytes);
        let part = only_part(&dir.join("dst"));
        let stored = fs::metadata(&part).expect("the part").len();
        let copy = copy(&part, &dir.join("copy"));
        let rate = |spent: Duration| stored as f64 / 1e6 / spent.as_secs_f64();
        println!(
            "round {round}: {stored} bytes: upload {upload:.2?} ({:.0} MB/s), plain copy {copy:.2?} ({:.0} MB/s)",
            rate(upload),
            rate(copy)
        );
        ratios.push(copy.as_secs_f64() / upload.as_secs_f64());
        fs::remove_file(part).expect("removing the part");
        fs::remove_file(dir.join("copy")).expect("removing the copy");
    }
    let mut report = Report::new(&args);
    report.result(
        "upload over a plain copy",
        median(&mut ratios),
        "x",
        Goal::AtLeast(0.5),
        &format!(
            "h2c on loopback, ring 4 MiB, {} MiB of output, median of {rounds} alternating rounds",
            bytes >> 20
        ),
    );
    report.finish();
}

/// From the first byte of output until the recorder says that all of it is on stable storage.
fn upload(client: &Client, recorder: &Recorder, piece: &[u8], bytes: usize) -> Duration {
    let metadata = Metadata { size: (80, 24), ..Metadata::default() };
    let decision =
        Decision::closed(vec![RecorderAddr::tcp(recorder.addr)], "no recorder", "recording failed");
    let session = client.open(metadata, decision).expect("a session");
    let start = session.wait_start(Duration::from_secs(30));
    assert!(matches!(start, Start::Recorded), "{start:?}");
    let started = Instant::now();
    let mut left = bytes;
    while left > 0 {
        // What a program that reads a pty gets at a time is at most this.
        for part in piece[..left.min(piece.len())].chunks(64 << 10) {
            session.output(Stream::Stdout, part).expect("output is taken");
        }
        left -= left.min(piece.len());
    }
    let outcome = session.close(Duration::from_secs(60));
    assert!(matches!(outcome, Outcome::Complete), "{outcome:?}");
    started.elapsed()
}

/// Sends the file over loopback to a thread that writes it into another file, until that is on stable storage.
fn copy(from: &Path, to: &Path) -> Duration {
    let bytes = fs::read(from).expect("the part");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let addr = listener.local_addr().expect("its address");
    let to = to.to_owned();
    let sink = std::thread::spawn(move || {
        let (mut link, _) = listener.accept().expect("a connection");
        let mut file = fs::File::create(to).expect("the copy");
        let mut buf = vec![0; 256 << 10];
        loop {
            let n = link.read(&mut buf).expect("bytes");
            if n == 0 {
                break;
            }
            file.write_all(&buf[..n]).expect("writing");
        }
        file.sync_data().expect("fdatasync");
        link.write_all(b"!").expect("the answer");
    });
    let mut link = TcpStream::connect(addr).expect("a connection");
    let started = Instant::now();
    for piece in bytes.chunks(256 << 10) {
        link.write_all(piece).expect("sending");
    }
    link.shutdown(std::net::Shutdown::Write).expect("the end");
    link.read_exact(&mut [0]).expect("the answer");
    let spent = started.elapsed();
    sink.join().expect("the copying thread");
    spent
}

fn only_part(dst: &Path) -> PathBuf {
    let mut parts: Vec<_> = fs::read_dir(dst)
        .expect("the recorder's directory")
        .flatten()
        .flat_map(|node| fs::read_dir(node.path()).into_iter().flatten().flatten())
        .map(|file| file.path())
        .filter(|path| path.extension().is_some_and(|e| e == "cast"))
        .collect();
    assert_eq!(parts.len(), 1, "{parts:?}");
    parts.remove(0)
}
