//! The handle of a client.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::thread::{self, JoinHandle};

use super::config::{ClientConfig, Decision, Metadata};
use super::driver::Worker;
use super::handle::Session;
use super::opening::machine_config;
use super::shared::{Shared, Slot, Wake};
use super::signals;
use crate::error::{Error, Misuse};
use crate::limits;
use crate::session::Machine;

/// Makes sessions, and owns the thread that moves them.
///
/// Dropping it abandons the sessions that are not closed and ends the thread, in bounded time.
///
/// ```
/// use castkeep::client::{Client, ClientConfig, Decision, Metadata, Start, Stream};
/// use std::time::Duration;
///
/// let client = Client::new(ClientConfig::default())?;
/// // No recorder: nothing is recorded, and the session starts.
/// let session = client.open(Metadata::default(), Decision::open(Vec::new()))?;
/// assert_eq!(session.wait_start(Duration::from_secs(5)), Start::Unrecorded);
/// session.output(Stream::Stdout, b"hello\r\n")?;
/// session.close(Duration::from_secs(1));
/// # Ok::<(), castkeep::Error>(())
/// ```
pub struct Client {
    shared: Arc<Shared>,
    config: ClientConfig,
    worker: Option<JoinHandle<()>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Client {
    /// Starts the worker. Nothing is connected yet.
    ///
    /// # Errors
    /// `Misuse` for a ring size out of range; `NoMemory` when the thread or a descriptor cannot be had.
    pub fn new(config: ClientConfig) -> Result<Self, Error> {
        if !(limits::RING_MIN_BYTES..=limits::RING_MAX_BYTES).contains(&config.ring_bytes) {
            return Err(Error::Misuse(Misuse::BadParameter));
        }
        let shared = Arc::new(Shared::new(Arc::clone(&config.log))?);
        let mut worker = Worker::new(Arc::clone(&shared))?;
        let worker = signals::with_signals_blocked(|| {
            thread::Builder::new()
                .name("castkeep".to_owned())
                .stack_size(limits::WORKER_STACK_BYTES)
                .spawn(move || worker.run())
        })
        .map_err(|_| Error::NoMemory)?;
        Ok(Self { shared, config, worker: Some(worker) })
    }

    /// Opens a session and returns at once; [`Session::wait_start`] tells when the program may start.
    ///
    /// # Errors
    /// `Misuse` in a forked child and for parameters out of range, `TooBig` for a header, message or list past its limit,
    /// `Full` past `max_sessions`, `NoMemory`, `Bug` after the worker panicked.
    ///
    /// # Blocking
    /// It does not block, but for the kernel's random generator shortly after boot.
    pub fn open(&self, metadata: Metadata, decision: Decision) -> Result<Session, Error> {
        self.shared.check()?;
        let ClientConfig { ring_bytes, protocols, .. } = self.config;
        let (id, machine_config) = machine_config(ring_bytes, protocols, metadata, &decision)?;
        if self.shared.sessions.fetch_add(1, SeqCst) >= self.config.max_sessions {
            self.shared.sessions.fetch_sub(1, SeqCst);
            return Err(Error::Full);
        }
        let machine = Machine::new(machine_config, self.shared.now()).inspect_err(|_| {
            self.shared.sessions.fetch_sub(1, SeqCst);
        })?;
        let Decision { recorders, policy, observer, .. } = decision;
        let id = id.as_str().to_owned();
        let slot = Arc::new(Slot::new(machine, id, recorders, policy, observer));
        self.shared.inbox().push(Arc::clone(&slot));
        self.shared.wake(Wake::Now);
        Ok(Session::new(Arc::clone(&self.shared), slot, self.config.ring_bytes))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // The thread exists in the parent only.
        if self.shared.is_forked() {
            return;
        }
        self.shared.stop.store(true, SeqCst);
        self.shared.wake(Wake::Now);
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}
