//! The compiled policy of one node: the JSON that a control plane sends to its SSH servers (`tailcfg.SSHPolicy`).
//!
//! Reading is as lenient as Go's decoder: unknown keys are left aside, keys are known in any case, null is "not there". What is
//! written has Go's names and leaves out what Go leaves out.

mod evaluate;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde_json::{Map, Value};

pub use self::evaluate::{Connection, Evaluation, Evaluator, LocalUser, env_matches};
use super::Timestamp;
pub use super::json::JsonError;
use super::json::{Fields, object};

/// All rules, in their order; the first that matches decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SshPolicy {
    /// None where the text has null: such a rule never matches.
    pub rules: Vec<Option<SshRule>>,
}

/// One rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SshRule {
    /// Not looked at from then on.
    pub rule_expires: Option<Timestamp>,
    /// Any one must match; null entries are skipped.
    pub principals: Vec<Option<SshPrincipal>>,
    /// Requested user, or `*`, to local user; `=` is the requested one, an empty one is none.
    pub ssh_users: BTreeMap<String, String>,
    /// What follows; without it the rule never matches.
    pub action: Option<SshAction>,
    /// Patterns with `*` and `?` of environment variables that a client may set.
    pub accept_env: Vec<String>,
}

/// Matches when any of its conditions holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SshPrincipal {
    /// Stable id of the source node; empty: no condition.
    pub node: String,
    /// Address of the source node; empty: no condition.
    pub node_ip: String,
    /// Login name of the source node's user; empty: no condition.
    pub user_login: String,
    /// Everybody.
    pub any: bool,
}

/// What a rule does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SshAction {
    /// Shown before anything else.
    pub message: String,
    /// The session does not take place.
    pub reject: bool,
    /// It does.
    pub accept: bool,
    /// How long it may last, nanoseconds; 0: no bound.
    pub session_duration_ns: i64,
    /// Whether the agent may be forwarded.
    pub allow_agent_forwarding: bool,
    /// A URL that is asked for the real action; `check` in the policy file.
    pub hold_and_delegate: String,
    /// Whether local ports may be forwarded.
    pub allow_local_port_forwarding: bool,
    /// Whether remote ports may be forwarded.
    pub allow_remote_port_forwarding: bool,
    /// In the order in which they are tried.
    pub recorders: Vec<SocketAddr>,
    /// Absent: the session goes on without recording.
    pub on_recording_failure: Option<OnRecordingFailure>,
}

/// What happens when recording is impossible.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OnRecordingFailure {
    /// Set: a session that cannot be recorded from its start is refused with this text.
    pub reject_session_with_message: String,
    /// Set: a session whose recording fails is ended with this text.
    pub terminate_session_with_message: String,
    /// Set: failures are told there.
    pub notify_url: String,
}

impl SshPolicy {
    /// Reads the JSON.
    ///
    /// # Errors
    /// What is wrong, and the way to it, such as `rules[3].action.recorders[0]`.
    pub fn parse(text: &[u8]) -> Result<Self, JsonError> {
        Self::from_map(&object(text, "an SSHPolicy")?, "")
    }

    /// The same out of a larger document; `path` is the way to it.
    ///
    /// # Errors
    /// As [`SshPolicy::parse`].
    pub fn from_map(map: &Map<String, Value>, path: &str) -> Result<Self, JsonError> {
        let fields = Fields::new(map, path.to_owned());
        let at = fields.at("rules");
        let rules = fields.list("rules")?.iter().enumerate();
        let rules = rules.map(|(n, rule)| {
            entry(rule, format!("{at}[{n}]"))?.map(|fields| SshRule::read(&fields)).transpose()
        });
        Ok(Self { rules: rules.collect::<Result<_, _>>()? })
    }

    /// The JSON, on one line.
    #[must_use]
    pub fn to_json(&self) -> String {
        self.to_value().to_string()
    }

    /// The JSON, for a larger document.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let rules = self.rules.iter();
        let rules =
            rules.map(|rule| rule.as_ref().map_or(Value::Null, SshRule::to_value)).collect();
        let mut map = Map::new();
        map.insert("rules".into(), Value::Array(rules));
        Value::Object(map)
    }
}

impl SshRule {
    fn read(fields: &Fields<'_>) -> Result<Self, JsonError> {
        let rule_expires = match fields.get("ruleExpires") {
            None => None,
            Some(value) => Some(value.as_str().and_then(Timestamp::parse).ok_or_else(|| {
                fields.wrong("ruleExpires", "a time such as 2026-11-23T12:00:00Z was expected")
            })?),
        };
        let at = fields.at("principals");
        let principals = fields.list("principals")?.iter().enumerate();
        let principals = principals.map(|(n, principal)| {
            let fields = entry(principal, format!("{at}[{n}]"))?;
            fields.map(|fields| SshPrincipal::read(&fields)).transpose()
        });
        let users = match fields.get("sshUsers") {
            None => BTreeMap::new(),
            Some(Value::Object(map)) => {
                let texts = map.iter().map(|(user, local)| {
                    let local = if local.is_null() { Some("") } else { local.as_str() };
                    Some((user.clone(), local?.to_owned()))
                });
                texts
                    .collect::<Option<_>>()
                    .ok_or_else(|| fields.wrong("sshUsers", "texts were expected"))?
            }
            Some(_) => return Err(fields.wrong("sshUsers", "an object was expected")),
        };
        let action = match fields.get("action") {
            None => None,
            Some(value) => entry(value, fields.at("action"))?
                .map(|fields| SshAction::read(&fields))
                .transpose()?,
        };
        Ok(Self {
            rule_expires,
            principals: principals.collect::<Result<_, _>>()?,
            ssh_users: users,
            action,
            accept_env: fields.texts("acceptEnv")?,
        })
    }

    fn to_value(&self) -> Value {
        let mut map = Map::new();
        if let Some(at) = &self.rule_expires {
            map.insert("ruleExpires".into(), at.as_str().into());
        }
        let principals = self.principals.iter();
        let principals =
            principals.map(|p| p.as_ref().map_or(Value::Null, SshPrincipal::to_value)).collect();
        map.insert("principals".into(), Value::Array(principals));
        let users = self.ssh_users.iter().map(|(k, v)| (k.clone(), v.as_str().into())).collect();
        map.insert("sshUsers".into(), Value::Object(users));
        let action = self.action.as_ref().map_or(Value::Null, SshAction::to_value);
        map.insert("action".into(), action);
        if !self.accept_env.is_empty() {
            map.insert("acceptEnv".into(), self.accept_env.clone().into());
        }
        Value::Object(map)
    }
}

impl SshPrincipal {
    fn read(fields: &Fields<'_>) -> Result<Self, JsonError> {
        Ok(Self {
            node: fields.text("node")?,
            node_ip: fields.text("nodeIP")?,
            user_login: fields.text("userLogin")?,
            any: fields.flag("any")?,
        })
    }

    fn to_value(&self) -> Value {
        let mut map = Map::new();
        put_text(&mut map, "node", &self.node);
        put_text(&mut map, "nodeIP", &self.node_ip);
        put_text(&mut map, "userLogin", &self.user_login);
        put_flag(&mut map, "any", self.any);
        Value::Object(map)
    }
}

impl SshAction {
    /// Reads an action by itself, as the answer to `holdAndDelegate` has it.
    ///
    /// # Errors
    /// As [`SshPolicy::parse`].
    pub fn parse(text: &[u8]) -> Result<Self, JsonError> {
        Self::read(&Fields::new(&object(text, "an SSHAction")?, String::new()))
    }

    fn read(fields: &Fields<'_>) -> Result<Self, JsonError> {
        let at = fields.at("recorders");
        let recorders = fields.list("recorders")?.iter().enumerate().map(|(n, value)| {
            let address = value.as_str().and_then(address);
            address.ok_or_else(|| {
                JsonError::new(
                    &format!("{at}[{n}]"),
                    "an address such as 100.64.0.9:80 was expected",
                )
            })
        });
        let on_failure = match fields.get("onRecordingFailure") {
            None => None,
            Some(value) => entry(value, fields.at("onRecordingFailure"))?
                .map(|fields| {
                    Ok(OnRecordingFailure {
                        reject_session_with_message: fields.text("RejectSessionWithMessage")?,
                        terminate_session_with_message: fields
                            .text("TerminateSessionWithMessage")?,
                        notify_url: fields.text("NotifyURL")?,
                    })
                })
                .transpose()?,
        };
        Ok(Self {
            message: fields.text("message")?,
            reject: fields.flag("reject")?,
            accept: fields.flag("accept")?,
            session_duration_ns: fields.integer("sessionDuration")?,
            allow_agent_forwarding: fields.flag("allowAgentForwarding")?,
            hold_and_delegate: fields.text("holdAndDelegate")?,
            allow_local_port_forwarding: fields.flag("allowLocalPortForwarding")?,
            allow_remote_port_forwarding: fields.flag("allowRemotePortForwarding")?,
            recorders: recorders.collect::<Result<_, _>>()?,
            on_recording_failure: on_failure,
        })
    }

    fn to_value(&self) -> Value {
        let mut map = Map::new();
        put_text(&mut map, "message", &self.message);
        put_flag(&mut map, "reject", self.reject);
        put_flag(&mut map, "accept", self.accept);
        if self.session_duration_ns != 0 {
            map.insert("sessionDuration".into(), self.session_duration_ns.into());
        }
        put_flag(&mut map, "allowAgentForwarding", self.allow_agent_forwarding);
        put_text(&mut map, "holdAndDelegate", &self.hold_and_delegate);
        put_flag(&mut map, "allowLocalPortForwarding", self.allow_local_port_forwarding);
        put_flag(&mut map, "allowRemotePortForwarding", self.allow_remote_port_forwarding);
        if !self.recorders.is_empty() {
            let all = self.recorders.iter().map(|r| r.to_string().into()).collect();
            map.insert("recorders".into(), Value::Array(all));
        }
        if let Some(failure) = &self.on_recording_failure {
            let mut inner = Map::new();
            for (key, text) in [
                ("RejectSessionWithMessage", &failure.reject_session_with_message),
                ("TerminateSessionWithMessage", &failure.terminate_session_with_message),
                ("NotifyURL", &failure.notify_url),
            ] {
                put_text(&mut inner, key, text);
            }
            map.insert("onRecordingFailure".into(), Value::Object(inner));
        }
        Value::Object(map)
    }
}

impl SshPrincipal {
    fn ip(&self) -> Option<IpAddr> {
        self.node_ip.parse().ok()
    }
}

/// An element that is an object, or null.
fn entry(value: &Value, path: String) -> Result<Option<Fields<'_>>, JsonError> {
    match value {
        Value::Null => Ok(None),
        Value::Object(map) => Ok(Some(Fields::new(map, path))),
        _ => Err(JsonError::new(&path, "an object was expected")),
    }
}

/// As Go's netip reads it: no zone, no names, a port in decimal.
fn address(text: &str) -> Option<SocketAddr> {
    let address: SocketAddr = text.parse().ok()?;
    (!text.contains('%')).then_some(address)
}

fn put_text(map: &mut Map<String, Value>, key: &str, text: &str) {
    if !text.is_empty() {
        map.insert(key.into(), text.into());
    }
}

fn put_flag(map: &mut Map<String, Value>, key: &str, flag: bool) {
    if flag {
        map.insert(key.into(), true.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"{"rules":[null,{"ruleExpires":"2026-11-23T12:00:00.5+01:00","principals":[{"node":"nA"},null,{"nodeIP":"100.64.0.1"},{"userLogin":"alice@example.com"},{"any":true}],"sshUsers":{"*":"=","root":""},"action":{"message":"m","accept":true,"sessionDuration":3600000000000,"allowAgentForwarding":true,"allowLocalPortForwarding":true,"allowRemotePortForwarding":true,"recorders":["100.64.0.9:80","[fd7a:115c:a1e0::9]:80"],"onRecordingFailure":{"RejectSessionWithMessage":"r","TerminateSessionWithMessage":"t","NotifyURL":"https://c/n"}},"acceptEnv":["LANG","LC_*"]},{"principals":[],"sshUsers":{},"action":null}]}"#;

    #[test]
    fn what_is_read_is_written_again() {
        let policy = SshPolicy::parse(WHOLE.as_bytes()).unwrap();
        assert_eq!(policy.to_json(), WHOLE);
        assert_eq!(policy.rules.len(), 3);
    }

    #[test]
    fn go_would_read_it_too() {
        let text = r#"{"RULES":[{"Principals":null,"unknown":[1],"action":{"ACCEPT":true,"onRecordingFailure":null}}],"more":{}}"#;
        let policy = SshPolicy::parse(text.as_bytes()).unwrap();
        let action = policy.rules[0].as_ref().unwrap().action.as_ref().unwrap();
        assert!(action.accept && action.on_recording_failure.is_none());
        assert_eq!(SshPolicy::parse(b"{}").unwrap(), SshPolicy::default());
        // The last of several spellings, and null changes nothing.
        let text = r#"{"rules":[{"action":{"accept":true,"ACCEPT":false,"Accept":null}}]}"#;
        let policy = SshPolicy::parse(text.as_bytes()).unwrap();
        assert!(!policy.rules[0].as_ref().unwrap().action.as_ref().unwrap().accept);
    }

    #[test]
    fn errors_tell_the_way() {
        for (text, said) in [
            (r#"{"rules":7}"#, "rules: a list"),
            (
                r#"{"rules":[{"action":{"recorders":["x:80"]}}]}"#,
                "rules[0].action.recorders[0]: an address",
            ),
            (
                r#"{"rules":[{"principals":[{"any":1}]}]}"#,
                "rules[0].principals[0].any: true or false",
            ),
            (r#"{"rules":[{"ruleExpires":"tomorrow"}]}"#, "rules[0].ruleExpires: a time"),
            (r#"{"rules":[{"sshUsers":{"a":1}}]}"#, "rules[0].sshUsers: texts"),
            (
                r#"{"rules":[{"action":{"sessionDuration":1.5}}]}"#,
                "rules[0].action.sessionDuration: a whole",
            ),
            ("[]", "an SSHPolicy is an object"),
            ("{", "line 1"),
        ] {
            let e = SshPolicy::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(e.contains(said), "{e}");
        }
    }
}
