//! What control knows now: policy, registry, tokens, announced recorders, and a version that only rises.
//!
//! ```text
//! files changed ──► read, parse ──► broken: logged, the old ones stay
//!                        │ good
//! announcements ─────────┴──► version on disk ──► the new world ──► everybody who waits is woken
//! ```

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::announced::{Announced, Announcement};
use super::auth::Tokens;
use super::config::ControlConfig;
use super::disk;
use super::view::Inputs;
use crate::limits;
use crate::recorder::StartError;
use crate::recorder::config::span;
use crate::time::{Span, Tick};

/// Everything that answers are made from, as of one version.
#[derive(Debug)]
pub(super) struct World {
    pub(super) version: u64,
    pub(super) inputs: Arc<Inputs>,
    pub(super) announced: Announced,
    pub(super) tokens: Arc<Tokens>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Keeper {
    policy: PathBuf,
    nodes: PathBuf,
    tokens: Option<PathBuf>,
    state_dir: PathBuf,
    lasts: Span,
    state: Mutex<State>,
    current: RwLock<Arc<World>>,
    /// Whether the files as they are now are in use.
    pub(super) broken: AtomicBool,
    pub(super) reloads: AtomicU64,
}

#[derive(Debug)]
struct State {
    version: u64,
    announced: Announced,
    inputs: Arc<Inputs>,
    digest: [u8; 32],
    tokens: Arc<Tokens>,
    files: Stamps,
    tokens_file: Stamps,
    /// There is something that the disk did not take yet, and nobody sees before.
    unsaved: bool,
}

/// By which a file is known to be the one that was read: time, size and number of each.
type Stamps = Vec<Option<(i64, i64, u64, u64, u64)>>;

/// Why nothing came of a change.
#[derive(Debug)]
pub(super) enum Refused {
    Full(&'static str),
    Disk(io::Error),
}

impl Keeper {
    /// Reads everything. With a policy or registry that is broken it begins with the last good ones, if there ever were any.
    pub(super) fn open(config: &ControlConfig, now: Tick) -> Result<Self, StartError> {
        let dir = &config.state;
        let disk_error = |what: &str, e: &io::Error| {
            StartError::new(&format!("--state {}: {what}", dir.display()), &e.to_string(), "")
        };
        let tokens_file = stamps(config.tokens.as_deref().into_iter());
        let tokens = match &config.tokens {
            Some(path) => read_tokens(path).map_err(|why| StartError::new("--tokens", &why, ""))?,
            None => Tokens::default(),
        };
        let files = stamps([config.policy.as_path(), config.nodes.as_path()].into_iter());
        let mut broken = false;
        let read = read_inputs(&config.policy, &config.nodes);
        let (inputs, texts) = match read {
            Ok(read) => read,
            Err(why) => {
                let good = load_good(dir).map_err(|e| disk_error("good.json", &e))?;
                let Some(good) = good else {
                    return Err(StartError::new(
                        "policy",
                        &why.join("\n"),
                        "mend it: there is no earlier one to go on with",
                    ));
                };
                report(&why);
                log::error!(
                    "the last good policy of {} is used until the files are mended",
                    dir.display()
                );
                broken = true;
                good
            }
        };
        let stored = disk::read_if_there(&dir.join(STATE), limits::CONTROL_FILE_BYTES)
            .map_err(|e| disk_error(STATE, &e))?;
        let stored = stored.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        let field = |key: &str| stored.as_ref().and_then(|v| v.get(key));
        let version = field("version").and_then(Value::as_u64).unwrap_or(0);
        let lasts = Span(span(config.heartbeat).0.saturating_mul(3));
        let announced = field("recorders")
            .map(|list| Announced::from_json(list, now, lasts))
            .unwrap_or_default();
        let (inputs, tokens) = (Arc::new(inputs), Arc::new(tokens));
        let world = World {
            version,
            inputs: Arc::clone(&inputs),
            announced: announced.clone(),
            tokens: Arc::clone(&tokens),
        };
        let keeper = Self {
            policy: config.policy.clone(),
            nodes: config.nodes.clone(),
            tokens: config.tokens.clone(),
            state_dir: dir.clone(),
            lasts,
            state: Mutex::new(State {
                version,
                announced,
                inputs,
                digest: texts.digest(),
                tokens,
                files,
                tokens_file,
                unsaved: false,
            }),
            current: RwLock::new(Arc::new(world)),
            broken: AtomicBool::new(broken),
            reloads: AtomicU64::new(0),
        };
        if !broken {
            save_good(dir, &texts).map_err(|e| disk_error("good.json", &e))?;
        }
        keeper.publish(&mut keeper.state()).map_err(|e| disk_error(STATE, &e))?;
        Ok(keeper)
    }

    /// What is true now.
    pub(super) fn current(&self) -> Arc<World> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the files again when they changed, or in any case. True: there is something new.
    pub(super) fn reload(&self, in_any_case: bool) -> bool {
        let mut state = self.state();
        let mut changed = self.reload_tokens(&mut state, in_any_case);
        // Before the reading: what changes in between is seen the next time.
        let files = stamps([self.policy.as_path(), self.nodes.as_path()].into_iter());
        if in_any_case || files != state.files {
            state.files = files;
            match read_inputs(&self.policy, &self.nodes) {
                Ok((inputs, texts)) => {
                    if self.broken.swap(false, Ordering::Relaxed) {
                        log::info!("policy and registry can be read again");
                    }
                    let digest = texts.digest();
                    if digest != state.digest {
                        if let Err(e) = save_good(&self.state_dir, &texts) {
                            log::error!("{}: {e}", self.state_dir.join(GOOD).display());
                        }
                        state.digest = digest;
                        state.inputs = Arc::new(inputs);
                        state.unsaved = true;
                    }
                }
                Err(why) => {
                    self.broken.store(true, Ordering::Relaxed);
                    report(&why);
                    log::error!("the policy of version {} stays in force", state.version);
                }
            }
            self.reloads.fetch_add(1, Ordering::Relaxed);
        }
        if state.unsaved {
            match self.publish(&mut state) {
                Ok(()) => {
                    changed = true;
                    log::info!("policy version {}", state.version);
                }
                Err(e) => {
                    log::error!("{}: {e}: nothing new is handed out", self.state_dir.display())
                }
            }
        } else if changed {
            self.swap(&state);
        }
        changed
    }

    /// Takes an announcement. True: there is something new.
    pub(super) fn announce(
        &self,
        now: Tick,
        holder: &str,
        said: Announcement,
    ) -> Result<bool, Refused> {
        let mut state = self.state();
        let news =
            state.announced.announce(now, self.lasts, holder, said).map_err(Refused::Full)?;
        state.unsaved |= news;
        self.publish_if_unsaved(&mut state)?;
        Ok(news)
    }

    /// Forgets a recorder. True: there is something new.
    pub(super) fn withdraw(&self, holder: &str) -> Result<bool, Refused> {
        let mut state = self.state();
        let news = state.announced.withdraw(holder);
        state.unsaved |= news;
        self.publish_if_unsaved(&mut state)?;
        Ok(news)
    }

    /// Drops recorders that were silent. True: there is something new.
    pub(super) fn expire(&self, now: Tick) -> bool {
        let mut state = self.state();
        let over = state.announced.expire(now);
        for holder in &over {
            log::warn!("recorder {holder} was silent for too long and is no longer handed out");
        }
        state.unsaved |= !over.is_empty();
        if !state.unsaved {
            return false;
        }
        match self.publish(&mut state) {
            Ok(()) => true,
            Err(e) => {
                log::error!("{}: {e}: nothing new is handed out", self.state_dir.display());
                false
            }
        }
    }

    fn reload_tokens(&self, state: &mut State, in_any_case: bool) -> bool {
        let Some(path) = &self.tokens else { return false };
        let now = stamps([path.as_path()].into_iter());
        if !in_any_case && now == state.tokens_file {
            return false;
        }
        state.tokens_file = now;
        match read_tokens(path) {
            Ok(tokens) => {
                log::info!("{} tokens", tokens.len());
                state.tokens = Arc::new(tokens);
                true
            }
            Err(why) => {
                log::error!("{why}; the tokens of before stay valid");
                false
            }
        }
    }

    fn publish_if_unsaved(&self, state: &mut State) -> Result<(), Refused> {
        if state.unsaved { self.publish(state).map_err(Refused::Disk) } else { Ok(()) }
    }

    /// The version is on disk before anybody sees it. That of an empty or restored directory begins at the time of day, so that
    /// nodes do not find themselves ahead.
    fn publish(&self, state: &mut State) -> io::Result<()> {
        state.unsaved = true;
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let version = state.version.saturating_add(1).max(clock);
        let bytes = json!({
            "castkeepControl": 1,
            "version": version,
            "recorders": state.announced.to_json(),
        });
        disk::replace(&self.state_dir.join(STATE), bytes.to_string().as_bytes())?;
        state.version = version;
        state.unsaved = false;
        self.swap(state);
        Ok(())
    }

    fn swap(&self, state: &State) {
        let world = World {
            version: state.version,
            inputs: Arc::clone(&state.inputs),
            announced: state.announced.clone(),
            tokens: Arc::clone(&state.tokens),
        };
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(world);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Policy and registry as they stood in the files.
struct Texts {
    policy: Vec<u8>,
    nodes: Vec<u8>,
}

impl Texts {
    fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.policy.len().to_le_bytes());
        hash.update(&self.policy);
        hash.update(&self.nodes);
        hash.finalize().into()
    }
}

fn read_inputs(policy: &Path, nodes: &Path) -> Result<(Inputs, Texts), Vec<String>> {
    let read = |path: &Path, most: usize| {
        disk::read(path, most).map_err(|e| vec![format!("{}: {e}", path.display())])
    };
    let texts = Texts {
        policy: read(policy, limits::POLICY_BYTES)?,
        nodes: read(nodes, limits::REGISTRY_BYTES)?,
    };
    let (inputs, warnings) =
        Inputs::parse(&texts.policy, &texts.nodes, &policy.display(), &nodes.display())?;
    for warning in warnings.iter().take(SAID) {
        log::warn!("{warning}");
    }
    Ok((inputs, texts))
}

fn read_tokens(path: &Path) -> Result<Tokens, String> {
    let told = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    let text = disk::read(path, limits::CONTROL_FILE_BYTES).map_err(|e| told(&e))?;
    Tokens::parse(&text).map_err(|e| told(&e))
}

fn report(why: &[String]) {
    for line in why.iter().take(SAID) {
        log::error!("{line}");
    }
    if let Some(more) = why.len().checked_sub(SAID).filter(|n| *n > 0) {
        log::error!("and {more} more: `castkeep policy check` shows them all");
    }
}

fn save_good(dir: &Path, texts: &Texts) -> io::Result<()> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let bytes = json!({ "policy": text(&texts.policy), "nodes": text(&texts.nodes) });
    disk::replace(&dir.join(GOOD), bytes.to_string().as_bytes())
}

fn load_good(dir: &Path) -> io::Result<Option<(Inputs, Texts)>> {
    // JSON within JSON is longer: each quotation mark takes two bytes.
    let most = (limits::POLICY_BYTES + limits::REGISTRY_BYTES) * 2;
    let bytes = disk::read_if_there(&dir.join(GOOD), most)?;
    let Some(bytes) = bytes else { return Ok(None) };
    let value: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    let text =
        |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().as_bytes().to_vec();
    let texts = Texts { policy: text("policy"), nodes: text("nodes") };
    let parsed = Inputs::parse(&texts.policy, &texts.nodes, &"policy", &"nodes");
    Ok(parsed.ok().map(|(inputs, _)| (inputs, texts)))
}

fn stamps<'a>(paths: impl Iterator<Item = &'a Path>) -> Stamps {
    let of = |path: &Path| {
        let facts = fs::metadata(path).ok()?;
        Some((facts.mtime(), facts.mtime_nsec(), facts.size(), facts.ino(), facts.dev()))
    };
    paths.map(of).collect()
}

const STATE: &str = "state.json";
const GOOD: &str = "good.json";
/// Messages of one file that go to the log.
const SAID: usize = 20;
