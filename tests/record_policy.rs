//! `castkeep record --policy`: who records, and whether at all, comes from an agent.
#![allow(missing_docs, clippy::disallowed_methods, clippy::disallowed_types)]

mod client_support;
mod policy_support;

use std::io::Read as _;
use std::process::{Command, Stdio};

use castkeep::client::{
    Client, ClientConfig, Decision, Metadata, PolicySource, Polled, Question, RecorderAddr, Start,
};
use client_support::disk::{CASTKEEP, Dir};
use client_support::{Manner, Recorder, join, tell};
use policy_support::Agent;
use std::time::Duration;

fn record(policy: &str, options: &[&str], command: &str) -> Command {
    let mut record = Command::new(CASTKEEP);
    record
        .args(["record", "--policy", policy])
        .args(options)
        .args(["--", "sh", "-c", command])
        .env("CASTKEEP_CONFIG", "")
        .env("SSH_CONNECTION", "100.64.0.5 40022 100.64.0.7 22")
        .stdin(Stdio::null());
    record
}

fn accept(recorders: &[&Recorder], more: &str) -> String {
    let named: Vec<_> =
        recorders.iter().map(|r| format!(r#"{{"address":"{}"}}"#, r.addr)).collect();
    format!(r#"{{"verdict":"accept","recorders":[{}]{more}}}"#, named.join(","))
}

const CLOSED: &str =
    r#","notify":true,"rejectMessage":"start is closed","terminateMessage":"middle is closed""#;

#[test]
fn the_agent_names_the_recorder_and_the_source() {
    let scratch = Dir::new();
    let recorder = Recorder::start(Manner::Good);
    let identity = r#","identity":{"node":"laptop","nodeID":"nA","user":"alice@example.com","userID":7,"by":"whois"}"#;
    let agent = Agent::start(scratch.0.as_path(), &accept(&[&recorder], identity));
    let output = record(&agent.address(), &[], "echo seen").output().unwrap();
    assert_eq!(output.stdout, b"seen\n");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(&format!("at {}", recorder.addr)), "{said}");
    let question = &agent.questions()[0];
    assert_eq!(
        (&question["sourceIP"], &question["sourcePort"]),
        (&"100.64.0.5".into(), &40022.into())
    );
    // What is only known by hearsay is not claimed to be a name.
    assert!(question.get("nodeID").is_none() && question.get("userLogin").is_none());
    let stream = join(&recorder.parts());
    assert_eq!(&*tell(&stream).output, "seen\n");
    let header = String::from_utf8_lossy(&stream).lines().next().unwrap().to_owned();
    assert!(header.contains(r#""srcNode":"laptop","srcNodeID":"nA""#), "{header}");
}

#[test]
fn a_refusal_is_shown_and_nothing_runs() {
    let scratch = Dir::new();
    let agent = Agent::start(scratch.0.as_path(), r#"{"verdict":"reject","message":"not you"}"#);
    let output = record(&agent.address(), &[], "echo run").output().unwrap();
    assert_eq!(output.status.code(), Some(254));
    assert_eq!((&*output.stdout, &*output.stderr), (&b""[..], &b"not you\n"[..]));
}

#[test]
fn without_an_agent_nobody_is_let_in_unless_that_was_said() {
    let scratch = Dir::new();
    let away = format!("unix:{}", scratch.0.join("none").display());
    let output = record(&away, &[], "echo run").output().unwrap();
    assert_eq!((output.status.code(), &*output.stdout), (Some(254), &b""[..]));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("policy"), "{said}");
    let recorder = Recorder::start(Manner::Good);
    let named = recorder.addr.to_string();
    let options = ["--policy-unreachable", "as-configured", "--recorders", &named];
    let output = record(&away, &options, "echo run").output().unwrap();
    assert_eq!((output.status.code(), &*output.stdout), (Some(0), &b"run\n"[..]));
    assert_eq!(&*tell(&join(&recorder.parts())).output, "run\n");
}

#[test]
fn a_session_ends_when_policy_says_so() {
    let scratch = Dir::new();
    let recorder = Recorder::start(Manner::Good);
    let agent = Agent::start(scratch.0.as_path(), &accept(&[&recorder], CLOSED));
    let mut child = record(&agent.address(), &["--quiet"], "echo before; exec sleep 600")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 7];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    agent.wait_watched();
    agent.say(r#"{"verdict":"reject","message":"Access revoked."}"#);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(254));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("Access revoked."), "{said}");
    let told = tell(&join(&recorder.parts()));
    assert_eq!(&*told.output, "before\n");
    assert!(told.markers.iter().any(|m| m == "castkeep:terminated"), "{:?}", told.markers);
}

#[test]
fn recorders_that_cannot_be_had_are_told_before_the_refusal() {
    let scratch = Dir::new();
    let recorder = Recorder::start(Manner::Good);
    let verdict = accept(&[&recorder], CLOSED);
    let addr = recorder.addr.to_string();
    recorder.kill();
    let agent = Agent::start(scratch.0.as_path(), &verdict);
    let output = record(&agent.address(), &[], "echo run").output().unwrap();
    assert_eq!(output.status.code(), Some(254));
    assert!(String::from_utf8_lossy(&output.stderr).contains("start is closed"));
    let notice = agent.notice();
    assert_eq!(
        (&notice["EventType"], &notice["RecordingAttempts"][0]["Recorder"]),
        (&1.into(), &addr.into())
    );
}

/// The same in both drivers, through the Rust interface.
#[test]
fn the_polled_driver_asks_as_well() {
    let scratch = Dir::new();
    let recorder = Recorder::start(Manner::Good);
    let agent = Agent::start(
        scratch.0.as_path(),
        &accept(&[&recorder], r#","message":"you are recorded""#),
    );
    let decision = |agent: &Agent| {
        let at = RecorderAddr::parse(&agent.address()).unwrap();
        let mut decision = Decision::open(Vec::new());
        let question = Question { ssh_user: "root".into(), ..Question::default() };
        decision.policy = Some(PolicySource::new(at, question).unwrap());
        decision
    };
    let mut polled = Polled::new(ClientConfig::default()).unwrap();
    let session = polled.open(Metadata::default(), &decision(&agent)).unwrap();
    let start = polled
        .wait_until(Duration::from_secs(60), |driver| {
            let (_, notice) = driver.next_event()?;
            Some(notice)
        })
        .unwrap();
    assert_eq!(start, Some(castkeep::client::Notice::Start { recorded: true }));
    assert_eq!(polled.banner(session), "you are recorded");
    polled.output(session, castkeep::client::Stream::Stdout, b"polled\n").unwrap();
    let outcome = polled.close(session, Duration::from_secs(60)).unwrap();
    assert_eq!(outcome, castkeep::client::Outcome::Complete);
    assert_eq!(&*tell(&join(&recorder.parts())).output, "polled\n");

    let client = Client::new(ClientConfig::default()).unwrap();
    let session = client.open(Metadata::default(), decision(&agent)).unwrap();
    assert_eq!(session.wait_start(Duration::from_secs(60)), Start::Recorded);
    assert_eq!(session.banner(), "you are recorded");
    assert_eq!(session.close(Duration::from_secs(60)), castkeep::client::Outcome::Complete);
}
