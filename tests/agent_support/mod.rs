//! What the tests of the agent share: directories, an asking client, policies, a control that says what a test wants.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::disallowed_methods,
    clippy::disallowed_types
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Mutex, Once};
use std::time::{Duration, Instant};

use castkeep::agent::{Agent, AgentConfig, SourceConfig};
use castkeep::control::http_client::HttpClientConfig;
use serde_json::{Value, json};

/// Guard against hanging, not a measure of anything.
pub const GUARD: Duration = Duration::from_secs(60);

/// A directory that goes away with the test.
pub struct Temp(pub PathBuf);

impl Temp {
    pub fn new(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("castkeep-a-{name}-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Puts a file there whole, as an editor does.
    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let (path, new) = (self.join(name), self.join(&format!("{name}.new")));
        std::fs::write(&new, content).unwrap();
        std::fs::rename(&new, &path).unwrap();
        path
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

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

// ---- agents ----

/// An agent's configuration in a directory of its own.
pub fn config(dir: &Temp, source: SourceConfig) -> AgentConfig {
    let mut config = AgentConfig::new(source);
    config.socket = dir.join("agent.sock");
    config.state = dir.join("state");
    config.syslog = dir.join("log.sock");
    config.poll_wait = Duration::from_secs(1);
    config
}

/// One with a compiled policy and, when it is there, a registry.
pub fn compiled(dir: &Temp) -> AgentConfig {
    let nodes = dir.join("nodes.json");
    let nodes = nodes.exists().then_some(nodes);
    let mut config =
        config(dir, SourceConfig::Compiled { ssh_policy: dir.join("ssh.json"), nodes });
    config.node = Some("nB".into());
    config
}

pub fn of_control(dir: &Temp, address: SocketAddr) -> AgentConfig {
    let http = HttpClientConfig { url: format!("http://{address}"), ..HttpClientConfig::default() };
    config(dir, SourceConfig::Control(http))
}

pub fn start(config: AgentConfig) -> Agent {
    Agent::start(config).unwrap_or_else(|e| panic!("{e}"))
}

/// The agent as a process.
pub struct Process {
    child: Child,
    pub log: PathBuf,
}

impl Process {
    pub fn start(dir: &Temp, args: &[&str]) -> Self {
        Self::try_start(dir, args).unwrap_or_else(|text| panic!("it did not start: {text}"))
    }

    /// What it says when it does not start.
    pub fn try_start(dir: &Temp, args: &[&str]) -> Result<Self, String> {
        let log = dir.join("agent.log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_castkeep"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("CASTKEEP_") {
                command.env_remove(name);
            }
        }
        let child = command
            .arg("agent")
            .arg("--socket")
            .arg(dir.join("agent.sock"))
            .arg("--state")
            .arg(dir.join("state"))
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut process = Self { child, log };
        let mut line = String::new();
        BufReader::new(process.child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if line.starts_with("listening on ") { Ok(process) } else { Err(process.said()) }
    }

    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub fn wait(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// ---- policies ----

/// A rule that lets `principals` in as whom they want, with what is more in its action.
pub fn rule(principals: Value, more: Value) -> Value {
    let mut action = json!({"accept": true});
    for (key, value) in more.as_object().unwrap() {
        action[key] = value.clone();
    }
    json!({"principals": principals, "sshUsers": {"*": "=", "root": "root"}, "action": action})
}

pub fn any() -> Value {
    json!([{"any": true}])
}

pub fn policy(rules: &[Value]) -> Value {
    json!({ "rules": rules })
}

/// Control's answer.
pub fn document(version: u64, node: &str, rules: &[Value]) -> String {
    json!({"castkeepPolicy":1,"version":version,"node":node,"policy":policy(rules),"recorders":{}})
        .to_string()
}

/// laptop of alice, server of nobody, and this node.
pub const NODES: &str = r#"{"castkeepNodes":1,"nodes":[
    {"id":"nA","numericID":7,"name":"laptop.example","addresses":["127.0.0.5","fd7a::5"],"user":"alice@example.com","userID":1},
    {"id":"nC","numericID":9,"name":"ci.example","addresses":["127.0.0.6"],"tags":["tag:ci"]},
    {"id":"nB","numericID":8,"name":"web1.example","addresses":["127.0.0.7"],"tags":["tag:prod"],
     "key":"nodekey:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"},
    {"id":"nR","numericID":3,"name":"rec.example","addresses":["127.0.0.9","fd7a::9"],"tags":["tag:rec"],
     "recorder":{"port":8443,"tls":"rec.example"}}]}"#;

// ---- asking ----

/// An open connection to the socket.
pub struct Asked {
    stream: BufReader<UnixStream>,
    pub status: u16,
}

pub fn connect(socket: &Path) -> UnixStream {
    let stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(GUARD)).unwrap();
    stream.set_write_timeout(Some(GUARD)).unwrap();
    stream
}

pub fn post(socket: &Path, path: &str, body: &str) -> Asked {
    let mut stream = connect(socket);
    // The answer can come, and the connection be closed, before all is sent.
    let _ = write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: castkeep\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    Asked::of(stream)
}

/// Asks, and reads the head of the answer.
pub fn ask(socket: &Path, question: &Value) -> Asked {
    post(socket, "/castkeep/1/decide", &question.to_string())
}

/// The one line that is answered.
pub fn decide(socket: &Path, question: Value) -> Value {
    let mut asked = ask(socket, &question);
    if asked.status != 200 {
        let status = asked.status;
        panic!("{status}: {}", asked.text());
    }
    let line = asked.line().expect("a line");
    assert_eq!(asked.line(), None, "one line only");
    line
}

impl Asked {
    pub fn of(stream: UnixStream) -> Self {
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        let status = line.split(' ').nth(1).and_then(|s| s.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no answer: {line:?}"));
        while line != "\r\n" {
            line.clear();
            assert_ne!(stream.read_line(&mut line).unwrap(), 0, "no whole head");
        }
        Self { stream, status }
    }

    /// The next line of a chunked answer; none at its end.
    pub fn line(&mut self) -> Option<Value> {
        let mut size = String::new();
        self.stream.read_line(&mut size).unwrap();
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or_else(|_| panic!("{size:?}"));
        let mut chunk = vec![0; size + 2];
        self.stream.read_exact(&mut chunk).unwrap();
        if size == 0 {
            return None;
        }
        assert!(chunk.ends_with(b"\n\r\n"), "a chunk is a line");
        Some(serde_json::from_slice(&chunk[..size]).unwrap())
    }

    /// The rest, as text.
    pub fn text(mut self) -> String {
        let mut text = String::new();
        self.stream.read_to_string(&mut text).unwrap();
        text
    }
}

/// Asks until the answer is as wanted: for what happens in the agent's own time.
pub fn until(
    socket: &Path,
    question: &Value,
    what: &str,
    wanted: impl Fn(&Value) -> bool,
) -> Value {
    eventually(what, || {
        let verdict = decide(socket, question.clone());
        wanted(&verdict).then_some(verdict)
    })
}

pub fn version(verdict: &Value) -> u64 {
    verdict["version"].as_u64().unwrap()
}

// ---- a control that says what the test wants ----

/// A request as it came.
#[derive(Debug)]
pub struct Got {
    pub method: String,
    pub path: String,
    pub etag: Option<String>,
    pub body: String,
    stream: TcpStream,
}

/// Takes connections; the test answers each request itself.
pub struct Script {
    pub address: SocketAddr,
    policies: Receiver<Got>,
    notices: Receiver<Got>,
}

impl Script {
    pub fn new() -> Self {
        Self::at("127.0.0.1:0".parse().unwrap())
    }

    pub fn at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let (to_policies, policies) = mpsc::channel();
        let (to_notices, notices) = mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (policies, notices) = (to_policies.clone(), to_notices.clone());
                std::thread::spawn(move || read_request(stream.unwrap(), &policies, &notices));
            }
        });
        Self { address, policies, notices }
    }

    /// The next question about policy.
    pub fn policy(&self) -> Got {
        self.policies.recv_timeout(GUARD).expect("a GET of the policy")
    }

    /// The next notification.
    pub fn notice(&self) -> Got {
        self.notices.recv_timeout(GUARD).expect("a POST of a notification")
    }

    /// Whether another notification came.
    pub fn no_notice(&self) {
        assert!(self.notices.try_recv().is_err(), "one notification too many");
    }
}

fn read_request(mut stream: TcpStream, policies: &Sender<Got>, notices: &Sender<Got>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    let _ = reader.read_line(&mut line);
    let mut words = line.split(' ').map(str::to_owned);
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return };
    let (mut etag, mut length) = (None, 0);
    loop {
        line.clear();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "if-none-match" => etag = Some(value.to_owned()),
            "content-length" => length = value.parse().unwrap(),
            "expect" => stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    if reader.read_exact(&mut body).is_err() {
        return;
    }
    let body = String::from_utf8(body).unwrap();
    let to = if path.starts_with("/castkeep/1/policy") { policies } else { notices };
    let _ = to.send(Got { method, path, etag, body, stream });
}

impl Got {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// Answers and closes.
    pub fn answer(self, status: &str, etag: Option<&str>, body: &str) {
        let etag = etag.map_or_else(String::new, |etag| format!("ETag: {etag}\r\n"));
        self.raw(&format!(
            "HTTP/1.1 {status}\r\n{etag}Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
    }

    pub fn policy(self, document: &str) {
        let etag = format!("\"{:x}\"", document.len());
        self.answer("200 OK", Some(&etag), document);
    }

    /// Whatever it is.
    pub fn raw(mut self, bytes: &str) {
        // The agent may have hung up: that is its right with a broken answer.
        let _ = self.stream.write_all(bytes.as_bytes());
    }

    /// Leaves the request without an answer; the connection stays open while the result is held.
    pub fn hang(self) -> TcpStream {
        self.stream
    }
}

// ---- the log ----

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Collect;

impl log::Log for Collect {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if record.target().starts_with("castkeep") && record.level() <= log::Level::Info {
            let line = format!("{} {}", record.level(), record.args());
            LINES.lock().unwrap().push(line);
        }
    }

    fn flush(&self) {}
}

/// Begins to keep what agents in this process log.
pub fn keep_log() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Collect).unwrap();
        log::set_max_level(log::LevelFilter::Info);
    });
}

/// The lines so far that have `part` in them: tests in one process share the log.
pub fn logged(part: &str) -> Vec<String> {
    LINES.lock().unwrap().iter().filter(|line| line.contains(part)).cloned().collect()
}

// ---- other users ----

/// Whether this process is root; when it is not, what needs it is skipped, which is a failure under CI=true.
pub fn is_root(what: &str) -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    println!("skipped: {what}: needs root");
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{what} needs root");
    false
}

/// Runs `body` in a thread of another user.
pub fn as_user<T: Send>(uid: u32, body: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            let uid = rustix::process::Uid::from_raw(uid);
            rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
            body()
        });
        thread.join().unwrap()
    })
}
