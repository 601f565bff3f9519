//! Notifications: taken, put on disk, told to the system log where nobody may miss them, passed on to control.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::rand::{GetRandomFlags, getrandom};
use serde_json::{Map, Value, json};

use super::disk;
use super::engine::{About, Decided, Policy, complete_notification};
use super::source::back_off;
use super::spool::{Spool, SpoolError};
use super::syslog;
use super::trouble::Trouble;
use crate::control::http_client::{HttpClient, HttpError};
use crate::depth::is_deeper;
use crate::limits;
use crate::policy::notify::{EventType, NotifyRequest};

/// Takes events and passes them on.
#[derive(Debug)]
pub(super) struct Notifier {
    state: Mutex<State>,
    changed: Condvar,
    /// Random, so that numbers of different lives of the agent are different events.
    life: u64,
    syslog: PathBuf,
    syslog_trouble: Trouble,
    /// Without control, where events are kept.
    file: Option<PathBuf>,
}

#[derive(Debug)]
struct State {
    spool: Spool,
    events: u64,
    known: HashMap<(u32, String), Known>,
    order: VecDeque<(u32, String)>,
    /// Events of users in this minute.
    told: HashMap<u32, u32>,
    minute: Instant,
    stopped: bool,
}

/// What was decided for a connection that a notification may come about.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) decided: Decided,
    pub(super) who: String,
}

/// Why a notification is not taken: what is answered.
#[derive(Debug)]
pub(super) struct Refused(pub(super) u16, pub(super) String);

impl Notifier {
    /// `to_control`: whether there is a control to pass events on to.
    pub(super) fn open(dir: &Path, syslog: &Path, to_control: bool) -> io::Result<Self> {
        let mut life = [0; 8];
        getrandom(&mut life, GetRandomFlags::empty())?;
        let state = State {
            spool: Spool::open(&dir.join("notify"))?,
            events: 0,
            known: HashMap::new(),
            order: VecDeque::new(),
            told: HashMap::new(),
            minute: Instant::now(),
            stopped: false,
        };
        if state.spool.len() > 0 {
            log::info!("{} notification(s) wait for control", state.spool.len());
        }
        Ok(Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            life: u64::from_ne_bytes(life),
            syslog: syslog.to_owned(),
            syslog_trouble: Trouble::new(
                format!("system log {}", syslog.display()),
                "alerts stand only in this log",
            ),
            file: (!to_control).then(|| dir.join("events.log")),
        })
    }

    /// Remembers what was decided for a connection that this user asked about.
    pub(super) fn remember(&self, asker: u32, connection: &str, known: Known) {
        if connection.is_empty() {
            return;
        }
        let key = (asker, connection.to_owned());
        let mut state = self.lock();
        if state.known.insert(key.clone(), known).is_none() {
            state.order.push_back(key);
        }
        while state.order.len() > limits::AGENT_REMEMBERED {
            if let Some(oldest) = state.order.pop_front() {
                state.known.remove(&oldest);
            }
        }
    }

    /// Takes an event. Once this returned it is on disk.
    pub(super) fn take(
        &self,
        uid: u32,
        body: &[u8],
        policy: Option<&Policy>,
    ) -> Result<(), Refused> {
        if is_deeper(body, limits::ASKED_LEVELS) {
            return Err(Refused(400, "the body is nested too deep".into()));
        }
        let own_key = policy.and_then(Policy::own_node).map(|node| node.key.clone());
        let mut about = About {
            own_key: own_key.unwrap_or_default(),
            decided: None,
            // Whose event it is, is not up to a user.
            is_trusted: uid == 0,
        };
        let first = complete_notification(body, &about, policy).map_err(|e| Refused(400, e))?;
        let known = {
            let mut state = self.lock();
            state.count(uid)?;
            // What root asked about is so, whoever tells about it; what another user asked about is none of this one's.
            let of = |uid| (uid, first.connection_id.clone());
            state.known.get(&of(0)).or_else(|| state.known.get(&of(uid))).cloned()
        };
        about.decided = known.as_ref().map(|known| known.decided.clone());
        let event = complete_notification(body, &about, policy).map_err(|e| Refused(400, e))?;
        let stored = self.store(uid, &event);
        // Said here whether it could be stored or not.
        self.tell(uid, &event, known.as_ref());
        stored
    }

    fn store(&self, uid: u32, event: &NotifyRequest) -> Result<(), Refused> {
        let mut body: Map<String, Value> =
            serde_json::from_str(&event.to_castkeep_json()).unwrap_or_default();
        let mut state = self.lock();
        state.events = state.events.saturating_add(1);
        body.insert("castkeepEvent".into(), json!(format!("{:016x}-{}", self.life, state.events)));
        let text = Value::Object(body).to_string();
        let stored = match &self.file {
            None => state.spool.put(uid, text.as_bytes()),
            Some(path) => append(path, &text).map_err(SpoolError::Disk),
        };
        drop(state);
        self.changed.notify_all();
        stored.map_err(|e| match e {
            SpoolError::Quota => {
                Refused(429, "too many events of this user wait for control".into())
            }
            SpoolError::Disk(e) => {
                log::error!("a notification could not be stored ({e}): {text}");
                Refused(507, format!("it could not be stored: {e}"))
            }
        })
    }

    fn tell(&self, uid: u32, event: &NotifyRequest, known: Option<&Known>) {
        let what = match event.event_type {
            EventType::RecordingRejected => "was rejected: it could not be recorded",
            EventType::RecordingTerminated => "was ended: recording failed",
            _ => "goes on UNRECORDED: recording failed",
        };
        let who = known.map_or("a source that is not known", |known| known.who.as_str());
        let line = format!(
            "session {} of {who} as {} {what} (told by uid {uid}; {})",
            event.connection_id,
            event.local_user,
            attempts(event)
        );
        if event.break_glass && event.event_type == EventType::RecordingFailed {
            log::error!("BREAK-GLASS: {line}");
            match syslog::alert(&self.syslog, &format!("BREAK-GLASS: {line}")) {
                Ok(()) => self.syslog_trouble.over(),
                Err(e) => self.syslog_trouble.is(&e.to_string()),
            }
        } else {
            log::warn!("{line}");
        }
    }

    /// Passes events on until [`Notifier::stop`].
    pub(super) fn run(&self, control: &HttpClient, timeout: Duration) {
        let trouble = Trouble::new(
            format!("notifications to {}", control.url()),
            "they are kept and sent again",
        );
        let mut failures = 0u32;
        let mut until: Option<Instant> = None;
        loop {
            let mut state = self.lock();
            loop {
                if state.stopped {
                    return;
                }
                let left = until.map(|at| at.saturating_duration_since(Instant::now()));
                match left {
                    Some(left) if !left.is_zero() => {
                        let waited = self.changed.wait_timeout(state, left);
                        state = waited.unwrap_or_else(PoisonError::into_inner).0;
                    }
                    _ if state.spool.len() == 0 => {
                        let waited = self.changed.wait(state);
                        state = waited.unwrap_or_else(PoisonError::into_inner);
                    }
                    _ => break,
                }
            }
            let first = state.spool.first();
            let result = match first {
                Ok(None) => continue,
                Ok(Some((number, body, resent))) => {
                    state.spool.sending(number);
                    drop(state);
                    send(control, &body, resent, timeout)
                        .and_then(|()| self.lock().spool.remove(number).map_err(|e| e.to_string()))
                }
                Err(e) => {
                    drop(state);
                    Err(e.to_string())
                }
            };
            match result {
                Ok(()) => {
                    (failures, until) = (0, None);
                    trouble.over();
                }
                Err(why) => {
                    failures = failures.saturating_add(1);
                    until = Some(Instant::now() + back_off(failures));
                    trouble.is(&why);
                }
            }
        }
    }

    /// Ends [`Notifier::run`]; what waits stays on disk.
    pub(super) fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether this user may tell one more event in this minute.
    fn count(&mut self, uid: u32) -> Result<(), Refused> {
        if self.minute.elapsed() >= Duration::from_secs(60) {
            self.told.clear();
            self.minute = Instant::now();
        }
        let told = self.told.entry(uid).or_default();
        if uid != 0 && *told >= limits::NOTIFY_PER_MINUTE {
            return Err(Refused(429, "too many events of this user in a minute".into()));
        }
        *told = told.saturating_add(1);
        Ok(())
    }
}

/// Sends one event. Ok: control has it, or will never want it.
fn send(control: &HttpClient, body: &[u8], resent: bool, timeout: Duration) -> Result<(), String> {
    let Ok(mut event) = serde_json::from_slice::<Map<String, Value>>(body) else {
        log::error!("a notification on disk is broken and lost");
        return Ok(());
    };
    if resent {
        event.insert("castkeepResent".into(), json!(true));
    }
    let text = Value::Object(event).to_string();
    let answer = control
        .post("/castkeep/1/notify", text.as_bytes(), timeout, ANSWER_BYTES)
        .map_err(|e: HttpError| e.to_string())?;
    match answer.status {
        200..=299 => Ok(()),
        // It would be refused for ever, and hold up all that stand behind it.
        400 | 413 | 422 => {
            log::error!("control refuses a notification ({}), it is lost: {text}", answer.text());
            Ok(())
        }
        _ => Err(answer.text()),
    }
}

/// Which recorders were tried, and what came of it.
fn attempts(event: &NotifyRequest) -> String {
    let tried = event.attempts.iter().take(ATTEMPTS_TOLD);
    let tried: Vec<_> = tried.map(|(recorder, why)| format!("{recorder}: {why}")).collect();
    if tried.is_empty() { "no recorder was tried".into() } else { tried.join(", ") }
}

/// Puts a line behind the others; the file before this one is kept.
fn append(path: &Path, line: &str) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|facts| facts.len() > limits::SPOOL_BYTES) {
        fs::rename(path, path.with_extension("log.1"))?;
    }
    let mut file =
        OpenOptions::new().create(true).append(true).read(true).mode(0o600).open(path)?;
    let mut last = [b'\n'];
    if file.seek(SeekFrom::End(-1)).is_ok() {
        file.read_exact(&mut last)?;
    }
    // A line that a crash tore was never promised to anybody; it stays a line of its own.
    let end = if last == *b"\n" { "" } else { "\n" };
    file.write_all(format!("{end}{line}\n").as_bytes())?;
    file.sync_all()?;
    disk::sync_dir(path.parent().unwrap_or(path))
}

/// What control says to an event.
const ANSWER_BYTES: u64 = 64 * 1024;
/// Attempts in a log line.
const ATTEMPTS_TOLD: usize = 4;
