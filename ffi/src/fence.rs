//! Where a fault stops: at the boundary to C.

/// The call's answer; none when it ended in a panic.
#[cfg(feature = "std")]
pub(crate) fn fenced<T>(call: impl FnOnce() -> T) -> Option<T> {
    quiet();
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)).ok()
}

/// There is no panic in this build (`ci/clib` shows it).
#[cfg(not(feature = "std"))]
pub(crate) fn fenced<T>(call: impl FnOnce() -> T) -> Option<T> {
    Some(call())
}

/// A fault prints nothing on the host's standard error. The hook is this library's own copy.
#[cfg(feature = "std")]
fn quiet() {
    static QUIET: std::sync::Once = std::sync::Once::new();
    QUIET.call_once(|| std::panic::set_hook(Box::new(|_| {})));
}
