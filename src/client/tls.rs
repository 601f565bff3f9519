//! TLS to recorders: who is trusted, and who we are.

use std::fmt;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use super::der;
use crate::error::{Error, Link, Misuse};

/// What [`Tls`] is made from. PEM or DER as bytes, not paths: a client may live in a chroot.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct TlsConfig {
    /// Certificates of the authorities that are trusted, PEM, or one as DER. Empty only with `pins`.
    pub roots_pem: Vec<u8>,
    /// Own certificate chain, PEM, or one as DER; empty for none.
    pub cert_pem: Vec<u8>,
    /// Its key, PEM or DER.
    pub key_pem: Vec<u8>,
    /// SHA-256 of the public keys (SPKI) that are accepted, see [`TlsConfig::parse_pin`]. With roots as well, both must hold; without, the
    /// pin stands for authority and name.
    pub pins: Vec<[u8; 32]>,
    /// With a matching pin, do not look at the validity period: for machines whose clock is wrong at start.
    pub pin_waives_validity: bool,
}

impl fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConfig")
            .field("pins", &self.pins.len())
            .field("pin_waives_validity", &self.pin_waives_validity)
            .finish_non_exhaustive()
    }
}

impl TlsConfig {
    /// Reads a pin: `sha256/<base64>` or `sha256:<hex>`, the prefix optional, as OpenSSL and curl print the digest of a public key.
    #[must_use]
    pub fn parse_pin(text: &str) -> Option<[u8; 32]> {
        let text = text.trim();
        let digest = ["sha256//", "sha256/", "sha256:"]
            .iter()
            .find_map(|prefix| text.strip_prefix(prefix))
            .unwrap_or(text);
        unhex(digest).or_else(|| unbase64(digest))
    }
}

/// Why a [`TlsConfig`] cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsError {
    /// The own certificate, its key, or their belonging together.
    Certificate,
    /// No authority and no pin.
    NothingTrusted,
    /// The roots.
    Roots,
}

impl TlsError {
    /// As a sentence without its full stop.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Certificate => "the client certificate and its key are not a usable pair",
            Self::NothingTrusted => "neither a certificate authority nor a pin is given",
            Self::Roots => "there is no certificate in what was given for the authorities",
        }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for TlsError {}

/// Ready to connect; shared by recorders and sessions.
#[derive(Clone)]
pub struct Tls {
    h2: Arc<rustls::ClientConfig>,
    http1: Arc<rustls::ClientConfig>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// Checks everything now, so that a bad file is seen at start and not at the first session.
    ///
    /// # Errors
    /// What part cannot be used.
    pub fn new(config: &TlsConfig) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let verifier = Arc::new(Verifier::new(config, &provider)?);
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|_| TlsError::Certificate)?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let base = if config.cert_pem.is_empty() && config.key_pem.is_empty() {
            builder.with_no_client_auth()
        } else {
            let chain = certificates(&config.cert_pem).ok_or(TlsError::Certificate)?;
            let key = key(&config.key_pem).ok_or(TlsError::Certificate)?;
            builder.with_client_auth_cert(chain, key).map_err(|_| TlsError::Certificate)?
        };
        let mut h2 = base.clone();
        h2.alpn_protocols = vec![b"h2".to_vec()];
        let mut http1 = base;
        http1.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { h2: Arc::new(h2), http1: Arc::new(http1) })
    }

    pub(crate) fn connection(&self, name: &str, http2: bool) -> Result<ClientConnection, Error> {
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| Error::Misuse(Misuse::BadParameter))?;
        let config = if http2 { &self.h2 } else { &self.http1 };
        let mut tls =
            ClientConnection::new(Arc::clone(config), name).map_err(|_| Error::Link(Link::Tls))?;
        // What waits for the socket inside rustls; its own default is as much again.
        tls.set_buffer_limit(Some(BUFFER_BYTES));
        Ok(tls)
    }
}

/// Authority and name as usual, the pin, or both.
#[derive(Debug)]
struct Verifier {
    roots: Option<Arc<WebPkiServerVerifier>>,
    pins: Vec<[u8; 32]>,
    waive_validity: bool,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn new(config: &TlsConfig, provider: &Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let roots = if config.roots_pem.is_empty() {
            if config.pins.is_empty() {
                return Err(TlsError::NothingTrusted);
            }
            None
        } else {
            let mut store = RootCertStore::empty();
            // System bundles hold a few certificates that cannot be an anchor; what can be used is used.
            let (used, _) = store
                .add_parsable_certificates(certificates(&config.roots_pem).unwrap_or_default());
            if used == 0 {
                return Err(TlsError::Roots);
            }
            Some(
                WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(provider))
                    .build()
                    .map_err(|_| TlsError::Roots)?,
            )
        };
        Ok(Self {
            roots,
            pins: config.pins.clone(),
            waive_validity: config.pin_waives_validity && !config.pins.is_empty(),
            provider: Arc::clone(provider),
        })
    }

    /// Whether the key of this certificate is one of the pinned; false without pins.
    fn is_pinned(&self, end_entity: &CertificateDer<'_>) -> Result<bool, rustls::Error> {
        if self.pins.is_empty() {
            return Ok(false);
        }
        let spki = ParsedCertificate::try_from(end_entity)?.subject_public_key_info();
        let Some(suite) = ring::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13() else {
            return Ok(false);
        };
        let digest = suite.common.hash_provider.hash(spki.as_ref());
        Ok(self.pins.iter().any(|pin| pin.as_slice() == digest.as_ref()))
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let refused = |why| Err(rustls::Error::InvalidCertificate(why));
        let pinned = self.is_pinned(end_entity)?;
        if !pinned && !self.pins.is_empty() {
            return refused(CertificateError::ApplicationVerificationFailure);
        }
        let Some(roots) = &self.roots else {
            let within = self.waive_validity
                || der::validity(end_entity.as_ref())
                    .is_some_and(|(from, to)| (from..=to).contains(&now.as_secs()));
            if !within {
                return refused(CertificateError::Expired);
            }
            return Ok(ServerCertVerified::assertion());
        };
        let verified =
            roots.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verified {
            // The key itself was recognised: what is waived here is only what the clock says.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. },
            )) if pinned && self.waive_validity => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// What is wrong and what to do about it. The options named are those of the program.
pub(crate) fn explain(why: &rustls::Error) -> String {
    use rustls::AlertDescription as Alert;
    let text = match why {
        rustls::Error::InvalidCertificate(why) => match why {
            CertificateError::UnknownIssuer => {
                "the recorder's certificate is from no authority that is trusted here: name its authority (--tls-ca)"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "the recorder's certificate is for another name: reach the recorder by a name or address that stands in it"
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the recorder's certificate has expired, or the clock here is wrong"
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "the recorder's certificate is not valid yet, or the clock here is wrong"
            }
            CertificateError::ApplicationVerificationFailure => {
                "the recorder's key is none of those pinned (--tls-pin)"
            }
            // What `openssl req -x509` makes unless it is told otherwise.
            CertificateError::Other(other)
                if format!("{other:?}").contains("CaUsedAsEndEntity") =>
            {
                "the recorder's certificate is that of an authority (CA:TRUE): give it one that the authority has signed, or pin its key"
            }
            _ => return format!("the recorder's certificate: {why}"),
        },
        rustls::Error::AlertReceived(Alert::CertificateRequired) => {
            "the recorder wants a client certificate: give one (--tls-cert, --tls-key)"
        }
        rustls::Error::AlertReceived(
            Alert::UnknownCA
            | Alert::BadCertificate
            | Alert::CertificateUnknown
            | Alert::CertificateExpired
            | Alert::CertificateRevoked
            | Alert::DecryptError
            | Alert::AccessDenied,
        ) => return format!("the recorder does not accept the client certificate: {why}"),
        rustls::Error::General(text) => text,
        rustls::Error::InvalidMessage(_) => "the recorder does not speak TLS on this port",
        _ => return why.to_string(),
    };
    text.to_owned()
}

fn certificates(given: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    if !is_pem(given) {
        let one = CertificateDer::from(given.to_vec());
        return ParsedCertificate::try_from(&one).is_ok().then(|| vec![one.clone()]);
    }
    let all: Vec<_> = CertificateDer::pem_slice_iter(given).collect::<Result<_, _>>().ok()?;
    (!all.is_empty()).then_some(all)
}

fn key(given: &[u8]) -> Option<PrivateKeyDer<'static>> {
    if is_pem(given) {
        return PrivateKeyDer::from_pem_slice(given).ok();
    }
    PrivateKeyDer::try_from(given.to_vec()).ok()
}

/// PEM may have text before its first line; DER begins with a sequence, which is no text.
fn is_pem(given: &[u8]) -> bool {
    given.windows(10).any(|part| part == b"-----BEGIN")
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut out = [0; 32];
    for (byte, digits) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(out)
}

/// 32 bytes are 43 digits and one `=`.
fn unbase64(text: &str) -> Option<[u8; 32]> {
    let digits = text.strip_suffix('=').filter(|d| d.len() == 43)?;
    let mut out = Vec::with_capacity(33);
    let (mut bits, mut have) = (0u32, 0u32);
    for digit in digits.bytes() {
        let value = BASE64.iter().position(|b| *b == digit)?;
        bits = (bits << 6) | u32::try_from(value).ok()?;
        have = have.wrapping_add(6);
        if have >= 8 {
            have = have.wrapping_sub(8);
            out.push(u8::try_from((bits >> have) & 0xff).ok()?);
        }
    }
    out.try_into().ok()
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// See [`Tls::connection`].
const BUFFER_BYTES: usize = 32 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_read_in_their_spellings() {
        let pin = TlsConfig::parse_pin(&"ab".repeat(32)).expect("hex");
        assert_eq!(pin, [0xab; 32]);
        let base64 = format!("sha256/{}q6s=", "q6ur".repeat(10));
        assert_eq!(TlsConfig::parse_pin(&base64), Some([0xab; 32]));
        assert_eq!(TlsConfig::parse_pin(&format!("sha256:{}", "AB".repeat(32))), Some([0xab; 32]));
        for bad in ["", "sha256/", "abcd", "sha256/????"] {
            assert_eq!(TlsConfig::parse_pin(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_said_at_once() {
        let none = TlsConfig::default();
        assert_eq!(Tls::new(&none).err(), Some(TlsError::NothingTrusted));
        let junk = TlsConfig { roots_pem: b"junk".to_vec(), ..TlsConfig::default() };
        assert_eq!(Tls::new(&junk).err(), Some(TlsError::Roots));
        let half = TlsConfig { pins: vec![[0; 32]], cert_pem: b"junk".to_vec(), ..none };
        assert_eq!(Tls::new(&half).err(), Some(TlsError::Certificate));
    }
}
