//! A queue of bytes that costs nothing while it is empty.

use alloc::vec::Vec;

/// Bytes in at the back, out at the front.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    at: usize,
}

impl Buffer {
    pub(super) fn push(&mut self, more: &[u8]) {
        if self.at > 0 && self.bytes.len().saturating_add(more.len()) > self.bytes.capacity() {
            self.bytes.drain(..self.at);
            self.at = 0;
        }
        self.bytes.extend_from_slice(more);
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.bytes.len() <= self.at
    }

    /// Takes `n` bytes off the front, at most what is there; how many it was.
    pub(super) fn consume(&mut self, n: usize) -> usize {
        let n = n.min(self.len());
        self.at = self.at.saturating_add(n);
        if self.is_empty() {
            self.clear();
        }
        n
    }

    pub(super) fn clear(&mut self) {
        self.at = 0;
        // Thousands of connections are idle at a time, each with buffers like this.
        if self.bytes.capacity() > KEPT_BYTES {
            self.bytes = Vec::new();
        } else {
            self.bytes.clear();
        }
    }

    /// Moves what fits into `out`.
    pub(super) fn drain_into(&mut self, out: &mut [u8]) -> usize {
        let n = self.len().min(out.len());
        if let (Some(to), Some(from)) = (out.get_mut(..n), self.bytes().get(..n)) {
            to.copy_from_slice(from);
        }
        self.consume(n)
    }
}

const KEPT_BYTES: usize = 512;
