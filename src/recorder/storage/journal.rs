//! A part's journal: docs/storage.md §3. A header, and two commit slots that are written in turn.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use super::disk::Disk;
use crate::limits;

const MAGIC: &[u8; 8] = b"CKCOMMIT";
const SLOT_BYTES: usize = 40;
/// The header's space, and the distance of the slots: a page each, so that a torn write harms one of them.
const PAGE: u64 = 4096;

/// One commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) generation: u64,
    pub(crate) length: u64,
    pub(crate) crc32: u32,
    pub(crate) attempt: u64,
}

impl Slot {
    fn encode(&self) -> [u8; SLOT_BYTES] {
        let mut out = [0; SLOT_BYTES];
        out[..8].copy_from_slice(MAGIC);
        out[8..16].copy_from_slice(&self.generation.to_le_bytes());
        out[16..24].copy_from_slice(&self.length.to_le_bytes());
        out[24..28].copy_from_slice(&self.crc32.to_le_bytes());
        out[28..36].copy_from_slice(&self.attempt.to_le_bytes());
        let crc = crc32fast::hash(&out[..36]);
        out[36..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8; SLOT_BYTES]) -> Option<Self> {
        let long = |at: usize| {
            let mut field = [0; 8];
            field.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(field)
        };
        let short = |at: usize| {
            let mut field = [0; 4];
            field.copy_from_slice(&bytes[at..at + 4]);
            u32::from_le_bytes(field)
        };
        if &bytes[..8] != MAGIC || short(36) != crc32fast::hash(&bytes[..36]) {
            return None;
        }
        let slot =
            Self { generation: long(8), length: long(16), crc32: short(24), attempt: long(28) };
        // Never reached by counting: somebody's own, and the next generation must have a number.
        (slot.generation < u64::MAX / 2).then_some(slot)
    }

    /// Writes this slot. Not durable before a sync.
    pub(crate) fn write(&self, disk: &dyn Disk, journal: &File) -> io::Result<()> {
        disk.write_at(journal, &self.encode(), PAGE * (1 + self.generation % 2))
    }
}

/// Both slots that are whole, the newer first.
pub(crate) fn read_slots(journal: &File) -> Vec<Slot> {
    let mut slots: Vec<Slot> = [PAGE, 2 * PAGE]
        .into_iter()
        .filter_map(|at| {
            let mut bytes = [0; SLOT_BYTES];
            journal.read_exact_at(&mut bytes, at).ok()?;
            Slot::decode(&bytes)
        })
        .collect();
    slots.sort_by_key(|s| std::cmp::Reverse(s.generation));
    slots
}

/// Writes the header of a new journal and gives the file its size.
pub(crate) fn write_header(
    disk: &dyn Disk,
    journal: &File,
    header: &serde_json::Value,
) -> io::Result<()> {
    let mut text = header.to_string().into_bytes();
    text.push(b'\n');
    if text.len() as u64 > PAGE {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "journal header too long"));
    }
    text.resize(limits::JOURNAL_BYTES as usize, 0);
    disk.write_at(journal, &text, 0)
}

/// The header of a journal.
pub(crate) fn read_header(journal: &File) -> Option<serde_json::Value> {
    let mut bytes = vec![0; PAGE as usize];
    journal.read_exact_at(&mut bytes, 0).ok()?;
    let end = bytes.iter().position(|b| *b == b'\n')?;
    let value: serde_json::Value = serde_json::from_slice(bytes.get(..end)?).ok()?;
    (value.get("journal")?.as_u64()? == 1).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_whole_or_nothing() {
        let slot = Slot { generation: 7, length: 1 << 40, crc32: 0xdead_beef, attempt: 3 };
        let bytes = slot.encode();
        assert_eq!(Slot::decode(&bytes), Some(slot));
        for i in 0..SLOT_BYTES {
            let mut torn = bytes;
            torn[i] ^= 1;
            assert_eq!(Slot::decode(&torn), None, "byte {i}");
        }
    }
}
