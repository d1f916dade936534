//! Sizes as people write them.

use std::{fmt, num::NonZeroU64, str::FromStr};

/// How much an account may hold; `None` is without limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quota(pub(crate) Option<NonZeroU64>);

/// The text is no size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a size is a number of bytes above 0, with K, M, G or T for powers of 1024 (KB, MB, GB, TB: of 1000), or `none`"
)]
pub(crate) struct BadSize;

const UNITS: [(&str, u64); 14] = [
    ("", 1),
    ("B", 1),
    ("K", 1 << 10),
    ("KiB", 1 << 10),
    ("KB", 1_000),
    ("M", 1 << 20),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("G", 1 << 30),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("T", 1 << 40),
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
];

impl FromStr for Quota {
    type Err = BadSize;
    fn from_str(text: &str) -> Result<Self, BadSize> {
        if text.eq_ignore_ascii_case("none") {
            return Ok(Self(None));
        }
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| BadSize)?;
        let unit = unit.trim_start();
        let (_, factor) =
            UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or(BadSize)?;
        let bytes = number.checked_mul(*factor).and_then(NonZeroU64::new).ok_or(BadSize)?;
        Ok(Self(Some(bytes)))
    }
}

/// Bytes for people: three digits, and a power of 1024.
pub(crate) struct Bytes(pub(crate) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        // Tenths of the unit, so that no float is needed.
        let mut tenths = u128::from(self.0) * 10 / 1024;
        let mut name = 0;
        while tenths >= 10_240 {
            tenths /= 1024;
            name += 1;
        }
        write!(f, "{}.{} {}", tenths / 10, tenths % 10, NAMES[name])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        let check = |text: &str, expected: Result<Option<u64>, BadSize>| {
            let size = text.parse::<Quota>().map(|quota| quota.0.map(NonZeroU64::get));
            assert_eq!(size, expected, "{text:?}");
        };
        check("none", Ok(None));
        check("1", Ok(Some(1)));
        check("5GiB", Ok(Some(5 << 30)));
        check("5g", Ok(Some(5 << 30)));
        check("5 GB", Ok(Some(5_000_000_000)));
        check("16TiB", Ok(Some(1 << 44)));
        for bad in ["", "0", "0G", "G", "-1", "1.5G", "5X", "99999999999999999999", "17000000T"] {
            check(bad, Err(BadSize));
        }
    }

    #[test]
    fn sizes_are_shown() {
        let check = |bytes, expected: &str| assert_eq!(Bytes(bytes).to_string(), expected);
        check(0, "0 B");
        check(1023, "1023 B");
        check(1024, "1.0 KiB");
        check(1536, "1.5 KiB");
        check(5 << 30, "5.0 GiB");
        check(u64::MAX, "15.9 EiB");
    }
}
