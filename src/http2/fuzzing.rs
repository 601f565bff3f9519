//! Invariants of HTTP/2, for the fuzzer.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use super::{Code, Config, Connection, Event};
use crate::fuzzing::{Source, pieces};
use crate::limits::{H2_STREAMS, HEAD_BYTES};
use crate::time::Tick;

/// Any bytes as frames, for both roles: events are the same however the bytes are cut, memory stays bounded, and after a failure nothing more
/// comes.
pub fn fuzz_http2_input(data: &[u8]) {
    let mut source = Source(data);
    let client = source.byte() & 1 == 0;
    let cuts = source.bytes(8);
    let whole = run(client, &[source.0]);
    assert_eq!(whole, run(client, &pieces(cuts, source.0)));
}

/// An event, with the pieces of data put together.
#[derive(Debug, PartialEq)]
enum Seen {
    Data(u32, Vec<u8>, bool),
    Failed(Code),
    GoAway(u32, Code),
    Headers(u32, super::Fields, bool, bool),
    Pong,
    Reset(u32, Code, bool),
}

fn run(client: bool, pieces: &[&[u8]]) -> Vec<Seen> {
    let config = Config::default();
    let mut connection =
        if client { Connection::client(&config) } else { Connection::server(&config) };
    let mut out = [0; 4096];
    if client {
        for _ in 0..2 {
            let fields = [
                (":method", "POST"),
                (":scheme", "http"),
                (":authority", "x"),
                (":path", "/v2/record"),
            ];
            connection.open(&fields, false).expect("a new connection");
        }
    }
    let mut seen: Vec<Seen> = Vec::new();
    for piece in pieces {
        let mut rest = *piece;
        while let Some(event) = connection.handle_input(Tick(0), &mut rest) {
            assert!(!matches!(seen.last(), Some(Seen::Failed(_))), "{event:?}");
            match event {
                Event::Headers { stream, fields, end, too_large } => {
                    let size: usize = fields.0.iter().map(|f| f.name.len() + f.value.len()).sum();
                    assert!(size <= HEAD_BYTES);
                    if !client {
                        connection.send_headers(stream, &[(":status", "200")], false);
                        assert!(connection.send_data(stream, b"{}", stream % 3 == 0) <= 2);
                    }
                    seen.push(Seen::Headers(stream, fields, end, too_large));
                }
                Event::Data { stream, data, end } => {
                    connection.credit(stream, data.len());
                    match seen.last_mut() {
                        Some(Seen::Data(s, bytes, ended)) if *s == stream && !*ended => {
                            bytes.extend_from_slice(data);
                            *ended = end;
                        }
                        _ => seen.push(Seen::Data(stream, data.to_vec(), end)),
                    }
                }
                Event::Reset { stream, code, by_peer } => {
                    seen.push(Seen::Reset(stream, code, by_peer))
                }
                Event::Pong => seen.push(Seen::Pong),
                Event::GoAway { last, code } => seen.push(Seen::GoAway(last, code)),
                Event::Failed(code) => seen.push(Seen::Failed(code)),
            }
            assert!(client || connection.open_streams() <= H2_STREAMS as usize);
        }
        assert!(rest.is_empty());
        while connection.poll_transmit(&mut out) > 0 {}
        assert!(!connection.wants_write());
    }
    // Empty pieces of data say nothing, and where they fall depends on the cuts.
    seen.retain(|s| !matches!(s, Seen::Data(_, bytes, false) if bytes.is_empty()));
    seen
}
