//! What WhoIs says about a peer.

use std::net::IpAddr;

use serde_json::{Map, Value};

use super::LocalApiError;
use crate::limits;

/// A node of the tailnet, as `tailscaled` knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WhoIs {
    /// The stable node id: `nZ9k4CNTRL` at Tailscale, a decimal number at Headscale. ASCII letters, digits, `-`, `_` and `.`, at
    /// most [`limits::NODE_ID_BYTES`].
    pub id: String,
    /// The numeric id.
    pub numeric_id: i64,
    /// `nodekey:…`; may be empty.
    pub key: String,
    /// Its MagicDNS name, without the dot at the end; may be empty.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Whose it is; None when it is tagged: it is nobody's then.
    pub user: Option<User>,
    /// Its tags, with `tag:` before each.
    pub tags: Vec<String>,
    /// Whether control sees it online, when it says so.
    pub online: Option<bool>,
}

/// A user of the tailnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// `alice@example.com`.
    pub login: String,
    /// The numeric id.
    pub id: i64,
    /// How the user is called; may be empty.
    pub display: String,
}

impl WhoIs {
    /// Reads the answer about the node at `asked`. Everything that is used to decide, or stored, is checked: what is longer than
    /// it can be, or holds what it cannot hold, is no identity.
    pub(super) fn parse(json: &[u8], asked: IpAddr) -> Result<Self, LocalApiError> {
        let value: Value = serde_json::from_slice(json).map_err(|_| unusable("not JSON"))?;
        let node = value.get("Node").and_then(Value::as_object).ok_or(unusable("no Node"))?;
        let id = text(node, "StableID", limits::NODE_ID_BYTES)?;
        if !is_id(&id) {
            return Err(unusable("no StableID, or none that can be one"));
        }
        let name = text(node, "Name", limits::NODE_NAME_BYTES)?;
        let tags = tags(node)?;
        let addresses = addresses(node)?;
        // From loopback tailscaled passes on what came for a node (see `LocalApi::whois`); every other address must be the node's.
        if !asked.is_loopback() && !addresses.contains(&asked) {
            return Err(unusable("it is about a node with another address"));
        }
        let user = match value.get("UserProfile").and_then(Value::as_object) {
            Some(profile) if tags.is_empty() => user(profile)?,
            _ => None,
        };
        Ok(Self {
            id,
            numeric_id: node.get("ID").and_then(Value::as_i64).unwrap_or(0),
            key: text(node, "Key", KEY_BYTES)?,
            name: name.strip_suffix('.').unwrap_or(&name).to_owned(),
            addresses,
            user,
            tags,
            online: node.get("Online").and_then(Value::as_bool),
        })
    }
}

fn user(profile: &Map<String, Value>) -> Result<Option<User>, LocalApiError> {
    let login = text(profile, "LoginName", limits::LOGIN_BYTES)?;
    let id = profile.get("ID").and_then(Value::as_i64).unwrap_or(0);
    let display = text(profile, "DisplayName", limits::LOGIN_BYTES).unwrap_or_default();
    Ok((!login.is_empty()).then_some(User { login, id, display }))
}

fn tags(node: &Map<String, Value>) -> Result<Vec<String>, LocalApiError> {
    let list = match node.get("Tags") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(unusable("Tags is no list")),
    };
    let mut left = limits::TAGS_BYTES;
    let mut tags = Vec::with_capacity(list.len().min(limits::TAGS_MAX));
    for tag in list {
        let tag = tag.as_str().filter(|t| is_tag(t)).ok_or(unusable("a tag that cannot be one"))?;
        left = left.checked_sub(tag.len()).ok_or(unusable("more tags than a node can have"))?;
        if tags.len() >= limits::TAGS_MAX {
            return Err(unusable("more tags than a node can have"));
        }
        tags.push(tag.to_owned());
    }
    Ok(tags)
}

/// `100.64.0.7/32`, `fd7a::7/128`: single addresses; networks are routes and nobody's own.
fn addresses(node: &Map<String, Value>) -> Result<Vec<IpAddr>, LocalApiError> {
    let list = match node.get("Addresses") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(unusable("Addresses is no list")),
    };
    let mut all = Vec::new();
    for prefix in list.iter().take(ADDRESSES_MAX) {
        let single = prefix.as_str().and_then(|text| text.split_once('/'));
        let address = single.and_then(|(address, bits)| {
            let address: IpAddr = address.parse().ok()?;
            let whole = if address.is_ipv4() { "32" } else { "128" };
            (bits == whole).then_some(address)
        });
        all.extend(address);
    }
    Ok(all)
}

/// A string of at most `most` bytes without control characters; empty when it is missing.
fn text(map: &Map<String, Value>, key: &str, most: usize) -> Result<String, LocalApiError> {
    let text = match map.get(key) {
        None | Some(Value::Null) => "",
        Some(Value::String(text)) => text,
        Some(_) => return Err(unusable("a name is no string")),
    };
    if text.len() > most || text.chars().any(char::is_control) {
        return Err(unusable("a name is too long or holds control characters"));
    }
    Ok(text.to_owned())
}

fn is_id(id: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    !id.is_empty() && !id.starts_with('.') && id.bytes().all(fits)
}

fn is_tag(tag: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    tag.strip_prefix("tag:").is_some_and(|name| !name.is_empty() && name.bytes().all(fits))
}

const fn unusable(what: &'static str) -> LocalApiError {
    LocalApiError::Unusable(what)
}

/// `nodekey:` and 64 hexadecimal digits, with room for another kind.
const KEY_BYTES: usize = 128;
/// A node has one of each family; more are passed over.
const ADDRESSES_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: &str = r#"{"Node":{"ID":7,"StableID":"nA1CNTRL","Name":"laptop.tail1.ts.net.","User":3,
        "Key":"nodekey:00ff","Addresses":["100.64.0.5/32","fd7a:115c:a1e0::5/128","10.0.0.0/8"],"Online":true,"Cap":999,
        "Hostinfo":{"OS":"linux"}},"UserProfile":{"ID":3,"LoginName":"alice@example.com","DisplayName":"Alice"},
        "CapMap":{"x":[{"y":1}]}}"#;

    fn parse(json: &str) -> Result<WhoIs, String> {
        WhoIs::parse(json.as_bytes(), "100.64.0.5".parse().unwrap()).map_err(|e| e.to_string())
    }

    #[test]
    fn a_users_node() {
        let who = parse(ALICE).unwrap();
        assert_eq!((who.id.as_str(), who.numeric_id), ("nA1CNTRL", 7));
        assert_eq!(who.name, "laptop.tail1.ts.net");
        assert_eq!(who.addresses.len(), 2, "a route is no address");
        assert_eq!(who.user.unwrap().login, "alice@example.com");
        assert_eq!((who.tags.len(), who.online), (0, Some(true)));
    }

    #[test]
    fn a_tagged_node_is_nobodys() {
        let who =
            parse(&ALICE.replace("\"Cap\":999", "\"Tags\":[\"tag:prod\",\"tag:web-1\"]")).unwrap();
        assert_eq!((who.tags, who.user), (vec!["tag:prod".into(), "tag:web-1".into()], None));
    }

    #[test]
    fn headscale_has_numbers_for_ids() {
        assert_eq!(parse(&ALICE.replace("nA1CNTRL", "42")).unwrap().id, "42");
    }

    #[test]
    fn a_node_without_an_id_of_the_right_form_is_nobody() {
        for id in ["", "a/b", "..", ".", "a b", "a\\u0000", "a\\n", "ä", "n=", &"n".repeat(200)] {
            let error = parse(&ALICE.replace("nA1CNTRL", id)).unwrap_err();
            assert!(error.contains("cannot be used"), "{id}: {error}");
        }
        assert!(parse(&ALICE.replace("\"StableID\":\"nA1CNTRL\"", "\"StableID\":5")).is_err());
        assert!(parse(&ALICE.replace("\"StableID\":\"nA1CNTRL\",", "")).is_err());
    }

    #[test]
    fn an_answer_about_another_address_is_none() {
        let at = |ip: &str| WhoIs::parse(ALICE.as_bytes(), ip.parse().unwrap());
        assert!(at("fd7a:115c:a1e0::5").is_ok());
        assert!(at("100.64.0.6").unwrap_err().to_string().contains("another address"));
        assert!(at("10.0.0.1").is_err(), "a route is not its own address");
        assert!(at("127.0.0.1").is_ok(), "passed on by tailscaled");
    }

    #[test]
    fn more_than_can_be_stored_is_refused() {
        let with = |tags: &str| ALICE.replace("\"Cap\":999", &format!("\"Tags\":[{tags}]"));
        let many = vec!["\"tag:a\""; limits::TAGS_MAX + 1].join(",");
        let long = format!("\"tag:{}\"", "a".repeat(limits::TAGS_BYTES));
        for tags in [many.as_str(), &long, "\"prod\"", "7", "\"tag:\"", "\"tag:a b\""] {
            assert!(parse(&with(tags)).is_err(), "{tags}");
        }
        assert!(parse(&ALICE.replace("alice", &"a".repeat(limits::LOGIN_BYTES))).is_err());
        assert!(parse(&ALICE.replace("laptop", "a\\u001b[2J")).is_err());
    }

    #[test]
    fn what_is_not_the_answer_is_no_identity_and_no_panic() {
        for json in ["", "null", "[]", "{}", "{\"Node\":null}", "{\"Node\":[]}", "\u{0}"] {
            assert!(parse(json).is_err(), "{json}");
        }
        for end in 0..ALICE.len() - 1 {
            assert!(parse(&ALICE[..end]).is_err(), "cut at {end}");
        }
        assert!(parse(&"[".repeat(100_000)).is_err());
    }
}
