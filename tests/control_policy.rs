//! Control hands each node its own policy, says so when it changes, and keeps the last good one.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

#[path = "control_support/mod.rs"]
mod support;

use castkeep::client::TlsConfig;
use castkeep::control::http_client::{HttpClient, HttpClientConfig, HttpError};
use castkeep::control::{Control, ControlConfig};
use serde_json::json;
use support::*;

const POLICY_PATH: &str = "/castkeep/1/policy";

#[test]
fn each_node_is_told_its_own_and_nobody_else_anything() {
    let site = Site::new("own");
    let control = site.start();
    let client = |token: &str| site.client(control.address(), token);
    let (web, db) = (get(&client("n2-node"), POLICY_PATH), get(&client("n4-node"), POLICY_PATH));
    assert_eq!((web.status, db.status), (200, 200));
    assert_ne!(web.etag, db.etag);
    let (web, db) = (body(&web), body(&db));
    assert_eq!((&web["castkeepPolicy"], &web["node"]), (&json!(1), &json!("n2")));
    assert_eq!(web["version"], db["version"]);
    // Alice's rule for production, with her address or login and nobody else's; the database has the other rule.
    let rules = |view: &serde_json::Value| view["policy"]["rules"].as_array().unwrap().clone();
    assert_eq!((rules(&web).len(), rules(&db).len()), (1, 1));
    assert_eq!(rules(&web)[0]["sshUsers"]["root"], "root");
    let failure = &rules(&web)[0]["action"]["onRecordingFailure"];
    assert_eq!(failure["NotifyURL"], "https://control/castkeep/1/notify");
    assert!(failure["RejectSessionWithMessage"].is_string(), "{failure}");
    assert!(rules(&db)[0]["action"]["onRecordingFailure"].is_null());
    let sources: Vec<_> =
        web["nodes"]["nodes"].as_array().unwrap().iter().map(|n| &n["id"]).collect();
    assert!(sources.contains(&&json!("n1")) && !sources.contains(&&json!("n4")), "{sources:?}");

    let health = control.control.metrics_addresses()[0];
    for (request, status) in [
        ("GET /healthz", 200),
        ("HEAD /readyz", 200),
        ("POST /metrics", 405),
        ("GET /castkeep/1/policy", 404),
    ] {
        let answer = exchange(health, format!("{request} HTTP/1.1\r\nHost: c\r\n\r\n").as_bytes());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
    }

    // Roles are not mixed up.
    assert_eq!(get(&client("r1-recorder"), POLICY_PATH).status, 403);
    assert_eq!(get(&client("n2-node"), "/castkeep/1/policy?node=n4").status, 403);
    assert_eq!(get(&client("n2-node"), "/castkeep/1/events").status, 403);
    let announcement = json!({"addresses": ["127.0.0.1:80"]});
    assert_eq!(post(&client("n2-node"), "/castkeep/1/recorder", &announcement).status, 403);
    assert_eq!(post(&client("r1-recorder"), "/castkeep/1/notify", &event(1, "c")).status, 403);
    assert_eq!(post(&client("ops-admin"), "/castkeep/1/notify", &event(1, "c")).status, 403);
    // A token for a node that is not in the registry.
    assert_eq!(get(&client("nobody-node"), POLICY_PATH).status, 404);
    assert_eq!(view_of(&client("ops-admin"), "web1.example")["node"], "n2");
    assert_eq!(get(&client("ops-admin"), "/castkeep/1/policy?node=n9").status, 404);
    assert_eq!(get(&client("ops-admin"), POLICY_PATH).status, 403);
}

#[test]
fn who_shows_nothing_or_the_wrong_thing_is_told_nothing() {
    let site = Site::new("wrong");
    let control = site.start();
    for authorization in [
        "",
        "Authorization: Bearer wrong\r\n",
        "Authorization: Bearer n2-nod\r\n",
        "Authorization: Bearer N2-NODE\r\n",
        "Authorization: Basic n2-node\r\n",
        "Authorization: Bearer\r\n",
        "Authorization: Bearer n2-node\r\nAuthorization: Bearer n2-node\r\n",
        "Authorization: Bearer n2-node, Bearer n2-node\r\n",
    ] {
        for path in [POLICY_PATH, "/castkeep/1/events", "/castkeep/1/notify", "/", "/no/such"] {
            let request = format!("GET {path} HTTP/1.1\r\nHost: c\r\n{authorization}\r\n");
            let answer = exchange(control.address(), request.as_bytes());
            assert!(answer.starts_with("HTTP/1.1 401 "), "{authorization:?} {path}: {answer}");
            assert!(!answer.contains("castkeepPolicy"), "{answer}");
        }
    }
    let fine = "GET /castkeep/1/policy HTTP/1.1\r\nHost: c\r\nConnection: close\r\nauthorization: bearer n2-node\r\n\r\n";
    assert!(exchange(control.address(), fine.as_bytes()).starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_certificate_says_which_node_asks() {
    let site = Site::new("mutual");
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let files = server_files(&site, &servers, Some(&clients));
    let control = site.start_with(|c| {
        c.tls = Some(files.clone());
        c.tokens = None;
    });
    let url = format!("https://{}", control.address());
    let client = |authority: &Authority, name: Option<&str>, roots: &Authority| {
        let (cert, key) = name.map(|name| authority.issue(name)).unwrap_or_default();
        let mut tls = TlsConfig::default();
        tls.roots_pem = roots.certificate.pem().into_bytes();
        (tls.cert_pem, tls.key_pem) = (cert.into_bytes(), key.into_bytes());
        HttpClient::new(&HttpClientConfig { url: url.clone(), token_file: None, tls }).unwrap()
    };
    assert_eq!(
        body(&get(&client(&clients, Some("web1.example"), &servers), POLICY_PATH))["node"],
        "n2"
    );
    assert_eq!(body(&get(&client(&clients, Some("n4"), &servers), POLICY_PATH))["node"], "n4");
    // Nothing that is only short for a node's name, or an address of it.
    for name in ["web1", "100.64.0.7", "web1.example.org"] {
        assert_eq!(get(&client(&clients, Some(name), &servers), POLICY_PATH).status, 401, "{name}");
    }
    assert_eq!(get(&client(&clients, Some("evil.example"), &servers), POLICY_PATH).status, 401);
    assert_eq!(
        get(&client(&clients, Some("web1.example"), &servers), "/castkeep/1/events").status,
        403
    );
    // A recorder announces itself with the tags that the registry gives it, and no others.
    let recorder = client(&clients, Some("rec1.example"), &servers);
    let said = json!({"addresses": ["127.0.0.1:9"], "tags": ["tag:spare"], "tls": "rec1.example"});
    assert_eq!(post(&recorder, "/castkeep/1/recorder", &said).status, 200);
    let said = json!({"addresses": ["127.0.0.1:9"], "tags": ["tag:prod"]});
    assert_eq!(post(&recorder, "/castkeep/1/recorder", &said).status, 403);
    // No certificate, or one of another authority: not past the handshake. A server that is not ours is not told anything.
    for stranger in
        [client(&clients, None, &servers), client(&servers, Some("web1.example"), &servers)]
    {
        let error = stranger.get(POLICY_PATH, None, GUARD, 1 << 20).unwrap_err();
        assert!(matches!(error, HttpError::Tls(_) | HttpError::Link(_)), "{error:?}");
    }
    let fooled = client(&clients, Some("web1.example"), &clients);
    let error = fooled.get(POLICY_PATH, None, GUARD, 1 << 20).unwrap_err();
    assert!(matches!(&error, HttpError::Tls(why) if why.contains("authority")), "{error:?}");
}

#[test]
fn tokens_work_beside_certificates_and_over_tls() {
    let site = Site::new("both");
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let files = server_files(&site, &servers, Some(&clients));
    let control = site.start_with(|c| c.tls = Some(files.clone()));
    let mut tls = TlsConfig::default();
    tls.roots_pem = servers.certificate.pem().into_bytes();
    let mut config = HttpClientConfig {
        url: format!("https://{}", control.address()),
        token_file: Some(site.path("n2-node.token")),
        tls,
    };
    let node = HttpClient::new(&config).unwrap();
    let first = get(&node, POLICY_PATH);
    assert_eq!(body(&first)["node"], "n2");
    let waiting = poll(&node, first.etag.as_deref().unwrap());
    eventually("one that waits", || (control.metric("waiting") == 1).then_some(()));
    site.edit("policy.hujson", "[\"root\"]", "[\"root\", \"deploy\"]");
    assert_eq!(waiting.join().unwrap().unwrap().status, 200);
    // A token says more than a certificate, also a wrong one.
    let (cert, key) = clients.issue("web1.example");
    (config.tls.cert_pem, config.tls.key_pem) = (cert.into_bytes(), key.into_bytes());
    site.write("wrong.token", "wrong\n");
    config.token_file = Some(site.path("wrong.token"));
    assert_eq!(get(&HttpClient::new(&config).unwrap(), POLICY_PATH).status, 401);
    config.token_file = None;
    assert_eq!(body(&get(&HttpClient::new(&config).unwrap(), POLICY_PATH))["node"], "n2");
}

#[test]
fn an_edit_wakes_those_whom_it_concerns() {
    let site = Site::new("edit");
    let control = site.start();
    let client = |token: &str| site.client(control.address(), token);
    let (web, db) = (client("n2-node"), client("n4-node"));
    let first = get(&web, POLICY_PATH);
    let etag = first.etag.clone().unwrap();
    let same = web.get(POLICY_PATH, Some(&etag), GUARD, 1 << 20).unwrap();
    assert_eq!((same.status, same.body.len(), same.etag), (304, 0, Some(etag.clone())));
    let db_etag = get(&db, POLICY_PATH).etag.unwrap();

    let waiting = poll(&web, &etag);
    let other = poll(&db, &db_etag);
    eventually("two that wait", || (control.metric("waiting") == 2).then_some(()));
    site.edit("policy.hujson", "\"users\": [\"root\"]", "\"users\": [\"root\", \"deploy\"]");
    let changed = waiting.join().unwrap().unwrap();
    assert_eq!(changed.status, 200);
    assert!(version(&changed) > version(&first));
    assert_ne!(changed.etag, first.etag);
    let users = &body(&changed)["policy"]["rules"][0]["sshUsers"];
    assert_eq!(users["deploy"], "deploy");
    // The database's policy is what it was: it waits on, and with an old tag it would not have to.
    assert_eq!(control.metric("waiting"), 1);
    assert!(!other.is_finished());
    let old = web.get(POLICY_PATH, Some(&etag), GUARD, 1 << 20).unwrap();
    assert_eq!((old.status, version(&old)), (200, version(&changed)));
    drop(control);
    // At the end everybody who waits is answered.
    assert_eq!(other.join().unwrap().unwrap().status, 304);
}

#[test]
fn a_token_that_is_taken_back_ends_a_wait() {
    let site = Site::new("revoke");
    let control = site.start();
    let web = site.client(control.address(), "n2-node");
    let etag = get(&web, POLICY_PATH).etag.unwrap();
    let waiting = poll(&web, &etag);
    eventually("one that waits", || (control.metric("waiting") == 1).then_some(()));
    // What cannot be read changes nothing.
    site.write("tokens.json", "{");
    control.control.reload();
    assert_eq!(get(&web, POLICY_PATH).status, 200);
    site.tokens(&[("n4", "node")]);
    assert_eq!(waiting.join().unwrap().unwrap().status, 401);
    assert_eq!(get(&web, POLICY_PATH).status, 401);
    assert_eq!(get(&site.client(control.address(), "n4-node"), POLICY_PATH).status, 200);
}

#[test]
fn a_broken_edit_leaves_the_last_good_policy_over_a_restart_too() {
    let site = Site::new("broken");
    let control = site.start();
    let web = site.client(control.address(), "n2-node");
    let good = get(&web, POLICY_PATH);
    let etag = good.etag.clone();
    let mut reloads = control.metric("reloads_total");
    for broken in [
        "{\"ssh\": [",
        "{\"ssh\": [{\"action\": \"acept\"}]}",
        "{\"ssh\": [{\"action\": \"accept\", \"src\": [\"group:none\"], \"dst\": [\"tag:prod\"], \"users\": [\"root\"]}]}",
        "",
        &"[".repeat(1 << 20),
        &format!("{{\"ssh\": {}{}}}", "[".repeat(50_000), "]".repeat(50_000)),
        &" ".repeat(17 << 20),
    ] {
        site.write("policy.hujson", broken);
        // By the thread that watches, as in earnest, whose stack it is.
        eventually("the look at it", || (control.metric("reloads_total") > reloads).then_some(()));
        reloads = control.metric("reloads_total");
        assert_eq!(control.metric("policy_broken"), 1, "{broken:.80}");
        let now = get(&web, POLICY_PATH);
        assert_eq!((now.etag, &now.body), (etag.clone(), &good.body), "{broken:.80}");
    }
    site.write("nodes.json", "[]");
    std::fs::remove_file(site.path("policy.hujson")).unwrap();
    control.control.reload();
    assert_eq!(get(&web, POLICY_PATH).etag, etag);
    drop(control);

    // The machine starts again before anybody mended it.
    let control = site.start();
    let web = site.client(control.address(), "n2-node");
    let again = get(&web, POLICY_PATH);
    assert_eq!((again.status, &again.etag), (200, &etag));
    assert!(version(&again) > version(&good));
    assert_eq!(control.metric("policy_broken"), 1);
    site.write("nodes.json", NODES);
    site.write("policy.hujson", &POLICY.replace("[\"root\"]", "[\"root\", \"deploy\"]"));
    eventually("the mended policy", || {
        let now = get(&web, POLICY_PATH);
        (now.etag != etag && version(&now) > version(&again)).then_some(())
    });
    assert_eq!(control.metric("policy_broken"), 0);
}

#[test]
fn nothing_is_handed_out_that_is_not_on_disk() {
    let site = Site::new("disk");
    let control = site.start();
    let client = |token: &str| site.client(control.address(), token);
    let (web, recorder) = (client("n2-node"), client("r1-recorder"));
    let before = get(&web, POLICY_PATH);
    // The state directory is gone, as when a file system is.
    std::fs::rename(site.path("state"), site.path("away")).unwrap();
    site.edit("policy.hujson", "[\"root\"]", "[\"root\", \"deploy\"]");
    control.control.reload();
    let said = json!({"addresses": ["127.0.0.9:80"]});
    assert_eq!(post(&recorder, "/castkeep/1/recorder", &said).status, 507);
    assert_eq!(post(&web, "/castkeep/1/notify", &event(1, "c")).status, 507);
    assert_eq!(get(&web, POLICY_PATH).body, before.body);
    std::fs::rename(site.path("away"), site.path("state")).unwrap();
    // It comes back by itself, with everything that was told meanwhile.
    let etag = before.etag.clone();
    eventually("the edit", || {
        let now = get(&web, POLICY_PATH);
        (now.etag != etag && version(&now) > version(&before)).then_some(())
    });
    assert_eq!(post(&recorder, "/castkeep/1/recorder", &said).status, 200);
    assert_eq!(post(&web, "/castkeep/1/notify", &event(1, "c")).status, 201);
    let rule = &body(&get(&web, POLICY_PATH))["policy"]["rules"][0];
    assert_eq!(rule["action"]["recorders"], json!(["127.0.0.9:80"]));
    assert_eq!(rule["sshUsers"]["deploy"], "deploy");
}

#[test]
fn without_any_good_policy_it_does_not_start_and_says_where() {
    let site = Site::new("never");
    site.write("policy.hujson", "{\n  \"ssh\": [\n    {\"acton\": \"accept\"}\n  ]\n}\n");
    let error = Control::start(site.config()).unwrap_err().to_string();
    assert!(error.contains("policy.hujson:3:6"), "{error}");
    // And two cannot share a directory.
    site.write("policy.hujson", POLICY);
    let _control = site.start();
    let error = Control::start(site.config()).unwrap_err().to_string();
    assert!(error.contains("another castkeep control"), "{error}");
}

#[test]
fn versions_rise_whatever_becomes_of_the_state() {
    let site = Site::new("version");
    let ask = |change: &dyn Fn(&mut ControlConfig)| {
        let control = site.start_with(change);
        let answer = get(&site.client(control.address(), "n2-node"), POLICY_PATH);
        (version(&answer), answer.etag.unwrap())
    };
    let mut last = ask(&|_| {});
    for round in 0..6 {
        match round {
            // Lost, cut, and nonsense: the time of day is later than what was there before.
            3 => std::fs::remove_dir_all(site.path("state")).unwrap(),
            4 => std::fs::write(site.path("state/state.json"), "{\"version\":").unwrap(),
            5 => {
                // Ahead of every clock: it goes on from there.
                let state = json!({"castkeepControl": 1, "version": 1u64 << 50, "recorders": 7});
                std::fs::write(site.path("state/state.json"), state.to_string()).unwrap();
            }
            _ => {}
        }
        if round == 3 || round == 4 {
            // The seconds of a clock are what such a version is made of.
            let before = last.0;
            eventually("a later second", || {
                let now =
                    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
                (now.as_secs() > before).then_some(())
            });
        }
        let now = ask(&|_| {});
        assert!(now.0 > last.0, "round {round}: {} after {}", now.0, last.0);
        assert_eq!(now.1, last.1, "the same policy has the same tag");
        last = now;
    }
    assert!(last.0 > 1 << 50);
    // Other messages are another policy.
    let other = ask(&|c| c.reject_message = Some("Not now.".into()));
    assert!(other.0 > last.0 && other.1 != last.1);
}
