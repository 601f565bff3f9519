//! Sessions that ask who records them.

use castkeep::session::{Event, State};

use crate::recorder::Flavour::Castkeep;
use crate::sim::{Pair, Setup, ms, secs};

const UNREACHABLE: &str = "no policy, no session";

/// A verdict that names the first `n` recorders.
fn accept(n: usize, more: &str) -> String {
    let named: Vec<_> =
        (0..n).map(|i| format!(r#"{{"address":"100.64.0.{i}:80","group":{i}}}"#)).collect();
    format!(r#"{{"version":1,"verdict":"accept","recorders":[{}]{more}}}"#, named.join(","))
}

const CLOSED: &str = r#","rejectMessage":"start is closed","terminateMessage":"middle is closed""#;

fn asking(n: usize, verdict: Option<&str>) -> Setup {
    Setup {
        policy: Some((verdict.map(str::to_owned), Some(UNREACHABLE.into()))),
        ..Setup::of(&vec![Castkeep; n])
    }
}

#[test]
fn a_verdict_names_the_recorders_and_who_the_source_is() {
    let identity = r#","message":"recorded!","identity":{"node":"laptop","nodeID":"nA","tags":[],"userID":7,"user":"alice@example.com","by":"whois"}"#;
    let mut p = asking(2, Some(&accept(2, identity))).start();
    p.advance(ms(100));
    assert!(p.events.contains(&Event::Start { recorded: true }), "{:?}", p.events);
    assert_eq!(p.machine.banner(), "recorded!");
    assert_eq!(p.agent().questions[0]["watch"], true);
    p.output(b"ls\r\n").end();
    p.check_end();
    let first = String::from_utf8(p.union(true)).unwrap();
    let header = first.lines().next().unwrap();
    for said in [
        r#""srcNode":"laptop""#,
        r#""srcNodeID":"nA""#,
        r#""sourceBy":"whois""#,
        r#""srcNodeUserID":7"#,
        r#""srcNodeUser":"alice@example.com""#,
    ] {
        assert!(header.contains(said), "{header}");
    }
}

#[test]
fn a_verdict_can_refuse_or_let_through_unrecorded() {
    let mut p = asking(1, Some(r#"{"verdict":"reject","message":"not you"}"#)).start();
    p.advance(ms(100));
    assert_eq!((p.machine.state(), p.machine.message()), (State::SessionRejected, "not you"));
    let mut p = asking(1, Some(&accept(0, r#","record":false"#))).start();
    p.advance(ms(100));
    assert_eq!(p.machine.state(), State::NoRecording);
    assert_eq!(p.machine.room(), usize::MAX);
    p.output(b"free").end();
    assert_eq!(p.machine.state(), State::SessionComplete);
    assert_eq!(p.recorders[0].accepted, 0);
}

#[test]
fn without_a_verdict_the_stated_choice_holds() {
    for silent in [true, false] {
        let mut p = asking(1, None).closed().start_with_agent(|a| a.alive = silent);
        p.advance(secs(4));
        assert_eq!(p.machine.state(), State::CheckPolicy);
        assert_eq!(p.machine.room(), 0);
        p.advance(secs(2));
        assert_eq!((p.machine.state(), p.machine.message()), (State::SessionRejected, UNREACHABLE));
    }
    // The other choice: what is configured.
    let mut p = Setup { policy: Some((None, None)), ..Setup::of(&[Castkeep]) }.start();
    p.advance(secs(6)).output(b"x").end();
    assert_eq!(p.recorders[0].accepted, 1);
    p.check_end();
}

#[test]
fn an_agent_that_comes_late_is_in_time() {
    let mut p = asking(1, Some(&accept(1, CLOSED))).start_with_agent(|a| a.alive = false);
    p.advance(secs(2));
    p.agent_mut().alive = true;
    p.advance(secs(2));
    assert_eq!(p.machine.state(), State::Streaming, "{:?}", p.events);
    p.output(b"x").end();
    p.check_end();
}

#[test]
fn an_agent_that_dies_does_not_touch_a_session_and_is_asked_again() {
    let mut p = asking(1, Some(&accept(1, CLOSED))).start();
    p.advance(ms(100)).output(b"one");
    p.agent_mut().die();
    p.advance(secs(40)).output(b"two");
    assert_eq!(p.machine.state(), State::Streaming);
    p.agent_mut().alive = true;
    p.advance(secs(60));
    assert_eq!(p.agent().questions.len(), 2);
    p.say(r#"{"verdict":"reject","message":"Access revoked."}"#);
    assert!(p.has(State::SessionTerminated), "{:?}", p.events);
    p.advance(secs(6));
    assert_eq!(p.machine.message(), "Access revoked.");
    assert_eq!(p.machine.state(), State::SessionComplete, "{:?}", p.events);
    assert_eq!(p.text(), "onetwo");
    assert_eq!(p.markers(), ["castkeep:terminated", "castkeep:signal HUP", "exit 129"]);
}

#[test]
fn a_change_of_policy_ends_what_it_does_not_let_go_on() {
    // What is not recorded can be revoked as well.
    let mut p = asking(1, Some(&accept(0, r#","record":false"#))).start();
    p.advance(ms(100));
    p.say(r#"{"verdict":"reject"}"#);
    p.advance(secs(1));
    assert!(p.events.iter().any(|e| matches!(e, Event::Terminated { bytes: 0 })), "{:?}", p.events);
    assert_eq!(
        (p.machine.state(), p.machine.message()),
        (State::SessionComplete, "Access revoked.")
    );
    // Another list of recorders does not touch a session that has one.
    let mut p = asking(2, Some(&accept(1, CLOSED))).start();
    p.advance(ms(100)).output(b"x");
    p.say(&accept(2, CLOSED));
    p.advance(secs(1));
    assert_eq!(p.machine.stats().recorder, Some(0));
    // But it is there when the old one dies.
    p.kill(0).advance(secs(5));
    assert_eq!(p.machine.stats().recorder, Some(1), "{:?}", p.events);
    p.end();
    p.check_end();
}

#[test]
fn another_local_user_is_no_permission() {
    let mut p = asking(1, Some(&accept(1, r#","localUser":"nobody""#))).start();
    p.advance(ms(100));
    assert_eq!(p.machine.state(), State::SessionRejected);
}

#[test]
fn a_session_that_may_last_so_long_ends_then() {
    let mut p = asking(1, Some(&accept(1, r#","sessionSeconds":90"#))).start();
    p.advance(secs(89)).output(b"x");
    assert_eq!(p.machine.state(), State::Streaming);
    p.advance(secs(10));
    assert_eq!(p.machine.message(), "Session timeout of 1m30s elapsed.");
    assert_eq!(p.machine.state(), State::SessionComplete);
}

#[test]
fn a_recorder_that_is_wanted_and_not_there_is_a_failure_and_is_told() {
    let mut p = asking(0, Some(&accept(0, &format!(r#","notify":true{CLOSED}"#)))).start();
    p.advance(ms(100));
    assert_eq!(
        (p.machine.state(), p.machine.message()),
        (State::SessionRejected, "start is closed")
    );
    assert_eq!(p.agent().notices[0]["EventType"], 1);
    let mut p = asking(1, Some(&accept(0, r#","notify":true,"breakGlass":true"#))).start();
    p.advance(ms(100));
    assert_eq!(p.machine.state(), State::SessionAllowed);
    assert_eq!(p.agent().notices[0]["EventType"], 3);
    assert_eq!(p.agent().notices[0]["castkeepBreakGlass"], true);
    // One that is announced later is used.
    p.output(b"unseen ");
    p.say(&accept(1, ""));
    p.advance(secs(40)).output(b"seen").end();
    assert_eq!(p.recorders[0].accepted, 1, "{:?}", p.events);
}

#[test]
fn failures_are_told_with_all_attempts() {
    // At the start: every recorder refuses.
    let verdict = accept(2, &format!(r#","notify":true{CLOSED}"#));
    let mut p = Pair::with(asking(2, Some(&verdict)), |r| {
        r[0].alive = false;
        r[1].refuse = Some(503);
    });
    p.advance(secs(2));
    assert_eq!(p.machine.state(), State::SessionRejected, "{:?}", p.events);
    let told = &p.agent().notices;
    assert_eq!((told.len(), told[0]["EventType"].as_u64()), (1, Some(1)));
    let attempts = told[0]["RecordingAttempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 2, "{attempts:?}");
    assert_eq!(attempts[0]["Recorder"], "100.64.0.0:80");
    let text = attempts[1]["FailureMessage"].as_str().unwrap();
    assert!(text.contains("unexpected status: 503"), "{text}");
    // In the middle.
    let verdict = accept(1, &format!(r#","notify":true{CLOSED}"#));
    let mut p = asking(1, Some(&verdict)).start();
    p.advance(ms(100)).output(b"x");
    p.kill(0).advance(secs(30));
    let told = &p.agent().notices;
    assert_eq!(told[0]["EventType"], 2, "{told:?}");
    let attempts = told[0]["RecordingAttempts"].as_array().unwrap();
    assert!(!attempts.last().unwrap()["FailureMessage"].as_str().unwrap().is_empty());
}

#[test]
fn a_refusal_waits_for_its_notice_and_not_for_long() {
    let verdict = accept(1, &format!(r#","notify":true{CLOSED}"#));
    let mut p = Pair::with_agent(
        asking(1, Some(&verdict)),
        |r| r[0].alive = false,
        |a| a.notice_status = 0,
    );
    p.advance(ms(500));
    assert_eq!(p.machine.state(), State::RecordingFailed, "{:?}", p.events);
    p.advance(secs(1));
    assert_eq!(p.machine.state(), State::SessionRejected);
    // What could not be taken is told again.
    let open = accept(1, r#","notify":true"#);
    let mut p =
        Pair::with_agent(asking(1, Some(&open)), |r| r[0].alive = false, |a| a.notice_status = 503);
    p.advance(secs(3));
    p.agent_mut().notice_status = 201;
    p.advance(secs(20));
    assert_eq!(p.agent().notices.len(), 1);
}

#[test]
fn nonsense_from_an_agent_is_no_verdict() {
    for bad in ["", "{}", "nonsense", r#"{"verdict":"accept","recorders":7}"#] {
        let mut p = asking(1, Some(bad)).start();
        p.advance(secs(6));
        assert_eq!(p.machine.message(), UNREACHABLE, "{bad}");
    }
}
