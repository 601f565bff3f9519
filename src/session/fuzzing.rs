//! Invariants of a session, for the fuzzer: any sequence of operations of the host, the network, the clock and recorders, honest ones and others.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use alloc::{collections::BTreeMap, string::String, vec, vec::Vec};

use super::{
    Action, Config, Deadlines, Event, LinkEvent, LinkId, Machine, OnFailure, Protocols, Recorder,
    Release, State,
};
use crate::cast::{ExitStatus, Header, Raw, Stream, parse_event};
use crate::error::{Error, Link};
use crate::fuzzing::Source;
use crate::limits;
use crate::time::{Span, Tick};
use crate::upload::server::{self, HowEnded, Kind, RequestId, Server, ServerConfig};

/// Any bytes as operations on a session.
///
/// What is checked: nothing runs without end; nothing follows the last event; what is released was taken, and with release on commit was
/// stored; what recorders stored of the same offsets is equal; a session that ended in order and complete is stored without a hole, and
/// its bytes come out of the cast again.
pub fn fuzz_session_ops(data: &[u8]) {
    let mut source = Source(data);
    let mut sim = Sim::new(&mut source);
    while !source.is_empty() && !sim.over {
        sim.operate(&mut source);
        sim.settle(4);
        sim.check_commit();
    }
    sim.end();
}

struct Sim {
    now: Tick,
    machine: Machine,
    closed: bool,
    commit: bool,
    extension: Vec<bool>,
    links: BTreeMap<LinkId, Peer>,
    parts: Vec<Part>,
    /// A recorder said what is not true, so what was promised does not count.
    lies: bool,
    taken: [Vec<u8>; 2],
    over: bool,
    refused: bool,
    complete: bool,
}

/// The far end of a link.
struct Peer {
    recorder: usize,
    server: Server,
    up: bool,
    /// Nothing goes through any more, and nobody is told.
    dead: bool,
    to_server: Vec<u8>,
    /// The parts of this connection.
    uploads: BTreeMap<RequestId, usize>,
    eof: bool,
}

/// The body of one upload.
struct Part {
    body: Vec<u8>,
    /// The recorder promised that it is stored.
    stored: usize,
    /// Once the header line is there: where the bytes behind it belong, and its length; 0 and 0 when it is one of them.
    place: Option<(usize, usize)>,
}

impl Part {
    fn append(&mut self, bytes: &[u8]) {
        self.body.extend_from_slice(bytes);
        if self.place.is_none()
            && let Some(end) = self.body.iter().position(|b| *b == b'\n')
        {
            let line = &self.body[..=end];
            let header = Header::parse(line).expect("a part begins with a header line");
            self.place = Some(header.continues.map_or((0, 0), |c| (c.offset as usize, line.len())));
        }
    }

    /// Where its bytes belong in the stream, and those bytes.
    fn stream(&self) -> Option<(usize, &[u8])> {
        let (start, header) = self.place?;
        Some((start, &self.body[header..]))
    }

    /// Offset in the stream of the end of the first `received` bytes of the body.
    fn offset_of(&self, received: usize) -> Option<u64> {
        let (start, stream) = self.stream()?;
        let header = self.body.len() - stream.len();
        Some((start + received.checked_sub(header)?) as u64)
    }
}

impl Sim {
    fn new(source: &mut Source<'_>) -> Self {
        let flags = source.byte();
        let more = source.byte();
        let recorders: Vec<Recorder> = (0..usize::from(more & 3))
            .map(|n| Recorder { group: n as u16, authority: String::from("r:80"), tls: false })
            .collect();
        let message = |bit: u8| (flags & bit != 0).then(|| String::from("recording failed"));
        let commit = flags & 4 != 0;
        let cfg = Config {
            header: Header { width: 80, height: 24, ..Header::default() },
            recording: [7; 16],
            resume_secret: [9; 16],
            ring_bytes: limits::RING_MIN_BYTES,
            recorders,
            on_failure: OnFailure { reject_message: message(1), terminate_message: message(2) },
            release: if commit { Release::Commit } else { Release::Ring },
            protocols: Protocols { http2: flags & 8 != 0, upgrade: flags & 16 != 0 },
            deadlines: Deadlines::default(),
            record_input: flags & 32 != 0,
            stock_with_release_commit: flags & 64 != 0,
            volume_bytes: None,
            refusal: None,
            #[cfg(feature = "ask")]
            ask: None,
            jitter_seed: 1,
        };
        let now = Tick(1_000);
        Self {
            now,
            closed: flags & 3 == 3,
            commit: commit && flags & 64 == 0,
            extension: (0..4).map(|n| more & (4 << n) == 0).collect(),
            machine: Machine::new(cfg, now).expect("a good configuration"),
            links: BTreeMap::new(),
            parts: Vec::new(),
            lies: false,
            taken: [Vec::new(), Vec::new()],
            over: false,
            refused: false,
            complete: false,
        }
    }

    fn operate(&mut self, source: &mut Source<'_>) {
        let op = source.byte();
        match op & 31 {
            0..=7 => {
                let (stream, lane) =
                    if op & 7 == 7 { (Stream::Stderr, 1) } else { (Stream::Stdout, 0) };
                let data: Vec<u8> = match op & 3 {
                    0 => source.bytes(60).to_vec(),
                    1 => format_args!("line {} of some output\r\n", self.taken[lane].len())
                        .to_string()
                        .into(),
                    2 => vec![source.byte(); 100],
                    _ => vec![b'x'; source.below(20_000)],
                };
                let room = self.machine.room();
                match self.machine.output(self.now, stream, &data) {
                    Ok(taken) => {
                        assert!(taken <= data.len() && (taken > 0 || data.is_empty()));
                        assert!(
                            room < data.len() || taken == data.len(),
                            "less than the room that was promised"
                        );
                        self.taken[lane].extend_from_slice(&data[..taken]);
                    }
                    Err(error) => {
                        assert!(matches!(error, Error::Full | Error::Closed), "{error:?}");
                        assert!(room == 0 || data.is_empty(), "no room after all: {error:?}");
                    }
                }
            }
            8 => self.machine.input(self.now, source.bytes(40)),
            9 => self.machine.resize(self.now, u16::from(op), u16::from(source.byte())),
            10 => drop(self.machine.marker(self.now, &String::from_utf8_lossy(source.bytes(300)))),
            11..=13 => {
                self.now = self.now.after(Span(u64::from(source.byte()).pow(3)));
                self.machine.handle_timeout(self.now);
            }
            14..=16 => {
                if let Some(at) = self.machine.poll_timeout() {
                    self.now = self.now.max(at);
                    self.machine.handle_timeout(self.now);
                }
            }
            17 => self.machine.exit(self.now, ExitStatus::Code(op.into())),
            18 if op & 0xe0 == 0 => self.machine.finish(self.now),
            18 if op & 0xe0 == 0x20 => self.machine.abandon(self.now),
            _ => self.trouble(op & 31, source),
        }
    }

    /// Something happens to one of the links.
    fn trouble(&mut self, op: u8, source: &mut Source<'_>) {
        let choice = source.byte();
        let Some(&link) = self.links.keys().nth(usize::from(choice) % self.links.len().max(1))
        else {
            return;
        };
        let peer = self.links.get_mut(&link).unwrap();
        match op {
            19 | 20 => {
                self.links.remove(&link);
                self.machine.handle_link(self.now, link, LinkEvent::Down(Error::Link(Link::Reset)));
            }
            21 => peer.dead = true,
            22 if peer.up && !peer.eof => {
                peer.eof = true;
                self.machine.handle_link(self.now, link, LinkEvent::Eof);
            }
            23 if peer.up && !peer.eof => {
                // What nobody sends.
                self.lies = true;
                let bytes = source.bytes(80).to_vec();
                self.machine.handle_input(self.now, link, &bytes);
            }
            24 => {
                for id in peer.uploads.keys() {
                    peer.server.drain(self.now, *id);
                }
            }
            25 => {
                for id in core::mem::take(&mut peer.uploads).keys() {
                    peer.server.fail(self.now, *id, "disk full");
                }
            }
            26 => peer.server.set_available(Err("full")),
            // A recorder whose storage hangs: it takes, and promises nothing. Part of a body stays unread.
            27 => peer.server.handle_timeout(self.now),
            _ => {}
        }
    }

    /// Lets everything happen that can happen now.
    fn settle(&mut self, rounds: usize) {
        for _ in 0..rounds {
            let mut steps = 0;
            while let Some(action) = self.machine.poll_action() {
                steps += 1;
                assert!(steps < 1_000, "actions without end");
                match action {
                    Action::Close { link, .. } => {
                        if let Some(mut peer) = self.links.remove(&link) {
                            peer.server.handle_lost();
                        }
                    }
                    Action::Connect { link, recorder, .. } => {
                        assert!(link.slot() < limits::LINK_SLOTS);
                        assert!(
                            self.links.keys().all(|l| l.slot() != link.slot()),
                            "a slot is used twice"
                        );
                        let peer = self.peer(recorder);
                        self.links.insert(link, peer);
                    }
                }
            }
            for link in self.links.keys().copied().collect::<Vec<_>>() {
                self.run(link);
            }
            self.events();
        }
    }

    fn peer(&self, recorder: usize) -> Peer {
        let cfg = ServerConfig {
            h2_only: false,
            h1_only: false,
            extension: self.extension[recorder % 4],
            ack_period_stock: limits::ACK_PERIOD_STOCK,
            ack_period_commit: limits::ACK_PERIOD_COMMIT,
            head_time: limits::HEAD_TIME,
            idle_time: limits::IDLE_TIME,
            ping_time: Span::from_secs(30),
            banner: String::from("castkeep"),
        };
        Peer {
            recorder,
            server: Server::new(cfg, self.now),
            up: false,
            dead: false,
            to_server: Vec::new(),
            uploads: BTreeMap::new(),
            eof: false,
        }
    }

    /// Moves bytes over one link, both ways, and lets the recorder store them.
    fn run(&mut self, link: LinkId) {
        let Some(peer) = self.links.get_mut(&link) else { return };
        if peer.dead {
            return;
        }
        if !peer.up {
            peer.up = true;
            self.machine.handle_link(self.now, link, LinkEvent::Up);
        }
        let mut out = [0; 2_000];
        for _ in 0..200 {
            let n = self.machine.poll_transmit(self.now, link, &mut out);
            peer.to_server.extend_from_slice(&out[..n]);
            let taken = peer.server.handle_input(self.now, &peer.to_server);
            peer.to_server.drain(..taken);
            let mut events = 0;
            while let Some(event) = peer.server.poll_event() {
                events += 1;
                assert!(events < 1_000, "a recorder without end: {event:?}");
                store(&mut self.parts, &mut peer.uploads, &mut peer.server, self.now, event);
            }
            let sent = if peer.eof { 0 } else { peer.server.poll_transmit(self.now, &mut out) };
            if sent > 0 {
                self.machine.handle_input(self.now, link, &out[..sent]);
            }
            if n == 0 && taken == 0 && sent == 0 {
                break;
            }
        }
        if (peer.server.wants_shutdown() || peer.server.is_closed()) && !peer.eof {
            peer.eof = true;
            self.machine.handle_link(self.now, link, LinkEvent::Eof);
        }
        let _ = peer.recorder;
    }

    fn events(&mut self) {
        let mut steps = 0;
        while let Some(event) = self.machine.poll_event() {
            steps += 1;
            assert!(steps < 1_000, "events without end");
            assert!(!self.over, "{event:?} behind the last event");
            match event {
                Event::Finished => (self.over, self.complete) = (true, true),
                Event::Incomplete { .. } => self.over = true,
                Event::Refused => {
                    (self.over, self.refused) = (true, true);
                    assert!(!self.machine.message().is_empty());
                }
                Event::Terminated { .. } => {
                    assert!(!self.machine.message().is_empty());
                    self.machine.exit(self.now, ExitStatus::Signal("HUP"));
                    self.machine.finish(self.now);
                }
                _ => {}
            }
        }
        let stats = self.machine.stats();
        assert!(stats.committed <= stats.encoded);
        for (stream, lane) in [(Stream::Stdout, 0), (Stream::Stderr, 1)] {
            let taken = self.taken[lane].len() as u64;
            assert_eq!(stats.taken(stream), taken);
            assert!(self.machine.released(stream) <= taken, "released what was never taken");
        }
    }

    /// With release on commit, what counts as stored is stored.
    fn check_commit(&self) {
        if self.commit && self.closed && !self.lies && self.machine.state() != State::NoRecording {
            let (committed, stored) = (self.machine.stats().committed, self.union(true).len());
            assert!(committed <= stored as u64, "{committed} of {stored}");
        }
    }

    /// The stream from its beginning as far as it can be put together; bytes of the same offset are equal in all parts.
    fn union(&self, only_stored: bool) -> Vec<u8> {
        let mut pieces: Vec<(usize, &[u8])> = Vec::new();
        for part in &self.parts {
            let Some((start, stream)) = part.stream() else { continue };
            let header = part.body.len() - stream.len();
            let stored = part.stored.saturating_sub(header).min(stream.len());
            pieces.push((start, if only_stored { &stream[..stored] } else { stream }));
        }
        pieces.sort_by_key(|(start, _)| *start);
        let mut whole: Vec<u8> = Vec::new();
        for (start, stream) in pieces {
            if start > whole.len() {
                break;
            }
            let both = (whole.len() - start).min(stream.len());
            assert_eq!(whole[start..start + both], stream[..both], "two parts differ");
            whole.extend_from_slice(&stream[both..]);
        }
        whole
    }

    /// Ends the session in order and waits for its last event, with nothing more happening to the links.
    fn end(&mut self) {
        self.machine.finish(self.now);
        for _ in 0..2_000 {
            self.settle(2);
            if self.over {
                break;
            }
            let at = self.machine.poll_timeout().expect("a session that waits for nothing");
            self.now = self.now.max(at);
            for peer in self.links.values_mut() {
                peer.server.handle_timeout(self.now);
            }
            self.machine.handle_timeout(self.now);
        }
        assert!(self.over, "no end: {:?}", self.machine.state());
        assert!(self.machine.state().is_end());
        assert_eq!(self.machine.output(self.now, Stream::Stdout, b"x"), Err(Error::Closed));
        self.settle(3);
        self.check_commit();
        let stats = self.machine.stats();
        if !self.complete
            || self.lies
            || stats.encoded == 0
            || stats.unrecorded > 0
            || stats.protocol.is_none() && stats.attempts == 0
        {
            return;
        }
        // A v1 recorder gives no acks: what it was sent and lost is lost without a word, and only the end is confirmed.
        let whole = self.union(false);
        if self.extension.iter().any(|e| !e) && (whole.len() as u64) < stats.encoded {
            return;
        }
        assert_eq!(whole.len() as u64, stats.encoded, "complete, and there is a hole");
        let mut raw = Raw::new();
        let mut events = Vec::new();
        for line in whole.split_inclusive(|b| *b == b'\n').skip(1) {
            events.extend(raw.push(&parse_event(line).expect("an event")));
        }
        events.extend(raw.finish());
        let mut read = [Vec::new(), Vec::new()];
        for event in events.into_iter().filter(|e| e.code == b'o') {
            read[usize::from(event.stream == Stream::Stderr)].extend_from_slice(&event.data);
        }
        assert_eq!(read, self.taken);
    }
}

/// An honest recorder: stores what comes, promises what it stored.
fn store(
    parts: &mut Vec<Part>,
    uploads: &mut BTreeMap<RequestId, usize>,
    server: &mut Server,
    now: Tick,
    event: server::Event,
) {
    match event {
        server::Event::Request(request) => {
            let Kind::Record { resume, .. } = request.kind else {
                return server.refuse(now, request.id, 404, "no events here");
            };
            server.accept(now, request.id, resume.map(|r| r.offset));
            uploads.insert(request.id, parts.len());
            parts.push(Part { body: Vec::new(), stored: 0, place: None });
        }
        server::Event::Body { id, len } => {
            let bytes = server.body(id).to_vec();
            server.consume(now, id, len);
            let Some(part) = uploads.get(&id).map(|n| &mut parts[*n]) else { return };
            part.append(&bytes[..len]);
            part.stored = part.body.len();
            let commit = part.offset_of(part.stored);
            server.progress(now, id, part.stored as u64, commit);
        }
        server::Event::End { id, how } => {
            let Some(part) = uploads.remove(&id).map(|n| &mut parts[n]) else { return };
            if how != HowEnded::Truncated {
                part.stored = part.body.len();
                server.seal(now, id, part.offset_of(part.stored).unwrap_or(0));
            }
        }
    }
}
