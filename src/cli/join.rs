//! `castkeep join`.

use super::{Args, Exit, Failure, Opt, Spec};

pub(crate) const SPEC: Spec = Spec {
    name: "join",
    summary: "puts the parts of a recording together",
    operands: "",
    options: &[Opt::switch("quiet", "Says less.")],
    about: "",
    exits: "",
    examples: "",
    environment: true,
    stops_at_operand: false,
};

pub(crate) fn run(_args: &Args) -> Result<Exit, Failure> {
    Err(Failure::new("not yet"))
}
