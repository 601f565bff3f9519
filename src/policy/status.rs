//! The output of `tailscale status --json`, and of the LocalAPI's status, as a registry.
//!
//! Nobody wrote it by hand, so what is of no use is passed over with a warning: a peer without an address, an owner whom the
//! list of users does not have. What contradicts itself is refused as in our own format.

use std::collections::HashMap;

use jsonc_parser::ast::{Object, Value};

use super::hujson::start;
use super::nodes::{
    Draft, Node, User, address, check_id, check_key, check_login, check_name, member,
};
use super::reader::Reader;
use super::selector::check_tag;
use crate::limits;

/// Reads this node and its peers.
pub(super) fn read(reader: &mut Reader<'_>, root: &Object<'_>, draft: &mut Draft) {
    let mut users = HashMap::new();
    if let Some(object) = member(root, "User").and_then(|v| reader.object(v, "User")) {
        for key in &object.properties {
            let Some(user) = reader.object(&key.value, "a user") else { continue };
            let login = member(user, "LoginName").and_then(|v| reader.text(v, "LoginName"));
            let display = member(user, "DisplayName").and_then(|v| reader.text(v, "DisplayName"));
            let (Ok(id), Some(login)) = (key.name.as_str().parse::<i64>(), login) else {
                reader
                    .warning(key.range.start, "a user without a number or a login is passed over");
                continue;
            };
            let display = display.unwrap_or_default().replace(char::is_control, "");
            users.insert(id, User { login: login.to_owned(), id, display });
        }
    }
    if let Some(value) = member(root, "Self") {
        read_node(reader, value, &users, draft);
    }
    if let Some(peers) = member(root, "Peer").and_then(|v| reader.object(v, "Peer")) {
        for key in &peers.properties {
            read_node(reader, &key.value, &users, draft);
        }
    }
}

fn read_node(
    reader: &mut Reader<'_>,
    value: &Value<'_>,
    users: &HashMap<i64, User>,
    draft: &mut Draft,
) {
    let Some(object) = reader.object(value, "a node") else { return };
    let at = start(value);
    match node(reader, object, users) {
        Ok(node) => draft.push(reader, at, node, false),
        Err(why) => reader.warning(at, format!("this node is passed over: {why}")),
    }
}

fn node(
    reader: &mut Reader<'_>,
    object: &Object<'_>,
    users: &HashMap<i64, User>,
) -> Result<Node, String> {
    let text = |reader: &mut Reader<'_>, name| {
        member(object, name).and_then(|v| reader.text(v, name)).unwrap_or_default()
    };
    let texts = |reader: &mut Reader<'_>, name| {
        let found = member(object, name).and_then(|v| reader.texts(v, name)).unwrap_or_default();
        found.into_iter().map(|(text, _)| text).collect::<Vec<_>>()
    };
    let id = text(reader, "ID");
    check_id(id)?;
    let name = text(reader, "DNSName");
    let name = name.strip_suffix('.').unwrap_or(name);
    // The host names itself, so that is no name to go by.
    let name = if check_name(name).is_ok() { name } else { id };
    let mut addresses = Vec::new();
    for text in texts(reader, "TailscaleIPs") {
        addresses.push(address(text)?);
    }
    if addresses.is_empty() || addresses.len() > limits::NODE_ADDRESSES {
        return Err(format!("{} addresses", addresses.len()));
    }
    let mut tags: Vec<String> = Vec::new();
    for tag in texts(reader, "Tags") {
        check_tag(tag)?;
        if !tags.iter().any(|t| t == tag) {
            tags.push(tag.to_owned());
        }
    }
    if tags.len() > limits::NODE_TAGS {
        return Err(format!("{} tags", tags.len()));
    }
    let number = |reader: &mut Reader<'_>, name| {
        member(object, name).and_then(|v| reader.number(v, name)).unwrap_or(0)
    };
    let user = if tags.is_empty() {
        let user =
            users.get(&number(reader, "UserID")).ok_or("its owner is not among the users")?;
        check_login(&user.login)?;
        Some(user.clone())
    } else {
        None
    };
    let key = text(reader, "PublicKey");
    Ok(Node {
        id: id.to_owned(),
        numeric_id: number(reader, "NodeID"),
        key: if check_key(key).is_ok() { key.to_owned() } else { String::new() },
        name: name.to_owned(),
        addresses,
        user,
        tags,
        online: member(object, "Online").and_then(|v| reader.flag(v, "Online")),
        recorder: None,
    })
}
