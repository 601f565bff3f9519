//! `castkeep join`: the one stream out of all parts of a recording.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::termios::isatty;

use super::progress::{Counting, Progress};
use super::{Args, Exit, Failure, Opt, Spec, locate};
use crate::recorder::storage::read::{self, Joined};

pub(crate) const SPEC: Spec = Spec {
    name: "join",
    summary: "puts the parts of a recording together and checks that nothing is missing",
    operands: "FILE... | DIR... ID | ID",
    options: &[
        Opt::value(
            "output",
            "FILE",
            "Writes the recording into this file, which appears only when it is whole. Default: standard output.",
        )
        .short('o'),
        Opt::switch("check", "Writes nothing, only checks."),
        Opt::switch("force", "Replaces the output file if it exists."),
        Opt::switch("quiet", "Says nothing when all is well.").short('q'),
    ],
    about: "When a recorder dies in mid-session, the rest of the recording goes to another one. Each recorder then has a \
part, which can be played alone. `join` reads the parts from one or more directories, compares every byte that more than \
one of them holds, and writes the one recording, byte for byte as the client encoded it.

A hole, or two parts that differ, is an error that names the offset; what is written before it is right, and nothing is \
ever merged.",
    exits: "1  a hole, a difference, or a part that cannot be read: there is no whole recording",
    examples: "castkeep join -o whole.cast /srv/rec1 /srv/rec2 4f3a\ncastkeep join --check part1.cast part2.cast",
    environment: true,
    stops_at_operand: false,
};

pub(crate) fn run(args: &Args) -> Result<Exit, Failure> {
    let recording = locate::one(args, "join [-o FILE] DIR... ID")?;
    let quiet = args.switch("quiet")?;
    let report = |joined: &Joined, to: &str| {
        if quiet {
            return;
        }
        let end = if joined.complete { "" } else { ", not closed in order" };
        eprintln!(
            "{}: {} bytes out of {} part{}, {} bytes held twice and equal{end}{to}",
            crate::cast::text::escape_control(&recording.id),
            joined.bytes,
            joined.parts,
            if joined.parts == 1 { "" } else { "s" },
            joined.overlap_bytes,
        );
    };
    let failed =
        |e: read::JoinError| Failure::new(format!("recording {} is not whole: {e}", recording.id));
    if args.switch("check")? {
        let mut out = Counting::new(io::sink(), recording.end(), Progress::before_output());
        let joined = read::join(&recording.parts, &mut out).map_err(failed)?;
        drop(out);
        report(&joined, "");
        return Ok(Exit::OK);
    }
    let Some(path) = args.path("output") else {
        // It is copied byte for byte, and nobody says that it is as harmless as a cast should be.
        if isatty(io::stdout()) {
            return Err(Failure::usage(
                "the recording goes to a file (-o FILE) or into a pipe, not to a terminal; --check writes nothing",
            ));
        }
        let out = BufWriter::new(io::stdout().lock());
        let mut out = Counting::new(out, recording.end(), Progress::beside_output());
        let joined = read::join(&recording.parts, &mut out).map_err(failed)?;
        out.flush().map_err(|e| Failure::new(format!("writing: {e}")))?;
        drop(out);
        report(&joined, "");
        return Ok(Exit::OK);
    };
    if path.exists() && !args.switch("force")? {
        return Err(Failure::new(format!("{} exists; --force replaces it", path.display())));
    }
    let wrong = |e: io::Error| Failure::new(format!("writing {}: {e}", path.display()));
    let (temporary, file) = beside(&path).map_err(wrong)?;
    let out = BufWriter::with_capacity(256 * 1024, file);
    let mut out = Counting::new(out, recording.end(), Progress::before_output());
    let result = read::join(&recording.parts, &mut out).map_err(failed).and_then(|joined| {
        let file = out.into_inner().into_inner().map_err(|e| wrong(e.into_error()))?;
        file.sync_all().map_err(wrong)?;
        std::fs::rename(&temporary, &path).map_err(wrong)?;
        Ok(joined)
    });
    match result {
        Ok(joined) => {
            report(&joined, &format!(", written to {}", path.display()));
            Ok(Exit::OK)
        }
        Err(failure) => {
            let _ = std::fs::remove_file(&temporary);
            Err(failure)
        }
    }
}

/// A new file in the same directory, for renaming.
fn beside(path: &Path) -> io::Result<(PathBuf, File)> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    Ok((temporary, file))
}
