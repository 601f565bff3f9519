//! The words of docs/protocol.md that both sides share: paths, header fields, ack objects.

use alloc::string::String;
use alloc::vec::Vec;

use crate::error::{Error, PeerFault};
use crate::limits::ACK_OBJECT_BYTES;

/// v1 upload.
pub const PATH_V1: &str = "/record";
/// v2 probe and upload.
pub const PATH_V2: &str = "/v2/record";
/// Events.
pub const PATH_EVENT: &str = "/v2/event";
/// The extension over HTTP/1.1.
pub const PATH_UPGRADE: &str = "/castkeep/1/record";
/// The word of `Upgrade:`.
pub const UPGRADE: &str = "castkeep/1";

/// Answer field: what the recorder offers. See [`Features`].
pub const H_FEATURES: &str = "castkeep-features";
/// Answer field: longest pause between two ack objects, in milliseconds.
pub const H_ACK_MS: &str = "castkeep-ack-ms";
/// Answer field: the offset up to which the recorder holds the stream.
pub const H_COMMIT: &str = "castkeep-commit";
/// Request field: recording id.
pub const H_RECORDING: &str = "castkeep-recording";
/// Request field: resume secret.
pub const H_RESUME: &str = "castkeep-resume";
/// Request field: number of the attempt.
pub const H_ATTEMPT: &str = "castkeep-attempt";
/// Request field: offset of the first byte behind the header line.
pub const H_OFFSET: &str = "castkeep-offset";
/// Request field: bytes that the client can hold.
pub const H_WINDOW: &str = "castkeep-window";

/// The value of `castkeep-features` that we send.
pub const FEATURES: &str = "commit, resume";

/// What a recorder offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Ack objects carry commits.
    pub commit: bool,
    /// An upload can be resumed.
    pub resume: bool,
}

impl Features {
    /// Reads the list of `castkeep-features`; unknown words are ignored.
    #[must_use]
    pub fn parse(value: &str) -> Self {
        let mut features = Self::default();
        for word in value.split(',') {
            match word.trim_ascii() {
                "commit" => features.commit = true,
                "resume" => features.resume = true,
                _ => {}
            }
        }
        features
    }

    /// Whether the extension can be used: it needs both.
    #[must_use]
    pub const fn usable(self) -> bool {
        self.commit && self.resume
    }
}

/// The fields that a castkeep client sends with its POST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResumeHeaders {
    /// Recording id.
    pub recording: [u8; 16],
    /// Resume secret.
    pub secret: [u8; 16],
    /// 1 for the first POST of the recording.
    pub attempt: u64,
    /// Offset of the first byte behind the header line; 0 when the body is the stream from its beginning.
    pub offset: u64,
    /// Bytes that the client can hold; 0 when it did not say.
    pub window: u64,
}

/// One object of the ack stream. Absent keys are None.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AckObject {
    /// Body bytes received. Absent means 0, but a commit, drain, sealed or error object may go without.
    pub ack: Option<u64>,
    /// Every stream byte below it is durable.
    pub commit: Option<u64>,
    /// The part is closed; the end of the stream.
    pub sealed: Option<u64>,
    /// Storing failed; the last object.
    pub error: Option<String>,
    /// The recorder wants to stop.
    pub drain: bool,
}

/// Splits and reads an ack stream. Its memory is bounded by [`ACK_OBJECT_BYTES`].
#[derive(Debug, Default)]
pub struct AckParser {
    object: Vec<u8>,
}

impl AckParser {
    /// A parser at the start of a response body.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads on until one object is complete and takes what it read off the front of `input`.
    ///
    /// # Errors
    ///
    /// [`PeerFault::BadAck`] for what Go's decoder would not take either, and for objects past [`ACK_OBJECT_BYTES`].
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<AckObject>, Error> {
        let _ = (input, ACK_OBJECT_BYTES, &self.object, PeerFault::BadAck);
        todo!()
    }

    /// Whether nothing of an object was read: the stream may end here.
    #[must_use]
    pub fn is_between(&self) -> bool {
        todo!()
    }
}

impl AckObject {
    /// Writes the object and its LF into `out`; its length, or None when it does not fit.
    #[must_use]
    pub fn encode(&self, out: &mut [u8]) -> Option<usize> {
        let _ = out;
        todo!()
    }
}

/// 32 lower-case hexadecimal digits.
#[must_use]
pub fn format_id(id: &[u8; 16]) -> [u8; 32] {
    let _ = id;
    todo!()
}

/// Reads 32 lower-case hexadecimal digits.
#[must_use]
pub fn parse_id(text: &str) -> Option<[u8; 16]> {
    let _ = text;
    todo!()
}

impl ResumeHeaders {
    /// Collects the fields of a request: None without any of them.
    ///
    /// # Errors
    ///
    /// [`PeerFault::Http`] when one is malformed or needed and missing.
    pub fn parse<'a>(find: impl Fn(&str) -> Option<&'a str>) -> Result<Option<Self>, Error> {
        let _ = find(H_RECORDING);
        todo!()
    }
}

/// A decimal number as text, without allocation.
#[derive(Clone, Copy, Debug)]
pub struct Decimal {
    digits: [u8; 20],
    start: u8,
}

impl Decimal {
    /// The text of `n`.
    #[must_use]
    pub fn new(n: u64) -> Self {
        let _ = n;
        todo!()
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let _ = (self.digits, self.start);
        todo!()
    }
}
