//! The recorder's side of a connection: docs/protocol.md §1 to §6, row by row, with a virtual clock.

mod peers;
mod random;
mod requests;
mod support;
mod upgrade;
mod v1;
mod v2;
