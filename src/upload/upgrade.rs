//! The framing of `castkeep/1`: docs/protocol.md §4.

use crate::error::{Error, PeerFault};
use crate::http1::{Piece, Sent};
use crate::limits::UPGRADE_FRAME_BYTES;
use crate::space;

/// The frame that ends the upload in order.
pub const END_FRAME: [u8; 4] = [0; 4];

/// Bytes in front of the data of a frame.
pub const FRAME_HEAD_BYTES: usize = 4;

/// Writes one frame of as much of `data` as fits into `out`. Nothing is written when not even one byte fits.
#[must_use]
pub fn encode_frame(data: &[u8], out: &mut [u8]) -> Sent {
    let room = out.len().saturating_sub(FRAME_HEAD_BYTES).min(UPGRADE_FRAME_BYTES);
    let taken = data.len().min(room);
    let Ok(length) = u32::try_from(taken) else { return Sent::default() };
    let (Some(data), Some((head, rest))) =
        (data.get(..taken), out.split_first_chunk_mut::<FRAME_HEAD_BYTES>())
    else {
        return Sent::default();
    };
    let Some(body) = rest.get_mut(..taken).filter(|b| !b.is_empty()) else {
        return Sent::default();
    };
    *head = length.to_be_bytes();
    space::copy(body, data);
    Sent { taken, written: taken.saturating_add(FRAME_HEAD_BYTES) }
}

/// Finds the body in a sequence of frames.
#[derive(Clone, Copy, Debug)]
pub struct FrameDecoder {
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// `have` bytes of the length were read into `length`.
    Length { length: u32, have: u8 },
    /// So many bytes of this frame are missing.
    Data(u32),
    /// The empty frame came; nothing may follow.
    End,
    /// A frame was too long; it stays so.
    Failed,
}

const START: State = State::Length { length: 0, have: 0 };

impl Default for FrameDecoder {
    fn default() -> Self {
        Self { state: START }
    }
}

impl FrameDecoder {
    /// A decoder at the first byte behind the 101.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the empty frame came: the orderly end.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        matches!(self.state, State::End)
    }

    /// Reads on. Call again with the rest of the input while something is consumed.
    ///
    /// # Errors
    ///
    /// [`Error::TooBig`] for a frame past [`UPGRADE_FRAME_BYTES`], [`PeerFault::Http`] for bytes behind the end.
    pub fn decode<'a>(&mut self, input: &'a [u8]) -> Result<Piece<'a>, Error> {
        let mut at = 0usize;
        while let Some(rest) = input.get(at..).filter(|r| !r.is_empty()) {
            match self.state {
                State::Length { length, have } => {
                    let byte = rest.first().copied().unwrap_or(0);
                    at = at.saturating_add(1);
                    let length = (length << 8) | u32::from(byte);
                    let have = have.saturating_add(1);
                    self.state = match have {
                        0..4 => State::Length { length, have },
                        _ if length == 0 => State::End,
                        _ if usize::try_from(length).is_ok_and(|l| l <= UPGRADE_FRAME_BYTES) => {
                            State::Data(length)
                        }
                        _ => {
                            self.state = State::Failed;
                            return Err(Error::TooBig);
                        }
                    };
                }
                State::Data(left) => {
                    let n = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    let data = rest.get(..n).unwrap_or_default();
                    let left = left.saturating_sub(u32::try_from(n).unwrap_or(u32::MAX));
                    self.state = if left == 0 { START } else { State::Data(left) };
                    return Ok(Piece { consumed: at.saturating_add(n), data });
                }
                State::End => return Err(Error::Peer(PeerFault::Http)),
                State::Failed => return Err(Error::TooBig),
            }
        }
        Ok(Piece { consumed: at, data: &[] })
    }
}
