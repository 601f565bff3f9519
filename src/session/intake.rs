//! From what the host gives to bytes in the ring: encoding, what waits, what is counted instead of recorded.

use alloc::vec::Vec;

use super::volume::Volume;
use crate::cast::{Encoder, ExitStatus, Stream, label, worst_case_bytes};
use crate::error::{Error, bug};
use crate::limits::{EVENT_INPUT_BYTES, UTF8_TAIL_WAIT};
use crate::space;
use crate::time::{Span, Tick};
use crate::upload::marks::{Marks, Raw};
use crate::upload::window::{PIECE_BYTES, RESERVE_BYTES, TURN_BYTES, Window};

/// The encoder, the ring and what stands between them.
#[derive(Debug)]
pub(super) struct Intake {
    origin: Tick,
    encoder: Encoder,
    pub(super) window: Window,
    /// With release=commit.
    marks: Option<Marks>,
    /// Raw bytes taken.
    raw: Raw,
    /// Raw bytes that stand in the ring, carried UTF-8 tails left out.
    in_ring: Raw,
    /// When a carried tail is written as it is.
    tail_by: Option<Tick>,
    stall: Stall,
    /// Where only the beginning of each stream is recorded: standard output, standard error.
    volumes: Vec<Volume<Tick>>,
    cap_bytes: u64,
    /// Streams whose marker for that is still to be written.
    cap_untold: [bool; 2],
    /// A size for which there was no room.
    size: Option<(u16, u16)>,
    pub(super) unrecorded: u64,
    pub(super) gaps: u32,
}

/// Fail open and a full ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stall {
    /// Output is encoded.
    No,
    /// The ring is full since then; output waits.
    Full { since: Tick },
    /// Output is counted and not encoded.
    Counting { since: Tick, bytes: u64 },
}

impl Intake {
    pub(super) fn new(
        ring: usize,
        marks: bool,
        cap_bytes: Option<u64>,
        now: Tick,
    ) -> Result<Self, Error> {
        let mut volumes = Vec::new();
        for cap_bytes in STREAMS.iter().filter_map(|_| cap_bytes) {
            space::push(&mut volumes, Volume::new(cap_bytes))?;
        }
        Ok(Self {
            origin: now,
            encoder: Encoder::new(),
            window: Window::new(ring)?,
            marks: if marks { Some(Marks::new()?) } else { None },
            raw: Raw::default(),
            in_ring: Raw::default(),
            tail_by: None,
            stall: Stall::No,
            volumes,
            cap_bytes: cap_bytes.unwrap_or(u64::MAX),
            cap_untold: [false; 2],
            size: None,
            unrecorded: 0,
            gaps: 0,
        })
    }

    /// Puts the header line at the start of the stream.
    pub(super) fn begin(&mut self, header: &[u8]) -> Result<(), Error> {
        if self.window.end() != 0 || !self.window.append(header) {
            return Err(bug!("the header goes first and always fits"));
        }
        Ok(())
    }

    /// Encodes a prefix of `data`; its length. Of a stream that is past its cap all is taken and nothing encoded.
    pub(super) fn output(&mut self, now: Tick, stream: Stream, data: &[u8]) -> usize {
        let Some(volume) = self.volumes.get(index(stream)) else {
            return self.encode(now, stream, data);
        };
        let (within, beyond) =
            data.split_at_checked(volume.recordable(data.len())).unwrap_or_default();
        let taken = if within.is_empty() { 0 } else { self.encode(now, stream, within) };
        if let Some(volume) = self.volumes.get_mut(index(stream)) {
            volume.recorded(taken);
        }
        if taken < within.len() || beyond.is_empty() {
            return taken;
        }
        self.leave_out(now, stream, beyond);
        data.len()
    }

    /// Takes what policy leaves out of the recording. It may be shown when all that came before it may.
    fn leave_out(&mut self, now: Tick, stream: Stream, beyond: &[u8]) {
        if let Some(volume) = self.volumes.get_mut(index(stream)) {
            let first = volume.leave_out(beyond, now);
            if let Some(untold) = self.cap_untold.get_mut(index(stream)) {
                *untold |= first;
            }
        }
        self.unrecorded = self.unrecorded.saturating_add(beyond.len() as u64);
        self.write_caps(now);
        if self.is_held() {
            self.raw.add(stream, beyond.len());
            self.mark(now);
        } else {
            self.pass(stream, beyond.len());
            self.in_ring = self.raw;
        }
    }

    fn encode(&mut self, now: Tick, stream: Stream, data: &[u8]) -> usize {
        if let Stall::Counting { since, bytes } = self.stall {
            let bytes = bytes.saturating_add(data.len() as u64);
            self.stall = Stall::Counting { since, bytes };
            self.pass(stream, data.len());
            self.unrecorded = self.unrecorded.saturating_add(data.len() as u64);
            return data.len();
        }
        let t = now.since(self.origin);
        let mut taken = 0usize;
        while let Some(rest) = data.get(taken..).filter(|r| !r.is_empty()) {
            let limit = self.window.free().saturating_sub(RESERVE_BYTES);
            let done = self.encoder.output(t, stream, rest, self.window.spare(limit));
            self.window.advance(done.written);
            taken = taken.saturating_add(done.taken);
            if done.taken == 0 {
                break;
            }
        }
        self.raw.add(stream, taken);
        self.mark(now);
        self.watch_tail(now);
        taken
    }

    /// Bytes that are shown and go nowhere.
    pub(super) fn pass(&mut self, stream: Stream, n: usize) {
        self.raw.add(stream, n);
        if let Some(marks) = &mut self.marks {
            marks.all(self.raw);
        }
    }

    pub(super) fn input(&mut self, now: Tick, data: &[u8]) {
        let t = now.since(self.origin);
        let mut taken = 0usize;
        while let Some(rest) = data.get(taken..).filter(|r| !r.is_empty()) {
            let limit = self.window.free().saturating_sub(RESERVE_BYTES);
            let done = self.encoder.input(t, rest, self.window.spare(limit));
            self.window.advance(done.written);
            taken = taken.saturating_add(done.taken);
            if done.taken == 0 {
                break;
            }
        }
        self.watch_tail(now);
    }

    /// Writes a change of size, now or when there is room.
    pub(super) fn resize(&mut self, now: Tick, cols: u16, rows: u16) {
        self.size = Some((cols, rows));
        self.write_size(now, RESERVE_BYTES);
    }

    /// False: no room.
    pub(super) fn marker(&mut self, now: Tick, label: &str) -> bool {
        let t = now.since(self.origin);
        self.control(now, RESERVE_BYTES, |e, out| e.marker(t, label, out))
    }

    /// Everything that waits goes before the last words; these have room of their own.
    pub(super) fn terminated(&mut self, now: Tick) {
        self.settle(now);
        let t = now.since(self.origin);
        self.control(now, 0, |e, out| e.marker(t, label::TERMINATED, out));
    }

    /// See [`Intake::terminated`].
    pub(super) fn exit(&mut self, now: Tick, status: ExitStatus<'_>) {
        self.settle(now);
        let t = now.since(self.origin);
        self.control(now, 0, |e, out| e.exit(t, status, out));
    }

    /// Nothing more comes: writes what waits.
    pub(super) fn settle(&mut self, now: Tick) {
        self.write_gap(now);
        self.write_left_out(now);
        self.write_size(now, 0);
        self.size = None;
        if self.encoder.has_tail() {
            let t = now.since(self.origin);
            self.control(now, 0, |e, out| e.flush(t, out));
        }
    }

    /// Time passed, or room came. `open`: nobody is held longer than `stall_limit`.
    pub(super) fn advance(&mut self, now: Tick, open: bool, stall_limit: Span) {
        if self.tail_by.is_some_and(|at| at <= now) {
            let t = now.since(self.origin);
            // Without room it goes with the next event.
            self.tail_by = None;
            self.control(now, RESERVE_BYTES, |e, out| e.flush(t, out));
        }
        self.write_size(now, RESERVE_BYTES);
        self.write_caps(now);
        let full = self.free_input() < LEAST_INPUT;
        match self.stall {
            _ if !open && !matches!(self.stall, Stall::Counting { .. }) => self.stall = Stall::No,
            Stall::No if full => self.stall = Stall::Full { since: now },
            Stall::Full { .. } if !full => self.stall = Stall::No,
            Stall::Full { since } if since.after(stall_limit) <= now => {
                // From here on output is counted; what waits for its commit is not held back either.
                self.stall = Stall::Counting { since: now, bytes: 0 };
            }
            Stall::Counting { .. } if self.window.free() >= self.window.capacity() / 2 => {
                self.write_gap(now);
            }
            _ => {}
        }
    }

    /// What is not stored has to be sent again: all of it that is still there. Room for the last words stays. Gives where
    /// that begins.
    pub(super) fn hold(&mut self, stored: u64) -> u64 {
        let window = &mut self.window;
        let most = window.capacity().saturating_sub(RESERVE_BYTES) as u64;
        let oldest = window.next_line_start(window.end().saturating_sub(most));
        // Never past what had to be kept already: the last words may have used their room.
        let from = window.line_start(stored).max(oldest).min(window.keep());
        window.hold(from);
        window.keep()
    }

    /// Bytes of output that can be taken whole.
    pub(super) fn room(&self) -> usize {
        match self.stall {
            Stall::Counting { .. } => usize::MAX,
            // What goes past the cap takes no memory here, but the host's until it may be shown.
            _ if self.is_held() && self.volumes.iter().any(Volume::is_past) => 0,
            _ => Some(self.free_input()).filter(|room| *room >= LEAST_INPUT).unwrap_or(0),
        }
    }

    /// Whether output waits for its commit.
    fn is_held(&self) -> bool {
        self.marks.as_ref().is_some_and(|marks| marks.oldest().is_some())
    }

    /// Whether output is counted instead of recorded.
    pub(super) const fn is_counting(&self) -> bool {
        matches!(self.stall, Stall::Counting { .. })
    }

    pub(super) const fn raw(&self) -> Raw {
        self.raw
    }

    /// Raw bytes that may be shown.
    pub(super) fn released(&self) -> Raw {
        self.marks.as_ref().map_or(self.raw, Marks::released)
    }

    /// The stream is stored up to `upto`. True: more may be shown.
    pub(super) fn stored(&mut self, upto: u64) -> bool {
        self.marks.as_mut().is_some_and(|m| m.stored(upto))
    }

    /// Fail open. True: more may be shown.
    pub(super) fn release_overdue(&mut self, now: Tick, limit: Span) -> bool {
        self.marks.as_mut().is_some_and(|m| m.overdue(now, limit))
    }

    /// Nothing is held back any more. True: more may be shown.
    pub(super) fn release_all(&mut self) -> bool {
        let raw = self.raw;
        self.marks.as_mut().is_some_and(|m| m.all(raw))
    }

    /// When [`Intake::advance`] or [`Intake::release_overdue`] has something to do.
    pub(super) fn poll_timeout(&self, open: bool, stall_limit: Span) -> Option<Tick> {
        let stall = match self.stall {
            Stall::Full { since } if open => Some(since.after(stall_limit)),
            _ => None,
        };
        let held = self.marks.as_ref().filter(|_| open).and_then(Marks::oldest);
        let held = held.map(|at| at.after(stall_limit));
        [self.tail_by, stall, held].into_iter().flatten().min()
    }

    /// One gap marker for all that was counted.
    fn write_gap(&mut self, now: Tick) {
        let Stall::Counting { since, bytes } = self.stall else { return };
        self.stall = Stall::No;
        if bytes == 0 {
            return;
        }
        let t = now.since(self.origin);
        let ms = now.since(since).0.div_ceil(1_000);
        if self.control(now, 0, |e, out| e.gap(t, bytes, ms, out)) {
            self.gaps = self.gaps.saturating_add(1);
        }
    }

    /// Says where the recording of a stream ends. Without room it is said later; the gap at its end always is.
    fn write_caps(&mut self, now: Tick) {
        if self.is_counting() {
            return;
        }
        let (t, after) = (now.since(self.origin), self.cap_bytes);
        for stream in STREAMS {
            let untold = self.cap_untold.get(index(stream)).is_some_and(|untold| *untold);
            let told = untold
                && self.control(now, RESERVE_BYTES, |e, out| e.capped(t, stream, after, out));
            if let Some(untold) = self.cap_untold.get_mut(index(stream)) {
                *untold &= !told;
            }
        }
    }

    /// What went past the caps.
    fn write_left_out(&mut self, now: Tick) {
        let t = now.since(self.origin);
        for stream in STREAMS {
            let volume = self.volumes.get_mut(index(stream));
            let Some(gap) = volume.and_then(Volume::finish) else { continue };
            let ms = now.since(gap.since).0.div_ceil(1_000);
            self.control(now, 0, |e, out| e.left_out(t, stream, gap.bytes, ms, &gap.sha256, out));
        }
    }

    fn write_size(&mut self, now: Tick, reserve: usize) {
        let Some((cols, rows)) = self.size else { return };
        if self.is_counting() {
            return;
        }
        let t = now.since(self.origin);
        if self.control(now, reserve, |e, out| e.resize(t, cols, rows, out)) {
            self.size = None;
        }
    }

    fn control(
        &mut self,
        now: Tick,
        reserve: usize,
        write: impl FnOnce(&mut Encoder, &mut [u8]) -> usize,
    ) -> bool {
        let limit = self.window.free().saturating_sub(reserve);
        let written = write(&mut self.encoder, self.window.spare(limit));
        self.window.advance(written);
        if written > 0 {
            self.mark(now);
            self.watch_tail(now);
        }
        written > 0
    }

    /// What is shown only when stored is bound to the end of the stream as it is now. Bytes that the encoder carries are
    /// not in the stream yet: at most three a stream.
    fn mark(&mut self, now: Tick) {
        let carried = if self.encoder.has_tail() { TAIL_BYTES } else { 0 };
        self.in_ring = self.raw.less(carried, self.in_ring);
        if let Some(marks) = &mut self.marks {
            marks.push(now, self.window.end(), self.in_ring);
        }
    }

    fn watch_tail(&mut self, now: Tick) {
        self.tail_by = match (self.encoder.has_tail(), self.tail_by) {
            (false, _) => None,
            (true, None) => Some(now.after(UTF8_TAIL_WAIT)),
            (true, at) => at,
        };
    }

    /// The longest input whose worst encoding fits.
    fn free_input(&self) -> usize {
        let free = self.window.free().saturating_sub(RESERVE_BYTES + TURN_BYTES);
        let (whole, rest) = match (free.checked_div(PIECE_BYTES), free.checked_rem(PIECE_BYTES)) {
            (Some(whole), Some(rest)) => (whole, rest),
            _ => (0, 0),
        };
        // A byte takes six for its escape and 4/3 in the side event.
        let rest = rest.saturating_sub(worst_case_bytes(0).saturating_add(8)) / 8;
        whole.saturating_mul(EVENT_INPUT_BYTES).saturating_add(rest)
    }
}

const STREAMS: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

const fn index(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}

/// Bytes that an encoder carries for one stream.
const TAIL_BYTES: u64 = 3;

/// With less room than this the ring is full: crumbs are not worth a read of the host's, and whoever waits for more than a crumb
/// would wait for an event that does not come.
const LEAST_INPUT: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::RING_MIN_BYTES;

    /// From text that grows by its frame alone to bytes that take every escape and a side event.
    const KINDS: [&[u8]; 6] = [
        b"plain text\r\n",
        b"\x01",
        b"\xff",
        b"a\xffbcdefghijk",
        "äöü".as_bytes(),
        b"\xf0\x9f\x98",
    ];

    #[test]
    fn what_room_says_is_taken_wherever_the_ring_ends() {
        let start = Tick(0);
        for (number, kind) in KINDS.iter().enumerate() {
            let mut intake = Intake::new(RING_MIN_BYTES, false, None, start).unwrap();
            assert!(intake.begin(b"{}\n").is_ok());
            for round in 0..300usize {
                // Fills so much first that the turn comes at another place of what is filled then.
                let some = (round * 911 + number) % 3000;
                for wanted in [some, usize::MAX] {
                    let wanted = wanted.min(intake.room());
                    let data: Vec<u8> = kind.iter().copied().cycle().take(wanted).collect();
                    let stream = if round % 3 == 0 { Stream::Stderr } else { Stream::Stdout };
                    assert_eq!(intake.output(start, stream, &data), wanted, "{kind:?} {round}");
                }
                assert!(intake.marker(start, "the reserve is not touched") || intake.room() < 512);
                let end = intake.window.end();
                intake.window.release(end);
            }
        }
    }
}
