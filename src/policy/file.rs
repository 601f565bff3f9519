//! The policy file, in Tailscale's grammar.
//!
//! | section | here |
//! |---|---|
//! | `groups`, `hosts`, `tagOwners`, `ssh`, `sshTests` | read and judged |
//! | what else the grammar has: `acls`, `grants`, `nodeAttrs` … | kept aside |
//! | anything else | a warning; an error when it looks like a slip in one of the first |

use std::collections::HashMap;
use std::sync::Arc;

use jsonc_parser::ast::{Object, ObjectProp, Value};

use super::diagnostic::Diagnostic;
use super::hujson::{self, Caps, start};
use super::reader::Reader;
use super::rule::{Action, Rule, read_rule};
use super::selector::{Names, Network, check_tag, is_user, login};
use super::test_entry::{SshTest, read_test};
use crate::limits;

/// A policy file that was read whole and is right. Clones share it.
#[derive(Clone, Debug)]
pub struct PolicyFile(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    names: Names,
    rules: Vec<Rule>,
    /// Indices of rules in the order in which they are tried.
    order: Vec<usize>,
    tests: Vec<SshTest>,
    aside: Vec<String>,
}

impl PolicyFile {
    /// Reads a file, and tells everything that is wrong with it, in the order of the text.
    ///
    /// There is a policy exactly when no error is among what is told.
    #[must_use]
    pub fn parse(text: &[u8]) -> (Option<Self>, Vec<Diagnostic>) {
        let caps = Caps { bytes: limits::POLICY_BYTES, values: limits::POLICY_VALUES };
        let document = match hujson::parse(text, caps) {
            Ok(document) => document,
            Err(found) => return (None, found),
        };
        let mut reader = Reader::new(document.lines);
        let inner = read(&mut reader, &document.root).filter(|_| !reader.has_failed());
        (inner.map(|inner| Self(Arc::new(inner))), reader.finish())
    }

    /// The rules as they stand in the file.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.0.rules
    }

    /// The rules, each with its index in the file, in the order in which they are tried: as Tailscale does it, those that
    /// check first, then those that accept; else as they stand. The first that matches decides.
    pub fn in_order(&self) -> impl Iterator<Item = (usize, &Rule)> {
        self.0.order.iter().filter_map(|index| Some((*index, self.0.rules.get(*index)?)))
    }

    /// The tests.
    #[must_use]
    pub fn tests(&self) -> &[SshTest] {
        &self.0.tests
    }

    /// Sections of the file that say nothing about SSH or that nobody knows.
    #[must_use]
    pub fn kept_aside(&self) -> &[String] {
        &self.0.aside
    }

    /// The logins in a group.
    #[must_use]
    pub fn members(&self, group: &str) -> &[String] {
        self.0.names.groups.get(group).map_or(&[], Vec::as_slice)
    }

    /// The groups and their members.
    pub fn groups(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.0.names.groups.iter().map(|(name, members)| (name.as_str(), members.as_slice()))
    }

    /// Whether `tagOwners` has the tag.
    #[must_use]
    pub fn has_tag(&self, tag: &str) -> bool {
        self.0.names.tags.contains_key(tag)
    }

    /// Who may give a tag to a node.
    #[must_use]
    pub fn owners(&self, tag: &str) -> &[String] {
        self.0.names.tags.get(tag).map_or(&[], Vec::as_slice)
    }
}

fn read(reader: &mut Reader<'_>, root: &Value<'_>) -> Option<Inner> {
    let root = reader.object(root, "a policy file")?;
    let mut aside = Vec::new();
    for key in &root.properties {
        let name = key.name.as_str();
        if !SECTIONS.contains(&name) {
            aside.push(name.to_owned());
            set_aside(reader, key);
        }
    }
    let section = |name| {
        root.properties
            .iter()
            .find(|p| p.name.as_str() == name)
            .map(|p| &p.value)
            .filter(|v| !matches!(v, Value::NullKeyword(_)))
    };
    // Names first, whatever the order of the file: the rest is judged by them.
    let mut names = Names::default();
    if let Some(value) = section("groups") {
        read_groups(reader, value, &mut names);
    }
    if let Some(value) = section("hosts") {
        read_hosts(reader, value, &mut names);
    }
    if let Some(value) = section("tagOwners") {
        read_tag_owners(reader, value, &mut names);
    }
    check_members(reader, root);
    let rules = match section("ssh") {
        Some(value) => read_list(reader, value, "ssh", |r, v| read_rule(r, &names, v)),
        None => Vec::new(),
    };
    let tests = match section("sshTests") {
        Some(value) => read_list(reader, value, "sshTests", |r, v| read_test(r, &names, v)),
        None => Vec::new(),
    };
    let checks = |(_, rule): &(usize, &Rule)| matches!(rule.action, Action::Check(_));
    let (checking, accepting): (Vec<_>, Vec<_>) = rules.iter().enumerate().partition(checks);
    let order = checking.into_iter().chain(accepting).map(|(index, _)| index).collect();
    Some(Inner { names, rules, order, tests, aside })
}

/// A section that is not judged.
fn set_aside(reader: &mut Reader<'_>, key: &ObjectProp<'_>) {
    let (name, at) = (key.name.as_str(), key.range.start);
    if OTHERS.iter().any(|other| other.eq_ignore_ascii_case(name)) {
        // It narrows every rule that has no condition of its own.
        let narrows = matches!(&key.value, Value::Array(list) if !list.elements.is_empty());
        if name.eq_ignore_ascii_case("defaultSrcPosture") && narrows {
            reader.error(
                at,
                "defaultSrcPosture cannot be judged here: the state of devices is not known",
            );
        }
        return;
    }
    match reader.nearest(name, SECTIONS.iter().chain(OTHERS).copied()) {
        Some(meant) if SECTIONS.contains(&meant) => {
            reader.error(at, format!("unknown section {name:?}: did you mean {meant:?}?"));
        }
        Some(meant) => reader.warning(
            at,
            format!("unknown section {name:?} is passed over: did you mean {meant:?}?"),
        ),
        None => reader.warning(at, format!("unknown section {name:?} is passed over")),
    }
}

fn read_list<T>(
    reader: &mut Reader<'_>,
    value: &Value<'_>,
    what: &str,
    mut read: impl FnMut(&mut Reader<'_>, &Value<'_>) -> Option<T>,
) -> Vec<T> {
    let elements = reader.array(value, what).unwrap_or_default();
    if elements.len() > limits::POLICY_RULES {
        let most = limits::POLICY_RULES;
        reader.error(start(value), format!("{what} has more than {most} entries"));
        return Vec::new();
    }
    elements.iter().filter_map(|element| read(reader, element)).collect()
}

fn read_groups(reader: &mut Reader<'_>, value: &Value<'_>, names: &mut Names) {
    let Some(object) = reader.object(value, "groups") else { return };
    let nested = nested(object);
    for key in &object.properties {
        let name = key.name.as_str();
        if name.strip_prefix("group:").is_none_or(|name| !is_word(name)) {
            let message = format!("{name:?} is not the name of a group: \"group:\" and a word");
            reader.error(key.range.start, message);
            continue;
        }
        let mut members = Vec::new();
        for (text, at) in reader.texts(&key.value, &format!("{name:?}")).unwrap_or_default() {
            if text.starts_with("group:") {
                let why = match cycle(&nested, name, text) {
                    Some(round) => format!("{name:?} contains itself: {round}"),
                    None if nested.contains_key(text) => {
                        format!("{text:?} in a group: groups cannot contain groups")
                    }
                    None => format!(
                        "{text:?} in a group: groups cannot contain groups, and this one is unknown"
                    ),
                };
                reader.error(at, why);
            } else if is_user(text) {
                members.push(login(text).to_owned());
            } else {
                reader.error(at, format!("{text:?} is not a login: groups contain users alone"));
            }
        }
        names.groups.insert(name.to_owned(), members);
    }
}

/// Whether a name can be printed and told from others.
fn is_word(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control())
}

/// Which groups stand in which.
type Nested<'v> = HashMap<&'v str, Vec<&'v str>>;

fn nested<'v>(groups: &'v Object<'_>) -> Nested<'v> {
    let mut nested = Nested::new();
    for key in &groups.properties {
        let elements = key.value.as_array().map_or(&[][..], |list| &list.elements);
        let texts = elements.iter().filter_map(|v| v.as_string_lit()).map(|t| t.value.as_ref());
        let inner = texts.filter(|text| text.starts_with("group:")).collect();
        nested.insert(key.name.as_str(), inner);
    }
    nested
}

/// The way from a group through `first` back to it, when there is a short one: `group:a > group:b > group:a`.
fn cycle(nested: &Nested<'_>, name: &str, first: &str) -> Option<String> {
    // Breadth first, each with the one before it. Bounded: it is only for the message, the file is refused either way.
    let mut steps: Vec<(&str, Option<usize>)> = vec![(first, None)];
    let mut next = 0;
    while let Some((last, before)) = steps.get(next).copied() {
        if last == name {
            let mut way = vec![last];
            let mut at = before;
            while let Some((group, before)) = at.and_then(|i| steps.get(i)).copied() {
                way.push(group);
                at = before;
            }
            way.push(name);
            way.reverse();
            return Some(way.join(" > "));
        }
        let inner = nested.get(last).map_or(&[][..], Vec::as_slice);
        let room = CYCLE_STEPS.saturating_sub(steps.len());
        steps.extend(inner.iter().take(room).map(|group| (*group, Some(next))));
        next = next.saturating_add(1);
    }
    None
}

fn read_hosts(reader: &mut Reader<'_>, value: &Value<'_>, names: &mut Names) {
    let Some(object) = reader.object(value, "hosts") else { return };
    for key in &object.properties {
        let name = key.name.as_str();
        if !is_word(name) || name.contains('@') {
            reader.error(key.range.start, format!("{name:?} is not the name of a host"));
            continue;
        }
        let Some(text) = reader.text(&key.value, &format!("{name:?}")) else { continue };
        match Network::parse(text) {
            Some(network) => drop(names.hosts.insert(name.to_owned(), network)),
            None => reader.error(start(&key.value), format!("{text:?} is not an address")),
        }
    }
}

fn read_tag_owners(reader: &mut Reader<'_>, value: &Value<'_>, names: &mut Names) {
    let Some(object) = reader.object(value, "tagOwners") else { return };
    // All tags before any owner: a tag can own another.
    for key in &object.properties {
        match check_tag(key.name.as_str()) {
            Ok(()) => drop(names.tags.insert(key.name.as_str().to_owned(), Vec::new())),
            Err(why) => reader.error(key.range.start, why),
        }
    }
    for key in &object.properties {
        let name = key.name.as_str();
        if matches!(key.value, Value::NullKeyword(_)) {
            continue;
        }
        let mut owners = Vec::new();
        for (text, at) in reader.texts(&key.value, &format!("{name:?}")).unwrap_or_default() {
            let good = if text.starts_with("group:") {
                names.has_group(reader, text, at)
            } else if text.starts_with("tag:") {
                names.has_tag(reader, text, at)
            } else if is_user(text) {
                true
            } else {
                // The same autogroups as may come, and `user:*@domain`.
                names.source(reader, text, at).is_some()
            };
            if good {
                owners.push(text.to_owned());
            }
        }
        names.tags.insert(name.to_owned(), owners);
    }
}

/// The old name of `autogroup:member` is good as long as the new one is not there too.
fn check_members(reader: &mut Reader<'_>, root: &Object<'_>) {
    let mut found = (None, None);
    for section in &root.properties {
        find_members(&section.value, &mut found);
    }
    if let (Some(_), Some(old)) = found {
        reader.error(
            old,
            "\"autogroup:members\" and \"autogroup:member\" in one file: use the latter alone",
        );
    }
}

fn find_members(value: &Value<'_>, found: &mut (Option<usize>, Option<usize>)) {
    match value {
        Value::Array(array) => array.elements.iter().for_each(|v| find_members(v, found)),
        Value::Object(object) => {
            object.properties.iter().for_each(|p| find_members(&p.value, found))
        }
        Value::StringLit(text) if text.value == "autogroup:member" => {
            found.0.get_or_insert(text.range.start);
        }
        Value::StringLit(text) if text.value == "autogroup:members" => {
            found.1.get_or_insert(text.range.start);
        }
        _ => {}
    }
}

/// What is judged.
const SECTIONS: &[&str] = &["groups", "hosts", "ssh", "sshTests", "tagOwners"];
/// What else Tailscale's grammar has.
const OTHERS: &[&str] = &[
    "acls",
    "autoApprovers",
    "defaultSrcPosture",
    "derpMap",
    "disableIPv4",
    "extraDNSRecords",
    "grants",
    "ipsets",
    "nodeAttrs",
    "OneCGNATRoute",
    "postures",
    "randomizeClientPort",
    "tests",
];
/// Groups that are looked at for a way back.
const CYCLE_STEPS: usize = 200;
