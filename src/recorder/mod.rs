//! The recorder: what `castkeep serve` runs, and what tests and the demo start inside their own process.
//!
//! ```text
//! listener ── accept ──► connection thread ── bytes ──► upload::server::Server ── body ──► storage::Upload
//!    │ bound, 503 past it     ▲      ▲ poll(socket, eventfd)                                  │
//!    │                        │      └──────────────── Notify: progress, sealed, failed ◄─────┘
//!    └ metrics listener       └ Control: drain, stop (one eventfd write each)
//! ```
//!
//! No protocol decision is made here: [`crate::upload::server`] decides what is said, [`storage`] what is kept. This shell
//! owns the sockets, the threads, the clock and the signals' effects.
//!
//! # Threads and memory
//!
//! One thread a connection, with a stack of [`CONNECTION_STACK`]. Only touched pages of a stack count, so its depth is kept
//! small: read buffers are borrowed from a pool for the time in which bytes are moved and given back before the thread
//! waits. An idle connection holds its stack's few pages, the state machine and two descriptors.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod allow;
pub(crate) mod config;
mod connection;
pub(crate) mod health;
mod job;
pub(crate) mod link;
pub(crate) mod listen;
mod pool;
mod renew;
mod shared;
pub mod storage;
mod tailnet;
pub(crate) mod tls;
pub(crate) mod wake;

pub use allow::{AllowUpload, Cidr};
pub use config::{Listen, RecorderConfig, StartError, TailscaleTls, TlsFiles};
pub use storage::Quotas;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use config::duration;
use listen::{Bound, Role};
use renew::Renewal;
use shared::{Phase, Shared};
use tls::{Source, Tls};
use wake::Waker;

use crate::limits;

/// Stack of a connection thread: address space, not memory. A TLS handshake in a debug build uses about a quarter of it;
/// an idle connection has touched two or three pages.
pub const CONNECTION_STACK: usize = 256 * 1024;

/// A running recorder. Dropping it ends it at once, without drain: what was committed stays, what was not is truncated.
#[derive(Debug)]
pub struct Recorder {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    metrics_addresses: Vec<SocketAddr>,
    description: String,
    acceptor: Option<JoinHandle<()>>,
    renewal: Option<Renewal>,
}

impl Recorder {
    /// Opens the storage, recovers what a crash left, binds the listeners and starts to serve.
    ///
    /// # Errors
    ///
    /// [`StartError`] says what failed, where, and what to do about it.
    pub fn start(config: RecorderConfig) -> Result<Self, StartError> {
        let allow = config.uploaders()?;
        let source = match (&config.tls, &config.tailscale_tls) {
            (Some(_), Some(_)) => {
                let todo = "give one of them";
                let what = "--tls-cert and --tls-from-tailscale";
                return Err(StartError::new(what, "there can be one certificate", todo));
            }
            (Some(files), None) => Some(Source::Files(files.clone())),
            (None, Some(tailscale)) => Some(Source::Tailscale(tailscale.clone())),
            (None, None) => None,
        };
        let tls = match source {
            Some(source) => Some(Arc::new(Tls::open(source, allow.only_certificate())?)),
            None => None,
        };
        listen::raise_open_files(config.max_connections);
        // Ports before storage: a second start with the same command line fails on the port, without touching the files.
        let mut bound = Vec::new();
        for l in &config.listen {
            let role = if tls.is_some() && !l.clear { Role::Tls } else { Role::Clear };
            bound.push(listen::bind("--listen", l.address, role)?);
        }
        for address in &config.metrics_listen {
            bound.push(listen::bind("--metrics-listen", *address, Role::Health)?);
        }
        let (store, recovery) = config::open_store(&config)?;
        let addresses = |health: bool| {
            let of = move |b: &&Bound| (b.role == Role::Health) == health;
            bound.iter().filter(of).map(|b| b.address).collect::<Vec<_>>()
        };
        let (uploads, metrics) = (addresses(false), addresses(true));
        let description = describe(&config, &allow, &bound, &recovery.to_string());
        let renewal = match &tls {
            Some(tls) if tls.is_renewed() => {
                Some(Renewal::start(Arc::clone(tls), config.certificate_period)?)
            }
            _ => None,
        };
        let shared = Arc::new(Shared::new(config, allow, store, tls));
        if let Some(tailnet) = &shared.tailnet
            && let Err(e) = tailnet.check()
        {
            log::error!("nobody can be taken in yet: tailscaled at {}: {e}", tailnet.shown());
        }
        let waker = Waker::new().map_err(|e| StartError::new("eventfd", &e.to_string(), ""))?;
        let waker = Arc::new(waker);
        let (for_thread, entered) = (Arc::clone(&shared), shared.enter(&waker));
        let acceptor = thread::Builder::new()
            .name("castkeep-accept".into())
            .stack_size(CONNECTION_STACK)
            .spawn(move || {
                listen::accept_loop(&for_thread, &bound, &waker);
                drop((bound, entered));
            })
            .map_err(|e| StartError::new("the listening thread", &e.to_string(), ""))?;
        Ok(Self {
            shared,
            addresses: uploads,
            metrics_addresses: metrics,
            description,
            acceptor: Some(acceptor),
            renewal,
        })
    }

    /// The bound addresses of the listeners, in the order of [`RecorderConfig::listen`], with real port numbers.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The bound addresses of the metrics listeners.
    #[must_use]
    pub fn metrics_addresses(&self) -> &[SocketAddr] {
        &self.metrics_addresses
    }

    /// The start-up line: where it listens, what it stores into, what a commit means, what recovery found.
    #[must_use]
    pub fn describe(&self) -> &str {
        &self.description
    }

    /// Reads certificate, key and client CA again; new connections use them. On an error the old ones stay. False: there is no
    /// TLS, so that nothing was read. A certificate of the LocalAPI is asked for in the background, and the log says what came.
    ///
    /// # Errors
    ///
    /// As at the start: what, where, what to do.
    pub fn reload(&self) -> Result<bool, StartError> {
        match (&self.renewal, &self.shared.tls) {
            (Some(renewal), _) => {
                renewal.ask_now();
                Ok(true)
            }
            (None, Some(tls)) => tls.reload().map(|_| true),
            (None, None) => Ok(false),
        }
    }

    /// Begins the orderly stop and returns at once: probes and new uploads get 503, castkeep clients are asked to go
    /// elsewhere. Go on with [`Recorder::stop`].
    pub fn drain(&self) {
        self.shared.set_phase(Phase::Draining);
    }

    /// The orderly stop: [`Recorder::drain`], then stock uploads are served until the drain timeout has passed and get an
    /// error object, then the storage is closed.
    ///
    /// # Blocking
    ///
    /// Until the last upload has ended, at most the drain timeout and some seconds.
    pub fn stop(mut self) {
        self.drain();
        if !self.shared.wait_idle(Phase::Draining, self.shared.config.drain_timeout) {
            log::warn!("the drain timeout is over: what still uploads is ended");
        }
        self.shared.set_phase(Phase::Stopping);
        self.join(duration(limits::LINGER) * 2);
        self.shared.set_phase(Phase::Aborting);
        self.join(ABORT_WAIT);
        self.shared.store.shutdown();
    }

    /// Ends it at once, as a crash would look to the clients: connections are reset, open recordings stay open on disk.
    pub fn abort(self) {
        drop(self);
    }

    fn join(&mut self, timeout: Duration) {
        let gone = self.shared.wait_gone(timeout);
        if let Some(acceptor) = self.acceptor.take_if(|a| gone || a.is_finished()) {
            let _ = acceptor.join();
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.shared.set_phase(Phase::Aborting);
        self.join(ABORT_WAIT);
    }
}

fn describe(
    config: &RecorderConfig,
    allow: &AllowUpload,
    bound: &[Bound],
    recovery: &str,
) -> String {
    let mut text = format!("castkeep {} recorder:", crate::VERSION);
    for (at, b) in bound.iter().enumerate() {
        text.push_str(if at == 0 { " listening on " } else { ", " });
        text.push_str(&b.address.to_string());
        text.push_str(match b.role {
            Role::Clear => " (HTTP/1.1, HTTP/2)",
            Role::Tls => " (TLS: HTTP/1.1, HTTP/2)",
            Role::Health => " (health, metrics)",
        });
    }
    text.push_str(&format!("; storing into {}", config.dst.display()));
    text.push_str("; a commit means synced to this disk (--commit=disk)");
    text.push_str(&format!("; uploads from {allow}"));
    if let Some(socket) = &config.tailscale {
        text.push_str(&format!("; peers are who tailscaled at {} says", socket.display()));
    }
    text.push_str(&format!("; {recovery}"));
    text
}

/// How long threads have to end once everything is cut. A disk that hangs can hold one longer; it is left behind then.
const ABORT_WAIT: Duration = Duration::from_secs(5);
