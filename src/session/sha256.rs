//! SHA-256 (FIPS 180-4 §6.2) around `sha2`'s compression function. The buffer of that crate's `Sha256` keeps ways to a panic that the
//! compiler cannot rule out, and in the tiny library there is to be none.

use sha2::compress256;
use sha2::digest::generic_array::GenericArray;

use crate::space;

/// A hash in the making.
#[derive(Clone, Debug)]
pub(super) struct Sha256 {
    state: [u32; 8],
    /// 0 <= filled < BLOCK
    block: [u8; BLOCK],
    filled: usize,
    bytes: u64,
}

const BLOCK: usize = 64;
/// FIPS 180-4 §5.3.3.
const START: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

impl Sha256 {
    /// Of nothing.
    #[must_use]
    pub(super) const fn new() -> Self {
        Self { state: START, block: [0; BLOCK], filled: 0, bytes: 0 }
    }

    /// Adds bytes.
    pub(super) fn update(&mut self, mut data: &[u8]) {
        self.bytes = self.bytes.saturating_add(data.len() as u64);
        while !data.is_empty() {
            let free = self.block.get_mut(self.filled..).unwrap_or_default();
            let (now, later) = data.split_at_checked(free.len()).unwrap_or((data, &[]));
            space::copy(free, now);
            self.filled = self.filled.saturating_add(now.len());
            if self.filled >= BLOCK {
                self.compress();
            }
            data = later;
        }
    }

    /// The hash.
    #[must_use]
    pub(super) fn finish(mut self) -> [u8; 32] {
        let bits = self.bytes.wrapping_mul(8);
        self.pad(0x80);
        while self.filled != BLOCK - 8 {
            self.pad(0);
        }
        for byte in bits.to_be_bytes() {
            self.pad(byte);
        }
        let mut hash = [0; 32];
        for (to, word) in hash.chunks_exact_mut(4).zip(self.state) {
            space::copy(to, &word.to_be_bytes());
        }
        hash
    }

    fn pad(&mut self, byte: u8) {
        if let Some(place) = self.block.get_mut(self.filled) {
            *place = byte;
        }
        self.filled = self.filled.saturating_add(1);
        if self.filled >= BLOCK {
            self.compress();
        }
    }

    fn compress(&mut self) {
        compress256(&mut self.state, &[GenericArray::from(self.block)]);
        self.filled = 0;
    }
}

impl Default for Sha256 {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use sha2::Digest as _;

    #[test]
    fn it_is_the_hash_of_the_crate() {
        let data: Vec<u8> = (0..1000u32).map(|n| n.to_le_bytes()[0]).collect();
        for length in (0..200).chain([999, 1000]) {
            let data = &data[..length];
            let mut ours = Sha256::new();
            for piece in data.chunks(1 + length % 77) {
                ours.update(piece);
            }
            assert_eq!(ours.finish()[..], sha2::Sha256::digest(data)[..], "{length}");
        }
    }
}
