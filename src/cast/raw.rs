//! The exact bytes of a session, out of its events.

use alloc::vec::Vec;

use super::{Event, Stream, base64, label};
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
    /// Whether the pending event got its side event.
    fitted: bool,
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
        Self { pending: None, stream: Stream::Stdout, fitted: false }
    }

    /// Takes the next event; gives the one before when it is final. A `b` event that fits nothing is left out.
    pub fn push(&mut self, event: &Event<'_>) -> Option<RawEvent> {
        if event.code == b'b' {
            self.exact(&event.data);
            return None;
        }
        match (event.code, &*event.data) {
            (b'm', label::STDOUT) => self.stream = Stream::Stdout,
            (b'm', label::STDERR) => self.stream = Stream::Stderr,
            _ => {}
        }
        self.fitted = false;
        self.pending.replace(RawEvent {
            time: event.time,
            code: event.code,
            stream: self.stream,
            data: event.data.as_bytes().to_vec(),
        })
    }

    /// Replaces the end of the pending event.
    fn exact(&mut self, data: &str) -> Option<()> {
        let pending = self.pending.as_mut().filter(|e| matches!(e.code, b'o' | b'i'))?;
        let (position, coded) = data.split_once(':')?;
        let position: usize = position.parse().ok()?;
        // One side event an event, and only where the text has a replacement character: what a player shows stays what is there.
        if self.fitted || !pending.data.get(position..)?.starts_with("\u{fffd}".as_bytes()) {
            return None;
        }
        let bytes = base64::decode(coded.as_bytes())?;
        pending.data.truncate(position);
        pending.data.extend_from_slice(&bytes);
        self.fitted = true;
        Some(())
    }

    /// At the end of the cast: the last event.
    pub fn finish(&mut self) -> Option<RawEvent> {
        self.pending.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cast::parse_event;

    fn bytes(lines: &[&str]) -> Vec<(u8, Stream, Vec<u8>)> {
        let mut raw = Raw::new();
        let mut out = Vec::new();
        for line in lines {
            out.extend(raw.push(&parse_event(line.as_bytes()).unwrap()));
        }
        out.extend(raw.finish());
        out.into_iter().map(|e| (e.code, e.stream, e.data)).collect()
    }

    #[test]
    fn side_events_restore_the_bytes_of_the_event_before() {
        assert_eq!(
            bytes(&[
                r#"[0,"o","ab�c\r"]"#,
                r#"[0,"b","2:/2MN"]"#,
                r#"[0,"m","castkeep:stderr"]"#,
                r#"[0,"o","€�"]"#,
                r#"[0,"b","3:4oI="]"#,
            ]),
            [
                (b'o', Stream::Stdout, b"ab\xffc\r".to_vec()),
                (b'm', Stream::Stderr, b"castkeep:stderr".to_vec()),
                (b'o', Stream::Stderr, b"\xe2\x82\xac\xe2\x82".to_vec()),
            ]
        );
    }

    #[test]
    fn side_events_that_fit_nothing_are_left_out() {
        let text = "a\u{fffd}";
        for bad in ["2:AA==", "99:AA==", "1:A", ":AA==", "1", "-1:AA==", "0:AA=="] {
            let line = format!(r#"[0,"b","{bad}"]"#);
            let out = bytes(&[r#"[0,"b","0:AA=="]"#, r#"[0,"o","a�"]"#, &line]);
            assert_eq!(out, [(b'o', Stream::Stdout, text.as_bytes().to_vec())], "{bad}");
        }
        let marker = bytes(&[r#"[0,"m","�"]"#, r#"[0,"b","0:AA=="]"#]);
        assert_eq!(marker[0].2, "\u{fffd}".as_bytes());
        let twice = bytes(&[r#"[0,"o","��"]"#, r#"[0,"b","3:gA=="]"#, r#"[0,"b","0:gYI="]"#]);
        assert_eq!(twice[0].2, b"\xef\xbf\xbd\x80");
    }
}
