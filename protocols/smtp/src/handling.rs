//! How a message wants to be handled: REQUIRETLS (RFC 8689), MT-PRIORITY (RFC 6710), DELIVERBY
//! (RFC 2852) and FUTURERELEASE (RFC 4865).
//!
//! Invariant: a value that exists is valid on the wire, and `parse(x.to_string()) == x`.

use std::fmt;

use crate::limits::{DELIVER_BY_SECONDS_MAX, HOLD_SECONDS_MAX};

mod date;

pub use date::DateTime;

/// Whether every further hop must be encrypted and verified (RFC 8689 §3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequireTls {
    /// Not asked for.
    #[default]
    No,
    /// The message must not go on without.
    Yes,
}

/// MT-PRIORITY: -9 (last) to 9 (first); 0 where nothing is said (RFC 6710 §3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(i8);

impl Priority {
    /// Checks the range.
    pub fn new(value: i8) -> Option<Self> {
        (-9..=9).contains(&value).then_some(Priority(value))
    }

    /// -9 to 9.
    pub fn value(self) -> i8 {
        self.0
    }

    /// RFC 6710 §7: a digit, and before all but 0 perhaps a minus.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (sign, digit) = text.strip_prefix('-').map_or((1, text), |digit| (-1, digit));
        match digit.as_bytes() {
            [b'0'] if sign == 1 => Some(Priority(0)),
            [digit @ b'1'..=b'9'] => Priority::new(sign * (*digit as i8 - b'0' as i8)),
            _ => None,
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)
    }
}

/// BY: when the message must have been delivered (RFC 2852 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliverBy {
    seconds: i32,
    late: Late,
    trace: Trace,
}

/// What becomes of a message that is late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    /// `R`: it is returned.
    Return,
    /// `N`: its sender is told, and delivery goes on.
    Notify,
}

/// Whether each hop that passes it on tells the sender so (RFC 2852 §4.1.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trace {
    /// It is not.
    #[default]
    No,
    /// `T`.
    Yes,
}

impl DeliverBy {
    /// `seconds` from now; what is to be returned when late must have time left, and neither
    /// way has more than nine digits (RFC 2852 §4).
    pub fn new(seconds: i32, late: Late, trace: Trace) -> Option<Self> {
        let in_range = seconds.unsigned_abs() <= DELIVER_BY_SECONDS_MAX;
        let has_time = seconds > 0 || late == Late::Notify;
        (in_range && has_time).then_some(DeliverBy { seconds, late, trace })
    }

    /// From MAIL on; negative for what is late already.
    pub fn seconds(self) -> i32 {
        self.seconds
    }

    /// What becomes of it when late.
    pub fn late(self) -> Late {
        self.late
    }

    /// Whether a hop without the extension is reported.
    pub fn trace(self) -> Trace {
        self.trace
    }

    /// `by-time ";" by-mode [by-trace]`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (time, mode) = text.split_once(';')?;
        let digits = time.strip_prefix(['-', '+']).unwrap_or(time);
        let valid = (1..=9).contains(&digits.len()) && digits.bytes().all(|c| c.is_ascii_digit());
        let seconds = time.parse().ok().filter(|_| valid)?;
        let (late, trace) = match mode.to_ascii_uppercase().as_str() {
            "R" => (Late::Return, Trace::No),
            "RT" => (Late::Return, Trace::Yes),
            "N" => (Late::Notify, Trace::No),
            "NT" => (Late::Notify, Trace::Yes),
            _ => return None,
        };
        DeliverBy::new(seconds, late, trace)
    }
}

impl fmt::Display for DeliverBy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let late = if self.late == Late::Return { "R" } else { "N" };
        let trace = if self.trace == Trace::Yes { "T" } else { "" };
        write!(formatter, "{};{late}{trace}", self.seconds)
    }
}

/// HOLDFOR or HOLDUNTIL: when the server may begin to deliver (RFC 4865 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// So many seconds from MAIL on.
    For(HoldSeconds),
    /// At this time.
    Until(DateTime),
}

/// HOLDFOR's seconds: 1 to [`HOLD_SECONDS_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HoldSeconds(u32);

impl HoldSeconds {
    /// Checks the range.
    pub fn new(seconds: u32) -> Option<Self> {
        (1..=HOLD_SECONDS_MAX).contains(&seconds).then_some(HoldSeconds(seconds))
    }

    /// In seconds.
    pub fn value(self) -> u32 {
        self.0
    }

    /// RFC 4865 §3: 1 to 9 digits.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits = text.len() <= 9 && text.bytes().all(|octet| octet.is_ascii_digit());
        text.parse().ok().filter(|_| digits).and_then(HoldSeconds::new)
    }
}

impl fmt::Display for HoldSeconds {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn priorities() {
        let parsed = |text| Priority::parse(text).map(Priority::value);
        assert_eq!(parsed("0"), Some(0));
        assert_eq!(parsed("9"), Some(9));
        assert_eq!(parsed("-9"), Some(-9));
        for text in ["", "-0", "+1", "10", "-10", "01", "--1", "x"] {
            assert_eq!(parsed(text), None, "{text:?}");
        }
        assert_eq!(Priority::new(10), None);
    }

    #[test]
    fn deadlines() {
        let parsed = |text| DeliverBy::parse(text).map(|by| by.to_string());
        assert_eq!(parsed("120;R").as_deref(), Some("120;R"));
        assert_eq!(parsed("-5;nt").as_deref(), Some("-5;NT"));
        assert_eq!(parsed("+999999999;rT").as_deref(), Some("999999999;RT"));
        for text in ["", "120", "120;", "0;R", "-1;R", "1;X", "1;RTT", "1234567890;R", "1 ;R"] {
            assert_eq!(parsed(text), None, "{text:?}");
        }
    }

    #[test]
    fn holds() {
        let parsed = |text| HoldSeconds::parse(text).map(HoldSeconds::value);
        assert_eq!(parsed("1"), Some(1));
        assert_eq!(parsed("999999999"), Some(999_999_999));
        for text in ["", "0", "-1", "+1", "1000000000", "x"] {
            assert_eq!(parsed(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn values_round_trip(seconds in any::<i32>(), late: bool, traced: bool, value in any::<i8>()) {
            let late = if late { Late::Return } else { Late::Notify };
            let trace = if traced { Trace::Yes } else { Trace::No };
            if let Some(by) = DeliverBy::new(seconds, late, trace) {
                prop_assert_eq!(DeliverBy::parse(&by.to_string()), Some(by));
            }
            if let Some(priority) = Priority::new(value) {
                prop_assert_eq!(Priority::parse(&priority.to_string()), Some(priority));
            }
        }
    }
}
