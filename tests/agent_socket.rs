//! The agent's socket: who has its path, and askers that mean no good.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod agent_support;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;

use agent_support::*;
use castkeep::agent::Agent;
use rustix::process::Signal;
use serde_json::json;

fn open(dir: &Temp) {
    dir.file("ssh.json", &policy(&[rule(any(), json!({}))]).to_string());
}

fn answers(dir: &Temp) {
    let verdict = decide(&dir.join("agent.sock"), json!({"sshUser": "root"}));
    assert_eq!(verdict["verdict"], "accept");
}

#[test]
fn everybody_may_ask_and_only_the_agent_sees_its_state() {
    let dir = Temp::new("modes");
    open(&dir);
    let agent = start(compiled(&dir));
    let mode = |path| std::fs::metadata(dir.join(path)).unwrap().permissions().mode() & 0o777;
    answers(&dir);
    assert_eq!((mode("agent.sock"), mode("state")), (0o666, 0o700));
    assert_eq!((mode("state/policy.json"), mode("state/notify")), (0o600, 0o700));
    drop(agent);
    assert!(!dir.join("agent.sock").exists(), "it takes its socket away");
}

#[test]
fn a_dead_agents_socket_is_taken_over_and_a_live_ones_is_not() {
    let dir = Temp::new("taken");
    open(&dir);
    let rules = dir.join("ssh.json");
    let args = ["--ssh-policy", rules.to_str().unwrap()];
    let agent = Process::start(&dir, &args);
    agent.signal(Signal::KILL);
    drop(agent);
    let left = std::fs::symlink_metadata(dir.join("agent.sock")).unwrap();
    assert!(left.file_type().is_socket(), "a dead agent leaves it");
    let mut agent = Process::start(&dir, &args);
    answers(&dir);
    // A second one: the state is taken, and with another state the socket is.
    let mut second = compiled(&dir);
    let text = Agent::start(second.clone()).unwrap_err().to_string();
    assert!(text.contains("another agent") && text.contains("state"), "{text}");
    second.state = dir.join("state2");
    let text = Agent::start(second).unwrap_err().to_string();
    assert!(text.contains("another agent") && text.contains("agent.sock"), "{text}");
    answers(&dir);
    agent.signal(Signal::TERM);
    assert_eq!(agent.wait(), Some(0));
}

#[test]
fn what_is_not_an_agents_is_left_alone() {
    let dir = Temp::new("other");
    open(&dir);
    let path = dir.join("agent.sock");
    std::fs::write(&path, "precious").unwrap();
    let text = Agent::start(compiled(&dir)).unwrap_err().to_string();
    assert!(text.contains("no socket"), "{text}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    std::fs::remove_file(&path).unwrap();
    let other = UnixListener::bind(&path).unwrap();
    let text = Agent::start(compiled(&dir)).unwrap_err().to_string();
    assert!(text.contains("another program"), "{text}");
    drop(other);
    let _agent = start(compiled(&dir));
    answers(&dir);
}

#[test]
fn half_requests_and_noise_are_told_so_and_hold_up_nobody() {
    let dir = Temp::new("half");
    open(&dir);
    let agent = start(compiled(&dir));
    let whole =
        "POST /castkeep/1/decide HTTP/1.1\r\nContent-Length: 18\r\n\r\n{\"sshUser\":\"root\"}";
    // Every beginning of a request, held open while others are served.
    let held: Vec<_> = (0..whole.len())
        .map(|end| {
            let mut stream = connect(agent.socket());
            stream.write_all(&whole.as_bytes()[..end]).unwrap();
            stream
        })
        .collect();
    answers(&dir);
    for mut stream in held {
        // An asker that gives up gets nothing, and takes nothing with it.
        stream.shutdown(Shutdown::Write).unwrap();
        let mut said = String::new();
        let _ = stream.read_to_string(&mut said);
        assert!(said.is_empty(), "{said}");
    }
    for (noise, wanted) in [
        ("\x16\x03\x01\x02\x00\x01\r\n\r\n".to_owned(), "400"),
        ("GET /castkeep/1/decide HTTP/1.1\r\n\r\n".to_owned(), "405"),
        (
            "POST /castkeep/1/decide HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
                .to_owned(),
            "411",
        ),
        (
            "POST /castkeep/1/decide HTTP/1.1\r\nContent-Length: 99999999999999\r\n\r\n".to_owned(),
            "413",
        ),
        ("POST /castkeep/1/decide HTTP/3.0\r\n\r\n".to_owned(), "505"),
        (format!("POST / HTTP/1.1\r\nA: {}\r\n\r\n", "a".repeat(20_000)), "431"),
    ] {
        let mut stream = connect(agent.socket());
        let _ = stream.write_all(noise.as_bytes());
        let mut said = String::new();
        let _ = stream.read_to_string(&mut said);
        assert!(said.starts_with(&format!("HTTP/1.1 {wanted} ")), "{wanted}: {said}");
    }
    answers(&dir);
}

#[test]
fn a_request_that_does_not_come_is_not_waited_for() {
    let dir = Temp::new("slow");
    open(&dir);
    let agent = start(compiled(&dir));
    let mut stream = connect(agent.socket());
    stream.write_all(b"POST /castkeep/1/decide HTTP/1.1\r\nContent-Length: 18\r\n\r\n{").unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    assert!(said.starts_with("HTTP/1.1 408 "), "{said}");
}

#[test]
fn a_flood_of_connections_is_bounded_and_passes() {
    let dir = Temp::new("flood");
    open(&dir);
    let agent = start(compiled(&dir));
    let mut held: Vec<_> = (0..1_100).map(|_| connect(agent.socket())).collect();
    // Those past the bound are told so at once.
    let mut refused = 0;
    for stream in held.iter_mut().rev().take(60) {
        let mut said = String::new();
        let _ = stream.read_to_string(&mut said);
        assert!(said.starts_with("HTTP/1.1 429 "), "{said}");
        refused += 1;
    }
    assert_eq!(refused, 60);
    drop(held);
    eventually("a place", || {
        let asked = ask(agent.socket(), &json!({"sshUser": "root"}));
        (asked.status == 200).then_some(())
    });
}

#[test]
fn the_program_says_what_is_missing() {
    let dir = Temp::new("usage");
    for (args, wanted) in [
        (&[][..], "where is the policy"),
        (&["--policy", "p", "--control", "https://c"][..], "three sources"),
        (&["--policy", "p"][..], "--nodes is missing"),
        (&["--control", "http://control.example"][..], "https://"),
        (&["--ssh-policy", "p", "--token-file", "t"][..], "--token-file is for --control"),
        (&["--control", "https://c", "--tls-cert", "/nonexistent/c"][..], "/nonexistent/c"),
        (&["--without-policy", "maybe", "--ssh-policy", "p"][..], "closed, open"),
    ] {
        let said = Process::try_start(&dir, args).err().expect("it does not start");
        assert!(said.contains(wanted), "{args:?}: {said}");
        assert!(!said.contains("internal error"), "{said}");
    }
}
