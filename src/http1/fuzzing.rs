//! Invariants of HTTP/1.1, for the fuzzer.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use alloc::vec::Vec;

use super::{BodyDecoder, BodyKind, encode_chunk, parse_request, parse_response};
use crate::fuzzing::{Source, pieces};
use crate::limits::HEAD_BYTES;

/// Any bytes as a request or a response with its body: a head is complete at its last byte and not before, a body is the same however it is
/// cut, and what we write as chunks is read again.
pub fn fuzz_http1_head(data: &[u8]) {
    let mut source = Source(data);
    let was_head = source.byte() & 1 == 1;
    let cuts = source.bytes(8);
    let input = source.0;
    let mut kinds = Vec::from([BodyKind::Chunked]);
    let mut behind = input;
    if let Ok(Some((head, len))) = parse_request(input) {
        assert!(len <= input.len() && len <= HEAD_BYTES);
        assert!(input.starts_with(head.method.as_bytes()) || input[0] <= b'\r');
        let _ = (
            head.path(),
            head.expects_continue(),
            head.keep_alive(),
            head.upgrades_to("castkeep/1"),
        );
        assert!(!matches!(parse_request(&input[..len - 1]), Ok(Some(_))));
        kinds.push(head.body);
        behind = &input[len..];
    }
    if let Ok(Some((head, len))) = parse_response(input) {
        assert!(len <= input.len() && (100..=999).contains(&head.status));
        assert!(!matches!(parse_response(&input[..len - 1]), Ok(Some(_))));
        let kind = head.body(was_head);
        assert!(!was_head || kind == BodyKind::None);
        kinds.push(kind);
        behind = &input[len..];
    }
    for kind in kinds {
        assert_eq!(decode(kind, &[behind]), decode(kind, &pieces(cuts, behind)), "{kind:?}");
    }
    let mut coded = Vec::new();
    let mut rest = input;
    while !rest.is_empty() {
        let mut out = [0; 40];
        let sent = encode_chunk(rest, &mut out);
        assert!(sent.taken > 0);
        coded.extend_from_slice(&out[..sent.written]);
        rest = &rest[sent.taken..];
    }
    coded.extend_from_slice(super::LAST_CHUNK);
    assert_eq!(decode(BodyKind::Chunked, &[&coded]), (input.to_vec(), true, 0, true));
}

/// (body, in order, bytes left over, done)
fn decode(kind: BodyKind, pieces: &[&[u8]]) -> (Vec<u8>, bool, usize, bool) {
    let mut decoder = BodyDecoder::new(kind);
    let mut body = Vec::new();
    let mut over = 0;
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() {
            let Ok(found) = decoder.decode(rest) else { return (body, false, 0, false) };
            body.extend_from_slice(found.data);
            assert!(found.consumed <= rest.len());
            rest = &rest[found.consumed..];
            if found.consumed == 0 {
                assert!(decoder.is_done(), "stuck");
                over += rest.len();
                break;
            }
        }
    }
    (body, true, over, decoder.is_done())
}
