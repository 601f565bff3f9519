//! The handle of a client.

use std::fmt;
use std::fmt::Write as _;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::rand::{GetRandomFlags, getrandom};

use super::config::{ClientConfig, Decision, Metadata, RecorderAddr};
use super::driver::Worker;
use super::handle::Session;
use super::shared::{Shared, Slot, Wake};
use super::sys;
use crate::cast;
use crate::error::{Error, Misuse};
use crate::limits;
use crate::session::{Config, Deadlines, Machine, OnFailure, Recorder};
use crate::time::Span;

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
        let worker = sys::with_signals_blocked(|| {
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
        let recorders = decision.recorders.clone();
        let observer = decision.observer.clone();
        let (id, machine_config) = machine_config(&self.config, metadata, decision)?;
        if self.shared.sessions.fetch_add(1, SeqCst) >= self.config.max_sessions {
            self.shared.sessions.fetch_sub(1, SeqCst);
            return Err(Error::Full);
        }
        let machine = Machine::new(machine_config, self.shared.now()).inspect_err(|_| {
            self.shared.sessions.fetch_sub(1, SeqCst);
        })?;
        let slot = Arc::new(Slot::new(machine, id, recorders, observer));
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

/// What both drivers make of a decision, with the recording's id.
pub(super) fn machine_config(
    client: &ClientConfig,
    metadata: Metadata,
    decision: Decision,
) -> Result<(String, Config), Error> {
    let recording = random::<16>()?;
    let id = hex(&recording);
    let config = Config {
        header: header(metadata, &id),
        recording,
        resume_secret: random::<16>()?,
        ring_bytes: client.ring_bytes,
        recorders: recorders(&decision.recorders),
        on_failure: OnFailure {
            reject_message: decision.reject_message,
            terminate_message: decision.terminate_message,
        },
        release: decision.release,
        protocols: client.protocols,
        deadlines: deadlines(decision.grace, decision.stall_limit, decision.start_limit),
        record_input: decision.record_input,
        stock_with_release_commit: decision.stock_with_release_commit,
        jitter_seed: u64::from_ne_bytes(random::<8>()?),
    };
    Ok((id, config))
}

fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [MaybeUninit::<u8>::uninit(); N];
    let (filled, _) =
        getrandom(&mut bytes, GetRandomFlags::empty()).map_err(|_| Error::NoMemory)?;
    // Up to 256 bytes come whole or not at all.
    <[u8; N]>::try_from(&*filled).map_err(|_| Error::NoMemory)
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn header(metadata: Metadata, recording: &str) -> cast::Header {
    let or = |text: String, default: &str| if text.is_empty() { default.to_owned() } else { text };
    let kind = if metadata.command.is_some() { "exec" } else { "shell" };
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (width, height) = metadata.size;
    cast::Header {
        width,
        height,
        timestamp: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        command: metadata.command,
        src_node: metadata.src_node,
        src_node_id: metadata.src_node_id,
        src_node_tags: metadata.src_node_tags,
        src_node_user_id: metadata.src_node_user_id,
        src_node_user: metadata.src_node_user,
        env: metadata.env,
        ssh_user: metadata.ssh_user,
        local_user: metadata.local_user,
        connection_id: metadata.connection_id,
        kubernetes: metadata.kubernetes,
        castkeep: Some(cast::Castkeep {
            recording: recording.to_owned(),
            node: metadata.node,
            kind: or(metadata.kind, kind),
            client: or(metadata.program, concat!("castkeep/", env!("CARGO_PKG_VERSION"))),
        }),
        ..cast::Header::default()
    }
}

/// Addresses without a group get numbers from the top, which people do not choose.
fn recorders(addrs: &[RecorderAddr]) -> Vec<Recorder> {
    let own = (0..=u16::MAX).rev().filter(|n| !addrs.iter().any(|a| a.group == Some(*n)));
    addrs
        .iter()
        .zip(own)
        .map(|(addr, own)| Recorder {
            group: addr.group.unwrap_or(own),
            authority: addr.authority.clone(),
            tls: addr.is_tls(),
        })
        .collect()
}

fn deadlines(
    grace: Option<Duration>,
    stall_limit: Option<Duration>,
    start: Option<Duration>,
) -> Deadlines {
    let mut deadlines = Deadlines::default();
    for (field, wish) in [
        (&mut deadlines.resume_grace, grace),
        (&mut deadlines.stall_limit, stall_limit),
        (&mut deadlines.start, start),
    ] {
        if let Some(wish) = wish {
            *field = Span(u64::try_from(wish.as_micros()).unwrap_or(u64::MAX));
        }
    }
    deadlines
}
