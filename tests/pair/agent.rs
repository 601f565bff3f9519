//! Whoever answers for policy: a scripted peer that is always near.

use castkeep::ask::{DECIDE_PATH, NOTIFY_PATH};
use castkeep::session::LinkId;
use serde_json::Value;

/// One connection to it.
#[derive(Debug)]
struct Conn {
    link: LinkId,
    told_up: bool,
    got: Vec<u8>,
    /// The path, once the request is whole.
    path: Option<String>,
}

/// What it does, and what it was told.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) alive: bool,
    /// What it answers; none: it is silent.
    pub(crate) verdict: Option<String>,
    /// How it answers to notices; 0: not at all.
    pub(crate) notice_status: u16,
    pub(crate) questions: Vec<Value>,
    pub(crate) notices: Vec<Value>,
    conns: Vec<Conn>,
    /// What the session is to hear next.
    pub(crate) out: Vec<(LinkId, Said)>,
}

/// Something that reaches the session.
#[derive(Debug)]
pub(crate) enum Said {
    Up,
    Bytes(Vec<u8>),
    Eof,
    Down,
}

impl Agent {
    pub(crate) fn new(verdict: Option<&str>) -> Self {
        Self {
            alive: true,
            verdict: verdict.map(str::to_owned),
            notice_status: 201,
            questions: Vec::new(),
            notices: Vec::new(),
            conns: Vec::new(),
            out: Vec::new(),
        }
    }

    pub(crate) fn connect(&mut self, link: LinkId) {
        if self.alive {
            self.conns.push(Conn { link, told_up: true, got: Vec::new(), path: None });
            self.out.push((link, Said::Up));
        } else {
            self.out.push((link, Said::Down));
        }
    }

    pub(crate) fn close(&mut self, link: LinkId) {
        self.conns.retain(|c| c.link != link);
        self.out.retain(|(l, _)| *l != link);
    }

    pub(crate) fn links(&self) -> Vec<LinkId> {
        self.conns.iter().filter(|c| c.told_up).map(|c| c.link).collect()
    }

    pub(crate) fn take(&mut self, link: LinkId, bytes: &[u8]) {
        let Some(conn) = self.conns.iter_mut().find(|c| c.link == link) else { return };
        conn.got.extend_from_slice(bytes);
        let text = String::from_utf8(conn.got.clone()).unwrap();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { return };
        let length = head.lines().find_map(|l| l.strip_prefix("Content-Length: ")).unwrap();
        if conn.path.is_some() || body.len() < length.parse().unwrap() {
            return;
        }
        let body: Value = serde_json::from_str(body).unwrap();
        let path = head.split(' ').nth(1).unwrap().to_owned();
        match path.as_str() {
            DECIDE_PATH => {
                self.questions.push(body);
                self.out.push((link, Said::Bytes(HEAD.to_vec())));
                if let Some(verdict) = &self.verdict {
                    self.out.push((link, Said::Bytes(chunk(verdict))));
                }
            }
            NOTIFY_PATH => {
                if self.notice_status == 201 {
                    self.notices.push(body);
                }
                if self.notice_status > 0 {
                    let status = self.notice_status;
                    let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n");
                    self.out.push((link, Said::Bytes(answer.into_bytes())));
                }
            }
            other => panic!("{other}"),
        }
        self.conns.iter_mut().find(|c| c.link == link).unwrap().path = Some(path);
    }

    /// Policy changed: everybody who watches is told.
    pub(crate) fn say(&mut self, verdict: &str) {
        self.verdict = Some(verdict.to_owned());
        for conn in self.conns.iter().filter(|c| c.path.as_deref() == Some(DECIDE_PATH)) {
            self.out.push((conn.link, Said::Bytes(chunk(verdict))));
        }
    }

    /// It dies; until it is alive again nobody gets through.
    pub(crate) fn die(&mut self) {
        self.alive = false;
        for conn in self.conns.drain(..) {
            self.out.push((conn.link, Said::Eof));
        }
    }
}

fn chunk(line: &str) -> Vec<u8> {
    format!("{:x}\r\n{line}\n\r\n", line.len() + 1).into_bytes()
}

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
