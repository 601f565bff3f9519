//! Running sessions are told when their verdict changes.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod agent_support;

use agent_support::*;
use castkeep::limits;
use serde_json::json;

fn write(dir: &Temp, rules: &[serde_json::Value]) {
    dir.file("ssh.json", &policy(rules).to_string());
}

fn alice(more: serde_json::Value) -> serde_json::Value {
    rule(json!([{"userLogin": "alice@example.com"}]), more)
}

#[test]
fn a_line_for_each_change_and_an_end_with_the_right() {
    let dir = Temp::new("watch");
    dir.file("nodes.json", NODES);
    write(&dir, &[alice(json!({}))]);
    let agent = start(compiled(&dir));
    let question =
        json!({"sshUser": "root", "localUser": "root", "sourceIP": "127.0.0.5", "watch": true});
    let mut watch = ask(agent.socket(), &question);
    let first = watch.line().unwrap();
    assert_eq!((&first["verdict"], &first["record"]), (&json!("accept"), &json!(false)));
    // About somebody else: no line. The next one is about us.
    write(&dir, &[rule(json!([{"node": "nC"}]), json!({})), alice(json!({}))]);
    let other = json!({"sshUser": "root", "sourceIP": "127.0.0.6"});
    until(agent.socket(), &other, "the rule of the other", |v| v["verdict"] == "accept");
    write(&dir, &[alice(json!({"recorders": ["127.0.0.9:80"], "onRecordingFailure": {}}))]);
    let line = watch.line().unwrap();
    assert_eq!((&line["verdict"], &line["record"]), (&json!("accept"), &json!(true)), "{line}");
    assert_eq!(line["recorders"][0]["address"], "127.0.0.9:80");
    assert!(version(&line) >= version(&first) + 2, "{line}");
    write(&dir, &[]);
    let line = watch.line().unwrap();
    assert_eq!(line["verdict"], "reject");
    assert_eq!(line["message"], "Access revoked.");
    assert_eq!(watch.line(), None, "nothing follows");
    assert_eq!(watch.text(), "", "and the agent hangs up");
}

#[test]
fn another_local_user_is_no_right_to_go_on() {
    let dir = Temp::new("mapped");
    dir.file("nodes.json", NODES);
    let mapped = |to: &str| {
        let mut rule = alice(json!({}));
        rule["sshUsers"] = json!({"ops": to});
        rule
    };
    write(&dir, &[mapped("root")]);
    let agent = start(compiled(&dir));
    let mut watch =
        ask(agent.socket(), &json!({"sshUser": "ops", "sourceIP": "127.0.0.5", "watch": true}));
    assert_eq!(watch.line().unwrap()["localUser"], "root");
    write(&dir, &[mapped("daemon")]);
    let line = watch.line().unwrap();
    assert_eq!((&line["verdict"], &line["message"]), (&json!("reject"), &json!("Access revoked.")));
}

#[test]
fn a_node_that_leaves_the_registry_loses_its_sessions() {
    let dir = Temp::new("left");
    dir.file("nodes.json", NODES);
    write(&dir, &[alice(json!({}))]);
    let agent = start(compiled(&dir));
    let mut watch =
        ask(agent.socket(), &json!({"sshUser": "root", "sourceIP": "127.0.0.5", "watch": true}));
    assert_eq!(watch.line().unwrap()["verdict"], "accept");
    dir.file("nodes.json", &NODES.replace("alice@", "bob@"));
    assert_eq!(watch.line().unwrap()["message"], "Access revoked.");
}

#[test]
fn a_rejected_question_is_not_watched_and_a_stop_ends_the_others() {
    let dir = Temp::new("ends");
    write(&dir, &[rule(any(), json!({}))]);
    let agent = start(compiled(&dir));
    let mut rejected = ask(agent.socket(), &json!({"sshUser": "nobody-here", "watch": true}));
    assert_eq!(rejected.line().unwrap()["verdict"], "reject");
    assert_eq!(rejected.line(), None);
    let mut accepted = ask(agent.socket(), &json!({"sshUser": "root", "watch": true}));
    assert_eq!(accepted.line().unwrap()["verdict"], "accept");
    drop(agent);
    // An end in order, and no verdict: the session goes on, and its daemon asks again.
    assert_eq!(accepted.line(), None);
}

#[test]
fn who_hangs_up_gives_the_place_back() {
    if !is_root("places of a user") {
        return;
    }
    let dir = Temp::new("places");
    write(&dir, &[rule(any(), json!({}))]);
    let agent = start(compiled(&dir));
    let question = json!({"sshUser": "root", "watch": true});
    as_user(12_345, || {
        let mut held = Vec::new();
        for _ in 0..limits::AGENT_CONNECTIONS_PER_USER {
            let mut watch = ask(agent.socket(), &question);
            assert_eq!(
                (watch.status, watch.line().unwrap()["verdict"].clone()),
                (200, json!("accept"))
            );
            held.push(watch);
        }
        assert_eq!(ask(agent.socket(), &question).status, 429, "as many as one may have");
        held.pop();
        eventually("a free place", || (ask(agent.socket(), &question).status == 200).then_some(()));
    });
    assert_eq!(ask(agent.socket(), &question).status, 200, "root has its own");
}
