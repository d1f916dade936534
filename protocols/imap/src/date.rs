//! Calendar dates of SEARCH and date-times of APPEND and INTERNALDATE (RFC 9051 §9 `date`,
//! `date-time`), proleptic Gregorian, without a clock.

use std::fmt;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// A day, without a time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date {
    year: u16,
    month: u8,
    day: u8,
}

impl Date {
    /// `None` for a day that the calendar does not have, or a year above 9999.
    pub fn new(year: u16, month: u8, day: u8) -> Option<Self> {
        let leap =
            year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let days = match month {
            4 | 6 | 9 | 11 => 30,
            2 if leap => 29,
            2 => 28,
            1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
            _ => return None,
        };
        (year <= 9999 && (1..=days).contains(&day)).then_some(Self { year, month, day })
    }

    /// Reads `1-Feb-1994`, `01-Feb-1994` or ` 1-Feb-1994`.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let mut parts = text.split('-');
        let (day, month, year) = (parts.next()?, parts.next()?, parts.next()?);
        let day = day.strip_prefix(' ').unwrap_or(day);
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if parts.next().is_some()
            || year.len() != 4
            || !(1..=2).contains(&day.len())
            || !digits(day)
            || !digits(year)
        {
            return None;
        }
        let month = MONTHS.iter().position(|name| name.eq_ignore_ascii_case(month))? as u8 + 1;
        Self::new(year.parse().ok()?, month, day.parse().ok()?)
    }

    /// The year, 0 to 9999.
    pub const fn year(self) -> u16 {
        self.year
    }

    /// The month, 1 to 12.
    pub const fn month(self) -> u8 {
        self.month
    }

    /// The day of the month, from 1.
    pub const fn day(self) -> u8 {
        self.day
    }

    /// Days since 1 January 1970.
    pub fn days_since_epoch(self) -> i64 {
        // Years that begin in March have their leap day last.
        let year = i64::from(self.year) - i64::from(self.month <= 2);
        let month = (i64::from(self.month) + 9) % 12;
        let day_of_year = (153 * month + 2) / 5 + i64::from(self.day) - 1;
        year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year
            - 719_468
    }

    /// The inverse of [`Date::days_since_epoch`]; `None` outside of the years 0 to 9999.
    pub fn from_days_since_epoch(days: i64) -> Option<Self> {
        if !(-719_528..=2_932_896).contains(&days) {
            return None;
        }
        let days = days + 719_468;
        let era = days.div_euclid(146_097);
        let day_of_era = days.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted + 2) / 5 + 1;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        let year = era * 400 + year_of_era + i64::from(month <= 2);
        Self::new(u16::try_from(year).ok()?, month as u8, day as u8)
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{:04}", self.day, MONTHS[usize::from(self.month) - 1], self.year)
    }
}

/// A moment to the second, with the zone in which it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DateTime {
    date: Date,
    hour: u8,
    minute: u8,
    second: u8,
    offset_minutes: i16,
}

impl DateTime {
    /// The moment `seconds` after 1 January 1970 UTC, written in the zone `offset_minutes` east of
    /// Greenwich. `None` outside of the years 0 to 9999 or ±99:59.
    pub fn from_unix(seconds: i64, offset_minutes: i16) -> Option<Self> {
        if offset_minutes.unsigned_abs() >= 100 * 60 {
            return None;
        }
        let local = seconds.checked_add(i64::from(offset_minutes) * 60)?;
        let date = Date::from_days_since_epoch(local.div_euclid(86_400))?;
        let of_day = local.rem_euclid(86_400);
        Some(Self {
            date,
            hour: (of_day / 3_600) as u8,
            minute: (of_day / 60 % 60) as u8,
            second: (of_day % 60) as u8,
            offset_minutes,
        })
    }

    /// Reads ` 1-Feb-1994 21:52:25 -0800` without its quotes.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let mut words = text.trim_start_matches(' ').split(' ');
        let (date, time, zone) = (words.next()?, words.next()?, words.next()?);
        let (time, zone) = (time.as_bytes(), zone.as_bytes());
        if words.next().is_some() || time.len() != 8 || time[2] != b':' || time[5] != b':' {
            return None;
        }
        if zone.len() != 5 || !matches!(zone[0], b'+' | b'-') {
            return None;
        }
        let (hour, minute) = (two_digits(&time[0..2])?, two_digits(&time[3..5])?);
        let second = two_digits(&time[6..8])?;
        let (zone_hours, zone_minutes) = (two_digits(&zone[1..3])?, two_digits(&zone[3..5])?);
        if hour > 23 || minute > 59 || second > 60 || zone_minutes > 59 {
            return None;
        }
        let offset = i16::from(zone_hours) * 60 + i16::from(zone_minutes);
        Some(Self {
            date: Date::parse(date.as_bytes())?,
            hour,
            minute,
            second,
            offset_minutes: if zone[0] == b'-' { -offset } else { offset },
        })
    }

    /// Seconds since 1 January 1970 UTC.
    pub fn unix_seconds(self) -> i64 {
        self.date.days_since_epoch() * 86_400
            + i64::from(self.hour) * 3_600
            + i64::from(self.minute) * 60
            + i64::from(self.second)
            - i64::from(self.offset_minutes) * 60
    }

    /// The day in its own zone, which is what SEARCH ON and SENTON compare.
    pub const fn date(self) -> Date {
        self.date
    }

    /// Minutes east of Greenwich.
    pub const fn offset_minutes(self) -> i16 {
        self.offset_minutes
    }
}

impl fmt::Display for DateTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.offset_minutes < 0 { '-' } else { '+' };
        let offset = self.offset_minutes.unsigned_abs();
        write!(
            f,
            "{:2}-{}-{:04} {:02}:{:02}:{:02} {sign}{:02}{:02}",
            self.date.day,
            MONTHS[usize::from(self.date.month) - 1],
            self.date.year,
            self.hour,
            self.minute,
            self.second,
            offset / 60,
            offset % 60
        )
    }
}

fn two_digits(text: &[u8]) -> Option<u8> {
    match text {
        [a, b] if a.is_ascii_digit() && b.is_ascii_digit() => Some((a - b'0') * 10 + b - b'0'),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, unix: Option<i64>) {
        let parsed = DateTime::parse(text.as_bytes());
        assert_eq!(parsed.map(DateTime::unix_seconds), unix, "{text}");
    }

    #[test]
    fn date_times_are_read() {
        check("01-Jan-1970 00:00:00 +0000", Some(0));
        check(" 7-Feb-1994 21:52:25 -0800", Some(760_686_745));
        check("17-Jul-1996 02:44:25 -0700", Some(837_596_665));
        check("29-feb-2024 12:00:00 +0130", Some(1_709_202_600));
        check("29-Feb-2023 12:00:00 +0000", None);
        check("1-Feb-1994 24:00:00 +0000", None);
        check("1-Feb-1994 2:00:00 +0000", None);
        check("1-Feb-94 02:00:00 +0000", None);
        check("1-Feb-1994 02:00:00", None);
        check("", None);
    }

    proptest! {
        #[test]
        fn unix_time_round_trips(seconds in -60_000_000_000i64..250_000_000_000, offset in -1200i16..1200) {
            let moment = DateTime::from_unix(seconds, offset).expect("in range");
            prop_assert_eq!(moment.unix_seconds(), seconds);
            prop_assert_eq!(DateTime::parse(moment.to_string().as_bytes()), Some(moment));
        }

        #[test]
        fn days_round_trip(days in -719_528i64..=2_932_896) {
            let date = Date::from_days_since_epoch(days).expect("in range");
            prop_assert_eq!(date.days_since_epoch(), days);
            prop_assert_eq!(Date::parse(date.to_string().as_bytes()), Some(date));
        }
    }
}
