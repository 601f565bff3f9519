//! Bytes in pieces, and bytes without sense.

use castkeep::http2::{Config, Connection};
use castkeep::time::Span;
use castkeep::upload::server::{Event, Request, RequestId};
use castkeep::upload::upgrade::END_FRAME;

use super::support::Peer;
use super::upgrade::frames;
use super::upgrade::upgrade;
use super::v1::V1;

/// A small generator: the same numbers in every run.
pub(super) struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) as usize) % n
    }
}

/// Plays `wire` into a connection in pieces of at most `most` bytes; what was stored, how it ended and what was answered.
fn play(wire: &[u8], most: usize, random: &mut Random) -> (Vec<u8>, Vec<String>, Vec<u8>) {
    let mut peer = Peer::new();
    let (mut stored, mut told, mut answers) = (Vec::new(), Vec::new(), Vec::new());
    let mut received = 0;
    let (mut at, mut stuck) = (0, 0);
    while at < wire.len() && stuck < 3 {
        let piece = &wire[at..wire.len().min(at + 1 + random.below(most))];
        let taken = peer.send(piece);
        at += taken;
        stuck = if taken == 0 { stuck + 1 } else { 0 };
        while let Some(event) = peer.server.poll_event() {
            match event {
                Event::Request(Request { id, kind }) => {
                    told.push(format!("{kind:?}"));
                    peer.server.accept(peer.now, id, Some(0));
                }
                Event::Body { id, len } => {
                    stored.extend_from_slice(peer.server.body(id));
                    received += len;
                    peer.server.consume(peer.now, id, len);
                }
                Event::End { id, how } => {
                    told.push(format!("{how:?}"));
                    peer.server.seal(peer.now, id, received as u64);
                }
            }
        }
        answers.extend(peer.read());
    }
    // Streams that come in one piece are told of before their bodies are.
    told.sort();
    (stored, told, answers)
}

#[test]
fn a_connection_is_the_same_however_its_bytes_are_split() {
    let event = "POST /v2/event HTTP/1.1\r\nContent-Length: 7\r\n\r\n{\"a\":1}";
    let get = "GET / HTTP/1.1\r\n\r\nHEAD /v2/record HTTP/1.1\r\n\r\n";
    let v1 = format!("{V1}5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n");
    let http1 = format!("{get}{event}{v1}{get}{v1}BAD\x01 HTTP/1.1\r\n\r\n").into_bytes();
    let upgraded =
        [upgrade().as_bytes(), &frames(&[b"one", &[7; 3000], b"x"]), &END_FRAME].concat();
    let mut client = Connection::client(&Config::default());
    let mut http2 = Vec::new();
    let mut out = vec![0; 30_000];
    for round in 0..3 {
        let fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "r"),
            (":path", "/v2/record"),
        ];
        let stream = client.open(&fields, false).unwrap();
        for part in [&b"one"[..], &[7; 9000], b"three"] {
            let sent = client.write_data(stream, part, round < 2 && part == b"three", &mut out);
            http2.extend_from_slice(&out[..sent.written]);
        }
    }
    let mut random = Random(3);
    for (wire, stored) in [(&http1, 7 + 6 + 6), (&upgraded, 3004), (&http2, 3 * 9008)] {
        let whole = play(wire, 1_000_000, &mut random);
        assert_eq!(whole.0.len(), stored);
        for most in [1, 2, 7, 30, 500, 5000] {
            let split = play(wire, most, &mut random);
            assert!(split.0 == whole.0, "pieces of {most} are stored otherwise");
            assert_eq!(split.1, whole.1, "pieces of {most}");
            if wire == &http1 {
                let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
                assert_eq!(text(&split.2), text(&whole.2));
            }
        }
    }
}

#[test]
fn random_bytes_and_calls_do_no_harm() {
    let mut random = Random(11);
    let words: Vec<Vec<u8>> = vec![
        V1.into(),
        upgrade().into(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec(),
        b"5\r\nhello\r\n".to_vec(),
        b"0\r\n\r\n".to_vec(),
        vec![0, 0, 0, 4, 1, 2, 3, 4],
        vec![0, 0, 4, 1, 5, 0, 0, 0, 1, 0x83, 0x86, 0x84, 0x41],
        vec![0, 0, 1, 0, 0, 0, 0, 0, 1, 9],
        vec![0xff; 20],
    ];
    for _ in 0..1_000 {
        let mut peer = Peer::new();
        for _ in 0..20 {
            let id = RequestId(random.below(4) as u32);
            match random.below(14) {
                0..=6 => {
                    let mut word = words[random.below(words.len())].clone();
                    if random.below(4) == 0 {
                        let at = random.below(word.len());
                        word[at] ^= 1 << random.below(8);
                    }
                    peer.send(&word[..1 + random.below(word.len())]);
                }
                7 => peer.server.accept(peer.now, id, Some(random.below(9) as u64)),
                8 => peer.server.refuse(peer.now, id, 503, "no"),
                9 => peer.server.seal(peer.now, id, 5),
                10 => peer.server.fail(peer.now, id, "io"),
                11 => peer.advance(Span(random.below(20_000_000) as u64)),
                12 => peer.server.handle_eof(peer.now),
                _ => {
                    peer.server.drain(peer.now, id);
                    peer.server.consume(peer.now, id, random.below(9));
                    peer.server.shutdown(peer.now);
                }
            }
            for _ in 0..10 {
                let _ = peer.server.poll_event();
            }
            assert!(peer.read().len() < 100_000);
        }
        peer.server.handle_lost();
        while let Some(event) = peer.server.poll_event() {
            if let Event::Body { id, len } = event {
                peer.server.consume(peer.now, id, len);
            }
        }
        assert!(peer.server.is_closed());
    }
}
