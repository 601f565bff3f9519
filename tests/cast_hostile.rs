//! Whatever a cast holds, reading and printing it does no harm: no panic, bounded memory, no control sequence that acts.
#![allow(missing_docs)]

use castkeep::{
    cast::{
        Encoder, Header, Line, Lines, Raw, Stream, parse_event, parse_size, text, worst_case_bytes,
    },
    limits::EVENT_INPUT_BYTES,
    time::Span,
};

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// Pieces of casts, put together and damaged.
    fn hostile(&mut self) -> Vec<u8> {
        const PIECES: &[&[u8]] = &[
            b"{\"version\":2,\"width\":80,\"height\":24}\n",
            b"{\"version\":3,\"term\":{\"cols\":1e99,\"rows\":-1}}\n",
            b"[0.1,\"o\",\"",
            b"\"]\n",
            b"[1e999,\"b\",\"0:AAAA\"]\n",
            b"[null,\"r\",\"0x70000\"]\n",
            b"\\u001b]52;c;aGk=\\u0007",
            b"\\ud800\\udbff\\u",
            b"\xe2\x82",
            b"\xff\x00\n",
            b"\\u009b6n",
            b"[[[[{\"",
            b",,,]",
            "\u{fffd}".as_bytes(),
            b"\x1b[?1000h\x1bP",
        ];
        let mut out = Vec::new();
        for _ in 0..self.below(30) {
            out.extend_from_slice(PIECES[self.below(PIECES.len())]);
        }
        for _ in 0..self.below(6) {
            if !out.is_empty() {
                let at = self.below(out.len());
                out[at] = self.next() as u8;
            }
        }
        out
    }
}

#[test]
fn hostile_casts_are_read_without_harm() {
    let seed = 0x5eed_0003;
    println!("seed {seed:#x}");
    let mut random = Random(seed);
    for _ in 0..20_000 {
        let cast = random.hostile();
        let mut lines = Lines::new(64 + random.below(64));
        let mut raw = Raw::new();
        let mut filter = text::Filter::new();
        let mut shown = String::new();
        let mut rest = &cast[..];
        while !rest.is_empty() {
            let (mut piece, behind) = rest.split_at(1 + random.below(rest.len()));
            rest = behind;
            while let Some(line) = lines.next(&mut piece) {
                let Line::Whole(line) = line else { continue };
                if let Ok(header) = Header::parse(line) {
                    let (cols, rows) = header.display_size();
                    assert!((1..=1000).contains(&cols) && (1..=1000).contains(&rows));
                    let _ = header.encode();
                }
                let Ok(event) = parse_event(line) else { continue };
                let _ = parse_size(&event.data, random.below(2) == 0);
                raw.push(&event);
                filter.push(&event.data, &mut shown);
                assert!(!text::escape_control(&event.data).chars().any(char::is_control));
            }
        }
        let _ = (lines.torn().map(Header::parse), raw.finish());
        filter.finish(&mut shown);
        // Nothing that a terminal answers, stores or obeys beyond drawing.
        for (at, _) in shown.match_indices('\x1b') {
            let next = shown[at + 1..].chars().next();
            assert!(matches!(
                next,
                Some('[' | '(' | ')' | '*' | '+' | '7' | '8' | 'D' | 'E' | 'H' | 'M')
            ));
        }
        assert!(!shown.chars().any(|c| matches!(c, '\u{80}'..='\u{9f}' | '\x05' | '\0' | '\x7f')));
        for bad in ["\x1b[c", "\x1b[6n", "\x1b[?1000h", "\x1b]"] {
            assert!(!shown.contains(bad), "{shown:?}");
        }
    }
}

#[test]
fn any_bytes_come_back_through_a_whole_cast() {
    let seed = 0x5eed_0004;
    println!("seed {seed:#x}");
    let mut random = Random(seed);
    for round in 0..200 {
        let data: Vec<u8> = (0..random.below(20_000)).map(|_| random.next() as u8).collect();
        let mut encoder = Encoder::new();
        let mut cast = Header::default().encode().unwrap();
        let mut streams = [Vec::new(), Vec::new()];
        let mut out = vec![0; worst_case_bytes(EVENT_INPUT_BYTES)];
        let mut rest = &data[..];
        while !rest.is_empty() {
            let piece = &rest[..1 + random.below(rest.len().min(6_000))];
            let (stream, n) = [(Stream::Stdout, 0), (Stream::Stderr, 1)][random.below(2)];
            let done = encoder.output(Span(random.next() % 1_000_000), stream, piece, &mut out);
            cast.extend_from_slice(&out[..done.written]);
            streams[n].extend_from_slice(&piece[..done.taken]);
            rest = &rest[done.taken..];
        }
        let n = encoder.flush(Span(0), &mut out);
        cast.extend_from_slice(&out[..n]);

        let mut lines = Lines::new(1 << 20);
        let mut raw = Raw::new();
        let mut read = [Vec::new(), Vec::new()];
        let mut rest = &cast[..];
        assert!(
            matches!(lines.next(&mut rest), Some(Line::Whole(line)) if Header::parse(line).is_ok())
        );
        let mut last = Span(0);
        let mut events = Vec::new();
        while let Some(Line::Whole(line)) = lines.next(&mut rest) {
            let event = parse_event(line).unwrap();
            assert!(event.time >= last);
            last = event.time;
            events.extend(raw.push(&event));
        }
        assert_eq!((lines.torn(), lines.offset()), (None, cast.len() as u64));
        events.extend(raw.finish());
        for event in events.into_iter().filter(|e| e.code == b'o') {
            read[usize::from(event.stream == Stream::Stderr)].extend(event.data);
        }
        assert_eq!(read, streams, "round {round}");
    }
}
