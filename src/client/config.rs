//! What a client and a session are made from.

use alloc::string::String;
#[cfg(feature = "client")]
use alloc::string::ToString as _;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;
#[cfg(feature = "client")]
use std::path::Path;

use super::Transition;
#[cfg(feature = "client")]
use super::log::{LogSink, NoLog};
use super::sys;
#[cfg(feature = "tls")]
use super::tls::Tls;
#[cfg(feature = "ask")]
use crate::ask::{Named, Question};
use crate::cast::Kubernetes;
use crate::error::{Error, Misuse};
use crate::limits;
#[cfg(feature = "client")]
use crate::session::Protocols;
use crate::session::Release;
use crate::space;

/// What all sessions of a client share.
#[cfg(feature = "client")]
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

#[cfg(feature = "client")]
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

#[cfg(feature = "client")]
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
    /// The path of a Unix socket.
    Unix(Vec<u8>),
    /// Host name and port, for hosts that connect by themselves ([`Host`](super::Host)): nothing is resolved in here.
    Named(String),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix(path) => {
                f.write_str("unix:")?;
                path.utf8_chunks().try_for_each(|chunk| {
                    f.write_str(chunk.valid())?;
                    f.write_str(if chunk.invalid().is_empty() { "" } else { "\u{fffd}" })
                })
            }
            Self::Named(name) => f.write_str(name),
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
    /// `endpoint` as text.
    pub(crate) address: String,
    pub(crate) authority: String,
    pub(crate) group: Option<u16>,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<(Arc<Tls>, String)>,
    /// How it is called in logs.
    label: String,
}

impl RecorderAddr {
    /// A recorder as text, in clear text: `192.0.2.7:80`, `[2001:db8::7]:80`, `unix:/run/recorder`.
    ///
    /// # Errors
    /// `Misuse` for what is none of these; `NoMemory`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        const BAD: Error = Error::Misuse(Misuse::BadParameter);
        let (endpoint, authority) = match text.strip_prefix("unix:") {
            Some(path) => {
                if !path.starts_with('/') || path.len() > limits::SOCKET_PATH_BYTES {
                    return Err(BAD);
                }
                let mut bytes = Vec::new();
                space::extend(&mut bytes, path.as_bytes())?;
                (Endpoint::Unix(bytes), "localhost")
            }
            None => (Endpoint::Tcp(sys::socket_addr(text).ok_or(BAD)?), text),
        };
        Self::with(endpoint, authority, text)
    }

    /// A recorder by host name and port, for hosts that connect by themselves ([`Host`](super::Host)).
    ///
    /// # Errors
    /// `Misuse` for an empty or too long name; `NoMemory`.
    pub fn named(name: &str) -> Result<Self, Error> {
        if name.is_empty() || name.len() > limits::AUTHORITY_BYTES {
            return Err(Error::Misuse(Misuse::BadParameter));
        }
        Self::with(Endpoint::Named(space::string(name)?), name, name)
    }

    fn with(endpoint: Endpoint, authority: &str, label: &str) -> Result<Self, Error> {
        Ok(Self {
            endpoint,
            address: space::string(label)?,
            authority: space::string(authority)?,
            group: None,
            #[cfg(feature = "tls")]
            tls: None,
            label: space::string(label)?,
        })
    }

    /// What `Host` and `:authority` say.
    #[must_use]
    pub fn called(mut self, authority: String) -> Self {
        self.authority = authority;
        self
    }

    /// A copy; `NoMemory` where `clone` would abort.
    ///
    /// # Errors
    /// `NoMemory`.
    pub fn copy(&self) -> Result<Self, Error> {
        let endpoint = match &self.endpoint {
            Endpoint::Tcp(addr) => Endpoint::Tcp(*addr),
            Endpoint::Unix(path) => {
                let mut bytes = Vec::new();
                space::extend(&mut bytes, path)?;
                Endpoint::Unix(bytes)
            }
            Endpoint::Named(name) => Endpoint::Named(space::string(name)?),
        };
        Ok(Self {
            endpoint,
            address: space::string(&self.address)?,
            authority: space::string(&self.authority)?,
            group: self.group,
            #[cfg(feature = "tls")]
            tls: match &self.tls {
                Some((tls, name)) => Some((Arc::clone(tls), space::string(name)?)),
                None => None,
            },
            label: space::string(&self.label)?,
        })
    }

    /// Addresses with the same number are one recorder. Without one, an address is a recorder of its own.
    #[must_use]
    pub const fn group(mut self, group: u16) -> Self {
        self.group = Some(group);
        self
    }

    /// Where it listens.
    #[must_use]
    pub const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// How it is called in logs: its address, with its name where that is another.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    pub(crate) const fn is_tls(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.tls.is_some();
        #[cfg(not(feature = "tls"))]
        false
    }
}

#[cfg(feature = "client")]
impl RecorderAddr {
    /// A recorder at an address and port, in clear text.
    #[must_use]
    pub fn tcp(addr: SocketAddr) -> Self {
        Self::new(Endpoint::Tcp(addr), addr.to_string())
    }

    /// A recorder at a Unix socket, in clear text.
    #[must_use]
    pub fn unix(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref().as_os_str().as_encoded_bytes().to_vec();
        Self::new(Endpoint::Unix(path), "localhost".into())
    }

    fn new(endpoint: Endpoint, authority: String) -> Self {
        Self {
            label: endpoint.to_string(),
            address: endpoint.to_string(),
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
        self.relabel()
    }

    /// Speaks TLS. `server_name` is the host name or IP address that the certificate must be for.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: Arc<Tls>, server_name: impl Into<String>) -> Self {
        self.tls = Some((tls, server_name.into()));
        self.relabel()
    }

    fn relabel(mut self) -> Self {
        let scheme = if self.is_tls() { "https://" } else { "" };
        let plain = self.endpoint.to_string();
        // A name beside its address helps whoever reads the log; alone it would hide which address was meant.
        self.label = if matches!(self.endpoint, Endpoint::Tcp(_)) && plain != self.authority {
            alloc::format!("{scheme}{} ({plain})", self.authority)
        } else {
            alloc::format!("{scheme}{plain}")
        };
        self
    }
}

impl fmt::Display for RecorderAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.label)
    }
}

/// What the first line of the recording says, and what is particular to one session. Everything is optional.
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
    /// Not said, but done: how many bytes of each stream of output are recorded, and a gap with the number and the SHA-256 of the
    /// others. None: all. See [`is_transfer`](crate::session::volume::is_transfer).
    pub volume_bytes: Option<u64>,
    /// Set: the session is refused with this text, whatever recorders say.
    pub refusal: Option<String>,
    /// What policy is asked for this session; takes the place of [`PolicySource::question`].
    #[cfg(feature = "ask")]
    pub question: Option<Question>,
}

/// Called by the worker for each change of state, see [`Decision::observer`].
pub type Observer = Arc<dyn Fn(&Transition) + Send + Sync>;

/// Who is asked for the recorders of a session, instead of naming them.
#[cfg(feature = "ask")]
#[derive(Clone)]
#[non_exhaustive]
pub struct PolicySource {
    /// The agent of this node, or a coordination server.
    pub at: RecorderAddr,
    /// Who wants to log in.
    pub question: Question,
    /// For `Authorization: Bearer`, where one is wanted.
    pub token: Option<String>,
    /// How long the first verdict is waited for; `limits::POLICY_WAIT` unless set.
    pub wait: Option<Duration>,
    /// Set: without a verdict the session is refused with this text. Absent: the recorders and messages of the decision hold then.
    pub unreachable: Option<String>,
    /// For recorders that are named with TLS; without it they cannot be reached.
    #[cfg(feature = "tls")]
    pub tls: Option<Arc<Tls>>,
}

#[cfg(feature = "ask")]
impl PolicySource {
    /// Asks there; a session without a verdict is refused.
    ///
    /// # Errors
    /// `NoMemory`.
    pub fn new(at: RecorderAddr, question: Question) -> Result<Self, Error> {
        Ok(Self {
            at,
            question,
            token: None,
            wait: None,
            unreachable: Some(space::string(UNREACHABLE)?),
            #[cfg(feature = "tls")]
            tls: None,
        })
    }

    /// Where a recorder listens that a verdict named.
    pub(crate) fn recorder(&self, named: &Named) -> Result<RecorderAddr, Error> {
        let addr = RecorderAddr::parse(&named.address)?;
        #[cfg(feature = "tls")]
        if let Some(name) = &named.tls {
            let tls = Arc::clone(self.tls.as_ref().ok_or(Error::Link(crate::error::Link::Tls))?);
            let name = space::string(name)?;
            return Ok(RecorderAddr { tls: Some((tls, name)), ..addr });
        }
        if named.tls.is_some() {
            return Err(Error::Link(crate::error::Link::Tls));
        }
        Ok(addr)
    }

    pub(crate) fn copy(&self) -> Result<Self, Error> {
        let text = |text: &Option<String>| text.as_deref().map(space::string).transpose();
        Ok(Self {
            at: self.at.copy()?,
            question: self.question.copy()?,
            token: text(&self.token)?,
            wait: self.wait,
            unreachable: text(&self.unreachable)?,
            #[cfg(feature = "tls")]
            tls: self.tls.clone(),
        })
    }
}

/// What the user is told when there is no verdict.
#[cfg(feature = "ask")]
const UNREACHABLE: &str = "the policy for session recording cannot be had: the login is refused";

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
    /// Set: policy is asked, and what is said here of recorders and failures holds only where its verdict cannot be had.
    #[cfg(feature = "ask")]
    pub policy: Option<PolicySource>,
    /// Told each change of state, by the worker and under no lock. It must not block and not call into the session.
    pub observer: Option<Observer>,
}

impl Decision {
    /// Recording is required: refuse without a recorder, end when recording fails.
    #[must_use]
    pub fn closed(recorders: Vec<RecorderAddr>, reject: &str, terminate: &str) -> Self {
        Self {
            reject_message: Some(reject.into()),
            terminate_message: Some(terminate.into()),
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
            #[cfg(feature = "ask")]
            policy: None,
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
