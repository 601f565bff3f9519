//! A stand-in for Tailscale's LocalAPI: a scripted HTTP server on a Unix socket.
//!
//! It knows the peers, certificates and status that a test gives it, answers as `tailscaled` does (`Host` is checked, an
//! unknown peer is a 404 with its words), and misbehaves when told to. It can be stopped and started again at the same path.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::disallowed_methods,
    clippy::disallowed_types
)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// How it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// As tailscaled: `Content-Length`.
    Honest,
    /// As tailscaled with a long answer: chunked, in small pieces.
    Chunked,
    /// The head, a body until the connection closes.
    UntilClose,
    /// Takes the request and never answers; ends when the mode changes.
    Silent,
    /// One byte of the answer after each pause.
    Slow(Duration),
    /// The answer up to so many bytes, then a close.
    Cut(usize),
    /// These bytes instead of an answer, then a close.
    Raw(Vec<u8>),
    /// This status and text.
    Status(u16, &'static str),
}

/// A node as WhoIs tells it. `user` is a login name, empty for a tagged node.
#[derive(Clone, Debug)]
pub struct Peer {
    pub id: String,
    pub name: String,
    pub address: String,
    pub user: String,
    pub tags: Vec<String>,
}

impl Peer {
    /// Of the user alice.
    pub fn new(id: &str, address: &str) -> Self {
        Self {
            id: id.into(),
            name: format!("{}.tail1.ts.net", id.to_lowercase()),
            address: address.into(),
            user: "alice@example.com".into(),
            tags: Vec::new(),
        }
    }

    /// With a tag, and so nobody's.
    pub fn tagged(id: &str, address: &str, tag: &str) -> Self {
        Self { user: String::new(), tags: vec![tag.into()], ..Self::new(id, address) }
    }

    pub fn json(&self) -> String {
        let profile = if self.user.is_empty() {
            serde_json::json!({"ID": 9, "LoginName": "tagged-devices", "DisplayName": "Tagged Devices"})
        } else {
            serde_json::json!({"ID": 3, "LoginName": self.user, "DisplayName": "Somebody"})
        };
        let bits = if self.address.contains(':') { 128 } else { 32 };
        serde_json::json!({
            "Node": {
                "ID": 7, "StableID": self.id, "Name": format!("{}.", self.name), "User": 3,
                "Key": format!("nodekey:{}", "ab".repeat(32)),
                "Addresses": [format!("{}/{bits}", self.address)], "Tags": self.tags, "Online": true,
            },
            "UserProfile": profile,
            "CapMap": null,
        })
        .to_string()
    }
}

#[derive(Debug)]
struct Script {
    mode: Mode,
    /// By `ip:port` or by IP address, the former first.
    peers: BTreeMap<String, String>,
    status: String,
    certificates: BTreeMap<String, String>,
    asked: Vec<String>,
}

/// The server. It ends, and its socket goes, with the value.
pub struct LocalApiServer {
    path: PathBuf,
    script: Arc<Mutex<Script>>,
    stop: Arc<AtomicBool>,
    thread: Option<(UnixListener, JoinHandle<()>)>,
}

impl LocalApiServer {
    /// Listens at `path`, which must not be there.
    pub fn start(path: &Path) -> Self {
        let script = Script {
            mode: Mode::Honest,
            peers: BTreeMap::new(),
            status: "{\"BackendState\":\"Running\",\"Self\":null,\"Peer\":{}}".into(),
            certificates: BTreeMap::new(),
            asked: Vec::new(),
        };
        let mut server = Self {
            path: path.to_owned(),
            script: Arc::new(Mutex::new(script)),
            stop: Arc::default(),
            thread: None,
        };
        server.start_again();
        server
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What WhoIs says of the peer's own address.
    pub fn add(&self, peer: &Peer) {
        self.add_at(&peer.address, peer);
    }

    /// What WhoIs says of an address, or of an address and port (`127.0.0.1:4000`).
    pub fn add_at(&self, address: &str, peer: &Peer) {
        self.set_json(address, &peer.json());
    }

    pub fn set_json(&self, address: &str, json: &str) {
        self.script().peers.insert(address.to_owned(), json.to_owned());
    }

    pub fn forget(&self, address: &str) {
        self.script().peers.remove(address);
    }

    pub fn set_status(&self, json: &str) {
        self.script().status = json.to_owned();
    }

    /// Private key first, then the chain, as tailscaled sends them.
    pub fn set_certificate(&self, domain: &str, chain_pem: &str, key_pem: &str) {
        self.script().certificates.insert(domain.to_owned(), format!("{key_pem}{chain_pem}"));
    }

    pub fn set_mode(&self, mode: Mode) {
        self.script().mode = mode;
    }

    /// The targets of all requests so far.
    pub fn asked(&self) -> Vec<String> {
        self.script().asked.clone()
    }

    /// How often WhoIs was asked.
    pub fn whois_count(&self) -> usize {
        self.script().asked.iter().filter(|t| t.starts_with("/localapi/v0/whois")).count()
    }

    /// Ends it, as a stopped tailscaled: the socket is gone. [`Self::start_again`] brings it back with all it knew.
    pub fn stop(&mut self) {
        if let Some((listener, thread)) = self.thread.take() {
            self.stop.store(true, Ordering::SeqCst);
            // The path may be gone with its directory: a connect would wake nobody.
            let _ = rustix::net::shutdown(&listener, rustix::net::Shutdown::Both);
            let _ = thread.join();
            let _ = std::fs::remove_file(&self.path);
        }
    }

    pub fn start_again(&mut self) {
        self.stop();
        let listener = UnixListener::bind(&self.path).unwrap();
        self.stop = Arc::default();
        let (script, stop) = (Arc::clone(&self.script), Arc::clone(&self.stop));
        let handle = listener.try_clone().unwrap();
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let (script, stop) = (Arc::clone(&script), Arc::clone(&stop));
                if let Ok(stream) = stream {
                    std::thread::spawn(move || serve(stream, &script, &stop));
                }
            }
        });
        self.thread = Some((handle, thread));
    }

    fn script(&self) -> std::sync::MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }
}

impl Drop for LocalApiServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// One request and its answer. Whoever asks may be gone at any moment.
fn serve(mut stream: UnixStream, script: &Mutex<Script>, stop: &AtomicBool) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(30)));
    let Some(head) = read_head(&mut stream) else { return };
    let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
    script.lock().unwrap().asked.push(target.clone());
    let while_mode = |mode: &Mode| {
        let same = script.lock().unwrap().mode == *mode;
        same && !stop.load(Ordering::SeqCst)
    };
    let mode = script.lock().unwrap().mode.clone();
    let (status, body) = match &mode {
        Mode::Status(status, text) => (*status, format!("{text}\n")),
        _ => answer(&head, &target, &script.lock().unwrap()),
    };
    let length = format!(
        "HTTP/1.1 {status} X\r\nTailscale-Version: 1.0-test\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    match &mode {
        Mode::Honest | Mode::Status(..) => drop(stream.write_all(length.as_bytes())),
        Mode::Chunked => {
            let mut out = format!("HTTP/1.1 {status} X\r\nTransfer-Encoding: chunked\r\n\r\n");
            for piece in body.as_bytes().chunks(7) {
                out.push_str(&format!(
                    "{:x}\r\n{}\r\n",
                    piece.len(),
                    String::from_utf8_lossy(piece)
                ));
            }
            out.push_str("0\r\n\r\n");
            let _ = stream.write_all(out.as_bytes());
        }
        Mode::UntilClose => {
            let out = format!("HTTP/1.1 {status} X\r\nConnection: close\r\n\r\n{body}");
            let _ = stream.write_all(out.as_bytes());
        }
        Mode::Silent => {
            while while_mode(&mode) {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        Mode::Slow(pause) => {
            for byte in length.bytes() {
                if !while_mode(&mode) || stream.write_all(&[byte]).is_err() {
                    return;
                }
                std::thread::sleep(*pause);
            }
        }
        Mode::Cut(at) => {
            drop(stream.write_all(length.as_bytes().get(..*at).unwrap_or(length.as_bytes())));
        }
        Mode::Raw(bytes) => drop(stream.write_all(bytes)),
    }
}

fn answer(head: &str, target: &str, script: &Script) -> (u16, String) {
    let lower = head.to_lowercase();
    let field = |name: &str| lower.lines().find_map(|l| l.strip_prefix(&format!("{name}: ")));
    if field("host") != Some("local-tailscaled.sock")
        || field("origin").is_some()
        || field("referer").is_some()
    {
        return (403, "invalid localapi request\n".into());
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    match path.strip_prefix("/localapi/v0/") {
        Some("whois") => {
            let asked = query.split('&').find_map(|p| p.strip_prefix("addr=")).map(decoded);
            let parsed = asked.and_then(|a| a.parse::<std::net::SocketAddr>().ok());
            let Some(address) = parsed else { return (400, "invalid 'addr' parameter\n".into()) };
            let found = script.peers.get(&address.to_string());
            match found.or_else(|| script.peers.get(&address.ip().to_string())) {
                Some(json) => (200, json.clone()),
                None => (404, "no match for IP:port\n".into()),
            }
        }
        Some("status") => (200, script.status.clone()),
        Some(rest) if rest.starts_with("cert/") => match script.certificates.get(&rest[5..]) {
            Some(pair) if query.contains("type=pair") => (200, pair.clone()),
            Some(_) => (400, "only type=pair is known here\n".into()),
            None => (500, format!("invalid domain {:?}\n", &rest[5..])),
        },
        _ => (404, "404 page not found\n".into()),
    }
}

/// Undoes `%3A` and its like.
fn decoded(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        match after.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => out.push(char::from(byte)),
            None => return String::new(),
        }
        rest = &after[2..];
    }
    out + rest
}

fn read_head(stream: &mut UnixStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) if head.len() < 8192 => head.push(byte[0]),
            _ => return None,
        }
    }
    String::from_utf8(head).ok()
}
