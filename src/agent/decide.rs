//! A question and its answer, as they stand on the socket.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::engine::{Accepted, Ruling};
use super::identity::Identity;
use crate::depth::is_deeper;
use crate::limits;

/// What a daemon asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) ssh_user: String,
    /// Empty: the daemon does not know yet.
    pub(super) local_user: String,
    pub(super) source_ip: Option<IpAddr>,
    pub(super) source_port: u16,
    pub(super) node: String,
    pub(super) node_id: String,
    pub(super) user_login: String,
    pub(super) connection_id: String,
    pub(super) watch: bool,
}

impl Question {
    /// Reads a body.
    pub(super) fn parse(body: &[u8]) -> Result<Self, String> {
        if is_deeper(body, limits::ASKED_LEVELS) {
            return Err("the body is nested too deep".into());
        }
        let body: Map<String, Value> =
            serde_json::from_slice(body).map_err(|_| "the body is no JSON object".to_owned())?;
        let text = |key: &str| match body.get(key) {
            None | Some(Value::Null) => Ok(String::new()),
            Some(Value::String(text))
                if text.len() <= limits::ASK_FIELD_BYTES && !text.chars().any(char::is_control) =>
            {
                Ok(text.clone())
            }
            Some(_) => Err(format!("{key} is no text, too long, or has control characters in it")),
        };
        let source_ip = match text("sourceIP")? {
            ip if ip.is_empty() => None,
            ip => {
                let ip: IpAddr = ip.parse().map_err(|_| "sourceIP is no IP address".to_owned())?;
                Some(ip.to_canonical())
            }
        };
        let source_port = match body.get("sourcePort") {
            None | Some(Value::Null) => 0,
            Some(port) => {
                let port = port.as_u64().and_then(|port| u16::try_from(port).ok());
                port.ok_or("sourcePort is no port")?
            }
        };
        let watch = match body.get("watch") {
            None | Some(Value::Null) => false,
            Some(watch) => watch.as_bool().ok_or("watch is neither true nor false")?,
        };
        let question = Self {
            ssh_user: text("sshUser")?,
            local_user: text("localUser")?,
            source_ip,
            source_port,
            node: text("node")?,
            node_id: text("nodeID")?,
            user_login: text("userLogin")?,
            connection_id: text("connectionID")?,
            watch,
        };
        if question.ssh_user.is_empty() {
            return Err("sshUser is missing".into());
        }
        Ok(question)
    }
}

/// What is answered.
#[derive(Clone, Debug)]
pub(super) struct Verdict {
    /// Of the policy; 0: there is none.
    pub(super) version: u64,
    pub(super) ruling: Ruling,
    pub(super) who: Identity,
}

impl Verdict {
    /// A daemon that named the local user runs the session as that one, and as no other.
    pub(super) fn for_local_user(mut self, wanted: &str) -> Self {
        if let Ruling::Accept(accepted) = &self.ruling
            && !wanted.is_empty()
            && accepted.local_user != wanted
        {
            let (found, wanted) = (accepted.local_user.escape_debug(), wanted.escape_debug());
            self.ruling = Ruling::Reject(format!(
                "the policy lets you in as local user \"{found}\", and this would be \"{wanted}\""
            ));
        }
        self
    }

    /// One line of the answer, with its line feed; within [`limits::ASK_LINE_BYTES`].
    pub(super) fn line(&self) -> String {
        let accepted = match &self.ruling {
            Ruling::Reject(message) => {
                let message = cut(message, MESSAGE_BYTES);
                let body =
                    json!({"version": self.version, "verdict": "reject", "message": message});
                return format!("{body}\n");
            }
            Ruling::Accept(accepted) => accepted,
        };
        let mut accepted = accepted.clone();
        let mut who = self.who.clone();
        let mut message_bytes = MESSAGE_BYTES;
        loop {
            let line = format!("{}\n", self.accept_json(&accepted, &who, message_bytes));
            if line.len() <= limits::ASK_LINE_BYTES {
                return line;
            }
            // What a session can do without, least wanted first.
            if !accepted.accept_env.is_empty() {
                accepted.accept_env.clear();
            } else if accepted.recorders.len() > RECORDERS_KEPT {
                accepted.recorders.truncate(RECORDERS_KEPT);
            } else if !who.tags.is_empty() {
                who.tags.clear();
            } else if message_bytes > SHORT_MESSAGE_BYTES {
                message_bytes = SHORT_MESSAGE_BYTES;
            } else {
                // Only a policy with names of kilobytes: nobody is let in by half of it.
                let body =
                    json!({"version": self.version, "verdict": "reject", "message": TOO_LONG});
                return format!("{body}\n");
            }
        }
    }

    /// What of it a watching client is told about: everything but the version.
    pub(super) fn is_as(&self, other: &Self) -> bool {
        self.ruling == other.ruling && self.who == other.who
    }

    fn accept_json(&self, accepted: &Accepted, who: &Identity, message_bytes: usize) -> Value {
        let mut map = Map::new();
        let mut put = |key: &str, value: Value| drop(map.insert(key.to_owned(), value));
        put("version", json!(self.version));
        put("verdict", json!("accept"));
        put("record", json!(accepted.record));
        put("localUser", json!(accepted.local_user));
        let texts = [
            ("message", &accepted.message),
            ("rejectMessage", &accepted.reject_message),
            ("terminateMessage", &accepted.terminate_message),
        ];
        for (key, text) in texts {
            if !text.is_empty() {
                put(key, json!(cut(text, message_bytes)));
            }
        }
        let recorders = accepted.recorders.iter().map(|recorder| {
            let mut map = json!({"address": recorder.address, "group": recorder.group});
            if let Some(tls) = &recorder.tls {
                map["tls"] = json!(tls);
            }
            map
        });
        put("recorders", recorders.collect());
        put("sessionSeconds", json!(accepted.session_seconds));
        put("notify", json!(accepted.record));
        put("breakGlass", json!(accepted.break_glass));
        put("identity", who.json());
        put("acceptEnv", json!(accepted.accept_env));
        Value::Object(map)
    }
}

/// The beginning of a text that fits.
fn cut(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or_default()
}

/// Of each message: three of them, escaped, leave half a line for the rest.
const MESSAGE_BYTES: usize = 640;
/// Of each where that is too much.
const SHORT_MESSAGE_BYTES: usize = 160;
const TOO_LONG: &str = "what the policy says about you is too long to be told";
/// Recorders of a line that is too long.
const RECORDERS_KEPT: usize = 8;

#[cfg(test)]
mod tests {
    use super::super::engine::RecorderAt;
    use super::super::identity::By;
    use super::*;

    #[test]
    fn a_question_is_checked() {
        let all = br#"{"sshUser":"root","localUser":"r","sourceIP":"::ffff:100.64.0.5","sourcePort":7,
            "node":"n","nodeID":"i","userLogin":"u","kind":"shell","connectionID":"c","watch":true,"new":1}"#;
        let question = Question::parse(all).unwrap();
        assert_eq!(question.source_ip, Some("100.64.0.5".parse().unwrap()));
        assert!(question.watch && question.source_port == 7);
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"sshUser":""}"#,
            r#"{"sshUser":7}"#,
            r#"{"sshUser":"a\nb"}"#,
            r#"{"sshUser":"a","sourceIP":"a"}"#,
            r#"{"sshUser":"a","sourcePort":65536}"#,
            r#"{"sshUser":"a","watch":1}"#,
            &format!(r#"{{"sshUser":"{}"}}"#, "a".repeat(limits::ASK_FIELD_BYTES + 1)),
        ] {
            assert!(Question::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_longest_answer_fits_a_line() {
        let long = "\u{1}ä".repeat(10_000);
        let recorder = RecorderAt {
            address: "[fd7a:115c:a1e0:ffff:ffff:ffff:ffff:ffff]:65535".into(),
            group: u64::from(u16::MAX),
            tls: Some("t".repeat(253)),
        };
        let accepted = Accepted {
            local_user: "l".repeat(limits::ASK_FIELD_BYTES),
            message: long.clone(),
            record: true,
            recorders: vec![recorder; limits::RECORDERS_MAX],
            reject_message: long.clone(),
            terminate_message: long,
            accept_env: vec!["A_*".into(); 5_000],
            ..Accepted::default()
        };
        let who = Identity {
            address: None,
            by: By::Whois,
            name: "n".repeat(254),
            node_id: "i".repeat(64),
            numeric_id: 1,
            tags: vec!["tag:x".into(); 64],
            user: Some(("u".repeat(320), 1)),
        };
        let endless = Accepted { local_user: "l".repeat(10_000), ..accepted.clone() };
        let verdict =
            Verdict { version: 1, ruling: Ruling::Accept(endless.into()), who: who.clone() };
        assert!(verdict.line().contains("\"reject\""), "and not half a name");
        let verdict = Verdict { version: u64::MAX, ruling: Ruling::Accept(accepted.into()), who };
        let line = verdict.line();
        assert!(line.len() <= limits::ASK_LINE_BYTES && line.ends_with('\n'), "{}", line.len());
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["recorders"].as_array().unwrap().len(), RECORDERS_KEPT);
    }
}
