//! Invariants of uploads, for the fuzzer.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use alloc::vec::Vec;

use super::upgrade::{END_FRAME, FrameDecoder, encode_frame};
use super::wire::{AckObject, AckParser};
use crate::fuzzing::{Source, pieces};
use crate::limits::ACK_OBJECT_BYTES;

/// Any bytes as an ack stream: objects are the same however it is cut, and one that is written is read again.
pub fn fuzz_ack_frames(data: &[u8]) {
    let mut source = Source(data);
    let cuts = source.bytes(8);
    let read = |pieces: &[&[u8]]| {
        let mut parser = AckParser::new();
        let mut objects = Vec::new();
        for piece in pieces {
            let mut rest = *piece;
            loop {
                match parser.next(&mut rest) {
                    Ok(Some(object)) => objects.push(object),
                    Ok(None) => break,
                    Err(_) => {
                        assert!(parser.next(&mut &b"{}"[..]).is_err(), "an error stays");
                        return (objects, false);
                    }
                }
            }
            assert!(rest.is_empty());
        }
        (objects, true)
    };
    let whole = read(&[source.0]);
    assert_eq!(whole, read(&pieces(cuts, source.0)));
    for object in whole.0 {
        let mut out = [0; ACK_OBJECT_BYTES];
        let Some(len) = object.encode(&mut out) else { continue };
        let again = AckParser::new().next(&mut &out[..len]).expect("ours").expect("whole");
        let text = |o: &AckObject| o.error.clone().unwrap_or_default();
        assert!(text(&object).starts_with(&text(&again)));
        assert_eq!(AckObject { error: None, ..again }, AckObject { error: None, ..object });
    }
}

/// Any bytes as frames of `castkeep/1`: the body is the same however it is cut, and what is written is read again.
pub fn fuzz_upgrade_frames(data: &[u8]) {
    let mut source = Source(data);
    let cuts = source.bytes(8);
    let read = |pieces: &[&[u8]]| {
        let mut decoder = FrameDecoder::new();
        let mut body = Vec::new();
        for piece in pieces {
            let mut rest = *piece;
            while !rest.is_empty() {
                let Ok(found) = decoder.decode(rest) else { return (body, false, false) };
                assert!(found.consumed > 0 && found.consumed <= rest.len());
                body.extend_from_slice(found.data);
                rest = &rest[found.consumed..];
            }
        }
        (body, true, decoder.is_done())
    };
    assert_eq!(read(&[source.0]), read(&pieces(cuts, source.0)));
    let mut coded = Vec::new();
    let mut rest = source.0;
    while !rest.is_empty() {
        let mut out = [0; 50];
        let sent = encode_frame(rest, &mut out);
        assert!(sent.taken > 0);
        coded.extend_from_slice(&out[..sent.written]);
        rest = &rest[sent.taken..];
    }
    coded.extend_from_slice(&END_FRAME);
    assert_eq!(read(&[&coded]), (source.0.to_vec(), true, true));
}

/// Any bytes into one connection of a recorder that answers, stores and is slow as the first bytes say: it never stands still, hands out no more
/// body than came in, and tells the end of every upload that it let in.
#[cfg(feature = "http2")]
pub fn fuzz_server_input(data: &[u8]) {
    use super::server::{Event, HowEnded, Kind, Server, ServerConfig};
    use crate::limits;
    use crate::time::{Span, Tick};
    use alloc::collections::BTreeMap;

    let mut source = Source(data);
    let flags = source.byte();
    let mut choices = Source(source.bytes(32));
    let cfg = ServerConfig {
        h2_only: flags & 3 == 1,
        h1_only: flags & 3 == 2,
        extension: flags & 4 == 0,
        ack_period_stock: limits::ACK_PERIOD_STOCK,
        ack_period_commit: limits::ACK_PERIOD_COMMIT,
        head_time: limits::HEAD_TIME,
        idle_time: limits::IDLE_TIME,
        ping_time: Span::from_secs(30),
        banner: "castkeep".into(),
    };
    let mut now = Tick(1);
    let mut server = Server::new(cfg, now);
    let mut live = BTreeMap::new();
    let mut waiting: &[u8] = &[];
    let mut rest = source.0;
    let mut stored = 0;
    let mut out = [0; 1024];
    let mut idle = 0;
    while idle < 50 {
        let choice = choices.byte();
        if waiting.is_empty() {
            let (piece, behind) = rest.split_at(rest.len().min(1 + choices.below(3000)));
            (waiting, rest) = (piece, behind);
        }
        let taken = server.handle_input(now, waiting);
        assert!(taken <= waiting.len());
        waiting = &waiting[taken..];
        idle = if taken == 0 { idle + 1 } else { 0 };
        let mut events = 0;
        while let Some(event) = server.poll_event() {
            events += 1;
            assert!(events < 10_000, "events without end");
            match event {
                Event::Request(request) if choice & 0x18 == 0x18 => {
                    server.refuse(now, request.id, 503, "no");
                }
                Event::Request(request) => {
                    if let Kind::Record { .. } = request.kind {
                        server.accept(now, request.id, Some(0));
                    } else {
                        server.accept(now, request.id, None);
                    }
                    assert!(live.insert(request.id, 0_u64).is_none(), "an id is used again");
                }
                Event::Body { id, len } => {
                    assert!(len > 0 && server.body(id).len() == len);
                    let n = if choice & 1 == 0 { len } else { len.div_ceil(2) };
                    stored += n;
                    assert!(stored <= source.0.len(), "more body than came in");
                    server.consume(now, id, n);
                    if let Some(received) = live.get_mut(&id) {
                        *received += n as u64;
                        server.progress(now, id, *received, Some(*received));
                    }
                }
                Event::End { id, how } => {
                    let received = live.remove(&id).expect("the end of something that is not open");
                    match (how, choice & 0x60) {
                        (HowEnded::Truncated, _) => {}
                        (_, 0) => server.fail(now, id, "disk full"),
                        (_, 0x20) => server.finish(now, id, 200, ""),
                        _ => server.seal(now, id, received),
                    }
                }
            }
        }
        if choice & 2 != 0
            && let Some(id) = live.keys().next()
        {
            server.drain(now, *id);
        }
        if choice & 4 != 0 {
            let mut writes = 0;
            while server.poll_transmit(now, &mut out) > 0 {
                writes += 1;
                assert!(writes < 10_000, "output without end");
            }
        }
        if choice & 0x80 != 0 {
            now = now.after(Span::from_ms(700));
            server.handle_timeout(now);
        }
        assert!(server.poll_timeout().is_some() || server.is_closed() || !live.is_empty());
    }
    server.handle_lost();
    while let Some(event) = server.poll_event() {
        match event {
            Event::End { id, .. } => drop(live.remove(&id)),
            Event::Body { id, len } => server.consume(now, id, len),
            Event::Request(request) => server.refuse(now, request.id, 503, "gone"),
        }
    }
    assert!(live.is_empty(), "uploads without an end: {live:?}");
    while server.poll_transmit(now, &mut out) > 0 {}
    assert!(server.is_closed());
}
