//! Base64 of RFC 4648 §4, with padding.

use alloc::vec::Vec;

use crate::chunks;

/// Writes the base64 of `head` followed by `body` to the front of `out`; how many bytes that are, or none when `out` is too small.
///
/// Two slices, because the bytes of an event begin with what was carried over. `head` is short.
pub(super) fn encode(head: &[u8], body: &[u8], out: &mut [u8]) -> Option<usize> {
    let size = out.len();
    let mut room = out;
    // Whole groups of three out of the head and the first bytes of the body, then the body by itself.
    let borrowed = match head.len() % 3 {
        0 => 0,
        rest => body.len().min(3_usize.saturating_sub(rest)),
    };
    let (lent, body) = body.split_at_checked(borrowed)?;
    let mut group = [0; 3];
    let mut filled = 0_usize;
    for &byte in head.iter().chain(lent) {
        *group.get_mut(filled)? = byte;
        filled = filled.saturating_add(1);
        if filled == 3 {
            let (four, rest) = room.split_first_chunk_mut::<4>()?;
            (*four, room, filled) = (quad(group), rest, 0);
        }
    }
    let (threes, last) = chunks::of::<3>(body);
    let (fours, rest) = room.split_at_mut_checked((body.len() / 3).saturating_mul(4))?;
    for (four, three) in chunks::of_mut::<4>(fours).zip(threes) {
        *four = quad(*three);
    }
    room = rest;
    // Either the head left a group unfilled, and then the body is used up, or the body's own end does.
    let end = if filled > 0 { group.get(..filled)? } else { last };
    let padded = match *end {
        [] => None,
        [a] => {
            let [a, b, ..] = quad([a, 0, 0]);
            Some([a, b, b'=', b'='])
        }
        [a, b, ..] => {
            let [a, b, c, _] = quad([a, b, 0]);
            Some([a, b, c, b'='])
        }
    };
    if let Some(padded) = padded {
        let (four, rest) = room.split_first_chunk_mut::<4>()?;
        (*four, room) = (padded, rest);
    }
    Some(size.saturating_sub(room.len()))
}

/// The bytes behind base64 text; none when it is not base64.
pub(super) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let (fours, []) = chunks::of::<4>(text) else { return None };
    let mut bytes = Vec::with_capacity((text.len() / 4).saturating_mul(3));
    let mut ended = false;
    for four in fours {
        if ended {
            return None;
        }
        let [a, b, c, d] = *four;
        let pad = match (c, d) {
            (b'=', b'=') => 2,
            (_, b'=') => 1,
            _ => 0,
        };
        ended = pad > 0;
        let c = if pad == 2 { 0 } else { value(c)? };
        let d = if pad >= 1 { 0 } else { value(d)? };
        let bits = value(a)? << 18 | value(b)? << 12 | c << 6 | d;
        let [_, x, y, z] = bits.to_be_bytes();
        match pad {
            0 => bytes.extend_from_slice(&[x, y, z]),
            1 => bytes.extend_from_slice(&[x, y]),
            _ => bytes.push(x),
        }
    }
    Some(bytes)
}

fn quad([a, b, c]: [u8; 3]) -> [u8; 4] {
    let bits = u32::from_be_bytes([0, a, b, c]);
    [18, 12, 6, 0].map(|shift| {
        // The mask keeps the index inside the table.
        ALPHABET.get((bits >> shift & 63) as usize).copied().unwrap_or(b'=')
    })
}

fn value(digit: u8) -> Option<u32> {
    let value = match digit {
        b'A'..=b'Z' => digit.wrapping_sub(b'A'),
        b'a'..=b'z' => digit.wrapping_sub(b'a').wrapping_add(26),
        b'0'..=b'9' => digit.wrapping_sub(b'0').wrapping_add(52),
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(u32::from(value))
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

#[cfg(test)]
mod tests {
    use super::*;

    fn text(head: &[u8], body: &[u8]) -> String {
        let mut out = [0; 64];
        let n = encode(head, body, &mut out).unwrap();
        String::from_utf8(out[..n].to_vec()).unwrap()
    }

    #[test]
    fn vectors_of_the_rfc_however_they_are_cut() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            for cut in 0..=plain.len() {
                let (head, body) = plain.as_bytes().split_at(cut);
                assert_eq!(text(head, body), coded, "{plain} cut at {cut}");
            }
            assert_eq!(decode(coded.as_bytes()).as_deref(), Some(plain.as_bytes()));
        }
    }

    #[test]
    fn every_byte_comes_back() {
        let all: Vec<u8> = (0..=255).collect();
        let mut out = [0; 400];
        let n = encode(&all[..2], &all[2..], &mut out).unwrap();
        assert_eq!(decode(&out[..n]).unwrap(), all);
        assert_eq!(encode(&all[..2], &all[2..], &mut out[..n - 1]), None);
    }

    #[test]
    fn what_is_not_base64_is_refused() {
        for bad in ["Z", "Zg=", "Zg==Zg==", "Z===", "====", "Zm9-", "Zm 9", "=m9v"] {
            assert_eq!(decode(bad.as_bytes()), None, "{bad}");
        }
    }
}
