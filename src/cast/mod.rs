//! cast.
#![allow(missing_docs)]
