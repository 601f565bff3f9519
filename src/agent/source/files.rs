//! Files on this machine, looked at twice a second.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use super::{News, Source};
use crate::agent::{disk, engine};
use crate::limits;
use crate::localapi::LocalApi;
use crate::recorder::config::duration;

/// A policy file and a registry.
#[derive(Debug)]
pub(in crate::agent) struct FilesSource {
    policy: Watched,
    nodes: Nodes,
    /// None: the node that the LocalAPI says we are.
    node: Option<String>,
    name: String,
    last: Option<Result<(), String>>,
}

/// Where the registry comes from.
#[derive(Debug)]
pub(in crate::agent) enum Nodes {
    File(Watched),
    LocalApi { api: LocalApi, asked: Option<Instant>, text: Result<Vec<u8>, String> },
    Nothing,
}

impl Nodes {
    pub(in crate::agent) fn file(path: PathBuf) -> Self {
        Self::File(Watched::new(path, limits::REGISTRY_BYTES))
    }

    pub(in crate::agent) fn local_api(api: LocalApi) -> Self {
        Self::LocalApi { api, asked: None, text: Err("not asked yet".into()) }
    }

    fn look(&mut self) -> bool {
        match self {
            Self::File(file) => file.look(),
            Self::LocalApi { api, asked, text } => {
                let due = duration(limits::AGENT_STATUS_TICK);
                if asked.is_some_and(|at| at.elapsed() < due) {
                    return false;
                }
                *asked = Some(Instant::now());
                let new =
                    api.status().map(String::into_bytes).map_err(|e| format!("LocalAPI: {e}"));
                let changed = *text != new;
                *text = new;
                changed
            }
            Self::Nothing => false,
        }
    }

    fn bytes(&self) -> Result<Option<&[u8]>, String> {
        match self {
            Self::File(file) => file.bytes().map(Some),
            Self::LocalApi { text, .. } => text.as_deref().map(Some).map_err(Clone::clone),
            Self::Nothing => Ok(None),
        }
    }

    fn forget(&mut self) {
        match self {
            Self::File(file) => file.stamp = None,
            Self::LocalApi { asked, .. } => *asked = None,
            Self::Nothing => {}
        }
    }
}

impl FilesSource {
    pub(in crate::agent) fn new(policy: PathBuf, nodes: Nodes, node: Option<String>) -> Self {
        let name = format!("file {}", policy.display());
        let policy = Watched::new(policy, limits::POLICY_BYTES);
        Self { policy, nodes, node, name, last: None }
    }

    fn read(&self) -> Result<News, String> {
        let policy = self.policy.bytes()?;
        let nodes = self.nodes.bytes()?.unwrap_or(b"{\"castkeepNodes\":1,\"nodes\":[]}");
        let own = match &self.node {
            Some(node) => node.clone(),
            None => self_id(nodes).ok_or("the LocalAPI does not say which node this is")?,
        };
        let document = engine::compile_files(policy, nodes, &own)?;
        Ok(News::Document { document, etag: None })
    }
}

impl Source for FilesSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn next(&mut self, _etag: Option<&str>) -> Result<News, String> {
        let changed = [self.policy.look(), self.nodes.look()];
        if let (Some(last), [false, false]) = (&self.last, changed) {
            return last.clone().map(|()| News::Same);
        }
        let news = self.read();
        self.last = Some(news.as_ref().map(drop).map_err(Clone::clone));
        news
    }

    fn pause(&self, _failures: u32) -> Duration {
        duration(limits::AGENT_FILE_TICK)
    }

    fn forget(&mut self) {
        self.policy.stamp = None;
        self.nodes.forget();
    }
}

/// Rules that were compiled elsewhere.
#[derive(Debug)]
pub(in crate::agent) struct CompiledSource {
    rules: Watched,
    nodes: Nodes,
    node: String,
    name: String,
    last: Option<Result<(), String>>,
}

impl CompiledSource {
    pub(in crate::agent) fn new(rules: PathBuf, nodes: Nodes, node: String) -> Self {
        let name = format!("file {}", rules.display());
        let rules = Watched::new(rules, limits::POLICY_BYTES);
        Self { rules, nodes, node, name, last: None }
    }
}

impl Source for CompiledSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn next(&mut self, _etag: Option<&str>) -> Result<News, String> {
        let changed = [self.rules.look(), self.nodes.look()];
        if let (Some(last), [false, false]) = (&self.last, changed) {
            return last.clone().map(|()| News::Same);
        }
        let document = self
            .rules
            .bytes()
            .and_then(|rules| engine::compiled_file(rules, self.nodes.bytes()?, &self.node));
        self.last = Some(document.as_ref().map(drop).map_err(Clone::clone));
        document.map(|document| News::Document { document, etag: None })
    }

    fn pause(&self, _failures: u32) -> Duration {
        duration(limits::AGENT_FILE_TICK)
    }

    fn forget(&mut self) {
        self.rules.stamp = None;
        self.nodes.forget();
    }
}

/// A file whose content is read again when it may have changed.
#[derive(Debug)]
pub(in crate::agent) struct Watched {
    path: PathBuf,
    most: usize,
    stamp: Option<Stamp>,
    content: Result<Vec<u8>, String>,
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stamp {
    Missing,
    Is { device: u64, inode: u64, size: u64, modified: (i64, i64), changed: (i64, i64) },
}

impl Watched {
    fn new(path: PathBuf, most: usize) -> Self {
        Self { path, most, stamp: None, content: Err("not read yet".into()) }
    }

    fn bytes(&self) -> Result<&[u8], String> {
        self.content.as_deref().map_err(Clone::clone)
    }

    /// Whether the content is another than before.
    fn look(&mut self) -> bool {
        let (stamp, settled) = stamp(&self.path);
        if self.stamp == Some(stamp) {
            return false;
        }
        self.stamp = settled.then_some(stamp);
        let read = match disk::read(&self.path, self.most) {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => Err(format!("{}: there is no such file", self.path.display())),
            Err(e) => Err(format!("{}: {e}", self.path.display())),
        };
        let changed = self.content != read;
        self.content = read;
        changed
    }
}

/// The stamp, and whether the file was left alone for a while.
fn stamp(path: &Path) -> (Stamp, bool) {
    let Ok(facts) = std::fs::metadata(path) else { return (Stamp::Missing, true) };
    let age = facts.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
    let settled = age.is_some_and(|age| age > duration(limits::AGENT_FILE_SETTLE));
    let stamp = Stamp::Is {
        device: facts.dev(),
        inode: facts.ino(),
        size: facts.size(),
        modified: (facts.mtime(), facts.mtime_nsec()),
        changed: (facts.ctime(), facts.ctime_nsec()),
    };
    (stamp, settled)
}

/// The id of the machine that `tailscale status --json` is from.
fn self_id(status: &[u8]) -> Option<String> {
    let status: Value = serde_json::from_slice(status).ok()?;
    Some(status.get("Self")?.get("ID")?.as_str()?.to_owned())
}
