//! Client and recorders against each other, on a virtual clock: scripts, and random lists of operations.
//!
//! `CASTKEEP_SIM_SEEDS=n` runs more random lists; a failure prints its seed, `CASTKEEP_SIM_SEED=s` runs one.
#![cfg(feature = "http2")]

mod agent;
mod middle;
mod policy;
mod random;
mod recorder;
mod sim;
mod start;
