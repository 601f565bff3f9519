//! The extension over HTTP/1.1: docs/protocol.md §4.

use castkeep::http1;
use castkeep::limits::{ACK_PERIOD_COMMIT, LINGER_TIME};
use castkeep::upload::server::{HowEnded, Kind, Protocol, Request};
use castkeep::upload::upgrade::{END_FRAME, encode_frame};

use super::support::{ID, Peer};

pub(super) fn upgrade() -> String {
    format!(
        "POST /castkeep/1/record HTTP/1.1\r\nHost: r\r\nConnection: Upgrade\r\nUpgrade: castkeep/1\r\n\
         castkeep-recording: {ID}\r\ncastkeep-resume: {ID}\r\ncastkeep-attempt: 3\r\ncastkeep-offset: 40\r\n\r\n"
    )
}

pub(super) fn frames(parts: &[&[u8]]) -> Vec<u8> {
    let mut wire = Vec::new();
    let mut out = vec![0; 100_000];
    for part in parts {
        let sent = encode_frame(part, &mut out);
        wire.extend_from_slice(&out[..sent.written]);
    }
    wire
}

#[test]
fn the_extension_over_http1() {
    let mut peer = Peer::new();
    peer.send(upgrade());
    let Request { id, kind } = peer.request();
    let Kind::Record { protocol: Protocol::Upgrade, resume: Some(resume) } = kind else {
        panic!("{kind:?}");
    };
    assert_eq!((resume.attempt, resume.offset), (3, 40));
    peer.server.accept(peer.now, id, Some(40));
    let answer = peer.text();
    let (head, used) = http1::parse_response(answer.as_bytes()).unwrap().unwrap();
    assert_eq!((head.status, head.fields.get("upgrade")), (101, Some("castkeep/1")));
    assert_eq!(head.fields.get("castkeep-commit"), Some("40"));
    assert_eq!(head.fields.get("castkeep-ack-ms"), Some("1000"));
    assert_eq!(&answer[used..], "{\"ack\":0,\"commit\":40}\n");
    peer.send(frames(&[b"hel", b"lo"]));
    assert_eq!(peer.body(id).0, b"hello");
    peer.server.progress(peer.now, id, 5, Some(45));
    assert_eq!(peer.text(), "{\"ack\":5,\"commit\":45}\n");
    peer.advance(ACK_PERIOD_COMMIT);
    assert_eq!(peer.text(), "{\"ack\":5,\"commit\":45}\n");
    peer.server.drain(peer.now, id);
    assert_eq!(peer.text(), "{\"drain\":true}\n");
    peer.send(END_FRAME);
    assert_eq!(peer.body(id).1, Some(HowEnded::Moved));
    peer.server.seal(peer.now, id, 45);
    assert_eq!(peer.text(), "{\"ack\":5,\"commit\":45}\n{\"sealed\":45}\n");
    assert!(peer.server.is_closed());
}

#[test]
fn the_extension_over_http1_when_things_break() {
    let start = || {
        let mut peer = Peer::new();
        peer.send(upgrade());
        let id = peer.request().id;
        peer.server.accept(peer.now, id, Some(40));
        peer.text();
        (peer, id)
    };
    // A frame that is too long: what came before it counts.
    let (mut peer, id) = start();
    peer.send([&frames(&[b"good"])[..], &[0, 16, 0, 1]].concat());
    assert!(peer.text().starts_with("{\"error\":\"malformed"));
    assert_eq!(peer.body(id), (b"good".to_vec(), Some(HowEnded::Truncated)));
    peer.advance(LINGER_TIME);
    assert!(peer.server.is_closed());
    // The link ends within a frame.
    let (mut peer, id) = start();
    peer.send(&frames(&[b"whole"])[..7]);
    peer.server.handle_eof(peer.now);
    assert_eq!(peer.body(id), (b"who".to_vec(), Some(HowEnded::Truncated)));
    assert!(peer.server.is_closed());
    // Storage fails.
    let (mut peer, id) = start();
    peer.send(frames(&[b"data"]));
    peer.server.fail(peer.now, id, "io: no more");
    assert_eq!(peer.text(), "{\"error\":\"io: no more\"}\n");
    assert!(peer.server.wants_shutdown());
    // Refused, and refused for a body that has no place.
    let mut peer = Peer::new();
    peer.send(upgrade());
    let id = peer.request().id;
    peer.server.refuse(peer.now, id, 409, "another attempt is newer");
    assert!(peer.text().starts_with("HTTP/1.1 409 Conflict\r\n"));
    let mut peer = Peer::new();
    peer.send(upgrade().replace("Host: r", "Content-Length: 4"));
    assert!(peer.text().starts_with("HTTP/1.1 400 "));
}
