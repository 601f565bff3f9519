//! What a command takes, as tables: the parser, the help, the environment and the configuration file all read the same one.

/// One option of a command. `name` is the long flag, the key in the configuration file, and (in capitals) the end of
/// the environment variable's name.
#[derive(Debug)]
pub(crate) struct Opt {
    /// Long flag without the dashes: lower-case letters, digits and `-`.
    pub(crate) name: &'static str,
    /// One-letter flag.
    pub(crate) short: Option<char>,
    /// How the value is called in the help; none for a switch.
    pub(crate) value: Option<&'static str>,
    /// What it means without a value (`--tailscale`, or `--tailscale=SOCKET`); none when it must have one.
    pub(crate) bare: Option<&'static str>,
    /// May be given several times (and is a list in the configuration file, comma-separated in the environment).
    pub(crate) many: bool,
    /// One or more lines of help. Says the default.
    pub(crate) help: &'static str,
}

impl Opt {
    /// A switch: present or not.
    pub(crate) const fn switch(name: &'static str, help: &'static str) -> Self {
        Self { name, short: None, value: None, bare: None, many: false, help }
    }

    /// An option with a value.
    pub(crate) const fn value(name: &'static str, value: &'static str, help: &'static str) -> Self {
        Self { name, short: None, value: Some(value), bare: None, many: false, help }
    }

    /// An option that means `bare` unless it has a value: `--name` or `--name=VALUE`. In the environment 1 is `bare`, in a
    /// configuration file `true`; 0 and `false` are as if it was not there.
    pub(crate) const fn optional(
        name: &'static str,
        value: &'static str,
        bare: &'static str,
        help: &'static str,
    ) -> Self {
        Self { name, short: None, value: Some(value), bare: Some(bare), many: false, help }
    }

    /// An option with a value that may come several times, or as a comma-separated list.
    pub(crate) const fn list(name: &'static str, value: &'static str, help: &'static str) -> Self {
        Self { name, short: None, value: Some(value), bare: None, many: true, help }
    }

    /// The same with a one-letter flag.
    pub(crate) const fn short(mut self, letter: char) -> Self {
        self.short = Some(letter);
        self
    }
}

/// A command.
#[derive(Debug)]
pub(crate) struct Spec {
    /// Its name on the command line.
    pub(crate) name: &'static str,
    /// One line for the overview.
    pub(crate) summary: &'static str,
    /// What follows the name in the usage line, without the options: `[--] [COMMAND...]`.
    pub(crate) operands: &'static str,
    /// Its options, in the order of the help.
    pub(crate) options: &'static [Opt],
    /// What it does, in paragraphs.
    pub(crate) about: &'static str,
    /// Exit statuses beyond 0, 1 and 2, one a line; may be empty.
    pub(crate) exits: &'static str,
    /// Examples, one a line.
    pub(crate) examples: &'static str,
    /// Whether options may also come from `CASTKEEP_<COMMAND>_<OPTION>`.
    pub(crate) environment: bool,
    /// Everything from the first operand on belongs to the operands, even if it starts with `-`.
    pub(crate) stops_at_operand: bool,
}

impl Spec {
    /// The environment variable of an option.
    pub(crate) fn variable(&self, option: &str) -> String {
        format!("CASTKEEP_{}_{}", self.name, option).to_uppercase().replace('-', "_")
    }
}
