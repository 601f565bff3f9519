//! Event lines out of terminal bytes: the hot path.

use super::label;
use crate::{
    limits::{EVENT_INPUT_BYTES, MARKER_BYTES, RING_MIN_BYTES},
    time::Span,
};

/// Which of the program's outputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    /// Standard output, or the terminal.
    #[default]
    Stdout,
    /// Standard error of a program without a terminal.
    Stderr,
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus<'a> {
    /// With this code.
    Code(i32),
    /// By a signal: its name, with or without `SIG`.
    Signal(&'a str),
}

/// What a call of [`Encoder::output`] or [`Encoder::input`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    /// Bytes taken from the front of the data.
    pub taken: usize,
    /// Bytes written to the front of `out`: whole lines, possibly none.
    pub written: usize,
}

/// Most bytes that encoding `input` bytes of data can write: switch marker, event and side event, carried bytes included.
///
/// With that much room in `out`, [`Encoder::output`] takes all `input` bytes, up to `EVENT_INPUT_BYTES`; past that the bound is that of
/// several calls.
#[must_use]
pub const fn worst_case_bytes(input: usize) -> usize {
    let full = input / EVENT_INPUT_BYTES;
    let rest = input % EVENT_INPUT_BYTES;
    let rest = if rest == 0 && full > 0 { 0 } else { event_bound(rest) };
    full.saturating_mul(event_bound(EVENT_INPUT_BYTES)).saturating_add(rest)
}

/// Most bytes that one call of `flush`, `resize`, `marker`, `gap` or `exit` can write.
pub const CONTROL_EVENT_BYTES: usize =
    // The tails of three streams, then a marker and an event, or the longest marker alone.
    3 * event_bound(0) + LINE_BYTES + ESCAPE_BYTES * MARKER_BYTES + LINE_BYTES + NUMBER_BYTES;

/// The bound for one event of at most `EVENT_INPUT_BYTES`.
const fn event_bound(input: usize) -> usize {
    let bytes = input.saturating_add(TAIL_BYTES);
    let switch = LINE_BYTES + label::STDERR.len();
    let event = LINE_BYTES.saturating_add(bytes.saturating_mul(ESCAPE_BYTES));
    let side = (LINE_BYTES + NUMBER_BYTES).saturating_add(bytes.div_ceil(3).saturating_mul(4));
    switch.saturating_add(event).saturating_add(side)
}

/// `[`, seconds of a u64 of microseconds, `,"o","`, `"]` and LF.
const LINE_BYTES: usize = 1 + 21 + 6 + 3;

/// What one byte of input can become: `\u001b`.
const ESCAPE_BYTES: usize = 6;

/// A `b` event's position and colon, a size, an exit status.
const NUMBER_BYTES: usize = 12;

/// Bytes of an incomplete UTF-8 sequence.
const TAIL_BYTES: usize = 3;

// Two events always fit the smallest ring, so that one can be written while the other waits for its commit.
const _: () = assert!(worst_case_bytes(EVENT_INPUT_BYTES) <= RING_MIN_BYTES / 2);

/// Turns terminal bytes into event lines. Allocates nothing, ever.
#[derive(Clone, Copy, Debug, Default)]
pub struct Encoder {}

impl Encoder {
    /// At the start of a recording.
    #[must_use]
    pub const fn new() -> Self {
        Self {}
    }

    /// Encodes a prefix of `data`, output of the program at time `t` since the session's start, as one event.
    ///
    /// Takes at most `EVENT_INPUT_BYTES`, and less when `out` is smaller than [`worst_case_bytes`] of that. The first bytes of a
    /// UTF-8 sequence that ends behind `data` are kept for the next call. A change of stream writes its marker first.
    pub fn output(&mut self, t: Span, stream: Stream, data: &[u8], out: &mut [u8]) -> Encoded {
        todo!("{t:?} {stream:?} {data:?} {out:?}")
    }

    /// Encodes a prefix of `data`, typed by the user, as [`Encoder::output`] does.
    pub fn input(&mut self, t: Span, data: &[u8], out: &mut [u8]) -> Encoded {
        todo!("{t:?} {data:?} {out:?}")
    }

    /// Writes the bytes that waited for the rest of their UTF-8 sequence. 0: nothing waited, or `out` is too small.
    pub fn flush(&mut self, t: Span, out: &mut [u8]) -> usize {
        todo!("{t:?} {out:?}")
    }

    /// Writes a change of size, flushing first. 0: `out` is too small and nothing changed.
    pub fn resize(&mut self, t: Span, cols: u16, rows: u16, out: &mut [u8]) -> usize {
        todo!("{t:?} {cols} {rows} {out:?}")
    }

    /// Writes a marker, flushing first; a label past `MARKER_BYTES` is cut. 0: `out` is too small and nothing changed.
    pub fn marker(&mut self, t: Span, label: &str, out: &mut [u8]) -> usize {
        todo!("{t:?} {label} {out:?}")
    }

    /// Writes the marker for `bytes` bytes of output that were not recorded over `ms` milliseconds, as [`Encoder::marker`] does.
    pub fn gap(&mut self, t: Span, bytes: u64, ms: u64, out: &mut [u8]) -> usize {
        todo!("{t:?} {bytes} {ms} {out:?}")
    }

    /// Writes the last event, flushing first. 0: `out` is too small and nothing changed.
    pub fn exit(&mut self, t: Span, status: ExitStatus<'_>, out: &mut [u8]) -> usize {
        todo!("{t:?} {status:?} {out:?}")
    }

    /// Whether bytes wait for the rest of their UTF-8 sequence: [`Encoder::flush`] is due `UTF8_TAIL_WAIT` after the last output.
    #[must_use]
    pub const fn has_tail(&self) -> bool {
        todo!()
    }
}
