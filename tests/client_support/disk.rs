//! Recorders as processes, with directories that can be looked into.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use castkeep::cast::Header;
use castkeep::upload::server::Protocol;
use rustix::process::{Pid, Signal, kill_process};

use super::Part;

pub const CASTKEEP: &str = env!("CARGO_BIN_EXE_castkeep");

/// A directory that goes with its test.
pub struct Dir(pub PathBuf);

impl Dir {
    pub fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let n = COUNT.fetch_add(1, SeqCst);
        let name = format!("castkeep-client-{}-{n}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// `castkeep serve`.
pub struct Serve {
    pub addr: SocketAddr,
    pub dir: PathBuf,
    child: Child,
}

impl Serve {
    pub fn start(dir: &Path) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), dir)
    }

    pub fn start_at(listen: SocketAddr, dir: &Path) -> Self {
        Self::start_with(listen, dir, &[])
    }

    pub fn start_with(listen: SocketAddr, dir: &Path, options: &[String]) -> Self {
        let mut child = Command::new(CASTKEEP)
            .args(["serve", "--log-level", "error", "--min-free", "1", "--listen"])
            .arg(listen.to_string())
            .arg("--dst")
            .arg(dir)
            .args(options)
            .env("CASTKEEP_CONFIG", "")
            .stdout(Stdio::piped())
            .spawn()
            .expect("castkeep serve");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let addr = line.trim().rsplit(' ').next().and_then(|a| a.parse().ok());
        let addr = addr.unwrap_or_else(|| panic!("castkeep serve said {line:?}"));
        Self { addr, dir: dir.to_owned(), child }
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.child.id() as i32).unwrap(), signal).unwrap();
    }

    pub fn signal_if_alive(&mut self, signal: Signal) {
        // Once it was waited for, its id may be somebody else's.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(signal);
        }
    }

    /// SIGKILL, and gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM.
    pub fn stop(&self) {
        self.signal(Signal::TERM);
    }

    /// SIGTERM, unless it is gone already, and its orderly end.
    pub fn stop_if_alive(&mut self) {
        self.signal_if_alive(Signal::TERM);
        let by = Instant::now() + Duration::from_secs(30);
        while matches!(self.child.try_wait(), Ok(None)) {
            assert!(Instant::now() < by, "castkeep serve does not stop");
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        self.kill();
    }
}

/// All parts in the directories of recorders.
pub fn parts(dirs: &[&Path]) -> Vec<Part> {
    let mut parts = Vec::new();
    for dir in dirs {
        for node in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            for file in std::fs::read_dir(node.path()).into_iter().flatten().flatten() {
                if file.path().extension().is_none_or(|e| e != "cast") {
                    continue;
                }
                let body = std::fs::read(file.path()).unwrap();
                let Some(end) = body.iter().position(|b| *b == b'\n') else { continue };
                let header = Header::parse(&body[..end]).expect("a header");
                let offset = header.continues.map_or(0, |c| c.offset);
                let protocol = Protocol::V2Commit;
                parts.push(Part { recording: None, protocol, offset, body, ended: None });
            }
        }
    }
    parts
}

/// Passes bytes to a recorder, and cuts the connection after a number of them: in the middle of a frame, mostly.
pub fn cutting_proxy(to: SocketAddr, after: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        let left = Arc::new(AtomicUsize::new(after));
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(to) else { continue };
            let (from, into) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            let left = Arc::clone(&left);
            thread::spawn(move || pass(from, into, &left));
            thread::spawn(move || pass(server, client, &AtomicUsize::new(usize::MAX)));
        }
    });
    addr
}

/// Passes bytes to a recorder, and cuts each of the first connections after a number of them.
pub fn flaky_proxy(to: SocketAddr, cuts: Vec<usize>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut cuts = cuts.into_iter();
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(to) else { continue };
            let (from, into) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            let left = AtomicUsize::new(cuts.next().unwrap_or(usize::MAX));
            thread::spawn(move || pass(from, into, &left));
            thread::spawn(move || pass(server, client, &AtomicUsize::new(usize::MAX)));
        }
    });
    addr
}

fn pass(mut from: TcpStream, mut to: TcpStream, left: &AtomicUsize) {
    let mut buf = vec![0; 16 * 1024];
    loop {
        let n = from.read(&mut buf).unwrap_or(0);
        let may = left.load(SeqCst).min(n);
        left.fetch_sub(may, SeqCst);
        if to.write_all(&buf[..may]).is_err() || may < n || n == 0 {
            let _ = to.shutdown(std::net::Shutdown::Both);
            let _ = from.shutdown(std::net::Shutdown::Both);
            return;
        }
    }
}
