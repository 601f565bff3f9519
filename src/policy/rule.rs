//! One rule of the `ssh` section.

use jsonc_parser::ast::{ObjectProp, Value};

use super::diagnostic::Position;
use super::hujson::start;
use super::reader::Reader;
use super::selector::{Account, Names, Source, Target, account};
use crate::limits;
use crate::time::Span;

/// One rule of the `ssh` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Where it begins.
    pub at: Position,
    /// What happens when it matches.
    pub action: Action,
    /// Whom it lets in; one that matches is enough.
    pub src: Vec<Source>,
    /// Where; one that matches is enough.
    pub dst: Vec<Target>,
    /// As whom.
    pub users: Vec<Account>,
    /// Environment variables that the client may set: names with `*` and `?`.
    pub accept_env: Vec<String>,
    /// The tag of the recorders, with `tag:`; none: sessions are not recorded.
    pub recorder: Option<String>,
    /// Whether a session is refused, or ended, when it cannot be recorded.
    pub enforce_recorder: bool,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Lets in.
    Accept,
    /// Lets in who has proved again who they are, no longer ago than this.
    Check(CheckPeriod),
}

/// How long a proof is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckPeriod {
    /// For one connection.
    Always,
    /// For this long.
    For(Span),
}

/// Reads one rule; `None` when something is wrong with it.
pub(super) fn read_rule(reader: &mut Reader<'_>, names: &Names, value: &Value<'_>) -> Option<Rule> {
    let object = reader.object(value, "a rule of ssh")?;
    let at = start(value);
    let mut rule = Rule {
        at: reader.position(at),
        action: Action::Accept,
        src: Vec::new(),
        dst: Vec::new(),
        users: Vec::new(),
        accept_env: Vec::new(),
        recorder: None,
        enforce_recorder: false,
    };
    let mut seen = Seen::default();
    for key in &object.properties {
        // As in Go, null is as if the key were not there.
        if matches!(key.value, Value::NullKeyword(_)) && RULE_KEYS.contains(&key.name.as_str()) {
            continue;
        }
        read_key(reader, names, key, &mut rule, &mut seen);
    }
    finish_rule(reader, rule, &seen, at)
}

/// What the keys said that is judged together.
#[derive(Default)]
struct Seen {
    action: Option<(bool, usize)>,
    period: Option<(CheckPeriod, usize)>,
    src: bool,
    dst: bool,
    users: bool,
    sources_at: Vec<usize>,
    targets_at: Vec<usize>,
    enforce_at: usize,
    recorder: bool,
}

fn read_key(
    reader: &mut Reader<'_>,
    names: &Names,
    key: &ObjectProp<'_>,
    rule: &mut Rule,
    seen: &mut Seen,
) {
    let (value, at) = (&key.value, start(&key.value));
    match key.name.as_str() {
        "action" => {
            // A broken one is told once, not also as missing.
            seen.action = Some((false, at));
            match reader.text(value, "action") {
                Some("accept") => {}
                Some("check") => seen.action = Some((true, at)),
                Some(other) => reader.error(
                    at,
                    format!("{other:?} is not an action: it is \"accept\" or \"check\""),
                ),
                None => {}
            }
        }
        "src" => {
            seen.src = true;
            for (text, at) in reader.texts(value, "src").unwrap_or_default() {
                if let Some(source) = names.source(reader, text, at) {
                    rule.src.push(source);
                    seen.sources_at.push(at);
                }
            }
        }
        "dst" => {
            seen.dst = true;
            for (text, at) in reader.texts(value, "dst").unwrap_or_default() {
                if let Some(target) = names.target(reader, text, at) {
                    rule.dst.push(target);
                    seen.targets_at.push(at);
                }
            }
        }
        "users" => {
            let texts = reader.texts(value, "users");
            // An empty list is as good as none, and told as such.
            seen.users = texts.as_ref().is_none_or(|t| !t.is_empty());
            for (text, at) in texts.unwrap_or_default() {
                rule.users.extend(account(reader, text, at));
            }
        }
        "checkPeriod" => {
            if let Some(period) = reader.text(value, "checkPeriod") {
                match parse_period(period) {
                    Ok(period) => {
                        if matches!(period, CheckPeriod::For(span) if span < Span::from_secs(60)) {
                            reader.warning(at, "checkPeriod is less than a minute");
                        }
                        seen.period = Some((period, at));
                    }
                    Err(why) => reader.error(at, why),
                }
            }
        }
        "acceptEnv" => {
            for (text, at) in reader.texts(value, "acceptEnv").unwrap_or_default() {
                let good = |c: char| c.is_ascii_alphanumeric() || "_*?".contains(c);
                if text.is_empty() || !text.chars().all(good) {
                    reader.error(
                        at,
                        format!("{text:?} is not a name of a variable: letters, digits, \"_\", \"*\" and \"?\""),
                    );
                } else {
                    rule.accept_env.push(text.into());
                }
            }
        }
        "recorder" => {
            seen.recorder = true;
            match reader.texts(value, "recorder").as_deref() {
                Some([(tag, at)]) => {
                    let good = names.has_tag(reader, tag, *at);
                    rule.recorder = good.then(|| (*tag).into());
                }
                Some(list) => {
                    let n = list.len();
                    reader.error(at, format!("recorder must have exactly one tag, not {n}"));
                }
                None => {}
            }
        }
        "enforceRecorder" => {
            rule.enforce_recorder = reader.flag(value, "enforceRecorder").unwrap_or(false);
            seen.enforce_at = key.range.start;
        }
        // A rule with a condition that nobody looks at would let in more than it says.
        "srcPosture" => match reader.array(value, "srcPosture") {
            Some([]) | None => {}
            Some(_) => reader.error(
                key.range.start,
                "srcPosture cannot be judged here: the state of devices is not known",
            ),
        },
        _ => reader.unknown_key(key, RULE_KEYS, false),
    }
}

/// What a rule must have as a whole.
fn finish_rule(reader: &mut Reader<'_>, mut rule: Rule, seen: &Seen, at: usize) -> Option<Rule> {
    let mut missing = Vec::new();
    for (there, name) in [
        (seen.action.is_some(), "action"),
        (seen.src, "src"),
        (seen.dst, "dst"),
        (seen.users, "users"),
    ] {
        if !there {
            missing.push(name);
        }
    }
    if !missing.is_empty() {
        reader.error(at, format!("this rule has no {}", missing.join(", no ")));
    }
    let is_check = seen.action.is_some_and(|(check, _)| check);
    match seen.period {
        Some((period, _)) if is_check => rule.action = Action::Check(period),
        None if is_check => {
            rule.action = Action::Check(CheckPeriod::For(limits::CHECK_PERIOD_DEFAULT));
        }
        Some((_, at)) => {
            reader.warning(at, "checkPeriod means something only where the action is \"check\"");
        }
        None => {}
    }
    if rule.enforce_recorder && !seen.recorder {
        reader
            .error(seen.enforce_at, "enforceRecorder without recorder: nothing would be recorded");
    }
    for (source, at) in rule.src.iter().zip(&seen.sources_at) {
        if !matches!(source, Source::Tag(_) | Source::Tagged) {
            continue;
        }
        if is_check {
            reader.error(*at, "a node with a tag cannot be asked to check: nobody sits before it");
        }
        if rule.dst.contains(&Target::OwnNodes) {
            reader.error(
                *at,
                "\"autogroup:self\" needs users as sources: a node with a tag has no owner",
            );
        }
    }
    for (target, at) in rule.dst.iter().zip(&seen.targets_at) {
        let Target::User(owner) = target else { continue };
        let alone = rule.src.iter().all(|s| matches!(s, Source::User(user) if user == owner));
        if !alone {
            reader.error(
                *at,
                format!("{owner:?} can be a destination only where src is {owner:?} alone: nobody may get onto devices of others"),
            );
        }
    }
    (!reader.has_failed()).then_some(rule)
}

/// `20h`, `1h30m`, `always`: Go's grammar of durations, down to seconds.
fn parse_period(text: &str) -> Result<CheckPeriod, String> {
    if text == "always" {
        return Ok(CheckPeriod::Always);
    }
    let broken = || format!("{text:?} is not a time: \"12h\", \"90m\", \"1h30m\" or \"always\"");
    let mut rest = text;
    let mut seconds = 0_u64;
    if rest.is_empty() {
        return Err(broken());
    }
    while !rest.is_empty() {
        if rest == "0" && seconds == 0 && text == "0" {
            break;
        }
        let digits =
            rest.len().saturating_sub(rest.trim_start_matches(|c: char| c.is_ascii_digit()).len());
        let (number, behind) = rest.split_at_checked(digits).ok_or_else(broken)?;
        let number: u64 = number.parse().map_err(|_| broken())?;
        let (unit, behind) = match behind.as_bytes().first() {
            Some(b'h') => (3600, behind.get(1..)),
            Some(b'm') if !behind.starts_with("ms") => (60, behind.get(1..)),
            Some(b's') => (1, behind.get(1..)),
            _ => return Err(broken()),
        };
        seconds = number
            .checked_mul(unit)
            .and_then(|part| seconds.checked_add(part))
            .filter(|sum| *sum < 1 << 40)
            .ok_or_else(broken)?;
        rest = behind.unwrap_or_default();
    }
    let span = Span::from_secs(seconds);
    if span > limits::CHECK_PERIOD_MAX {
        return Err(format!("checkPeriod {text:?} is more than 168h, a week"));
    }
    Ok(CheckPeriod::For(span))
}

const RULE_KEYS: &[&str] = &[
    "action",
    "src",
    "dst",
    "users",
    "checkPeriod",
    "acceptEnv",
    "recorder",
    "enforceRecorder",
    "srcPosture",
];
