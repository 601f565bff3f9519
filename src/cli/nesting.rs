//! Whether this terminal is recorded already, so that `su - $USER` or a terminal multiplexer inside of a session is not recorded twice.
//!
//! No variable is asked. The kernel says which process leads the session on our terminal and who started it: when that is a castkeep
//! of the same user that cannot be looked into, and we descend from it, everything shown here goes through it. A user who forges this
//! runs programs of their own choice already and could start the real shell as well; a login through sshd, su or login has no process of
//! the user above it. In doubt it is recorded twice.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;

use rustix::process::{Pid, getpid, getuid};
use rustix::termios::{isatty, tcgetsid};

/// See the module.
pub(super) fn is_recorded_already() -> bool {
    all_on_one_terminal().and_then(recorder_of).is_some()
}

/// The leader of the session, when input and everything that is shown are its terminal.
fn all_on_one_terminal() -> Option<Pid> {
    let fds = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    if !fds.iter().all(isatty) {
        return None;
    }
    let leader = tcgetsid(fds[0]).ok()?;
    fds.iter().all(|fd| tcgetsid(fd) == Ok(leader)).then_some(leader)
}

fn recorder_of(leader: Pid) -> Option<i32> {
    let recorder = Facts::of(leader.as_raw_pid())?.parent;
    let facts = Facts::of(recorder)?;
    let ours = getuid().as_raw();
    let known = NAMES.contains(&facts.name.as_str()) && facts.uids.iter().all(|uid| *uid == ours);
    (known && is_closed(recorder) && is_above(recorder)).then_some(recorder)
}

/// A recording castkeep is not dumpable, and its program can be seen by root alone. Root sees it: it must be ours.
fn is_closed(pid: i32) -> bool {
    match fs::metadata(format!("/proc/{pid}/exe")) {
        Err(e) => e.kind() == ErrorKind::PermissionDenied,
        Ok(theirs) => fs::metadata("/proc/self/exe").is_ok_and(|own| {
            getuid().is_root() && (own.dev(), own.ino()) == (theirs.dev(), theirs.ino())
        }),
    }
}

fn is_above(pid: i32) -> bool {
    let mut at = getpid().as_raw_pid();
    for _ in 0..DEPTH_MAX {
        match Facts::of(at) {
            Some(facts) if facts.parent == pid => return true,
            Some(facts) if facts.parent > 1 => at = facts.parent,
            _ => return false,
        }
    }
    false
}

/// What /proc/PID/status says to everybody.
struct Facts {
    name: String,
    parent: i32,
    /// Real, effective, saved, and that of the file system.
    uids: Vec<u32>,
}

impl Facts {
    fn of(pid: i32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
    }

    fn parse(status: &str) -> Option<Self> {
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
        let uids = field("Uid:")?.split_whitespace().map(|uid| uid.parse().ok());
        Some(Self {
            name: field("Name:")?.trim().to_owned(),
            parent: field("PPid:")?.trim().parse().ok()?,
            uids: uids.collect::<Option<Vec<u32>>>().filter(|uids| uids.len() == 4)?,
        })
    }
}

/// The kernel keeps 15 bytes of a program's name.
const NAMES: [&str; 2] = ["castkeep", "castkeep-login-"];
/// A deeper tree is not walked.
const DEPTH_MAX: u32 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read() {
        let facts =
            Facts::parse("Name:\tbash\nUmask:\t0022\nPPid:\t17\nUid:\t1\t2\t3\t4\n").unwrap();
        assert_eq!((&*facts.name, facts.parent, facts.uids), ("bash", 17, vec![1, 2, 3, 4]));
        assert!(Facts::parse("Name:\tx\nPPid:\t1\n").is_none());
        assert!(Facts::parse("Name:\tx\nPPid:\t1\nUid:\t1\t1\n").is_none());
        let own = Facts::of(getpid().as_raw_pid()).unwrap();
        assert_eq!(own.parent, rustix::process::getppid().unwrap().as_raw_pid());
        assert!(is_above(own.parent));
        assert!(!is_above(getpid().as_raw_pid()));
    }
}
