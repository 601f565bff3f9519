//! Copying text into a JSON string: a block at a time where little needs an escape, by a table where much does.

use crate::chunks;

/// Writes the front of `input`, escaped, to the front of `out`: (bytes taken, bytes written).
///
/// With `ASCII`, stops at the first byte past 0x7f; without, such bytes are taken as they are. Stops too when `out` is nearly
/// full: everything is taken when `out` has 6 bytes for each byte of input and [`SPARE`] more.
pub(super) fn escape<const ASCII: bool>(input: &[u8], out: &mut [u8]) -> (usize, usize) {
    let (total, size) = (input.len(), out.len());
    let (mut rest, mut room) = (input, out);
    while let Some(block) = rest.first_chunk::<BLOCK>() {
        let Some(target) = room.first_chunk_mut::<BLOCK>() else { break };
        // The copy comes first: it needs no answer, and what is wrong in it is written over.
        *target = *block;
        if is_plain::<ASCII>(block) {
            rest = rest.get(BLOCK..).unwrap_or_default();
            room = room.get_mut(BLOCK..).unwrap_or_default();
            continue;
        }
        let plain = plain_prefix::<ASCII>(block);
        rest = rest.get(plain..).unwrap_or_default();
        room = room.get_mut(plain..).unwrap_or_default();
        // The end of a line is nearly all that ordinary output escapes.
        let line_end = (rest.split_first_chunk(), room.first_chunk_mut());
        if let (Some((b"\r\n", behind)), Some(target)) = line_end {
            *target = *b"\\r\\n";
            rest = behind;
            room = room.get_mut(4..).unwrap_or_default();
            continue;
        }
        // Other escapes come in groups: a colour, a path in quotes. So the next bytes go through the table unseen.
        let (Some(run), Some(target)) =
            (rest.first_chunk::<RUN>(), room.first_chunk_mut::<RUN_ROOM>())
        else {
            break;
        };
        if ASCII && !run.is_ascii() {
            break;
        }
        let mut at = 0_usize;
        for &byte in run {
            at = at.wrapping_add(put(byte, target.get_mut(at..).unwrap_or_default()).unwrap_or(0));
        }
        rest = rest.get(RUN..).unwrap_or_default();
        room = room.get_mut(at..).unwrap_or_default();
    }
    while let Some((&byte, behind)) = rest.split_first() {
        if ASCII && !byte.is_ascii() {
            break;
        }
        let Some(len) = put(byte, room) else { break };
        rest = behind;
        room = room.get_mut(len..).unwrap_or_default();
    }
    (total.wrapping_sub(rest.len()), size.wrapping_sub(room.len()))
}

/// Writes one byte as it stands in a JSON string; gives its length. Touches eight bytes, and wants room for them.
fn put(byte: u8, room: &mut [u8]) -> Option<usize> {
    let entry = TABLE.get(usize::from(byte))?;
    *room.first_chunk_mut::<8>()? = *entry;
    let [.., len] = *entry;
    Some(usize::from(len))
}

/// Whether the block can stay as it is.
///
/// One comparison for each byte and no early end: compilers turn that into a few vector instructions. The exclusive or brings
/// `"` (0x22) next to the control characters.
#[inline(always)]
fn is_plain<const ASCII: bool>(block: &[u8; BLOCK]) -> bool {
    let mut found = false;
    for &byte in block {
        found |= (byte ^ 2 < 0x21) | (byte == b'\\') | (ASCII && byte > 0x7f);
    }
    !found
}

/// How many bytes come before the first that cannot stay as it is.
#[inline(always)]
fn plain_prefix<const ASCII: bool>(block: &[u8; BLOCK]) -> usize {
    let mut at = 0_usize;
    for word in chunks::of::<8>(block).0 {
        let word = u64::from_le_bytes(*word);
        // A borrow makes wrong marks only above a right one.
        let control = (word ^ QUOTE_BIT).wrapping_sub(CONTROLS);
        let backslash = (word ^ BACKSLASHES).wrapping_sub(ONES);
        let found = if ASCII { control | backslash | word } else { (control | backslash) & !word };
        let found = found & HIGHEST_BITS;
        if found != 0 {
            return at.wrapping_add((found.trailing_zeros() / 8) as usize);
        }
        at = at.wrapping_add(8);
    }
    at
}

/// A byte as it stands in a JSON string, padded; its length comes last.
const fn entry(byte: u8) -> [u8; 8] {
    let (letter, len) = match byte {
        b'"' | b'\\' => (byte, 2),
        0x08 => (b'b', 2),
        b'\t' => (b't', 2),
        b'\n' => (b'n', 2),
        0x0c => (b'f', 2),
        b'\r' => (b'r', 2),
        0x00..=0x1f => (b'u', 6),
        0x20.. => (byte, 1),
    };
    let digit = match byte & 15 {
        low @ 0..=9 => b'0' | low,
        low => (b'a' - 10).wrapping_add(low),
    };
    match len {
        6 => [b'\\', b'u', b'0', b'0', b'0' | byte >> 4, digit, 0, 6],
        2 => [b'\\', letter, 0, 0, 0, 0, 0, 2],
        _ => [letter, 0, 0, 0, 0, 0, 0, len],
    }
}

#[allow(clippy::indexing_slicing, reason = "evaluated at compile time")]
static TABLE: [[u8; 8]; 256] = {
    let mut table = [[0; 8]; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = entry(byte as u8);
        byte += 1;
    }
    table
};

const ONES: u64 = u64::MAX / 0xff;
const QUOTE_BIT: u64 = ONES * 2;
const CONTROLS: u64 = ONES * 0x21;
const BACKSLASHES: u64 = ONES * b'\\' as u64;
const HIGHEST_BITS: u64 = ONES * 0x80;

/// Bytes that are looked at together.
const BLOCK: usize = 32;

/// Bytes that go through the table where an escape was found.
const RUN: usize = 8;

/// What they can become, and what the last one touches.
const RUN_ROOM: usize = RUN * 6 + SPARE;

/// Room behind the escaped text that may be written to.
pub(super) const SPARE: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    /// serde_json's escapes are ours but for the two that it does not need.
    fn expected(text: &str) -> String {
        let json = serde_json::to_string(text).unwrap();
        json[1..json.len() - 1].to_owned()
    }

    #[test]
    fn every_byte_at_every_place_of_a_block() {
        for c in (0..0x80).chain([0xe9, 0x20ac, 0x1_f600]).filter_map(char::from_u32) {
            for at in 0..80 {
                for behind in [0, 1, 7, 8, 40] {
                    let text = format!("{}{c}{}", "x".repeat(at), "y".repeat(behind));
                    let mut out = [0; 6 * 130 + SPARE];
                    let (taken, written) = escape::<false>(text.as_bytes(), &mut out);
                    assert_eq!(taken, text.len());
                    assert_eq!(str::from_utf8(&out[..written]).unwrap(), expected(&text));
                    let (taken, written) = escape::<true>(text.as_bytes(), &mut out);
                    assert_eq!(taken, if c.is_ascii() { text.len() } else { at });
                    assert_eq!(str::from_utf8(&out[..written]).unwrap(), expected(&text[..taken]));
                }
            }
        }
    }

    #[test]
    fn two_specials_at_any_distance() {
        for (a, b) in [('\r', '\n'), ('\n', '\r'), ('"', '\\'), ('\x1b', 'é'), ('é', '\0')] {
            for first in 0..40 {
                for gap in 0..40 {
                    let text = format!("{:first$}{a}{:gap$}{b}{:9}", "", "", "");
                    let mut out = [0; 6 * 100 + SPARE];
                    let (taken, written) = escape::<false>(text.as_bytes(), &mut out);
                    assert_eq!(taken, text.len());
                    assert_eq!(str::from_utf8(&out[..written]).unwrap(), expected(&text));
                }
            }
        }
    }

    #[test]
    fn stops_where_the_room_ends() {
        let text = "plain text that fills a block\r\n\x1b[1m\"quoted\"\x01\x02\x03 and more of it, to the end";
        let whole = expected(text);
        for room in 0..whole.len() + SPARE {
            let mut out = vec![0; room];
            let (taken, written) = escape::<false>(text.as_bytes(), &mut out);
            assert_eq!(out[..written], *expected(&text[..taken]).as_bytes(), "{room}");
            assert!(room - written <= 6 + SPARE || taken == text.len(), "{room} {written}");
        }
    }
}
