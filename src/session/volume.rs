//! Less of a file transfer: the first bytes of a stream are recorded, of the rest how many there were and their SHA-256.

use super::sha256::Sha256;

/// One stream of a program. `T` is a point in time.
#[derive(Clone, Debug)]
pub struct Volume<T> {
    left_bytes: u64,
    beyond: Option<Beyond<T>>,
}

#[derive(Clone, Debug)]
struct Beyond<T> {
    bytes: u64,
    since: T,
    hash: Sha256,
}

/// What went past the cap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftOut<T> {
    /// How many bytes.
    pub bytes: u64,
    /// When the first of them came.
    pub since: T,
    /// Of all of them.
    pub sha256: [u8; 32],
}

impl<T: Copy> Volume<T> {
    /// A stream of which so many bytes are recorded.
    #[must_use]
    pub const fn new(cap_bytes: u64) -> Self {
        Self { left_bytes: cap_bytes, beyond: None }
    }

    /// How many of the next `n` bytes are to be recorded: they come first.
    #[must_use]
    pub fn recordable(&self, n: usize) -> usize {
        usize::try_from(self.left_bytes).unwrap_or(usize::MAX).min(n)
    }

    /// So many were taken for the recording.
    pub const fn recorded(&mut self, n: usize) {
        self.left_bytes = self.left_bytes.saturating_sub(n as u64);
    }

    /// These go past the cap. True: they are the first.
    pub fn leave_out(&mut self, bytes: &[u8], now: T) -> bool {
        if bytes.is_empty() {
            return false;
        }
        let first = self.beyond.is_none();
        let new = || Beyond { bytes: 0, since: now, hash: Sha256::new() };
        let beyond = self.beyond.get_or_insert_with(new);
        beyond.bytes = beyond.bytes.saturating_add(bytes.len() as u64);
        beyond.hash.update(bytes);
        first
    }

    /// Whether something went past.
    #[must_use]
    pub const fn is_past(&self) -> bool {
        self.beyond.is_some()
    }

    /// The stream has ended: what went past, told once.
    pub fn finish(&mut self) -> Option<LeftOut<T>> {
        let Beyond { bytes, since, hash } = self.beyond.take()?;
        self.left_bytes = 0;
        Some(LeftOut { bytes, since, sha256: hash.finish() })
    }
}

/// Programs that move files, and that nobody reads the output of.
pub const TRANSFERS: [&str; 5] =
    ["scp", "rsync", "git-upload-pack", "git-receive-pack", "git-upload-archive"];

/// Whether a command is one of these programs: its first word names one, with or without a path, and nothing else is run beside it.
/// Everything is recorded; this decides how much of it, so a command in which anything has a meaning for a shell is not one.
pub fn is_transfer<'a>(command: &[u8], programs: impl IntoIterator<Item = &'a str>) -> bool {
    if command.iter().any(|b| b";&|<>()$`\n\r\0".contains(b)) {
        return false;
    }
    let first = command.split(|b| *b == b' ' || *b == b'\t').find(|word| !word.is_empty());
    let name = first.and_then(|word| word.rsplit(|b| *b == b'/').next());
    name.is_some_and(|name| programs.into_iter().any(|program| name == program.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_and_then_a_gap() {
        let mut volume = Volume::new(5);
        assert_eq!(volume.recordable(3), 3);
        volume.recorded(3);
        assert_eq!((volume.recordable(4), volume.is_past()), (2, false));
        volume.recorded(2);
        assert!(volume.leave_out(b"fg", 7));
        assert_eq!(volume.recordable(1), 0);
        assert!(!volume.leave_out(b"h", 8));
        let gap = volume.finish().unwrap();
        assert_eq!((gap.bytes, gap.since), (3, 7));
        // printf fgh | sha256sum
        assert_eq!(gap.sha256[..4], [0x36, 0xe0, 0xfd, 0x84]);
        assert_eq!(volume.finish(), None);
    }

    #[test]
    fn what_fits_leaves_no_gap() {
        let mut volume = Volume::<u8>::new(3);
        volume.recorded(3);
        assert!(!volume.leave_out(b"", 0));
        assert_eq!(volume.finish(), None);
    }

    #[test]
    fn transfers_run_nothing_else() {
        for (command, wanted) in [
            ("scp -t /tmp/x", true),
            ("/usr/bin/scp -f 'a file'", true),
            ("  rsync --server -logDtpre.iLsfxCIvu . tree/*", true),
            ("git-upload-pack '/srv/repo.git'", true),
            ("scp -t x; cat /etc/passwd", false),
            ("scp -t x && id", false),
            ("scp -t \"$(id)\"", false),
            ("scp -t `id`", false),
            ("scp -f x | sh", false),
            ("scp -t x\nid", false),
            ("scp() { id; }; scp", false),
            ("X=1 scp -t x", false),
            ("cat scp", false),
            ("scpx", false),
            ("scp/", false),
            ("", false),
        ] {
            assert_eq!(is_transfer(command.as_bytes(), TRANSFERS), wanted, "{command:?}");
        }
        assert!(!is_transfer(b"scp -t x", []));
    }
}
