//! What the tests of the program share: directories, casts, and the program as a child.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::disallowed_methods,
    clippy::disallowed_types
)]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory that goes away with the test.
pub struct Temp(pub PathBuf);

impl Temp {
    pub fn new(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("castkeep-cli-{name}-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Writes a file, with the directories above it.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::File::create(&path).unwrap().write_all(content.as_ref()).unwrap();
        path
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The program, with nothing of this machine's configuration.
pub fn castkeep(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_castkeep"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CASTKEEP_") {
            command.env_remove(name);
        }
    }
    command.args(args).stdin(Stdio::null());
    command
}

/// Status, standard output and standard error.
pub fn run(args: &[&str]) -> (i32, String, String) {
    said(castkeep(args).output().unwrap())
}

pub fn said(output: Output) -> (i32, String, String) {
    (
        output.status.code().expect("ended by a signal"),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A cast of a header and event lines.
pub fn cast(header: &str, events: &[&str]) -> String {
    let mut text = format!("{{\"version\":2,{header}}}\n");
    for event in events {
        text.push_str(event);
        text.push('\n');
    }
    text
}

pub fn event(time: f64, code: &str, data: &str) -> String {
    serde_json::json!([time, code, data]).to_string()
}

/// No control character but line feeds: what goes to a terminal or a log as text.
pub fn assert_plain(text: &str) {
    let found = text.chars().find(|c| c.is_control() && *c != '\n');
    assert_eq!(found, None, "{text:?}");
}
