//! `castkeep record`.

use super::{Args, Exit, Failure, Opt, Spec};

pub(crate) const SPEC: Spec = Spec {
    name: "record",
    summary: "records a shell or a command",
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
