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

    /// Whether a peer may upload.
    #[must_use]
    pub fn allows(&self, ip: IpAddr, has_certificate: bool) -> bool {
        self.anyone
            || (self.loopback && is_loopback(ip))
            || (self.certificate && has_certificate)
            || self.networks.iter().any(|n| n.contains(ip))
    }

    /// Whether a peer at this address can be let in at all, perhaps by a certificate.
    #[must_use]
    pub(crate) fn may_allow(&self, ip: IpAddr) -> bool {
        self.allows(ip, true)
    }

    /// Whether nobody without a client certificate is let in, so that TLS can ask for it in the handshake.
    #[must_use]
    pub(crate) fn only_certificate(&self) -> bool {
        self.certificate && !self.anyone && !self.loopback && self.networks.is_empty()
    }
}

impl FromStr for AllowUpload {
    type Err = String;

    /// `loopback`, `certificate`, `anyone` and networks, separated by commas.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut allow = Self::default();
        for word in text.split(',').map(str::trim) {
            match word {
                "anyone" => allow.anyone = true,
                "loopback" => allow.loopback = true,
                "certificate" => allow.certificate = true,
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
        ];
        let mut comma = "";
        for (_, word) in words.into_iter().filter(|(on, _)| *on) {
            write!(f, "{comma}{word}")?;
            comma = ",";
        }
        for net in &self.networks {
            write!(f, "{comma}{net}")?;
            comma = ",";
        }
        Ok(())
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
                "`{text}` is none of loopback, certificate, anyone, an address, or a network such \
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
    fn nonsense_is_refused_with_what_would_be_right() {
        for bad in ["", "any", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/+8", "10/8"] {
            let error = bad.parse::<AllowUpload>().unwrap_err();
            assert!(error.contains("100.64.0.0/10"), "{bad}: {error}");
        }
    }
}
