//! The node registry: which nodes there are, whose they are, and where.
//!
//! It is read from a file of our own format, or from what `tailscale status --json` prints; the content tells which.
//!
//! ```json
//! {"castkeepNodes": 1,
//!  "nodes": [{"id": "nA", "name": "web1.example", "addresses": ["100.64.0.7", "fd7a::7"], "tags": ["tag:prod"],
//!             "recorder": {"port": 80, "tls": "rec1.example"}},
//!            {"id": "nB", "name": "laptop.example", "addresses": ["100.64.0.5"], "user": "alice@example.com", "userID": 1}],
//!  "users": [{"login": "alice@example.com", "roles": ["admin"]}]}
//! ```
//!
//! Who a node is decides who is let in, so what contradicts itself is refused whole: two nodes with one id, key or address, a
//! node with an owner and tags.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use jsonc_parser::ast::{Object, Value};
use serde_json::json;

use super::diagnostic::Diagnostic;
use super::hujson::{self, Caps};
use super::reader::Reader;
use super::selector::login;
use super::{own_nodes, status};
use crate::limits;

/// One node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Stable id.
    pub id: String,
    /// Numeric id; 0 when unknown.
    pub numeric_id: i64,
    /// `nodekey:…`; empty when unknown.
    pub key: String,
    /// DNS name, without a dot at the end.
    pub name: String,
    /// Addresses, at least one.
    pub addresses: Vec<IpAddr>,
    /// Whose it is; none when it has tags.
    pub user: Option<User>,
    /// Tags, each with `tag:`.
    pub tags: Vec<String>,
    /// Whether it was reachable when the registry was written; none when unknown.
    pub online: Option<bool>,
    /// How its recorder is reached, where a tag makes it one; none: port 80, without TLS.
    pub recorder: Option<RecorderPort>,
}

impl Node {
    /// The login that it is compared by; none when it has tags.
    #[must_use]
    pub fn login(&self) -> Option<&str> {
        self.user.as_ref().filter(|_| self.tags.is_empty()).map(|user| login(&user.login))
    }
}

/// The owner of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// Login.
    pub login: String,
    /// Number; 0 when unknown.
    pub id: i64,
    /// Name for people; empty when unknown.
    pub display: String,
}

/// How the recorder of a node is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecorderPort {
    /// TCP port.
    pub port: u16,
    /// The name in its certificate; none: no TLS.
    pub tls: Option<String>,
}

/// All nodes. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Registry(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    nodes: Vec<Node>,
    by_id: HashMap<String, usize>,
    by_name: HashMap<String, usize>,
    /// First labels; none where several nodes have it.
    by_label: HashMap<String, Option<usize>>,
    by_address: HashMap<IpAddr, usize>,
    by_tag: HashMap<String, Vec<usize>>,
    by_login: BTreeMap<String, Vec<usize>>,
    /// Logins with a role.
    roles: BTreeMap<String, Vec<String>>,
}

impl Registry {
    /// Reads a registry. Beside it stands what is odd but can be used.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(text: &[u8]) -> Result<(Self, Vec<Diagnostic>), Vec<Diagnostic>> {
        let caps = Caps { bytes: limits::REGISTRY_BYTES, values: limits::REGISTRY_VALUES };
        let document = hujson::parse(text, caps)?;
        let mut reader = Reader::new(document.lines);
        let mut draft = Draft::default();
        if let Some(root) = reader.object(&document.root, "a node registry") {
            if member(root, "castkeepNodes").is_some() {
                own_nodes::read(&mut reader, root, &mut draft);
            } else if member(root, "Self").is_some() || member(root, "Peer").is_some() {
                status::read(&mut reader, root, &mut draft);
            } else {
                reader.error(
                    root.range.start,
                    "neither a registry (\"castkeepNodes\": 1) nor the output of tailscale status --json",
                );
            }
        }
        if reader.has_failed() {
            Err(reader.finish())
        } else {
            Ok((draft.finish(), reader.finish()))
        }
    }

    /// Some nodes of the registry in our own format, without the roles of users: what a node is told of those who may come in.
    #[must_use]
    pub fn to_json_where(&self, keep: impl Fn(&Node) -> bool) -> String {
        let nodes = self.0.nodes.iter().filter(|node| keep(node)).map(own_nodes::to_json);
        json!({"castkeepNodes": 1, "nodes": nodes.collect::<Vec<_>>()}).to_string()
    }

    /// The registry in our own format, on one line.
    #[must_use]
    pub fn to_json(&self) -> String {
        let nodes: Vec<_> = self.0.nodes.iter().map(own_nodes::to_json).collect();
        let mut root = json!({"castkeepNodes": 1, "nodes": nodes});
        if !self.0.roles.is_empty() {
            let mut users: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
            for (role, logins) in &self.0.roles {
                for login in logins {
                    users.entry(login).or_default().push(role);
                }
            }
            let users: Vec<_> = users
                .iter()
                .map(|(login, roles)| json!({"login": login, "roles": roles}))
                .collect();
            if let Some(root) = root.as_object_mut() {
                root.insert("users".into(), users.into());
            }
        }
        root.to_string()
    }

    /// The nodes, in the order of the file.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Node> {
        self.0.nodes.iter()
    }

    /// How many nodes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.nodes.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.nodes.is_empty()
    }

    /// The node with this address. An IPv4 address in the form of IPv6 is that IPv4 address.
    #[must_use]
    pub fn by_address(&self, address: IpAddr) -> Option<&Node> {
        self.at(self.0.by_address.get(&address.to_canonical()))
    }

    /// The node with this stable id.
    #[must_use]
    pub fn by_id(&self, id: &str) -> Option<&Node> {
        self.at(self.0.by_id.get(id))
    }

    /// The node with this name, in full or up to its first dot where that is only one.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<&Node> {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let label = || self.0.by_label.get(&name).and_then(Option::as_ref);
        self.at(self.0.by_name.get(&name).or_else(label))
    }

    /// The node that a person means by an id, a name or an address.
    #[must_use]
    pub fn find(&self, what: &str) -> Option<&Node> {
        let by_address = || self.by_address(what.parse().ok()?);
        self.by_id(what).or_else(|| self.by_name(what)).or_else(by_address)
    }

    /// The nodes with a tag.
    pub fn with_tag(&self, tag: &str) -> impl Iterator<Item = &Node> {
        self.0.by_tag.get(tag).into_iter().flatten().filter_map(|i| self.0.nodes.get(*i))
    }

    /// The tags that nodes have.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        self.0.by_tag.keys().map(String::as_str)
    }

    /// The nodes of a user.
    pub fn of_user(&self, user: &str) -> impl Iterator<Item = &Node> {
        let nodes = self.0.by_login.get(login(user));
        nodes.into_iter().flatten().filter_map(|i| self.0.nodes.get(*i))
    }

    /// The logins that own nodes, sorted, as they are compared.
    pub fn logins(&self) -> impl Iterator<Item = &str> {
        self.0.by_login.keys().map(String::as_str)
    }

    /// The logins with a role (`admin`), sorted.
    #[must_use]
    pub fn with_role(&self, role: &str) -> &[String] {
        self.0.roles.get(role).map_or(&[], Vec::as_slice)
    }

    /// Whether a login has a role.
    #[must_use]
    pub fn has_role(&self, user: &str, role: &str) -> bool {
        self.with_role(role).binary_search_by(|l| l.as_str().cmp(login(user))).is_ok()
    }

    fn at(&self, index: Option<&usize>) -> Option<&Node> {
        self.0.nodes.get(*index?)
    }
}

/// A registry on its way: each node is held against those before it.
#[derive(Default)]
pub(super) struct Draft {
    inner: Inner,
    by_key: HashMap<String, usize>,
    by_number: HashMap<i64, usize>,
    logins: HashMap<i64, String>,
    numbers: HashMap<String, i64>,
}

impl Draft {
    /// Takes a node, unless it contradicts one before it. A name that is there already is an error only where `names` says so.
    pub(super) fn push(&mut self, reader: &mut Reader<'_>, at: usize, node: Node, names: bool) {
        if self.inner.nodes.len() >= limits::REGISTRY_NODES {
            if self.inner.nodes.len() == limits::REGISTRY_NODES && !reader.has_failed() {
                reader.error(at, format!("more than {} nodes", limits::REGISTRY_NODES));
            }
            return;
        }
        let index = self.inner.nodes.len();
        if let Some(why) = self.contradiction(&node, names) {
            reader.error(at, why);
            return;
        }
        self.inner.by_id.insert(node.id.clone(), index);
        let name = node.name.to_ascii_lowercase();
        let label = name.split('.').next().unwrap_or_default().to_owned();
        self.inner.by_label.entry(label).and_modify(|one| *one = None).or_insert(Some(index));
        self.inner.by_name.entry(name).or_insert(index);
        for address in &node.addresses {
            self.inner.by_address.insert(*address, index);
        }
        for tag in &node.tags {
            self.inner.by_tag.entry(tag.clone()).or_default().push(index);
        }
        if let Some(login) = node.login() {
            self.inner.by_login.entry(login.to_owned()).or_default().push(index);
        }
        if !node.key.is_empty() {
            self.by_key.insert(node.key.clone(), index);
        }
        if node.numeric_id != 0 {
            self.by_number.insert(node.numeric_id, index);
        }
        if let Some(user) = node.user.as_ref().filter(|user| user.id != 0) {
            self.logins.insert(user.id, user.login.clone());
            self.numbers.insert(user.login.clone(), user.id);
        }
        self.inner.nodes.push(node);
    }

    /// Gives a login a role.
    pub(super) fn role(&mut self, user: &str, role: &str) {
        self.inner.roles.entry(role.to_owned()).or_default().push(login(user).to_owned());
    }

    fn contradiction(&self, node: &Node, names: bool) -> Option<String> {
        let other = |index: &usize| self.inner.nodes.get(*index).map_or("", |n| n.name.as_str());
        if let Some(index) = self.inner.by_id.get(&node.id) {
            return Some(format!("{:?} is the id of {:?} too", node.id, other(index)));
        }
        for (i, address) in node.addresses.iter().enumerate() {
            if let Some(index) = self.inner.by_address.get(address) {
                return Some(format!("{address} is an address of {:?} too", other(index)));
            }
            if node.addresses.iter().take(i).any(|before| before == address) {
                return Some(format!("{address} stands twice in one node"));
            }
        }
        if let Some(index) = self.by_key.get(&node.key) {
            return Some(format!("the key is that of {:?} too", other(index)));
        }
        if let Some(index) = self.by_number.get(&node.numeric_id) {
            return Some(format!("{} is the number of {:?} too", node.numeric_id, other(index)));
        }
        if names && let Some(index) = self.inner.by_name.get(&node.name.to_ascii_lowercase()) {
            let id = self.inner.nodes.get(*index).map_or("", |n| n.id.as_str());
            return Some(format!("{:?} is the name of the node {id:?} too", node.name));
        }
        let user = node.user.as_ref().filter(|user| user.id != 0)?;
        if let Some(before) = self.logins.get(&user.id).filter(|before| **before != user.login) {
            return Some(format!(
                "user {} is {:?} here and {before:?} before",
                user.id, user.login
            ));
        }
        let before = self.numbers.get(&user.login).filter(|before| **before != user.id)?;
        Some(format!("{:?} has the number {} here and {before} before", user.login, user.id))
    }

    fn finish(mut self) -> Registry {
        for logins in self.inner.roles.values_mut() {
            logins.sort_unstable();
            logins.dedup();
        }
        Registry(Arc::new(self.inner))
    }
}

/// The value of a key.
pub(super) fn member<'v, 't>(object: &'v Object<'t>, name: &str) -> Option<&'v Value<'t>> {
    let found = object.properties.iter().find(|p| p.name.as_str() == name);
    found.map(|p| &p.value).filter(|v| !matches!(v, Value::NullKeyword(_)))
}

// ---- what both formats ask of their words ----

/// An address of one node.
pub(super) fn address(text: &str) -> Result<IpAddr, String> {
    let address: IpAddr = text.parse().map_err(|_| format!("{text:?} is not an address"))?;
    let address = address.to_canonical();
    if address.is_unspecified() || address.is_multicast() {
        return Err(format!("{address} is not the address of one node"));
    }
    Ok(address)
}

/// A stable id: it becomes a part of paths and of headers.
pub(super) fn check_id(id: &str) -> Result<(), String> {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if id.is_empty() || id.starts_with('.') || !id.chars().all(good) {
        return Err(format!(
            "{id:?} is not an id: letters, digits, \"-\", \"_\" and \".\", no \".\" first"
        ));
    }
    if id.len() > limits::NODE_ID_BYTES {
        return Err(format!("an id has at most {} characters", limits::NODE_ID_BYTES));
    }
    Ok(())
}

/// A DNS name without a dot at the end.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    let labels = || name.split('.').all(|l| !l.is_empty() && l.len() <= 63 && l.chars().all(good));
    if name.is_empty() {
        Err("a node without a name".into())
    } else if name.len() > limits::NODE_NAME_BYTES || !labels() {
        Err(format!("{name:?} is not a DNS name"))
    } else {
        Ok(())
    }
}

/// A login.
pub(super) fn check_login(text: &str) -> Result<(), String> {
    let bad = |c: char| c.is_whitespace() || c.is_control();
    if login(text).is_empty() || text.len() > limits::LOGIN_BYTES || text.chars().any(bad) {
        return Err(format!("{text:?} is not a login"));
    }
    Ok(())
}

/// `nodekey:` and 64 hexadecimal digits.
pub(super) fn check_key(key: &str) -> Result<(), String> {
    let digits = key.strip_prefix("nodekey:").unwrap_or_default();
    if digits.len() == 64
        && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    {
        return Ok(());
    }
    Err(format!("{key:?} is not a key: \"nodekey:\" and 64 hexadecimal digits"))
}
