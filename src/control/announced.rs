//! Recorders that announced themselves. Pure: the time comes in.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde_json::{Value, json};

use super::auth::is_tag;
use crate::limits;
use crate::time::{Span, Tick};

/// What a recorder says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Announcement {
    /// Where it takes recordings.
    pub(super) addresses: Vec<SocketAddr>,
    /// As which recorder rules name it.
    pub(super) tags: Vec<String>,
    /// The name in its certificate; none for clear text.
    pub(super) tls: Option<String>,
}

impl Announcement {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// What is wrong, for the answer.
    pub(super) fn parse(body: &[u8]) -> Result<Self, String> {
        let value: Value = serde_json::from_slice(body).map_err(|e| e.to_string())?;
        Self::from_json(&value)
    }

    pub(super) fn to_json(&self) -> Value {
        let addresses: Vec<String> = self.addresses.iter().map(SocketAddr::to_string).collect();
        json!({ "addresses": addresses, "tags": self.tags, "tls": self.tls })
    }

    fn from_json(value: &Value) -> Result<Self, String> {
        let list = |key: &str| match value.get(key) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(all)) => all
                .iter()
                .map(|v| v.as_str().map(str::to_owned))
                .collect::<Option<Vec<_>>>()
                .ok_or_else(|| format!("`{key}` must be a list of strings")),
            Some(_) => Err(format!("`{key}` must be a list of strings")),
        };
        let mut addresses = Vec::new();
        for text in list("addresses")? {
            let address: SocketAddr =
                text.parse().map_err(|_| format!("`{text}` is no address with a port"))?;
            let ip = address.ip();
            if ip.is_unspecified() || ip.is_multicast() || address.port() == 0 {
                return Err(format!("nobody can reach `{text}`"));
            }
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if addresses.is_empty() || addresses.len() > limits::RECORDER_ADDRESSES {
            let most = limits::RECORDER_ADDRESSES;
            return Err(format!("`addresses` must be 1 to {most} addresses"));
        }
        addresses.sort_unstable();
        let mut tags = list("tags")?;
        tags.sort_unstable();
        tags.dedup();
        if tags.len() > limits::RECORDER_TAGS || !tags.iter().all(|tag| is_tag(tag)) {
            return Err("`tags` must be a few names such as tag:rec".into());
        }
        let tls = match value.get("tls") {
            None | Some(Value::Null) => None,
            Some(Value::String(name)) if (1..=NAME_BYTES).contains(&name.len()) => {
                Some(name.clone())
            }
            Some(_) => return Err("`tls` must be the name in the certificate".into()),
        };
        Ok(Self { addresses, tags, tls })
    }
}

/// All that are alive.
#[derive(Clone, Debug, Default)]
pub(super) struct Announced {
    live: BTreeMap<String, (Announcement, Tick)>,
    /// Those that were there before. Where the registry has them too they are tried last.
    silent: BTreeSet<String>,
}

impl Announced {
    /// Takes an announcement of `holder`, or hears that it is still there. True: something changed.
    ///
    /// # Errors
    ///
    /// There is no room for another recorder.
    pub(super) fn announce(
        &mut self,
        now: Tick,
        lasts: Span,
        holder: &str,
        said: Announcement,
    ) -> Result<bool, &'static str> {
        let expires = now.after(lasts);
        if let Some((known, until)) = self.live.get_mut(holder) {
            *until = expires;
            let changed = *known != said;
            *known = said;
            return Ok(changed);
        }
        if self.live.len() >= limits::RECORDERS_ANNOUNCED {
            return Err("as many recorders as are taken have announced themselves");
        }
        self.live.insert(holder.to_owned(), (said, expires));
        self.silent.remove(holder);
        Ok(true)
    }

    /// It takes no more recordings. True: it was there.
    pub(super) fn withdraw(&mut self, holder: &str) -> bool {
        let was_there = self.live.remove(holder).is_some();
        if was_there && self.silent.len() < limits::RECORDERS_ANNOUNCED {
            self.silent.insert(holder.to_owned());
        }
        was_there
    }

    /// Drops those that were silent for too long and says which.
    pub(super) fn expire(&mut self, now: Tick) -> Vec<String> {
        let over = self.live.iter().filter(|(_, (_, until))| *until <= now);
        let over: Vec<String> = over.map(|(holder, _)| holder.clone()).collect();
        for holder in &over {
            self.withdraw(holder);
        }
        over
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Announcement)> {
        self.live.iter().map(|(holder, (said, _))| (holder.as_str(), said))
    }

    /// What this one said.
    pub(super) fn of(&self, holder: &str) -> Option<&Announcement> {
        self.live.get(holder).map(|(said, _)| said)
    }

    /// Those that were there before.
    pub(super) fn silent(&self) -> impl Iterator<Item = &str> {
        self.silent.iter().map(String::as_str)
    }

    pub(super) fn len(&self) -> usize {
        self.live.len()
    }

    /// For the state directory: a restart of control must not take the recorders from everybody.
    pub(super) fn to_json(&self) -> Value {
        let all = self.iter().map(|(holder, said)| json!({ "node": holder, "is": said.to_json() }));
        json!({ "live": all.collect::<Vec<_>>(), "silent": self.silent })
    }

    /// What [`Announced::to_json`] wrote; each has its time to announce itself again. What cannot be read is left out.
    pub(super) fn from_json(value: &Value, now: Tick, lasts: Span) -> Self {
        let mut announced = Self::default();
        let list = |key: &str| value.get(key).and_then(Value::as_array).into_iter().flatten();
        let silent = list("silent").filter_map(Value::as_str).map(str::to_owned);
        announced.silent.extend(silent.take(limits::RECORDERS_ANNOUNCED));
        for entry in list("live") {
            let holder = entry.get("node").and_then(Value::as_str);
            let said = entry.get("is").and_then(|v| Announcement::from_json(v).ok());
            if let (Some(holder), Some(said)) = (holder, said) {
                let _ = announced.announce(now, lasts, holder, said);
            }
        }
        announced
    }
}

/// The longest DNS name.
const NAME_BYTES: usize = 253;

#[cfg(test)]
mod tests {
    use super::*;

    const LASTS: Span = Span::from_secs(30);

    fn said(address: &str) -> Announcement {
        let body = format!("{{\"addresses\":[\"{address}\"],\"tags\":[\"tag:rec\"]}}");
        Announcement::parse(body.as_bytes()).unwrap()
    }

    fn at(seconds: u64) -> Tick {
        Tick::default().after(Span::from_secs(seconds))
    }

    #[test]
    fn silence_ends_an_announcement_and_a_heartbeat_does_not_change_it() {
        let mut all = Announced::default();
        assert_eq!(all.announce(at(0), LASTS, "a", said("127.0.0.1:80")), Ok(true));
        assert_eq!(all.announce(at(1), LASTS, "b", said("127.0.0.2:80")), Ok(true));
        assert_eq!(all.announce(at(20), LASTS, "a", said("127.0.0.1:80")), Ok(false));
        assert!(all.expire(at(30)).is_empty());
        assert_eq!(all.expire(at(31)), ["b"]);
        assert_eq!(all.expire(at(49)), Vec::<String>::new());
        assert_eq!(all.announce(at(49), LASTS, "a", said("127.0.0.3:80")), Ok(true));
        assert!(all.withdraw("a") && !all.withdraw("a"));
        assert_eq!(all.len(), 0);
    }

    #[test]
    fn a_restart_gives_everybody_the_time_to_come_back() {
        let mut all = Announced::default();
        let _ = all.announce(at(0), LASTS, "a", said("[::1]:443"));
        let mut again = Announced::from_json(&all.to_json(), at(1_000), LASTS);
        assert_eq!(again.iter().next(), all.iter().next());
        assert!(again.expire(at(1_029)).is_empty());
        assert_eq!(again.expire(at(1_030)), ["a"]);
        let last = Announced::from_json(&again.to_json(), at(1_030), LASTS);
        assert_eq!((last.len(), last.silent().collect::<Vec<_>>()), (0, vec!["a"]));
        for broken in ["7", "[7]", "{\"live\":[{\"node\":\"a\",\"is\":{}}],\"silent\":[7]}"] {
            let broken = serde_json::from_str(broken).unwrap();
            assert_eq!(Announced::from_json(&broken, at(0), LASTS).len(), 0);
        }
    }

    #[test]
    fn there_is_an_end_to_what_is_taken() {
        let mut all = Announced::default();
        for n in 0..limits::RECORDERS_ANNOUNCED {
            assert_eq!(all.announce(at(0), LASTS, &n.to_string(), said("127.0.0.1:80")), Ok(true));
        }
        assert!(all.announce(at(0), LASTS, "one more", said("127.0.0.1:80")).is_err());
        assert_eq!(all.announce(at(1), LASTS, "7", said("127.0.0.1:80")), Ok(false));
        let many: Vec<String> = (1..30).map(|n| format!("\"127.0.0.{n}:80\"")).collect();
        for bad in [
            "",
            "7",
            "{}",
            "{\"addresses\":[]}",
            "{\"addresses\":\"127.0.0.1:80\"}",
            "{\"addresses\":[\"host:80\"]}",
            "{\"addresses\":[\"0.0.0.0:80\"]}",
            "{\"addresses\":[\"224.0.0.1:80\"]}",
            "{\"addresses\":[\"127.0.0.1:0\"]}",
            "{\"addresses\":[\"127.0.0.1:1\"],\"tags\":[\"rec\"]}",
            "{\"addresses\":[\"127.0.0.1:1\"],\"tags\":[7]}",
            "{\"addresses\":[\"127.0.0.1:1\"],\"tls\":\"\"}",
            &format!("{{\"addresses\":[{}]}}", many.join(",")),
        ] {
            assert!(Announcement::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
