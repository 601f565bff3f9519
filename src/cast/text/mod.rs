//! Printing what hostile casts and peers say without harm to the terminal it is printed on.

mod filter;

use alloc::{borrow::Cow, string::String};

pub use filter::Filter;

/// The text with every control character, and every character that reorders or hides others, replaced by an escape such as
/// `\x1b` or `\u{202e}`. For names, labels, error texts: anything that is not terminal output.
#[must_use]
pub fn escape_control(text: &str) -> Cow<'_, str> {
    let _ = String::new();
    todo!("{text}")
}
