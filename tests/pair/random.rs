//! Random lists of operations. What must hold is checked after every step and at the end.

use castkeep::cast::Stream;
use castkeep::session::{Event, Release, State};

use crate::recorder::Flavour::{self, *};
use crate::sim::{Pair, Setup, ms, secs};

struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.next(100) < percent
    }
}

fn data(r: &mut Random) -> Vec<u8> {
    let n = match r.next(4) {
        0 => 1 + r.next(10),
        1 | 2 => 1 + r.next(300),
        _ => 1 + r.next(9000),
    } as usize;
    match r.next(4) {
        0 => (0..n).map(|_| r.next(256) as u8).collect(),
        1 => "h\u{e4}\u{20ac}\u{1f600}\r\n"
            .bytes()
            .cycle()
            .skip(r.next(9) as usize)
            .take(n)
            .collect(),
        _ => "total 42 drwxr-xr-x\r\n".bytes().cycle().take(n).collect(),
    }
}

fn run(seed: u64) {
    let mut r = Random(seed);
    let flavours: Vec<Flavour> = (0..1 + r.next(3))
        .map(|_| match r.next(6) {
            0 => StockV1,
            1 => StockV2,
            _ => Castkeep,
        })
        .collect();
    let castkeep_only = flavours.iter().all(|f| *f == Castkeep);
    let setup = Setup {
        groups: r.chance(20).then(|| vec![0; flavours.len()]),
        reject: r.chance(50),
        terminate: r.chance(50),
        release: if r.chance(40) { Release::Commit } else { Release::Ring },
        http2: r.chance(60),
        upgrade: r.chance(80),
        stock_with_release_commit: r.chance(50),
        ..Setup::of(&flavours)
    };
    // v1 does not say what is stored, and is taken where a probe fails.
    let castkeep_only =
        castkeep_only && setup.release == Release::Commit && !setup.stock_with_release_commit;
    let open = !setup.reject && !setup.terminate;
    let n = flavours.len() as u64;
    let calm = r.chance(15);
    let mut p = Pair::with(setup, |recorders| {
        for recorder in recorders {
            recorder.latency = ms(1 + r.next(200) * r.next(2) + r.next(5));
            recorder.sync_time = ms(1 + r.next(60));
            if r.chance(10) {
                recorder.alive = false;
            }
            if r.chance(10) {
                recorder.hole = true;
            }
        }
    });
    p.strict = castkeep_only;
    p.split = if r.chance(50) { seed | 1 } else { 0 };
    for _ in 0..10 + r.next(50) {
        let i = r.next(n) as usize;
        match r.next(if calm { 8 } else { 24 }) {
            0..=3 => {
                if p.backlog.len() < 4 {
                    p.output(&data(&mut r));
                }
            }
            4 => {
                p.output_on(Stream::Stderr, &data(&mut r));
            }
            5 => p.machine.resize(p.now, 1 + r.next(300) as u16, 24),
            6 | 7 => {
                p.advance(ms(r.next(60)));
            }
            8 => {
                let _ = p.machine.marker(p.now, "here");
            }
            9 | 10 => {
                p.advance(ms(r.next(6_000)));
            }
            11 if flavours[i] == Castkeep => {
                p.kill(i);
            }
            11..=13 => {
                p.cut(i);
            }
            14 | 15 => {
                p.restart(i).hole(i, false);
                p.recorders[i].disk_hangs = false;
                p.recorders[i].refuse = None;
                p.recorders[i].die_after = None;
            }
            16 => {
                p.cut_after(i, 1 + r.next(3000));
            }
            17 => {
                p.cut_answer_after(i, 1 + r.next(200));
            }
            18 => {
                p.hole(i, true);
            }
            19 => {
                p.hole(i, false);
            }
            20 => {
                p.half_close(i);
            }
            21 => {
                p.drain(i);
            }
            22 => p.recorders[i].disk_hangs = r.chance(70),
            _ => match r.next(2) {
                0 => p.recorders[i].die_after = Some(1 + r.next(2000)),
                _ => {
                    p.recorders[i].refuse = Some([403, 409, 429, 503, 500, 404][r.next(6) as usize])
                }
            },
        }
        if castkeep_only && r.chance(30) {
            p.check_released();
        }
    }
    if r.chance(80) {
        p.exit();
    }
    let abandoned = r.chance(10);
    if abandoned {
        p.machine.abandon(p.now);
        p.pump();
    }
    p.finish();
    p.advance(secs(40));
    assert!(p.machine.state().is_end(), "{} {:?}", p.machine.state(), p.events);
    p.check_end();
    assert!(!open || p.longest_hold <= ms(1_000), "held for {:?}", p.longest_hold);
    let stats = p.machine.stats();
    if castkeep_only {
        p.check_released();
        let durable = p.union(true).len() as u64;
        assert!(durable >= stats.committed, "{durable} stored, {stats:?}");
    }
    if calm && !abandoned && p.has(State::Streaming) && !p.has(State::ConnectionLost) {
        assert!(p.events.contains(&Event::Finished) || stats.encoded == 0, "{:?}", p.events);
    }
}

#[test]
fn random_operations() {
    if let Some(seed) = std::env::var("CASTKEEP_SIM_SEED").ok().and_then(|s| s.parse().ok()) {
        return run(seed);
    }
    let seeds = std::env::var("CASTKEEP_SIM_SEEDS").ok().and_then(|s| s.parse().ok());
    let mut failed = Vec::new();
    for seed in 0..seeds.unwrap_or(400) {
        if std::panic::catch_unwind(|| run(seed)).is_err() {
            eprintln!("CASTKEEP_SIM_SEED={seed}");
            failed.push(seed);
        }
    }
    assert!(failed.is_empty(), "seeds {failed:?}");
}
