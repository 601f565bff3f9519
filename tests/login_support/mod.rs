//! Logins in a mount namespace of their own: a copy of /etc with a user and a configuration file, castkeep at a path that everybody
//! reaches.
#![allow(dead_code, unreachable_pub, clippy::disallowed_methods, clippy::disallowed_types)]

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::client_support::disk::CASTKEEP;
use super::client_support::wait_until;

/// Whether this machine lets us make mount namespaces. A skip is said, and with CI=true it is a failure.
pub fn possible() -> bool {
    let unshared = Command::new("unshare").args(["--mount", "true"]).output();
    let can = unshared.is_ok_and(|o| o.status.success()) && rustix::process::geteuid().is_root();
    if !can {
        eprintln!("skipped: mount namespaces need root and unshare");
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "a skip is a failure");
    }
    can
}

/// A user, a configuration file, and a home.
pub struct Login {
    dir: PathBuf,
    prepare: String,
}

impl Login {
    pub fn new(config: &str) -> Self {
        use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("castkeep-login-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let dir = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("etc")).unwrap();
        fs::create_dir_all(dir.join("home")).unwrap();
        for open in [&dir, &dir.join("home")] {
            fs::set_permissions(open, Permissions::from_mode(0o777)).unwrap();
        }
        let login = Self { dir, prepare: String::new() };
        login.file("config", config);
        login
    }

    /// Shell commands that run as root when everything is in place.
    pub fn prepare(mut self, commands: &str) -> Self {
        self.prepare = commands.to_owned();
        self
    }

    /// Readable and writable for the user.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.dir.join(name);
        fs::write(&path, content).unwrap();
        path
    }

    /// castkeep by the name `argv0`, as the user, with an environment as sshd makes it.
    pub fn command(&self, argv0: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--", "sh", "-euc", SETUP, "sh"])
            .args([&self.dir, Path::new(CASTKEEP)])
            .args([&self.prepare, argv0])
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
            .env("HOME", self.dir.join("home"))
            .env("USER", "ck-alice")
            .env("LOGNAME", "ck-alice")
            .env("SHELL", SHELL)
            .stdin(Stdio::null());
        command
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A command on a terminal whose other end the test holds.
pub struct OnTty {
    pub child: Child,
    master: File,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl OnTty {
    pub fn start(command: &Command) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let name = name.to_str().unwrap();
        // As sshd does it: the terminal belongs to the user.
        std::os::unix::fs::chown(name, Some(UID), None).unwrap();
        let slave = OpenOptions::new().read(true).write(true).open(name).unwrap();
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&slave, size).unwrap();
        let end = || Stdio::from(slave.try_clone().unwrap());
        // setsid makes the terminal the controlling one, and becomes the command.
        let mut on_tty = Command::new("setsid");
        on_tty.arg("--ctty").arg(command.get_program()).args(command.get_args()).env_clear();
        for (name, value) in command.get_envs() {
            on_tty.env(name, value.unwrap_or_default());
        }
        let child = on_tty.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let shown = Arc::new(Mutex::new(Vec::new()));
        let master = File::from(master);
        let (mut reader, all) = (master.try_clone().unwrap(), Arc::clone(&shown));
        thread::spawn(move || {
            let mut buf = [0; 4096];
            loop {
                match reader.read(&mut buf) {
                    Ok(n) if n > 0 => all.lock().unwrap().extend_from_slice(&buf[..n]),
                    Err(e) if e.kind() == ErrorKind::Interrupted => {}
                    _ => return,
                }
            }
        });
        Self { child, master, shown }
    }

    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned()
    }

    pub fn wait_for(&self, text: &str) {
        wait_until(text, || self.shown().contains(text));
    }

    pub fn keys(&mut self, keys: &[u8]) {
        self.master.write_all(keys).unwrap();
    }

    pub fn end(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

/// No such user exists on the machine.
pub const UID: u32 = 54_321;
const SHELL: &str = "/etc/castkeep/castkeep-login-shell";

/// Becomes the login. Arguments: directory, program, commands to prepare, argv0, arguments.
const SETUP: &str = r#"
dir=$1 castkeep=$2 prepare=$3 argv0=$4
shift 4
mount -t tmpfs -o mode=755 castkeep "$dir/etc"
cp -a /etc/. "$dir/etc"
mount --bind "$dir/etc" /etc
mkdir -p /etc/castkeep
chmod 755 /etc/castkeep
cp "$dir/config" /etc/castkeep/castkeep.hujson
chmod 644 /etc/castkeep/castkeep.hujson
shell=/etc/castkeep/castkeep-login-shell
: >"$shell"
mount --bind "$castkeep" "$shell"
echo "ck-alice:x:54321:54321::$dir/home:$shell" >>/etc/passwd
eval "$prepare"
exec setpriv --reuid=54321 --regid=54321 --clear-groups bash -c 'exec -a "$0" /etc/castkeep/castkeep-login-shell "$@"' "$argv0" "$@"
"#;
