//! http1.
#![allow(missing_docs)]
