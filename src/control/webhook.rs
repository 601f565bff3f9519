//! Passes events on to a webhook: in order, at least once, off everybody's path.
//!
//! The log on disk is the queue. What was passed on last stands in `webhook.json`, so that a restart goes on behind it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::backoff::Backoff;
use super::disk;
use super::events::{EventLog, Line};
use super::http_client::{HttpClient, HttpError};
use crate::limits;
use crate::recorder::CONNECTION_STACK;
use crate::recorder::config::duration;

/// What the metrics tell.
#[derive(Debug, Default)]
pub(super) struct WebhookCounters {
    pub(super) sent: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) lost: AtomicU64,
}

/// Starts the thread. It ends when the log is stopped and the client is shut down.
pub(super) fn start(
    client: HttpClient,
    log: Arc<EventLog>,
    state: &Path,
    counters: Arc<WebhookCounters>,
    first_pause: Duration,
) -> io::Result<thread::JoinHandle<()>> {
    let file = state.join("webhook.json");
    let known = disk::read_if_there(&file, CURSOR_BYTES)?;
    let sent = known
        .and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok())
        .and_then(|value| value.get("sent").and_then(Value::as_u64));
    let sent = match sent {
        Some(sent) => sent,
        // What was before the webhook is not news.
        None => {
            let sent = log.last();
            save(&file, sent)?;
            sent
        }
    };
    let forwarder = Forwarder { client, log, file, counters, sent, first_pause };
    thread::Builder::new()
        .name("castkeep-webhook".into())
        .stack_size(CONNECTION_STACK)
        .spawn(move || forwarder.run())
}

struct Forwarder {
    client: HttpClient,
    log: Arc<EventLog>,
    file: PathBuf,
    counters: Arc<WebhookCounters>,
    /// The number of the last event that was passed on, or passed over.
    sent: u64,
    first_pause: Duration,
}

impl Forwarder {
    fn run(mut self) {
        let mut backoff = Backoff::new(self.first_pause, duration(limits::BACKOFF_MAX));
        let mut away = false;
        while self.log.wait(self.sent, LOOK) {
            let lines = match self.log.read(self.sent, BATCH_BYTES) {
                Ok(lines) => lines,
                Err(e) => {
                    log::error!("the event log cannot be read: {e}");
                    if !self.log.pause(backoff.next()) {
                        return;
                    }
                    continue;
                }
            };
            for line in lines {
                let missing = line.number.saturating_sub(self.sent).saturating_sub(1);
                if missing > 0 {
                    self.counters.lost.fetch_add(missing, Ordering::Relaxed);
                    log::error!("{missing} events left the log before the webhook took them");
                }
                if !self.deliver(&line, &mut backoff, &mut away) {
                    return;
                }
                self.sent = line.number;
                if let Err(e) = save(&self.file, self.sent) {
                    log::error!(
                        "{}: {e}; after a restart events may be sent twice",
                        self.file.display()
                    );
                }
            }
        }
    }

    /// Until it was taken or is passed over. False: stopped.
    fn deliver(&self, line: &Line, backoff: &mut Backoff, away: &mut bool) -> bool {
        let mut refusals = 0;
        loop {
            let answer = self.client.post(
                "",
                line.text.as_bytes(),
                duration(limits::WEBHOOK_TIME),
                ANSWER_BYTES,
            );
            let why = match answer {
                // Whatever stands in its answer, it is an answer.
                Err(HttpError::TooBig) => None,
                Ok(answer) if (200..300).contains(&answer.status) => None,
                Ok(answer) => {
                    // Other statuses may pass: the way to it, its load, its credentials.
                    refusals += u32::from(matches!(answer.status, 400 | 413 | 415 | 422));
                    Some(answer.text())
                }
                Err(e) => Some(e.to_string()),
            };
            let Some(why) = why else {
                self.counters.sent.fetch_add(1, Ordering::Relaxed);
                backoff.reset();
                if std::mem::take(away) {
                    log::info!("the webhook takes events again");
                }
                return true;
            };
            self.counters.failures.fetch_add(1, Ordering::Relaxed);
            if !std::mem::replace(away, true) {
                log::warn!("the webhook does not take events, which wait on disk: {why}");
            }
            if refusals >= limits::WEBHOOK_REFUSALS {
                self.counters.lost.fetch_add(1, Ordering::Relaxed);
                log::error!(
                    "event {} is passed over, the webhook does not want it: {why}",
                    line.number
                );
                return true;
            }
            if !self.log.pause(backoff.next()) {
                return false;
            }
        }
    }
}

fn save(file: &Path, sent: u64) -> io::Result<()> {
    disk::replace(file, json!({ "sent": sent }).to_string().as_bytes())
}

/// It is woken for events; this bounds what a lost wake-up could cost.
const LOOK: Duration = Duration::from_secs(60);
const BATCH_BYTES: usize = 256 * 1024;
const ANSWER_BYTES: u64 = 64 * 1024;
const CURSOR_BYTES: usize = 4096;
