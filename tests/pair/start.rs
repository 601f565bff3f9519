//! At the start, and the pairs of policies.

use castkeep::error::{Error, Link, PeerFault, Phase};
use castkeep::session::{AttemptText, Event, Reason, State};

use crate::recorder::Flavour::*;
use crate::sim::{Pair, Setup, ms, secs};

#[test]
fn records_and_seals_over_every_protocol() {
    for (flavour, http2, upgrade) in [
        (Castkeep, true, true),
        (Castkeep, false, true),
        (Castkeep, false, false),
        (StockV2, true, true),
        (StockV1, true, true),
        (StockV1, false, true),
    ] {
        let mut p = Setup { http2, upgrade, ..Setup::of(&[flavour]) }.closed().start();
        p.advance(ms(100));
        assert!(p.events.contains(&Event::Start { recorded: true }), "{flavour:?} {:?}", p.events);
        p.output(b"ls\r\n").advance(ms(20)).output(b"exit\r\n").end();
        assert_eq!(p.text(), "ls\r\nexit\r\n");
        assert_eq!(p.machine.state(), State::SessionComplete, "{flavour:?} {:?}", p.events);
        p.check_end();
        assert_eq!(p.markers(), ["exit 0"]);
    }
}

#[test]
fn one_part_and_one_accepted_upload_when_all_is_well() {
    let mut p = Setup::of(&[Castkeep, Castkeep]).start();
    p.advance(secs(3)).output(b"x").end();
    assert_eq!((p.recorders[0].parts.len(), p.recorders[1].parts.len()), (1, 0));
    assert_eq!(p.recorders[1].accepted, 0);
}

#[test]
fn nothing_to_record_is_over_at_once() {
    let mut p = Setup::of(&[]).closed().start();
    assert_eq!(p.events.iter().filter(|e| **e == Event::Start { recorded: false }).count(), 1);
    assert_eq!(p.machine.room(), usize::MAX);
    p.output(&[0; 100_000]).end();
    assert_eq!(p.machine.state(), State::SessionComplete);
    assert!(p.events.contains(&Event::Finished));
}

#[test]
fn the_first_that_accepts_wins_and_the_others_get_no_body() {
    let mut p = Pair::with(Setup::of(&[Castkeep; 4]).closed(), |r| {
        r[0].hole = true;
        r[1].alive = false;
        r[2].refuse = Some(503);
    });
    p.advance(ms(990));
    assert_eq!(p.machine.state(), State::TryPrimary);
    p.advance(ms(100));
    assert_eq!(p.machine.stats().recorder, Some(3), "{:?}", p.events);
    assert!(p.has(State::TryFailover));
    p.hole(0, false).output(b"x").end();
    assert!(p.recorders[..3].iter().all(|r| r.bytes == 0));
    let attempts: Vec<_> = p
        .events
        .iter()
        .filter_map(|e| match e {
            Event::Attempt { recorder, error } => Some((*recorder, *error)),
            _ => None,
        })
        .collect();
    let refused = Error::Peer(PeerFault::Status(503));
    let gone = Some(Error::Link(Link::Unreachable));
    assert_eq!(attempts, [(1, gone), (2, Some(refused)), (3, None)]);
    let text = AttemptText { authority: "100.64.0.2:80", error: refused }.to_string();
    assert!(text.ends_with("recording: unexpected status: 503 Service Unavailable"), "{text}");
}

#[test]
fn two_addresses_of_one_recorder_do_not_supersede_each_other() {
    let setup = Setup { groups: Some(vec![5, 5]), ..Setup::of(&[Castkeep, Castkeep]) }.closed();
    let mut p = Pair::with(setup, |r| r[0].latency = ms(1200));
    p.advance(secs(10)).output(b"x\r\n").end();
    assert_eq!(p.machine.state(), State::SessionComplete);
    assert_eq!(p.machine.stats().attempts, 1);
}

#[test]
fn four_black_holes_do_not_hide_the_fifth() {
    let mut p = Pair::with(Setup::of(&[Castkeep; 5]).closed(), |r| {
        r[..4].iter_mut().for_each(|r| r.hole = true);
    });
    p.advance(secs(6));
    assert_eq!(p.machine.stats().recorder, Some(4), "{:?}", p.events);
}

#[test]
fn all_together_have_thirty_seconds() {
    let mut p = Pair::with(Setup::of(&[Castkeep; 32]).closed(), |r| {
        r.iter_mut().for_each(|r| r.hole = true);
    });
    p.advance(ms(29_900));
    assert_eq!(p.machine.state(), State::TryFailover);
    p.advance(ms(200));
    assert_eq!(p.machine.state(), State::SessionRejected);
    assert_eq!(p.reasons(State::RecordingFailed), [Reason::TimedOut(Phase::Start)]);
}

#[test]
fn a_mute_peer_costs_the_probe_and_the_accept_and_no_more() {
    // It takes the connection and never says a word: probe, then v1.
    let mut p = Pair::with(Setup::of(&[Castkeep]).closed(), |_| {});
    p.advance(ms(3)).hole(0, true);
    p.advance(ms(29_000));
    assert!(p.machine.state() == State::SessionRejected, "{:?}", p.events);
}

/// All four pairs of reject and terminate, with the loss at the start, in the middle, while draining.
#[test]
fn every_pair_of_policies() {
    for (reject, terminate) in [(false, false), (false, true), (true, false), (true, true)] {
        let setup = || Setup { reject, terminate, ..Setup::default() };
        // At the start.
        let mut p = Pair::with(setup(), |r| r.iter_mut().for_each(|r| r.alive = false));
        p.advance(secs(2));
        if reject {
            assert_eq!(p.machine.state(), State::SessionRejected);
            assert_eq!(p.machine.message(), crate::sim::REJECT);
            assert!(!p.events.iter().any(|e| matches!(e, Event::Start { .. })));
        } else {
            assert!(p.has(State::SessionAllowed));
            assert!(p.events.contains(&Event::Start { recorded: false }));
            // A recorder comes back: nothing of what fits the ring is lost, and from then on the middle policy applies.
            p.output(b"early\r\n").restart(1).advance(secs(35));
            assert_eq!(p.machine.state(), State::Streaming);
            p.kill(1).advance(secs(17));
            assert_eq!(p.has(State::SessionTerminated), terminate);
            assert_eq!(p.has(State::ContinueUnrecorded), !terminate);
            p.restart(1).advance(secs(40)).end();
            assert!(p.text().starts_with("early\r\n") || p.text().is_empty());
        }
        // In the middle.
        let mut p = setup().start();
        p.advance(ms(50)).output(b"one\r\n").kill(0).kill(1).advance(secs(16));
        assert_eq!(p.has(State::SessionTerminated), terminate);
        assert_eq!(p.has(State::ContinueUnrecorded), !terminate);
        if terminate {
            assert!(p.events.iter().any(|e| matches!(e, Event::Terminated { .. })));
            assert_eq!(p.machine.message(), crate::sim::TERMINATE);
        }
        p.end();
        assert_eq!(p.machine.state(), State::Incomplete);
        // While draining: the program is gone, there is nothing to refuse or end.
        let mut p = setup().start();
        p.advance(ms(50)).output(b"one\r\n").exit().hole(0, true).hole(1, true).finish();
        assert_eq!(p.machine.state(), State::Draining);
        p.advance(secs(5));
        assert_eq!(p.machine.state(), State::Incomplete);
        assert!(matches!(p.events.last(), Some(Event::Incomplete { bytes }) if *bytes > 0));
        // While draining, with another one.
        let mut p = setup().start();
        p.advance(ms(50)).output(b"one\r\n").exit().finish().kill(0).advance(secs(5));
        assert_eq!(p.machine.state(), State::SessionComplete, "{:?}", p.events);
        assert_eq!(p.text(), "one\r\n");
    }
}

#[test]
fn open_starts_after_the_stall_limit_and_goes_on_connecting() {
    let mut p = Pair::with(Setup::default(), |r| r[0].latency = ms(1500));
    p.recorders[1].alive = false;
    p.advance(ms(990));
    assert!(!p.events.iter().any(|e| matches!(e, Event::Start { .. })));
    p.advance(ms(20));
    assert!(p.events.contains(&Event::Start { recorded: false }));
    p.output(b"one\r\n").advance(secs(12)).end();
    assert_eq!(p.machine.state(), State::SessionComplete, "{:?}", p.events);
    assert_eq!(p.text(), "one\r\n");
}

#[test]
fn a_size_before_the_start_stands_in_the_header() {
    let mut p = Setup::default().closed().start();
    p.machine.resize(p.now, 132, 50);
    p.advance(ms(50)).end();
    let header = p.union(false);
    let header =
        castkeep::cast::Header::parse(header.split(|b| *b == b'\n').next().unwrap()).unwrap();
    assert_eq!((header.width, header.height), (132, 50));
}

#[test]
fn abandon_ends_at_once() {
    let mut p = Setup::default().closed().start();
    p.advance(ms(50)).output(b"one\r\n");
    p.machine.abandon(p.now);
    p.pump();
    assert_eq!(p.machine.state(), State::Incomplete);
    assert_eq!(p.machine.poll_timeout(), None);
}
