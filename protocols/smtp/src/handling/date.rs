//! The date and time of RFC 3339 §5.6, as HOLDUNTIL has it, to the second.

use std::fmt;

const DAY_SECONDS: i64 = 86_400;

/// A time from the year 1 to 9999, kept as seconds since 1970 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DateTime(i64);

impl DateTime {
    /// Checks that the year has four digits.
    pub fn from_unix_seconds(seconds: i64) -> Option<Self> {
        let first = days(1, 1, 1) * DAY_SECONDS;
        let end = days(10_000, 1, 1) * DAY_SECONDS;
        (first..end).contains(&seconds).then_some(DateTime(seconds))
    }

    /// Seconds since 1970-01-01T00:00:00Z.
    pub fn unix_seconds(self) -> i64 {
        self.0
    }

    /// Parses `2026-11-23T05:20:00Z`, with an offset in place of `Z`, and with a fraction, which
    /// is dropped. A leap second is the next minute's first.
    pub fn parse(text: &str) -> Option<Self> {
        let (date, rest) = text.split_at_checked(10)?;
        let rest = rest.strip_prefix(['T', 't'])?;
        let (time, rest) = rest.split_at_checked(8)?;
        let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
        let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
        let valid = year >= 1
            && (1..=12).contains(&month)
            && (1..=month_length(year, month)).contains(&day)
            && hour <= 23
            && minute <= 59
            && second <= 60;
        if !valid {
            return None;
        }
        let offset = offset_seconds(skip_fraction(rest)?)?;
        let seconds = days(year, month, day) * DAY_SECONDS + hour * 3600 + minute * 60 + second;
        DateTime::from_unix_seconds(seconds - offset)
    }
}

impl fmt::Display for DateTime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil(self.0.div_euclid(DAY_SECONDS));
        let second = self.0.rem_euclid(DAY_SECONDS);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(formatter, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

/// Numbers of exactly these widths.
fn numbers(text: &str, separator: char, widths: [usize; 3]) -> Option<[i64; 3]> {
    let mut parts = text.split(separator);
    let mut parsed = [0; 3];
    for (value, width) in parsed.iter_mut().zip(widths) {
        *value = number(parts.next()?, width)?;
    }
    parts.next().is_none().then_some(parsed)
}

fn number(text: &str, width: usize) -> Option<i64> {
    let digits = text.len() == width && text.bytes().all(|octet| octet.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

fn skip_fraction(text: &str) -> Option<&str> {
    let Some(fraction) = text.strip_prefix('.') else { return Some(text) };
    let rest = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
    (rest.len() < fraction.len()).then_some(rest)
}

/// `Z` or `+hh:mm`.
fn offset_seconds(text: &str) -> Option<i64> {
    if text.eq_ignore_ascii_case("Z") {
        return Some(0);
    }
    let (sign, offset) = match text.split_at_checked(1)? {
        ("+", offset) => (1, offset),
        ("-", offset) => (-1, offset),
        _ => return None,
    };
    let (hour, minute) = offset.split_once(':')?;
    let (hour, minute) = (number(hour, 2)?, number(minute, 2)?);
    (hour <= 23 && minute <= 59).then_some(sign * (hour * 3600 + minute * 60))
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn month_length(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap(year) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days of a year before its month begins.
fn days_before_month(year: i64, month: i64) -> i64 {
    (1..month).map(|earlier| month_length(year, earlier)).sum()
}

/// Days from 1970-01-01 to the beginning of a year.
fn days_before_year(year: i64) -> i64 {
    const BEFORE_1970: i64 = 719_162;
    let past = year - 1;
    past * 365 + past / 4 - past / 100 + past / 400 - BEFORE_1970
}

fn days(year: i64, month: i64, day: i64) -> i64 {
    days_before_year(year) + days_before_month(year, month) + day - 1
}

/// Year, month and day of a day of the years 1 to 9999.
fn civil(day: i64) -> (i64, i64, i64) {
    // 400 years have 146,097 days; the guess is at most one year off.
    let mut year = (day + 719_162) * 400 / 146_097 + 1;
    while days_before_year(year) > day {
        year -= 1;
    }
    while days_before_year(year + 1) <= day {
        year += 1;
    }
    let of_year = day - days_before_year(year);
    let month =
        (1..=12).rev().find(|month| days_before_month(year, *month) <= of_year).unwrap_or(1);
    (year, month, of_year - days_before_month(year, month) + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dates() {
        let parsed = |text| DateTime::parse(text).map(DateTime::unix_seconds);
        assert_eq!(parsed("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(parsed("2000-02-29T12:00:00z"), Some(951_825_600));
        assert_eq!(parsed("2026-11-23T05:20:00.25+05:20"), Some(1_795_392_000));
        assert_eq!(parsed("2016-12-31T23:59:60Z"), Some(1_483_228_800));
        assert_eq!(parsed("0001-01-01T00:00:00Z"), Some(-62_135_596_800));
        for text in [
            "",
            "2026-11-23",
            "2026-11-23T05:20:00",
            "2026-02-29T05:20:00Z",
            "2026-13-01T05:20:00Z",
            "2026-11-23T24:00:00Z",
            "2026-11-23T05:20:00.Z",
            "2026-11-23T05:20:00+5:20",
            "2026-11-23 05:20:00Z",
            "2026-1-123T05:20:00Z",
            "0000-01-01T00:00:00Z",
            "0001-01-01T00:00:00+00:01",
            "202\u{e4}-11-23T05:20:00Z",
        ] {
            assert_eq!(parsed(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn dates_round_trip(seconds in -62_135_596_800i64..253_402_300_800) {
            let time = DateTime::from_unix_seconds(seconds).expect("in range");
            prop_assert_eq!(DateTime::parse(&time.to_string()), Some(time));
        }

        #[test]
        fn arbitrary_text_never_panics(text in any::<String>()) {
            let _ = DateTime::parse(&text);
        }
    }
}
