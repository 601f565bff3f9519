//! `castkeep serve`: the recorder as a program. Options, signals, log.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use super::{Args, Exit, Failure, Opt, Spec, daemon};
use crate::localapi;
use crate::recorder::{AllowUpload, Listen, Recorder, RecorderConfig, TailscaleTls};

mod announce;

pub(crate) const SPEC: Spec = Spec {
    name: "serve",
    summary: "runs a recorder",
    operands: "",
    options: &[
        Opt::value("dst", "DIR", "Where recordings are stored. Made when it is missing. Needed."),
        Opt::list(
            "listen",
            "ADDRESS",
            "IP address and port; port 0 lets the system choose. With a certificate it speaks TLS, \
             except as http://ADDRESS. Default 127.0.0.1:8080.",
        ),
        Opt::list(
            "allow-upload",
            "WHO",
            "Who may upload: loopback, certificate, anyone, tailnet, tailnet:tag:NAME, networks such as \
             100.64.0.0/10. Others get 403. Default: tailnet with --tailscale, certificate with \
             --client-ca, else loopback; needed to listen off loopback without one of these.",
        ),
        Opt::optional(
            "tailscale",
            "SOCKET",
            localapi::DEFAULT_SOCKET,
            "Peers are who tailscaled says: their node id names the directory, and who is not a node may not \
             upload. While tailscaled does not answer everyone gets 503. Default socket \
             /var/run/tailscale/tailscaled.sock.",
        ),
        Opt::value(
            "tls-from-tailscale",
            "NAME",
            "Certificate and key from tailscaled, for this name of the node; renewed before it ends. In \
             place of --tls-cert and --tls-key.",
        ),
        Opt::value(
            "tls-cert",
            "FILE",
            "Certificate chain in PEM. Read again on SIGHUP, as the next two.",
        ),
        Opt::value("tls-key", "FILE", "Private key in PEM."),
        Opt::value("client-ca", "FILE", "CA certificates in PEM: client certificates are checked."),
        Opt::value(
            "commit",
            "WHAT",
            "What a commit means. disk: synced to the disk of DIR. Default disk.",
        ),
        Opt::list(
            "metrics-listen",
            "ADDRESS",
            "Where /healthz, /readyz and /metrics are answered, over HTTP without TLS.",
        ),
        Opt::value(
            "drain-timeout",
            "TIME",
            "How long stock uploads are served after SIGTERM. Default 60s.",
        ),
        Opt::value(
            "resume-window",
            "TIME",
            "How long a recording without a connection can be resumed. Default 10m.",
        ),
        Opt::value("max-connections", "N", "Connections at a time; past it: 503. Default 4096."),
        Opt::value(
            "min-free",
            "BYTES",
            "New recordings are refused below this much free space; running sessions go on down to \
             64MiB. Default 256MiB.",
        ),
        Opt::value("max-part", "BYTES", "Most bytes of one upload. Default: no limit."),
        Opt::value("max-rate", "BYTES", "Most bytes a second of one upload. Default: no limit."),
        Opt::value(
            "max-node-bytes",
            "BYTES",
            "Most bytes of casts in one node's directory. What is removed there is noticed within 2s. \
             Default: no limit.",
        ),
        Opt::value("max-node-open", "N", "Most open recordings of one node. Default: no limit."),
        Opt::value("max-node-rate", "N", "Most uploads a second by one node. Default: no limit."),
        Opt::switch("group-readable", "Directories 0750 and files 0640 instead of 0700 and 0600."),
        daemon::LOG_LEVEL,
        daemon::READY_FD,
        announce::CONTROL,
        announce::TOKEN_FILE,
        announce::CA,
        announce::PIN,
        announce::ADDRESSES,
        announce::TAGS,
        announce::NAME,
    ],
    about: "Listens for recordings and stores them in a directory, docs/storage.md says how. HTTP/1.1 and \
            HTTP/2 come in on the same port, from castkeep's clients and from stock ones.\n\
            \n\
            Once it serves it prints `listening on ADDRESS`, one line for each address, to standard output, \
            and nothing else; the log goes to standard error.\n\
            \n\
            SIGTERM and SIGINT stop it in order: new uploads get 503, castkeep's clients move to their next \
            recorder, stock ones are served until the drain timeout. A second signal ends it at once. SIGHUP \
            reads the certificate files again, or asks tailscaled for the certificate; without TLS it changes \
            nothing.",
    exits: "",
    examples: "castkeep serve --dst /var/lib/castkeep\n\
               castkeep serve --dst /var/lib/castkeep --listen 0.0.0.0:8443 --tls-cert cert.pem \
               --tls-key key.pem --client-ca clients.pem\n\
               castkeep serve --dst /var/lib/castkeep --listen 100.64.0.9:80 --tailscale",
    environment: true,
    stops_at_operand: false,
};

pub(crate) fn run(args: &Args) -> Result<Exit, Failure> {
    if let Some(operand) = args.operands().first() {
        let shown = operand.to_string_lossy();
        return Err(Failure::usage(format!(
            "serve: `{shown}` is too much; --dst names the directory"
        )));
    }
    daemon::start_log(args)?;
    let config = config(args)?;
    let announced = announce::config(args, &config)?;
    let from_tailscale = config.tailscale_tls.is_some();
    // Before it listens: who has seen the line may send a signal.
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])
        .map_err(|e| Failure::new(format!("signals: {e}")))?;
    // The first certificate can take its time: until it is there a signal just ends it, nothing is open yet.
    let starting = Arc::new(AtomicBool::new(true));
    for signal in [SIGTERM, SIGINT] {
        flag::register_conditional_shutdown(signal, 1, Arc::clone(&starting))
            .map_err(|e| Failure::new(format!("signals: {e}")))?;
    }
    let recorder = Recorder::start(config).map_err(|e| Failure::new(e.to_string()))?;
    starting.store(false, Ordering::SeqCst);
    log::info!("{}", recorder.describe());
    let announcer = announced.map(|config| announce::start(config, &recorder)).transpose()?;
    daemon::tell_ready(args, recorder.addresses(), recorder.metrics_addresses())?;
    for signal in signals.forever() {
        if signal != SIGHUP {
            break;
        }
        match recorder.reload() {
            Ok(true) if from_tailscale => log::info!("tailscaled is asked for the certificate"),
            Ok(true) => log::info!("certificate files read again"),
            Ok(false) => log::info!("SIGHUP: without TLS there is nothing to read again"),
            Err(e) => log::error!("the old certificate stays in use: {e}"),
        }
    }
    log::info!("stopping; a second signal ends it at once");
    let second = thread::Builder::new().name("castkeep-signal".into()).spawn(move || {
        if signals.forever().any(|signal| signal != SIGHUP) {
            log::warn!("ended at once; the next start recovers what was open");
            std::process::exit(i32::from(Exit::FAILURE.0));
        }
    });
    if let Err(e) = second {
        log::warn!("a second signal will not be heard: {e}");
    }
    if let Some(announcer) = &announcer {
        announcer.withdraw();
    }
    recorder.stop();
    drop(announcer);
    log::info!("stopped");
    Ok(Exit::OK)
}

fn config(args: &Args) -> Result<RecorderConfig, Failure> {
    let dst = args.path("dst").ok_or_else(|| args.wrong("dst", "the directory to store into"))?;
    let mut config = RecorderConfig::new(dst);
    let mut tls = (args.path("tls-cert"), args.path("tls-key"), args.path("client-ca"));
    config.tailscale = args.path("tailscale");
    if let Some(domain) = args.string("tls-from-tailscale")? {
        let (None, None, client_ca) = tls else {
            return Err(Failure::usage(format!(
                "--tls-from-tailscale {domain}: there can be one certificate; give this, or --tls-cert and \
                 --tls-key"
            )));
        };
        let socket = config.tailscale.clone().unwrap_or_else(|| localapi::DEFAULT_SOCKET.into());
        config.tailscale_tls = Some(TailscaleTls { socket, domain, client_ca });
        tls = (None, None, None);
    }
    let has_tls = config.tailscale_tls.is_some();
    config.tls = daemon::tls_files(tls)?;
    let listen = args.list("listen")?;
    config.listen = if listen.is_empty() {
        vec![SocketAddr::from(([127, 0, 0, 1], 8080)).into()]
    } else {
        listen
            .iter()
            .map(|text| parse_listen(text, has_tls || config.tls.is_some()))
            .collect::<Result<_, _>>()?
    };
    let metrics = args.list("metrics-listen")?;
    config.metrics_listen = metrics
        .iter()
        .map(|text| daemon::parse_address("--metrics-listen", text))
        .collect::<Result<_, _>>()?;
    let allow = args.list("allow-upload")?;
    if !allow.is_empty() {
        let allow: AllowUpload =
            allow.join(",").parse().map_err(|e| Failure::usage(format!("--allow-upload: {e}")))?;
        config.allow_upload = Some(allow);
    }
    args.choice("commit", &[("disk", ())])?;
    config.drain_timeout = args.duration("drain-timeout")?.unwrap_or(config.drain_timeout);
    config.resume_window = args.duration("resume-window")?.unwrap_or(config.resume_window);
    if let Some(n) = args.parse_as::<usize>("max-connections", "a number from 1 on")? {
        if n == 0 {
            return Err(args.wrong("max-connections", "a number from 1 on"));
        }
        config.max_connections = n;
    }
    config.min_free = args.bytes("min-free")?;
    config.quotas.part_bytes = args.bytes("max-part")?;
    config.quotas.session_rate = args.bytes("max-rate")?;
    config.quotas.node_bytes = args.bytes("max-node-bytes")?;
    config.quotas.node_open = args.parse_as("max-node-open", "a number")?;
    config.quotas.node_opens = args.parse_as("max-node-rate", "a number")?;
    config.group_readable = args.switch("group-readable")?;
    Ok(config)
}

fn parse_listen(text: &str, has_tls: bool) -> Result<Listen, Failure> {
    let (address, clear) = match text.split_once("://") {
        None => (text, false),
        Some(("http", address)) => (address, true),
        Some(("https", address)) if has_tls => (address, false),
        Some(("https", _)) => {
            let what = "needs --tls-cert and --tls-key, or --tls-from-tailscale";
            return Err(Failure::usage(format!("--listen {text}: {what}")));
        }
        Some(_) => {
            let what = "only http:// and https:// can stand before the address";
            return Err(Failure::usage(format!("--listen {text}: {what}")));
        }
    };
    Ok(Listen { address: daemon::parse_address("--listen", address)?, clear })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_say_whether_they_speak_tls() {
        let listen = parse_listen("http://[::1]:0", true).unwrap();
        assert!(listen.clear && listen.address.is_ipv6());
        assert!(!parse_listen("127.0.0.1:1", true).unwrap().clear);
        assert!(!parse_listen("https://127.0.0.1:1", true).unwrap().clear);
        for (text, tls) in [
            ("https://127.0.0.1:1", false),
            ("ftp://127.0.0.1:1", true),
            ("localhost", false),
            (":8080", false),
            ("127.0.0.1:65536", false),
        ] {
            assert!(parse_listen(text, tls).unwrap_err().text().contains(text), "{text}");
        }
    }
}
