//! The castkeep program. Everything it does is in `castkeep::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(castkeep::cli::main(std::env::args_os().collect()).0)
}
