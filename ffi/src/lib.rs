//! The C interface of castkeep.
