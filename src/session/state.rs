//! The states of a session, and what is told about them.

use core::fmt;

use crate::cast::Stream;
use crate::error::{Error, Phase};

/// Where a session is.
///
/// ```text
/// Connecting ─► CheckPolicy ─► NoRecording ─► (revoked) SessionTerminated ────► SessionComplete
///                    ├► SessionRejected (by policy, whatever recorders say)
///                    └► FindRecorder ─► TryPrimary ─► Connected ─► Streaming ─► Draining ─► SessionComplete | Incomplete
///                                         └► TryFailover ─┘          ▲   │                       (sealed | close timeout)
///                                               │                    │   ▼
///                                               │                    │ ConnectionLost
///                                               ▼                    │   ▼
///                                        RecordingFailed             └ Resuming ─► (grace over)
///                                      ┌───────┴────────┐                 ┌──────────┴───────────┐
///                               SessionRejected   SessionAllowed   SessionTerminated   ContinueUnrecorded
///                               (fail closed)     (fail open)      (fail closed)       (fail open)
///                                                      └── backoff 1-30 s ──► Resuming ◄── backoff ──┘
/// ```
///
/// Resuming goes back to Streaming through Connected. What is still in the ring when a session is terminated is delivered
/// as well if a recorder comes back: SessionTerminated ─► Resuming, where nothing new is taken any more. The end of the
/// close timeout leads from every state to Incomplete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// The user's connection exists; nothing was decided.
    Connecting,
    /// The decision is looked at.
    CheckPolicy,
    /// Nothing is recorded, by decision.
    NoRecording,
    /// The list of recorders is made.
    FindRecorder,
    /// The first recorder is tried.
    TryPrimary,
    /// Others are tried as well.
    TryFailover,
    /// A recorder accepted the upload.
    Connected,
    /// Bytes flow.
    Streaming,
    /// The recorder is lost.
    ConnectionLost,
    /// Others are tried in the middle of the session.
    Resuming,
    /// No recorder could be had at the start.
    RecordingFailed,
    /// Fail closed at the start: the session does not take place. An end.
    SessionRejected,
    /// Fail open at the start: the session goes on, recorders are tried in the background.
    SessionAllowed,
    /// Fail closed in the middle: the session is ended.
    SessionTerminated,
    /// Fail open in the middle: the session goes on, recorders are tried in the background.
    ContinueUnrecorded,
    /// Everything was said; the recorder has yet to store it.
    Draining,
    /// Everything is stored, or there was nothing to store. An end.
    SessionComplete,
    /// Not everything is known to be stored. An end.
    Incomplete,
}

impl State {
    /// Whether nothing more happens.
    #[must_use]
    pub const fn is_end(self) -> bool {
        matches!(self, Self::SessionRejected | Self::SessionComplete | Self::Incomplete)
    }

    /// The name, as it stands in logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connecting => "Connecting",
            Self::CheckPolicy => "CheckPolicy",
            Self::NoRecording => "NoRecording",
            Self::FindRecorder => "FindRecorder",
            Self::TryPrimary => "TryPrimary",
            Self::TryFailover => "TryFailover",
            Self::Connected => "Connected",
            Self::Streaming => "Streaming",
            Self::ConnectionLost => "ConnectionLost",
            Self::Resuming => "Resuming",
            Self::RecordingFailed => "RecordingFailed",
            Self::SessionRejected => "SessionRejected",
            Self::SessionAllowed => "SessionAllowed",
            Self::SessionTerminated => "SessionTerminated",
            Self::ContinueUnrecorded => "ContinueUnrecorded",
            Self::Draining => "Draining",
            Self::SessionComplete => "SessionComplete",
            Self::Incomplete => "Incomplete",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a state was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The owner gave the session up.
    Abandoned,
    /// A recorder accepted.
    Accepted,
    /// The pause between attempts is over.
    Backoff,
    /// The order of things.
    Begin,
    /// The recorder asked to go elsewhere, and another one took over.
    Drain,
    /// The owner ended the session.
    Finish,
    /// The recorder was lost, or the last one that was tried failed.
    Lost(Error),
    /// No recorder was named.
    NoRecorders,
    /// The policy asks for it.
    Policy,
    /// Everything is stored.
    Sealed,
    /// A deadline of the whole passed: [`Phase::Start`], [`Phase::Resume`], [`Phase::Close`].
    TimedOut(Phase),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Abandoned => f.write_str("given up by its owner"),
            Self::Accepted => f.write_str("accepted"),
            Self::Backoff => f.write_str("trying again"),
            Self::Begin => f.write_str("begin"),
            Self::Drain => f.write_str("the recorder asked to go elsewhere"),
            Self::Finish => f.write_str("the session ended"),
            Self::Lost(e) => e.fmt(f),
            Self::NoRecorders => f.write_str("no recorders configured"),
            Self::Policy => f.write_str("by policy"),
            Self::Sealed => f.write_str("everything is stored"),
            Self::TimedOut(phase) => Error::TimedOut(*phase).fmt(f),
        }
    }
}

/// What the host and the observer have to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// An attempt to use a recorder ended. No error: it accepted.
    Attempt {
        /// Index into [`Config::recorders`](super::Config::recorders).
        recorder: usize,
        /// Why it failed.
        error: Option<Error>,
    },
    /// The session ended in order and everything is stored (or nothing was to be recorded). The last event.
    Finished,
    /// The session ended and so many encoded bytes are not known to be stored. The last event.
    Incomplete {
        /// Encoded bytes behind the last commit.
        bytes: u64,
    },
    /// The session must not start: show [`Machine::message`](super::Machine::message), exit with 254. The last event.
    Refused,
    /// More may be shown: see [`Machine::released`](super::Machine::released). Only with [`Release::Commit`](super::Release).
    Released,
    /// There is room again after there was none.
    Room,
    /// Policy could not be asked, or the connection to it ended; it is asked again.
    #[cfg(feature = "ask")]
    Policy {
        /// Why.
        error: Error,
    },
    /// The program may start.
    Start {
        /// Whether a recorder has it. False under a fail-open policy, or when nothing is recorded.
        recorded: bool,
    },
    /// The session must end: show [`Machine::message`](super::Machine::message), send HUP, then `exit` and `finish`.
    Terminated {
        /// Encoded bytes that were accepted and are not known to be stored.
        bytes: u64,
    },
    /// A state was left for another.
    Transition {
        /// The old state.
        from: State,
        /// The new one.
        to: State,
        /// Why.
        reason: Reason,
    },
}

/// The `recorder` of an [`Action::Connect`] to whoever is asked for policy.
#[cfg(feature = "ask")]
pub const POLICY: usize = usize::MAX;

/// Names a link: a small slot and a generation, so that what comes late for an old link is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId {
    pub(super) slot: u8,
    pub(super) generation: u32,
}

impl LinkId {
    /// Below [`LINK_SLOTS`](crate::limits::LINK_SLOTS): an index for the owner's table. Free again after `Close`.
    #[must_use]
    pub const fn slot(self) -> usize {
        self.slot as usize
    }
}

/// What happened to a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// It could not be made, or is lost. The link is gone: no `Close` follows.
    Down(Error),
    /// The peer closed its side; what it sent before was handed over.
    Eof,
    /// The connection is made, TLS included.
    Up,
}

/// What the owner of the sockets has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Close it and forget it. What was handed over before still goes out, unless `abort`: then reset it.
    Close {
        /// Which.
        link: LinkId,
        /// Reset, dropping what was not sent yet.
        abort: bool,
    },
    /// Connect, and report [`LinkEvent::Up`] or [`LinkEvent::Down`].
    Connect {
        /// Its name from now on.
        link: LinkId,
        /// Index into [`Config::recorders`](super::Config::recorders), or into those that policy named; `POLICY` for policy itself.
        recorder: usize,
        /// With TLS: offer `h2` and nothing else by ALPN; otherwise `http/1.1` and nothing else.
        http2: bool,
    },
}

/// Numbers of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// End of the stream: bytes encoded so far.
    pub encoded: u64,
    /// Bytes known to be stored (or received, where the recorder says no more).
    pub committed: u64,
    /// Raw bytes of standard output that were taken.
    pub stdout: u64,
    /// Raw bytes of standard error that were taken.
    pub stderr: u64,
    /// Raw bytes that were shown and not recorded.
    pub unrecorded: u64,
    /// Encoded bytes that a v1 recorder was given and that were not there any more to be sent again when it was lost: it may
    /// have them or not.
    pub doubtful: u64,
    /// Gap markers written.
    pub gaps: u32,
    /// Uploads begun.
    pub attempts: u64,
    /// Recorders lost in mid-session.
    pub losses: u32,
    /// The recorder in use; after the end the last one.
    pub recorder: Option<usize>,
    /// How it is spoken to.
    pub protocol: Option<crate::upload::client::Protocol>,
}

impl Stats {
    /// Raw bytes taken from a stream.
    #[must_use]
    pub const fn taken(&self, stream: Stream) -> u64 {
        match stream {
            Stream::Stdout => self.stdout,
            Stream::Stderr => self.stderr,
        }
    }
}
