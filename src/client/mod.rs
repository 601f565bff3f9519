//! client.
#![allow(missing_docs)]
