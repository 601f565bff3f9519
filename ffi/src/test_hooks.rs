//! What ci/link calls to see a panic stopped at the boundary. In no header and in no build that is shipped.
#![allow(unsafe_code)]
#![allow(clippy::panic)]

use crate::fence::fenced;
use crate::status::castkeep_status;

/// Panics inside the library, in the way that every entry is guarded, and says what the guard answers.
/// Returns  : INTERNAL
#[unsafe(no_mangle)]
extern "C" fn castkeep_test_panic() -> i32 {
    // Through a value that the optimiser does not know, so that the unwinding is not folded away.
    let fault = || assert!(core::hint::black_box(false), "a panic on purpose");
    match fenced(fault) {
        Some(()) => castkeep_status::CASTKEEP_STATUS_OK as i32,
        None => castkeep_status::CASTKEEP_STATUS_INTERNAL as i32,
    }
}
