//! `castkeep serve --control`: tells control where this recorder is.

use std::net::SocketAddr;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::cli::{Args, Failure, Opt, daemon};
use crate::client::TlsConfig;
use crate::control::http_client::HttpClientConfig;
use crate::control::{AnnounceConfig, Announcer};
use crate::recorder::tls::identity;
use crate::recorder::{Recorder, RecorderConfig, TlsFiles};

pub(super) const CONTROL: Opt = Opt::value(
    "control",
    "URL",
    "Announces this recorder to castkeep control there, for as long as it takes recordings.",
);
pub(super) const TOKEN_FILE: Opt = Opt::value(
    "control-token-file",
    "FILE",
    "Holds the token for control. Default: the certificate of --tls-cert says who this is.",
);
pub(super) const CA: Opt = Opt::value(
    "control-ca",
    "FILE",
    "CA certificates in PEM for control. Default: those of the system.",
);
pub(super) const PIN: Opt = Opt::list(
    "control-pin",
    "SHA256",
    "Accept only this public key of control, as --tls-pin of `castkeep record`.",
);
pub(super) const ADDRESSES: Opt = Opt::list(
    "announce",
    "ADDRESS",
    "IP address and port where nodes reach this recorder. Default: those of --listen.",
);
pub(super) const TAGS: Opt = Opt::list(
    "tag",
    "TAG",
    "As which recorder rules name it, such as tag:rec. Default: all tags that control gives to it.",
);
pub(super) const NAME: Opt = Opt::value(
    "announce-name",
    "NAME",
    "The name in its certificate. Default: the first DNS name there.",
);

/// What is to be announced, with the addresses that were asked for. None: there is no control.
pub(super) fn config(
    args: &Args,
    recorder: &RecorderConfig,
) -> Result<Option<AnnounceConfig>, Failure> {
    let Some(url) = args.string("control")? else {
        let needless =
            ["control-token-file", "control-ca", "control-pin", "announce", "tag", "announce-name"];
        return match needless.into_iter().find(|name| args.is_given(name)) {
            Some(name) => {
                Err(Failure::usage(format!("--{name}: this is for control; give --control URL")))
            }
            None => Ok(None),
        };
    };
    let addresses = args.list("announce")?;
    let addresses: Vec<SocketAddr> = addresses
        .iter()
        .map(|text| daemon::parse_address("--announce", text))
        .collect::<Result<_, _>>()?;
    let everywhere = recorder.listen.iter().all(|l| l.address.ip().is_unspecified());
    if addresses.is_empty() && everywhere {
        let what = "--control: nodes cannot reach an address that stands for all";
        return Err(Failure::usage(format!("{what}; give --announce ADDRESS")));
    }
    let token_file = args.path("control-token-file");
    let mut tls = TlsConfig::default();
    if let Some(ca) = args.path("control-ca") {
        tls.roots_pem = read(&ca)?;
    }
    for pin in args.list("control-pin")? {
        tls.pins.push(TlsConfig::parse_pin(&pin).ok_or_else(|| {
            args.wrong(
                "control-pin",
                "the SHA-256 of a public key, in hexadecimal or sha256/BASE64",
            )
        })?);
    }
    match (&token_file, &recorder.tls) {
        (Some(_), _) => {}
        (None, Some(files)) => {
            tls.cert_pem = read(&files.cert)?;
            tls.key_pem = read(&files.key)?;
        }
        (None, None) => {
            let what = "--control: it could not know who this is";
            return Err(Failure::usage(format!("{what}; give --control-token-file FILE")));
        }
    }
    let encrypted = recorder.listen.iter().any(|l| !l.clear);
    let name = match (args.string("announce-name")?, &recorder.tls) {
        (Some(name), _) => Some(name),
        (None, Some(files)) if encrypted => Some(name_of(files)?),
        (None, None) if encrypted => recorder.tailscale_tls.as_ref().map(|t| t.domain.clone()),
        (None, _) => None,
    };
    let control = HttpClientConfig { url, token_file, tls };
    Ok(Some(AnnounceConfig { control, addresses, tags: args.list("tag")?, tls: name }))
}

/// Starts to announce; without `--announce` the addresses that the recorder has got.
pub(super) fn start(mut config: AnnounceConfig, recorder: &Recorder) -> Result<Announcer, Failure> {
    if config.addresses.is_empty() {
        let bound = recorder.addresses().iter();
        config.addresses = bound.filter(|a| !a.ip().is_unspecified()).copied().collect();
    }
    Announcer::start(&config).map_err(|e| Failure::new(format!("--control: {e}")))
}

fn name_of(files: &TlsFiles) -> Result<String, Failure> {
    let first = CertificateDer::from_pem_file(&files.cert).ok();
    first.as_ref().and_then(identity).ok_or_else(|| {
        let cert = files.cert.display();
        Failure::usage(format!(
            "--tls-cert {cert}: there is no name in it; give --announce-name NAME"
        ))
    })
}

fn read(path: &std::path::Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|e| Failure::new(format!("{}: {e}", path.display())))
}
