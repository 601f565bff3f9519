//! The policy of a large company: how long it takes to load, to decide, and to compile for a node.
#![allow(missing_docs, clippy::disallowed_methods, clippy::disallowed_types)]

mod common;

use std::fmt::Write;
use std::time::Instant;

use castkeep::policy::{
    CompileOptions, Decider, PolicyFile, Question, Recorders, Registry, Subject, Verdict, compile,
};
use common::{Args, Goal, Report, median};

const LOGINS: usize = 4000;
const TAGS: usize = 200;
const GROUPS: usize = 100;

fn main() {
    let args = Args::parse();
    let (rules, nodes) = (args.size(1000, 50), args.size(10_000, 200));
    let rounds = args.size(15, 1);
    let policy_text = policy_text(rules);
    let nodes_text = nodes_text(nodes);
    let mut report = Report::new(&args);
    let of = format!(
        "{rules} rules of {} kB, {nodes} nodes of {} kB; the middle of {rounds}",
        policy_text.len() / 1000,
        nodes_text.len() / 1000
    );

    let mut all = Vec::new();
    let mut loaded = None;
    for _ in 0..rounds {
        let start = Instant::now();
        let (policy, found) = PolicyFile::parse(policy_text.as_bytes());
        let policy = policy.unwrap_or_else(|| panic!("{found:?}"));
        let (nodes, _) = Registry::parse(nodes_text.as_bytes()).expect("a registry");
        let (decider, _) = Decider::new(&policy, &nodes, &Recorders::default());
        all.push(start.elapsed().as_secs_f64() * 1e3);
        loaded = Some((policy, nodes, decider));
    }
    let (policy, nodes, decider) = loaded.expect("at least one round");
    report.result(
        "load of a policy and a registry",
        median(&mut all),
        " ms",
        Goal::AtMost(200.0),
        &of,
    );

    let list: Vec<_> = nodes.iter().collect();
    let mut each = Vec::new();
    let mut let_in = 0;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 16) as usize % n
    };
    for _ in 0..args.size(20_000, 200) {
        let (src, dst) = (list[next(list.len())], list[next(list.len())]);
        let user = ["root", "deploy", "somebody"][next(3)];
        let start = Instant::now();
        let verdict = decider.decide(&Question { src: Subject::Node(src), dst, user });
        each.push(start.elapsed().as_secs_f64() * 1e3);
        let_in += usize::from(matches!(verdict, Verdict::Accept(_)));
    }
    let how = format!("{} questions, {let_in} let in; {of}", each.len());
    report.result("decision, the middle one", median(&mut each), " ms", Goal::AtMost(1.0), &how);
    // `median` has sorted them.
    let slow = each[each.len() * 999 / 1000];
    report.result("decision, the slowest of a thousand", slow, " ms", Goal::AtMost(1.0), &how);

    let mut all = Vec::new();
    let mut most = 0;
    for dst in list.iter().rev().take(args.size(50, 2)) {
        let start = Instant::now();
        let (compiled, _, _) =
            compile(&policy, &nodes, &Recorders::default(), dst, &CompileOptions::for_agents());
        all.push(start.elapsed().as_secs_f64() * 1e3);
        most = most.max(compiled.rules.len());
    }
    let how = format!("a node with a tag, at most {most} rules; {of}");
    report.result(
        "the policy compiled for one node",
        median(&mut all),
        " ms",
        Goal::AtMost(50.0),
        &how,
    );

    let line = "    {\"action\": \"accept\", \"src\": [\"*\"], \"dst\": [\"tag:t1:443\"]}, // a rule of the network\n";
    let size = args.size(10 << 20, 1 << 20);
    let large = format!("{{\"acls\": [\n{}]}}\n", line.repeat(size / line.len()));
    let start = Instant::now();
    assert!(PolicyFile::parse(large.as_bytes()).0.is_some());
    let took = start.elapsed().as_secs_f64() * 1e3;
    let how = format!("{} MiB, all of it aside", size >> 20);
    report.result("a very large policy file", took, " ms", Goal::AtMost(1000.0), &how);
    report.finish();
}

fn policy_text(rules: usize) -> String {
    let mut text = String::from("{\n  \"groups\": {\n");
    for group in 0..GROUPS {
        let members: Vec<_> = (0..60)
            .map(|i| format!("\"user{}@example.com\"", (group * 37 + i * 61) % LOGINS))
            .collect();
        let _ = writeln!(text, "    \"group:g{group}\": [{}],", members.join(", "));
    }
    text += "  },\n  \"tagOwners\": {\n";
    for tag in 0..TAGS {
        let _ = writeln!(text, "    \"tag:t{tag}\": [\"group:g{}\"],", tag % GROUPS);
    }
    text += "  },\n  \"ssh\": [\n";
    for rule in 0..rules {
        let src = match rule % 5 {
            0 => format!("\"group:g{}\", \"group:g{}\"", rule % GROUPS, (rule + 7) % GROUPS),
            1 => format!("\"user{}@example.com\"", rule * 13 % LOGINS),
            2 => format!("\"tag:t{}\"", rule % TAGS),
            3 => "\"user:*@example.com\"".to_owned(),
            _ => format!("\"group:g{}\"", rule % GROUPS),
        };
        let users =
            ["\"root\"", "\"deploy\", \"autogroup:nonroot\"", "\"localpart:*@example.com\""];
        let _ = writeln!(
            text,
            "    {{\"action\": \"accept\", \"src\": [{src}], \"dst\": [\"tag:t{}\", \"tag:t{}\"], \"users\": [{}], \
             \"recorder\": [\"tag:t{}\"], \"enforceRecorder\": {}}}, // rule {rule}",
            rule % TAGS,
            (rule * 3 + 1) % TAGS,
            users[rule % 3],
            rule % 10,
            rule % 2 == 0
        );
    }
    text + "  ],\n}\n"
}

fn nodes_text(nodes: usize) -> String {
    let mut text = String::from("{\"castkeepNodes\": 1, \"nodes\": [\n");
    for node in 0..nodes {
        let (a, b, c) = (node >> 16, node >> 8 & 255, node & 255);
        let whose = if node % 2 == 0 {
            let user = node / 2 % LOGINS;
            format!("\"user\": \"user{user}@example.com\", \"userID\": {}", user + 1)
        } else {
            format!("\"tags\": [\"tag:t{}\", \"tag:t{}\"]", node % TAGS, (node % TAGS + 1) % TAGS)
        };
        let _ = writeln!(
            text,
            "  {{\"id\": \"n{node}\", \"name\": \"node{node}.example.ts.net\", \
             \"addresses\": [\"100.{}.{b}.{c}\", \"fd7a:115c:a1e0::{a:x}:{b:x}{c:02x}\"], {whose}}},",
            64 + a
        );
    }
    text + "]}\n"
}
