//! How fast the encoder is, as a ratio to serde_json writing the same event, in one run.
//!
//! The goals: three times `serde_json::to_writer` with its UTF-8 check on log text in pieces of 4 KiB, twice on text full of escapes.
#![allow(missing_docs, clippy::disallowed_methods)]

mod common;

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use castkeep::{
    cast::{Encoder, Stream, worst_case_bytes},
    limits::EVENT_INPUT_BYTES,
    time::Span,
};
use common::{Args, Goal, Report};
use criterion::{BatchSize, Criterion, Throughput};

/// One kind of text, in pieces of 4 KiB, and how often faster than serde_json it is to be.
struct Input {
    name: &'static str,
    pieces: Vec<Vec<u8>>,
    goal: f64,
}

fn inputs() -> Vec<Input> {
    let mut random = Random(0x5eed);
    let log = |random: &mut Random| {
        let mut text = Vec::new();
        while text.len() < TOTAL {
            for _ in 0..80 {
                text.push(b"abcdefghijklmnopqrstuvwxyz 0123456789.:-/="[random.below(42)]);
            }
            text.extend_from_slice(b"\r\n");
        }
        text
    };
    // Every other byte, at random places, is ESC, a quote, a backslash or another control character.
    let escapes = |random: &mut Random| {
        let mut text = Vec::new();
        while text.len() < TOTAL {
            if random.below(2) == 0 {
                text.push(b"\x1b\"\\\x01\x07\x0e\n\t"[random.below(8)]);
            } else {
                text.push(b"abcdefgh0123[;m "[random.below(16)]);
            }
        }
        text
    };
    let colours = |random: &mut Random| {
        let mut text = Vec::new();
        while text.len() < TOTAL {
            let number = 30 + random.below(8);
            text.extend_from_slice(format!("\x1b[{number}mfile-{number}.rs\x1b[0m  ").as_bytes());
            if random.below(6) == 0 {
                text.extend_from_slice(b"\r\n");
            }
        }
        text
    };
    let cyrillic = |random: &mut Random| {
        let mut text = String::new();
        while text.len() < TOTAL {
            text.push(['п', 'р', 'и', 'в', 'е', 'т', ' ', 'м'][random.below(8)]);
        }
        text.into_bytes()
    };
    let cut = |text: Vec<u8>, size: usize| {
        let text = String::from_utf8(text).expect("text");
        // Both sides get whole characters, so that they write the same.
        let mut pieces = Vec::new();
        let mut rest = &*text;
        while rest.len() > size {
            let (piece, behind) = rest.split_at(rest.floor_char_boundary(size));
            pieces.push(piece.as_bytes().to_vec());
            rest = behind;
        }
        pieces
    };
    let full = EVENT_INPUT_BYTES;
    vec![
        Input { name: "log text", pieces: cut(log(&mut random), full), goal: 3.0 },
        Input { name: "text full of escapes", pieces: cut(escapes(&mut random), full), goal: 2.0 },
        Input { name: "coloured names", pieces: cut(colours(&mut random), full), goal: 1.0 },
        Input { name: "Cyrillic", pieces: cut(cyrillic(&mut random), full), goal: 1.0 },
        Input { name: "log text in 64 bytes", pieces: cut(log(&mut random), 64), goal: 1.0 },
    ]
}

fn ours(pieces: &[Vec<u8>], out: &mut [u8]) -> usize {
    let mut encoder = Encoder::new();
    let mut total = 0;
    for (n, piece) in pieces.iter().enumerate() {
        let t = Span(1_234_567 + n as u64 * 1_009);
        let done = encoder.output(t, Stream::Stdout, black_box(piece), out);
        assert_eq!(done.taken, piece.len());
        total += done.written;
        black_box(&mut *out);
    }
    total
}

fn serde(pieces: &[Vec<u8>], out: &mut Vec<u8>) -> usize {
    let mut total = 0;
    for (n, piece) in pieces.iter().enumerate() {
        out.clear();
        let t = 1.234_567 + n as f64 * 0.001_009;
        let text = str::from_utf8(black_box(piece)).expect("text");
        serde_json::to_writer(&mut *out, &(t, "o", text)).expect("a Vec");
        out.push(b'\n');
        total += out.len();
        black_box(&mut *out);
    }
    total
}

/// Both in turn, the best of many rounds each: what else the machine does hits both alike.
fn ratios(args: &Args) {
    let mut out = vec![0; worst_case_bytes(EVENT_INPUT_BYTES)];
    let mut json = Vec::with_capacity(out.len());
    let mut report = Report::new(args);
    for input in inputs() {
        let bytes: usize = input.pieces.iter().map(Vec::len).sum();
        let (mut a, mut b) = (Duration::MAX, Duration::MAX);
        for _ in 0..args.size(200, 2) {
            let start = Instant::now();
            black_box(ours(&input.pieces, &mut out));
            a = a.min(start.elapsed());
            let start = Instant::now();
            black_box(serde(&input.pieces, &mut json));
            b = b.min(start.elapsed());
        }
        let rate = |t: Duration| bytes as f64 / t.as_secs_f64() / 1e6;
        report.result(
            &format!("encoder against serde_json, {}", input.name),
            b.as_secs_f64() / a.as_secs_f64(),
            "x",
            Goal::AtLeast(input.goal),
            &format!("{:.0} MB/s against {:.0} MB/s of input, best of 200 each", rate(a), rate(b)),
        );
    }
    report.finish();
}

fn rates(c: &mut Criterion) {
    let mut out = vec![0; worst_case_bytes(EVENT_INPUT_BYTES)];
    for input in inputs() {
        let mut group = c.benchmark_group(format!("encode/{}", input.name));
        let bytes: usize = input.pieces.iter().map(Vec::len).sum();
        group.throughput(Throughput::Bytes(bytes as u64)).sample_size(20);
        group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
        group.bench_function("castkeep", |b| {
            b.iter_batched(|| (), |()| ours(&input.pieces, &mut out), BatchSize::SmallInput);
        });
        let mut json = Vec::with_capacity(out.len());
        group.bench_function("serde_json", |b| {
            b.iter_batched(|| (), |()| serde(&input.pieces, &mut json), BatchSize::SmallInput);
        });
        group.finish();
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

/// Bytes of each kind: more than the caches nearest to the processor, so that the copy is paid for.
const TOTAL: usize = 1 << 20;

fn main() {
    let args = Args::parse();
    ratios(&args);
    // The rates by themselves, compared with the run before; the arguments are ours, so criterion sees none.
    if !args.smoke {
        let mut criterion = Criterion::default();
        rates(&mut criterion);
        criterion.final_summary();
    }
}
