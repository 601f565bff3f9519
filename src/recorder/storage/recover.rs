//! What a crash left in `open/`: docs/storage.md §3.

use std::fs::File;
use std::io::{self, Read as _};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::disk::is_shortage;
use super::journal::{self, Slot};
use super::part::{Facts, Part, Start, Sums};
use super::sidecar::{Sidecar, number, optional, peer_facts, text, time};
use super::{Entry, Inner, StoreError, layout};
use crate::limits;

/// What was found at the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Parts that can be resumed.
    pub resumable: u64,
    /// Parts of stock clients: closed as interrupted.
    pub interrupted: u64,
    /// Bytes behind the last commit that were cut off.
    pub cut_bytes: u64,
    /// Journals that could not be read; each is described.
    pub bad: Vec<String>,
}

impl std::fmt::Display for Recovery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if *self == Self::default() {
            return f.write_str("nothing to recover");
        }
        write!(
            f,
            "recovered {} recordings that can be resumed and {} that ended with the last run, {} bytes behind the \
             last commits were cut",
            self.resumable, self.interrupted, self.cut_bytes
        )?;
        if self.bad.is_empty() {
            Ok(())
        } else {
            write!(f, ", {} journals are bad", self.bad.len())
        }
    }
}

pub(crate) fn recover(store: &Arc<Inner>) -> Result<Recovery, StoreError> {
    let fail = |e: io::Error| {
        let todo = if is_shortage(&e) {
            "raise the limit on open files (ulimit -Hn, LimitNOFILE=): every recording that was open needs two"
        } else {
            "check the disk and the rights of the recorder's user"
        };
        StoreError::new(format!("reading {}", store.config.dst.join("open").display()), e, todo)
    };
    let mut recovery = Recovery::default();
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(store.dirs.open_dir()).map_err(|e| fail(e.into()))? {
        let entry = entry.map_err(|e| fail(e.into()))?;
        if let Ok(name) = entry.file_name().to_str() {
            names.push(name.to_owned());
        }
    }
    names.sort();
    for name in names.iter().filter(|n| n.ends_with(".journal")) {
        match one(store, name) {
            Ok(Found::Closed) => {}
            Ok(Found::Open(part, cut)) => {
                recovery.cut_bytes += cut;
                keep(store, &Arc::from(part), &mut recovery);
            }
            // Nothing is wrong with it.
            Err(Fault::Shortage(e)) => return Err(fail(e)),
            Err(Fault::Bad(why)) => {
                log::error!("recovery: {name}: {why}");
                recovery.bad.push(format!("{name}: {why}"));
                let open = store.dirs.open_dir();
                let _ = rustix::fs::renameat(open, name, open, format!("{name}.bad"));
            }
        }
    }
    // A reserve without a journal belongs to a part that was never begun or is closed.
    for name in names.iter().filter(|n| n.ends_with(".seal")) {
        let journal = format!("{}.journal", name.trim_end_matches(".seal"));
        if !names.contains(&journal) {
            let none = rustix::fs::AtFlags::empty();
            let _ = rustix::fs::unlinkat(store.dirs.open_dir(), name, none);
        }
    }
    Ok(recovery)
}

/// Why a journal was not taken.
enum Fault {
    Shortage(io::Error),
    Bad(String),
}

impl Fault {
    fn new(what: &str, e: &io::Error) -> Self {
        if is_shortage(e) {
            return Self::Shortage(super::disk::again(e));
        }
        Self::Bad(if what.is_empty() { e.to_string() } else { format!("{what}: {e}") })
    }
}

impl From<String> for Fault {
    fn from(why: String) -> Self {
        Self::Bad(why)
    }
}

enum Found {
    /// It has its sidecar already.
    Closed,
    /// It is open, and so many bytes were cut.
    Open(Box<Part>, u64),
}

fn keep(store: &Arc<Inner>, part: &Arc<Part>, recovery: &mut Recovery) {
    store.open().insert(part.name(), Arc::downgrade(part));
    let mut registry = store.registry();
    registry.nodes.entry(part.node().to_owned()).or_default().open += 1;
    let facts = part.facts();
    let Some((recording, secret_sha256)) = facts.recording.zip(facts.secret_sha256) else {
        drop(registry);
        recovery.interrupted += 1;
        // Nobody can come back to it.
        if part.expire(std::time::Duration::ZERO) {
            store.group.dirty(part);
        }
        return;
    };
    recovery.resumable += 1;
    let entry = Entry {
        secret_sha256,
        identity: facts.peer.known_identity(),
        attempt: part.attempt(),
        parts: facts.number,
        part: Arc::clone(part),
    };
    // Of several parts of one recording the last can be resumed; the others are closed.
    let older = match registry.recordings.get(&recording) {
        Some(other) if other.parts > entry.parts => Some(Arc::clone(part)),
        _ => registry.recordings.insert(recording, entry).map(|e| e.part),
    };
    drop(registry);
    if let Some(older) = older
        && older.expire(std::time::Duration::ZERO)
    {
        store.group.dirty(&older);
    }
}

fn one(store: &Arc<Inner>, name: &str) -> Result<Found, Fault> {
    let open = store.dirs.open_dir();
    let journal = store.dirs.edit(open, name).map_err(|e| Fault::new("", &e))?;
    settle(store, &journal).map_err(|e| e.to_string())?;
    let header = journal::read_header(&journal);
    let Some(Value::Object(header)) = header else {
        return Err("its header cannot be read".to_owned().into());
    };
    let facts = facts(&header, name)?;
    let node = store.dirs.existing_node(&facts.node).map_err(|e| Fault::new("its node", &e))?;
    let json = format!("{}.json", facts.stamp);
    if layout::exists(&node, &json) {
        belongs(store, &node, &json, &facts)?;
        let none = rustix::fs::AtFlags::empty();
        rustix::fs::unlinkat(open, name, none).map_err(|e| e.to_string())?;
        let _ = rustix::fs::unlinkat(open, facts.open_name("seal"), none);
        return Ok(Found::Closed);
    }
    let cast = facts.cast_name();
    let file = store.dirs.edit(&node, &cast).map_err(|e| Fault::new(&cast, &e))?;
    settle(store, &file).map_err(|e| format!("{cast}: {e}"))?;
    let found = file.metadata().map_err(|e| e.to_string())?.len();
    let slots = journal::read_slots(&journal);
    let Chosen { slot, sums, header_bytes, header_done } =
        choose(&file, found, &slots, facts.start > 0).map_err(|e| format!("{cast}: {e}"))?;
    let cut = || -> io::Result<()> {
        file.set_len(slot.length)?;
        store.config.disk.sync(&file)?;
        store.config.disk.sync_dir(&node)
    };
    cut().map_err(|e| format!("{cast}: cutting it to {}: {e}", slot.length))?;
    let attempt = slot.attempt.max(header.get("attempt").and_then(Value::as_u64).unwrap_or(0));
    let start = Start {
        file,
        journal,
        fresh: false,
        len: slot.length,
        header_bytes,
        header_done,
        sums,
        durable: slot,
        attempt,
    };
    Ok(Found::Open(Box::new(Part::new(facts, start)), found - slot.length))
}

fn facts(header: &Map<String, Value>, name: &str) -> Result<Facts, String> {
    let file = text(header, "file")?;
    let facts = Facts {
        recording: optional(header, "recording").and_then(|t| unhex(&t)),
        secret_sha256: optional(header, "resumeSecretSha256").and_then(|t| unhex(&t)),
        node: text(header, "node")?,
        stamp: file.strip_suffix(".cast").ok_or("its file has no .cast")?.to_owned(),
        start: number(header, "start")?,
        number: u32::try_from(number(header, "part")?).map_err(|_| "part is out of range")?,
        peer: peer_facts(header),
        protocol: text(header, "protocol")?,
        started_us: time(header, "started")?,
        began: None,
        before: 0,
        recovered: true,
    };
    // The header's names are used for files: they must be the ones that the journal itself is called by.
    let stamp = |b: u8| b.is_ascii_digit() || matches!(b, b'T' | b'Z' | b'.' | b'-');
    let safe = layout::is_node_name(&facts.node)
        && facts.stamp.bytes().all(stamp)
        && facts.stamp.starts_with(|c: char| c.is_ascii_digit());
    if !safe || facts.start > limits::OFFSET_MAX || facts.open_name("journal") != name {
        return Err("its header names another part".into());
    }
    Ok(facts)
}

/// Whether a sidecar is this part's. It takes the journal's place, so it must say what the journal says: one that was damaged or
/// put there by somebody would take away what proves the commits.
fn belongs(store: &Inner, node: &File, json: &str, facts: &Facts) -> Result<(), Fault> {
    let read = store.dirs.read(node, json, SIDECAR_MAX_BYTES);
    let bytes = read.map_err(|e| Fault::new("its sidecar", &e))?;
    let sidecar = Sidecar::parse(&bytes).map_err(|why| format!("its sidecar: {why}"))?;
    let same = sidecar.file == facts.cast_name()
        && sidecar.node == facts.node
        && sidecar.recording == facts.recording.map(|id| layout::hex(&id))
        && sidecar.resume_secret_sha256 == facts.secret_sha256.map(|hash| layout::hex(&hash))
        && (sidecar.start, sidecar.part) == (facts.start, facts.number);
    if same { Ok(()) } else { Err("its sidecar is that of another part".to_owned().into()) }
}

/// Many times the longest that is written.
const SIDECAR_MAX_BYTES: u64 = 1024 * 1024;

/// Brings memory and device together before anything is believed. After a sync that failed the memory of the system can hold
/// bytes as clean that never reached the device; they would prove a commit that a loss of power takes back.
fn settle(store: &Inner, file: &File) -> io::Result<()> {
    store.config.disk.sync(file)?;
    store.config.disk.drop_cache(file);
    Ok(())
}

/// Up to where a part is believed.
struct Chosen {
    slot: Slot,
    sums: Sums,
    header_bytes: u64,
    header_done: bool,
}

/// The newest slot whose content is there, with the sums up to its length and the length of the first line.
fn choose(file: &File, found: u64, slots: &[Slot], continues: bool) -> io::Result<Chosen> {
    let mut lengths: Vec<u64> = slots.iter().map(|s| s.length).filter(|l| *l <= found).collect();
    lengths.sort_unstable();
    let mut sums = Sums::new();
    let mut at_length = vec![(0, sums.clone())];
    let mut header_bytes = 0;
    let mut header_seen = !continues;
    let mut at = 0;
    let mut block = vec![0; 64 * 1024];
    let mut reader = file;
    for length in lengths {
        while at < length {
            let want = usize::try_from(length - at).unwrap_or(usize::MAX).min(block.len());
            let n = reader.read(&mut block[..want])?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if !header_seen {
                let line = memchr::memchr(b'\n', &block[..n]);
                header_bytes += line.map_or(n, |i| i + 1) as u64;
                header_seen = line.is_some();
            }
            sums.update(&block[..n]);
            at += n as u64;
        }
        at_length.push((length, sums.clone()));
    }
    let newest_attempt = slots.iter().map(|s| s.attempt).max().unwrap_or(0);
    for slot in slots {
        let sums = at_length.iter().find(|(length, _)| *length == slot.length).map(|(_, s)| s);
        if let Some(sums) = sums
            && sums.crc32.clone().finalize() == slot.crc32
        {
            let mut slot = *slot;
            slot.attempt = newest_attempt;
            // A commit inside the repeated header line commits nothing of the stream, and nothing can follow it. The line's end
            // can stand behind this slot's length.
            let header_done = header_seen && header_bytes <= slot.length;
            let header_bytes = header_bytes.min(slot.length);
            return Ok(Chosen { slot, sums: sums.clone(), header_bytes, header_done });
        }
    }
    let generation = slots.iter().map(|s| s.generation).max().unwrap_or(0);
    // The second commit is written when the first is durable. So this is no crash but damage, and what is left is evidence.
    if generation > 1 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "its content is not what was committed; it is left as it is",
        ));
    }
    let slot = Slot { generation, length: 0, crc32: 0, attempt: newest_attempt };
    Ok(Chosen { slot, sums: Sums::new(), header_bytes: 0, header_done: !continues })
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(out)
}
