//! `castkeep control`: the coordination server as a program. Options, signals, log.

use std::net::SocketAddr;
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::{Args, Exit, Failure, Opt, Spec, daemon};
use crate::client::TlsConfig;
use crate::control::http_client::HttpClientConfig;
use crate::control::{Control, ControlConfig};

pub(crate) const SPEC: Spec = Spec {
    name: "control",
    summary: "hands policy and recorders to nodes",
    operands: "",
    options: &[
        Opt::value("policy", "FILE", "The policy file. Needed."),
        Opt::value(
            "nodes",
            "FILE",
            "The node registry: castkeep's own format, or what `tailscale status --json` prints. Needed.",
        ),
        Opt::value(
            "state",
            "DIR",
            "Where the policy's version, announced recorders and events are kept. Made when it is missing. \
             Needed.",
        ),
        Opt::list(
            "listen",
            "ADDRESS",
            "IP address and port; port 0 lets the system choose. Off loopback it needs a certificate. \
             Default 127.0.0.1:8443.",
        ),
        Opt::value("tls-cert", "FILE", "Certificate chain in PEM."),
        Opt::value("tls-key", "FILE", "Private key in PEM."),
        Opt::value(
            "client-ca",
            "FILE",
            "CA certificates in PEM: client certificates are checked, and the name in one is the node that \
             asks.",
        ),
        Opt::value(
            "tokens",
            "FILE",
            "Digests of tokens, and who holds them. This or --client-ca is needed.",
        ),
        Opt::value(
            "notify-url",
            "URL",
            "What policies name as the place for notifications. castkeep's agents tell them to this control \
             whatever it says.",
        ),
        Opt::value(
            "reject-message",
            "TEXT",
            "What a user reads when a session must be recorded and cannot be.",
        ),
        Opt::value("terminate-message", "TEXT", "The same for a session that had begun."),
        Opt::value(
            "webhook",
            "URL",
            "Passes events on, one JSON object each, until it answers with 2xx.",
        ),
        Opt::value("webhook-token-file", "FILE", "Holds a bearer token for the webhook."),
        Opt::value(
            "webhook-ca",
            "FILE",
            "CA certificates in PEM for the webhook. Default: those of the system.",
        ),
        Opt::list(
            "metrics-listen",
            "ADDRESS",
            "Where /healthz, /readyz and /metrics are answered, over HTTP without TLS.",
        ),
        Opt::value(
            "max-connections",
            "N",
            "Connections at a time; past it they are refused. Each node has one that waits. Default 4096.",
        ),
        daemon::LOG_LEVEL,
        daemon::READY_FD,
    ],
    about: "Compiles a policy file for each node that asks, tells nodes which recorders are there, and takes \
            what they tell of sessions that could not be recorded. docs/control.md says how to run it.\n\
            \n\
            Once it serves it prints `listening on ADDRESS`, one line for each address, to standard output, \
            and nothing else; the log goes to standard error.\n\
            \n\
            Files are read again when they change, and on SIGHUP, the certificate only then. A policy or \
            registry that is broken is logged with line and column, and the last good one stays in force, \
            also over a restart. SIGTERM and SIGINT end it.",
    exits: "",
    examples: "castkeep control --policy policy.hujson --nodes nodes.json --state /var/lib/castkeep-control \
               --tokens tokens.json\n\
               castkeep control --policy policy.hujson --nodes nodes.json --state /var/lib/castkeep-control \
               --listen 0.0.0.0:8443 --tls-cert cert.pem --tls-key key.pem --client-ca nodes.pem",
    environment: true,
    stops_at_operand: false,
};

pub(crate) fn run(args: &Args) -> Result<Exit, Failure> {
    if let Some(operand) = args.operands().first() {
        let shown = operand.to_string_lossy();
        return Err(Failure::usage(format!(
            "control: `{shown}` is too much; --policy and --nodes name the files"
        )));
    }
    daemon::start_log(args)?;
    let config = config(args)?;
    // Before it listens: who has seen the line may send a signal.
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])
        .map_err(|e| Failure::new(format!("signals: {e}")))?;
    let control = Control::start(config).map_err(|e| Failure::new(e.to_string()))?;
    log::info!("{}", control.describe());
    daemon::tell_ready(args, control.addresses(), control.metrics_addresses())?;
    for signal in signals.forever() {
        if signal != SIGHUP {
            break;
        }
        log::info!("SIGHUP: the files are read again");
        control.reload();
    }
    let second = thread::Builder::new().name("castkeep-signal".into()).spawn(move || {
        if signals.forever().any(|signal| signal != SIGHUP) {
            std::process::exit(i32::from(Exit::FAILURE.0));
        }
    });
    if let Err(e) = second {
        log::warn!("a second signal will not be heard: {e}");
    }
    control.stop();
    log::info!("stopped");
    Ok(Exit::OK)
}

fn config(args: &Args) -> Result<ControlConfig, Failure> {
    let needed = |name: &str, what: &str| args.path(name).ok_or_else(|| args.wrong(name, what));
    let mut config = ControlConfig::new(
        needed("policy", "the policy file")?,
        needed("nodes", "the node registry")?,
        needed("state", "the directory for what must outlive a restart")?,
    );
    config.tls =
        daemon::tls_files((args.path("tls-cert"), args.path("tls-key"), args.path("client-ca")))?;
    let addresses = |name: &str| -> Result<Vec<SocketAddr>, Failure> {
        let list = args.list(name)?;
        list.iter().map(|text| daemon::parse_address(&format!("--{name}"), text)).collect()
    };
    config.listen = addresses("listen")?;
    if config.listen.is_empty() {
        config.listen.push(SocketAddr::from(([127, 0, 0, 1], 8443)));
    }
    config.metrics_listen = addresses("metrics-listen")?;
    config.tokens = args.path("tokens");
    config.notify_url = args.string("notify-url")?.unwrap_or(config.notify_url);
    config.reject_message = args.string("reject-message")?;
    config.terminate_message = args.string("terminate-message")?;
    if let Some(n) = args.parse_as::<usize>("max-connections", "a number from 1 on")? {
        if n == 0 {
            return Err(args.wrong("max-connections", "a number from 1 on"));
        }
        config.max_connections = n;
    }
    let (token_file, ca) = (args.path("webhook-token-file"), args.path("webhook-ca"));
    config.webhook = match args.string("webhook")? {
        Some(url) => {
            let mut tls = TlsConfig::default();
            if let Some(ca) = ca {
                tls.roots_pem = std::fs::read(&ca)
                    .map_err(|e| Failure::new(format!("--webhook-ca {}: {e}", ca.display())))?;
            }
            Some(HttpClientConfig { url, token_file, tls })
        }
        None if token_file.is_some() || ca.is_some() => {
            let what = "--webhook-token-file and --webhook-ca are for a webhook";
            return Err(Failure::usage(format!("{what}; give --webhook URL")));
        }
        None => None,
    };
    Ok(config)
}
