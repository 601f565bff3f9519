//! Terminal output, reduced to what only draws.

use alloc::{string::String, vec::Vec};
use core::fmt::Write;

/// Passes text and the control sequences that only draw (colours, cursor, erase, scroll region, character set, alternate screen), and drops
/// all others: clipboard, titles, queries that the terminal would answer as if typed, device control, printing, window
/// operations, modes that change what keys or the mouse send.
///
/// It is a list of what passes, so a sequence that nobody thought of is dropped. It works on any pieces of the output, and
/// whatever is in a string sequence without an end is dropped, as terminals do.
///
/// ```text
///            ESC                 [ or U+9B            final: judged, passed or dropped
///   Ground ──────► Escape ───────────────────► Csi ──────────────────────────────────► Ground
///                    │  ( ) * +  #  %  SP …          (again at any ESC, CAN, SUB)
///                    ├───────────────────────► Designate ──── final ─────────────────► Ground
///                    │  ] P X ^ _ or their C1
///                    └───────────────────────► Text ────────── BEL, ST, CAN, SUB ────► Ground
/// ```
#[derive(Clone, Debug, Default)]
pub struct Filter {
    state: State,
    /// Parameters and intermediates of the sequence being read, ASCII; at most [`SEQUENCE_BYTES`].
    sequence: String,
    /// Set when the sequence is longer than that, and so dropped.
    too_long: bool,
    /// Private modes that passed and are to be undone at the end: set ones that are normally reset, and the other way round.
    changed: Vec<u16>,
}

/// See [`Filter`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Ground,
    Escape,
    Csi,
    Designate,
    /// A string: OSC, DCS, SOS, PM or APC. Dropped.
    Text,
}

impl Filter {
    /// At the start of a playback.
    #[must_use]
    pub const fn new() -> Self {
        Self { state: State::Ground, sequence: String::new(), too_long: false, changed: Vec::new() }
    }

    /// Filters a piece of output into `out`.
    pub fn push(&mut self, text: &str, out: &mut String) {
        for c in text.chars() {
            self.handle(c, out);
        }
    }

    /// At the end of a playback: appends what undoes the modes that passed (colours, hidden cursor, alternate screen,
    /// character set, scroll region).
    pub fn finish(&mut self, out: &mut String) {
        out.push_str("\x1b[0m\x1b(B\x0f\x1b[?6l\x1b[4l");
        for mode in core::mem::take(&mut self.changed) {
            let normal = if is_normally_set(mode) { 'h' } else { 'l' };
            // Writing into a string cannot fail.
            let _ = write!(out, "\x1b[?{mode}{normal}");
        }
        // The cursor is kept where it is: setting the region would move it.
        out.push_str("\x1b7\x1b[r\x1b8");
        *self = Self::new();
    }

    fn handle(&mut self, c: char, out: &mut String) {
        // Some characters mean the same in every state.
        match c {
            '\x1b' => return self.begin(State::Escape),
            '\x18' | '\x1a' => return self.begin(State::Ground),
            _ => {}
        }
        match (self.state, c) {
            (State::Text, '\x07' | '\u{9c}') => self.begin(State::Ground),
            (State::Text, _) => {}
            // The C1 controls are two-character sequences in one: terminals differ in whether they obey them.
            (_, '\u{80}'..='\u{9f}') => {
                self.begin(State::Escape);
                let letter = u32::from(c).wrapping_sub(0x40);
                self.escape(char::from_u32(letter).unwrap_or('\0'), out);
            }
            // Terminals obey controls in the middle of a sequence.
            (_, '\0'..='\x1f' | '\x7f') => {
                if matches!(c, '\x07'..='\x0f') {
                    out.push(c);
                }
            }
            (State::Ground, _) => out.push(c),
            (State::Escape, _) => self.escape(c, out),
            (State::Csi, '@'..='~') => {
                self.csi(c, out);
                self.begin(State::Ground);
            }
            (State::Designate, '0'..='~') => {
                // A set of characters for one of the four places: ASCII, British, line drawing.
                let place = matches!(self.sequence.as_str(), "(" | ")" | "*" | "+");
                if place && matches!(c, '0' | 'A' | 'B') {
                    let _ = write!(out, "\x1b{}{c}", self.sequence);
                }
                self.begin(State::Ground);
            }
            (State::Csi | State::Designate, ' '..='~') => {
                if self.sequence.len() < SEQUENCE_BYTES {
                    self.sequence.push(c);
                } else {
                    self.too_long = true;
                }
            }
            // Not part of any sequence: terminals differ, so it is text and the sequence is gone.
            (State::Csi | State::Designate, _) => {
                self.begin(State::Ground);
                out.push(c);
            }
        }
    }

    fn begin(&mut self, state: State) {
        self.state = state;
        self.sequence.clear();
        self.too_long = false;
    }

    /// The character behind ESC.
    fn escape(&mut self, c: char, out: &mut String) {
        let next = match c {
            '[' => State::Csi,
            ']' | 'P' | 'X' | '^' | '_' => State::Text,
            ' '..='/' => State::Designate,
            _ => State::Ground,
        };
        self.begin(next);
        match c {
            // Save and restore the cursor, index, next line, set a tab, reverse index.
            '7' | '8' | 'D' | 'E' | 'H' | 'M' => out.extend(['\x1b', c]),
            // A full reset does more than draw; what is seen of it is a clear screen.
            'c' => out.push_str("\x1b[!p\x1b[H\x1b[2J"),
            ' '..='/' => self.sequence.push(c),
            _ => {}
        }
    }

    /// A whole control sequence that ends with `last`.
    fn csi(&mut self, last: char, out: &mut String) {
        let sequence = core::mem::take(&mut self.sequence);
        if self.too_long {
            return;
        }
        let passes = match (sequence.strip_prefix('?'), last) {
            (Some(modes), 'h' | 'l') => return self.modes(modes, last == 'h', out),
            // Selective erase.
            (Some(number), 'J' | 'K') => is_parameters(number, 1),
            (Some(_), _) => false,
            // The lines that have scrolled off the top are not the recording's to erase.
            (None, 'J') if sequence == "3" => false,
            // Colours: parameters may have parts.
            (None, 'm') => sequence.bytes().all(|b| matches!(b, b'0'..=b'9' | b';' | b':')),
            // Insert mode. All others change the keyboard or the answers of the terminal.
            (None, 'h' | 'l') => sequence == "4",
            // Cursor up, down, forward, back, lines, column, position, tabs, row.
            (None, 'A'..='I' | 'Z' | '`' | 'a' | 'd' | 'e' | 'f')
            // Erase, insert and delete, scroll up, clear tabs, scroll region; save and restore the cursor.
            | (None, 'J'..='M' | 'P' | 'S' | 'X' | '@' | 'g' | 'r') => is_parameters(&sequence, 2),
            (None, 's' | 'u') => sequence.is_empty(),
            // Scroll down: with more parameters it is mouse tracking. Repeat: bounded by the size of the number.
            (None, 'T' | 'b') => is_parameters(&sequence, 1),
            // Soft reset, shape of the cursor.
            (None, 'p') => sequence == "!",
            (None, 'q') => sequence.strip_suffix(' ').is_some_and(|n| is_parameters(n, 1)),
            _ => false,
        };
        if passes {
            let _ = write!(out, "\x1b[{sequence}{last}");
        }
    }

    /// Sets or resets those of the private modes that only draw; resets those that would change input.
    fn modes(&mut self, modes: &str, set: bool, out: &mut String) {
        let mut passed = String::new();
        for mode in modes.split(';').filter_map(|mode| mode.parse::<u16>().ok()) {
            let draws = DRAWING_MODES.contains(&mode);
            if !draws && (set || !INPUT_MODES.contains(&mode)) {
                continue;
            }
            let _ = write!(passed, "{}{mode}", if passed.is_empty() { "" } else { ";" });
            self.changed.retain(|m| *m != mode);
            if draws && set != is_normally_set(mode) {
                self.changed.push(mode);
            }
        }
        if !passed.is_empty() {
            let _ = write!(out, "\x1b[?{passed}{}", if set { 'h' } else { 'l' });
        }
    }
}

/// Whether these are at most `most` plain numbers of at most four digits: larger ones only make a terminal work.
fn is_parameters(text: &str, most: usize) -> bool {
    text.split(';').count() <= most
        && text.split(';').all(|n| n.len() <= 4 && n.bytes().all(|b| b.is_ascii_digit()))
}

/// Wrap around at the right margin, and a visible cursor.
const fn is_normally_set(mode: u16) -> bool {
    matches!(mode, 7 | 25)
}

/// Reverse video, origin, wrap, blinking cursor, visible cursor, reverse wrap, alternate screens and the saved cursor with them.
const DRAWING_MODES: &[u16] = &[5, 6, 7, 12, 25, 45, 47, 1047, 1048, 1049];

/// Cursor keys, mouse reports of all kinds, focus reports, bracketed paste: may be switched off, never on.
const INPUT_MODES: &[u16] =
    &[1, 9, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007, 1015, 1016, 2004];

/// Longest sequence that can pass; the longest of ordinary programs sets two colours in full.
const SEQUENCE_BYTES: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn filtered(text: &str) -> String {
        let mut filter = Filter::new();
        let mut out = String::new();
        filter.push(text, &mut out);
        out
    }

    #[test]
    fn what_draws_passes_unchanged() {
        for text in [
            "plain text, été €\r\n\ttab\x08\x07",
            "\x1b[m\x1b[1;31m\x1b[38;5;200m\x1b[38:2::1:2:3m\x1b[0m",
            "\x1b[H\x1b[2J\x1b[12;40H\x1b[5A\x1b[K\x1b[1K\x1b[?J\x1b[4@\x1b[2P\x1b[3X",
            "\x1b[2;20r\x1b[3S\x1b[3T\x1bM\x1bD\x1bE\x1b7\x1b8\x1b[s\x1b[u",
            "\x1b(0lqqk\x1b(B\x0e\x0f\x1b)0",
            "\x1b[?1049h\x1b[?25l\x1b[?25h\x1b[?1049l\x1b[?7l\x1b[4h\x1b[4l\x1b[2 q\x1b[!p\x1b[30b",
        ] {
            assert_eq!(filtered(text), text);
        }
    }

    #[test]
    fn what_acts_is_dropped() {
        for text in [
            // Clipboard, titles, hyperlinks, colours of the terminal, notifications.
            "\x1b]52;c;aGk=\x07",
            "\x1b]0;title\x1b\\",
            "\u{9d}2;t\u{9c}",
            "\x1b]8;;http://x\x07",
            "\x1b]11;?\x07",
            "\x1b]777;notify;a;b\x07",
            "\x1b]1337;File=:AAAA\x07",
            // Queries: attributes, status, modes, version, terminfo, checksum, answer-back.
            "\x1b[c",
            "\x1b[>c",
            "\x1b[=c",
            "\x1bZ",
            "\x1b[5n",
            "\x1b[6n",
            "\x1b[?6n",
            "\x1b[?25$p",
            "\x1b[>q",
            "\x1bP+q544e\x1b\\",
            "\x1b[1;1;1;1;1;1*y",
            "\x05",
            "\x1b[x",
            "\x1b[?u",
            // Device control, printing, windows, keyboards, mice, paste, 132 columns, double size, leaving UTF-8.
            "\x1bP1;1|17/41\x1b\\",
            "\x1bPq#0~\x1b\\",
            "\x1b[5i",
            "\x1b[?5i",
            "\x1b[4i",
            "\x1b[21t",
            "\x1b[8;9;9t",
            "\x1b[>4;2m",
            "\x1b[>1u",
            "\x1b[=1u",
            "\x1b=",
            "\x1b>",
            "\x1b[?1h",
            "\x1b[?1000h",
            "\x1b[?1003;1006h",
            "\x1b[?2004h",
            "\x1b[?3h",
            "\x1b[?40h",
            "\x1b[?1004h",
            "\x1b[2h",
            "\x1b[20h",
            "\x1b[12l",
            "\x1b#8",
            "\x1b#3",
            "\x1b%@",
            "\x1b%G",
            "\x1bn",
            "\x1bo",
            "\x1b~",
            "\x1b F",
            "\x1b(%5",
            "\x1b(~",
            "\x1b[1;2;3;4;5T",
            "\x1b[1;40s",
            "\x1b[99999A",
            "\x1b[1$}",
            "\x1b[>m",
            "\x1b[1'z",
            "\x1b[0\"q",
            "\x1b[1#{",
            "\x1b[3J",
            "\x1bXsos\x1b\\",
            "\x1b^pm\x1b\\",
            "\x1b_Gapc\x1b\\",
            "\u{90}dcs\u{9c}",
            "\u{98}s\u{9c}",
            "\u{9e}s\u{9c}",
            "\u{9f}s\u{9c}",
            "\u{9a}",
            "\u{8e}",
            "\x00",
            "\x11",
            "\x13",
            "\x7f",
            "\u{85}",
        ] {
            let passed = filtered(text);
            assert!(
                passed.is_empty() || text == "\u{85}" && passed == "\x1bE",
                "{text:?} {passed:?}"
            );
            // Whole, and without what is around it.
            assert_eq!(filtered(&format!("a{text}b")), format!("a{passed}b"), "{text:?}");
        }
    }

    #[test]
    fn modes_are_judged_one_by_one() {
        assert_eq!(filtered("\x1b[?1;25;2004;1049h"), "\x1b[?25;1049h");
        assert_eq!(filtered("\x1b[?1000;2004l\x1b[?1l\x1b[?2026l"), "\x1b[?1000;2004l\x1b[?1l");
        assert_eq!(filtered("\u{9b}1m\x1bc"), "\x1b[1m\x1b[!p\x1b[H\x1b[2J");
    }

    #[test]
    fn broken_sequences_do_not_swallow_what_follows() {
        assert_eq!(filtered("\x1b[1\x1b[2Kx"), "\x1b[2Kx");
        assert_eq!(filtered("\x1b[1\x18x"), "x");
        assert_eq!(filtered("\x1b]0;t\x1b[1mx"), "\x1b[1mx");
        assert_eq!(filtered("\x1b[31\nmx"), "\n\x1b[31mx");
        assert_eq!(filtered("\x1b[3€x"), "€x");
        assert_eq!(filtered(&format!("\x1b[{}mx", "1;".repeat(100))), "x");
    }

    #[test]
    fn any_pieces_give_the_same() {
        let text = "a\x1b[1;31mb\x1b]52;c;x\x1b\\c\x1b[?25;1000h\u{9b}2J\u{9d}t\u{9c}\x1b(0q\x1bP1$r\x07d\x1b[6n€\x1bc";
        let whole = filtered(text);
        let cuts: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        for &a in &cuts {
            for &b in cuts.iter().filter(|b| **b >= a) {
                let mut filter = Filter::new();
                let mut out = String::new();
                for piece in [&text[..a], &text[a..b], &text[b..]] {
                    filter.push(piece, &mut out);
                }
                assert_eq!(out, whole, "{a} {b}");
            }
        }
    }

    #[test]
    fn filtering_twice_changes_nothing_and_the_end_undoes_the_modes() {
        let mut filter = Filter::new();
        let mut out = String::new();
        filter.push("\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[?7h\x1b]0;x", &mut out);
        assert_eq!(filtered(&out), out);
        let mut end = String::new();
        filter.finish(&mut end);
        assert!(end.contains("\x1b[?1049l") && end.contains("\x1b[?25h"), "{end:?}");
        assert!(!end.contains("?7"), "{end:?}");
        assert_eq!(filtered(&end), end);
    }
}
