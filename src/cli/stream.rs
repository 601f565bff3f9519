//! The events of a recording, read out of its parts one after the other, for `play` and `cat`.
//!
//! `join` is strict; this shows what there is: a hole is skipped and told, a part that cannot be read is left out and told.

use std::fs::File;
use std::io;

use crate::cast::text::escape_control;
use crate::cast::{Header, Line, Lines, parse_event};
use crate::cli::Failure;
use crate::limits;
use crate::recorder::storage::read::{Kept, Part, Recording};

/// An event with its time since the start, whatever the version of the cast.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    /// Microseconds; never less than that of the event before.
    pub(super) time: u64,
    /// As in the cast.
    pub(super) code: u8,
    /// As in the cast.
    pub(super) data: String,
}

/// Reads a recording from its beginning.
pub(super) struct Reader {
    header: Header,
    sources: Vec<Source>,
    /// Offset in the stream.
    at: u64,
    /// Bytes of a repeated header line that come before the stream.
    lead: Vec<u8>,
    lines: Lines,
    block: Vec<u8>,
    /// What of `block` is not yet split into lines.
    next: usize,
    clock: u64,
    header_seen: bool,
    ended: bool,
    unreadable: u64,
    notes: Vec<String>,
}

struct Source {
    part: Part,
    file: File,
}

impl Reader {
    /// Opens the parts. Fails when none of them can be read.
    pub(super) fn open(recording: &Recording) -> Result<Self, Failure> {
        let mut notes = Vec::new();
        let mut sources = Vec::new();
        for part in &recording.parts {
            if let Kept::Broken(why) = &part.kept {
                notes.push(format!("{}: {why}", part.path.display()));
            }
            match source(part) {
                Ok(source) => sources.push(source),
                Err(Some(why)) => notes.push(format!("{}: {why}", part.path.display())),
                Err(None) => {}
            }
        }
        sources.sort_by_key(|s| s.part.start);
        let Some((first, header)) =
            sources.iter().find_map(|s| s.part.header.as_ref().map(|h| (s, h.clone())))
        else {
            return Err(Failure::new(notes.first().cloned().unwrap_or_else(|| "no parts".into())));
        };
        let at = first.part.start;
        let mut lead = Vec::new();
        if at > 0 {
            notes.push(format!("bytes 0 to {at} of the stream are missing: no part holds them"));
            lead = header.encode().unwrap_or_else(|_| b"{\"version\":2}\n".to_vec());
        }
        Ok(Self {
            header,
            sources,
            at,
            lead,
            lines: Lines::new(limits::CAST_LINE_BYTES),
            block: Vec::new(),
            next: 0,
            clock: 0,
            header_seen: false,
            ended: false,
            unreadable: 0,
            notes,
        })
    }

    /// How many bytes of the stream were read, of how many.
    pub(super) fn position(&self) -> (u64, u64) {
        (self.at, self.sources.iter().map(|s| s.part.end).max().unwrap_or(self.at))
    }

    pub(super) const fn header(&self) -> &Header {
        &self.header
    }

    /// What to tell about the recording, once it was read.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = self.notes.clone();
        if self.unreadable > 0 {
            notes.push(format!("{} lines are no events and were left out", self.unreadable));
        }
        notes
    }

    /// The next event; none at the end.
    pub(super) fn next(&mut self) -> Result<Option<Shown>, Failure> {
        loop {
            while self.next < self.block.len() {
                let mut input = self.block.get(self.next..).unwrap_or_default();
                let line = self.lines.next(&mut input);
                self.next = self.block.len() - input.len();
                let Some(line) = line else { break };
                if !std::mem::replace(&mut self.header_seen, true) {
                    continue;
                }
                match line {
                    Line::Whole(line) if line.trim_ascii().is_empty() => continue,
                    Line::Whole(line) => {
                        if let Some(event) = event(line, self.header.version, &mut self.clock) {
                            return Ok(Some(event));
                        }
                    }
                    Line::TooLong(_) => {}
                }
                self.unreadable += 1;
            }
            if self.ended {
                return Ok(None);
            }
            if !self.fill()? {
                self.ended = true;
                // The last line of a part that was cut may be whole but for its end.
                if let Some(torn) = self.lines.torn() {
                    let found = event(torn, self.header.version, &mut self.clock);
                    if found.is_none() || !self.header_seen {
                        self.notes.push("the last line is torn and was left out".into());
                    }
                    return Ok(found.filter(|_| self.header_seen));
                }
            }
        }
    }

    /// Reads the next block of the stream; false at its end.
    fn fill(&mut self) -> Result<bool, Failure> {
        self.next = 0;
        if !self.lead.is_empty() {
            self.block = std::mem::take(&mut self.lead);
            return Ok(true);
        }
        self.block.clear();
        let mut tries = self.sources.len();
        while tries > 0 {
            tries -= 1;
            let at = self.at;
            let Some(source) = self.sources.iter().find(|s| s.part.start <= at && at < s.part.end)
            else {
                let Some(to) = self.sources.iter().map(|s| s.part.start).filter(|s| *s > at).min()
                else {
                    return Ok(false);
                };
                self.notes.push(format!(
                    "bytes {at} to {to} of the stream are missing: no part holds them"
                ));
                self.at = to;
                // What stood before the hole is no part of the line behind it.
                self.block.push(b'\n');
                return Ok(true);
            };
            let n = (source.part.end - at).min(BLOCK as u64) as usize;
            self.block.resize(n, 0);
            let filled = source.part.read_at(&source.file, &mut self.block, at).map_err(|e| {
                Failure::new(format!("reading {}: {e}", source.part.path.display()))
            })?;
            self.block.truncate(filled);
            if filled > 0 {
                self.at += filled as u64;
                return Ok(true);
            }
            // Shorter than it should be: what another part holds is as good.
            let path = source.part.path.clone();
            self.notes.push(format!("{}: shorter than it should be", path.display()));
            for source in self.sources.iter_mut().filter(|s| s.part.path == path) {
                source.part.end = at;
            }
        }
        Ok(false)
    }
}

/// Opens a part. One that is broken but has a header is read for what it holds.
/// The reason is none when the part itself has it.
fn source(part: &Part) -> Result<Source, Option<String>> {
    let broken = matches!(part.kept, Kept::Broken(_));
    if part.header.is_none() {
        return Err((!broken).then(|| "not a cast".into()));
    }
    let text = |e: io::Error| Some(e.to_string());
    let file = part.open().map_err(text)?;
    let len = file.metadata().map_err(text)?.len();
    let mut part = part.clone();
    // A file without a sidecar may end in the middle of a line: the reader tells about that.
    if broken || part.kept == Kept::Foreign {
        part.end = part.start.saturating_add(len.saturating_sub(part.header_bytes));
    }
    Ok(Source { part, file })
}

fn event(line: &[u8], version: u8, clock: &mut u64) -> Option<Shown> {
    let event = parse_event(line).ok()?;
    *clock = match version {
        3 => clock.saturating_add(event.time.0),
        _ => event.time.0.max(*clock),
    };
    Some(Shown { time: *clock, code: event.code, data: event.data.into_owned() })
}

/// Says what there is to say about a recording, on standard error.
pub(super) fn tell(notes: &[String]) {
    for note in notes {
        eprintln!("castkeep: {}", escape_control(note));
    }
}

const BLOCK: usize = 64 * 1024;
