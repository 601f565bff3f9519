//! The look at a text before it is parsed.
//!
//! The parser calls itself for each level of nesting and takes some things that HuJSON does not have. This finds both without
//! calling itself, and says what is not closed at the place where it was opened.

/// What is wrong: at which byte, and what.
pub(super) type Fault = (usize, String);

/// What a text may hold.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    pub(super) depth: usize,
    pub(super) values: usize,
}

/// Checks comments, strings, spaces, nesting and the number of values; nothing else of the grammar.
pub(super) fn scan(text: &str, bounds: Bounds) -> Result<(), Fault> {
    let mut state = State::Plain;
    let mut depth = 0_usize;
    let mut values = 1_usize;
    let mut return_at = None;
    for (i, byte) in text.bytes().enumerate() {
        // Readers differ in whether a carriage return alone ends a line, so in what a comment hides.
        if let Some(at) = return_at.take()
            && byte != b'\n'
        {
            return Err((at, LONE_RETURN.into()));
        }
        if byte == b'\r' && !matches!(state, State::Text { .. }) {
            return_at = Some(i);
        }
        state = match state {
            State::Plain => {
                match byte {
                    b'{' | b'[' => {
                        depth = depth.saturating_add(1);
                        if depth > bounds.depth {
                            let deepest = bounds.depth;
                            return Err((i, format!("nested more than {deepest} deep")));
                        }
                        values = values.saturating_add(1);
                    }
                    b'}' | b']' => depth = depth.saturating_sub(1),
                    b',' | b':' => values = values.saturating_add(1),
                    b'#' => return Err((i, "# begins no comment: use // or /* */".into())),
                    b'\'' => return Err((i, "strings stand in double quotes".into())),
                    b' ' | b'\t' | b'\n' | b'\r' => {}
                    0..=0x20 | 0x7f => {
                        return Err((i, format!("control character 0x{byte:02x}")));
                    }
                    0x80.. => return Err((i, not_ascii(text, i))),
                    _ => {}
                }
                if values > bounds.values {
                    return Err((i, format!("more than {} values", bounds.values)));
                }
                match byte {
                    b'"' => State::Text { start: i, escaped: false },
                    b'/' => State::Slash { start: i },
                    _ => State::Plain,
                }
            }
            State::Slash { start } => match byte {
                b'/' => State::Line,
                b'*' => State::Block { start, star: false },
                _ => return Err((start, "a comment begins with // or /*".into())),
            },
            State::Line if byte == b'\n' => State::Plain,
            State::Line => State::Line,
            State::Block { star: true, .. } if byte == b'/' => State::Plain,
            State::Block { start, .. } => State::Block { start, star: byte == b'*' },
            State::Text { start, escaped } => match byte {
                b'\n' | b'\r' => {
                    return Err((start, "this string is not closed on its line".into()));
                }
                0..=0x1f => {
                    return Err((i, format!("control character 0x{byte:02x} in a string")));
                }
                b'"' if !escaped => State::Plain,
                _ => State::Text { start, escaped: byte == b'\\' && !escaped },
            },
        };
    }
    match (state, return_at) {
        (_, Some(at)) => Err((at, LONE_RETURN.into())),
        (State::Slash { start }, _) => Err((start, "a comment begins with // or /*".into())),
        (State::Block { start, .. }, _) => Err((start, "this comment is not closed".into())),
        (State::Text { start, .. }, _) => Err((start, "this string is not closed".into())),
        (State::Plain | State::Line, _) => Ok(()),
    }
}

/// ```text
/// Plain ─ / ─► Slash ─ / ─► Line ─ newline ─► Plain
///   │            └──── * ─► Block ─ */ ─────► Plain
///   └─ " ─► Text ─ " ─► Plain
/// ```
#[derive(Clone, Copy)]
enum State {
    Block { start: usize, star: bool },
    Line,
    Plain,
    Slash { start: usize },
    Text { start: usize, escaped: bool },
}

fn not_ascii(text: &str, at: usize) -> String {
    match text.get(at..).and_then(|rest| rest.chars().next()) {
        Some('\u{feff}') => "a byte order mark: save the file without one".into(),
        Some(c) => format!("U+{:04X} outside of a string", u32::from(c)),
        None => "half a character".into(),
    }
}

const LONE_RETURN: &str = "a carriage return without a newline behind it";

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> String {
        match scan(text, Bounds { depth: 3, values: 10 }) {
            Ok(()) => "fine".into(),
            Err((at, what)) => format!("{at}: {what}"),
        }
    }

    #[test]
    fn what_hujson_has_passes() {
        for text in [
            "",
            "{}",
            "// only a comment",
            "/* a\n comment **/{\"#\":'x'}".replace('\'', "\"").as_str(),
            "{\r\n\t\"a\": \"\\\"€ // no comment\" // one\r\n}",
            "[[[1]],[]]",
        ] {
            assert_eq!(fault(text), "fine", "{text:?}");
        }
    }

    #[test]
    fn what_it_does_not_have_is_told_where_it_begins() {
        for (text, expected) in [
            ("{} # x", "3: # begins no comment: use // or /* */"),
            ("{'a':1}", "1: strings stand in double quotes"),
            ("[[[[]]]]", "3: nested more than 3 deep"),
            ("[1,2,3,4,5,6,7,8,9,10]", "18: more than 10 values"),
            ("{\"a\n\":1}", "1: this string is not closed on its line"),
            ("{\"a\t\":1}", "3: control character 0x09 in a string"),
            ("{\"a\\\"", "1: this string is not closed"),
            ("{} /* x", "3: this comment is not closed"),
            ("{} /", "3: a comment begins with // or /*"),
            ("{} / x", "3: a comment begins with // or /*"),
            ("{}\u{b}", "2: control character 0x0b"),
            ("{\u{a0}}", "1: U+00A0 outside of a string"),
            ("\u{feff}{}", "0: a byte order mark: save the file without one"),
            ("{} // a\r\"b\": 1", "7: a carriage return without a newline behind it"),
            ("{}\r", "2: a carriage return without a newline behind it"),
        ] {
            assert_eq!(fault(text), expected, "{text:?}");
        }
    }
}
