//! What a session is opened with.

use alloc::string::String;
use alloc::vec::Vec;

use crate::cast;
use crate::limits;
use crate::time::Span;

/// Everything that a [`Machine`](super::Machine) needs to know at open. Plain data.
#[derive(Clone, Debug)]
pub struct Config {
    /// The header line. Its `castkeep` object names the recording; its size can still change before the start.
    pub header: cast::Header,
    /// Recording id, 128 random bits.
    pub recording: [u8; 16],
    /// Resume secret, 128 random bits.
    pub resume_secret: [u8; 16],
    /// Size of the ring, from [`limits::RING_MIN_BYTES`] to [`limits::RING_MAX_BYTES`].
    pub ring_bytes: usize,
    /// In the order in which they are tried. Empty: nothing is recorded.
    pub recorders: Vec<Recorder>,
    /// What happens when recording is impossible.
    pub on_failure: OnFailure,
    /// When output may be shown.
    pub release: Release,
    /// What may be spoken.
    pub protocols: Protocols,
    /// All waits.
    pub deadlines: Deadlines,
    /// Whether [`Machine::input`](super::Machine::input) records; otherwise it ignores what it is given.
    pub record_input: bool,
    /// With [`Release::Commit`]: use recorders without the extension as well, releasing at what they give.
    pub stock_with_release_commit: bool,
    /// How many bytes of each stream of output are recorded; what comes behind them is counted and hashed. None: all.
    pub volume_bytes: Option<u64>,
    /// Set: the session is refused with this text, whatever recorders say.
    pub refusal: Option<String>,
    /// Set: policy is asked for the recorders, and [`Config::recorders`] and [`Config::on_failure`] hold only where it cannot be.
    #[cfg(feature = "ask")]
    pub ask: Option<Ask>,
    /// Seed for the jitter of background attempts.
    pub jitter_seed: u64,
}

/// Whom policy is asked from, and for whom.
#[cfg(feature = "ask")]
#[derive(Clone, Debug)]
pub struct Ask {
    /// Who wants to log in.
    pub question: crate::ask::Question,
    /// For `Host`.
    pub authority: String,
    /// For `Authorization: Bearer`, where the answerer wants one.
    pub token: Option<String>,
    /// How long the first verdict is waited for; [`limits::POLICY_WAIT`] unless there is a reason.
    pub wait: Span,
    /// Set: without a verdict within that time the session is refused with this text. Absent: what is configured holds.
    pub unreachable: Option<String>,
}

/// One address of a recorder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorder {
    /// Addresses of one recorder have the same number: when one is lost, all of them come last.
    pub group: u16,
    /// `host:port`, for `Host` and `:authority`.
    pub authority: String,
    /// Whether the link is encrypted (`:scheme`).
    pub tls: bool,
}

/// The two policies. Absent means open: the session goes on without recording.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OnFailure {
    /// Shown when a session is refused because recording cannot start.
    pub reject_message: Option<String>,
    /// Shown when a session is ended because recording failed in its middle.
    pub terminate_message: Option<String>,
}

/// When output may be shown to the user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Release {
    /// Stored before it is shown: up to the commit.
    Commit,
    /// In the ring before it is shown.
    #[default]
    Ring,
}

/// Which protocols are spoken. v1 always is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocols {
    /// HTTP/2: v2, with the extension where the peer offers it. Needs the feature `http2`.
    pub http2: bool,
    /// The extension over HTTP/1.1, tried before v1 when HTTP/2 is not.
    pub upgrade: bool,
}

/// Every wait of a session; the defaults are those of [`limits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// See [`limits::DIAL`].
    pub dial: Span,
    /// See [`limits::PROBE`].
    pub probe: Span,
    /// See [`limits::ACCEPT`].
    pub accept: Span,
    /// See [`limits::START`].
    pub start: Span,
    /// See [`limits::STAGGER`].
    pub stagger: Span,
    /// See [`limits::ACK_SILENCE_COMMIT`].
    pub ack_silence_commit: Span,
    /// See [`limits::ACK_SILENCE_STOCK`].
    pub ack_silence_stock: Span,
    /// See [`limits::PROGRESS`].
    pub progress: Span,
    /// See [`limits::RESUME_GRACE`]. 0: a lost recorder is the end of recording at once, as upstream has it.
    pub resume_grace: Span,
    /// See [`limits::STALL_LIMIT`].
    pub stall_limit: Span,
    /// See [`limits::CLOSE_WAIT`].
    pub close_wait: Span,
    /// See [`limits::BACKOFF_MIN`].
    pub backoff_min: Span,
    /// See [`limits::BACKOFF_MAX`].
    pub backoff_max: Span,
}

impl Default for Protocols {
    fn default() -> Self {
        Self { http2: cfg!(feature = "http2"), upgrade: true }
    }
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            dial: limits::DIAL,
            probe: limits::PROBE,
            accept: limits::ACCEPT,
            start: limits::START,
            stagger: limits::STAGGER,
            ack_silence_commit: limits::ACK_SILENCE_COMMIT,
            ack_silence_stock: limits::ACK_SILENCE_STOCK,
            progress: limits::PROGRESS,
            resume_grace: limits::RESUME_GRACE,
            stall_limit: limits::STALL_LIMIT,
            close_wait: limits::CLOSE_WAIT,
            backoff_min: limits::BACKOFF_MIN,
            backoff_max: limits::BACKOFF_MAX,
        }
    }
}
