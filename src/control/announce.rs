//! Announces a recorder to control, for as long as it takes recordings: what `castkeep serve --control` runs beside it.
//!
//! A thread of its own with its own connection: whatever control does, uploads do not feel it.

use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::announced::Announcement;
use super::backoff::{Backoff, jitter};
use super::http_client::{HttpClient, HttpClientConfig, HttpError};
use crate::limits;
use crate::recorder::CONNECTION_STACK;
use crate::recorder::config::duration;

/// What is announced, and to whom.
#[derive(Clone, Debug)]
pub struct AnnounceConfig {
    /// Control, and the recorder's token or certificate.
    pub control: HttpClientConfig,
    /// Where the recorder can be reached.
    pub addresses: Vec<SocketAddr>,
    /// As which rules name it; empty for all that control gives to this recorder.
    pub tags: Vec<String>,
    /// The name in its certificate; none for clear text.
    pub tls: Option<String>,
}

/// The announcing thread.
#[derive(Debug)]
pub struct Announcer {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Stop {
    asked: Mutex<bool>,
    changed: Condvar,
}

impl Announcer {
    /// Starts to announce. Nothing is asked of control here: it may come later.
    ///
    /// # Errors
    ///
    /// The configuration cannot be used, or there is no thread.
    pub fn start(config: &AnnounceConfig) -> Result<Self, HttpError> {
        let client = HttpClient::new(&config.control)?;
        let said = Announcement {
            addresses: config.addresses.clone(),
            tags: config.tags.clone(),
            tls: config.tls.clone(),
        };
        let body = said.to_json().to_string();
        // The same look that control takes, before anything runs.
        Announcement::parse(body.as_bytes()).map_err(HttpError::Config)?;
        let stop = Arc::new(Stop::default());
        let for_thread = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name("castkeep-announce".into())
            .stack_size(CONNECTION_STACK)
            .spawn(move || run(&client, &body, &for_thread))
            .map_err(|e| HttpError::Config(format!("the announcing thread: {e}")))?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Tells control that the recorder takes no more, and ends; returns at once. Call it when the drain begins.
    pub fn withdraw(&self) {
        *self.stop.asked.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.changed.notify_all();
    }
}

impl Drop for Announcer {
    /// Withdraws, and waits until control heard it, some seconds at most.
    fn drop(&mut self) {
        self.withdraw();
        let end = Instant::now() + END_WAIT;
        if let Some(thread) = self.thread.take() {
            while !thread.is_finished() && Instant::now() < end {
                thread::park_timeout(END_STEP);
            }
            if thread.is_finished() {
                let _ = thread.join();
            }
        }
    }
}

impl Stop {
    /// Waits for the time to pass. False: the end was asked for.
    fn pause(&self, time: Duration) -> bool {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let (asked, _) = self
            .changed
            .wait_timeout_while(asked, time, |asked| !*asked)
            .unwrap_or_else(PoisonError::into_inner);
        !*asked
    }
}

fn run(client: &HttpClient, body: &str, stop: &Stop) {
    let mut backoff = Backoff::new(duration(limits::BACKOFF_MIN), duration(limits::BACKOFF_MAX));
    let mut heartbeat = duration(limits::HEARTBEAT);
    // What was logged last: nothing yet, that it is known there, or why not.
    let mut told: Option<Result<(), String>> = None;
    let mut reached = false;
    loop {
        let answer = client.post(PATH, body.as_bytes(), REQUEST_TIME, ANSWER_BYTES);
        let news = match answer {
            Ok(answer) if answer.status == 200 => {
                heartbeat = period(&answer.body).unwrap_or(heartbeat);
                Ok(())
            }
            Ok(answer) => Err(answer.text()),
            Err(e) => Err(e.to_string()),
        };
        reached |= news.is_ok();
        let pause = match &news {
            Ok(()) => {
                backoff.reset();
                // Always within the period, so that a late one is not taken for silence.
                jitter(heartbeat)
            }
            Err(_) => backoff.next(),
        };
        if told.as_ref() != Some(&news) {
            // The reason may change while control is away; that it is away is said once.
            match (&news, &told) {
                (Ok(()), _) => log::info!("announced to control at {}", client.url()),
                (Err(_), Some(Err(_))) => {}
                (Err(why), _) => {
                    log::warn!("control at {} is not told of this recorder: {why}", client.url())
                }
            }
            told = Some(news);
        }
        if !stop.pause(pause) {
            break;
        }
    }
    if reached {
        match client.delete(PATH, DELETE_TIME) {
            Ok(answer) if (200..300).contains(&answer.status) => {
                log::info!("withdrawn from control")
            }
            Ok(answer) => log::info!("control does not hear the withdrawal: {}", answer.text()),
            Err(e) => log::info!("control does not hear the withdrawal: {e}"),
        }
    }
}

/// What control wants as period, within reason.
fn period(body: &[u8]) -> Option<Duration> {
    let value: Value = serde_json::from_slice(body).ok()?;
    let seconds = value.get("heartbeatSeconds").and_then(Value::as_f64)?;
    Duration::try_from_secs_f64(seconds.clamp(0.01, 3_600.0)).ok()
}

const PATH: &str = "/castkeep/1/recorder";
const REQUEST_TIME: Duration = Duration::from_secs(10);
const DELETE_TIME: Duration = Duration::from_secs(3);
const ANSWER_BYTES: u64 = 16 * 1024;
/// A request that runs, and the withdrawal behind it.
const END_WAIT: Duration = Duration::from_secs(4);
const END_STEP: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_says_how_often_within_reason() {
        assert_eq!(period(b"{\"heartbeatSeconds\":10}"), Some(Duration::from_secs(10)));
        assert_eq!(period(b"{\"heartbeatSeconds\":0.25}"), Some(Duration::from_millis(250)));
        assert_eq!(period(b"{\"heartbeatSeconds\":1e99}"), Some(Duration::from_secs(3_600)));
        assert_eq!(period(b"{\"heartbeatSeconds\":-1}"), Some(Duration::from_millis(10)));
        assert_eq!(period(b"{}"), None);
        assert_eq!(period(b"nonsense"), None);
    }
}
