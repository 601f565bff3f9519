//! Frame headers (RFC 9113, 4.1) and the small frames that we write.

use super::Code;

pub(super) const HEAD: usize = 9;

pub(super) const DATA: u8 = 0x0;
pub(super) const HEADERS: u8 = 0x1;
pub(super) const PRIORITY: u8 = 0x2;
pub(super) const RST_STREAM: u8 = 0x3;
pub(super) const SETTINGS: u8 = 0x4;
pub(super) const PUSH_PROMISE: u8 = 0x5;
pub(super) const PING: u8 = 0x6;
pub(super) const GOAWAY: u8 = 0x7;
pub(super) const WINDOW_UPDATE: u8 = 0x8;
pub(super) const CONTINUATION: u8 = 0x9;

pub(super) const END_STREAM: u8 = 0x1;
pub(super) const ACK: u8 = 0x1;
pub(super) const END_HEADERS: u8 = 0x4;
pub(super) const PADDED: u8 = 0x8;
pub(super) const PRIORITIZED: u8 = 0x20;

pub(super) const SET_ENABLE_PUSH: u16 = 0x2;
pub(super) const SET_MAX_STREAMS: u16 = 0x3;
pub(super) const SET_INITIAL_WINDOW: u16 = 0x4;
pub(super) const SET_MAX_FRAME: u16 = 0x5;
pub(super) const SET_HEADER_LIST: u16 = 0x6;

/// The largest window, and the largest stream id.
pub(super) const MAX_31: u32 = 0x7fff_ffff;

/// The nine bytes in front of each frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) length: u32,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl Head {
    pub(super) const fn parse(bytes: [u8; HEAD]) -> Self {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = bytes;
        Self {
            length: u32::from_be_bytes([0, l0, l1, l2]),
            kind,
            flags,
            stream: u32::from_be_bytes([s0, s1, s2, s3]) & MAX_31,
        }
    }

    pub(super) const fn encode(self) -> [u8; HEAD] {
        let [_, l0, l1, l2] = self.length.to_be_bytes();
        let [s0, s1, s2, s3] = self.stream.to_be_bytes();
        [l0, l1, l2, self.kind, self.flags, s0, s1, s2, s3]
    }

    pub(super) const fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Appends a whole frame. Its payload is short by construction.
pub(super) fn push(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or(0);
    out.extend_from_slice(&Head { length, kind, flags, stream }.encode());
    out.extend_from_slice(payload);
}

pub(super) fn push_window_update(out: &mut Vec<u8>, stream: u32, increment: u32) {
    push(out, WINDOW_UPDATE, 0, stream, &increment.to_be_bytes());
}

pub(super) fn push_reset(out: &mut Vec<u8>, stream: u32, code: Code) {
    push(out, RST_STREAM, 0, stream, &code.to_wire().to_be_bytes());
}

pub(super) fn push_goaway(out: &mut Vec<u8>, last: u32, code: Code) {
    let mut payload = [0u8; 8];
    let (a, b) = payload.split_at_mut(4);
    a.copy_from_slice(&last.to_be_bytes());
    b.copy_from_slice(&code.to_wire().to_be_bytes());
    push(out, GOAWAY, 0, 0, &payload);
}

pub(super) fn push_settings(out: &mut Vec<u8>, settings: &[(u16, u32)]) {
    let mut payload = Vec::with_capacity(settings.len().saturating_mul(6));
    for (id, value) in settings {
        payload.extend_from_slice(&id.to_be_bytes());
        payload.extend_from_slice(&value.to_be_bytes());
    }
    push(out, SETTINGS, 0, 0, &payload);
}

/// A number at the start of a payload.
pub(super) fn read_u32(payload: &[u8]) -> Option<u32> {
    payload.first_chunk::<4>().map(|b| u32::from_be_bytes(*b))
}
