//! Header compression (RFC 7541): the crate's coders behind guards of ours.

use shiguredo_http2::validation;
use shiguredo_http2::{HeaderField, HpackDecoder, HpackEncoder};

use super::{Field, Fields};
use crate::limits::{H2_BLOCK_BYTES, HEAD_BYTES, HEAD_FIELDS};

/// What a header block was.
pub(super) enum Block {
    /// Good.
    Fields { fields: Fields, content_length: Option<u64> },
    /// Larger than a head may be; its fields are not here.
    TooLarge,
    /// Decodable, and against the rules of RFC 9113, 8: a stream error.
    Malformed,
    /// Not decodable: a connection error.
    Broken,
}

/// Which rules hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rules {
    Request,
    Response,
    Trailers,
}

#[derive(Debug)]
pub(super) struct Decoder(HpackDecoder);

impl Decoder {
    pub(super) fn new() -> Self {
        let mut decoder = HpackDecoder::new(TABLE_BYTES);
        decoder.set_max_header_list_size(Some(H2_BLOCK_BYTES));
        Self(decoder)
    }

    /// Decodes a block. It must be called for every block, also of streams that are gone: the table goes on.
    pub(super) fn decode(&mut self, block: &[u8], rules: Rules) -> Block {
        if !is_sound(block) {
            return Block::Broken;
        }
        let Ok(list) = self.0.decode(block) else { return Block::Broken };
        let size = list.iter().fold(0usize, |n, f| n.saturating_add(f.size()));
        if size > HEAD_BYTES || list.len() > HEAD_FIELDS {
            return Block::TooLarge;
        }
        let valid = match rules {
            Rules::Request => validation::validate_request_headers(&list),
            Rules::Response => validation::validate_response_headers(&list),
            Rules::Trailers => validation::validate_trailers(&list),
        };
        if valid.is_err() {
            return Block::Malformed;
        }
        let Ok(content_length) = content_length(&list) else { return Block::Malformed };
        let fields = list
            .iter()
            .map(|f| Field { name: f.name().to_vec(), value: f.value().to_vec() })
            .collect();
        Block::Fields { fields: Fields(fields), content_length }
    }
}

#[derive(Debug)]
pub(super) struct Encoder {
    encoder: HpackEncoder,
    started: bool,
}

impl Encoder {
    pub(super) fn new() -> Self {
        Self { encoder: HpackEncoder::new(0), started: false }
    }

    /// Encodes a head. Nothing is ever put into the table, so no secret stays in the peer's memory and none of ours goes
    /// into a table; the first block says so, which is right whatever table size the peer sets later.
    pub(super) fn encode(&mut self, fields: &[(&str, &str)]) -> Vec<u8> {
        let mut block = Vec::with_capacity(128);
        if !self.started {
            self.started = true;
            self.encoder.encode_size_update(&mut block, 0);
        }
        for (name, value) in fields {
            let (name, value) = (name.as_bytes(), value.as_bytes());
            if name.starts_with(b":") {
                self.encoder.encode_header(&mut block, name, value, false);
            } else {
                // Never indexed: no proxy on the way keeps the resume secret either.
                self.encoder.encode_header_sensitive(&mut block, name, value);
            }
        }
        block
    }
}

/// The size of the peer's table: what every peer has without asking.
const TABLE_BYTES: usize = 4096;

/// The one `content-length`, if any.
fn content_length(list: &[HeaderField]) -> Result<Option<u64>, ()> {
    let mut found = None;
    for field in list.iter().filter(|f| f.name() == b"content-length") {
        let n = crate::http1::parse_decimal(field.value()).ok_or(())?;
        if found.is_some_and(|f| f != n) {
            return Err(());
        }
        found = Some(n);
    }
    Ok(found)
}

/// Whether every integer of the block is small and every string lies within it. The crate's decoder adds lengths unchecked,
/// which overflows where `usize` has 32 bits.
fn is_sound(block: &[u8]) -> bool {
    let mut rest = block;
    while let Some(first) = rest.first().copied() {
        let (prefix, strings) = match first {
            0x80.. => (7, 0),
            0x40..0x80 => (6, 1),
            0x20..0x40 => (5, 0),
            _ => (4, 1),
        };
        let Some(index) = integer(&mut rest, prefix) else { return false };
        let strings = if strings == 1 && index == 0 { 2 } else { strings };
        for _ in 0..strings {
            let Some(length) = integer(&mut rest, 7) else { return false };
            let Some(behind) = rest.get(length..) else { return false };
            rest = behind;
        }
    }
    true
}

/// An integer of RFC 7541, 5.1, taken off the front. None when it is cut or larger than any honest one.
fn integer(rest: &mut &[u8], prefix: u32) -> Option<usize> {
    let (first, mut tail) = rest.split_first()?;
    let mask = (1u8 << prefix).wrapping_sub(1);
    let mut value = usize::from(first & mask);
    if first & mask == mask {
        for shift in [0u32, 7, 14, 21] {
            let (byte, behind) = tail.split_first()?;
            tail = behind;
            value = value.checked_add(usize::from(byte & 0x7f) << shift)?;
            if byte & 0x80 == 0 {
                *rest = tail;
                return Some(value);
            }
        }
        return None;
    }
    *rest = tail;
    Some(value)
}
