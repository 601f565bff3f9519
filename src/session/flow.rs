//! What follows: the arrows of the picture at [`State`].

use alloc::vec::Vec;

use super::config::Recorder;
use super::hunt::{self, Goal, Hunt, Order};
use super::link::{Link, Role, Stage};
use super::machine::{Known, Machine};
use super::state::{Event, LinkId, Reason, State};
#[cfg(feature = "ask")]
use crate::ask::EventType;
use crate::error::{Error, Link as LinkError, PeerFault, Phase};
use crate::limits::{RESUME_PAUSE_MIN, START};
use crate::space;
use crate::time::{Span, Tick};
use crate::upload::client::{Client, Plan, Post, Protocol, Waits};
use crate::upload::wire::ResumeHeaders;

impl Machine {
    /// Connecting ─► CheckPolicy ─► NoRecording | FindRecorder ─► TryPrimary
    pub(super) fn begin(&mut self, now: Tick) {
        self.to(State::CheckPolicy, Reason::Begin);
        #[cfg(feature = "ask")]
        if self.asking.is_some() {
            return;
        }
        self.search(now, Reason::Policy);
    }

    /// CheckPolicy ─► NoRecording | FindRecorder ─► TryPrimary
    pub(super) fn search(&mut self, now: Tick, reason: Reason) {
        let decided = self.is_decided();
        if self.recorders.is_empty() && !decided {
            return self.pass(Reason::NoRecorders);
        }
        self.to(State::FindRecorder, reason);
        if self.recorders.is_empty() {
            // Policy wants a recording and has nobody for it.
            return self.start_failed(now, Reason::NoRecorders);
        }
        self.to(State::TryPrimary, Reason::Begin);
        self.start_by = Some(now.after(self.waits.start));
        if self.is_open() {
            self.go_by = Some(now.after(self.waits.stall_limit));
        }
        self.hunt = Some(Hunt::new(Goal::Start, hunt::from_start(&self.recorders), now));
    }

    /// CheckPolicy ─► NoRecording
    pub(super) fn pass(&mut self, reason: Reason) {
        self.to(State::NoRecording, reason);
        self.passing = true;
        self.started = true;
        self.events.push(Event::Start { recorded: false });
    }

    /// Whether a verdict named the recorders.
    #[allow(clippy::missing_const_for_fn, clippy::unused_self)]
    fn is_decided(&self) -> bool {
        #[cfg(feature = "ask")]
        return self.asking.as_ref().is_some_and(|a| a.decided);
        #[cfg(not(feature = "ask"))]
        false
    }

    /// Connecting ─► CheckPolicy ─► SessionRejected
    pub(super) fn refuse(&mut self) {
        self.to(State::CheckPolicy, Reason::Begin);
        self.to(State::SessionRejected, Reason::Policy);
        self.events.push(Event::Refused);
    }

    /// Runs everything that is due: links, deadlines, the search, the ring.
    pub(super) fn step(&mut self, now: Tick) {
        for id in self.links.ids().into_iter().flatten() {
            self.step_link(now, id);
        }
        self.step_deadlines(now);
        #[cfg(feature = "ask")]
        self.step_policy(now);
        self.step_hunt(now);
        self.release(now);
        self.settle_intake(now);
    }

    /// The owner says that a link is gone.
    pub(super) fn link_down(&mut self, now: Tick, id: LinkId, e: Error) {
        let Some(link) = self.links.get(id) else { return };
        let (recorder, plan, role) = (link.recorder, link.plan, link.role);
        let probing =
            link.plan == Plan::V2 && !link.client.is_posting() && link.client.from().is_none();
        let up = link.stage == Stage::Up;
        let fault = link.client.take_news().failed.unwrap_or(e);
        self.links.forget(id);
        match role {
            Role::Current => self.lost(now, recorder, fault),
            Role::Leaving { .. } => {}
            // An HTTP/1.1 recorder closes at the first byte of HTTP/2, and one with TLS does not speak h2.
            Role::Racing if probing && (up || e == Error::Link(LinkError::Tls)) => {
                self.unsupported(now, recorder, plan, fault);
            }
            Role::Racing => self.failed(now, recorder, fault),
        }
    }

    /// Begins to end the session; `close_by` is set.
    pub(super) fn begin_finish(&mut self, now: Tick) {
        if self.finishing || self.state.is_end() {
            return;
        }
        self.finishing = true;
        if self.passing || !self.started {
            return self.conclude(now, Reason::Finish);
        }
        self.intake.settle(now);
        self.grace_by = None;
        match self.state {
            State::Streaming => self.drain_out(now),
            State::SessionTerminated if self.links.current().is_some() => self.drain_out(now),
            State::SessionAllowed | State::SessionTerminated | State::ContinueUnrecorded => {
                self.to(State::Resuming, Reason::Finish);
                self.resume(now);
            }
            State::Resuming => {
                if let Some(hunt) = &mut self.hunt {
                    hunt.goal = Goal::Resume;
                }
            }
            _ => {}
        }
    }

    /// The end, of one kind or the other.
    pub(super) fn conclude(&mut self, now: Tick, reason: Reason) {
        let _ = now;
        let end = self.intake.window.end();
        let bytes = end.saturating_sub(self.stored);
        let nothing = self.passing;
        let complete = nothing
            || reason == Reason::Sealed
            || (bytes == 0 && self.started && reason != Reason::Abandoned);
        for id in self.links.ids().into_iter().flatten() {
            self.links.close(id, !complete);
        }
        self.quiet();
        #[cfg(feature = "ask")]
        self.drop_talks();
        if complete {
            // The last object may be the only one that says so.
            if self.intake.stored(end) {
                self.events.push(Event::Released);
            }
            self.to(State::SessionComplete, reason);
            self.events.push(Event::Finished);
        } else {
            self.to(State::Incomplete, reason);
            self.events.push(Event::Incomplete { bytes });
        }
    }

    /// Frees what the recorder has: not past what was sent, and not past where a waiting POST begins.
    pub(super) fn release(&mut self, now: Tick) {
        let _ = now;
        let posting = self.links.iter().filter(|l| l.role == Role::Racing);
        let floor = posting.filter_map(|l| l.client.from()).min().unwrap_or(u64::MAX);
        let Some(client) = self.links.current().map(|l| &l.client) else { return };
        let Some(cursor) = client.cursor() else { return };
        let given = if client.protocol() == Some(Protocol::V1) { cursor } else { self.stored };
        self.intake.window.release(given.min(cursor).min(floor));
        if self.intake.stored(given) {
            self.events.push(Event::Released);
        }
    }

    /// Whether the grace is what the session waits for.
    pub(super) fn grace_counts(&self) -> bool {
        self.state == State::Resuming
            && !self.finishing
            && self.hunt.as_ref().is_some_and(|h| h.goal == Goal::Resume)
    }

    fn step_link(&mut self, now: Tick, id: LinkId) {
        let Some(link) = self.links.get(id) else { return };
        match link.stage {
            Stage::Wanted { until } | Stage::Dialing { until } => {
                if until <= now {
                    let recorder = link.recorder;
                    self.links.close(id, true);
                    self.failed(now, recorder, Error::TimedOut(Phase::Dial));
                }
                return;
            }
            _ => link.client.handle_timeout(now),
        }
        match link.role {
            Role::Leaving { until } if until <= now => return self.links.close(id, true),
            _ => {}
        }
        let news = link.client.take_news();
        let (recorder, plan) = (link.recorder, link.plan);
        if !link.client.text().is_empty() && news.failed.is_some() {
            self.peer_text = space::string(link.client.text()).unwrap_or_default();
        }
        if news.spoke_v2 {
            self.set_known(recorder, Known::V2);
        }
        let Some(role) = self.links.get(id).map(|l| l.role) else { return };
        match role {
            Role::Racing => {
                if news.unsupported {
                    self.links.close(id, true);
                    self.unsupported(now, recorder, plan, Error::Peer(PeerFault::Http));
                } else if let Some(protocol) = news.accepted {
                    if self.need_commit && !protocol.has_commit() {
                        self.links.close(id, true);
                        return self.failed(now, recorder, Error::Peer(PeerFault::NoCommit));
                    }
                    self.accepted(now, id, protocol);
                    if let Some(m) = news.stored {
                        self.stored_up_to(m, true);
                    }
                    self.after_current(now, id, news.drain, news.sealed, news.failed);
                } else if let Some(e) = news.failed {
                    self.links.close(id, true);
                    self.failed(now, recorder, e);
                } else {
                    self.post(now, id);
                }
            }
            Role::Current => {
                if let Some(m) = news.stored {
                    self.stored_up_to(m, false);
                }
                self.after_current(now, id, news.drain, news.sealed, news.failed);
            }
            Role::Leaving { .. } => {
                if news.sealed || news.failed.is_some() {
                    self.links.close(id, false);
                }
            }
        }
    }

    fn after_current(
        &mut self,
        now: Tick,
        id: LinkId,
        drain: bool,
        sealed: bool,
        failed: Option<Error>,
    ) {
        let Some(recorder) = self.links.get(id).map(|l| l.recorder) else { return };
        if sealed {
            return self.conclude(now, Reason::Sealed);
        }
        if let Some(e) = failed {
            self.links.close(id, true);
            return self.lost(now, recorder, e);
        }
        if drain && !self.finishing && self.hunt.is_none() {
            let group = self.recorders.get(recorder).map(|r| r.group);
            let order = hunt::behind(&self.recorders, recorder)
                .filter(|i| self.recorders.get(i).map(|r| r.group) != group);
            if !order.is_empty() {
                self.hunt = Some(Hunt::new(Goal::Move, order, now));
            }
        }
    }

    fn step_deadlines(&mut self, now: Tick) {
        let due = |at: Option<Tick>| at.is_some_and(|at| at <= now);
        if self.state.is_end() {
            return;
        }
        if due(self.close_by) {
            return self.conclude(now, Reason::TimedOut(Phase::Close));
        }
        if due(self.start_by) {
            self.drop_racing();
            self.start_failed(now, Reason::TimedOut(Phase::Start));
        }
        if due(self.go_by) {
            self.go_by = None;
            self.start(now, false);
        }
        if due(self.grace_by) && self.grace_counts() {
            self.drop_racing();
            self.middle_failed(now, Reason::TimedOut(Phase::Resume));
        }
        if due(self.retry_at) {
            self.retry_at = None;
            let home = self.state;
            self.to(State::Resuming, Reason::Backoff);
            self.hunt = Some(Hunt::new(Goal::Background(home), self.order(), now));
        }
    }

    fn step_hunt(&mut self, now: Tick) {
        if let Some(hunt) = &mut self.hunt {
            hunt.wake(now);
        }
        // A POST that waited for another address of its recorder.
        for id in self.links.ids().into_iter().flatten() {
            if self.links.get(id).is_some_and(|l| l.role == Role::Racing && l.stage == Stage::Up) {
                self.post(now, id);
            }
        }
        loop {
            let racing = self.links.racing();
            let stagger = self.waits.stagger;
            let Some(hunt) = &mut self.hunt else { return };
            if !self.links.has_room() {
                return;
            }
            let Some((recorder, plan)) = hunt.take(now, racing, stagger) else { break };
            let Some(id) = self.links.reserve() else { return };
            let last = hunt.last_error;
            if hunt.goal == Goal::Start && self.state == State::TryPrimary && recorder > 0 {
                self.to(State::TryFailover, Reason::Lost(last));
            }
            self.connect(now, id, recorder, plan);
        }
        let racing = self.links.racing();
        let Some(hunt) = self.hunt.as_mut().filter(|h| h.is_over(racing)) else { return };
        let reason = Reason::Lost(hunt.last_error);
        match hunt.goal {
            Goal::Start => self.start_failed(now, reason),
            Goal::Move | Goal::Resume => hunt.rest(now),
            Goal::Background(home) => {
                self.hunt = None;
                self.to(home, reason);
                self.later(now);
            }
        }
    }

    fn connect(&mut self, now: Tick, id: LinkId, recorder: usize, plan: Option<Plan>) {
        let Some(r) = self.recorders.get(recorder) else { return };
        let http2 = cfg!(feature = "http2") && self.protocols.http2;
        let known = self.known.get(recorder).copied().unwrap_or_default();
        let first = match known {
            Known::V1 => Plan::V1,
            Known::Upgrade => Plan::Upgrade,
            Known::Nothing | Known::V2 if http2 => Plan::V2,
            Known::Nothing | Known::V2 if self.protocols.upgrade => Plan::Upgrade,
            Known::Nothing | Known::V2 => Plan::V1,
        };
        let plan = plan.unwrap_or(first);
        let waits = Waits {
            accept: self.waits.accept,
            ack_silence_commit: self.waits.ack_silence_commit,
            ack_silence_stock: self.waits.ack_silence_stock,
            progress: self.waits.progress,
        };
        let probe_by = now.after(self.waits.probe);
        let client = Client::new(plan, &r.authority, r.tls, waits, probe_by);
        let stage = Stage::Wanted { until: now.after(self.waits.dial) };
        self.links.insert(Link { id, recorder, plan, role: Role::Racing, stage, client });
    }

    /// Makes the request, unless another address of the same recorder was asked and did not answer yet: the newer of the
    /// two would end the older one at the recorder, whichever answer comes first.
    fn post(&mut self, now: Tick, id: LinkId) {
        let group = |recorders: &[Recorder], i: usize| recorders.get(i).map(|r| r.group);
        let Some(link) = self.links.get(id).filter(|l| l.client.is_ready()) else { return };
        let recorder = link.recorder;
        if self.need_commit && link.client.offers_commit() == Some(false) {
            self.links.close(id, true);
            return self.failed(now, recorder, Error::Peer(PeerFault::NoCommit));
        }
        let mine = group(&self.recorders, recorder);
        let asked = |l: &Link| l.id != id && l.role == Role::Racing && l.client.is_posting();
        if self.links.iter().any(|l| asked(l) && group(&self.recorders, l.recorder) == mine) {
            return;
        }
        let offset = self.intake.window.keep();
        let header = match offset {
            0 => Ok(Vec::new()),
            _ => self.header.encode_continuation(offset),
        };
        let header = match header {
            Ok(header) => header,
            Err(e) => {
                self.links.close(id, true);
                return self.failed(now, recorder, e);
            }
        };
        self.attempts = self.attempts.saturating_add(1);
        let resume = ResumeHeaders {
            recording: self.recording,
            secret: self.resume_secret,
            attempt: self.attempts,
            offset,
            window: self.intake.window.capacity() as u64,
        };
        if let Some(link) = self.links.get(id) {
            link.client.post(now, Post { resume, header });
        }
    }

    /// The peer does not know the protocol that was tried: another one, on a new link.
    fn unsupported(&mut self, now: Tick, recorder: usize, plan: Plan, e: Error) {
        let known = self.known.get(recorder).copied().unwrap_or_default();
        let spoke = match plan {
            Plan::V2 => known == Known::V2,
            Plan::Upgrade => known == Known::Upgrade,
            Plan::V1 => true,
        };
        if spoke {
            return self.failed(now, recorder, e);
        }
        if self.need_commit {
            return self.failed(now, recorder, Error::Peer(PeerFault::NoCommit));
        }
        match &mut self.hunt {
            Some(hunt) => hunt.again(recorder, Plan::V1),
            None => self.failed(now, recorder, e),
        }
    }

    /// An attempt failed.
    fn failed(&mut self, now: Tick, recorder: usize, e: Error) {
        if self.known.get(recorder) == Some(&Known::V1) {
            // It may have become another recorder.
            self.set_known(recorder, Known::Nothing);
        }
        self.events.push(Event::Attempt { recorder, error: Some(e) });
        #[cfg(feature = "ask")]
        if let Some(asking) = &mut self.asking {
            asking.attempted(recorder, Some(e));
        }
        if let Some(hunt) = &mut self.hunt {
            hunt.hurry(now, e);
        }
    }

    /// … ─► Connected ─► Streaming
    fn accepted(&mut self, now: Tick, id: LinkId, protocol: Protocol) {
        let moved = self.hunt.take().is_some_and(|h| h.goal == Goal::Move);
        for other in self.links.ids().into_iter().flatten().filter(|i| *i != id) {
            let until = now.after(self.waits.close_wait);
            let Some(link) = self.links.get(other) else { continue };
            match link.role {
                Role::Racing => self.links.close(other, true),
                Role::Current => {
                    link.role = Role::Leaving { until };
                    link.client.leave(now, &self.intake.window);
                }
                Role::Leaving { .. } => {}
            }
        }
        let Some(link) = self.links.get(id) else { return };
        link.role = Role::Current;
        let (recorder, from) = (link.recorder, link.client.from().unwrap_or(0));
        self.last_recorder = Some(recorder);
        self.intake.window.hold(from);
        self.v1_since = (protocol == Protocol::V1).then_some(now);
        self.set_known(
            recorder,
            match protocol {
                Protocol::Upgrade => Known::Upgrade,
                Protocol::V1 => Known::V1,
                Protocol::V2 | Protocol::V2Commit => Known::V2,
            },
        );
        self.start_by = None;
        self.go_by = None;
        self.retry_at = None;
        self.events.push(Event::Attempt { recorder, error: None });
        #[cfg(feature = "ask")]
        if let Some(asking) = &mut self.asking {
            asking.attempted(recorder, None);
        }
        self.to(State::Connected, if moved { Reason::Drain } else { Reason::Accepted });
        self.streamed = true;
        self.to(State::Streaming, Reason::Begin);
        self.start(now, true);
        if self.finishing {
            self.drain_out(now);
        }
    }

    /// The program may begin, and with it the stream.
    fn start(&mut self, now: Tick, recorded: bool) {
        if self.started {
            return;
        }
        self.started = true;
        let begun = self.header.encode().and_then(|header| self.intake.begin(&header));
        debug_assert!(begun.is_ok(), "the header was tried at open: {begun:?}");
        let end = self.intake.window.end();
        if let Some(link) = self.links.current_mut() {
            link.client.update(now, end);
        }
        self.events.push(Event::Start { recorded });
    }

    /// The stream is stored up to `m`. `by_answer`: the recorder said so with its 200 and has not done anything yet.
    fn stored_up_to(&mut self, m: u64, by_answer: bool) {
        let all = m >= self.intake.window.end() && !by_answer;
        if m > self.stored || all {
            self.grace_by = None;
            self.backoff = self.waits.backoff_min;
            self.pause = RESUME_PAUSE_MIN;
        }
        self.stored = self.stored.max(m);
    }

    /// Streaming | Draining ─► ConnectionLost ─► Resuming
    fn lost(&mut self, now: Tick, recorder: usize, e: Error) {
        self.losses = self.losses.saturating_add(1);
        self.last_recorder = Some(recorder);
        // What nobody is known to have is sent again; after v1 that is all that is still there.
        let from = self.intake.hold(self.stored);
        self.doubtful =
            self.doubtful.saturating_add(from.saturating_sub(self.stored.max(self.held)));
        self.held = self.held.max(from);
        if self.v1_since.take().is_some_and(|at| at.after(self.waits.ack_silence_commit) <= now) {
            // It never says what it has; that it lived for a while has to do.
            self.grace_by = None;
        }
        self.to(State::ConnectionLost, Reason::Lost(e));
        if self.terminated && !self.finishing {
            self.hunt = None;
            self.drop_racing();
            self.to(State::SessionTerminated, Reason::Policy);
            return self.later(now);
        }
        let again = self.grace_by.is_some();
        let grace = *self.grace_by.get_or_insert_with(|| now.after(self.waits.resume_grace));
        if grace <= now && !self.finishing {
            self.drop_racing();
            return self.middle_failed(now, Reason::Lost(e));
        }
        self.to(State::Resuming, Reason::Lost(e));
        self.resume(now);
        if let Some(hunt) = self.hunt.as_mut().filter(|_| again) {
            // The last one accepted and stored nothing. Do not hammer.
            hunt.rest_until(now.after(self.pause));
            self.pause = hunt::grown(self.pause);
        }
    }

    /// Looks for another recorder, round after round. Attempts that run already go on.
    fn resume(&mut self, now: Tick) {
        self.retry_at = None;
        self.hunt = Some(Hunt::new(Goal::Resume, self.order(), now));
    }

    /// TryPrimary | TryFailover ─► RecordingFailed ─► SessionRejected | SessionAllowed
    fn start_failed(&mut self, now: Tick, reason: Reason) {
        self.hunt = None;
        self.start_by = None;
        self.go_by = None;
        self.to(State::RecordingFailed, reason);
        if !self.is_open() {
            self.quiet();
            #[cfg(feature = "ask")]
            {
                self.tell(now, EventType::Rejected, None);
                self.refuse_after_notice(now);
            }
            #[cfg(not(feature = "ask"))]
            {
                self.to(State::SessionRejected, Reason::Policy);
                self.events.push(Event::Refused);
            }
            return;
        }
        #[cfg(feature = "ask")]
        self.tell(now, EventType::Unrecorded, None);
        self.start(now, false);
        self.to(State::SessionAllowed, Reason::Policy);
        if self.finishing {
            self.to(State::Resuming, Reason::Finish);
            self.resume(now);
        } else {
            self.later(now);
        }
    }

    /// Resuming ─► SessionTerminated | ContinueUnrecorded
    fn middle_failed(&mut self, now: Tick, reason: Reason) {
        self.hunt = None;
        self.grace_by = None;
        #[cfg(feature = "ask")]
        if !self.terminated {
            let open = self.is_open();
            let event = if open { EventType::Unrecorded } else { EventType::Terminated };
            let why = match reason {
                Reason::Lost(e) => Some(e),
                Reason::TimedOut(phase) => Some(Error::TimedOut(phase)),
                _ => None,
            };
            self.tell(now, event, why);
        }
        if self.is_open() {
            self.to(State::ContinueUnrecorded, reason);
        } else {
            self.to(State::SessionTerminated, reason);
            if !self.terminated {
                self.terminated = true;
                self.intake.terminated(now);
                let bytes = self.intake.window.end().saturating_sub(self.stored);
                self.events.push(Event::Terminated { bytes });
                // An end even if the host never says so.
                self.close_by.get_or_insert_with(|| now.after(START));
            }
        }
        self.later(now);
    }

    /// The next search in the background.
    pub(super) fn later(&mut self, now: Tick) {
        // xorshift: only to keep many sessions from knocking at the same moment.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let quarter = (self.backoff.0 / 4).saturating_add(1);
        let jitter = self.random.checked_rem(quarter).unwrap_or(0);
        self.retry_at = Some(now.after(self.backoff).after(Span(jitter)));
        self.backoff = Span(self.backoff.0.saturating_mul(2)).min(self.waits.backoff_max);
    }

    /// Streaming ─► Draining
    fn drain_out(&mut self, now: Tick) {
        self.to(State::Draining, Reason::Finish);
        self.hunt = None;
        self.drop_racing();
        let end = self.intake.window.end();
        if let Some(link) = self.links.current_mut() {
            link.client.finish(now, end);
        }
    }

    /// Nothing is waited for any more.
    pub(super) fn quiet(&mut self) {
        self.hunt = None;
        self.start_by = None;
        self.go_by = None;
        self.grace_by = None;
        self.retry_at = None;
        self.close_by = None;
        self.drop_racing();
    }

    fn drop_racing(&mut self) {
        for id in self.links.ids().into_iter().flatten() {
            if self.links.get(id).is_some_and(|l| l.role == Role::Racing) {
                self.links.close(id, true);
            }
        }
    }

    fn order(&self) -> Order {
        match self.last_recorder {
            Some(lost) => hunt::behind(&self.recorders, lost),
            None => hunt::from_start(&self.recorders),
        }
    }

    fn set_known(&mut self, recorder: usize, known: Known) {
        if let Some(k) = self.known.get_mut(recorder) {
            *k = known;
        }
    }

    pub(super) fn to(&mut self, to: State, reason: Reason) {
        let from = core::mem::replace(&mut self.state, to);
        self.events.push(Event::Transition { from, to, reason });
    }
}
