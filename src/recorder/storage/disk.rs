//! The system calls that decide about durability, behind a trait so that tests can make them fail or forget.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What time it is, by the two clocks that storage looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Microseconds since 1970 by the wall clock: names and sidecars. It can be set, to anything and at any time.
    pub wall_us: u64,
    /// Microseconds by a clock that only runs forward, also while the machine sleeps: how long something took.
    pub steady_us: u64,
}

impl Times {
    /// What the system's clocks say.
    #[must_use]
    pub fn now() -> Self {
        let steady = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let steady_us = u64::try_from(steady.tv_sec).unwrap_or(0).saturating_mul(1_000_000)
            + u64::try_from(steady.tv_nsec).unwrap_or(0) / 1_000;
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).ok();
        Self::from_clocks(wall, steady_us)
    }

    /// `wall` is the time since 1970. A clock before that counts as started in 1970 with the machine, so that names stay
    /// apart and in order; one past the year 9999 is held there, where names still have their form.
    #[must_use]
    pub fn from_clocks(wall: Option<Duration>, steady_us: u64) -> Self {
        let wall_us = match wall {
            Some(wall) => u64::try_from(wall.as_micros()).unwrap_or(u64::MAX),
            None => steady_us,
        };
        Self { wall_us: wall_us.min(WALL_MAX_US), steady_us }
    }

    /// How far the wall clock was set forward (or back) since `earlier`; below one second it is the clocks' own drift, and 0.
    #[must_use]
    pub fn step_us(self, earlier: Self) -> i64 {
        let between = |a: u64, b: u64| i128::from(a) - i128::from(b);
        let step =
            between(self.wall_us, earlier.wall_us) - between(self.steady_us, earlier.steady_us);
        if step.abs() < 1_000_000 { 0 } else { i64::try_from(step).unwrap_or(i64::MAX) }
    }
}

/// The last microsecond of the year 9999.
const WALL_MAX_US: u64 = 253_402_300_799_999_999;

/// What storage asks of the operating system.
pub trait Disk: Send + Sync + fmt::Debug {
    /// What time it is.
    fn times(&self) -> Times {
        Times::now()
    }

    /// Writes all bytes at an offset.
    ///
    /// # Errors
    ///
    /// As pwrite(2). Part of the bytes may be written.
    fn write_at(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()>;

    /// Makes the content of a file durable.
    ///
    /// # Errors
    ///
    /// As fdatasync(2). The file is not to be synced again afterwards.
    fn sync(&self, file: &File) -> io::Result<()>;

    /// Makes everything on the file system of `dir` durable.
    ///
    /// # Errors
    ///
    /// As syncfs(2): since Linux 5.8 it reports every write error since the descriptor was opened.
    fn sync_fs(&self, dir: &File) -> io::Result<()>;

    /// Whether [`Disk::sync_fs`] reports write errors. When it does not, files are synced one by one.
    fn sync_fs_reports(&self) -> bool {
        true
    }

    /// Makes the next read of a file come from the device: what a failed sync left in memory is not on it.
    fn drop_cache(&self, file: &File) {
        // Advice: a file system that keeps no pages, or keeps them all the same, changes nothing for the better or worse.
        let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
    }

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    ///
    /// As fsync(2).
    fn sync_dir(&self, dir: &File) -> io::Result<()>;

    /// Bytes that an unprivileged process can still write.
    ///
    /// # Errors
    ///
    /// As fstatvfs(3).
    fn free_bytes(&self, dir: &File) -> io::Result<u64>;
}

/// The operating system itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn write_at(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        file.write_all_at(bytes, at)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        Ok(rustix::fs::fdatasync(file)?)
    }

    fn sync_fs(&self, dir: &File) -> io::Result<()> {
        Ok(rustix::fs::syncfs(dir)?)
    }

    fn sync_fs_reports(&self) -> bool {
        static REPORTS: OnceLock<bool> = OnceLock::new();
        *REPORTS.get_or_init(|| {
            let release = std::fs::read_to_string("/proc/sys/kernel/osrelease");
            release.is_ok_and(|release| since_5_8(&release))
        })
    }

    fn sync_dir(&self, dir: &File) -> io::Result<()> {
        Ok(rustix::fs::fsync(dir)?)
    }

    fn free_bytes(&self, dir: &File) -> io::Result<u64> {
        let s = rustix::fs::fstatvfs(dir)?;
        Ok(s.f_bavail.saturating_mul(s.f_frsize))
    }
}

/// Whether an error is only that there were no descriptors: no file was touched, and it may work later. No sync says so.
pub(crate) fn is_shortage(e: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(Errno::from_io_error(e), Some(Errno::MFILE | Errno::NFILE))
}

/// The same error for one more part.
pub(crate) fn again(e: &io::Error) -> io::Error {
    e.raw_os_error().map_or_else(|| e.kind().into(), io::Error::from_raw_os_error)
}

/// Whether a kernel's release is at least 5.8.
fn since_5_8(release: &str) -> bool {
    let mut numbers = release.trim().split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= (5, 8),
        _ => false,
    }
}

/// The free space, asked for at most ten times a second: every append looks at it.
#[derive(Debug)]
pub(crate) struct Free(Mutex<(Instant, u64)>);

impl Free {
    pub(crate) fn new(disk: &dyn Disk, dir: &File) -> Self {
        Self(Mutex::new((Instant::now(), disk.free_bytes(dir).unwrap_or(u64::MAX))))
    }

    /// So many bytes were written, or `u64::MAX`: a write found no room. In between two looks this is what is known.
    pub(crate) fn took(&self, bytes: u64) {
        let mut last = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        last.1 = last.1.saturating_sub(bytes);
        if last.1 == 0 {
            last.0 = Instant::now();
        }
    }

    pub(crate) fn bytes(&self, disk: &dyn Disk, dir: &File) -> u64 {
        let mut last = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if last.0.elapsed() >= Duration::from_millis(100) {
            // A file system that cannot say counts as before; writing to it will tell.
            *last = (Instant::now(), disk.free_bytes(dir).unwrap_or(last.1));
        }
        last.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_are_wrong_still_give_names() {
        let wall = |secs| Some(Duration::from_secs(secs));
        assert_eq!(Times::from_clocks(wall(5), 7).wall_us, 5_000_000);
        assert_eq!(Times::from_clocks(None, 7).wall_us, 7);
        let late = Times::from_clocks(wall(u64::MAX), 7);
        assert_eq!(super::super::format_time(late.wall_us), "9999-12-31T23:59:59.999999Z");
        let at = |wall_us, steady_us| Times { wall_us, steady_us };
        assert_eq!(at(5_999_999, 5_000_000).step_us(at(0, 0)), 0);
        assert_eq!(at(5_000_000, 10_000_000).step_us(at(60_000_000, 0)), -65_000_000);
        assert_eq!(at(WALL_MAX_US, 0).step_us(at(0, 0)), i64::try_from(WALL_MAX_US).unwrap());
    }

    #[test]
    fn old_kernels_are_told() {
        for (release, wanted) in [
            ("6.18.44-fc\n", true),
            ("5.8.0", true),
            ("5.10-rc1", true),
            ("5.7.19", false),
            ("4.18.0-553.el8", false),
            ("x", false),
        ] {
            assert_eq!(since_5_8(release), wanted, "{release}");
        }
    }
}
