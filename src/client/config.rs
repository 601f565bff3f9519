//! What a client and a session are made from.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "tls")]
use super::tls::Tls;
use super::{LogSink, NoLog, Transition};
use crate::cast::Kubernetes;
use crate::limits;
use crate::session::{Protocols, Release};

/// What all sessions of a client share.
#[derive(Clone)]
#[non_exhaustive]
pub struct ClientConfig {
    /// Bytes of a session that are kept until a recorder has them for good; between `limits::RING_MIN_BYTES` and
    /// `limits::RING_MAX_BYTES`. The rate of a session is bounded by ring / commit latency.
    pub ring_bytes: usize,
    /// Where messages of the client go. They never hold terminal bytes or secrets.
    pub log: Arc<dyn LogSink>,
    /// Most sessions at a time; past them [`Client::open`](super::Client::open) answers `Full`.
    pub max_sessions: usize,
    /// What is spoken.
    pub protocols: Protocols,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            ring_bytes: limits::RING_DEFAULT_BYTES,
            log: Arc::new(NoLog),
            max_sessions: limits::SESSIONS_DEFAULT,
            protocols: Protocols::default(),
        }
    }
}

impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConfig")
            .field("ring_bytes", &self.ring_bytes)
            .field("max_sessions", &self.max_sessions)
            .field("protocols", &self.protocols)
            .finish_non_exhaustive()
    }
}

/// Where a recorder listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// An address and port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// One address of a recorder.
///
/// ```
/// use castkeep::client::RecorderAddr;
/// let first = RecorderAddr::tcp("192.0.2.7:80".parse().unwrap());
/// // Two addresses of one recorder: after its failure both are tried last.
/// let a = RecorderAddr::tcp("192.0.2.8:80".parse().unwrap()).authority("rec.example:80").group(1);
/// let b = RecorderAddr::tcp("[2001:db8::8]:80".parse().unwrap()).authority("rec.example:80").group(1);
/// # let _ = (first, a, b);
/// ```
#[derive(Clone, Debug)]
pub struct RecorderAddr {
    pub(crate) endpoint: Endpoint,
    pub(crate) authority: String,
    pub(crate) group: Option<u16>,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<(Arc<Tls>, String)>,
}

impl RecorderAddr {
    /// A recorder at an address and port, in clear text.
    #[must_use]
    pub fn tcp(addr: SocketAddr) -> Self {
        Self::new(Endpoint::Tcp(addr), addr.to_string())
    }

    /// A recorder at a Unix socket, in clear text.
    #[must_use]
    pub fn unix(path: impl AsRef<Path>) -> Self {
        Self::new(Endpoint::Unix(path.as_ref().to_owned()), "localhost".to_owned())
    }

    fn new(endpoint: Endpoint, authority: String) -> Self {
        Self {
            endpoint,
            authority,
            group: None,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// What `Host` and `:authority` say; the address itself unless set.
    #[must_use]
    pub fn authority(mut self, authority: impl Into<String>) -> Self {
        self.authority = authority.into();
        self
    }

    /// Addresses with the same number are one recorder. Without one, an address is a recorder of its own.
    #[must_use]
    pub const fn group(mut self, group: u16) -> Self {
        self.group = Some(group);
        self
    }

    /// Speaks TLS. `server_name` is the host name or IP address that the certificate must be for.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: Arc<Tls>, server_name: impl Into<String>) -> Self {
        self.tls = Some((tls, server_name.into()));
        self
    }

    /// Where it listens.
    #[must_use]
    pub const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(crate) const fn is_tls(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.tls.is_some();
        #[cfg(not(feature = "tls"))]
        false
    }
}

impl fmt::Display for RecorderAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls() { "https://" } else { "" };
        let plain = self.endpoint.to_string();
        // A name beside its address helps whoever reads the log; alone it would hide which address was meant.
        if matches!(self.endpoint, Endpoint::Tcp(_)) && plain != self.authority {
            return write!(f, "{scheme}{} ({plain})", self.authority);
        }
        write!(f, "{scheme}{plain}")
    }
}

/// What the first line of the recording says. Everything is optional.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Columns and rows; zeros without a terminal.
    pub size: (u16, u16),
    /// The command; none for a shell.
    pub command: Option<String>,
    /// Environment to record, in its order, for example TERM.
    pub env: Option<Vec<(String, String)>>,
    /// Name of the node that the user came from.
    pub src_node: String,
    /// Its stable id.
    pub src_node_id: String,
    /// Its tags.
    pub src_node_tags: Vec<String>,
    /// Its user's id; only without tags.
    pub src_node_user_id: Option<i64>,
    /// Its user's login name; only without tags.
    pub src_node_user: Option<String>,
    /// The user as the client asked for.
    pub ssh_user: String,
    /// The user that the session runs as.
    pub local_user: String,
    /// Shared by all sessions of one SSH connection.
    pub connection_id: String,
    /// The node that the session runs on.
    pub node: String,
    /// `shell`, `exec` or `subsystem`; made from `command` when empty.
    pub kind: String,
    /// Program and version that records; `castkeep/<version>` when empty.
    pub program: String,
    /// Only for `kubectl` sessions.
    pub kubernetes: Option<Kubernetes>,
}

/// Called by the worker for each change of state, see [`Decision::observer`].
pub type Observer = Arc<dyn Fn(&Transition) + Send + Sync>;

/// What policy wants for a session: who records it and what happens when that is impossible.
#[derive(Clone)]
#[non_exhaustive]
pub struct Decision {
    /// In order of preference; at most `limits::RECORDERS_MAX`. None: nothing is recorded.
    pub recorders: Vec<RecorderAddr>,
    /// Set: without a recorder at the start the session is refused with this text. Absent: it goes on unrecorded.
    pub reject_message: Option<String>,
    /// Set: when recording fails later and the grace is over, the session is ended with this text. Absent: it goes on.
    pub terminate_message: Option<String>,
    /// When output may be shown: see [`Session::released`](super::Session::released).
    pub release: Release,
    /// With `release=commit`, take recorders without commits as well.
    pub stock_with_release_commit: bool,
    /// Whether [`Session::input`](super::Session::input) is recorded.
    pub record_input: bool,
    /// From the first loss until a commit advances; `limits::RESUME_GRACE` unless set.
    pub grace: Option<Duration>,
    /// How long a fail-open session is ever held up; `limits::STALL_LIMIT` unless set.
    pub stall_limit: Option<Duration>,
    /// All recorders together at the start; `limits::START` unless set.
    pub start_limit: Option<Duration>,
    /// Told each change of state, by the worker and under no lock. It must not block and not call into the session.
    pub observer: Option<Observer>,
}

impl Decision {
    /// Recording is required: refuse without a recorder, end when recording fails.
    #[must_use]
    pub fn closed(recorders: Vec<RecorderAddr>, reject: &str, terminate: &str) -> Self {
        Self {
            reject_message: Some(reject.to_owned()),
            terminate_message: Some(terminate.to_owned()),
            ..Self::open(recorders)
        }
    }

    /// Recording is wished for: the session goes on without it.
    #[must_use]
    pub const fn open(recorders: Vec<RecorderAddr>) -> Self {
        Self {
            recorders,
            reject_message: None,
            terminate_message: None,
            release: Release::Ring,
            stock_with_release_commit: false,
            record_input: false,
            grace: None,
            stall_limit: None,
            start_limit: None,
            observer: None,
        }
    }
}

impl fmt::Debug for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decision")
            .field("recorders", &self.recorders)
            .field("reject_message", &self.reject_message)
            .field("terminate_message", &self.terminate_message)
            .field("release", &self.release)
            .finish_non_exhaustive()
    }
}
