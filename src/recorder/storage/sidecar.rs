//! The sidecar of a closed part: docs/storage.md §4, schema 1. A journal's header has the same keys.

use serde_json::{Map, Value, json};

use super::stamp::{format_time, parse_time};
use super::{About, By, Identity};

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
    /// What else is known of it.
    pub about: About,
}

impl PeerFacts {
    /// The name that counts for who may resume: an authenticated one.
    pub(crate) fn known_identity(&self) -> Option<Identity> {
        let identity = self.identity.clone().filter(|_| self.verified)?;
        Some((self.about.by, identity))
    }
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
    let mut value =
        json!({"address": peer.address, "identity": peer.identity, "verified": peer.verified});
    if let Some(by) = peer.about.by {
        value["by"] = json!(by.word());
    }
    if peer.about.by == Some(By::WhoIs) {
        value["name"] = json!(peer.about.name);
        value["user"] = json!(peer.about.user);
        value["tags"] = json!(peer.about.tags);
    }
    value
}

pub(crate) fn peer_facts(map: &Map<String, Value>) -> PeerFacts {
    let Some(peer) = map.get("peer").and_then(Value::as_object) else {
        return PeerFacts::default();
    };
    let verified = peer.get("verified").and_then(Value::as_bool).unwrap_or(false);
    let by = match peer.get("by").and_then(Value::as_str) {
        Some("whois") => Some(By::WhoIs),
        Some("certificate") => Some(By::Certificate),
        Some(_) => None,
        // Before there was the key, certificates were all there was.
        None => verified.then_some(By::Certificate),
    };
    let tags = peer.get("tags").and_then(Value::as_array);
    PeerFacts {
        address: optional(peer, "address").unwrap_or_default(),
        identity: optional(peer, "identity"),
        verified,
        about: About {
            by,
            name: optional(peer, "name").unwrap_or_default(),
            user: optional(peer, "user"),
            tags: tags
                .into_iter()
                .flatten()
                .filter_map(|t| t.as_str().map(str::to_owned))
                .collect(),
        },
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
                about: About {
                    by: Some(By::WhoIs),
                    name: "web1.tail1.ts.net".into(),
                    user: None,
                    tags: vec!["tag:prod".into()],
                },
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

    #[test]
    fn a_verified_peer_of_an_older_version_had_a_certificate() {
        let old = json!({"peer": {"address": "[::1]:1", "identity": "n", "verified": true}});
        let facts = peer_facts(old.as_object().unwrap());
        assert_eq!(facts.known_identity(), Some((Some(By::Certificate), "n".into())));
        let none = json!({"peer": {"address": "[::1]:1", "identity": "n", "verified": false}});
        assert_eq!(peer_facts(none.as_object().unwrap()).known_identity(), None);
    }

    #[test]
    fn the_longest_identity_fits_into_a_journal() {
        use crate::limits;
        let tag = format!("tag:{}", "a".repeat(limits::TAGS_BYTES / limits::TAGS_MAX - 4));
        let about = About {
            by: Some(By::WhoIs),
            name: "n".repeat(limits::NODE_NAME_BYTES),
            // The worst that a name without control characters can become in JSON.
            user: Some("\"".repeat(limits::LOGIN_BYTES)),
            tags: vec![tag; limits::TAGS_MAX],
        };
        let identity = Some("i".repeat(limits::NODE_ID_BYTES));
        let address = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535".into();
        let peer = PeerFacts { address, identity, verified: true, about };
        let rest = 2 * 16 + 2 * 32 + 120 + 40 + 20 + 30 + 3 * 20 + 200;
        assert!(peer_json(&peer).to_string().len() + rest <= 4096);
    }
}
