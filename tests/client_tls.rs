//! TLS to a recorder: authority, name, pin, validity, client certificate. The recorder is `castkeep serve`.
#![allow(missing_docs, clippy::disallowed_methods, clippy::disallowed_types)]

mod client_support;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use castkeep::client::{
    Client, ClientConfig, Decision, ExitStatus, Metadata, Outcome, RecorderAddr, Start, Stream,
    Tls, TlsConfig,
};
use client_support::disk::{CASTKEEP, Dir, Serve, parts};
use client_support::{join, tell};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PublicKeyData as _,
    date_time_ymd,
};
use sha2::{Digest as _, Sha256};

type Ca = CertifiedIssuer<'static, KeyPair>;

fn ca() -> Ca {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

struct Pair {
    cert: String,
    key: String,
    pin: [u8; 32],
}

fn pair(ca: &Ca, name: &str, expired: bool) -> Pair {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    if expired {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    }
    let cert = params.signed_by(&key, ca).unwrap();
    let pin = Sha256::digest(key.subject_public_key_info()).into();
    Pair { cert: cert.pem(), key: key.serialize_pem(), pin }
}

fn serve(dir: &Path, pair: &Pair, client_ca: Option<&Ca>) -> Serve {
    let file = |name: &str, text: &str| {
        let path = dir.join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let mut options = vec![
        "--tls-cert".into(),
        file("cert", &pair.cert),
        "--tls-key".into(),
        file("key", &pair.key),
    ];
    if let Some(ca) = client_ca {
        options.extend(["--client-ca".into(), file("ca", &ca.pem())]);
    }
    Serve::start_with("127.0.0.1:0".parse().unwrap(), &dir.join("dst"), &options)
}

/// Whether a recording through this recorder works.
fn works(server: &Serve, name: &str, config: &TlsConfig, http2: bool) -> bool {
    let mut client = ClientConfig::default();
    client.protocols.http2 = http2;
    let client = Client::new(client).unwrap();
    let tls = Arc::new(Tls::new(config).expect("a usable configuration"));
    let addr = RecorderAddr::tcp(server.addr).tls(tls, name);
    let session =
        client.open(Metadata::default(), Decision::closed(vec![addr], "no", "no")).unwrap();
    match session.wait_start(Duration::from_secs(30)) {
        Start::Recorded => {}
        Start::Refused { .. } => return false,
        other => panic!("{other:?}"),
    }
    let mut text = String::new();
    for n in 0..20_000 {
        let _ = write!(text, "line {n}\r\n");
    }
    session.output(Stream::Stdout, text.as_bytes()).unwrap();
    session.exit(ExitStatus::Code(0));
    assert_eq!(session.close(Duration::from_secs(30)), Outcome::Complete);
    let recorded = parts(&[&server.dir]);
    assert!(recorded.iter().any(|p| tell(&join(std::slice::from_ref(p))).output == text));
    true
}

fn roots(ca: &Ca) -> TlsConfig {
    let mut config = TlsConfig::default();
    config.roots_pem = ca.pem().into_bytes();
    config
}

fn pinned(pin: [u8; 32]) -> TlsConfig {
    let mut config = TlsConfig::default();
    config.pins = vec![pin];
    config
}

#[test]
fn authority_and_name() {
    let (dir, right, wrong) = (Dir::new(), ca(), ca());
    let server = serve(&dir.0, &pair(&right, "rec.example", false), None);
    assert!(works(&server, "rec.example", &roots(&right), true), "over HTTP/2");
    assert!(works(&server, "rec.example", &roots(&right), false), "over HTTP/1.1");
    assert!(!works(&server, "other.example", &roots(&right), true), "another name");
    assert!(!works(&server, "rec.example", &roots(&wrong), true), "another authority");
}

#[test]
fn a_pin_stands_for_authority_and_name_or_comes_on_top() {
    let (dir, authority) = (Dir::new(), ca());
    let pair = pair(&authority, "rec.example", false);
    let server = serve(&dir.0, &pair, None);
    assert!(works(&server, "192.0.2.1", &pinned(pair.pin), true), "whatever the name");
    assert!(!works(&server, "rec.example", &pinned([7; 32]), true), "another key");
    let mut both = roots(&authority);
    both.pins = vec![[7; 32]];
    assert!(!works(&server, "rec.example", &both, true), "right authority, another key");
    both.pins.push(pair.pin);
    assert!(works(&server, "rec.example", &both, true));
    assert!(!works(&server, "other.example", &both, true), "with an authority the name counts");
}

#[test]
fn only_a_pin_can_waive_the_validity_period() {
    let (dir, authority) = (Dir::new(), ca());
    let pair = pair(&authority, "rec.example", true);
    let server = serve(&dir.0, &pair, None);
    assert!(!works(&server, "rec.example", &pinned(pair.pin), true), "expired");
    let mut waived = pinned(pair.pin);
    waived.pin_waives_validity = true;
    assert!(works(&server, "rec.example", &waived, true));
    let mut without_pin = roots(&authority);
    without_pin.pin_waives_validity = true;
    assert!(!works(&server, "rec.example", &without_pin, true), "nothing to recognise it by");
    without_pin.pins = vec![pair.pin];
    assert!(works(&server, "rec.example", &without_pin, true));
}

#[test]
fn a_recorder_that_asks_for_a_certificate_gets_it() {
    let (dir, authority, users) = (Dir::new(), ca(), ca());
    let server = serve(&dir.0, &pair(&authority, "rec.example", false), Some(&users));
    let mut config = roots(&authority);
    assert!(!works(&server, "rec.example", &config, true), "without one");
    let own = pair(&users, "node.example", false);
    config.cert_pem = own.cert.into_bytes();
    config.key_pem = own.key.into_bytes();
    assert!(works(&server, "rec.example", &config, true));
}

#[test]
fn an_authority_in_the_place_of_a_certificate_is_named() {
    let dir = Dir::new();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let cert = params.self_signed(&key).unwrap();
    let pin = Sha256::digest(key.subject_public_key_info()).into();
    let own = Pair { cert: cert.pem(), key: key.serialize_pem(), pin };
    let server = serve(&dir.0, &own, None);
    let ca = dir.0.join("cert");
    let said = Command::new(CASTKEEP)
        .args([
            "record",
            "--enforce",
            "--recorders",
            &format!("https://localhost:{}", server.addr.port()),
        ])
        .arg("--tls-ca")
        .arg(&ca)
        .args(["--", "true"])
        .env("CASTKEEP_CONFIG", "")
        .output()
        .unwrap();
    assert_eq!(said.status.code(), Some(254));
    let text = String::from_utf8(said.stderr).unwrap();
    assert!(text.contains("is that of an authority"), "{text}");
}
