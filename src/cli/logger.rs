//! Log lines on standard error.

use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use log::{LevelFilter, Log, Metadata, Record};

use crate::cast::text::escape_control;

/// Sends what is logged to standard error from now on. A logger that is there already stays.
pub(super) fn install(level: LevelFilter) {
    if log::set_logger(&Stderr).is_ok() {
        log::set_max_level(level);
    }
}

struct Stderr;

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // What libraries find worth a debug line would drown ours.
        metadata.level() <= log::Level::Warn || metadata.target().starts_with("castkeep")
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let text = record.args().to_string();
        // Names and texts of peers are in it: nothing may move the cursor, or look like another line.
        let line = format!("{} {:5} {}\n", now(), record.level(), escape_control(&text));
        // There is nobody to tell that it could not be written.
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }

    fn flush(&self) {}
}

fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format_time(since.as_secs(), since.subsec_millis())
}

/// UTC, RFC 3339, with milliseconds.
fn format_time(seconds: u64, ms: u32) -> String {
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Years that begin in March: the leap day is their last. 400 years have 146,097 days.
    let z = days + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = era * 400 + yoe + u64::from(month <= 2);
    let (h, m, s) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{ms:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(format_time(0, 7), "1970-01-01T00:00:00.007Z");
        assert_eq!(format_time(951_782_400, 0), "2000-02-29T00:00:00.000Z");
        assert_eq!(format_time(1_795_411_262, 999), "2026-11-23T05:21:02.999Z");
        assert_eq!(format_time(4_107_542_399, 0), "2100-02-28T23:59:59.000Z");
        assert_eq!(format_time(4_107_542_400, 0), "2100-03-01T00:00:00.000Z");
    }
}
