//! What the fuzz targets call, and the tests that call the same with fixed input, so that they stay right on stable.
//!
//! Each function takes any bytes, drives one interface with them, and panics when an invariant does not hold.

use alloc::vec::Vec;

#[cfg(feature = "ask")]
pub use crate::ask::fuzzing::fuzz_ask_answer;
pub use crate::cast::fuzzing::{fuzz_cast_decode, fuzz_cast_encode, fuzz_text_filter};
pub use crate::http1::fuzzing::fuzz_http1_head;
#[cfg(feature = "http2")]
pub use crate::http2::fuzzing::fuzz_http2_input;
#[cfg(feature = "policy")]
pub use crate::policy::fuzzing::{fuzz_policy_file, fuzz_ssh_policy};
#[cfg(feature = "http2")]
pub use crate::session::fuzzing::fuzz_session_ops;
#[cfg(feature = "http2")]
pub use crate::upload::fuzzing::fuzz_server_input;
pub use crate::upload::fuzzing::{fuzz_ack_frames, fuzz_upgrade_frames};

/// Reads choices off the front of the fuzzer's bytes. When they have run out, every choice is 0.
#[derive(Clone, Debug)]
pub struct Source<'a>(pub &'a [u8]);

impl<'a> Source<'a> {
    /// One byte.
    pub fn byte(&mut self) -> u8 {
        let Some((&byte, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        byte
    }

    /// Below `n`, which is at most 65,536.
    pub fn below(&mut self, n: usize) -> usize {
        let low = self.byte();
        let high = if n > 256 { self.byte() } else { 0 };
        usize::from(u16::from_le_bytes([low, high])) % n.max(1)
    }

    /// At most `most` bytes, as many as a choice says.
    pub fn bytes(&mut self, most: usize) -> &'a [u8] {
        let n = self.below(most + 1).min(self.0.len());
        let (bytes, rest) = self.0.split_at(n);
        self.0 = rest;
        bytes
    }

    /// Whether there is anything left to choose with.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Cuts `data` into pieces, some of them empty, as the bytes of `cuts` say.
pub fn pieces<'a>(cuts: &[u8], data: &'a [u8]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    let mut rest = data;
    let mut cuts = cuts.iter().cycle();
    while !rest.is_empty() {
        // Without cuts, byte by byte.
        let size = cuts.next().map_or(1, |cut| usize::from(*cut) * usize::from(*cut) / 4);
        let size =
            if pieces.last().is_some_and(|p: &&[u8]| p.is_empty()) { size.max(1) } else { size };
        let (piece, behind) = rest.split_at(size.min(rest.len()));
        pieces.push(piece);
        rest = behind;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn next(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    /// Random bytes, and random mixtures of what the interface understands.
    fn run(seed: u64, words: &[&[u8]], target: impl Fn(&[u8])) {
        rounds(600, seed, words, target);
    }

    fn rounds(rounds: u32, seed: u64, words: &[&[u8]], target: impl Fn(&[u8])) {
        println!("seed {seed:#x}");
        let mut state = seed;
        for round in 0..rounds {
            let mut data = Vec::new();
            for _ in 0..next(&mut state) % 40 {
                if round % 3 == 0 || words.is_empty() {
                    data.extend_from_slice(&next(&mut state).to_le_bytes());
                } else {
                    data.extend_from_slice(words[next(&mut state) as usize % words.len()]);
                    if next(&mut state).is_multiple_of(8) {
                        data.push(next(&mut state) as u8);
                    }
                }
            }
            target(&data);
        }
        target(&[]);
    }

    #[test]
    fn cast_decode() {
        let words: &[&[u8]] = &[
            b"{\"version\":2,\"width\":80,\"height\":24,\"env\":null}\n",
            b"[1.5,\"o\",\"",
            b"\\u001b[2J",
            b"\\ud83d\\ude00",
            b"\xe2\x82",
            b"\"]\n",
            b"[2,\"b\",\"0:/w==\"]\n",
            "[1,\"o\",\"\u{fffd}\"]\n".as_bytes(),
        ];
        run(0x5eed_0010, words, fuzz_cast_decode);
    }

    #[test]
    fn cast_encode() {
        let words: &[&[u8]] =
            &[b"plain text, some of it\r\n", b"\x1b[1m\"\\", b"\xf0\x9f\x98", b"\xff", b"\x80"];
        run(0x5eed_0011, words, fuzz_cast_encode);
    }

    #[test]
    fn text_filter() {
        let words: &[&[u8]] = &[
            b"\x1b[",
            b"\x1b]52;c;",
            b"\x07",
            b"\x1b\\",
            b"?25",
            b"h",
            b"1;2",
            b"m",
            b"text",
            b"\x1bP",
            b"\x18",
            "\u{9b}".as_bytes(),
            "\u{9d}".as_bytes(),
            b"\x1b(",
            b"0",
            b"\x1bc",
            "€".as_bytes(),
        ];
        run(0x5eed_0012, words, fuzz_text_filter);
    }

    #[test]
    fn http1_head() {
        let words: &[&[u8]] = &[
            b"\x02POST /record HTTP/1.1\r\n",
            b"Host: x\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Content-Length: 5\r\n",
            b"\r\n",
            b"5\r\nhello\r\n",
            b"0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n",
            b"fff;x=y\r\n",
            b"GET",
        ];
        run(0x5eed_0013, words, fuzz_http1_head);
    }

    #[cfg(feature = "http2")]
    #[test]
    fn http2_input() {
        let words: &[&[u8]] = &[
            b"\x01PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\0\0\0\x04\0\0\0\0\0",
            b"\0\0\x03\x01\x05\0\0\0\x01\x82\x86\x84",
            b"\0\0\x04\0\0\0\0\0\x01data",
            b"\0\0\x08\x06\0\0\0\0\0pingpong",
            b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08",
            b"\0\0\x06\0\x09\0\0\0\x01\x03a\0\0\0",
            b"\0\0\x04\x08\0\0\0\0\0\0\0\x10\0",
            b"\0\0\0\x04\x01\0\0\0\0",
        ];
        run(0x5eed_0014, words, fuzz_http2_input);
    }

    #[test]
    fn ack_frames() {
        let words: &[&[u8]] = &[
            b"{\"ack\":1}\n",
            b"{}",
            b"null",
            b"{\"ACK\":7,\"commit\":9",
            b",\"error\":\"x\\\"y\"",
            b"}",
            b" ",
            b"{\"a\":[{",
            b"}]}",
        ];
        run(0x5eed_0015, words, fuzz_ack_frames);
    }

    #[cfg(feature = "ask")]
    #[test]
    fn ask_answer() {
        let words: &[&[u8]] = &[
            b"HTTP/1.1 200 OK\r\n",
            b"Transfer-Encoding: chunked\r\n\r\n",
            b"\r\n",
            b"5\r\n",
            b"0\r\n\r\n",
            b"\n",
            br#"{"verdict":"accept","recorders":[{"address":"100.64.0.9:80"}]}"#,
            br#""identity":{"tags":["#,
            b"null",
        ];
        run(0x5eed_0017, words, fuzz_ask_answer);
    }

    #[test]
    fn upgrade_frames() {
        let words: &[&[u8]] =
            &[b"\0\0\0\x05hello", b"\0\0\0\0", b"\0\x10\0\0", b"\0\0\0\x01", b"x"];
        run(0x5eed_0016, words, fuzz_upgrade_frames);
    }

    #[cfg(feature = "http2")]
    #[test]
    fn server_input() {
        let words: &[&[u8]] = &[
            b"\x10\x20PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0\0\0\x04\0\0\0\0\0", b"\0\0\x03\x01\x04\0\0\0\x01\x83\x86\x84",
            b"POST /record HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"5\r\nhello\r\n", b"0\r\n\r\n",
            b"POST /castkeep/1/record HTTP/1.1\r\nUpgrade: castkeep/1\r\nConnection: Upgrade\r\ncastkeep-attempt: 1\r\n",
            b"castkeep-recording: 00000000000000000000000000000001\r\ncastkeep-resume: 00000000000000000000000000000002\r\n\r\n",
            b"\0\0\0\x05hello\0\0\0\0", b"HEAD /v2/event HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n",
        ];
        run(0x5eed_0017, words, fuzz_server_input);
    }

    #[cfg(feature = "http2")]
    #[test]
    fn session_ops() {
        rounds(200, 0x5eed_0018, &[], fuzz_session_ops);
        // Long output, short output, time, and one kind of trouble at a time.
        for trouble in 8..=27 {
            let words: &[&[u8]] = &[
                &[1],
                &[3, 0xff, 0x10],
                &[0, 10, 0xff, b'a', 0xc3],
                &[11, 50],
                &[14],
                &[trouble, 1],
                &[7, 100, 0],
            ];
            rounds(20, 0x5eed_0100 + u64::from(trouble), words, |data| {
                let mut whole = vec![0x1b, 0x03];
                whole.extend_from_slice(data);
                fuzz_session_ops(&whole);
            });
        }
    }

    #[cfg(feature = "policy")]
    #[test]
    fn policy_file() {
        let words: &[&[u8]] = &[
            b"{\"groups\":{\"group:a\":[\"ada@example.com\"]},",
            b"\"tagOwners\":{\"tag:prod\":[],\"tag:rec\":[]},",
            b"\"ssh\":[{\"action\":\"accept\",\"src\":[\"group:a\"],\"dst\":[\"tag:prod\"],\"users\":[\"root\"]},",
            b"{\"action\":\"check\",\"src\":[\"autogroup:member\"],\"dst\":[\"autogroup:self\"],\"users\":[\"autogroup:nonroot\"]}",
            b",\"recorder\":[\"tag:rec\"],\"enforceRecorder\":true}",
            b"],",
            b"}",
            b"\"hosts\":{\"box\":\"100.64.0.3\"},\"sshTests\":[{\"src\":\"box\",\"dst\":[\"tag:prod\"],\"deny\":[\"x\"]}]",
            b"// comment\n",
            b"/* comment */",
            b"\0{\"castkeepNodes\":1,\"nodes\":[",
            b"{\"id\":\"a\",\"name\":\"a\",\"addresses\":[\"::1\"],\"user\":\"ada@example.com\"}",
            b"\"\\u00e4\"",
            "\"\u{20ac}\"".as_bytes(),
            b"[[[[[[[[",
            b"null",
            b"-1.5e3",
        ];
        run(0x5eed_0019, words, fuzz_policy_file);
        fuzz_policy_file(include_bytes!("policy/tests/sample.hujson"));
        let mut both = b"{}\0".to_vec();
        both.extend_from_slice(include_bytes!("policy/tests/status.json"));
        fuzz_policy_file(&both);
    }

    #[cfg(feature = "policy")]
    #[test]
    fn ssh_policy() {
        let words: &[&[u8]] = &[
            br#"{"rules":["#,
            br#"null,"#,
            br#"{"principals":[{"any":true}],"sshUsers":{"*":"="},"action":{"accept":true}},"#,
            br#"{"principals":[{"node":"a"},null],"sshUsers":{"ada":""},"action":{"reject":true}},"#,
            br#"{"principals":[{"nodeIP":"fd7a::3"}],"sshUsers":{"*":"u"},"action":{}},"#,
            br#"{"ruleExpires":"2001-01-01T00:00:00Z","action":null},"#,
            br#"null]}"#,
        ];
        run(0x5eed_001a, words, fuzz_ssh_policy);
        // Rules in many orders, in a text that is whole.
        rounds(300, 0x5eed_001b, &words[1..6], |rules| {
            fuzz_ssh_policy(&[words[0], rules, words[6]].concat());
        });
    }
}
