//! cli.
#![allow(missing_docs)]
