//! Looking for a recorder: in which order, when the next one is tried.

use alloc::vec::Vec;

use super::config::Recorder;
use super::state::State;
use crate::error::{Error, Link};
use crate::limits::{RECORDERS_MAX, RESUME_PAUSE_MAX, RESUME_PAUSE_MIN};
use crate::space;
use crate::time::{Span, Tick};
use crate::upload::client::Plan;

/// Why a recorder is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// In the background; a failed round leads back to that state.
    Background(State),
    /// The recorder wants us to go; it still works.
    Move,
    /// The recorder is lost and the grace runs: round after round.
    Resume,
    /// At the start: one round.
    Start,
}

/// One search.
#[derive(Debug)]
pub(super) struct Hunt {
    pub(super) goal: Goal,
    /// Indices of the recorders.
    order: Order,
    /// 0 <= next <= order.len()
    next: usize,
    /// Other protocols to try on recorders that answered; at most one a recorder.
    again: Vec<(usize, Plan)>,
    /// When the next one starts beside those that run.
    next_at: Tick,
    /// The pause behind this round.
    pause: Span,
    /// The next round begins then.
    resting: Option<Tick>,
    pub(super) last_error: Error,
}

impl Hunt {
    pub(super) const fn new(goal: Goal, order: Order, now: Tick) -> Self {
        Self {
            goal,
            order,
            next: 0,
            again: Vec::new(),
            next_at: now,
            pause: RESUME_PAUSE_MIN,
            resting: None,
            last_error: Error::Link(Link::Unreachable),
        }
    }

    /// The first round begins only then.
    pub(super) const fn rest_until(&mut self, at: Tick) {
        self.resting = Some(at);
    }

    /// The next recorder to connect to, if it is time. `running`: attempts that are not over.
    pub(super) fn take(
        &mut self,
        now: Tick,
        running: usize,
        stagger: Span,
    ) -> Option<(usize, Option<Plan>)> {
        if self.resting.is_some() {
            return None;
        }
        if let Some((recorder, plan)) = self.again.pop() {
            return Some((recorder, Some(plan)));
        }
        let recorder = self.order.get(self.next)?;
        if running > 0 && now < self.next_at {
            return None;
        }
        self.next = self.next.saturating_add(1);
        self.next_at = now.after(stagger);
        Some((recorder, None))
    }

    /// The recorder answered and wants another protocol.
    pub(super) fn again(&mut self, recorder: usize, plan: Plan) {
        // Without memory that recorder is not asked again in this round.
        let _ = space::push(&mut self.again, (recorder, plan));
    }

    /// An attempt is over: the next one need not wait.
    pub(super) const fn hurry(&mut self, now: Tick, e: Error) {
        self.next_at = now;
        self.last_error = e;
    }

    /// Whether every recorder was tried. `running` as for [`Hunt::take`].
    pub(super) fn is_over(&self, running: usize) -> bool {
        self.resting.is_none()
            && running == 0
            && self.again.is_empty()
            && self.next >= self.order.len
    }

    /// Another round after a pause that grows.
    pub(super) fn rest(&mut self, now: Tick) {
        self.resting = Some(now.after(self.pause));
        self.pause = grown(self.pause);
    }

    /// Begins the next round when its time has come.
    pub(super) fn wake(&mut self, now: Tick) {
        if self.resting.is_some_and(|at| at <= now) {
            self.resting = None;
            self.next = 0;
            self.next_at = now;
        }
    }

    /// When [`Hunt::take`] has something, a free slot provided.
    pub(super) fn poll_timeout(&self, running: usize) -> Option<Tick> {
        match self.resting {
            Some(at) => Some(at),
            None if !self.again.is_empty() => Some(Tick(0)),
            None if self.next >= self.order.len => None,
            None if running == 0 => Some(Tick(0)),
            None => Some(self.next_at),
        }
    }
}

/// The pause after this one.
pub(super) fn grown(pause: Span) -> Span {
    Span(pause.0.saturating_mul(2)).min(RESUME_PAUSE_MAX)
}

/// In which order recorders are asked: their indices.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Order {
    indices: [usize; RECORDERS_MAX],
    /// 0 <= len <= RECORDERS_MAX
    len: usize,
}

impl Order {
    fn get(&self, at: usize) -> Option<usize> {
        self.indices.get(..self.len)?.get(at).copied()
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn filter(self, keep: impl Fn(usize) -> bool) -> Self {
        self.indices.into_iter().take(self.len).filter(|i| keep(*i)).collect()
    }
}

impl FromIterator<usize> for Order {
    fn from_iter<I: IntoIterator<Item = usize>>(indices: I) -> Self {
        let mut order = Self::default();
        for (slot, index) in order.indices.iter_mut().zip(indices) {
            *slot = index;
            order.len = order.len.saturating_add(1);
        }
        order
    }
}

/// As given.
pub(super) fn from_start(recorders: &[Recorder]) -> Order {
    (0..recorders.len()).collect()
}

/// From the recorder behind the lost one around to it. The primary comes behind all that did not fail, the lost one last.
pub(super) fn behind(recorders: &[Recorder], lost: usize) -> Order {
    let Some(group) = recorders.get(lost).map(|r| r.group) else { return from_start(recorders) };
    let primary = recorders.first().map(|r| r.group);
    let turn = || (lost..recorders.len()).chain(0..lost);
    let of = |i: usize| recorders.get(i).map(|r| r.group);
    let fresh = turn().filter(|i| of(*i) != Some(group) && of(*i) != primary);
    let first = turn().filter(|i| of(*i) != Some(group) && of(*i) == primary);
    let same = turn().filter(|i| of(*i) == Some(group));
    fresh.chain(first).chain(same).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use alloc::vec;

    fn list(recorders: &[Recorder], lost: usize) -> Vec<usize> {
        let order = behind(recorders, lost);
        (0..).map_while(|at| order.get(at)).collect()
    }

    fn recorders(groups: &[u16]) -> Vec<Recorder> {
        let one = |g: &u16| Recorder { group: *g, authority: String::from("r:80"), tls: false };
        groups.iter().map(one).collect()
    }

    #[test]
    fn the_lost_recorder_comes_last_and_the_primary_before_it() {
        let r = recorders(&[0, 0, 1, 2, 2]);
        assert_eq!(list(&r, 0), vec![2, 3, 4, 0, 1]);
        assert_eq!(list(&r, 1), vec![2, 3, 4, 1, 0]);
        assert_eq!(list(&r, 2), vec![3, 4, 0, 1, 2]);
        assert_eq!(list(&r, 3), vec![2, 0, 1, 3, 4]);
        assert_eq!(list(&recorders(&[7]), 0), vec![0]);
    }
}
