//! What waits for the host: a bounded queue that never loses what the host must know.

use super::state::Event;
use crate::error::Error;
use crate::space::Queue;

#[derive(Debug)]
pub(super) struct Events {
    queue: Queue<Event>,
}

impl Events {
    pub(super) fn new() -> Result<Self, Error> {
        Ok(Self { queue: Queue::new(EVENTS_MAX)? })
    }

    /// A host that does not ask loses the oldest report; Room and Released stand once.
    pub(super) fn push(&mut self, event: Event) {
        if matches!(event, Event::Room | Event::Released) && self.queue.iter().any(|e| *e == event)
        {
            return;
        }
        if self.queue.len() >= EVENTS_MAX {
            let old = |e: &Event| {
                #[cfg(feature = "ask")]
                if matches!(e, Event::Policy { .. }) {
                    return true;
                }
                matches!(e, Event::Transition { .. } | Event::Attempt { .. })
            };
            let mut found = false;
            self.queue.retain(|e| {
                let goes = !found && old(e);
                found |= goes;
                !goes
            });
        }
        self.queue.push_back(event);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.len() == 0
    }

    pub(super) fn pop(&mut self) -> Option<Event> {
        self.queue.pop_front()
    }
}

/// Start, Room, Released, Terminated and an end at most are not reports.
const EVENTS_MAX: usize = 64;
