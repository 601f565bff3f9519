//! Typed access to a parsed file: what is not as it must be is told and passed over, so that one run tells everything.

use std::cell::Cell;

use jsonc_parser::ast::{Object, ObjectProp, Value};

use super::diagnostic::{Diagnostic, Lines, Position, Severity};
use super::hujson::start;
use crate::limits::POLICY_DIAGNOSTICS;
use crate::suggest;

/// Collects what is wrong with one file.
pub(super) struct Reader<'a> {
    lines: Lines<'a>,
    found: Vec<Diagnostic>,
    failed: bool,
    left_out: usize,
    /// Names that slips were compared with.
    compared: Cell<usize>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(lines: Lines<'a>) -> Self {
        Self { lines, found: Vec::new(), failed: false, left_out: 0, compared: Cell::new(0) }
    }

    pub(super) fn position(&self, at: usize) -> Position {
        self.lines.position(at)
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed
    }

    pub(super) fn error(&mut self, at: usize, message: impl Into<String>) {
        self.failed = true;
        self.tell(Severity::Error, at, message.into());
    }

    pub(super) fn warning(&mut self, at: usize, message: impl Into<String>) {
        self.tell(Severity::Warning, at, message.into());
    }

    fn tell(&mut self, severity: Severity, at: usize, message: String) {
        if self.found.len() >= POLICY_DIAGNOSTICS {
            self.left_out = self.left_out.saturating_add(1);
            return;
        }
        let at = self.lines.position(at);
        self.found.push(match severity {
            Severity::Error => Diagnostic::error(at, message),
            Severity::Warning => Diagnostic::warning(at, message),
        });
    }

    /// What was found, in the order of the text.
    pub(super) fn finish(mut self) -> Vec<Diagnostic> {
        self.found.sort_by_key(|d| d.at);
        if self.left_out > 0 {
            let message = format!("and {} more that are not shown", self.left_out);
            let severity = if self.failed { Severity::Error } else { Severity::Warning };
            self.found.push(Diagnostic { severity, at: Position::NONE, message });
        }
        self.found
    }

    // ---- values ----

    pub(super) fn object<'v, 't>(
        &mut self,
        value: &'v Value<'t>,
        what: &str,
    ) -> Option<&'v Object<'t>> {
        match value {
            Value::Object(object) => Some(object),
            other => self.wrong(other, what, "an object"),
        }
    }

    pub(super) fn array<'v, 't>(
        &mut self,
        value: &'v Value<'t>,
        what: &str,
    ) -> Option<&'v [Value<'t>]> {
        match value {
            Value::Array(array) => Some(&array.elements),
            other => self.wrong(other, what, "a list"),
        }
    }

    pub(super) fn text<'v>(&mut self, value: &'v Value<'_>, what: &str) -> Option<&'v str> {
        match value {
            Value::StringLit(text) => Some(&text.value),
            other => self.wrong(other, what, "a string"),
        }
    }

    pub(super) fn flag(&mut self, value: &Value<'_>, what: &str) -> Option<bool> {
        match value {
            Value::BooleanLit(flag) => Some(flag.value),
            other => self.wrong(other, what, "true or false"),
        }
    }

    pub(super) fn number(&mut self, value: &Value<'_>, what: &str) -> Option<i64> {
        match value {
            Value::NumberLit(number) => {
                let parsed = number.value.parse().ok();
                if parsed.is_none() {
                    self.error(start(value), format!("{what} must be a whole number"));
                }
                parsed
            }
            other => self.wrong(other, what, "a number"),
        }
    }

    /// A list of strings, each with its place; none when one of them is no string.
    pub(super) fn texts<'v>(
        &mut self,
        value: &'v Value<'_>,
        what: &str,
    ) -> Option<Vec<(&'v str, usize)>> {
        let elements = self.array(value, what)?;
        let mut texts = Vec::with_capacity(elements.len());
        for element in elements {
            let text = self.text(element, &format!("each of {what}"));
            texts.extend(text.map(|text| (text, start(element))));
        }
        (texts.len() == elements.len()).then_some(texts)
    }

    fn wrong<T>(&mut self, value: &Value<'_>, what: &str, wanted: &str) -> Option<T> {
        let is = match value {
            Value::Array(_) => "a list",
            Value::BooleanLit(_) => "true or false",
            Value::NullKeyword(_) => "null",
            Value::NumberLit(_) => "a number",
            Value::Object(_) => "an object",
            Value::StringLit(_) => "a string",
        };
        self.error(start(value), format!("{what} must be {wanted}, not {is}"));
        None
    }

    // ---- keys ----

    /// A key that none of `known` is: an error when it looks like a slip, else only unless `lenient`.
    pub(super) fn unknown_key(&mut self, key: &ObjectProp<'_>, known: &[&str], lenient: bool) {
        let (name, at) = (key.name.as_str(), key.range.start);
        match self.nearest(name, known.iter().copied()) {
            Some(meant) => self.error(at, format!("unknown key {name:?}: did you mean {meant:?}?")),
            None if lenient => self.warning(at, format!("unknown key {name:?} is passed over")),
            None => self.error(at, format!("unknown key {name:?}")),
        }
    }

    /// What was meant, without regard to capitals; not looked for when nothing more is told anyway.
    pub(super) fn nearest<'k>(
        &self,
        typed: &str,
        known: impl IntoIterator<Item = &'k str>,
    ) -> Option<&'k str> {
        if self.found.len() >= POLICY_DIAGNOSTICS {
            return None;
        }
        let room = MOST_COMPARED.saturating_sub(self.compared.get());
        let lower = typed.to_ascii_lowercase();
        let near = known.into_iter().filter(|k| k.len().abs_diff(typed.len()) <= MOST_WRONG);
        let near: Vec<(String, &str)> =
            near.take(room).map(|k| (k.to_ascii_lowercase(), k)).collect();
        self.compared.set(self.compared.get().saturating_add(near.len()));
        let meant = suggest::nearest(&lower, near.iter().map(|(lower, _)| lower.as_str()))?;
        near.iter().find(|(lower, _)| lower == meant).map(|(_, k)| *k)
    }
}

/// Letters by which what was typed may be longer or shorter than what was meant. `enforce` stands for `enforceRecorder`.
const MOST_WRONG: usize = 8;
/// Names that the slips of one file are compared with: it can define very many.
const MOST_COMPARED: usize = 50_000;
