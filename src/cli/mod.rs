//! The program: one file for each sub-command, and the frame around them.
//!
//! A command is a `Spec` (its name, its options, its help) and a `run` function. The frame reads the command line, the
//! environment and the configuration file into `Args`, in that order of precedence, and knows `--help` and `--version`.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod agent;
mod args;
mod asked;
mod cat;
mod config;
mod control;
mod copy;
mod daemon;
mod demo;
mod exit;
mod help;
mod join;
mod locate;
mod logger;
mod login_shell;
mod ls;
mod nesting;
mod page;
mod play;
mod player;
mod policy;
mod progress;
mod pty;
mod pty_sys;
mod record;
mod recording;
mod relay;
mod screen;
mod serve;
mod signals;
mod spec;
mod stream;
mod transcript;
mod trusted;
mod volume;

use std::ffi::OsString;

pub(crate) use args::Args;
pub use exit::Exit;
pub(crate) use exit::Failure;
pub(crate) use spec::{Opt, Spec};

/// One sub-command of the table.
struct Command {
    spec: &'static Spec,
    run: fn(&Args) -> Result<Exit, Failure>,
}

const COMMANDS: &[Command] = &[
    Command { spec: &serve::SPEC, run: serve::run },
    Command { spec: &record::SPEC, run: record::run },
    Command { spec: &login_shell::SPEC, run: login_shell::run },
    Command { spec: &play::SPEC, run: play::run },
    Command { spec: &ls::SPEC, run: ls::run },
    Command { spec: &cat::SPEC, run: cat::run },
    Command { spec: &join::SPEC, run: join::run },
    Command { spec: &policy::SPEC, run: policy::run },
    Command { spec: &demo::SPEC, run: demo::run },
    Command { spec: &control::SPEC, run: control::run },
    Command { spec: &agent::SPEC, run: agent::run },
];

/// Runs the program with the given arguments (the first is the program's name) and says how it ended. Errors are printed.
#[must_use]
pub fn main(argv: Vec<OsString>) -> Exit {
    std::panic::set_hook(Box::new(|info| {
        // One line and no backtrace by default: the terminal may be in raw mode.
        eprintln!("castkeep: internal error, please report it: {info}\r");
    }));
    let mut argv = argv.into_iter();
    let argv0 = argv.next().unwrap_or_default();
    let result = if is_login_shell(&argv0) {
        login_shell::run_as_shell(argv0, argv.collect())
    } else {
        dispatch(argv.collect())
    };
    match result {
        Ok(exit) => exit,
        Err(failure) => {
            failure.print();
            failure.exit()
        }
    }
}

/// sshd and login call a shell with `-` before its name; `castkeep-login-shell` is the name for /etc/passwd.
fn is_login_shell(argv0: &OsString) -> bool {
    let name = argv0.to_string_lossy();
    name.starts_with('-') || name.rsplit('/').next() == Some("castkeep-login-shell")
}

fn dispatch(argv: Vec<OsString>) -> Result<Exit, Failure> {
    let Some(first) = argv.first() else {
        print!("{}", help::overview(COMMANDS.iter().map(|c| c.spec)));
        return Ok(Exit::USAGE);
    };
    let first = first.to_string_lossy().into_owned();
    match first.as_str() {
        "-h" | "--help" | "help" => {
            let Some(topic) = argv.get(1) else {
                print!("{}", help::overview(COMMANDS.iter().map(|c| c.spec)));
                return Ok(Exit::OK);
            };
            let command = find(&topic.to_string_lossy())?;
            print!("{}", help::of(command.spec));
            Ok(Exit::OK)
        }
        "-V" | "--version" => {
            println!("castkeep {}", crate::VERSION);
            Ok(Exit::OK)
        }
        name => {
            let command = find(name)?;
            let mut parsed = Args::parse(command.spec, argv.into_iter().skip(1).collect());
            if command.spec.name == login_shell::SPEC.name {
                parsed = login_shell::refusing(parsed);
            }
            match parsed? {
                args::Parsed::Help => {
                    print!("{}", help::of(command.spec));
                    Ok(Exit::OK)
                }
                args::Parsed::Run(args) => (command.run)(&args),
            }
        }
    }
}

fn find(name: &str) -> Result<&'static Command, Failure> {
    COMMANDS.iter().find(|c| c.spec.name == name).ok_or_else(|| {
        let shown = crate::cast::text::escape_control(name);
        let kind = if name.starts_with('-') { "option" } else { "command" };
        let hint = crate::suggest::nearest(name, COMMANDS.iter().map(|c| c.spec.name))
            .map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
        Failure::usage(format!("there is no {kind} `{shown}`{hint} (`castkeep --help` lists them)"))
    })
}

/// The specs of all commands, for tests that hold the manual pages against them.
#[doc(hidden)]
#[must_use]
pub fn help_texts() -> Vec<(&'static str, String)> {
    COMMANDS.iter().map(|c| (c.spec.name, help::of(c.spec))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_shell_is_known_by_its_name() {
        for (name, wanted) in [
            ("-castkeep", true),
            ("-sh", true),
            ("/usr/bin/castkeep-login-shell", true),
            ("castkeep", false),
            ("/usr/bin/castkeep", false),
        ] {
            assert_eq!(is_login_shell(&name.into()), wanted, "{name}");
        }
    }

    #[test]
    fn options_are_named_once_and_described() {
        for command in COMMANDS {
            let mut names: Vec<&str> = command.spec.options.iter().map(|o| o.name).collect();
            assert!(command.spec.options.iter().all(|o| !o.help.is_empty()));
            names.sort_unstable();
            let count = names.len();
            names.dedup();
            assert_eq!(names.len(), count, "{}", command.spec.name);
        }
    }
}
