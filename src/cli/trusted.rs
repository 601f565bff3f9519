//! Whether a path is root's alone: nobody else can change what stands there, nor put something else in its place.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use super::Failure;

/// The file that an absolute path leads to, when every directory and link on the way, and it itself, belong to root and are writable
/// by root alone.
pub(super) fn file(path: &Path) -> Result<(PathBuf, Metadata), Failure> {
    let mut way: VecDeque<OsString> = parts(path);
    let mut at = PathBuf::from("/");
    let mut facts = look(&at)?;
    let mut links = 0;
    while let Some(name) = way.pop_front() {
        if name == ".." {
            at.pop();
            facts = look(&at)?;
            continue;
        }
        let next = at.join(name);
        facts = look(&next)?;
        if !facts.is_symlink() {
            at = next;
            continue;
        }
        links += 1;
        if links > LINKS_MAX {
            return Err(refused(path, "leads through too many links"));
        }
        let target = fs::read_link(&next).map_err(|e| refused(&next, &format!("{e}")))?;
        if target.is_absolute() {
            at = PathBuf::from("/");
        }
        for name in parts(&target).into_iter().rev() {
            way.push_front(name);
        }
    }
    if facts.is_file() { Ok((at, facts)) } else { Err(refused(path, "is not a file")) }
}

fn parts(path: &Path) -> VecDeque<OsString> {
    let named = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    named.collect()
}

fn look(at: &Path) -> Result<Metadata, Failure> {
    let facts =
        fs::symlink_metadata(at).map_err(|e| refused(at, &format!("cannot be used: {e}")))?;
    if facts.uid() != 0 {
        return Err(refused(at, "does not belong to root"));
    }
    // The mode of a link means nothing. An access list shows in the bits of the group.
    if !facts.is_symlink() && facts.mode() & 0o022 != 0 {
        return Err(refused(at, "can be written by others than root"));
    }
    Ok(facts)
}

fn refused(at: &Path, why: &str) -> Failure {
    Failure::new(format!("{}: {why}", at.display()))
}

/// As many as the kernel follows.
const LINKS_MAX: u32 = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_roots_is_refused() {
        let dir = std::env::temp_dir().join(format!("castkeep-owner-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("castkeep.hujson");
        fs::write(&path, "{}").unwrap();
        // The directory for temporary files is writable by everybody.
        let error = file(&path).unwrap_err().text();
        assert!(error.contains("by others than root"), "{error}");
        fs::remove_dir_all(&dir).unwrap();
        let missing = file(Path::new("/etc/no-such-file-here")).unwrap_err().text();
        assert!(missing.contains("cannot be used"), "{missing}");
        let directory = file(Path::new("/etc/")).unwrap_err().text();
        assert!(directory.contains("is not a file"), "{directory}");
    }

    #[test]
    fn links_are_followed_to_where_they_lead() {
        // On every system that runs this, one of them is a link or stands below one.
        for path in ["/bin/sh", "/usr/../bin/sh", "/proc/self/../../bin/sh"] {
            let (found, facts) = file(Path::new(path)).unwrap();
            assert_eq!(found, fs::canonicalize(path).unwrap());
            assert_eq!(facts.ino(), fs::metadata(path).unwrap().ino());
        }
    }
}
