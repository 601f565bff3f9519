//! The words that say who, where and as whom: `group:…`, `tag:…`, `autogroup:…`, logins.
//!
//! What Tailscale's documentation forbids in rules for SSH is an error here. Its reason: nobody may get onto the device of
//! another user, and an address or a host name says nothing about whose device it is.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::reader::Reader;

/// Whom a rule lets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `user:*@domain`: users whose login ends with it.
    Domain(String),
    /// `group:…`, with its prefix.
    Group(String),
    /// `autogroup:member`: every user, so every node without tags.
    Member,
    /// `autogroup:admin` and the other roles, without the prefix. The registry says who has them.
    Role(String),
    /// `autogroup:shared`: users of other networks. No registry tells them apart, so it matches nobody.
    Shared,
    /// `tag:…`, with its prefix.
    Tag(String),
    /// `autogroup:tagged`: every node with a tag.
    Tagged,
    /// A login.
    User(String),
}

/// Where a rule lets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `autogroup:self`: the nodes of the user who comes.
    OwnNodes,
    /// `tag:…`, with its prefix.
    Tag(String),
    /// `autogroup:tagged`: every node with a tag.
    Tagged,
    /// The nodes of one user, who alone may come.
    User(String),
}

/// As whom a rule lets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Account {
    /// `localpart:*@domain`: the account named like the login in front of its `@domain`. Never root.
    LocalPart(String),
    /// An account by its name.
    Named(String),
    /// `autogroup:nonroot`: any account but root.
    NonRoot,
}

/// What the other sections define.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    /// With `group:`.
    pub(super) groups: BTreeMap<String, Vec<String>>,
    pub(super) hosts: BTreeMap<String, Network>,
    /// With `tag:`, and who may give it.
    pub(super) tags: BTreeMap<String, Vec<String>>,
}

impl Names {
    /// Whether the group is defined; told when not.
    pub(super) fn has_group(&self, reader: &mut Reader<'_>, name: &str, at: usize) -> bool {
        if self.groups.contains_key(name) {
            return true;
        }
        let message = match reader.nearest(name, self.groups.keys().map(String::as_str)) {
            Some(meant) => format!("unknown group {name:?}: did you mean {meant:?}?"),
            None if name.contains('@') => format!(
                "unknown group {name:?}: groups of an identity provider are not known here, list its members in groups"
            ),
            None => format!("unknown group {name:?}: it is not in groups"),
        };
        reader.error(at, message);
        false
    }

    /// Whether the tag is defined; told when not.
    pub(super) fn has_tag(&self, reader: &mut Reader<'_>, name: &str, at: usize) -> bool {
        if self.tags.contains_key(name) {
            return true;
        }
        if let Err(why) = check_tag(name) {
            reader.error(at, why);
            return false;
        }
        let message = match reader.nearest(name, self.tags.keys().map(String::as_str)) {
            Some(meant) => format!("unknown tag {name:?}: did you mean {meant:?}?"),
            None => format!("unknown tag {name:?}: it is not in tagOwners"),
        };
        reader.error(at, message);
        false
    }

    /// One of `src`.
    pub(super) fn source(&self, reader: &mut Reader<'_>, text: &str, at: usize) -> Option<Source> {
        if text.starts_with("group:") {
            return self.has_group(reader, text, at).then(|| Source::Group(text.into()));
        }
        if text.starts_with("tag:") {
            return self.has_tag(reader, text, at).then(|| Source::Tag(text.into()));
        }
        if let Some(name) = text.strip_prefix("autogroup:") {
            return match name {
                "member" | "members" => Some(Source::Member),
                "shared" => Some(Source::Shared),
                "tagged" => Some(Source::Tagged),
                role if ROLES.contains(&role) => Some(Source::Role(role.into())),
                "self" | "internet" | "danger-all" | "nonroot" => {
                    reader.error(at, format!("{text:?} cannot be a source of SSH"));
                    None
                }
                _ => unknown_autogroup(reader, text, name, at),
            };
        }
        if text.starts_with("user:") {
            return domain_of(reader, text, "user:*@", at).map(Source::Domain);
        }
        self.user(reader, text, at, "source").map(Source::User)
    }

    /// One of `dst`.
    pub(super) fn target(&self, reader: &mut Reader<'_>, text: &str, at: usize) -> Option<Target> {
        if text.starts_with("tag:") {
            return self.has_tag(reader, text, at).then(|| Target::Tag(text.into()));
        }
        if text.starts_with("group:") || text.starts_with("user:") {
            reader.error(
                at,
                format!("{text:?} cannot be a destination of SSH: it would let users onto devices of others"),
            );
            return None;
        }
        if let Some(name) = text.strip_prefix("autogroup:") {
            return match name {
                "self" => Some(Target::OwnNodes),
                "tagged" => Some(Target::Tagged),
                "member" | "members" => {
                    reader.error(
                        at,
                        format!("{text:?} cannot be a destination of SSH: it would let users onto devices of others; \"autogroup:self\" is everybody's own"),
                    );
                    None
                }
                name if ROLES.contains(&name) || NOT_TARGETS.contains(&name) => {
                    reader.error(at, format!("{text:?} cannot be a destination of SSH"));
                    None
                }
                _ => unknown_autogroup(reader, text, name, at),
            };
        }
        self.user(reader, text, at, "destination").map(Target::User)
    }

    /// A login, or why it is none.
    fn user(&self, reader: &mut Reader<'_>, text: &str, at: usize, what: &str) -> Option<String> {
        if is_user(text) {
            return Some(login(text).into());
        }
        let prefixed = |prefix: &str| format!("{prefix}{text}");
        let why = if text == "*" {
            format!("\"*\" cannot be a {what} of SSH")
        } else if Network::parse(text).is_some() {
            format!("an address cannot be a {what} of SSH: {text:?}")
        } else if self.hosts.contains_key(text) {
            format!("a host cannot be a {what} of SSH: {text:?}")
        } else if self.groups.contains_key(&prefixed("group:")) {
            format!("unknown {what} {text:?}: did you mean {:?}?", prefixed("group:"))
        } else if self.tags.contains_key(&prefixed("tag:")) {
            format!("unknown {what} {text:?}: did you mean {:?}?", prefixed("tag:"))
        } else if text.starts_with("localpart:") {
            format!("{text:?} is an account, so it stands in users")
        } else {
            format!("unknown {what} {text:?}: neither a login nor a group, a tag or an autogroup")
        };
        reader.error(at, why);
        None
    }
}

/// One of `users`. What names no account is told and matches nobody.
pub(super) fn account(reader: &mut Reader<'_>, text: &str, at: usize) -> Option<Account> {
    if text.is_empty() || text == "*" {
        reader.error(
            at,
            format!("{text:?} is not an account; \"autogroup:nonroot\" is every one but root"),
        );
        return None;
    }
    if let Some(name) = text.strip_prefix("autogroup:") {
        if name == "nonroot" {
            return Some(Account::NonRoot);
        }
        if reader.nearest(name, ["nonroot"]).is_some() {
            reader.error(
                at,
                format!("unknown account {text:?}: did you mean \"autogroup:nonroot\"?"),
            );
        } else {
            reader.warning(at, format!("{text:?} is not an account, so it lets nobody in"));
        }
        return None;
    }
    if text.starts_with("localpart:") {
        return domain_of(reader, text, "localpart:*@", at).map(Account::LocalPart);
    }
    if text.starts_with("group:") || text.starts_with("tag:") || text.starts_with("user:") {
        reader.error(at, format!("{text:?} is not an account of the host"));
        return None;
    }
    if text.len() > crate::limits::LOGIN_BYTES || text.chars().any(|c| c.is_control()) {
        reader.error(at, "this is not the name of an account");
        return None;
    }
    if is_user(text) {
        reader.warning(
            at,
            format!("{text:?} is taken as the name of an account of the host, not as a login"),
        );
    }
    Some(Account::Named(text.into()))
}

/// The domain of `user:*@domain` or `localpart:*@domain`.
fn domain_of(reader: &mut Reader<'_>, text: &str, shape: &str, at: usize) -> Option<String> {
    let domain = text.strip_prefix(shape).unwrap_or_default();
    if domain.is_empty()
        || domain.contains(['*', '@'])
        || domain.contains(|c: char| c.is_whitespace() || c.is_control())
    {
        reader.error(at, format!("{text:?} must have the shape {shape}DOMAIN"));
        return None;
    }
    if SHARED_DOMAINS.iter().any(|shared| domain.eq_ignore_ascii_case(shared)) {
        reader
            .error(at, format!("{domain:?} is shared by strangers, so it cannot stand for users"));
        return None;
    }
    Some(domain.into())
}

fn unknown_autogroup<T>(reader: &mut Reader<'_>, text: &str, name: &str, at: usize) -> Option<T> {
    let known = ROLES.iter().chain(OTHER_AUTOGROUPS).copied();
    let message = match reader.nearest(name, known) {
        Some(meant) => format!("unknown {text:?}: did you mean \"autogroup:{meant}\"?"),
        None => format!("unknown {text:?}"),
    };
    reader.error(at, message);
    None
}

/// Whether a text has the shape of a login. Headscale's users without a domain are written with the `@` at the end.
pub(super) fn is_user(text: &str) -> bool {
    text.len() <= crate::limits::LOGIN_BYTES
        && text.find('@').is_some_and(|at| at > 0)
        && !text.contains(['*', ':', '/', '"', '\\'])
        && !text.chars().any(|c| c.is_whitespace() || c.is_control())
}

/// A login as it is compared: without the `@` that ends one without a domain.
pub(super) fn login(text: &str) -> &str {
    text.strip_suffix('@').unwrap_or(text)
}

/// Whether a text is a tag, with its prefix.
pub(super) fn check_tag(text: &str) -> Result<(), String> {
    let Some(name) = text.strip_prefix("tag:") else {
        return Err(format!("{text:?} is not a tag: it must begin with \"tag:\""));
    };
    let good = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if good {
        Ok(())
    } else if name.contains(':') {
        Err(format!("{text:?} is not a tag: SSH has no ports here, and tags no colon"))
    } else {
        Err(format!("{text:?} is not a tag: letters, digits and \"-\", a letter first"))
    }
}

/// An address, or a range of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// The address, or one of the range.
    pub address: IpAddr,
    /// Leading bits that count.
    pub bits: u8,
}

impl Network {
    /// `100.64.0.7` or `10.0.0.0/8`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => {
                let digits = !bits.is_empty() && bits.bytes().all(|b| b.is_ascii_digit());
                (address, Some(if digits { bits.parse().ok()? } else { return None }))
            }
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(most);
        (bits <= most).then_some(Self { address, bits })
    }

    /// The address, when it is only one.
    #[must_use]
    pub fn single(self) -> Option<IpAddr> {
        (self.bits == if self.address.is_ipv4() { 32 } else { 128 }).then_some(self.address)
    }
}

pub(super) const ROLES: &[&str] =
    &["admin", "auditor", "billing-admin", "it-admin", "network-admin", "owner"];
const OTHER_AUTOGROUPS: &[&str] =
    &["danger-all", "internet", "member", "nonroot", "self", "shared", "tagged"];
const NOT_TARGETS: &[&str] = &["danger-all", "internet", "nonroot", "shared"];
/// Where anybody gets an address.
const SHARED_DOMAINS: &[&str] = &[
    "aol.com",
    "gmail.com",
    "gmx.de",
    "gmx.net",
    "googlemail.com",
    "hotmail.com",
    "icloud.com",
    "live.com",
    "mail.com",
    "me.com",
    "msn.com",
    "outlook.com",
    "pm.me",
    "proton.me",
    "protonmail.com",
    "web.de",
    "yahoo.com",
    "yandex.ru",
];
