//! What a command is that sshd hands to a login shell. Everything is recorded; this decides how much of it, so it says yes only to
//! commands that a shell would run as one program with these words.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crate::session::volume;

/// The words of a command in which nothing has a meaning for a shell.
pub(super) fn plain_words(command: &str) -> Option<Vec<&str>> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_@%+:,./- ".contains(c);
    let words: Vec<_> = command.split(' ').filter(|word| !word.is_empty()).collect();
    (command.chars().all(plain) && !words.is_empty()).then_some(words)
}

/// How the file server for sftp is to be started, when that is what is asked for: `internal-sftp`, or the command of `server`, with
/// options. sshd has the option `-R` and others behind either.
pub(super) fn sftp_server<'a>(command: &'a str, server: &'a str) -> Option<Vec<&'a str>> {
    let asked = plain_words(command)?;
    let ours = plain_words(server)?;
    let (program, options) = asked.split_first()?;
    if *program == INTERNAL_SFTP {
        return Some(ours.into_iter().chain(options.iter().copied()).collect());
    }
    (program == ours.first()?).then_some(asked)
}

/// Whether it is one of the programs that move files; `*` stands for every command.
pub(super) fn is_transfer(command: &OsStr, programs: &[String]) -> bool {
    programs.iter().any(|program| program == EVERYTHING)
        || volume::is_transfer(command.as_bytes(), programs.iter().map(String::as_str))
}

/// Whether it is how sshd has the user's `~/.ssh/rc` run, before the shell or command itself. Only sshd's own call has the shell's whole
/// path as its name; what a user asks for comes with the last part of it.
pub(super) fn is_user_rc(argv0: &OsStr, command: &OsStr, home: &OsStr) -> bool {
    let Some(file) = command.as_bytes().strip_prefix(b"/bin/sh ") else { return false };
    let of_home = Path::new(home).join(".ssh/rc");
    argv0.as_bytes().contains(&b'/')
        && (file == b".ssh/rc" || file == of_home.as_os_str().as_bytes())
}

/// As sshd's configuration calls its own file server.
pub(super) const INTERNAL_SFTP: &str = "internal-sftp";
/// In the place of a program's name: every command.
const EVERYTHING: &str = "*";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_commands_are_the_file_server() {
        let server = "/usr/lib/openssh/sftp-server -u 022";
        for (command, wanted) in [
            ("internal-sftp", Some("/usr/lib/openssh/sftp-server -u 022")),
            ("internal-sftp -R", Some("/usr/lib/openssh/sftp-server -u 022 -R")),
            ("/usr/lib/openssh/sftp-server", Some("/usr/lib/openssh/sftp-server")),
            ("/usr/lib/openssh/sftp-server -l INFO", Some("/usr/lib/openssh/sftp-server -l INFO")),
            ("/usr/lib/openssh/sftp-server; bash", None),
            ("internal-sftp$(bash)", None),
            ("internal-sftp\nbash", None),
            ("sftp-server", None),
            ("./sftp-server", None),
            ("bash /usr/lib/openssh/sftp-server", None),
            ("", None),
        ] {
            let got = sftp_server(command, server).map(|words| words.join(" "));
            assert_eq!(got.as_deref(), wanted, "{command:?}");
        }
        assert_eq!(sftp_server("internal-sftp", ""), None);
    }

    #[test]
    fn transfers_are_those_that_are_named() {
        let programs = ["scp".to_owned(), "rsync".to_owned()];
        assert!(is_transfer(OsStr::new("/usr/bin/scp -f 'a file'"), &programs));
        assert!(!is_transfer(OsStr::new("scp -t x; cat /etc/passwd"), &programs));
        assert!(is_transfer(OsStr::new("cat x; id"), &["*".to_owned()]));
        assert!(!is_transfer(OsStr::new("scp -t x"), &[]));
    }

    #[test]
    fn sshds_own_call_is_known() {
        let rc = |argv0: &str, command: &str| {
            is_user_rc(OsStr::new(argv0), OsStr::new(command), OsStr::new("/home/alice"))
        };
        assert!(rc("/usr/bin/castkeep-login-shell", "/bin/sh /home/alice/.ssh/rc"));
        assert!(rc("/usr/bin/castkeep-login-shell", "/bin/sh .ssh/rc"));
        assert!(!rc("castkeep-login-shell", "/bin/sh /home/alice/.ssh/rc"));
        assert!(!rc("/usr/bin/castkeep-login-shell", "/bin/sh /home/alice/.ssh/rc; id"));
        assert!(!rc("/usr/bin/castkeep-login-shell", "/bin/sh /home/bob/.ssh/rc"));
        assert!(!rc("/usr/bin/castkeep-login-shell", "/bin/bash .ssh/rc"));
    }
}
