//! What the recorder's tests share: directories, clients over real sockets, and the program as a child.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::disallowed_methods,
    clippy::disallowed_types
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use castkeep::http2::{self, Connection, Event};
use castkeep::recorder::{Recorder, RecorderConfig};
use castkeep::time::Tick;

/// Guard against hanging, not a measure of anything.
pub const GUARD: Duration = Duration::from_secs(30);

/// A directory that goes away with the test.
pub struct Temp(pub PathBuf);

impl Temp {
    pub fn new(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("castkeep-{name}-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A recorder in this process.
pub fn start(dir: &Temp, change: impl FnOnce(&mut RecorderConfig)) -> (Recorder, SocketAddr) {
    let mut config = RecorderConfig::new(dir.join("dst"));
    change(&mut config);
    let recorder = Recorder::start(config).unwrap_or_else(|e| panic!("{e}"));
    let address = recorder.addresses()[0];
    (recorder, address)
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

/// All files below `dst` whose name ends so, outside `open/`.
pub fn files(dst: &Path, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(nodes) = std::fs::read_dir(dst) else { return found };
    for node in nodes.flatten().filter(|n| n.path().is_dir() && n.file_name() != "open") {
        for file in std::fs::read_dir(node.path()).unwrap().flatten() {
            if file.file_name().to_string_lossy().ends_with(end) {
                found.push(file.path());
            }
        }
    }
    found.sort();
    found
}

/// The only recording, once its sidecar is there: bytes and sidecar.
pub fn only_recording(dst: &Path) -> (Vec<u8>, serde_json::Value) {
    let sidecar = eventually("a sidecar", || files(dst, ".json").pop());
    assert_eq!(files(dst, ".cast").len(), 1);
    let bytes = std::fs::read(sidecar.with_extension("cast")).unwrap();
    let sidecar = serde_json::from_slice(&std::fs::read(sidecar).unwrap()).unwrap();
    (bytes, sidecar)
}

/// A cast of about `size` bytes; every line can be told apart.
pub fn cast(size: usize) -> Vec<u8> {
    let mut out = b"{\"version\":2,\"width\":80,\"height\":24,\"timestamp\":1}\n".to_vec();
    let mut n = 0;
    while out.len() < size {
        out.extend_from_slice(format!("[{n}.5,\"o\",\"line {n}\\r\\n\"]\n").as_bytes());
        n += 1;
    }
    out
}

pub fn connect(address: SocketAddr) -> TcpStream {
    let tcp = TcpStream::connect(address).unwrap();
    tcp.set_read_timeout(Some(GUARD)).unwrap();
    tcp.set_write_timeout(Some(GUARD)).unwrap();
    tcp.set_nodelay(true).unwrap();
    tcp
}

// ---- HTTP/1.1 ----

/// Reads one head, byte by byte: what follows stays in the socket.
pub fn read_head(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            other => panic!("{other:?} after {:?}", String::from_utf8_lossy(&head)),
        }
    }
    String::from_utf8(head).unwrap()
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

pub fn write_chunk(stream: &mut impl Write, data: &[u8]) {
    write!(stream, "{:x}\r\n", data.len()).unwrap();
    stream.write_all(data).unwrap();
    stream.write_all(b"\r\n").unwrap();
}

/// Sends the head of a v1 upload and waits for what is said before the body.
pub fn begin_v1(stream: &mut (impl Read + Write)) -> String {
    stream
        .write_all(
            b"POST /record HTTP/1.1\r\nHost: r\r\nTransfer-Encoding: chunked\r\n\
              Expect: 100-continue\r\n\r\n",
        )
        .unwrap();
    read_head(stream)
}

/// A whole v1 upload; the final head.
pub fn upload_v1(stream: &mut (impl Read + Write), body: &[u8]) -> String {
    let head = begin_v1(stream);
    assert!(head.starts_with("HTTP/1.1 100"), "{head}");
    for piece in body.chunks(1000) {
        write_chunk(stream, piece);
    }
    stream.write_all(b"0\r\n\r\n").unwrap();
    read_head(stream)
}

// ---- HTTP/2 ----

/// What the other side said, with nothing borrowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    Headers { stream: u32, status: u16, fields: Vec<(String, String)>, end: bool },
    Data { stream: u32, text: String, end: bool },
    Reset { stream: u32 },
    Pong,
    GoAway,
    Closed,
}

/// An HTTP/2 client: castkeep's own pure connection on a blocking stream.
pub struct H2<S: Read + Write = TcpStream> {
    pub stream: S,
    pub connection: Connection,
    pub said: Vec<Said>,
    origin: Instant,
    closed: bool,
}

impl<S: Read + Write> H2<S> {
    pub fn new(stream: S) -> Self {
        let config =
            http2::Config { stream_window: 1 << 20, connection_window: 1 << 20, max_streams: 0 };
        let connection = Connection::client(&config);
        let mut h2 =
            Self { stream, connection, said: Vec::new(), origin: Instant::now(), closed: false };
        h2.flush();
        h2
    }

    pub fn flush(&mut self) {
        let mut out = [0; 4096];
        loop {
            let n = self.connection.poll_transmit(&mut out);
            if n == 0 || self.stream.write_all(&out[..n]).is_err() {
                return;
            }
        }
    }

    /// Reads once and takes note of what was said.
    pub fn pump(&mut self) {
        let mut buf = [0; 16 * 1024];
        let n = match self.stream.read(&mut buf) {
            Ok(0) => {
                self.said.push(Said::Closed);
                self.closed = true;
                return;
            }
            Ok(n) => n,
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => {
                self.said.push(Said::Closed);
                self.closed = true;
                return;
            }
            Err(e) => panic!("{e}, so far {:?}", self.said),
        };
        let now = Tick(self.origin.elapsed().as_micros() as u64);
        let mut input = &buf[..n];
        let mut credit = Vec::new();
        while let Some(event) = self.connection.handle_input(now, &mut input) {
            let said = match event {
                Event::Headers { stream, fields, end, .. } => Said::Headers {
                    stream,
                    status: fields.status().unwrap_or(0),
                    fields: fields
                        .0
                        .iter()
                        .map(|f| {
                            let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
                            (text(&f.name), text(&f.value))
                        })
                        .collect(),
                    end,
                },
                Event::Data { stream, data, end } => {
                    credit.push((stream, data.len()));
                    Said::Data { stream, text: String::from_utf8_lossy(data).into_owned(), end }
                }
                Event::Reset { stream, .. } => Said::Reset { stream },
                Event::Pong => Said::Pong,
                Event::GoAway { .. } => Said::GoAway,
                Event::Failed(code) => panic!("the recorder broke HTTP/2: {code:?}"),
            };
            self.said.push(said);
        }
        for (stream, n) in credit {
            self.connection.credit(stream, n);
        }
        self.flush();
    }

    /// Pumps until something in what was said satisfies.
    pub fn until<T>(&mut self, what: &str, look: impl Fn(&[Said]) -> Option<T>) -> T {
        let end = Instant::now() + GUARD;
        loop {
            if let Some(found) = look(&self.said) {
                return found;
            }
            assert!(!self.closed && Instant::now() < end, "never: {what}; said {:?}", self.said);
            self.pump();
        }
    }

    pub fn open(&mut self, method: &str, path: &str, more: &[(&str, &str)], end: bool) -> u32 {
        let mut fields = vec![
            (":method", method),
            (":scheme", "http"),
            (":path", path),
            (":authority", "recorder.example"),
        ];
        fields.extend_from_slice(more);
        let stream = self.connection.open(&fields, end).unwrap();
        self.flush();
        stream
    }

    pub fn status(&mut self, stream: u32) -> u16 {
        self.until("a status", |said| {
            said.iter().find_map(|s| match s {
                Said::Headers { stream: s, status, .. } if *s == stream => Some(*status),
                _ => None,
            })
        })
    }

    /// A field of the answer's head.
    pub fn field(&mut self, stream: u32, name: &str) -> Option<String> {
        self.status(stream);
        self.said.iter().find_map(|s| match s {
            Said::Headers { stream: s, fields, .. } if *s == stream => {
                fields.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone())
            }
            _ => None,
        })
    }

    /// Everything that the answer's body said so far.
    pub fn text(&self, stream: u32) -> String {
        self.said
            .iter()
            .filter_map(|s| match s {
                Said::Data { stream: s, text, .. } if *s == stream => Some(text.as_str()),
                _ => None,
            })
            .collect()
    }

    /// Pumps until the body said this.
    pub fn until_text(&mut self, stream: u32, what: &str) {
        let end = Instant::now() + GUARD;
        while !self.text(stream).contains(what) {
            assert!(!self.closed && Instant::now() < end, "no {what}; said {:?}", self.said);
            self.pump();
        }
    }

    /// Pumps until the answer has ended.
    pub fn until_end(&mut self, stream: u32) -> String {
        self.until("the end of the answer", |said| {
            said.iter().find_map(|s| match s {
                Said::Data { stream: s, end: true, .. }
                | Said::Headers { stream: s, end: true, .. }
                    if *s == stream =>
                {
                    Some(())
                }
                _ => None,
            })
        });
        self.text(stream)
    }

    /// Sends body, waiting for windows.
    pub fn send(&mut self, stream: u32, mut data: &[u8], end: bool) {
        loop {
            let n = self.connection.send_data(stream, data, end);
            data = &data[n..];
            self.flush();
            if data.is_empty() {
                return;
            }
            if n == 0 {
                self.pump();
            }
        }
    }
}

/// The request fields of the extension.
pub struct Resume {
    pub id: String,
    pub secret: String,
    pub attempt: String,
    pub offset: String,
}

impl Resume {
    pub fn new(n: u8, attempt: u64, offset: u64) -> Self {
        Self {
            id: format!("{n:02x}").repeat(16),
            secret: format!("{:02x}", !n).repeat(16),
            attempt: attempt.to_string(),
            offset: offset.to_string(),
        }
    }

    pub fn fields(&self) -> [(&str, &str); 5] {
        [
            ("castkeep-recording", &self.id),
            ("castkeep-resume", &self.secret),
            ("castkeep-attempt", &self.attempt),
            ("castkeep-offset", &self.offset),
            ("castkeep-window", "1048576"),
        ]
    }
}

/// Repeats the header line as a part that starts at `offset` needs it.
pub fn continuation(cast: &[u8], id: &str, offset: usize) -> Vec<u8> {
    let end = cast.iter().position(|b| *b == b'\n').unwrap();
    let mut head: serde_json::Value = serde_json::from_slice(&cast[..end]).unwrap();
    head["castkeepContinues"] = serde_json::json!({"recording": id, "offset": offset});
    let mut out = serde_json::to_vec(&head).unwrap();
    out.push(b'\n');
    out.extend_from_slice(&cast[offset..]);
    out
}

/// The highest number behind `"key":` in a stream of ack objects.
pub fn last_number(text: &str, key: &str) -> Option<u64> {
    let key = format!("\"{key}\":");
    text.rmatch_indices(&key).find_map(|(at, _)| {
        let digits: String =
            text[at + key.len()..].chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    })
}

// ---- the program ----

/// `castkeep serve` as a child; killed when the test ends before it does.
pub struct Serve {
    pub child: Child,
    pub address: SocketAddr,
    pub lines: Vec<String>,
}

impl Serve {
    /// Starts it and waits for the line that says where it listens.
    pub fn start(dst: &Path, flags: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_castkeep"));
        command.arg("serve").arg("--dst").arg(dst).args(["--listen", "127.0.0.1:0"]).args(flags);
        Self::spawn(&mut command)
    }

    pub fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut all = Vec::new();
        let address = loop {
            let line = lines.next().expect("it ended before it listened").unwrap();
            all.push(line.clone());
            if let Some(address) = line.strip_prefix("listening on ") {
                break address.parse().unwrap();
            }
        };
        Self { child, address, lines: all }
    }

    pub fn signal(&self, name: &str) {
        let status =
            Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Its exit status, within the guard.
    pub fn wait(&mut self) -> std::process::ExitStatus {
        let child = &mut self.child;
        eventually("the end of serve", || child.try_wait().unwrap())
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `castkeep serve` that is expected to end by itself: status and standard error.
pub fn serve_fails(args: &[&str]) -> (Option<i32>, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_castkeep"))
        .arg("serve")
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = stderr.read_to_string(&mut text);
        text
    });
    let end = Instant::now() + GUARD;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status.code();
        }
        if Instant::now() > end {
            let _ = child.kill();
            panic!("serve {args:?} did not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    (status, reader.join().unwrap())
}
