//! The commit group: one thread that makes what was appended durable, many parts with one flush, and closes what has ended.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::disk::{again, is_shortage};
use super::part::{Part, Snapshot};
use super::sidecar::Sidecar;
use super::{Inner, add};

/// From so many dirty parts on, one syncfs(2) takes the place of an fdatasync(2) for every file and journal. Measured on ext4 on a
/// virtual disk, medians in ms, fdatasync against syncfs: 1 part 12 : 8, 2 parts 20 : 8, 4 parts 32 : 4, 16 parts 137 : 6, 64 parts
/// 493 : 11; beside a neighbour's 60 MB of dirty data 32 : 30, and with 16 parts 128 : 31. One part alone stays with fdatasync: it
/// does not wait for a slow neighbour, and an error elsewhere on the file system does not end it.
const SYNCFS_FROM: usize = 2;
/// How often detached parts are looked at.
const EXPIRE_EVERY: Duration = Duration::from_secs(1);

/// The queue of dirty parts.
#[derive(Debug, Default)]
pub(crate) struct Group {
    queue: Mutex<Queue>,
    ready: Condvar,
    over: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    parts: Vec<Arc<Part>>,
    /// Parts whose turn failed for a shortage; they come again when detached parts are looked at.
    later: Vec<Arc<Part>>,
    /// A client waits: for room in its ring, or for the end of its recording.
    urgent: bool,
    stop: bool,
    /// The thread is over.
    ended: bool,
}

/// Between two flushes the device rests as long as this many flushes took, unless something is urgent: a flush costs about the
/// same for a little as for much, and a client that has room does not wait for it. One key typed into an idle recorder is
/// flushed at once.
const REST_FLUSHES: u32 = 3;
/// The longest rest.
const REST_MAX: Duration = Duration::from_millis(20);

impl Group {
    /// A part has something to make durable, or to close.
    pub(crate) fn dirty(&self, part: &Arc<Part>) {
        if part.mark_queued() {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.parts.push(Arc::clone(part));
            drop(queue);
            self.ready.notify_one();
        }
    }

    /// The same, and a client waits for it.
    pub(crate) fn urgent(&self, part: &Arc<Part>) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if part.mark_queued() {
            queue.parts.push(Arc::clone(part));
        }
        queue.urgent = true;
        drop(queue);
        self.ready.notify_one();
    }

    /// The same, but not at once.
    fn later(&self, part: &Arc<Part>) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.later.push(Arc::clone(part));
    }

    /// Now is later.
    fn retry(&self) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let later = std::mem::take(&mut queue.later);
        queue.parts.extend(later.into_iter().filter(|part| part.mark_queued()));
    }

    /// What is queued is done; then the thread ends.
    pub(crate) fn stop(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).stop = true;
        self.ready.notify_one();
    }

    /// Waits for the end of the thread. False: it is not over.
    pub(crate) fn wait_ended(&self, most: Duration) -> bool {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let (queue, _) = self
            .over
            .wait_timeout_while(queue, most, |queue| !queue.ended)
            .unwrap_or_else(PoisonError::into_inner);
        queue.ended
    }

    /// Everything that is dirty; waits for it, but not past `until`, and not before `rest` is over. The flag says whether to
    /// stop after it.
    fn take(&self, until: Instant, rest: Instant) -> (Vec<Arc<Part>>, bool) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        while !queue.urgent && !queue.stop {
            let now = Instant::now();
            let at = if queue.parts.is_empty() { until } else { rest };
            let left = at.saturating_duration_since(now);
            if left.is_zero() {
                break;
            }
            queue = self.ready.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        queue.urgent = false;
        (std::mem::take(&mut queue.parts), queue.stop)
    }
}

/// Says that nothing is committed any more, also when the thread panics: uploads end then instead of waiting for ever.
struct Stopped<'a>(&'a Inner);

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        self.0.stopped.store(true, Ordering::Release);
        self.0.group.queue.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
        self.0.group.over.notify_all();
    }
}

/// The thread.
pub(crate) fn run(store: &Arc<Inner>) {
    let _stopped = Stopped(store);
    let mut expire_at = Instant::now() + EXPIRE_EVERY;
    let mut rest = Instant::now();
    loop {
        let (batch, stop) = store.group.take(expire_at, rest);
        if !batch.is_empty() {
            let begun = Instant::now();
            flush(store, &batch);
            let ended = Instant::now();
            rest = ended + ended.duration_since(begun).saturating_mul(REST_FLUSHES).min(REST_MAX);
        } else if stop {
            return;
        }
        if Instant::now() >= expire_at {
            expire(store);
            store.group.retry();
            expire_at = Instant::now() + EXPIRE_EVERY;
        }
    }
}

fn expire(store: &Arc<Inner>) {
    let parts: Vec<Arc<Part>> =
        store.registry().recordings.values().map(|e| Arc::clone(&e.part)).collect();
    for part in parts {
        if part.expire(store.config.resume_window) {
            store.group.dirty(&part);
        }
    }
}

fn flush(store: &Arc<Inner>, batch: &[Arc<Part>]) {
    let started = Instant::now();
    let mut dirty = Vec::with_capacity(batch.len());
    for part in batch {
        // Cleared before the length is read: what is appended from now on queues the part again.
        part.queued.store(false, Ordering::Release);
        if let Some(snapshot) = part.prepare(store) {
            dirty.push((part, snapshot));
        }
    }
    if !dirty.is_empty() {
        let results = sync_all(store, &dirty);
        for ((part, snapshot), result) in dirty.iter().zip(results) {
            match result {
                Ok(()) => {
                    part.announce(snapshot.slot);
                    add(&store.counters.commits, 1);
                }
                // No sync failed: a directory could not be opened to be synced.
                Err(e) if is_shortage(&e) => store.group.later(part),
                Err(_) => part.die(&store.counters),
            }
        }
        let took = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        add(&store.counters.flushes, 1);
        add(&store.counters.flush_us, took);
        store.counters.last_flush_us.store(took, Ordering::Relaxed);
    }
    let now = store.config.disk.times();
    let closing: Vec<_> =
        batch.iter().filter_map(|part| part.close(now).map(|sidecar| (part, sidecar))).collect();
    close(store, &closing);
    for part in batch.iter().filter(|p| p.is_dead()) {
        store.forget(part);
    }
}

/// Syncs files, journals, and what new parts need of directories. One result a part.
fn sync_all(store: &Arc<Inner>, dirty: &[(&Arc<Part>, Snapshot)]) -> Vec<io::Result<()>> {
    let disk = &*store.config.disk;
    if dirty.len() >= SYNCFS_FROM && disk.sync_fs_reports() {
        let result = disk.sync_fs(store.dirs.root());
        if let Err(e) = &result {
            log::error!("syncing {} recordings: {e}", dirty.len());
        }
        return dirty.iter().map(|_| result.as_ref().map_err(again).copied()).collect();
    }
    // What holds the names of new parts, each once. A node's directory can be older than this process and not durable yet, so
    // its parent is synced whoever made it.
    let fresh: BTreeSet<&str> =
        dirty.iter().filter(|(_, s)| s.fresh).map(|(part, _)| part.node()).collect();
    let mut names: BTreeMap<&str, io::Result<()>> = BTreeMap::new();
    if !fresh.is_empty() {
        let shared = disk.sync_dir(store.dirs.open_dir());
        let shared = shared.and_then(|()| disk.sync_dir(store.dirs.root()));
        for node in fresh {
            let result = match &shared {
                Ok(()) => store.dirs.existing_node(node).and_then(|dir| disk.sync_dir(&dir)),
                Err(e) => Err(again(e)),
            };
            names.insert(node, result);
        }
    }
    let one = |part: &Part, snapshot: &Snapshot| -> io::Result<()> {
        disk.sync(&snapshot.file)?;
        disk.sync(&snapshot.journal)?;
        match names.get(part.node()).filter(|_| snapshot.fresh) {
            Some(Err(e)) => Err(again(e)),
            _ => Ok(()),
        }
    };
    dirty
        .iter()
        .map(|(part, snapshot)| {
            let result = one(part, snapshot);
            if let Err(e) = &result {
                log::error!("syncing {}: {e}", part.name());
            }
            result
        })
        .collect()
}

/// Writes sidecars, gives them their names, removes the journals: docs/storage.md §4.
fn close(store: &Arc<Inner>, parts: &[(&Arc<Part>, Sidecar)]) {
    if parts.is_empty() {
        return;
    }
    let disk = &*store.config.disk;
    let written: Vec<io::Result<File>> =
        parts.iter().map(|(part, sidecar)| write_sidecar(store, part, sidecar)).collect();
    let many = parts.len() >= SYNCFS_FROM && disk.sync_fs_reports();
    let all = if many { disk.sync_fs(store.dirs.root()) } else { Ok(()) };
    let mut nodes: BTreeMap<&str, io::Result<()>> = BTreeMap::new();
    let mut named = Vec::with_capacity(parts.len());
    for ((part, _), seal) in parts.iter().zip(written) {
        let result = seal.and_then(|seal| match (&all, many) {
            (Err(e), _) => Err(again(e)),
            (Ok(()), true) => Ok(()),
            (Ok(()), false) => disk.sync(&seal),
        });
        let result = result.and_then(|()| {
            let node = store.dirs.existing_node(part.node())?;
            let json = format!("{}.json", part.facts().stamp);
            let seal = part.facts().open_name("seal");
            rustix::fs::renameat(store.dirs.open_dir(), &seal, &node, &json)?;
            Ok(())
        });
        if result.is_ok() {
            nodes.insert(part.node(), Ok(()));
        }
        named.push(result);
    }
    for (name, result) in &mut nodes {
        *result = store.dirs.existing_node(name).and_then(|dir| disk.sync_dir(&dir));
    }
    for ((part, sidecar), result) in parts.iter().zip(named) {
        let result = result.and_then(|()| match nodes.get(part.node()) {
            Some(Err(e)) => Err(again(e)),
            _ => Ok(()),
        });
        match result {
            Ok(()) => {
                let journal = part.facts().open_name("journal");
                let none = rustix::fs::AtFlags::empty();
                // One that stays is removed at the next start: its part has a sidecar.
                let _ = rustix::fs::unlinkat(store.dirs.open_dir(), journal, none);
                if sidecar.reason.is_some() {
                    add(&store.counters.failed, 1);
                }
                add(&store.counters.sealed, 1);
                part.closed();
                store.forget(part);
            }
            Err(e) if is_shortage(&e) => {
                log::warn!("closing {}: {e}; it is tried again", part.name());
                part.reopen();
                store.group.later(part);
            }
            Err(e) => {
                log::error!("closing {}: {e}", part.name());
                part.die(&store.counters);
                store.forget(part);
            }
        }
    }
}

/// Into the reserve that was made with the part, so that a full disk does not matter.
fn write_sidecar(store: &Inner, part: &Part, sidecar: &Sidecar) -> io::Result<File> {
    let name = part.facts().open_name("seal");
    let seal = match store.dirs.edit(store.dirs.open_dir(), &name) {
        Ok(file) => file,
        // A crash between renaming and removing can have left a journal without its reserve.
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            store.dirs.create(store.dirs.open_dir(), &name)?
        }
        Err(e) => return Err(e),
    };
    let bytes = sidecar.encode();
    store.config.disk.write_at(&seal, &bytes, 0)?;
    seal.set_len(bytes.len() as u64)?;
    Ok(seal)
}
