//! session.
#![allow(missing_docs)]
