//! The configuration: plain data.
// See version.rs; and the caller's pointers.
#![allow(unsafe_code)]

use alloc::boxed::Box;
use alloc::string::String;
#[cfg(feature = "tls")]
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ffi::c_char;
use core::time::Duration;

use core_lib::client::heap::boxed;
use core_lib::client::{Decision, Metadata, RecorderAddr, Release, Settings};
#[cfg(feature = "std")]
use core_lib::client::{PolicySource, Question};
#[cfg(feature = "tls")]
use core_lib::client::{Tls, TlsConfig};
use core_lib::error::Error;
use core_lib::session::volume::{TRANSFERS, is_transfer};
use core_lib::{limits, space};

use crate::bytes::{bytes, copy_out, text};
use crate::fence::fenced;
use crate::host::Surroundings;
use crate::status::castkeep_status::{self, *};

/// For castkeep_config_set_text: shown to the user when the session cannot be recorded from its start; setting
/// it makes the start fail closed.
pub const CASTKEEP_OPTION_REJECT_MESSAGE: i32 = 1;
/// For castkeep_config_set_text: shown to the user when recording fails in mid-session; setting it makes the
/// middle fail closed.
pub const CASTKEEP_OPTION_TERMINATE_MESSAGE: i32 = 2;
/// For castkeep_config_set_number: bytes of a session that are kept until a recorder has stored them, 64 KiB
/// to 256 MiB. Unless set 256 KiB. A session's rate is bounded by this over the time of a commit.
pub const CASTKEEP_OPTION_RING_BYTES: i32 = 3;
/// For castkeep_config_set_number: most sessions of a client at a time. Unless set 64.
pub const CASTKEEP_OPTION_MAX_SESSIONS: i32 = 4;
/// For castkeep_config_set_number: 1 shows output only when it is stored; see castkeep_session_released. Unless
/// set 0.
pub const CASTKEEP_OPTION_RELEASE_COMMIT: i32 = 5;
/// For castkeep_config_set_number: 1 says that the host shows no more than castkeep_session_released tells.
/// Without it a client whose configuration wants output stored before it is shown is UNSUPPORTED.
pub const CASTKEEP_OPTION_HOST_RELEASES: i32 = 6;
/// For castkeep_config_set_number: 1 records what castkeep_session_input is given. Unless set 0.
pub const CASTKEEP_OPTION_RECORD_INPUT: i32 = 7;
/// For castkeep_config_set_number: milliseconds until the loss of a recorder counts as failed recording.
/// Unless set 15,000.
pub const CASTKEEP_OPTION_GRACE_MS: i32 = 8;
/// For castkeep_config_set_number: milliseconds that a session which fails open is ever held up. Unless set
/// 1,000.
pub const CASTKEEP_OPTION_STALL_LIMIT_MS: i32 = 9;
/// For castkeep_config_set_number: milliseconds that all recorders together may take at the start. Unless set
/// 30,000.
pub const CASTKEEP_OPTION_START_LIMIT_MS: i32 = 10;
/// For castkeep_config_set_number: milliseconds that castkeep_session_finish leaves for storing the rest. Unless
/// set 2,000.
pub const CASTKEEP_OPTION_CLOSE_WAIT_MS: i32 = 11;
/// For castkeep_config_set_number: bytes that the rings of all open sessions of a client may have together; past
/// them castkeep_session_open answers LIMIT. Unless set no less than max-sessions times the ring.
pub const CASTKEEP_OPTION_MAX_BYTES: i32 = 12;
/// For castkeep_config_set_bytes: certificates of the authorities that recorders' certificates are checked with,
/// PEM (several) or DER (one).
pub const CASTKEEP_OPTION_TLS_AUTHORITIES: i32 = 13;
/// For castkeep_config_set_bytes: the own certificate with what leads to its authority, PEM, or DER (one), for recorders that ask for one.
pub const CASTKEEP_OPTION_TLS_CERTIFICATE: i32 = 14;
/// For castkeep_config_set_bytes: its key, PEM or DER (PKCS #8, SEC 1 or PKCS #1).
pub const CASTKEEP_OPTION_TLS_KEY: i32 = 15;
/// For castkeep_config_set_text: accept this public key, the SHA-256 of its SPKI in hexadecimal or as "sha256/BASE64". Adds to
/// those that are there. Without authorities it stands for authority and name.
pub const CASTKEEP_OPTION_TLS_PIN: i32 = 16;
/// For castkeep_config_set_number: 1 does not look at the validity period of a certificate whose key is pinned, for
/// machines whose clock is wrong at start. Unless set 0.
pub const CASTKEEP_OPTION_TLS_PIN_IGNORES_TIME: i32 = 17;
/// For castkeep_config_set_number: bytes of each stream of output that are recorded of a file transfer: a session whose command is
/// scp, rsync or what git runs on a server, and nothing beside it. Of the rest the recording has number and SHA-256.
/// Unless set 65,536; UINT64_MAX records all.
pub const CASTKEEP_OPTION_TRANSFER_BYTES: i32 = 18;
/// For castkeep_config_set_number: 1 refuses sessions whose CASTKEEP_TEXT_KIND is "subsystem", which is sftp. Unless set 0.
pub const CASTKEEP_OPTION_REFUSE_SFTP: i32 = 19;

/// For castkeep_config_set_text: who is asked, for each session, whether it may take place and who records it: "unix:/run/castkeep/agent.sock",
/// the socket of `castkeep agent`, or "https://192.0.2.7:443", `castkeep control`. The recorders and messages of this configuration
/// then hold only with CASTKEEP_OPTION_POLICY_AS_CONFIGURED. A session that policy does not let go on any more is TERMINATED.
pub const CASTKEEP_OPTION_POLICY: i32 = 20;
/// For castkeep_config_set_text: what `castkeep control` knows this node by. Not for an agent.
pub const CASTKEEP_OPTION_POLICY_TOKEN: i32 = 21;
/// For castkeep_config_set_number: milliseconds that the first answer of policy may take. Unless set 5,000.
pub const CASTKEEP_OPTION_POLICY_WAIT_MS: i32 = 22;
/// For castkeep_config_set_number: 1 goes by the recorders and messages of this configuration where policy does not answer in time;
/// with none, nothing is recorded. Unless set 0: the session is REFUSED.
pub const CASTKEEP_OPTION_POLICY_AS_CONFIGURED: i32 = 23;

/// What one system call sends at most: a session's share of memory beside its ring.
const LINK_BYTES: usize =
    if cfg!(feature = "std") { 16 * 1024 } else { limits::LINK_OUT_MIN_BYTES };
/// A chain, or the bundle of a system.
#[cfg(feature = "tls")]
const PEM_BYTES: usize = 1 << 20;
/// The keys in use and those that will follow them.
#[cfg(feature = "tls")]
const PINS: usize = 16;

/// What sessions are recorded with: recorders, policy, limits. Plain data: no descriptor, no thread; may be used in
/// forked children. One thread at a time.
pub struct castkeep_config {
    pub(crate) recorders: Vec<Recorder>,
    pub(crate) reject: Option<String>,
    pub(crate) terminate: Option<String>,
    pub(crate) ring_bytes: usize,
    pub(crate) max_sessions: usize,
    pub(crate) release: Release,
    pub(crate) host_releases: bool,
    pub(crate) record_input: bool,
    pub(crate) grace: Option<Duration>,
    pub(crate) stall_limit: Option<Duration>,
    pub(crate) start_limit: Option<Duration>,
    pub(crate) close_wait: Duration,
    pub(crate) max_bytes: usize,
    pub(crate) transfers: Transfers,
    #[cfg(feature = "std")]
    policy: Policy,
    #[cfg(feature = "tls")]
    tls: TlsConfig,
    pub(crate) host: Surroundings,
}

/// Who is asked.
#[cfg(feature = "std")]
#[derive(Default)]
struct Policy {
    at: Option<Recorder>,
    token: Option<String>,
    wait: Option<Duration>,
    as_configured: bool,
}

/// What of file transfers is recorded.
#[derive(Clone, Copy)]
pub(crate) struct Transfers {
    /// Of each stream; `u64::MAX` for all.
    pub(crate) cap_bytes: u64,
    pub(crate) refuse_sftp: bool,
}

impl Transfers {
    /// What it means for a session.
    pub(crate) fn apply(self, metadata: &mut Metadata) -> Result<(), Error> {
        let command = metadata.command.as_deref().unwrap_or_default();
        if self.cap_bytes < u64::MAX && is_transfer(command.as_bytes(), TRANSFERS) {
            metadata.volume_bytes = Some(self.cap_bytes);
        }
        if self.refuse_sftp && metadata.kind == "subsystem" {
            metadata.refusal = Some(space::string("sftp is not allowed here\n")?);
        }
        Ok(())
    }
}

/// One address of the list.
pub(crate) struct Recorder {
    pub(crate) addr: RecorderAddr,
    /// The name that its certificate must be for; none in clear text.
    #[cfg_attr(not(feature = "tls"), allow(dead_code))]
    tls_name: Option<String>,
    /// By name: the host connects to it.
    named: bool,
}

/// What is wrong with a configuration.
pub(crate) enum Wrong {
    Memory,
    Text(&'static str),
    #[cfg(feature = "tls")]
    Tls(core_lib::client::TlsError),
}

impl From<Error> for Wrong {
    fn from(_: Error) -> Self {
        Self::Memory
    }
}

impl Wrong {
    pub(crate) const fn status(&self) -> castkeep_status {
        match self {
            Self::Memory => CASTKEEP_STATUS_NO_MEMORY,
            _ => CASTKEEP_STATUS_CONFIG,
        }
    }

    pub(crate) const fn text(&self) -> &'static str {
        match self {
            Self::Memory => "out of memory",
            Self::Text(text) => text,
            #[cfg(feature = "tls")]
            Self::Tls(why) => why.text(),
        }
    }
}

/// What is wrong with something that was given.
fn given(why: Error) -> castkeep_status {
    match why {
        Error::NoMemory => CASTKEEP_STATUS_NO_MEMORY,
        Error::TooBig => CASTKEEP_STATUS_TOO_BIG,
        _ => CASTKEEP_STATUS_BAD_PARAMETER,
    }
}

/// What stands before and behind the last colon. The standard library's search has a path to a panic.
fn split_port(text: &str) -> Option<(&str, &str)> {
    let at = text.bytes().rposition(|b| b == b':')?;
    Some((text.get(..at)?, text.get(at.wrapping_add(1)..)?))
}

/// An IPv6 address without its brackets.
fn bare(ip: &str) -> &str {
    let inner = ip.strip_prefix('[').unwrap_or(ip);
    inner.strip_suffix(']').unwrap_or(inner)
}

fn joined(parts: &[&str]) -> Result<String, Error> {
    let mut bytes = Vec::new();
    for part in parts {
        space::extend(&mut bytes, part.as_bytes())?;
    }
    String::from_utf8(bytes).map_err(|_| Error::Bug)
}

/// Whether TLS is asked for, and the rest.
fn scheme(address: &str) -> (bool, &str) {
    match address.strip_prefix("https://") {
        Some(rest) => (true, rest),
        None => (false, address.strip_prefix("http://").unwrap_or(address)),
    }
}

impl Default for castkeep_config {
    fn default() -> Self {
        Self {
            recorders: Vec::new(),
            reject: None,
            terminate: None,
            ring_bytes: limits::RING_DEFAULT_BYTES,
            max_sessions: limits::SESSIONS_DEFAULT,
            release: Release::Ring,
            host_releases: false,
            record_input: false,
            grace: None,
            stall_limit: None,
            start_limit: None,
            close_wait: Duration::from_secs(2),
            max_bytes: usize::MAX,
            transfers: Transfers { cap_bytes: limits::TRANSFER_BYTES, refuse_sftp: false },
            #[cfg(feature = "std")]
            policy: Policy::default(),
            #[cfg(feature = "tls")]
            tls: TlsConfig::default(),
            host: Surroundings::default(),
        }
    }
}

impl castkeep_config {
    pub(crate) fn settings(&self) -> Settings {
        let mut settings = Settings::default();
        settings.ring_bytes = self.ring_bytes;
        settings.max_sessions = self.max_sessions;
        settings.link_bytes = LINK_BYTES;
        settings
    }

    /// What a session is opened with.
    pub(crate) fn decision(&self) -> Result<Decision, Wrong> {
        let copy = |text: &Option<String>| text.as_deref().map(space::string).transpose();
        let asks = self.asks();
        if self.recorders.is_empty() && !asks && (self.reject.is_some() || self.terminate.is_some())
        {
            return Err(Wrong::Text("recorders: recording is required and none is named"));
        }
        let mut decision = Decision::open(self.recorders()?);
        #[cfg(feature = "std")]
        {
            decision.policy = self.policy_source()?;
        }
        decision.reject_message = copy(&self.reject)?;
        decision.terminate_message = copy(&self.terminate)?;
        decision.release = self.release;
        decision.record_input = self.record_input;
        decision.grace = self.grace;
        decision.stall_limit = self.stall_limit;
        decision.start_limit = self.start_limit;
        Ok(decision)
    }

    /// Whether policy is asked.
    #[allow(clippy::missing_const_for_fn, clippy::unused_self)]
    fn asks(&self) -> bool {
        #[cfg(feature = "std")]
        return self.policy.at.is_some();
        #[cfg(not(feature = "std"))]
        false
    }

    #[cfg(feature = "std")]
    fn policy_source(&self) -> Result<Option<PolicySource>, Wrong> {
        let Policy { at, token, wait, as_configured } = &self.policy;
        let Some(Recorder { addr, tls_name, .. }) = at else {
            return match token {
                Some(_) => Err(Wrong::Text("policy-token: and nobody to ask")),
                None => Ok(None),
            };
        };
        let addr = addr.copy()?;
        #[cfg(feature = "tls")]
        let tls = self.policy_tls(tls_name.is_some())?;
        #[cfg(feature = "tls")]
        let addr = match (tls_name, &tls) {
            (Some(name), Some(tls)) => addr.tls(Arc::clone(tls), name),
            _ => addr,
        };
        #[cfg(not(feature = "tls"))]
        let _ = tls_name;
        let mut source = PolicySource::new(addr, Question::default())?;
        #[cfg(feature = "tls")]
        {
            source.tls = tls;
        }
        source.token = token.as_deref().map(space::string).transpose()?;
        source.wait = *wait;
        if *as_configured {
            source.unreachable = None;
        }
        Ok(Some(source))
    }

    /// For policy itself, and for recorders that it may name. Without authority or pin none of them could be believed.
    #[cfg(feature = "tls")]
    fn policy_tls(&self, needed: bool) -> Result<Option<Arc<Tls>>, Wrong> {
        let has_anchor = !self.tls.roots_pem.is_empty() || !self.tls.pins.is_empty();
        if !needed && !has_anchor {
            return Ok(None);
        }
        Ok(Some(Arc::new(Tls::new(&self.tls).map_err(Wrong::Tls)?)))
    }

    /// Where policy is asked.
    #[cfg(feature = "std")]
    fn set_policy(&mut self, address: &str) -> Result<(), castkeep_status> {
        let (tls, plain) = scheme(address);
        let local = plain.starts_with("unix:");
        if tls == local {
            // Whom to record is not asked in clear text over a network.
            return Err(CASTKEEP_STATUS_BAD_PARAMETER);
        }
        if tls && !cfg!(feature = "tls") {
            return Err(CASTKEEP_STATUS_UNSUPPORTED);
        }
        let addr = RecorderAddr::parse(plain).map_err(given)?;
        let name = if tls {
            let (ip, _) = split_port(plain).ok_or(CASTKEEP_STATUS_BAD_PARAMETER)?;
            Some(space::string(bare(ip)).map_err(given)?)
        } else {
            None
        };
        self.policy.at = Some(Recorder { addr, tls_name: name, named: false });
        Ok(())
    }

    /// Names of recorders that nobody connects to.
    pub(crate) fn check_host(&self) -> Result<(), Wrong> {
        if self.recorders.iter().any(|recorder| recorder.named) && !self.host.connects() {
            return Err(Wrong::Text("recorders: a host name, and no function that connects to it"));
        }
        Ok(())
    }

    #[cfg(feature = "tls")]
    fn recorders(&self) -> Result<Vec<RecorderAddr>, Wrong> {
        let wanted = self.recorders.iter().any(|recorder| recorder.tls_name.is_some());
        let given = !self.tls.roots_pem.is_empty()
            || !self.tls.cert_pem.is_empty()
            || !self.tls.key_pem.is_empty()
            || !self.tls.pins.is_empty();
        if !wanted && given && !self.recorders.is_empty() && !self.asks() {
            // Somebody believes that the recordings are encrypted.
            return Err(Wrong::Text(
                "tls: no recorder is spoken to with TLS; write https:// before its address",
            ));
        }
        let tls = match wanted {
            true => Some(Arc::new(Tls::new(&self.tls).map_err(Wrong::Tls)?)),
            false => None,
        };
        let mut all = Vec::new();
        for recorder in &self.recorders {
            let addr = recorder.addr.copy()?;
            let addr = match (&recorder.tls_name, &tls) {
                (Some(name), Some(tls)) => addr.tls(Arc::clone(tls), name),
                _ => addr,
            };
            space::push(&mut all, addr)?;
        }
        Ok(all)
    }

    #[cfg(not(feature = "tls"))]
    fn recorders(&self) -> Result<Vec<RecorderAddr>, Wrong> {
        let mut all = Vec::new();
        for recorder in &self.recorders {
            space::push(&mut all, recorder.addr.copy()?)?;
        }
        Ok(all)
    }

    /// An address as text: `192.0.2.7:80`, `[2001:db8::7]:80`, `unix:/run/recorder`; with `https://` before the first two, TLS.
    /// `name` is the one that the certificate must be for, when it is not the address.
    pub(crate) fn add_recorder(
        &mut self,
        address: &str,
        name: Option<&str>,
    ) -> Result<(), castkeep_status> {
        let (tls, plain) = scheme(address);
        if tls && plain.starts_with("unix:") || name.is_some() && !tls {
            return Err(CASTKEEP_STATUS_BAD_PARAMETER);
        }
        let addr = RecorderAddr::parse(plain).map_err(given)?;
        let Some((ip, port)) = split_port(plain) else {
            return Err(CASTKEEP_STATUS_BAD_PARAMETER);
        };
        let Some(name) = name else {
            return self.push(addr, tls.then(|| bare(ip)), false);
        };
        let authority = joined(&[name, ":", port]).map_err(given)?;
        self.push(addr.called(authority), Some(name), false)
    }

    /// `rec.example:80`, or with `https://` before it: for hosts that connect by themselves.
    pub(crate) fn add_host(&mut self, host: &str) -> Result<(), castkeep_status> {
        let (tls, plain) = scheme(host);
        let (name, port) = split_port(plain).ok_or(CASTKEEP_STATUS_BAD_PARAMETER)?;
        let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        let sane = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        if name.is_empty() || !digits || !name.bytes().all(sane) {
            return Err(CASTKEEP_STATUS_BAD_PARAMETER);
        }
        let addr = RecorderAddr::named(plain).map_err(given)?;
        self.push(addr, tls.then_some(name), true)
    }

    fn push(
        &mut self,
        addr: RecorderAddr,
        tls_name: Option<&str>,
        named: bool,
    ) -> Result<(), castkeep_status> {
        if self.recorders.len() >= limits::RECORDERS_MAX {
            return Err(CASTKEEP_STATUS_TOO_BIG);
        }
        if tls_name.is_some() && !cfg!(feature = "tls") {
            return Err(CASTKEEP_STATUS_UNSUPPORTED);
        }
        let tls_name = tls_name.map(space::string).transpose().map_err(given)?;
        space::push(&mut self.recorders, Recorder { addr, tls_name, named }).map_err(given)
    }

    #[cfg(feature = "tls")]
    pub(crate) fn set_bytes(&mut self, option: i32, bytes: &[u8]) -> Result<(), castkeep_status> {
        if bytes.len() > PEM_BYTES {
            return Err(CASTKEEP_STATUS_TOO_BIG);
        }
        let place = match option {
            CASTKEEP_OPTION_TLS_AUTHORITIES => &mut self.tls.roots_pem,
            CASTKEEP_OPTION_TLS_CERTIFICATE => &mut self.tls.cert_pem,
            CASTKEEP_OPTION_TLS_KEY => &mut self.tls.key_pem,
            _ => return Err(CASTKEEP_STATUS_BAD_PARAMETER),
        };
        place.clear();
        space::extend(place, bytes).map_err(given)
    }

    #[cfg(not(feature = "tls"))]
    #[allow(clippy::needless_pass_by_ref_mut, clippy::unused_self)]
    pub(crate) fn set_bytes(&mut self, option: i32, _: &[u8]) -> Result<(), castkeep_status> {
        Err(match option {
            CASTKEEP_OPTION_TLS_AUTHORITIES
            | CASTKEEP_OPTION_TLS_CERTIFICATE
            | CASTKEEP_OPTION_TLS_KEY => CASTKEEP_STATUS_UNSUPPORTED,
            _ => CASTKEEP_STATUS_BAD_PARAMETER,
        })
    }

    #[cfg(feature = "tls")]
    fn set_tls(
        &mut self,
        pin: Option<&str>,
        ignores_time: Option<bool>,
    ) -> Result<(), castkeep_status> {
        if let Some(pin) = pin {
            if self.tls.pins.len() >= PINS {
                return Err(CASTKEEP_STATUS_TOO_BIG);
            }
            let pin = TlsConfig::parse_pin(pin).ok_or(CASTKEEP_STATUS_BAD_PARAMETER)?;
            space::push(&mut self.tls.pins, pin).map_err(given)?;
        }
        if let Some(ignores_time) = ignores_time {
            self.tls.pin_waives_validity = ignores_time;
        }
        Ok(())
    }

    #[cfg(not(feature = "tls"))]
    #[allow(clippy::needless_pass_by_ref_mut, clippy::unused_self)]
    fn set_tls(&mut self, _: Option<&str>, _: Option<bool>) -> Result<(), castkeep_status> {
        Err(CASTKEEP_STATUS_UNSUPPORTED)
    }

    pub(crate) fn set_text(&mut self, option: i32, text: String) -> Result<(), castkeep_status> {
        if text.len() > limits::MESSAGE_BYTES {
            return Err(CASTKEEP_STATUS_TOO_BIG);
        }
        match option {
            CASTKEEP_OPTION_REJECT_MESSAGE => self.reject = Some(text),
            CASTKEEP_OPTION_TERMINATE_MESSAGE => self.terminate = Some(text),
            CASTKEEP_OPTION_TLS_PIN => self.set_tls(Some(&text), None)?,
            #[cfg(feature = "std")]
            CASTKEEP_OPTION_POLICY => self.set_policy(&text)?,
            #[cfg(feature = "std")]
            CASTKEEP_OPTION_POLICY_TOKEN => {
                if !text.bytes().all(|b| b.is_ascii_graphic()) || text.is_empty() {
                    return Err(CASTKEEP_STATUS_BAD_PARAMETER);
                }
                self.policy.token = Some(text);
            }
            #[cfg(not(feature = "std"))]
            CASTKEEP_OPTION_POLICY | CASTKEEP_OPTION_POLICY_TOKEN => {
                return Err(CASTKEEP_STATUS_UNSUPPORTED);
            }
            _ => return Err(CASTKEEP_STATUS_BAD_PARAMETER),
        }
        Ok(())
    }

    pub(crate) fn set_number(&mut self, option: i32, value: u64) -> Result<(), castkeep_status> {
        let size = usize::try_from(value).map_err(|_| CASTKEEP_STATUS_BAD_PARAMETER)?;
        let flag = || match value {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(CASTKEEP_STATUS_BAD_PARAMETER),
        };
        // A day is more than anybody means; larger numbers are mistakes of unit.
        let time = || {
            let wait = Duration::from_millis(value);
            if wait > Duration::from_secs(86_400) {
                Err(CASTKEEP_STATUS_BAD_PARAMETER)
            } else {
                Ok(wait)
            }
        };
        match option {
            CASTKEEP_OPTION_RING_BYTES
                if (limits::RING_MIN_BYTES..=limits::RING_MAX_BYTES).contains(&size) =>
            {
                self.ring_bytes = size;
            }
            CASTKEEP_OPTION_MAX_SESSIONS if (1..=usize::from(u16::MAX)).contains(&size) => {
                self.max_sessions = size;
            }
            CASTKEEP_OPTION_RELEASE_COMMIT => {
                self.release = if flag()? { Release::Commit } else { Release::Ring };
            }
            CASTKEEP_OPTION_HOST_RELEASES => self.host_releases = flag()?,
            CASTKEEP_OPTION_RECORD_INPUT => self.record_input = flag()?,
            CASTKEEP_OPTION_GRACE_MS => self.grace = Some(time()?),
            CASTKEEP_OPTION_STALL_LIMIT_MS => self.stall_limit = Some(time()?),
            CASTKEEP_OPTION_START_LIMIT_MS => self.start_limit = Some(time()?),
            CASTKEEP_OPTION_CLOSE_WAIT_MS => self.close_wait = time()?,
            CASTKEEP_OPTION_MAX_BYTES => self.max_bytes = size,
            CASTKEEP_OPTION_TRANSFER_BYTES => self.transfers.cap_bytes = value,
            CASTKEEP_OPTION_REFUSE_SFTP => self.transfers.refuse_sftp = flag()?,
            #[cfg(feature = "std")]
            CASTKEEP_OPTION_POLICY_WAIT_MS => self.policy.wait = Some(time()?),
            #[cfg(feature = "std")]
            CASTKEEP_OPTION_POLICY_AS_CONFIGURED => self.policy.as_configured = flag()?,
            #[cfg(not(feature = "std"))]
            CASTKEEP_OPTION_POLICY_WAIT_MS | CASTKEEP_OPTION_POLICY_AS_CONFIGURED => {
                return Err(CASTKEEP_STATUS_UNSUPPORTED);
            }
            CASTKEEP_OPTION_TLS_PIN_IGNORES_TIME => {
                let ignores = flag()?;
                self.set_tls(None, Some(ignores))?;
            }
            _ => return Err(CASTKEEP_STATUS_BAD_PARAMETER),
        }
        Ok(())
    }
}

/// # Safety
/// `config` is NULL or one that was made and not freed, and no other thread uses it.
pub(crate) unsafe fn change(
    config: *mut castkeep_config,
    change: impl FnOnce(&mut castkeep_config) -> Result<(), castkeep_status>,
) -> i32 {
    // SAFETY: by the promise above.
    let Some(config) = (unsafe { config.as_mut() }) else {
        return CASTKEEP_STATUS_BAD_PARAMETER as i32;
    };
    match fenced(|| change(config)) {
        Some(Ok(())) => CASTKEEP_STATUS_OK as i32,
        Some(Err(status)) => status as i32,
        None => CASTKEEP_STATUS_INTERNAL as i32,
    }
}

/// A new configuration: no recorders, so nothing is recorded; fail open; limits as each option says.
/// Returns  : the configuration, for castkeep_config_free; NULL without memory
/// Threads  : any.   Blocks: never.   Since: 0.1
#[unsafe(no_mangle)]
pub extern "C" fn castkeep_config_new() -> *mut castkeep_config {
    boxed(castkeep_config::default()).map_or(core::ptr::null_mut(), Box::into_raw)
}

/// A configuration out of a file: HuJSON (JSON with comments and trailing commas), its object "client", or the
/// whole when there is none. Names are those of `castkeep record`: recorders (a list of addresses), enforce, reject-message,
/// terminate-message, release ("ring" or "commit"), record-input, ring and max-bytes ("256KiB"), grace, stall-limit, start-limit,
/// close-wait ("15s", "500ms"), max-sessions; volume ("64KiB" or "all") and sftp ("pass" or "refuse") for file transfers; tls-ca, tls-cert, tls-key (files, read now), tls-pin (one or a list),
/// tls-pin-ignores-time; policy, policy-token-file (read now), policy-wait and policy-unreachable ("refuse" or "as-configured"). A recorder is an address as for castkeep_config_add_recorder, or {"address": ..., "name": ...}
/// as for castkeep_config_add_recorder_named, or {"host": ...} as for castkeep_config_add_recorder_host. A name that is not known is an error, so that no policy is lost to a typing mistake.
/// Read it once, where the daemon starts: a bad file should stop the daemon, not the first login.
/// path,len : the file
/// why,cap  : out, what is wrong, cut to fit and ended with NUL; may be NULL with 0
/// config   : out, the configuration, for castkeep_config_free; NULL unless OK
/// Returns  : OK; CONFIG (why says what, where); BAD_PARAMETER; TOO_BIG (the path); NO_MEMORY; UNSUPPORTED (the tiny build: why says
///            so); INTERNAL. Memory that is refused while the file is read ends the process.
/// Threads  : any.   Blocks: reads a file.   Since: 0.1
///
/// # Safety
/// The pointers are valid for their lengths.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn castkeep_config_load(
    path: *const c_char,
    len: usize,
    why: *mut c_char,
    cap: usize,
    config: *mut *mut castkeep_config,
) -> i32 {
    // Whoever shows `why` whatever the answer is shows nothing of another call.
    // SAFETY: the caller's promise.
    unsafe { copy_out("", why, cap) };
    if config.is_null() {
        return CASTKEEP_STATUS_BAD_PARAMETER as i32;
    }
    // SAFETY: not NULL, and the caller's.
    unsafe { config.write(core::ptr::null_mut()) };
    if path.is_null() {
        return CASTKEEP_STATUS_BAD_PARAMETER as i32;
    }
    // SAFETY: the caller's promise.
    let path = match unsafe { text(path, len) } {
        Ok(path) => path,
        Err(status) => return status as i32,
    };
    match fenced(|| load(&path)) {
        Some(Ok(loaded)) => {
            // SAFETY: as above.
            unsafe { config.write(Box::into_raw(loaded)) };
            CASTKEEP_STATUS_OK as i32
        }
        Some(Err((status, text))) => {
            // SAFETY: the caller's promise.
            unsafe { copy_out(&text, why, cap) };
            status as i32
        }
        None => CASTKEEP_STATUS_INTERNAL as i32,
    }
}

#[cfg(feature = "std")]
fn load(path: &str) -> Result<Box<castkeep_config>, (castkeep_status, String)> {
    let loaded = crate::file::load(path).map_err(|text| (CASTKEEP_STATUS_CONFIG, text))?;
    boxed(loaded).map_err(|_| (CASTKEEP_STATUS_NO_MEMORY, String::new()))
}

#[cfg(not(feature = "std"))]
fn load(_: &str) -> Result<Box<castkeep_config>, (castkeep_status, String)> {
    let why = space::string("this build reads no file: use the setters").unwrap_or_default();
    Err((CASTKEEP_STATUS_UNSUPPORTED, why))
}

/// Frees a configuration. Clients that were made of it have a copy.
/// config   : may be NULL
/// Threads  : any.   Blocks: never.   Since: 0.1
///
/// # Safety
/// `config` is NULL or one that was made and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn castkeep_config_free(config: *mut castkeep_config) {
    if !config.is_null() {
        // SAFETY: made by Box, and not freed yet.
        drop(unsafe { Box::from_raw(config) });
    }
}

/// Adds a recorder behind those that are there: they are tried in this order.
/// address,len : "192.0.2.7:80", "[2001:db8::7]:80" or "unix:/run/recorder"; "https://192.0.2.7:443" speaks TLS, and the
///            certificate must be for that address; no names, because resolving blocks
/// Returns  : OK; BAD_PARAMETER; TOO_BIG (more than 32); UNSUPPORTED (TLS); NO_MEMORY; INTERNAL
/// Threads  : one at a time.   Blocks: never.   Since: 0.1
///
/// # Safety
/// The pointers are valid for their lengths.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn castkeep_config_add_recorder(
    config: *mut castkeep_config,
    address: *const c_char,
    len: usize,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { change(config, |config| config.add_recorder(&text(address, len)?, None)) }
}

/// As castkeep_config_add_recorder, for a recorder that is spoken to with TLS and whose certificate is for a name.
/// address,len : "https://192.0.2.7:443" or "https://[2001:db8::7]:443"
/// name,name_len : the host name in the certificate, such as "recorder.example"
/// Returns  : OK; BAD_PARAMETER; TOO_BIG (more than 32 recorders); UNSUPPORTED; NO_MEMORY; INTERNAL
/// Threads  : one at a time.   Blocks: never.   Since: 0.1
///
/// # Safety
/// The pointers are valid for their lengths.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn castkeep_config_add_recorder_named(
    config: *mut castkeep_config,
    address: *const c_char,
    len: usize,
    name: *const c_char,
    name_len: usize,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        change(config, |config| {
            config.add_recorder(&text(address, len)?, Some(&text(name, name_len)?))
        })
    }
}

/// Adds a recorder by its name, for hosts that connect by themselves (castkeep_config_set_dial, castkeep_config_set_transport):
/// resolving is theirs.
/// host,len : "rec.example:80"; "https://rec.example:443" speaks TLS over what castkeep_config_set_dial brings, and the
///            certificate must be for the name
/// Returns  : OK; BAD_PARAMETER; TOO_BIG (more than 32 recorders); UNSUPPORTED; NO_MEMORY; INTERNAL
/// Threads  : one at a time.   Blocks: never.   Since: 0.1
///
/// # Safety
/// The pointers are valid for their lengths.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn castkeep_config_add_recorder_host(
    config: *mut castkeep_config,
    host: *const c_char,
    len: usize,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { change(config, |config| config.add_host(&text(host, len)?)) }
}

/// Sets an option that is bytes: certificates and keys. Nothing is read from files, so that a client may live in a chroot.
/// option   : CASTKEEP_OPTION_TLS_AUTHORITIES, _CERTIFICATE or _KEY
/// data,len : copied; at most 1 MiB. Looked at by castkeep_config_check and castkeep_client_new
/// Returns  : OK; BAD_PARAMETER; TOO_BIG; UNSUPPORTED; NO_MEMORY; INTERNAL
/// Threads  : one at a time.   Blocks: never.   Since: 0.1
///
/// # Safety
/// The pointers are valid for their lengths.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn castkeep_config_set_bytes(
    config: *mut castkeep_config,
    option: i32,
    data: *const u8,
    len: usize,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { change(config, |config| config.set_bytes(option, bytes(data, len)?)) }
}

/// Whether the whole of a configuration can be used: what its parts need of each other, certificates, keys.
/// castkeep_config_load does this by itself.
/// why,cap  : out, what is wrong, cut to fit and ended with NUL; may be NULL with 0
/// Returns  : OK; CONFIG (why says what); BAD_PARAMETER; NO_MEMORY; INTERNAL
/// Threads  : one at a time.   Blocks: never.   Since: 0.1
///
/// # Safety
/// The pointers are valid for their lengths.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn castkeep_config_check(
    config: *const castkeep_config,
    why: *mut c_char,
    cap: usize,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { copy_out("", why, cap) };
    // SAFETY: the caller's promise.
    let Some(config) = (unsafe { config.as_ref() }) else {
        return CASTKEEP_STATUS_BAD_PARAMETER as i32;
    };
    match fenced(|| config.decision().map(drop).and_then(|()| config.check_host())) {
        Some(Ok(())) => CASTKEEP_STATUS_OK as i32,
        Some(Err(wrong)) => {
            // SAFETY: the caller's promise.
            unsafe { copy_out(wrong.text(), why, cap) };
            wrong.status() as i32
        }
        None => CASTKEEP_STATUS_INTERNAL as i32,
    }
}

/// Sets an option that is text.
/// option   : CASTKEEP_OPTION_..._MESSAGE, _TLS_PIN, _POLICY or _POLICY_TOKEN
/// data,len : UTF-8, at most 4,096 bytes
/// Returns  : OK; BAD_PARAMETER; TOO_BIG; UNSUPPORTED (a pin, without TLS; policy, in the tiny build); NO_MEMORY; INTERNAL
/// Threads  : one at a time.   Blocks: never.   Since: 0.1
///
/// # Safety
/// The pointers are valid for their lengths.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn castkeep_config_set_text(
    config: *mut castkeep_config,
    option: i32,
    data: *const c_char,
    len: usize,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { change(config, |config| config.set_text(option, text(data, len)?)) }
}

/// Sets an option that is a number.
/// option   : CASTKEEP_OPTION_...
/// value    : in the unit that the option says
/// Returns  : OK; BAD_PARAMETER (not an option, or out of its range); UNSUPPORTED; INTERNAL
/// Threads  : one at a time.   Blocks: never.   Since: 0.1
///
/// # Safety
/// `config` is NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn castkeep_config_set_number(
    config: *mut castkeep_config,
    option: i32,
    value: u64,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { change(config, |config| config.set_number(option, value)) }
}
