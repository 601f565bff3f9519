//! `castkeep agent`: the node agent as a program. Options, signals, log.

use std::fs;
use std::path::{Path, PathBuf};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::{Args, Exit, Failure, Opt, Spec, daemon};
use crate::agent::{Agent, AgentConfig, SourceConfig, WithoutPolicy};
use crate::client::TlsConfig;
use crate::control::http_client::HttpClientConfig;
use crate::localapi;

pub(crate) const SPEC: Spec = Spec {
    name: "agent",
    summary: "tells the logins of this machine what the policy says",
    operands: "",
    options: &[
        Opt::value(
            "socket",
            "PATH",
            "The Unix socket that is asked. Default /run/castkeep/agent.sock.",
        ),
        Opt::value(
            "state",
            "DIR",
            "Where the last good policy and waiting notifications are kept. Made when it is missing. \
             Default /var/lib/castkeep/agent.",
        ),
        Opt::value("control", "URL", "castkeep control, such as https://control.example:8443."),
        Opt::value(
            "token-file",
            "FILE",
            "Its first line is this node's token for control. Read again with each request.",
        ),
        Opt::value(
            "tls-ca",
            "FILE",
            "Authorities that control's certificate must come from, PEM. Default: the system's.",
        ),
        Opt::value("tls-cert", "FILE", "This node's certificate for control, PEM."),
        Opt::value("tls-key", "FILE", "Its key, PEM."),
        Opt::value(
            "policy",
            "FILE",
            "Without control: a policy file. Needs --nodes or --tailscale.",
        ),
        Opt::value(
            "nodes",
            "FILE",
            "The node registry: castkeep's own, or what `tailscale status --json` prints.",
        ),
        Opt::value(
            "node",
            "ID",
            "Which node of the registry this is, by id or name. With --control: the stable id that \
             policies must be for; without it that is the first policy's.",
        ),
        Opt::value(
            "ssh-policy",
            "FILE",
            "Without control: a compiled policy, as `castkeep policy compile` writes it.",
        ),
        Opt::optional(
            "tailscale",
            "SOCKET",
            localapi::DEFAULT_SOCKET,
            "Ask tailscaled who a source is. Default socket /var/run/tailscale/tailscaled.sock.",
        ),
        Opt::value(
            "without-policy",
            "WHAT",
            "What is answered while there never was a policy: closed (nobody is let in) or open \
             (everybody is, unrecorded). Default closed.",
        ),
        Opt::value("syslog", "SOCKET", "Where alerts go. Default /dev/log."),
        daemon::LOG_LEVEL,
        daemon::READY_FD,
    ],
    about: "Answers login-shell, record and libcastkeep on this machine: who may log in as whom, who records \
            it, and what happens when nobody can. docs/agent.md says how to run it. It takes the policy from \
            control, from a policy file or from a compiled one, and looks for news all the time.\n\
            \n\
            The last good policy is kept: a source that is away, or serves something broken or older, changes \
            nothing. What logins tell about failed recordings is kept until control has it.\n\
            \n\
            Once it answers it prints `listening on SOCKET` to standard output, and nothing else; the log goes \
            to standard error. SIGHUP reads files again at once. SIGTERM and SIGINT end it.",
    exits: "",
    examples: "castkeep agent --control https://control.example:8443 --token-file /etc/castkeep/token\n\
               castkeep agent --policy policy.hujson --tailscale\n\
               castkeep agent --policy policy.hujson --nodes nodes.json --node web1",
    environment: true,
    stops_at_operand: false,
};

pub(crate) fn run(args: &Args) -> Result<Exit, Failure> {
    if let Some(operand) = args.operands().first() {
        let shown = operand.to_string_lossy();
        return Err(Failure::usage(format!(
            "agent: `{shown}` is too much; --control, --policy or --ssh-policy names the source"
        )));
    }
    daemon::start_log(args)?;
    let config = config(args)?;
    // Before it listens: who has seen the line may send a signal.
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])
        .map_err(|e| Failure::new(format!("signals: {e}")))?;
    let agent = Agent::start(config).map_err(|e| Failure::new(e.to_string()))?;
    daemon::tell(args, &format!("listening on {}\n", agent.socket().display()))?;
    for signal in signals.forever() {
        if signal != SIGHUP {
            break;
        }
        log::info!("SIGHUP: the source is looked at again");
        agent.reload();
    }
    log::info!("stopping");
    let second = std::thread::Builder::new().name("castkeep-signal".into()).spawn(move || {
        if signals.forever().any(|signal| signal != SIGHUP) {
            std::process::exit(i32::from(Exit::FAILURE.0));
        }
    });
    if let Err(e) = second {
        log::warn!("a second signal will not be heard: {e}");
    }
    drop(agent);
    log::info!("stopped");
    Ok(Exit::OK)
}

fn config(args: &Args) -> Result<AgentConfig, Failure> {
    let source = match (args.string("control")?, args.path("policy"), args.path("ssh-policy")) {
        (Some(url), None, None) => {
            let tls = TlsConfig {
                roots_pem: read(args, "tls-ca")?,
                cert_pem: read(args, "tls-cert")?,
                key_pem: read(args, "tls-key")?,
                ..TlsConfig::default()
            };
            if tls.cert_pem.is_empty() != tls.key_pem.is_empty() {
                return Err(Failure::usage("--tls-cert and --tls-key belong together"));
            }
            if args.path("nodes").is_some() {
                return Err(Failure::usage("--nodes is not for --control, which has its own"));
            }
            let token_file = args.path("token-file");
            SourceConfig::Control(HttpClientConfig { url, token_file, tls })
        }
        (None, Some(policy), None) => {
            SourceConfig::Files { policy: whole(policy)?, nodes: nodes(args)? }
        }
        (None, None, Some(ssh_policy)) => {
            SourceConfig::Compiled { ssh_policy: whole(ssh_policy)?, nodes: nodes(args)? }
        }
        (None, None, None) => {
            return Err(Failure::usage(
                "agent: where is the policy? Give --control URL, --policy FILE or --ssh-policy FILE",
            ));
        }
        _ => {
            let what = "agent: --control, --policy and --ssh-policy are three sources";
            return Err(Failure::usage(format!("{what}; give one of them")));
        }
    };
    if !matches!(source, SourceConfig::Control(_)) {
        for name in ["token-file", "tls-ca", "tls-cert", "tls-key"] {
            if args.is_given(name) {
                return Err(Failure::usage(format!("--{name} is for --control, which is missing")));
            }
        }
    }
    let mut config = AgentConfig::new(source);
    config.socket = args.path("socket").unwrap_or(config.socket);
    config.state = args.path("state").unwrap_or(config.state);
    config.node = args.string("node")?;
    config.tailscale = args.path("tailscale");
    let words = [("closed", WithoutPolicy::Closed), ("open", WithoutPolicy::Open)];
    config.without_policy = args.choice("without-policy", &words)?.unwrap_or(config.without_policy);
    config.syslog = args.path("syslog").unwrap_or(config.syslog);
    Ok(config)
}

fn read(args: &Args, name: &str) -> Result<Vec<u8>, Failure> {
    let Some(path) = args.path(name) else { return Ok(Vec::new()) };
    fs::read(&path).map_err(|e| Failure::new(format!("--{name} {}: {e}", path.display())))
}

fn nodes(args: &Args) -> Result<Option<PathBuf>, Failure> {
    args.path("nodes").map(whole).transpose()
}

/// As it stays when somebody looks at the log from another directory.
fn whole(path: PathBuf) -> Result<PathBuf, Failure> {
    std::path::absolute(&path).map_err(|e| wrong_path(&path, &e))
}

fn wrong_path(path: &Path, e: &std::io::Error) -> Failure {
    Failure::new(format!("{}: {e}", path.display()))
}
