//! UTC times as text: file names and RFC 3339, both with microseconds.

/// Year, month, day, hour, minute, second, microsecond of the proleptic Gregorian calendar.
fn civil(us: u64) -> (u64, u64, u64, u64, u64, u64, u64) {
    let (secs, micros) = (us / 1_000_000, us % 1_000_000);
    let (days, rest) = (secs / 86_400, secs % 86_400);
    // Years begin in March here, so that the leap day is a year's last. A cycle of 400 years has 146,097 days.
    let shifted = days + 719_468;
    let cycle = shifted / 146_097;
    let day = shifted % 146_097;
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let of_month = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = cycle * 400 + year + u64::from(month <= 2);
    (year, month, of_month, rest / 3_600, rest / 60 % 60, rest % 60, micros)
}

/// `20261123T050102.123456Z`.
pub(crate) fn format_stamp(us: u64) -> String {
    let (y, mo, d, h, mi, s, us) = civil(us);
    format!("{y:04}{mo:02}{d:02}T{h:02}{mi:02}{s:02}.{us:06}Z")
}

/// `2026-11-23T05:01:02.123456Z` for microseconds since 1970.
#[must_use]
pub fn format_time(us: u64) -> String {
    let (y, mo, d, h, mi, s, us) = civil(us);
    format!("{y:04}-{mo:02}-{d:02}T{h:02}:{mi:02}:{s:02}.{us:06}Z")
}

/// Microseconds since 1970 of `YYYY-MM-DD`, `YYYY-MM-DDTHH:MM:SS` with or without a fraction and `Z`, or of a file's stamp.
#[must_use]
pub fn parse_time(text: &str) -> Option<u64> {
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, ""));
    let date: String = date.chars().filter(|c| *c != '-').collect();
    let (whole, fraction) = time.split_once('.').unwrap_or((time, ""));
    let mut whole: String = whole.chars().filter(|c| *c != ':').collect();
    while whole.len() < 6 {
        whole.push('0');
    }
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if date.len() != 8 || whole.len() != 6 || !digits(&date) || !digits(&whole) || !digits(fraction)
    {
        return None;
    }
    let number = |s: &str| s.parse::<u64>().ok();
    let (y, m, d) = (number(&date[..4])?, number(&date[4..6])?, number(&date[6..])?);
    let (h, mi, s) = (number(&whole[..2])?, number(&whole[2..4])?, number(&whole[4..])?);
    if y < 1970 || !(1..=12).contains(&m) || !(1..=31).contains(&d) || h > 23 || mi > 59 || s > 60 {
        return None;
    }
    let (year, month) = if m <= 2 { (y - 1, m + 9) } else { (y, m - 3) };
    let of_cycle = year % 400;
    let of_year = (153 * month + 2) / 5 + d - 1;
    let days =
        year / 400 * 146_097 + of_cycle * 365 + of_cycle / 4 - of_cycle / 100 + of_year - 719_468;
    let micros = number(&format!("{fraction:0<6}")[..6])?;
    Some((days * 86_400 + h * 3_600 + mi * 60 + s) * 1_000_000 + micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_days() {
        for (us, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400_000_001, "2000-02-29T00:00:00.000001Z"),
            (1_709_251_199_999_999, "2024-02-29T23:59:59.999999Z"),
            (4_107_542_400_000_000, "2100-03-01T00:00:00.000000Z"),
        ] {
            assert_eq!(format_time(us), text);
            assert_eq!(parse_time(text), Some(us));
            assert_eq!(parse_time(&format_stamp(us)), Some(us));
        }
        assert_eq!(parse_time("2024-01-01"), Some(1_704_067_200_000_000));
        for bad in ["", "2024", "2024-13-01", "x", "2024-01-01T25:00:00", "20240101T0000000"] {
            assert_eq!(parse_time(bad), None, "{bad}");
        }
    }
}
