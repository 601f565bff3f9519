//! One step of UTF-8, as the Unicode standard's table 3-7 has it, so that bad bytes are replaced as `String::from_utf8_lossy` does: one
//! U+FFFD for each maximal subpart.

/// What stands at the front of some bytes that begin with one past 0x7f.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The bytes end within a sequence that is right so far.
    Incomplete,
    /// This many bytes become one U+FFFD.
    Invalid(usize),
    /// A character of this many bytes.
    Valid(usize),
}

/// Looks at the first sequence of `bytes`, which does not begin with ASCII.
pub(super) fn step(bytes: &[u8]) -> Step {
    let (lead, second, third, fourth) = match *bytes {
        [a, b, c, d, ..] => (a, Some(b), Some(c), Some(d)),
        [a, b, c] => (a, Some(b), Some(c), None),
        [a, b] => (a, Some(b), None, None),
        [a] => (a, None, None, None),
        [] => return Step::Incomplete,
    };
    // The lead byte fixes the length and what the second byte may be: no overlong forms, no surrogates, nothing past U+10FFFF.
    let (len, low, high) = match lead {
        0xc2..=0xdf => (2, 0x80, 0xbf),
        0xe0 => (3, 0xa0, 0xbf),
        0xed => (3, 0x80, 0x9f),
        0xe1..=0xef => (3, 0x80, 0xbf),
        0xf0 => (4, 0x90, 0xbf),
        0xf1..=0xf3 => (4, 0x80, 0xbf),
        0xf4 => (4, 0x80, 0x8f),
        _ => return Step::Invalid(1),
    };
    match second {
        None => return Step::Incomplete,
        Some(b) if b < low || b > high => return Step::Invalid(1),
        Some(_) if len == 2 => return Step::Valid(2),
        Some(_) => {}
    }
    match third {
        None => return Step::Incomplete,
        Some(c) if !is_continuation(c) => return Step::Invalid(2),
        Some(_) if len == 3 => return Step::Valid(3),
        Some(_) => {}
    }
    match fourth {
        None => Step::Incomplete,
        Some(d) if !is_continuation(d) => Step::Invalid(3),
        Some(_) => Step::Valid(4),
    }
}

const fn is_continuation(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What std makes of the same bytes.
    fn by_std(bytes: &[u8]) -> Step {
        let error = match core::str::from_utf8(bytes) {
            Ok(text) => return Step::Valid(text.chars().next().map_or(0, char::len_utf8)),
            Err(error) => error,
        };
        if error.valid_up_to() > 0 {
            let text = core::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap();
            return Step::Valid(text.chars().next().unwrap().len_utf8());
        }
        error.error_len().map_or(Step::Incomplete, Step::Invalid)
    }

    #[test]
    fn agrees_with_std_on_every_start() {
        // Every two bytes, then the edges of every range behind them.
        let edges = [0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xe0, 0xff];
        for lead in 0x80..=0xff_u8 {
            assert_eq!(step(&[lead]), by_std(&[lead]), "{lead:x}");
            for second in 0..=0xff_u8 {
                assert_eq!(step(&[lead, second]), by_std(&[lead, second]), "{lead:x} {second:x}");
                for third in edges {
                    let three = [lead, second, third];
                    assert_eq!(step(&three), by_std(&three), "{three:x?}");
                    for fourth in edges {
                        let four = [lead, second, third, fourth];
                        assert_eq!(step(&four), by_std(&four), "{four:x?}");
                    }
                }
            }
        }
    }
}
