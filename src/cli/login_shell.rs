//! `castkeep login-shell`.

use super::{Args, Exit, Failure, Opt, Spec};

pub(crate) const SPEC: Spec = Spec {
    name: "login-shell",
    summary: "records as a login shell",
    operands: "",
    options: &[Opt::switch("quiet", "Says less.")],
    about: "",
    exits: "",
    examples: "",
    environment: false,
    stops_at_operand: false,
};

pub(crate) fn run(_args: &Args) -> Result<Exit, Failure> {
    Err(Failure::new("not yet"))
}

/// Called by sshd or login in the place of a shell: `argv0` begins with `-` or is `castkeep-login-shell`.
pub(crate) fn run_as_shell(
    _argv0: &std::ffi::OsString,
    _arguments: Vec<std::ffi::OsString>,
) -> Result<Exit, Failure> {
    Err(Failure::new("not yet"))
}
