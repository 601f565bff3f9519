//! The ring of encoded bytes between the encoder and the recorder (docs/protocol.md §3.6).
//!
//! ```text
//! start ≤ keep ≤ end,  end - keep ≤ capacity
//!   [start, keep)  may be sent again, may be overwritten
//!   [keep, end)    must be kept: nobody is known to have it
//! ```
//!
//! Behind the ring lies slack for what is written whole or not at all, so that the encoder always writes into one piece of
//! memory; what it writes past the end of the ring is copied to its beginning. An event of output need not fit: in front of the
//! end the encoder is given less, takes less of the input, and writes one event more.

use alloc::vec::Vec;

use memchr::{memchr, memrchr};

use crate::cast::{CONTROL_EVENT_BYTES, worst_case_bytes};
use crate::error::{Error, Misuse};
use crate::limits::{EVENT_INPUT_BYTES, HEADER_LINE_BYTES, RING_MAX_BYTES, RING_MIN_BYTES};
use crate::space;

/// Room that output never takes: one gap marker, what was left out of each of two streams, a size that waited, the terminated marker,
/// the exit event.
pub const RESERVE_BYTES: usize = 6 * CONTROL_EVENT_BYTES;

/// Longest piece that is written at a time.
pub const PIECE_BYTES: usize = worst_case_bytes(EVENT_INPUT_BYTES);

/// Memory behind the ring. Also more than the encoder leaves unused of a piece, so that the event that meets the end of the ring
/// passes it, or leaves more of its own bound unused than the next event needs for itself.
const SLACK_BYTES: usize = CONTROL_EVENT_BYTES;

/// What the end of the ring can cost: one event more, without data.
pub const TURN_BYTES: usize = worst_case_bytes(0) + 8;

const _: () = assert!(SLACK_BYTES >= 2 * TURN_BYTES && SLACK_BYTES <= PIECE_BYTES);
const _: () = assert!(2 * PIECE_BYTES <= RING_MIN_BYTES - SLACK_BYTES);
// The header, the reserve and a fair event fit together, so that a session always begins.
const _: () =
    assert!(HEADER_LINE_BYTES + RESERVE_BYTES + PIECE_BYTES / 2 <= RING_MIN_BYTES - SLACK_BYTES);

/// The ring.
#[derive(Debug)]
pub struct Window {
    /// `capacity + SLACK_BYTES` bytes, the whole of what the user gave; offset o of the stream lies at `o % capacity`.
    memory: Vec<u8>,
    capacity: usize,
    /// A line start.
    start: u64,
    /// A line start.
    keep: u64,
    end: u64,
}

impl Window {
    /// Reserves all memory of the ring.
    ///
    /// # Errors
    ///
    /// [`Error::Misuse`] for a size out of range, [`Error::NoMemory`].
    pub fn new(ring_bytes: usize) -> Result<Self, Error> {
        if !(RING_MIN_BYTES..=RING_MAX_BYTES).contains(&ring_bytes) {
            return Err(Error::Misuse(Misuse::BadParameter));
        }
        let capacity = ring_bytes.saturating_sub(SLACK_BYTES);
        let memory = space::zeros(ring_bytes)?;
        Ok(Self { memory, capacity, start: 0, keep: 0, end: 0 })
    }

    /// One piece of memory for the next bytes: at most `limit`, [`PIECE_BYTES`], what is free, and what lies in one piece. The last
    /// is at least [`CONTROL_EVENT_BYTES`].
    pub fn spare(&mut self, limit: usize) -> &mut [u8] {
        let at = self.position(self.end);
        let length = limit.min(PIECE_BYTES).min(self.free());
        let length = length.min(self.memory.len().saturating_sub(at));
        self.memory.get_mut(at..at.saturating_add(length)).unwrap_or_default()
    }

    /// The first `n` bytes of [`Window::spare`] were written: whole lines.
    pub fn advance(&mut self, n: usize) {
        let n = n.min(PIECE_BYTES).min(self.free());
        let at = self.position(self.end);
        let past = at.saturating_add(n).saturating_sub(self.capacity);
        if let Some((ring, slack)) = self.memory.split_at_mut_checked(self.capacity) {
            space::copy(ring, slack.get(..past).unwrap_or_default());
        }
        self.end = self.end.saturating_add(n as u64);
        self.forget_overwritten();
    }

    /// Copies whole lines into the ring. False: there is no room, nothing was written.
    pub fn append(&mut self, mut lines: &[u8]) -> bool {
        if lines.len() > self.free() {
            return false;
        }
        while !lines.is_empty() {
            let spare = self.spare(lines.len());
            let n = spare.len();
            let Some((now, later)) = lines.split_at_checked(n) else { return false };
            space::copy(spare, now);
            self.advance(n);
            lines = later;
        }
        true
    }

    /// Everything below `upto` need not be kept any more, up to its last line start.
    pub fn release(&mut self, upto: u64) {
        if upto > self.keep {
            self.keep = self.line_start(upto.min(self.end)).max(self.keep);
        }
    }

    /// Everything from `from` on must be kept again, because it is sent again. `from` is a line start that is still held.
    pub fn hold(&mut self, from: u64) {
        if (self.start..=self.keep).contains(&from) {
            self.keep = from;
        }
    }

    /// Bytes at `from`, as many as lie in one piece; empty at the end and for what is not held any more.
    #[must_use]
    pub fn bytes(&self, from: u64) -> &[u8] {
        if from < self.start || from >= self.end {
            return &[];
        }
        let at = self.position(from);
        let left = usize::try_from(self.end.saturating_sub(from)).unwrap_or(usize::MAX);
        let length = left.min(self.capacity.saturating_sub(at));
        self.memory.get(at..at.saturating_add(length)).unwrap_or_default()
    }

    /// The last line start at or below `offset`, not below the start of the ring.
    #[must_use]
    pub fn line_start(&self, offset: u64) -> u64 {
        let mut at = offset.min(self.end);
        while at > self.start {
            // The piece in front of `at`, back to the start of the ring's memory or of what is held.
            let here = match self.position(at) {
                0 => self.capacity,
                here => here,
            };
            let back = usize::try_from(at.saturating_sub(self.start)).unwrap_or(here).min(here);
            let piece = self.memory.get(here.saturating_sub(back)..here).unwrap_or_default();
            if let Some(lf) = memrchr(b'\n', piece) {
                let behind = back.saturating_sub(lf).saturating_sub(1);
                return at.saturating_sub(behind as u64);
            }
            if piece.is_empty() {
                break;
            }
            at = at.saturating_sub(piece.len() as u64);
        }
        self.start
    }

    /// The first line start at or above `offset`, where everything below `offset` may be gone.
    #[must_use]
    pub fn next_line_start(&self, offset: u64) -> u64 {
        let mut at = offset.max(self.start);
        if at == self.start {
            return at;
        }
        // The byte in front may be a LF that is still there.
        at = at.saturating_sub(1);
        self.line_behind(at)
    }

    /// Bytes that can be written.
    #[must_use]
    pub fn free(&self) -> usize {
        let used = usize::try_from(self.end.saturating_sub(self.keep)).unwrap_or(usize::MAX);
        self.capacity.saturating_sub(used)
    }

    /// The size of the ring.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// The oldest byte that can still be sent.
    #[must_use]
    pub const fn start(&self) -> u64 {
        self.start
    }

    /// The oldest byte that must be kept.
    #[must_use]
    pub const fn keep(&self) -> u64 {
        self.keep
    }

    /// The end of the stream so far.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.end
    }

    /// After writing: moves the start behind what was overwritten.
    fn forget_overwritten(&mut self) {
        let oldest = self.end.saturating_sub(self.capacity as u64);
        if self.start >= oldest {
            return;
        }
        if self.keep == oldest {
            self.start = oldest;
            return;
        }
        self.start = oldest;
        self.start = self.line_behind(oldest).min(self.keep);
    }

    /// The offset behind the first LF at or above `at`.
    fn line_behind(&self, mut at: u64) -> u64 {
        loop {
            let piece = self.bytes(at);
            if piece.is_empty() {
                return self.end;
            }
            if let Some(lf) = memchr(b'\n', piece) {
                return at.saturating_add(lf as u64).saturating_add(1);
            }
            at = at.saturating_add(piece.len() as u64);
        }
    }

    fn position(&self, offset: u64) -> usize {
        // The capacity is never 0, and the rest is below it.
        usize::try_from(offset.checked_rem(self.capacity as u64).unwrap_or(0)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(i: u64) -> Vec<u8> {
        let mut line = alloc::format!("{i:06} ").into_bytes();
        line.resize(10 + (i as usize * 7919) % 3000, b'x');
        line.push(b'\n');
        line
    }

    fn read(w: &Window, from: u64) -> Vec<u8> {
        let (mut at, mut out) = (from, Vec::new());
        while at < w.end() {
            let piece = w.bytes(at);
            assert!(!piece.is_empty());
            out.extend_from_slice(piece);
            at += piece.len() as u64;
        }
        out
    }

    #[test]
    fn what_is_kept_reads_back_over_many_turns() {
        let mut w = Window::new(RING_MIN_BYTES).unwrap();
        let (mut stream, mut commit) = (Vec::new(), 0u64);
        for i in 0..2000u64 {
            let l = line(i);
            while w.free() < l.len() {
                commit = (commit + 1 + (i * 31) % 5000).min(w.end());
                w.release(commit);
            }
            assert!(w.append(&l));
            stream.extend_from_slice(&l);
            assert_eq!(w.end(), stream.len() as u64);
            assert!(w.start() <= w.keep() && w.keep() <= commit.max(w.keep()));
            assert!(w.end() - w.start() <= w.capacity() as u64);
            for from in [w.start(), w.keep()] {
                assert_eq!(read(&w, from), stream[from as usize..], "from {from}");
                assert!(from == 0 || stream[from as usize - 1] == b'\n', "{from} is a line start");
            }
        }
    }

    #[test]
    fn release_stops_at_a_line_start() {
        let mut w = Window::new(RING_MIN_BYTES).unwrap();
        assert!(w.append(b"one\ntwo\nthree\n"));
        w.release(3);
        assert_eq!(w.keep(), 0);
        w.release(4);
        assert_eq!(w.keep(), 4);
        w.release(7);
        assert_eq!(w.keep(), 4);
        w.release(99);
        assert_eq!(w.keep(), 14);
        assert_eq!(w.line_start(9), 8);
        assert_eq!(w.next_line_start(9), 14);
        assert_eq!(w.next_line_start(8), 8);
        w.hold(4);
        assert_eq!((w.keep(), w.start()), (4, 0));
    }

    #[test]
    fn a_size_out_of_range_is_misuse() {
        assert!(Window::new(RING_MIN_BYTES - 1).is_err());
        assert!(Window::new(RING_MAX_BYTES + 1).is_err());
    }
}
