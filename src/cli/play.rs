//! `castkeep play`.

use std::io::{self, BufWriter, Write};

use rustix::termios::isatty;

use super::player::{Player, Settings};
use super::progress::Progress;
use super::stream::{self, Reader};
use super::{Args, Exit, Failure, Opt, Spec, locate, page};
use crate::cast::{Event, Raw};
use crate::time::Span;

pub(crate) const SPEC: Spec = Spec {
    name: "play",
    summary: "plays a recording in the terminal",
    operands: "FILE... | DIR... ID | ID",
    options: &[
        Opt::value("speed", "N", "How many times as fast: 2, 0.5, 1000. Default 1.").short('s'),
        Opt::value("idle-limit", "TIME", "No pause of the recording is longer than this; `none`: as recorded. Default 1m.")
            .short('i'),
        Opt::value("seek", "TIME", "Shows what was before this time at once, and plays from there: 90s, 5m."),
        Opt::switch(
            "raw",
            "Writes the exact bytes that the session wrote to standard output, at once, and nothing else. They are not \
             made safe, so standard output must not be a terminal.",
        ),
        Opt::value(
            "html",
            "FILE",
            "Writes a page that plays the recording in a browser: one file that needs no network. `-`: standard output.",
        ),
        Opt::switch("quiet", "Says nothing about holes, gaps and the end.").short('q'),
    ],
    about: "Plays a cast, or a recording out of the directories of recorders: by its id, or the first four characters of it \
or more. Parts in several directories are played as one. An ID alone is looked up in the directory that `serve` stores \
into (`dst` in the configuration file, $CASTKEEP_SERVE_DST).

A recording may hold anything. Only what draws is let through to the terminal: text, colours, cursor, erasing, the \
alternate screen. Titles, the clipboard, queries that a terminal answers, and all else is dropped.

With --html the page holds the recording's output, sizes and markers, and takes --speed, --idle-limit and --seek along. The file must not exist, and only its owner can read it.

On a terminal these keys work: space pauses, `.` shows the next event and pauses, right and left go 5 seconds forward and \
back, `+` and `-` double and halve the speed, q ends it.",
    exits: "",
    examples: "castkeep play session.cast
castkeep play --idle-limit 1s --speed 2 /var/lib/castkeep 4f3a
castkeep play --html session.html /var/lib/castkeep 4f3a
castkeep play --raw /srv/rec1 /srv/rec2 4f3a >output",
    environment: true,
    stops_at_operand: false,
};

pub(crate) fn run(args: &Args) -> Result<Exit, Failure> {
    let speed = args.parse_as::<f64>("speed", "a number above 0")?.unwrap_or(1.0);
    if !(speed.is_finite() && speed > 0.0) {
        return Err(args.wrong("speed", "a number above 0"));
    }
    let micros = |name: &str| {
        let time = args.duration(name)?;
        Ok(time.map(|t| u64::try_from(t.as_micros()).unwrap_or(u64::MAX)))
    };
    let seek = micros("seek")?;
    let tell_cuts = !args.is_given("idle-limit");
    let idle_limit = match args.string("idle-limit")?.as_deref() {
        Some("none") => None,
        Some(_) => micros("idle-limit")?,
        None => Some(IDLE_LIMIT_US),
    };
    let quiet = args.switch("quiet")?;
    let recording = locate::one(args, "play FILE | DIR... ID")?;
    if args.switch("raw")? {
        if args.is_given("html") {
            return Err(Failure::usage("--raw and --html are two different outputs: choose one"));
        }
        if isatty(io::stdout()) {
            return Err(Failure::usage(
                "--raw writes whatever the session wrote, so not to a terminal: send it to a file or a pipe",
            ));
        }
        return raw(Reader::open(&recording)?, quiet);
    }
    let settings = Settings { speed, idle_limit, tell_cuts, seek: seek.unwrap_or(0), quiet };
    if let Some(path) = args.path("html") {
        return page::write(&path, &recording, &settings);
    }
    Player::new(recording, settings)?.play()
}

/// Nobody looks at a still screen for longer; and a recording may claim a pause of years.
const IDLE_LIMIT_US: u64 = 60_000_000;

/// The exact bytes.
fn raw(mut reader: Reader, quiet: bool) -> Result<Exit, Failure> {
    let mut out = BufWriter::with_capacity(256 * 1024, io::stdout().lock());
    let mut exact = Raw::new();
    let mut progress = Progress::beside_output();
    loop {
        let (done, total) = reader.position();
        progress.bytes("read", done, total);
        let event = reader.next()?;
        let last = event.is_none();
        let whole = match event {
            Some(event) => exact.push(&Event {
                time: Span(event.time),
                code: event.code,
                data: event.data.into(),
            }),
            None => exact.finish(),
        };
        if let Some(event) = whole.filter(|e| e.code == b'o') {
            match out.write_all(&event.data) {
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(Exit::OK),
                written => written.map_err(writing)?,
            }
        }
        if last {
            break;
        }
    }
    match out.flush() {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => return Err(writing(e)),
        _ => {}
    }
    progress.clear();
    if !quiet {
        stream::tell(&reader.notes());
    }
    Ok(Exit::OK)
}

pub(super) fn writing(e: io::Error) -> Failure {
    Failure::new(format!("writing: {e}"))
}
