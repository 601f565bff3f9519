//! Recorders that announce themselves to control, and those that fall silent.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

#[path = "control_support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::time::Duration;

use castkeep::client::TlsConfig;
use castkeep::control::http_client::{HttpClient, HttpClientConfig};
use castkeep::control::{AnnounceConfig, Announcer};
use serde_json::{Value, json};
use support::*;

const PATH: &str = "/castkeep/1/recorder";

/// The addresses that a node of production would record to, in order.
fn recorders(admin: &HttpClient) -> Vec<String> {
    let view = view_of(admin, "n2");
    let list = view["policy"]["rules"][0]["action"]["recorders"].as_array().cloned();
    let list: Vec<String> =
        list.unwrap_or_default().iter().map(|a| a.as_str().unwrap().to_owned()).collect();
    for address in &list {
        assert!(view["recorders"][address]["group"].is_u64(), "{view}");
    }
    list
}

fn announcer(site: &Site, control: SocketAddr, address: &str) -> Announcer {
    let config = AnnounceConfig {
        control: HttpClientConfig {
            url: format!("http://{control}"),
            token_file: Some(site.path("r1-recorder.token")),
            tls: TlsConfig::default(),
        },
        addresses: vec![address.parse().unwrap()],
        tags: vec!["tag:rec".into()],
        tls: Some("rec1.example".into()),
    };
    Announcer::start(&config).unwrap()
}

#[test]
fn an_announcement_reaches_the_nodes_and_a_withdrawal_takes_it_back() {
    let site = Site::new("announce");
    let control = site.start();
    let (web, admin) =
        (site.client(control.address(), "n2-node"), site.client(control.address(), "ops-admin"));
    let recorder = site.client(control.address(), "r1-recorder");
    assert_eq!(recorders(&admin), Vec::<String>::new());
    let etag = get(&web, "/castkeep/1/policy").etag.unwrap();
    let waiting = poll(&web, &etag);
    eventually("one that waits", || (control.metric("waiting") == 1).then_some(()));

    let said = json!({"addresses": ["[::1]:443", "127.0.0.9:80"], "tags": ["tag:rec"], "tls": "rec1.example"});
    let answer = post(&recorder, PATH, &said);
    assert_eq!(answer.status, 200);
    let times = body(&answer);
    assert_eq!(
        (times["heartbeatSeconds"].as_f64(), times["expiresSeconds"].as_f64()),
        (Some(10.0), Some(30.0))
    );
    let told = body(&waiting.join().unwrap().unwrap());
    assert_eq!(
        told["policy"]["rules"][0]["action"]["recorders"],
        json!(["127.0.0.9:80", "[::1]:443"])
    );
    let facts = &told["recorders"];
    assert_eq!(facts["127.0.0.9:80"], facts["[::1]:443"], "one recorder, one group");
    assert_eq!(facts["127.0.0.9:80"]["tls"], "rec1.example");

    // A heartbeat is no news.
    let etag = get(&web, "/castkeep/1/policy").etag;
    let version_before = view_of(&admin, "n2")["version"].clone();
    assert_eq!(post(&recorder, PATH, &said).status, 200);
    assert_eq!(view_of(&admin, "n2")["version"], version_before);
    assert_eq!(get(&web, "/castkeep/1/policy").etag, etag);
    // It moved.
    let moved = json!({"addresses": ["127.0.0.10:80"]});
    assert_eq!(post(&recorder, PATH, &moved).status, 200);
    assert_eq!(recorders(&admin), ["127.0.0.10:80"]);
    for _ in 0..2 {
        assert_eq!(recorder.delete(PATH, GUARD).unwrap().status, 204);
        assert_eq!(recorders(&admin), Vec::<String>::new());
    }
    // Tags of others, and what is no announcement.
    for (said, status) in [
        (json!({"addresses": ["127.0.0.9:80"], "tags": ["tag:rec", "tag:prod"]}), 403),
        (json!({"addresses": []}), 400),
        (json!({"addresses": ["rec1.example:80"]}), 400),
        (json!([]), 400),
        (Value::Null, 400),
    ] {
        assert_eq!(post(&recorder, PATH, &said).status, status, "{said}");
    }
    assert_eq!(recorders(&admin), Vec::<String>::new());
}

#[test]
fn a_silent_recorder_is_no_longer_handed_out() {
    let site = Site::new("silent");
    let control = site.start_with(|c| c.heartbeat = Duration::from_millis(600));
    let admin = site.client(control.address(), "ops-admin");
    let web = site.client(control.address(), "n2-node");
    let lively = announcer(&site, control.address(), "127.0.0.9:80");
    eventually("the announcement", || (recorders(&admin) == ["127.0.0.9:80"]).then_some(()));
    // Many periods long it stays, since it goes on to say so.
    let beats = control.metric("announcements_total");
    eventually("more heartbeats", || {
        (control.metric("announcements_total") > beats + 5).then_some(())
    });
    assert_eq!(recorders(&admin), ["127.0.0.9:80"]);
    drop(lively);
    assert_eq!(recorders(&admin), Vec::<String>::new(), "an orderly end is told at once");

    // One that dies tells nothing.
    let said = json!({"addresses": ["127.0.0.9:80"], "tags": ["tag:rec"]});
    assert_eq!(post(&site.client(control.address(), "r1-recorder"), PATH, &said).status, 200);
    let etag = get(&web, "/castkeep/1/policy").etag.unwrap();
    let told = poll(&web, &etag).join().unwrap().unwrap();
    assert_eq!(told.status, 200);
    assert!(
        body(&told)["policy"]["rules"][0]["action"]["recorders"]
            .as_array()
            .is_none_or(Vec::is_empty)
    );
}

#[test]
fn a_recorder_of_the_registry_that_fell_silent_is_tried_last() {
    let site = Site::new("registry");
    let recorders_of_ours = r#"{"castkeepNodes": 1, "nodes": [
        {"id": "n2", "name": "web1.example", "addresses": ["100.64.0.7"], "tags": ["tag:prod"]},
        {"id": "n1", "name": "laptop.example", "addresses": ["100.64.0.5"], "user": "alice@example.com"},
        {"id": "n5", "name": "rec5.example", "addresses": ["100.64.0.20"], "tags": ["tag:rec"]},
        {"id": "n6", "name": "rec6.example", "addresses": ["100.64.0.21"], "tags": ["tag:rec"]}
    ]}"#;
    site.write("nodes.json", recorders_of_ours);
    site.tokens(&[("rec5.example", "recorder"), ("ops", "admin")]);
    let control = site.start();
    let admin = site.client(control.address(), "ops-admin");
    assert_eq!(recorders(&admin), ["100.64.0.20:80", "100.64.0.21:80"]);
    // What it says of itself stands for what the registry says of it.
    let recorder = site.client(control.address(), "rec5.example-recorder");
    assert_eq!(post(&recorder, PATH, &json!({"addresses": ["127.0.0.9:80"]})).status, 200);
    assert_eq!(recorders(&admin), ["100.64.0.21:80", "127.0.0.9:80"]);
    assert_eq!(recorder.delete(PATH, GUARD).unwrap().status, 204);
    assert_eq!(recorders(&admin), ["100.64.0.21:80", "100.64.0.20:80"]);
    // It is known to be silent after a restart too.
    drop(control);
    let control = site.start();
    let admin = site.client(control.address(), "ops-admin");
    assert_eq!(recorders(&admin), ["100.64.0.21:80", "100.64.0.20:80"]);
}

#[test]
fn a_recorder_that_changes_its_mind_all_the_time_is_slowed_down() {
    let site = Site::new("fickle");
    let control = site.start();
    let recorder = site.client(control.address(), "r1-recorder");
    let statuses: Vec<u16> = (1..60)
        .map(|n| post(&recorder, PATH, &json!({"addresses": [format!("127.0.0.9:{n}")]})).status)
        .collect();
    assert!(statuses.contains(&200) && statuses.contains(&429), "{statuses:?}");
    // What it said last, as far as it was heard, stays; and to say that again is no change.
    let heard = statuses.iter().rposition(|s| *s == 200).unwrap() + 1;
    let again = json!({"addresses": [format!("127.0.0.9:{heard}")]});
    assert_eq!(post(&recorder, PATH, &again).status, 200);
}

#[test]
fn recorders_outlive_a_restart_of_control_and_come_back_to_it() {
    let site = Site::new("return");
    let control = site.start_with(|c| c.heartbeat = Duration::from_millis(600));
    let address = control.address();
    let announcer = announcer(&site, address, "127.0.0.9:80");
    let admin = site.client(address, "ops-admin");
    eventually("the announcement", || (recorders(&admin) == ["127.0.0.9:80"]).then_some(()));
    drop(control);
    // Without a moment in which nobody could record: it is known before its next heartbeat. That is what the long period is for.
    let control = site.start_with(|c| {
        c.listen = vec![address];
        c.heartbeat = Duration::from_secs(60);
    });
    assert_eq!(recorders(&admin), ["127.0.0.9:80"]);
    eventually("its heartbeat", || (control.metric("announcements_total") > 0).then_some(()));
    drop(announcer);
    assert_eq!(recorders(&admin), Vec::<String>::new());
}

#[test]
fn a_recorder_waits_for_a_control_that_is_not_there_yet() {
    let site = Site::new("late");
    // A port that was free a moment ago.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let announcer = announcer(&site, address, "127.0.0.9:80");
    let _control = site.start_with(|c| c.listen = vec![address]);
    let admin = site.client(address, "ops-admin");
    eventually("the announcement", || (recorders(&admin) == ["127.0.0.9:80"]).then_some(()));
    drop(announcer);
}

#[test]
fn serve_announces_itself_and_leaves_in_order() {
    let site = Site::new("serve");
    let control = site.start();
    let admin = site.client(control.address(), "ops-admin");
    let url = format!("http://{}", control.address());
    let (dst, token) = (shown(&site.path("dst")), shown(&site.path("r1-recorder.token")));
    let mut args = vec!["serve", "--dst", &dst, "--listen", "127.0.0.1:0", "--control", &url];
    args.extend(["--control-token-file", &token, "--tag", "tag:rec"]);
    let mut serve = Program::start(&site, "serve", &args);
    eventually("the announcement", || {
        (recorders(&admin) == [serve.address.to_string()]).then_some(())
    });
    serve.signal("TERM");
    eventually("the withdrawal", || recorders(&admin).is_empty().then_some(()));
    assert_eq!(serve.wait().code(), Some(0));

    // Killed, it says nothing; and what is given beside control makes no sense without it.
    args.extend(["--announce", "127.0.0.77:8080"]);
    let serve = Program::start(&site, "serve", &args);
    eventually("the announcement", || (recorders(&admin) == ["127.0.0.77:8080"]).then_some(()));
    drop(serve);
    assert_eq!(recorders(&admin), ["127.0.0.77:8080"]);
    let (status, error) = ends(&["serve", "--dst", &dst, "--tag", "tag:rec"]);
    assert_eq!(status, Some(2));
    assert!(error.contains("--control URL"), "{error}");
    let (status, error) = ends(&[
        "serve",
        "--dst",
        &dst,
        "--control",
        "http://192.0.2.1",
        "--control-token-file",
        &token,
    ]);
    assert_ne!(status, Some(0));
    assert!(error.contains("clear text"), "{error}");
}
