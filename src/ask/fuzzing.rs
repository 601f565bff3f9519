//! Invariants of answers, for the fuzzer.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use alloc::vec::Vec;

use super::{DECIDE_PATH, Exchange, Verdict};
use crate::fuzzing::{Source, pieces};
use crate::limits::{ASK_LINE_BYTES, RECORDERS_MAX};

/// Any bytes as the answer to a question: its lines are the same however it is cut, and verdicts keep their bounds.
pub fn fuzz_ask_answer(data: &[u8]) {
    let mut source = Source(data);
    let cuts = source.bytes(8);
    let read = |pieces: &[&[u8]]| {
        let mut exchange = Exchange::new("localhost", DECIDE_PATH, None, b"{}").unwrap();
        let mut lines: Vec<Vec<u8>> = Vec::new();
        let mut whole = true;
        for piece in pieces {
            let result = exchange.handle_input(piece, |line| {
                assert!(line.len() <= ASK_LINE_BYTES && !line.is_empty());
                lines.push(line.to_vec());
                Ok(())
            });
            if result.is_err() {
                whole = false;
                break;
            }
        }
        (lines, whole, exchange.status().filter(|_| whole))
    };
    let (lines, whole, status) = read(&[source.0]);
    let (others, other_whole, other_status) = read(&pieces(cuts, source.0));
    assert_eq!((whole, status), (other_whole, other_status));
    if whole {
        assert_eq!(lines, others);
    }
    for line in lines.iter().chain([&source.0.to_vec()]) {
        if let Ok(verdict) = Verdict::parse(line) {
            assert!(verdict.recorders.len() <= RECORDERS_MAX);
            assert!(verdict.recorders.iter().all(|r| !r.address.is_empty()));
        }
    }
}
