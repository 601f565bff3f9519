//! Less of a file transfer: its first bytes are recorded, of the rest how many there were and their SHA-256.

use std::fmt::Write as _;
use std::time::Instant;

use sha2::{Digest as _, Sha256};

use crate::cast::label;

/// One stream of a program.
pub(super) struct Volume {
    stream: &'static str,
    cap_bytes: u64,
    left_bytes: u64,
    beyond: Option<Beyond>,
}

/// What went past the cap.
struct Beyond {
    bytes: u64,
    hash: Sha256,
    since: Instant,
}

impl Volume {
    pub(super) const fn new(stream: &'static str, cap_bytes: u64) -> Self {
        Self { stream, cap_bytes, left_bytes: cap_bytes, beyond: None }
    }

    /// What of these bytes is recorded; the rest is counted and goes unrecorded.
    pub(super) fn take<'a>(&mut self, bytes: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        let left = usize::try_from(self.left_bytes).unwrap_or(usize::MAX);
        let (recorded, rest) = bytes.split_at(left.min(bytes.len()));
        self.left_bytes -= recorded.len() as u64;
        if !rest.is_empty() {
            let beyond = self.beyond.get_or_insert_with(|| Beyond {
                bytes: 0,
                hash: Sha256::new(),
                since: Instant::now(),
            });
            beyond.bytes += rest.len() as u64;
            beyond.hash.update(rest);
        }
        (recorded, rest)
    }

    /// For the moment at which the first byte goes past: should the end never be recorded, this is.
    pub(super) fn begins(&self) -> Option<String> {
        let said = format!("{}stream={} after={}", label::CAPPED, self.stream, self.cap_bytes);
        self.beyond.as_ref().map(|_| said)
    }

    /// The gap, when the stream has ended.
    pub(super) fn finish(&mut self) -> Option<String> {
        let Beyond { bytes, hash, since } = self.beyond.take()?;
        self.left_bytes = 0;
        let ms = since.elapsed().as_millis();
        let mut said = format!("{}bytes={bytes} ms={ms} sha256=", label::GAP);
        for byte in hash.finalize() {
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

    #[test]
    fn what_fits_leaves_no_gap() {
        let mut volume = Volume::new("stderr", 3);
        assert_eq!(volume.take(b"abc"), (&b"abc"[..], &b""[..]));
        assert_eq!((volume.begins(), volume.finish()), (None, None));
    }
}
