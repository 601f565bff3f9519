//! The coordination server: what `castkeep control` runs, what announces recorders to it, and how both are reached.
//!
//! ```text
//! policy, nodes, tokens ──► keeper ──► world, version ──► view per node ──► GET policy, long poll
//!        POST recorder ───────┘                                    POST notify ──► event log ──► webhook
//! ```
//!
//! One thread a connection, as the recorder has them; a request that waits for a change holds its stack's few pages and two
//! descriptors. What is asked and answered stands in `routes`, who may ask in `auth`, what is bounded in `gates`.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod announce;
mod announced;
mod auth;
mod backoff;
mod config;
mod connection;
mod disk;
mod events;
mod gates;
pub mod http_client;
mod keeper;
mod listen;
mod metrics;
mod routes;
mod shared;
mod view;
mod webhook;

pub use announce::{AnnounceConfig, Announcer};
pub use config::ControlConfig;

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use events::EventLog;
use http_client::HttpClient;
use keeper::Keeper;
use shared::Shared;

use crate::limits;
use crate::recorder::listen::{Bound, Role, bind, raise_open_files};
use crate::recorder::tls::{Source, Tls};
use crate::recorder::wake::Waker;
use crate::recorder::{CONNECTION_STACK, StartError};
use crate::time::Tick;

/// A running coordination server. Dropping it ends it.
#[derive(Debug)]
pub struct Control {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    metrics_addresses: Vec<SocketAddr>,
    description: String,
    webhook: Option<HttpClient>,
    threads: Vec<JoinHandle<()>>,
    /// The state directory is ours while it is held.
    _claim: OwnedFd,
}

impl Control {
    /// Reads policy and registry, binds the listeners and starts to serve.
    ///
    /// # Errors
    ///
    /// [`StartError`] says what failed, where, and what to do about it. A broken policy is one only when there never was a
    /// good one in this state directory.
    pub fn start(config: ControlConfig) -> Result<Self, StartError> {
        config.check()?;
        let origin = Instant::now();
        let tls = match &config.tls {
            Some(files) => {
                let mutual = files.client_ca.is_some() && config.tokens.is_none();
                Some(Tls::open(Source::Files(files.clone()), mutual)?)
            }
            None => None,
        };
        let webhook = config.webhook.as_ref().map(HttpClient::new).transpose();
        let webhook = webhook.map_err(|e| StartError::new("--webhook", &e.to_string(), ""))?;
        raise_open_files(config.max_connections);
        let mut bound = Vec::new();
        let role = if tls.is_some() { Role::Tls } else { Role::Clear };
        for address in &config.listen {
            bound.push(bind("--listen", *address, role)?);
        }
        for address in &config.metrics_listen {
            bound.push(bind("--metrics-listen", *address, Role::Health)?);
        }
        let state = |e: std::io::Error| {
            let what = format!("--state {}", config.state.display());
            StartError::new(&what, &e.to_string(), "give a directory that this user can write")
        };
        let claim = disk::claim(&config.state).map_err(state)?;
        let keeper = Keeper::open(&config, Tick::default())?;
        let events = EventLog::open(&config.state, config.event_file_bytes).map_err(state)?;
        let description = describe(&config, &bound, &keeper);
        let of = |health: bool| {
            let bound = bound.iter().filter(|b| (b.role == Role::Health) == health);
            bound.map(|b| b.address).collect::<Vec<_>>()
        };
        let (addresses, metrics_addresses) = (of(false), of(true));
        let shared = Arc::new(Shared::new(config, keeper, events, tls, origin));
        let mut control = Self {
            shared,
            addresses,
            metrics_addresses,
            description,
            webhook,
            threads: Vec::new(),
            _claim: claim,
        };
        control.start_threads(bound)?;
        Ok(control)
    }

    fn start_threads(&mut self, bound: Vec<Bound>) -> Result<(), StartError> {
        let shared = &self.shared;
        let waker = Waker::new().map_err(|e| StartError::new("eventfd", &e.to_string(), ""))?;
        let waker = Arc::new(waker);
        let (for_thread, entered) = (Arc::clone(shared), shared.enter(&waker));
        self.threads.push(spawn("castkeep-accept", CONNECTION_STACK, move || {
            listen::accept_loop(&for_thread, &bound, &waker);
            drop((bound, entered));
        })?);
        let for_thread = Arc::clone(shared);
        self.threads.push(spawn(
            "castkeep-watch",
            limits::CONTROL_PARSER_STACK_BYTES,
            move || {
                while !for_thread.is_stopping() {
                    let news = for_thread.keeper.reload(false);
                    if news | for_thread.keeper.expire(for_thread.now()) {
                        for_thread.wake_all();
                    }
                    for_thread.pause(for_thread.config.watch);
                }
            },
        )?);
        if let Some(client) = &self.webhook {
            let thread = webhook::start(
                client.clone(),
                Arc::clone(&shared.events),
                &shared.config.state,
                Arc::clone(&shared.webhook),
                shared.config.webhook_pause,
            );
            self.threads
                .push(thread.map_err(|e| StartError::new("--webhook", &e.to_string(), ""))?);
        }
        Ok(())
    }

    /// The bound addresses of the listeners, with real port numbers.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The bound addresses of the metrics listeners.
    #[must_use]
    pub fn metrics_addresses(&self) -> &[SocketAddr] {
        &self.metrics_addresses
    }

    /// The start-up line.
    #[must_use]
    pub fn describe(&self) -> &str {
        &self.description
    }

    /// Reads policy, registry, tokens and certificates again. What is broken is logged, and stays as it was.
    pub fn reload(&self) {
        if let Err(e) = self.shared.reload_tls() {
            log::error!("the old certificate stays in use: {e}");
        }
        if self.shared.keeper.reload(true) {
            self.shared.wake_all();
        }
    }

    /// Ends it: whoever waits is answered.
    ///
    /// # Blocking
    ///
    /// Some seconds at most.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.shared.stop();
        if let Some(client) = &self.webhook {
            client.shutdown();
        }
        let gone = self.shared.wait_gone(STOP_WAIT);
        for thread in self.threads.drain(..) {
            if gone || thread.is_finished() {
                let _ = thread.join();
            }
        }
    }
}

fn spawn(
    name: &str,
    stack_bytes: usize,
    body: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, StartError> {
    thread::Builder::new()
        .name(name.into())
        .stack_size(stack_bytes)
        .spawn(body)
        .map_err(|e| StartError::new(&format!("the thread {name}"), &e.to_string(), ""))
}

fn describe(config: &ControlConfig, bound: &[Bound], keeper: &Keeper) -> String {
    let mut text = format!("castkeep {} control:", crate::VERSION);
    for (at, b) in bound.iter().enumerate() {
        text.push_str(if at == 0 { " listening on " } else { ", " });
        text.push_str(&b.address.to_string());
        text.push_str(match b.role {
            Role::Clear => " (HTTP/1.1)",
            Role::Tls => " (TLS: HTTP/1.1)",
            Role::Health => " (health, metrics)",
        });
    }
    let world = keeper.current();
    text.push_str(&format!(
        "; policy {} version {}, {} nodes, {} tokens, {} recorders announced",
        config.policy.display(),
        world.version,
        world.inputs.nodes(),
        world.tokens.len(),
        world.announced.len(),
    ));
    text
}

/// What is being sent may be sent; then it is left behind.
const STOP_WAIT: Duration = Duration::from_secs(5);
