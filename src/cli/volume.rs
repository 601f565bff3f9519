//! What the recording says where only the beginning of a stream of a file transfer is recorded.

use std::fmt::Write as _;
use std::time::Instant;

use crate::cast::label;
use crate::session::volume;

/// One stream of a program.
pub(super) struct Volume {
    stream: &'static str,
    cap_bytes: u64,
    of: volume::Volume<Instant>,
}

impl Volume {
    pub(super) const fn new(stream: &'static str, cap_bytes: u64) -> Self {
        Self { stream, cap_bytes, of: volume::Volume::new(cap_bytes) }
    }

    /// What of these bytes is recorded; the rest is counted and goes unrecorded.
    pub(super) fn take<'a>(&mut self, bytes: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        let (recorded, rest) = bytes.split_at(self.of.recordable(bytes.len()));
        self.of.recorded(recorded.len());
        self.of.leave_out(rest, Instant::now());
        (recorded, rest)
    }

    /// For the moment at which the first byte goes past: should the end never be recorded, this is.
    pub(super) fn begins(&self) -> Option<String> {
        let said = format!("{}stream={} after={}", label::CAPPED, self.stream, self.cap_bytes);
        self.of.is_past().then_some(said)
    }

    /// The gap, when the stream has ended.
    pub(super) fn finish(&mut self) -> Option<String> {
        let gap = self.of.finish()?;
        let ms = gap.since.elapsed().as_millis();
        let mut said = format!("{}bytes={} ms={ms} sha256=", label::GAP, gap.bytes);
        for byte in gap.sha256 {
            let _ = write!(said, "{byte:02x}");
        }
        let _ = write!(said, " stream={}", self.stream);
        Some(said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits;

    #[test]
    fn the_first_bytes_and_then_a_gap() {
        let mut volume = Volume::new("stdout", 5);
        assert_eq!(volume.take(b"abc"), (&b"abc"[..], &b""[..]));
        assert_eq!(volume.begins(), None);
        assert_eq!(volume.take(b"defg"), (&b"de"[..], &b"fg"[..]));
        assert_eq!(volume.begins().as_deref(), Some("castkeep:capped stream=stdout after=5"));
        assert_eq!(volume.take(b"h"), (&b""[..], &b"h"[..]));
        let gap = volume.finish().unwrap();
        assert_eq!(label::parse_gap(&gap).map(|(bytes, _)| bytes), Some(3));
        // printf fgh | sha256sum
        let hash = "36e0fd847d927d68475f32a94efff30812ee3ce87c7752973f4dd7476aa2e97e";
        assert!(gap.ends_with(&format!(" sha256={hash} stream=stdout")), "{gap}");
        assert!(gap.len() < limits::MARKER_BYTES);
        assert_eq!(volume.finish(), None);
    }
}
