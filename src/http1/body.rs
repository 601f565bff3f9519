//! Bodies: by length, chunked, or until the connection closes.

use crate::error::{Error, PeerFault};
use crate::limits::CHUNK_LINE_BYTES;
use crate::space;

/// How the end of a body is told (RFC 9112, 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyKind {
    /// There is no body.
    None,
    /// Exactly so many bytes.
    Length(u64),
    /// Chunked transfer coding.
    Chunked,
    /// A response that ends with the connection.
    UntilClose,
}

/// A piece of a body that was found in the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Bytes of the input that are done with, framing included.
    pub consumed: usize,
    /// Body bytes, part of what was consumed. Empty when only framing was consumed.
    pub data: &'a [u8],
}

/// What an encoder did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Bytes of the data that were taken.
    pub taken: usize,
    /// Bytes that were written into the output.
    pub written: usize,
}

/// Finds the body in the bytes behind a head.
///
/// ```text
/// Size ─► Data ─► DataEnd ─► Size …            chunked
///   └─► Trailer ─► Done
/// Left(n) ─► Done                              by length
/// Open                                         until close
/// ```
#[derive(Clone, Copy, Debug)]
pub struct BodyDecoder {
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Within a chunk-size line; `digits` counts hexadecimal digits, `line` all its bytes.
    Size { size: u64, digits: u8, line: u16, part: SizePart },
    /// Within the bytes of a chunk.
    Data { left: u64 },
    /// At the CR LF behind a chunk; `cr` was seen.
    DataEnd { cr: bool },
    /// In the trailer section: `line` bytes of this line were seen, `total` of all.
    Trailer { line: u16, total: u16, cr: bool },
    /// By length.
    Left(u64),
    /// Until close.
    Open,
    /// Everything was seen.
    Done,
    /// It was broken; it stays broken.
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SizePart {
    Digits,
    Extension,
    Lf,
}

const NEW_CHUNK: State = State::Size { size: 0, digits: 0, line: 0, part: SizePart::Digits };

impl BodyDecoder {
    /// A decoder at the first byte behind the head.
    #[must_use]
    pub const fn new(kind: BodyKind) -> Self {
        let state = match kind {
            BodyKind::None | BodyKind::Length(0) => State::Done,
            BodyKind::Length(n) => State::Left(n),
            BodyKind::Chunked => NEW_CHUNK,
            BodyKind::UntilClose => State::Open,
        };
        Self { state }
    }

    /// Whether the body ended in order. A body until close is never done: the caller sees the close.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Whether the end of the connection is the orderly end of the body.
    #[must_use]
    pub const fn ends_at_close(&self) -> bool {
        matches!(self.state, State::Open | State::Done)
    }

    /// Reads on. Call again with the rest of the input while something is consumed and the body is not done.
    ///
    /// # Errors
    ///
    /// [`PeerFault::Http`] when the framing is broken.
    pub fn decode<'a>(&mut self, input: &'a [u8]) -> Result<Piece<'a>, Error> {
        let mut at = 0usize;
        while let Some(rest) = input.get(at..) {
            match self.state {
                State::Done => break,
                State::Failed => return Err(Error::Peer(PeerFault::Http)),
                State::Open => return Ok(Piece { consumed: input.len(), data: rest }),
                State::Left(left) => {
                    let (data, left) = take(rest, left);
                    self.state = if left == 0 { State::Done } else { State::Left(left) };
                    return Ok(Piece { consumed: at.saturating_add(data.len()), data });
                }
                State::Data { left } => {
                    let (data, left) = take(rest, left);
                    self.state =
                        if left == 0 { State::DataEnd { cr: false } } else { State::Data { left } };
                    if !data.is_empty() {
                        return Ok(Piece { consumed: at.saturating_add(data.len()), data });
                    }
                    if left != 0 {
                        break;
                    }
                }
                State::Size { .. } | State::DataEnd { .. } | State::Trailer { .. } => {
                    let Some(byte) = rest.first() else { break };
                    at = at.saturating_add(1);
                    self.state = step(self.state, *byte);
                    if self.state == State::Failed {
                        return Err(Error::Peer(PeerFault::Http));
                    }
                }
            }
        }
        Ok(Piece { consumed: at, data: &[] })
    }
}

/// Writes one chunk of as much of `data` as fits into `out`. Nothing is written when not even one byte fits.
#[must_use]
pub fn encode_chunk(data: &[u8], out: &mut [u8]) -> Sent {
    // The size is always four digits, so that its length does not depend on what fits.
    let room = out.len().saturating_sub(CHUNK_OVERHEAD).min(0xffff);
    let taken = data.len().min(room);
    if taken == 0 {
        return Sent::default();
    }
    let written = taken.saturating_add(CHUNK_OVERHEAD);
    let mut head = [0u8; 6];
    for (digit, shift) in head.iter_mut().zip([12u32, 8, 4, 0]) {
        let nibble = (taken >> shift) & 0xf;
        *digit = b"0123456789abcdef".get(nibble).copied().unwrap_or(b'0');
    }
    head[4] = b'\r';
    head[5] = b'\n';
    let (Some(data), Some(out)) = (data.get(..taken), out.get_mut(..written)) else {
        return Sent::default();
    };
    let Some((head_out, rest)) = out.split_at_mut_checked(head.len()) else {
        return Sent::default();
    };
    let Some((data_out, tail_out)) = rest.split_at_mut_checked(taken) else {
        return Sent::default();
    };
    space::copy(head_out, &head);
    space::copy(data_out, data);
    space::copy(tail_out, b"\r\n");
    Sent { taken, written }
}

/// The end of a chunked body, without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// What [`encode_chunk`] puts around the data.
const CHUNK_OVERHEAD: usize = 8;

/// Longest trailer section; trailers are read over.
const TRAILER_BYTES: u16 = 4096;

fn take(input: &[u8], left: u64) -> (&[u8], u64) {
    let n = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
    let data = input.get(..n).unwrap_or_default();
    (data, left.saturating_sub(data.len() as u64))
}

/// One byte of framing.
fn step(state: State, byte: u8) -> State {
    match state {
        State::Size { size, digits, line, part } => {
            let line = line.saturating_add(1);
            if usize::from(line) > CHUNK_LINE_BYTES {
                return State::Failed;
            }
            match (part, byte) {
                (SizePart::Digits, b'\r') | (SizePart::Extension, b'\r') if digits > 0 => {
                    State::Size { size, digits, line, part: SizePart::Lf }
                }
                (SizePart::Digits, b';' | b' ' | b'\t') if digits > 0 => {
                    State::Size { size, digits, line, part: SizePart::Extension }
                }
                (SizePart::Digits, _) => {
                    let Some(digit) = char::from(byte).to_digit(16) else { return State::Failed };
                    let Some(size) = size.checked_mul(16) else { return State::Failed };
                    let size = size.saturating_add(u64::from(digit));
                    State::Size { size, digits: digits.saturating_add(1), line, part }
                }
                (SizePart::Lf, b'\n') if size == 0 => {
                    State::Trailer { line: 0, total: 0, cr: false }
                }
                (SizePart::Lf, b'\n') => State::Data { left: size },
                (SizePart::Extension, 0x20..=0x7e | b'\t' | 0x80..) => {
                    State::Size { size, digits, line, part }
                }
                _ => State::Failed,
            }
        }
        State::DataEnd { cr: false } if byte == b'\r' => State::DataEnd { cr: true },
        State::DataEnd { cr: true } if byte == b'\n' => NEW_CHUNK,
        State::Trailer { line, total, cr } => {
            let total = total.saturating_add(1);
            match (cr, byte) {
                (true, b'\n') if line == 0 => State::Done,
                (true, b'\n') => State::Trailer { line: 0, total, cr: false },
                (false, b'\r') => State::Trailer { line, total, cr: true },
                (false, b'\n') | (true, _) => State::Failed,
                (false, _) if total > TRAILER_BYTES => State::Failed,
                (false, _) => State::Trailer { line: line.saturating_add(1), total, cr: false },
            }
        }
        _ => State::Failed,
    }
}
