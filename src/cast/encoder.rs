//! Event lines out of terminal bytes: the hot path.

use super::{
    base64, label, scan,
    utf8::{self, Step},
};
use crate::{
    limits::{EVENT_INPUT_BYTES, MARKER_BYTES, RING_MIN_BYTES},
    space,
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

impl Stream {
    /// As markers name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
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
    3 * event_bound(0)
        + LINE_BYTES
        + ESCAPE_BYTES * MARKER_BYTES
        + LINE_BYTES
        + NUMBER_BYTES
        + scan::SPARE;

/// The bound for one event of at most `EVENT_INPUT_BYTES`.
const fn event_bound(input: usize) -> usize {
    let bytes = input.saturating_add(TAIL_BYTES);
    let switch = LINE_BYTES.saturating_add(label::STDERR.len());
    let event = LINE_BYTES.saturating_add(bytes.saturating_mul(ESCAPE_BYTES));
    let side = (LINE_BYTES + NUMBER_BYTES).saturating_add(bytes.div_ceil(3).saturating_mul(4));
    switch.saturating_add(event).saturating_add(side)
}

/// Turns terminal bytes into event lines. Allocates nothing, ever.
///
/// ```
/// # use castkeep::{cast::{Encoder, Stream}, time::Span};
/// let mut encoder = Encoder::new();
/// let mut out = [0; 256];
/// let done = encoder.output(Span::from_ms(1500), Stream::Stdout, b"hello\r\n", &mut out);
/// assert_eq!(done.taken, 7);
/// assert_eq!(&out[..done.written], b"[1.500000,\"o\",\"hello\\r\\n\"]\n");
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Encoder {
    /// Time of the last event; no later one is below it.
    last: u64,
    /// What the reader takes `o` events for.
    current: Stream,
    stdout: Tail,
    stderr: Tail,
    input: Tail,
}

impl Encoder {
    /// At the start of a recording.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            last: 0,
            current: Stream::Stdout,
            stdout: Tail::EMPTY,
            stderr: Tail::EMPTY,
            input: Tail::EMPTY,
        }
    }

    /// Encodes a prefix of `data`, output of the program at time `t` since the session's start, as one event.
    ///
    /// Takes at most `EVENT_INPUT_BYTES`, and less when `out` is smaller than [`worst_case_bytes`] of that. The first bytes of a
    /// UTF-8 sequence that ends behind `data` are kept for the next call, so nothing may be written although bytes were
    /// taken. A change of stream writes its marker first.
    pub fn output(&mut self, t: Span, stream: Stream, data: &[u8], out: &mut [u8]) -> Encoded {
        self.event(t, Lane::Output(stream), data, out)
    }

    /// Encodes a prefix of `data`, typed by the user, as [`Encoder::output`] does.
    pub fn input(&mut self, t: Span, data: &[u8], out: &mut [u8]) -> Encoded {
        self.event(t, Lane::Input, data, out)
    }

    /// Writes the bytes that waited for the rest of their UTF-8 sequence. 0: nothing waited, or `out` is too small.
    pub fn flush(&mut self, t: Span, out: &mut [u8]) -> usize {
        self.whole(t, out, |_, _| {})
    }

    /// Writes a change of size, flushing first. 0: `out` is too small and nothing changed.
    pub fn resize(&mut self, t: Span, cols: u16, rows: u16, out: &mut [u8]) -> usize {
        self.whole(t, out, |line, time| {
            line.begin(time, b'r');
            line.number(cols.into());
            line.put(b"x");
            line.number(rows.into());
            line.end();
        })
    }

    /// Writes a marker, flushing first; a label past `MARKER_BYTES` is cut. 0: `out` is too small and nothing changed.
    pub fn marker(&mut self, t: Span, label: &str, out: &mut [u8]) -> usize {
        self.whole(t, out, |line, time| line.marker(time, cut(label, MARKER_BYTES)))
    }

    /// Writes the marker for `bytes` bytes of output that were not recorded over `ms` milliseconds, as [`Encoder::marker`] does.
    pub fn gap(&mut self, t: Span, bytes: u64, ms: u64, out: &mut [u8]) -> usize {
        self.whole(t, out, |line, time| {
            line.begin_gap(time, bytes, ms);
            line.end();
        })
    }

    /// Writes that from here on this stream is counted and not recorded, as [`Encoder::marker`] does.
    pub fn capped(&mut self, t: Span, stream: Stream, after: u64, out: &mut [u8]) -> usize {
        self.whole(t, out, |line, time| {
            line.begin(time, b'm');
            line.put(label::CAPPED.as_bytes());
            line.put(b"stream=");
            line.put(stream.name().as_bytes());
            line.put(b" after=");
            line.number(after);
            line.end();
        })
    }

    /// Writes the marker for what [`Encoder::capped`] left out of a stream, as [`Encoder::gap`] does.
    pub fn left_out(
        &mut self,
        t: Span,
        stream: Stream,
        bytes: u64,
        ms: u64,
        sha256: &[u8; 32],
        out: &mut [u8],
    ) -> usize {
        self.whole(t, out, |line, time| {
            line.begin_gap(time, bytes, ms);
            line.put(b" sha256=");
            for byte in sha256 {
                line.put(&[hex_digit(byte >> 4), hex_digit(byte & 15)]);
            }
            line.put(b" stream=");
            line.put(stream.name().as_bytes());
            line.end();
        })
    }

    /// Writes the last event, flushing first. 0: `out` is too small and nothing changed.
    ///
    /// A signal is written as shells report it, 128 and its number, behind a marker with its name.
    pub fn exit(&mut self, t: Span, status: ExitStatus<'_>, out: &mut [u8]) -> usize {
        self.whole(t, out, |line, time| {
            let code = match status {
                ExitStatus::Code(code) => code,
                ExitStatus::Signal(name) => {
                    let name = cut(name.strip_prefix("SIG").unwrap_or(name), SIGNAL_NAME_BYTES);
                    line.begin(time, b'm');
                    line.put(label::SIGNAL.as_bytes());
                    line.text(name);
                    line.end();
                    128_i32.saturating_add(signal_number(name))
                }
            };
            line.begin(time, b'x');
            if code < 0 {
                line.put(b"-");
            }
            line.number(code.unsigned_abs().into());
            line.end();
        })
    }

    /// Encodes a prefix of `data`; see [`Encoder::output`].
    fn event(&mut self, t: Span, lane: Lane, data: &[u8], out: &mut [u8]) -> Encoded {
        let time = t.0.max(self.last);
        let carried = *self.tail(lane);
        let data = data.get(..EVENT_INPUT_BYTES).unwrap_or(data);
        if data.is_empty() || out.len() < event_bound(1) {
            return Encoded::default();
        }
        let mut line = Cursor::new(out);
        match lane {
            Lane::Output(stream) if stream != self.current => line.marker(time, marker_of(stream)),
            _ => {}
        }
        line.begin(time, lane.code());
        let start = line.at;
        let mut text =
            Text { carried, raw_len: carried.bytes().len(), taken: 0, len: 0, bad: None };
        text.resume(data, &mut line);
        // A piece is what fits even if every byte needs the longest escape and a side event. Ordinary text is done in one
        // piece; in a small buffer it takes some, each a part of the room that the one before left.
        let open = loop {
            let before = text.taken;
            let rest = data.get(text.taken..).unwrap_or_default();
            let piece = rest.get(..text.fitting(line.free())).unwrap_or(rest);
            let open = text.encode(piece, &mut line);
            if text.taken == before {
                break open;
            }
        };
        let encoded = data.get(..text.taken).unwrap_or_default();
        let front = data.get(text.taken..text.taken.saturating_add(open)).unwrap_or_default();
        let mut tail = text.carried;
        let done = Encoded { taken: text.taken.saturating_add(tail.extend(front)), written: 0 };
        if line.at == start {
            *self.tail(lane) = tail;
            return done;
        }
        line.end();
        if let Some(bad) = text.bad {
            line.side_event(time, bad, carried.bytes(), encoded);
        }
        if line.overflow {
            // Cannot be: the pieces were chosen so that everything fits. Nothing is lost even so.
            debug_assert!(false, "event past its bound");
            return Encoded::default();
        }
        let written = line.at;
        *self.tail(lane) = tail;
        self.last = time;
        if let Lane::Output(stream) = lane {
            self.current = stream;
        }
        Encoded { written, ..done }
    }

    /// Flushes, then lets `write` add its lines: all of it or nothing.
    fn whole(
        &mut self,
        t: Span,
        out: &mut [u8],
        write: impl FnOnce(&mut Cursor<'_>, u64),
    ) -> usize {
        let mut next = *self;
        next.last = t.0.max(self.last);
        let mut line = Cursor::new(out);
        next.flush_into(&mut line);
        write(&mut line, next.last);
        if line.overflow {
            return 0;
        }
        let written = line.at;
        if written > 0 {
            *self = next;
        }
        written
    }

    fn flush_into(&mut self, line: &mut Cursor<'_>) {
        let other = match self.current {
            Stream::Stdout => Stream::Stderr,
            Stream::Stderr => Stream::Stdout,
        };
        for lane in [Lane::Output(self.current), Lane::Output(other), Lane::Input] {
            let tail = core::mem::take(self.tail(lane));
            if tail.len == 0 {
                continue;
            }
            if lane == Lane::Output(other) {
                line.marker(self.last, marker_of(other));
                self.current = other;
            }
            line.begin(self.last, lane.code());
            line.put(REPLACEMENT);
            line.end();
            line.side_event(self.last, Bad { position: 0, raw: 0 }, tail.bytes(), &[]);
        }
    }

    const fn tail(&mut self, lane: Lane) -> &mut Tail {
        match lane {
            Lane::Output(Stream::Stdout) => &mut self.stdout,
            Lane::Output(Stream::Stderr) => &mut self.stderr,
            Lane::Input => &mut self.input,
        }
    }

    /// Whether bytes wait for the rest of their UTF-8 sequence: [`Encoder::flush`] is due `UTF8_TAIL_WAIT` after the last output.
    #[must_use]
    pub const fn has_tail(&self) -> bool {
        self.stdout.len > 0 || self.stderr.len > 0 || self.input.len > 0
    }
}

/// Where bytes come from: each lane has its own UTF-8 state.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lane {
    Input,
    Output(Stream),
}

impl Lane {
    const fn code(self) -> u8 {
        match self {
            Self::Input => b'i',
            Self::Output(_) => b'o',
        }
    }
}

/// The front of a UTF-8 sequence whose rest did not come yet.
#[derive(Clone, Copy, Debug, Default)]
struct Tail {
    bytes: [u8; TAIL_BYTES],
    /// 0 <= len <= TAIL_BYTES
    len: u8,
}

impl Tail {
    const EMPTY: Self = Self { bytes: [0; TAIL_BYTES], len: 0 };

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// Adds what fits of `more`; how many bytes that were.
    fn extend(&mut self, more: &[u8]) -> usize {
        let mut added = 0_usize;
        for (slot, byte) in self.bytes.iter_mut().skip(usize::from(self.len)).zip(more) {
            *slot = *byte;
            added = added.saturating_add(1);
        }
        self.len = self.len.saturating_add(added as u8);
        added
    }
}

/// The first invalid byte of an event.
#[derive(Clone, Copy)]
struct Bad {
    /// Its place in the text, in bytes.
    position: usize,
    /// Its place in the bytes of the event, the carried ones first.
    raw: usize,
}

/// The text of the event being written.
struct Text {
    /// What the lane carried and is not in the text.
    carried: Tail,
    /// Bytes that the text stands for, what the lane carried included.
    raw_len: usize,
    /// Bytes of the data that the text stands for.
    taken: usize,
    /// Length of the text as a reader will decode it.
    len: usize,
    bad: Option<Bad>,
}

impl Text {
    /// Puts what was carried together with the front of `data`.
    fn resume(&mut self, data: &[u8], line: &mut Cursor<'_>) {
        let before = self.carried.bytes().len();
        if before == 0 {
            return;
        }
        let mut sequence = [0; TAIL_BYTES + 1];
        let mut filled = 0_usize;
        for (slot, byte) in sequence.iter_mut().zip(self.carried.bytes().iter().chain(data)) {
            *slot = *byte;
            filled = filled.saturating_add(1);
        }
        let sequence = sequence.get(..filled).unwrap_or_default();
        let used = match utf8::step(sequence) {
            Step::Incomplete => {
                self.taken = self.carried.extend(data);
                return;
            }
            Step::Invalid(n) => {
                self.bad = Some(Bad { position: 0, raw: 0 });
                self.replace(line);
                n
            }
            Step::Valid(n) => {
                line.put(sequence.get(..n).unwrap_or_default());
                self.len = n;
                n
            }
        };
        // What was carried is the front of a sequence, so whatever is wrong with it comes behind.
        self.taken = used.saturating_sub(before);
        self.raw_len = used;
        self.carried = Tail::EMPTY;
    }

    /// Appends a piece; gives how many bytes at its end are the front of a sequence and were not taken.
    fn encode(&mut self, piece: &[u8], line: &mut Cursor<'_>) -> usize {
        let (taken, written) = scan::escape::<true>(piece, line.room());
        line.at = line.at.saturating_add(written);
        self.len = self.len.saturating_add(taken);
        let mut rest = piece.get(taken..).unwrap_or_default();
        let mut open = 0;
        // From the first byte on that is not ASCII, std's validation says how far the text is good; it is fast on ASCII too.
        while !rest.is_empty() {
            let (valid, bad) = match core::str::from_utf8(rest) {
                Ok(_) => (rest.len(), Some(0)),
                Err(error) => (error.valid_up_to(), error.error_len()),
            };
            let good = rest.get(..valid).unwrap_or_default();
            let (taken, written) = scan::escape::<false>(good, line.room());
            line.at = line.at.saturating_add(written);
            self.len = self.len.saturating_add(taken);
            rest = rest.get(taken..).unwrap_or_default();
            if taken < valid {
                // The room has ended, which `fitting` excludes.
                break;
            }
            let Some(bad) = bad else {
                open = rest.len();
                break;
            };
            if bad > 0 {
                let raw = self.raw_len.saturating_add(piece.len().saturating_sub(rest.len()));
                self.bad.get_or_insert(Bad { position: self.len, raw });
                self.replace(line);
                rest = rest.get(bad..).unwrap_or_default();
            }
        }
        let done = piece.len().saturating_sub(rest.len());
        self.taken = self.taken.saturating_add(done);
        self.raw_len = self.raw_len.saturating_add(done);
        open
    }

    /// How many bytes more fit into `free`, whatever they are.
    fn fitting(&self, free: usize) -> usize {
        let side = self.bad.map_or(0, |bad| self.raw_len.saturating_sub(bad.raw));
        // Three bytes are at most 18 of text and 4 of base64.
        free.saturating_sub(KEPT_BYTES)
            .saturating_sub(side.div_ceil(3).saturating_mul(4))
            .saturating_mul(3)
            .wrapping_div(3 * ESCAPE_BYTES + 4)
    }

    fn replace(&mut self, line: &mut Cursor<'_>) {
        line.put(REPLACEMENT);
        self.len = self.len.saturating_add(REPLACEMENT.len());
    }
}

/// Writes lines to the front of a buffer, and remembers when one did not fit.
struct Cursor<'a> {
    out: &'a mut [u8],
    /// 0 <= at <= out.len()
    at: usize,
    overflow: bool,
}

impl<'a> Cursor<'a> {
    const fn new(out: &'a mut [u8]) -> Self {
        Self { out, at: 0, overflow: false }
    }

    /// The marker for what is not in the recording, open at its end.
    fn begin_gap(&mut self, time: u64, bytes: u64, ms: u64) {
        self.begin(time, b'm');
        self.put(label::GAP.as_bytes());
        self.put(b"bytes=");
        self.number(bytes);
        self.put(b" ms=");
        self.number(ms);
    }

    fn begin(&mut self, time: u64, code: u8) {
        self.put(b"[");
        self.number(time / 1_000_000);
        let mut micros = *b".000000";
        let mut rest = time % 1_000_000;
        for digit in micros.iter_mut().skip(1).rev() {
            *digit = digit_of(rest);
            rest /= 10;
        }
        self.put(&micros);
        self.put(&[b',', b'"', code, b'"', b',', b'"']);
    }

    fn end(&mut self) {
        self.put(CLOSE);
    }

    fn marker(&mut self, time: u64, label: &str) {
        self.begin(time, b'm');
        self.text(label);
        self.end();
    }

    fn side_event(&mut self, time: u64, bad: Bad, head: &[u8], body: &[u8]) {
        self.begin(time, b'b');
        self.number(bad.position as u64);
        self.put(b":");
        let behind = bad.raw.saturating_sub(head.len());
        let head = head.get(bad.raw..).unwrap_or_default();
        let body = body.get(behind..).unwrap_or_default();
        match base64::encode(head, body, self.room()) {
            Some(written) => self.at = self.at.saturating_add(written),
            None => self.overflow = true,
        }
        self.end();
    }

    /// A string's content.
    fn text(&mut self, text: &str) {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let (taken, written) = scan::escape::<false>(rest, self.room());
            self.at = self.at.saturating_add(written);
            rest = rest.get(taken..).unwrap_or_default();
            if taken == 0 {
                self.overflow = true;
                return;
            }
        }
    }

    fn number(&mut self, number: u64) {
        let mut digits = [0; 20];
        let mut rest = number;
        let mut first = digits.len();
        for (at, digit) in digits.iter_mut().enumerate().rev() {
            *digit = digit_of(rest);
            rest /= 10;
            first = at;
            if rest == 0 {
                break;
            }
        }
        self.put(digits.get(first..).unwrap_or_default());
    }

    fn put(&mut self, bytes: &[u8]) {
        let end = self.at.saturating_add(bytes.len());
        match self.out.get_mut(self.at..end) {
            Some(slot) => {
                space::copy(slot, bytes);
                self.at = end;
            }
            None => self.overflow = true,
        }
    }

    fn room(&mut self) -> &mut [u8] {
        self.out.get_mut(self.at..).unwrap_or_default()
    }

    const fn free(&self) -> usize {
        self.out.len().saturating_sub(self.at)
    }
}

/// The lowest decimal digit.
const fn digit_of(number: u64) -> u8 {
    b'0' | (number % 10) as u8
}

const fn marker_of(stream: Stream) -> &'static str {
    match stream {
        Stream::Stdout => label::STDOUT,
        Stream::Stderr => label::STDERR,
    }
}

/// The front of a text, whole characters, at most `most` bytes.
fn cut(text: &str, most: usize) -> &str {
    if text.len() <= most {
        return text;
    }
    (0..=most).rev().find_map(|end| text.get(..end)).unwrap_or_default()
}

/// Number of a signal on Linux, by its name without `SIG`; 0 when unknown. Names come from the SSH protocol (RFC 4254 §6.10) as well.
fn signal_number(name: &str) -> i32 {
    match name {
        "HUP" => 1,
        "INT" => 2,
        "QUIT" => 3,
        "ILL" => 4,
        "TRAP" => 5,
        "ABRT" => 6,
        "BUS" => 7,
        "FPE" => 8,
        "KILL" => 9,
        "USR1" => 10,
        "SEGV" => 11,
        "USR2" => 12,
        "PIPE" => 13,
        "ALRM" => 14,
        "TERM" => 15,
        "STKFLT" => 16,
        "XCPU" => 24,
        "XFSZ" => 25,
        "VTALRM" => 26,
        "PROF" => 27,
        "IO" => 29,
        "PWR" => 30,
        "SYS" => 31,
        _ => 0,
    }
}

const CLOSE: &[u8] = b"\"]\n";

const fn hex_digit(value: u8) -> u8 {
    if value < 10 { b'0' | value } else { b'W'.wrapping_add(value) }
}

/// U+FFFD.
const REPLACEMENT: &[u8] = "\u{fffd}".as_bytes();

/// `[`, seconds of a u64 of microseconds, `,"o","`, `"]` and LF.
const LINE_BYTES: usize = 1 + 21 + 6 + 3;

/// What one byte of input can become: `\u001b`.
const ESCAPE_BYTES: usize = 6;

/// A `b` event's position and colon, a size, an exit status; the numbers of a gap are shorter than a marker.
const NUMBER_BYTES: usize = 12;

/// Room kept behind a text: its end, the side event but for its data, and the last group of that.
const KEPT_BYTES: usize = CLOSE.len() + LINE_BYTES + NUMBER_BYTES + 4;

/// Longest name of a signal: one of RFC 4254 can carry a domain.
const SIGNAL_NAME_BYTES: usize = 64;

/// Bytes of an incomplete UTF-8 sequence.
const TAIL_BYTES: usize = 3;

// Two events always fit the smallest ring, so that one can be written while the other waits for its commit.
const _: () = assert!(worst_case_bytes(EVENT_INPUT_BYTES) <= RING_MIN_BYTES / 2);

// What `escape_ascii` wants to spare is inside the room that is kept for the side event.
const _: () = assert!(scan::SPARE <= LINE_BYTES + NUMBER_BYTES);

#[cfg(test)]
#[path = "encoder_tests.rs"]
mod tests;
