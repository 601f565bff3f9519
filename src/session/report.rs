//! Attempts, in the words of upstream: they go to the control server with the notification of a failure.

use core::fmt;

use crate::error::{Error, Link, PeerFault};
use crate::http1;

/// The message of a failed attempt, as upstream words it.
///
/// ```
/// # use castkeep::{error::{Error, PeerFault}, session::AttemptText};
/// let text = AttemptText { authority: "100.64.0.9:80", error: Error::Peer(PeerFault::Status(403)) };
/// assert_eq!(
///     text.to_string(),
///     "recording: error starting recording on \"100.64.0.9:80\": recording: unexpected status: 403 Forbidden"
/// );
/// ```
#[derive(Clone, Copy, Debug)]
pub struct AttemptText<'a> {
    /// `ip:port` of the recorder.
    pub authority: &'a str,
    /// Why it failed.
    pub error: Error,
}

impl fmt::Display for AttemptText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "recording: error starting recording on \"{}\": ", self.authority)?;
        match self.error {
            Error::Peer(PeerFault::Status(code)) => {
                let reason = http1::reason(code);
                write!(f, "recording: unexpected status: {code} {reason}")
            }
            Error::Peer(PeerFault::EndedEarly) => f.write_str("recording: unexpected EOF"),
            Error::Link(Link::Closed) => f.write_str("EOF"),
            e => e.fmt(f),
        }
    }
}

/// Why policy could not be asked. [`Error`] speaks of recorders.
#[cfg(feature = "ask")]
#[derive(Clone, Copy, Debug)]
pub struct PolicyText(pub Error);

#[cfg(feature = "ask")]
impl fmt::Display for PolicyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Error::Link(Link::Unreachable) => f.write_str("policy cannot be asked: nobody answers"),
            Error::Link(Link::Closed) => f.write_str("policy: the connection was closed"),
            Error::Peer(PeerFault::Status(code)) => {
                write!(f, "policy: unexpected status: {code} {}", http1::reason(code))
            }
            e => write!(f, "policy: {e}"),
        }
    }
}
