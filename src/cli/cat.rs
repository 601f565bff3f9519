//! `castkeep cat`.

use std::io::{self, BufWriter, Write};

use super::play::writing;
use super::progress::Progress;
use super::stream::{self, Reader};
use super::transcript::Screen;
use super::{Args, Exit, Failure, Opt, Spec, locate};
use crate::cast::{label, parse_size};

pub(crate) const SPEC: Spec = Spec {
    name: "cat",
    summary: "prints the text of a recording",
    operands: "FILE... | DIR... ID | ID",
    options: &[
        Opt::switch("no-screens", "Leaves out what full-screen programs (editors, pagers) showed last."),
        Opt::switch("quiet", "Says nothing about holes and what could not be read.").short('q'),
    ],
    about: "Prints, as plain text, what was shown in a session: every line that stood on the screen or scrolled off it, without \
colours, with what was corrected while typing corrected. Recordings are named as for `play`.

Of a full-screen program the last screen is printed, each line behind `| `, where the program was started. Output that was \
shown and not recorded leaves a line that says so. Control characters are never printed, whatever the recording holds.",
    exits: "",
    examples: "castkeep cat session.cast
castkeep cat /srv/rec1 /srv/rec2 4f3a | grep password",
    environment: true,
    stops_at_operand: false,
};

pub(crate) fn run(args: &Args) -> Result<Exit, Failure> {
    let screens = !args.switch("no-screens")?;
    let quiet = args.switch("quiet")?;
    let recording = locate::one(args, "cat FILE | DIR... ID")?;
    let mut reader = Reader::open(&recording)?;
    let mut out = BufWriter::with_capacity(64 * 1024, io::stdout().lock());
    let written = print(&mut reader, screens, &mut out)?;
    match written.and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(Exit::OK),
        written => written.map_err(writing)?,
    }
    if !quiet {
        stream::tell(&reader.notes());
    }
    Ok(Exit::OK)
}

fn print(
    reader: &mut Reader,
    screens: bool,
    out: &mut impl Write,
) -> Result<io::Result<()>, Failure> {
    let (cols, rows) = reader.header().display_size();
    let rows_first = reader.header().rows_first();
    // Without a terminal nobody put a carriage return before the line feed.
    let bare = reader.header().width == 0;
    let Some(mut screen) = Screen::new(cols, rows, screens) else {
        return Err(Failure::new("the recording has no size"));
    };
    let mut progress = Progress::beside_output();
    while let Some(event) = reader.next()? {
        let (done, total) = reader.position();
        progress.bytes("read", done, total);
        match event.code {
            b'o' if bare => screen.feed(&event.data.replace('\n', "\r\n"), event.time),
            b'o' => screen.feed(&event.data, event.time),
            b'r' => {
                if let Some((cols, rows)) = parse_size(&event.data, rows_first) {
                    screen.resize(cols, rows);
                }
            }
            b'm' => {
                if let Some((bytes, ms)) = label::parse_gap(&event.data) {
                    let seconds = ms as f64 / 1e3;
                    screen.note(format!("[{bytes} bytes in {seconds:.1} s were not recorded]"));
                }
            }
            _ => {}
        }
        let text = screen.take();
        if let Err(e) = out.write_all(text.as_bytes()) {
            return Ok(Err(e));
        }
    }
    Ok(out.write_all(screen.finish().as_bytes()))
}
