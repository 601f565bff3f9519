//! upload.
#![allow(missing_docs)]
