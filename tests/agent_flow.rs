//! The agent against castkeep's own control: policy, recorders, edits, events, and control away.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod agent_support;
#[path = "control_support/mod.rs"]
mod control_support;

use agent_support::{Temp, ask, decide, post, start, until, version};
use castkeep::agent::{AgentConfig, SourceConfig};
use castkeep::control::http_client::HttpClientConfig;
use control_support::Site;
use serde_json::json;

#[test]
fn control_and_agent_together() {
    let site = Site::new("agent");
    let running = site.start();
    let address = running.address();
    let dir = Temp::new("flow");
    let config = || -> AgentConfig {
        let source = SourceConfig::Control(HttpClientConfig {
            url: format!("http://{address}"),
            token_file: Some(site.path("n2-node.token")),
            ..HttpClientConfig::default()
        });
        agent_support::config(&dir, source)
    };
    let agent = start(config());
    let socket = agent.socket().to_owned();
    let alice = json!({"sshUser": "root", "localUser": "root", "sourceIP": "100.64.0.5", "connectionID": "c1"});
    let first = decide(&socket, alice.clone());
    assert_eq!((&first["verdict"], &first["record"]), (&json!("accept"), &json!(true)), "{first}");
    assert_eq!(first["recorders"], json!([]), "wanted, and there is none");
    assert!(first["rejectMessage"].as_str().is_some_and(|m| !m.is_empty()), "enforced: {first}");
    assert_eq!(
        first["identity"],
        json!({"node": "laptop.example", "nodeID": "n1", "tags": [], "userID": 1, "user": "alice@example.com", "by": "registry"})
    );

    // A recorder announces itself: whoever runs hears of it.
    let mut watching = alice.clone();
    watching["watch"] = json!(true);
    let mut watch = ask(&socket, &watching);
    assert_eq!(watch.line().unwrap()["verdict"], "accept");
    let recorder = site.client(address, "r1-recorder");
    let announced =
        json!({"addresses": ["100.64.0.9:8080"], "tags": ["tag:rec"], "tls": "rec1.example"});
    assert_eq!(control_support::post(&recorder, "/castkeep/1/recorder", &announced).status, 200);
    let line = watch.line().unwrap();
    assert_eq!(
        line["recorders"],
        json!([{"address": "100.64.0.9:8080", "group": 0, "tls": "rec1.example"}])
    );
    assert!(version(&line) > version(&first));

    // What recording could not do arrives in control's log.
    let notice = json!({"EventType": 1, "ConnectionID": "c1", "SSHUser": "root", "LocalUser": "root",
        "RecordingAttempts": [{"Recorder": "100.64.0.9:8080", "FailureMessage": "refused"}]});
    assert_eq!(post(&socket, "/castkeep/1/notify", &notice.to_string()).status, 201);
    let admin = site.client(address, "ops-admin");
    let events = agent_support::eventually("the event", || {
        let answer = control_support::get(&admin, "/castkeep/1/events?since=0");
        let text = String::from_utf8(answer.body).unwrap();
        text.contains("ConnectionID").then_some(text)
    });
    assert!(events.contains("\"c1\"") && events.contains("n1"), "{events}");

    // A broken edit changes nothing; a good one takes the right away.
    let good = std::fs::read_to_string(site.path("policy.hujson")).unwrap();
    site.write("policy.hujson", "{ broken");
    running.control.reload();
    assert_eq!(decide(&socket, alice.clone())["verdict"], "accept");
    site.write("policy.hujson", &good.replace("\"users\": [\"root\"]", "\"users\": [\"daemon\"]"));
    let line = watch.line().unwrap();
    assert_eq!((&line["verdict"], &line["message"]), (&json!("reject"), &json!("Access revoked.")));
    let last = version(&line);

    // Control goes, and the agent starts anew: from disk.
    drop((agent, running));
    let agent = start(config());
    let verdict = decide(&socket, alice.clone());
    assert_eq!((&verdict["verdict"], version(&verdict)), (&json!("reject"), last));

    // Control comes back where it was, and a new edit arrives.
    site.write("policy.hujson", &good);
    let _running = site.start_with(|control| control.listen = vec![address]);
    let verdict = until(&socket, &alice, "the new policy", |v| v["verdict"] == "accept");
    assert!(version(&verdict) > last, "{verdict}");
    drop(agent);
}
