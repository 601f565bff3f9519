//! TLS and mutual TLS: reading the files, and who a client certificate says the peer is.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::{CryptoProvider, ring};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{InconsistentKeys, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::config::{StartError, TlsFiles};

/// The TLS set-up of a recorder: replaced as a whole by a reload, so that a connection sees one certificate or the other.
#[derive(Debug)]
pub(crate) struct Tls {
    files: TlsFiles,
    must_have_certificate: bool,
    current: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads the files. `must_have_certificate`: a peer without a client certificate does not get past the handshake.
    pub(crate) fn open(files: TlsFiles, must_have_certificate: bool) -> Result<Self, StartError> {
        let config = load(&files, must_have_certificate)?;
        Ok(Self { files, must_have_certificate, current: RwLock::new(config) })
    }

    /// Reads the files again. On an error the old set-up stays.
    pub(crate) fn reload(&self) -> Result<(), StartError> {
        let config = load(&self.files, self.must_have_certificate)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// The set-up for a new connection.
    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The name in a certificate whose chain was checked: the first DNS name, else the first URI, else the common name.
pub(crate) fn identity(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, cert) = X509Certificate::from_der(certificate).ok()?;
    if let Ok(Some(names)) = cert.subject_alternative_name() {
        let names = &names.value.general_names;
        let dns = names.iter().find_map(|n| match n {
            GeneralName::DNSName(name) => Some(*name),
            _ => None,
        });
        let uri = names.iter().find_map(|n| match n {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
        if let Some(name) = dns.or(uri).filter(|n| !n.is_empty()) {
            return Some(name.to_owned());
        }
    }
    let name = cert.subject().iter_common_name().next()?.as_str().ok()?;
    (!name.is_empty()).then(|| name.to_owned())
}

fn load(files: &TlsFiles, must_have_certificate: bool) -> Result<Arc<ServerConfig>, StartError> {
    let provider = Arc::new(ring::default_provider());
    let chain = certificates("certificate", &files.cert)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|e| {
        StartError::file("private key", &files.key, &e, "give a readable file with one PEM key")
    })?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| StartError::new("TLS", &e.to_string(), ""))?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let roots = roots(path)?;
            builder.with_client_cert_verifier(verifier(
                path,
                roots,
                provider,
                must_have_certificate,
            )?)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|e| match e {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => StartError::file(
            "private key",
            &files.key,
            &format!("does not belong to the certificate in {}", files.cert.display()),
            "give the key that the first certificate of the chain was made for",
        ),
        e => StartError::file("certificate", &files.cert, &e, "check certificate and key"),
    })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // A recording has one connection that lives long: resumption would save little and keep what a reload replaces.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn verifier(
    path: &Path,
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
    must_have_certificate: bool,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, StartError> {
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = if must_have_certificate { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|e| StartError::file("client CA", path, &e, "check the certificates"))
}

fn roots(path: &Path) -> Result<RootCertStore, StartError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("client CA", path)? {
        roots.add(certificate).map_err(|e| {
            StartError::file("client CA", path, &e, "give a PEM file of CA certificates")
        })?;
    }
    Ok(roots)
}

fn certificates(what: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, StartError> {
    let help = "give a readable PEM file that holds at least one certificate";
    let all: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|e| StartError::file(what, path, &e, help))?;
    if all.is_empty() {
        return Err(StartError::file(what, path, &"no certificate in it", help));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

    fn name(cn: Option<&str>, sans: Vec<SanType>) -> Option<String> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if let Some(cn) = cn {
            params.distinguished_name.push(DnType::CommonName, cn);
        }
        params.subject_alt_names = sans;
        let key = KeyPair::generate().unwrap();
        identity(params.self_signed(&key).unwrap().der())
    }

    #[test]
    fn a_peer_is_called_by_its_dns_name_then_uri_then_common_name() {
        let dns = SanType::DnsName("web1.example".try_into().unwrap());
        let uri = SanType::URI("spiffe://example/web1".try_into().unwrap());
        let both = vec![uri.clone(), dns];
        assert_eq!(name(Some("cn"), both).as_deref(), Some("web1.example"));
        assert_eq!(name(Some("cn"), vec![uri]).as_deref(), Some("spiffe://example/web1"));
        assert_eq!(name(Some("cn"), vec![]).as_deref(), Some("cn"));
        assert_eq!(name(None, vec![]), None);
    }

    #[test]
    fn a_name_that_is_no_name_is_no_panic() {
        assert_eq!(identity(&CertificateDer::from(vec![0x30, 0x82, 0xff, 0xff, 0])), None);
        assert_eq!(name(Some("../../etc\u{1b}[2J"), vec![]).as_deref(), Some("../../etc\u{1b}[2J"));
    }

    #[test]
    fn a_key_of_another_certificate_is_named() {
        let dir = std::env::temp_dir().join(format!("castkeep-tls-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let cert =
            CertificateParams::new(vec!["r.example".into()]).unwrap().self_signed(&key).unwrap();
        let files =
            TlsFiles { cert: dir.join("cert.pem"), key: dir.join("key.pem"), client_ca: None };
        std::fs::write(&files.cert, cert.pem()).unwrap();
        std::fs::write(&files.key, other.serialize_pem()).unwrap();
        let error = Tls::open(files.clone(), false).unwrap_err().to_string();
        assert!(error.contains("key.pem") && error.contains("does not belong"), "{error}");
        std::fs::write(&files.key, "nothing").unwrap();
        let error = Tls::open(files.clone(), false).unwrap_err().to_string();
        assert!(error.contains("key.pem"), "{error}");
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        let tls = Tls::open(files.clone(), false).unwrap();
        let before = tls.current();
        std::fs::write(&files.cert, "").unwrap();
        assert!(tls.reload().is_err());
        assert!(Arc::ptr_eq(&before, &tls.current()), "a bad reload replaced a good set-up");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
