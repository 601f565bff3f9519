//! The one error of the core: small, `Copy`, without text. Text is made at the edge, where the peer and the path are known.
#![forbid(unsafe_code)]

use core::fmt;

/// What went wrong, by family. Numbers for C are given in `ffi`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// An invariant of ours does not hold. Debug builds panic instead; please report it.
    Bug,
    /// The thing is closed or has ended; nothing more is taken.
    Closed,
    /// No room now: try again after the room event.
    Full,
    /// The connection was lost or could not be made.
    Link(Link),
    /// The caller did something that the documentation forbids.
    Misuse(Misuse),
    /// Memory could not be reserved.
    NoMemory,
    /// The other side broke the protocol.
    Peer(PeerFault),
    /// A deadline passed.
    TimedOut(Phase),
    /// Something is larger than its limit in `limits`.
    TooBig,
}

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Link {
    /// The peer closed it.
    Closed,
    /// The address refused or cannot be reached.
    Unreachable,
    /// The peer reset it, or TCP gave up.
    Reset,
    /// TLS failed: certificate, pin or handshake.
    Tls,
}

/// What the caller did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Misuse {
    /// A parameter is out of its documented range.
    BadParameter,
    /// The call does not belong into this state.
    WrongState,
    /// Not in this build.
    Unsupported,
}

/// How the peer broke the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerFault {
    /// An object of the ack stream is not what docs/protocol.md allows.
    BadAck,
    /// What policy answered is not a verdict.
    BadVerdict,
    /// A commit is below the start of the upload or above what was ever encoded.
    CommitOutOfRange,
    /// It holds other bytes than we sent: the recording is divergent there.
    Conflict,
    /// It ended the upload before we did.
    EndedEarly,
    /// It sent too many useless frames, or too much of something.
    Flood,
    /// HTTP that cannot be parsed, or breaks RFC 9112 or RFC 9113.
    Http,
    /// It has no commit, and the session wants every byte stored before it is shown.
    NoCommit,
    /// It answered with this HTTP status instead of accepting.
    Status(u16),
    /// It reported that storing failed.
    Reported,
    /// A newer connection took the recording over.
    Superseded,
}

/// Which deadline passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// Making the connection, TLS included.
    Dial,
    /// `HEAD /v2/record`.
    Probe,
    /// Waiting for response headers, 100-continue or 101.
    Accept,
    /// No ack object although data was outstanding.
    Ack,
    /// Bytes unsent or uncommitted without progress.
    Progress,
    /// All recorders together, in mid-session.
    Resume,
    /// All recorders together, at the start.
    Start,
    /// Waiting for the end of the recording to be sealed.
    Close,
    /// Waiting for the verdict of policy.
    Policy,
}

const _: () = assert!(size_of::<Error>() <= 8);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bug => f.write_str("internal error"),
            Self::Closed => f.write_str("closed"),
            Self::Full => f.write_str("no room in the ring"),
            Self::Link(Link::Closed) => f.write_str("the recorder closed the connection"),
            Self::Link(Link::Unreachable) => f.write_str("the recorder cannot be reached"),
            Self::Link(Link::Reset) => f.write_str("the connection was reset"),
            Self::Link(Link::Tls) => f.write_str("TLS failed"),
            Self::Misuse(Misuse::BadParameter) => f.write_str("bad parameter"),
            Self::Misuse(Misuse::WrongState) => f.write_str("not possible in this state"),
            Self::Misuse(Misuse::Unsupported) => f.write_str("not supported by this build"),
            Self::NoMemory => f.write_str("out of memory"),
            Self::Peer(PeerFault::BadAck) => {
                f.write_str("the recorder sent a broken acknowledgement")
            }
            Self::Peer(PeerFault::BadVerdict) => f.write_str("policy gave no proper answer"),
            Self::Peer(PeerFault::CommitOutOfRange) => {
                f.write_str("the recorder committed bytes that it cannot have")
            }
            Self::Peer(PeerFault::Conflict) => {
                f.write_str("the recorder holds other bytes of this recording")
            }
            Self::Peer(PeerFault::EndedEarly) => f.write_str("the recorder ended the upload early"),
            Self::Peer(PeerFault::Flood) => f.write_str("the peer sent too many useless frames"),
            Self::Peer(PeerFault::Http) => {
                f.write_str("the peer does not speak valid HTTP (it may want TLS)")
            }
            Self::Peer(PeerFault::NoCommit) => {
                f.write_str("the recorder does not tell what it has stored")
            }
            Self::Peer(PeerFault::Superseded) => {
                f.write_str("a newer connection took the recording over")
            }
            Self::Peer(PeerFault::Status(code)) => match status_text(*code) {
                Some(text) => write!(f, "the recorder {text} (status {code})"),
                None => write!(f, "unexpected status {code}"),
            },
            Self::Peer(PeerFault::Reported) => f.write_str("the recorder reported a failure"),
            Self::TimedOut(phase) => f.write_str(match phase {
                Phase::Dial => "no connection in time",
                Phase::Probe => "no answer to the probe in time",
                Phase::Accept => "the recorder did not accept in time",
                Phase::Ack => "no acknowledgement in time",
                Phase::Progress => "no progress in time",
                Phase::Resume => "no recorder in time after the loss of one",
                Phase::Start => "no recorder in time",
                Phase::Policy => "no answer of policy in time",
                Phase::Close => "the recording was not sealed in time",
            }),
            Self::TooBig => f.write_str("too big"),
        }
    }
}

impl core::error::Error for Error {}

/// What a recorder means by a status; docs/protocol.md lists when ours answers with them.
const fn status_text(code: u16) -> Option<&'static str> {
    Some(match code {
        403 => "does not let this peer record",
        404 => "does not know this request; is it a recorder?",
        409 => "holds this recording, and the resume does not fit it",
        429 => "has as many sessions as it takes",
        431 => "finds the request too large",
        503 => "takes no recordings now",
        507 => "has no space left",
        _ => return None,
    })
}

/// Says that a branch cannot be reached: panics in debug builds, is [`Error::Bug`] in release builds.
macro_rules! bug {
    ($why:literal) => {{
        debug_assert!(false, $why);
        $crate::error::Error::Bug
    }};
}
pub(crate) use bug;
