//! recorder.
#![allow(missing_docs)]
