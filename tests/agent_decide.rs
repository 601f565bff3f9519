//! What the agent answers: verdicts, identities, and what happens without a policy.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod agent_support;
#[path = "localapi_support/mod.rs"]
mod localapi_support;

use agent_support::*;
use castkeep::agent::{SourceConfig, WithoutPolicy};
use localapi_support::{LocalApiServer, Mode, Peer};
use serde_json::json;

/// Alice is recorded, enforced; the tag is recorded, open; web2 is not recorded; mallory is told why not.
fn rules() -> Vec<serde_json::Value> {
    vec![
        rule(
            json!([{"userLogin": "mallory@example.com"}]),
            json!({"accept": false, "reject": true, "message": "not you\n"}),
        ),
        rule(
            json!([{"userLogin": "alice@example.com"}]),
            json!({"message": "hello\n", "sessionDuration": 90_500_000_000_i64,
                "recorders": ["127.0.0.9:8443", "[fd7a::9]:8443", "127.0.0.10:80"],
                "onRecordingFailure": {"RejectSessionWithMessage": "no recorder\n", "TerminateSessionWithMessage": "recorder lost", "NotifyURL": "https://c/n"}}),
        ),
        rule(json!([{"node": "nC"}]), json!({"recorders": [], "onRecordingFailure": {}})),
        rule(json!([{"nodeIP": "127.0.0.7"}]), json!({})),
    ]
}

#[test]
fn accept_reject_unrecorded() {
    let dir = Temp::new("verdicts");
    dir.file("nodes.json", NODES);
    let mut text = policy(&rules());
    text["rules"][1]["acceptEnv"] = json!(["LANG", "LC_*"]);
    dir.file("ssh.json", &text.to_string());
    let agent = start(compiled(&dir));
    let from = |ip: &str| json!({"sshUser": "root", "sourceIP": ip, "sourcePort": 40022, "connectionID": "c1"});
    assert_eq!(
        decide(agent.socket(), from("127.0.0.5")),
        json!({
            "version": 1, "verdict": "accept", "record": true, "localUser": "root", "message": "hello",
            "rejectMessage": "no recorder", "terminateMessage": "recorder lost",
            "recorders": [
                {"address": "127.0.0.9:8443", "group": 3, "tls": "rec.example"},
                {"address": "[fd7a::9]:8443", "group": 3, "tls": "rec.example"},
                {"address": "127.0.0.10:80", "group": 4}
            ],
            "sessionSeconds": 91, "notify": true, "breakGlass": false,
            "identity": {"node": "laptop.example", "nodeID": "nA", "tags": [], "userID": 1, "user": "alice@example.com", "by": "registry"},
            "acceptEnv": ["LANG", "LC_*"]
        })
    );
    let tagged = decide(agent.socket(), from("::ffff:127.0.0.6"));
    assert_eq!(tagged["record"], true, "wanted, although there is none: {tagged}");
    assert_eq!((&tagged["recorders"], &tagged["breakGlass"]), (&json!([]), &json!(false)));
    assert_eq!(tagged["identity"]["tags"], json!(["tag:ci"]));
    let unrecorded = decide(agent.socket(), from("127.0.0.7"));
    assert_eq!((&unrecorded["verdict"], &unrecorded["record"]), (&json!("accept"), &json!(false)));
    let nobody = decide(agent.socket(), from("127.0.0.99"));
    assert_eq!(nobody["verdict"], "reject");
    assert!(
        nobody["message"].as_str().is_some_and(|m| !m.is_empty() && !m.ends_with('\n')),
        "{nobody}"
    );
    // Nobody that root would be on this machine.
    let missing =
        decide(agent.socket(), json!({"sshUser": "no-such-user-here", "sourceIP": "127.0.0.5"}));
    assert_eq!(missing["verdict"], "reject");
}

#[test]
fn the_session_runs_as_the_user_of_the_policy_and_no_other() {
    let dir = Temp::new("local");
    dir.file("ssh.json", &policy(&[rule(any(), json!({}))]).to_string());
    let agent = start(compiled(&dir));
    let verdict = decide(agent.socket(), json!({"sshUser": "root", "localUser": "root"}));
    assert_eq!((&verdict["verdict"], &verdict["localUser"]), (&json!("accept"), &json!("root")));
    let verdict = decide(agent.socket(), json!({"sshUser": "root", "localUser": "daemon"}));
    assert_eq!(verdict["verdict"], "reject");
    assert!(verdict["message"].as_str().unwrap().contains("daemon"), "{verdict}");
}

#[test]
fn named_users_that_go_on_unrecorded_are_break_glass() {
    let dir = Temp::new("glass");
    dir.file("nodes.json", NODES);
    let open = json!({"recorders": ["127.0.0.9:8443"], "onRecordingFailure": {"NotifyURL": "https://c/n"}});
    let named = rule(
        json!([{"userLogin": "alice@example.com"}, {"userLogin": "bob@example.com"}]),
        open.clone(),
    );
    let tagged = rule(json!([{"node": "nC"}]), open);
    dir.file("ssh.json", &policy(&[named, tagged]).to_string());
    let agent = start(compiled(&dir));
    let of = |ip: &str| decide(agent.socket(), json!({"sshUser": "root", "sourceIP": ip}));
    assert_eq!(of("127.0.0.5")["breakGlass"], true);
    assert_eq!(of("127.0.0.6")["breakGlass"], false);
}

#[test]
fn without_a_policy_nobody_is_let_in_unless_that_was_said() {
    let dir = Temp::new("none");
    let question = json!({"sshUser": "root", "localUser": "root", "sourceIP": "127.0.0.5"});
    let agent = start(compiled(&dir));
    let verdict = decide(agent.socket(), question.clone());
    assert_eq!((&verdict["verdict"], &verdict["version"]), (&json!("reject"), &json!(0)));
    drop(agent);
    let mut config = compiled(&dir);
    config.without_policy = WithoutPolicy::Open;
    let agent = start(config);
    let verdict = decide(agent.socket(), question.clone());
    assert_eq!((&verdict["verdict"], &verdict["record"]), (&json!("accept"), &json!(false)));
    // It is only for as long as there never was one.
    dir.file("ssh.json", &policy(&[]).to_string());
    until(agent.socket(), &question, "the policy", |v| v["verdict"] == "reject");
    std::fs::remove_file(dir.join("ssh.json")).unwrap();
    drop(agent);
    let mut config = compiled(&dir);
    config.without_policy = WithoutPolicy::Open;
    let agent = start(config);
    assert_eq!(decide(agent.socket(), question)["verdict"], "reject");
}

#[test]
fn claims_count_only_from_root() {
    let dir = Temp::new("claims");
    dir.file("nodes.json", NODES);
    dir.file("ssh.json", &policy(&rules()).to_string());
    let agent = start(compiled(&dir));
    let claim = json!({"sshUser": "root", "sourceIP": "127.0.0.66", "node": "made-up",
        "nodeID": "nZ", "userLogin": "alice@example.com"});
    if is_root("claims of root") {
        let verdict = decide(agent.socket(), claim.clone());
        assert_eq!(verdict["verdict"], "accept", "{verdict}");
        assert_eq!(verdict["identity"]["by"], "claimed");
        assert_eq!(verdict["identity"]["user"], "alice@example.com");
        // What is known goes before what is claimed.
        let mut known = claim.clone();
        known["sourceIP"] = json!("127.0.0.6");
        assert_eq!(decide(agent.socket(), known)["identity"]["node"], "ci.example");
        let verdict = as_user(12_345, || decide(agent.socket(), claim.clone()));
        assert_eq!(verdict["verdict"], "reject", "{verdict}");
    } else {
        assert_eq!(decide(agent.socket(), claim)["verdict"], "reject");
    }
}

#[test]
fn whois_goes_before_the_registry_and_alone_for_the_tailnet() {
    let dir = Temp::new("whois");
    let nodes = NODES.replace("127.0.0.6", "100.64.0.6");
    dir.file("nodes.json", &nodes);
    dir.file("ssh.json", &policy(&rules()).to_string());
    let socket = dir.join("tailscaled.sock");
    let api = LocalApiServer::start(&socket);
    api.add(&Peer::new("nW", "100.64.0.5"));
    let mut config = compiled(&dir);
    config.tailscale = Some(socket);
    let agent = start(config);
    let of = |ip: &str| {
        decide(agent.socket(), json!({"sshUser": "root", "sourceIP": ip, "sourcePort": 4}))
    };
    let alice = of("100.64.0.5");
    assert_eq!(
        (&alice["identity"]["by"], &alice["identity"]["nodeID"]),
        (&json!("whois"), &json!("nW"))
    );
    assert_eq!(alice["verdict"], "accept");
    // tailscaled does not know it: what the registry says of it is old.
    assert_eq!(of("100.64.0.6")["verdict"], "reject");
    assert_eq!(of("127.0.0.7")["identity"]["by"], "registry", "not of the tailnet");
    api.set_mode(Mode::Status(500, "trouble"));
    assert_eq!(of("100.64.0.5")["verdict"], "reject");
    api.set_mode(Mode::Honest);
    assert_eq!(of("100.64.0.5")["verdict"], "accept");
}

#[test]
fn nodes_and_our_own_name_come_from_the_localapi() {
    keep_log();
    let dir = Temp::new("live");
    let socket = dir.join("tailscaled.sock");
    let api = LocalApiServer::start(&socket);
    let node = |id: &str, ip: &str, user: u64, tags: &[&str]| {
        json!({"ID": id, "DNSName": format!("{}.tail1.ts.net.", id.to_lowercase()), "UserID": user,
            "PublicKey": format!("nodekey:{}", if id == "nA" { "aa" } else { "bb" }.repeat(32)), "TailscaleIPs": [ip], "Tags": tags, "Online": true})
    };
    let status = json!({"BackendState": "Running", "Self": node("nB", "100.64.0.7", 2, &["tag:prod"]),
        "Peer": {"nodekey:1": node("nA", "100.64.0.5", 3, &[])},
        "User": {"2": {"ID": 2, "LoginName": "tagged-devices"}, "3": {"ID": 3, "LoginName": "alice@example.com"}}});
    api.set_status(&status.to_string());
    api.add(&Peer::new("nA", "100.64.0.5"));
    let text = r#"{"tagOwners": {"tag:prod": ["alice@example.com"]},
        "ssh": [{"action": "accept", "src": ["alice@example.com"], "dst": ["tag:prod"], "users": ["root"]}]}"#;
    let source = SourceConfig::Files { policy: dir.file("policy.hujson", text), nodes: None };
    let mut config = config(&dir, source);
    config.tailscale = Some(socket);
    let agent = start(config);
    let verdict = decide(
        agent.socket(),
        json!({"sshUser": "root", "sourceIP": "100.64.0.5", "sourcePort": 4}),
    );
    assert_eq!(
        (&verdict["verdict"], &verdict["identity"]["by"]),
        (&json!("accept"), &json!("whois")),
        "{verdict} {:?}",
        logged("policy.hujson")
    );
}

#[test]
fn a_policy_file_is_compiled_here_and_its_edits_are_seen() {
    keep_log();
    let dir = Temp::new("files");
    dir.file("nodes.json", NODES);
    let text = |users: &str| {
        format!(
            r#"{{ // hujson
            "tagOwners": {{"tag:prod": ["alice@example.com"], "tag:rec": ["alice@example.com"], "tag:ci": ["alice@example.com"]}},
            "ssh": [{{"action": "accept", "src": ["alice@example.com"], "dst": ["tag:prod"], "users": [{users}],
                "recorder": ["tag:rec"], "enforceRecorder": true}}],
            }}"#
        )
    };
    let path = dir.file("policy.hujson", &text("\"root\""));
    let source = SourceConfig::Files { policy: path.clone(), nodes: Some(dir.join("nodes.json")) };
    let mut config = config(&dir, source);
    config.node = Some("web1.example".into());
    let agent = start(config);
    let question = json!({"sshUser": "root", "sourceIP": "127.0.0.5"});
    let first = decide(agent.socket(), question.clone());
    assert_eq!(first["verdict"], "accept", "{first}");
    assert_eq!(
        first["recorders"][0],
        json!({"address": "127.0.0.9:8443", "group": 0, "tls": "rec.example"})
    );
    assert!(
        first["rejectMessage"].is_string() && first["terminateMessage"].is_string(),
        "enforced"
    );
    // Broken: what is in force stays, and the log says where.
    dir.file("policy.hujson", &text("\"root\",,"));
    let about = path.display().to_string();
    eventually("the error", || (!logged(&about).iter().all(|l| !l.contains("WARN"))).then_some(()));
    assert_eq!(decide(agent.socket(), question.clone())["version"], first["version"]);
    dir.file("policy.hujson", &text("\"daemon\""));
    let last = until(agent.socket(), &question, "the new policy", |v| v["verdict"] == "reject");
    assert!(version(&last) > version(&first), "{last}");
    let warnings = logged(&about).iter().filter(|l| l.starts_with("WARN")).count();
    assert_eq!(warnings, 1, "{:?}", logged(&about));
}

#[test]
fn questions_that_are_none_are_told_so() {
    let dir = Temp::new("bad");
    dir.file("ssh.json", &policy(&[rule(any(), json!({}))]).to_string());
    let agent = start(compiled(&dir));
    let decide_path = "/castkeep/1/decide";
    for (path, body, wanted) in [
        (decide_path, "{}", 400),
        (decide_path, "[]", 400),
        (decide_path, "{\"sshUser\":\"a\\nb\"}", 400),
        (decide_path, &format!("{{\"sshUser\":\"{}\"}}", "a".repeat(5000)), 413),
        ("/castkeep/1/notify", "{", 400),
        ("/castkeep/1/notify", "{\"EventType\":9}", 400),
        (decide_path, &format!("{{\"sshUser\":{}", "[".repeat(4000)), 400),
        (decide_path, &format!("{{\"sshUser\":{}", "{\"a\":".repeat(600)), 400),
        ("/castkeep/1/notify", &format!("{{\"EventType\":{}", "[".repeat(60_000)), 400),
        ("/", "{}", 404),
    ] {
        let asked = post(agent.socket(), path, body);
        let status = asked.status;
        assert_eq!(status, wanted, "{path} {}: {}", body.len(), asked.text());
    }
    assert_eq!(
        decide(agent.socket(), json!({"sshUser": "root", "unknown": [1]}))["verdict"],
        "accept"
    );
}
