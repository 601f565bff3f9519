//! Reading what recorders kept, without a recorder: directories of ours, of stock recorders, or any directory with casts.
//!
//! Nothing is written and nothing is locked, so that a running recorder's directory can be read. One file that cannot be
//! read is one entry that says so; the rest is as always.

mod join;
mod part;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

pub use join::{JoinError, Joined, join};
pub use part::{Kept, Part};

/// Parts in one directory that are looked at: more is told, not silently left out.
const PARTS_MAX: usize = 1_000_000;

/// A recording with all of its parts that were found.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The recording id, 32 hexadecimal digits; for an upload of a stock client the node and the file's stem.
    pub id: String,
    /// In the order of their place in the stream.
    pub parts: Vec<Part>,
}

impl Recording {
    /// When the first part began, microseconds since 1970.
    #[must_use]
    pub fn started_us(&self) -> u64 {
        self.parts.iter().map(|p| p.started_us).filter(|t| *t > 0).min().unwrap_or(0)
    }

    /// When the last part ended; none while one is written.
    #[must_use]
    pub fn ended_us(&self) -> Option<u64> {
        if self.parts.iter().any(|p| p.kept == Kept::Open) {
            return None;
        }
        self.parts.iter().filter_map(|p| p.ended_us).max()
    }

    /// How long it lasted; none while a part is written. By the wall clocks, less what they were set in between.
    #[must_use]
    pub fn lasted_us(&self) -> Option<u64> {
        let ended = self.ended_us()?;
        let steps: Vec<i64> = self.parts.iter().map(|p| p.clock_step_us).collect();
        if steps.iter().all(|step| *step == 0) {
            return Some(ended.saturating_sub(self.started_us()));
        }
        let one = |p: &Part| {
            let by_wall = i128::from(p.ended_us.unwrap_or(p.started_us)) - i128::from(p.started_us);
            u64::try_from(by_wall - i128::from(p.clock_step_us)).unwrap_or(0)
        };
        // From one part to the next the clock can have been set too: what lies between them is not counted.
        Some(self.parts.iter().map(one).fold(0, u64::saturating_add))
    }

    /// The part that tells best how the recording ended: the one that reaches farthest.
    #[must_use]
    pub fn last(&self) -> Option<&Part> {
        self.parts.iter().max_by_key(|p| (p.end, p.attempt, p.started_us))
    }

    /// Length of the stream that the parts hold.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.parts.iter().map(|p| p.end).max().unwrap_or(0)
    }

    /// The facts of the first line of the first part that has any.
    #[must_use]
    pub fn header(&self) -> Option<&crate::cast::Header> {
        self.parts.iter().find_map(|p| p.header.as_ref())
    }

    /// Whether a name means this recording: the id, a prefix of it of at least four characters, or the file of a part.
    #[must_use]
    pub fn is_called(&self, name: &str) -> bool {
        self.id == name
            || (name.len() >= 4 && self.id.starts_with(name))
            || self.parts.iter().any(|p| p.path.file_name().is_some_and(|f| f == name))
    }
}

/// All parts in a directory of a recorder, or in any directory of casts (one level of directories below it is read).
///
/// # Errors
///
/// Only when the directory itself cannot be read.
pub fn parts(dir: &Path) -> io::Result<Vec<Part>> {
    parts_telling(dir, &mut |_| {})
}

/// The same; `tell` is called with how many were read so far, often.
pub(crate) fn parts_telling(dir: &Path, tell: &mut dyn FnMut(usize)) -> io::Result<Vec<Part>> {
    let journals = part::journals(&dir.join("open"));
    let mut found = Vec::new();
    let mut below = Vec::new();
    for entry in sorted(dir)? {
        if is_cast(&entry) {
            found.push(part::read(&entry, &journals));
            tell(found.len());
        } else if entry.is_dir() && !entry.is_symlink() {
            below.push(entry);
        }
    }
    for node in below {
        let entries = match sorted(&node) {
            Ok(entries) => entries,
            // A node that cannot be read must not hide the others, and must not be hidden itself.
            Err(e) => {
                found.push(part::broken(&node, e.to_string()));
                continue;
            }
        };
        for entry in entries.iter().filter(|e| is_cast(e)) {
            if found.len() >= PARTS_MAX {
                let why = format!("there are more than {PARTS_MAX} files; the rest is not shown");
                found.push(part::broken(dir, why));
                return Ok(found);
            }
            found.push(part::read(entry, &journals));
            tell(found.len());
        }
    }
    Ok(found)
}

/// A single file.
#[must_use]
pub fn file(path: &Path) -> Part {
    let open = path.parent().and_then(Path::parent).map(|root| root.join("open"));
    part::read(path, &open.map(|dir| part::journals(&dir)).unwrap_or_default())
}

/// Puts parts together by recording. Sorted by their beginning.
#[must_use]
pub fn group(parts: Vec<Part>) -> Vec<Recording> {
    let mut keyed: BTreeMap<(String, Option<String>), Vec<Part>> = BTreeMap::new();
    let mut loose = Vec::new();
    for part in parts {
        match (&part.recording, &part.secret) {
            (Some(id), Some(secret)) => {
                keyed.entry((id.clone(), Some(secret.clone()))).or_default().push(part);
            }
            // Stock recorders keep no secret's hash: the id in the header is all there is.
            (Some(_), None) => loose.push(part),
            (None, _) => {
                keyed.entry((part.own_name(), None)).or_default().push(part);
            }
        }
    }
    for part in loose {
        let Some(id) = part.recording.clone() else { continue };
        let matching: Vec<_> = keyed.keys().filter(|(k, _)| *k == id).cloned().collect();
        if matching.is_empty() {
            keyed.entry((id, None)).or_default().push(part);
        } else {
            for key in matching {
                keyed.entry(key).or_default().push(part.clone());
            }
        }
    }
    let mut all: Vec<Recording> = keyed
        .into_iter()
        .map(|((id, _), mut parts)| {
            parts.sort_by_key(|p| (p.start, p.attempt, p.started_us));
            Recording { id, parts }
        })
        .collect();
    all.sort_by_key(|r| (r.started_us(), r.id.clone()));
    all
}

fn sorted(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths =
        std::fs::read_dir(dir)?.map(|e| e.map(|e| e.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

fn is_cast(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "cast")
}
