//! Client and recorders, links between them, one virtual clock.

use std::collections::{BTreeMap, VecDeque};

use castkeep::cast::{ExitStatus, Header, Raw, Stream, parse_event};
use castkeep::error::{Error, Link};
use castkeep::session::{
    Action, Ask, Config, Deadlines, Event, LinkEvent, LinkId, Machine, OnFailure, POLICY,
    Protocols, Reason, Release, State,
};
use castkeep::time::{Span, Tick};
use castkeep::upload::server::{Server, ServerConfig};

use crate::agent::{Agent, Said};
use crate::recorder::{Flavour, Recorder};

pub(crate) const REJECT: &str = "no recording, no session";
pub(crate) const TERMINATE: &str = "recording was lost";

/// Bytes on their way in one direction.
#[derive(Debug, Default)]
struct Pipe {
    pieces: VecDeque<(Tick, Vec<u8>)>,
    /// The sender closed behind them.
    eof: Option<Tick>,
    eof_told: bool,
    /// The connection is cut after so many more bytes.
    cut_after: Option<u64>,
}

impl Pipe {
    fn in_flight(&self) -> usize {
        self.pieces.iter().map(|p| p.1.len()).sum()
    }

    fn next(&self) -> Option<Tick> {
        self.pieces.front().map(|p| p.0).or_else(|| self.eof.filter(|_| !self.eof_told))
    }
}

/// One connection; its index is that of its server.
#[derive(Debug)]
struct Conn {
    link: LinkId,
    recorder: usize,
    /// When the client hears how the dial went.
    dialled: Option<(Tick, Result<(), Error>)>,
    up: bool,
    /// The client closed it.
    client_gone: bool,
    /// Reset by the network or the recorder; told to the client then.
    reset: Option<Tick>,
    to_server: Pipe,
    to_client: Pipe,
    dead: bool,
}

/// See the module.
pub(crate) struct Pair {
    pub(crate) now: Tick,
    pub(crate) machine: Machine,
    pub(crate) recorders: Vec<Recorder>,
    conns: Vec<Conn>,
    servers: Vec<Option<Server>>,
    pub(crate) events: Vec<Event>,
    agent: Option<Agent>,
    /// Raw bytes that `output` took, in order, with their stream.
    pub(crate) shown: BTreeMap<Stream, Vec<u8>>,
    /// Ends the session when it is terminated, as a host does.
    pub(crate) obedient: bool,
    /// Only recorders that tell the truth about their disks are used.
    pub(crate) strict: bool,
    /// Random splits of what is delivered; 0: none.
    pub(crate) split: u64,
    pub(crate) closed: bool,
    pub(crate) release: Release,
    /// Output that waits for room.
    pub(crate) backlog: VecDeque<(Stream, Vec<u8>)>,
    /// How long the host was held, at most.
    pub(crate) longest_hold: Span,
    held_since: Option<Tick>,
}

pub(crate) struct Setup {
    pub(crate) flavours: Vec<Flavour>,
    pub(crate) groups: Option<Vec<u16>>,
    pub(crate) reject: bool,
    pub(crate) terminate: bool,
    pub(crate) release: Release,
    pub http2: bool,
    pub(crate) upgrade: bool,
    pub(crate) ring: usize,
    pub(crate) stock_with_release_commit: bool,
    pub(crate) deadlines: Deadlines,
    /// The verdict of the agent, and what the user is told without one.
    pub(crate) policy: Option<(Option<String>, Option<String>)>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            flavours: vec![Flavour::Castkeep; 2],
            groups: None,
            reject: false,
            terminate: false,
            release: Release::Ring,
            http2: true,
            upgrade: true,
            ring: castkeep::limits::RING_MIN_BYTES,
            stock_with_release_commit: false,
            deadlines: Deadlines::default(),
            policy: None,
        }
    }
}

impl Setup {
    pub(crate) fn of(flavours: &[Flavour]) -> Self {
        Self { flavours: flavours.to_vec(), ..Self::default() }
    }

    pub(crate) fn closed(mut self) -> Self {
        (self.reject, self.terminate) = (true, true);
        self
    }

    pub(crate) fn start(self) -> Pair {
        Pair::with(self, |_| {})
    }

    pub(crate) fn start_with_agent(self, prepare: impl FnOnce(&mut Agent)) -> Pair {
        Pair::with_agent(self, |_| {}, prepare)
    }
}

pub(crate) const fn ms(ms: u64) -> Span {
    Span::from_ms(ms)
}

pub(crate) const fn secs(s: u64) -> Span {
    Span::from_secs(s)
}

impl Pair {
    /// `prepare` changes the recorders before the session opens.
    pub(crate) fn with(setup: Setup, prepare: impl FnOnce(&mut Vec<Recorder>)) -> Self {
        Self::with_agent(setup, prepare, |_| {})
    }

    pub(crate) fn with_agent(
        setup: Setup,
        prepare: impl FnOnce(&mut Vec<Recorder>),
        prepare_agent: impl FnOnce(&mut Agent),
    ) -> Self {
        let now = Tick(1_000_000);
        let recorder = |i: usize| castkeep::session::Recorder {
            group: setup.groups.as_ref().map_or(i as u16, |g| g[i]),
            authority: format!("100.64.0.{i}:80"),
            tls: false,
        };
        let cfg = Config {
            header: Header {
                width: 80,
                height: 24,
                timestamp: 1_700_000_000,
                local_user: "root".into(),
                ..Header::default()
            },
            recording: [7; 16],
            resume_secret: [9; 16],
            ring_bytes: setup.ring,
            recorders: (0..setup.flavours.len()).map(recorder).collect(),
            on_failure: OnFailure {
                reject_message: setup.reject.then(|| REJECT.into()),
                terminate_message: setup.terminate.then(|| TERMINATE.into()),
            },
            release: setup.release,
            protocols: Protocols { http2: setup.http2, upgrade: setup.upgrade },
            deadlines: setup.deadlines,
            record_input: false,
            stock_with_release_commit: setup.stock_with_release_commit,
            volume_bytes: None,
            refusal: None,
            ask: setup.policy.as_ref().map(|(_, unreachable)| Ask {
                question: castkeep::ask::Question { ssh_user: "root".into(), ..Default::default() },
                authority: "localhost".into(),
                token: None,
                wait: castkeep::limits::POLICY_WAIT,
                unreachable: unreachable.clone(),
            }),
            jitter_seed: 42,
        };
        let mut recorders = setup.flavours.iter().map(|f| Recorder::new(*f)).collect();
        prepare(&mut recorders);
        let mut agent = setup.policy.as_ref().map(|(verdict, _)| Agent::new(verdict.as_deref()));
        if let Some(agent) = &mut agent {
            prepare_agent(agent);
        }
        let mut pair = Self {
            now,
            machine: Machine::new(cfg, now).unwrap(),
            recorders,
            conns: Vec::new(),
            servers: Vec::new(),
            events: Vec::new(),
            agent,
            shown: BTreeMap::new(),
            obedient: true,
            strict: true,
            split: 0,
            closed: setup.reject && setup.terminate,
            release: setup.release,
            backlog: VecDeque::new(),
            longest_hold: Span(0),
            held_since: None,
        };
        pair.pump();
        pair
    }

    // ---- the host ----

    /// Output of the program: what is not taken now waits, as in a pty.
    pub(crate) fn output(&mut self, data: &[u8]) -> &mut Self {
        self.output_on(Stream::Stdout, data)
    }

    pub(crate) fn output_on(&mut self, stream: Stream, data: &[u8]) -> &mut Self {
        self.backlog.push_back((stream, data.to_vec()));
        self.pump();
        self
    }

    pub(crate) fn exit(&mut self) -> &mut Self {
        self.machine.exit(self.now, ExitStatus::Code(0));
        self.pump();
        self
    }

    pub(crate) fn finish(&mut self) -> &mut Self {
        self.machine.finish(self.now);
        self.pump();
        self
    }

    /// Exit, finish, and time for the end.
    pub(crate) fn end(&mut self) -> &mut Self {
        self.exit();
        self.finish();
        self.advance(secs(6));
        assert!(self.machine.state().is_end(), "{:?} {:?}", self.machine.state(), self.events);
        self
    }

    // ---- policy ----

    pub(crate) fn agent(&self) -> &Agent {
        self.agent.as_ref().unwrap()
    }

    pub(crate) fn agent_mut(&mut self) -> &mut Agent {
        self.agent.as_mut().unwrap()
    }

    /// Policy changed.
    pub(crate) fn say(&mut self, verdict: &str) -> &mut Self {
        self.agent_mut().say(verdict);
        self.pump();
        self
    }

    fn pump_agent(&mut self) -> bool {
        let Some(agent) = &mut self.agent else { return false };
        let mut any = false;
        for link in agent.links() {
            let mut out = [0; 700];
            loop {
                match self.machine.poll_transmit(self.now, link, &mut out) {
                    0 => break,
                    n => agent.take(link, &out[..n]),
                }
                any = true;
            }
        }
        for (link, said) in std::mem::take(&mut agent.out) {
            any = true;
            match said {
                Said::Up => self.machine.handle_link(self.now, link, LinkEvent::Up),
                Said::Bytes(bytes) => {
                    let n = split(&mut self.split, bytes.len());
                    let (front, back) = bytes.split_at(n);
                    self.machine.handle_input(self.now, link, front);
                    self.machine.handle_input(self.now, link, back);
                }
                Said::Eof => self.machine.handle_link(self.now, link, LinkEvent::Eof),
                Said::Down => {
                    let why = Error::Link(Link::Unreachable);
                    self.machine.handle_link(self.now, link, LinkEvent::Down(why));
                }
            }
        }
        any
    }

    // ---- faults ----

    /// The recorder's machine loses power.
    pub(crate) fn kill(&mut self, r: usize) -> &mut Self {
        self.recorders[r].die();
        self.reset_all(r);
        self
    }

    pub(crate) fn restart(&mut self, r: usize) -> &mut Self {
        self.recorders[r].alive = true;
        self.recorders[r].draining = false;
        self.pump();
        self
    }

    /// The connections are cut; what is on its way is lost.
    pub(crate) fn cut(&mut self, r: usize) -> &mut Self {
        self.reset_all(r);
        self
    }

    /// The connections are cut after so many more bytes to the recorder: within a frame, within a line.
    pub(crate) fn cut_after(&mut self, r: usize, bytes: u64) -> &mut Self {
        for c in self.conns.iter_mut().filter(|c| c.recorder == r && !c.dead) {
            c.to_server.cut_after = Some(bytes);
        }
        self
    }

    /// As [`Pair::cut_after`] for what the recorder says.
    pub(crate) fn cut_answer_after(&mut self, r: usize, bytes: u64) -> &mut Self {
        for c in self.conns.iter_mut().filter(|c| c.recorder == r && !c.dead) {
            c.to_client.cut_after = Some(bytes);
        }
        self
    }

    pub(crate) fn hole(&mut self, r: usize, on: bool) -> &mut Self {
        self.recorders[r].hole = on;
        self.pump();
        self
    }

    /// The recorder shuts its sending side down.
    pub(crate) fn half_close(&mut self, r: usize) -> &mut Self {
        let at = self.now.after(self.recorders[r].latency);
        for c in self.conns.iter_mut().filter(|c| c.recorder == r && !c.dead) {
            c.to_client.eof.get_or_insert(at);
        }
        self.pump();
        self
    }

    pub(crate) fn drain(&mut self, r: usize) -> &mut Self {
        self.recorders[r].drain(self.now, &mut self.servers);
        self.pump();
        self
    }

    fn reset_all(&mut self, r: usize) {
        let at = self.now.after(self.recorders[r].latency);
        for i in 0..self.conns.len() {
            if self.conns[i].recorder == r && !self.conns[i].dead {
                self.reset(i, at);
            }
        }
        self.pump();
    }

    fn reset(&mut self, i: usize, at: Tick) {
        let c = &mut self.conns[i];
        c.to_server = Pipe::default();
        c.to_client = Pipe::default();
        if c.reset.is_none() {
            c.reset = Some(at);
        }
        if let Some(mut server) = self.servers[i].take() {
            server.handle_lost();
        }
        self.recorders[c.recorder].forget_connection(i);
    }

    // ---- time ----

    pub(crate) fn advance(&mut self, by: Span) -> &mut Self {
        let until = self.now.after(by);
        self.pump();
        let mut busy = 0;
        loop {
            let next = self.next_time();
            match next {
                Some(at) if at <= until => {
                    busy = if at <= self.now { busy + 1 } else { 0 };
                    assert!(
                        busy < 1_000,
                        "busy in {:?} at {:?}: {}",
                        self.machine.state(),
                        self.now,
                        self.why()
                    );
                    self.now = self.now.max(at);
                    self.machine.handle_timeout(self.now);
                    self.pump();
                }
                _ => break,
            }
        }
        self.now = until;
        self.machine.handle_timeout(self.now);
        self.pump();
        self
    }

    fn why(&self) -> String {
        let server = |s: &Option<Server>| s.as_ref().map(|s| (s.poll_timeout(), s.is_closed()));
        let servers: Vec<_> = self.servers.iter().map(server).collect();
        let sync: Vec<_> = self.recorders.iter().map(Recorder::poll_timeout).collect();
        let machine = self.machine.poll_timeout();
        format!("machine {machine:?}, servers {servers:?}, sync {sync:?}, conns {:?}", self.conns)
    }

    fn next_time(&self) -> Option<Tick> {
        let mut next = self.machine.poll_timeout();
        let mut at = |t: Option<Tick>| {
            if let Some(t) = t {
                next = Some(next.map_or(t, |n| n.min(t)));
            }
        };
        for (i, c) in self.conns.iter().enumerate().filter(|c| !c.1.dead) {
            at(c.reset.filter(|_| !c.client_gone));
            at(c.dialled.map(|d| d.0));
            if !self.recorders[c.recorder].hole {
                at(c.to_server.next().filter(|_| self.servers[i].is_some()));
                at(c.to_client.next().filter(|_| !c.client_gone));
                at(self.servers[i].as_ref().and_then(Server::poll_timeout));
            }
        }
        for r in self.recorders.iter().filter(|r| r.alive && !r.hole) {
            at(r.poll_timeout());
        }
        next
    }

    // ---- the loop ----

    pub(crate) fn pump(&mut self) {
        for round in 0.. {
            assert!(round < 100_000, "no rest in {:?}: {}", self.machine.state(), self.why());
            let mut any = self.pump_actions();
            any |= self.pump_agent();
            any |= self.pump_network();
            any |= self.pump_recorders();
            any |= self.pump_client();
            any |= self.pump_host();
            if !any {
                break;
            }
        }
        self.check_always();
    }

    fn pump_actions(&mut self) -> bool {
        let mut any = false;
        while let Some(action) = self.machine.poll_action() {
            any = true;
            match action {
                Action::Connect { link, recorder: POLICY, .. } => self.agent_mut().connect(link),
                Action::Close { link, .. } if link.slot() >= castkeep::limits::LINKS_MAX => {
                    self.agent_mut().close(link);
                }
                Action::Connect { link, recorder, .. } => {
                    let r = &self.recorders[recorder];
                    let at = self.now.after(r.latency);
                    let dialled = match (r.alive, r.hole) {
                        (_, true) => None,
                        (true, _) => Some((at, Ok(()))),
                        (false, _) => Some((at, Err(Error::Link(Link::Unreachable)))),
                    };
                    let config = ServerConfig {
                        extension: r.flavour == Flavour::Castkeep,
                        h1_only: r.flavour == Flavour::StockV1,
                        ..ServerConfig::default()
                    };
                    self.conns.push(Conn {
                        link,
                        recorder,
                        dialled,
                        up: false,
                        client_gone: false,
                        reset: None,
                        to_server: Pipe::default(),
                        to_client: Pipe::default(),
                        dead: false,
                    });
                    let alive = r.alive && !r.hole;
                    self.servers.push(alive.then(|| Server::new(config, self.now)));
                }
                Action::Close { link, abort } => {
                    let i = self.conns.iter().position(|c| c.link == link).unwrap();
                    let recorder = &self.recorders[self.conns[i].recorder];
                    let (latency, hole) = (recorder.latency, recorder.hole);
                    let c = &mut self.conns[i];
                    c.client_gone = true;
                    c.to_client = Pipe::default();
                    if abort && hole {
                        // The reset is lost on the way; what was sent before arrives when the hole closes.
                        c.to_server.eof.get_or_insert_with(|| self.now.after(secs(600)));
                    } else if abort {
                        c.to_server = Pipe::default();
                        if let Some(server) = &mut self.servers[i] {
                            server.handle_lost();
                        }
                    } else {
                        c.to_server.eof.get_or_insert_with(|| self.now.after(latency));
                    }
                }
            }
        }
        any
    }

    fn pump_network(&mut self) -> bool {
        let mut any = false;
        for i in 0..self.conns.len() {
            if self.conns[i].dead {
                continue;
            }
            let r = self.conns[i].recorder;
            let hole = self.recorders[r].hole;
            let now = self.now;
            let c = &mut self.conns[i];
            if let Some((_, result)) = c.dialled.filter(|d| d.0 <= now) {
                any = true;
                c.dialled = None;
                if !c.client_gone && c.reset.is_none() {
                    c.up = result.is_ok();
                    c.dead = result.is_err();
                    let event = result.map_or_else(LinkEvent::Down, |()| LinkEvent::Up);
                    let link = c.link;
                    self.machine.handle_link(now, link, event);
                    continue;
                }
            }
            if c.reset.is_some_and(|at| at <= now) {
                any = true;
                c.dead = true;
                let link = c.link;
                if !c.client_gone {
                    self.machine.handle_link(now, link, LinkEvent::Down(Error::Link(Link::Reset)));
                }
                continue;
            }
            if hole {
                continue;
            }
            // To the recorder.
            while self.conns[i].to_server.pieces.front().is_some_and(|p| p.0 <= now) {
                let Some(server) = &mut self.servers[i] else { break };
                let (at, mut bytes) = self.conns[i].to_server.pieces.pop_front().unwrap();
                let mut n = bytes.len();
                let cut = self.conns[i].to_server.cut_after;
                if let Some(left) = cut {
                    n = n.min(left as usize);
                }
                n = split(&mut self.split, n);
                let taken = server.handle_input(now, &bytes[..n]);
                if let Some(left) = &mut self.conns[i].to_server.cut_after {
                    *left -= taken as u64;
                    if *left == 0 {
                        any = true;
                        self.recorders[r].run(now, i, &mut self.servers);
                        let at = now.after(self.recorders[r].latency);
                        self.reset(i, at);
                        break;
                    }
                }
                bytes.drain(..taken);
                let stuck = taken == 0;
                if !bytes.is_empty() {
                    self.conns[i].to_server.pieces.push_front((at, bytes));
                }
                any |= !stuck;
                if self.recorders[r].run(now, i, &mut self.servers) {
                    any = true;
                } else if stuck {
                    break;
                }
            }
            let c = &mut self.conns[i];
            if c.to_server.pieces.is_empty()
                && !c.to_server.eof_told
                && c.to_server.eof.is_some_and(|at| at <= now)
            {
                any = true;
                c.to_server.eof_told = true;
                if let Some(server) = &mut self.servers[i] {
                    server.handle_eof(now);
                }
            }
            // To the client.
            while self.conns[i].to_client.pieces.front().is_some_and(|p| p.0 <= now) {
                any = true;
                let c = &mut self.conns[i];
                let (at, mut bytes) = c.to_client.pieces.pop_front().unwrap();
                let mut n = split(&mut self.split, bytes.len());
                let mut cut = false;
                if let Some(left) = &mut c.to_client.cut_after {
                    n = n.min(*left as usize);
                    *left -= n as u64;
                    cut = *left == 0;
                }
                let rest = bytes.split_off(n);
                if !rest.is_empty() {
                    c.to_client.pieces.push_front((at, rest));
                }
                let link = c.link;
                if c.up && !c.client_gone {
                    self.machine.handle_input(now, link, &bytes);
                }
                if cut {
                    self.reset(i, now);
                }
            }
            let c = &mut self.conns[i];
            if c.to_client.pieces.is_empty()
                && !c.to_client.eof_told
                && c.to_client.eof.is_some_and(|at| at <= now)
            {
                any = true;
                c.to_client.eof_told = true;
                let link = c.link;
                if c.up && !c.client_gone {
                    self.machine.handle_link(now, link, LinkEvent::Eof);
                }
            }
        }
        any
    }

    fn pump_recorders(&mut self) -> bool {
        let mut any = false;
        for r in self.recorders.iter_mut().filter(|r| r.alive && !r.hole) {
            any |= r.settle(self.now, &mut self.servers);
        }
        for i in 0..self.conns.len() {
            let r = self.conns[i].recorder;
            if self.recorders[r].hole || self.servers[i].is_none() {
                continue;
            }
            if let Some(server) = &mut self.servers[i] {
                server.handle_timeout(self.now);
            }
            any |= self.recorders[r].run(self.now, i, &mut self.servers);
            let at = self.now.after(self.recorders[r].latency);
            let mut out = [0u8; 4096];
            while let Some(server) = &mut self.servers[i] {
                let n = server.poll_transmit(self.now, &mut out);
                if n == 0 {
                    break;
                }
                any = true;
                if !self.conns[i].client_gone {
                    self.conns[i].to_client.pieces.push_back((at, out[..n].to_vec()));
                }
            }
            if let Some(server) = &self.servers[i]
                && (server.is_closed() || server.wants_shutdown())
            {
                self.conns[i].to_client.eof.get_or_insert(at);
                if server.is_closed() {
                    any = true;
                    self.servers[i] = None;
                    self.recorders[r].forget_connection(i);
                }
            }
            if self.recorders[r].wants_to_die() {
                any = true;
                self.reset(i, at);
            }
        }
        any
    }

    fn pump_client(&mut self) -> bool {
        let mut any = false;
        for i in 0..self.conns.len() {
            let c = &self.conns[i];
            if c.dead || !c.up || c.client_gone || c.reset.is_some() {
                continue;
            }
            let link = c.link;
            let at = self.now.after(self.recorders[c.recorder].latency);
            while self.conns[i].to_server.in_flight() < SOCKET_BYTES {
                let mut out = [0u8; 3000];
                let n = self.machine.poll_transmit(self.now, link, &mut out);
                if n == 0 {
                    break;
                }
                any = true;
                if self.servers[i].is_some() {
                    self.conns[i].to_server.pieces.push_back((at, out[..n].to_vec()));
                }
            }
        }
        any
    }

    fn pump_host(&mut self) -> bool {
        let mut any = false;
        while let Some(event) = self.machine.poll_event() {
            any = true;
            self.events.push(event);
            if matches!(event, Event::Terminated { .. }) && self.obedient {
                self.backlog.clear();
                self.machine.exit(self.now, ExitStatus::Signal("HUP"));
                self.machine.finish(self.now);
            }
        }
        while let Some((stream, data)) = self.backlog.pop_front() {
            let room = self.machine.room();
            match self.machine.output(self.now, stream, &data) {
                Ok(n) => {
                    assert!(n >= room.min(data.len()), "room {room} taken {n}");
                    any = true;
                    self.held(false);
                    let shown = self.shown.entry(stream).or_default();
                    shown.extend_from_slice(&data[..n]);
                    if n < data.len() {
                        self.backlog.push_front((stream, data[n..].to_vec()));
                    }
                }
                Err(Error::Full) => {
                    assert_eq!(room, 0);
                    self.held(true);
                    self.backlog.push_front((stream, data));
                    break;
                }
                Err(Error::Closed) => self.held(false),
                Err(e) => panic!("{e}"),
            }
        }
        any
    }

    fn held(&mut self, on: bool) {
        match (on, self.held_since) {
            (true, None) => self.held_since = Some(self.now),
            (false, Some(since)) => {
                self.longest_hold = self.longest_hold.max(self.now.since(since));
                self.held_since = None;
            }
            _ => {}
        }
    }

    // ---- what must hold ----

    /// After every step.
    fn check_always(&self) {
        let state = self.machine.state();
        let waits = matches!(
            state,
            State::TryPrimary
                | State::TryFailover
                | State::Resuming
                | State::SessionAllowed
                | State::SessionTerminated
                | State::ContinueUnrecorded
                | State::Draining
        );
        assert!(!waits || self.machine.poll_timeout().is_some(), "{state} waits for ever");
        assert_eq!(state.is_end(), self.ends() == 1, "{state} {:?}", self.events);
    }

    fn ends(&self) -> usize {
        let end =
            |e: &&Event| matches!(e, Event::Finished | Event::Incomplete { .. } | Event::Refused);
        self.events.iter().filter(end).count()
    }

    /// The stream as far as the recorders have it together from its beginning, and no byte differs between parts.
    pub(crate) fn union(&self, durable: bool) -> Vec<u8> {
        let mut parts: Vec<_> =
            self.recorders.iter().flat_map(|r| &r.parts).map(|p| p.stream(durable)).collect();
        parts.retain(|p| !p.1.is_empty());
        parts.sort_by_key(|p| p.0);
        // A hole ends what is known together; behind it parts are still compared with each other.
        let (mut stream, mut at, mut whole) = (Vec::new(), 0, None);
        for (from, data) in parts {
            let end = at + stream.len() as u64;
            if from > end {
                whole.get_or_insert_with(|| std::mem::take(&mut stream));
                at = from;
                stream.clear();
            }
            let held = &stream[(from - at) as usize..];
            let both = held.len().min(data.len());
            assert!(held[..both] == data[..both], "parts differ behind {from}");
            stream.extend_from_slice(&data[both..]);
        }
        whole.unwrap_or(stream)
    }

    /// What a stream of bytes says was shown, and the labels of its markers.
    pub(crate) fn decode(stream: &[u8]) -> (BTreeMap<Stream, Vec<u8>>, Vec<String>) {
        Self::decode_part(stream, true)
    }

    /// The last event of a stream that goes on may lack the exact bytes that stand behind it: it is left out.
    fn decode_part(stream: &[u8], whole: bool) -> (BTreeMap<Stream, Vec<u8>>, Vec<String>) {
        let mut lines = stream.split_inclusive(|b| *b == b'\n').filter(|l| l.ends_with(b"\n"));
        let (mut raw, mut shown, mut markers) = (Raw::new(), BTreeMap::new(), Vec::new());
        if let Some(header) = lines.next() {
            Header::parse(header).unwrap();
        }
        let mut take = |e: castkeep::cast::RawEvent| match e.code {
            b'o' => shown.entry(e.stream).or_insert_with(Vec::new).extend(e.data),
            b'm' => markers.push(String::from_utf8(e.data).unwrap()),
            b'x' => markers.push(format!("exit {}", String::from_utf8(e.data).unwrap())),
            _ => {}
        };
        for line in lines {
            if let Some(e) = raw.push(&parse_event(&line[..line.len() - 1]).unwrap()) {
                take(e);
            }
        }
        if let Some(e) = raw.finish().filter(|_| whole) {
            take(e);
        }
        (shown, markers)
    }

    /// After the end: nothing lost, nothing twice, nothing changed.
    pub(crate) fn check_end(&self) {
        let union = self.union(false);
        let durable = self.union(true);
        let stats = self.machine.stats();
        let finished = self.events.contains(&Event::Finished);
        let (shown, markers) = Self::decode_part(&union, finished);
        if finished && stats.doubtful == 0 {
            assert_eq!(union.len() as u64, stats.encoded, "{} {:?}", self.parts(), self.events);
            assert!(!self.strict || durable.len() == union.len());
        }
        let gaps = markers.iter().any(|m| m.starts_with("castkeep:gap"));
        for (stream, seen) in &self.shown {
            let kept = shown.get(stream).map(Vec::as_slice).unwrap_or_default();
            if !gaps {
                let same = seen.iter().zip(kept).take_while(|(s, k)| s == k).count();
                let (parts, events) = (self.parts(), &self.events);
                assert_eq!(same, kept.len(), "kept is what was shown {parts} {stats:?} {events:?}");
            }
            if !gaps && stats.unrecorded == 0 && finished && stats.doubtful == 0 {
                assert_eq!(kept.len(), seen.len(), "all that was shown");
            }
        }
    }

    /// release=commit under fail closed: what may be shown is on some disk.
    pub(crate) fn check_released(&self) {
        if !self.closed || self.release != Release::Commit {
            return;
        }
        let (kept, _) = Self::decode(&self.union(true));
        for stream in [Stream::Stdout, Stream::Stderr] {
            let released = self.machine.released(stream);
            let kept = kept.get(&stream).map_or(0, Vec::len) as u64;
            assert!(
                released <= kept,
                "{released} released, {kept} stored, {:?} {:?} {:?}",
                self.machine.stats(),
                self.parts(),
                self.events
            );
        }
    }

    /// For messages.
    pub(crate) fn parts(&self) -> String {
        let part = |p: &crate::recorder::Part| {
            let (from, data) = p.stream(false);
            format!("{from}+{} ({} durable)", data.len(), p.durable)
        };
        let of = |r: &Recorder| (r.flavour, r.parts.iter().map(part).collect::<Vec<_>>());
        format!("{:?}", self.recorders.iter().map(of).collect::<Vec<_>>())
    }

    pub(crate) fn has(&self, to: State) -> bool {
        self.events.iter().any(|e| matches!(e, Event::Transition { to: t, .. } if *t == to))
    }

    pub(crate) fn reasons(&self, to: State) -> Vec<Reason> {
        let reason = |e: &Event| match e {
            Event::Transition { to: t, reason, .. } if *t == to => Some(*reason),
            _ => None,
        };
        self.events.iter().filter_map(reason).collect()
    }

    pub(crate) fn text(&self) -> String {
        let (shown, _) = Self::decode(&self.union(false));
        let stdout = shown.get(&Stream::Stdout).cloned().unwrap_or_default();
        String::from_utf8(stdout).unwrap()
    }

    pub(crate) fn markers(&self) -> Vec<String> {
        Self::decode(&self.union(false)).1
    }
}

/// A random prefix, so that frames and lines arrive in pieces.
fn split(seed: &mut u64, n: usize) -> usize {
    if *seed == 0 || n < 2 {
        return n;
    }
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    1 + (*seed % n as u64) as usize
}

/// What a socket holds.
const SOCKET_BYTES: usize = 16 * 1024;

/// `line 0` to `line n-1`.
pub(crate) fn lines(n: usize) -> String {
    (0..n).map(|i| format!("line {i}\r\n")).collect()
}
