//! Invariants of the policy, for the fuzzer.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use super::explain::{Answer, explain};
use super::matching::first_match;
use super::ssh::{Connection, Evaluation, Evaluator, LocalUser, SshPolicy};
use super::{
    CompileOptions, Decider, Diagnostic, PolicyFile, Question, Recorders, Registry, Severity,
    Subject, Verdict, compile, ssh_tests,
};

/// Any bytes as a policy file, and behind a NUL as a registry: what is wrong is told and has a place; what is right decides the same by
/// its index, rule by rule, and by its explanation.
pub fn fuzz_policy_file(data: &[u8]) {
    let cut = data.iter().position(|b| *b == 0).unwrap_or(data.len());
    let (text, rest) = data.split_at(cut);
    let nodes = rest.get(1..).unwrap_or(NODES);
    let (policy, found) = PolicyFile::parse(text);
    check(text, &found);
    assert_eq!(policy.is_none(), found.iter().any(|d| d.severity == Severity::Error));
    let nodes = match Registry::parse(nodes) {
        Ok((registry, found)) => {
            check(nodes, &found);
            let (again, _) = Registry::parse(registry.to_json().as_bytes()).expect("ours");
            assert!(again.iter().eq(registry.iter()), "what is written is read again");
            registry
        }
        Err(found) => {
            check(nodes, &found);
            assert!(found.iter().any(|d| d.severity == Severity::Error));
            Registry::default()
        }
    };
    if let Some(policy) = policy {
        decide(&policy, &nodes);
        if policy.tests().len() < 4 {
            assert_eq!(ssh_tests::run(&policy, &nodes).len(), policy.tests().len());
        }
    }
}

/// Errors stand in the text, and are lines of their own.
fn check(text: &[u8], found: &[Diagnostic]) {
    let lines = 1 + text.iter().filter(|b| **b == b'\n').count();
    for d in found {
        assert!(d.at.line as usize <= lines && d.at.column as usize <= text.len() + 1, "{d}");
        assert!(d.at.is_some() || d.message.contains("more that are not shown"), "{d}");
        assert!(!d.to_string().contains('\n'), "{d}");
    }
    assert!(found.windows(2).all(|two| two[0].at <= two[1].at || !two[1].at.is_some()));
}

fn decide(policy: &PolicyFile, nodes: &Registry) {
    let recorders = Recorders::default();
    let (decider, _) = Decider::new(policy, nodes, &recorders);
    let accounts = |name: &str| if name == "root" { LocalUser::Root } else { LocalUser::Other };
    let users: Vec<&str> = ["root", "ada"]
        .into_iter()
        .chain(policy.tests().iter().flat_map(|t| &t.accept).map(String::as_str).take(2))
        .collect();
    for dst in nodes.iter().take(4) {
        let (compiled, infos, _) =
            compile(policy, nodes, &recorders, dst, &CompileOptions::for_agents());
        for rule in compiled.rules.iter().flatten() {
            let action = rule.action.as_ref().expect("a rule of ours does something");
            assert!(
                action.recorders.iter().all(|address| infos.contains_key(&address.to_string()))
            );
            assert!(!rule.principals.is_empty() && !rule.ssh_users.is_empty());
        }
        for src in nodes.iter().take(4) {
            for user in &users {
                let question = Question { src: Subject::Node(src), dst, user };
                let rule = match decider.decide_among(&question, &accounts) {
                    Verdict::Accept(grant) => Some(grant.rule),
                    Verdict::Reject(_) => None,
                };
                let user = user.strip_suffix("+password").unwrap_or(user);
                assert_eq!(rule, first_match(policy, nodes, src, dst, user, &accounts));
                let said = explain(policy, nodes, src, dst, user, &accounts);
                let decides =
                    |r: &&super::explain::RuleReport| matches!(r.answer, Answer::Decides(..));
                assert_eq!(rule, said.iter().find(decides).map(|r| r.rule));
            }
        }
    }
}

const NODES: &[u8] = br#"{"castkeepNodes": 1, "nodes": [
    {"id": "a", "name": "a", "addresses": ["100.64.0.1"], "user": "ada@example.com"},
    {"id": "b", "name": "b", "addresses": ["100.64.0.2"], "user": "ben@example.com"},
    {"id": "p", "name": "p", "addresses": ["100.64.0.3", "fd7a::3"], "tags": ["tag:prod"]},
    {"id": "c", "name": "c", "addresses": ["100.64.0.4"], "tags": ["tag:ci", "tag:rec"]}]}"#;

/// Any bytes as a compiled policy: what is written is read again, and the index decides as going through all rules does.
pub fn fuzz_ssh_policy(data: &[u8]) {
    let Ok(policy) = SshPolicy::parse(data) else { return };
    let again = SshPolicy::parse(policy.to_json().as_bytes()).expect("ours");
    assert_eq!(again, policy, "what is written is read again");
    let accounts = |name: &str| if name == "root" { LocalUser::Root } else { LocalUser::Other };
    let whole = Evaluator::new(policy.clone());
    for (src_ip, src_node_id, src_login) in
        [("100.64.0.1", "a", "ada@example.com"), ("fd7a::3", "p", ""), ("100.64.0.9", "", "")]
    {
        for ssh_user in ["root", "ada", "ada+password", "*", ""] {
            let src_ip = src_ip.parse().expect("an address");
            let local_user = &accounts;
            let now_unix = 1_800_000_000;
            let c = Connection { now_unix, src_ip, src_node_id, src_login, ssh_user, local_user };
            // The first rule that, by itself, says anything.
            let alone = policy.rules.iter().position(|rule| {
                let one = Evaluator::new(SshPolicy { rules: vec![rule.clone()] });
                !matches!(one.evaluate(&c), Evaluation::Reject { rule: None, .. })
            });
            let decided = match whole.evaluate(&c) {
                Evaluation::Accept { rule, .. } | Evaluation::Hold { rule, .. } => Some(rule),
                Evaluation::Reject { rule, .. } => rule,
            };
            assert_eq!(decided, alone, "the first rule that matches decides");
        }
    }
}
