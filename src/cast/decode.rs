//! Reading casts that anybody wrote.

use alloc::{borrow::Cow, string::String, vec::Vec};
use core::fmt;

use crate::time::Span;

/// Why a line cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// It is not an array of time, code and data.
    NotAnEvent,
    /// It is not JSON, or not an object with a version.
    NotAHeader,
    /// A cast of a version that is not read.
    Version(u8),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnEvent => f.write_str("not an event of a cast"),
            Self::NotAHeader => f.write_str("not the header of a cast"),
            Self::Version(v) => write!(f, "asciicast version {v} is not supported"),
        }
    }
}

impl core::error::Error for DecodeError {}

/// One event line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// Since the start of the session (version 2), or since the event before (version 3).
    pub time: Span,
    /// The letter; 0 when the code is not a single ASCII character.
    pub code: u8,
    /// The data; JSON text when it is neither a string nor null.
    pub data: Cow<'a, str>,
}

/// A line of a cast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// A line, without its LF.
    Whole(&'a [u8]),
    /// A line that is longer than the cap: this many bytes without its LF, skipped.
    TooLong(u64),
}

/// Splits bytes into lines, whatever pieces they come in, keeping at most a cap of them.
///
/// ```
/// # use castkeep::cast::{Line, Lines};
/// let mut lines = Lines::new(100);
/// let mut piece: &[u8] = b"one\ntw";
/// assert_eq!(lines.next(&mut piece), Some(Line::Whole(b"one")));
/// assert_eq!(lines.next(&mut piece), None);
/// let mut piece: &[u8] = b"o\nto";
/// assert_eq!(lines.next(&mut piece), Some(Line::Whole(b"two")));
/// assert_eq!(lines.next(&mut piece), None);
/// assert_eq!(lines.offset(), 8);
/// assert_eq!(lines.torn(), Some(&b"to"[..]));
/// ```
#[derive(Clone, Debug)]
pub struct Lines {
    cap: usize,
    /// The front of a line whose LF did not come yet; at most `cap` bytes.
    kept: Vec<u8>,
    /// Whether `kept` was given out as a line and is to be emptied.
    given: bool,
    /// Bytes of the line so far; more than `kept` holds when it is too long.
    len: u64,
    offset: u64,
}

impl Lines {
    /// For lines up to `cap` bytes; `CAST_LINE_BYTES` in `limits` is the usual cap.
    #[must_use]
    pub const fn new(cap: usize) -> Self {
        Self { cap, kept: Vec::new(), given: false, len: 0, offset: 0 }
    }

    /// The next line, taking its bytes off the front of `input`. None: `input` is empty and its rest is kept.
    pub fn next<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8]) -> Option<Line<'s>> {
        if self.given {
            self.given = false;
            self.kept.clear();
        }
        let end = memchr::memchr(b'\n', input);
        let (piece, rest) = input.split_at_checked(end.unwrap_or(input.len()))?;
        let before = self.len;
        self.len = before.saturating_add(piece.len() as u64);
        let fits = self.len <= self.cap as u64;
        let Some((_, rest)) = rest.split_first() else {
            *input = rest;
            if fits {
                self.kept.extend_from_slice(piece);
            } else {
                self.kept = Vec::new();
            }
            return None;
        };
        *input = rest;
        let len = core::mem::take(&mut self.len);
        self.offset = self.offset.saturating_add(len).saturating_add(1);
        if !fits {
            self.kept = Vec::new();
            return Some(Line::TooLong(len));
        }
        if before == 0 {
            return Some(Line::Whole(piece));
        }
        self.kept.extend_from_slice(piece);
        self.given = true;
        Some(Line::Whole(&self.kept))
    }

    /// Position of the first byte behind the last line that [`Lines::next`] gave.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// At the end of the input: the last line when it lacks its LF (empty when it is past the cap).
    #[must_use]
    pub fn torn(&self) -> Option<&[u8]> {
        (self.len > 0).then_some(&self.kept)
    }
}

/// Reads an event line, with or without its LF.
///
/// Lenient: any space, any form of number, null for a time of 0 or for no data, more than three elements, lone surrogates, raw control
/// characters and bytes that are not UTF-8 in strings.
///
/// # Errors
/// When it is not an array that begins with a time and a code.
pub fn parse_event(line: &[u8]) -> Result<Event<'_>, DecodeError> {
    let mut at = Parser { rest: line };
    event(&mut at).ok_or(DecodeError::NotAnEvent)
}

fn event<'a>(at: &mut Parser<'a>) -> Option<Event<'a>> {
    at.expect(b'[')?;
    let time = match at.value()? {
        Json::Other(b"null") => Span(0),
        Json::Other(number) => parse_time(number)?,
        Json::Text(_) => return None,
    };
    at.expect(b',')?;
    let code = match at.value()? {
        Json::Text(code) => match *code.as_bytes() {
            [letter] => letter,
            _ => 0,
        },
        Json::Other(_) => return None,
    };
    let mut data = Cow::Borrowed("");
    match at.token()? {
        b',' => {
            data = match at.value()? {
                Json::Text(text) => text,
                Json::Other(b"null") => Cow::Borrowed(""),
                Json::Other(json) => String::from_utf8_lossy(json),
            };
            // Whatever follows belongs to a later version of the format; only the end is looked for.
            while at.token()? == b',' {
                at.value()?;
            }
        }
        b']' => {}
        _ => return None,
    }
    at.rest.trim_ascii().is_empty().then_some(Event { time, code, data })
}

/// Microseconds out of a JSON number of seconds.
fn parse_time(number: &[u8]) -> Option<Span> {
    let seconds: f64 = core::str::from_utf8(number).ok()?.parse().ok()?;
    // The cast saturates: below zero is 0, and so is what is not a number.
    Some(Span((seconds * 1e6 + 0.5) as u64))
}

/// One JSON value.
enum Json<'a> {
    Text(Cow<'a, str>),
    /// Anything but a string, as it stands.
    Other(&'a [u8]),
}

struct Parser<'a> {
    rest: &'a [u8],
}

impl<'a> Parser<'a> {
    /// The next byte that is not space.
    fn token(&mut self) -> Option<u8> {
        let (&byte, rest) = self.rest.trim_ascii_start().split_first()?;
        self.rest = rest;
        Some(byte)
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.token()? == byte).then_some(())
    }

    fn value(&mut self) -> Option<Json<'a>> {
        self.rest = self.rest.trim_ascii_start();
        if let Some((b'"', rest)) = self.rest.split_first() {
            self.rest = rest;
            return Some(Json::Text(unescape(self.string()?)));
        }
        // Brackets are counted, not nested: depth costs nothing.
        let start = self.rest;
        let mut depth = 0_usize;
        loop {
            match *self.rest.first()? {
                b'"' => {
                    self.rest = self.rest.get(1..)?;
                    self.string()?;
                    continue;
                }
                b'[' | b'{' => depth = depth.saturating_add(1),
                b',' | b']' | b'}' if depth == 0 => break,
                b']' | b'}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            self.rest = self.rest.get(1..)?;
        }
        let value = start.get(..start.len().saturating_sub(self.rest.len()))?.trim_ascii();
        (!value.is_empty()).then_some(Json::Other(value))
    }

    /// The content of a string whose first quote is taken, and takes its last.
    fn string(&mut self) -> Option<&'a [u8]> {
        let start = self.rest;
        loop {
            let at = memchr::memchr2(b'"', b'\\', self.rest)?;
            let (&found, rest) = self.rest.get(at..)?.split_first()?;
            self.rest = rest;
            if found == b'"' {
                return start.get(..start.len().saturating_sub(rest.len()).saturating_sub(1));
            }
            self.rest = rest.get(1..)?;
        }
    }
}

/// The text behind a JSON string's content.
fn unescape(content: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(content);
    if !content.contains(&b'\\') {
        return text;
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = &*text;
    while let Some((plain, escape)) = rest.split_once('\\') {
        out.push_str(plain);
        let mut chars = escape.chars();
        rest = match chars.next() {
            Some('u') => unescape_unit(chars.as_str(), &mut out),
            Some(c) => {
                out.push(match c {
                    'b' => '\x08',
                    'f' => '\x0c',
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    other => other,
                });
                chars.as_str()
            }
            None => "",
        };
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// What follows `\u`; gives the rest behind it, and behind a second unit that makes a pair.
fn unescape_unit<'a>(text: &'a str, out: &mut String) -> &'a str {
    let unit = |text: &str| {
        let digits = text.get(..4).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))?;
        u32::from_str_radix(digits, 16).ok()
    };
    let Some(first) = unit(text) else {
        out.push(char::REPLACEMENT_CHARACTER);
        return text;
    };
    let rest = text.get(4..).unwrap_or_default();
    let second = match first {
        0xd800..=0xdbff => rest.strip_prefix("\\u").and_then(unit),
        _ => None,
    };
    if let Some(second @ 0xdc00..=0xdfff) = second {
        // The pair counts from U+10000.
        let pair = char::from_u32((first & 0x3ff).wrapping_add(0x40) << 10 | second & 0x3ff);
        if let Some(c) = pair {
            out.push(c);
            return rest.get(6..).unwrap_or_default();
        }
    }
    out.push(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER));
    rest
}

/// Reads the data of an `r` event as (columns, rows); see [`super::Header::rows_first`].
#[must_use]
pub fn parse_size(data: &str, rows_first: bool) -> Option<(u16, u16)> {
    let (first, second) = data.trim().split_once(['x', 'X'])?;
    let (first, second) = (first.parse().ok()?, second.parse().ok()?);
    Some(if rows_first { (second, first) } else { (first, second) })
}

/// A size from a file, made safe to build a screen of: 1 to 1,000 each way.
#[must_use]
pub fn clamp_size(cols: u16, rows: u16) -> (u16, u16) {
    (cols.clamp(1, 1_000), rows.clamp(1, 1_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines or the length of long ones, the torn line, the offset.
    type Found = (Vec<Result<Vec<u8>, u64>>, Option<Vec<u8>>, u64);

    fn all(pieces: &[&[u8]], cap: usize) -> Found {
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
            assert!(piece.is_empty());
        }
        (found, lines.torn().map(<[u8]>::to_vec), lines.offset())
    }

    #[test]
    fn lines_come_out_the_same_however_they_come_in() {
        let text = b"first\n\nsecond line\nthe longest of all lines\n\nx\ntorn";
        let whole = all(&[text], 12);
        assert_eq!(whole.0[2], Ok(b"second line".to_vec()));
        assert_eq!(whole.0[3], Err(24));
        assert_eq!(whole.1.as_deref(), Some(&b"torn"[..]));
        assert_eq!(whole.2, 47);
        for a in 0..text.len() {
            for b in a..text.len() {
                assert_eq!(all(&[&text[..a], &text[a..b], &text[b..]], 12), whole, "{a} {b}");
            }
        }
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(all(&bytes, 12), whole);
        assert_eq!(all(&[b"longer than the cap"], 3), (vec![], Some(vec![]), 0));
        assert_eq!(all(&[b"a\n"], 3).1, None);
    }

    #[test]
    fn events_of_all_kinds_of_writers() {
        for (line, time, code, data) in [
            (&b"[1.234567,\"o\",\"hi\\r\\n\"]\n"[..], 1_234_567, b'o', "hi\r\n"),
            (b" [ 1e-7 , \"o\" , \"\" ] ", 0, b'o', ""),
            (
                b"[0.456997416,\"o\",\"\\u003c\\u2028\\ud83d\\ude00\\/\"]",
                456_997,
                b'o',
                "<\u{2028}\u{1f600}/",
            ),
            (b"[1.6682777500000001,\"o\",\"x\"]", 1_668_278, b'o', "x"),
            (b"[12,\"r\",\"80x24\"]", 12_000_000, b'r', "80x24"),
            (b"[null,\"o\",null]", 0, b'o', ""),
            (b"[1e300,\"o\",\"x\"]", u64::MAX, b'o', "x"),
            (b"[-5,\"x\",\"0\"]", 0, b'x', "0"),
            (b"[1,\"raw\",\"x\"]", 1_000_000, 0, "x"),
            (b"[1,\"\",\"x\"]", 1_000_000, 0, "x"),
            (b"[1,\"k\",{\"a\":[1,\"]\\\"\",{}]},5]", 1_000_000, b'k', "{\"a\":[1,\"]\\\"\",{}]}"),
            (b"[1,\"o\"]", 1_000_000, b'o', ""),
            (
                b"[1,\"o\",\"\\ud83dx\\u12\\q\xff\x01\"]",
                1_000_000,
                b'o',
                "\u{fffd}x\u{fffd}12q\u{fffd}\x01",
            ),
        ] {
            let event = parse_event(line).unwrap_or_else(|e| panic!("{line:?} {e}"));
            assert_eq!(
                (event.time, event.code, &*event.data),
                (Span(time), code, data),
                "{line:?}"
            );
        }
    }

    #[test]
    fn what_is_no_event_is_refused() {
        for line in [
            "",
            "[",
            "[]",
            "{}",
            "[1",
            "[1,",
            "[1,\"o\"",
            "[1,\"o\",",
            "[1,\"o\",\"x",
            "[1,\"o\",\"x\"",
            "[1,\"o\",\"x\\\"]",
            "[\"1\",\"o\",\"x\"]",
            "[x,\"o\",\"x\"]",
            "[1,2,\"x\"]",
            "[1,\"o\",\"x\"]x",
            "[1 \"o\" \"x\"]",
            "[1,\"o\",[]",
        ] {
            assert_eq!(parse_event(line.as_bytes()), Err(DecodeError::NotAnEvent), "{line}");
        }
        // Depth costs no stack.
        assert!(parse_event(format!("[1,\"o\",{}", "[".repeat(1 << 20)).as_bytes()).is_err());
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("80x24", false), Some((80, 24)));
        assert_eq!(parse_size("24x80", true), Some((80, 24)));
        for bad in ["", "x", "80", "80x", "x24", "-1x2", "70000x1", "80x24x3"] {
            assert_eq!(parse_size(bad, false), None, "{bad}");
        }
        assert_eq!(clamp_size(0, 65_535), (1, 1_000));
    }
}
