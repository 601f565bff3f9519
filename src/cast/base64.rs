//! base64.
