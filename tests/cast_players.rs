//! Casts as we write them, for other people's players: ci/players gives them to asciinema's command line and to asciinema-player.
//!
//! Without `CASTKEEP_PLAYERS_DIR` they are only built and read back.
#![allow(missing_docs, clippy::disallowed_methods, clippy::disallowed_types)]

use std::{env, fs, path::Path};

use castkeep::{
    cast::{
        CONTROL_EVENT_BYTES, Castkeep, Encoder, ExitStatus, Header, Raw, Stream, parse_event,
        worst_case_bytes,
    },
    limits::EVENT_INPUT_BYTES,
    time::Span,
};

/// A cast, the bytes that went into it, and the lines that a player shows at its end.
struct Written {
    name: &'static str,
    cast: Vec<u8>,
    bytes: Vec<u8>,
    screen: &'static [&'static str],
}

/// What happens in a session, every 20 ms.
enum Op<'a> {
    Out(&'a [u8]),
    Err(&'a [u8]),
    In(&'a [u8]),
    Size(u16, u16),
    Mark(&'a str),
    Gap,
    Exit(ExitStatus<'a>),
}

fn write(
    name: &'static str,
    header: &[u8],
    screen: &'static [&'static str],
    ops: &[Op<'_>],
) -> Written {
    let mut encoder = Encoder::new();
    let mut cast = header.to_vec();
    let mut bytes = Vec::new();
    let mut out = vec![0; worst_case_bytes(EVENT_INPUT_BYTES).max(CONTROL_EVENT_BYTES)];
    for (n, op) in ops.iter().enumerate() {
        let t = Span(20_001 * n as u64);
        let written = match op {
            Op::Out(data) => {
                bytes.extend_from_slice(data);
                encoder.output(t, Stream::Stdout, data, &mut out).written
            }
            Op::Err(data) => {
                bytes.extend_from_slice(data);
                encoder.output(t, Stream::Stderr, data, &mut out).written
            }
            Op::In(data) => encoder.input(t, data, &mut out).written,
            Op::Size(cols, rows) => encoder.resize(t, *cols, *rows, &mut out),
            Op::Mark(label) => encoder.marker(t, label, &mut out),
            Op::Gap => encoder.gap(t, 4711, 1500, &mut out),
            Op::Exit(status) => encoder.exit(t, *status, &mut out),
        };
        cast.extend_from_slice(&out[..written]);
    }
    Written { name, cast, bytes, screen }
}

fn header() -> Header {
    Header {
        width: 80,
        height: 24,
        timestamp: 1_700_000_000,
        src_node: "laptop.example.ts.net".into(),
        src_node_id: "nABC".into(),
        src_node_user_id: Some(30_585_448_562_688_899),
        src_node_user: Some("user@example.com".into()),
        env: Some(vec![("TERM".into(), "xterm-256color".into())]),
        ssh_user: "root".into(),
        local_user: "root".into(),
        connection_id: "ssh-conn-20231114T221320-0123456789".into(),
        castkeep: Some(Castkeep {
            recording: "0123456789abcdef0123456789abcdef".into(),
            node: "web1".into(),
            kind: "shell".into(),
            client: "castkeep/0.1.0".into(),
            source_by: None,
        }),
        ..Header::default()
    }
}

fn all() -> Vec<Written> {
    let shell = header().encode().unwrap();
    let part = header().encode_continuation(4711).unwrap();
    let pipe =
        Header { width: 0, height: 0, env: None, command: Some("tar \"c\"".into()), ..header() };
    vec![
        write(
            "shell",
            &shell,
            &["$ ls", "dir  file \"q\\\" é € 😀", "$ done"],
            &[
                Op::Out(b"\x1b[1;32m$\x1b[0m "),
                Op::In(b"ls\r"),
                Op::Out(b"ls\r\n"),
                Op::Mark("a \"marker\" \u{1f600}"),
                Op::Out("\x1b[34mdir\x1b[0m  file \"q\\\" é ".as_bytes()),
                // A character in two reads.
                Op::Out(b"\xe2\x82"),
                Op::Out(b"\xac \xf0\x9f\x98\x80\r\n"),
                Op::Size(100, 30),
                Op::Gap,
                Op::Out(b"$ gone\x08\x08\x08\x08done"),
                Op::Exit(ExitStatus::Code(0)),
            ],
        ),
        write(
            "binary",
            &shell,
            &["before", "\u{fffd}\u{fffd}A\u{fffd}B", "after", "\u{fffd}"],
            &[
                Op::Out(b"before\r\n"),
                Op::Out(b"\xff\xfeA\xe2\x82B\r\n"),
                Op::Out(b"after"),
                // Nothing follows these two bytes: the exit flushes them.
                Op::Out(b"\r\n\xe2\x82"),
                Op::Exit(ExitStatus::Signal("KILL")),
            ],
        ),
        write(
            "streams",
            &pipe.encode().unwrap(),
            &["out", "err", "out again"],
            &[
                Op::Out(b"out\r\n"),
                Op::Err(b"err\r\n"),
                Op::Out(b"out again"),
                Op::Exit(ExitStatus::Code(3)),
            ],
        ),
        write(
            "part",
            &part,
            &["the end of a session"],
            &[Op::Out(b"the end of a session"), Op::Exit(ExitStatus::Code(0))],
        ),
    ]
}

#[test]
fn casts_for_players() {
    for written in all() {
        let mut raw = Raw::new();
        let mut events = Vec::new();
        for line in written.cast.split_inclusive(|b| *b == b'\n').skip(1) {
            events.extend(raw.push(&parse_event(line).unwrap()));
        }
        events.extend(raw.finish());
        let bytes: Vec<u8> =
            events.into_iter().filter(|e| e.code == b'o').flat_map(|e| e.data).collect();
        assert_eq!(bytes, written.bytes, "{}", written.name);
        let Some(dir) = env::var_os("CASTKEEP_PLAYERS_DIR") else { continue };
        let dir = Path::new(&dir);
        fs::create_dir_all(dir).unwrap();
        fs::write(dir.join(format!("{}.cast", written.name)), &written.cast).unwrap();
        fs::write(dir.join(format!("{}.txt", written.name)), written.screen.join("\n")).unwrap();
    }
}
