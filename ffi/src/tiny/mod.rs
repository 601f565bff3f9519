//! What the library without `std` has in place of the other's: `--no-default-features --features tiny` with the profile `tiny`.
pub(crate) mod guard;
mod runtime;
