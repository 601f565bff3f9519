//! The wall clock of the programs is set in the middle of a session, on both sides: the recording does not show it.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

#[path = "recorder_support/mod.rs"]
mod support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use support::*;

/// A wall clock that a test can set.
struct Wall {
    shim: PathBuf,
    file: PathBuf,
}

impl Wall {
    fn new(dir: &Temp) -> Self {
        let shim = dir.join("clock.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recorder_support/clock.c");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([shim.as_os_str(), source.as_ref(), "-ldl".as_ref()])
            .status()
            .expect("a C compiler");
        assert!(built.success());
        let wall = Self { shim, file: dir.join("step") };
        wall.step(0);
        wall
    }

    fn step(&self, seconds: i64) {
        // Renamed, so that nobody reads half a number.
        let new = self.file.with_extension("new");
        std::fs::write(&new, seconds.to_string()).unwrap();
        std::fs::rename(new, &self.file).unwrap();
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_castkeep"));
        command.env("LD_PRELOAD", &self.shim).env("CLOCK_STEP_FILE", &self.file);
        command
    }
}

#[test]
fn a_session_over_which_the_clock_is_set() {
    for (step, word) in [(-3_600, "an hour back"), (31_536_000, "a year on")] {
        let dir = Temp::new("clock");
        let dst = dir.join("dst");
        let wall = Wall::new(&dir);
        let mut serve = wall.command();
        serve.arg("serve").arg("--dst").arg(&dst).args(["--listen", "127.0.0.1:0"]);
        let mut serve = Serve::spawn(&mut serve);
        let recorder = serve.address.to_string();
        let mut record = wall
            .command()
            .args(["record", "--recorders", &recorder, "--", "sh", "-c"])
            .arg("echo one; read x; echo two; read x; echo three")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = record.stdin.take().unwrap();
        let mut shown = BufReader::new(record.stdout.take().unwrap()).lines();
        assert_eq!(shown.next().unwrap().unwrap(), "one");
        wall.step(step);
        stdin.write_all(b"\n").unwrap();
        assert_eq!(shown.next().unwrap().unwrap(), "two");
        wall.step(step * 2);
        stdin.write_all(b"\n").unwrap();
        assert_eq!(shown.next().unwrap().unwrap(), "three");
        assert!(record.wait().unwrap().success(), "{word}");
        let (bytes, sidecar) = only_recording(&dst);
        serve.signal("TERM");
        assert_eq!(serve.wait().code(), Some(0), "{word}");

        let text = String::from_utf8(bytes).unwrap();
        let times: Vec<f64> = text
            .lines()
            .skip(1)
            .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()[0].as_f64().unwrap())
            .collect();
        assert!(times.len() >= 3, "{text}");
        assert!(times.is_sorted() && times[0] >= 0.0, "{word}: {times:?}");
        // The guard bounds every wait above; the smallest step is an hour.
        assert!(times.last().unwrap() < &1_000.0, "{word}: {times:?}");
        let stepped = sidecar["clockStepUs"].as_i64().unwrap();
        let wanted = step * 2 * 1_000_000;
        assert!((stepped - wanted).abs() < 1_000_000, "{word}: {stepped} of {wanted}");

        let ls = Command::new(env!("CARGO_BIN_EXE_castkeep")).arg("ls").arg(&dst).output().unwrap();
        let ls = String::from_utf8(ls.stdout).unwrap();
        let row: Vec<&str> = ls.lines().nth(1).unwrap().split_whitespace().collect();
        assert!(row[2].ends_with('s') && row[3] == "sealed", "{word}: {ls}");
    }
}
