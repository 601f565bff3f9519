//! The exact bytes of a session, out of its events.

use alloc::vec::Vec;

use super::{Event, Stream};
use crate::time::Span;

/// Puts `b` events back into the events they belong to.
///
/// Text of an `o` or `i` event is UTF-8; where the program wrote anything else it has U+FFFD. The `b` event right behind
/// such an event has `<position>:<base64>`: position is a byte offset in the text, and the bytes stand for everything from
/// there to the end of the text. So an event is final only when the next one is known.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    pending: Option<RawEvent>,
    stream: Stream,
}

/// An event with exact bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawEvent {
    /// As in the event.
    pub time: Span,
    /// As in the event; never `b`.
    pub code: u8,
    /// Which output an `o` event belongs to, by our markers before it.
    pub stream: Stream,
    /// The exact bytes of an `o` or `i` event; the text of another.
    pub data: Vec<u8>,
}

impl Raw {
    /// At the start of a cast.
    #[must_use]
    pub const fn new() -> Self {
        Self { pending: None, stream: Stream::Stdout }
    }

    /// Takes the next event; gives the one before when it is final. A `b` event that fits nothing is left out.
    pub fn push(&mut self, event: &Event<'_>) -> Option<RawEvent> {
        todo!("{event:?} {:?} {:?}", self.pending, self.stream)
    }

    /// At the end of the cast: the last event.
    pub fn finish(&mut self) -> Option<RawEvent> {
        self.pending.take()
    }
}
