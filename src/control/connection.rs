//! One connection: TLS, requests one behind the other, answers. Nothing waits without a deadline.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::gates::{Part, Place};
use super::routes::{self, Caller};
use super::shared::{Entered, Shared, count};
use crate::cast::text::escape_control;
use crate::depth::is_deeper;
use crate::http1::{self, BodyDecoder, BodyKind, HeadError, RequestHead};
use crate::limits;
use crate::recorder::config::duration;
use crate::recorder::link::{Got, Link};
use crate::recorder::listen::set_options;
use crate::recorder::tls::identity;
use crate::recorder::wake::Waker;

/// A request, whole.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) etag: Option<String>,
    pub(super) body: Vec<u8>,
}

/// What is answered.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) fields: Vec<(&'static str, String)>,
    /// Pieces, some of which many answers share.
    pub(super) body: Vec<Arc<str>>,
    /// The connection ends behind it.
    pub(super) close: bool,
    /// Given back when it was sent.
    held: Option<Part>,
}

impl Reply {
    pub(super) fn empty(status: u16) -> Self {
        Self { status, fields: Vec::new(), body: Vec::new(), close: false, held: None }
    }

    pub(super) fn text(status: u16, text: &str) -> Self {
        Self::with(status, "text/plain; charset=utf-8", vec![format!("{text}\n").into()])
    }

    pub(super) fn json(status: u16, text: &str) -> Self {
        Self::with(status, "application/json", vec![text.into()])
    }

    pub(super) fn with(status: u16, kind: &str, body: Vec<Arc<str>>) -> Self {
        let fields = vec![("Content-Type", kind.to_owned())];
        Self { status, fields, body, close: false, held: None }
    }

    pub(super) fn field(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    pub(super) fn holding(mut self, part: Part) -> Self {
        self.held = Some(part);
        self
    }

    pub(super) fn closing(mut self) -> Self {
        self.close = true;
        self
    }
}

/// Serves a connection to its end.
pub(super) fn serve(
    shared: &Arc<Shared>,
    tcp: TcpStream,
    peer: SocketAddr,
    tls: bool,
    stranger: Place<IpAddr>,
) {
    set_options(&tcp, duration(limits::TCP_USER_TIMEOUT));
    let Ok(waker) = Waker::new() else { return };
    let waker = Arc::new(waker);
    let entered = shared.enter(&waker);
    let config = if tls { shared.tls() } else { None };
    let Ok(link) = Link::new(tcp, config) else { return };
    let mut connection = Connection {
        shared: Arc::clone(shared),
        link,
        waker,
        peer,
        certificate: None,
        input: Vec::new(),
        stranger: Some(stranger),
        known: None,
        _entered: entered,
    };
    if let Err(why) = connection.handshake() {
        count(&shared.counters.tls_failures);
        log::info!("{peer}: TLS handshake failed: {}", escape_control(&why));
        return;
    }
    connection.run();
}

/// See the module.
pub(super) struct Connection {
    pub(super) shared: Arc<Shared>,
    link: Link,
    waker: Arc<Waker>,
    pub(super) peer: SocketAddr,
    /// The name in a checked client certificate.
    certificate: Option<String>,
    /// What was read and not looked at yet.
    input: Vec<u8>,
    /// Until somebody known has asked.
    stranger: Option<Place<IpAddr>>,
    known: Option<Place<String>>,
    _entered: Entered,
}

/// Why there is no request.
enum NoRequest {
    /// The peer is gone, or there was nothing for too long.
    Gone,
    /// It gets this, and then the connection ends.
    Refused(Reply),
}

/// What a wait brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Waited {
    /// Something changed, or control stops.
    Woken,
    /// The peer is gone.
    Gone,
    /// The time is over.
    TimedOut,
}

impl Connection {
    fn handshake(&mut self) -> Result<(), String> {
        let end = Instant::now() + self.shared.config.head_time;
        while !self.link.handshake()? {
            if !self.ready(end, self.link.wants_write()) {
                return Err("not done in time".into());
            }
        }
        let certificates = self.link.tls().and_then(|tls| tls.peer_certificates());
        self.certificate = certificates.and_then(<[_]>::first).and_then(identity);
        Ok(())
    }

    fn run(&mut self) {
        let mut first = true;
        while !self.shared.is_stopping() {
            let (reply, keep, head_only) = match self.request(first) {
                Ok((request, caller, keep)) => {
                    let head_only = request.method == "HEAD";
                    let Some(reply) = routes::answer(self, &request, &caller) else { return };
                    (reply, keep, head_only)
                }
                Err(NoRequest::Refused(reply)) => (reply.closing(), false, false),
                Err(NoRequest::Gone) => return,
            };
            let keep = keep && !reply.close && !self.shared.is_stopping();
            if !self.send(&reply, keep, head_only) {
                return;
            }
            if !keep {
                break;
            }
            first = false;
        }
        self.finish();
    }

    /// The next request, and who it is from: who that is, is known before its body is read.
    fn request(&mut self, first: bool) -> Result<(Request, Caller, bool), NoRequest> {
        let idle = if first { self.shared.config.head_time } else { duration(limits::IDLE_TIME) };
        let begins = Instant::now() + idle;
        while self.input.is_empty() {
            self.more(begins).map_err(|()| NoRequest::Gone)?;
            if self.shared.is_stopping() {
                return Err(NoRequest::Gone);
            }
        }
        let end = if first { begins } else { Instant::now() + self.shared.config.head_time };
        let refuse = |status, why| NoRequest::Refused(Reply::text(status, why));
        let (mut request, kind, caller, keep, expects, used) = loop {
            match http1::parse_request(&self.input) {
                Ok(Some((head, used))) => {
                    let request = Request::new(&head);
                    let caller = Caller::from_head(&head, self.certificate.clone());
                    break (
                        request,
                        head.body,
                        caller,
                        head.keep_alive(),
                        head.expects_continue(),
                        used,
                    );
                }
                Ok(None) => {}
                Err(HeadError::TooLarge) => {
                    return Err(refuse(431, "the request head is too large"));
                }
                Err(HeadError::Version) => return Err(refuse(505, "only HTTP/1.1 is spoken here")),
                Err(HeadError::Malformed) => return Err(refuse(400, "not an HTTP request")),
            }
            if self.more(end).is_err() {
                return Err(if Instant::now() >= end {
                    refuse(408, "the request did not come in time")
                } else {
                    NoRequest::Gone
                });
            }
        };
        self.input.drain(..used);
        self.admit(&caller).map_err(NoRequest::Refused)?;
        if matches!(kind, BodyKind::Length(n) if n > limits::CONTROL_BODY_BYTES as u64) {
            return Err(refuse(413, "the body is too large"));
        }
        if expects && kind != BodyKind::None && self.input.is_empty() {
            let end = Instant::now() + duration(limits::CONTROL_TRANSFER_TIME);
            if !self.write(http1::CONTINUE, end) {
                return Err(NoRequest::Gone);
            }
        }
        request.body = self.body(kind)?;
        if is_deeper(&request.body, limits::CONTROL_BODY_DEPTH) {
            return Err(refuse(400, "the JSON is nested too deeply"));
        }
        Ok((request, caller, keep))
    }

    /// Whether the caller is somebody, and not too often here.
    fn admit(&mut self, caller: &Caller) -> Result<(), Reply> {
        let world = self.shared.keeper.current();
        let Some(identity) = caller.identify(&world) else {
            count(&self.shared.counters.unauthorized);
            log::info!("{}: 401: {}", self.peer, escape_control(&caller.describe()));
            return Err(Reply::text(401, "give a valid token or client certificate")
                .field("WWW-Authenticate", "Bearer realm=\"castkeep\""));
        };
        if self.known.as_ref().is_none_or(|known| *known.key() != identity.node) {
            self.known = None;
            self.known = self.shared.known.enter(identity.node.clone());
        }
        let allowed = self.known.is_some()
            && (identity.roles.admin || self.shared.rates.allow(self.shared.now(), &identity.node));
        if !allowed {
            count(&self.shared.counters.limited);
            return Err(Reply::text(429, "too many requests").field("Retry-After", "5"));
        }
        self.stranger = None;
        Ok(())
    }

    fn body(&mut self, kind: BodyKind) -> Result<Vec<u8>, NoRequest> {
        let refuse = |status, why| NoRequest::Refused(Reply::text(status, why));
        let end = Instant::now() + duration(limits::CONTROL_TRANSFER_TIME);
        let mut decoder = BodyDecoder::new(kind);
        let mut body = Vec::new();
        while !decoder.is_done() {
            let piece = decoder
                .decode(&self.input)
                .map_err(|_| refuse(400, "the body is not what its head promises"))?;
            if body.len() + piece.data.len() > limits::CONTROL_BODY_BYTES {
                return Err(refuse(413, "the body is too large"));
            }
            body.extend_from_slice(piece.data);
            let consumed = piece.consumed;
            self.input.drain(..consumed);
            if consumed == 0 && !decoder.is_done() && self.more(end).is_err() {
                return Err(if Instant::now() >= end {
                    refuse(408, "the body did not come in time")
                } else {
                    NoRequest::Gone
                });
            }
        }
        Ok(body)
    }

    /// Reads something into the input. Err: the peer is gone, or the time is over.
    fn more(&mut self, end: Instant) -> Result<(), ()> {
        let mut buf = [0; READ_BYTES];
        loop {
            match self.link.read(&mut buf) {
                Got::Bytes(n) => {
                    self.input.extend_from_slice(buf.get(..n).unwrap_or_default());
                    return Ok(());
                }
                Got::Nothing if self.ready(end, self.link.wants_write()) => {
                    if self.shared.is_stopping() {
                        return Err(());
                    }
                    let _ = self.link.flush();
                }
                Got::Nothing | Got::Eof | Got::Lost => return Err(()),
            }
        }
    }

    /// Waits for a change, while the peer is there. Call [`Connection::attend`] first, and look at the state behind it.
    pub(super) fn wait(&mut self, end: Instant) -> Waited {
        loop {
            let full = self.input.len() >= PIPELINED_BYTES;
            if !full {
                let mut buf = [0; 1024];
                match self.link.read(&mut buf) {
                    Got::Bytes(n) => {
                        self.input.extend_from_slice(buf.get(..n).unwrap_or_default());
                        continue;
                    }
                    Got::Nothing => {}
                    Got::Eof | Got::Lost => return Waited::Gone,
                }
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Waited::TimedOut;
            }
            let events = if full { PollFlags::RDHUP } else { PollFlags::IN };
            let mut fds =
                [PollFd::new(&self.link, events), PollFd::new(&self.waker, PollFlags::IN)];
            let _ = poll(&mut fds, Some(&timespec(left)));
            let (socket, woken) = (fds[0].revents(), !fds[1].revents().is_empty());
            if woken {
                return Waited::Woken;
            }
            if full && !socket.is_empty() {
                return Waited::Gone;
            }
        }
    }

    /// From here on a change wakes the next [`Connection::wait`].
    pub(super) fn attend(&self) {
        self.waker.clear();
    }

    /// Waits for the socket. False: the time is over.
    fn ready(&self, end: Instant, to_write: bool) -> bool {
        let mut events = PollFlags::IN;
        if to_write {
            events |= PollFlags::OUT;
        }
        self.poll(end, events)
    }

    fn poll(&self, end: Instant, events: PollFlags) -> bool {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        self.waker.clear();
        if self.shared.is_stopping() {
            // What was begun may end, but nothing is waited for long.
            let left = left.min(STOP_STEP);
            let mut fds = [PollFd::new(&self.link, events)];
            return matches!(poll(&mut fds, Some(&timespec(left))), Ok(1..));
        }
        let mut fds = [PollFd::new(&self.link, events), PollFd::new(&self.waker, PollFlags::IN)];
        let _ = poll(&mut fds, Some(&timespec(left)));
        true
    }

    /// False: the peer is gone.
    fn send(&mut self, reply: &Reply, keep: bool, head_only: bool) -> bool {
        let length = reply.body.iter().map(|part| part.len()).sum::<usize>().to_string();
        let mut fields: Vec<(&str, &str)> =
            reply.fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        if reply.status != 304 && reply.status != 204 {
            fields.push(("Content-Length", &length));
        }
        fields.push(("Cache-Control", "no-store"));
        if !keep {
            fields.push(("Connection", "close"));
        }
        let mut head = vec![0; HEAD_OUT_BYTES];
        let Ok(used) = http1::write_response(&mut head, reply.status, &fields) else {
            return false;
        };
        head.truncate(used);
        let end = Instant::now() + duration(limits::CONTROL_TRANSFER_TIME);
        if !self.write(&head, end) {
            return false;
        }
        if head_only {
            return true;
        }
        reply.body.iter().all(|part| self.write(part.as_bytes(), end))
    }

    fn write(&mut self, mut bytes: &[u8], end: Instant) -> bool {
        while !bytes.is_empty() || self.link.wants_write() {
            let taken = if bytes.is_empty() {
                self.link.flush().map(|done| usize::from(!done))
            } else {
                self.link.write(bytes)
            };
            let Ok(n) = taken else { return false };
            if bytes.is_empty() {
                if n == 0 {
                    return true;
                }
            } else if n > 0 {
                bytes = bytes.get(n..).unwrap_or_default();
                continue;
            }
            if !self.poll(end, PollFlags::OUT) {
                return false;
            }
        }
        true
    }

    /// Until the peer has read the last answer: a close with unread input would be a reset, which may overtake it.
    fn finish(&mut self) {
        self.link.close_write();
        let end = Instant::now() + duration(limits::LINGER);
        let (mut buf, mut read) = ([0; READ_BYTES], 0usize);
        while read < limits::LINGER_BYTES {
            match self.link.read(&mut buf) {
                Got::Bytes(n) => read += n,
                Got::Nothing if self.poll(end, PollFlags::IN) => {}
                Got::Nothing | Got::Eof | Got::Lost => return,
            }
        }
    }
}

impl Request {
    fn new(head: &RequestHead<'_>) -> Self {
        let query = head.target.split_once('?').map_or("", |(_, query)| query);
        Self {
            method: head.method.to_owned(),
            path: head.path().to_owned(),
            query: query.split('#').next().unwrap_or_default().to_owned(),
            etag: head.fields.get("if-none-match").map(str::to_owned),
            body: Vec::new(),
        }
    }

    /// A number of the query. None: it is not there. Err: it is no number.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Reply> {
        let bad = || Reply::text(400, &format!("`{name}` must be a number"));
        self.value(name).map(|v| v.parse().map_err(|_| bad())).transpose()
    }

    /// A value of the query as it was written; ids and names have nothing to escape.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        let pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }
}

fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        // Rounded up: a wait that ends before its deadline would be a turn for nothing.
        tv_nsec: i64::from(time.subsec_nanos()),
    }
}

const READ_BYTES: usize = 8 * 1024;
/// What may come behind a request that waits.
const PIPELINED_BYTES: usize = 16 * 1024;
const HEAD_OUT_BYTES: usize = 2 * 1024;
const STOP_STEP: Duration = Duration::from_millis(500);
