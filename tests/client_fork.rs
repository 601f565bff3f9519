//! A forked child has the handles and not the thread: every call answers at once, and the parent's session goes on.
#![allow(missing_docs, unsafe_code, clippy::disallowed_methods, clippy::disallowed_types)]

mod client_support;

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use castkeep::client::{
    Client, ClientConfig, Decision, ExitStatus, Metadata, Outcome, RecorderAddr, Start, Stream,
};
use castkeep::error::{Error, Misuse};
use client_support::{Manner, Recorder, join, tell};

#[test]
fn a_forked_child_is_told_so() {
    let recorder = Recorder::start(Manner::Good);
    let client = Client::new(ClientConfig::default()).unwrap();
    let decision = Decision::closed(vec![RecorderAddr::tcp(recorder.addr)], "no", "no");
    let session = Arc::new(client.open(Metadata::default(), decision).unwrap());
    assert_eq!(session.wait_start(Duration::from_secs(30)), Start::Recorded);

    let forked = Err(Error::Misuse(Misuse::WrongState));
    let inherited = Arc::clone(&session);
    let in_child = move || {
        let same = inherited.output(Stream::Stdout, b"child") == forked
            && inherited.try_output(Stream::Stdout, b"child").is_err()
            && inherited.marker("child").is_err()
            && inherited.room() == 0
            && inherited.released(Stream::Stdout) == 0;
        inherited.exit(ExitStatus::Code(1));
        inherited.finish();
        if same { Ok(()) } else { Err(io::Error::other("not what the child should be told")) }
    };
    let mut command = Command::new("true");
    // SAFETY: the closure runs between fork and exec and calls what has to answer there without locks: that is what is tested.
    unsafe { command.pre_exec(in_child) };
    assert!(command.status().expect("the child was answered as it should be").success());

    session.output(Stream::Stdout, b"parent\r\n").unwrap();
    session.exit(ExitStatus::Code(0));
    assert_eq!(session.close(Duration::from_secs(30)), Outcome::Complete);
    let told = tell(&join(&recorder.parts()));
    assert_eq!(told.output, "parent\r\n");
    assert_eq!(told.exit.as_deref(), Some("0"));
}
