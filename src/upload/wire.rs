//! The words of docs/protocol.md that both sides share: paths, header fields, ack objects.

use alloc::string::String;
use alloc::vec::Vec;

use super::json;
use crate::chunks;
use crate::error::{Error, PeerFault};
use crate::http1::parse_decimal;
use crate::limits::ACK_OBJECT_BYTES;
use crate::space;

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
///
/// It takes what Go's streaming decoder takes: any white space or none between objects, `null` for an object without keys,
/// keys in any case, the last of two equal keys.
#[derive(Debug, Default)]
pub struct AckParser {
    object: Vec<u8>,
    depth: u16,
    string: bool,
    escape: bool,
    failed: bool,
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
        if self.failed {
            return Err(BAD);
        }
        while let Some((byte, rest)) = input.split_first() {
            *input = rest;
            match self.step(*byte) {
                Ok(false) => {}
                Ok(true) => {
                    let object = json::parse(&self.object);
                    self.object.clear();
                    self.failed = object.is_none();
                    return object.map(Some).ok_or(BAD);
                }
                Err(error) => {
                    self.failed = true;
                    return Err(error);
                }
            }
        }
        Ok(None)
    }

    /// Whether nothing of an object was read: the stream may end here.
    #[must_use]
    pub fn is_between(&self) -> bool {
        self.object.is_empty() && !self.failed
    }

    /// One byte; true when it completes an object.
    fn step(&mut self, byte: u8) -> Result<bool, Error> {
        if self.object.is_empty() {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => return Ok(false),
                b'{' | b'n' => {}
                _ => return Err(BAD),
            }
        }
        if self.object.len() >= ACK_OBJECT_BYTES {
            return Err(BAD);
        }
        space::push(&mut self.object, byte)?;
        if self.object.first() == Some(&b'n') {
            let so_far = b"null".starts_with(&self.object);
            return if so_far { Ok(self.object.len() == 4) } else { Err(BAD) };
        }
        if self.string {
            match byte {
                _ if self.escape => self.escape = false,
                b'\\' => self.escape = true,
                b'"' => self.string = false,
                _ => {}
            }
            return Ok(false);
        }
        match byte {
            b'"' => self.string = true,
            b'{' | b'[' => self.depth = self.depth.saturating_add(1),
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => return Ok(false),
        }
        Ok(self.depth == 0 && !self.string)
    }
}

impl AckObject {
    /// Writes the object and its LF into `out`; its length, or None when it does not fit. A long error text is cut.
    #[must_use]
    pub fn encode(&self, out: &mut [u8]) -> Option<usize> {
        let mut w = json::Writer::new(out);
        w.number("ack", self.ack)?;
        w.number("commit", self.commit)?;
        w.number("sealed", self.sealed)?;
        if self.drain {
            w.key("drain")?;
            w.put(b"true")?;
        }
        if let Some(text) = &self.error {
            w.key("error")?;
            w.text(text, ERROR_TEXT_BYTES)?;
        }
        w.finish()
    }
}

/// 32 lower-case hexadecimal digits.
#[must_use]
pub fn format_id(id: &[u8; 16]) -> [u8; 32] {
    let mut text = [0u8; 32];
    for ([high, low], byte) in chunks::of_mut::<2>(&mut text).zip(id) {
        *high = hex_digit(byte >> 4);
        *low = hex_digit(byte & 0xf);
    }
    text
}

/// Reads 32 lower-case hexadecimal digits.
#[must_use]
pub fn parse_id(text: &str) -> Option<[u8; 16]> {
    if text.len() != 32 {
        return None;
    }
    let (pairs, _) = chunks::of::<2>(text.as_bytes());
    let mut id = [0u8; 16];
    for (byte, [high, low]) in id.iter_mut().zip(pairs) {
        *byte = (hex_value(*high)? << 4) | hex_value(*low)?;
    }
    Some(id)
}

impl ResumeHeaders {
    /// Collects the fields of a request: None without any of them.
    ///
    /// # Errors
    ///
    /// [`PeerFault::Http`] when one is malformed or needed and missing.
    pub fn parse<'a>(find: impl Fn(&str) -> Option<&'a str>) -> Result<Option<Self>, Error> {
        const BROKEN: Error = Error::Peer(PeerFault::Http);
        let number = |name: &str| match find(name) {
            Some(text) => parse_decimal(text.as_bytes()).map(Some).ok_or(BROKEN),
            None => Ok(None),
        };
        let recording = find(H_RECORDING);
        let secret = find(H_RESUME);
        let attempt = number(H_ATTEMPT)?;
        let offset = number(H_OFFSET)?;
        let window = number(H_WINDOW)?;
        if recording.is_none() && secret.is_none() {
            let none = attempt.is_none() && offset.is_none() && window.is_none();
            return if none { Ok(None) } else { Err(BROKEN) };
        }
        let recording = recording.and_then(parse_id).ok_or(BROKEN)?;
        let secret = secret.and_then(parse_id).ok_or(BROKEN)?;
        let attempt = attempt.filter(|a| *a >= 1).ok_or(BROKEN)?;
        Ok(Some(Self {
            recording,
            secret,
            attempt,
            offset: offset.unwrap_or(0),
            window: window.unwrap_or(0),
        }))
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
        let mut digits = [b'0'; 20];
        let mut start = 20u8;
        let mut left = n;
        for digit in digits.iter_mut().rev() {
            *digit = b'0'.saturating_add(u8::try_from(left % 10).unwrap_or(0));
            start = start.saturating_sub(1);
            left /= 10;
            if left == 0 {
                break;
            }
        }
        Self { digits, start }
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let digits = self.digits.get(usize::from(self.start)..).unwrap_or_default();
        core::str::from_utf8(digits).unwrap_or("0")
    }
}

const BAD: Error = Error::Peer(PeerFault::BadAck);

/// Longest error text that we send: its escaped form fits [`ACK_OBJECT_BYTES`] with room to spare.
const ERROR_TEXT_BYTES: usize = 1024;

pub(crate) fn hex_digit(nibble: u8) -> u8 {
    b"0123456789abcdef".get(usize::from(nibble)).copied().unwrap_or(b'0')
}

const fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit.wrapping_sub(b'0')),
        b'a'..=b'f' => Some(digit.wrapping_sub(b'a').wrapping_add(10)),
        _ => None,
    }
}
