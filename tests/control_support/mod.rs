//! What the tests of control share: a policy with its nodes and tokens, control in this process, a webhook, certificates.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::disallowed_methods,
    clippy::disallowed_types
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use castkeep::client::TlsConfig;
use castkeep::control::http_client::{HttpAnswer, HttpClient, HttpClientConfig, HttpError};
use castkeep::control::{Control, ControlConfig};
use castkeep::recorder::TlsFiles;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Guard against hanging, not a measure of anything.
pub const GUARD: Duration = Duration::from_secs(30);

/// Alice may be root on production, recorded or not at all; everybody may be themselves on the database.
pub const POLICY: &str = r#"{
    // who is who
    "groups": {"group:ops": ["alice@example.com"]},
    "tagOwners": {"tag:prod": ["group:ops"], "tag:db": ["group:ops"], "tag:rec": ["group:ops"], "tag:spare": ["group:ops"]},
    "ssh": [
        {"action": "accept", "src": ["group:ops"], "dst": ["tag:prod"], "users": ["root"],
         "recorder": ["tag:rec"], "enforceRecorder": true},
        {"action": "accept", "src": ["autogroup:member"], "dst": ["tag:db"], "users": ["autogroup:nonroot"]},
    ],
}
"#;

/// A node of each kind. The recorder that announces itself in most tests is not among them: its tag comes with its token.
pub const NODES: &str = r#"{"castkeepNodes": 1, "nodes": [
    {"id": "n1", "name": "laptop.example", "addresses": ["100.64.0.5"], "user": "alice@example.com", "userID": 1, "tags": []},
    {"id": "n2", "name": "web1.example", "addresses": ["100.64.0.7"], "tags": ["tag:prod"]},
    {"id": "n3", "name": "rec1.example", "addresses": ["100.64.0.9"], "tags": ["tag:spare"]},
    {"id": "n4", "name": "db1.example", "addresses": ["100.64.0.8"], "tags": ["tag:db"]}
]}
"#;

/// Waits for something that happens in another thread or process.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + GUARD;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Everything that control needs, in a directory that goes away with the test.
pub struct Site {
    pub dir: PathBuf,
}

impl Site {
    pub fn new(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir()
            .join(format!("castkeep-control-{name}-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let site = Self { dir };
        site.write("policy.hujson", POLICY);
        site.write("nodes.json", NODES);
        site.tokens(&[
            ("n1", "node"),
            ("n2", "node"),
            ("n4", "node"),
            ("nobody", "node"),
            ("r1", "recorder"),
            ("ops", "admin"),
        ]);
        site
    }

    /// Tokens `<holder>-<role>` for each.
    pub fn tokens(&self, holders: &[(&str, &str)]) {
        let entries: Vec<Value> = holders
            .iter()
            .map(|(node, role)| {
                let token = format!("{node}-{role}");
                self.write(&format!("{token}.token"), &format!("{token}\n"));
                let mut entry =
                    json!({ "sha256": hex(&Sha256::digest(&token)), "node": node, "role": role });
                if *role == "recorder" {
                    entry["tags"] = json!(["tag:rec"]);
                }
                entry
            })
            .collect();
        let file = json!({ "castkeepTokens": 1, "tokens": entries });
        self.write("tokens.json", &file.to_string());
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Replaces a file as editors do.
    pub fn write(&self, name: &str, text: &str) {
        let new = self.path(&format!("{name}.edit"));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.path(name)).unwrap();
    }

    pub fn edit(&self, name: &str, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.path(name)).unwrap();
        assert!(text.contains(from), "{name} has no {from}");
        self.write(name, &text.replace(from, to));
    }

    pub fn config(&self) -> ControlConfig {
        let mut config = ControlConfig::new(
            self.path("policy.hujson"),
            self.path("nodes.json"),
            self.path("state"),
        );
        config.tokens = Some(self.path("tokens.json"));
        config.metrics_listen.push("127.0.0.1:0".parse().unwrap());
        config.watch = Duration::from_millis(20);
        config.webhook_pause = Duration::from_millis(10);
        config
    }

    pub fn start(&self) -> Running {
        self.start_with(|_| {})
    }

    pub fn start_with(&self, change: impl FnOnce(&mut ControlConfig)) -> Running {
        let mut config = self.config();
        change(&mut config);
        Running { control: Control::start(config).unwrap_or_else(|e| panic!("{e}")) }
    }

    /// A client with the token `<holder>-<role>`, over clear text on loopback.
    pub fn client(&self, control: SocketAddr, token: &str) -> HttpClient {
        let config = HttpClientConfig {
            url: format!("http://{control}"),
            token_file: Some(self.path(&format!("{token}.token"))),
            tls: TlsConfig::default(),
        };
        HttpClient::new(&config).unwrap()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

pub struct Running {
    pub control: Control,
}

impl Running {
    pub fn address(&self) -> SocketAddr {
        self.control.addresses()[0]
    }

    pub fn metric(&self, name: &str) -> u64 {
        let address = self.control.metrics_addresses()[0];
        let page = exchange(address, b"GET /metrics HTTP/1.1\r\nHost: c\r\n\r\n");
        let line = page.lines().find(|l| l.starts_with(&format!("castkeep_control_{name} ")));
        let line = line.unwrap_or_else(|| panic!("no {name} in {page}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }
}

/// An admin's look at a node's policy.
pub fn view_of(admin: &HttpClient, node: &str) -> Value {
    let path = format!("/castkeep/1/policy?node={node}");
    let answer = admin.get(&path, None, GUARD, 1 << 24).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    body(&answer)
}

pub fn get(client: &HttpClient, path: &str) -> HttpAnswer {
    client.get(path, None, GUARD, 1 << 24).unwrap()
}

pub fn post(client: &HttpClient, path: &str, body: &Value) -> HttpAnswer {
    client.post(path, body.to_string().as_bytes(), GUARD, 1 << 20).unwrap()
}

pub fn body(answer: &HttpAnswer) -> Value {
    serde_json::from_slice(&answer.body).unwrap()
}

pub fn version(answer: &HttpAnswer) -> u64 {
    body(answer)["version"].as_u64().unwrap()
}

/// A long poll in a thread of its own. It is known to wait when the metric says so.
pub fn poll(client: &HttpClient, etag: &str) -> JoinHandle<Result<HttpAnswer, HttpError>> {
    let (client, etag) = (client.clone(), etag.to_owned());
    std::thread::spawn(move || {
        client.get("/castkeep/1/policy?wait=55", Some(&etag), GUARD, 1 << 24)
    })
}

/// An event as agents tell it.
pub fn event(kind: u8, connection: &str) -> Value {
    json!({
        "EventType": kind,
        "ConnectionID": connection,
        "CapVersion": 131,
        "NodeKey": format!("nodekey:{}", "0a".repeat(32)),
        "SrcNode": 17,
        "SSHUser": "root",
        "LocalUser": "root",
        "RecordingAttempts": [{"Recorder": "127.0.0.1:80", "FailureMessage": "refused"}],
    })
}

/// Sends the bytes and reads until the other side closes.
pub fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let mut tcp = connect(address);
    // The answer can come, and the connection be closed, before all is sent.
    let _ = tcp.write_all(request);
    let mut answer = Vec::new();
    let _ = tcp.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

pub fn connect(address: SocketAddr) -> TcpStream {
    let tcp = TcpStream::connect(address).unwrap();
    tcp.set_read_timeout(Some(GUARD)).unwrap();
    tcp.set_write_timeout(Some(GUARD)).unwrap();
    tcp
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

// ---- certificates ----

pub struct Authority {
    pub certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    /// Certificate and key, PEM.
    pub fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

/// Files of a server on 127.0.0.1, whose clients come from another authority.
pub fn server_files(site: &Site, servers: &Authority, clients: Option<&Authority>) -> TlsFiles {
    let (certificate, key) = servers.issue("127.0.0.1");
    site.write("cert.pem", &certificate);
    site.write("key.pem", &key);
    if let Some(clients) = clients {
        site.write("clients.pem", &clients.certificate.pem());
    }
    TlsFiles {
        cert: site.path("cert.pem"),
        key: site.path("key.pem"),
        client_ca: clients.map(|_| site.path("clients.pem")),
    }
}

// ---- a webhook ----

/// Keeps what it is sent; refuses while it is told to.
pub struct Webhook {
    pub address: SocketAddr,
    pub got: Arc<Mutex<Vec<Value>>>,
    status: Arc<AtomicU16>,
    asked: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Webhook {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let got = Arc::new(Mutex::new(Vec::new()));
        let status = Arc::new(AtomicU16::new(200));
        let (asked, stop) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (got, status) = (Arc::clone(&got), Arc::clone(&status));
            let (asked, stop) = (Arc::clone(&asked), Arc::clone(&stop));
            move || {
                for tcp in listener.incoming() {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let _ = take(tcp.unwrap(), &got, &status, &asked);
                }
            }
        });
        Self { address, got, status, asked, stop, thread: Some(thread) }
    }

    pub fn answers(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    pub fn asked(&self) -> u32 {
        self.asked.load(Ordering::SeqCst)
    }

    /// Connection ids in the order of their coming.
    pub fn connections(&self) -> Vec<String> {
        let got = self.got.lock().unwrap();
        got.iter().map(|e| e["event"]["ConnectionID"].as_str().unwrap().to_owned()).collect()
    }

    pub fn config(&self) -> HttpClientConfig {
        HttpClientConfig {
            url: format!("http://{}/hook", self.address),
            ..HttpClientConfig::default()
        }
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().unwrap().join();
    }
}

fn take(
    mut tcp: TcpStream,
    got: &Mutex<Vec<Value>>,
    status: &AtomicU16,
    asked: &AtomicU32,
) -> std::io::Result<()> {
    tcp.set_read_timeout(Some(GUARD))?;
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        tcp.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    assert!(head.starts_with("post /hook http/1.1"), "{head}");
    let length = head.lines().find_map(|l| l.strip_prefix("content-length:")).unwrap();
    let mut body = vec![0; length.trim().parse().unwrap()];
    tcp.read_exact(&mut body)?;
    let status = status.load(Ordering::SeqCst);
    if status == 200 {
        got.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
    }
    asked.fetch_add(1, Ordering::SeqCst);
    write!(tcp, "HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

/// Runs the program with arguments until it says where it listens.
pub struct Program {
    pub child: std::process::Child,
    pub address: SocketAddr,
    /// What it logs.
    pub log: PathBuf,
}

impl Program {
    pub fn start(site: &Site, name: &str, args: &[&str]) -> Self {
        let log = site.path(&format!("{name}.log"));
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_castkeep"))
            .args(args)
            .stdout(std::process::Stdio::piped())
            .stderr(file)
            .spawn()
            .unwrap();
        let mut line = Vec::new();
        let mut byte = [0];
        let mut out = child.stdout.take().unwrap();
        while line.last() != Some(&b'\n') {
            out.read_exact(&mut byte).unwrap_or_else(|_| {
                panic!("it ended: {}", std::fs::read_to_string(&log).unwrap_or_default())
            });
            line.push(byte[0]);
        }
        let line = String::from_utf8(line).unwrap();
        let address = line.trim().strip_prefix("listening on ").unwrap().parse().unwrap();
        Self { child, address, log }
    }

    /// `castkeep control` with this site's files.
    pub fn control(site: &Site, more: &[&str]) -> Self {
        let path = |name: &str| site.path(name).display().to_string();
        let (policy, nodes, state, tokens) =
            (path("policy.hujson"), path("nodes.json"), path("state"), path("tokens.json"));
        let mut args = vec![
            "control", "--policy", &policy, "--nodes", &nodes, "--state", &state, "--tokens",
            &tokens,
        ];
        if !more.contains(&"--listen") {
            args.extend(["--listen", "127.0.0.1:0"]);
        }
        args.extend(more);
        Self::start(site, "control", &args)
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = std::process::Command::new("kill").args(["-s", name, &pid]).status().unwrap();
        assert!(status.success());
    }

    pub fn wait(&mut self) -> std::process::ExitStatus {
        let child = &mut self.child;
        eventually("the end of the program", || child.try_wait().unwrap())
    }

    pub fn log_has(&self, text: &str) {
        eventually(&format!("`{text}` in {}", self.log.display()), || {
            std::fs::read_to_string(&self.log).unwrap().contains(text).then_some(())
        });
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the program, which is expected to end by itself: status and standard error.
pub fn ends(args: &[&str]) -> (Option<i32>, String) {
    let out =
        std::process::Command::new(env!("CARGO_BIN_EXE_castkeep")).args(args).output().unwrap();
    (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
}

pub fn shown(path: &Path) -> String {
    path.display().to_string()
}
