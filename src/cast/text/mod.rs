//! Printing what hostile casts and peers say without harm to the terminal it is printed on.

mod filter;

use alloc::{borrow::Cow, string::String};
use core::fmt::Write;

pub use filter::Filter;

/// The text with every control character, and every character that reorders or hides others, replaced by an escape such as
/// `\x1b` or `\u{202e}`. For names, labels, error texts: anything that is not terminal output.
///
/// ```
/// # use castkeep::cast::text::escape_control;
/// assert_eq!(escape_control("a\x1b[2Jb\n"), "a\\x1b[2Jb\\n");
/// ```
#[must_use]
pub fn escape_control(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len().saturating_add(16));
    for c in text.chars() {
        // Writing into a string cannot fail.
        let _ = match c {
            '\n' => out.write_str("\\n"),
            '\r' => out.write_str("\\r"),
            '\t' => out.write_str("\\t"),
            '\0'..='\x7f' if is_unsafe(c) => write!(out, "\\x{:02x}", u32::from(c)),
            _ if is_unsafe(c) => write!(out, "\\u{{{:x}}}", u32::from(c)),
            _ => out.write_char(c),
        };
    }
    Cow::Owned(out)
}

/// Controls, line and paragraph separators, and what Unicode uses to turn the direction of text, to join, or to be invisible.
const fn is_unsafe(c: char) -> bool {
    matches!(
        c,
        '\0'..='\x1f'
            | '\x7f'..='\u{9f}'
            | '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_acts_is_left() {
        for c in (0..0x11_0000).filter_map(char::from_u32) {
            let text = c.to_string();
            let safe = escape_control(&text);
            assert!(!safe.chars().any(|c| c.is_control()), "{c:?}");
            assert_eq!(safe == text, !is_unsafe(c), "{c:?}");
        }
        assert_eq!(escape_control("été €"), "été €");
        assert_eq!(escape_control("\u{9b}1\u{202e}x\x00"), "\\u{9b}1\\u{202e}x\\x00");
    }
}
