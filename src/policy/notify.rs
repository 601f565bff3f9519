//! What an SSH server tells control when recording fails (`tailcfg.SSHEventNotifyRequest`), with what castkeep adds.

use serde_json::{Map, Value, json};

pub use super::json::JsonError;
use super::json::{Fields, object};
use crate::limits::NOTICE_ATTEMPTS;

/// What happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EventType {
    /// Not said.
    #[default]
    Unspecified,
    /// Recording could not begin, and the session was refused.
    RecordingRejected,
    /// Recording failed, and the session was ended.
    RecordingTerminated,
    /// Recording failed or could not begin, and the session goes on.
    RecordingFailed,
    /// One that this version does not know.
    Other(i64),
}

impl EventType {
    /// Its number.
    #[must_use]
    pub const fn number(self) -> i64 {
        match self {
            Self::Unspecified => 0,
            Self::RecordingRejected => 1,
            Self::RecordingTerminated => 2,
            Self::RecordingFailed => 3,
            Self::Other(n) => n,
        }
    }

    const fn from_number(n: i64) -> Self {
        match n {
            0 => Self::Unspecified,
            1 => Self::RecordingRejected,
            2 => Self::RecordingTerminated,
            3 => Self::RecordingFailed,
            n => Self::Other(n),
        }
    }
}

/// One notice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NotifyRequest {
    /// What happened.
    pub event_type: EventType,
    /// Shared by all sessions of one SSH connection.
    pub connection_id: String,
    /// Of the SSH server.
    pub cap_version: i64,
    /// Of the SSH server: `nodekey:` and 64 hexadecimal digits.
    pub node_key: String,
    /// Number of the source node.
    pub src_node: i64,
    /// The user as the client asked for.
    pub ssh_user: String,
    /// The user of the session.
    pub local_user: String,
    /// Recorder and why it failed, in order; nothing for the one that was connected.
    pub attempts: Vec<(String, String)>,
    /// Of a rule that lets named people in without recording. Only between castkeep and castkeep.
    pub break_glass: bool,
    /// Stable id of the source node, as its verdict had it. Only between castkeep and castkeep.
    pub source_id: String,
    /// Login name of the source's user, as its verdict had it. Only between castkeep and castkeep.
    pub source_user: String,
}

impl NotifyRequest {
    /// Reads one, whoever wrote it: unknown keys are left aside.
    ///
    /// # Errors
    /// What is wrong and where.
    pub fn parse(text: &[u8]) -> Result<Self, JsonError> {
        let map = object(text, "an SSHEventNotifyRequest")?;
        let fields = Fields::new(&map, String::new());
        let mut attempts = Vec::new();
        for (at, value) in fields.list("RecordingAttempts")?.iter().enumerate() {
            let path = format!("RecordingAttempts[{at}]");
            match value {
                Value::Null => {}
                Value::Object(map) => {
                    let fields = Fields::new(map, path);
                    attempts.push((fields.text("Recorder")?, fields.text("FailureMessage")?));
                }
                _ => return Err(JsonError::new(&path, "an object was expected")),
            }
        }
        if attempts.len() > ATTEMPTS_MAX {
            return Err(fields.wrong("RecordingAttempts", "too many"));
        }
        Ok(Self {
            event_type: EventType::from_number(fields.integer("EventType")?),
            connection_id: fields.text("ConnectionID")?,
            cap_version: fields.integer("CapVersion")?,
            node_key: fields.text("NodeKey")?,
            src_node: fields.integer("SrcNode")?,
            ssh_user: fields.text("SSHUser")?,
            local_user: fields.text("LocalUser")?,
            attempts,
            break_glass: fields.flag("castkeepBreakGlass")?,
            source_id: fields.text("castkeepNodeID")?,
            source_user: fields.text("castkeepUser")?,
        })
    }

    /// The JSON that upstream's control takes, and nothing else.
    #[must_use]
    pub fn to_json(&self) -> String {
        Value::Object(self.to_map()).to_string()
    }

    /// The JSON with what castkeep adds, on one line.
    #[must_use]
    pub fn to_castkeep_json(&self) -> String {
        let mut map = self.to_map();
        if self.break_glass {
            map.insert("castkeepBreakGlass".into(), true.into());
        }
        for (key, text) in
            [("castkeepNodeID", &self.source_id), ("castkeepUser", &self.source_user)]
        {
            if !text.is_empty() {
                map.insert(key.into(), text.as_str().into());
            }
        }
        Value::Object(map).to_string()
    }

    fn to_map(&self) -> Map<String, Value> {
        let attempts = self.attempts.iter();
        let attempts: Vec<Value> = attempts
            .map(|(recorder, message)| json!({ "Recorder": recorder, "FailureMessage": message }))
            .collect();
        let mut map = Map::new();
        map.insert("EventType".into(), self.event_type.number().into());
        map.insert("ConnectionID".into(), self.connection_id.as_str().into());
        map.insert("CapVersion".into(), self.cap_version.into());
        // Go has no empty key; this is its zero.
        let zero = || format!("nodekey:{}", "0".repeat(64));
        let key = if self.node_key.is_empty() { zero() } else { self.node_key.clone() };
        map.insert("NodeKey".into(), key.into());
        map.insert("SrcNode".into(), self.src_node.into());
        map.insert("SSHUser".into(), self.ssh_user.as_str().into());
        map.insert("LocalUser".into(), self.local_user.as_str().into());
        map.insert("RecordingAttempts".into(), attempts.into());
        map
    }
}

/// More than one round over all recorders and what a client tells behind it is no honest notice.
const ATTEMPTS_MAX: usize = 4 * NOTICE_ATTEMPTS;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstream_gets_its_own_and_castkeep_more() {
        let notice = NotifyRequest {
            event_type: EventType::RecordingFailed,
            connection_id: "ssh-conn-20261123T174300-0123456789".into(),
            cap_version: 145,
            node_key: format!("nodekey:{}", "0".repeat(64)),
            src_node: 7,
            ssh_user: "root".into(),
            local_user: "root".into(),
            attempts: vec![
                ("100.64.0.9:80".into(), "refused".into()),
                ("[fd7a::9]:80".into(), String::new()),
            ],
            break_glass: true,
            source_id: "nA".into(),
            source_user: "alice@example.com".into(),
        };
        let plain = notice.to_json();
        assert!(
            plain.starts_with(r#"{"EventType":3,"ConnectionID":"ssh-conn-"#)
                && !plain.contains("castkeep"),
            "{plain}"
        );
        assert_eq!(NotifyRequest::parse(notice.to_castkeep_json().as_bytes()).unwrap(), notice);
        let bare = NotifyRequest::parse(plain.as_bytes()).unwrap();
        assert!(!bare.break_glass && bare.attempts == notice.attempts);
        let unknown = NotifyRequest::default().to_json();
        assert!(
            unknown.contains(&format!(r#""NodeKey":"nodekey:{}""#, "0".repeat(64))),
            "{unknown}"
        );
    }

    #[test]
    fn what_a_session_tells_is_one() {
        use crate::ask::{EventType as Event, Notice};
        let body = Notice {
            event: Event::Unrecorded,
            connection_id: "c",
            ssh_user: "s",
            local_user: "l",
            identity: None,
            break_glass: true,
        }
        .encode([("100.64.0.9:80", "gone")].into_iter())
        .unwrap();
        let notice = NotifyRequest::parse(&body).unwrap();
        assert_eq!(notice.event_type, EventType::RecordingFailed);
        assert_eq!(notice.attempts, [("100.64.0.9:80".to_owned(), "gone".to_owned())]);
        assert!(notice.break_glass);
    }

    #[test]
    fn nonsense_is_named() {
        for (text, said) in [
            ("[]", "is an object"),
            (r#"{"EventType":"1"}"#, "EventType: a whole number"),
            (r#"{"RecordingAttempts":[1]}"#, "RecordingAttempts[0]: an object"),
        ] {
            let e = NotifyRequest::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(e.contains(said), "{e}");
        }
    }
}
