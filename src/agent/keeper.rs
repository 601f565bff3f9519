//! Keeps the policy that is in force: in memory, on disk, and never an older one than before.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::disk;
use super::engine::Policy;
use super::source::{News, Source};
use super::trouble::Trouble;
use crate::limits;
use crate::recorder::wake::Waker;

/// The policy in force, and who waits for another.
#[derive(Debug)]
pub(super) struct Keeper {
    path: PathBuf,
    source: String,
    /// The node that the configuration names.
    node: Option<String>,
    state: Mutex<State>,
    changed: Condvar,
    disk: Trouble,
}

#[derive(Debug, Default)]
struct State {
    policy: Option<Arc<Policy>>,
    /// Of the document without its version.
    digest: [u8; 32],
    etag: Option<String>,
    /// Whether the policy came from the source of now: only then its version is a floor.
    same_source: bool,
    /// Whether the source was looked at at least once.
    looked: bool,
    stopped: bool,
    hurry: bool,
    watchers: Vec<Weak<Waker>>,
}

impl Keeper {
    /// Starts with what is on disk.
    pub(super) fn open(dir: &Path, source: &str, node: Option<String>) -> Self {
        let keeper = Self {
            path: dir.join("policy.json"),
            source: source.to_owned(),
            node,
            state: Mutex::default(),
            changed: Condvar::new(),
            disk: Trouble::new(
                format!("state directory {}", dir.display()),
                "the policy is in force, and a restart would begin with an older one",
            ),
        };
        match keeper.load() {
            Ok(false) => log::info!("no policy on disk yet"),
            Ok(true) => {}
            Err(why) => {
                log::error!("{}: {why}; it is as if it was not there", keeper.path.display());
            }
        }
        keeper
    }

    fn load(&self) -> Result<bool, String> {
        let bytes = disk::read(&self.path, limits::AGENT_STATE_BYTES).map_err(|e| e.to_string())?;
        let Some(bytes) = bytes else { return Ok(false) };
        let saved: Map<String, Value> =
            serde_json::from_slice(&bytes).map_err(|_| "not whole, or no JSON".to_owned())?;
        if saved.get("castkeepAgent").and_then(Value::as_u64) != Some(1) {
            return Err("not of this version's form".into());
        }
        let Some(Value::Object(document)) = saved.get("answer") else {
            return Err("no policy in it".into());
        };
        let policy = Policy::read(document)?;
        if self.node.as_ref().is_some_and(|node| *node != policy.node) {
            return Err(format!("it is the policy of another node, {}", policy.node));
        }
        let source = saved.get("source").and_then(Value::as_str).unwrap_or_default();
        log::info!("policy version {} for {} from disk", policy.version, policy.node);
        let mut state = self.lock();
        state.same_source = source == self.source;
        if state.same_source {
            state.etag = saved.get("etag").and_then(Value::as_str).map(str::to_owned);
            state.digest = digest(document.clone());
        } else {
            log::info!(
                "that is from `{source}`: the first answer of `{}` replaces it",
                self.source
            );
        }
        state.policy = Some(Arc::new(policy));
        Ok(true)
    }

    /// Looks at the source until [`Keeper::stop`].
    pub(super) fn run(&self, source: &mut dyn Source) {
        let trouble = Trouble::new(source.name(), "what is in force stays");
        let mut failures = 0u32;
        loop {
            let etag = self.lock().etag.clone();
            let result = source.next(etag.as_deref()).and_then(|news| match news {
                News::Same => Ok(()),
                News::Document { document, etag } => self.take(document, etag),
            });
            if self.is_stopped() {
                return;
            }
            match result {
                Ok(()) => {
                    failures = 0;
                    trouble.over();
                }
                Err(why) => {
                    failures = failures.saturating_add(1);
                    trouble.is(&why);
                }
            }
            let mut state = self.lock();
            state.looked = true;
            self.changed.notify_all();
            let until = Instant::now() + source.pause(failures);
            while !state.stopped && !state.hurry {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                state = self.wait(state, left);
            }
            if state.stopped {
                return;
            }
            if std::mem::take(&mut state.hurry) {
                source.forget();
            }
        }
    }

    /// Puts a document into force, if it may be.
    fn take(&self, mut document: Map<String, Value>, etag: Option<String>) -> Result<(), String> {
        let digest = digest(document.clone());
        let (before, same_source) = {
            let mut state = self.lock();
            if state.same_source && state.digest == digest && !document.contains_key("version") {
                return Ok(());
            }
            if !state.same_source {
                state.digest = [0; 32];
            }
            (state.policy.clone(), state.same_source)
        };
        let floor = before.as_ref().map_or(0, |policy| policy.version);
        let is_remote = document.contains_key("version");
        document.entry("version").or_insert_with(|| json!(floor.saturating_add(1)));
        let policy = Policy::read(&document)?;
        if let Some(node) = self.node.as_ref().filter(|node| **node != policy.node) {
            return Err(format!(
                "it is the policy of another node, {}, and this is {node}",
                policy.node
            ));
        }
        if let Some(before) = before.filter(|_| same_source && is_remote) {
            if before.node != policy.node && self.node.is_none() {
                return Err(format!(
                    "it is the policy of another node, {}, and this was {} so far (if that is meant, remove {})",
                    policy.node,
                    before.node,
                    self.path.display()
                ));
            }
            if policy.version < before.version {
                return Err(format!(
                    "its policy is older than ours: version {}, and we have {} (if that is meant, remove {})",
                    policy.version,
                    before.version,
                    self.path.display()
                ));
            }
            if policy.version == before.version {
                let mut state = self.lock();
                if state.digest != digest {
                    return Err(format!(
                        "its policy is another than ours, with the same version {}",
                        policy.version
                    ));
                }
                // The same once more: another tag for it, perhaps.
                state.etag = etag;
                return Ok(());
            }
        }
        let saved = format!(
            "{{\"castkeepAgent\":1,\"source\":{},\"etag\":{},\"answer\":{}}}\n",
            json!(self.source),
            json!(etag),
            Value::Object(document)
        );
        // A policy that cannot be kept still is the policy: what it forbids is forbidden.
        match disk::replace(&self.path, saved.as_bytes()) {
            Ok(()) => self.disk.over(),
            Err(e) => self.disk.is(&e.to_string()),
        }
        log::info!("policy version {} for {} from {}", policy.version, policy.node, self.source);
        let watchers = {
            let mut state = self.lock();
            state.policy = Some(Arc::new(policy));
            (state.digest, state.etag, state.same_source) = (digest, etag, true);
            state.looked = true;
            state.watchers.retain(|watcher| watcher.strong_count() > 0);
            state.watchers.clone()
        };
        self.changed.notify_all();
        watchers.iter().filter_map(Weak::upgrade).for_each(|watcher| watcher.wake());
        Ok(())
    }

    /// The policy in force. While there is none and the source was not looked at, waits for that.
    pub(super) fn policy(&self, wait: Duration) -> Option<Arc<Policy>> {
        let until = Instant::now() + wait;
        let mut state = self.lock();
        while state.policy.is_none() && !state.looked && !state.stopped {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.wait(state, left);
        }
        state.policy.clone()
    }

    /// Wakes the waker with each new policy, for as long as it is held by others.
    pub(super) fn watch(&self, waker: &Arc<Waker>) {
        let mut state = self.lock();
        state.watchers.retain(|watcher| watcher.strong_count() > 0);
        state.watchers.push(Arc::downgrade(waker));
    }

    /// Looks at the source again without a pause.
    pub(super) fn hurry(&self) {
        self.lock().hurry = true;
        self.changed.notify_all();
    }

    /// Ends [`Keeper::run`] once its source has answered, and wakes all who wait.
    pub(super) fn stop(&self) {
        let watchers = {
            let mut state = self.lock();
            state.stopped = true;
            state.watchers.clone()
        };
        self.changed.notify_all();
        watchers.iter().filter_map(Weak::upgrade).for_each(|watcher| watcher.wake());
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.lock().stopped
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, most: Duration) -> MutexGuard<'a, State> {
        self.changed.wait_timeout(state, most).unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Tells documents apart that differ in more than their version.
fn digest(mut document: Map<String, Value>) -> [u8; 32] {
    document.shift_remove("version");
    Sha256::digest(Value::Object(document).to_string()).into()
}
