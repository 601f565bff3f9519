//! Who is at the other end of the SSH connection.
//!
//! Tailscale's WhoIs first, then the registry by the source's address, then what the asking daemon says. An address of the
//! tailnet that `tailscaled` does not know belongs to nobody: a stale registry must not give it a name. What a daemon claims
//! counts only when it runs as root: everybody can write into the socket, and would be whom they like.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde_json::{Map, Value, json};

use super::decide::Question;
use super::engine::{Peer, Policy};
use super::trouble::Trouble;
use crate::limits;
use crate::localapi::LocalApi;
use crate::recorder::config::duration;

/// Who it is, and who says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// What rules compare a source address with.
    pub(super) address: Option<IpAddr>,
    pub(super) by: By,
    pub(super) name: String,
    pub(super) node_id: String,
    pub(super) numeric_id: i64,
    pub(super) tags: Vec<String>,
    /// Login and number; None when tagged, or unknown.
    pub(super) user: Option<(String, i64)>,
}

/// Who vouches for an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Claimed,
    Nobody,
    Registry,
    Whois,
}

impl By {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Claimed => "claimed",
            Self::Nobody => "unknown",
            Self::Registry => "registry",
            Self::Whois => "whois",
        }
    }
}

impl Identity {
    /// Nobody that has a name.
    fn unknown(address: Option<IpAddr>) -> Self {
        Self {
            address,
            by: By::Nobody,
            name: String::new(),
            node_id: String::new(),
            numeric_id: 0,
            tags: Vec::new(),
            user: None,
        }
    }

    /// As rules see it.
    pub(super) fn peer(&self) -> Peer<'_> {
        Peer {
            // No rule can be about it.
            address: self.address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            node_id: &self.node_id,
            login: self.user.as_ref().map_or("", |(login, _)| login),
        }
    }

    /// As the answer says it.
    pub(super) fn json(&self) -> Value {
        let mut map = Map::new();
        map.insert("node".into(), json!(self.name));
        map.insert("nodeID".into(), json!(self.node_id));
        map.insert("tags".into(), json!(self.tags));
        if let Some((login, id)) = &self.user {
            map.insert("userID".into(), json!(id));
            map.insert("user".into(), json!(login));
        }
        if self.by != By::Nobody {
            map.insert("by".into(), json!(self.by.word()));
        }
        Value::Object(map)
    }
}

/// Finds out who it is.
///
/// # Blocking
///
/// At most [`limits::AGENT_WHOIS`].
pub(super) fn find(
    question: &Question,
    is_root: bool,
    policy: Option<&Policy>,
    api: Option<(&LocalApi, &Trouble)>,
) -> Identity {
    if let (Some((api, trouble)), Some(ip)) = (api, question.source_ip) {
        let address = SocketAddr::new(ip, question.source_port);
        match api.whois(address, duration(limits::AGENT_WHOIS)) {
            Ok(Some(who)) => {
                trouble.over();
                // From loopback tailscaled passes on what came for the node.
                let known = who.addresses.first().copied().filter(|_| ip.is_loopback());
                return Identity {
                    address: Some(known.unwrap_or(ip)),
                    by: By::Whois,
                    name: who.name,
                    node_id: who.id,
                    numeric_id: who.numeric_id,
                    tags: who.tags,
                    user: who.user.map(|user| (user.login, user.id)),
                };
            }
            Ok(None) => trouble.over(),
            Err(e) => trouble.is(&e.to_string()),
        }
    }
    let of_tailnet = api.is_some() && question.source_ip.is_some_and(is_of_tailnet);
    if let (Some(ip), Some(policy), false) = (question.source_ip, policy, of_tailnet)
        && let Some(node) = policy.node_at(ip)
    {
        return Identity {
            address: Some(ip),
            by: By::Registry,
            name: node.name.clone(),
            node_id: node.id.clone(),
            numeric_id: node.numeric_id,
            tags: node.tags.clone(),
            user: node.user.as_ref().map(|user| (user.login.clone(), user.id)),
        };
    }
    let mut who = Identity::unknown(question.source_ip);
    let claims = !(question.node.is_empty()
        && question.node_id.is_empty()
        && question.user_login.is_empty());
    if is_root && claims {
        who.by = By::Claimed;
        who.name.clone_from(&question.node);
        who.node_id.clone_from(&question.node_id);
        who.user = (!question.user_login.is_empty()).then(|| (question.user_login.clone(), 0));
    }
    who
}

/// The ranges that Tailscale gives addresses from: 100.64.0.0/10 and fd7a:115c:a1e0::/48.
fn is_of_tailnet(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.to_bits() >> 22 == Ipv4Addr::new(100, 64, 0, 0).to_bits() >> 22,
        IpAddr::V6(ip) => ip.segments().starts_with(&[0xfd7a, 0x115c, 0xa1e0]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_a_tailnet() {
        for (ip, wanted) in [
            ("100.64.0.0", true),
            ("100.127.255.255", true),
            ("100.128.0.0", false),
            ("100.63.255.255", false),
            ("fd7a:115c:a1e0::1", true),
            ("fd7a:115c:a1e1::1", false),
        ] {
            assert_eq!(is_of_tailnet(ip.parse().unwrap()), wanted, "{ip}");
        }
    }
}
