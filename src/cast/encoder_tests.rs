//! Tests of the encoder, through what a reader of its lines sees.

use super::*;

/// xorshift64*: the seed is printed by the loops that use it.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// Bytes of one of several kinds: text, escapes, UTF-8, UTF-8 with damage, anything.
    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let kind = self.below(6);
        let mut out = Vec::new();
        while out.len() < len {
            match kind {
                0 => out.push(b' ' + self.below(95) as u8),
                1 => out.push(b"\x1b\"\\\n\r\t\x00\x07a"[self.below(9)]),
                2 => {
                    let c = ['é', '€', '\u{1f600}', 'a', '\u{2028}', '\u{9b}'][self.below(6)];
                    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                }
                3 => {
                    out.extend_from_slice("a€\u{10ffff}".as_bytes());
                    let at = self.below(out.len());
                    out[at] = self.next() as u8;
                }
                4 => out.push([0xf0, 0x9f, 0x98, 0x80, 0xe2, 0xed, 0xa0, b'x'][self.below(8)]),
                _ => out.push(self.next() as u8),
            }
        }
        out.truncate(len);
        out
    }
}

/// Every event as (code, data, exact bytes), checked to be JSON lines with times that do not go back.
fn read(cast: &[u8]) -> Vec<(u8, String, Vec<u8>)> {
    let mut events: Vec<(u8, String, Vec<u8>)> = Vec::new();
    let mut last = 0.0;
    assert!(cast.is_empty() || cast.ends_with(b"\n"));
    for line in cast.split_inclusive(|b| *b == b'\n') {
        let (time, code, data): (f64, String, String) = serde_json::from_slice(line).unwrap();
        assert!(time >= last);
        last = time;
        let [code] = *code.as_bytes() else { panic!("{code}") };
        if code == b'b' {
            let (_, text, raw) = events.last_mut().unwrap();
            let (position, coded) = data.split_once(':').unwrap();
            let position: usize = position.parse().unwrap();
            assert!(text[position..].starts_with('\u{fffd}'), "{text:?} {position}");
            raw.truncate(position);
            raw.extend(base64::decode(coded.as_bytes()).unwrap());
        } else {
            let raw = data.clone().into_bytes();
            events.push((code, data, raw));
        }
    }
    events
}

/// Encodes all of `data` in pieces that `cut` chooses, flushing at the end.
fn encode(data: &[u8], mut cut: impl FnMut(usize) -> (usize, usize)) -> Vec<u8> {
    let mut encoder = Encoder::new();
    let mut cast = Vec::new();
    let mut rest = data;
    let mut t = 0;
    while !rest.is_empty() {
        let (piece, room) = cut(rest.len());
        let mut out = vec![0xaa; room];
        let done = encoder.output(Span(t), Stream::Stdout, &rest[..piece], &mut out);
        assert!(done.taken <= piece);
        if room >= worst_case_bytes(piece.min(EVENT_INPUT_BYTES)) {
            assert_eq!(done.taken, piece.min(EVENT_INPUT_BYTES));
        } else if room >= worst_case_bytes(1) {
            assert!(done.taken > 0);
        }
        cast.extend_from_slice(&out[..done.written]);
        rest = &rest[done.taken..];
        t += 1;
    }
    let mut out = [0; CONTROL_EVENT_BYTES];
    let n = encoder.flush(Span(t), &mut out);
    assert_eq!(encoder.flush(Span(t), &mut out[n..]), 0);
    cast.extend_from_slice(&out[..n]);
    cast
}

fn text_of(cast: &[u8]) -> String {
    read(cast).into_iter().filter(|e| e.0 == b'o').map(|e| e.1).collect()
}

fn raw_of(cast: &[u8]) -> Vec<u8> {
    read(cast).into_iter().filter(|e| e.0 == b'o').flat_map(|e| e.2).collect()
}

fn one(data: &[u8]) -> String {
    let cast = encode(data, |n| (n, worst_case_bytes(n)));
    String::from_utf8(cast).unwrap()
}

#[test]
fn events_look_as_documented() {
    assert_eq!(one(b"ls\r\n"), "[0.000000,\"o\",\"ls\\r\\n\"]\n");
    assert_eq!(
        one(b"\x1b[1m\"\\\x00\x7f/<>&\x08\x0c\t"),
        "[0.000000,\"o\",\"\\u001b[1m\\\"\\\\\\u0000\x7f/<>&\\b\\f\\t\"]\n"
    );
    assert_eq!(
        one("h\u{2028}é€\u{1f600}".as_bytes()),
        "[0.000000,\"o\",\"h\u{2028}é€\u{1f600}\"]\n"
    );
    assert_eq!(
        one(b"ab\xffc\r"),
        "[0.000000,\"o\",\"ab\u{fffd}c\\r\"]\n[0.000000,\"b\",\"2:/2MN\"]\n"
    );
    assert_eq!(
        one(b"ab\xe2\x82"),
        "[0.000000,\"o\",\"ab\"]\n[0.000001,\"o\",\"\u{fffd}\"]\n[0.000001,\"b\",\"0:4oI=\"]\n"
    );
}

#[test]
fn times_have_six_digits_and_never_go_back() {
    let mut encoder = Encoder::new();
    let mut out = [0; CONTROL_EVENT_BYTES];
    let mut at = |t: u64| {
        let n = encoder.output(Span(t), Stream::Stdout, b"x", &mut out).written;
        String::from_utf8(out[1..n - 10].to_vec()).unwrap()
    };
    assert_eq!(at(0), "0.000000");
    assert_eq!(at(1_234_567), "1.234567");
    assert_eq!(at(1_234_000), "1.234567");
    assert_eq!(at(60_000_010), "60.000010");
    assert_eq!(at(u64::MAX), "18446744073709.551615");
    assert_eq!(at(0), "18446744073709.551615");
}

#[test]
fn any_pieces_give_the_same_text_and_bytes() {
    let seed = 0x5eed_0001;
    println!("seed {seed:#x}");
    let mut random = Random(seed);
    for round in 0..2_000 {
        let len = random.below(700);
        let data = random.bytes(len);
        let cast = encode(&data, |n| {
            let piece = 1 + random.below(n.min(40));
            (piece, worst_case_bytes(1 + random.below(40)))
        });
        assert_eq!(raw_of(&cast), data, "round {round}");
        assert_eq!(text_of(&cast), String::from_utf8_lossy(&data), "round {round}");
    }
}

#[test]
fn small_buffers_are_filled_and_never_overrun() {
    let seed = 0x5eed_0002;
    println!("seed {seed:#x}");
    let mut random = Random(seed);
    for round in 0..400 {
        let len = 1 + random.below(6_000);
        let data = random.bytes(len);
        let cast = encode(&data, |n| (n, worst_case_bytes(1) + random.below(33_000)));
        assert_eq!(raw_of(&cast), data, "round {round}");
        assert_eq!(text_of(&cast), String::from_utf8_lossy(&data), "round {round}");
    }
    // Ordinary text uses most of the room.
    let mut out = [0; 2_000];
    let done = Encoder::new().output(Span(0), Stream::Stdout, &[b'x'; 4_096], &mut out);
    assert!(done.taken > 1_700, "{done:?}");
}

#[test]
fn too_small_a_buffer_takes_nothing() {
    for room in 0..worst_case_bytes(1) {
        let mut out = vec![0; room];
        let mut encoder = Encoder::new();
        let done = encoder.output(Span(9), Stream::Stderr, b"\xffabc", &mut out);
        assert_eq!(done, Encoded::default());
    }
}

#[test]
fn the_bound_holds_for_the_worst_input_and_is_nearly_reached() {
    let mut worst = vec![0x01; EVENT_INPUT_BYTES];
    worst[0] = 0xff;
    let mut out = vec![0; 2 * worst_case_bytes(worst.len())];
    let mut encoder = Encoder::new();
    let tail = encoder.output(Span(u64::MAX), Stream::Stderr, b"\xf0\x9f\x98", &mut out);
    assert_eq!(tail, Encoded { taken: 3, written: 0 });
    let done = encoder.output(Span(u64::MAX), Stream::Stderr, &worst, &mut out);
    assert_eq!(done.taken, EVENT_INPUT_BYTES);
    let bound = worst_case_bytes(EVENT_INPUT_BYTES);
    assert!(done.written <= bound && done.written + 64 > bound, "{} of {bound}", done.written);
}

#[test]
fn each_stream_carries_its_own_sequence() {
    let mut encoder = Encoder::new();
    let mut out = vec![0; 4 * worst_case_bytes(8)];
    let mut n = 0;
    for (stream, data) in [
        (Stream::Stdout, &b"a\xe2\x82"[..]),
        (Stream::Stderr, b"b\xc3"),
        (Stream::Stdout, b"\xac"),
        (Stream::Stderr, b"\xa9"),
    ] {
        n += encoder.output(Span(0), stream, data, &mut out[n..]).written;
    }
    let done = encoder.input(Span(0), b"k\xf0", &mut out[n..]);
    n += done.written;
    assert!(encoder.has_tail());
    let events: Vec<_> = read(&out[..n]).into_iter().map(|e| (e.0 as char, e.1)).collect();
    let expected = [
        ('o', "a"),
        ('m', "castkeep:stderr"),
        ('o', "b"),
        ('m', "castkeep:stdout"),
        ('o', "€"),
        ('m', "castkeep:stderr"),
        ('o', "é"),
        ('i', "k"),
    ];
    assert_eq!(events, expected.map(|(c, d)| (c, d.to_owned())));
}

#[test]
fn control_events_flush_first_and_are_whole_or_nothing() {
    let mut encoder = Encoder::new();
    let mut out = [0; CONTROL_EVENT_BYTES];
    for stream in [Stream::Stderr, Stream::Stdout] {
        encoder.output(Span(0), stream, b"\xf0\x9f\x98", &mut out);
    }
    encoder.input(Span(0), b"\xf0\x9f\x98", &mut out);
    let label = "\u{1}".repeat(1000);
    let before = encoder;
    let n = encoder.clone().marker(Span(u64::MAX), &label, &mut out);
    assert!(n > 0);
    let events = read(&out[..n]);
    assert_eq!(events.iter().map(|e| e.0 as char).collect::<String>(), "omoim");
    assert_eq!(events.last().unwrap().1, label[..MARKER_BYTES]);
    for room in 0..n {
        assert_eq!(encoder.marker(Span(u64::MAX), &label, &mut out[..room]), 0);
        assert_eq!(format!("{encoder:?}"), format!("{before:?}"));
    }
    let n = encoder.exit(Span(5), ExitStatus::Signal("SIGTERM"), &mut out);
    let data: Vec<_> = read(&out[..n]).into_iter().map(|e| e.1).collect();
    assert_eq!(data[data.len() - 2..], ["castkeep:signal TERM", "143"]);
    assert!(!encoder.has_tail());
}

#[test]
fn sizes_gaps_and_exit_codes() {
    let mut encoder = Encoder::new();
    let mut out = [0; CONTROL_EVENT_BYTES];
    let mut n = encoder.resize(Span(1), 80, 24, &mut out);
    n += encoder.gap(Span(1), u64::MAX, 1500, &mut out[n..]);
    n += encoder.exit(Span(1), ExitStatus::Code(i32::MIN), &mut out[n..]);
    n += encoder.exit(Span(1), ExitStatus::Code(0), &mut out[n..]);
    let data: Vec<_> = read(&out[..n]).into_iter().map(|e| (e.0 as char, e.1)).collect();
    let gap = "castkeep:gap bytes=18446744073709551615 ms=1500";
    assert_eq!(label::parse_gap(gap), Some((u64::MAX, 1500)));
    let expected = [('r', "80x24"), ('m', gap), ('x', "-2147483648"), ('x', "0")];
    assert_eq!(data, expected.map(|(c, d)| (c, d.to_owned())));
}
