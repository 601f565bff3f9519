//! `castkeep login-shell`: stands in /etc/passwd, records, and runs the user's real shell.
//!
//! Whoever logs in must not choose whether they are recorded: policy comes from one file that only root can write, and neither the
//! environment nor arguments have a say.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::recording::{self, Settings};
use super::relay::{self, Job};
use super::{Args, Exit, Failure, Opt, Spec, config, pty, pty_sys};

pub(crate) const SPEC: Spec = Spec {
    name: "login-shell",
    summary: "the same as a login shell in /etc/passwd, for an unmodified OpenSSH",
    operands: "",
    options: &[
        Opt::value("command", "COMMAND", "What sshd asks a shell to run; none for a login.").short('c'),
        Opt::value("shell", "PATH", "The real shell of everybody. Default: /bin/sh."),
        Opt::list("shells", "USER=PATH,...", "Real shells of single users."),
        recording::RECORDERS,
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
    about: "Everything but --command comes from the object `login-shell` of /etc/castkeep/castkeep.hujson and from nowhere
else; the file and its directories must belong to root and be writable by root alone. Without such a
file nobody is let in.

Make a link named castkeep-login-shell to castkeep, add its path to /etc/shells, and set it with chsh.
The real shell gets SHELL set to itself, and its name begins with `-` at a login.",
    exits: "254  nobody is let in: recording is required and not possible, or the file or the call is wrong
126  the shell cannot be run
127  there is no such shell
any other status is that of the shell",
    examples: "ln -s castkeep /usr/local/bin/castkeep-login-shell
chsh -s /usr/local/bin/castkeep-login-shell alice",
    environment: false,
    stops_at_operand: false,
};

pub(crate) fn run(args: &Args) -> Result<Exit, Failure> {
    refusing(asked(args)).and_then(|command| record(command, false))
}

fn asked(args: &Args) -> Result<Option<OsString>, Failure> {
    for option in SPEC.options.iter().filter(|o| o.name != "command") {
        if args.is_on_command_line(option.name) {
            return Err(Failure::usage(format!(
                "--{} can only stand in {}",
                option.name,
                config::DEFAULT_PATH
            )));
        }
    }
    if !args.operands().is_empty() {
        return Err(Failure::usage("login-shell takes no operands, only -c COMMAND"));
    }
    let command = if args.is_on_command_line("command") { args.os("command") } else { None };
    Ok(command.map(OsStr::to_owned))
}

/// Called by sshd or login in the place of a shell: `argv0` begins with `-` or is `castkeep-login-shell`.
pub(crate) fn run_as_shell(argv0: &OsString, arguments: Vec<OsString>) -> Result<Exit, Failure> {
    let (command, login) = refusing(words(argv0, arguments))?;
    record(command, login)
}

/// Whoever cannot be recorded is not let in, whatever the reason: one status says so.
pub(crate) fn refusing<T>(result: Result<T, Failure>) -> Result<T, Failure> {
    result.map_err(|e| {
        Failure::new(format!("{}; the login is refused", e.text())).with_exit(Exit::NOT_RECORDED)
    })
}

fn words(argv0: &OsStr, arguments: Vec<OsString>) -> Result<(Option<OsString>, bool), Failure> {
    let mut login = argv0.as_bytes().starts_with(b"-");
    let mut arguments = arguments.into_iter();
    let mut command = None;
    while let Some(argument) = arguments.next() {
        match argument.as_bytes() {
            b"-c" => {
                let given = arguments.next();
                command = Some(given.ok_or_else(|| Failure::usage("-c needs a command"))?);
                break;
            }
            b"-l" | b"--login" => login = true,
            b"-i" => {}
            _ => {
                let shown = argument.to_string_lossy();
                return Err(Failure::usage(format!(
                    "a login shell takes -c and -l, not `{shown}`"
                )));
            }
        }
    }
    Ok((command, login))
}

fn record(command: Option<OsString>, login: bool) -> Result<Exit, Failure> {
    let (settings, job) = refusing(prepare(command, login))?;
    match relay::run(settings, job) {
        // Where the program could not be run, the status is that of a shell, and the recording says so too.
        Err(e) if e.exit() == Exit::FAILURE => refusing(Err(e)),
        done => done,
    }
}

fn prepare(command: Option<OsString>, login: bool) -> Result<(Settings, Job), Failure> {
    let path = Path::new(config::DEFAULT_PATH);
    check_owner(path)?;
    let args = Args::from_file(&SPEC, path)?;
    let uid = rustix::process::geteuid().as_raw();
    let user = pty_sys::user(uid)
        .map_err(|e| Failure::new(format!("the user database: {e}")))?
        .ok_or_else(|| Failure::new(format!("there is no user with the id {uid}")))?;
    let shell = shell(&args, &user.name)?;
    let mut settings = Settings::from_args(&args)?;
    // Without a terminal, standard error is the command's: scp and git give every line to their user.
    settings.quiet |= !pty::is_interactive();
    Ok((settings, job(shell, command, login)))
}

/// The shell is the file's to choose. Neither the environment nor the user's own files are asked.
fn shell(args: &Args, user: &OsStr) -> Result<PathBuf, Failure> {
    let mut chosen = args.path("shell").unwrap_or_else(|| "/bin/sh".into());
    for entry in args.list("shells")? {
        let Some((name, path)) = entry.split_once('=') else {
            return Err(args.wrong("shells", "a list of USER=PATH"));
        };
        if OsStr::new(name) == user {
            chosen = path.into();
        }
    }
    let names_us =
        chosen.file_name().is_some_and(|name| name == "castkeep" || name == "castkeep-login-shell");
    if !chosen.is_absolute() || names_us {
        return Err(Failure::new(format!(
            "{}: the shell `{}` must be an absolute path, and not castkeep",
            config::DEFAULT_PATH,
            chosen.display()
        )));
    }
    Ok(chosen)
}

fn job(shell: PathBuf, command: Option<OsString>, login: bool) -> Job {
    let base = shell.file_name().unwrap_or(shell.as_os_str()).to_owned();
    // A login shell knows that it is one by the dash.
    let name = (login && command.is_none()).then(|| {
        let mut name = b"-".to_vec();
        name.extend(base.as_bytes());
        OsString::from_vec(name)
    });
    let mut arguments = Vec::new();
    if let Some(command) = &command {
        arguments.push("-c".into());
        arguments.push(command.clone());
    }
    Job {
        arguments,
        name,
        environment: vec![("SHELL".into(), shell.clone().into_os_string())],
        command: command.map(|c| c.to_string_lossy().into_owned()),
        program: shell.into_os_string(),
    }
}

/// The file, and every directory above it, belong to root and are written by root alone; none is a link to somewhere else.
fn check_owner(path: &Path) -> Result<(), Failure> {
    let refused = |at: &Path, why: &str| Failure::new(format!("{}: {why}", at.display()));
    for at in path.ancestors() {
        let facts =
            fs::symlink_metadata(at).map_err(|e| refused(at, &format!("cannot be used: {e}")))?;
        let right_kind = if at == path { facts.is_file() } else { facts.is_dir() };
        if !right_kind {
            return Err(refused(at, "is not what it should be (a link?)"));
        }
        if facts.uid() != 0 {
            return Err(refused(at, "does not belong to root"));
        }
        if facts.mode() & 0o022 != 0 {
            return Err(refused(at, "can be written by others than root"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_and_a_command() {
        let login = job("/bin/bash".into(), None, true);
        assert_eq!((login.name, login.arguments.len()), (Some("-bash".into()), 0));
        assert_eq!(login.command, None);
        let exec = job("/bin/bash".into(), Some("ls -l".into()), true);
        assert_eq!(exec.name, None);
        assert_eq!(exec.arguments, ["-c", "ls -l"]);
        assert_eq!(exec.environment, [("SHELL".into(), "/bin/bash".into())]);
    }

    #[test]
    fn a_file_of_somebody_else_is_refused() {
        let dir = std::env::temp_dir().join(format!("castkeep-owner-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory");
        let file = dir.join("castkeep.hujson");
        let missing = check_owner(&file).expect_err("missing");
        assert!(missing.text().contains("cannot be used"), "{}", missing.text());
        fs::write(&file, "{}").expect("a file");
        // The directory for temporary files is writable by everybody.
        let error = refusing(check_owner(&file)).expect_err("writable by others");
        assert_eq!(error.exit(), Exit::NOT_RECORDED);
        fs::remove_dir_all(&dir).expect("removed");
    }
}
