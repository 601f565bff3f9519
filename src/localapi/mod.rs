//! Tailscale's LocalAPI over its Unix socket: who a peer is, what the tailnet looks like, this node's certificate.
//!
//! `tailscaled` answers there for Tailscale and for Headscale alike. One request a connection, HTTP/1.1; every call has a
//! deadline, every answer a bound, and an answer that is not exactly understood is an error and no identity.
//!
//! ```no_run
//! use castkeep::localapi::LocalApi;
//! use std::time::Duration;
//! let api = LocalApi::default();
//! if let Some(peer) = api.whois("100.64.0.7:40022".parse().unwrap(), Duration::from_secs(3))? {
//!     println!("{} is {}", peer.name, peer.id);
//! }
//! # Ok::<(), castkeep::localapi::LocalApiError>(())
//! ```
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod http;
mod whois;

pub use whois::{User, WhoIs};

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::limits;

/// Where `tailscaled` listens unless it was told otherwise.
pub const DEFAULT_SOCKET: &str = "/var/run/tailscale/tailscaled.sock";

/// The LocalAPI behind one socket. It holds no connection: a restart of `tailscaled` is nothing to it.
#[derive(Clone, Debug)]
pub struct LocalApi {
    socket: PathBuf,
}

impl LocalApi {
    /// The API at this socket.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// The socket that is asked.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Who is at the other end of a TCP connection, by its remote address. None: nobody that this node knows.
    ///
    /// Ask with the port that the connection really has: where `tailscaled` runs without a network interface of its own it
    /// passes connections on from loopback, and only the port tells them apart. It knows the port before it passes on the
    /// first byte, and not earlier.
    ///
    /// # Errors
    ///
    /// [`LocalApiError`]: there is no answer, or none that says who it is.
    ///
    /// # Blocking
    ///
    /// At most `timeout`.
    pub fn whois(
        &self,
        address: SocketAddr,
        timeout: Duration,
    ) -> Result<Option<WhoIs>, LocalApiError> {
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        let asked = address.to_string().replace('[', "%5B").replace(']', "%5D");
        let target = format!("/localapi/v0/whois?addr={}&proto=tcp", asked.replace(':', "%3A"));
        let answer = self.get(&target, limits::WHOIS_BYTES, timeout)?;
        match answer.status {
            200 => WhoIs::parse(&answer.body, address.ip()).map(Some),
            // The handler's own words: any other 404 comes from something that is not this API.
            404 if answer.body.trim_ascii().starts_with(b"no match for IP") => Ok(None),
            _ => Err(answer.refused()),
        }
    }

    /// The tailnet as this node sees it: the JSON of `tailscale status --json`.
    ///
    /// # Errors
    ///
    /// [`LocalApiError`]: there is no answer, or it is not text.
    ///
    /// # Blocking
    ///
    /// At most [`limits::STATUS_TIME`].
    pub fn status(&self) -> Result<String, LocalApiError> {
        let timeout = Duration::from_micros(limits::STATUS_TIME.0);
        let answer = self.get("/localapi/v0/status", limits::STATUS_BYTES, timeout)?.ok()?;
        String::from_utf8(answer).map_err(|_| LocalApiError::Unusable("not UTF-8"))
    }

    /// The certificate of one of this node's names, and its private key, both in PEM. `tailscaled` has it issued when there is
    /// none, which takes up to a minute or two, and renews it when it is asked within two weeks of the end.
    ///
    /// # Errors
    ///
    /// [`LocalApiError`]: there is no answer, or no certificate in it. 403 means that the caller is neither root nor the user in
    /// `TS_PERMIT_CERT_UID`.
    ///
    /// # Blocking
    ///
    /// At most `timeout`.
    pub fn certificate(
        &self,
        domain: &str,
        timeout: Duration,
    ) -> Result<(Vec<u8>, Vec<u8>), LocalApiError> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'*');
        if domain.is_empty() || domain.len() > 253 || !domain.bytes().all(fits) {
            return Err(LocalApiError::Unusable("the domain is not a DNS name"));
        }
        let target = format!("/localapi/v0/cert/{domain}?type=pair");
        let pair = self.get(&target, limits::CERTIFICATE_BYTES, timeout)?.ok()?;
        split_pair(&pair).ok_or(LocalApiError::Unusable("no certificate and key in it"))
    }

    fn get(
        &self,
        target: &str,
        most: usize,
        timeout: Duration,
    ) -> Result<http::Answer, LocalApiError> {
        let until = Instant::now().checked_add(timeout).ok_or(LocalApiError::TimedOut)?;
        http::get(&self.socket, target, most, until)
    }
}

impl Default for LocalApi {
    fn default() -> Self {
        Self::new(Path::new(DEFAULT_SOCKET))
    }
}

/// Certificates and key of a `type=pair` answer, in either order.
fn split_pair(pair: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let text = std::str::from_utf8(pair).ok()?;
    let (mut chain, mut key) = (String::new(), String::new());
    let mut rest = text;
    while let Some(at) = rest.find(BEGIN) {
        let block = rest.get(at..)?;
        let label = block.get(BEGIN.len()..)?.split("-----").next()?;
        let end = format!("-----END {label}-----");
        let len = block.find(&end)?.checked_add(end.len())?;
        let out = match label {
            "CERTIFICATE" => &mut chain,
            _ if label.ends_with("PRIVATE KEY") && key.is_empty() => &mut key,
            _ => return None,
        };
        out.push_str(block.get(..len)?);
        out.push('\n');
        rest = block.get(len..)?;
    }
    (!chain.is_empty() && !key.is_empty()).then(|| (chain.into_bytes(), key.into_bytes()))
}

const BEGIN: &str = "-----BEGIN ";

/// Why the LocalAPI did not say what was asked.
#[derive(Debug)]
#[non_exhaustive]
pub enum LocalApiError {
    /// The answer breaks HTTP, or ends in the middle.
    Broken(&'static str),
    /// It answered with another status than 200; the text is its own, cut, without control characters.
    Refused {
        /// 403: not allowed; 500: its own trouble.
        status: u16,
        /// What it said.
        text: String,
    },
    /// There was no answer in time.
    TimedOut,
    /// The socket cannot be reached.
    Unreachable(io::Error),
    /// The answer came whole, and does not say what it must.
    Unusable(&'static str),
}

impl fmt::Display for LocalApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(what) => write!(f, "its answer is broken: {what}"),
            Self::Refused { status, text } => write!(f, "it answered {status}: {text}"),
            Self::TimedOut => write!(f, "no answer in time"),
            Self::Unreachable(e) => match e.kind() {
                io::ErrorKind::NotFound => {
                    write!(f, "there is no such socket; does tailscaled run?")
                }
                io::ErrorKind::ConnectionRefused => {
                    write!(f, "nobody listens at the socket; does tailscaled run?")
                }
                _ => write!(f, "{e}"),
            },
            Self::Unusable(what) => write!(f, "its answer cannot be used: {what}"),
        }
    }
}

impl std::error::Error for LocalApiError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreachable(e) => Some(e),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_told_apart_by_its_labels() {
        let key = "-----BEGIN EC PRIVATE KEY-----\nAA==\n-----END EC PRIVATE KEY-----\n";
        let cert = "-----BEGIN CERTIFICATE-----\nBB==\n-----END CERTIFICATE-----\n";
        let both = |text: String| split_pair(text.as_bytes());
        let wanted = Some((format!("{cert}{cert}").into_bytes(), key.as_bytes().to_vec()));
        assert_eq!(both(format!("{key}{cert}{cert}")), wanted);
        assert_eq!(both(format!("{cert}\n{cert}\n{key}")), wanted);
        for bad in [
            String::new(),
            key.to_owned(),
            cert.to_owned(),
            format!("{key}{key}{cert}"),
            format!("{key}{}", &cert[..40]),
            format!("{key}{cert}-----BEGIN NOISE-----\n-----END NOISE-----\n"),
        ] {
            assert_eq!(both(bad.clone()), None, "{bad}");
        }
    }

    #[test]
    fn a_domain_cannot_become_another_request() {
        let api = LocalApi::new(Path::new("/nonexistent"));
        for bad in ["", "a b", "a/../whois", "a?type=key", "a\r\nX: y", "ä.example"] {
            let error = api.certificate(bad, Duration::from_secs(1)).unwrap_err();
            assert!(matches!(error, LocalApiError::Unusable(_)), "{bad}: {error}");
        }
    }
}
