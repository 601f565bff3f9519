//! One entry of `sshTests`.

use std::net::IpAddr;

use jsonc_parser::ast::Value;

use super::diagnostic::Position;
use super::hujson::start;
use super::reader::Reader;
use super::selector::{Names, Network, is_user, login};

/// One entry of `sshTests`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshTest {
    /// Where it begins.
    pub at: Position,
    /// Who comes.
    pub src: Party,
    /// Where to.
    pub dst: Vec<Party>,
    /// Accounts that must be open.
    pub accept: Vec<String>,
    /// Accounts that must be open behind a check.
    pub check: Vec<String>,
    /// Accounts that must be closed.
    pub deny: Vec<String>,
}

/// One side of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Party {
    /// The node with this address; as a host of the file or as it is.
    Address(IpAddr),
    /// Each member of a group.
    Group(String),
    /// The nodes of whoever comes.
    OwnNodes,
    /// Nodes with a tag.
    Tag(String),
    /// Nodes of a user.
    User(String),
}

/// Reads one entry of `sshTests`; `None` when something is wrong with it.
pub(super) fn read_test(
    reader: &mut Reader<'_>,
    names: &Names,
    value: &Value<'_>,
) -> Option<SshTest> {
    let object = reader.object(value, "an entry of sshTests")?;
    let at = start(value);
    let (mut src, mut dst) = (None, Vec::new());
    let (mut accept, mut check, mut deny) = (Vec::new(), Vec::new(), Vec::new());
    let (mut has_src, mut has_dst) = (false, false);
    for key in &object.properties {
        let (value, at) = (&key.value, start(&key.value));
        if matches!(value, Value::NullKeyword(_)) && TEST_KEYS.contains(&key.name.as_str()) {
            continue;
        }
        match key.name.as_str() {
            "src" => {
                has_src = true;
                if let Some(text) = reader.text(value, "src") {
                    src = party(reader, names, text, at, "src");
                }
            }
            "dst" => {
                let texts = reader.texts(value, "dst");
                has_dst = texts.as_ref().is_none_or(|t| !t.is_empty());
                for (text, at) in texts.unwrap_or_default() {
                    dst.extend(party(reader, names, text, at, "dst"));
                }
            }
            "accept" => accept = accounts(reader, value, "accept"),
            "check" => check = accounts(reader, value, "check"),
            "deny" => deny = accounts(reader, value, "deny"),
            // Rules with conditions are refused, so nothing hangs on it.
            "srcPostureAttrs" => {}
            _ => reader.unknown_key(key, TEST_KEYS, false),
        }
    }
    if !has_src || !has_dst {
        let what = if has_src { "dst" } else { "src" };
        reader.error(at, format!("this test has no {what}"));
    }
    if accept.is_empty() && check.is_empty() && deny.is_empty() && !reader.has_failed() {
        reader.error(at, "this test asserts nothing: it has no accept, no check and no deny");
    }
    let test = SshTest { at: reader.position(at), src: src?, dst, accept, check, deny };
    (!reader.has_failed()).then_some(test)
}

/// Names of accounts that a test asks for.
fn accounts(reader: &mut Reader<'_>, value: &Value<'_>, what: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (text, at) in reader.texts(value, what).unwrap_or_default() {
        let bad = |c: char| c == ':' || c.is_control();
        if text.is_empty() || text == "*" || text.contains(bad) {
            reader.error(at, format!("{text:?} is not the name of one account"));
        } else {
            names.push(text.into());
        }
    }
    names
}

fn party(
    reader: &mut Reader<'_>,
    names: &Names,
    text: &str,
    at: usize,
    what: &str,
) -> Option<Party> {
    if text.starts_with("group:") {
        return names.has_group(reader, text, at).then(|| Party::Group(text.into()));
    }
    if text.starts_with("tag:") {
        return names.has_tag(reader, text, at).then(|| Party::Tag(text.into()));
    }
    if text == "autogroup:self" && what == "dst" {
        return Some(Party::OwnNodes);
    }
    if is_user(text) {
        return Some(Party::User(login(text).into()));
    }
    let address = match names.hosts.get(text) {
        Some(host) => Some(*host),
        // A destination is named, as Tailscale wants it.
        None if what == "src" => Network::parse(text),
        None => None,
    };
    match address.map(Network::single) {
        Some(Some(address)) => Some(Party::Address(address)),
        Some(None) => {
            reader.error(at, format!("{text:?} is a range, and {what} of a test is one address"));
            None
        }
        None => {
            reader.error(
                at,
                format!("unknown {what} {text:?}: neither a login nor a group, a tag or a host"),
            );
            None
        }
    }
}

const TEST_KEYS: &[&str] = &["src", "dst", "accept", "check", "deny", "srcPostureAttrs"];
