//! Who may upload.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::config::is_loopback;

/// Who may upload: a peer is let in when one of these holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowUpload {
    /// Everyone who can reach the port.
    pub anyone: bool,
    /// Peers on this machine.
    pub loopback: bool,
    /// Peers whose client certificate was checked.
    pub certificate: bool,
    /// Peers in these networks.
    pub networks: Vec<Cidr>,
    /// Nodes of the tailnet, as WhoIs knows them.
    pub tailnet: bool,
    /// Nodes of the tailnet that have one of these tags (`tag:prod`).
    pub tags: Vec<String>,
}

impl AllowUpload {
    /// Peers on this machine only.
    #[must_use]
    pub fn loopback() -> Self {
        Self { loopback: true, ..Self::default() }
    }

    /// Peers with a checked client certificate only.
    #[must_use]
    pub fn certificate() -> Self {
        Self { certificate: true, ..Self::default() }
    }

    /// Every node of the tailnet.
    #[must_use]
    pub fn tailnet() -> Self {
        Self { tailnet: true, ..Self::default() }
    }

    /// Whether a node of the tailnet may upload because it is one.
    #[must_use]
    pub fn allows_node(&self, tags: &[String]) -> bool {
        self.tailnet || self.tags.iter().any(|tag| tags.contains(tag))
    }

    /// Whether WhoIs is needed to tell.
    #[must_use]
    pub(crate) fn needs_whois(&self) -> bool {
        self.tailnet || !self.tags.is_empty()
    }

    /// Whether a peer may upload, whatever node it is.
    #[must_use]
    pub fn allows(&self, ip: IpAddr, has_certificate: bool) -> bool {
        self.anyone
            || (self.loopback && is_loopback(ip))
            || (self.certificate && has_certificate)
            || self.networks.iter().any(|n| n.contains(ip))
    }

    /// Whether a peer at this address can be let in at all, perhaps by a certificate or as a node.
    #[must_use]
    pub(crate) fn may_allow(&self, ip: IpAddr) -> bool {
        self.needs_whois() || self.allows(ip, true)
    }

    /// Whether nobody without a client certificate is let in, so that TLS can ask for it in the handshake.
    #[must_use]
    pub(crate) fn only_certificate(&self) -> bool {
        let others = self.anyone || self.loopback || self.needs_whois();
        self.certificate && !others && self.networks.is_empty()
    }
}

impl FromStr for AllowUpload {
    type Err = String;

    /// `loopback`, `certificate`, `anyone`, `tailnet`, `tailnet:tag:NAME` and networks, separated by commas.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut allow = Self::default();
        for word in text.split(',').map(str::trim) {
            match word {
                "anyone" => allow.anyone = true,
                "loopback" => allow.loopback = true,
                "certificate" => allow.certificate = true,
                "tailnet" => allow.tailnet = true,
                _ if word.starts_with("tailnet:") => allow.tags.push(tag(word)?),
                _ => allow.networks.push(word.parse()?),
            }
        }
        Ok(allow)
    }
}

impl fmt::Display for AllowUpload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [
            (self.anyone, "anyone"),
            (self.loopback, "loopback"),
            (self.certificate, "certificate"),
            (self.tailnet, "tailnet"),
        ];
        let mut comma = "";
        for (_, word) in words.into_iter().filter(|(on, _)| *on) {
            write!(f, "{comma}{word}")?;
            comma = ",";
        }
        for tag in &self.tags {
            write!(f, "{comma}tailnet:{tag}")?;
            comma = ",";
        }
        for net in &self.networks {
            write!(f, "{comma}{net}")?;
            comma = ",";
        }
        Ok(())
    }
}

/// The tag of `tailnet:tag:NAME`.
fn tag(word: &str) -> Result<String, String> {
    let tag = word.strip_prefix("tailnet:").unwrap_or(word);
    let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    match tag.strip_prefix("tag:") {
        Some(name) if !name.is_empty() && name.bytes().all(fits) => Ok(tag.to_owned()),
        _ => {
            Err(format!("`{word}`: only tags can stand behind `tailnet:`, as in tailnet:tag:prod"))
        }
    }
}

/// A network: an address and how many of its leading bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    bits: u8,
}

impl Cidr {
    /// Whether the address lies in the network. IPv4-mapped addresses count as IPv4.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.address, ip.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => {
                let diff = u32::from(net) ^ u32::from(ip);
                diff.checked_shr(32 - u32::from(self.bits)).unwrap_or(0) == 0
            }
            (IpAddr::V6(net), IpAddr::V6(ip)) => {
                let diff = u128::from(net) ^ u128::from(ip);
                diff.checked_shr(128 - u32::from(self.bits)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || {
            format!(
                "`{text}` is none of loopback, certificate, anyone, tailnet, an address, or a network such \
                 as 100.64.0.0/10"
            )
        };
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let max = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) if bits.bytes().all(|b| b.is_ascii_digit()) => {
                bits.parse().ok().filter(|b| *b <= max).ok_or_else(bad)?
            }
            Some(_) => return Err(bad()),
            None => max,
        };
        Ok(Self { address, bits })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn networks_take_their_own_and_nobody_else() {
        let allow: AllowUpload = "100.64.0.0/10,fd7a:115c:a1e0::/48, 192.0.2.7".parse().unwrap();
        assert!(allow.allows(ip("100.127.255.255"), false));
        assert!(allow.allows(ip("::ffff:100.64.0.1"), false));
        assert!(!allow.allows(ip("100.128.0.0"), false));
        assert!(allow.allows(ip("fd7a:115c:a1e0::9"), false));
        assert!(!allow.allows(ip("fd7a:115c:a1e1::9"), false));
        assert!(allow.allows(ip("192.0.2.7"), false));
        assert!(!allow.allows(ip("192.0.2.8"), true));
        assert!(!allow.allows(ip("127.0.0.1"), false));
        let all: Cidr = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains(ip("8.8.8.8")) && !all.contains(ip("::1")));
        let all: Cidr = "::/0".parse().unwrap();
        assert!(all.contains(ip("2001:db8::1")));
    }

    #[test]
    fn words_mean_what_they_say() {
        let allow: AllowUpload = "loopback,certificate".parse().unwrap();
        assert!(allow.allows(ip("::1"), false) && allow.allows(ip("127.9.9.9"), false));
        assert!(allow.allows(ip("192.0.2.1"), true) && !allow.allows(ip("192.0.2.1"), false));
        assert!(!allow.only_certificate());
        assert!(AllowUpload::certificate().only_certificate());
        assert_eq!(allow.to_string(), "loopback,certificate");
    }

    #[test]
    fn nodes_are_let_in_as_nodes() {
        let all: AllowUpload = "tailnet".parse().unwrap();
        assert!(all.allows_node(&[]) && all.may_allow(ip("192.0.2.1")));
        assert!(!all.allows(ip("127.0.0.1"), true), "only WhoIs tells");
        let some: AllowUpload = "tailnet:tag:prod,certificate,tailnet:tag:db".parse().unwrap();
        assert!(some.allows_node(&["tag:x".into(), "tag:db".into()]));
        assert!(!some.allows_node(&["tag:production".into()]) && !some.allows_node(&[]));
        assert!(!some.only_certificate());
        assert_eq!(some.to_string(), "certificate,tailnet:tag:prod,tailnet:tag:db");
        for bad in ["tailnet:", "tailnet:prod", "tailnet:tag:", "tailnet:tag:a b"] {
            assert!(bad.parse::<AllowUpload>().unwrap_err().contains("tailnet:tag:prod"), "{bad}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_what_would_be_right() {
        for bad in ["", "any", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/+8", "10/8"] {
            let error = bad.parse::<AllowUpload>().unwrap_err();
            assert!(error.contains("100.64.0.0/10"), "{bad}: {error}");
        }
    }
}
