//! What a node is told, made from the policy modules. The only place here that calls them.

use std::collections::HashSet;
use std::fmt::Display;
use std::sync::Arc;

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::announced::Announced;
use super::auth::hex;
use super::config::ControlConfig;
use crate::cast::text::escape_control;
use crate::policy::notify::{EventType, NotifyRequest};
use crate::policy::ssh::SshPolicy;
use crate::policy::{
    CompileOptions, Diagnostic, LiveRecorder, Node, PolicyFile, Recorders, Registry, compile,
};

/// Policy and registry, read.
#[derive(Debug)]
pub(super) struct Inputs {
    policy: PolicyFile,
    nodes: Registry,
    /// The whole registry, as it is told to nodes where anybody may come in.
    all: Part,
}

/// A piece of an answer, which many answers may share.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) text: Arc<str>,
    digest: [u8; 32],
}

/// A node's answer.
#[derive(Clone, Debug)]
pub(super) struct View {
    /// What stands before the registry.
    pub(super) head: String,
    /// The nodes that may come in there.
    pub(super) nodes: Part,
    shares_nodes: bool,
    /// Quoted. Does not depend on the version.
    pub(super) etag: String,
}

impl Inputs {
    /// Reads both texts; the names stand in the messages. Errors, or what was read with its warnings.
    pub(super) fn parse(
        policy: &[u8],
        nodes: &[u8],
        policy_name: &dyn Display,
        nodes_name: &dyn Display,
    ) -> Result<(Self, Vec<String>), Vec<String>> {
        let told = |name: &dyn Display, found: Vec<Diagnostic>| -> Vec<String> {
            found.iter().map(|d| format!("{name}:{d}")).collect()
        };
        let (file, found) = PolicyFile::parse(policy);
        let mut said = told(policy_name, found);
        let registry = match Registry::parse(nodes) {
            Ok((registry, found)) => {
                said.extend(told(nodes_name, found));
                Some(registry)
            }
            Err(found) => {
                said.extend(told(nodes_name, found));
                None
            }
        };
        let (Some(policy), Some(nodes)) = (file, registry) else { return Err(said) };
        let all = Part::new(nodes.to_json_where(|_| true));
        Ok((Self { policy, nodes, all }, said))
    }

    /// How many nodes there are.
    pub(super) fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// The node with this id or name.
    pub(super) fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.by_id(name).or_else(|| self.nodes.by_name(name))
    }

    /// The node that a certificate names: by its id or its whole name, nothing shorter.
    pub(super) fn named(&self, name: &str) -> Option<&Node> {
        let whole = |node: &&Node| node.name.eq_ignore_ascii_case(name);
        self.nodes.by_id(name).or_else(|| self.nodes.by_name(name).filter(whole))
    }

    /// What this node is told.
    pub(super) fn view(
        &self,
        version: u64,
        announced: &Announced,
        node: &Node,
        config: &ControlConfig,
    ) -> View {
        let live = announced.iter().map(|(holder, said)| LiveRecorder {
            node: holder.to_owned(),
            tags: said.tags.clone(),
            addresses: said.addresses.clone(),
            tls: said.tls.clone(),
        });
        let silent = announced.silent().map(str::to_owned);
        let recorders = Recorders::new(live.collect()).with_silent(silent);
        let mut options = CompileOptions::for_agents();
        options.notify_url = Some(config.notify_url.clone());
        if let Some(message) = &config.reject_message {
            options.reject_message.clone_from(message);
        }
        if let Some(message) = &config.terminate_message {
            options.terminate_message.clone_from(message);
        }
        // What is odd was told when the files were read, as far as it stands in them.
        let (policy, infos, _) = compile(&self.policy, &self.nodes, &recorders, node, &options);
        let infos: Map<String, Value> = infos
            .into_iter()
            .map(|(address, info)| {
                let mut fields = Map::new();
                fields.insert("group".into(), info.group.into());
                if let Some(name) = info.tls {
                    fields.insert("tls".into(), name.into());
                }
                (address, Value::Object(fields))
            })
            .collect();
        let sources = self.sources(&policy);
        let shares_nodes = sources.is_none();
        let nodes = sources.unwrap_or_else(|| self.all.clone());
        let infos = Value::Object(infos).to_string();
        View::new(version, &node.id, &policy.to_json(), &infos, (nodes, shares_nodes))
    }

    /// The nodes that may come in as some rule says. None: that is all of them. A node is told of no others: who else there is
    /// is not its business.
    fn sources(&self, policy: &SshPolicy) -> Option<Part> {
        let (mut ids, mut addresses, mut logins) = (HashSet::new(), HashSet::new(), HashSet::new());
        let principals = policy.rules.iter().flatten().flat_map(|rule| &rule.principals).flatten();
        for principal in principals {
            if principal.any {
                return None;
            }
            ids.insert(principal.node.as_str());
            addresses.extend(principal.node_ip.parse::<std::net::IpAddr>());
            logins.insert(principal.user_login.as_str());
        }
        let comes = |node: &Node| {
            ids.contains(node.id.as_str())
                || node.login().is_some_and(|login| logins.contains(login))
                || node.addresses.iter().any(|a| addresses.contains(a))
        };
        if self.nodes.iter().all(comes) {
            return None;
        }
        Some(Part::new(self.nodes.to_json_where(comes)))
    }
}

impl Part {
    fn new(text: String) -> Self {
        let digest = Sha256::digest(text.as_bytes()).into();
        Self { text: text.into(), digest }
    }
}

impl View {
    /// Bytes that no other answer shares.
    pub(super) fn own_bytes(&self) -> usize {
        self.head.len() + if self.shares_nodes { 0 } else { self.nodes.text.len() }
    }

    fn new(
        version: u64,
        node: &str,
        policy: &str,
        recorders: &str,
        (nodes, shares_nodes): (Part, bool),
    ) -> Self {
        let mut hash = Sha256::new();
        for part in [node, policy, recorders] {
            hash.update(part.len().to_le_bytes());
            hash.update(part.as_bytes());
        }
        hash.update(nodes.digest);
        let etag = format!("\"{}\"", hex(hash.finalize().get(..16).unwrap_or_default()));
        let node = Value::from(node);
        let head = format!(
            "{{\"castkeepPolicy\":1,\"version\":{version},\"node\":{node},\"policy\":{policy},\
             \"recorders\":{recorders},\"nodes\":"
        );
        Self { head, nodes, shares_nodes, etag }
    }
}

/// An event that a node tells.
#[derive(Debug)]
pub(super) struct Event {
    /// All of it, as it was told.
    pub(super) value: Value,
    /// In words.
    pub(super) sentence: String,
    /// A session goes on that nobody records.
    pub(super) unrecorded: bool,
}

impl Event {
    /// Reads one; the node is the one that tells it.
    ///
    /// # Errors
    ///
    /// What is wrong, for the answer.
    pub(super) fn parse(node: &str, body: &[u8]) -> Result<Self, String> {
        let notice = NotifyRequest::parse(body).map_err(|e| e.to_string())?;
        let value: Value = serde_json::from_slice(body).map_err(|e| e.to_string())?;
        let what = match notice.event_type {
            EventType::RecordingRejected => "a session was rejected, it could not be recorded",
            EventType::RecordingTerminated => "a session was terminated, its recording failed",
            EventType::RecordingFailed if notice.break_glass => {
                "BREAK-GLASS: a session goes on UNRECORDED"
            }
            EventType::RecordingFailed => "a session goes on UNRECORDED",
            EventType::Unspecified | EventType::Other(_) => {
                return Err("`EventType` must be 1, 2 or 3".into());
            }
        };
        let unrecorded = notice.event_type == EventType::RecordingFailed;
        let source = [&notice.source_user, &notice.source_id].into_iter().find(|s| !s.is_empty());
        let source = source.map_or_else(|| format!("node {}", notice.src_node), |s| plain(s, ""));
        let said = |text: &str| plain(text, "@");
        let mut sentence = format!(
            "castkeep: {what}: {} as {} on {}, from {source}, connection {}",
            said(&notice.ssh_user),
            said(&notice.local_user),
            plain(node, ""),
            said(&notice.connection_id)
        );
        for (recorder, message) in notice.attempts.iter().filter(|(_, message)| !message.is_empty())
        {
            sentence.push_str(&format!("; {}: {}", said(recorder), said(message)));
        }
        if let Some((end, _)) = sentence.char_indices().nth(SENTENCE_CHARS) {
            sentence.truncate(end);
        }
        Ok(Self { value, sentence, unrecorded })
    }
}

/// Without what chat systems take for markup or a call to everybody: a user name is what somebody typed at a login.
fn plain(text: &str, more: &str) -> String {
    let marked = |c: char| matches!(c, '<' | '>' | '&' | '`' | '*' | '[') || more.contains(c);
    let text: String = text.chars().map(|c| if marked(c) { '?' } else { c }).collect();
    escape_control(&text).to_string()
}

/// The rest stands in the event itself.
const SENTENCE_CHARS: usize = 2_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_is_no_markup_and_has_an_end() {
        let body = serde_json::json!({
            "EventType": 3, "ConnectionID": "c`1`", "SSHUser": "<!channel> @all\u{1b}[2J",
            "LocalUser": "*r*", "castkeepUser": "alice@example.com",
            "RecordingAttempts": [{"Recorder": "a", "FailureMessage": "x".repeat(100_000)}],
        });
        let event = Event::parse("nB", body.to_string().as_bytes()).unwrap();
        let text = &event.sentence;
        assert!(event.unrecorded && text.contains("from alice@example.com"), "{text:.300}");
        assert!(
            !text.contains(['<', '>', '`', '*', '\u{1b}']) && !text.contains("@all"),
            "{text:.300}"
        );
        assert!(text.len() < 3 * SENTENCE_CHARS);
        assert_eq!(event.value, body, "the event itself is as it was told");
    }
}
