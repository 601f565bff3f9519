//! Which library this is and what it was built with.
// The exported names need the attribute, which counts as unsafe: two libraries could export one name.
#![allow(unsafe_code)]

use core::ffi::{CStr, c_char};

/// The version that this header describes, 0xMMmmpp: major, minor and patch in one byte each.
pub const CASTKEEP_VERSION_NUM: u32 = 0x00_01_00;

/// For castkeep_has: HTTP/2, which recorders of the stock protocol's version 2 need.
pub const CASTKEEP_CAP_HTTP2: i32 = 1;

/// For castkeep_has: TLS of the library's own.
pub const CASTKEEP_CAP_TLS: i32 = 2;

/// For castkeep_has: asking an agent who records, CASTKEEP_OPTION_POLICY.
pub const CASTKEEP_CAP_POLICY: i32 = 3;

const VERSION: &CStr = c"0.1.0";

/// The version of the library that is running, in the form of CASTKEEP_VERSION_NUM.
/// Returns  : the number; cannot fail
/// Threads  : any.   Blocks: never.   Since: 0.1
#[unsafe(no_mangle)]
pub extern "C" fn castkeep_version_num() -> u32 {
    CASTKEEP_VERSION_NUM
}

/// The version of the library that is running, as text such as "0.1.0".
/// Returns  : a static string; never NULL
/// Threads  : any.   Blocks: never.   Since: 0.1
#[unsafe(no_mangle)]
pub extern "C" fn castkeep_version() -> *const c_char {
    VERSION.as_ptr()
}

/// Whether this build of the library can do something.
/// cap      : one of CASTKEEP_CAP_...
/// Returns  : 1 yes; 0 no, or a number that this version does not know
/// Threads  : any.   Blocks: never.   Since: 0.1
#[unsafe(no_mangle)]
pub extern "C" fn castkeep_has(cap: i32) -> i32 {
    match cap {
        CASTKEEP_CAP_HTTP2 => i32::from(cfg!(feature = "http2")),
        CASTKEEP_CAP_TLS => i32::from(cfg!(feature = "tls")),
        CASTKEEP_CAP_POLICY => i32::from(cfg!(feature = "std")),
        _ => 0,
    }
}

// The text is a literal because C wants the NUL; it must not drift from the crate's.
const _: () = {
    let ours = VERSION.to_bytes();
    let crates = core_lib::VERSION.as_bytes();
    assert!(ours.len() == crates.len());
    let mut rest = (ours, crates);
    while let ([a, ours @ ..], [b, crates @ ..]) = rest {
        assert!(*a == *b, "VERSION differs from the version in Cargo.toml");
        rest = (ours, crates);
    }
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_and_text_are_the_same_version() {
        let parts: Vec<u32> =
            core_lib::VERSION.split('.').map(|part| part.parse().expect("a number")).collect();
        assert_eq!(castkeep_version_num(), parts[0] << 16 | parts[1] << 8 | parts[2]);
        // SAFETY: the function returns a static string that ends in NUL.
        let text = unsafe { CStr::from_ptr(castkeep_version()) };
        assert_eq!(text.to_str(), Ok(core_lib::VERSION));
    }

    #[test]
    fn capabilities_follow_the_build() {
        assert_eq!(castkeep_has(CASTKEEP_CAP_TLS), i32::from(cfg!(feature = "tls")));
        assert_eq!(castkeep_has(CASTKEEP_CAP_HTTP2), i32::from(cfg!(feature = "http2")));
        assert_eq!((castkeep_has(0), castkeep_has(-1), castkeep_has(i32::MAX)), (0, 0, 0));
    }
}
