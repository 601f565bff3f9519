//! What the commands that stay have in common: log, addresses, certificates, the lines that say they are ready.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::{Args, Failure, Opt, logger};
use crate::recorder::TlsFiles;

pub(super) const LOG_LEVEL: Opt = Opt::value(
    "log-level",
    "LEVEL",
    "error, warn, info or debug, to standard error. Default info.",
);
pub(super) const READY_FD: Opt = Opt::value(
    "ready-fd",
    "N",
    "Also writes the `listening on` lines to this file descriptor, a pipe or a file.",
);

/// Begins to log as `--log-level` says.
pub(super) fn start_log(args: &Args) -> Result<(), Failure> {
    let levels = [
        ("error", log::LevelFilter::Error),
        ("warn", log::LevelFilter::Warn),
        ("info", log::LevelFilter::Info),
        ("debug", log::LevelFilter::Debug),
    ];
    logger::install(args.choice("log-level", &levels)?.unwrap_or(log::LevelFilter::Info));
    Ok(())
}

/// An IP address and a port.
pub(super) fn parse_address(flag: &str, text: &str) -> Result<SocketAddr, Failure> {
    text.parse().map_err(|_| {
        let like = "an IP address and a port, such as 127.0.0.1:8080 or [::1]:8080";
        Failure::usage(format!("{flag}: `{text}` is not {like}"))
    })
}

/// Certificate, key and client CA of a listener; only some of them are a mistake.
pub(super) fn tls_files(
    given: (Option<PathBuf>, Option<PathBuf>, Option<PathBuf>),
) -> Result<Option<TlsFiles>, Failure> {
    match given {
        (Some(cert), Some(key), client_ca) => Ok(Some(TlsFiles { cert, key, client_ca })),
        (None, None, None) => Ok(None),
        (Some(cert), None, _) => {
            let cert = cert.display();
            Err(Failure::usage(format!(
                "--tls-cert {cert}: its private key is missing; give --tls-key FILE"
            )))
        }
        (None, Some(key), _) => {
            let key = key.display();
            Err(Failure::usage(format!(
                "--tls-key {key}: its certificate is missing; give --tls-cert FILE"
            )))
        }
        (None, None, Some(ca)) => Err(Failure::usage(format!(
            "--client-ca {}: client certificates need TLS; give --tls-cert FILE and --tls-key FILE",
            ca.display()
        ))),
    }
}

/// One line an address, on standard output and on the descriptor of `--ready-fd`: scripts wait for it.
pub(super) fn tell_ready(
    args: &Args,
    listening: &[SocketAddr],
    metrics: &[SocketAddr],
) -> Result<(), Failure> {
    let mut lines = String::new();
    for address in listening {
        lines.push_str(&format!("listening on {address}\n"));
    }
    for address in metrics {
        lines.push_str(&format!("metrics on {address}\n"));
    }
    tell(args, &lines)
}

/// The same for lines of another kind.
pub(super) fn tell(args: &Args, lines: &str) -> Result<(), Failure> {
    // Standard output may be closed: nobody waits then.
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(lines.as_bytes()).and_then(|()| out.flush());
    if let Some(fd) = args.parse_as::<u32>("ready-fd", "the number of an open file descriptor")? {
        std::fs::OpenOptions::new()
            .write(true)
            .open(format!("/proc/self/fd/{fd}"))
            .and_then(|mut file| file.write_all(lines.as_bytes()))
            .map_err(|e| Failure::new(format!("--ready-fd {fd}: {e}")))?;
    }
    Ok(())
}
