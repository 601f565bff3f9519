//! The one stream out of the parts: docs/storage.md §5.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};

use super::part::{Kept, Part};
use crate::recorder::storage::sidecar::How;

/// Bytes compared and written at a time.
const BLOCK: usize = 64 * 1024;

/// A stream that is whole as far as it goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Joined {
    /// Its length.
    pub bytes: u64,
    /// Parts that were used.
    pub parts: usize,
    /// Bytes that more than one part holds; they were compared.
    pub overlap_bytes: u64,
    /// Whether a part says that the recording ended there in order.
    pub complete: bool,
}

/// Why there is no one stream. Offsets are those of the stream.
#[derive(Debug)]
pub enum JoinError {
    /// No part holds these bytes.
    Hole {
        /// First missing byte.
        from: u64,
        /// First byte that is there again.
        to: u64,
    },
    /// Two parts differ.
    Divergence {
        /// First byte that differs.
        offset: u64,
        /// The one.
        left: String,
        /// The other.
        right: String,
    },
    /// A part cannot be read.
    Broken {
        /// Its file.
        file: String,
        /// Why.
        why: String,
    },
    /// There is nothing to join.
    Nothing,
    /// Writing the result failed.
    Write(io::Error),
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hole { from, to } => {
                write!(f, "bytes {from} to {to} of the stream are missing: no part holds them")
            }
            Self::Divergence { offset, left, right } => {
                write!(f, "{left} and {right} differ at offset {offset} of the stream")
            }
            Self::Broken { file, why } => write!(f, "{file}: {why}"),
            Self::Nothing => f.write_str("there are no parts"),
            Self::Write(e) => write!(f, "writing the result: {e}"),
        }
    }
}

impl std::error::Error for JoinError {}

/// Writes the stream that the parts hold together. What two parts hold is compared byte by byte.
///
/// # Errors
///
/// [`JoinError`] names the place. What was written until then is right.
pub fn join(parts: &[Part], out: &mut dyn Write) -> Result<Joined, JoinError> {
    let mut sources = Vec::new();
    for part in parts {
        if let Kept::Broken(why) = &part.kept {
            return Err(JoinError::Broken { file: shown(part), why: why.clone() });
        }
        if part.end > part.start {
            sources.push(Source { file: None, part, buffer: Vec::new() });
        }
    }
    sources.sort_by_key(|s| s.part.start);
    if sources.is_empty() {
        return Err(JoinError::Nothing);
    }
    let mut joined = Joined { parts: sources.len(), ..Joined::default() };
    let mut at = 0;
    loop {
        let covers = |s: &&mut Source<'_>| s.part.start <= at && at < s.part.end;
        let next = sources.iter().map(|s| s.part.start).filter(|start| *start > at).min();
        let mut covering: Vec<&mut Source<'_>> = sources.iter_mut().filter(covers).collect();
        if covering.is_empty() {
            match next {
                Some(to) => return Err(JoinError::Hole { from: at, to }),
                None => break,
            }
        }
        let until = covering.iter().map(|s| s.part.end).chain(next).min().unwrap_or(at);
        let n = usize::try_from(until - at).unwrap_or(usize::MAX).min(BLOCK);
        for source in &mut covering {
            let why = match source.fill(at, n) {
                Ok(filled) if filled == n => continue,
                Ok(_) => "shorter than it should be".to_owned(),
                Err(e) => e.to_string(),
            };
            return Err(JoinError::Broken { file: shown(source.part), why });
        }
        let Some((first, others)) = covering.split_first() else { break };
        for other in others {
            if let Some(i) = difference(&first.buffer, &other.buffer) {
                // What is the same up to there is right.
                out.write_all(first.buffer.get(..i).unwrap_or_default())
                    .map_err(JoinError::Write)?;
                return Err(JoinError::Divergence {
                    offset: at + i as u64,
                    left: shown(first.part),
                    right: shown(other.part),
                });
            }
        }
        out.write_all(&first.buffer).map_err(JoinError::Write)?;
        joined.overlap_bytes += (others.len() * n) as u64;
        at += n as u64;
        for source in sources.iter_mut().filter(|s| s.part.end <= at) {
            source.close();
        }
    }
    joined.bytes = at;
    joined.complete = parts.iter().any(|p| p.end == at && p.kept == Kept::Closed(How::Sealed));
    Ok(joined)
}

/// A part while the stream is at it: a recording can have more parts than a process may have open files.
struct Source<'a> {
    part: &'a Part,
    file: Option<File>,
    buffer: Vec<u8>,
}

impl Source<'_> {
    /// Reads `n` bytes of the stream into the buffer. How many there were.
    fn fill(&mut self, at: u64, n: usize) -> io::Result<usize> {
        let file = match self.file.take() {
            Some(file) => file,
            None => self.part.open()?,
        };
        self.buffer.resize(n, 0);
        let filled = self.part.read_at(&file, &mut self.buffer, at);
        self.file = Some(file);
        filled
    }

    fn close(&mut self) {
        self.file = None;
        self.buffer = Vec::new();
    }
}

fn shown(part: &Part) -> String {
    part.path.display().to_string()
}

fn difference(a: &[u8], b: &[u8]) -> Option<usize> {
    if a == b { None } else { a.iter().zip(b).position(|(a, b)| a != b) }
}
