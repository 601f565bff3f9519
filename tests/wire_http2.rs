//! HTTP/2: both ends against each other, and one end against a peer that does not behave.

use castkeep::http2::{Code, Config, Connection, Event, PREFACE};
use castkeep::limits::{
    H2_CONTINUATIONS, H2_STREAMS, H2_USELESS_FRAMES, H2_USELESS_WINDOW, H2_WINDOW_BYTES,
};
use castkeep::time::Tick;

const NOW: Tick = Tick(0);

const REQUEST: &[(&str, &str)] = &[
    (":method", "POST"),
    (":scheme", "http"),
    (":authority", "r:80"),
    (":path", "/v2/record"),
    ("x", "a value of some length"),
];

#[derive(Debug, PartialEq)]
enum Seen {
    Head(u32, String, bool),
    Data(u32, Vec<u8>),
    End(u32),
    Reset(u32, Code),
    Pong,
    GoAway(u32, Code),
    Failed(Code),
}

/// Feeds `bytes` in pieces of `step`, credits data at once, and tells what was seen, neighbouring data joined.
fn feed(to: &mut Connection, now: Tick, bytes: &[u8], step: usize) -> Vec<Seen> {
    let mut seen: Vec<Seen> = Vec::new();
    for mut piece in bytes.chunks(step.max(1)) {
        let mut credits = Vec::new();
        while let Some(event) = to.handle_input(now, &mut piece) {
            match event {
                Event::Headers { stream, fields, end, .. } => {
                    let what = fields.get(":status").or_else(|| fields.get(":path")).unwrap_or("?");
                    seen.push(Seen::Head(stream, what.into(), end));
                }
                Event::Data { stream, data, end } => {
                    credits.push((stream, data.len()));
                    match seen.last_mut() {
                        Some(Seen::Data(s, all)) if *s == stream => all.extend_from_slice(data),
                        _ if !data.is_empty() => seen.push(Seen::Data(stream, data.to_vec())),
                        _ => {}
                    }
                    if end {
                        seen.push(Seen::End(stream));
                    }
                }
                Event::Reset { stream, code, .. } => seen.push(Seen::Reset(stream, code)),
                Event::Pong => seen.push(Seen::Pong),
                Event::GoAway { last, code } => seen.push(Seen::GoAway(last, code)),
                Event::Failed(code) => seen.push(Seen::Failed(code)),
            }
        }
        for (stream, n) in credits {
            to.credit(stream, n);
        }
    }
    seen
}

fn output(from: &mut Connection) -> Vec<u8> {
    let mut all = Vec::new();
    let mut out = [0; 1000];
    loop {
        let n = from.poll_transmit(&mut out);
        if n == 0 {
            return all;
        }
        all.extend_from_slice(&out[..n]);
    }
}

fn pair() -> (Connection, Connection) {
    let (mut client, mut server) =
        (Connection::client(&Config::default()), Connection::server(&Config::default()));
    let bytes = output(&mut client);
    assert_eq!(feed(&mut server, NOW, &bytes, 4096), []);
    let bytes = output(&mut server);
    assert_eq!(feed(&mut client, NOW, &bytes, 4096), []);
    let bytes = output(&mut client);
    feed(&mut server, NOW, &bytes, 4096);
    (client, server)
}

/// A server that has its peer's preface and SETTINGS.
fn server() -> Connection {
    let mut server = Connection::server(&Config::default());
    let hello = [&PREFACE[..], &frame(4, 0, 0, &[])].concat();
    assert_eq!(feed(&mut server, NOW, &hello, 4096), []);
    output(&mut server);
    server
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A HPACK block without compression.
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            match text.len() {
                n @ 0..127 => block.push(n as u8),
                n => {
                    block.push(127);
                    let mut left = n - 127;
                    while left >= 128 {
                        block.push((left & 127) as u8 | 128);
                        left >>= 7;
                    }
                    block.push(left as u8);
                }
            }
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

fn request(stream: u32, flags: u8) -> Vec<u8> {
    frame(1, flags, stream, &block(REQUEST))
}

/// The code of the GOAWAY that is queued.
fn goaway_code(from: &mut Connection) -> Option<u32> {
    let bytes = output(from);
    let mut rest = &bytes[..];
    while rest.len() >= 9 {
        let length = u32::from_be_bytes([0, rest[0], rest[1], rest[2]]) as usize;
        if rest[3] == 7 {
            return Some(u32::from_be_bytes(rest[13..17].try_into().unwrap()));
        }
        rest = &rest[9 + length..];
    }
    None
}

/// The stream and code of each RST_STREAM that is queued.
fn resets(from: &mut Connection) -> Vec<(u32, u32)> {
    let bytes = output(from);
    let mut rest = &bytes[..];
    let mut found = Vec::new();
    while rest.len() >= 9 {
        let length = u32::from_be_bytes([0, rest[0], rest[1], rest[2]]) as usize;
        if rest[3] == 3 {
            let at = |i: usize| u32::from_be_bytes(rest[i..i + 4].try_into().unwrap());
            found.push((at(5), at(9)));
        }
        rest = &rest[9 + length..];
    }
    found
}

#[test]
fn both_ends_understand_each_other_however_the_bytes_are_split() {
    let mut sessions = Vec::new();
    for step in [1, 2, 3, 7, 9, 10, 100, 70_000] {
        let (mut client, mut server) = pair();
        let stream = client.open(REQUEST, false).unwrap();
        let mut wire = output(&mut client);
        let body: Vec<u8> = (0..50_000u32).map(|i| i as u8).collect();
        let mut at = 0;
        let mut out = vec![0; 9_000];
        while at < body.len() {
            let sent = client.write_data(stream, &body[at..], true, &mut out);
            at += sent.taken;
            wire.extend_from_slice(&out[..sent.written]);
        }
        let mut seen = feed(&mut server, NOW, &wire, step);
        server.send_headers(stream, &[(":status", "200")], false);
        assert_eq!(server.send_data(stream, b"{\"ack\":1}\n", true), 10);
        let wire = output(&mut server);
        seen.extend(feed(&mut client, NOW, &wire, step));
        assert_eq!((client.open_streams(), server.open_streams()), (0, 0));
        sessions.push(seen);
    }
    assert_eq!(sessions[0][0], Seen::Head(1, "/v2/record".into(), false));
    assert_eq!(sessions[0][2], Seen::End(1));
    assert_eq!(sessions[0][3], Seen::Head(1, "200".into(), false));
    assert_eq!(sessions[0][4], Seen::Data(1, b"{\"ack\":1}\n".to_vec()));
    assert_eq!(sessions[0].len(), 6);
    assert!(sessions.windows(2).all(|w| w[0] == w[1]));
}

#[test]
fn an_upload_of_many_windows_never_stalls_and_an_unread_one_stops() {
    let (mut client, mut server) = pair();
    let stream = client.open(REQUEST, false).unwrap();
    let wire = output(&mut client);
    feed(&mut server, NOW, &wire, 70_000);
    let chunk = vec![7u8; 16_384];
    let mut out = vec![0u8; 20_000];
    let mut total = 0usize;
    while total < 5 * H2_WINDOW_BYTES as usize {
        let sent = client.write_data(stream, &chunk, false, &mut out);
        assert!(sent.taken > 0, "stalled after {total}");
        total += sent.taken;
        feed(&mut server, NOW, &out[..sent.written], 70_000);
        let back = output(&mut server);
        feed(&mut client, NOW, &back, 70_000);
    }
    // Nobody credits: at most one window comes.
    let mut unread = 0usize;
    loop {
        let sent = client.write_data(stream, &chunk, false, &mut out);
        if sent.taken == 0 {
            break;
        }
        unread += sent.taken;
        let mut piece = &out[..sent.written];
        while server.handle_input(NOW, &mut piece).is_some() {}
    }
    assert!(unread <= H2_WINDOW_BYTES as usize, "{unread}");
    assert!(unread > H2_WINDOW_BYTES as usize / 2);
    server.credit(stream, unread);
    let back = output(&mut server);
    feed(&mut client, NOW, &back, 70_000);
    assert!(client.write_data(stream, &chunk, false, &mut out).taken > 0);
}

#[test]
fn padding_does_not_use_up_the_windows() {
    let mut server = server();
    assert_eq!(feed(&mut server, NOW, &request(1, 4), 4096).len(), 1);
    let mut payload = vec![255, b'x'];
    payload.resize(257, 0);
    let padded = frame(0, 8, 1, &payload);
    let mut body = 0;
    for _ in 0..10_000 {
        for seen in feed(&mut server, NOW, &padded, 100) {
            match seen {
                Seen::Data(1, data) => body += data.len(),
                other => panic!("{other:?}"),
            }
        }
        output(&mut server);
    }
    assert_eq!(body, 10_000);
}

#[test]
fn data_for_streams_that_are_gone_gives_its_window_back() {
    let mut server = server();
    feed(&mut server, NOW, &request(1, 4), 4096);
    feed(&mut server, NOW, &request(3, 4), 4096);
    server.reset(1, Code::Cancel);
    let data = frame(0, 0, 1, &[0; 16_384]);
    for _ in 0..(3 * H2_WINDOW_BYTES / 16_384) {
        assert_eq!(feed(&mut server, NOW, &data, 5000), []);
        output(&mut server);
    }
    let other = feed(&mut server, NOW, &frame(0, 1, 3, b"still here"), 5000);
    assert_eq!(other, [Seen::Data(3, b"still here".to_vec()), Seen::End(3)]);
}

#[test]
fn a_stream_error_does_not_end_the_other_streams() {
    let mut server = server();
    feed(&mut server, NOW, &request(1, 4), 4096);
    feed(&mut server, NOW, &request(3, 4), 4096);
    output(&mut server);
    let bad: [(Vec<u8>, u32); 4] = [
        (frame(8, 0, 1, &[0, 0, 0, 0]), 1),
        (frame(1, 5, 5, &block(&[(":method", "GET")])), 1),
        (frame(1, 5, 7, &block(&[("UPPER", "x")])), 1),
        (frame(1, 4, 9, &block(&[REQUEST, &[("content-length", "x")]].concat())), 1),
    ];
    for (bytes, code) in bad {
        let seen = feed(&mut server, NOW, &bytes, 4096);
        assert!(!seen.iter().any(|s| matches!(s, Seen::Failed(_))), "{seen:?}");
        assert_eq!(resets(&mut server).first().map(|r| r.1), Some(code));
    }
    assert_eq!(
        feed(&mut server, NOW, &frame(0, 0, 3, b"fine"), 4096),
        [Seen::Data(3, b"fine".to_vec())]
    );
}

#[test]
fn the_right_code_goes_into_goaway() {
    let headers = request(1, 4);
    let cases: Vec<(&str, Vec<u8>, u32)> = vec![
        ("DATA on stream 0", frame(0, 0, 0, b"x"), 1),
        ("DATA on an idle stream", frame(0, 0, 1, b"x"), 1),
        ("HEADERS on an even stream", request(2, 4), 1),
        ("padding longer than the frame", [&headers[..], &frame(0, 8, 1, &[9, 0])].concat(), 1),
        ("a frame that is too long", [0, 64, 1, 0, 0, 0, 0, 0, 1].to_vec(), 6),
        ("PING of 7 bytes", frame(6, 0, 0, &[0; 7]), 6),
        ("SETTINGS of 5 bytes", frame(4, 0, 0, &[0; 5]), 6),
        ("SETTINGS on a stream", frame(4, 0, 1, &[]), 1),
        ("a window that is too large", frame(4, 0, 0, &[0, 4, 0x80, 0, 0, 0]), 3),
        ("WINDOW_UPDATE of 0", frame(8, 0, 0, &[0; 4]), 1),
        ("WINDOW_UPDATE that overflows", frame(8, 0, 0, &[0x7f, 0xff, 0xff, 0xff]), 3),
        ("PUSH_PROMISE", frame(5, 4, 1, &[0; 8]), 1),
        ("CONTINUATION without HEADERS", frame(9, 4, 1, &[]), 1),
        ("RST_STREAM on an idle stream", frame(3, 0, 9, &[0; 4]), 1),
        ("a block that cannot be decoded", frame(1, 4, 1, &[0x80]), 9),
        ("a string behind its block", frame(1, 4, 1, &[0, 0x7f, 0xff, 0xff, 0xff, 0x7f]), 9),
        (
            "an integer without end",
            frame(1, 4, 1, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
            9,
        ),
        ("HEADERS that end", [request(1, 5), request(1, 5)].concat(), 5),
        ("another frame within a block", [request(1, 0), frame(6, 0, 0, &[0; 8])].concat(), 1),
    ];
    for (what, bytes, code) in cases {
        for step in [1, 70_000] {
            let mut server = server();
            let seen = feed(&mut server, NOW, &bytes, step);
            // A half-closed stream gets an error of its own first.
            if what == "HEADERS that end" {
                assert_eq!(seen.last(), Some(&Seen::Reset(1, Code::StreamClosed)), "{what}");
                continue;
            }
            assert!(matches!(seen.last(), Some(Seen::Failed(_))), "{what}: {seen:?}");
            assert_eq!(goaway_code(&mut server), Some(code), "{what}");
            assert_eq!(feed(&mut server, NOW, &request(11, 5), 100), [], "{what}: reads on");
        }
    }
    let mut server = Connection::server(&Config::default());
    let seen = feed(&mut server, NOW, b"GET / HTTP/1.1\r\n\r\n", 1);
    assert_eq!(seen, [Seen::Failed(Code::ProtocolError)]);
}

#[test]
fn floods_end_the_connection() {
    let ping = frame(6, 0, 0, &[0; 8]);
    let settings = frame(4, 0, 0, &[]);
    let priority = frame(2, 0, 9, &[0, 0, 0, 1, 0]);
    let empty = frame(0, 0, 1, &[]);
    let padding = frame(0, 8, 1, &[0]);
    let unknown = frame(0xee, 0, 0, b"??");
    for (what, flood) in [
        ("PING", &ping),
        ("SETTINGS", &settings),
        ("PRIORITY", &priority),
        ("empty DATA", &empty),
        ("DATA of padding alone", &padding),
        ("unknown frames", &unknown),
    ] {
        let mut server = server();
        feed(&mut server, NOW, &[request(1, 4), request(3, 5)].concat(), 4096);
        server.send_headers(3, &[(":status", "200")], true);
        let mut frames = 0;
        while frames < 2 * H2_USELESS_FRAMES && !server.is_failed() {
            feed(&mut server, NOW, flood, 4096);
            frames += 1;
        }
        assert!(server.is_failed(), "{what}");
        assert!(frames >= H2_USELESS_FRAMES - 10, "{what}: only {frames}");
        assert_eq!(goaway_code(&mut server), Some(11), "{what}");
    }
    // The same number over a longer time is nobody's fault.
    let mut server = server();
    for i in 0..5 * u64::from(H2_USELESS_FRAMES) {
        let now = Tick(i * 2 * H2_USELESS_WINDOW.0 / u64::from(H2_USELESS_FRAMES));
        assert_eq!(feed(&mut server, now, &ping, 4096), []);
        output(&mut server);
    }
}

#[test]
fn opening_and_resetting_is_a_flood() {
    let mut server = server();
    for i in 0..2 * H2_USELESS_FRAMES {
        let id = 1 + 2 * i;
        feed(&mut server, NOW, &[request(id, 4), frame(3, 0, id, &[0; 4])].concat(), 4096);
        if server.is_failed() {
            break;
        }
    }
    assert_eq!(goaway_code(&mut server), Some(11));
}

#[test]
fn blocks_without_end_are_cut_off() {
    let mut server = server();
    feed(&mut server, NOW, &frame(1, 0, 1, &block(REQUEST)), 4096);
    for _ in 0..H2_CONTINUATIONS {
        assert_eq!(feed(&mut server, NOW, &frame(9, 0, 1, b""), 4096), []);
    }
    assert_eq!(
        feed(&mut server, NOW, &frame(9, 0, 1, b""), 4096),
        [Seen::Failed(Code::EnhanceYourCalm)]
    );

    let mut server = self::server();
    let fill = vec![0u8; 16_384];
    feed(&mut server, NOW, &frame(1, 0, 1, &fill), 4096);
    for _ in 0..5 {
        feed(&mut server, NOW, &frame(9, 0, 1, &fill), 4096);
    }
    assert_eq!(goaway_code(&mut server), Some(11));
}

#[test]
fn a_block_in_pieces_is_one_request() {
    let mut server = server();
    let all = block(REQUEST);
    let mut wire = frame(1, 1, 1, &all[..5]);
    wire.extend(frame(9, 0, 1, &all[5..20]));
    wire.extend(frame(9, 4, 1, &all[20..]));
    assert_eq!(feed(&mut server, NOW, &wire, 3), [Seen::Head(1, "/v2/record".into(), true)]);
}

#[test]
fn large_heads_are_told_and_bombs_end_the_connection() {
    let mut server = server();
    let long = "y".repeat(9_000);
    let mut wire = frame(1, 1, 1, &block(&[REQUEST, &[("a", &long)]].concat()));
    wire.extend(frame(9, 4, 1, &block(&[("b", &long)])));
    let mut input = &wire[..];
    match server.handle_input(NOW, &mut input) {
        Some(Event::Headers { stream: 1, too_large: true, .. }) => {}
        other => panic!("{other:?}"),
    }
    // One long field in the table, then a thousand references to it.
    let mut bomb = vec![0x40, 1, b'z', 0x7f, 0x81, 0x1e];
    bomb.extend_from_slice(&[b'v'; 4_000 - 16]);
    bomb.truncate(6 + 3_968);
    bomb.extend_from_slice(&vec![0xbe; 10_000]);
    let seen = feed(&mut server, NOW, &frame(1, 5, 3, &bomb), 4096);
    assert_eq!(seen, [Seen::Failed(Code::CompressionError)]);
}

#[test]
fn too_many_streams_are_refused_and_the_rest_goes_on() {
    let mut server = server();
    for i in 0..H2_STREAMS {
        assert_eq!(feed(&mut server, NOW, &request(1 + 2 * i, 4), 4096).len(), 1);
    }
    output(&mut server);
    let one_more = 1 + 2 * H2_STREAMS;
    assert_eq!(feed(&mut server, NOW, &request(one_more, 4), 4096), []);
    assert_eq!(resets(&mut server), [(one_more, 7)]);
    // What the client sent before it knew is read over.
    assert_eq!(feed(&mut server, NOW, &frame(0, 1, one_more, b"late"), 4096), []);
    assert_eq!(resets(&mut server), []);
    assert_eq!(
        feed(&mut server, NOW, &frame(0, 1, 1, b"x"), 4096),
        [Seen::Data(1, b"x".to_vec()), Seen::End(1)]
    );
}

#[test]
fn a_body_has_the_length_that_its_head_said() {
    for (body, good) in [(&b"abc"[..], true), (b"ab", false), (b"abcd", false)] {
        let mut server = server();
        let fields = [REQUEST, &[("content-length", "3")]].concat();
        feed(&mut server, NOW, &frame(1, 4, 1, &block(&fields)), 4096);
        let seen = feed(&mut server, NOW, &frame(0, 1, 1, body), 4096);
        assert_eq!(seen.contains(&Seen::End(1)), good, "{seen:?}");
        assert_eq!(seen.contains(&Seen::Reset(1, Code::ProtocolError)), !good);
    }
}

#[test]
fn trailers_end_a_stream() {
    let mut server = server();
    feed(&mut server, NOW, &request(1, 4), 4096);
    let wire = [frame(0, 0, 1, b"x"), frame(1, 5, 1, &block(&[("t", "1")]))].concat();
    let seen = feed(&mut server, NOW, &wire, 1);
    assert_eq!(seen, [Seen::Data(1, b"x".to_vec()), Seen::End(1)]);
}

#[test]
fn the_client_waits_for_its_peer() {
    let mut client = Connection::client(&Config::default());
    // The peer allows one stream and a window of 10.
    let settings = [0, 3, 0, 0, 0, 1, 0, 4, 0, 0, 0, 10];
    feed(&mut client, NOW, &frame(4, 0, 0, &settings), 4096);
    let stream = client.open(REQUEST, false).unwrap();
    assert!(client.open(REQUEST, false).is_err());
    assert_eq!(client.send_data(stream, &[0; 100], true), 10);
    assert_eq!(client.send_data(stream, &[0; 100], true), 0);
    // It makes the window smaller than what was sent, then larger.
    feed(&mut client, NOW, &frame(4, 0, 0, &[0, 4, 0, 0, 0, 4]), 4096);
    assert_eq!(client.send_window(stream), 0);
    feed(&mut client, NOW, &frame(8, 0, stream, &[0, 0, 0, 7]), 4096);
    assert_eq!(client.send_window(stream), 1);
    // An end needs no window.
    assert_eq!(client.send_data(stream, &[0], false), 1);
    assert_eq!(client.send_data(stream, &[], true), 0);
    assert!(!client.sends(stream));
    let seen = feed(&mut client, NOW, &frame(7, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]), 4096);
    assert_eq!(seen, [Seen::GoAway(1, Code::NoError)]);
    assert!(client.open(REQUEST, false).is_err());
}

#[test]
fn interim_answers_come_before_the_answer() {
    let (mut client, mut server) = pair();
    let stream = client.open(REQUEST, false).unwrap();
    let wire = output(&mut client);
    feed(&mut server, NOW, &wire, 4096);
    server.send_headers(stream, &[(":status", "100")], false);
    server.send_headers(stream, &[(":status", "200")], true);
    let wire = output(&mut server);
    assert_eq!(
        feed(&mut client, NOW, &wire, 1),
        [Seen::Head(1, "100".into(), false), Seen::Head(1, "200".into(), true)]
    );
}

#[test]
fn a_ping_is_answered() {
    let (mut client, mut server) = pair();
    server.ping();
    let wire = output(&mut server);
    feed(&mut client, NOW, &wire, 1);
    let wire = output(&mut client);
    assert_eq!(feed(&mut server, NOW, &wire, 1), [Seen::Pong]);
}

#[test]
fn random_frames_do_no_harm() {
    let mut state = 99u64;
    let mut random = move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as u32
    };
    for _ in 0..300 {
        let mut server = server();
        for _ in 0..60 {
            let payload: Vec<u8> = (0..random() % 40).map(|_| random() as u8).collect();
            let bytes = match random() % 4 {
                0 => request(1 + 2 * (random() % 6), 4 | (random() as u8 & 9)),
                _ => frame((random() % 12) as u8, random() as u8, random() % 9, &payload),
            };
            feed(&mut server, NOW, &bytes, 1 + random() as usize % 50);
            assert!(output(&mut server).len() < 100_000);
        }
    }
}
