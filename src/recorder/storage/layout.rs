//! Names and directories: docs/storage.md, the tree and §1. Everything is opened relative to an open directory, and no link
//! is followed.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use sha2::{Digest as _, Sha256};

use super::disk::Disk;
use super::{Peer, StoreError};

/// Names in the root that no node may have.
const RESERVED: [&str; 5] = ["open", "events", "index", "lock", "castkeep.json"];
/// Longest node name; a file name may have 255 bytes, and `open/` puts the stamp behind it.
const NODE_BYTES: usize = 120;
/// Tries for a free name: that many sessions of one node in one microsecond.
const SUFFIXES: u32 = 1_000;

/// The name that a peer is stored under.
pub(crate) fn peer_name(peer: &Peer) -> String {
    match peer.identity.as_deref().filter(|_| peer.verified) {
        Some(identity) => node_name(identity.as_bytes()),
        None => node_name(ip_text(peer.address.ip()).as_bytes()),
    }
}

fn ip_text(ip: IpAddr) -> String {
    ip.to_canonical().to_string()
}

/// The total function of docs/storage.md §1, from its second step on.
#[must_use]
pub fn node_name(name: &[u8]) -> String {
    let mut out = String::with_capacity(name.len());
    let escape = |out: &mut String, byte: u8| out.push_str(&format!("={byte:02X}"));
    for (i, &byte) in name.iter().enumerate() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => out.push(char::from(byte)),
            b'.' if i > 0 => out.push('.'),
            _ => escape(&mut out, byte),
        }
    }
    if out.is_empty() {
        out.push('=');
    }
    if RESERVED.contains(&out.as_str()) {
        let mut escaped = String::new();
        escape(&mut escaped, out.as_bytes()[0]);
        out.replace_range(..1, &escaped);
    }
    if out.len() > NODE_BYTES {
        let hash = hex(&Sha256::digest(out.as_bytes()));
        let mut end = 80;
        // Not through the middle of an `=XX`.
        if let Some(at) = out[..end].rfind('=')
            && at + 3 > end
        {
            end = at;
        }
        out.truncate(end);
        out.push_str("=.");
        out.push_str(&hash[..32]);
    }
    out
}

/// Whether a name can have come from [`node_name`]: one that is read back from a file must not lead elsewhere.
pub(crate) fn is_node_name(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'=');
    !name.is_empty()
        && name.len() <= NODE_BYTES
        && !name.starts_with('.')
        && !RESERVED.contains(&name)
        && name.bytes().all(fits)
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, b| {
        let _ = write!(out, "{b:02x}");
        out
    })
}

/// The open directories of a store.
#[derive(Debug)]
pub(crate) struct Dirs {
    root: File,
    open: File,
    dir_mode: Mode,
    file_mode: Mode,
}

const DIR: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

impl Dirs {
    pub(crate) fn open(dst: &Path, group_readable: bool) -> Result<Self, StoreError> {
        let (dir_mode, file_mode) = if group_readable { (0o750, 0o640) } else { (0o700, 0o600) };
        let (dir_mode, file_mode) = (Mode::from_raw_mode(dir_mode), Mode::from_raw_mode(file_mode));
        let shown = dst.display();
        let made = match rustix::fs::mkdir(dst, dir_mode) {
            Ok(()) => true,
            Err(rustix::io::Errno::EXIST) => false,
            Err(e) => {
                return Err(StoreError::new(
                    format!("making the storage directory {shown}"),
                    e,
                    "make it by hand, writable for the recorder's user",
                ));
            }
        };
        // The path itself may be a link: it is the administrator's.
        let root = rustix::fs::open(dst, DIR.difference(OFlags::NOFOLLOW), Mode::empty()).map_err(
            |e| {
                StoreError::new(
                    format!("opening the storage directory {shown}"),
                    e,
                    "it must be a directory that the recorder's user may read and write",
                )
            },
        )?;
        let root = File::from(root);
        let writable = |e: io::Error| {
            StoreError::new(
                format!("writing to the storage directory {shown}"),
                e,
                "it must be writable for the recorder's user",
            )
        };
        let (open, _) = subdirectory(&root, "open", dir_mode).map_err(writable)?;
        root.sync_all().map_err(writable)?;
        if made && let Some(parent) = dst.parent() {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            File::open(parent).and_then(|p| p.sync_all()).map_err(writable)?;
        }
        Ok(Self { root, open, dir_mode, file_mode })
    }

    pub(crate) fn root(&self) -> &File {
        &self.root
    }

    pub(crate) fn open_dir(&self) -> &File {
        &self.open
    }

    /// One recorder a directory.
    pub(crate) fn lock(&self, dst: &Path) -> Result<File, StoreError> {
        let what = format!("locking {}", dst.join("lock").display());
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let lock = rustix::fs::openat(&self.root, "lock", flags, self.file_mode).map_err(|e| {
            StoreError::new(&what, e, "the directory must be writable for the recorder's user")
        })?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|e| {
            if e == rustix::io::Errno::WOULDBLOCK {
                StoreError::new(
                    &what,
                    "another recorder is running on this directory",
                    "stop it, or give this one a directory of its own",
                )
            } else {
                StoreError::new(&what, e, "the file system must support flock(2)")
            }
        })?;
        Ok(File::from(lock))
    }

    /// Reads or writes `castkeep.json`.
    pub(crate) fn check_layout(&self, dst: &Path, disk: &dyn Disk) -> Result<(), StoreError> {
        let name = "castkeep.json";
        let what = format!("reading {}", dst.join(name).display());
        match self.read(&self.root, name, 4096) {
            Ok(bytes) => {
                let layout = serde_json::from_slice::<serde_json::Value>(&bytes)
                    .ok()
                    .and_then(|v| v.get("layout").and_then(serde_json::Value::as_u64));
                match layout {
                    Some(1) => Ok(()),
                    Some(n) => Err(StoreError::new(
                        what,
                        format!("the directory has layout {n}, this version knows layout 1"),
                        "use the castkeep that wrote it, or another directory",
                    )),
                    None => Err(StoreError::new(
                        what,
                        "it does not name a layout",
                        "if this is a castkeep directory, put {\"layout\":1} into that file",
                    )),
                }
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                // Under another name first: a kill in between must not leave a directory that cannot be opened.
                let new = "castkeep.json.new";
                let write = || -> io::Result<()> {
                    let _ = rustix::fs::unlinkat(&self.root, new, AtFlags::empty());
                    let file = self.create(&self.root, new)?;
                    disk.write_at(&file, b"{\"layout\":1}\n", 0)?;
                    disk.sync(&file)?;
                    rustix::fs::renameat(&self.root, new, &self.root, name)?;
                    disk.sync_dir(&self.root)
                };
                write().map_err(|e| {
                    StoreError::new(
                        format!("writing {}", dst.join(name).display()),
                        e,
                        "the directory must be writable for the recorder's user",
                    )
                })
            }
            Err(e) => Err(StoreError::new(what, e, "it must be a readable file")),
        }
    }

    /// A new file, exclusively.
    pub(crate) fn create(&self, dir: &File, name: &str) -> io::Result<File> {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        Ok(File::from(rustix::fs::openat(dir, name, flags, self.file_mode)?))
    }

    /// A file to append to, made when it is missing.
    pub(crate) fn append(&self, dir: &File, name: &str) -> io::Result<File> {
        match self.create(dir, name) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                open_regular(dir, name, OFlags::RDWR)
            }
            made => made,
        }
    }

    /// A file that exists, for reading and writing.
    pub(crate) fn edit(&self, dir: &File, name: &str) -> io::Result<File> {
        open_regular(dir, name, OFlags::RDWR)
    }

    /// The content of a small file.
    pub(crate) fn read(&self, dir: &File, name: &str, max: u64) -> io::Result<Vec<u8>> {
        use std::io::Read as _;
        let mut bytes = Vec::new();
        open_regular(dir, name, OFlags::RDONLY)?.take(max).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// A node's directory, made when it is missing. The commit group syncs its parent.
    pub(crate) fn node(&self, name: &str) -> io::Result<File> {
        Ok(subdirectory(&self.root, name, self.dir_mode)?.0)
    }

    /// `events/`, durable: whoever made it may have died before its parent was synced.
    pub(crate) fn events(&self, disk: &dyn Disk) -> io::Result<File> {
        let (dir, _) = subdirectory(&self.root, "events", self.dir_mode)?;
        disk.sync_dir(&self.root)?;
        Ok(dir)
    }

    /// A node's directory that must exist.
    pub(crate) fn existing_node(&self, name: &str) -> io::Result<File> {
        Ok(File::from(rustix::fs::openat(&self.root, name, DIR, Mode::empty())?))
    }

    /// Bytes of all casts of a node. What cannot be looked at counts as nothing and is logged.
    pub(crate) fn stored_bytes(&self, node: &str) -> u64 {
        let sum = || -> io::Result<u64> {
            let dir = match self.existing_node(node) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
                dir => dir?,
            };
            let mut sum = 0_u64;
            for entry in rustix::fs::Dir::read_from(&dir)? {
                let entry = entry?;
                if entry.file_name().to_bytes().ends_with(b".cast") {
                    let stat =
                        rustix::fs::statat(&dir, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW);
                    let size = stat.ok().and_then(|s| u64::try_from(s.st_size).ok());
                    sum = sum.saturating_add(size.unwrap_or(0));
                }
            }
            Ok(sum)
        };
        sum().unwrap_or_else(|e| {
            log::error!("measuring what {node} has stored: {e}");
            0
        })
    }

    /// The file of a new part and the stamp that it got.
    pub(crate) fn create_part(&self, node: &File, stamp: &str) -> io::Result<(File, String)> {
        for n in 1..=SUFFIXES {
            let stamp = if n == 1 { stamp.to_owned() } else { format!("{stamp}-{n}") };
            // A sidecar of the same name would be overwritten at the end.
            if exists(node, &format!("{stamp}.json")) {
                continue;
            }
            match self.create(node, &format!("{stamp}.cast")) {
                Ok(file) => return Ok((file, stamp)),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
            }
        }
        Err(io::Error::new(io::ErrorKind::AlreadyExists, "a thousand files have this time"))
    }
}

/// Whether anything has this name, a dangling link included.
pub(crate) fn exists(dir: &File, name: &str) -> bool {
    rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

fn subdirectory(root: &File, name: &str, mode: Mode) -> io::Result<(File, bool)> {
    let made = match rustix::fs::mkdirat(root, name, mode) {
        Ok(()) => true,
        Err(rustix::io::Errno::EXIST) => false,
        Err(e) => return Err(e.into()),
    };
    Ok((File::from(rustix::fs::openat(root, name, DIR, Mode::empty())?), made))
}

/// Opens what must be a regular file: a FIFO or device in its place would block or act.
pub(crate) fn open_regular(dir: &File, name: &str, access: OFlags) -> io::Result<File> {
    let flags = access | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = File::from(rustix::fs::openat(dir, name, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_names_are_safe_and_apart() {
        for (name, wanted) in [
            ("host.example.org", "host.example.org"),
            ("fd7a:115c::9", "fd7a=3A115c=3A=3A9"),
            ("../..", "=2E.=2F.."),
            ("..", "=2E."),
            (".", "=2E"),
            ("", "="),
            ("open", "=6Fpen"),
            ("castkeep.json", "=63astkeep.json"),
            ("a=b", "a=3Db"),
            ("a/b\0c\n", "a=2Fb=00c=0A"),
        ] {
            assert_eq!(node_name(name.as_bytes()), wanted);
        }
        let long = node_name(&[b'/'; 300]);
        assert!(long.len() <= NODE_BYTES && long.contains("=."), "{long}");
        assert_ne!(long, node_name(&[b'/'; 301]));
    }
}
