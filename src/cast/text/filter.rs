//! Terminal output, reduced to what only draws.

use alloc::string::String;

/// Passes text and the control sequences that only draw (colours, cursor, erase, scroll region, character set, alternate screen), and drops all
/// others: clipboard, titles, queries that the terminal would answer as if typed, device control, printing, window operations.
///
/// Works on any pieces of the output. What it drops it drops whole; it never holds back text.
#[derive(Clone, Debug, Default)]
pub struct Filter {}

impl Filter {
    /// At the start of a playback.
    #[must_use]
    pub const fn new() -> Self {
        Self {}
    }

    /// Filters a piece of output into `out`.
    pub fn push(&mut self, text: &str, out: &mut String) {
        todo!("{text} {out}")
    }

    /// At the end of a playback: appends what undoes the modes that passed (colours, hidden cursor, alternate screen, character set).
    pub fn finish(&mut self, out: &mut String) {
        todo!("{out}")
    }
}
