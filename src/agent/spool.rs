//! Notifications on disk, in order, until somebody has them.
//!
//! One file each, `NUMBER-UID.json`, made whole by a rename. The oldest goes first; when there is no room for a new one, the
//! oldest are lost, and the log says so.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::disk;
use crate::limits;

/// The queue.
#[derive(Debug)]
pub(super) struct Spool {
    dir: PathBuf,
    events: BTreeMap<u64, Event>,
    bytes: u64,
    next: u64,
}

#[derive(Clone, Copy, Debug)]
struct Event {
    uid: u32,
    bytes: u64,
    /// Whether it may have arrived already.
    sent: bool,
}

/// Why an event is not taken.
#[derive(Debug)]
pub(super) enum SpoolError {
    Disk(io::Error),
    /// This user has as many there as one may.
    Quota,
}

impl Spool {
    /// Opens the queue, with what an earlier agent left in it.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        disk::own_dir(dir)?;
        let mut spool = Self { dir: dir.to_owned(), events: BTreeMap::new(), bytes: 0, next: 1 };
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.ends_with(&format!(".{}", disk::NEW)) {
                // It was never promised to anybody.
                fs::remove_file(entry.path())?;
                continue;
            }
            let Some((number, uid)) = parse_name(&name) else { continue };
            let bytes = entry.metadata()?.len();
            // The agent before us may have ended between sending it and knowing that it arrived.
            spool.events.insert(number, Event { uid, bytes, sent: true });
            spool.bytes = spool.bytes.saturating_add(bytes);
            spool.next = spool.next.max(number.saturating_add(1));
        }
        Ok(spool)
    }

    /// Puts an event behind the others. Once this returned it is on disk.
    pub(super) fn put(&mut self, uid: u32, body: &[u8]) -> Result<(), SpoolError> {
        let of_user = self.events.values().filter(|event| event.uid == uid).count();
        if uid != 0 && of_user >= limits::SPOOL_EVENTS_PER_USER {
            return Err(SpoolError::Quota);
        }
        let bytes = body.len() as u64;
        let mut lost = 0u32;
        while self.events.len() >= limits::SPOOL_EVENTS
            || self.bytes.saturating_add(bytes) > limits::SPOOL_BYTES
        {
            let Some(oldest) = self.events.keys().next().copied() else { break };
            self.remove(oldest).map_err(SpoolError::Disk)?;
            lost += 1;
        }
        if lost > 0 {
            log::error!("{lost} notification(s) are lost: too many wait for control");
        }
        let number = self.next;
        disk::replace(&self.path(number, uid), body).map_err(SpoolError::Disk)?;
        self.next = number.saturating_add(1);
        self.events.insert(number, Event { uid, bytes, sent: false });
        self.bytes = self.bytes.saturating_add(bytes);
        Ok(())
    }

    /// The oldest: its number, its bytes, and whether it may have arrived before.
    pub(super) fn first(&self) -> io::Result<Option<(u64, Vec<u8>, bool)>> {
        let Some((number, event)) = self.events.first_key_value() else { return Ok(None) };
        let body = disk::read(&self.path(*number, event.uid), limits::NOTIFY_BYTES * 2)?;
        Ok(Some((*number, body.unwrap_or_default(), event.sent)))
    }

    /// It is being sent: from now on it may have arrived.
    pub(super) fn sending(&mut self, number: u64) {
        if let Some(event) = self.events.get_mut(&number) {
            event.sent = true;
        }
    }

    /// It arrived, or never will.
    pub(super) fn remove(&mut self, number: u64) -> io::Result<()> {
        let Some(event) = self.events.get(&number).copied() else { return Ok(()) };
        match fs::remove_file(self.path(number, event.uid)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        self.events.remove(&number);
        self.bytes = self.bytes.saturating_sub(event.bytes);
        disk::sync_dir(&self.dir)
    }

    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    fn path(&self, number: u64, uid: u32) -> PathBuf {
        self.dir.join(format!("{number:020}-{uid}.json"))
    }
}

fn parse_name(name: &str) -> Option<(u64, u32)> {
    let (number, uid) = name.strip_suffix(".json")?.split_once('-')?;
    (number.len() == 20).then_some(())?;
    Some((number.parse().ok()?, uid.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let id = std::process::id();
            Self(std::env::temp_dir().join(format!("castkeep-spool-{name}-{id}")))
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn drain(spool: &mut Spool) -> Vec<(String, bool)> {
        let mut all = Vec::new();
        while let Some((number, body, sent)) = spool.first().unwrap() {
            all.push((String::from_utf8(body).unwrap(), sent));
            spool.remove(number).unwrap();
        }
        all
    }

    #[test]
    fn order_outlasts_a_restart_and_what_may_have_been_sent_is_marked() {
        let dir = Dir::new("order");
        let mut spool = Spool::open(&dir.0).unwrap();
        for n in 0..12 {
            spool.put(0, format!("{n}").as_bytes()).unwrap();
        }
        let (first, ..) = spool.first().unwrap().unwrap();
        spool.remove(first).unwrap();
        drop(spool);
        fs::write(dir.0.join("00000000000000000099-0.new"), "half").unwrap();
        let mut spool = Spool::open(&dir.0).unwrap();
        spool.put(7, b"new").unwrap();
        let mut wanted: Vec<_> = (1..12).map(|n| (n.to_string(), true)).collect();
        wanted.push(("new".into(), false));
        assert_eq!(drain(&mut spool), wanted);
        assert_eq!(fs::read_dir(&dir.0).unwrap().count(), 0);
    }

    #[test]
    fn the_oldest_give_way_and_no_user_fills_it() {
        let dir = Dir::new("full");
        let mut spool = Spool::open(&dir.0).unwrap();
        let big = vec![b'x'; 1024 * 1024];
        for _ in 0..limits::SPOOL_BYTES / big.len() as u64 {
            spool.put(0, &big).unwrap();
        }
        spool.put(0, b"last").unwrap();
        assert_eq!(spool.len() as u64, limits::SPOOL_BYTES / big.len() as u64);
        assert!(spool.bytes <= limits::SPOOL_BYTES);
        for _ in 0..limits::SPOOL_EVENTS_PER_USER {
            spool.put(1000, b"x").unwrap();
        }
        assert!(matches!(spool.put(1000, b"x"), Err(SpoolError::Quota)));
        spool.put(1001, b"x").unwrap();
    }
}
