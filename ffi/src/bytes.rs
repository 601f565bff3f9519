//! What crosses the boundary as pointer and length.
// Raw parts are what C has.
#![allow(unsafe_code)]

use alloc::string::String;
use core::ffi::c_char;

use core_lib::space;

use crate::status::castkeep_status::{self, CASTKEEP_STATUS_BAD_PARAMETER};

/// Longest text that is taken in: a command line.
pub(crate) const TEXT_BYTES: usize = 128 * 1024;

/// Bytes of the caller; none when the pointer is NULL with a length, or the length is beyond any object.
///
/// # Safety
/// `data` points at `len` bytes that live and do not change until `'a` is over, or is NULL.
pub(crate) unsafe fn bytes<'a>(data: *const u8, len: usize) -> Result<&'a [u8], castkeep_status> {
    if data.is_null() {
        return if len == 0 { Ok(&[]) } else { Err(CASTKEEP_STATUS_BAD_PARAMETER) };
    }
    if isize::try_from(len).is_err() {
        return Err(CASTKEEP_STATUS_BAD_PARAMETER);
    }
    // SAFETY: not NULL, within the address space, and alive by the caller's promise.
    Ok(unsafe { core::slice::from_raw_parts(data, len) })
}

/// Text of the caller; what is no UTF-8 is replaced, because a user name or a command may hold anything.
///
/// # Safety
/// As [`bytes`].
pub(crate) unsafe fn text(data: *const c_char, len: usize) -> Result<String, castkeep_status> {
    if len > TEXT_BYTES {
        return Err(castkeep_status::CASTKEEP_STATUS_TOO_BIG);
    }
    // SAFETY: the caller's promise is the same.
    let bytes = unsafe { bytes(data.cast::<u8>(), len) }?;
    space::lossy(bytes).map_err(|_| castkeep_status::CASTKEEP_STATUS_NO_MEMORY)
}

/// Copies text out, cut to fit and always ended with NUL; the length that all of it has, without the NUL.
///
/// # Safety
/// `buf` points at `cap` bytes that may be written, or is NULL.
pub(crate) unsafe fn copy_out(text: &str, buf: *mut c_char, cap: usize) -> usize {
    if !buf.is_null() && cap > 0 {
        let mut n = text.len().min(cap.saturating_sub(1));
        while !text.is_char_boundary(n) {
            n = n.saturating_sub(1);
        }
        // SAFETY: n is below cap, and the two cannot overlap: one is the caller's, the other ours.
        unsafe {
            core::ptr::copy_nonoverlapping(text.as_ptr(), buf.cast::<u8>(), n);
            buf.add(n).write(0);
        }
    }
    text.len()
}
