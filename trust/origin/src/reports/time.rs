//! Times as TLS reports have them (RFC 3339), in UTC.

use env::Timestamp;

const DAY: i64 = 86_400;

/// Days of 400 years, after which the calendar comes again.
const ERA_DAYS: i64 = 146_097;

/// Such as `2024-02-29T12:00:00Z`.
pub(super) fn write(at: Timestamp) -> String {
    let seconds = at.unix_seconds();
    let (days, rest) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    // Years begin in March, so that leap days come last.
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(ERA_DAYS), days.rem_euclid(ERA_DAYS));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let shifted = (5 * day + 2) / 153;
    let day = day - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Reads a time with any offset; fractions of seconds are dropped.
pub(super) fn read(text: &str) -> Option<Timestamp> {
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = text.get(from..to)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let sign = |at: usize, wanted: &str| text.get(at..at + 1).filter(|it| wanted.contains(*it));
    sign(4, "-")?;
    sign(7, "-")?;
    sign(10, "Tt ")?;
    sign(13, ":")?;
    sign(16, ":")?;
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let right = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !right {
        return None;
    }
    let rest = text.get(19..)?;
    let rest = rest
        .strip_prefix('.')
        .map_or(rest, |rest| rest.trim_start_matches(|at: char| at.is_ascii_digit()));
    let offset = match rest {
        "Z" | "z" => 0,
        rest => {
            let sign = match rest.get(..1)? {
                "+" => 1,
                "-" => -1,
                _ => return None,
            };
            let (hours, minutes) = rest.get(1..)?.split_once(':')?;
            let number = |text: &str| text.parse::<u8>().ok().filter(|it| *it < 60).map(i64::from);
            sign * (number(hours)? * 3600 + number(minutes)? * 60)
        }
    };
    let shifted_year = if month <= 2 { year - 1 } else { year };
    let shifted_month = (month + 9) % 12;
    let (era, of_era) = (shifted_year.div_euclid(400), shifted_year.rem_euclid(400));
    let of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let of_era = of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    let days = era * ERA_DAYS + of_era - 719_468;
    Some(Timestamp::from_unix_seconds(days * DAY + hour * 3600 + minute * 60 + second - offset))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_read_and_written() {
        let seconds = |text| read(text).map(|at| at.unix_seconds());
        assert_eq!(seconds("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(seconds("2016-04-01T00:00:00Z"), Some(1_459_468_800));
        assert_eq!(seconds("2016-04-01T02:00:00.123+02:00"), Some(1_459_468_800));
        assert_eq!(seconds("2024-02-29T23:59:59Z"), Some(1_709_251_199));
        assert_eq!(write(Timestamp::from_unix_seconds(1_709_251_199)), "2024-02-29T23:59:59Z");
        assert_eq!(write(Timestamp::from_unix_seconds(-1)), "1969-12-31T23:59:59Z");
        for bad in [
            "",
            "2016-04-01",
            "2016-13-01T00:00:00Z",
            "2016-04-01T00:00:00",
            "2016-04-01T00:00:00+1",
            "é016-04-01T00:00:00Z",
        ] {
            assert_eq!(seconds(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(seconds in 0i64..200_000_000_000) {
            let at = Timestamp::from_unix_seconds(seconds);
            prop_assert_eq!(read(&write(at)), Some(at));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[0-9TZ:é+. -]{0,30}") {
            let _unwanted = read(&text);
        }
    }
}
