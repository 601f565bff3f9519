//! Which recorders a tag stands for, and in which order they are tried.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;

use super::diagnostic::{Diagnostic, Position};
use super::nodes::Registry;
use crate::limits;

/// A recorder that announced itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveRecorder {
    /// Stable id of its node, or another name that no second recorder has.
    pub node: String,
    /// Tags, each with `tag:`.
    pub tags: Vec<String>,
    /// Where it listens.
    pub addresses: Vec<SocketAddr>,
    /// The name in its certificate; none: no TLS.
    pub tls: Option<String>,
}

/// What is known of recorders beside the registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recorders {
    live: Vec<LiveRecorder>,
    silent: BTreeSet<String>,
}

impl Recorders {
    /// These announced themselves.
    #[must_use]
    pub fn new(live: Vec<LiveRecorder>) -> Self {
        Self { live, silent: BTreeSet::new() }
    }

    /// These announced themselves before, by their ids, and do not any more. Where the registry has them too they are tried
    /// last: it may be that only the announcements do not arrive.
    #[must_use]
    pub fn with_silent(mut self, silent: impl IntoIterator<Item = String>) -> Self {
        self.silent.extend(silent);
        self
    }

    /// Those that announced themselves.
    #[must_use]
    pub fn live(&self) -> &[LiveRecorder] {
        &self.live
    }
}

/// One address of a recorder, as a session tries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorder {
    /// Where it listens.
    pub address: SocketAddr,
    /// The addresses of one recorder have the same number.
    pub group: u16,
    /// The name in its certificate; none: no TLS.
    pub tls: Option<String>,
}

/// One address before it has its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) address: SocketAddr,
    pub(super) node: String,
    pub(super) tls: Option<String>,
}

/// The addresses of all recorders with a tag: the lowest first, IPv4 before IPv6, as Tailscale orders them.
///
/// A node that the registry calls offline, or that went silent, keeps its place in the list, but behind all others: what the
/// registry knows may be old, and an address that is missing from the list is one that nobody tries; one that is dead costs
/// those behind it seconds.
pub(super) fn places(tag: &str, nodes: &Registry, recorders: &Recorders) -> Vec<Place> {
    let mut found = Vec::new();
    let mut announced = HashSet::new();
    for live in recorders.live.iter().filter(|live| live.tags.iter().any(|t| t == tag)) {
        announced.insert(live.node.as_str());
        for address in &live.addresses {
            let place = Place { address: *address, node: live.node.clone(), tls: live.tls.clone() };
            found.push((false, place));
        }
    }
    // What a recorder says of itself is newer than the registry.
    for node in nodes.with_tag(tag).filter(|node| !announced.contains(node.id.as_str())) {
        let last = node.online == Some(false) || recorders.silent.contains(&node.id);
        let port = node.recorder.as_ref().map_or(limits::RECORDER_PORT, |r| r.port);
        let tls = node.recorder.as_ref().and_then(|r| r.tls.clone());
        for address in &node.addresses {
            let address = SocketAddr::new(*address, port);
            found.push((last, Place { address, node: node.id.clone(), tls: tls.clone() }));
        }
    }
    // An address in the form of IPv6 is the IPv4 address that it is.
    for (_, place) in &mut found {
        place.address.set_ip(place.address.ip().to_canonical());
    }
    found.sort_by(|(a_last, a), (b_last, b)| {
        (a_last, a.address, &a.node).cmp(&(b_last, b.address, &b.node))
    });
    let mut seen = HashSet::new();
    found.retain(|(_, place)| seen.insert(place.address));
    found.into_iter().map(|(_, place)| place).collect()
}

/// Gives each recorder its number, in the order in which they are first met.
#[derive(Default)]
pub(super) struct Groups(HashMap<String, u16>);

impl Groups {
    pub(super) fn number(&mut self, place: &Place) -> u16 {
        let next = u16::try_from(self.0.len()).unwrap_or(u16::MAX);
        *self.0.entry(place.node.clone()).or_insert(next)
    }
}

/// Cuts a list to what a session can try, and tells what is odd about it.
pub(super) fn judge(
    at: Position,
    tag: &str,
    enforced: bool,
    places: &mut Vec<Place>,
) -> Option<Diagnostic> {
    if places.is_empty() {
        let then = if enforced { "sessions are refused" } else { "sessions go on unrecorded" };
        let message = format!("no node has {tag:?}, so there is no recorder: {then}");
        return Some(Diagnostic::warning(at, message));
    }
    let (found, most) = (places.len(), limits::RECORDERS_MAX);
    if found > most {
        places.truncate(most);
        let message =
            format!("{tag:?} stands for {found} addresses, of which the first {most} are used");
        return Some(Diagnostic::warning(at, message));
    }
    None
}
