//! Points in time as RFC 3339 writes them.

use std::fmt;

/// A point in time, and the text that it came as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timestamp {
    text: String,
    unix_seconds: i64,
    nanos: u32,
}

impl Timestamp {
    /// Reads `2026-11-23T12:00:00Z`, with a fraction and an offset where they are there.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut r = Reader { rest: text.as_bytes() };
        let year = r.number(4)?;
        r.byte(b"-")?;
        let month = r.number(2).filter(|m| (1..=12).contains(m))?;
        r.byte(b"-")?;
        let day = r.number(2).filter(|d| (1..=days_in(year, month)).contains(d))?;
        r.byte(b"Tt")?;
        let hour = r.number(2).filter(|h| *h <= 23)?;
        r.byte(b":")?;
        let minute = r.number(2).filter(|m| *m <= 59)?;
        r.byte(b":")?;
        // Go has no leap seconds.
        let second = r.number(2).filter(|s| *s <= 59)?;
        let nanos = if r.byte(b".").is_some() { r.fraction()? } else { 0 };
        let offset = match r.byte(b"Zz+-")? {
            b'Z' | b'z' => 0,
            sign => {
                let hours = r.number(2).filter(|h| *h <= 23)?;
                r.byte(b":")?;
                let minutes = r.number(2).filter(|m| *m <= 59)?;
                let seconds = hours.checked_mul(3600)?.checked_add(minutes.checked_mul(60)?)?;
                if sign == b'+' { seconds } else { seconds.checked_neg()? }
            }
        };
        if !r.rest.is_empty() {
            return None;
        }
        let time = hour.checked_mul(3600)?.checked_add(minute.checked_mul(60)?)?;
        let unix_seconds = days_since_1970(year, month, day)?
            .checked_mul(86_400)?
            .checked_add(time)?
            .checked_add(second)?
            .checked_sub(offset)?;
        Some(Self { text: text.to_owned(), unix_seconds, nanos })
    }

    /// Seconds since 1970, rounded down.
    #[must_use]
    pub const fn unix_seconds(&self) -> i64 {
        self.unix_seconds
    }

    /// Whether this is before a second of a clock.
    #[must_use]
    pub const fn is_before(&self, unix_seconds: i64) -> bool {
        self.unix_seconds < unix_seconds
    }

    /// As it came.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn byte(&mut self, wanted: &[u8]) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        if !wanted.contains(first) {
            return None;
        }
        self.rest = rest;
        Some(*first)
    }

    fn number(&mut self, digits: usize) -> Option<i64> {
        let (front, rest) = self.rest.split_at_checked(digits)?;
        self.rest = rest;
        front.iter().try_fold(0i64, |n, b| {
            let digit = b.is_ascii_digit().then(|| i64::from(b & 15))?;
            n.checked_mul(10)?.checked_add(digit)
        })
    }

    fn fraction(&mut self) -> Option<u32> {
        let (mut nanos, mut digits) = (0u32, 0u32);
        while let Some(digit) = self.byte(b"0123456789") {
            if digits < 9 {
                nanos = nanos.checked_mul(10)?.checked_add(u32::from(digit & 15))?;
            }
            digits = digits.checked_add(1)?;
        }
        let missing = 9u32.saturating_sub(digits);
        (digits > 0).then(|| nanos.saturating_mul(10u32.pow(missing)))
    }
}

const fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

const fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days of the proleptic Gregorian calendar from 1970-01-01, counting years from March so that the leap day is the last one.
fn days_since_1970(year: i64, month: i64, day: i64) -> Option<i64> {
    let (year, month) = if month > 2 {
        (year, month.checked_sub(3)?)
    } else {
        (year.checked_sub(1)?, month.checked_add(9)?)
    };
    let leaps =
        year.div_euclid(4).checked_sub(year.div_euclid(100))?.checked_add(year.div_euclid(400))?;
    let days = year.checked_mul(365)?.checked_add(leaps)?;
    // 153 days in the five months from March to July, and again from August to December.
    let of_year = month.checked_mul(153)?.checked_add(2)?.checked_div(5)?;
    days.checked_add(of_year)?.checked_add(day)?.checked_sub(719_469)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_in_time() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:34:56Z", 951_827_696),
            ("2026-11-23T17:43:00+01:00", 1_795_452_180),
            ("1969-12-31T23:59:59.999999999Z", -1),
            ("2024-02-29T23:59:59-00:30", 1_709_252_999),
            ("0001-01-01T00:00:00Z", -62_135_596_800),
        ] {
            let at = Timestamp::parse(text).unwrap();
            assert_eq!((at.unix_seconds(), at.as_str()), (seconds, text));
        }
    }

    #[test]
    fn what_is_none() {
        for bad in [
            "",
            "2026-11-23",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-11-23T24:00:00Z",
            "2026-11-23T00:00:60Z",
            "2026-11-23T00:00:00",
            "2026-11-23 00:00:00Z",
            "2026-11-23T00:00:00.Z",
            "2026-11-23T00:00:00+1:00",
            "2026-11-23T00:00:00Zx",
            "+026-11-23T00:00:00Z",
        ] {
            assert_eq!(Timestamp::parse(bad), None, "{bad}");
        }
    }
}
