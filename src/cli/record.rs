//! `castkeep record`.

use std::ffi::OsString;

use super::recording::{self, Settings};
use super::relay::{self, Job};
use super::{Args, Exit, Failure, Spec};

pub(crate) const SPEC: Spec = Spec {
    name: "record",
    summary: "records a shell or a command, with or without a terminal",
    operands: "[--] [COMMAND [ARGUMENT...]]",
    options: &[
        recording::RECORDERS,
        recording::POLICY,
        recording::POLICY_UNREACHABLE,
        recording::POLICY_TOKEN,
        recording::ENFORCE,
        recording::OPEN,
        recording::REJECT,
        recording::TERMINATE,
        recording::RELEASE,
        recording::STOCK,
        recording::RECORD_INPUT,
        recording::GRACE,
        recording::STALL,
        recording::START,
        recording::CLOSE_WAIT,
        recording::RING,
        recording::TLS_CA,
        recording::TLS_CERT,
        recording::TLS_KEY,
        recording::TLS_PIN,
        recording::TLS_PIN_IGNORES_TIME,
        recording::SRC_NODE,
        recording::SRC_NODE_ID,
        recording::SRC_NODE_USER,
        recording::SSH_USER,
        recording::CONNECTION_ID,
        recording::NODE,
        recording::QUIET,
        recording::VERBOSE,
    ],
    about: "Runs $SHELL, or the command, and uploads what it shows to a recorder while it runs. On a terminal the
program gets a terminal of its own; otherwise standard output and standard error are passed through and
recorded as two streams, and standard input is the caller's.

When a recorder is lost, the next one goes on behind the last byte that was stored. With --enforce the
command does not start without a recorder, and it is sent SIGHUP when none can be had later.",
    exits: "254  recording is required and not possible
126  the command cannot be run
127  there is no such command
any other status is that of the command; a command that a signal ended ends castkeep by the same signal",
    examples: "castkeep record --recorders 127.0.0.1:8080
castkeep record --recorders rec1:8080,rec2:8080 --enforce -- make deploy
castkeep record --recorders https://rec1 --release commit -- psql",
    environment: true,
    stops_at_operand: true,
};

pub(crate) fn run(args: &Args) -> Result<Exit, Failure> {
    let job = job(args.operands(), std::env::var_os("SHELL"));
    relay::run(Settings::from_args(args)?, job)
}

fn job(operands: &[OsString], shell: Option<OsString>) -> Job {
    let Some((program, arguments)) = operands.split_first() else {
        let shell = shell.filter(|s| !s.is_empty()).unwrap_or_else(|| "/bin/sh".into());
        return Job::new(shell, Vec::new(), None);
    };
    let words: Vec<_> = operands.iter().map(|word| word.to_string_lossy()).collect();
    Job::new(program.clone(), arguments.to_vec(), Some(words.join(" ")))
}
