//! Tests of the policy as a whole.

mod broken;
mod decisions;
mod documented;
mod registry;
mod same;

use super::{Decider, PolicyFile, Question, Recorders, Registry, Subject, Verdict};

/// What is told about a policy file, one line each.
fn told(text: &str) -> Vec<String> {
    let (policy, found) = PolicyFile::parse(text.as_bytes());
    let errors = found.iter().any(|d| d.severity == super::Severity::Error);
    assert_eq!(policy.is_none(), errors, "there is a policy exactly when there is no error");
    found.iter().map(ToString::to_string).collect()
}

/// A policy file that must be right, without a warning.
fn policy(text: &str) -> PolicyFile {
    let (policy, found) = PolicyFile::parse(text.as_bytes());
    assert!(found.is_empty(), "{found:?}");
    policy.expect("no error, so a policy")
}

/// A registry that must be right, without a warning.
fn registry(text: &str) -> Registry {
    let (registry, found) = Registry::parse(text.as_bytes()).expect("a registry");
    assert!(found.is_empty(), "{found:?}");
    registry
}

/// The nodes that most tests go by: two laptops of ada, one of ben, of cleo; two servers, a build machine, three recorders.
fn nodes() -> Registry {
    registry(
        r#"{"castkeepNodes": 1, "nodes": [
            {"id": "nAda1", "name": "ada-one.example", "addresses": ["100.64.0.1", "fd7a::1"], "user": "ada@example.com", "userID": 1},
            {"id": "nAda2", "name": "ada-two.example", "addresses": ["100.64.0.2", "fd7a::2"], "user": "ada@example.com", "userID": 1},
            {"id": "nBen", "name": "ben.example", "addresses": ["100.64.0.3", "fd7a::3"], "user": "ben@example.com", "userID": 2},
            {"id": "nCleo", "name": "cleo.example", "addresses": ["100.64.0.4", "fd7a::4"], "user": "cleo@other.example", "userID": 3},
            {"id": "nWeb", "name": "web.example", "addresses": ["100.64.0.11", "fd7a::11"], "tags": ["tag:prod"]},
            {"id": "nDb", "name": "db.example", "addresses": ["100.64.0.12", "fd7a::12"], "tags": ["tag:prod", "tag:data"]},
            {"id": "nCi", "name": "ci.example", "addresses": ["100.64.0.13", "fd7a::13"], "tags": ["tag:ci"]},
            {"id": "nRec2", "name": "rec2.example", "addresses": ["fd7a::21", "100.64.0.22"], "tags": ["tag:rec"]},
            {"id": "nRec1", "name": "rec1.example", "addresses": ["100.64.0.21", "fd7a::22"], "tags": ["tag:rec"], "recorder": {"port": 8443, "tls": "rec1.example"}}
        ], "users": [{"login": "ada@example.com", "roles": ["admin"]}]}"#,
    )
}

/// `tagOwners` for [`nodes`].
const TAGS: &str =
    r#""tagOwners": {"tag:prod": [], "tag:data": [], "tag:ci": [], "tag:rec": [], "tag:none": []}"#;

/// A policy with `ssh` and what else is given.
fn with_rules(rules: &str) -> PolicyFile {
    policy(&format!("{{{TAGS}, \"ssh\": [{rules}]}}"))
}

/// The verdict without recorders that announce themselves.
fn verdict(policy: &PolicyFile, src: &str, dst: &str, user: &str) -> Verdict {
    let nodes = nodes();
    let (decider, _) = Decider::new(policy, &nodes, &Recorders::default());
    let (src, dst) = (nodes.find(src).expect("a source"), nodes.find(dst).expect("a node"));
    decider.decide(&Question { src: Subject::Node(src), dst, user })
}

/// The number of the rule that decided, from 1; 0 when nobody is let in.
fn rule_of(policy: &PolicyFile, src: &str, dst: &str, user: &str) -> usize {
    match verdict(policy, src, dst, user) {
        Verdict::Accept(grant) => grant.rule + 1,
        Verdict::Reject(_) => 0,
    }
}
