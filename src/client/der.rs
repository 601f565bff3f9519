//! The validity period of a certificate, read out of its DER: all that a pin leaves to be looked at.

/// First and last second of validity, since 1970; none when the certificate is not understood.
pub(super) fn validity(certificate: &[u8]) -> Option<(u64, u64)> {
    let (outer, _) = take(certificate, SEQUENCE)?;
    let (mut rest, _) = take(outer, SEQUENCE)?;
    if let Some((_, behind)) = take(rest, VERSION) {
        rest = behind;
    }
    let (_, rest) = take(rest, INTEGER)?;
    let (_, rest) = take(rest, SEQUENCE)?;
    let (_, rest) = take(rest, SEQUENCE)?;
    let (validity, _) = take(rest, SEQUENCE)?;
    let (from, rest) = time(validity)?;
    let (to, _) = time(rest)?;
    Some((from, to))
}

/// The content of the element at the front when it has this tag, and what follows it.
fn take(input: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (head, rest) = input.split_first_chunk::<2>()?;
    let [found, first] = *head;
    if found != tag {
        return None;
    }
    if first < 0x80 {
        return rest.split_at_checked(usize::from(first));
    }
    // DER: so many bytes of length follow. Certificates are far below 16 MiB.
    let digits = usize::from(first & 0x7f);
    if !(1..=3).contains(&digits) {
        return None;
    }
    let (digits, rest) = rest.split_at_checked(digits)?;
    let length = digits.iter().fold(0usize, |n, d| (n << 8) | usize::from(*d));
    rest.split_at_checked(length)
}

/// RFC 5280 section 4.1.2.5: `YYMMDDHHMMSSZ` until 2049, then `YYYYMMDDHHMMSSZ`.
fn time(input: &[u8]) -> Option<(u64, &[u8])> {
    let (year, digits, rest) = if let Some((text, rest)) = take(input, UTC_TIME) {
        let (year, digits) = text.split_at_checked(2)?;
        let year = number(year)?;
        (if year < 50 { year.checked_add(2000)? } else { year.checked_add(1900)? }, digits, rest)
    } else {
        let (text, rest) = take(input, GENERALIZED_TIME)?;
        let (year, digits) = text.split_at_checked(4)?;
        (number(year)?, digits, rest)
    };
    let digits = digits.strip_suffix(b"Z").filter(|d| d.len() == 10)?;
    let mut fields = digits.chunks_exact(2).map(number);
    let mut next = || fields.next().flatten();
    let (month, day, hour, minute, second) = (next()?, next()?, next()?, next()?, next()?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let clock =
        hour.checked_mul(3600)?.checked_add(minute.checked_mul(60)?)?.checked_add(second)?;
    let at = days(year, month, day)?.checked_mul(86_400)?.checked_add(clock)?;
    // A period that began before 1970 has begun.
    Some((u64::try_from(at).unwrap_or(0), rest))
}

fn number(digits: &[u8]) -> Option<i64> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Days since 1970 in the Gregorian calendar: whole years, their leap days, the months of this one.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let before = year.checked_sub(1)?;
    let leap_days = |y: i64| Some((y / 4).checked_sub(y / 100)?.checked_add(y / 400));
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let mut sum = year.checked_sub(1970)?.checked_mul(365)?;
    sum = sum.checked_add(leap_days(before)??.checked_sub(LEAP_DAYS_TO_1969)?)?;
    for (at, length) in
        (1..).zip([31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30])
    {
        if at < month {
            sum = sum.checked_add(length)?;
        }
    }
    sum.checked_add(day.checked_sub(1)?)
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const LEAP_DAYS_TO_1969: i64 = 1969 / 4 - 1969 / 100 + 1969 / 400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_of_known_dates() {
        for (y, m, d, want) in [
            (1970, 1, 1, 0),
            (1970, 12, 31, 364),
            (2000, 2, 29, 11_016),
            (2000, 3, 1, 11_017),
            (2024, 12, 31, 20_088),
            (2100, 3, 1, 47_541),
        ] {
            assert_eq!(days(y, m, d), Some(want), "{y}-{m}-{d}");
        }
    }

    #[test]
    fn the_period_of_a_real_certificate() {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params =
            rcgen::CertificateParams::new(vec!["rec.example".to_owned()]).expect("names");
        params.not_before = rcgen::date_time_ymd(2020, 2, 29);
        params.not_after = rcgen::date_time_ymd(2061, 7, 9);
        let certificate = params.self_signed(&key).expect("a certificate");
        assert_eq!(validity(certificate.der()), Some((1_582_934_400, 2_888_092_800)));
        // Every shorter prefix is refused and none panics.
        for end in 0..certificate.der().len() {
            assert_eq!(validity(certificate.der().get(..end).expect("a prefix")), None);
        }
    }
}
