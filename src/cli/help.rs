//! Help texts, made from the same tables as the parser.

use std::fmt::Write as _;

use super::spec::{Opt, Spec};

const WIDTH: usize = 96;
const INDENT: usize = 6;

/// `castkeep --help`.
pub(crate) fn overview<'a>(specs: impl Iterator<Item = &'a Spec>) -> String {
    let mut out = String::from(
        "castkeep: session recording for SSH, on recorders that you control\n\n\
         usage: castkeep COMMAND [OPTIONS] [...]\n\ncommands:\n",
    );
    for spec in specs {
        let _ = writeln!(out, "  {:<12}  {}", spec.name, spec.summary);
    }
    out.push_str(
        "\n`castkeep COMMAND --help` explains a command. `castkeep --version` prints the version.\n\
         Every option can also be set in a configuration file (see `--config` of a command) and, but for\n\
         login-shell, by an environment variable.\n\n\
         exit status: 0 it worked; 1 it failed; 2 wrong usage; 254 recording was required and not possible;\n\
         record and login-shell pass on the status of the command that they ran\n",
    );
    out
}

/// `castkeep COMMAND --help`.
pub(crate) fn of(spec: &Spec) -> String {
    let mut out = format!("castkeep {}: {}\n\n", spec.name, spec.summary);
    let _ = write!(out, "usage: castkeep {} [OPTIONS]", spec.name);
    if !spec.operands.is_empty() {
        let _ = write!(out, " {}", spec.operands);
    }
    out.push_str("\n\n");
    for paragraph in spec.about.trim().split("\n\n") {
        wrap(&mut out, paragraph, 0);
        out.push('\n');
    }
    out.push_str("options:\n");
    for option in spec.options {
        one(&mut out, option);
    }
    if spec.environment {
        one(&mut out, &Opt::value("config", "FILE", CONFIG_HELP));
    }
    one(&mut out, &Opt::switch("help", "Prints this.").short('h'));
    if spec.environment {
        let _ = writeln!(
            out,
            "\nenvironment:\n      {} and so on: every option, in capitals, with `_` for `-`. Switches\n      \
             take 1 or 0, lists take commas.",
            spec.variable(spec.options.first().map_or("config", |o| o.name))
        );
    }
    out.push_str("\nexit status:\n");
    if spec.environment {
        out.push_str("      0  it worked\n      1  it failed, a message says why\n");
        out.push_str("      2  wrong usage, environment or configuration\n");
    }
    for line in spec.exits.trim().lines() {
        let _ = writeln!(out, "      {}", line.trim());
    }
    if !spec.examples.trim().is_empty() {
        out.push_str("\nexamples:\n");
        for line in spec.examples.trim().lines() {
            let _ = writeln!(out, "      {}", line.trim());
        }
    }
    out
}

const CONFIG_HELP: &str = "Configuration file: JSON with comments and trailing commas, one object for each command, its \
keys being the options. Default: $CASTKEEP_CONFIG, else /etc/castkeep/castkeep.hujson if it exists. The command line \
goes before the environment, the environment before the file.";

fn one(out: &mut String, option: &Opt) {
    out.push_str("  ");
    if let Some(letter) = option.short {
        let _ = write!(out, "-{letter}, ");
    }
    let _ = write!(out, "--{}", option.name);
    if let Some(value) = option.value {
        let _ = match option.bare {
            Some(_) => write!(out, "[={value}]"),
            None => write!(out, " {value}"),
        };
    }
    if option.many {
        out.push_str("  (may be repeated)");
    }
    out.push('\n');
    wrap(out, option.help, INDENT);
}

/// Words to lines, all lines indented.
fn wrap(out: &mut String, text: &str, indent: usize) {
    let mut column = 0;
    for word in text.split_whitespace() {
        let width = word.chars().count();
        if column > 0 && column + 1 + width > WIDTH {
            out.push('\n');
            column = 0;
        }
        if column == 0 {
            out.extend(std::iter::repeat_n(' ', indent));
            column = indent;
        } else {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += width;
    }
    out.push('\n');
}
