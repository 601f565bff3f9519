//! What `record` and `login-shell` share: recorders by name, TLS, policy, and what is said about the session.

use std::fs;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use super::{Args, Failure, Opt, pty_sys};
use crate::client::{
    Decision, Metadata, PolicySource, Question, RecorderAddr, Release, Tls, TlsConfig,
};
use crate::limits;

pub(super) const RECORDERS: Opt = Opt::list(
    "recorders",
    "ADDRESS,...",
    "Recorders, in order of preference: host:port, ip:port, [v6]:port, unix:/path, https://host:port. The\nport is 80 unless given, 443 with https.",
);
pub(super) const POLICY: Opt = Opt::value(
    "policy",
    "ADDRESS",
    "Ask this agent who may log in and who records it, instead of naming recorders: unix:/run/castkeep/agent.sock,\nor https://host:port of `castkeep control`.",
);
pub(super) const POLICY_UNREACHABLE: Opt = Opt::value(
    "policy-unreachable",
    "refuse|as-configured",
    "Without an answer of the agent: let nobody in (refuse, the default), or go by --recorders and --enforce.",
);
pub(super) const POLICY_TOKEN: Opt = Opt::value(
    "policy-token-file",
    "FILE",
    "What `castkeep control` knows this node by. Not for an agent.",
);
pub(super) const ENFORCE: Opt = Opt::switch(
    "enforce",
    "Fail closed: without a recorder nothing starts, and when recording fails later the session is ended.",
);
pub(super) const OPEN: Opt = Opt::switch(
    "open",
    "Fail open, the default: the session goes on without recording, and the recording says so later.",
);
pub(super) const REJECT: Opt =
    Opt::value("reject-message", "TEXT", "Fail closed at the start alone, with this message.");
pub(super) const TERMINATE: Opt =
    Opt::value("terminate-message", "TEXT", "Fail closed in mid-session alone, with this message.");
pub(super) const RELEASE: Opt = Opt::value(
    "release",
    "ring|commit",
    "When output is shown: once it is on its way (ring, the default), or once a recorder has stored it (commit).",
);
pub(super) const STOCK: Opt = Opt::switch(
    "release-stock",
    "With `--release commit`, use recorders without commits too, and show what they have received.",
);
pub(super) const RECORD_INPUT: Opt = Opt::switch(
    "record-input",
    "Record what is typed as well. It is masked while the terminal does not echo.",
);
pub(super) const GRACE: Opt = Opt::value(
    "grace",
    "TIME",
    "How long a lost recorder may take to be replaced before recording counts as failed. Default 15s.",
);
pub(super) const STALL: Opt =
    Opt::value("stall-limit", "TIME", "How long a fail-open session may be held up. Default 1s.");
pub(super) const START: Opt = Opt::value(
    "start-limit",
    "TIME",
    "How long all recorders together may take at the start. Default 30s.",
);
pub(super) const CLOSE_WAIT: Opt = Opt::value(
    "close-wait",
    "TIME",
    "How long to wait at the end for everything to be stored. Default 5s.",
);
pub(super) const RING: Opt =
    Opt::value("ring", "SIZE", "How much is kept until a recorder has stored it. Default 4MiB.");
pub(super) const TLS_CA: Opt = Opt::value(
    "tls-ca",
    "FILE",
    "Authorities that recorders' certificates must come from, PEM. Default: the system's.",
);
pub(super) const TLS_CERT: Opt =
    Opt::value("tls-cert", "FILE", "Own certificate, PEM, for recorders that ask for one.");
pub(super) const TLS_KEY: Opt = Opt::value("tls-key", "FILE", "Its key, PEM.");
pub(super) const TLS_PIN: Opt = Opt::list(
    "tls-pin",
    "SHA256,...",
    "Accept only this public key: its SHA-256 in hexadecimal, or sha256/BASE64. Without --tls-ca it stands\nfor authority and name.",
);
pub(super) const TLS_PIN_IGNORES_TIME: Opt = Opt::switch(
    "tls-pin-ignores-time",
    "With a matching pin, accept a certificate that is not valid at this time: for clocks that are wrong.",
);
pub(super) const QUIET: Opt =
    Opt::switch("quiet", "Say nothing about the recording unless something is lost.").short('q');
pub(super) const VERBOSE: Opt =
    Opt::switch("verbose", "Say what happens to the recording while it happens.").short('v');
pub(super) const SRC_NODE: Opt = Opt::value(
    "src-node",
    "NAME",
    "Where the user came from. Default: from SSH_CONNECTION, or this host.",
);
pub(super) const SRC_NODE_ID: Opt =
    Opt::value("src-node-id", "ID", "Its stable id. Default: as --src-node.");
pub(super) const SRC_NODE_USER: Opt = Opt::value("src-node-user", "NAME", "Whose node that is.");
pub(super) const SSH_USER: Opt =
    Opt::value("ssh-user", "NAME", "The user that was asked for. Default: this user.");
pub(super) const CONNECTION_ID: Opt = Opt::value(
    "connection-id",
    "ID",
    "What sessions of one connection share. Default: from SSH_CONNECTION.",
);
pub(super) const NODE: Opt = Opt::value("node", "NAME", "This host. Default: its host name.");

/// What was asked for, checked.
pub(super) struct Settings {
    pub(super) decision: Decision,
    pub(super) metadata: Metadata,
    pub(super) ring_bytes: usize,
    pub(super) close_wait: Duration,
    pub(super) quiet: bool,
    pub(super) verbose: bool,
    /// Recorders that have no address now, and why.
    pub(super) unresolved: Vec<String>,
}

impl Settings {
    /// Reads the options. Names are resolved, which may take up to [`RESOLVE_LIMIT`].
    pub(super) fn from_args(args: &Args) -> Result<Self, Failure> {
        let names = args.list("recorders")?;
        let policy = args.string("policy")?;
        if names.is_empty() && policy.is_none() {
            return Err(Failure::usage(
                "no recorder is named: give --recorders host:port or --policy ADDRESS, or `recorders` or `policy` in the configuration file",
            ));
        }
        if args.switch("enforce")? && args.switch("open")? {
            return Err(Failure::usage("--enforce and --open exclude each other"));
        }
        let tls = tls(args)?;
        let mut wanted = Vec::new();
        for name in &names {
            wanted.push(Wanted::parse(name, tls.is_some()).ok_or_else(|| {
                args.wrong(
                    "recorders",
                    "a list of host:port, [v6]:port, unix:/path, https://host:port",
                )
            })?);
        }
        let asked = policy.map(|at| policy_source(args, &at, tls.clone())).transpose()?;
        let (recorders, unresolved) = resolve(wanted, tls)?;

        let mut decision = Decision::open(recorders);
        decision.policy = asked;
        decision.reject_message = args.string("reject-message")?;
        decision.terminate_message = args.string("terminate-message")?;
        if args.switch("enforce")? {
            decision.reject_message.get_or_insert_with(|| REJECT_TEXT.to_owned());
            decision.terminate_message.get_or_insert_with(|| TERMINATE_TEXT.to_owned());
        }
        for message in [&decision.reject_message, &decision.terminate_message].into_iter().flatten()
        {
            if message.len() > limits::MESSAGE_BYTES {
                return Err(Failure::usage(format!(
                    "a message may have {} bytes at most",
                    limits::MESSAGE_BYTES
                )));
            }
        }
        decision.release = match args.string("release")?.as_deref() {
            None | Some("ring") => Release::Ring,
            Some("commit") => Release::Commit,
            Some(_) => return Err(args.wrong("release", "`ring` or `commit`")),
        };
        decision.stock_with_release_commit = args.switch("release-stock")?;
        decision.record_input = args.switch("record-input")?;
        decision.grace = args.duration("grace")?;
        decision.stall_limit = args.duration("stall-limit")?;
        decision.start_limit = args.duration("start-limit")?;

        let ring = args.bytes("ring")?.map_or(Ok(limits::RING_THROUGHPUT_BYTES), usize::try_from);
        let ring_bytes = ring
            .ok()
            .filter(|n| (limits::RING_MIN_BYTES..=limits::RING_MAX_BYTES).contains(n))
            .ok_or_else(|| args.wrong("ring", "a size from 64KiB to 256MiB"))?;
        let default_wait = Duration::from_micros(limits::CLOSE_WAIT.0);
        Ok(Self {
            decision,
            metadata: metadata(args)?,
            ring_bytes,
            close_wait: args.duration("close-wait")?.unwrap_or(default_wait),
            quiet: args.switch("quiet")?,
            verbose: args.switch("verbose")?,
            unresolved,
        })
    }
}

/// A recorder as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wanted {
    Unix(PathBuf),
    Tcp { host: String, port: u16, tls: bool },
}

impl Wanted {
    /// `tls` is what a recorder without a scheme gets: with authorities or a pin on the command line, clear text is not meant.
    fn parse(text: &str, tls: bool) -> Option<Self> {
        if let Some(path) = text.strip_prefix("unix:") {
            return path.starts_with('/').then(|| Self::Unix(path.into()));
        }
        let (rest, tls) = if let Some(rest) = text.strip_prefix("https://") {
            (rest, true)
        } else if let Some(rest) = text.strip_prefix("http://") {
            (rest, false)
        } else {
            (text, tls)
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let default = if tls { 443 } else { 80 };
        let (host, port) = if let Some(v6) = rest.strip_prefix('[') {
            let (host, behind) = v6.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            let port = match behind.strip_prefix(':') {
                Some(port) => port.parse().ok()?,
                None if behind.is_empty() => default,
                None => return None,
            };
            (host, port)
        } else {
            match rest.split_once(':') {
                Some((host, port)) => (host, port.parse().ok()?),
                None => (rest, default),
            }
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        (!host.is_empty() && host.chars().all(plain) && port != 0).then(|| Self::Tcp {
            host: host.to_owned(),
            port,
            tls,
        })
    }
}

/// Looks up all names at once, each in a thread of its own: the system's resolver has no deadline.
fn resolve(
    wanted: Vec<Wanted>,
    tls: Option<Arc<Tls>>,
) -> Result<(Vec<RecorderAddr>, Vec<String>), Failure> {
    let tls = match tls {
        Some(tls) => Some(tls),
        None if wanted.iter().any(|w| matches!(w, Wanted::Tcp { tls: true, .. })) => {
            Some(system_tls(TlsConfig::default())?)
        }
        None => None,
    };
    let lookups: Vec<_> = wanted
        .into_iter()
        .map(|wanted| {
            let (found, answer) = mpsc::channel();
            if let Wanted::Tcp { host, port, .. } = wanted.clone() {
                let _ = thread::Builder::new().name("resolve".to_owned()).spawn(move || {
                    let addrs = match host.parse::<IpAddr>() {
                        Ok(ip) => Ok(vec![SocketAddr::new(ip, port)]),
                        Err(_) => (host.as_str(), port).to_socket_addrs().map(Iterator::collect),
                    };
                    let _ = found.send(addrs);
                });
            }
            (wanted, answer)
        })
        .collect();

    let by = Instant::now() + RESOLVE_LIMIT;
    let (mut recorders, mut unresolved) = (Vec::new(), Vec::new());
    for (group, (wanted, answer)) in (0..).zip(lookups) {
        let (host, port, wants_tls) = match wanted {
            Wanted::Unix(path) => {
                recorders.push(RecorderAddr::unix(path).group(group));
                continue;
            }
            Wanted::Tcp { host, port, tls } => (host, port, tls),
        };
        let addrs = match answer.recv_timeout(by.saturating_duration_since(Instant::now())) {
            Ok(Ok(addrs)) => addrs,
            Ok(Err(e)) => {
                unresolved.push(format!("recorder {host}: {e}"));
                continue;
            }
            Err(_) => {
                unresolved.push(format!("recorder {host}: its name was not resolved in time"));
                continue;
            }
        };
        let authority =
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        for addr in addrs {
            let mut recorder = RecorderAddr::tcp(addr).authority(&authority).group(group);
            if let Some(tls) = tls.as_ref().filter(|_| wants_tls) {
                recorder = recorder.tls(Arc::clone(tls), &host);
            }
            recorders.push(recorder);
        }
    }
    recorders.truncate(limits::RECORDERS_MAX);
    Ok((recorders, unresolved))
}

/// Who is asked, and with what.
fn policy_source(args: &Args, at: &str, tls: Option<Arc<Tls>>) -> Result<PolicySource, Failure> {
    let wrong = || args.wrong("policy", "unix:/path or https://host:port");
    let wanted = Wanted::parse(at, true).ok_or_else(wrong)?;
    if matches!(wanted, Wanted::Tcp { tls: false, .. }) {
        return Err(Failure::usage(
            "--policy: over a network it is asked with TLS: give https://host:port",
        ));
    }
    // Recorders that it names may want TLS, whatever it speaks itself.
    let tls = match tls {
        Some(tls) => tls,
        None => system_tls(TlsConfig::default())?,
    };
    let (mut addrs, unresolved) = resolve(vec![wanted], Some(Arc::clone(&tls)))?;
    if addrs.is_empty() {
        return Err(Failure::new(format!("policy: {}", unresolved.join("; "))));
    }
    let connection = std::env::var("SSH_CONNECTION").unwrap_or_default();
    let mut fields = connection.split(' ');
    let source_ip = fields.next().filter(|ip| ip.parse::<IpAddr>().is_ok()).unwrap_or_default();
    let question = Question {
        source_ip: source_ip.to_owned(),
        source_port: fields.next().and_then(|port| port.parse().ok()).unwrap_or(0),
        ..Question::default()
    };
    let mut source = PolicySource::new(addrs.swap_remove(0), question)
        .map_err(|e| Failure::new(format!("policy: {e}")))?;
    source.tls = Some(tls);
    if let Some(path) = args.path("policy-token-file") {
        let token = fs::read_to_string(&path).map_err(|e| {
            Failure::new(format!("cannot read {} (--policy-token-file): {e}", path.display()))
        })?;
        source.token = Some(token.trim().to_owned());
    }
    let as_configured =
        args.choice("policy-unreachable", &[("refuse", false), ("as-configured", true)])?;
    if as_configured == Some(true) {
        source.unreachable = None;
    }
    Ok(source)
}

/// What the TLS options make; none when there are none.
fn tls(args: &Args) -> Result<Option<Arc<Tls>>, Failure> {
    let asked = ["tls-ca", "tls-cert", "tls-key", "tls-pin"];
    if !asked.iter().any(|name| args.is_given(name)) {
        return Ok(None);
    }
    let read = |name: &str| match args.path(name) {
        None => Ok(Vec::new()),
        Some(path) => fs::read(&path)
            .map_err(|e| Failure::new(format!("cannot read {} (--{name}): {e}", path.display()))),
    };
    let mut config = TlsConfig {
        roots_pem: read("tls-ca")?,
        cert_pem: read("tls-cert")?,
        key_pem: read("tls-key")?,
        pin_waives_validity: args.switch("tls-pin-ignores-time")?,
        ..TlsConfig::default()
    };
    for pin in args.list("tls-pin")? {
        config.pins.push(TlsConfig::parse_pin(&pin).ok_or_else(|| {
            args.wrong(
                "tls-pin",
                "a SHA-256 of a public key: 64 hexadecimal digits or sha256/BASE64",
            )
        })?);
    }
    system_tls(config).map(Some)
}

/// With the system's authorities when neither authorities nor a pin were named.
fn system_tls(mut config: TlsConfig) -> Result<Arc<Tls>, Failure> {
    if config.roots_pem.is_empty() && config.pins.is_empty() {
        config.roots_pem = crate::control::http_client::system_roots();
    }
    Tls::new(&config).map(Arc::new).map_err(|e| Failure::new(format!("TLS: {e}")))
}

fn metadata(args: &Args) -> Result<Metadata, Failure> {
    let uid = rustix::process::geteuid().as_raw();
    let user = pty_sys::user(uid).ok().flatten();
    let user = user.map_or_else(|| uid.to_string(), |u| u.name.to_string_lossy().into_owned());
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    let connection = std::env::var("SSH_CONNECTION").unwrap_or_default();
    let mut fields = connection.split(' ');
    let (source, port) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());

    let or = |name: &str, default: &str| -> Result<String, Failure> {
        Ok(args.string(name)?.unwrap_or_else(|| default.to_owned()))
    };
    let src_node = or("src-node", if source.is_empty() { host } else { source })?;
    let connection_id = if port.is_empty() { String::new() } else { format!("{source}-{port}") };
    Ok(Metadata {
        src_node_id: or("src-node-id", &src_node)?,
        src_node,
        src_node_user: args.string("src-node-user")?,
        ssh_user: or("ssh-user", &user)?,
        local_user: user,
        connection_id: or("connection-id", &connection_id)?,
        node: or("node", host)?,
        env: environment(["TERM", "SSH_TTY"]),
        ..Metadata::default()
    })
}

/// What of the environment helps whoever reads the recording: the terminal as sshd and `who` know it, and its kind.
fn environment(names: [&str; 2]) -> Option<Vec<(String, String)>> {
    let found = names.into_iter().filter_map(|n| Some((n.to_owned(), std::env::var(n).ok()?)));
    Some(found.collect::<Vec<_>>()).filter(|found| !found.is_empty())
}

/// How long names may take to be resolved.
const RESOLVE_LIMIT: Duration = Duration::from_secs(5);
const REJECT_TEXT: &str = "This session must be recorded and no recorder can be reached.\n";
const TERMINATE_TEXT: &str = "The session is ended because its recording failed.\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorders_are_read_in_their_spellings() {
        let tcp = |host: &str, port, tls| Some(Wanted::Tcp { host: host.to_owned(), port, tls });
        for (text, wanted) in [
            ("rec:8080", tcp("rec", 8080, false)),
            ("rec", tcp("rec", 80, false)),
            ("192.0.2.1:80", tcp("192.0.2.1", 80, false)),
            ("[2001:db8::1]:8080", tcp("2001:db8::1", 8080, false)),
            ("[2001:db8::1]", tcp("2001:db8::1", 80, false)),
            ("https://rec.example", tcp("rec.example", 443, true)),
            ("https://[::1]:8443/", tcp("::1", 8443, true)),
            ("unix:/run/rec", Some(Wanted::Unix("/run/rec".into()))),
            ("unix:run", None),
            ("rec:port", None),
            ("2001:db8::1", None),
            ("rec:0", None),
            ("[rec]:80", None),
            ("re c:80", None),
            ("", None),
        ] {
            assert_eq!(Wanted::parse(text, false), wanted, "{text}");
        }
        // With --tls-ca or --tls-pin, clear text has to be asked for.
        assert_eq!(Wanted::parse("rec:8443", true), tcp("rec", 8443, true));
        assert_eq!(Wanted::parse("http://rec:80", true), tcp("rec", 80, false));
    }
}
