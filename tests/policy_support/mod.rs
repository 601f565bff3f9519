//! Whoever answers for policy, scripted: one line for each question, later lines for those that watch, notices kept.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

#[derive(Default)]
struct Said {
    questions: Vec<Value>,
    notices: Vec<Value>,
    watching: Vec<UnixStream>,
}

/// Answers until it is dropped; the connections that watch end then.
pub struct Agent {
    path: PathBuf,
    said: Arc<(Mutex<Said>, Condvar)>,
}

impl Agent {
    pub fn start(dir: &Path, verdict: &str) -> Self {
        let path = dir.join("agent.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let said = Arc::new((Mutex::new(Said::default()), Condvar::new()));
        let (all, verdict) = (Arc::clone(&said), verdict.to_owned());
        thread::spawn(move || {
            for socket in listener.incoming() {
                let (all, verdict) = (Arc::clone(&all), verdict.clone());
                thread::spawn(move || serve(socket.unwrap(), &verdict, &all));
            }
        });
        Self { path, said }
    }

    /// For `--policy`.
    pub fn address(&self) -> String {
        format!("unix:{}", self.path.display())
    }

    pub fn say(&self, verdict: &str) {
        let mut said = self.said.0.lock().unwrap();
        for socket in &mut said.watching {
            let _ = socket.write_all(chunk(verdict).as_bytes());
        }
    }

    /// Waits until somebody watches.
    pub fn wait_watched(&self) {
        self.wait(|said| (!said.watching.is_empty()).then_some(()));
    }

    /// Waits for the first notice.
    pub fn notice(&self) -> Value {
        self.wait(|said| said.notices.first().cloned())
    }

    pub fn questions(&self) -> Vec<Value> {
        self.said.0.lock().unwrap().questions.clone()
    }

    fn wait<T>(&self, found: impl Fn(&Said) -> Option<T>) -> T {
        let by = Instant::now() + Duration::from_secs(60);
        let mut said = self.said.0.lock().unwrap();
        loop {
            if let Some(found) = found(&said) {
                return found;
            }
            let left = by.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "it never came");
            said = self.said.1.wait_timeout(said, left).unwrap().0;
        }
    }
}

fn serve(mut socket: UnixStream, verdict: &str, all: &(Mutex<Said>, Condvar)) {
    let mut reader = BufReader::new(socket.try_clone().unwrap());
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).unwrap_or(0) == 0 {
            return;
        }
    }
    let length = head.lines().find_map(|l| l.strip_prefix("Content-Length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    reader.read_exact(&mut body).unwrap();
    let body = serde_json::from_slice(&body).unwrap();
    let mut said = all.0.lock().unwrap();
    if head.starts_with("POST /castkeep/1/decide ") {
        said.questions.push(body);
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let _ = socket.write_all(format!("{head}{}", chunk(verdict)).as_bytes());
        said.watching.push(socket);
    } else {
        said.notices.push(body);
        let _ = socket.write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n");
    }
    all.1.notify_all();
}

fn chunk(line: &str) -> String {
    format!("{:x}\r\n{line}\n\r\n", line.len() + 1)
}
