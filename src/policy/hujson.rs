//! JSON with comments and trailing commas, and nothing looser; with positions.
//!
//! `jsonc-parser` does the grammar with everything else of JSON5 switched off. Before it, `scan` refuses what it would take
//! all the same and what would exhaust the stack or the memory; behind it, keys that stand twice are refused.

use std::collections::HashMap;

use jsonc_parser::ast::{Object, Value};
use jsonc_parser::common::Ranged;
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};

use super::diagnostic::Lines;
pub use super::diagnostic::{Diagnostic, Position, Severity};
use super::scan::{Bounds, scan};
use crate::limits;

/// What a file may hold.
#[derive(Clone, Copy)]
pub(super) struct Caps {
    pub(super) bytes: usize,
    pub(super) values: usize,
}

/// A text that is HuJSON.
pub(super) struct Document<'a> {
    pub(super) root: Value<'a>,
    pub(super) lines: Lines<'a>,
}

/// Reads a text whole.
///
/// # Errors
/// All keys that stand twice; or the first thing that breaks the grammar.
pub(super) fn parse(bytes: &[u8], caps: Caps) -> Result<Document<'_>, Vec<Diagnostic>> {
    if bytes.len() > caps.bytes {
        let (size, most) = (bytes.len(), caps.bytes);
        let message = format!("the file has {size} bytes, and at most {most} are read");
        return Err(vec![Diagnostic::error(Position { line: 1, column: 1 }, message)]);
    }
    let text = match core::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(fault) => {
            let good = bytes.get(..fault.valid_up_to()).unwrap_or_default();
            let good = core::str::from_utf8(good).unwrap_or_default();
            let at = Lines::new(good).position(good.len());
            return Err(vec![Diagnostic::error(at, "this is not UTF-8")]);
        }
    };
    let lines = Lines::new(text);
    let one = |offset, message: String| vec![Diagnostic::error(lines.position(offset), message)];
    let bounds = Bounds { depth: limits::POLICY_DEPTH, values: caps.values };
    scan(text, bounds).map_err(|(offset, message)| one(offset, message))?;
    let parsed = parse_to_ast(text, &CollectOptions::default(), &STRICT)
        .map_err(|fault| one(fault.range().start, plain(&fault.kind().to_string())))?;
    let Some(root) = parsed.value else {
        return Err(one(text.len(), "there is no JSON value in this file".into()));
    };
    let mut twice = Vec::new();
    find_twice(&root, &lines, &mut twice);
    twice.sort_by_key(|d| d.at);
    if twice.is_empty() { Ok(Document { root, lines }) } else { Err(twice) }
}

/// The keys that stand twice in one object, at any depth.
fn find_twice(value: &Value<'_>, lines: &Lines<'_>, found: &mut Vec<Diagnostic>) {
    match value {
        Value::Array(array) => {
            for element in &array.elements {
                find_twice(element, lines, found);
            }
        }
        Value::Object(object) => {
            find_twice_in(object, lines, found);
            for property in &object.properties {
                find_twice(&property.value, lines, found);
            }
        }
        _ => {}
    }
}

fn find_twice_in(object: &Object<'_>, lines: &Lines<'_>, found: &mut Vec<Diagnostic>) {
    if object.properties.len() < 2 {
        return;
    }
    let mut first = HashMap::with_capacity(object.properties.len());
    for property in &object.properties {
        let (name, at) = (property.name.as_str(), property.range.start);
        match first.get(name) {
            None => drop(first.insert(name, at)),
            Some(_) if found.len() >= limits::POLICY_DIAGNOSTICS => {}
            Some(before) => {
                let before = lines.position(*before);
                let message = format!("{name:?} stands here twice, first at {before}");
                found.push(Diagnostic::error(lines.position(at), message));
            }
        }
    }
}

/// The parser's words, as a part of a line.
fn plain(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_ascii_lowercase());
    first.into_iter().chain(chars).collect::<String>().trim_end_matches('.').to_owned()
}

/// Where a value begins.
pub(super) fn start(value: &Value<'_>) -> usize {
    value.range().start
}

const STRICT: ParseOptions = ParseOptions {
    allow_comments: true,
    allow_loose_object_property_names: false,
    allow_trailing_commas: true,
    allow_missing_commas: false,
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
    allow_bare_decimal_point_numbers: false,
    allow_non_finite_numbers: false,
    allow_extended_string_escapes: false,
};

#[cfg(test)]
mod tests {
    use super::*;

    const CAPS: Caps = Caps { bytes: limits::POLICY_BYTES, values: limits::POLICY_VALUES };

    fn faults(text: impl AsRef<[u8]>) -> Vec<String> {
        match parse(text.as_ref(), CAPS) {
            Ok(_) => Vec::new(),
            Err(list) => list.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn comments_and_trailing_commas_are_all_that_is_more_than_json() {
        for text in [
            "{}",
            "[1, -2.5e3, true, false, null, \"\\u00e4\\ud83d\\ude00\\n\",]",
            "// a\n{ \"a\": [ /* b */ ], } // c",
        ] {
            assert_eq!(faults(text), [""; 0], "{text}");
        }
        for (text, at) in [
            ("{a: 1}", "1:2"),
            ("{\"a\": +1}", "1:7"),
            ("{\"a\": 0x10}", "1:7"),
            ("{\"a\": .5}", "1:7"),
            ("{\"a\": 5.}", "1:7"),
            ("{\"a\": 01}", "1:8"),
            ("{\"a\": NaN}", "1:7"),
            ("{\"a\": Infinity}", "1:7"),
            ("{\"a\": 1 \"b\": 2}", "1:8"),
            ("[1 2]", "1:3"),
            ("[,]", "1:2"),
            ("[1,,]", "1:4"),
            ("{,}", "1:2"),
            ("{\"a\" 1}", "1:6"),
            ("{\"a\"}", "1:5"),
            ("{\"a\":}", "1:6"),
            ("{\"a\": \"\\x41\"}", "1:8"),
            ("{\"a\": \"\\ud800\"}", "1:8"),
            ("{} {}", "1:4"),
            ("{}}", "1:3"),
            ("{\n  \"a\": [1,\n", "2:8"),
            ("", "1:1"),
            ("// nothing\n", "2:1"),
            ("{\"a\": 1 # no\n}", "1:9"),
        ] {
            let found = faults(text);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert!(found[0].starts_with(&format!("{at}: error: ")), "{text}: {found:?}");
        }
    }

    #[test]
    fn a_key_that_stands_twice_is_an_error_with_both_places() {
        let text = "{\n  \"a\": {\"x\": 1, \"y\": 2, \"x\": 3},\n  \"b\": 0,\n  \"\\u0061\": 1\n}";
        assert_eq!(
            faults(text),
            [
                "2:25: error: \"x\" stands here twice, first at 2:9",
                "4:3: error: \"a\" stands here twice, first at 2:3",
            ]
        );
    }

    #[test]
    fn deep_nesting_is_an_error() {
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert_eq!(faults(deep(64)), [""; 0]);
        assert_eq!(faults(deep(65)), ["1:65: error: nested more than 64 deep"]);
        assert_eq!(faults(deep(100_000)), ["1:65: error: nested more than 64 deep"]);
        assert_eq!(faults("{\"a\":".repeat(100_000)), ["1:321: error: nested more than 64 deep"]);
    }

    #[test]
    fn ten_mebibytes_are_read() {
        let line =
            "  \"tag:web-server\", // a comment that is not short, so that there are lines\n";
        let text = format!("{{\"acls\": [\n{}]}}", line.repeat(10 * 1024 * 1024 / line.len()));
        assert!(text.len() > 10_000_000);
        assert_eq!(faults(&text), [""; 0]);
        let broken = format!("{}\n!", text);
        let lines = text.lines().count() + 1;
        assert!(faults(&broken)[0].starts_with(&format!("{lines}:1: error: ")));
        assert_eq!(
            faults(" ".repeat(limits::POLICY_BYTES + 1)),
            ["1:1: error: the file has 16777217 bytes, and at most 16777216 are read"]
        );
    }

    #[test]
    fn what_is_not_utf8_is_told_where() {
        assert_eq!(faults(b"{\n \"\xff\"}"), ["2:3: error: this is not UTF-8"]);
    }
}
