//! The node agent: what `castkeep agent` runs. It knows the policy, answers who may log in and how that is recorded, and passes
//! on what daemons tell about recordings that failed.
//!
//! ```text
//! control, or files ──► source thread ──► keeper ──► DIR/policy.json
//!                                           │ wakes
//! login-shell, sshd ──► socket ──► thread of a connection ──► verdict, and another when it changes
//!                                           │ notify
//!                                           └─► DIR/notify/ ──► notifier thread ──► control
//! ```
//!
//! The agent runs as root, once on a machine. It holds the node's token, so that no login shell has to, and it outlives all
//! processes that ask it: the last good answer, and what is to be told, are its own.
//!
//! # Threads
//! One for the socket, one for each connection to it (bounded in all and by user), one for the source, one for notifications
//! when there is a control. A connection that watches its verdict waits in `poll` for its peer's end and for the keeper.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod config;
mod decide;
mod disk;
mod engine;
mod identity;
mod keeper;
mod listen;
mod notify;
mod serve;
mod source;
mod spool;
mod sys;
mod syslog;
mod trouble;

pub use config::{
    AgentConfig, DEFAULT_SOCKET, DEFAULT_STATE, SourceConfig, StartError, WithoutPolicy,
};

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use keeper::Keeper;
use listen::Socket;
use notify::Notifier;
use serve::Shared;
use source::{CompiledSource, ControlSource, FilesSource, Nodes, Source};
use trouble::Trouble;

use crate::control::http_client::HttpClient;
use crate::limits;
use crate::localapi::LocalApi;
use crate::recorder::wake::Waker;

/// A running agent. Dropping it ends it; what it has on disk stays.
#[derive(Debug)]
pub struct Agent {
    shared: Arc<Shared>,
    socket: PathBuf,
    stop: Arc<Waker>,
    client: Option<HttpClient>,
    threads: Vec<JoinHandle<()>>,
    _lock: File,
}

impl Agent {
    /// Takes the state directory and the socket, and starts to answer: from disk, until the source has answered.
    ///
    /// # Errors
    ///
    /// [`StartError`] says what failed, where, and what to do about it. A source that does not answer is none.
    pub fn start(config: AgentConfig) -> Result<Self, StartError> {
        let state = config.state.clone();
        disk::own_dir(&state).map_err(|e| StartError::at(&state, e))?;
        let lock = disk::lock(&state.join("lock")).map_err(|e| StartError::at(&state, e))?;
        let lock =
            lock.ok_or_else(|| StartError::at(&state, "another agent has this state directory"))?;
        let client = match &config.source {
            SourceConfig::Control(http) => Some(
                HttpClient::new(http).map_err(|e| StartError::new(format!("--control: {e}")))?,
            ),
            _ => None,
        };
        let mut source = make_source(&config, client.as_ref())?;
        let notifier = Notifier::open(&state, &config.syslog, client.is_some())
            .map_err(|e| StartError::at(&state.join("notify"), e))?;
        let socket = Socket::bind(&config.socket)?;
        let stop = Arc::new(Waker::new().map_err(|e| StartError::new(format!("eventfd: {e}")))?);
        let api = config.tailscale.as_deref().map(|path| {
            let of = format!("Tailscale's LocalAPI at {}", path.display());
            let therefore = "sources in the tailnet have no identity by it";
            (LocalApi::new(path), Trouble::new(of, therefore))
        });
        // Sources on this machine are what the configuration says; only control could mean another node.
        let pin = config.node.clone().filter(|_| client.is_some());
        let shared = Arc::new(Shared {
            keeper: Keeper::open(&state, source.name(), pin),
            notifier,
            api,
            without_policy: config.without_policy,
        });
        let mut agent = Self {
            shared,
            socket: config.socket.clone(),
            stop,
            client,
            threads: Vec::new(),
            _lock: lock,
        };
        let shared = Arc::clone(&agent.shared);
        agent.spawn("castkeep-source", move || shared.keeper.run(source.as_mut()))?;
        if let Some(client) = agent.client.clone() {
            let (shared, timeout) = (Arc::clone(&agent.shared), config.answer_time);
            agent.spawn("castkeep-notify", move || shared.notifier.run(&client, timeout))?;
        }
        let (shared, stop) = (Arc::clone(&agent.shared), Arc::clone(&agent.stop));
        agent.spawn("castkeep-agent", move || socket.run(&shared, &stop))?;
        Ok(agent)
    }

    /// The socket that it listens at.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The version of the policy in force; None while there never was one.
    #[must_use]
    pub fn version(&self) -> Option<u64> {
        self.shared.keeper.policy(std::time::Duration::ZERO).map(|policy| policy.version)
    }

    /// Reads files again at once; a question that control holds back is not cut short.
    pub fn reload(&self) {
        self.shared.keeper.hurry();
    }

    fn spawn(
        &mut self,
        name: &str,
        body: impl FnOnce() + Send + 'static,
    ) -> Result<(), StartError> {
        let thread = thread::Builder::new().name(name.into()).stack_size(STACK_BYTES).spawn(body);
        self.threads.push(thread.map_err(|e| StartError::new(format!("{name}: {e}")))?);
        Ok(())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.shared.keeper.stop();
        self.shared.notifier.stop();
        if let Some(client) = &self.client {
            client.shutdown();
        }
        self.stop.wake();
        for thread in self.threads.drain(..) {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}

fn make_source(
    config: &AgentConfig,
    client: Option<&HttpClient>,
) -> Result<Box<dyn Source>, StartError> {
    let needs_node = || StartError::new("--node is missing: which node of the registry this is");
    match &config.source {
        SourceConfig::Control(_) => {
            let client = client.ok_or_else(|| StartError::new("--control is missing"))?.clone();
            let source = ControlSource::new(client, config.poll_wait, config.answer_time);
            Ok(Box::new(source))
        }
        SourceConfig::Compiled { ssh_policy, nodes } => {
            let nodes = nodes.clone().map_or(Nodes::Nothing, Nodes::file);
            let node = config.node.clone().unwrap_or_else(|| UNNAMED.into());
            Ok(Box::new(CompiledSource::new(ssh_policy.clone(), nodes, node)))
        }
        SourceConfig::Files { policy, nodes } => {
            let nodes = match (nodes, &config.tailscale) {
                (Some(nodes), _) if config.node.is_none() => {
                    return Err(needs_node_of(nodes).unwrap_or_else(needs_node));
                }
                (Some(nodes), _) => Nodes::file(nodes.clone()),
                (None, Some(api)) => Nodes::local_api(LocalApi::new(api)),
                (None, None) => {
                    return Err(StartError::new(
                        "--nodes is missing: a registry, or --tailscale for what Tailscale knows",
                    ));
                }
            };
            Ok(Box::new(FilesSource::new(policy.clone(), nodes, config.node.clone())))
        }
    }
}

/// A registry that cannot be read is the better thing to say.
fn needs_node_of(nodes: &Path) -> Option<StartError> {
    match disk::read(nodes, limits::REGISTRY_BYTES) {
        Ok(Some(_)) => None,
        Ok(None) => Some(StartError::at(nodes, "there is no such file")),
        Err(e) => Some(StartError::at(nodes, e)),
    }
}

/// What a compiled policy's node is called when nobody says: it is for one node, and does not name it.
const UNNAMED: &str = "this";
/// The source thread parses policies, which nest by less than a hundred levels.
const STACK_BYTES: usize = 2 * 1024 * 1024;
