//! http2.
#![allow(missing_docs)]
