//! utf8.
