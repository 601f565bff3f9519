//! How an upload begins: docs/protocol.md §3.3, docs/storage.md §3.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use sha2::{Digest as _, Sha256};

use super::journal::{self, Slot};
use super::layout::{hex, peer_name};
use super::part::{Facts, Part, Start, Sums};
use super::quota::Quota;
use super::sidecar::PeerFacts;
use super::stamp::format_stamp;
use super::{Begin, Entry, Identity, Inner, Refusal, ResumeClaim, Upload, add};
use crate::limits;
use crate::upload::server::Protocol;

/// Nodes that are remembered although nothing of theirs is open.
const IDLE_NODES: usize = 4096;

pub(crate) fn begin(store: &Arc<Inner>, begin: Begin) -> Result<Upload, Refusal> {
    let node = peer_name(&begin.peer);
    let Some(claim) = begin.resume.clone() else {
        room(store, store.config.min_free)?;
        admit(store, &node)?;
        let part = create(store, &begin, node.clone(), None, 1, 0).inspect_err(|_| {
            release(store, &node);
        })?;
        return Ok(attach(store, part, &begin, 0));
    };
    if claim.offset > limits::OFFSET_MAX {
        return Err(Refusal::new(400, "castkeep-offset is out of range"));
    }
    let secret = secret_hash(&claim.secret);
    let identity = peer_facts(&begin.peer).known_identity();
    let mut registry = store.registry();
    if registry.is_barred(&claim.recording, store.config.resume_window) {
        return Err(Refusal::new(429, "quota: this recording was ended"));
    }
    let (mut number, mut before) = (1, 0);
    let mut old = None;
    if let Some(entry) = registry.recordings.get_mut(&claim.recording) {
        entry.owned(&secret, identity.as_ref())?;
        if claim.attempt <= entry.attempt {
            return Err(seen(entry.attempt));
        }
        if entry.part.is_over_quota() {
            return Err(Refusal::new(429, "quota: this recording was ended"));
        }
        // Before anything of the older connection is touched.
        room(store, store.room_to_go_on(claim.window))?;
        entry.attempt = claim.attempt;
        if let Some((connection, start_commit)) =
            entry.part.resume(claim.offset, claim.attempt, Arc::clone(&begin.notify))
        {
            let part = Arc::clone(&entry.part);
            part.set_window(claim.window);
            drop(registry);
            part.set_stored(store.stored(part.node()));
            store.group.dirty(&part);
            let store = Arc::clone(store);
            return Ok(Upload { part, connection, start_commit, store, ended: false });
        }
        if entry.parts >= limits::PARTS_MAX {
            return Err(Refusal::new(429, "quota: too many parts of one recording"));
        }
        number = entry.parts + 1;
        before = entry.part.bytes_so_far();
        old = Some(Arc::clone(&entry.part));
    } else if claim.offset > 0 {
        // It began at another recorder.
        room(store, store.room_to_go_on(claim.window))?;
    } else {
        room(store, store.config.min_free)?;
    }
    drop(registry);
    admit(store, &node)?;
    let part = create(store, &begin, node.clone(), Some((&claim, secret)), number, before)
        .inspect_err(|_| {
            release(store, &node);
        })?;
    if let Some(old) = &old {
        part.set_rate_of(old);
    }
    // Attached before others can find it: a later attempt that finds it must find this connection in it.
    let upload = attach(store, Arc::clone(&part), &begin, claim.offset);
    registry = store.registry();
    let mut entry = Entry {
        secret_sha256: secret,
        identity,
        attempt: claim.attempt,
        parts: number,
        part: Arc::clone(&part),
    };
    // Files are made without the lock, so another POST of this recording can have been faster.
    if let Some(other) = registry.recordings.get(&claim.recording) {
        let as_left = old.as_ref().is_some_and(|o| Arc::ptr_eq(o, &other.part));
        let refusal = other.owned(&secret, entry.identity.as_ref()).err().or_else(|| {
            // The entry that this POST itself found has its attempt already.
            let late = other.attempt > claim.attempt || other.attempt == claim.attempt && !as_left;
            late.then(|| seen(other.attempt))
        });
        if let Some(refusal) = refusal {
            drop(registry);
            if part.abandon() {
                store.group.dirty(&part);
            }
            return Err(refusal);
        }
        entry.parts = entry.parts.max(other.parts);
        old = Some(Arc::clone(&other.part));
    }
    registry.recordings.insert(claim.recording, entry);
    drop(registry);
    if let Some(old) = old {
        supersede(store, &old, &begin);
    }
    Ok(upload)
}

impl Entry {
    /// Whether a POST may go on with this recording.
    fn owned(&self, secret: &[u8; 32], identity: Option<&Identity>) -> Result<(), Refusal> {
        if constant_time_eq(&self.secret_sha256, secret) && self.identity.as_ref() == identity {
            Ok(())
        } else {
            Err(Refusal::new(403, "this recording belongs to another client"))
        }
    }
}

fn room(store: &Inner, bytes: u64) -> Result<(), Refusal> {
    store.has_room(bytes).map_err(|text| Refusal::new(503, text))
}

fn seen(attempt: u64) -> Refusal {
    Refusal::new(409, format!("attempt {attempt} was seen already"))
}

fn peer_facts(peer: &super::Peer) -> PeerFacts {
    PeerFacts {
        address: peer.address.to_string(),
        identity: peer.identity.clone(),
        verified: peer.verified,
        about: peer.about.clone(),
    }
}

/// The part that a resume left behind takes no more bytes and is closed.
fn supersede(store: &Arc<Inner>, old: &Arc<Part>, begin: &Begin) {
    // An offset that no part can contain: ends the older connection, takes nothing.
    let _ = old.resume(u64::MAX, 0, Arc::clone(&begin.notify));
    if old.abandon() {
        store.group.dirty(old);
    }
}

fn attach(store: &Arc<Inner>, part: Arc<Part>, begin: &Begin, offset: u64) -> Upload {
    part.set_window(begin.resume.as_ref().map_or(0, |claim| claim.window));
    part.set_stored(store.stored(part.node()));
    store.open().insert(part.name(), Arc::downgrade(&part));
    let connection = part.attach_first(Arc::clone(&begin.notify));
    // Even an empty part becomes durable: its name says that there was a session.
    store.group.dirty(&part);
    Upload { part, connection, start_commit: offset, store: Arc::clone(store), ended: false }
}

/// Counts one more open part of a node.
fn admit(store: &Arc<Inner>, node: &str) -> Result<(), Refusal> {
    let now = Instant::now();
    let over = |quota: Quota| {
        store.counters.over(quota);
        quota.refusal()
    };
    // Measured without the lock: a directory can be long.
    if let Some((stored, most)) = store.stored(node).zip(store.config.quotas.node_bytes)
        && !stored.has_room(most, || store.dirs.stored_bytes(node))
    {
        return Err(over(Quota::NodeBytes));
    }
    let mut registry = store.registry();
    if registry.nodes.len() > IDLE_NODES {
        registry.nodes.retain(|_, n| !n.is_idle(now));
    }
    let entry = registry.nodes.entry(node.to_owned()).or_default();
    entry.begin(&store.config.quotas, now).map_err(over)?;
    entry.open += 1;
    Ok(())
}

fn release(store: &Arc<Inner>, node: &str) {
    let mut registry = store.registry();
    if let Some(entry) = registry.nodes.get_mut(node) {
        entry.open = entry.open.saturating_sub(1);
    }
}

fn create(
    store: &Arc<Inner>,
    begin: &Begin,
    node: String,
    claim: Option<(&ResumeClaim, [u8; 32])>,
    number: u32,
    before: u64,
) -> Result<Arc<Part>, Refusal> {
    let began = store.config.disk.times();
    let facts = Facts {
        recording: claim.map(|(c, _)| c.recording),
        secret_sha256: claim.map(|(_, hash)| hash),
        node,
        stamp: format_stamp(began.wall_us),
        start: claim.map_or(0, |(c, _)| c.offset),
        number,
        peer: peer_facts(&begin.peer),
        protocol: protocol_word(begin.protocol).to_owned(),
        started_us: began.wall_us,
        began: Some(began),
        before,
        recovered: false,
    };
    let attempt = claim.map_or(0, |(c, _)| c.attempt);
    files(store, facts, attempt).map(Arc::new).map_err(|e| {
        log::error!("cannot begin a recording: {e}");
        let text = match e.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "disk full",
            _ => "io: the recording cannot be created",
        };
        Refusal::new(503, text)
    })
}

/// Makes the part's file, its seal reserve and its journal. Nothing is synced: the commit group does that before the first
/// commit.
fn files(store: &Arc<Inner>, mut facts: Facts, attempt: u64) -> io::Result<Part> {
    let disk = &*store.config.disk;
    let dirs = &store.dirs;
    let node_dir = dirs.node(&facts.node)?;
    let (file, stamp) = dirs.create_part(&node_dir, &facts.stamp)?;
    facts.stamp = stamp;
    let (seal_name, journal_name) = (facts.open_name("seal"), facts.open_name("journal"));
    let rest = || -> io::Result<std::fs::File> {
        let seal = dirs.create(dirs.open_dir(), &seal_name)?;
        reserve(&seal)?;
        let journal = dirs.create(dirs.open_dir(), &journal_name)?;
        journal::write_header(disk, &journal, &facts.header(attempt))?;
        Ok(journal)
    };
    let journal = rest().inspect_err(|_| {
        // Nothing was promised: take back what was made.
        let none = rustix::fs::AtFlags::empty();
        let _ = rustix::fs::unlinkat(&node_dir, facts.cast_name(), none);
        let _ = rustix::fs::unlinkat(dirs.open_dir(), &seal_name, none);
        let _ = rustix::fs::unlinkat(dirs.open_dir(), &journal_name, none);
    })?;
    add(&store.counters.parts, 1);
    let durable = Slot { generation: 0, length: 0, crc32: 0, attempt };
    let sums = Sums::new();
    let start = Start {
        file,
        journal,
        fresh: true,
        len: 0,
        header_bytes: 0,
        header_done: facts.start == 0,
        sums,
        durable,
        attempt,
    };
    Ok(Part::new(facts, start))
}

/// Takes the space of a sidecar now. A file system without fallocate(2) goes without.
fn reserve(seal: &std::fs::File) -> io::Result<()> {
    let flags = rustix::fs::FallocateFlags::empty();
    match rustix::fs::fallocate(seal, flags, 0, limits::SEAL_RESERVE_BYTES) {
        Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

const fn protocol_word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::V1 => "v1",
        Protocol::V2 => "v2",
        Protocol::V2Commit => "v2+commit",
        Protocol::Upgrade => "castkeep/1",
    }
}

/// SHA-256 of the secret as its 32 hexadecimal digits.
fn secret_hash(secret: &[u8; 16]) -> [u8; 32] {
    Sha256::digest(hex(secret).as_bytes()).into()
}

/// Takes the same time wherever the first difference is.
fn constant_time_eq(a: &[u8; 32], b: &[u8; 32]) -> bool {
    let difference = a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b));
    std::hint::black_box(difference) == 0
}
