//! [`std::time::Instant`] for libraries that count time in nothing else.

#![expect(
    clippy::disallowed_methods,
    reason = "an Instant can only be made from the machine's clock; everything after is arithmetic"
)]

use std::time::Instant;

use crate::Monotonic;

/// Translates an environment's monotonic clock to [`Instant`] and back.
///
/// Instants of one `Instants` are apart by exactly what the environment says; what they are apart
/// from the machine's own clock means nothing.
#[derive(Debug, Clone, Copy)]
pub struct Instants {
    start: Instant,
}

impl Instants {
    /// A new translation.
    #[expect(clippy::new_without_default, reason = "two of them do not understand each other")]
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }

    /// The instant that stands for `point`.
    pub fn instant(self, point: Monotonic) -> Instant {
        self.start + point.since_start()
    }

    /// The point that `instant` stands for; the environment's start for what is before it.
    pub fn monotonic(self, instant: Instant) -> Monotonic {
        Monotonic::from_start(instant.saturating_duration_since(self.start))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn instants_are_as_far_apart_as_the_clock_says() {
        let instants = Instants::new();
        let point = |ms| Monotonic::from_start(Duration::from_millis(ms));
        assert_eq!(
            instants.instant(point(7)) - instants.instant(point(3)),
            Duration::from_millis(4)
        );
        assert_eq!(instants.monotonic(instants.instant(point(9))), point(9));
    }
}
