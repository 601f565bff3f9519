//! When ack objects go out: docs/protocol.md §2.2 and §3.4.

use crate::time::{Span, Tick};
use crate::upload::wire::AckObject;

/// The ack stream of one upload.
#[derive(Debug, Default)]
pub(super) struct Acks {
    /// None: no acks (v1, events), or not accepted yet.
    period: Option<Span>,
    next: Tick,
    received: u64,
    commit: Option<u64>,
    told_commit: Option<u64>,
    drain: Drain,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Drain {
    #[default]
    No,
    Wanted,
    Told,
}

impl Acks {
    /// The upload was accepted: the first object goes out at once.
    pub(super) fn start(&mut self, now: Tick, period: Span, commit: Option<u64>) {
        self.period = Some(period);
        self.next = now;
        self.commit = commit;
        self.told_commit = commit;
    }

    pub(super) fn stop(&mut self) {
        self.period = None;
    }

    pub(super) fn progress(&mut self, received: u64, commit: Option<u64>) {
        self.received = self.received.max(received);
        // Without the extension there is no commit to tell, whatever storage says. It never falls.
        if let (Some(old), Some(new)) = (self.commit, commit) {
            self.commit = Some(old.max(new));
        }
    }

    pub(super) fn drain(&mut self) {
        if self.commit.is_some() && self.drain == Drain::No {
            self.drain = Drain::Wanted;
        }
    }

    /// Whether `{"drain":true}` went out.
    pub(super) fn is_drained(&self) -> bool {
        self.drain == Drain::Told
    }

    /// When the next object is due.
    pub(super) fn due(&self) -> Option<Tick> {
        self.period?;
        let now = self.commit != self.told_commit || self.drain == Drain::Wanted;
        Some(if now { Tick(0) } else { self.next })
    }

    /// The object that is due. Asked for only when the peer takes output: late acks are told in one.
    pub(super) fn poll(&mut self, now: Tick) -> Option<AckObject> {
        let period = self.period?;
        if self.due().is_none_or(|due| due > now) {
            return None;
        }
        if self.drain == Drain::Wanted {
            self.drain = Drain::Told;
            return Some(AckObject { drain: true, ..AckObject::default() });
        }
        self.next = now.after(period);
        Some(self.object())
    }

    /// The state of things as an object.
    pub(super) fn object(&mut self) -> AckObject {
        self.told_commit = self.commit;
        AckObject { ack: Some(self.received), commit: self.commit, ..AckObject::default() }
    }

    /// Everything up to `end` is durable.
    pub(super) fn seal(&mut self, end: u64) -> Option<AckObject> {
        self.stop();
        let commit = self.commit.as_mut()?;
        *commit = (*commit).max(end);
        Some(AckObject { sealed: Some(end), ..AckObject::default() })
    }
}
