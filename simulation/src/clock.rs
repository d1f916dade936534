//! Virtual time, and what the clocks of each host make of it.

use std::{sync::Arc, time::Duration};

use env::{Monotonic, Timestamp};

use crate::executor::{Core, Sleep};

/// What every wall clock shows at virtual time zero: 2030-01-01T00:00:00Z.
pub const EPOCH: Timestamp = Timestamp::from_unix_seconds(1_893_456_000);

/// The drift that clocks have at most, in parts in a million: a tenth, many times what a broken
/// oscillator does.
pub const DRIFT_PPM_MAX: i32 = 100_000;

const MILLION: i128 = 1_000_000;

/// The world's clock, which no host sees.
#[derive(Clone)]
pub(crate) struct Clock {
    core: Arc<Core>,
}

impl Clock {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    pub(crate) fn now(&self) -> Monotonic {
        self.core.now()
    }

    pub(crate) fn sleep_until(&self, deadline: Monotonic) -> Sleep {
        self.core.sleep_until(deadline)
    }
}

/// A host's clocks, as functions of the world's.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct HostClock {
    /// What both showed when the drift last changed.
    world: Duration,
    host: Duration,
    drift_ppm: i32,
    jumped_ms: i64,
}

impl HostClock {
    pub(crate) fn monotonic(&self, now: Monotonic) -> Monotonic {
        let since = now.since_start().saturating_sub(self.world);
        let since = if self.drift_ppm == 0 {
            since
        } else {
            scaled(since, MILLION + i128::from(self.drift_ppm), MILLION)
        };
        Monotonic::from_start(self.host + since)
    }

    pub(crate) fn wall(&self, now: Monotonic) -> Timestamp {
        let elapsed = self.monotonic(now).since_start().as_millis();
        let elapsed = i64::try_from(elapsed).expect("a simulation takes less than an aeon");
        Timestamp::from_unix_ms(EPOCH.unix_ms().saturating_add(elapsed + self.jumped_ms))
    }

    /// How long the world waits while the host waits for `duration`.
    pub(crate) fn in_world(&self, duration: Duration) -> Duration {
        if self.drift_ppm == 0 {
            return duration;
        }
        // Rounded up, so that the host's clock is not short of it.
        scaled(duration, MILLION, MILLION + i128::from(self.drift_ppm))
            .saturating_add(Duration::from_nanos(2))
    }

    pub(crate) fn jump(&mut self, jump_ms: i64) {
        self.jumped_ms = self.jumped_ms.saturating_add(jump_ms);
    }

    pub(crate) fn skew(&mut self, now: Monotonic, drift_ppm: i32, jump_ms: i64) {
        self.host = self.monotonic(now).since_start();
        self.world = now.since_start();
        self.drift_ppm = drift_ppm.clamp(-DRIFT_PPM_MAX, DRIFT_PPM_MAX);
        self.jumped_ms = self.jumped_ms.saturating_add(jump_ms);
    }
}

fn scaled(duration: Duration, times: i128, of: i128) -> Duration {
    let nanos = i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX / MILLION / 2);
    let scaled = nanos.saturating_mul(times) / of;
    Duration::from_nanos(u64::try_from(scaled).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drift_changes_the_pace_and_a_jump_the_wall_clock_alone() {
        let at = |seconds| Monotonic::from_start(Duration::from_secs(seconds));
        let mut clock = HostClock::default();
        assert_eq!(clock.monotonic(at(7)), at(7));
        clock.skew(at(10), 100_000, -5_000);
        assert_eq!(clock.monotonic(at(10)), at(10));
        assert_eq!(clock.monotonic(at(20)), at(21));
        assert_eq!(clock.wall(at(20)).unix_ms() - EPOCH.unix_ms(), 16_000);
        let waited = clock.in_world(Duration::from_secs(11));
        let end = Monotonic::from_start(Duration::from_secs(20) + waited);
        assert!(clock.monotonic(end) >= at(32) && waited < Duration::from_millis(10_001));
        clock.skew(at(20), 0, 0);
        assert_eq!(clock.monotonic(at(30)), at(31), "what it gained, it keeps");
    }
}
