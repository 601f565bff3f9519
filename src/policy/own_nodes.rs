//! The registry in our own format.

use jsonc_parser::ast::{Object, Value};
use serde_json::json;

use super::hujson::start;
use super::nodes::{
    Draft, Node, RecorderPort, User, address, check_id, check_key, check_login, check_name,
};
use super::reader::Reader;
use super::selector::{ROLES, check_tag};
use crate::limits;

/// Reads the nodes and the roles of users.
pub(super) fn read(reader: &mut Reader<'_>, root: &Object<'_>, draft: &mut Draft) {
    for key in &root.properties {
        match key.name.as_str() {
            "castkeepNodes" => {
                let version = reader.number(&key.value, "castkeepNodes");
                if version.is_some_and(|version| version != 1) {
                    reader.error(start(&key.value), "this is a registry of a newer version");
                }
            }
            "nodes" => {
                for value in reader.array(&key.value, "nodes").unwrap_or_default() {
                    read_node(reader, value, draft);
                }
            }
            "users" => {
                for value in reader.array(&key.value, "users").unwrap_or_default() {
                    read_user(reader, value, draft);
                }
            }
            _ => reader.unknown_key(key, ROOT_KEYS, true),
        }
    }
}

fn read_node(reader: &mut Reader<'_>, value: &Value<'_>, draft: &mut Draft) {
    let Some(object) = reader.object(value, "a node") else { return };
    let at = start(value);
    let mut node = Node {
        id: String::new(),
        numeric_id: 0,
        key: String::new(),
        name: String::new(),
        addresses: Vec::new(),
        user: None,
        tags: Vec::new(),
        online: None,
        recorder: None,
    };
    let mut user = User::default();
    let (mut has_id, mut has_name, mut good) = (false, false, true);
    for key in &object.properties {
        let (value, name) = (&key.value, key.name.as_str());
        if matches!(value, Value::NullKeyword(_)) && NODE_KEYS.contains(&name) {
            continue;
        }
        match name {
            "id" => {
                has_id = true;
                good &= take(reader, value, name, check_id, &mut node.id);
            }
            "name" => {
                has_name = true;
                let mut text = String::new();
                let check = |name: &str| check_name(name.strip_suffix('.').unwrap_or(name));
                good &= take(reader, value, name, check, &mut text);
                node.name = text.strip_suffix('.').unwrap_or(&text).to_owned();
            }
            "key" => good &= take(reader, value, name, check_key, &mut node.key),
            "user" => good &= take(reader, value, name, check_login, &mut user.login),
            "userDisplay" => good &= take(reader, value, name, check_display, &mut user.display),
            "numericID" => node.numeric_id = reader.number(value, name).unwrap_or(0),
            "userID" => user.id = reader.number(value, name).unwrap_or(0),
            "online" => node.online = reader.flag(value, name),
            "addresses" => {
                for (text, at) in reader.texts(value, name).unwrap_or_default() {
                    match address(text) {
                        Ok(address) => node.addresses.push(address),
                        Err(why) => {
                            good = false;
                            reader.error(at, why);
                        }
                    }
                }
            }
            "tags" => {
                for (text, at) in reader.texts(value, name).unwrap_or_default() {
                    match check_tag(text) {
                        Ok(()) if node.tags.iter().any(|tag| tag == text) => {
                            reader.error(at, format!("{text:?} stands twice in one node"));
                        }
                        Ok(()) => node.tags.push(text.to_owned()),
                        Err(why) => {
                            good = false;
                            reader.error(at, why);
                        }
                    }
                }
            }
            "recorder" => node.recorder = read_recorder(reader, value),
            _ => reader.unknown_key(key, NODE_KEYS, true),
        }
    }
    for (there, name) in
        [(has_id, "id"), (has_name, "name"), (!good || !node.addresses.is_empty(), "addresses")]
    {
        if !there {
            good = false;
            reader.error(at, format!("a node without {name}"));
        }
    }
    if node.addresses.len() > limits::NODE_ADDRESSES || node.tags.len() > limits::NODE_TAGS {
        good = false;
        reader.error(at, "a node with too many addresses or tags");
    }
    if !user.login.is_empty() {
        if !node.tags.is_empty() {
            good = false;
            reader
                .error(at, "a node has an owner or tags, not both: a tag takes the owner's place");
        }
        node.user = Some(user);
    } else if user != User::default() {
        reader.warning(at, "a userID or userDisplay without user is passed over");
    }
    if node.user.is_none() && node.tags.is_empty() && good {
        reader.warning(at, "a node with neither an owner nor tags matches no rule");
    }
    if good {
        draft.push(reader, at, node, true);
    }
}

/// Takes a checked text; false when it is not right.
fn take(
    reader: &mut Reader<'_>,
    value: &Value<'_>,
    what: &str,
    check: impl Fn(&str) -> Result<(), String>,
    to: &mut String,
) -> bool {
    let Some(text) = reader.text(value, what) else { return false };
    match check(text) {
        Ok(()) => {
            text.clone_into(to);
            true
        }
        Err(why) => {
            reader.error(start(value), why);
            false
        }
    }
}

fn check_display(text: &str) -> Result<(), String> {
    if text.len() > limits::LOGIN_BYTES || text.chars().any(char::is_control) {
        return Err("this is not the name of a person".into());
    }
    Ok(())
}

fn read_recorder(reader: &mut Reader<'_>, value: &Value<'_>) -> Option<RecorderPort> {
    let object = reader.object(value, "recorder")?;
    let mut recorder = RecorderPort { port: limits::RECORDER_PORT, tls: None };
    for key in &object.properties {
        let value = &key.value;
        match key.name.as_str() {
            "port" => match reader.number(value, "port").map(u16::try_from) {
                Some(Ok(port)) if port != 0 => recorder.port = port,
                Some(_) => reader.error(start(value), "a port is between 1 and 65535"),
                None => {}
            },
            "tls" if matches!(value, Value::NullKeyword(_)) => {}
            "tls" => {
                let mut name = String::new();
                if take(reader, value, "tls", check_name, &mut name) {
                    recorder.tls = Some(name);
                }
            }
            _ => reader.unknown_key(key, &["port", "tls"], true),
        }
    }
    Some(recorder)
}

fn read_user(reader: &mut Reader<'_>, value: &Value<'_>, draft: &mut Draft) {
    let Some(object) = reader.object(value, "a user") else { return };
    let (mut login, mut roles) = (String::new(), Vec::new());
    for key in &object.properties {
        match key.name.as_str() {
            "login" => {
                take(reader, &key.value, "login", check_login, &mut login);
            }
            "roles" => {
                for (role, at) in reader.texts(&key.value, "roles").unwrap_or_default() {
                    if ROLES.contains(&role) {
                        roles.push(role);
                    } else {
                        let list = ROLES.join(", ");
                        reader.error(at, format!("unknown role {role:?}: there are {list}"));
                    }
                }
            }
            _ => reader.unknown_key(key, &["login", "roles"], true),
        }
    }
    if login.is_empty() {
        reader.error(start(value), "a user without login");
    }
    for role in roles {
        draft.role(&login, role);
    }
}

/// A node as it is written; what is unknown is left out.
pub(super) fn to_json(node: &Node) -> serde_json::Value {
    let mut out = json!({"id": node.id, "name": node.name, "addresses": node.addresses});
    let Some(object) = out.as_object_mut() else { return out };
    let mut put = |name: &str, value: serde_json::Value| drop(object.insert(name.into(), value));
    if node.numeric_id != 0 {
        put("numericID", node.numeric_id.into());
    }
    if !node.key.is_empty() {
        put("key", node.key.as_str().into());
    }
    if let Some(user) = &node.user {
        put("user", user.login.as_str().into());
        if user.id != 0 {
            put("userID", user.id.into());
        }
        if !user.display.is_empty() {
            put("userDisplay", user.display.as_str().into());
        }
    }
    if !node.tags.is_empty() {
        put("tags", node.tags.clone().into());
    }
    if let Some(online) = node.online {
        put("online", online.into());
    }
    if let Some(recorder) = &node.recorder {
        put(
            "recorder",
            match &recorder.tls {
                Some(tls) => json!({"port": recorder.port, "tls": tls}),
                None => json!({"port": recorder.port}),
            },
        );
    }
    out
}

const ROOT_KEYS: &[&str] = &["castkeepNodes", "nodes", "users"];
const NODE_KEYS: &[&str] = &[
    "id",
    "name",
    "addresses",
    "user",
    "userID",
    "userDisplay",
    "tags",
    "recorder",
    "key",
    "numericID",
    "online",
];
