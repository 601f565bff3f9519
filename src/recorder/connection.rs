//! One connection: socket bytes into the machine, body bytes into storage, progress back.

use std::net::{SocketAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt;

use super::config::{duration, span};
use super::job::{Access, Jobs};
use super::link::{Got, Link};
use super::listen::set_options;
use super::pool::Buffer;
use super::shared::{Entered, Phase, Shared, count};
use super::storage::{About, By, Peer};
use super::tailnet::Who;
use super::tls;
use super::wake::Waker;
use crate::cast::text::escape_control;
use crate::limits;
use crate::time::Tick;
use crate::upload::server::{Server, ServerConfig};

/// Serves a connection to its end. `over`: it is past the bound and is only told so.
pub(crate) fn serve(shared: &Arc<Shared>, tcp: TcpStream, peer: SocketAddr, tls: bool, over: bool) {
    let run = AssertUnwindSafe(|| {
        let Some(mut connection) = Connection::open(shared, tcp, peer, tls, over) else { return };
        connection.run();
    });
    // A bug ends this connection only: what unwinds drops its uploads, which closes their parts as truncated.
    if catch_unwind(run).is_err() {
        count(&shared.counters.panics);
        log::error!("{peer}: the connection was ended by a bug in castkeep; please report it");
    }
}

struct Connection {
    shared: Arc<Shared>,
    link: Link,
    server: Server,
    jobs: Jobs,
    waker: Arc<Waker>,
    phase: Phase,
    /// Whatever it asks for is refused for now, and why.
    closed: Option<&'static str>,
    /// Read and not taken by the machine: it waits for body to be consumed.
    input: Input,
    /// Given out by the machine and not taken by the socket.
    out: Vec<u8>,
    /// The socket may have more: a read did not come back empty.
    readable: bool,
    /// The peer closed its side.
    eof: bool,
    /// The socket broke while nothing was to be read from it.
    broken: bool,
    /// The sending side is shut down.
    shut: bool,
    /// The recorder is stopping: the connection ends by then, whatever the peer does.
    cut_at: Option<Tick>,
    _entered: Entered,
}

/// Bytes that were read, if any wait.
#[derive(Default)]
struct Input {
    buffer: Option<Buffer>,
    small: Vec<u8>,
    start: usize,
    end: usize,
}

impl Connection {
    fn open(
        shared: &Arc<Shared>,
        tcp: TcpStream,
        peer: SocketAddr,
        tls: bool,
        over: bool,
    ) -> Option<Self> {
        set_options(&tcp, shared.config.user_timeout);
        let waker = Waker::new().inspect_err(|e| shared.warn_short(&e.to_string())).ok()?;
        let waker = Arc::new(waker);
        let entered = shared.enter(&waker);
        let config = shared.tls.as_ref().filter(|_| tls).map(|tls| tls.current());
        let mut link =
            Link::new(tcp, config).inspect_err(|e| log::warn!("{peer}: TLS: {e}")).ok()?;
        if let Err(why) = handshake(shared, &mut link, &waker) {
            count(&shared.counters.tls_failures);
            log::info!("{peer}: TLS handshake failed: {}", escape_control(&why));
            return None;
        }
        let (mut h2_only, mut h1_only, mut certificate, mut identity) = (false, false, false, None);
        if let Some(tls) = link.tls() {
            h2_only = tls.alpn_protocol() == Some(b"h2");
            h1_only = tls.alpn_protocol() == Some(b"http/1.1");
            if let Some(first) = tls.peer_certificates().and_then(<[_]>::first) {
                certificate = true;
                identity = tls::identity(first);
            }
        }
        let who = match &shared.tailnet {
            Some(tailnet) if !over => {
                // A node that tailscaled passes on is known by its port, and that from the first byte on.
                if !tls && !wait_for_bytes(shared, &link, &waker) {
                    return None;
                }
                Some(tailnet.who(peer))
            }
            _ => None,
        };
        let mut allowed = shared.allow.allows(peer.ip(), certificate);
        let mut closed = over.then_some("too many connections");
        let mut about =
            About { by: identity.as_ref().map(|_| By::Certificate), ..About::default() };
        match who {
            // Of two names it is the node's that counts: it holds whoever asks.
            Some(Who::Node(node)) => {
                allowed |= shared.allow.allows_node(&node.tags);
                identity = Some(node.id.clone());
                about = About {
                    by: Some(By::WhoIs),
                    name: node.name.clone(),
                    user: node.user.as_ref().map(|user| user.login.clone()),
                    tags: node.tags.clone(),
                };
            }
            Some(Who::NoAnswer) => closed = Some("tailscaled does not say who this peer is"),
            Some(Who::Stranger) | None => {}
        }
        let access = match (closed, allowed) {
            (Some(why), _) => Access::NotNow(why),
            (None, true) => Access::Granted,
            (None, false) => Access::Denied,
        };
        let c = &shared.config;
        let cfg = ServerConfig {
            h2_only,
            h1_only,
            extension: c.extension,
            head_time: span(c.head_time),
            // Who is only to be told 403 or 503 does not hold a place for long.
            idle_time: match access {
                Access::Granted => span(c.idle_time),
                Access::Denied | Access::NotNow(_) => limits::LINGER,
            },
            ping_time: span(c.ping_time),
            banner: format!("castkeep {} recorder", crate::VERSION),
            ..ServerConfig::default()
        };
        let peer = Peer { address: peer, verified: identity.is_some(), identity, about };
        Some(Self {
            shared: Arc::clone(shared),
            link,
            server: Server::new(cfg, shared.now()),
            jobs: Jobs::new(shared, peer, access, &waker),
            waker,
            // One that comes during the drain gets its 503 instead of a GOAWAY.
            phase: shared.phase().min(Phase::Draining),
            closed,
            input: Input::default(),
            out: Vec::new(),
            readable: true,
            eof: false,
            broken: false,
            shut: false,
            cut_at: None,
            _entered: entered,
        })
    }

    fn run(&mut self) {
        loop {
            self.waker.clear();
            let now = self.shared.now();
            if !self.look_at_phase(now) {
                return;
            }
            self.jobs.progress(&mut self.server, now);
            if self.server.poll_timeout().is_some_and(|t| t <= now) {
                self.server.handle_timeout(now);
            }
            self.jobs.expire(&mut self.server, now);
            if self.broken || !self.move_bytes() {
                self.server.handle_lost();
                self.jobs.events(&mut self.server, self.shared.now());
                return;
            }
            if self.server.is_closed() && self.out.is_empty() && !self.link.wants_write() {
                return self.linger();
            }
            if self.server.wants_shutdown() && self.out.is_empty() && !self.shut {
                self.shut = true;
                self.link.close_write();
            }
            if self.cut_at.is_some_and(|t| t <= now) {
                return;
            }
            self.wait();
        }
    }

    /// False: cut the connection now.
    fn look_at_phase(&mut self, now: Tick) -> bool {
        // Whether it is a new recording, and needs more room, is only known when its fields are read.
        let available = match self.shared.available_to_go_on() {
            Ok(()) => self.closed.map_or(Ok(()), Err),
            other => other,
        };
        self.server.set_available(available);
        let phase = self.shared.phase();
        if phase == self.phase {
            return true;
        }
        if self.phase < Phase::Draining {
            self.jobs.drain(&mut self.server, now);
            self.server.shutdown(now);
        }
        self.phase = phase;
        if phase >= Phase::Stopping {
            self.jobs.fail_all(&mut self.server, now, "stopping");
            self.server.shutdown(now);
            self.cut_at = Some(now.after(limits::LINGER));
        }
        if phase == Phase::Aborting {
            // The clients see a reset, as they would after a crash.
            let _ = sockopt::set_socket_linger(self.link.tcp(), Some(Duration::ZERO));
            return false;
        }
        true
    }

    /// Reads, feeds and writes until there is nothing to do or others should have their turn. False: the link is lost.
    fn move_bytes(&mut self) -> bool {
        self.feed();
        for _ in 0..ROUNDS {
            if !self.transmit() {
                return false;
            }
            // What was read and is not taken waits for storage, a new read would only pile up.
            if !self.input.is_empty() || !self.readable || self.server.is_closed() {
                break;
            }
            match self.input.fill(&self.shared, &mut self.link) {
                Got::Bytes(_) => {}
                Got::Nothing => self.readable = false,
                Got::Eof => {
                    (self.readable, self.eof) = (false, true);
                    self.server.handle_eof(self.shared.now());
                }
                Got::Lost => return false,
            }
            self.feed();
        }
        if !self.transmit() {
            return false;
        }
        self.input.release();
        true
    }

    /// Offers what was read until the machine takes no more of it.
    fn feed(&mut self) {
        loop {
            let now = self.shared.now();
            let waiting = self.input.bytes();
            let taken = if waiting.is_empty() { 0 } else { self.server.handle_input(now, waiting) };
            self.input.start += taken;
            let acted = self.jobs.events(&mut self.server, now);
            if !acted && (taken == 0 || self.input.is_empty()) {
                return;
            }
        }
    }

    /// Writes what there is to say, as far as the socket takes it. False: the link is lost.
    fn transmit(&mut self) -> bool {
        loop {
            if !self.out.is_empty() {
                match self.link.write(&self.out) {
                    Ok(0) => return true,
                    Ok(n) => drop(self.out.drain(..n)),
                    Err(_) => return false,
                }
                if !self.out.is_empty() {
                    return true;
                }
                self.out = Vec::new();
            }
            if !self.transmit_some() {
                return self.link.flush().is_ok();
            }
        }
    }

    /// One piece from the machine to the socket; what the socket does not take stays in `out`. False: there was none.
    #[inline(never)]
    fn transmit_some(&mut self) -> bool {
        let mut piece = [0u8; WRITE_BYTES];
        let n = self.server.poll_transmit(self.shared.now(), &mut piece);
        let piece = piece.get(..n).unwrap_or_default();
        if piece.is_empty() {
            return false;
        }
        // An error shows again when `out` is written.
        let taken = self.link.write(piece).unwrap_or(0);
        self.out.extend_from_slice(piece.get(taken..).unwrap_or_default());
        true
    }

    fn wait(&mut self) {
        let mut wanted = PollFlags::empty();
        if self.input.is_empty() && !self.eof {
            wanted |= PollFlags::IN;
        }
        if !self.out.is_empty() || self.link.wants_write() {
            wanted |= PollFlags::OUT;
        }
        let deadlines = [self.server.poll_timeout(), self.jobs.poll_timeout(), self.cut_at];
        let deadline = deadlines.into_iter().flatten().min();
        let timeout = if self.readable && self.input.is_empty() {
            // It was only interrupted, so that time and storage are looked at.
            Some(Timespec { tv_sec: 0, tv_nsec: 0 })
        } else {
            deadline.map(|t| timespec(t.since(self.shared.now()).0))
        };
        let (socket, waker) = (&self.link, &*self.waker);
        let mut fds = [PollFd::new(socket, wanted), PollFd::new(waker, PollFlags::IN)];
        let _ = poll(&mut fds, timeout.as_ref());
        let seen = fds[0].revents();
        if wanted.contains(PollFlags::IN) {
            self.readable |= !seen.is_empty();
        } else {
            self.broken = seen.intersects(PollFlags::ERR | PollFlags::HUP);
        }
    }

    /// Everything is said: waits until the peer has read it, since a close with unread input would be a reset that can
    /// overtake the last answer.
    fn linger(&mut self) {
        if !self.shut {
            self.link.close_write();
        }
        let end = self.shared.now().after(limits::LINGER);
        let end = self.cut_at.map_or(end, |t| t.min(end));
        loop {
            let now = self.shared.now();
            if now >= end || self.shared.phase() == Phase::Aborting {
                return;
            }
            match self.input.fill(&self.shared, &mut self.link) {
                Got::Bytes(_) => self.input.start = self.input.end,
                Got::Eof | Got::Lost => return,
                Got::Nothing => {
                    self.input.release();
                    self.waker.clear();
                    let mut fds = [
                        PollFd::new(&self.link, PollFlags::IN),
                        PollFd::new(&*self.waker, PollFlags::IN),
                    ];
                    let _ = poll(&mut fds, Some(&timespec(end.since(now).0)));
                }
            }
        }
    }
}

impl Input {
    fn bytes(&self) -> &[u8] {
        let all: &[u8] = self.buffer.as_ref().map_or(&self.small, |b| b);
        all.get(self.start..self.end).unwrap_or_default()
    }

    fn is_empty(&self) -> bool {
        self.start >= self.end
    }

    /// Reads once, into a buffer of the pool, or into a small one when all are in use.
    fn fill(&mut self, shared: &Shared, link: &mut Link) -> Got {
        debug_assert!(self.is_empty());
        if self.buffer.is_none() {
            self.buffer = shared.pool.take();
        }
        let room: &mut [u8] = match &mut self.buffer {
            Some(buffer) => buffer,
            None => {
                self.small.resize(SMALL_READ_BYTES, 0);
                &mut self.small
            }
        };
        (self.start, self.end) = (0, 0);
        let got = link.read(room);
        if let Got::Bytes(n) = got {
            self.end = n;
        }
        got
    }

    /// Gives the buffer back. What the machine did not take is kept in memory of its own.
    fn release(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        } else if self.buffer.is_some() {
            let rest = self.bytes().to_vec();
            *self = Self { end: rest.len(), small: rest, ..Self::default() };
        }
    }
}

/// Waits for the end of the handshake, within the time for a request head.
fn handshake(shared: &Shared, link: &mut Link, waker: &Waker) -> Result<(), String> {
    let end = shared.now().after(span(shared.config.head_time));
    loop {
        if link.handshake()? {
            return Ok(());
        }
        let now = shared.now();
        if now >= end {
            return Err("not finished in time".into());
        }
        if shared.phase() >= Phase::Stopping {
            return Err("stopping".into());
        }
        waker.clear();
        let wanted = if link.wants_write() { PollFlags::OUT } else { PollFlags::IN };
        let mut fds = [PollFd::new(&*link, wanted), PollFd::new(waker, PollFlags::IN)];
        let _ = poll(&mut fds, Some(&timespec(end.since(now).0)));
    }
}

/// Waits until there is something to read, within the time for a request head. False: nothing came.
fn wait_for_bytes(shared: &Shared, link: &Link, waker: &Waker) -> bool {
    let end = shared.now().after(span(shared.config.head_time));
    loop {
        let now = shared.now();
        if now >= end || shared.phase() >= Phase::Stopping {
            return false;
        }
        waker.clear();
        let mut fds = [PollFd::new(link, PollFlags::IN), PollFd::new(waker, PollFlags::IN)];
        let _ = poll(&mut fds, Some(&timespec(end.since(now).0)));
        if !fds[0].revents().is_empty() {
            return true;
        }
    }
}

/// Rounded up to whole milliseconds, so that a deadline has passed when the wait is over.
fn timespec(us: u64) -> Timespec {
    let wait = duration(crate::time::Span(us.div_ceil(1_000).saturating_mul(1_000)));
    Timespec::try_from(wait).unwrap_or(Timespec { tv_sec: 3_600, tv_nsec: 0 })
}

/// Reads in a row before time, storage and phase are looked at again.
const ROUNDS: usize = 16;
/// Answers are small: heads and ack objects.
const WRITE_BYTES: usize = 2 * 1024;
const SMALL_READ_BYTES: usize = 4 * 1024;
