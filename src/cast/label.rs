//! Labels of our own markers, and how they are read.

/// From here on, `o` events are standard error.
pub const STDERR: &str = "castkeep:stderr";
/// From here on, `o` events are standard output again.
pub const STDOUT: &str = "castkeep:stdout";
/// The session was ended because its recording failed.
pub const TERMINATED: &str = "castkeep:terminated";
/// Begins the marker for a signal that ended the program; its name follows.
pub const SIGNAL: &str = "castkeep:signal ";
/// Begins the marker for output that was shown and not recorded: `castkeep:gap bytes=<n> ms=<n>`.
pub const GAP: &str = "castkeep:gap ";

/// Bytes and milliseconds of a gap marker.
#[must_use]
pub fn parse_gap(label: &str) -> Option<(u64, u64)> {
    let (bytes, ms) = label.strip_prefix(GAP)?.strip_prefix("bytes=")?.split_once(" ms=")?;
    Some((bytes.parse().ok()?, ms.parse().ok()?))
}
