//! `castkeep control` as a process: start-up, clear errors, signals.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

#[path = "control_support/mod.rs"]
mod support;

use support::*;

#[test]
fn it_does_not_start_in_a_way_that_gives_secrets_away() {
    let site = Site::new("secrets");
    let path = |name: &str| shown(&site.path(name));
    let (policy, nodes, state, tokens) =
        (path("policy.hujson"), path("nodes.json"), path("state"), path("tokens.json"));
    let base = ["control", "--policy", &policy, "--nodes", &nodes, "--state", &state];
    let with = |more: &[&str]| ends(&[&base[..], more].concat());
    let (status, error) = with(&["--listen", "127.0.0.1:0"]);
    assert_eq!(status, Some(1));
    assert!(error.contains("--tokens") && error.contains("--client-ca"), "{error}");
    let (status, error) =
        with(&["--listen", "127.0.0.1:0", "--listen", "0.0.0.0:0", "--tokens", &tokens]);
    assert_eq!(status, Some(1));
    assert!(error.contains("0.0.0.0:0") && error.contains("--tls-cert"), "{error}");
    let (status, error) = with(&["--tokens", &tokens, "--webhook", "http://192.0.2.1/hook"]);
    assert_eq!(status, Some(1));
    assert!(error.contains("clear text"), "{error}");
    let (status, error) = with(&["--tokens", &tokens, "--client-ca", "x"]);
    assert_eq!(status, Some(2));
    assert!(error.contains("--tls-cert"), "{error}");
    let (status, error) = ends(&["control", "--policy", &policy]);
    assert_eq!(status, Some(2));
    assert!(error.contains("--nodes"), "{error}");
    assert!(!site.path("state").join("state.json").exists(), "nothing was begun");
}

#[test]
fn signals_reload_and_end_it() {
    let site = Site::new("signals");
    let mut control = Program::control(&site, &[]);
    let web = site.client(control.address, "n2-node");
    let first = get(&web, "/castkeep/1/policy");
    let waiting = poll(&web, first.etag.as_deref().unwrap());
    site.edit("policy.hujson", "\"users\": [\"root\"]", "\"users\": [\"root\", \"deploy\"]");
    control.signal("HUP");
    let changed = waiting.join().unwrap().unwrap();
    assert_eq!(changed.status, 200);
    assert!(version(&changed) > version(&first));
    // A broken one is named with its place, and changes nothing.
    site.write("policy.hujson", "{\n  \"ssh\": [{\"acton\": \"accept\"}]\n}\n");
    control.signal("HUP");
    control.log_has("policy.hujson:2:");
    control.log_has("stays in force");
    assert_eq!(get(&web, "/castkeep/1/policy").etag, changed.etag);
    control.signal("TERM");
    assert_eq!(control.wait().code(), Some(0));
}
