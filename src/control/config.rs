//! How a coordination server is set up.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::http_client::HttpClientConfig;
use crate::limits;
use crate::recorder::config::{duration, is_loopback};
use crate::recorder::{StartError, TlsFiles};

/// Everything that control is told. Start from [`ControlConfig::new`].
#[derive(Clone, Debug)]
pub struct ControlConfig {
    /// The policy file.
    pub policy: PathBuf,
    /// The node registry.
    pub nodes: PathBuf,
    /// The state directory: version, announced recorders, last good policy, events.
    pub state: PathBuf,
    /// Where nodes, recorders and admins come in; at least one.
    pub listen: Vec<SocketAddr>,
    /// Certificate and key; without, the listeners are clear text, which only loopback may be. With a client CA, the name in
    /// a checked client certificate is who it is.
    pub tls: Option<TlsFiles>,
    /// The tokens file.
    pub tokens: Option<PathBuf>,
    /// Health and metrics, over HTTP/1.1 without TLS.
    pub metrics_listen: Vec<SocketAddr>,
    /// What compiled policies name as the place for notifications.
    pub notify_url: String,
    /// Why a session is rejected that must be recorded and cannot be. None: the compiler's own words.
    pub reject_message: Option<String>,
    /// Why it is ended in the middle.
    pub terminate_message: Option<String>,
    /// Where events are passed on to.
    pub webhook: Option<HttpClientConfig>,
    /// Connections at a time; past it they are refused.
    pub max_connections: usize,
    /// How often recorders announce themselves; after three times that they are gone.
    #[doc(hidden)]
    pub heartbeat: Duration,
    /// How often files are looked at.
    #[doc(hidden)]
    pub watch: Duration,
    /// Time for a request head and for a TLS handshake.
    #[doc(hidden)]
    pub head_time: Duration,
    /// Longest wait of a long poll.
    #[doc(hidden)]
    pub wait: Duration,
    /// Size of one file of the event log.
    #[doc(hidden)]
    pub event_file_bytes: u64,
    /// First pause behind a webhook that failed.
    #[doc(hidden)]
    pub webhook_pause: Duration,
}

impl ControlConfig {
    /// Control on `127.0.0.1:0`.
    #[must_use]
    pub fn new(
        policy: impl Into<PathBuf>,
        nodes: impl Into<PathBuf>,
        state: impl Into<PathBuf>,
    ) -> Self {
        Self {
            policy: policy.into(),
            nodes: nodes.into(),
            state: state.into(),
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))],
            tls: None,
            tokens: None,
            metrics_listen: Vec::new(),
            notify_url: NOTIFY_URL.to_owned(),
            reject_message: None,
            terminate_message: None,
            webhook: None,
            max_connections: limits::CONTROL_CONNECTIONS,
            heartbeat: duration(limits::HEARTBEAT),
            watch: duration(limits::CONTROL_WATCH),
            head_time: duration(limits::HEAD_TIME),
            wait: duration(limits::CONTROL_WAIT),
            event_file_bytes: limits::EVENT_FILE_BYTES,
            webhook_pause: duration(limits::BACKOFF_MIN),
        }
    }

    /// Refuses what would hand out the policy to whoever asks, or tokens to whoever listens.
    pub(super) fn check(&self) -> Result<(), StartError> {
        let mutual = self.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        if self.tokens.is_none() && !mutual {
            return Err(StartError::new(
                "control",
                "nothing says who may ask",
                "give --tokens FILE, or --client-ca FILE with --tls-cert and --tls-key",
            ));
        }
        let open = self.listen.iter().find(|address| !is_loopback(address.ip()));
        if let (Some(open), None) = (open, &self.tls) {
            return Err(StartError::new(
                &format!("--listen {open}"),
                "it can be reached from other machines, and without TLS tokens and policies would travel in clear text",
                "give --tls-cert FILE and --tls-key FILE",
            ));
        }
        Ok(())
    }
}

/// As upstream, the host says nothing: an agent tells events to the server that its policy came from.
const NOTIFY_URL: &str = "https://control/castkeep/1/notify";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_ask_must_be_said_and_tokens_stay_secret() {
        let mut config = ControlConfig::new("p", "n", "s");
        let error = config.check().unwrap_err().to_string();
        assert!(error.contains("--tokens"), "{error}");
        config.tokens = Some("t".into());
        config.check().unwrap();
        config.listen.push("0.0.0.0:8443".parse().unwrap());
        let error = config.check().unwrap_err().to_string();
        assert!(error.contains("0.0.0.0:8443") && error.contains("--tls-cert"), "{error}");
        let mut files = TlsFiles { cert: "c".into(), key: "k".into(), client_ca: None };
        config.tls = Some(files.clone());
        config.check().unwrap();
        config.tokens = None;
        assert!(config.check().is_err());
        files.client_ca = Some("ca".into());
        config.tls = Some(files);
        config.check().unwrap();
    }
}
