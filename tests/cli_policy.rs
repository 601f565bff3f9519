//! `castkeep policy`: check, explain, compile, test.
#![allow(missing_docs, clippy::disallowed_methods, clippy::disallowed_types)]

mod cli_support;

use cli_support::{Temp, run, text};
use serde_json::Value;

const POLICY: &str = r#"{
    // Who may do what.
    "groups": { "group:sre": ["alice@example.com"] },
    "tagOwners": { "tag:prod": ["group:sre"], "tag:rec": ["group:sre"] },
    "acls": [{ "action": "accept", "src": ["*"], "dst": ["*:*"] }],
    "ssh": [
        // Break-glass: recorded, but never locked out.
        { "action": "accept", "src": ["group:sre"], "dst": ["tag:prod"], "users": ["root"], "recorder": ["tag:rec"], "enforceRecorder": false },
        { "action": "accept", "src": ["autogroup:member"], "dst": ["tag:prod"], "users": ["autogroup:nonroot"], "recorder": ["tag:rec"], "enforceRecorder": true },
    ],
    "sshTests": [
        { "src": "bob@example.com", "dst": ["tag:prod"], "accept": ["deploy"], "deny": ["root"] },
        { "src": "alice@example.com", "dst": ["tag:prod"], "accept": ["root"] },
    ],
}
"#;

const NODES: &str = r#"{"castkeepNodes":1,"nodes":[
 {"id":"nA","name":"laptop.example","addresses":["100.64.0.5","fd7a::5"],"user":"alice@example.com","userID":1},
 {"id":"nE","name":"desk.example","addresses":["100.64.0.6"],"user":"bob@example.com","userID":2},
 {"id":"nB","name":"web1.example","addresses":["100.64.0.7"],"tags":["tag:prod"]},
 {"id":"nC","name":"rec1.example","addresses":["100.64.0.9","fd7a::9"],"tags":["tag:rec"]},
 {"id":"nD","name":"rec2.example","addresses":["100.64.0.8"],"tags":["tag:rec"],"recorder":{"port":8080}}]}"#;

struct Files {
    _scratch: Temp,
    policy: String,
    nodes: String,
}

fn files(name: &str, policy: &str) -> Files {
    let scratch = Temp::new(name);
    let policy = text(&scratch.file("policy.hujson", policy)).to_owned();
    let nodes = text(&scratch.file("nodes.json", NODES)).to_owned();
    Files { _scratch: scratch, policy, nodes }
}

#[test]
fn what_is_wrong_is_told_as_a_compiler_tells_it() {
    let f = files("policy-good", POLICY);
    let (status, out, err) = run(&["policy", "check", &f.policy, "--nodes", &f.nodes]);
    assert_eq!((status, &*err), (0, ""));
    assert_eq!(out, format!("{}: 2 rules, 2 tests: 0 errors, 0 warnings\n", f.policy));

    let wrong = POLICY.replace("enforceRecorder\": true", "enforceRecoder\": true");
    let f = files("policy-wrong", &wrong);
    let (status, _, err) = run(&["policy", "check", "-q", &f.policy]);
    assert_eq!(status, 1);
    let line = err.lines().next().unwrap();
    let column = wrong.lines().nth(8).unwrap().find("\"enforceRecoder\"").unwrap() + 1;
    assert!(line.starts_with(&format!("{}:9:{column}: error: ", f.policy)), "{line}");
    assert!(line.contains("enforceRecorder"), "{line}");
}

#[test]
fn a_rule_is_explained() {
    let f = files("policy-explain", POLICY);
    let ask = |src: &str, user: &str, more: &[&str]| {
        let mut args =
            vec!["policy", "explain", &f.policy, "--nodes", &f.nodes, "--dst", "web1.example"];
        args.extend(["--src", src, "--user", user]);
        args.extend(more);
        run(&args)
    };
    let (status, out, _) = ask("laptop.example", "root", &[]);
    assert_eq!(status, 0);
    assert!(
        out.contains("rule 1 (8:9, accept): decides: src group:sre, dst tag:prod, users root"),
        "{out}"
    );
    assert!(out.contains("accepted as root\nrecorded, fail open"), "{out}");
    // The lowest address first, whatever the port; then IPv6.
    assert!(out.contains("\n  100.64.0.8:8080\n  100.64.0.9:80\n  [fd7a::9]:80\n"), "{out}");
    let (status, out, _) = ask("100.64.0.6", "root", &[]);
    assert_eq!(status, 1);
    assert!(out.contains("rule 1 (8:9, accept): not for who comes"), "{out}");
    assert!(out.contains("rule 2 (9:9, accept): not for this account"), "{out}");
    assert!(out.contains("refused: "), "{out}");
    let (_, out, _) = ask("nE", "deploy", &["--json"]);
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["verdict"]["verdict"], "accept");
    assert_eq!(json["verdict"]["enforced"], true);
    assert_eq!(json["verdict"]["recorders"][0], "100.64.0.8:8080");
    let (status, _, err) = ask("laptap.example", "root", &[]);
    assert_eq!(status, 1);
    assert!(err.contains("did you mean `laptop.example`?"), "{err}");
}

#[test]
fn a_policy_is_compiled_for_a_node() {
    let f = files("policy-compile", POLICY);
    let (status, out, err) = run(&[
        "policy",
        "compile",
        &f.policy,
        "--nodes",
        &f.nodes,
        "--for",
        "nB",
        "--notify-url",
        "https://c.example/n",
    ]);
    assert_eq!((status, &*err), (0, ""));
    let json: Value = serde_json::from_str(&out).unwrap();
    let rules = json["rules"].as_array().unwrap();
    assert_eq!(rules.len(), 2, "{out}");
    assert_eq!(rules[0]["principals"][0]["userLogin"], "alice@example.com");
    assert_eq!(rules[0]["sshUsers"]["root"], "root");
    assert_eq!(rules[0]["action"]["recorders"][0], "100.64.0.8:8080");
    assert_eq!(rules[0]["action"]["onRecordingFailure"]["NotifyURL"], "https://c.example/n");
    assert!(rules[0]["action"]["onRecordingFailure"].get("RejectSessionWithMessage").is_none());
    assert!(rules[1]["action"]["onRecordingFailure"]["RejectSessionWithMessage"].is_string());
    assert_eq!(rules[1]["sshUsers"]["*"], "=");
    // Another node is not spoken of.
    let (_, out, _) = run(&["policy", "compile", &f.policy, "--nodes", &f.nodes, "--for", "nA"]);
    assert_eq!(out, "{\"rules\":[]}\n");
}

#[test]
fn the_tests_of_a_file_are_run() {
    let f = files("policy-tests", POLICY);
    let (status, out, _) = run(&["policy", "test", &f.policy, "--nodes", &f.nodes]);
    assert_eq!(status, 0, "{out}");
    assert!(out.ends_with("2 of 2 tests passed\n"), "{out}");
    let f = files(
        "policy-tests-fail",
        &POLICY
            .replace("\"deny\": [\"root\"]", "\"deny\": [\"deploy\"]")
            .replace("\"accept\": [\"deploy\"], ", ""),
    );
    let (status, out, _) = run(&["policy", "test", "-q", &f.policy, "--nodes", &f.nodes]);
    assert_eq!(status, 1);
    assert!(out.contains(&format!("{}:12:9: test 1: FAILED: ", f.policy)), "{out}");
    assert!(out.ends_with("1 of 2 tests passed\n"), "{out}");
}

#[test]
fn a_wrong_call_is_told_what_would_be_right() {
    let f = files("policy-calls", POLICY);
    for (args, said) in [
        (&["policy"][..], "one of check, explain"),
        (&["policy", "chek", &f.policy], "did you mean `check`?"),
        (&["policy", "check"], "one file is wanted"),
        (&["policy", "check", &f.policy, "--user", "x"], "does not take --user"),
        (&["policy", "compile", &f.policy], "--nodes FILE is needed"),
        (&["policy", "compile", &f.policy, "--nodes", &f.nodes], "--for is needed"),
    ] {
        let (status, _, err) = run(args);
        assert_eq!(status, 2, "{args:?}: {err}");
        assert!(err.contains(said), "{args:?}: {err}");
    }
    let (status, _, err) = run(&["policy", "check", "/nowhere/policy"]);
    assert_eq!(status, 1);
    assert!(err.contains("/nowhere/policy"), "{err}");
}
