//! One part as it is found: by its sidecar, by its journal, or by nothing but itself.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use rustix::fs::{Mode, OFlags};

use crate::cast::Header;
use crate::limits;
use crate::recorder::storage::journal;
use crate::recorder::storage::sidecar::{
    How, PeerFacts, Sidecar, number, optional, peer_facts, time,
};
use crate::recorder::storage::stamp::parse_time;

/// How a part is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Its sidecar says how it ended.
    Closed(How),
    /// A journal names it: a recorder writes it, or was killed while it did.
    Open,
    /// A cast without a sidecar: of a stock recorder, or put there by hand.
    Foreign,
    /// It cannot be read as a cast; the text says why.
    Broken(String),
}

/// A part.
#[derive(Clone, Debug)]
pub struct Part {
    /// The file.
    pub path: PathBuf,
    /// The directory it stands in: the node that uploaded it.
    pub node: String,
    /// Recording id, when there is one.
    pub recording: Option<String>,
    /// SHA-256 of the resume secret, hexadecimal.
    pub secret: Option<String>,
    /// How it is kept.
    pub kept: Kept,
    /// It holds the stream's bytes from here …
    pub start: u64,
    /// … to here. Of an open part, what is committed; of a foreign one, up to its last whole line.
    pub end: u64,
    /// Length of the repeated header line; 0 when the part begins the stream.
    pub header_bytes: u64,
    /// Beginning, microseconds since 1970; 0 when nothing tells.
    pub started_us: u64,
    /// End; none while it is written.
    pub ended_us: Option<u64>,
    /// How far the recorder's wall clock was set between the two, if that is known.
    pub clock_step_us: i64,
    /// The highest attempt seen: of two parts that reach equally far, the higher is the later one, whatever clocks say.
    pub attempt: u64,
    /// Why it ended, when by an error.
    pub reason: Option<String>,
    /// Offset at which another upload differed.
    pub conflict: Option<u64>,
    /// Identity of the peer, else its address.
    pub peer: String,
    /// What was authenticated of the peer, when something was. All else that a recording says of who it is, is claimed.
    pub verified: Option<PeerFacts>,
    /// The first line.
    pub header: Option<Header>,
}

impl Part {
    /// What a recording without an id is called.
    #[must_use]
    pub fn own_name(&self) -> String {
        let stem = self.path.file_stem().map(|s| s.to_string_lossy()).unwrap_or_default();
        if self.node.is_empty() { stem.into_owned() } else { format!("{}/{stem}", self.node) }
    }

    fn set_peer(&mut self, facts: PeerFacts) {
        self.peer.clone_from(facts.identity.as_ref().unwrap_or(&facts.address));
        self.verified = Some(facts).filter(|f| f.verified);
    }

    /// Opens the file; a link in its place is not followed.
    ///
    /// # Errors
    ///
    /// As open(2).
    pub fn open(&self) -> io::Result<File> {
        open(&self.path)
    }

    /// Reads bytes of the stream. Fewer than asked for only at the end of the file.
    ///
    /// # Errors
    ///
    /// As pread(2).
    pub fn read_at(&self, file: &File, out: &mut [u8], offset: u64) -> io::Result<usize> {
        let base = self.header_bytes.saturating_add(offset.saturating_sub(self.start));
        let mut filled = 0;
        while filled < out.len() {
            match file.read_at(&mut out[filled..], base + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(filled)
    }
}

/// What a journal says.
#[derive(Clone, Debug)]
pub(crate) struct Journal {
    recording: Option<String>,
    secret: Option<String>,
    start: u64,
    started_us: u64,
    committed: u64,
    attempt: u64,
    peer: PeerFacts,
}

/// Journals by the name of their part, `<node>/<file>`.
pub(crate) fn journals(open: &Path) -> BTreeMap<String, Journal> {
    let mut all = BTreeMap::new();
    let Ok(entries) = std::fs::read_dir(open) else { return all };
    for path in entries.flatten().map(|e| e.path()) {
        if path.extension().is_none_or(|e| e != "journal") {
            continue;
        }
        let Ok(file) = self::open(&path) else { continue };
        let Some(serde_json::Value::Object(header)) = journal::read_header(&file) else { continue };
        let (Some(node), Some(name)) = (optional(&header, "node"), optional(&header, "file"))
        else {
            continue;
        };
        let slot = journal::read_slots(&file).first().copied();
        let attempt = number(&header, "attempt").unwrap_or(0);
        let journal = Journal {
            recording: optional(&header, "recording"),
            secret: optional(&header, "resumeSecretSha256"),
            start: number(&header, "start").unwrap_or(0),
            started_us: time(&header, "started").unwrap_or(0),
            committed: slot.map_or(0, |s| s.length),
            attempt: slot.map_or(0, |s| s.attempt).max(attempt),
            peer: peer_facts(&header),
        };
        all.insert(format!("{node}/{name}"), journal);
    }
    all
}

/// An entry for what is not shown, and why.
pub(crate) fn broken(path: &Path, why: String) -> Part {
    Part { kept: Kept::Broken(why), ..nothing(path) }
}

/// Reads what is known about a cast. Never fails: what cannot be read is broken.
pub(crate) fn read(path: &Path, journals: &BTreeMap<String, Journal>) -> Part {
    let mut part = nothing(path);
    if let Err(why) = fill(&mut part, journals) {
        part.kept = Kept::Broken(why);
    }
    part
}

fn nothing(path: &Path) -> Part {
    let node = path.parent().and_then(Path::file_name).map(|n| n.to_string_lossy().into_owned());
    Part {
        path: path.to_owned(),
        node: node.unwrap_or_default(),
        recording: None,
        secret: None,
        kept: Kept::Foreign,
        start: 0,
        end: 0,
        header_bytes: 0,
        started_us: 0,
        ended_us: None,
        clock_step_us: 0,
        attempt: 0,
        reason: None,
        conflict: None,
        peer: String::new(),
        verified: None,
        header: None,
    }
}

fn fill(part: &mut Part, journals: &BTreeMap<String, Journal>) -> Result<(), String> {
    let file = open(&part.path).map_err(|e| e.to_string())?;
    let meta = file.metadata().map_err(|e| e.to_string())?;
    let modified = meta.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok());
    let modified = modified.and_then(|t| u64::try_from(t.as_micros()).ok()).unwrap_or(0);
    let stem = part.path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    part.started_us = parse_time(stem.get(..23).unwrap_or(&stem)).unwrap_or(0);
    let first = first_line(&file)?;
    let header = first.as_deref().map(Header::parse);
    if let Some(Ok(header)) = &header {
        part.header = Some(header.clone());
        part.recording = header.castkeep.as_ref().map(|c| c.recording.clone());
    }
    if let Some(sidecar) = sidecar(&part.path)? {
        part.recording = sidecar.recording;
        part.secret = sidecar.resume_secret_sha256;
        part.kept = Kept::Closed(sidecar.how);
        part.start = sidecar.start;
        part.end = sidecar.end;
        part.header_bytes = sidecar.header_bytes;
        part.started_us = sidecar.started_us;
        part.ended_us = Some(sidecar.ended_us);
        part.clock_step_us = sidecar.clock_step_us.unwrap_or(0);
        part.attempt = sidecar.attempt;
        part.reason = sidecar.reason;
        part.conflict = sidecar.conflict;
        part.set_peer(sidecar.peer);
        let held = sidecar.end.checked_sub(sidecar.start);
        if held.and_then(|n| n.checked_add(sidecar.header_bytes)) != Some(sidecar.bytes) {
            return Err("sidecar: its lengths and offsets contradict each other".into());
        }
        // Asked for again: it can have been closed since the first look.
        let len = file.metadata().map_err(|e| e.to_string())?.len();
        if len != sidecar.bytes {
            return Err(format!("the file has {len} bytes, its sidecar says {}", sidecar.bytes));
        }
    } else {
        let first_bytes = first.as_ref().map_or(0, |l| l.len() as u64 + 1);
        let name = part.path.file_name().map(|f| f.to_string_lossy()).unwrap_or_default();
        if let Some(journal) = journals.get(&format!("{}/{name}", part.node)) {
            part.kept = Kept::Open;
            part.recording.clone_from(&journal.recording);
            part.secret.clone_from(&journal.secret);
            part.start = journal.start;
            part.started_us = journal.started_us;
            part.attempt = journal.attempt;
            part.set_peer(journal.peer.clone());
            let committed = journal.committed.min(meta.len());
            part.header_bytes = match (&first, part.start) {
                (_, 0) => 0,
                (Some(_), _) => first_bytes,
                (None, _) => committed,
            };
            part.end = part.start.saturating_add(committed.saturating_sub(part.header_bytes));
        } else {
            part.ended_us = Some(modified);
            let continues = part.header.as_ref().and_then(|h| h.continues.as_ref());
            if let Some(continues) = continues {
                part.start = continues.offset;
                part.header_bytes = first_bytes;
            }
            let whole = last_line_end(&file, meta.len()).map_err(|e| e.to_string())?;
            part.end = part.start.saturating_add(whole.saturating_sub(part.header_bytes));
            if part.started_us == 0 {
                part.started_us = part.header.as_ref().map_or(0, |h| {
                    u64::try_from(h.timestamp).unwrap_or(0).saturating_mul(1_000_000)
                });
            }
        }
    }
    match header {
        Some(Ok(_)) => Ok(()),
        // A crash or an end before the first commit leaves that, and takes nothing from the recording's other parts.
        _ if part.kept != Kept::Foreign && part.end == part.start => Ok(()),
        Some(Err(e)) => Err(format!("first line: {e}")),
        None if meta.len() == 0 => Err("empty".into()),
        None => Err("first line: it has no end".into()),
    }
}

/// Opens a regular file for reading.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(file)
}

/// The first line without its LF. None: there is no LF.
fn first_line(file: &File) -> Result<Option<Vec<u8>>, String> {
    let cap = 4 * limits::HEADER_LINE_BYTES;
    let mut bytes = Vec::new();
    let mut reader = file.take(cap as u64 + 1);
    let mut block = [0; 4096];
    loop {
        let n = reader.read(&mut block).map_err(|e| e.to_string())?;
        let piece = block.get(..n).unwrap_or_default();
        if let Some(i) = memchr::memchr(b'\n', piece) {
            bytes.extend_from_slice(piece.get(..i).unwrap_or_default());
            return Ok(Some(bytes));
        }
        if n == 0 {
            return Ok(None);
        }
        bytes.extend_from_slice(piece);
        if bytes.len() > cap {
            return Err(format!("first line: longer than {cap} bytes"));
        }
    }
}

fn sidecar(cast: &Path) -> Result<Option<Sidecar>, String> {
    let file = match open(&cast.with_extension("json")) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(format!("sidecar: {e}")),
    };
    let mut bytes = Vec::new();
    file.take(1024 * 1024).read_to_end(&mut bytes).map_err(|e| format!("sidecar: {e}"))?;
    Sidecar::parse(&bytes).map(Some).map_err(|e| format!("sidecar: {e}"))
}

/// The position behind the last LF.
fn last_line_end(file: &File, len: u64) -> io::Result<u64> {
    let mut block = [0; 4096];
    let mut end = len;
    while end > 0 {
        let n = end.min(block.len() as u64) as usize;
        let from = end - n as u64;
        let piece = &mut block[..n];
        file.read_exact_at(piece, from)?;
        if let Some(at) = memchr::memrchr(b'\n', piece) {
            return Ok(from + at as u64 + 1);
        }
        end = from;
    }
    Ok(0)
}
