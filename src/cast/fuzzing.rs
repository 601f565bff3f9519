//! Invariants of casts, for the fuzzer.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use alloc::{string::String, vec, vec::Vec};

use super::{
    CONTROL_EVENT_BYTES, Encoder, ExitStatus, Header, Line, Lines, Raw, Stream, parse_event,
    parse_size, text, worst_case_bytes,
};
use crate::{
    fuzzing::{Source, pieces},
    limits::{EVENT_INPUT_BYTES, HEADER_LINE_BYTES},
    time::Span,
};

/// Any bytes as a cast: lines are the same however they are cut, headers that are read can be written and read again, nothing panics.
pub fn fuzz_cast_decode(data: &[u8]) {
    let mut source = Source(data);
    let cap = 1 + source.below(300);
    let cuts = source.bytes(8);
    let split = |pieces: &[&[u8]]| {
        let mut lines = Lines::new(cap);
        let mut found = Vec::new();
        for piece in pieces {
            let mut piece = *piece;
            while let Some(line) = lines.next(&mut piece) {
                found.push(match line {
                    Line::Whole(line) => Ok(line.to_vec()),
                    Line::TooLong(len) => Err(len),
                });
            }
        }
        (found, lines.torn().map(<[u8]>::to_vec), lines.offset())
    };
    let whole = split(&[source.0]);
    assert_eq!(whole, split(&pieces(cuts, source.0)));
    let mut raw = Raw::new();
    for line in source.0.split(|b| *b == b'\n') {
        if let Ok(header) = Header::parse(line) {
            let (cols, rows) = header.display_size();
            assert!((1..=1000).contains(&cols) && (1..=1000).contains(&rows));
            if let Ok(encoded) = header.encode() {
                assert!(encoded.len() <= HEADER_LINE_BYTES);
                assert_eq!(encoded.iter().position(|b| *b == b'\n'), Some(encoded.len() - 1));
                let again = Header::parse(&encoded).expect("what we wrote");
                assert_eq!(again.encode().as_deref(), Ok(&encoded[..]));
            }
        }
        if let Ok(event) = parse_event(line) {
            let _ = parse_size(&event.data, cap % 2 == 0);
            assert!(!text::escape_control(&event.data).chars().any(char::is_control));
            assert!(raw.push(&event).is_none_or(|event| event.code != b'b'));
        }
    }
    let _ = raw.finish();
}

/// Any bytes as a session: what is written is a cast, never past its bound, times never go back, and the bytes of each stream come out again.
pub fn fuzz_cast_encode(data: &[u8]) {
    let mut source = Source(data);
    let mut encoder = Encoder::new();
    let mut cast = Vec::new();
    let mut given = [Vec::new(), Vec::new(), Vec::new()];
    while !source.is_empty() {
        let kind = source.byte();
        let t = Span(source.byte().into());
        let room = match kind & 0x30 {
            0 => source.below(1 << 16),
            _ => worst_case_bytes(EVENT_INPUT_BYTES),
        };
        let mut out = vec![0; room];
        let had_tail = encoder.has_tail();
        let written = match kind & 7 {
            lane @ 0..=4 => {
                let piece = source.bytes(if kind & 0x40 == 0 { 40 } else { 9_000 });
                let (done, lane) = match lane {
                    0..=2 => (encoder.output(t, Stream::Stdout, piece, &mut out), 0),
                    3 => (encoder.output(t, Stream::Stderr, piece, &mut out), 1),
                    _ => (encoder.input(t, piece, &mut out), 2),
                };
                let wanted = piece.len().min(EVENT_INPUT_BYTES);
                assert!(done.taken <= wanted);
                assert!(room < worst_case_bytes(wanted) || done.taken == wanted);
                assert!(room < worst_case_bytes(1) || done.taken > 0 || piece.is_empty());
                given[lane].extend_from_slice(&piece[..done.taken]);
                done.written
            }
            5 => {
                let written = encoder.flush(t, &mut out);
                assert!(room < CONTROL_EVENT_BYTES || !encoder.has_tail());
                assert_eq!(written > 0, had_tail && !encoder.has_tail());
                written
            }
            6 => encoder.resize(t, u16::from(kind) * 257, 24, &mut out),
            _ if kind & 8 == 0 => {
                encoder.marker(t, &String::from_utf8_lossy(source.bytes(600)), &mut out)
            }
            _ => {
                let name = String::from_utf8_lossy(source.bytes(100)).into_owned();
                encoder.exit(t, ExitStatus::Signal(&name), &mut out)
            }
        };
        assert!(kind & 7 < 5 || written <= CONTROL_EVENT_BYTES);
        assert!(kind & 7 < 6 || room < CONTROL_EVENT_BYTES || written > 0);
        cast.extend_from_slice(&out[..written]);
    }
    let mut out = [0; CONTROL_EVENT_BYTES];
    let written = encoder.flush(Span(0), &mut out);
    cast.extend_from_slice(&out[..written]);

    let mut raw = Raw::new();
    let mut events = Vec::new();
    let mut last = Span(0);
    for line in cast.split_inclusive(|b| *b == b'\n') {
        let json: serde_json::Value = serde_json::from_slice(line).expect("JSON");
        let event = parse_event(line).expect("an event");
        assert_eq!(json[2].as_str(), Some(&*event.data));
        assert!(event.time >= last);
        last = event.time;
        events.extend(raw.push(&event));
    }
    events.extend(raw.finish());
    let mut read = [Vec::new(), Vec::new(), Vec::new()];
    for event in events {
        let lane = match (event.code, event.stream) {
            (b'o', Stream::Stdout) => 0,
            (b'o', Stream::Stderr) => 1,
            (b'i', _) => 2,
            _ => continue,
        };
        read[lane].extend_from_slice(&event.data);
    }
    assert_eq!(read, given);
}

/// Any text as terminal output: what passes is the same however it is cut, passes unchanged again, and holds nothing that acts.
pub fn fuzz_text_filter(data: &[u8]) {
    let mut source = Source(data);
    let cuts = source.bytes(8);
    let whole = String::from_utf8_lossy(source.0);
    let filtered = |texts: &[&str]| {
        let mut filter = text::Filter::new();
        let mut out = String::new();
        for text in texts {
            filter.push(text, &mut out);
        }
        let mut end = String::new();
        filter.finish(&mut end);
        (out, end)
    };
    let (out, end) = filtered(&[&whole]);
    let mut texts = Vec::new();
    let mut rest = &*whole;
    for piece in pieces(cuts, whole.as_bytes()) {
        let at = rest.ceil_char_boundary(piece.len().min(rest.len()));
        let (text, behind) = rest.split_at(at);
        texts.push(text);
        rest = behind;
    }
    texts.push(rest);
    assert_eq!(filtered(&texts), (out.clone(), end.clone()));
    assert_eq!(filtered(&[&out]).0, out);
    for out in [&out, &end] {
        assert!(!out.chars().any(|c| {
            matches!(c, '\0'..='\x06' | '\x10'..='\x1a' | '\x1c'..='\x1f' | '\x7f'..='\u{9f}')
        }));
        for (at, _) in out.match_indices('\x1b') {
            let next = out[at + 1..].chars().next();
            assert!(matches!(
                next,
                Some('[' | '(' | ')' | '*' | '+' | '7' | '8' | 'D' | 'E' | 'H' | 'M')
            ));
        }
    }
    assert!(!text::escape_control(&whole).chars().any(char::is_control));
}
