//! What an agent is told, and why it does not start.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::control::http_client::HttpClientConfig;
use crate::limits;
use crate::recorder::config::duration;

/// Where clients look for the agent unless they were told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/castkeep/agent.sock";
/// Where the agent keeps its state unless it was told otherwise.
pub const DEFAULT_STATE: &str = "/var/lib/castkeep/agent";

/// Everything that an agent is told. Make one with [`AgentConfig::new`] and change what differs.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// The Unix socket that questions come in on.
    pub socket: PathBuf,
    /// The directory of the last good answer and of the notifications. Only one agent has it at a time.
    pub state: PathBuf,
    /// Where the policy comes from.
    pub source: SourceConfig,
    /// Stable id of this node. With control, the only node whose policy is taken; None: that of the first answer.
    pub node: Option<String>,
    /// Tailscale's LocalAPI, for the identity of sources.
    pub tailscale: Option<PathBuf>,
    /// What is answered while there never was a policy.
    pub without_policy: WithoutPolicy,
    /// The system log's datagram socket.
    pub syslog: PathBuf,
    /// How long control may hold a request back.
    pub poll_wait: Duration,
    /// How long its answer may take beside that.
    pub answer_time: Duration,
}

impl AgentConfig {
    /// The defaults.
    #[must_use]
    pub fn new(source: SourceConfig) -> Self {
        Self {
            socket: DEFAULT_SOCKET.into(),
            state: DEFAULT_STATE.into(),
            source,
            node: None,
            tailscale: None,
            without_policy: WithoutPolicy::Closed,
            syslog: "/dev/log".into(),
            poll_wait: duration(limits::AGENT_POLL_WAIT),
            answer_time: duration(limits::AGENT_ANSWER_TIME),
        }
    }
}

/// Where a policy comes from.
#[derive(Clone, Debug)]
pub enum SourceConfig {
    /// A compiled SSHPolicy, the JSON that a coordination server sends to its nodes.
    Compiled {
        /// The file.
        ssh_policy: PathBuf,
        /// A node registry, for the identity of sources and the TLS names of recorders.
        nodes: Option<PathBuf>,
    },
    /// castkeep control.
    Control(HttpClientConfig),
    /// A policy file.
    Files {
        /// The file.
        policy: PathBuf,
        /// A node registry; None: what Tailscale's LocalAPI says.
        nodes: Option<PathBuf>,
    },
}

/// What is answered while there never was a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithoutPolicy {
    /// Nobody is let in.
    Closed,
    /// Everybody is let in, and nothing is recorded.
    Open,
}

/// Why an agent does not start, for people.
#[derive(Debug)]
pub struct StartError(String);

impl StartError {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(super) fn at(path: &Path, why: impl fmt::Display) -> Self {
        Self(format!("{}: {why}", path.display()))
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}
