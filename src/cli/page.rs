//! `castkeep play --html`: a recording and asciinema-player in one file that needs no network and no server.
//!
//! The recording is data of the page, never markup or script: JSON in which no `<` is left. The page's own policy lets run the
//! two scripts whose hashes it names, and load nothing.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::player::Settings;
use super::progress::Progress;
use super::stream::{self, Reader};
use super::{Exit, Failure};
use crate::recorder::storage::read::Recording;

mod embedded {
    include!(concat!(env!("OUT_DIR"), "/player.rs"));
}

/// Of events in a page: browsers read it whole, and need several times as much memory.
const EVENTS_BYTES: u64 = 64 * 1024 * 1024;
/// Columns and rows that a page draws; a recording may claim any number.
const SIZE_MAX: (u16, u16) = (1000, 500);
/// What is played: output, sizes and markers. Input may hold what nobody is to see over a shoulder; `cat` and `join` have all.
const PLAYED: &[u8] = b"orm";

const STYLE: &str = "body{margin:0;background:#121314;color:#c8c8c8;font:14px/1.5 sans-serif}\
header,footer{padding:.6em 1em;overflow-wrap:anywhere}main{padding:0 1em}";

/// Starts the player. What it is given to play stands in the page as JSON: a header, then the events of an asciicast of version 2.
const START: &str = "const read=(id)=>JSON.parse(document.getElementById(id).textContent);\
const say=(state)=>{document.documentElement.dataset.state=state};\
window.addEventListener('error',(e)=>say('failed: '+e.message));\
const player=AsciinemaPlayer.create({data:read('cast').map((line)=>JSON.stringify(line)).join('\\n')},\
document.getElementById('player'),read('options'));\
player.addEventListener('ended',()=>say('ended'));\
window.player=player;";

/// Writes the page into a new file that its owner alone reads, or to standard output for `-`.
pub(super) fn write(
    path: &Path,
    recording: &Recording,
    settings: &Settings,
) -> Result<Exit, Failure> {
    let (Some(js), Some(css)) = (embedded::JS, embedded::CSS) else {
        return Err(Failure::new(
            "this castkeep was built without asciinema-player: build it with `make`, which fetches it",
        ));
    };
    let reader = Reader::open(recording)?;
    let page = Page { js, css, id: &recording.id, settings };
    let wrong = |e: io::Error| Failure::new(format!("writing {}: {e}", path.display()));
    let notes = if path == Path::new("-") {
        let mut out = BufWriter::new(io::stdout().lock());
        let notes = page.write(reader, Progress::beside_output(), &mut out)?;
        out.flush().map_err(wrong)?;
        notes
    } else {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let file = file.map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => Failure::new(format!(
                "{} exists; remove it, or choose another name",
                path.display()
            )),
            _ => wrong(e),
        })?;
        let mut out = BufWriter::new(file);
        let written = page
            .write(reader, Progress::before_output(), &mut out)
            .and_then(|notes| out.flush().map_err(wrong).map(|()| notes));
        // Half a page would look like a short recording.
        written.inspect_err(|_| drop(std::fs::remove_file(path)))?
    };
    if !settings.quiet {
        stream::tell(&notes);
    }
    Ok(Exit::OK)
}

struct Page<'a> {
    js: &'a str,
    css: &'a str,
    id: &'a str,
    settings: &'a Settings,
}

impl Page<'_> {
    fn write(
        &self,
        mut reader: Reader,
        mut progress: Progress,
        out: &mut dyn Write,
    ) -> Result<Vec<String>, Failure> {
        let failed = |e: io::Error| Failure::new(format!("writing the page: {e}"));
        let header = reader.header();
        let title = header.command.clone().unwrap_or_else(|| "shell".into());
        let who = if header.ssh_user.is_empty() { &header.local_user } else { &header.ssh_user };
        let about = format!("{who}@{}: {title}", header.src_node);
        let first = json!({
            "version": 2,
            "width": known(header.width, 80).min(SIZE_MAX.0),
            "height": known(header.height, 24).min(SIZE_MAX.1),
            "timestamp": header.timestamp,
        });
        self.head(&about, out).map_err(failed)?;
        write!(out, "<script type=\"application/json\" id=\"cast\">[{}", embed(&first))
            .map_err(failed)?;
        let mut bytes = 0_u64;
        while let Some(event) = reader.next()? {
            let (done, total) = reader.position();
            progress.bytes("read", done, total);
            if !PLAYED.contains(&event.code) {
                continue;
            }
            let data = if event.code == b'r' {
                let Some((cols, rows)) = size(&event.data) else { continue };
                format!("{cols}x{rows}")
            } else {
                event.data
            };
            let seconds = event.time as f64 / 1e6;
            let line = embed(&json!([seconds, char::from(event.code).to_string(), data]));
            bytes += line.len() as u64;
            if bytes > EVENTS_BYTES {
                return Err(Failure::new(format!(
                    "the recording is too long for a page (more than {} MiB of events): `play` and `cat` show it here",
                    EVENTS_BYTES >> 20
                )));
            }
            write!(out, ",\n{line}").map_err(failed)?;
        }
        progress.clear();
        self.foot(out).map_err(failed)?;
        Ok(reader.notes())
    }

    fn head(&self, about: &str, out: &mut dyn Write) -> io::Result<()> {
        let about = escape(about);
        // The player's terminal is WebAssembly out of its own script, and it sets styles on what it draws.
        write!(
            out,
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src 'sha256-{}' 'sha256-{}' \
             'wasm-unsafe-eval'; style-src 'unsafe-inline'; img-src data:; font-src data:; base-uri 'none'; form-action 'none'\">\n\
             <meta name=\"referrer\" content=\"no-referrer\">\n\
             <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
             <title>{about}</title>\n<style>{}\n{STYLE}</style>\n</head>\n<body>\n<header>{about}</header>\n\
             <main id=\"player\"></main>\n<footer>recording {}, castkeep {}</footer>\n",
            hash(self.js),
            hash(START),
            self.css,
            escape(self.id),
            crate::VERSION,
        )
    }

    fn foot(&self, out: &mut dyn Write) -> io::Result<()> {
        let s = self.settings;
        let options = json!({
            "speed": s.speed,
            "idleTimeLimit": s.idle_limit.map(|us| us as f64 / 1e6),
            "startAt": s.seek as f64 / 1e6,
            // What is seen before somebody presses play: the screen after the first second of it.
            "poster": format!("npt:{}", s.seek as f64 / 1e6 + 1.0),
            "fit": "width",
        });
        write!(
            out,
            "]</script>\n<script type=\"application/json\" id=\"options\">{}</script>\n<script>{}</script>\n\
             <script>{START}</script>\n</body>\n</html>\n",
            embed(&options),
            self.js
        )
    }
}

/// JSON that nothing can end a script element with: `<` occurs within strings only, and is written as an escape there.
fn embed(value: &Value) -> String {
    value.to_string().replace('<', "\\u003c")
}

/// Text between tags.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// As CSP Level 3 names a script: base64 of the SHA-256 of its text.
fn hash(script: &str) -> String {
    crate::cast::base64_text(&Sha256::digest(script.as_bytes()))
}

/// Without a terminal a recording says 0.
const fn known(size: u16, usual: u16) -> u16 {
    if size == 0 { usual } else { size }
}

fn size(text: &str) -> Option<(u16, u16)> {
    let (cols, rows) = text.split_once('x')?;
    let number = |text: &str, most: u16| Some(text.parse::<u16>().ok()?.clamp(1, most));
    Some((number(cols, SIZE_MAX.0)?, number(rows, SIZE_MAX.1)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_recording_is_markup() {
        let hostile = "</script><script>alert(1)</script><!--\0\u{2028}";
        let text = embed(&json!([0.5, "o", hostile]));
        assert!(!text.contains('<'), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).expect("still JSON")[2], hostile);
        assert_eq!(
            escape("<a href=\"x\" b='y'>&\x1b"),
            "&lt;a href=&quot;x&quot; b=&#39;y&#39;&gt;&amp;\u{fffd}"
        );
    }

    #[test]
    fn sizes_are_bounded() {
        assert_eq!(size("80x24"), Some((80, 24)));
        assert_eq!(size("65535x0"), Some((1000, 1)));
        assert_eq!(size("80"), None);
        assert_eq!(size("-1x2"), None);
    }

    #[test]
    fn the_scripts_end_where_they_should() {
        assert!(!START.contains("</"), "the start script would end itself");
        if let Some(js) = embedded::JS {
            assert!(!js.contains("</script"), "the player's script would end itself");
        }
    }
}
