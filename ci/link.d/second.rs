//! Some other Rust library in the same program, as rustc makes it: with its own copy of the standard library, every inner
//! name of it exported.

/// 1 when its own panic was caught.
#[unsafe(no_mangle)]
pub extern "C" fn second_panic() -> i32 {
    let fault = || assert!(std::hint::black_box(false), "a panic on purpose, in the other library");
    i32::from(std::panic::catch_unwind(fault).is_err())
}
