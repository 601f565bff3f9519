//! The values of a command's options, from wherever they came: command line, environment, configuration file.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::config::ConfigFile;
use super::exit::Failure;
use super::spec::{Opt, Spec};
use crate::suggest;

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Parsed {
    /// `--help`.
    Help,
    /// The command itself.
    Run(Args),
}

/// Options and operands of one call.
#[derive(Debug)]
pub(crate) struct Args {
    spec: &'static Spec,
    values: BTreeMap<&'static str, Given>,
    operands: Vec<OsString>,
    /// Where `serve` stores, for commands that read.
    store: Option<PathBuf>,
}

/// The values of one option and where they came from, for error messages.
#[derive(Debug)]
struct Given {
    values: Vec<OsString>,
    origin: String,
}

impl Args {
    /// Reads the command line, then fills up from the environment and the configuration file.
    pub(crate) fn parse(spec: &'static Spec, argv: Vec<OsString>) -> Result<Parsed, Failure> {
        let mut args = Self { spec, values: BTreeMap::new(), operands: Vec::new(), store: None };
        let mut config: Option<PathBuf> = None;
        let mut parser = lexopt::Parser::from_args(argv);
        let wrong = |e: lexopt::Error| Failure::usage(format!("{}: {e}", spec.name));
        loop {
            if spec.stops_at_operand && !args.operands.is_empty() {
                args.operands.extend(parser.raw_args().map_err(wrong)?);
                break;
            }
            let Some(arg) = parser.next().map_err(wrong)? else { break };
            let option = match arg {
                lexopt::Arg::Short('h') => return Ok(Parsed::Help),
                lexopt::Arg::Long("help") => return Ok(Parsed::Help),
                lexopt::Arg::Long("config") if spec.environment => {
                    config = Some(parser.value().map_err(wrong)?.into());
                    continue;
                }
                lexopt::Arg::Value(value) => {
                    args.operands.push(value);
                    continue;
                }
                lexopt::Arg::Short(letter) => spec
                    .options
                    .iter()
                    .find(|o| o.short == Some(letter))
                    .ok_or_else(|| unknown(spec, &format!("-{letter}"), None))?,
                lexopt::Arg::Long(name) => {
                    let found = spec.options.iter().find(|o| o.name == name);
                    found.ok_or_else(|| unknown(spec, &format!("--{name}"), Some(name)))?
                }
            };
            let origin = format!("--{}", option.name);
            let value = match (option.value, option.bare) {
                (Some(_), Some(bare)) => parser.optional_value().unwrap_or_else(|| bare.into()),
                (Some(_), None) => parser.value().map_err(wrong)?,
                (None, _) => OsString::from("1"),
            };
            args.add(option, value, origin)?;
        }
        args.fill_from_environment();
        args.fill_from_file(config)?;
        Ok(Parsed::Run(args))
    }

    /// Options from a configuration file alone: for a login shell, whose environment belongs to the user.
    pub(crate) fn from_file(spec: &'static Spec, path: &Path) -> Result<Self, Failure> {
        let mut args = Self { spec, values: BTreeMap::new(), operands: Vec::new(), store: None };
        args.fill_from_file(Some(path.to_owned()))?;
        Ok(args)
    }

    fn add(
        &mut self,
        option: &'static Opt,
        value: OsString,
        origin: String,
    ) -> Result<(), Failure> {
        let given = self
            .values
            .entry(option.name)
            .or_insert_with(|| Given { values: Vec::new(), origin: origin.clone() });
        if option.many {
            given.values.extend(split_list(&value));
        } else if option.value.is_some() && !given.values.is_empty() {
            return Err(Failure::usage(format!("{origin} is given twice")));
        } else {
            given.values = vec![value];
        }
        Ok(())
    }

    fn fill_from_environment(&mut self) {
        if !self.spec.environment {
            return;
        }
        self.store = std::env::var_os("CASTKEEP_SERVE_DST").map(PathBuf::from);
        for option in self.spec.options {
            let variable = self.spec.variable(option.name);
            let Some(value) = std::env::var_os(&variable) else { continue };
            if self.values.contains_key(option.name) {
                continue;
            }
            let values = match option.bare {
                Some(_) if value.is_empty() || value == "0" => continue,
                Some(bare) if value == "1" => vec![bare.into()],
                _ if option.many => split_list(&value),
                _ => vec![value],
            };
            self.values.insert(option.name, Given { values, origin: format!("${variable}") });
        }
    }

    fn fill_from_file(&mut self, named: Option<PathBuf>) -> Result<(), Failure> {
        let named = named.or_else(|| {
            let from_environment = std::env::var_os("CASTKEEP_CONFIG").filter(|v| !v.is_empty());
            from_environment.filter(|_| self.spec.environment).map(PathBuf::from)
        });
        let file = match named {
            Some(path) => Some(ConfigFile::read(&path)?),
            None => ConfigFile::read_default()?,
        };
        let Some(file) = file else { return Ok(()) };
        file.check_sections(super::COMMANDS.iter().map(|c| c.spec.name))?;
        if let (None, Some(Value::String(dst))) = (&self.store, file.value("serve", "dst")) {
            self.store = Some(dst.into());
        }
        let Some(section) = file.section(self.spec)? else { return Ok(()) };
        for option in self.spec.options {
            let Some(value) = section.get(option.name) else { continue };
            if self.values.contains_key(option.name) {
                continue;
            }
            let bad = |what: &str| file.error_at(&[self.spec.name, option.name], what);
            let values = match (value, option.value, option.many) {
                (Value::Bool(on), Some(_), false) if option.bare.is_some() => match option.bare {
                    Some(bare) if *on => vec![bare.into()],
                    _ => continue,
                },
                (Value::Bool(on), None, _) => vec![OsString::from(if *on { "1" } else { "0" })],
                (_, None, _) => return Err(bad("must be true or false")),
                (Value::Array(items), Some(_), true) => items
                    .iter()
                    .map(|item| scalar(item).ok_or_else(|| bad("must be a list of strings")))
                    .collect::<Result<_, _>>()?,
                (value, Some(_), true) => {
                    split_list(&scalar(value).ok_or_else(|| bad("must be a list of strings"))?)
                }
                (value, Some(_), false) => {
                    vec![scalar(value).ok_or_else(|| bad("must be a string or a number"))?]
                }
            };
            let origin = bad("").text();
            let origin = format!("{} (`{}`)", origin.trim_end_matches(": "), option.name);
            self.values.insert(option.name, Given { values, origin });
        }
        Ok(())
    }

    /// What is not an option.
    pub(crate) fn operands(&self) -> &[OsString] {
        &self.operands
    }

    /// The directory that this machine's `serve` stores into, when the environment or the configuration file says so.
    pub(crate) fn store(&self) -> Option<&Path> {
        self.store.as_deref()
    }

    /// Whether an option was given at all.
    pub(crate) fn is_given(&self, name: &str) -> bool {
        self.given(name).is_some()
    }

    /// Whether it came from the command line, and not from the environment or a file.
    pub(crate) fn is_on_command_line(&self, name: &str) -> bool {
        self.given(name).is_some_and(|given| given.origin.starts_with("--"))
    }

    fn given(&self, name: &str) -> Option<&Given> {
        debug_assert!(self.spec.options.iter().any(|o| o.name == name), "no such option: {name}");
        self.values.get(name)
    }

    /// The raw value.
    pub(crate) fn os(&self, name: &str) -> Option<&OsStr> {
        self.given(name).and_then(|g| g.values.last()).map(OsString::as_os_str)
    }

    /// A path.
    pub(crate) fn path(&self, name: &str) -> Option<PathBuf> {
        self.os(name).map(PathBuf::from)
    }

    /// A string.
    pub(crate) fn string(&self, name: &str) -> Result<Option<String>, Failure> {
        self.parsed(name, "text in UTF-8", |text| Some(text.to_owned()))
    }

    /// All values of a list, empty when there are none.
    pub(crate) fn list(&self, name: &str) -> Result<Vec<String>, Failure> {
        let Some(given) = self.given(name) else { return Ok(Vec::new()) };
        let texts = given.values.iter().map(|v| v.to_str().map(str::to_owned));
        texts.collect::<Option<_>>().ok_or_else(|| self.wrong(name, "text in UTF-8"))
    }

    /// A switch.
    pub(crate) fn switch(&self, name: &str) -> Result<bool, Failure> {
        let on = self.parsed(name, "1 or 0", |text| match text {
            "1" | "true" | "yes" | "on" => Some(true),
            "0" | "false" | "no" | "off" | "" => Some(false),
            _ => None,
        })?;
        Ok(on.unwrap_or(false))
    }

    /// A length of time: `500ms`, `10s`, `2m`, `1h`, `7d`; a bare number is seconds.
    pub(crate) fn duration(&self, name: &str) -> Result<Option<Duration>, Failure> {
        self.parsed(name, "a length of time such as 500ms, 10s, 2m, 1h", parse_duration)
    }

    /// A number of bytes: `65536`, `64KiB`, `4MiB`, `1GiB`; also `k`, `M`, `G` for powers of 1000.
    pub(crate) fn bytes(&self, name: &str) -> Result<Option<u64>, Failure> {
        self.parsed(name, "a size such as 65536, 64KiB, 4MiB, 1GiB", parse_bytes)
    }

    /// Anything that parses from text; `wanted` says what.
    pub(crate) fn parse_as<T: std::str::FromStr>(
        &self,
        name: &str,
        wanted: &str,
    ) -> Result<Option<T>, Failure> {
        self.parsed(name, wanted, |text| text.parse().ok())
    }

    /// One of a few words.
    pub(crate) fn choice<T: Copy>(
        &self,
        name: &str,
        words: &[(&str, T)],
    ) -> Result<Option<T>, Failure> {
        let list: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        self.parsed(name, &format!("one of {}", list.join(", ")), |text| {
            words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value)
        })
    }

    fn parsed<T>(
        &self,
        name: &str,
        wanted: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Failure> {
        let Some(value) = self.os(name) else { return Ok(None) };
        match value.to_str().and_then(parse) {
            Some(value) => Ok(Some(value)),
            None => Err(self.wrong(name, wanted)),
        }
    }

    /// An error about the value of an option: where it came from, what it is, what is wanted.
    pub(crate) fn wrong(&self, name: &str, wanted: &str) -> Failure {
        let Some(given) = self.given(name) else {
            return Failure::usage(format!("--{name} is missing: {wanted}"));
        };
        let value = given.values.last().map(|v| v.to_string_lossy()).unwrap_or_default();
        Failure::usage(format!("{}: `{value}` is not {wanted}", given.origin))
    }
}

fn unknown(spec: &Spec, shown: &str, name: Option<&str>) -> Failure {
    let hint = name
        .and_then(|n| suggest::nearest(n, spec.options.iter().map(|o| o.name)))
        .map_or_else(String::new, |near| format!("; did you mean `--{near}`?"));
    Failure::usage(format!(
        "`castkeep {0}` has no option `{shown}`{hint} (`castkeep {0} --help` lists them)",
        spec.name
    ))
}

fn scalar(value: &Value) -> Option<OsString> {
    match value {
        Value::String(text) => Some(text.into()),
        Value::Number(number) => Some(number.to_string().into()),
        _ => None,
    }
}

fn split_list(value: &OsStr) -> Vec<OsString> {
    match value.to_str() {
        Some(text) => {
            text.split(',').map(str::trim).filter(|s| !s.is_empty()).map(OsString::from).collect()
        }
        None => vec![value.to_owned()],
    }
}

fn split_unit(text: &str) -> Option<(f64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.trim()))
}

/// See [`Args::duration`].
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text.trim())?;
    let seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number * seconds).ok()
}

/// See [`Args::bytes`].
pub(crate) fn parse_bytes(text: &str) -> Option<u64> {
    let (number, unit) = split_unit(text.trim())?;
    let factor = match unit {
        "" | "B" => 1.0,
        "k" | "K" | "kB" => 1e3,
        "M" | "MB" => 1e6,
        "G" | "GB" => 1e9,
        "T" | "TB" => 1e12,
        "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        "GiB" => 1024.0 * 1024.0 * 1024.0,
        "TiB" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    let bytes = number * factor;
    (bytes < 9e18).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times() {
        assert_eq!(parse_bytes("64KiB"), Some(65_536));
        assert_eq!(parse_bytes("1.5 M"), Some(1_500_000));
        assert_eq!(parse_bytes("7"), Some(7));
        assert_eq!(parse_bytes("7x"), None);
        assert_eq!(parse_bytes(""), None);
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("2m"), Some(Duration::from_secs(120)));
        assert_eq!(parse_duration("3"), Some(Duration::from_secs(3)));
        assert_eq!(parse_duration("-3s"), None);
    }

    #[test]
    fn an_optional_value_is_only_taken_behind_its_equals_sign() {
        static SPEC: Spec = Spec {
            name: "nosuchcommand",
            summary: "",
            operands: "",
            options: &[Opt::optional("tail", "SOCKET", "/bare", "")],
            about: "",
            exits: "",
            examples: "",
            environment: false,
            stops_at_operand: false,
        };
        let parse = |argv: &[&str]| {
            let argv = argv.iter().map(OsString::from).collect();
            let Ok(Parsed::Run(args)) = Args::parse(&SPEC, argv) else { panic!("{SPEC:?}") };
            (args.string("tail").unwrap(), args.operands().len())
        };
        assert_eq!(parse(&[]), (None, 0));
        assert_eq!(parse(&["--tail"]), (Some("/bare".into()), 0));
        assert_eq!(parse(&["--tail", "x"]), (Some("/bare".into()), 1));
        assert_eq!(parse(&["--tail=/x"]), (Some("/x".into()), 0));
    }

    #[test]
    fn lists_take_commas_and_blanks() {
        let list = split_list(OsStr::new("a:1, b:2,,"));
        assert_eq!(list, ["a:1", "b:2"]);
    }
}
