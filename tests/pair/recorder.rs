//! A simulated recorder: the real connection machine over a store in memory that tells received from durable.

use castkeep::cast::Header;
use castkeep::time::{Span, Tick};
use castkeep::upload::server::{Event, HowEnded, Kind, Protocol, RequestId, Server};

/// What a recorder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavour {
    Castkeep,
    /// Only HTTP/1.1, no extension.
    StockV1,
    /// HTTP/2 without the extension.
    StockV2,
}

/// What it says that is not true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    None,
    /// Commits what was never encoded.
    CommitBeyond,
    /// Seals another end.
    SealedWrong,
    /// Its 200 commits beyond the stream.
    AcceptBeyond,
}

/// One file.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// Offset of `data` in the stream, where it is known from the request.
    from: u64,
    /// Header line of a continuation.
    pub(crate) header: Vec<u8>,
    pub(crate) data: Vec<u8>,
    /// Bytes of `data` on stable storage.
    pub(crate) durable: usize,
    pub(crate) sealed: bool,
    /// The body as it came: offsets stand in its first line.
    stock: bool,
}

impl Part {
    /// Offset and bytes in the stream, all or what is durable.
    pub(crate) fn stream(&self, durable: bool) -> (u64, &[u8]) {
        let data = if durable { &self.data[..self.durable] } else { &self.data[..] };
        if !self.stock {
            return (self.from, data);
        }
        let Some(lf) = data.iter().position(|b| *b == b'\n') else { return (0, &[]) };
        match Header::parse(&data[..lf]).ok().and_then(|h| h.continues) {
            Some(continues) => (continues.offset, &data[lf + 1..]),
            None => (0, data),
        }
    }
}

/// One upload on one connection.
#[derive(Debug)]
struct Upload {
    conn: usize,
    id: RequestId,
    protocol: Protocol,
    part: usize,
    from: u64,
    /// The header line of the continuation is still to be read.
    in_header: bool,
    header_len: u64,
    received: u64,
    /// Next position in the part: below its end, bytes are compared.
    at: usize,
    ended: bool,
    dead: bool,
}

#[derive(Debug)]
pub(crate) struct Recorder {
    pub(crate) flavour: Flavour,
    pub(crate) alive: bool,
    /// Packets go nowhere; they are delivered when it is over.
    pub(crate) hole: bool,
    pub(crate) latency: Span,
    pub(crate) sync_time: Span,
    pub(crate) disk_hangs: bool,
    pub(crate) draining: bool,
    pub(crate) lie: Lie,
    /// Refuses new uploads with this status.
    pub(crate) refuse: Option<u16>,
    /// Accepts, and dies after so many body bytes.
    /// Says so at the first body bytes.
    pub(crate) fail_with: Option<&'static str>,
    pub(crate) die_after: Option<u64>,
    pub(crate) parts: Vec<Part>,
    attempt: u64,
    uploads: Vec<Upload>,
    sync: Option<Tick>,
    /// Uploads accepted.
    pub(crate) accepted: u32,
    pub(crate) bytes: u64,
    pub(crate) supersessions: u32,
}

impl Recorder {
    pub(crate) fn new(flavour: Flavour) -> Self {
        Self {
            flavour,
            alive: true,
            hole: false,
            latency: Span::from_ms(2),
            sync_time: Span::from_ms(5),
            disk_hangs: false,
            draining: false,
            lie: Lie::None,
            refuse: None,
            fail_with: None,
            die_after: None,
            parts: Vec::new(),
            attempt: 0,
            uploads: Vec::new(),
            sync: None,
            accepted: 0,
            bytes: 0,
            supersessions: 0,
        }
    }

    /// Power loss or kill -9: what is not durable is gone.
    pub(crate) fn die(&mut self) {
        self.alive = false;
        self.uploads.clear();
        self.sync = None;
        for part in &mut self.parts {
            part.data.truncate(part.durable);
        }
        self.parts.retain(|p| !p.data.is_empty());
    }

    pub(crate) fn drain(&mut self, now: Tick, servers: &mut [Option<Server>]) {
        self.draining = true;
        for upload in &self.uploads {
            if let Some(server) = servers.get_mut(upload.conn).and_then(Option::as_mut) {
                server.drain(now, upload.id);
            }
        }
    }

    pub(crate) fn forget_connection(&mut self, conn: usize) {
        self.uploads.retain(|u| u.conn != conn);
    }

    pub(crate) fn poll_timeout(&self) -> Option<Tick> {
        self.sync
    }

    /// Handles what a connection has to say. True: something happened.
    pub(crate) fn run(&mut self, now: Tick, conn: usize, servers: &mut [Option<Server>]) -> bool {
        let mut any = false;
        while let Some(event) = servers[conn].as_mut().and_then(Server::poll_event) {
            any = true;
            match event {
                Event::Request(request) => match request.kind {
                    Kind::Record { protocol, resume } => {
                        self.request(now, conn, request.id, protocol, resume, servers);
                    }
                    Kind::Event => {
                        servers[conn].as_mut().unwrap().refuse(now, request.id, 503, "no")
                    }
                },
                Event::Body { id, .. } => self.body(now, conn, id, servers),
                Event::End { id, how } => {
                    for u in self.uploads.iter_mut().filter(|u| u.conn == conn && u.id == id) {
                        match how {
                            HowEnded::Clean | HowEnded::Moved => u.ended = true,
                            HowEnded::Truncated => u.dead = true,
                        }
                    }
                    self.uploads.retain(|u| !u.dead);
                }
            }
        }
        any | self.settle(now, servers)
    }

    fn request(
        &mut self,
        now: Tick,
        conn: usize,
        id: RequestId,
        protocol: Protocol,
        resume: Option<castkeep::upload::wire::ResumeHeaders>,
        servers: &mut [Option<Server>],
    ) {
        let refuse = |servers: &mut [Option<Server>], status| {
            servers[conn].as_mut().unwrap().refuse(now, id, status, "not now");
        };
        if let Some(status) = self.refuse {
            return refuse(servers, status);
        }
        if self.draining {
            return refuse(servers, 503);
        }
        self.accepted += 1;
        let Some(resume) = resume else {
            self.parts.push(Part {
                from: 0,
                header: Vec::new(),
                data: Vec::new(),
                durable: 0,
                sealed: false,
                stock: true,
            });
            self.push_upload(conn, id, protocol, self.parts.len() - 1, 0, 0);
            servers[conn].as_mut().unwrap().accept(now, id, None);
            return;
        };
        if resume.attempt <= self.attempt {
            return refuse(servers, 409);
        }
        self.attempt = resume.attempt;
        for old in std::mem::take(&mut self.uploads) {
            self.supersessions += 1;
            if let Some(server) = servers[old.conn].as_mut() {
                server.fail(now, old.id, "superseded");
            }
        }
        let n = resume.offset;
        let held = |p: &Part| p.from <= n && n <= p.from + p.data.len() as u64;
        let last = self.parts.len().checked_sub(1).filter(|i| {
            let p = &self.parts[*i];
            !p.sealed && !p.stock && held(p)
        });
        let part = last.unwrap_or_else(|| {
            self.parts.push(Part {
                from: n,
                header: Vec::new(),
                data: Vec::new(),
                durable: 0,
                sealed: false,
                stock: false,
            });
            self.parts.len() - 1
        });
        let p = &self.parts[part];
        let mut commit = (p.from + p.durable as u64).max(n);
        if self.lie == Lie::AcceptBeyond {
            commit += 1_000_000;
        }
        let at = (n - p.from) as usize;
        self.push_upload(conn, id, protocol, part, n, at);
        servers[conn].as_mut().unwrap().accept(now, id, Some(commit));
    }

    fn push_upload(
        &mut self,
        conn: usize,
        id: RequestId,
        protocol: Protocol,
        part: usize,
        from: u64,
        at: usize,
    ) {
        self.uploads.push(Upload {
            conn,
            id,
            protocol,
            part,
            from,
            in_header: from > 0,
            header_len: 0,
            received: 0,
            at,
            ended: false,
            dead: false,
        });
    }

    fn body(&mut self, now: Tick, conn: usize, id: RequestId, servers: &mut [Option<Server>]) {
        let Some(server) = servers[conn].as_mut() else { return };
        let bytes = server.body(id).to_vec();
        server.consume(now, id, bytes.len());
        let Some(u) = self.uploads.iter_mut().find(|u| u.conn == conn && u.id == id) else {
            return;
        };
        self.bytes += bytes.len() as u64;
        u.received += bytes.len() as u64;
        if let Some(text) = self.fail_with {
            server.fail(now, id, text);
            u.dead = true;
            self.uploads.retain(|u| !u.dead);
            return;
        }
        let part = &mut self.parts[u.part];
        for byte in bytes {
            if u.in_header {
                u.header_len += 1;
                u.in_header = byte != b'\n';
                if u.at == 0 {
                    part.header.push(byte);
                }
                continue;
            }
            if let Some(held) = part.data.get(u.at) {
                assert_eq!(*held, byte, "conflict at {} of the stream", part.from + u.at as u64);
            } else {
                part.data.push(byte);
            }
            u.at += 1;
        }
    }

    /// Storage, acks and ends.
    pub(crate) fn settle(&mut self, now: Tick, servers: &mut [Option<Server>]) -> bool {
        let mut any = false;
        if self.sync.is_some_and(|at| at <= now) && !self.disk_hangs {
            self.sync = None;
            any = true;
            for part in &mut self.parts {
                part.durable = part.data.len();
            }
        }
        let dirty = self.parts.iter().any(|p| p.durable < p.data.len());
        if dirty && self.sync.is_none() && !self.disk_hangs {
            self.sync = Some(now.after(self.sync_time));
            any = true;
        }
        if self.disk_hangs {
            self.sync = None;
        }
        let mut done = Vec::new();
        for (i, u) in self.uploads.iter().enumerate() {
            let Some(server) = servers[u.conn].as_mut() else { continue };
            let part = &self.parts[u.part];
            let mut commit = (part.from + part.durable as u64).max(u.from);
            if self.lie == Lie::CommitBeyond && commit > u.from {
                commit += 500_000;
            }
            let commit =
                matches!(u.protocol, Protocol::V2Commit | Protocol::Upgrade).then_some(commit);
            server.progress(now, u.id, u.received, commit);
            if u.ended && part.durable == part.data.len() {
                let end = part.from + part.data.len() as u64;
                server.seal(now, u.id, if self.lie == Lie::SealedWrong { end + 1 } else { end });
                done.push(i);
            }
        }
        for i in done.into_iter().rev() {
            any = true;
            let u = self.uploads.remove(i);
            self.parts[u.part].sealed = true;
        }
        any
    }

    /// Whether it wants to die now, having read enough.
    pub(crate) fn wants_to_die(&self) -> bool {
        self.die_after.is_some_and(|n| self.uploads.iter().any(|u| u.received >= n))
    }
}
