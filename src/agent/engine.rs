//! The policy that is in force: the only place that calls [`crate::policy`].
//!
//! Whatever the source, a policy comes as one document, the answer of control: compiled rules for this node, how its
//! recorders are reached, and the nodes that may be sources.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::sys;
use crate::limits;
use crate::policy::notify::{EventType, NotifyRequest};
use crate::policy::ssh::{
    Connection, Evaluation, Evaluator, LocalUser, SshAction, SshPolicy, SshRule,
};
use crate::policy::{
    CompileOptions, Diagnostic, Node, PolicyFile, RecorderInfo, Recorders, Registry, Severity,
    compile,
};

/// A policy for one node, ready to answer.
#[derive(Debug)]
pub(super) struct Policy {
    /// Of the document; it never goes back.
    pub(super) version: u64,
    /// The stable id of the node that it is for.
    pub(super) node: String,
    evaluator: Evaluator,
    /// Of each rule, whether what it accepts is break-glass.
    break_glass: Vec<bool>,
    recorders: BTreeMap<String, Reached>,
    nodes: Option<Registry>,
}

#[derive(Clone, Debug)]
struct Reached {
    group: u64,
    tls: Option<String>,
}

/// Who is at the other end, as rules see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer<'a> {
    pub(super) address: IpAddr,
    pub(super) node_id: &'a str,
    pub(super) login: &'a str,
}

/// What the rules say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ruling {
    /// The session may run.
    Accept(Box<Accepted>),
    /// It may not; the message is for the user.
    Reject(String),
}

/// How an accepted session runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Accepted {
    pub(super) local_user: String,
    pub(super) message: String,
    pub(super) record: bool,
    pub(super) recorders: Vec<RecorderAt>,
    pub(super) reject_message: String,
    pub(super) terminate_message: String,
    pub(super) session_seconds: u64,
    pub(super) break_glass: bool,
    pub(super) accept_env: Vec<String>,
}

/// A recorder, as the client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RecorderAt {
    pub(super) address: String,
    pub(super) group: u64,
    pub(super) tls: Option<String>,
}

impl Policy {
    /// Reads a document.
    pub(super) fn read(document: &Map<String, Value>) -> Result<Self, String> {
        if document.get("castkeepPolicy").and_then(Value::as_u64) != Some(1) {
            return Err("it is no policy for an agent, or one of a newer form".into());
        }
        let version = document.get("version").and_then(Value::as_u64).ok_or("no version in it")?;
        let node = document.get("node").and_then(Value::as_str).filter(|node| !node.is_empty());
        let node = node.ok_or("no node in it")?.to_owned();
        let rules = document.get("policy").and_then(Value::as_object).ok_or("no rules in it")?;
        let rules = SshPolicy::from_map(rules, "policy")
            .map_err(|e| format!("its rules cannot be read: {e}"))?;
        let nodes = match document.get("nodes") {
            None | Some(Value::Null) => None,
            Some(nodes) => Some(read_nodes(nodes.to_string().as_bytes())?),
        };
        let mut recorders = BTreeMap::new();
        if let Some(list) = document.get("recorders").and_then(Value::as_object) {
            for (address, about) in list {
                let group = about.get("group").and_then(Value::as_u64).unwrap_or(0);
                let tls = about.get("tls").and_then(Value::as_str).map(str::to_owned);
                recorders.insert(address.clone(), Reached { group, tls });
            }
        }
        let break_glass = rules.rules.iter().map(|rule| rule.as_ref().is_some_and(is_break_glass));
        let break_glass = break_glass.collect();
        Ok(Self { version, node, evaluator: Evaluator::new(rules), break_glass, recorders, nodes })
    }

    /// The node of an address, when the registry knows it.
    pub(super) fn node_at(&self, address: IpAddr) -> Option<&Node> {
        self.nodes.as_ref()?.by_address(address)
    }

    /// This node's own entry, when the registry has one.
    pub(super) fn own_node(&self) -> Option<&Node> {
        self.nodes.as_ref()?.by_id(&self.node)
    }

    /// Decides.
    pub(super) fn rule(&self, peer: Peer<'_>, ssh_user: &str, now_unix: i64) -> Ruling {
        let local = |name: &str| match sys::uid_of(name) {
            None => LocalUser::Missing,
            Some(0) => LocalUser::Root,
            Some(_) => LocalUser::Other,
        };
        let connection = Connection {
            now_unix,
            src_ip: peer.address,
            src_node_id: peer.node_id,
            src_login: peer.login,
            ssh_user,
            local_user: &local,
        };
        match self.evaluator.evaluate(&connection) {
            Evaluation::Accept { rule, action, local_user, accept_env } => {
                let break_glass = self.break_glass.get(rule).copied().unwrap_or(false);
                let accepted = self.accepted(action, local_user, accept_env, break_glass);
                Ruling::Accept(Box::new(accepted))
            }
            Evaluation::Hold { .. } => Ruling::Reject(
                "the policy asks for a check in a browser, which only Tailscale's SSH server can make"
                    .into(),
            ),
            Evaluation::Reject { message, .. } => Ruling::Reject(plain(message.trim_end())),
        }
    }

    fn accepted(
        &self,
        action: &SshAction,
        local_user: String,
        accept_env: &[String],
        break_glass: bool,
    ) -> Accepted {
        let (reject_message, terminate_message) = on_failure(action);
        let mut next = self.recorders.values().map(|r| r.group + 1).max().unwrap_or(0);
        let recorders = action.recorders.iter().take(limits::RECORDERS_MAX).map(|address| {
            let address = address.to_string();
            let known = self.recorders.get(&address);
            let group = known.map_or(next, |r| r.group);
            next = next.saturating_add(u64::from(known.is_none()));
            RecorderAt { address, group, tls: known.and_then(|r| r.tls.clone()) }
        });
        // Not unlimited because it is less than a second.
        let session =
            u64::try_from(action.session_duration_ns).unwrap_or(0).div_ceil(1_000_000_000);
        Accepted {
            local_user,
            message: action.message.trim_end().to_owned(),
            record: is_recorded(action),
            recorders: recorders.collect(),
            reject_message: reject_message.trim_end().to_owned(),
            terminate_message: terminate_message.trim_end().to_owned(),
            session_seconds: session,
            break_glass,
            accept_env: accept_env.to_vec(),
        }
    }
}

/// Lets named users in and goes on without recording when recording fails.
fn is_break_glass(rule: &SshRule) -> bool {
    let Some(action) = &rule.action else { return false };
    let mut principals = rule.principals.iter().flatten().peekable();
    is_recorded(action)
        && on_failure(action) == ("", "")
        && principals.peek().is_some()
        && principals.all(|p| {
            !p.user_login.is_empty() && !p.any && p.node.is_empty() && p.node_ip.is_empty()
        })
}

/// A rule that wants a recorder says so in what happens without one, also when there is none.
fn is_recorded(action: &SshAction) -> bool {
    action.accept && (!action.recorders.is_empty() || action.on_recording_failure.is_some())
}

/// What is said when recording cannot start, and when it fails later; empty: the session goes on.
fn on_failure(action: &SshAction) -> (&str, &str) {
    action.on_recording_failure.as_ref().map_or(("", ""), |f| {
        (f.reject_session_with_message.as_str(), f.terminate_session_with_message.as_str())
    })
}

/// Makes the document of a policy file and a registry; its version is the keeper's.
pub(super) fn compile_files(
    policy: &[u8],
    nodes: &[u8],
    node: &str,
) -> Result<Map<String, Value>, String> {
    let (parsed, diagnostics) = PolicyFile::parse(policy);
    let parsed = parsed.ok_or_else(|| format!("policy file: {}", first_error(&diagnostics)))?;
    let nodes = read_nodes(nodes)?;
    let own = nodes.find(node).ok_or_else(|| format!("the registry has no node `{node}`"))?;
    let options = CompileOptions::for_agents();
    let (rules, reached, _) = compile(&parsed, &nodes, &Recorders::default(), own, &options);
    Ok(document(&own.id, &rules, &reached_json(&reached), Some(&nodes)))
}

/// Makes the document of rules that were compiled elsewhere.
pub(super) fn compiled_file(
    rules: &[u8],
    nodes: Option<&[u8]>,
    node: &str,
) -> Result<Map<String, Value>, String> {
    let rules = SshPolicy::parse(rules).map_err(|e| format!("compiled policy: {e}"))?;
    let nodes = nodes.map(read_nodes).transpose()?;
    let mut reached = Map::new();
    for (group, node) in nodes.iter().flat_map(Registry::iter).enumerate() {
        let Some(recorder) = &node.recorder else { continue };
        for address in &node.addresses {
            let at = std::net::SocketAddr::new(*address, recorder.port).to_string();
            let mut about = json!({"group": group});
            if let Some(tls) = &recorder.tls {
                about["tls"] = json!(tls);
            }
            reached.insert(at, about);
        }
    }
    Ok(document(node, &rules, &reached, nodes.as_ref()))
}

fn document(
    node: &str,
    rules: &SshPolicy,
    recorders: &Map<String, Value>,
    nodes: Option<&Registry>,
) -> Map<String, Value> {
    let mut document = Map::new();
    document.insert("castkeepPolicy".into(), json!(1));
    document.insert("node".into(), json!(node));
    document.insert("policy".into(), rules.to_value());
    document.insert("recorders".into(), Value::Object(recorders.clone()));
    if let Some(nodes) = nodes {
        let nodes = serde_json::from_str(&nodes.to_json()).unwrap_or(Value::Null);
        document.insert("nodes".into(), nodes);
    }
    document
}

fn reached_json(reached: &BTreeMap<String, RecorderInfo>) -> Map<String, Value> {
    let about = reached.iter().map(|(address, info)| {
        let mut about = json!({"group": info.group});
        if let Some(tls) = &info.tls {
            about["tls"] = json!(tls);
        }
        (address.clone(), about)
    });
    about.collect()
}

fn read_nodes(text: &[u8]) -> Result<Registry, String> {
    match Registry::parse(text) {
        Ok((nodes, _)) => Ok(nodes),
        Err(diagnostics) => Err(format!("node registry: {}", first_error(&diagnostics))),
    }
}

/// The first error, and how many more there are.
fn first_error(diagnostics: &[Diagnostic]) -> String {
    let mut errors = diagnostics.iter().filter(|d| d.severity == Severity::Error);
    let mut text = errors.next().map_or_else(|| "it cannot be read".into(), ToString::to_string);
    match errors.count() {
        0 => {}
        more => {
            let _ = write!(text, " (and {more} more; `castkeep policy check` shows them)");
        }
    }
    text
}

/// Whom a notification is about, as far as the agent knows.
#[derive(Clone, Debug, Default)]
pub(super) struct About {
    /// `nodekey:…` of this node; may be empty.
    pub(super) own_key: String,
    /// What was decided about the connection; None: it is not known any more, and the notification may say itself.
    pub(super) decided: Option<Decided>,
    /// Whether what it says itself is to be believed.
    pub(super) is_trusted: bool,
}

/// What was decided about a connection.
#[derive(Clone, Debug)]
pub(super) struct Decided {
    pub(super) numeric_id: i64,
    pub(super) node_id: String,
    pub(super) login: String,
    pub(super) break_glass: bool,
}

/// A notification as it is passed on: in Tailscale's form, filled in, and what castkeep adds.
pub(super) fn complete_notification(
    body: &[u8],
    about: &About,
    policy: Option<&Policy>,
) -> Result<NotifyRequest, String> {
    let mut request = NotifyRequest::parse(body).map_err(|e| e.to_string())?;
    match request.event_type {
        EventType::RecordingRejected
        | EventType::RecordingTerminated
        | EventType::RecordingFailed => {}
        _ => return Err("its EventType is none of 1, 2 and 3".into()),
    }
    request.node_key = about.own_key.clone();
    if request.node_key.is_empty() {
        request.node_key = format!("nodekey:{:064}", 0);
    }
    if request.cap_version == 0 {
        request.cap_version = CAP_VERSION;
    }
    match &about.decided {
        Some(decided) => {
            request.src_node = decided.numeric_id;
            request.source_id.clone_from(&decided.node_id);
            request.source_user.clone_from(&decided.login);
            request.break_glass |= decided.break_glass;
        }
        None if about.is_trusted => {
            let node = policy.and_then(|p| p.nodes.as_ref()?.by_id(&request.source_id));
            request.src_node = node.map_or(request.src_node, |node| node.numeric_id);
        }
        None => {
            request.src_node = 0;
            request.source_id.clear();
            request.source_user.clear();
        }
    }
    Ok(request)
}

/// The capability version that these notifications came with; whoever asks the agent may name its own.
const CAP_VERSION: i64 = 62;

/// Upstream's words name a product that need not be there.
fn plain(message: &str) -> String {
    let own = message.strip_prefix("tailscale: ").unwrap_or(message);
    match own.strip_prefix("tailnet policy") {
        Some(rest) => format!("the policy{rest}"),
        None => own.to_owned(),
    }
}
