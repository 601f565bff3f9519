//! The agent and a control that is slow, broken, old, somebody else's, or away.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod agent_support;

use std::net::SocketAddr;
use std::time::Duration;

use agent_support::*;
use castkeep::limits;
use serde_json::{Value, json};

fn everybody() -> Vec<Value> {
    vec![rule(any(), json!({}))]
}

fn question() -> Value {
    json!({"sshUser": "root"})
}

/// The version in force.
fn in_force(agent: &castkeep::agent::Agent) -> u64 {
    version(&decide(agent.socket(), question()))
}

/// An address at which nobody answers: it was ours a moment ago.
fn dead() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn news_come_by_themselves_and_cost_one_request_each() {
    let dir = Temp::new("news");
    let control = Script::new();
    let agent = start(of_control(&dir, control.address));
    let first = control.policy();
    assert_eq!((first.path.as_str(), &first.etag), ("/castkeep/1/policy?wait=0", &None));
    first.answer("200 OK", Some("\"v3\""), &document(3, "nB", &everybody()));
    let second = control.policy();
    assert_eq!(
        (second.path.as_str(), second.etag.as_deref()),
        ("/castkeep/1/policy?wait=1", Some("\"v3\""))
    );
    assert_eq!(in_force(&agent), 3);
    let mut watch = ask(agent.socket(), &json!({"sshUser": "root", "watch": true}));
    assert_eq!(watch.line().unwrap()["verdict"], "accept");
    second.answer("304 Not Modified", Some("\"v3\""), "");
    let third = control.policy();
    assert_eq!(third.etag.as_deref(), Some("\"v3\""));
    third.answer("200 OK", Some("\"v4\""), &document(4, "nB", &[]));
    assert_eq!(watch.line().unwrap()["message"], "Access revoked.");
    assert_eq!(control.policy().etag.as_deref(), Some("\"v4\""));
}

#[test]
fn it_starts_from_disk_when_control_is_away_and_never_goes_back() {
    keep_log();
    let dir = Temp::new("disk");
    let control = Script::new();
    let agent = start(of_control(&dir, control.address));
    control.policy().answer("200 OK", Some("\"v7\""), &document(7, "nB", &everybody()));
    control.policy();
    assert_eq!(in_force(&agent), 7);
    drop(agent);
    // Nobody answers at its address for a while: from disk at once.
    let address = control.address;
    let agent = start(of_control(&dir, address));
    assert_eq!(in_force(&agent), 7);
    // What it asks with is what it has.
    let again = control.policy();
    assert_eq!(again.etag.as_deref(), Some("\"v7\""));
    again.answer("200 OK", Some("\"v6\""), &document(6, "nB", &[]));
    eventually("the refusal", || {
        let said = logged("older than ours: version 6, and we have 7");
        said.iter().any(|line| line.contains(&address.to_string())).then_some(())
    });
    assert_eq!(in_force(&agent), 7);
    control.policy().answer("200 OK", Some("\"v8\""), &document(8, "nB", &[]));
    control.policy();
    assert_eq!(decide(agent.socket(), question())["verdict"], "reject");
    assert_eq!(in_force(&agent), 8);
    drop(agent);
    // Another address is another control, and still begins from disk.
    let agent = start(of_control(&dir, dead()));
    assert_eq!(in_force(&agent), 8);
}

#[test]
fn what_is_no_policy_changes_nothing() {
    keep_log();
    let dir = Temp::new("bad");
    let control = Script::new();
    let agent = start(of_control(&dir, control.address));
    control.policy().policy(&document(5, "nB", &everybody()));
    let saved = eventually("the state", || std::fs::read(dir.join("state/policy.json")).ok());
    let good = document(9, "nB", &[]);
    let half = &good[..good.len() / 2];
    let huge = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 17 << 20)
        + &" ".repeat(limits::AGENT_ANSWER_BYTES + 1);
    let bad: [(&str, String); 13] = [
        ("an error", "HTTP/1.1 500 Oops\r\nContent-Length: 5\r\n\r\nbroke".into()),
        ("a refusal", "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n".into()),
        (
            "half an answer",
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{half}", good.len()),
        ),
        (
            "half a policy",
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{half}", half.len()),
        ),
        ("too much", huge),
        ("no JSON", ok("<html>")),
        ("no object", ok("[]")),
        ("another form", ok(&good.replace("castkeepPolicy\":1", "castkeepPolicy\":2"))),
        ("no version", ok(&good.replace("\"version\":9,", ""))),
        ("no rules", ok(&good.replace("\"policy\"", "\"polity\""))),
        ("broken rules", ok(&good.replace("\"rules\":[", "\"rules\":[7,"))),
        ("another node's", ok(&document(9, "nX", &[]))),
        ("the same version with another policy", ok(&document(5, "nB", &[]))),
    ];
    for (what, answer) in bad {
        control.policy().raw(&answer);
        // In between it works: each pause is the first one, and each failure is news.
        let next = control.policy();
        assert!(next.etag.is_some(), "{what}: it still has what it had");
        assert_eq!(in_force(&agent), 5, "{what}");
        next.answer("304 Not Modified", None, "");
    }
    let _open = control.policy();
    assert_eq!(std::fs::read(dir.join("state/policy.json")).unwrap(), saved);
    let about = control.address.to_string();
    let warnings = logged(&about).into_iter().filter(|line| line.starts_with("WARN")).count();
    assert_eq!(warnings, 13, "{:#?}", logged(&about));
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn a_reason_is_told_once_and_so_is_its_end() {
    keep_log();
    let dir = Temp::new("once");
    let control = Script::new();
    let agent = start(of_control(&dir, control.address));
    for _ in 0..3 {
        control.policy().answer("503 Busy", None, "later");
    }
    control.policy().answer("500 Oops", None, "other");
    control.policy().policy(&document(1, "nB", &everybody()));
    let _open = control.policy();
    assert_eq!(in_force(&agent), 1);
    let lines = logged(&format!("control http://{}: ", control.address));
    assert_eq!(lines.len(), 3, "{lines:#?}");
    assert!(lines[0].contains("503: later") && lines[1].contains("500: other"), "{lines:#?}");
    assert!(lines[2].contains("works again"), "{lines:#?}");
}

#[test]
fn a_control_that_hangs_holds_up_nobody() {
    keep_log();
    let dir = Temp::new("hang");
    let control = Script::new();
    let mut config = of_control(&dir, control.address);
    config.answer_time = Duration::from_millis(500);
    let agent = start(config);
    control.policy().policy(&document(5, "nB", &everybody()));
    let silent = control.policy().hang();
    assert_eq!(in_force(&agent), 5);
    // It gives up, asks again, and takes what comes then.
    control.policy().policy(&document(6, "nB", &everybody()));
    drop(silent);
    let _open = control.policy();
    assert_eq!(in_force(&agent), 6);
    assert_eq!(logged(&format!("{}: no answer in time", control.address)).len(), 1);
}

#[test]
fn before_the_first_answer_a_question_waits_for_it() {
    let dir = Temp::new("first");
    let control = Script::new();
    let agent = start(of_control(&dir, control.address));
    let first = control.policy();
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| decide(agent.socket(), question()));
        first.policy(&document(1, "nB", &everybody()));
        assert_eq!(asked.join().unwrap()["verdict"], "accept");
    });
}

#[test]
fn the_node_can_be_named_beforehand() {
    keep_log();
    let dir = Temp::new("named");
    let control = Script::new();
    let mut config = of_control(&dir, control.address);
    config.node = Some("nMine".into());
    let agent = start(config);
    control.policy().policy(&document(1, "nB", &everybody()));
    control.policy().policy(&document(1, "nMine", &everybody()));
    control.policy();
    assert_eq!(decide(agent.socket(), question())["verdict"], "accept");
    let lines = logged("another node, nB, and this is nMine");
    assert_eq!(lines.len(), 1, "{lines:?}");
}

#[test]
fn a_broken_file_on_disk_is_as_if_it_was_not_there() {
    keep_log();
    let dir = Temp::new("torn");
    std::fs::create_dir_all(dir.join("state")).unwrap();
    for text in ["", "{", "[]", "{\"castkeepAgent\":1}", "{\"castkeepAgent\":1,\"answer\":{}}"] {
        std::fs::write(dir.join("state/policy.json"), text).unwrap();
        let agent = start(of_control(&dir, dead()));
        let verdict = decide(agent.socket(), question());
        assert_eq!((&verdict["verdict"], version(&verdict)), (&json!("reject"), 0), "{text}");
    }
}
