//! HTTPS requests to a server that is known beforehand: what agents, announcing recorders and webhooks need.
//!
//! One request at a time and thread, blocking, with a deadline over everything (name, connection, TLS, answer) and a cap on
//! the answer. The connection is kept for the next request. TLS is that of the client: authorities, a pinned key, an own
//! certificate.

mod transport;

use std::fmt;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ureq::Agent;
use ureq::http::{Response, Uri};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector as _, TcpConnector};

use crate::client::{Tls, TlsConfig, explain_tls};
use crate::limits;
use crate::recorder::config::duration;

/// Where requests go, and who sends them.
#[derive(Clone, Debug, Default)]
pub struct HttpClientConfig {
    /// `https://host[:port][/prefix]`. `http://` only for loopback: a token must not travel in clear text.
    pub url: String,
    /// A file whose first line is a bearer token. Read at each request, so that a new one needs no restart.
    pub token_file: Option<PathBuf>,
    /// Authorities, pins, own certificate. Without authorities and pins those of the system are trusted.
    pub tls: TlsConfig,
}

/// An answer, whatever its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpAnswer {
    /// 100 to 999. Redirects are not followed.
    pub status: u16,
    /// `ETag`, as it was sent.
    pub etag: Option<String>,
    /// Empty for 304.
    pub body: Vec<u8>,
}

impl HttpAnswer {
    /// What a server says in a text of its own, for a log line: its first line, cut short.
    #[must_use]
    pub fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let line = text.lines().next().unwrap_or_default().trim();
        let line: String = line.chars().take(TEXT_CHARS).collect();
        if line.is_empty() {
            format!("status {}", self.status)
        } else {
            format!("status {}: {line}", self.status)
        }
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HttpError {
    /// The configuration or a file of it cannot be used.
    Config(String),
    /// No connection, or it was lost.
    Link(String),
    /// TLS: who the server is, or who we are.
    Tls(String),
    /// The deadline passed.
    TimedOut,
    /// The answer is larger than was allowed.
    TooBig,
    /// The answer is no HTTP, or is not whole.
    Protocol(String),
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(why) | Self::Link(why) | Self::Tls(why) | Self::Protocol(why) => {
                f.write_str(why)
            }
            Self::TimedOut => f.write_str("no answer in time"),
            Self::TooBig => f.write_str("the answer is too large"),
        }
    }
}

impl std::error::Error for HttpError {}

/// Sends requests to one server. Clones share their connections.
#[derive(Clone, Debug)]
pub struct HttpClient {
    agent: Agent,
    base: String,
    token_file: Option<PathBuf>,
}

impl HttpClient {
    /// Checks everything that can be checked without the network.
    ///
    /// # Errors
    ///
    /// [`HttpError::Config`] says what to change.
    pub fn new(config: &HttpClientConfig) -> Result<Self, HttpError> {
        let base = check_url(&config.url)?;
        let tls = if base.starts_with("https:") {
            let mut tls = config.tls.clone();
            if tls.roots_pem.is_empty() && tls.pins.is_empty() {
                tls.roots_pem = system_roots();
            }
            let tls = Tls::new(&tls).map_err(|e| HttpError::Config(format!("TLS: {e}")))?;
            Some(Arc::new(tls))
        } else {
            None
        };
        let settings = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .timeout_resolve(Some(duration(limits::DIAL)))
            .timeout_connect(Some(duration(limits::PROBE)))
            .max_response_header_size(limits::HEAD_BYTES)
            .max_idle_connections(IDLE_CONNECTIONS)
            .max_idle_age(IDLE_AGE)
            .user_agent(concat!("castkeep/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .build();
        let connector = ().chain(TcpConnector::default()).chain(transport::TlsConnector::new(tls));
        let agent = Agent::with_parts(settings, connector, DefaultResolver::default());
        let client = Self { agent, base, token_file: config.token_file.clone() };
        client.authorization()?;
        Ok(client)
    }

    /// `GET` of a path below the URL, conditional with an entity tag.
    ///
    /// # Errors
    ///
    /// [`HttpError`]. Any status is an answer.
    ///
    /// # Blocking
    ///
    /// Until the answer is whole, at most `timeout`.
    pub fn get(
        &self,
        path: &str,
        etag: Option<&str>,
        timeout: Duration,
        max_bytes: u64,
    ) -> Result<HttpAnswer, HttpError> {
        let mut request = self.agent.get(self.target(path));
        if let Some(etag) = etag {
            request = request.header("If-None-Match", etag);
        }
        if let Some(authorization) = self.authorization()? {
            request = request.header("Authorization", authorization);
        }
        let request = request.config().timeout_global(Some(timeout)).build();
        answer(request.call(), max_bytes)
    }

    /// `POST` of a JSON text.
    ///
    /// # Errors
    ///
    /// As [`HttpClient::get`]. After [`HttpError::Link`] and [`HttpError::TimedOut`] the server may have taken it.
    ///
    /// # Blocking
    ///
    /// Until the answer is whole, at most `timeout`.
    pub fn post(
        &self,
        path: &str,
        body: &[u8],
        timeout: Duration,
        max_bytes: u64,
    ) -> Result<HttpAnswer, HttpError> {
        let mut request =
            self.agent.post(self.target(path)).header("Content-Type", "application/json");
        if let Some(authorization) = self.authorization()? {
            request = request.header("Authorization", authorization);
        }
        let request = request.config().timeout_global(Some(timeout)).build();
        answer(request.send(body), max_bytes)
    }

    /// `DELETE` of a path below the URL.
    ///
    /// # Errors
    ///
    /// As [`HttpClient::get`].
    ///
    /// # Blocking
    ///
    /// Until the answer is whole, at most `timeout`.
    pub fn delete(&self, path: &str, timeout: Duration) -> Result<HttpAnswer, HttpError> {
        let mut request = self.agent.delete(self.target(path));
        if let Some(authorization) = self.authorization()? {
            request = request.header("Authorization", authorization);
        }
        let request = request.config().timeout_global(Some(timeout)).build();
        answer(request.call(), TEXT_BYTES)
    }

    /// Ends what waits in other threads with [`HttpError::Link`], and lets nothing new begin.
    pub fn shutdown(&self) {
        self.agent.clone().shutdown();
    }

    /// The URL that everything goes below, for log lines.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.base
    }

    fn target(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn authorization(&self) -> Result<Option<String>, HttpError> {
        let Some(path) = &self.token_file else { return Ok(None) };
        Ok(Some(format!("Bearer {}", read_token(path)?)))
    }
}

/// The certificates that this system trusts, PEM; empty when there is no bundle in the usual places.
#[must_use]
pub fn system_roots() -> Vec<u8> {
    SYSTEM_ROOTS.iter().find_map(|path| fs::read(path).ok()).unwrap_or_default()
}

/// The first line of a token file.
fn read_token(path: &Path) -> Result<String, HttpError> {
    let bad =
        |why: &dyn fmt::Display| HttpError::Config(format!("token file {}: {why}", path.display()));
    let text = fs::read_to_string(path).map_err(|e| bad(&e))?;
    let token = text.lines().next().unwrap_or_default().trim();
    let fits = (1..=limits::TOKEN_BYTES).contains(&token.len());
    if !fits || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(bad(&"its first line must be a token of visible ASCII characters"));
    }
    Ok(token.to_owned())
}

/// The URL without a slash at its end.
fn check_url(text: &str) -> Result<String, HttpError> {
    let bad = |why: &str| HttpError::Config(format!("`{text}` {why}"));
    let uri: Uri =
        text.parse().map_err(|_| bad("is not a URL such as https://control.example:8443"))?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(bad("is not a URL such as https://control.example:8443"));
    };
    if authority.as_str().contains('@') || text.contains(['?', '#']) {
        return Err(bad("must have neither a user nor a query"));
    }
    let host = authority.host().trim_matches(['[', ']']);
    let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    match scheme {
        "https" => {}
        "http" if loopback => {}
        "http" => return Err(bad("would travel in clear text: use https://")),
        _ => return Err(bad("must begin with https://")),
    }
    Ok(text.trim_end_matches('/').to_owned())
}

fn answer(
    result: Result<Response<ureq::Body>, ureq::Error>,
    max_bytes: u64,
) -> Result<HttpAnswer, HttpError> {
    let mut response = result.map_err(explain)?;
    let etag = response.headers().get("etag").and_then(|v| v.to_str().ok()).map(str::to_owned);
    let status = response.status().as_u16();
    let body = response.body_mut().with_config().limit(max_bytes).read_to_vec().map_err(explain)?;
    Ok(HttpAnswer { status, etag, body })
}

fn explain(error: ureq::Error) -> HttpError {
    match error {
        ureq::Error::Timeout(_) => HttpError::TimedOut,
        ureq::Error::BodyExceedsLimit(_) => HttpError::TooBig,
        ureq::Error::HostNotFound => HttpError::Link("its name is not known".into()),
        ureq::Error::Tls(why) => HttpError::Tls(why.into()),
        ureq::Error::Io(e) => {
            if let Some(why) = e.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
                return HttpError::Tls(explain_tls(why).replace("the recorder", "the server"));
            }
            match e.kind() {
                io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => HttpError::TimedOut,
                io::ErrorKind::UnexpectedEof => {
                    HttpError::Link("the server closed the connection early".into())
                }
                _ => HttpError::Link(e.to_string()),
            }
        }
        e => HttpError::Protocol(e.to_string()),
    }
}

/// Debian, Alpine and Arch; Fedora; openSUSE.
const SYSTEM_ROOTS: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
];
/// Answers that say nothing but why.
const TEXT_BYTES: u64 = 64 * 1024;
/// See [`HttpAnswer::text`].
const TEXT_CHARS: usize = 200;
/// A long poll, and a short request beside it.
const IDLE_CONNECTIONS: usize = 2;
/// Well below the time after which servers close a connection without a request.
const IDLE_AGE: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clear_text_stays_on_this_machine() {
        for good in [
            "https://c.example",
            "https://c.example:8443/p/",
            "http://127.0.0.1:1",
            "http://[::1]:2",
            "http://localhost:3",
        ] {
            assert_eq!(check_url(good).unwrap(), good.trim_end_matches('/'));
        }
        for bad in [
            "",
            "c.example",
            "http://c.example",
            "http://127.0.0.1.example",
            "ftp://127.0.0.1",
            "https://u:p@c.example",
            "https://c.example/?x=1",
            "https://",
        ] {
            assert!(matches!(check_url(bad), Err(HttpError::Config(_))), "{bad}");
        }
    }

    #[test]
    fn a_token_is_one_visible_line() {
        let path = std::env::temp_dir().join(format!("castkeep-token-{}", std::process::id()));
        fs::write(&path, "  tok-en_1.~+/=\nsecond\n").unwrap();
        assert_eq!(read_token(&path).unwrap(), "tok-en_1.~+/=");
        for bad in ["", "\n", "two words", "\u{e4}", &"x".repeat(limits::TOKEN_BYTES + 1)] {
            fs::write(&path, bad).unwrap();
            let error = read_token(&path).unwrap_err().to_string();
            assert!(error.contains("castkeep-token") && !error.contains("two words"), "{error}");
        }
        fs::remove_file(&path).unwrap();
        assert!(read_token(&path).is_err());
    }
}
