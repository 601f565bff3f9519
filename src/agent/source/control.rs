//! castkeep control, over HTTPS, with a long poll.

use std::time::Duration;

use rustix::rand::{GetRandomFlags, getrandom};
use serde_json::Value;

use super::{News, Source};
use crate::control::http_client::HttpClient;
use crate::limits;
use crate::recorder::config::duration;

/// Asks control, and again as soon as it has answered.
#[derive(Debug)]
pub(in crate::agent) struct ControlSource {
    client: HttpClient,
    name: String,
    wait: Duration,
    answer_time: Duration,
    /// The first question wants an answer at once: whether control is there should be known soon.
    first: bool,
}

impl ControlSource {
    pub(in crate::agent) fn new(client: HttpClient, wait: Duration, answer_time: Duration) -> Self {
        let name = format!("control {}", client.url());
        Self { client, name, wait, answer_time, first: true }
    }
}

impl Source for ControlSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn next(&mut self, etag: Option<&str>) -> Result<News, String> {
        let wait = if self.first || etag.is_none() { Duration::ZERO } else { self.wait };
        let path = format!("/castkeep/1/policy?wait={}", wait.as_secs());
        let most = limits::AGENT_ANSWER_BYTES as u64;
        let answer = self
            .client
            .get(&path, etag, wait + self.answer_time, most)
            .map_err(|e| e.to_string())?;
        self.first = false;
        match answer.status {
            200 => {}
            304 if etag.is_some() => return Ok(News::Same),
            _ => return Err(answer.text()),
        }
        match serde_json::from_slice(&answer.body) {
            Ok(Value::Object(document)) if !document.contains_key("version") => {
                Err("its answer is no policy: no version in it".into())
            }
            Ok(Value::Object(document)) => Ok(News::Document { document, etag: answer.etag }),
            Ok(_) => Err("its answer is no JSON object".into()),
            Err(_) => Err("its answer is not whole, or no JSON".into()),
        }
    }

    fn pause(&self, failures: u32) -> Duration {
        if failures == 0 {
            return LEAST_PAUSE;
        }
        back_off(failures)
    }

    fn forget(&mut self) {
        self.first = true;
    }
}

/// 1 s, doubled with each failure up to 30 s, and of that between half and all: a restart of control is not met by all at once.
pub(in crate::agent) fn back_off(failures: u32) -> Duration {
    let (least, most) = (duration(limits::BACKOFF_MIN), duration(limits::BACKOFF_MAX));
    let doubled = least.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(most);
    let mut random = [0; 2];
    // Without randomness the pause is the shortest of its range.
    let _ = getrandom(&mut random, GetRandomFlags::NONBLOCK);
    let part = f64::from(u16::from_le_bytes(random)) / f64::from(u16::MAX);
    doubled.mul_f64(0.5 + part / 2.0).max(least / 2)
}

/// Between two answers that came at once, so that a control which ignores `wait` is not asked in a tight loop.
const LEAST_PAUSE: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_have_an_end() {
        for (failures, least, most) in [(1, 500, 1_000), (3, 2_000, 4_000), (99, 15_000, 30_000)] {
            let pause = back_off(failures).as_millis();
            assert!((least..=most).contains(&pause), "{failures}: {pause}");
        }
    }
}
