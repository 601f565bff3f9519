//! Which raw bytes stand in which part of the stream: what `release=commit` needs.

use crate::cast::Stream;
use crate::error::Error;
use crate::limits::MARKS_MAX;
use crate::space::Queue;
use crate::time::{Span, Tick};

/// Raw bytes of the two streams, counted from the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Raw {
    /// Standard output.
    pub stdout: u64,
    /// Standard error.
    pub stderr: u64,
}

impl Raw {
    /// The count of one stream.
    #[must_use]
    pub const fn of(&self, stream: Stream) -> u64 {
        match stream {
            Stream::Stdout => self.stdout,
            Stream::Stderr => self.stderr,
        }
    }

    /// Adds to the count of one stream.
    pub fn add(&mut self, stream: Stream, n: usize) {
        let count = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        *count = count.saturating_add(n as u64);
    }

    /// Both counts lowered, not below `floor`.
    #[must_use]
    pub fn less(&self, n: u64, floor: Self) -> Self {
        Self {
            stdout: self.stdout.saturating_sub(n).max(floor.stdout),
            stderr: self.stderr.saturating_sub(n).max(floor.stderr),
        }
    }
}

/// A bounded queue of "when the stream is stored up to here, so much may be shown". When it is full, every second mark is
/// dropped: bytes are then shown a little later, never too early.
#[derive(Debug)]
pub struct Marks {
    queue: Queue<Mark>,
    released: Raw,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    end: u64,
    raw: Raw,
    at: Tick,
}

impl Marks {
    /// Reserves the queue.
    ///
    /// # Errors
    ///
    /// [`Error::NoMemory`].
    pub fn new() -> Result<Self, Error> {
        Ok(Self { queue: Queue::new(MARKS_MAX)?, released: Raw::default() })
    }

    /// The stream up to `end` holds the first `raw` bytes.
    pub fn push(&mut self, now: Tick, end: u64, raw: Raw) {
        if let Some(last) = self.queue.back_mut().filter(|m| m.end == end) {
            last.raw = raw;
            return;
        }
        if self.queue.len() >= MARKS_MAX {
            // A mark that goes hands its bytes to the one behind it; the time of waiting is that of the older.
            let mut older = None;
            self.queue.retain(|mark| match older.take() {
                None => {
                    older = Some(mark.at);
                    false
                }
                Some(at) => {
                    mark.at = at;
                    true
                }
            });
        }
        self.queue.push_back(Mark { end, raw, at: now });
    }

    /// Everything below `upto` is stored. True: more may be shown.
    pub fn stored(&mut self, upto: u64) -> bool {
        self.pop(|m| m.end <= upto)
    }

    /// Fail open: nobody waits longer than `limit`. True: more may be shown.
    pub fn overdue(&mut self, now: Tick, limit: Span) -> bool {
        self.pop(|m| m.at.after(limit) <= now)
    }

    /// Fail open without recording: everything may be shown. True: that is more.
    pub fn all(&mut self, raw: Raw) -> bool {
        self.queue.retain(|_| false);
        let more = self.released != raw;
        self.released = raw;
        more
    }

    /// What may be shown.
    #[must_use]
    pub const fn released(&self) -> Raw {
        self.released
    }

    /// Since when the oldest bytes wait.
    #[must_use]
    pub fn oldest(&self) -> Option<Tick> {
        self.queue.front().map(|m| m.at)
    }

    fn pop(&mut self, done: impl Fn(&Mark) -> bool) -> bool {
        let before = self.released;
        while let Some(mark) = self.queue.front().filter(|m| done(m)) {
            self.released = mark.raw;
            self.queue.pop_front();
        }
        self.released != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_more_than_what_is_stored_although_marks_are_thinned() {
        let mut marks = Marks::new().unwrap();
        let n = 10 * MARKS_MAX as u64;
        for i in 1..=n {
            marks.push(Tick(i), i * 100, Raw { stdout: i * 10, stderr: i });
        }
        for upto in (0..=n * 100).step_by(1777) {
            marks.stored(upto);
            assert!(marks.released().stdout <= upto / 10);
            assert_eq!(marks.released().stdout, marks.released().stderr * 10);
        }
        marks.stored(n * 100);
        assert_eq!(marks.released(), Raw { stdout: n * 10, stderr: n });
    }

    #[test]
    fn nobody_waits_longer_than_the_limit() {
        let mut marks = Marks::new().unwrap();
        for i in 0..3 * MARKS_MAX as u64 {
            marks.push(Tick(i), i, Raw { stdout: i, stderr: 0 });
        }
        assert_eq!(marks.oldest(), Some(Tick(0)));
        assert!(marks.overdue(Tick(10_000_000), Span(1)));
        assert_eq!(marks.released().stdout, 3 * MARKS_MAX as u64 - 1);
        assert_eq!(marks.oldest(), None);
    }
}
