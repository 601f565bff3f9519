//! Events of `/v2/event`: JSON lines beside the recordings, docs/protocol.md §5.

use std::fs::File;
use std::io;
use std::sync::{Arc, PoisonError};

use serde_json::{Value, json};

use super::layout::peer_name;
use super::stamp::format_stamp;
use super::{Inner, Peer, Refusal};
use crate::depth::is_deeper;
use crate::limits;

/// The file of the day.
#[derive(Debug)]
pub(crate) struct Journal {
    day: String,
    file: File,
    len: u64,
}

/// Stores an event with its `id` and `destination` filled in. Durable when it returns.
pub(crate) fn store(store: &Arc<Inner>, peer: &Peer, body: &[u8]) -> Result<(), Refusal> {
    if is_deeper(body, limits::EVENT_DEPTH) {
        return Err(Refusal::new(400, "the event is nested too deeply"));
    }
    let parsed = serde_json::from_slice::<Value>(body);
    let Ok(Value::Object(mut event)) = parsed else {
        return Err(Refusal::new(400, "an event is one JSON object"));
    };
    let stamp = format_stamp(store.config.disk.times().wall_us);
    let node = peer_name(peer);
    let mut journal = store.events.lock().unwrap_or_else(PoisonError::into_inner);
    let write = || -> io::Result<()> {
        let disk = &*store.config.disk;
        let day = stamp.get(..8).unwrap_or_default();
        if journal.as_ref().is_none_or(|j| j.day != day) {
            let dir = store.dirs.events(disk)?;
            let file = store.dirs.append(&dir, &format!("{day}.jsonl"))?;
            disk.sync_dir(&dir)?;
            let len = whole_lines(&file)?;
            *journal = Some(Journal { day: day.to_owned(), file, len });
        }
        let Some(journal) = journal.as_mut() else { return Ok(()) };
        event.insert("id".into(), json!(format!("{day}/{}", journal.len)));
        let name = Some(&peer.about.name).filter(|n| !n.is_empty()).unwrap_or(&node);
        event.insert("destination".into(), json!({"node": name, "nodeID": node}));
        let mut line = Value::Object(event).to_string();
        line.push('\n');
        disk.write_at(&journal.file, line.as_bytes(), journal.len)?;
        disk.sync(&journal.file)?;
        journal.len += line.len() as u64;
        Ok(())
    };
    write().map_err(|e| {
        // A file that failed is not synced again: the next event opens it anew.
        *journal = None;
        log::error!("storing an event: {e}");
        Refusal::new(503, "io: the event cannot be stored")
    })
}

/// Where the next line begins: behind the last LF; a line torn by a crash was never answered and is overwritten.
fn whole_lines(file: &File) -> io::Result<u64> {
    use std::os::unix::fs::FileExt as _;
    let mut end = file.metadata()?.len();
    let mut block = [0; 4096];
    while end > 0 {
        let n = end.min(block.len() as u64) as usize;
        let from = end - n as u64;
        file.read_exact_at(&mut block[..n], from)?;
        if let Some(at) = block[..n].iter().rposition(|b| *b == b'\n') {
            let whole = from + at as u64 + 1;
            file.set_len(whole)?;
            return Ok(whole);
        }
        end = from;
    }
    file.set_len(0)?;
    Ok(0)
}
