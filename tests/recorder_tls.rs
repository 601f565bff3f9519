//! TLS and mutual TLS.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

#[path = "recorder_support/mod.rs"]
mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use castkeep::recorder::{AllowUpload, Listen, Recorder, RecorderConfig, TlsFiles};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use support::*;

type Tls = StreamOwned<ClientConnection, TcpStream>;

struct Authority {
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    fn issue(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }
}

/// Certificate and key of a recorder, and the authority of its clients.
struct Pki {
    servers: Authority,
    clients: Authority,
    files: TlsFiles,
}

fn pki(dir: &Temp, mutual: bool) -> Pki {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let (certificate, key) = servers.issue("recorder.example");
    let files = TlsFiles {
        cert: dir.join("cert.pem"),
        key: dir.join("key.pem"),
        client_ca: mutual.then(|| dir.join("clients.pem")),
    };
    std::fs::write(&files.cert, certificate.pem()).unwrap();
    std::fs::write(&files.key, key.serialize_pem()).unwrap();
    std::fs::write(dir.join("clients.pem"), clients.certificate.pem()).unwrap();
    Pki { servers, clients, files }
}

fn dial(
    address: SocketAddr,
    pki: &Pki,
    identity: Option<(rcgen::Certificate, KeyPair)>,
    alpn: &[&[u8]],
) -> Tls {
    let mut roots = RootCertStore::empty();
    roots.add(pki.servers.certificate.der().clone()).unwrap();
    let builder =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
            builder.with_client_auth_cert(vec![CertificateDer::from(certificate)], key).unwrap()
        }
    };
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    let name = "recorder.example".try_into().unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    StreamOwned::new(connection, connect(address))
}

#[test]
fn one_port_speaks_both_versions_over_tls() {
    let dir = Temp::new("tls");
    let pki = pki(&dir, false);
    let (_recorder, address) = start(&dir, |c| c.tls = Some(pki.files.clone()));
    let body = cast(300_000);
    let mut h2 = H2::new(dial(address, &pki, None, &[b"h2", b"http/1.1"]));
    let probe = h2.open("HEAD", "/v2/record", &[], true);
    assert_eq!(h2.status(probe), 200);
    assert_eq!(h2.stream.conn.alpn_protocol(), Some(&b"h2"[..]));
    let post = h2.open("POST", "/v2/record", &[], false);
    h2.send(post, &body, true);
    let text = h2.until_end(post);
    assert_eq!(last_number(&text, "ack"), Some(body.len() as u64));
    assert!(only_recording(&dir.join("dst")).0 == body);
    let mut h1 = dial(address, &pki, None, &[b"http/1.1"]);
    assert!(upload_v1(&mut h1, &body).starts_with("HTTP/1.1 200"));
    // Without ALPN the preface decides.
    let mut h2 = H2::new(dial(address, &pki, None, &[]));
    let probe = h2.open("HEAD", "/v2/record", &[], true);
    assert_eq!(h2.status(probe), 200);
    // Clear text is not spoken there.
    let answer = exchange(address, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(!answer.contains("200 OK"), "{answer}");
}

#[test]
fn a_client_certificate_is_who_the_node_is() {
    let dir = Temp::new("mtls");
    let pki = pki(&dir, true);
    let (_recorder, address) = start(&dir, |c| c.tls = Some(pki.files.clone()));
    let identity = pki.clients.issue("web1.example");
    let mut h1 = dial(address, &pki, Some(identity), &[b"http/1.1"]);
    let body = cast(2_000);
    assert!(upload_v1(&mut h1, &body).starts_with("HTTP/1.1 200"));
    let (bytes, sidecar) = only_recording(&dir.join("dst"));
    assert!(bytes == body);
    assert_eq!(sidecar["node"], "web1.example");
    assert_eq!(sidecar["peer"]["identity"], "web1.example");
    assert_eq!(sidecar["peer"]["verified"], true);
    // Without a certificate, and with one of another authority, there is no connection.
    let stranger = Authority::new("strangers").issue("web1.example");
    for identity in [None, Some(stranger)] {
        let mut tls = dial(address, &pki, identity, &[b"http/1.1"]);
        let mut answer = String::new();
        let _ = tls.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let _ = tls.read_to_string(&mut answer);
        assert_eq!(answer, "");
    }
}

#[test]
fn another_certificate_cannot_resume() {
    let dir = Temp::new("mtlsresume");
    let pki = pki(&dir, true);
    let (_recorder, address) = start(&dir, |c| c.tls = Some(pki.files.clone()));
    let mine = pki.clients.issue("web1.example");
    let mut h2 = H2::new(dial(address, &pki, Some(mine), &[b"h2"]));
    let post = h2.open("POST", "/v2/record", &Resume::new(1, 1, 0).fields(), false);
    assert_eq!(h2.status(post), 200);
    let other = pki.clients.issue("web2.example");
    let mut h2 = H2::new(dial(address, &pki, Some(other), &[b"h2"]));
    let post = h2.open("POST", "/v2/record", &Resume::new(1, 2, 0).fields(), false);
    assert_eq!(h2.status(post), 403);
}

#[test]
fn clear_text_beside_tls_has_no_certificate() {
    let dir = Temp::new("beside");
    let pki = pki(&dir, true);
    let (recorder, _) = start(&dir, |c| {
        c.tls = Some(pki.files.clone());
        c.listen.push(Listen { address: "127.0.0.1:0".parse().unwrap(), clear: true });
    });
    let clear = recorder.addresses()[1];
    assert!(begin_v1(&mut connect(clear)).starts_with("HTTP/1.1 403"));
}

#[test]
fn certificates_are_read_again() {
    let dir = Temp::new("reload");
    let mut old = pki(&dir, false);
    let (recorder, address) = start(&dir, |c| c.tls = Some(old.files.clone()));
    let mut before = H2::new(dial(address, &old, None, &[b"h2"]));
    let probe = before.open("HEAD", "/v2/record", &[], true);
    assert_eq!(before.status(probe), 200);
    let new = Authority::new("new servers");
    let (certificate, key) = new.issue("recorder.example");
    std::fs::write(&old.files.cert, certificate.pem()).unwrap();
    assert!(recorder.reload().is_err(), "the key does not belong to it yet");
    std::fs::write(&old.files.key, key.serialize_pem()).unwrap();
    assert!(recorder.reload().unwrap());
    // What runs goes on; who comes now sees the new one.
    let probe = before.open("HEAD", "/v2/record", &[], true);
    assert_eq!(before.status(probe), 200);
    old.servers = new;
    let mut after = H2::new(dial(address, &old, None, &[b"h2"]));
    let probe = after.open("HEAD", "/v2/record", &[], true);
    assert_eq!(after.status(probe), 200);
}

#[test]
fn a_handshake_has_a_deadline() {
    let dir = Temp::new("handshake");
    let pki = pki(&dir, false);
    let (_recorder, address) = start(&dir, |c| {
        c.tls = Some(pki.files.clone());
        c.head_time = Duration::from_millis(200);
    });
    let mut tcp = connect(address);
    tcp.write_all(&[0x16, 3, 1]).unwrap();
    let mut rest = Vec::new();
    let _ = tcp.read_to_end(&mut rest);
}

#[test]
fn off_loopback_who_may_upload_must_be_said() {
    let dir = Temp::new("open");
    let mut config = RecorderConfig::new(dir.join("dst"));
    config.listen = vec![Listen { address: "0.0.0.0:0".parse().unwrap(), clear: false }];
    let error = Recorder::start(config.clone()).unwrap_err().to_string();
    assert!(error.contains("--allow-upload"), "{error}");
    config.allow_upload = Some(AllowUpload::certificate());
    let error = Recorder::start(config.clone()).unwrap_err().to_string();
    assert!(error.contains("--client-ca"), "{error}");
    config.allow_upload = Some("anyone".parse().unwrap());
    drop(Recorder::start(config).unwrap());
}
