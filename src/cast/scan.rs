//! Copying ASCII into a JSON string: a block at a time where nothing needs an escape, by a table where something does.

/// Writes the ASCII at the front of `input`, escaped, to the front of `out`: (bytes taken, bytes written).
///
/// Stops at the first byte past 0x7f, and when `out` is nearly full: it takes everything when `out` has 6 bytes for each byte of input
/// and [`SPARE`] more.
pub(super) fn escape_ascii(input: &[u8], out: &mut [u8]) -> (usize, usize) {
    let (mut taken, mut written) = (0_usize, 0_usize);
    loop {
        // Blocks without an escape. The copy comes first: it needs no answer, and what is wrong in it is written over.
        let plain = loop {
            let block = input.get(taken..).and_then(|rest| rest.first_chunk::<BLOCK>());
            let target = out.get_mut(written..).and_then(|room| room.first_chunk_mut::<BLOCK>());
            let (Some(block), Some(target)) = (block, target) else {
                return escape_bytes(input, out, taken, written, usize::MAX);
            };
            *target = *block;
            let plain = plain_prefix(block);
            taken = taken.wrapping_add(plain);
            written = written.wrapping_add(plain);
            if plain < BLOCK {
                break plain;
            }
        };
        // Escapes come in runs (CR LF, a colour), so a few bytes go through the table without a look at what they are.
        let before = taken;
        (taken, written) = escape_bytes(input, out, taken, written, RUN);
        if taken == before {
            return (taken, written);
        }
        let _ = plain;
    }
}

/// Goes on from `taken` and `written`, one byte at a time, for at most `most` bytes.
fn escape_bytes(
    input: &[u8],
    out: &mut [u8],
    mut taken: usize,
    mut written: usize,
    most: usize,
) -> (usize, usize) {
    for &byte in input.get(taken..).unwrap_or_default().iter().take(most) {
        let Some(entry) = TABLE.get(usize::from(byte)) else { break };
        let target = out.get_mut(written..).and_then(|room| room.first_chunk_mut::<8>());
        let ([.., len], Some(target)) = (*entry, target) else { break };
        if len == 0 {
            break;
        }
        *target = *entry;
        taken = taken.wrapping_add(1);
        written = written.wrapping_add(usize::from(len));
    }
    (taken, written)
}

/// How many bytes at the front are printable ASCII other than `"` and `\`.
fn plain_prefix(block: &[u8; BLOCK]) -> usize {
    let mut at = 0_usize;
    for word in block.as_chunks::<8>().0 {
        let found = special(u64::from_le_bytes(*word));
        if found != 0 {
            return at.wrapping_add((found.trailing_zeros() / 8) as usize);
        }
        at = at.wrapping_add(8);
    }
    at
}

/// The highest bit of the first byte that is a control character, `"`, `\` or not ASCII; bits above the lowest one mean nothing.
///
/// A borrow out of one byte makes wrong marks in the bytes above it only, and only when that byte is marked itself.
const fn special(word: u64) -> u64 {
    let control = word.wrapping_sub(ONES * 0x20);
    let quote = (word ^ ONES * b'"' as u64).wrapping_sub(ONES);
    let backslash = (word ^ ONES * b'\\' as u64).wrapping_sub(ONES);
    (control | quote | backslash | word) & (ONES * 0x80)
}

/// A byte as it stands in a JSON string, padded; its length comes last and is 0 for what is not ASCII.
const fn entry(byte: u8) -> [u8; 8] {
    let (letter, len) = match byte {
        b'"' | b'\\' => (byte, 2),
        0x08 => (b'b', 2),
        b'\t' => (b't', 2),
        b'\n' => (b'n', 2),
        0x0c => (b'f', 2),
        b'\r' => (b'r', 2),
        0x00..=0x1f => (b'u', 6),
        0x20..=0x7f => (byte, 1),
        0x80.. => (0, 0),
    };
    let digit = b"0123456789abcdef"[(byte & 15) as usize];
    match len {
        6 => [b'\\', b'u', b'0', b'0', b'0' + (byte >> 4), digit, 0, 6],
        2 => [b'\\', letter, 0, 0, 0, 0, 0, 2],
        _ => [letter, 0, 0, 0, 0, 0, 0, len],
    }
}

static TABLE: [[u8; 8]; 256] = {
    let mut table = [[0; 8]; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = entry(byte as u8);
        byte += 1;
    }
    table
};

const ONES: u64 = 0x0101_0101_0101_0101;

/// Bytes that are copied before they are looked at.
const BLOCK: usize = 32;

/// Bytes that go through the table after an escape was found.
const RUN: usize = 2;

/// Room behind the escaped text that a copy may touch.
pub(super) const SPARE: usize = 8;
