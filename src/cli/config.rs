//! The configuration file: HuJSON (JSON with comments and trailing commas), one object for each command.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::exit::Failure;
use super::spec::Spec;
use crate::suggest;

/// Where the file is when nobody says otherwise.
pub(crate) const DEFAULT_PATH: &str = "/etc/castkeep/castkeep.hujson";

/// Largest file that is read.
const MAX_BYTES: u64 = 1024 * 1024;

/// A file that was read and checked as far as its form goes.
#[derive(Debug)]
pub(crate) struct ConfigFile {
    path: PathBuf,
    root: serde_json::Map<String, Value>,
    keys: Vec<Key>,
}

/// A key with its place, so that errors can point at it.
#[derive(Debug)]
struct Key {
    parents: Vec<String>,
    name: String,
    line: usize,
    column: usize,
}

impl ConfigFile {
    /// Reads a file that must exist.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let shown = path.display();
        let mut text = String::new();
        std::fs::File::open(path)
            .and_then(|f| f.take(MAX_BYTES + 1).read_to_string(&mut text))
            .map_err(|e| {
                Failure::usage(format!("cannot read the configuration file {shown}: {e}"))
            })?;
        if text.len() as u64 > MAX_BYTES {
            return Err(Failure::usage(format!("{shown}: larger than {MAX_BYTES} bytes")));
        }
        Self::parse(path, &text)
    }

    /// The default file, when there is one.
    pub(crate) fn read_default() -> Result<Option<Self>, Failure> {
        let path = Path::new(DEFAULT_PATH);
        match std::fs::symlink_metadata(path) {
            Ok(_) => Self::read(path).map(Some),
            Err(_) => Ok(None),
        }
    }

    pub(crate) fn parse(path: &Path, text: &str) -> Result<Self, Failure> {
        let at = |line: usize, column: usize, what: &str| {
            Failure::usage(format!("{}:{line}:{column}: {what}", path.display()))
        };
        if let Err(Place { line, column, what }) = check_comments(text) {
            return Err(at(line, column, what));
        }
        // Comments and trailing commas become blanks, so places stay right.
        let mut plain = String::with_capacity(text.len());
        json_strip_comments::StripComments::new(text.as_bytes())
            .read_to_string(&mut plain)
            .map_err(|e| Failure::usage(format!("{}: {e}", path.display())))?;
        let root: Value = serde_json::from_str(&plain).map_err(|e| {
            let what = e.to_string();
            at(e.line(), e.column(), what.split(" at line ").next().unwrap_or("not JSON"))
        })?;
        let Value::Object(root) = root else {
            return Err(at(1, 1, "the file must hold one object"));
        };
        let keys = scan_keys(&plain);
        let mut seen = BTreeSet::new();
        for key in &keys {
            if !seen.insert((&key.parents, &key.name)) {
                return Err(at(
                    key.line,
                    key.column,
                    &format!("the key `{}` stands here twice", key.name),
                ));
            }
        }
        Ok(Self { path: path.to_owned(), root, keys })
    }

    /// The object of a command, with every key known.
    pub(crate) fn section(
        &self,
        spec: &Spec,
    ) -> Result<Option<&serde_json::Map<String, Value>>, Failure> {
        let Some(section) = self.root.get(spec.name) else { return Ok(None) };
        let Value::Object(section) = section else {
            return Err(self.error_at(&[spec.name], "must be an object"));
        };
        for name in section.keys() {
            if !spec.options.iter().any(|o| o.name == name) {
                let hint = suggest::nearest(name, spec.options.iter().map(|o| o.name))
                    .map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
                return Err(self.error_at(
                    &[spec.name, name],
                    &format!("`castkeep {}` has no option `{name}`{hint}", spec.name),
                ));
            }
        }
        Ok(Some(section))
    }

    /// A value of any section, unchecked.
    pub(crate) fn value(&self, section: &str, name: &str) -> Option<&Value> {
        self.root.get(section)?.get(name)
    }

    /// Every top-level key must be one of `known`.
    pub(crate) fn check_sections<'a>(
        &self,
        known: impl Iterator<Item = &'a str> + Clone,
    ) -> Result<(), Failure> {
        for name in self.root.keys() {
            if !known.clone().any(|k| k == name) {
                let hint = suggest::nearest(name, known)
                    .map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
                return Err(self.error_at(&[name], &format!("there is no section `{name}`{hint}")));
            }
        }
        Ok(())
    }

    /// An error that names the file and the place of a key.
    pub(crate) fn error_at(&self, path: &[&str], what: &str) -> Failure {
        let place = path.split_last().and_then(|(name, parents)| {
            self.keys.iter().find(|k| k.name == *name && k.parents == parents)
        });
        match place {
            Some(key) => Failure::usage(format!(
                "{}:{}:{}: {what}",
                self.path.display(),
                key.line,
                key.column
            )),
            None => Failure::usage(format!("{}: {what}", self.path.display())),
        }
    }
}

struct Place {
    line: usize,
    column: usize,
    what: &'static str,
}

/// `#` comments are not HuJSON, and a block comment must end: the library that takes comments out accepts both.
fn check_comments(text: &str) -> Result<(), Place> {
    let (mut line, mut column) = (1, 0);
    let mut chars = text.chars().peekable();
    let mut in_string = false;
    let mut open: Option<(usize, usize)> = None;
    while let Some(c) = chars.next() {
        if c == '\n' {
            line += 1;
            column = 0;
            continue;
        }
        column += 1;
        if open.is_some() {
            if c == '*' && chars.peek() == Some(&'/') {
                chars.next();
                column += 1;
                open = None;
            }
        } else if in_string {
            match c {
                '\\' => {
                    chars.next();
                    column += 1;
                }
                '"' => in_string = false,
                _ => {}
            }
        } else {
            match (c, chars.peek()) {
                ('"', _) => in_string = true,
                ('#', _) => {
                    return Err(Place { line, column, what: "comments begin with //, not with #" });
                }
                ('/', Some('*')) => {
                    open = Some((line, column));
                    chars.next();
                    column += 1;
                }
                ('/', Some('/')) => {
                    while chars.peek().is_some_and(|c| *c != '\n') {
                        chars.next();
                        column += 1;
                    }
                }
                _ => {}
            }
        }
    }
    match open {
        Some((line, column)) => Err(Place { line, column, what: "this comment does not end" }),
        None => Ok(()),
    }
}

/// The keys of valid JSON with their places. A parser that keeps places would be a dependency for nothing else.
fn scan_keys(json: &str) -> Vec<Key> {
    let mut keys = Vec::new();
    let mut path: Vec<Option<String>> = Vec::new();
    let mut last: Option<(String, usize, usize)> = None;
    let (mut line, mut column) = (1, 0);
    let mut chars = json.char_indices();
    while let Some((at, c)) = chars.next() {
        if c == '\n' {
            line += 1;
            column = 0;
            continue;
        }
        column += 1;
        match c {
            '"' => {
                let (from_line, from_column) = (line, column);
                let mut end = at + 1;
                while let Some((i, c)) = chars.next() {
                    column += 1;
                    end = i + 1;
                    match c {
                        '\\' => {
                            chars.next();
                            column += 1;
                        }
                        '"' => break,
                        _ => {}
                    }
                }
                let text = json.get(at..end).and_then(|s| serde_json::from_str(s).ok());
                last = text.map(|text| (text, from_line, from_column));
            }
            ':' => {
                if let Some((name, line, column)) = last.take() {
                    let parents = path.iter().flatten().cloned().collect();
                    keys.push(Key { parents, name, line, column });
                }
            }
            '{' | '[' => {
                // What stands inside belongs to the key that was read last at this level.
                let depth = path.len();
                let parent = keys
                    .last()
                    .filter(|k| k.parents.len() == path.iter().flatten().count())
                    .map(|k| k.name.clone());
                path.push(if depth == 0 { None } else { parent });
            }
            '}' | ']' => {
                path.pop();
                last = None;
            }
            ',' => last = None,
            _ => {}
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Opt;

    const SPEC: Spec = Spec {
        name: "serve",
        summary: "",
        operands: "",
        options: &[Opt::list("listen", "ADDR", "x"), Opt::value("dst", "DIR", "x")],
        about: "",
        exits: "",
        examples: "",
        environment: true,
        stops_at_operand: false,
    };

    fn parse(text: &str) -> Result<ConfigFile, String> {
        ConfigFile::parse(Path::new("c"), text).map_err(|e| e.text())
    }

    #[test]
    fn comments_and_trailing_commas_are_fine() {
        let file = parse("// one\n{\"serve\": {/* two */ \"dst\": \"/x\", },}\n").unwrap();
        assert_eq!(file.section(&SPEC).unwrap().unwrap()["dst"], "/x");
    }

    #[test]
    fn errors_say_where() {
        for (text, wanted) in [
            ("{\n  # no\n}", "c:2:3: comments begin with //"),
            ("{ /* open", "c:1:3: this comment does not end"),
            ("{\"serve\": {\"dst\": 1,\n \"dst\": 2}}", "c:2:2: the key `dst` stands here twice"),
            ("[1]", "c:1:1: the file must hold one object"),
            ("{\"serve\": ", "c:1:"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(wanted), "{text:?}: {error}");
        }
        let file = parse("{\n  \"serve\": {\n    \"lisen\": []\n  }\n}").unwrap();
        let error = file.section(&SPEC).unwrap_err().text();
        assert_eq!(error, "c:3:5: `castkeep serve` has no option `lisen`; did you mean `listen`?");
        let error = file.check_sections(["record", "server"].into_iter()).unwrap_err().text();
        assert!(
            error.starts_with("c:2:3: there is no section `serve`; did you mean `server`?"),
            "{error}"
        );
    }
}
