//! What is wrong with a file, and where: as an editor wants it.

use core::fmt;

use crate::limits;

/// A place in a text. Lines and columns count from 1, columns in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Line; 0 where there is no place in a text.
    pub line: u32,
    /// Column; 0 where there is no place in a text.
    pub column: u32,
}

impl Position {
    /// No place in a text: what is told is about several files, or about something that is missing.
    pub const NONE: Self = Self { line: 0, column: 0 };

    /// Whether there is a place.
    #[must_use]
    pub fn is_some(self) -> bool {
        self != Self::NONE
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The file is not used.
    Error,
    /// The file is used, but says something that may not be meant.
    Warning,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Where.
    pub at: Position,
    /// What, without a full stop.
    pub message: String,
}

impl Diagnostic {
    /// The file cannot be used.
    #[must_use]
    pub fn error(at: Position, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, at, message: short(message.into()) }
    }

    /// The file can be used.
    #[must_use]
    pub fn warning(at: Position, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, at, message: short(message.into()) }
    }
}

impl fmt::Display for Diagnostic {
    /// `LINE:COLUMN: error: …`, which whoever prints it puts the name of the file before.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.at.is_some() {
            write!(f, "{}: ", self.at)?;
        }
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{severity}: {}", self.message)
    }
}

/// A message that a person can read, whatever it quotes.
fn short(mut message: String) -> String {
    if message.len() > limits::DIAGNOSTIC_BYTES {
        message.truncate(message.floor_char_boundary(limits::DIAGNOSTIC_BYTES));
        message.push('…');
    }
    message
}

/// From a byte of a text to its line and column.
pub(super) struct Lines<'a> {
    text: &'a [u8],
    /// The position of each [`STEP`]th byte, so that one very long line costs no more than many short ones.
    marks: Vec<Position>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let text = text.as_bytes();
        let mut at = Position { line: 1, column: 1 };
        let mut marks = Vec::new();
        for block in text.chunks(STEP) {
            marks.push(at);
            at = along(at, block);
        }
        Self { text, marks }
    }

    pub(super) fn position(&self, offset: usize) -> Position {
        let offset = offset.min(self.text.len());
        let mark = offset / STEP;
        // The end of a text whose length is a multiple of the step has no mark of its own.
        let mark = mark.min(self.marks.len().saturating_sub(1));
        let start = self.marks.get(mark).copied().unwrap_or(Position { line: 1, column: 1 });
        along(start, self.text.get(mark.saturating_mul(STEP)..offset).unwrap_or_default())
    }
}

/// Where one is behind `bytes`.
fn along(mut at: Position, bytes: &[u8]) -> Position {
    for byte in bytes {
        if *byte == b'\n' {
            at.line = at.line.saturating_add(1);
            at.column = 1;
        } else if byte & 0xc0 != 0x80 {
            at.column = at.column.saturating_add(1);
        }
    }
    at
}

const STEP: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters_from_one() {
        let lines = Lines::new("ab\n€c\r\nd");
        let at = |offset| lines.position(offset).to_string();
        assert_eq!([at(0), at(2), at(3), at(6), at(9)], ["1:1", "1:3", "2:1", "2:2", "3:1"]);
        assert_eq!(at(1000), "3:2");
        assert_eq!(Lines::new("").position(0).to_string(), "1:1");
    }

    #[test]
    fn positions_are_the_same_across_marks() {
        let text = format!("{}\n{}", "ü".repeat(3000), "x".repeat(3000));
        let lines = Lines::new(&text);
        for (n, (offset, c)) in text.char_indices().enumerate() {
            let expected = match n {
                0..=3000 => (1, n + 1),
                _ => (2, n - 3000),
            };
            let at = lines.position(offset);
            assert_eq!((at.line as usize, at.column as usize), expected, "{offset} {c}");
        }
    }

    #[test]
    fn a_diagnostic_is_printed_as_an_editor_wants_it() {
        let at = Position { line: 3, column: 14 };
        assert_eq!(Diagnostic::error(at, "no").to_string(), "3:14: error: no");
        assert_eq!(Diagnostic::warning(Position::NONE, "hm").to_string(), "warning: hm");
        let long = Diagnostic::error(at, "€".repeat(10_000)).to_string();
        assert!(long.len() < limits::DIAGNOSTIC_BYTES + 40 && long.ends_with("€…"));
    }
}
