//! `castkeep login-shell` in the place of a shell: called as sshd and login call one, with a configuration file that only root can write.
//!
//! Each login runs in a mount namespace of its own, with a copy of /etc: the machine's own files are not touched. That needs root.
#![allow(missing_docs, clippy::disallowed_methods, clippy::disallowed_types)]

mod client_support;
mod login_support;

use std::os::unix::process::ExitStatusExt as _;

use client_support::{Manner, Recorder, join, tell, wait_until};
use login_support::{Login, OnTty, possible};

const LOGIN: &str = "-castkeep-login-shell";
const EXEC: &str = "castkeep-login-shell";

fn closed(recorder: &Recorder) -> String {
    closed_with(recorder, "")
}

fn closed_with(recorder: &Recorder, more: &str) -> String {
    let addr = recorder.addr;
    format!(
        "{{\"login-shell\": {{\"recorders\": [\"{addr}\"], \"enforce\": true, \"shell\": \"/bin/bash\", {more}}}}}"
    )
}

#[test]
fn a_login_is_a_login_shell_on_a_terminal_of_its_own() {
    if !possible() {
        return;
    }
    let recorder = Recorder::start(Manner::Good);
    let login = Login::new(&closed(&recorder));
    let mut tty = OnTty::start(
        login
            .command(LOGIN, &[])
            .env("SSH_CONNECTION", "127.9.8.7 54321 127.0.0.1 22")
            .env("SSH_TTY", "/dev/pts/999")
            .env("TERM", "xterm"),
    );
    tty.keys(b"shopt -q login_shell && echo =$0= =$SHELL=\r");
    tty.wait_for("=-bash= =/bin/bash=");
    tty.keys(b"test \"$SSH_TTY\" = \"$(tty)\" && echo same'-'terminal\r");
    tty.wait_for("same-terminal");
    tty.keys(b"exit 7\r");
    assert_eq!(tty.end().code(), Some(7), "{}", tty.shown());
    let told = tell(&join(&recorder.parts()));
    assert!(told.output.contains("=-bash= =/bin/bash="), "{}", told.output);
    assert_eq!(told.exit.as_deref(), Some("7"));
    for part in [
        "\"srcNode\":\"127.9.8.7\"",
        "\"connectionID\":\"127.9.8.7-54321\"",
        "\"sshUser\":\"ck-alice\"",
        "\"localUser\":\"ck-alice\"",
        "\"SSH_TTY\":\"/dev/pts/999\"",
        "\"TERM\":\"xterm\"",
        "\"kind\":\"shell\"",
    ] {
        assert!(told.header.contains(part), "{part} is not in {}", told.header);
    }
}

#[test]
fn a_command_has_its_streams_and_its_status() {
    if !possible() {
        return;
    }
    let recorder = Recorder::start(Manner::Good);
    let login = Login::new(&closed(&recorder));
    let output = login
        .command(EXEC, &["-c", "echo out; echo err >&2; echo $0 $SHELL; exit 42"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(42));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "out\n/bin/bash /bin/bash\n");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "err\n", "nothing of ours in between");
    let told = tell(&join(&recorder.parts()));
    assert_eq!((&*told.output, &*told.stderr), ("out\n/bin/bash /bin/bash\n", "err\n"));
    assert_eq!(told.exit.as_deref(), Some("42"));
    assert!(told.header.contains("\"kind\":\"exec\""), "{}", told.header);
    assert!(told.header.contains("exit 42"), "{}", told.header);
}

#[test]
fn a_command_that_a_signal_ends_ends_the_login_by_the_same_signal() {
    if !possible() {
        return;
    }
    for (name, number) in [("TERM", 15), ("KILL", 9), ("SEGV", 11)] {
        let recorder = Recorder::start(Manner::Good);
        let login = Login::new(&closed(&recorder));
        let output = login.command(EXEC, &["-c", &format!("kill -{name} $$")]).output().unwrap();
        assert_eq!(output.status.signal(), Some(number), "{:?}", output.status);
        let told = tell(&join(&recorder.parts()));
        assert_eq!(told.exit.as_deref(), Some(&*(128 + number).to_string()));
        assert_eq!(told.markers, [format!("castkeep:signal {name}")]);
    }
}

#[test]
fn whatever_is_wrong_before_the_start_is_254_and_the_shell_never_starts() {
    if !possible() {
        return;
    }
    let recorder = Recorder::start(Manner::Good);
    let good = closed(&recorder);
    let unknown = closed_with(&recorder, "\"lisen\": 1");
    let own_shell = closed_with(&recorder, "\"shells\": [\"ck-alice=/usr/bin/castkeep\"]");
    let no_shell = closed_with(&recorder, "\"shells\": [\"ck-alice=bash\"]");
    let no_list = closed_with(&recorder, "\"shells\": [\"ck-alice\"]");
    let cases = [
        ("no file", "", "rm /etc/castkeep/castkeep.hujson", "castkeep.hujson: cannot be used"),
        ("not ours", &good, "chown 54321 /etc/castkeep/castkeep.hujson", "does not belong to root"),
        ("open file", &good, "chmod 666 /etc/castkeep/castkeep.hujson", "by others than root"),
        ("open directory", &good, "chmod 777 /etc/castkeep", "by others than root"),
        ("no rights", &good, "chmod 600 /etc/castkeep/castkeep.hujson", "cannot read"),
        ("not JSON", "{ # }", "", "castkeep.hujson:1:3: comments begin with //"),
        ("unknown option", &unknown, "", "has no option `lisen`"),
        ("no recorder", "{\"login-shell\": {}}", "", "no recorder is named"),
        ("no section", "{}", "", "no recorder is named"),
        ("the shell is castkeep", &own_shell, "", "not castkeep"),
        ("the shell is no path", &no_shell, "", "must be an absolute path"),
        ("the shells are no map", &no_list, "", "USER=PATH"),
        ("unknown user", &good, "sed -i /54321/d /etc/passwd", "no user with the id 54321"),
    ];
    for (name, config, prepare, wanted) in cases {
        let login = Login::new(config).prepare(prepare);
        let ran = login.path().join("ran");
        for words in [&["-c", &format!("touch {}", ran.display())][..], &["-l"]] {
            let output = login.command(EXEC, words).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(254), "{name}: {said}");
            assert!(said.contains(wanted), "{name}: {said}");
            assert!(said.contains("the login is refused"), "{name}: {said}");
            assert!(!ran.exists(), "{name}");
        }
    }
    let login = Login::new(&good);
    for words in [&["-x"][..], &["-c"], &["/etc/profile"]] {
        let output = login.command(EXEC, words).output().unwrap();
        assert_eq!(output.status.code(), Some(254), "{words:?}");
    }
    for words in [&["--shell", "/bin/sh"][..], &["--config", "/dev/null"], &["--no"], &["word"]] {
        let output =
            login.command("castkeep", &[&["login-shell"], words].concat()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(254), "{words:?}: {said}");
    }
    assert_eq!(recorder.parts().len(), 0);
}

#[test]
fn the_users_environment_has_no_say() {
    if !possible() {
        return;
    }
    let recorder = Recorder::start(Manner::Good);
    let login = Login::new(&closed(&recorder));
    let own = login.file(
        "own.hujson",
        "{\"login-shell\": {\"recorders\": [\"127.0.0.1:1\"], \"open\": true}}",
    );
    let output = login
        .command(EXEC, &["-c", "echo $SHELL"])
        .env("CASTKEEP_CONFIG", &own)
        .env("CASTKEEP_LOGIN_SHELL_RECORDERS", "127.0.0.1:1")
        .env("CASTKEEP_LOGIN_SHELL_OPEN", "1")
        .env("CASTKEEP_LOGIN_SHELL_SHELL", "/bin/dash")
        .env("CASTKEEP_RECORDING", "0123456789abcdef0123456789abcdef")
        .env("SHELL", "/bin/dash")
        .env("USER", "root")
        .env("LOGNAME", "root")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout, b"/bin/bash\n");
    let told = tell(&join(&recorder.parts()));
    assert_eq!(told.output, "/bin/bash\n");
    assert!(told.header.contains("\"sshUser\":\"ck-alice\""), "{}", told.header);
}

#[test]
fn without_a_recorder_nobody_is_let_in_when_policy_is_closed() {
    if !possible() {
        return;
    }
    let recorder = Recorder::start(Manner::Good);
    recorder.kill();
    let login =
        Login::new(&closed_with(&recorder, "\"reject-message\": \"Not without a witness.\""));
    let ran = login.path().join("ran");
    let touch = format!("touch {}", ran.display());
    let output = login.command(EXEC, &["-c", &touch]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(254), "{said}");
    assert!(said.contains("Not without a witness."), "{said}");
    assert!(!ran.exists());

    // ~/.profile is the shell's first act.
    login.file("home/.profile", &touch);
    let mut tty = OnTty::start(&login.command(LOGIN, &[]));
    assert_eq!(tty.end().code(), Some(254));
    wait_until("the message", || tty.shown().contains("Not without a witness."));
    assert!(!ran.exists());

    let open = format!(
        "{{\"login-shell\": {{\"recorders\": [\"{}\"], \"open\": true, \"shell\": \"/bin/sh\"}}}}",
        recorder.addr
    );
    let login = Login::new(&open);
    let output = login.command(EXEC, &["-c", "echo let in"]).output().unwrap();
    assert_eq!((output.status.code(), &*output.stdout), (Some(0), &b"let in\n"[..]));
}
