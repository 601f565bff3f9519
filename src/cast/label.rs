//! Labels of our own markers, and how they are read.

/// From here on, `o` events are standard error.
pub const STDERR: &str = "castkeep:stderr";
/// From here on, `o` events are standard output again.
pub const STDOUT: &str = "castkeep:stdout";
/// The session was ended because its recording failed.
pub const TERMINATED: &str = "castkeep:terminated";
/// Begins the marker for a signal that ended the program; its name follows.
pub const SIGNAL: &str = "castkeep:signal ";
/// Begins the marker for output that was shown and not recorded: `castkeep:gap bytes=<n> ms=<n>`. Where the bytes were left out by
/// policy, ` sha256=<hex> stream=<name>` follows.
pub const GAP: &str = "castkeep:gap ";
/// Begins the marker where recording the volume of a file transfer ends: `castkeep:capped stream=<name> after=<n>`. A gap follows.
pub const CAPPED: &str = "castkeep:capped ";
/// The connection of the user was lost, or they closed it.
pub const DISCONNECTED: &str = "castkeep:disconnected";
/// The server that `sftp` talks to begins: what it is sent and what it answers are gaps, with their length and hash.
pub const SFTP: &str = "castkeep:sftp";

/// Bytes and milliseconds of a gap marker.
#[must_use]
pub fn parse_gap(label: &str) -> Option<(u64, u64)> {
    let (bytes, rest) = label.strip_prefix(GAP)?.strip_prefix("bytes=")?.split_once(" ms=")?;
    let ms = rest.split(' ').next()?;
    Some((bytes.parse().ok()?, ms.parse().ok()?))
}
