//! How a recorder is set up, and why it did not start.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::allow::AllowUpload;
use super::storage::{Quotas, Recovery, Store, StoreConfig};
use crate::limits;
use crate::time::Span;

/// Where to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Port 0 lets the system choose.
    pub address: SocketAddr,
    /// Clear text although there is a certificate: for peers inside a tunnel that encrypts already.
    pub clear: bool,
}

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Self {
        Self { address, clear: false }
    }
}

/// The PEM files of a TLS listener. They are read again by [`super::Recorder::reload`].
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// Certificate chain, the recorder's own certificate first.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Certificates of the authorities whose client certificates are accepted.
    pub client_ca: Option<PathBuf>,
}

/// A certificate from Tailscale's LocalAPI. It is renewed in time, and the last good one is kept.
#[derive(Clone, Debug)]
pub struct TailscaleTls {
    /// The socket of tailscaled.
    pub socket: PathBuf,
    /// The name of this node that the certificate is for.
    pub domain: String,
    /// Certificates of the authorities whose client certificates are accepted.
    pub client_ca: Option<PathBuf>,
}

/// Everything that a recorder is told. Start from [`RecorderConfig::new`].
#[derive(Clone, Debug)]
pub struct RecorderConfig {
    /// Upload listeners, at least one.
    pub listen: Vec<Listen>,
    /// The storage directory.
    pub dst: PathBuf,
    /// Certificate and key; without, the listeners are clear text.
    pub tls: Option<TlsFiles>,
    /// The certificate comes from Tailscale's LocalAPI. Not together with [`RecorderConfig::tls`].
    pub tailscale_tls: Option<TailscaleTls>,
    /// Peers are who Tailscale's WhoIs at this socket says they are.
    pub tailscale: Option<PathBuf>,
    /// Who may upload. None: the nodes of the tailnet with [`RecorderConfig::tailscale`], holders of a client certificate when
    /// there is a client CA, else peers on loopback. A listener off loopback needs a stated choice, and so do both together.
    pub allow_upload: Option<AllowUpload>,
    /// Health and metrics, over HTTP/1.1 without TLS.
    pub metrics_listen: Vec<SocketAddr>,
    /// How long stock uploads are served once a stop was asked for.
    pub drain_timeout: Duration,
    /// How long a recording without a connection can be resumed.
    pub resume_window: Duration,
    /// Connections at a time; past it they get 503.
    pub max_connections: usize,
    /// New recordings are refused when the file system has less than this many bytes free. None: the storage's default.
    pub min_free: Option<u64>,
    /// Bounds on sessions and nodes.
    pub quotas: Quotas,
    /// Directories 0750 and files 0640 instead of 0700 and 0600.
    pub group_readable: bool,
    /// Time for a request head and for a TLS handshake.
    pub head_time: Duration,
    /// How long a connection may be without a request.
    pub idle_time: Duration,
    /// Silence of an HTTP/2 peer before it is asked whether it lives.
    pub ping_time: Duration,
    /// How long sent bytes may stay unacknowledged by the peer's TCP; a peer that nothing is sent to is probed after as long.
    pub user_timeout: Duration,
    /// Whether commit and resume are offered. Off only in tests that need a stock recorder.
    pub extension: bool,
    /// How often a certificate of the LocalAPI is asked for. Other than the default only in tests.
    #[doc(hidden)]
    pub certificate_period: Duration,
    /// For tests: a connection panics when its body has reached so many bytes.
    #[doc(hidden)]
    pub panic_at: Option<u64>,
}

impl RecorderConfig {
    /// A recorder on `127.0.0.1:0` that stores into `dst`.
    #[must_use]
    pub fn new(dst: impl Into<PathBuf>) -> Self {
        Self {
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()],
            dst: dst.into(),
            tls: None,
            tailscale_tls: None,
            tailscale: None,
            allow_upload: None,
            metrics_listen: Vec::new(),
            drain_timeout: duration(limits::DRAIN_TIMEOUT),
            resume_window: duration(limits::RESUME_WINDOW),
            max_connections: limits::CONNECTIONS_DEFAULT,
            min_free: None,
            quotas: Quotas::default(),
            group_readable: false,
            head_time: duration(limits::HEAD_TIME),
            idle_time: duration(limits::IDLE_TIME),
            ping_time: duration(limits::PING_TIME),
            user_timeout: duration(limits::TCP_USER_TIMEOUT),
            extension: true,
            certificate_period: duration(limits::CERTIFICATE_PERIOD),
            panic_at: None,
        }
    }

    /// Who may upload, once the defaults are filled in.
    ///
    /// # Errors
    ///
    /// A listener off loopback without a stated choice, or a choice that cannot hold.
    pub(crate) fn uploaders(&self) -> Result<AllowUpload, StartError> {
        let client_ca = self.tls.as_ref().is_some_and(|t| t.client_ca.is_some())
            || self.tailscale_tls.as_ref().is_some_and(|t| t.client_ca.is_some());
        if let Some(allow) = &self.allow_upload {
            if allow.needs_whois() && self.tailscale.is_none() {
                return Err(StartError::new(
                    "--allow-upload=tailnet",
                    "nobody is asked who the nodes of the tailnet are",
                    "give --tailscale too",
                ));
            }
            if allow.certificate && !client_ca {
                return Err(StartError::new(
                    "--allow-upload=certificate",
                    "there is no --client-ca, so that no client certificate could be checked",
                    "give --client-ca FILE together with --tls-cert and --tls-key",
                ));
            }
            return Ok(allow.clone());
        }
        match (self.tailscale.is_some(), client_ca) {
            (true, true) => {
                return Err(StartError::new(
                    "--tailscale with --client-ca",
                    "nothing says which of them lets a peer upload",
                    "give --allow-upload=tailnet, --allow-upload=certificate, or both",
                ));
            }
            (true, false) => return Ok(AllowUpload::tailnet()),
            (false, true) => return Ok(AllowUpload::certificate()),
            (false, false) => {}
        }
        if let Some(open) = self.listen.iter().find(|l| !is_loopback(l.address.ip())) {
            return Err(StartError::new(
                &format!("--listen {}", open.address),
                "it can be reached from other machines, and nothing says who may upload",
                "give --allow-upload=CIDR[,CIDR…], --allow-upload=certificate with --client-ca, \
                 --tailscale, or --allow-upload=anyone",
            ));
        }
        Ok(AllowUpload::loopback())
    }
}

/// Why the recorder did not start: what, why, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartError {
    what: String,
    why: String,
    todo: String,
}

impl StartError {
    /// `what` could not be done, because of `why`; `todo` is what the reader can do.
    #[must_use]
    pub fn new(what: &str, why: &str, todo: &str) -> Self {
        Self { what: what.to_owned(), why: why.to_owned(), todo: todo.to_owned() }
    }

    pub(crate) fn file(what: &str, path: &Path, why: &dyn fmt::Display, todo: &str) -> Self {
        Self::new(&format!("{what} {}", path.display()), &why.to_string(), todo)
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)?;
        if self.todo.is_empty() { Ok(()) } else { write!(f, "; {}", self.todo) }
    }
}

impl std::error::Error for StartError {}

/// IPv4-mapped addresses count as IPv4.
pub(crate) fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

pub(crate) fn duration(span: Span) -> Duration {
    Duration::from_micros(span.0)
}

pub(crate) fn span(duration: Duration) -> Span {
    Span(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}

/// Opens the storage as configured.
pub(crate) fn open_store(config: &RecorderConfig) -> Result<(Arc<Store>, Recovery), StartError> {
    let mut c = StoreConfig::new(&config.dst);
    c.min_free = config.min_free.unwrap_or(c.min_free);
    // What is refused to new recordings is left to the open ones, down to the reserve.
    c.reserve = c.reserve.min(c.min_free);
    c.resume_window = config.resume_window;
    c.group_readable = config.group_readable;
    c.quotas = config.quotas;
    Store::open(c).map_err(|e| StartError::new(&e.what, &e.why, &e.todo))
}
