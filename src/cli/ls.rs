//! `castkeep ls`: which recordings there are.

use std::fmt::Write as _;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use serde_json::{Value, json};

use super::progress::size;
use super::{Args, Exit, Failure, Opt, Spec, locate};
use crate::cast::text::escape_control;
use crate::recorder::storage::read::{Kept, Recording};
use crate::recorder::storage::{By, Ended, PeerFacts, format_time, parse_time};

pub(crate) const SPEC: Spec = Spec {
    name: "ls",
    summary: "lists recordings of one or several recorders",
    operands: "[DIR...]",
    options: &[
        Opt::switch("json", "One JSON object a line instead of the table."),
        Opt::value("node", "NAME", "Only recordings that this node uploaded (or whose header names it)."),
        Opt::value("user", "NAME", "Only sessions of this user: as asked for, local, or on the source node."),
        Opt::value("since", "TIME", "Only those that began then or later: 2026-11-23 or 2026-11-23T05:00:00, UTC."),
        Opt::value("until", "TIME", "Only those that began before."),
        Opt::value(
            "state",
            "STATE",
            "Only those in this state: live, sealed, moved, truncated, interrupted, error, foreign, broken.",
        ),
        Opt::switch("reverse", "Newest first.").short('r'),
    ],
    about: "Reads the directories of recorders (given, or else the one that `serve` stores into: `dst` in the configuration file, $CASTKEEP_SERVE_DST) and lists what they hold, \
oldest first. Parts of one recording in several directories are one line. It only reads: a running recorder is not disturbed.

NODE is the name that the recorder authenticated (a client certificate, Tailscale's WhoIs), else what the recording says of itself. USER and COMMAND are always \
what the recording says. `--json` tells them apart: `verified` is null when nothing was authenticated.

A file that cannot be read is listed as broken, with the reason; the others are as always.",
    exits: "",
    examples: "castkeep ls /var/lib/castkeep\ncastkeep ls --json --since 2026-11-01 /srv/rec1 /srv/rec2",
    environment: true,
    stops_at_operand: false,
};

pub(crate) fn run(args: &Args) -> Result<Exit, Failure> {
    let mut dirs: Vec<PathBuf> = args.operands().iter().map(PathBuf::from).collect();
    if dirs.is_empty() {
        dirs.extend(args.store().map(PathBuf::from));
    }
    if dirs.is_empty() {
        return Err(Failure::usage("which directory? usage: castkeep ls [OPTIONS] DIR..."));
    }
    let time = |name: &str| {
        args.string(name).and_then(|text| {
            text.map(|t| {
                parse_time(&t).ok_or_else(|| args.wrong(name, "a time such as 2026-11-23T05:00:00"))
            })
            .transpose()
        })
    };
    let (since, until) = (time("since")?, time("until")?);
    let (node, user) = (args.string("node")?, args.string("user")?);
    let state = args.string("state")?;
    if let Some(state) = &state
        && !STATES.contains(&state.as_str())
    {
        return Err(args.wrong("state", &format!("one of {}", STATES.join(", "))));
    }
    let mut all = locate::list(&dirs)?;
    all.retain(|r| {
        let started = r.started_us();
        since.is_none_or(|t| started >= t)
            && until.is_none_or(|t| started < t)
            && state.as_deref().is_none_or(|s| state_of(r) == s)
            && node.as_deref().is_none_or(|n| is_on(r, n))
            && user.as_deref().is_none_or(|u| is_of(r, u))
    });
    if args.switch("reverse")? {
        all.reverse();
    }
    let mut out = BufWriter::new(io::stdout().lock());
    let written = if args.switch("json")? {
        all.iter().try_for_each(|r| writeln!(out, "{}", in_ascii(&to_json(r))))
    } else {
        table(&all).and_then(|text| out.write_all(text.as_bytes()))
    };
    match written.and_then(|()| out.flush()) {
        // `castkeep ls | head` is no failure.
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(format!("writing the list: {e}")))
        }
        _ => Ok(Exit::OK),
    }
}

const STATES: [&str; 8] =
    ["live", "sealed", "moved", "truncated", "interrupted", "error", "foreign", "broken"];

/// One word for how a recording stands: that of the part that reaches farthest.
fn state_of(recording: &Recording) -> &'static str {
    match recording.last().map(|p| &p.kept) {
        Some(Kept::Closed(how)) => match how {
            Ended::Sealed => "sealed",
            Ended::Moved => "moved",
            Ended::Truncated => "truncated",
            Ended::Interrupted => "interrupted",
            Ended::Error => "error",
        },
        Some(Kept::Open) => "live",
        Some(Kept::Foreign) => "foreign",
        Some(Kept::Broken(_)) | None => "broken",
    }
}

fn is_on(recording: &Recording, node: &str) -> bool {
    let named =
        recording.header().and_then(|h| h.castkeep.as_ref()).is_some_and(|c| c.node == node);
    named
        || recording.parts.iter().any(|p| p.node == node || p.peer == node)
        || verified_node(recording) == Some(node)
}

fn is_of(recording: &Recording, user: &str) -> bool {
    recording.header().is_some_and(|h| {
        h.ssh_user == user || h.local_user == user || h.src_node_user.as_deref() == Some(user)
    })
}

fn to_json(recording: &Recording) -> Value {
    let header = recording.header();
    let own = header.and_then(|h| h.castkeep.as_ref());
    let parts: Vec<Value> = recording
        .parts
        .iter()
        .map(|p| {
            let error = match &p.kept {
                Kept::Broken(why) => Some(why.as_str()),
                _ => p.reason.as_deref(),
            };
            json!({
                "file": p.path.to_string_lossy(),
                "node": p.node,
                "peer": p.peer,
                "verified": p.verified.as_ref().map(verified),
                "state": state_of(&Recording { id: String::new(), parts: vec![p.clone()] }),
                "start": p.start,
                "end": p.end,
                "started": time_or_null(Some(p.started_us)),
                "ended": time_or_null(p.ended_us),
                "error": error,
                "conflict": p.conflict,
            })
        })
        .collect();
    json!({
        "id": recording.id,
        "recording": recording.parts.iter().find_map(|p| p.recording.as_deref()),
        "state": state_of(recording),
        "started": time_or_null(Some(recording.started_us())),
        "ended": time_or_null(recording.ended_us()),
        "bytes": recording.end(),
        "node": own.map(|c| c.node.as_str()),
        "kind": own.map(|c| c.kind.as_str()),
        "command": header.and_then(|h| h.command.as_deref()),
        "sshUser": header.map(|h| h.ssh_user.as_str()),
        "localUser": header.map(|h| h.local_user.as_str()),
        "srcNode": header.map(|h| h.src_node.as_str()),
        "srcNodeUser": header.and_then(|h| h.src_node_user.as_deref()),
        "width": header.map(|h| h.width),
        "height": header.map(|h| h.height),
        "parts": parts,
    })
}

/// What the recorder authenticated of who uploaded.
fn verified(peer: &PeerFacts) -> Value {
    json!({
        "identity": peer.identity,
        "by": peer.about.by.map(By::word),
        "name": Some(&peer.about.name).filter(|n| !n.is_empty()),
        "user": peer.about.user,
        "tags": peer.about.tags,
    })
}

/// The name of the node that uploaded, as far as it was authenticated.
fn verified_node(recording: &Recording) -> Option<&str> {
    let peer = recording.parts.iter().find_map(|p| p.verified.as_ref())?;
    Some(peer.about.name.as_str()).filter(|n| !n.is_empty()).or(peer.identity.as_deref())
}

/// JSON lets all but the oldest controls stand in a string; a terminal does not.
fn in_ascii(value: &Value) -> String {
    let text = value.to_string();
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if escape_control(c.encode_utf8(&mut [0; 4])).starts_with('\\') && c != '\\' {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    out
}

fn time_or_null(us: Option<u64>) -> Value {
    us.filter(|t| *t > 0).map_or(Value::Null, |t| Value::String(format_time(t)))
}

/// The table, columns as wide as they need be; the last one is cut to the terminal.
fn table(all: &[Recording]) -> io::Result<String> {
    let head =
        ["STARTED (UTC)", "LASTED", "STATE", "SIZE", "PARTS", "USER", "NODE", "ID", "COMMAND"];
    let mut rows: Vec<[String; 9]> = Vec::with_capacity(all.len());
    for recording in all {
        rows.push(row(recording));
    }
    let mut widths = head.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let terminal =
        rustix::termios::tcgetwinsize(io::stdout()).ok().map(|size| usize::from(size.ws_col));
    let mut out = String::new();
    for row in std::iter::once(&head.map(str::to_owned)).chain(&rows) {
        let mut line = String::new();
        for (i, (cell, width)) in row.iter().zip(widths).enumerate() {
            let last = i + 1 == row.len();
            let width = if last { 0 } else { width };
            let _ = write!(line, "{cell:<width$}");
            if !last {
                line.push_str("  ");
            }
        }
        let line = line.trim_end();
        match terminal.filter(|t| *t > 40 && line.chars().count() > *t) {
            Some(t) => {
                out.extend(line.chars().take(t - 1));
                out.push('…');
            }
            None => out.push_str(line),
        }
        out.push('\n');
    }
    Ok(out)
}

fn row(recording: &Recording) -> [String; 9] {
    let safe = |text: &str| escape_control(text).into_owned();
    let started = recording.started_us();
    let when = if started > 0 { format_time(started).replace('T', " ") } else { "-".into() };
    let when = when.get(..19).unwrap_or(&when).to_owned();
    let lasted = match recording.lasted_us() {
        Some(us) if started > 0 => lasted(us / 1_000_000),
        _ => "-".into(),
    };
    let header = recording.header();
    let user = header.map_or_else(String::new, |h| {
        let user = if h.local_user.is_empty() { &h.ssh_user } else { &h.local_user };
        match &h.src_node_user {
            Some(from) => format!("{user} ({from})"),
            None => user.clone(),
        }
    });
    let own = header.and_then(|h| h.castkeep.as_ref());
    let claimed = own.map(|c| c.node.as_str()).filter(|n| !n.is_empty());
    let node = verified_node(recording).or(claimed);
    let node = node.or_else(|| recording.parts.first().map(|p| p.node.as_str())).unwrap_or("");
    let command = match (recording.last().map(|p| &p.kept), header) {
        (Some(Kept::Broken(why)), _) => format!("({why})"),
        (_, Some(h)) => h.command.clone().unwrap_or_else(|| "(shell)".into()),
        (_, None) => String::new(),
    };
    let id = if recording.id.len() == 32 && recording.id.is_ascii() {
        recording.id.get(..12).unwrap_or_default().to_owned()
    } else {
        safe(&recording.id)
    };
    [
        when,
        lasted,
        state_of(recording).to_owned(),
        size(recording.end()),
        recording.parts.len().to_string(),
        safe(&user),
        safe(node),
        id,
        safe(&command),
    ]
}

fn lasted(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
    }
}
