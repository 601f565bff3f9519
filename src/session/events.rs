//! What waits for the host: a bounded queue that never loses what the host must know.

use alloc::collections::VecDeque;

use super::state::Event;
use crate::error::Error;

#[derive(Debug)]
pub(super) struct Events {
    queue: VecDeque<Event>,
}

impl Events {
    pub(super) fn new() -> Result<Self, Error> {
        let mut queue = VecDeque::new();
        queue.try_reserve_exact(EVENTS_MAX).map_err(|_| Error::NoMemory)?;
        Ok(Self { queue })
    }

    /// A host that does not ask loses the oldest report; Room and Released stand once.
    pub(super) fn push(&mut self, event: Event) {
        if matches!(event, Event::Room | Event::Released) && self.queue.contains(&event) {
            return;
        }
        if self.queue.len() >= EVENTS_MAX {
            let old = |e: &Event| matches!(e, Event::Transition { .. } | Event::Attempt { .. });
            if let Some(at) = self.queue.iter().position(old) {
                self.queue.remove(at);
            }
        }
        self.queue.push_back(event);
    }

    pub(super) fn pop(&mut self) -> Option<Event> {
        self.queue.pop_front()
    }
}

/// Start, Room, Released, Terminated and an end at most are not reports.
const EVENTS_MAX: usize = 64;
