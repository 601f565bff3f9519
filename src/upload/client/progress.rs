//! The clocks of an upload: does the recorder still do its work?

use super::{Protocol, Waits};
use crate::error::Phase;
use crate::time::{Span, Tick};

/// When the recorder last did what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    protocol: Protocol,
    /// The longest pause between objects that it promised.
    promised: Option<Span>,
    /// Stored, or received where nothing better is known.
    stored: u64,
    /// The last object.
    heard: Tick,
    /// The last time at which it stored something, or something to store came up.
    moved: Tick,
    /// The last time at which it took bytes, or bytes to send came up.
    took: Tick,
    /// Something is not stored, or the end is not confirmed.
    outstanding: bool,
    /// Since when.
    outstanding_since: Tick,
    /// Something is not sent.
    unsent: bool,
}

impl Progress {
    pub(super) const fn new(
        now: Tick,
        protocol: Protocol,
        stored: u64,
        promised: Option<Span>,
    ) -> Self {
        Self {
            protocol,
            promised,
            stored,
            heard: now,
            moved: now,
            took: now,
            outstanding: false,
            outstanding_since: now,
            unsent: false,
        }
    }

    pub(super) const fn object(&mut self, now: Tick) {
        self.heard = now;
    }

    /// True: it grew.
    pub(super) const fn stored_up_to(&mut self, now: Tick, offset: u64) -> bool {
        let grew = offset > self.stored;
        if grew {
            self.stored = offset;
            self.moved = now;
        }
        grew
    }

    pub(super) const fn sent(&mut self, now: Tick, cursor: u64) {
        self.took = now;
        // What is sent again although it is stored already: the compare is the progress.
        if cursor <= self.stored {
            self.moved = now;
        }
    }

    pub(super) const fn update(
        &mut self,
        now: Tick,
        cursor: u64,
        end: u64,
        header: bool,
        ending: bool,
    ) {
        let outstanding = self.stored < end || header || ending;
        if outstanding && !self.outstanding {
            self.outstanding_since = now;
            self.moved = now;
        }
        self.outstanding = outstanding;
        let unsent = cursor < end || header;
        if unsent && !self.unsent {
            self.took = now;
        }
        self.unsent = unsent;
    }

    pub(super) const fn stored(&self) -> u64 {
        self.stored
    }

    /// The next deadline, and what it means when it passes.
    pub(super) fn deadline(&self, waits: &Waits) -> Option<(Tick, Phase)> {
        let ack = match self.protocol {
            Protocol::V1 => None,
            Protocol::V2 => Some(self.heard.after(waits.ack_silence_stock)),
            Protocol::V2Commit | Protocol::Upgrade => {
                let idle = self.heard.after(waits.ack_silence_stock);
                let promised = Span(self.promised.map_or(0, |p| p.0.saturating_mul(3)));
                let silence = waits.ack_silence_commit.max(promised);
                let busy = self.heard.max(self.outstanding_since).after(silence);
                Some(if self.outstanding { busy.min(idle) } else { idle })
            }
        };
        let stored = match self.protocol {
            Protocol::V1 => None,
            // Stock recorders count when they like; upstream never looks at the count.
            Protocol::V2 => Some(self.moved.after(waits.ack_silence_stock.max(waits.progress))),
            Protocol::V2Commit | Protocol::Upgrade => Some(self.moved.after(waits.progress)),
        };
        let stored = stored.filter(|_| self.outstanding);
        let taken = self.unsent.then(|| self.took.after(waits.progress));
        let ack = ack.map(|at| (at, Phase::Ack));
        let rest = [stored, taken].into_iter().flatten().map(|at| (at, Phase::Progress));
        ack.into_iter().chain(rest).min_by_key(|d| d.0)
    }
}
