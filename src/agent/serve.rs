//! One connection to the socket: one request, one answer, which goes on while it is watched.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::config::WithoutPolicy;
use super::decide::{Question, Verdict};
use super::engine::{Accepted, Decided, Policy, Ruling};
use super::identity::{self, By, Identity};
use super::keeper::Keeper;
use super::listen::Asker;
use super::notify::{Known, Notifier, Refused};
use super::trouble::Trouble;
use crate::http1::{self, BodyKind, HeadError};
use crate::limits;
use crate::localapi::LocalApi;
use crate::recorder::config::duration;
use crate::recorder::wake::Waker;

/// What all connections share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) keeper: Keeper,
    pub(super) notifier: Notifier,
    pub(super) api: Option<(LocalApi, Trouble)>,
    pub(super) without_policy: WithoutPolicy,
}

/// Serves it to its end.
pub(super) fn serve(shared: &Shared, mut stream: UnixStream, asker: Asker) {
    let until = Instant::now() + duration(limits::AGENT_REQUEST);
    if stream.set_nonblocking(false).is_err() {
        return;
    }
    // Whoever leaves an answer unread is not waited for.
    if stream.set_write_timeout(Some(duration(limits::AGENT_WRITE))).is_err() {
        return;
    }
    match read_request(&mut stream, until) {
        Err(Ended::Gone) => return,
        Err(Ended::Refused(Refused(status, why))) => answer_text(&mut stream, status, &why),
        Ok(Request::Decide(body)) => match Question::parse(&body) {
            Err(why) => answer_text(&mut stream, 400, &why),
            Ok(question) => {
                // An asker that is gone has nothing to be told.
                let _ = decide(shared, &mut stream, asker, &question);
            }
        },
        Ok(Request::Notify(body)) => {
            let policy = shared.keeper.policy(Duration::ZERO);
            match shared.notifier.take(asker.uid, &body, policy.as_deref()) {
                Ok(()) => answer_text(&mut stream, 201, "stored"),
                Err(Refused(status, why)) => answer_text(&mut stream, status, &why),
            }
        }
    }
    let _ = stream.shutdown(Shutdown::Both);
}

/// Answers, and goes on answering while the question is watched.
fn decide(
    shared: &Shared,
    stream: &mut UnixStream,
    asker: Asker,
    question: &Question,
) -> std::io::Result<()> {
    let waker = Arc::new(Waker::new()?);
    if question.watch {
        shared.keeper.watch(&waker);
    }
    let policy = shared.keeper.policy(duration(limits::AGENT_FIRST_WAIT));
    let api = shared.api.as_ref().map(|(api, trouble)| (api, trouble));
    let mut who = identity::find(question, asker.uid == 0, policy.as_deref(), api);
    let first = verdict(shared, question, policy.as_deref(), &who);
    tell(asker, question, &first, "");
    remember(shared, asker, question, &first);
    let fields =
        [("Content-Type", "application/x-ndjson"), ("Transfer-Encoding", "chunked"), CLOSE];
    let mut head = [0; ANSWER_HEAD_BYTES];
    let len = http1::write_response(&mut head, 200, &fields).unwrap_or(0);
    let mut out = head.get(..len).unwrap_or_default().to_vec();
    chunk(&mut out, &first.line());
    stream.write_all(&out)?;
    let mut last = first;
    while let (true, Ruling::Accept(accepted)) = (question.watch, &last.ruling) {
        if is_gone(stream, &waker)? {
            return Ok(());
        }
        waker.clear();
        if shared.keeper.is_stopped() {
            break;
        }
        let policy = shared.keeper.policy(Duration::ZERO);
        // WhoIs was about this one connection, and a claim was made with the question; the registry can have changed.
        if matches!(who.by, By::Registry | By::Nobody) {
            who = identity::find(question, asker.uid == 0, policy.as_deref(), None);
        }
        let mut now = verdict(shared, question, policy.as_deref(), &who);
        if now.is_as(&last) {
            continue;
        }
        let stays = matches!(&now.ruling, Ruling::Accept(a) if a.local_user == accepted.local_user);
        if !stays {
            now.ruling = Ruling::Reject(REVOKED.into());
        }
        tell(asker, question, &now, " from now on");
        remember(shared, asker, question, &now);
        let mut out = Vec::new();
        chunk(&mut out, &now.line());
        stream.write_all(&out)?;
        last = now;
    }
    stream.write_all(http1::LAST_CHUNK)
}

fn verdict(
    shared: &Shared,
    question: &Question,
    policy: Option<&Policy>,
    who: &Identity,
) -> Verdict {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let ruling = match (policy, shared.without_policy) {
        (Some(policy), _) => policy.rule(who.peer(), &question.ssh_user, now),
        (None, WithoutPolicy::Closed) => {
            Ruling::Reject("this machine has no policy yet; nobody is let in".into())
        }
        (None, WithoutPolicy::Open) => {
            let wanted = Some(&question.local_user).filter(|user| !user.is_empty());
            let local_user = wanted.unwrap_or(&question.ssh_user).clone();
            Ruling::Accept(Box::new(Accepted { local_user, ..Accepted::default() }))
        }
    };
    let version = policy.map_or(0, |policy| policy.version);
    Verdict { version, ruling, who: who.clone() }.for_local_user(&question.local_user)
}

/// The decision in the log.
fn tell(asker: Asker, question: &Question, verdict: &Verdict, when: &str) {
    let what = match &verdict.ruling {
        Ruling::Accept(accepted) => {
            let record = match (accepted.record, accepted.recorders.len()) {
                (false, _) => "not recorded".into(),
                (true, 0) => "to be recorded, and there is no recorder".into(),
                (true, n) => format!("recorded by the first of {n} address(es)"),
            };
            let break_glass = if accepted.break_glass { ", break-glass" } else { "" };
            format!("accepted as {}{when}, {record}{break_glass}", accepted.local_user)
        }
        Ruling::Reject(why) => format!("rejected{when}: {why}"),
    };
    let line = format!(
        "{} as {}: {what} (version {}; asked by uid {} pid {})",
        said(&verdict.who),
        question.ssh_user,
        verdict.version,
        asker.uid,
        asker.pid
    );
    if verdict.version == 0 {
        log::warn!("without a policy: {line}");
    } else {
        log::info!("{line}");
    }
}

/// Who it is, for people.
fn said(who: &Identity) -> String {
    let at = who.address.map_or_else(String::new, |address| format!(" at {address}"));
    let name = match &who.user {
        Some((login, _)) => format!("{login} on {}", who.name),
        None if who.by == By::Nobody => "somebody".to_owned(),
        None => who.name.clone(),
    };
    format!("{name}{at} ({})", who.by.word())
}

fn remember(shared: &Shared, asker: Asker, question: &Question, verdict: &Verdict) {
    // What a revoked session still has to tell is about what it was.
    let Ruling::Accept(accepted) = &verdict.ruling else { return };
    let known = Known {
        decided: Decided {
            numeric_id: verdict.who.numeric_id,
            node_id: verdict.who.node_id.clone(),
            login: verdict.who.user.as_ref().map(|(login, _)| login.clone()).unwrap_or_default(),
            break_glass: accepted.break_glass,
        },
        who: said(&verdict.who),
    };
    shared.notifier.remember(asker.uid, &question.connection_id, known);
}

/// Waits until the peer is gone (true), or there may be another verdict.
fn is_gone(stream: &UnixStream, waker: &Waker) -> std::io::Result<bool> {
    let tick = i64::try_from(limits::AGENT_WATCH_TICK.0 / 1_000_000).unwrap_or(30);
    let tick = Timespec { tv_sec: tick, tv_nsec: 0 };
    // Without events of its own: a peer that only shut down its side still wants to know.
    let mut fds = [
        PollFd::from_borrowed_fd(stream.as_fd(), PollFlags::empty()),
        PollFd::from_borrowed_fd(waker.as_fd(), PollFlags::IN),
    ];
    match poll(&mut fds, Some(&tick)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(e) => return Err(e.into()),
    }
    Ok(fds.first().is_some_and(|fd| fd.revents().intersects(PollFlags::HUP | PollFlags::ERR)))
}

/// Puts one chunk behind what is there. A line is always within the size that four digits tell.
fn chunk(out: &mut Vec<u8>, line: &str) {
    out.extend_from_slice(format!("{:x}\r\n{line}\r\n", line.len()).as_bytes());
}

/// A request that was read whole.
#[derive(Debug)]
enum Request {
    Decide(Vec<u8>),
    Notify(Vec<u8>),
}

/// Why there is no request.
#[derive(Debug)]
enum Ended {
    Gone,
    Refused(Refused),
}

fn refused(status: u16, why: &str) -> Ended {
    Ended::Refused(Refused(status, why.into()))
}

fn read_request(stream: &mut UnixStream, until: Instant) -> Result<Request, Ended> {
    let mut input = Vec::new();
    let (make, used, length) = loop {
        let head = http1::parse_request(&input).map_err(|e| match e {
            HeadError::TooLarge => refused(431, "request too large"),
            HeadError::Version => refused(505, "only HTTP/1.1 is spoken here"),
            HeadError::Malformed => refused(400, "not an HTTP request"),
        })?;
        let Some((head, used)) = head else {
            read_some(stream, &mut input, until)?;
            continue;
        };
        let (make, most): (fn(Vec<u8>) -> Request, usize) = match head.path() {
            "/castkeep/1/decide" => (Request::Decide, limits::ASK_BYTES),
            "/castkeep/1/notify" => (Request::Notify, limits::NOTIFY_BYTES),
            _ => return Err(refused(404, "there are /castkeep/1/decide and /castkeep/1/notify")),
        };
        if head.method != "POST" {
            return Err(refused(405, "only POST is answered here"));
        }
        let length = match head.body {
            BodyKind::Length(n) => usize::try_from(n).unwrap_or(usize::MAX),
            _ => return Err(refused(411, "a request must say its Content-Length")),
        };
        if length > most {
            return Err(refused(413, "the body is too long"));
        }
        if head.expects_continue() {
            stream.write_all(http1::CONTINUE).map_err(|_| Ended::Gone)?;
        }
        break (make, used, length);
    };
    let end = used.saturating_add(length);
    while input.len() < end {
        read_some(stream, &mut input, until)?;
    }
    Ok(make(input.get(used..end).unwrap_or_default().to_vec()))
}

fn read_some(stream: &mut UnixStream, input: &mut Vec<u8>, until: Instant) -> Result<(), Ended> {
    let mut bytes = [0; READ_BYTES];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left < Duration::from_millis(1) {
            return Err(refused(408, "the request did not come in time"));
        }
        stream.set_read_timeout(Some(left)).map_err(|_| Ended::Gone)?;
        match stream.read(&mut bytes) {
            Ok(0) => return Err(Ended::Gone),
            Ok(n) => {
                input.extend_from_slice(bytes.get(..n).unwrap_or_default());
                return Ok(());
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return Err(Ended::Gone),
        }
    }
}

fn answer_text(stream: &mut UnixStream, status: u16, text: &str) {
    let body = format!("{text}\n");
    let length = body.len().to_string();
    let fields =
        [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", length.as_str()), CLOSE];
    let mut head = [0; ANSWER_HEAD_BYTES];
    let Ok(len) = http1::write_response(&mut head, status, &fields) else { return };
    let mut out = head.get(..len).unwrap_or_default().to_vec();
    out.extend_from_slice(body.as_bytes());
    // Who does not take it has gone.
    let _ = stream.write_all(&out);
}

/// What a session that loses its right is told; the words are Tailscale's.
const REVOKED: &str = "Access revoked.";
const CLOSE: (&str, &str) = ("Connection", "close");
const ANSWER_HEAD_BYTES: usize = 512;
const READ_BYTES: usize = 4096;
