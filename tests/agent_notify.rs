//! Notifications: on disk before they are answered, in order, marked when they may come twice, loud where nobody may miss them.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod agent_support;

use std::os::unix::net::UnixDatagram;

use agent_support::*;
use rustix::process::Signal;
use serde_json::{Value, json};

fn notice(kind: i64, connection: &str) -> String {
    json!({"EventType": kind, "ConnectionID": connection, "SSHUser": "root", "LocalUser": "root",
        "RecordingAttempts": [{"Recorder": "127.0.0.9:80", "FailureMessage": "refused"}]})
    .to_string()
}

fn notify(dir: &Temp, body: &str) -> u16 {
    post(&dir.join("agent.sock"), "/castkeep/1/notify", body).status
}

fn with_nodes(version: u64, rules: &[Value]) -> String {
    let mut text: Value = serde_json::from_str(&document(version, "nB", rules)).unwrap();
    text["nodes"] = serde_json::from_str(NODES).unwrap();
    text.to_string()
}

#[test]
fn what_the_daemon_does_not_know_is_filled_in() {
    let dir = Temp::new("filled");
    let control = Script::new();
    let agent = start(of_control(&dir, control.address));
    let rules = [rule(json!([{"userLogin": "alice@example.com"}]), json!({}))];
    control.policy().policy(&with_nodes(1, &rules));
    control.policy();
    let question = json!({"sshUser": "root", "sourceIP": "127.0.0.5", "connectionID": "c1"});
    assert_eq!(decide(agent.socket(), question)["verdict"], "accept");
    assert_eq!(notify(&dir, &notice(1, "c1")), 201);
    let got = control.notice();
    assert_eq!((got.method.as_str(), got.path.as_str()), ("POST", "/castkeep/1/notify"));
    let mut event = got.json();
    let id = event.as_object_mut().unwrap().remove("castkeepEvent").unwrap();
    assert!(id.as_str().unwrap().ends_with("-1"), "{id}");
    assert_eq!(
        event,
        json!({"EventType": 1, "ConnectionID": "c1", "CapVersion": 62,
            "NodeKey": "nodekey:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
            "SrcNode": 7, "SSHUser": "root", "LocalUser": "root",
            "RecordingAttempts": [{"Recorder": "127.0.0.9:80", "FailureMessage": "refused"}],
            "castkeepNodeID": "nA", "castkeepUser": "alice@example.com"})
    );
    got.answer("201 Created", None, "");
    // Of a connection that was never asked about: whose it is stays open.
    assert_eq!(notify(&dir, &notice(2, "c2")), 201);
    let got = control.notice();
    assert_eq!((&got.json()["SrcNode"], &got.json()["castkeepNodeID"]), (&json!(0), &json!(null)));
    got.answer("201 Created", None, "");
}

#[test]
fn nobody_can_miss_break_glass() {
    let dir = Temp::new("glass");
    let syslog = UnixDatagram::bind(dir.join("log.sock")).unwrap();
    syslog.set_read_timeout(Some(GUARD)).unwrap();
    let control = Script::new();
    let agent = start(of_control(&dir, control.address));
    let open = json!({"recorders": ["127.0.0.9:80"], "onRecordingFailure": {}});
    let rules = [rule(json!([{"userLogin": "alice@example.com"}]), open)];
    control.policy().policy(&with_nodes(1, &rules));
    control.policy();
    let question = json!({"sshUser": "root", "sourceIP": "127.0.0.5", "connectionID": "c9"});
    assert_eq!(decide(agent.socket(), question)["breakGlass"], true);
    // The agent knows by itself what kind of session that is.
    assert_eq!(notify(&dir, &notice(3, "c9")), 201);
    let mut line = [0; 2048];
    let length = syslog.recv(&mut line).unwrap();
    let line = std::str::from_utf8(&line[..length]).unwrap();
    assert!(line.starts_with("<33>castkeep["), "auth.alert: {line}");
    for part in ["BREAK-GLASS", "alice@example.com", "c9", "UNRECORDED", "127.0.0.9:80: refused"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    let got = control.notice();
    assert_eq!(got.json()["castkeepBreakGlass"], true);
    got.answer("201 Created", None, "");
}

#[test]
fn events_outlive_the_agent_come_in_order_and_say_when_they_come_again() {
    let dir = Temp::new("spool");
    let control = Script::new();
    let url = format!("http://{}", control.address);
    let args = ["--control", url.as_str()];
    let agent = Process::start(&dir, &args);
    let id = |event: &Value| event["castkeepEvent"].as_str().unwrap().to_owned();
    for n in 0..5 {
        assert_eq!(notify(&dir, &notice(1, &format!("c{n}"))), 201);
    }
    // The first has arrived, and the agent ends before it can know that.
    let first = control.notice();
    assert_eq!(
        (&first.json()["ConnectionID"], &first.json()["castkeepResent"]),
        (&json!("c0"), &json!(null))
    );
    agent.signal(Signal::KILL);
    drop(agent);
    let agent = Process::start(&dir, &args);
    assert_eq!(notify(&dir, &notice(1, "c5")), 201);
    let mut ids = vec![id(&first.json())];
    for n in 0..6 {
        let got = control.notice();
        let event = got.json();
        assert_eq!(event["ConnectionID"], format!("c{n}"));
        assert_eq!(event["castkeepResent"] == true, n < 5, "{event}");
        if n == 0 {
            assert_eq!(id(&event), ids[0], "the same event");
        } else {
            assert!(!ids.contains(&id(&event)), "another event");
            ids.push(id(&event));
        }
        got.answer("201 Created", None, "");
    }
    eventually("an empty spool", || {
        (std::fs::read_dir(dir.join("state/notify")).unwrap().count() == 0).then_some(())
    });
    control.no_notice();
    agent.kill();
}

#[test]
fn control_may_fail_and_may_refuse() {
    keep_log();
    let dir = Temp::new("refuse");
    let control = Script::new();
    let _agent = start(of_control(&dir, control.address));
    for n in 0..3 {
        assert_eq!(notify(&dir, &notice(1, &format!("c{n}"))), 201);
    }
    control.notice().answer("503 Busy", None, "");
    let again = control.notice();
    let event = again.json();
    assert_eq!((&event["ConnectionID"], &event["castkeepResent"]), (&json!("c0"), &json!(true)));
    again.answer("201 Created", None, "");
    // For ever refused: it does not hold up the next one, and it stands in the log.
    let refused = control.notice();
    assert_eq!(refused.json()["castkeepResent"], json!(null));
    let id = refused.json()["castkeepEvent"].as_str().unwrap().to_owned();
    refused.answer("422 No", None, "not this one");
    assert_eq!(control.notice().json()["ConnectionID"], "c2");
    assert_eq!(logged(&id).len(), 1, "{:?}", logged(&id));
}

#[test]
fn without_control_events_are_kept_in_a_file() {
    let dir = Temp::new("file");
    let agent = start(compiled(&dir));
    for n in 0..2 {
        assert_eq!(notify(&dir, &notice(2, &format!("c{n}"))), 201);
    }
    drop(agent);
    let text = std::fs::read_to_string(dir.join("state/events.log")).unwrap();
    let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let all: Vec<_> = lines.iter().map(|l| l["ConnectionID"].as_str().unwrap()).collect();
    assert_eq!(all, ["c0", "c1"]);
}

#[test]
fn a_user_speaks_only_for_themselves() {
    if !is_root("events of a user") {
        return;
    }
    let dir = Temp::new("user");
    dir.file("nodes.json", NODES);
    dir.file("ssh.json", &policy(&[rule(any(), json!({}))]).to_string());
    let agent = start(compiled(&dir));
    let question = json!({"sshUser": "root", "sourceIP": "127.0.0.5", "connectionID": "c1"});
    assert_eq!(decide(agent.socket(), question)["verdict"], "accept");
    let mut lie: Value = serde_json::from_str(&notice(1, "c1")).unwrap();
    lie["SrcNode"] = json!(9);
    lie["castkeepNodeID"] = json!("nC");
    assert_eq!(as_user(12_345, || notify(&dir, &lie.to_string())), 201);
    let text = std::fs::read_to_string(dir.join("state/events.log")).unwrap();
    let event: Value = serde_json::from_str(text.trim()).unwrap();
    let whose = (&event["SrcNode"], &event["castkeepNodeID"]);
    assert_eq!(whose, (&json!(7), &json!("nA")), "what root asked about is so: {event}");
    // And what nobody asked about is nobody's.
    lie["ConnectionID"] = json!("c2");
    assert_eq!(as_user(12_345, || notify(&dir, &lie.to_string())), 201);
    let text = std::fs::read_to_string(dir.join("state/events.log")).unwrap();
    let event: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!((&event["SrcNode"], &event["castkeepNodeID"]), (&json!(0), &json!(null)), "{event}");
    let told = as_user(12_345, || {
        (0..100).map(|_| notify(&dir, &notice(1, "c3"))).take_while(|status| *status == 201).count()
    });
    assert_eq!(told, 58, "sixty in a minute");
    assert_eq!(notify(&dir, &notice(1, "c3")), 201, "root has no such bound");
}
