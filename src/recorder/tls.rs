//! TLS and mutual TLS: where the certificate comes from, and who a client certificate says the peer is.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use rustls::crypto::{CryptoProvider, ring};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{InconsistentKeys, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::config::{StartError, TailscaleTls, TlsFiles, duration};
use crate::limits;
use crate::localapi::LocalApi;

/// The TLS set-up of a recorder: replaced as a whole by a reload, so that a connection sees one certificate or the other.
#[derive(Debug)]
pub(crate) struct Tls {
    source: Source,
    must_have_certificate: bool,
    current: RwLock<Arc<ServerConfig>>,
    /// When the certificate ends, in seconds since 1970; 0 when that is not known.
    pub(crate) ends: AtomicI64,
    /// How often reading it again failed.
    pub(crate) failures: AtomicU64,
}

/// Where certificate and key come from.
#[derive(Debug)]
pub(crate) enum Source {
    Files(TlsFiles),
    Tailscale(TailscaleTls),
}

impl Source {
    fn client_ca(&self) -> Option<&PathBuf> {
        match self {
            Self::Files(files) => files.client_ca.as_ref(),
            Self::Tailscale(tailscale) => tailscale.client_ca.as_ref(),
        }
    }
}

/// A certificate chain and its key.
struct Pair {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// What a reload did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reloaded {
    New,
    /// The certificate is the one that is in use.
    Same,
}

impl Tls {
    /// Reads the certificate. `must_have_certificate`: a peer without a client certificate does not get past the handshake.
    pub(crate) fn open(source: Source, must_have_certificate: bool) -> Result<Self, StartError> {
        let pair = read(&source)?;
        let ends = ends(&pair);
        if let Source::Tailscale(tailscale) = &source {
            check(&pair, tailscale)?;
            if ends.is_some_and(|ends| ends <= now()) {
                log::error!(
                    "the certificate of {} has ended; is the clock right?",
                    tailscale.domain
                );
            }
        }
        let config = build(&source, pair, must_have_certificate)?;
        Ok(Self {
            source,
            must_have_certificate,
            current: RwLock::new(config),
            ends: AtomicI64::new(ends.unwrap_or(0)),
            failures: AtomicU64::new(0),
        })
    }

    /// Reads it again. On an error the old set-up stays, and so it does when what came has ended and the old one has not.
    pub(crate) fn reload(&self) -> Result<Reloaded, StartError> {
        self.reload_now().inspect_err(|_| {
            self.failures.fetch_add(1, Ordering::Relaxed);
        })
    }

    fn reload_now(&self) -> Result<Reloaded, StartError> {
        let pair = read(&self.source)?;
        let ends = ends(&pair).unwrap_or(0);
        let had = self.ends.load(Ordering::Relaxed);
        if let Source::Tailscale(tailscale) = &self.source {
            check(&pair, tailscale)?;
            if ends <= now() && had > ends {
                return Err(refused(tailscale, "it has ended"));
            }
        }
        let config = build(&self.source, pair, self.must_have_certificate)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = config;
        self.ends.store(ends, Ordering::Relaxed);
        Ok(if ends == had { Reloaded::Same } else { Reloaded::New })
    }

    /// Whether it has to be asked for again and again.
    pub(crate) const fn is_renewed(&self) -> bool {
        matches!(self.source, Source::Tailscale(_))
    }

    /// Whether the certificate ends soon, although it should have been renewed long ago.
    pub(crate) fn ends_soon(&self) -> bool {
        let soon = i64::try_from(limits::CERTIFICATE_ENDS_SOON.0 / 1_000_000).unwrap_or(i64::MAX);
        self.ends.load(Ordering::Relaxed) < now().saturating_add(soon)
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

fn read(source: &Source) -> Result<Pair, StartError> {
    match source {
        Source::Files(files) => {
            let chain = certificates("certificate", &files.cert)?;
            let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|e| {
                let todo = "give a readable file with one PEM key";
                StartError::file("private key", &files.key, &e, todo)
            })?;
            Ok(Pair { chain, key })
        }
        Source::Tailscale(tailscale) => {
            let api = LocalApi::new(&tailscale.socket);
            let (chain, key) = api
                .certificate(&tailscale.domain, duration(limits::CERTIFICATE_TIME))
                .map_err(|e| refused(tailscale, &e.to_string()))?;
            let chain = CertificateDer::pem_slice_iter(&chain)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|e| refused(tailscale, &e.to_string()))?;
            let key = PrivateKeyDer::from_pem_slice(&key)
                .map_err(|e| refused(tailscale, &e.to_string()))?;
            Ok(Pair { chain, key })
        }
    }
}

/// The certificate must be one for the name that was asked for: a client checks the name, and would be lost.
fn check(pair: &Pair, tailscale: &TailscaleTls) -> Result<(), StartError> {
    let wrong = || refused(tailscale, "it is not a certificate for that name");
    let first = pair.chain.first().ok_or_else(wrong)?;
    let names = dns_names(first).ok_or_else(wrong)?;
    let fits = names.iter().any(|name| name.eq_ignore_ascii_case(&tailscale.domain));
    if fits { Ok(()) } else { Err(wrong()) }
}

/// The DNS names in a certificate.
fn dns_names(certificate: &CertificateDer<'_>) -> Option<Vec<String>> {
    let (_, cert) = X509Certificate::from_der(certificate).ok()?;
    let names = cert.subject_alternative_name().ok()??;
    let dns = names.value.general_names.iter().filter_map(|n| match n {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    });
    Some(dns.collect())
}

/// When a certificate ends, in seconds since 1970.
fn ends(pair: &Pair) -> Option<i64> {
    let (_, cert) = X509Certificate::from_der(pair.chain.first()?).ok()?;
    Some(cert.validity().not_after.timestamp())
}

fn now() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

fn refused(tailscale: &TailscaleTls, why: &str) -> StartError {
    StartError::new(
        &format!("--tls-from-tailscale {}", tailscale.domain),
        &format!("tailscaled at {}: {why}", tailscale.socket.display()),
        "`tailscale cert` with this name must work; run as root or as the user in TS_PERMIT_CERT_UID",
    )
}

fn build(
    source: &Source,
    pair: Pair,
    must_have_certificate: bool,
) -> Result<Arc<ServerConfig>, StartError> {
    let provider = Arc::new(ring::default_provider());
    let Pair { chain, key } = pair;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| StartError::new("TLS", &e.to_string(), ""))?;
    let builder = match source.client_ca() {
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
    let mut config = builder.with_single_cert(chain, key).map_err(|e| match (source, e) {
        (Source::Files(files), rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            StartError::file(
                "private key",
                &files.key,
                &format!("does not belong to the certificate in {}", files.cert.display()),
                "give the key that the first certificate of the chain was made for",
            )
        }
        (Source::Files(files), e) => {
            StartError::file("certificate", &files.cert, &e, "check certificate and key")
        }
        (Source::Tailscale(tailscale), e) => refused(tailscale, &e.to_string()),
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
        let error = Tls::open(Source::Files(files.clone()), false).unwrap_err().to_string();
        assert!(error.contains("key.pem") && error.contains("does not belong"), "{error}");
        std::fs::write(&files.key, "nothing").unwrap();
        let error = Tls::open(Source::Files(files.clone()), false).unwrap_err().to_string();
        assert!(error.contains("key.pem"), "{error}");
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        let tls = Tls::open(Source::Files(files.clone()), false).unwrap();
        let before = tls.current();
        std::fs::write(&files.cert, "").unwrap();
        assert!(tls.reload().is_err());
        assert!(Arc::ptr_eq(&before, &tls.current()), "a bad reload replaced a good set-up");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
