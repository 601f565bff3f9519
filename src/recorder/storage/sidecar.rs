//! The sidecar of a closed part: docs/storage.md §4, schema 1. A journal's header has the same keys.

use serde_json::{Map, Value, json};

use super::stamp::{format_time, parse_time};

/// How a part ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// In order.
    Sealed,
    /// In order, after a drain.
    Moved,
    /// The client was gone.
    Truncated,
    /// The recorder died and nobody came back.
    Interrupted,
    /// Storing failed, or a quota or a conflict ended it.
    Error,
}

impl How {
    /// The word in the sidecar.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Sealed => "sealed",
            Self::Moved => "moved",
            Self::Truncated => "truncated",
            Self::Interrupted => "interrupted",
            Self::Error => "error",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        [Self::Sealed, Self::Moved, Self::Truncated, Self::Interrupted, Self::Error]
            .into_iter()
            .find(|how| how.word() == word)
    }
}

/// Who uploaded, as the recorder saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerFacts {
    /// `ip:port` of the first connection.
    pub address: String,
    /// Its authenticated name.
    pub identity: Option<String>,
    /// Whether `identity` was authenticated.
    pub verified: bool,
}

/// The facts about a part. Times are microseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // docs/storage.md §4 explains every one
pub struct Sidecar {
    pub file: String,
    pub node: String,
    pub recording: Option<String>,
    pub resume_secret_sha256: Option<String>,
    pub part: u32,
    pub start: u64,
    pub end: u64,
    pub header_bytes: u64,
    pub bytes: u64,
    pub sha256: String,
    pub started_us: u64,
    pub ended_us: u64,
    pub clock_step_us: Option<i64>,
    pub how: How,
    pub reason: Option<String>,
    pub conflict: Option<u64>,
    pub peer: PeerFacts,
    pub protocol: String,
    pub connections: u32,
    pub attempt: u64,
    pub commits: Vec<(u64, u32)>,
}

impl Sidecar {
    /// One line with LF.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let commits: Vec<Value> = self.commits.iter().map(|(l, c)| json!([l, c])).collect();
        let value = json!({
            "schema": 1,
            "file": self.file,
            "node": self.node,
            "recording": self.recording,
            "resumeSecretSha256": self.resume_secret_sha256,
            "part": self.part,
            "start": self.start,
            "end": self.end,
            "headerBytes": self.header_bytes,
            "bytes": self.bytes,
            "sha256": self.sha256,
            "started": format_time(self.started_us),
            "ended": format_time(self.ended_us),
            "clockStepUs": self.clock_step_us,
            "how": self.how.word(),
            "reason": self.reason,
            "conflict": self.conflict,
            "peer": peer_json(&self.peer),
            "protocol": self.protocol,
            "connections": self.connections,
            "attempt": self.attempt,
            "commits": commits,
        });
        let mut text = value.to_string().into_bytes();
        text.push(b'\n');
        text
    }

    /// Reads a sidecar; unknown keys are passed over.
    ///
    /// # Errors
    ///
    /// What is missing or wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let value: Value = serde_json::from_slice(bytes).map_err(|e| format!("not JSON: {e}"))?;
        let map = value.as_object().ok_or("not an object")?;
        match map.get("schema").and_then(Value::as_u64) {
            Some(1) => {}
            Some(n) => return Err(format!("schema {n} is not known")),
            None => return Err("no schema".into()),
        }
        let how = text(map, "how")?;
        Ok(Self {
            file: text(map, "file")?,
            node: text(map, "node")?,
            recording: optional(map, "recording"),
            resume_secret_sha256: optional(map, "resumeSecretSha256"),
            part: u32::try_from(number(map, "part")?).map_err(|_| "part is out of range")?,
            start: number(map, "start")?,
            end: number(map, "end")?,
            header_bytes: number(map, "headerBytes")?,
            bytes: number(map, "bytes")?,
            sha256: text(map, "sha256")?,
            started_us: time(map, "started")?,
            ended_us: time(map, "ended")?,
            clock_step_us: map.get("clockStepUs").and_then(Value::as_i64),
            how: How::from_word(&how).ok_or_else(|| format!("how is `{how}`"))?,
            reason: optional(map, "reason"),
            conflict: map.get("conflict").and_then(Value::as_u64),
            peer: peer_facts(map),
            protocol: optional(map, "protocol").unwrap_or_default(),
            connections: map
                .get("connections")
                .and_then(Value::as_u64)
                .and_then(|n| u32::try_from(n).ok())
                .unwrap_or(1),
            attempt: map.get("attempt").and_then(Value::as_u64).unwrap_or(0),
            commits: commits(map),
        })
    }
}

pub(crate) fn peer_json(peer: &PeerFacts) -> Value {
    json!({"address": peer.address, "identity": peer.identity, "verified": peer.verified})
}

pub(crate) fn peer_facts(map: &Map<String, Value>) -> PeerFacts {
    let Some(peer) = map.get("peer").and_then(Value::as_object) else {
        return PeerFacts::default();
    };
    PeerFacts {
        address: optional(peer, "address").unwrap_or_default(),
        identity: optional(peer, "identity"),
        verified: peer.get("verified").and_then(Value::as_bool).unwrap_or(false),
    }
}

fn commits(map: &Map<String, Value>) -> Vec<(u64, u32)> {
    let list = map.get("commits").and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(|pair| {
            let crc = u32::try_from(pair.get(1)?.as_u64()?).ok()?;
            Some((pair.get(0)?.as_u64()?, crc))
        })
        .collect()
}

pub(crate) fn optional(map: &Map<String, Value>, key: &str) -> Option<String> {
    map.get(key).and_then(Value::as_str).map(str::to_owned)
}

pub(crate) fn text(map: &Map<String, Value>, key: &str) -> Result<String, String> {
    optional(map, key).ok_or_else(|| format!("no {key}"))
}

pub(crate) fn number(map: &Map<String, Value>, key: &str) -> Result<u64, String> {
    map.get(key).and_then(Value::as_u64).ok_or_else(|| format!("no {key}"))
}

pub(crate) fn time(map: &Map<String, Value>, key: &str) -> Result<u64, String> {
    parse_time(&text(map, key)?).ok_or_else(|| format!("{key} is not a time"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_as_it_was() {
        let sidecar = Sidecar {
            file: "20261123T050102.123456Z.cast".into(),
            node: "127.0.0.1".into(),
            recording: Some("00".repeat(16)),
            resume_secret_sha256: None,
            part: 2,
            start: 10,
            end: 1 << 60,
            header_bytes: 7,
            bytes: 17,
            sha256: "ab".repeat(32),
            started_us: 1_700_000_000_123_456,
            ended_us: 1_700_000_001_000_000,
            clock_step_us: Some(-3_600_000_000),
            how: How::Truncated,
            reason: Some("quote \" and \u{1b}".into()),
            conflict: Some(12),
            peer: PeerFacts {
                address: "[::1]:1".into(),
                identity: Some("n".into()),
                verified: true,
            },
            protocol: "v2+commit".into(),
            connections: 3,
            attempt: 4,
            commits: vec![(1, u32::MAX), (2, 0)],
        };
        let bytes = sidecar.encode();
        assert_eq!(bytes.iter().filter(|b| **b == b'\n').count(), 1);
        assert_eq!(Sidecar::parse(&bytes), Ok(sidecar));
        assert!(Sidecar::parse(b"{\"schema\":2}").unwrap_err().contains("schema 2"));
    }
}
