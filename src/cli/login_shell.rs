//! `castkeep login-shell`: stands in /etc/passwd, records, and runs the user's real shell.
//!
//! Whoever logs in must not choose whether they are recorded: policy comes from one file that only root can write, and neither the
//! environment nor arguments have a say.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use super::recording::{self, Settings};
use super::relay::{self, Job};
use super::{Args, Exit, Failure, Opt, Spec, asked, config, nesting, pty, pty_sys, trusted};
use crate::limits;
use crate::session::volume::TRANSFERS;

pub(crate) const SPEC: Spec = Spec {
    name: "login-shell",
    summary: "the same as a login shell in /etc/passwd, for an unmodified OpenSSH",
    operands: "",
    options: &[
        Opt::value("command", "COMMAND", "What sshd asks a shell to run; none for a login.").short('c'),
        Opt::value("shell", "PATH", "The real shell of everybody. Default: /bin/sh."),
        Opt::list("shells", "USER=PATH,...", "Real shells of single users."),
        Opt::value(
            "sftp",
            "pass|refuse",
            "What happens to sftp: its server runs, and of what it moves length and SHA-256 are recorded (the default); or it is refused.",
        ),
        Opt::value(
            "sftp-server",
            "COMMAND",
            "The server for sftp, as sshd's `Subsystem` names it; `internal-sftp` becomes this too. Empty: none.\nDefault: /usr/lib/openssh/sftp-server.",
        ),
        Opt::value(
            "volume",
            "SIZE|all",
            "How much is recorded of each stream of a file transfer without a terminal. What follows leaves a gap with its length\nand SHA-256. Default: 64KiB.",
        ),
        Opt::list(
            "volume-of",
            "PROGRAM,...",
            "What counts as a file transfer: commands of one of these programs and nothing else; `*` is every command.\nDefault: scp, rsync, git-upload-pack, git-receive-pack, git-upload-archive.",
        ),
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
    about: "Everything but --command comes from the object `login-shell` of /etc/castkeep/castkeep.hujson and from nowhere
else; the file, the real shells and all their directories must belong to root and be writable by root
alone. Without such a file nobody is let in.

Make a link named castkeep-login-shell to castkeep, add its path to /etc/shells, and set it with chsh.
The real shell gets SHELL set to itself, and its name begins with `-` at a login. A shell inside of a
recorded one, on the same terminal and of the same user, is not recorded again. sshd's call for ~/.ssh/rc
is not recorded; what it prints goes nowhere.

As ForceCommand, without -c, the command is that of SSH_ORIGINAL_COMMAND; docs/login-shell.md says how a user
gets around ForceCommand.",
    exits: "254  nobody is let in: recording is required and not possible, or the file or the call is wrong
126  the shell cannot be run
127  there is no such shell
any other status is that of the shell",
    examples: "ln -s castkeep /usr/local/bin/castkeep-login-shell
chsh -s /usr/local/bin/castkeep-login-shell alice",
    environment: false,
    stops_at_operand: false,
};

/// What is asked of the shell.
#[derive(Debug, PartialEq, Eq)]
struct Call {
    /// Its own name, as it was called.
    argv0: OsString,
    command: Option<OsString>,
    login: bool,
}

/// What is done about it.
enum Plan {
    /// The program runs under recording.
    Record(Box<Settings>, Job),
    /// It takes our place: what it shows is recorded already.
    Become(Job),
    /// `~/.ssh/rc`.
    UserRc(Job),
}

pub(crate) fn run(args: &Args) -> Result<Exit, Failure> {
    start(forced(args))
}

/// Called by sshd or login in the place of a shell: `argv0` begins with `-` or is `castkeep-login-shell`.
pub(crate) fn run_as_shell(argv0: OsString, arguments: Vec<OsString>) -> Result<Exit, Failure> {
    start(words(argv0, arguments))
}

/// Whoever cannot be recorded is not let in, whatever the reason: one status says so.
pub(crate) fn refusing<T>(result: Result<T, Failure>) -> Result<T, Failure> {
    result.map_err(|e| {
        Failure::new(format!("{}; the login is refused", e.text())).with_exit(Exit::NOT_RECORDED)
    })
}

/// As ForceCommand: what the user asked for is in the environment.
fn forced(args: &Args) -> Result<Call, Failure> {
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
    let given = if args.is_on_command_line("command") { args.os("command") } else { None };
    let given = given.map(OsStr::to_owned);
    let command = given.or_else(|| std::env::var_os("SSH_ORIGINAL_COMMAND"));
    Ok(Call { argv0: SPEC.name.into(), login: command.is_none(), command })
}

fn words(argv0: OsString, arguments: Vec<OsString>) -> Result<Call, Failure> {
    let login = argv0.as_bytes().starts_with(b"-");
    let mut call = Call { argv0, command: None, login };
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        match argument.as_bytes() {
            b"-c" => {
                let given = arguments.next();
                call.command = Some(given.ok_or_else(|| Failure::usage("-c needs a command"))?);
                break;
            }
            b"-l" | b"--login" => call.login = true,
            b"-i" => {}
            _ => {
                let shown = argument.to_string_lossy();
                return Err(Failure::usage(format!(
                    "a login shell takes -c and -l, not `{shown}`"
                )));
            }
        }
    }
    Ok(call)
}

fn start(call: Result<Call, Failure>) -> Result<Exit, Failure> {
    match refusing(call.and_then(plan))? {
        Plan::Record(settings, job) => match relay::run(*settings, job) {
            // Where the program could not be run, the status is that of a shell, and the recording says so too.
            Err(e) if e.exit() == Exit::FAILURE => refusing(Err(e)),
            done => done,
        },
        Plan::Become(job) => {
            let e = command(&job).exec();
            refusing(Err(Failure::new(format!("cannot run {}: {e}", job.program.display()))))
        }
        Plan::UserRc(job) => refusing(run_user_rc(&job)),
    }
}

fn plan(call: Call) -> Result<Plan, Failure> {
    // The user's other programs do not look into this one, nor change what it does.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|e| Failure::new(format!("prctl: {e}")))?;
    let taken = pty_sys::take_variables(&OF_THE_RESOLVER);
    let (path, _) = trusted::file(Path::new(config::DEFAULT_PATH))?;
    let args = Args::from_file(&SPEC, &path)?;
    let uid = rustix::process::geteuid().as_raw();
    let user = pty_sys::user(uid)
        .map_err(|e| Failure::new(format!("the user database: {e}")))?
        .ok_or_else(|| Failure::new(format!("there is no user with the id {uid}")))?;
    let shell = shell(&args, &user.name)?;

    let mut job = job(shell, call.command.clone(), call.login);
    job.environment.extend(taken);
    if let Some(command) = &call.command {
        if asked::is_user_rc(&call.argv0, command, &user.home) {
            return Ok(Plan::UserRc(job));
        }
        if !for_sftp(&args, command, &mut job)? {
            job.volume_bytes = volume(&args, command)?;
        }
    }
    if nesting::is_recorded_already() {
        return Ok(Plan::Become(job));
    }
    let mut settings = Settings::from_args(&args)?;
    // Without a terminal, standard error is the command's: scp and git give every line to their user.
    settings.quiet |= !pty::is_interactive();
    Ok(Plan::Record(Box::new(settings), job))
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
    let wrong = || {
        Failure::new(format!(
            "{}: the shell `{}` must be an absolute path, and not castkeep",
            config::DEFAULT_PATH,
            chosen.display()
        ))
    };
    let names_us =
        chosen.file_name().is_some_and(|n| n == "castkeep" || n == "castkeep-login-shell");
    if !chosen.is_absolute() || names_us {
        return Err(wrong());
    }
    let (_, facts) = trusted::file(&chosen)?;
    let own = fs::metadata("/proc/self/exe").ok();
    if own.is_some_and(|own| (own.dev(), own.ino()) == (facts.dev(), facts.ino())) {
        return Err(wrong());
    }
    Ok(chosen)
}

fn job(shell: PathBuf, command: Option<OsString>, login: bool) -> Job {
    let base = shell.file_name().unwrap_or(shell.as_os_str()).to_owned();
    let mut arguments = Vec::new();
    if let Some(command) = &command {
        arguments.push("-c".into());
        arguments.push(command.clone());
    }
    let mut job = Job::new(
        shell.clone().into_os_string(),
        arguments,
        command.as_ref().map(|c| c.to_string_lossy().into_owned()),
    );
    // A login shell knows that it is one by the dash.
    job.name = (login && command.is_none()).then(|| {
        let mut name = b"-".to_vec();
        name.extend(base.as_bytes());
        OsString::from_vec(name)
    });
    job.environment = vec![("SHELL".into(), shell.into_os_string())];
    job.exclusive = true;
    job
}

/// Whether sftp is asked for; then the job becomes its server, started as it is and not through a shell.
fn for_sftp(args: &Args, command: &OsStr, job: &mut Job) -> Result<bool, Failure> {
    let server = args.string("sftp-server")?.unwrap_or_else(|| SFTP_SERVER.to_owned());
    let refuse = args.choice("sftp", &[("pass", false), ("refuse", true)])?.unwrap_or(false);
    let Some(command) = command.to_str() else { return Ok(false) };
    let words = asked::sftp_server(command, &server);
    let internal = asked::plain_words(command).is_some_and(|w| w[0] == asked::INTERNAL_SFTP);
    if refuse && (words.is_some() || internal) {
        return Err(Failure::new("sftp is not allowed here"));
    }
    let Some(words) = words else {
        if internal {
            return Err(Failure::new(format!(
                "sshd asks for its own server for sftp, which goes past a recording, and {} names no `sftp-server`",
                config::DEFAULT_PATH
            )));
        }
        return Ok(false);
    };
    let (program, arguments) = words.split_first().map_or(("", &[][..]), |(p, a)| (*p, a));
    trusted::file(Path::new(program))?;
    job.program = program.into();
    job.arguments = arguments.iter().map(Into::into).collect();
    job.is_sftp = true;
    Ok(true)
}

/// How much of a command is recorded; none: all of it.
fn volume(args: &Args, command: &OsStr) -> Result<Option<u64>, Failure> {
    if args.os("volume") == Some(OsStr::new("all")) {
        return Ok(None);
    }
    let cap = args.bytes("volume")?.unwrap_or(limits::TRANSFER_BYTES);
    let mut programs = args.list("volume-of")?;
    if !args.is_given("volume-of") {
        programs = TRANSFERS.map(str::to_owned).to_vec();
    }
    Ok(asked::is_transfer(command, &programs).then_some(cap))
}

/// For what sshd starts before the session, with a key for X11 on its standard input. It is not recorded, so it shows nothing and has no
/// terminal: else it would be a shell that nobody records. The user's terminal is closed to whatever it leaves behind.
fn run_user_rc(job: &Job) -> Result<Exit, Failure> {
    for fd in [rustix::stdio::stdout(), rustix::stdio::stderr()] {
        pty::close_terminal(fd);
    }
    let mut command = command(job);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    pty_sys::no_terminal(&mut command);
    let status = command
        .status()
        .map_err(|e| Failure::new(format!("cannot run {}: {e}", job.program.display())))?;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ok(Exit(u8::try_from(code).unwrap_or(255)))
}

fn command(job: &Job) -> Command {
    let mut command = Command::new(&job.program);
    command.args(&job.arguments).envs(job.environment.iter().map(|(k, v)| (k, v)));
    if let Some(name) = &job.name {
        command.arg0(name);
    }
    command
}

/// As Debian has it.
const SFTP_SERVER: &str = "/usr/lib/openssh/sftp-server";
/// Variables by which the system's resolver would send us to another recorder.
const OF_THE_RESOLVER: [&str; 4] =
    ["HOSTALIASES", "LOCALDOMAIN", "RES_OPTIONS", "RESOLV_HOST_CONF"];

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
    fn the_words_of_a_shell() {
        let call = |argv0: &str, arguments: &[&str]| {
            words(argv0.into(), arguments.iter().map(Into::into).collect())
        };
        let login = call("-castkeep-login-shell", &[]).unwrap();
        assert!(login.login && login.command.is_none());
        // What follows the command are its own parameters, which sshd never gives.
        let exec = call("castkeep-login-shell", &["-c", "id", "x"]).unwrap();
        assert_eq!((exec.login, exec.command), (false, Some("id".into())));
        assert!(call("castkeep-login-shell", &["-l"]).unwrap().login);
        let refused = refusing(call("castkeep-login-shell", &["-c"])).unwrap_err();
        assert_eq!(refused.exit(), Exit::NOT_RECORDED);
        assert!(refused.text().contains("the login is refused"));
    }
}
