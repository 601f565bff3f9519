//! A connection with its clock, and a client at its other end.

use castkeep::http2;
use castkeep::http2::{Code, Config, Connection};
use castkeep::time::{Span, Tick};
use castkeep::upload::server::{Event, HowEnded, Request, RequestId, Server, ServerConfig};

pub(super) const ID: &str = "00112233445566778899aabbccddeeff";

/// A connection with its clock.
pub(super) struct Peer {
    pub(super) server: Server,
    pub(super) now: Tick,
}

impl Peer {
    pub(super) fn new() -> Self {
        Self::with(ServerConfig::default())
    }

    pub(super) fn with(cfg: ServerConfig) -> Self {
        Self { server: Server::new(cfg, Tick(1)), now: Tick(1) }
    }

    pub(super) fn send(&mut self, bytes: impl AsRef<[u8]>) -> usize {
        self.server.handle_input(self.now, bytes.as_ref())
    }

    pub(super) fn read(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        let mut out = [0; 777];
        loop {
            let n = self.server.poll_transmit(self.now, &mut out);
            if n == 0 {
                return all;
            }
            all.extend_from_slice(&out[..n]);
        }
    }

    pub(super) fn text(&mut self) -> String {
        String::from_utf8_lossy(&self.read()).into_owned()
    }

    pub(super) fn advance(&mut self, by: Span) {
        self.now = self.now.after(by);
        self.server.handle_timeout(self.now);
    }

    pub(super) fn request(&mut self) -> Request {
        match self.server.poll_event() {
            Some(Event::Request(request)) => request,
            other => panic!("no request but {other:?}"),
        }
    }

    /// All body bytes that wait, and how it ended.
    pub(super) fn body(&mut self, id: RequestId) -> (Vec<u8>, Option<HowEnded>) {
        let mut all = Vec::new();
        while let Some(event) = self.server.poll_event() {
            match event {
                Event::Body { id: of, len } => {
                    assert_eq!((of, len), (id, self.server.body(id).len()));
                    all.extend_from_slice(self.server.body(id));
                    self.server.consume(self.now, id, len);
                }
                Event::End { id: of, how } => {
                    assert_eq!(of, id);
                    return (all, Some(how));
                }
                Event::Request(_) => panic!("another request"),
            }
        }
        (all, None)
    }
}

/// A HTTP/2 client at the other end.
pub(super) struct H2 {
    pub(super) peer: Peer,
    pub(super) client: Connection,
}

/// What the client saw of one stream.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Answer {
    pub(super) status: Vec<u16>,
    pub(super) fields: Vec<(String, String)>,
    pub(super) body: String,
    pub(super) ended: bool,
    pub(super) reset: Option<Code>,
}

impl Answer {
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

impl H2 {
    pub(super) fn new() -> Self {
        Self::with(ServerConfig::default())
    }

    pub(super) fn with(cfg: ServerConfig) -> Self {
        let mut this =
            Self { peer: Peer::with(cfg), client: Connection::client(&Config::default()) };
        this.exchange();
        this
    }

    /// Carries bytes both ways until both are silent; what the client saw, by stream.
    pub(super) fn exchange(&mut self) -> Vec<(u32, Answer)> {
        let mut answers: Vec<(u32, Answer)> = Vec::new();
        let mut out = [0; 4096];
        loop {
            let n = self.client.poll_transmit(&mut out);
            if n > 0 {
                assert_eq!(self.peer.send(&out[..n]), n);
            }
            let back = self.peer.read();
            if n == 0 && back.is_empty() {
                return answers;
            }
            let mut rest = &back[..];
            while let Some(event) = self.client.handle_input(self.peer.now, &mut rest) {
                let mut of = |stream: u32| {
                    answers.iter().position(|(s, _)| *s == stream).unwrap_or_else(|| {
                        answers.push((stream, Answer::default()));
                        answers.len() - 1
                    })
                };
                match event {
                    http2::Event::Headers { stream, fields, end, .. } => {
                        let at = of(stream);
                        let answer = &mut answers[at].1;
                        answer.status.push(fields.status().unwrap());
                        answer.ended |= end;
                        for f in fields.0 {
                            let text = |b: Vec<u8>| String::from_utf8(b).unwrap();
                            answer.fields.push((text(f.name), text(f.value)));
                        }
                    }
                    http2::Event::Data { stream, data, end } => {
                        let n = data.len();
                        let at = of(stream);
                        answers[at].1.body.push_str(core::str::from_utf8(data).unwrap());
                        answers[at].1.ended |= end;
                        self.client.credit(stream, n);
                    }
                    http2::Event::Reset { stream, code, .. } => {
                        let at = of(stream);
                        answers[at].1.reset = Some(code);
                    }
                    http2::Event::GoAway { .. } | http2::Event::Pong => {}
                    http2::Event::Failed(code) => panic!("the server broke HTTP/2: {code:?}"),
                }
            }
        }
    }

    pub(super) fn open(
        &mut self,
        method: &str,
        path: &str,
        more: &[(&str, &str)],
        end: bool,
    ) -> u32 {
        let mut fields = vec![
            (":method", method),
            (":scheme", "http"),
            (":authority", "recorder:80"),
            (":path", path),
        ];
        fields.extend_from_slice(more);
        self.client.open(&fields, end).unwrap()
    }

    pub(super) fn ask(&mut self, method: &str, path: &str, more: &[(&str, &str)]) -> Answer {
        self.open(method, path, more, true);
        self.exchange().pop().unwrap().1
    }

    pub(super) fn send(&mut self, stream: u32, data: &[u8], end: bool) -> Option<Answer> {
        let mut at = 0;
        let mut answers = Vec::new();
        loop {
            at += self.client.send_data(stream, &data[at..], end);
            answers.extend(self.exchange());
            if at == data.len() || !self.client.sends(stream) {
                break;
            }
        }
        answers.pop().map(|(_, a)| a)
    }

    /// What the client saw after the server's owner did something.
    pub(super) fn answer(&mut self) -> Answer {
        self.exchange().pop().map(|(_, a)| a).unwrap_or_default()
    }
}

pub(super) const RESUME: &[(&str, &str)] = &[
    ("castkeep-recording", ID),
    ("castkeep-resume", ID),
    ("castkeep-attempt", "1"),
    ("castkeep-window", "262144"),
];

pub(super) fn upload(h2: &mut H2, fields: &[(&str, &str)]) -> (u32, Request) {
    let stream = h2.open("POST", "/v2/record", fields, false);
    assert_eq!(h2.exchange(), [], "nothing before the shell decided");
    (stream, h2.peer.request())
}
