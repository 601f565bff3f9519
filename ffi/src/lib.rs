//! The C interface of castkeep. The documentation for its users is include/castkeep.h, made from the comments here, so
//! these are written for readers of C.
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
#![cfg_attr(not(feature = "std"), no_std)]
// Names are those of C, and are reached by the linker, not by Rust paths.
#![allow(non_camel_case_types, unreachable_pub)]

extern crate alloc;

mod bytes;
mod client;
mod config;
mod fence;
#[cfg(feature = "std")]
mod file;
mod guard;
mod host;
mod session;
mod status;
#[cfg(feature = "test-hooks")]
mod test_hooks;
#[cfg(not(feature = "std"))]
mod tiny;
#[cfg(feature = "std")]
mod turns;
mod version;
#[cfg(feature = "std")]
mod worker;
