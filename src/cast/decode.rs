//! Reading casts that anybody wrote.

use alloc::{borrow::Cow, vec::Vec};
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
    kept: Vec<u8>,
}

impl Lines {
    /// For lines up to `cap` bytes; `CAST_LINE_BYTES` in `limits` is the usual cap.
    #[must_use]
    pub const fn new(cap: usize) -> Self {
        Self { cap, kept: Vec::new() }
    }

    /// The next line, taking its bytes off the front of `input`. None: `input` is empty and its rest is kept.
    pub fn next<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8]) -> Option<Line<'s>> {
        todo!("{input:?} {} {:?}", self.cap, self.kept)
    }

    /// Position of the first byte behind the last line that [`Lines::next`] gave.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        todo!()
    }

    /// At the end of the input: the last line when it lacks its LF (what of it was kept; empty past the cap).
    #[must_use]
    pub fn torn(&self) -> Option<&[u8]> {
        todo!()
    }
}

/// Reads an event line, with or without its LF.
///
/// # Errors
/// When it is not an array that begins with a time and a code.
pub fn parse_event(line: &[u8]) -> Result<Event<'_>, DecodeError> {
    todo!("{line:?}")
}

/// Reads the data of an `r` event as (columns, rows); see [`super::Header::rows_first`].
#[must_use]
pub fn parse_size(data: &str, rows_first: bool) -> Option<(u16, u16)> {
    todo!("{data} {rows_first}")
}

/// A size from a file, made safe to build a screen of: 1 to 1,000 each way.
#[must_use]
pub fn clamp_size(cols: u16, rows: u16) -> (u16, u16) {
    (cols.clamp(1, 1_000), rows.clamp(1, 1_000))
}
