//! In the middle of a session: loss, failover, resume, drain, deadlines, lies.

use castkeep::cast::Stream;
use castkeep::error::{Error, Link, PeerFault, Phase};
use castkeep::session::{Deadlines, Event, Reason, Release, State};
use castkeep::time::Span;

use crate::recorder::{Flavour::*, Lie};
use crate::sim::{Pair, Setup, lines, ms, secs};

#[test]
fn a_dead_recorder_loses_nothing() {
    let mut p = Setup::default().closed().start();
    p.advance(ms(50)).output(b"ls\r\n").advance(ms(1));
    p.kill(0).advance(ms(400));
    assert_eq!(p.machine.state(), State::Streaming, "{:?}", p.events);
    p.output(b"exit\r\n").end();
    assert_eq!(p.machine.stats().recorder, Some(1), "where it ended");
    assert_eq!(p.text(), "ls\r\nexit\r\n");
    assert_eq!(p.machine.state(), State::SessionComplete);
    assert_eq!(p.reasons(State::ConnectionLost), [Reason::Lost(Error::Link(Link::Reset))]);
    p.check_end();
}

#[test]
fn cut_at_every_place_of_the_upload() {
    for after in 1..400 {
        let mut p = Setup::default().closed().start();
        p.advance(ms(50)).cut_after(0, after);
        for i in 0..20 {
            p.output(format!("line {i}\r\n").as_bytes()).advance(ms(3));
        }
        p.advance(secs(1)).end();
        assert_eq!(p.machine.state(), State::SessionComplete, "{after} {:?}", p.events);
        assert_eq!(p.text(), lines(20));
        p.check_end();
    }
}

#[test]
fn cut_at_every_place_of_the_answer() {
    for http2 in [true, false] {
        for after in (1..400).step_by(3) {
            let mut p = Setup { http2, ..Setup::default() }.closed().start();
            p.advance(ms(50)).cut_answer_after(0, after);
            for i in 0..20 {
                p.output(format!("line {i}\r\n").as_bytes()).advance(ms(3));
            }
            p.advance(secs(1)).end();
            assert_eq!(p.machine.state(), State::SessionComplete, "{after} {:?}", p.events);
            assert_eq!(p.text(), lines(20));
            p.check_end();
        }
    }
}

#[test]
fn a_cut_recorder_resumes_the_same_part_when_it_is_the_only_one() {
    let mut p = Setup::of(&[Castkeep]).closed().start();
    p.advance(ms(50)).output(b"one\r\n").advance(ms(50));
    p.cut(0).advance(ms(500)).output(b"two\r\n").end();
    assert_eq!(p.machine.state(), State::SessionComplete);
    assert_eq!(p.recorders[0].parts.len(), 1);
    assert_eq!(p.text(), "one\r\ntwo\r\n");
    p.check_end();
}

#[test]
fn a_black_hole_is_noticed_and_the_late_bytes_do_no_harm() {
    let mut p = Setup::default().closed().start();
    p.advance(ms(50)).hole(0, true).output(b"one\r\n");
    p.advance(ms(2900));
    assert_eq!(p.machine.state(), State::Streaming);
    p.advance(ms(400));
    assert_eq!(p.reasons(State::ConnectionLost), [Reason::Lost(Error::TimedOut(Phase::Ack))]);
    assert_eq!(p.machine.stats().recorder, Some(1));
    p.hole(0, false).advance(secs(1)).output(b"two\r\n").end();
    assert_eq!(p.machine.state(), State::SessionComplete);
    assert_eq!(p.text(), "one\r\ntwo\r\n");
    p.check_end();
}

#[test]
fn a_hung_disk_that_still_acks_is_noticed() {
    let mut p = Setup::default().closed().start();
    p.advance(ms(50));
    p.recorders[0].disk_hangs = true;
    p.output(b"one\r\n").advance(ms(9900));
    assert_eq!(p.machine.state(), State::Streaming, "{:?}", p.events);
    p.advance(ms(300));
    assert_eq!(p.reasons(State::ConnectionLost), [Reason::Lost(Error::TimedOut(Phase::Progress))]);
    p.end();
    assert_eq!(p.machine.state(), State::SessionComplete);
    assert_eq!(p.text(), "one\r\n");
}

#[test]
fn acks_without_commit_everywhere_end_a_closed_session() {
    let mut p = Pair::with(Setup::default().closed(), |r| {
        r.iter_mut().for_each(|r| r.disk_hangs = true);
    });
    p.advance(ms(50)).output(b"one\r\n").advance(secs(40));
    assert!(p.has(State::SessionTerminated), "{:?}", p.events);
    assert!(p.machine.state().is_end());
}

#[test]
fn accept_and_die_for_ever_ends_a_closed_session() {
    let mut p = Setup::default().closed().start();
    p.advance(ms(50));
    p.recorders.iter_mut().for_each(|r| {
        r.die_after = Some(1);
        r.disk_hangs = true;
    });
    for i in 0..100 {
        p.output(format!("line {i}\r\n").as_bytes()).advance(ms(300));
    }
    assert!(p.has(State::SessionTerminated), "{:?}", p.machine.stats());
    assert!(p.machine.stats().attempts < 100, "{:?}", p.machine.stats());
    p.advance(secs(40));
    assert!(p.machine.state().is_end());
}

#[test]
fn half_close_is_a_loss() {
    for http2 in [true, false] {
        let mut p = Setup { http2, ..Setup::default() }.closed().start();
        p.advance(ms(50))
            .output(b"one\r\n")
            .half_close(0)
            .advance(ms(300))
            .output(b"two\r\n")
            .end();
        assert!(p.has(State::ConnectionLost));
        assert_eq!(p.machine.state(), State::SessionComplete);
        assert_eq!(p.text(), "one\r\ntwo\r\n");
        p.check_end();
    }
}

#[test]
fn drain_moves_with_the_new_connection_first() {
    for http2 in [true, false] {
        let mut p = Setup { http2, ..Setup::default() }.closed().start();
        p.advance(ms(50)).output(b"one\r\n").advance(ms(50));
        p.drain(0).advance(ms(1500)).output(b"two\r\n").advance(ms(50));
        assert_eq!(p.machine.stats().recorder, Some(1), "{:?}", p.events);
        assert!(!p.has(State::ConnectionLost));
        assert!(p.recorders[0].parts[0].sealed);
        p.end();
        assert_eq!(p.machine.state(), State::SessionComplete);
        assert_eq!(p.text(), "one\r\ntwo\r\n");
        assert_eq!(p.longest_hold, Span(0), "nobody was held");
        p.check_end();
    }
}

#[test]
fn drain_with_nowhere_to_go_stays() {
    let mut p = Setup::of(&[Castkeep]).closed().start();
    p.advance(ms(50)).drain(0).output(b"one\r\n").advance(secs(5)).output(b"two\r\n").end();
    assert_eq!(p.machine.state(), State::SessionComplete, "{:?}", p.events);
    assert_eq!(p.text(), "one\r\ntwo\r\n");
}

#[test]
fn lies_are_a_loss_with_their_own_reason() {
    for (lie, state) in [(Lie::CommitBeyond, State::Streaming), (Lie::SealedWrong, State::Draining)]
    {
        let mut p = Setup::default().closed().start();
        p.recorders[0].lie = lie;
        p.advance(ms(50)).output(b"one\r\n").advance(ms(500)).end();
        let lost = Reason::Lost(Error::Peer(PeerFault::CommitOutOfRange));
        assert_eq!(p.reasons(State::ConnectionLost), [lost], "{lie:?}");
        let from = |e: &&Event| matches!(e, Event::Transition { from, to: State::ConnectionLost, .. } if *from == state);
        assert_eq!(p.events.iter().filter(from).count(), 1);
        assert_eq!(p.machine.state(), State::SessionComplete);
        assert_eq!(p.machine.stats().committed, p.machine.stats().encoded);
        assert_eq!(p.text(), "one\r\n");
    }
    let mut p = Pair::with(Setup::default().closed(), |r| r[0].lie = Lie::AcceptBeyond);
    p.advance(ms(500)).output(b"one\r\n").end();
    assert_eq!(p.text(), "one\r\n");
    assert_eq!(p.recorders[0].bytes, 0);
}

#[test]
fn what_a_recorder_reports_is_told_with_its_text() {
    for (text, fault) in [
        ("conflict at 300", PeerFault::Conflict),
        ("superseded", PeerFault::Superseded),
        ("disk full: /var", PeerFault::Reported),
    ] {
        let mut p = Setup::default().closed().start();
        p.advance(ms(50));
        p.recorders[0].fail_with = Some(text);
        p.output(b"one\r\n").advance(ms(500));
        assert_eq!(p.reasons(State::ConnectionLost), [Reason::Lost(Error::Peer(fault))]);
        assert_eq!(p.machine.peer_text(), text);
        p.end();
        assert_eq!(p.text(), "one\r\n");
    }
}

#[test]
fn two_live_connections_of_one_recording_end_as_one() {
    // The only recorder disappears, the client comes back on a new connection, and then the old one wakes up.
    let mut p = Setup::of(&[Castkeep]).closed().start();
    p.advance(ms(50)).output(b"one\r\n").advance(ms(50)).hole(0, true).output(b"two\r\n");
    p.advance(secs(5));
    assert_eq!(p.machine.state(), State::Resuming);
    p.hole(0, false).advance(secs(6)).output(b"three\r\n").end();
    assert_eq!(p.machine.state(), State::SessionComplete, "{:?}", p.events);
    assert_eq!(p.recorders[0].supersessions, 1);
    assert_eq!(p.text(), "one\r\ntwo\r\nthree\r\n");
    p.check_end();
}

#[test]
fn refusals_in_the_middle_go_to_the_next_recorder() {
    for status in [403, 409, 429, 503] {
        for http2 in [true, false] {
            let mut p = Setup { http2, ..Setup::of(&[Castkeep; 3]) }.closed().start();
            p.advance(ms(50)).output(b"one\r\n");
            p.recorders[1].refuse = Some(status);
            p.kill(0).advance(ms(500));
            assert_eq!(p.machine.stats().recorder, Some(2));
            let refused = Some(Error::Peer(PeerFault::Status(status)));
            assert!(p.events.contains(&Event::Attempt { recorder: 1, error: refused }));
            p.end();
            assert_eq!(p.text(), "one\r\n");
        }
    }
}

#[test]
fn from_a_castkeep_recorder_to_stock_and_back() {
    for (other, reps) in [(StockV1, 0..40u32), (StockV2, 0..40)] {
        for at in reps {
            let mut p = Setup::of(&[Castkeep, other, Castkeep]).closed().start();
            p.recorders[2].alive = false;
            p.advance(ms(50));
            for i in 0..30 {
                if i == at / 2 {
                    p.kill(0);
                }
                if i == 10 + at / 4 {
                    // Only the connection: what stock said it received is there.
                    p.restart(2).restart(0).cut(1);
                }
                p.output(format!("line {i}\r\n").as_bytes()).advance(ms(at as u64 % 7));
            }
            p.advance(secs(2)).end();
            assert_eq!(p.machine.state(), State::SessionComplete, "{other:?} {at} {:?}", p.events);
            assert_eq!(p.text(), lines(30), "{other:?} {at}");
            p.check_end();
        }
    }
}

#[test]
fn the_whole_ring_is_replayed_after_v1() {
    let mut p = Setup::of(&[StockV1, Castkeep]).closed().start();
    p.recorders[1].refuse = Some(503);
    p.advance(ms(50));
    for i in 0..3000 {
        p.output(format!("line {i}\r\n").as_bytes()).advance(ms(1));
    }
    let before = p.machine.stats();
    p.recorders[1].refuse = None;
    p.cut(0).advance(secs(1));
    assert_eq!(p.machine.stats().recorder, Some(1), "{:?}", p.events);
    let (from, data) = p.recorders[1].parts[0].stream(true);
    assert!(data.len() > 50_000, "{} bytes from {from} of {before:?}", data.len());
    assert!(from > 0);
    p.end();
    assert_eq!(p.machine.state(), State::SessionComplete);
    assert_eq!(p.text(), lines(3000));
    p.check_end();
}

#[test]
fn a_peer_that_spoke_v2_is_never_spoken_to_in_v1() {
    let mut p = Setup::of(&[StockV2]).closed().start();
    p.advance(ms(50)).output(b"one\r\n").advance(ms(50));
    p.recorders[0].flavour = StockV1;
    p.cut(0).advance(secs(16));
    assert!(p.has(State::SessionTerminated));
    assert_eq!(p.recorders[0].accepted, 1);
}

#[test]
fn order_of_the_search_and_no_way_back_to_the_primary() {
    let mut p = Setup::of(&[Castkeep, Castkeep, Castkeep]).closed().start();
    p.advance(ms(50)).kill(0).advance(ms(200)).restart(0);
    p.output(b"one\r\n").advance(secs(30));
    assert_eq!(p.machine.stats().recorder, Some(1), "it stays");
    p.kill(1).advance(ms(200));
    assert_eq!(p.machine.stats().recorder, Some(2));
    p.kill(2).advance(ms(200));
    assert_eq!(p.machine.stats().recorder, Some(0), "the only one left");
    p.output(b"two\r\n").end();
    assert_eq!(p.machine.state(), State::SessionComplete);
}

#[test]
fn a_full_ring_stops_a_closed_session_and_drops_nothing() {
    let mut p = Setup::default().closed().start();
    p.advance(ms(50)).hole(0, true);
    for _ in 0..100 {
        p.output(&[b'x'; 4000]);
    }
    p.advance(secs(1));
    let taken = p.machine.stats().stdout;
    assert!(taken < 64 * 1024 && taken > 30_000, "{taken}");
    assert_eq!(p.machine.room(), 0);
    p.advance(secs(5)).end();
    assert_eq!(p.machine.stats().unrecorded, 0);
    p.check_end();
}

#[test]
fn open_never_holds_the_user_and_writes_one_gap() {
    let mut p = Setup::default().start();
    p.advance(ms(50)).output(b"before\r\n").advance(ms(50)).kill(0).kill(1);
    for _ in 0..200 {
        p.output(&[b'x'; 2000]).advance(ms(100));
    }
    assert!(p.longest_hold <= ms(1100), "{:?}", p.longest_hold);
    assert_eq!(p.machine.state(), State::ContinueUnrecorded);
    let lost = p.machine.stats().unrecorded;
    assert!(lost > 200_000, "{lost}");
    p.restart(1).advance(secs(31)).output(b"after\r\n").end();
    assert_eq!(p.machine.state(), State::SessionComplete, "{:?}", p.machine.stats());
    let gaps: Vec<_> = p.markers().into_iter().filter(|m| m.contains("gap")).collect();
    assert_eq!(gaps.len(), 1);
    assert!(gaps[0].starts_with(&format!("castkeep:gap bytes={lost} ms=")), "{gaps:?}");
    assert!(p.text().starts_with("before\r\n") && p.text().ends_with("xafter\r\n"));
    p.check_end();
}

#[test]
fn release_commit_shows_nothing_that_is_not_stored() {
    let mut p = Setup { release: Release::Commit, ..Setup::default() }.closed().start();
    p.advance(ms(50));
    for i in 0..200 {
        p.output(format!("line {i} \u{e9}\r\n").as_bytes());
        p.output_on(Stream::Stderr, b"oops \xc3").advance(ms(1)).check_released();
        if i == 100 {
            p.kill(0);
        }
    }
    p.advance(secs(2)).check_released();
    assert_eq!(p.machine.released(Stream::Stdout), p.machine.stats().stdout);
    assert!(p.machine.released(Stream::Stderr) >= p.machine.stats().stderr - 3);
    p.end();
    p.check_end();
}

#[test]
fn release_commit_skips_recorders_without_it() {
    let setup = || Setup { release: Release::Commit, ..Setup::of(&[StockV1, StockV2]) };
    let mut p = setup().closed().start();
    p.advance(secs(1));
    assert_eq!(p.machine.state(), State::SessionRejected, "{:?}", p.events);
    assert_eq!(p.recorders[0].accepted + p.recorders[1].accepted, 0);
    let mut p = Setup { stock_with_release_commit: true, ..setup() }.closed().start();
    p.advance(secs(1)).output(b"x\r\n").advance(secs(6));
    assert_eq!(p.machine.released(Stream::Stdout), 3);
}

#[test]
fn without_grace_a_loss_is_the_end_as_upstream_has_it() {
    let deadlines = Deadlines { resume_grace: Span(0), ..Deadlines::default() };
    let mut p = Setup { deadlines, ..Setup::default() }.closed().start();
    p.advance(ms(50)).output(b"one\r\n").cut(0).advance(ms(10));
    assert!(p.has(State::SessionTerminated));
    assert_eq!(p.machine.message(), crate::sim::TERMINATE);
}

#[test]
fn a_terminated_session_still_delivers_what_it_took() {
    let mut p = Setup::default().closed().start();
    p.advance(ms(50)).output(b"one\r\n").advance(ms(50)).output(b"two\r\n");
    p.obedient = false;
    p.kill(0).kill(1).advance(secs(16));
    assert_eq!(p.machine.state(), State::SessionTerminated);
    assert_eq!(p.machine.room(), 0);
    let terminated = |e: &Event| matches!(e, Event::Terminated { bytes } if *bytes > 0);
    assert!(p.events.iter().any(terminated), "{:?}", p.events);
    p.output(b"never\r\n").restart(1).end();
    assert_eq!(p.machine.state(), State::SessionComplete, "{:?}", p.events);
    assert_eq!(p.text(), "one\r\ntwo\r\n");
    assert_eq!(p.markers(), ["castkeep:terminated", "exit 0"]);
}

#[test]
fn a_tail_of_a_character_is_written_after_50_ms() {
    let mut p = Setup::default().closed().start();
    p.advance(ms(50)).output(b"a\xe2\x82").advance(ms(40));
    assert_eq!(p.text(), "a");
    p.advance(ms(60));
    let (shown, _) = Pair::decode(&p.union(false));
    assert_eq!(shown[&Stream::Stdout], b"a\xe2\x82");
}
