//! The connections of a session.

use super::state::{Action, LinkId};
use crate::limits::LINKS_MAX;
use crate::time::Tick;
use crate::upload::client::{Client, Plan};

/// One connection to one address.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: LinkId,
    pub(super) recorder: usize,
    pub(super) plan: Plan,
    pub(super) role: Role,
    pub(super) stage: Stage,
    pub(super) client: Client,
}

/// What a link is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The recording goes this way.
    Current,
    /// The recording goes on elsewhere; the end of the part is being said.
    Leaving { until: Tick },
    /// One of those that were asked.
    Racing,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The owner does not know of it yet.
    Wanted { until: Tick },
    /// The owner connects.
    Dialing { until: Tick },
    /// Bytes flow.
    Up,
    /// The owner has to close it.
    Closing { abort: bool },
}

/// All links: a fixed table.
#[derive(Debug, Default)]
pub(super) struct Links {
    slots: [Option<Link>; LINKS_MAX],
    generation: u32,
}

impl Links {
    /// Whether a link can be added.
    pub(super) fn has_room(&self) -> bool {
        self.slots.iter().any(Option::is_none)
    }

    /// A name for a new link; None when all slots are taken.
    pub(super) fn reserve(&mut self) -> Option<LinkId> {
        let slot = self.slots.iter().position(Option::is_none)?;
        self.generation = self.generation.wrapping_add(1);
        Some(LinkId { slot: u8::try_from(slot).ok()?, generation: self.generation })
    }

    /// A name in a place beyond the table.
    #[cfg(feature = "ask")]
    pub(super) const fn name(&mut self, slot: u8) -> LinkId {
        self.generation = self.generation.wrapping_add(1);
        LinkId { slot, generation: self.generation }
    }

    pub(super) fn insert(&mut self, link: Link) {
        if let Some(slot) = self.slots.get_mut(link.id.slot()) {
            *slot = Some(link);
        }
    }

    /// The link that is known by this name and not being closed.
    pub(super) fn get(&mut self, id: LinkId) -> Option<&mut Link> {
        let link = self.slots.get_mut(id.slot())?.as_mut()?;
        (link.id == id && !matches!(link.stage, Stage::Closing { .. })).then_some(link)
    }

    /// Those that are not being closed.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Link> {
        self.slots.iter().flatten().filter(|l| !matches!(l.stage, Stage::Closing { .. }))
    }

    /// See [`Links::iter`].
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Link> {
        self.slots.iter_mut().flatten().filter(|l| !matches!(l.stage, Stage::Closing { .. }))
    }

    /// Their names: to walk over them while they change.
    pub(super) fn ids(&self) -> [Option<LinkId>; LINKS_MAX] {
        let mut ids = [None; LINKS_MAX];
        for (id, link) in ids.iter_mut().zip(self.iter()) {
            *id = Some(link.id);
        }
        ids
    }

    pub(super) fn current(&self) -> Option<&Link> {
        self.iter().find(|l| l.role == Role::Current)
    }

    pub(super) fn current_mut(&mut self) -> Option<&mut Link> {
        self.iter_mut().find(|l| l.role == Role::Current)
    }

    /// Attempts that are not over.
    pub(super) fn racing(&self) -> usize {
        self.iter().filter(|l| l.role == Role::Racing).count()
    }

    /// Asks the owner to close it. One that the owner never heard of just goes.
    pub(super) fn close(&mut self, id: LinkId, abort: bool) {
        let Some(link) = self.get(id) else { return };
        match link.stage {
            Stage::Wanted { .. } => self.forget(id),
            _ => link.stage = Stage::Closing { abort },
        }
    }

    /// The owner says that it is gone.
    pub(super) fn forget(&mut self, id: LinkId) {
        match self.slots.get_mut(id.slot()) {
            Some(slot) if slot.as_ref().is_some_and(|l| l.id == id) => *slot = None,
            _ => {}
        }
    }

    pub(super) fn poll_action(&mut self, http2: bool) -> Option<Action> {
        for slot in &mut self.slots {
            let Some(link) = slot else { continue };
            match link.stage {
                Stage::Closing { abort } => {
                    let link = link.id;
                    *slot = None;
                    return Some(Action::Close { link, abort });
                }
                Stage::Wanted { until } => {
                    link.stage = Stage::Dialing { until };
                    let http2 = http2 && link.plan == Plan::V2;
                    return Some(Action::Connect { link: link.id, recorder: link.recorder, http2 });
                }
                Stage::Dialing { .. } | Stage::Up => {}
            }
        }
        None
    }
}
