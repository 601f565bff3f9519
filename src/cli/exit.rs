//! How the program ends, and the errors that people see.

/// An exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit(pub u8);

impl Exit {
    /// It worked.
    pub const OK: Self = Self(0);
    /// It did not, and a message said why.
    pub const FAILURE: Self = Self(1);
    /// The command line, the environment or the configuration file is wrong.
    pub const USAGE: Self = Self(2);
    /// Recording is required and not possible.
    pub const NOT_RECORDED: Self = Self(254);
}

/// An error for people: what failed, where, and what to do.
#[derive(Debug)]
pub(crate) struct Failure {
    text: String,
    exit: Exit,
}

impl Failure {
    /// Something went wrong while the command ran.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), exit: Exit::FAILURE }
    }

    /// The command was called wrongly.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self { text: text.into(), exit: Exit::USAGE }
    }

    /// Another exit status.
    pub(crate) fn with_exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// The status to end with.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// What will be printed, without control characters.
    pub(crate) fn text(&self) -> String {
        crate::cast::text::escape_control(&self.text).to_string()
    }

    /// Says it on standard error.
    pub(crate) fn print(&self) {
        if !self.text.is_empty() {
            eprintln!("castkeep: {}", self.text());
        }
    }
}
