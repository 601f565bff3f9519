//! What calls return.
// For the exported name; see version.rs.
#![allow(unsafe_code)]

use core::ffi::{CStr, c_char};

/// What a call returns: 0, or a negative number. The families are ranges: -1 to -99 the caller's fault
/// or a matter of waiting, -100 to -199 the connection, -200 to -299 the recorder, -900 and below
/// fatal. Numbers are never given a second meaning.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum castkeep_status {
    /// Done.
    CASTKEEP_STATUS_OK = 0,
    /// A parameter is outside of what is documented.
    CASTKEEP_STATUS_BAD_PARAMETER = -1,
    /// The call does not belong into this state.
    CASTKEEP_STATUS_WRONG_STATE = -2,
    /// Not in this build; see castkeep_has.
    CASTKEEP_STATUS_UNSUPPORTED = -3,
    /// No room now.
    CASTKEEP_STATUS_WOULD_BLOCK = -4,
    /// Larger than its limit.
    CASTKEEP_STATUS_TOO_BIG = -5,
    /// Closed, or ended.
    CASTKEEP_STATUS_CLOSED = -6,
    /// Called in a child of the process that made the client. Nothing was touched or sent.
    CASTKEEP_STATUS_FORKED = -7,
    /// As many sessions, or as much memory, as the configuration allows.
    CASTKEEP_STATUS_LIMIT = -8,
    /// Called out of a callback of the same client.
    CASTKEEP_STATUS_REENTRANT = -9,
    /// The configuration file cannot be used; the text says why.
    CASTKEEP_STATUS_CONFIG = -10,
    /// Policy: the session must not take place; castkeep_session_message says why.
    CASTKEEP_STATUS_REFUSED = -11,
    /// The connection was lost or could not be made.
    CASTKEEP_STATUS_LINK = -100,
    /// A deadline passed.
    CASTKEEP_STATUS_TIMED_OUT = -101,
    /// The recorder broke the protocol, or refused.
    CASTKEEP_STATUS_RECORDER = -200,
    /// Memory could not be reserved.
    CASTKEEP_STATUS_NO_MEMORY = -900,
    /// A fault in castkeep itself; please report it.
    CASTKEEP_STATUS_INTERNAL = -901,
}

use castkeep_status::*;

const TEXTS: [(castkeep_status, &CStr); 17] = [
    (CASTKEEP_STATUS_OK, c"ok"),
    (CASTKEEP_STATUS_BAD_PARAMETER, c"bad parameter"),
    (CASTKEEP_STATUS_WRONG_STATE, c"not possible in this state"),
    (CASTKEEP_STATUS_UNSUPPORTED, c"not supported by this build"),
    (CASTKEEP_STATUS_WOULD_BLOCK, c"no room now"),
    (CASTKEEP_STATUS_TOO_BIG, c"too big"),
    (CASTKEEP_STATUS_CLOSED, c"closed"),
    (CASTKEEP_STATUS_FORKED, c"called in a forked child"),
    (CASTKEEP_STATUS_LIMIT, c"a limit of the configuration is reached"),
    (CASTKEEP_STATUS_REENTRANT, c"called out of a callback of the same client"),
    (CASTKEEP_STATUS_CONFIG, c"the configuration cannot be used"),
    (CASTKEEP_STATUS_REFUSED, c"refused by policy"),
    (CASTKEEP_STATUS_LINK, c"no connection to the recorder"),
    (CASTKEEP_STATUS_TIMED_OUT, c"no answer in time"),
    (CASTKEEP_STATUS_RECORDER, c"the recorder refused or broke the protocol"),
    (CASTKEEP_STATUS_NO_MEMORY, c"out of memory"),
    (CASTKEEP_STATUS_INTERNAL, c"internal error"),
];

/// The text of a status, in English, without a full stop.
/// status   : a castkeep_status, or any other number
/// Returns  : a static string; "unknown status" for a number that this version does not know; never NULL
/// Threads  : any.   Blocks: never.   Since: 0.1
#[unsafe(no_mangle)]
pub extern "C" fn castkeep_status_str(status: i32) -> *const c_char {
    // The number comes from C, where an enum holds anything: it is compared, never converted.
    let found = TEXTS.iter().find(|(known, _)| *known as i32 == status);
    found.map_or(c"unknown status", |(_, text)| text).as_ptr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_own_text() {
        // SAFETY: the function returns a static string that ends in NUL.
        let text = |status: i32| unsafe { CStr::from_ptr(castkeep_status_str(status)) };
        let mut seen = std::collections::BTreeSet::new();
        for (status, _) in TEXTS {
            assert_ne!(text(status as i32), c"unknown status");
            assert!(seen.insert(text(status as i32)), "{status:?} shares its text");
        }
        for other in [1, -12, -102, i32::MIN, i32::MAX] {
            assert_eq!(text(other), c"unknown status");
        }
    }
}
