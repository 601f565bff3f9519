//! asciicast version 2: writing it on the hot path, and reading casts that anybody wrote.
//!
//! [`Header`] is the first line. [`Encoder`] turns bytes of a terminal into event lines, straight into the caller's memory.
//! [`Lines`], [`parse_event`] and [`Raw`] read them back; [`text`] prints what they say without harm to a terminal.
//!
//! An event is one line, `[time,"code","data"]`: seconds with six digits behind the point, a code of one letter, a string.
//!
//! | code | data |
//! |---|---|
//! | `o` | output, as UTF-8 |
//! | `i` | input, only when asked for |
//! | `b` | `<position>:<base64>`: the exact bytes of the event before it, see [`Raw`] |
//! | `r` | new size, `COLSxROWS` |
//! | `m` | marker; ours begin with `castkeep:`, see [`label`] |
//! | `x` | exit status, decimal; the last event |
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod base64;
mod decode;
mod encoder;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
#[allow(missing_docs)]
pub mod fuzzing;
mod header;
pub mod label;
mod raw;
mod scan;
pub mod text;
mod utf8;

pub use decode::{DecodeError, Event, Line, Lines, clamp_size, parse_event, parse_size};
pub use encoder::{CONTROL_EVENT_BYTES, Encoded, Encoder, ExitStatus, Stream, worst_case_bytes};
pub use header::{Castkeep, Continues, Header, Kubernetes};
pub use raw::{Raw, RawEvent};
/// Base64 of RFC 4648 §4, for what is no event.
#[cfg(feature = "cli")]
pub(crate) fn base64_text(bytes: &[u8]) -> String {
    let mut out = vec![0; bytes.len().div_ceil(3).saturating_mul(4)];
    let n = base64::encode(&[], bytes, &mut out).unwrap_or_default();
    out.truncate(n);
    String::from_utf8(out).unwrap_or_default()
}
