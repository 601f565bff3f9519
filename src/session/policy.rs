//! A session whose recorders policy names: the question, the verdict, what a later one changes, and telling that recording failed.

use alloc::string::String;
use alloc::vec::Vec;
use core::mem;

use super::config::{Ask, Recorder};
use super::link::Stage;
use super::machine::{Known, Machine};
use super::state::{Action, Event, LinkEvent, LinkId, POLICY, Reason, State};
use crate::ask::{DECIDE_PATH, EventType, Exchange, Identity, NOTIFY_PATH, Named, Notice, Verdict};
use crate::cast::Header;
use crate::error::{Error, Link as LinkError, PeerFault, Phase};
use crate::limits::{
    LINKS_MAX, MESSAGE_BYTES, NOTICE_ATTEMPTS, NOTICE_WAIT, POLICY_PAUSE_MAX, POLICY_PAUSE_MIN,
    RECORDERS_MAX, START,
};
use crate::space;
use crate::time::{Span, Tick};

use super::report::AttemptText;

/// What a session knows of its policy.
#[derive(Debug)]
pub(super) struct Asking {
    cfg: Ask,
    question: Vec<u8>,
    verdict: Talk,
    telling: Talk,
    /// The verdict has to be there by then.
    by: Option<Tick>,
    /// Recorders as the verdicts named them; beside [`Machine::recorders`].
    named: Vec<Named>,
    /// Whether those are the recorders.
    pub(super) decided: bool,
    identity: Option<Identity>,
    tells: bool,
    break_glass: bool,
    banner: String,
    /// The session ends then.
    session_by: Option<Tick>,
    session: Span,
    /// Recorder and how its attempt ended, in order.
    attempts: Vec<(u16, Option<Error>)>,
    /// What is still to be told.
    notices: Vec<Vec<u8>>,
    /// The refusal waits for its notice until then.
    refuse_by: Option<Tick>,
}

/// One request and its connection.
#[derive(Debug)]
struct Talk {
    slot: u8,
    link: Option<(LinkId, Stage, Exchange)>,
    /// What the owner still has to be told to close.
    leaving: Option<LinkId>,
    retry_at: Option<Tick>,
    pause: Span,
}

impl Asking {
    pub(super) fn new(cfg: Ask, now: Tick) -> Result<Self, Error> {
        let mut attempts = Vec::new();
        space::reserve(&mut attempts, NOTICE_ATTEMPTS)?;
        let first = u8::try_from(LINKS_MAX).map_err(|_| Error::Bug)?;
        Ok(Self {
            question: cfg.question.encode()?,
            verdict: Talk::new(first, Some(now)),
            telling: Talk::new(first.saturating_add(1), None),
            by: Some(now.after(cfg.wait)),
            cfg,
            named: Vec::new(),
            decided: false,
            identity: None,
            tells: false,
            break_glass: false,
            banner: String::new(),
            session_by: None,
            session: Span(0),
            attempts,
            notices: Vec::new(),
            refuse_by: None,
        })
    }

    pub(super) fn named(&self, recorder: usize) -> Option<&Named> {
        self.named.get(recorder).filter(|_| self.decided)
    }

    pub(super) fn banner(&self) -> &str {
        &self.banner
    }

    pub(super) fn poll_action(&mut self) -> Option<Action> {
        [&mut self.verdict, &mut self.telling].into_iter().find_map(Talk::poll_action)
    }

    pub(super) fn poll_timeout(&self) -> Option<Tick> {
        let own = [self.by, self.session_by, self.refuse_by];
        let talks = [&self.verdict, &self.telling].into_iter().map(Talk::poll_timeout);
        own.into_iter().chain(talks).flatten().min()
    }

    /// An attempt ended; the oldest ones are told no more when there were too many.
    pub(super) fn attempted(&mut self, recorder: usize, error: Option<Error>) {
        if self.attempts.len() >= NOTICE_ATTEMPTS {
            self.attempts.rotate_left(1);
            self.attempts.pop();
        }
        let _ =
            space::push(&mut self.attempts, (u16::try_from(recorder).unwrap_or(u16::MAX), error));
    }

    fn talk(&mut self, id: LinkId) -> Option<&mut Talk> {
        let talks = [&mut self.verdict, &mut self.telling];
        talks.into_iter().find(|t| t.link.as_ref().is_some_and(|(link, ..)| *link == id))
    }
}

impl Talk {
    const fn new(slot: u8, at: Option<Tick>) -> Self {
        Self { slot, link: None, leaving: None, retry_at: at, pause: POLICY_PAUSE_MIN }
    }

    fn poll_action(&mut self) -> Option<Action> {
        if let Some(link) = self.leaving.take() {
            return Some(Action::Close { link, abort: false });
        }
        let (link, stage, _) = self.link.as_mut()?;
        let Stage::Wanted { until } = *stage else { return None };
        *stage = Stage::Dialing { until };
        Some(Action::Connect { link: *link, recorder: POLICY, http2: false })
    }

    fn poll_timeout(&self) -> Option<Tick> {
        match &self.link {
            Some((_, Stage::Wanted { until } | Stage::Dialing { until }, _)) => Some(*until),
            Some(_) => None,
            None => self.retry_at,
        }
    }

    /// The connection is over; the owner knows that when `told`.
    fn end(&mut self, told: bool) {
        let link = self.link.take().filter(|(_, stage, _)| !matches!(stage, Stage::Wanted { .. }));
        if let Some((id, ..)) = link.filter(|_| !told) {
            self.leaving = Some(id);
        }
    }

    fn later(&mut self, now: Tick) {
        self.retry_at = Some(now.after(self.pause));
        self.pause = Span(self.pause.0.saturating_mul(2)).min(POLICY_PAUSE_MAX);
    }
}

impl Machine {
    /// Everything of it that is due.
    pub(super) fn step_policy(&mut self, now: Tick) {
        if self.state.is_end() {
            return;
        }
        let Some(mut asking) = self.asking.take() else { return };
        let due = |at: Option<Tick>| at.is_some_and(|at| at <= now);
        for talk in [&mut asking.verdict, &mut asking.telling] {
            if talk.link.is_some() && due(talk.poll_timeout()) {
                talk.end(false);
                talk.later(now);
            }
        }
        if due(asking.verdict.retry_at) && asking.verdict.link.is_none() && !self.finishing {
            let question = mem::take(&mut asking.question);
            self.connect_talk(now, &asking.cfg, &mut asking.verdict, DECIDE_PATH, &question);
            asking.question = question;
        }
        let Asking { cfg, telling, notices, .. } = &mut asking;
        if let Some(notice) =
            notices.first().filter(|_| due(telling.retry_at) && telling.link.is_none())
        {
            self.connect_talk(now, cfg, telling, NOTIFY_PATH, notice);
        }
        let unanswered = due(asking.by);
        let timed_out = due(asking.session_by).then_some(asking.session);
        let refused = due(asking.refuse_by);
        if unanswered {
            asking.by = None;
        }
        if timed_out.is_some() {
            asking.session_by = None;
        }
        if refused {
            asking.refuse_by = None;
        }
        let instead = asking.cfg.unreachable.take_if(|_| unanswered);
        self.asking = Some(asking);
        if unanswered && self.state == State::CheckPolicy {
            match instead {
                Some(message) => self.reject(message, Reason::TimedOut(Phase::Policy)),
                None => self.search(now, Reason::TimedOut(Phase::Policy)),
            }
        }
        if let Some(limit) = timed_out {
            let seconds = limit.0 / 1_000_000;
            let text = session_timeout(seconds).unwrap_or_default();
            self.revoke(now, text);
        }
        if refused {
            self.refuse_now();
        }
    }

    fn connect_talk(&mut self, now: Tick, cfg: &Ask, talk: &mut Talk, path: &str, body: &[u8]) {
        talk.retry_at = None;
        match Exchange::new(&cfg.authority, path, cfg.token.as_deref(), body) {
            Ok(exchange) => {
                let id = self.links.name(talk.slot);
                let until = now.after(self.waits.dial);
                talk.link = Some((id, Stage::Wanted { until }, exchange));
            }
            Err(_) => talk.later(now),
        }
    }

    pub(super) fn policy_link(&mut self, now: Tick, id: LinkId, event: LinkEvent) {
        let Some(talk) = self.asking.as_mut().and_then(|a| a.talk(id)) else { return };
        let Some((_, stage, exchange)) = &mut talk.link else { return };
        match event {
            LinkEvent::Up => *stage = Stage::Up,
            LinkEvent::Eof => {
                let whole = exchange.handle_eof();
                self.talk_over(now, id, whole.err(), false);
            }
            LinkEvent::Down(e) => self.talk_over(now, id, Some(e), true),
        }
    }

    pub(super) fn policy_input(&mut self, now: Tick, id: LinkId, input: &[u8]) {
        let Some(talk) = self.asking.as_mut().and_then(|a| a.talk(id)) else { return };
        let Some((_, _, exchange)) = &mut talk.link else { return };
        // Of several that come at once the last one holds.
        let mut last = None;
        let read = exchange.handle_input(input, |line| {
            last = Some(Verdict::parse(line)?);
            Ok(())
        });
        let (done, status) = (exchange.is_done(), exchange.status());
        if let Some(verdict) = last {
            talk.pause = POLICY_PAUSE_MIN;
            self.decided(now, verdict);
        }
        let failed = match (read, status) {
            (Err(e), _) => Some(e),
            (Ok(()), Some(200 | 201) | None) => None,
            (Ok(()), Some(status)) => Some(Error::Peer(PeerFault::Status(status))),
        };
        if done || failed.is_some() {
            self.talk_over(now, id, failed, false);
        }
    }

    pub(super) fn policy_transmit(&mut self, id: LinkId, out: &mut [u8]) -> usize {
        match self.asking.as_mut().and_then(|a| a.talk(id)).and_then(|t| t.link.as_mut()) {
            Some((_, Stage::Up, exchange)) => exchange.poll_transmit(out),
            _ => 0,
        }
    }

    /// A connection ended. The verdict stands; a notice that was taken is done with.
    fn talk_over(&mut self, now: Tick, id: LinkId, failed: Option<Error>, told: bool) {
        let Some(asking) = &mut self.asking else { return };
        let is_notice = asking.talk(id).is_some_and(|t| usize::from(t.slot) > LINKS_MAX);
        let Some(talk) = asking.talk(id) else { return };
        let status = talk.link.as_ref().and_then(|(_, _, exchange)| exchange.status());
        talk.end(told);
        if !is_notice {
            talk.later(now);
            let e = failed.unwrap_or(Error::Link(LinkError::Closed));
            self.events.push(Event::Policy { error: e });
            return;
        }
        let taken = matches!(status, Some(200 | 201)) && failed.is_none();
        // What it calls wrong it will not take the next time.
        let wrong = matches!(status, Some(400..=499));
        if taken || wrong {
            if !asking.notices.is_empty() {
                asking.notices.remove(0);
            }
            asking.telling.pause = POLICY_PAUSE_MIN;
        }
        if asking.notices.is_empty() {
            asking.telling.retry_at = None;
            if asking.refuse_by.take().is_some() {
                self.refuse_now();
            }
        } else if taken {
            asking.telling.retry_at = Some(now);
        } else {
            asking.telling.later(now);
        }
    }

    /// CheckPolicy ─► SessionRejected | NoRecording | FindRecorder; later: what changed.
    fn decided(&mut self, now: Tick, verdict: Verdict) {
        let Verdict { accept, message, local_user, .. } = &verdict;
        let other = !local_user.is_empty()
            && !self.header.local_user.is_empty()
            && *local_user != self.header.local_user;
        let accept = *accept && !other;
        if self.state != State::CheckPolicy {
            if accept {
                self.more_recorders(verdict.recorders);
            } else {
                let text = if message.is_empty() || other { REVOKED } else { message };
                let text = space::string(text).unwrap_or_default();
                self.revoke(now, text);
            }
            return;
        }
        if !accept {
            let text = if message.is_empty() || other { NOT_PERMITTED } else { message };
            let text = space::string(text).unwrap_or_default();
            return self.reject(text, Reason::Policy);
        }
        let Some(asking) = &mut self.asking else { return };
        asking.by = None;
        asking.decided = true;
        asking.tells = verdict.notify;
        asking.break_glass = verdict.break_glass;
        asking.banner = verdict.message;
        if verdict.session_seconds > 0 {
            asking.session = Span::from_secs(verdict.session_seconds.min(SESSION_SECONDS_MAX));
            asking.session_by = Some(now.after(asking.session));
        }
        asking.identity = verdict.identity;
        self.take_identity();
        self.on_failure.reject_message = verdict.reject_message;
        self.on_failure.terminate_message = verdict.terminate_message;
        self.recorders.clear();
        self.known.clear();
        if verdict.record {
            self.more_recorders(verdict.recorders);
            self.search(now, Reason::Policy);
        } else {
            self.pass(Reason::Policy);
        }
    }

    /// Recorders that are not known yet stand behind those that are.
    fn more_recorders(&mut self, named: Vec<Named>) {
        let Some(asking) = self.asking.as_mut().filter(|a| a.decided) else { return };
        for named in named {
            if asking.named.iter().any(|n| n.address == named.address)
                || asking.named.len() >= RECORDERS_MAX
            {
                continue;
            }
            let authority = space::string(match &named.tls {
                Some(name) if !name.is_empty() => name,
                _ => &named.address,
            });
            let Ok(authority) = authority else { return };
            let recorder = Recorder { group: named.group, authority, tls: named.tls.is_some() };
            if space::push(&mut self.recorders, recorder).is_err()
                || space::push(&mut self.known, Known::Nothing).is_err()
                || space::push(&mut asking.named, named).is_err()
            {
                // The three lists are one.
                let n = asking.named.len();
                self.recorders.truncate(n);
                self.known.truncate(n);
                return;
            }
        }
    }

    /// Who the source is goes into the first line, as long as it fits there.
    fn take_identity(&mut self) {
        let Some(identity) = self.asking.as_ref().and_then(|a| a.identity.as_ref()) else { return };
        let Ok(mut source) = Source::of(identity) else { return };
        source.swap(&mut self.header);
        if self.header.encode_continuation(u64::MAX).is_err() {
            source.swap(&mut self.header);
        }
    }

    /// … ─► SessionRejected
    fn reject(&mut self, message: String, reason: Reason) {
        self.on_failure.reject_message = Some(bounded(message));
        self.drop_talks();
        self.to(State::SessionRejected, reason);
        self.events.push(Event::Refused);
    }

    /// RecordingFailed ─► SessionRejected, as soon as that is told.
    pub(super) fn refuse_after_notice(&mut self, now: Tick) {
        if let Some(asking) = self.asking.as_mut().filter(|a| !a.notices.is_empty()) {
            asking.refuse_by = Some(now.after(NOTICE_WAIT));
        } else {
            self.refuse_now();
        }
    }

    fn refuse_now(&mut self) {
        if self.state.is_end() {
            return;
        }
        self.drop_talks();
        self.to(State::SessionRejected, Reason::Policy);
        self.events.push(Event::Refused);
    }

    /// Policy does not let the session go on.
    fn revoke(&mut self, now: Tick, message: String) {
        if self.state.is_end() || self.finishing || self.terminated {
            return;
        }
        if !self.started {
            self.quiet();
            return self.reject(message, Reason::Policy);
        }
        self.on_failure.terminate_message = Some(bounded(message));
        self.terminated = true;
        if !self.passing {
            self.intake.terminated(now);
        }
        let bytes = self.intake.window.end().saturating_sub(self.stored);
        self.to(State::SessionTerminated, Reason::Policy);
        self.events.push(Event::Terminated { bytes });
        self.close_by.get_or_insert_with(|| now.after(START));
        if !self.passing && self.links.current().is_none() {
            self.hunt = None;
            self.grace_by = None;
            self.later(now);
        }
    }

    /// Recording failed: tells it, when policy wants to know. `e`: what the last attempt came to.
    pub(super) fn tell(&mut self, now: Tick, event: EventType, e: Option<Error>) {
        let Some(mut asking) = self.asking.take_if(|a| a.tells) else { return };
        if let (Some(e), Some((_, error))) = (e, asking.attempts.last_mut()) {
            *error = Some(e);
        }
        let notice = Notice {
            event,
            connection_id: &self.header.connection_id,
            ssh_user: &self.header.ssh_user,
            local_user: &self.header.local_user,
            identity: asking.identity.as_ref(),
            break_glass: asking.break_glass,
        };
        let attempts = asking.attempts.iter().map(|(recorder, error)| {
            let named = asking.named.get(usize::from(*recorder));
            let authority = named.map_or("", |n| n.address.as_str());
            (authority, Told { authority, error: *error })
        });
        let body = notice.encode(attempts);
        if asking.notices.len() < NOTICES_MAX
            && body.is_ok_and(|body| space::push(&mut asking.notices, body).is_ok())
            && asking.telling.link.is_none()
        {
            asking.telling.retry_at = Some(now);
        }
        self.asking = Some(asking);
    }

    /// The session is over: so are its questions.
    pub(super) fn drop_talks(&mut self) {
        if let Some(asking) = &mut self.asking {
            for talk in [&mut asking.verdict, &mut asking.telling] {
                talk.end(false);
                talk.retry_at = None;
            }
            asking.by = None;
            asking.session_by = None;
            asking.refuse_by = None;
        }
    }
}

/// What the first line says of the source.
struct Source {
    node: String,
    node_id: String,
    tags: Vec<String>,
    user: Option<String>,
    user_id: Option<i64>,
    by: Option<String>,
}

impl Source {
    fn of(identity: &Identity) -> Result<Self, Error> {
        let mut tags = Vec::new();
        for tag in &identity.tags {
            space::push(&mut tags, space::string(tag)?)?;
        }
        let has_user = !identity.user.is_empty() && tags.is_empty();
        Ok(Self {
            node: space::string(&identity.node)?,
            node_id: space::string(&identity.node_id)?,
            tags,
            user: if has_user { Some(space::string(&identity.user)?) } else { None },
            user_id: identity.user_id.filter(|_| has_user),
            by: if identity.by.is_empty() { None } else { Some(space::string(&identity.by)?) },
        })
    }

    fn swap(&mut self, header: &mut Header) {
        mem::swap(&mut self.node, &mut header.src_node);
        mem::swap(&mut self.node_id, &mut header.src_node_id);
        mem::swap(&mut self.tags, &mut header.src_node_tags);
        mem::swap(&mut self.user, &mut header.src_node_user);
        mem::swap(&mut self.user_id, &mut header.src_node_user_id);
        if let Some(castkeep) = &mut header.castkeep {
            mem::swap(&mut self.by, &mut castkeep.source_by);
        }
    }
}

/// How an attempt ended, in upstream's words; nothing for the one that was connected.
struct Told<'a> {
    authority: &'a str,
    error: Option<Error>,
}

impl core::fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.error {
            Some(error) => AttemptText { authority: self.authority, error }.fmt(f),
            None => Ok(()),
        }
    }
}

fn bounded(message: String) -> String {
    if message.len() <= MESSAGE_BYTES { message } else { String::new() }
}

/// In upstream's words, with Go's way to write a duration.
fn session_timeout(seconds: u64) -> Result<String, Error> {
    use crate::upload::wire::Decimal;
    let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let mut text = Vec::new();
    space::extend(&mut text, b"Session timeout of ")?;
    for (n, unit, shown) in [(h, b"h", h > 0), (m, b"m", h > 0 || m > 0), (s, b"s", true)] {
        if shown {
            space::extend(&mut text, Decimal::new(n).as_str().as_bytes())?;
            space::extend(&mut text, unit)?;
        }
    }
    space::extend(&mut text, b" elapsed.")?;
    space::lossy(&text)
}

/// Upstream's.
const REVOKED: &str = "Access revoked.";
const NOT_PERMITTED: &str = "policy does not permit this login";
/// What a year of sessions needs, and nothing that overflows.
const SESSION_SECONDS_MAX: u64 = 366 * 24 * 3600;
/// A start that failed, and the middle.
const NOTICES_MAX: usize = 4;
