//! Reading what recorders kept.
