//! The castkeep program. Everything it does is in `castkeep::cli`.

fn main() {}
