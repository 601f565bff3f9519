//! Events that nodes tell: on disk before they are answered, in order, passed on to a webhook.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

#[path = "control_support/mod.rs"]
mod support;

use castkeep::control::http_client::HttpClient;
use serde_json::{Value, json};
use support::*;

const NOTIFY: &str = "/castkeep/1/notify";

fn events(admin: &HttpClient, since: u64) -> Vec<Value> {
    let answer = get(admin, &format!("/castkeep/1/events?since={since}"));
    assert_eq!(answer.status, 200);
    let text = String::from_utf8(answer.body).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn an_event_is_on_disk_before_it_is_answered() {
    let site = Site::new("notify");
    let mut control = Program::control(&site, &[]);
    let web = site.client(control.address, "n2-node");
    for (n, kind) in [(1, 1), (2, 3), (3, 2)] {
        let answer = post(&web, NOTIFY, &event(kind, &format!("conn-{n}")));
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
    control.signal("KILL");
    control.wait();
    // Whoever went unrecorded is told aloud.
    let log = std::fs::read_to_string(&control.log).unwrap();
    let alerts: Vec<_> = log.lines().filter(|l| l.contains("ALERT")).collect();
    assert_eq!(alerts.len(), 1, "{log}");
    assert!(
        alerts[0].contains("conn-2") && alerts[0].contains("root") && alerts[0].contains("n2"),
        "{}",
        alerts[0]
    );

    let control = Program::control(&site, &[]);
    let (web, admin) =
        (site.client(control.address, "n2-node"), site.client(control.address, "ops-admin"));
    let kept = events(&admin, 0);
    let ids: Vec<_> = kept.iter().map(|e| e["event"]["ConnectionID"].as_str().unwrap()).collect();
    assert_eq!(ids, ["conn-1", "conn-2", "conn-3"]);
    assert_eq!(kept[1]["node"], "n2");
    assert_eq!(kept[1]["event"], event(3, "conn-2"), "nothing of it is lost");
    assert!(kept[1]["time"].as_str().unwrap().ends_with('Z'));
    // An answer that got lost: the node tells it again, and it is kept once.
    assert_eq!(post(&web, NOTIFY, &event(2, "conn-3")).status, 201);
    assert_eq!(post(&web, NOTIFY, &event(2, "conn-4")).status, 201);
    // An agent numbers its events, and says when it sends one again.
    let mut numbered = event(1, "conn-5");
    numbered["castkeepEvent"] = json!("ab-1");
    numbered["castkeepBreakGlass"] = json!(true);
    assert_eq!(post(&web, NOTIFY, &numbered).status, 201);
    numbered["castkeepResent"] = json!(true);
    assert_eq!(post(&web, NOTIFY, &numbered).status, 201);
    let numbers: Vec<_> = events(&admin, 2).iter().map(|e| e["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [3, 4, 5]);
    assert!(events(&admin, 5).is_empty());
}

#[test]
fn what_is_no_event_is_not_kept() {
    let site = Site::new("nonsense");
    let control = site.start();
    let (web, admin) =
        (site.client(control.address(), "n2-node"), site.client(control.address(), "ops-admin"));
    let mut odd = event(1, "c");
    odd["EventType"] = json!("1");
    for bad in [Value::Null, json!([]), json!({}), odd, json!({"EventType": 1, "ConnectionID": 7})]
    {
        assert_eq!(post(&web, NOTIFY, &bad).status, 400, "{bad}");
    }
    assert_eq!(web.post(NOTIFY, b"{\"EventType\":", GUARD, 1024).unwrap().status, 400);
    assert_eq!(get(&web, NOTIFY).status, 405);
    assert!(events(&admin, 0).is_empty());
    assert_eq!(get(&admin, "/castkeep/1/events?since=x").status, 400);
}

#[test]
fn text_of_a_node_does_not_write_the_log() {
    let site = Site::new("text");
    let control = Program::control(&site, &[]);
    let mut evil = event(1, "c\n2026-11-23T00:00:00.000Z ERROR ALERT forged\u{1b}[2J");
    evil["SSHUser"] = json!("r\u{202e}oot");
    let web = site.client(control.address, "n2-node");
    assert_eq!(post(&web, NOTIFY, &evil).status, 201);
    control.log_has("event 1");
    let log = std::fs::read_to_string(&control.log).unwrap();
    assert!(!log.lines().any(|l| l.starts_with("2026-11-23T00:00:00.000Z")), "{log}");
    assert!(!log.contains('\u{1b}'), "{log}");
}

#[test]
fn the_webhook_gets_every_event_in_order_when_it_is_back() {
    let site = Site::new("hook");
    let hook = Webhook::start();
    let control = site.start_with(|c| c.webhook = Some(hook.config()));
    let web = site.client(control.address(), "n2-node");
    assert_eq!(post(&web, NOTIFY, &event(3, "first")).status, 201);
    eventually("the first", || (hook.connections() == ["first"]).then_some(()));
    let text = hook.got.lock().unwrap()[0]["text"].as_str().unwrap().to_owned();
    assert!(text.contains("UNRECORDED") && text.contains("first") && text.contains("n2"), "{text}");

    // It is ill: events are taken all the same, and wait.
    hook.answers(503);
    for n in 0..20 {
        assert_eq!(post(&web, NOTIFY, &event(1, &format!("c{n}"))).status, 201);
    }
    let asked = hook.asked();
    eventually("attempts that fail", || (hook.asked() > asked + 3).then_some(()));
    drop(control);
    hook.answers(200);
    // Nothing is lost over a restart, and nothing comes twice that was taken.
    let control = site.start_with(|c| c.webhook = Some(hook.config()));
    let wanted: Vec<String> =
        std::iter::once("first".into()).chain((0..20).map(|n| format!("c{n}"))).collect();
    eventually("all of them", || (hook.connections().len() >= wanted.len()).then_some(()));
    assert_eq!(hook.connections(), wanted);
    assert_eq!(control.metric("webhook_lost_total"), 0);
    eventually("the count", || (control.metric("webhook_sent_total") == 20).then_some(()));
}

#[test]
fn an_event_that_the_webhook_never_wants_does_not_hold_up_the_others() {
    let site = Site::new("unwanted");
    let hook = Webhook::start();
    let control = site.start_with(|c| c.webhook = Some(hook.config()));
    let web = site.client(control.address(), "n2-node");
    hook.answers(400);
    assert_eq!(post(&web, NOTIFY, &event(1, "unwanted")).status, 201);
    eventually("the refusals", || (control.metric("webhook_lost_total") == 1).then_some(()));
    hook.answers(200);
    assert_eq!(post(&web, NOTIFY, &event(1, "wanted")).status, 201);
    eventually("the next", || (hook.connections() == ["wanted"]).then_some(()));
    let admin = site.client(control.address(), "ops-admin");
    assert_eq!(events(&admin, 0).len(), 2, "in the log it stays");
}

#[test]
fn the_event_log_has_an_end() {
    let site = Site::new("rotate");
    let control = site.start_with(|c| c.event_file_bytes = 4096);
    let (web, admin) =
        (site.client(control.address(), "n2-node"), site.client(control.address(), "n4-node"));
    drop(admin);
    let mut sent = 0;
    while sent < 150 {
        let answer = post(&web, NOTIFY, &event(1, &format!("c{sent}")));
        if answer.status == 429 {
            // Its own rate; a node spools and comes again.
            std::thread::sleep(std::time::Duration::from_millis(50));
            continue;
        }
        assert_eq!(answer.status, 201);
        sent += 1;
    }
    let kept = events(&site.client(control.address(), "ops-admin"), 0);
    assert_eq!(kept.last().unwrap()["number"], 150);
    assert!(kept.len() < 150 && kept.len() > 20, "{}", kept.len());
}
