//! Records a few lines at the recorders named on the command line:
//!
//! ```text
//! castkeep serve --dst /tmp/recordings &
//! cargo run --example record_text 127.0.0.1:8080
//! castkeep ls /tmp/recordings
//! ```
#![allow(clippy::disallowed_methods)]

use std::error::Error;
use std::time::Duration;

use castkeep::client::{
    Client, ClientConfig, Decision, ExitStatus, Metadata, Outcome, RecorderAddr, Start, Stream,
};

fn main() -> Result<(), Box<dyn Error>> {
    let recorders = std::env::args()
        .skip(1)
        .map(|addr| addr.parse().map(RecorderAddr::tcp))
        .collect::<Result<Vec<_>, _>>()?;
    if recorders.is_empty() {
        return Err("usage: record_text ADDRESS:PORT...".into());
    }

    // One client in a process, one session for each recording. Opening returns at once.
    let client = Client::new(ClientConfig::default())?;
    let metadata =
        Metadata { size: (80, 24), local_user: "example".to_owned(), ..Metadata::default() };
    let decision = Decision::closed(recorders, "no recorder\n", "recording failed\n");
    let session = client.open(metadata, decision)?;

    match session.wait_start(Duration::from_secs(35)) {
        Start::Recorded => {}
        Start::Refused { message, exit_status } => {
            eprint!("{message}");
            std::process::exit(exit_status.into());
        }
        other => return Err(format!("not recorded: {other:?}").into()),
    }

    for n in 1..=5 {
        let line = format!("line {n}\r\n");
        // First into the recording, then to the user.
        session.output(Stream::Stdout, line.as_bytes())?;
        print!("{line}");
    }
    session.exit(ExitStatus::Code(0));

    match session.close(Duration::from_secs(5)) {
        Outcome::Complete => println!("recorded {}", session.recording()),
        Outcome::Incomplete { bytes } => println!("{bytes} bytes are not known to be stored"),
    }
    Ok(())
}
