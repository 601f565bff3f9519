//! What the requests of one connection do: uploads into storage, events.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::shared::{Running, Shared, count};
use super::storage::{Begin, How, Notify, Peer, ResumeClaim, State, Upload};
use super::wake::Waker;
use crate::cast::text::escape_control;
use crate::limits;
use crate::time::Tick;
use crate::upload::server::{Event, HowEnded, Kind, Protocol, RequestId, Server};
use crate::upload::wire::{ResumeHeaders, format_id};

impl Notify for Waker {
    fn wake(&self) {
        Self::wake(self);
    }
}

/// Whether a peer may upload.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Access {
    /// 403.
    Denied,
    /// It may.
    Granted,
    /// 503, and why.
    NotNow(&'static str),
}

impl Access {
    /// Status and text of a refusal.
    const fn check(self) -> Result<(), (u16, &'static str)> {
        match self {
            Self::Denied => Err((403, "this peer may not upload here")),
            Self::Granted => Ok(()),
            Self::NotNow(why) => Err((503, why)),
        }
    }
}

/// The requests of a connection that are not answered to their end.
pub(crate) struct Jobs {
    shared: Arc<Shared>,
    peer: Peer,
    access: Access,
    notify: Arc<dyn Notify>,
    /// At most [`limits::H2_STREAMS`].
    jobs: Vec<Job>,
    draining: bool,
}

struct Job {
    id: RequestId,
    work: Work,
    _running: Running,
}

enum Work {
    /// A recording.
    Upload(Recording),
    /// An event whose body is being received.
    Event { body: Vec<u8>, until: Tick, _permit: Permit },
}

struct Recording {
    upload: Upload,
    protocol: Protocol,
    name: String,
    ended: bool,
}

impl Jobs {
    pub(crate) fn new(
        shared: &Arc<Shared>,
        peer: Peer,
        access: Access,
        waker: &Arc<Waker>,
    ) -> Self {
        let notify: Arc<dyn Notify> = Arc::clone(waker) as _;
        Self { shared: Arc::clone(shared), peer, access, notify, jobs: Vec::new(), draining: false }
    }

    /// Does what the machine asks for. True: there was something.
    pub(crate) fn events(&mut self, server: &mut Server, now: Tick) -> bool {
        let mut acted = false;
        while let Some(event) = server.poll_event() {
            acted = true;
            match event {
                Event::Request(request) => match request.kind {
                    Kind::Record { protocol, resume } => {
                        self.begin(server, now, request.id, protocol, resume);
                    }
                    Kind::Event => self.begin_event(server, now, request.id),
                },
                Event::Body { id, .. } => self.body(server, now, id),
                Event::End { id, how } => self.end(server, now, id, how),
            }
        }
        acted
    }

    /// Tells the machine how far storage is, and ends what storage has ended.
    pub(crate) fn progress(&mut self, server: &mut Server, now: Tick) {
        let mut at = 0;
        while let Some(job) = self.jobs.get_mut(at) {
            let Work::Upload(r) = &mut job.work else {
                at += 1;
                continue;
            };
            let progress = r.upload.progress();
            let commit = r.has_commit().then_some(progress.commit);
            let over = match progress.state {
                State::Open => {
                    server.progress(now, job.id, progress.received, commit);
                    false
                }
                State::Sealed(end) => {
                    server.progress(now, job.id, progress.received, commit);
                    server.seal(now, job.id, end);
                    log::info!("{}: {} bytes, stored", r.name, progress.received);
                    true
                }
                State::Superseded => {
                    server.fail(now, job.id, "superseded");
                    log::info!("{}: superseded by a newer connection", r.name);
                    true
                }
                State::Failed(text) => {
                    server.fail(now, job.id, &text);
                    count(&self.shared.counters.failures);
                    log::warn!("{}: {text}", r.name);
                    true
                }
            };
            if over {
                self.jobs.remove(at);
            } else {
                at += 1;
            }
        }
    }

    /// Ends events that take too long.
    pub(crate) fn expire(&mut self, server: &mut Server, now: Tick) {
        self.jobs.retain(|job| match &job.work {
            Work::Event { until, .. } if *until <= now => {
                server.finish(now, job.id, 408, "the event did not come in time");
                false
            }
            _ => true,
        });
    }

    /// When [`Jobs::expire`] is wanted.
    pub(crate) fn poll_timeout(&self) -> Option<Tick> {
        let until = |job: &Job| match &job.work {
            Work::Event { until, .. } => Some(*until),
            Work::Upload(_) => None,
        };
        self.jobs.iter().filter_map(until).min()
    }

    /// Asks castkeep clients to go elsewhere.
    pub(crate) fn drain(&mut self, server: &mut Server, now: Tick) {
        self.draining = true;
        for job in &self.jobs {
            if let Work::Upload(_) = job.work {
                server.drain(now, job.id);
            }
        }
    }

    /// Ends everything with an error object.
    pub(crate) fn fail_all(&mut self, server: &mut Server, now: Tick, text: &str) {
        for mut job in self.jobs.drain(..) {
            match &mut job.work {
                Work::Upload(r) => {
                    log::warn!("{}: ended, the recorder is stopping", r.name);
                    server.fail(now, job.id, text);
                    if !r.ended {
                        r.upload.end(How::Truncated);
                    }
                }
                Work::Event { .. } => server.finish(now, job.id, 503, text),
            }
        }
    }

    fn begin(
        &mut self,
        server: &mut Server,
        now: Tick,
        id: RequestId,
        protocol: Protocol,
        resume: Option<ResumeHeaders>,
    ) {
        let name = self.name(protocol, resume.as_ref());
        if let Err((status, why)) = self.access.check() {
            return self.refuse(server, now, id, &name, status, why);
        }
        // Between the machine's own answer and here the disk can have filled, or the stop begun.
        if let Err(why) = self.shared.available_to_go_on() {
            return self.refuse(server, now, id, &name, 503, why);
        }
        let begin = Begin {
            peer: self.peer.clone(),
            protocol,
            resume: resume.map(|h| ResumeClaim {
                recording: h.recording,
                secret: h.secret,
                attempt: h.attempt,
                offset: h.offset,
                window: h.window,
            }),
            notify: Arc::clone(&self.notify),
        };
        let upload = match self.shared.store.begin(begin) {
            Ok(upload) => upload,
            Err(e) => return self.refuse(server, now, id, &name, e.status, &e.text),
        };
        let recording = Recording { upload, protocol, name, ended: false };
        let commit = recording.has_commit().then(|| recording.upload.start_commit());
        server.accept(now, id, commit);
        let c = &self.shared.counters;
        count(match protocol {
            Protocol::V1 => &c.v1,
            Protocol::V2 => &c.v2,
            Protocol::V2Commit => &c.v2_commit,
            Protocol::Upgrade => &c.upgrade,
        });
        log::info!("{}: accepted", recording.name);
        if self.draining {
            server.drain(now, id);
        }
        let work = Work::Upload(recording);
        self.jobs.push(Job { id, work, _running: self.shared.begin_upload() });
    }

    fn begin_event(&mut self, server: &mut Server, now: Tick, id: RequestId) {
        let name = format!("{} event", self.peer_name());
        if let Err((status, why)) = self.access.check() {
            return self.refuse(server, now, id, &name, status, why);
        }
        if let Err(why) = self.shared.available() {
            return self.refuse(server, now, id, &name, 503, why);
        }
        let Some(permit) = Permit::take(&self.shared) else {
            return self.refuse(server, now, id, &name, 503, "too many events at a time");
        };
        server.accept(now, id, None);
        let until = now.after(limits::EVENT_TIME);
        let work = Work::Event { body: Vec::new(), until, _permit: permit };
        self.jobs.push(Job { id, work, _running: self.shared.begin_upload() });
    }

    fn body(&mut self, server: &mut Server, now: Tick, id: RequestId) {
        let body = server.body(id);
        let len = body.len();
        // What belongs to no job is the rest of an upload that has ended: it is thrown away.
        if let Some(at) = self.jobs.iter().position(|j| j.id == id) {
            match self.jobs.get_mut(at).map(|j| &mut j.work) {
                Some(Work::Upload(r)) => {
                    self.shared.counters.received.fetch_add(len as u64, Ordering::Relaxed);
                    if r.upload.append(body).is_err() {
                        // Its text comes with the progress, and there the request ends.
                        server.consume(now, id, len);
                        return self.progress(server, now);
                    }
                    let progress = r.upload.progress();
                    if self.shared.config.panic_at.is_some_and(|at| progress.received >= at) {
                        panic!("asked for by a test");
                    }
                    if matches!(progress.state, State::Open) {
                        let commit = r.has_commit().then_some(progress.commit);
                        server.progress(now, id, progress.received, commit);
                    }
                }
                Some(Work::Event { body: all, .. }) => {
                    if all.len().saturating_add(len) > limits::EVENT_BODY_BYTES {
                        server.consume(now, id, len);
                        server.finish(now, id, 413, "an event has at most 4 MiB");
                        drop(self.jobs.remove(at));
                        return;
                    }
                    all.extend_from_slice(body);
                }
                None => {}
            }
        }
        server.consume(now, id, len);
    }

    fn end(&mut self, server: &mut Server, now: Tick, id: RequestId, how: HowEnded) {
        let Some(at) = self.jobs.iter().position(|j| j.id == id) else { return };
        match self.jobs.get_mut(at).map(|j| &mut j.work) {
            Some(Work::Upload(r)) => {
                r.ended = true;
                r.upload.end(match how {
                    HowEnded::Clean => How::Clean,
                    HowEnded::Moved => How::Moved,
                    HowEnded::Truncated => How::Truncated,
                });
                if how == HowEnded::Truncated {
                    log::info!("{}: the client is gone", r.name);
                    self.jobs.remove(at);
                } else {
                    self.progress(server, now);
                }
            }
            Some(Work::Event { body, .. }) => {
                if how != HowEnded::Truncated {
                    match self.shared.store.event(&self.peer, body) {
                        Ok(()) => {
                            count(&self.shared.counters.events);
                            server.finish(now, id, 200, "");
                        }
                        Err(e) => {
                            let name = format!("{} event", self.peer_name());
                            log::warn!("{name}: {} {}", e.status, escape_control(&e.text));
                            count(&self.shared.counters.refusals);
                            server.finish(now, id, e.status, &e.text);
                        }
                    }
                }
                self.jobs.remove(at);
            }
            None => {}
        }
    }

    fn refuse(
        &self,
        server: &mut Server,
        now: Tick,
        id: RequestId,
        name: &str,
        status: u16,
        text: &str,
    ) {
        count(&self.shared.counters.refusals);
        log::warn!("{name}: refused, {status} {}", escape_control(text));
        server.refuse(now, id, status, text);
    }

    /// How a request is called in the log. Nothing in it can move a terminal's cursor.
    fn name(&self, protocol: Protocol, resume: Option<&ResumeHeaders>) -> String {
        let protocol = match protocol {
            Protocol::V1 => "v1",
            Protocol::V2 => "v2",
            Protocol::V2Commit => "v2+commit",
            Protocol::Upgrade => "castkeep/1",
        };
        let mut name = format!("{} {protocol}", self.peer_name());
        if let Some(h) = resume {
            let id = format_id(&h.recording);
            name.push(' ');
            name.extend(id.iter().map(|b| char::from(*b)));
            name.push_str(&format!(" attempt {} from {}", h.attempt, h.offset));
        }
        name
    }

    fn peer_name(&self) -> String {
        match &self.peer.identity {
            Some(identity) if self.peer.about.name.is_empty() => {
                format!("{} ({})", self.peer.address, escape_control(identity))
            }
            Some(identity) => {
                let name = escape_control(&self.peer.about.name);
                format!("{} ({}, {name})", self.peer.address, escape_control(identity))
            }
            None => self.peer.address.to_string(),
        }
    }
}

impl Drop for Jobs {
    /// The connection is over: what runs can be resumed, or is closed as truncated when the resume window has passed.
    fn drop(&mut self) {
        for job in &mut self.jobs {
            if let Work::Upload(r) = &mut job.work
                && !r.ended
            {
                r.upload.end(How::Truncated);
            }
        }
    }
}

impl Recording {
    const fn has_commit(&self) -> bool {
        matches!(self.protocol, Protocol::V2Commit | Protocol::Upgrade)
    }
}

/// A place among the events that are received at a time.
struct Permit {
    shared: Arc<Shared>,
}

impl Permit {
    fn take(shared: &Arc<Shared>) -> Option<Self> {
        let permit = Self { shared: Arc::clone(shared) };
        let open = shared.counters.events_open.fetch_add(1, Ordering::AcqRel);
        (open < limits::EVENTS_AT_A_TIME).then_some(permit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shared.counters.events_open.fetch_sub(1, Ordering::AcqRel);
    }
}
