//! What the reading commands are pointed at: files, directories of recorders, recording ids.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::progress::Progress;
use super::{Args, Failure};
use crate::cast::text::escape_control;
use crate::recorder::storage::read::{self, Recording};

/// Everything in some directories, by recording.
pub(crate) fn list(dirs: &[PathBuf]) -> Result<Vec<Recording>, Failure> {
    let mut parts = Vec::new();
    let mut progress = Progress::before_output();
    for dir in dirs {
        let before = parts.len();
        let mut tell = |found: usize| progress.show(|| format!("{} files read", before + found));
        parts.extend(read::parts_telling(dir, &mut tell).map_err(|e| {
            Failure::new(format!("cannot read the directory {}: {e}", dir.display()))
        })?);
    }
    Ok(read::group(parts))
}

/// One recording from operands: `FILE...`, `DIR... ID`, `DIR...` with a single recording in it, or an ID in the directory of
/// this machine's recorder.
pub(crate) fn one(args: &Args, usage: &str) -> Result<Recording, Failure> {
    let operands = args.operands();
    let Some(last) = operands.last() else {
        return Err(Failure::usage(format!("which recording? usage: castkeep {usage}")));
    };
    let paths: Vec<&Path> = operands.iter().map(Path::new).collect();
    if paths.iter().all(|p| p.is_file()) {
        let mut found = read::group(paths.iter().map(|p| read::file(p)).collect());
        return match found.len() {
            1 => Ok(found.remove(0)),
            n => Err(Failure::new(format!(
                "these files belong to {n} recordings; name those of one"
            ))),
        };
    }
    let (dirs, wanted) = match operands.split_last() {
        Some((_, dirs)) if !Path::new(last).is_dir() => (dirs, Some(last.to_string_lossy())),
        _ => (operands, None),
    };
    let own: Vec<OsString>;
    let dirs = match args.store() {
        Some(store) if dirs.is_empty() => {
            own = vec![store.as_os_str().to_owned()];
            own.as_slice()
        }
        _ => dirs,
    };
    if dirs.is_empty() {
        let shown = last.to_string_lossy();
        return Err(Failure::new(format!(
            "`{}` is neither a file nor a directory; a recording id needs the directory before it",
            escape_control(&shown)
        )));
    }
    for dir in dirs {
        if !Path::new(dir).is_dir() {
            let shown = dir.to_string_lossy();
            return Err(Failure::new(format!(
                "there is no directory `{}`",
                escape_control(&shown)
            )));
        }
    }
    let dirs: Vec<PathBuf> = dirs.iter().map(PathBuf::from).collect();
    let mut found = list(&dirs)?;
    if let Some(wanted) = &wanted {
        found.retain(|r| r.is_called(wanted));
    }
    match (found.len(), wanted) {
        (1, _) => Ok(found.remove(0)),
        (0, Some(wanted)) => Err(Failure::new(format!(
            "there is no recording `{}` (at least the first four characters of its id; `castkeep ls` lists them)",
            escape_control(&wanted)
        ))),
        (0, None) => Err(Failure::new("there is no recording in the directory")),
        (n, Some(wanted)) => Err(Failure::new(format!(
            "{n} recordings begin with `{}`: {}",
            escape_control(&wanted),
            some_ids(&found)
        ))),
        (n, None) => Err(Failure::new(format!("which of {n} recordings? {}", some_ids(&found)))),
    }
}

fn some_ids(found: &[Recording]) -> String {
    let mut ids: Vec<String> =
        found.iter().take(8).map(|r| escape_control(&r.id).into_owned()).collect();
    if found.len() > ids.len() {
        ids.push("…".into());
    }
    ids.join(" ")
}
