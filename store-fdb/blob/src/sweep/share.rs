//! Whether so many orphans can be.

use crate::limits::{ORPHANS_JUDGED_MIN, ORPHANS_PERCENT_MAX};

/// Of blobs that are old enough to have a reference, those that seem to be needed by nobody.
///
/// Names are random, so the first thousand of a listing tell about as much as all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share {
    /// Blobs that were looked at.
    pub judged: u64,
    /// Of them those that nobody seems to need.
    pub orphans: u64,
}

impl Share {
    /// Whether it is more likely that the references are wrong than that this is true.
    pub fn is_implausible(&self) -> bool {
        self.judged >= ORPHANS_JUDGED_MIN
            && self.orphans.saturating_mul(100) > self.judged.saturating_mul(ORPHANS_PERCENT_MAX)
    }
}

impl std::ops::AddAssign for Share {
    fn add_assign(&mut self, other: Self) {
        self.judged += other.judged;
        self.orphans += other.orphans;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_of_few_are_believed_and_most_of_many_are_not() {
        for (judged, orphans, expected) in [
            (0, 0, false),
            (99, 99, false),
            (100, 90, false),
            (100, 91, true),
            (1_000_000, 899_999, false),
            (u64::MAX, u64::MAX, false),
        ] {
            assert_eq!(Share { judged, orphans }.is_implausible(), expected, "{orphans}/{judged}");
        }
    }
}
