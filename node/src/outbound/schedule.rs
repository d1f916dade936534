//! When a message is tried again, when its sender is told that it is late, when it is given up.

use std::time::Duration;

use env::{Env, Timestamp};

use crate::config;

/// The times of a node's queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Schedule {
    retry_min: Duration,
    retry_max: Duration,
    expire: Duration,
    late: Duration,
}

impl Schedule {
    pub(super) fn of(config: &config::Outbound) -> Self {
        Self {
            retry_min: Duration::from_secs(config.retry_seconds_min),
            retry_max: Duration::from_secs(config.retry_seconds_max),
            expire: Duration::from_secs(config.expire_seconds),
            late: Duration::from_secs(config.delay_notice_seconds),
        }
    }

    /// When to try again after so many tries that failed: twice as long after each, and a random
    /// quarter of it less, so that what failed together does not come back together. Never after
    /// the message's end, at which it is tried a last time.
    pub(super) fn next(&self, env: &Env, tries: u32, received: Timestamp) -> Timestamp {
        let doubled = self.retry_min.saturating_mul(1 << tries.saturating_sub(1).min(20));
        let whole = doubled.min(self.retry_max);
        let quarter = u64::try_from(whole.as_millis() / 4).unwrap_or(u64::MAX);
        let delay = whole - Duration::from_millis(env.random_below(quarter.max(1)));
        let next = later(env.wall(), delay);
        // An end that has passed is no time to come.
        next.min(self.end(received).max(later(env.wall(), Duration::from_millis(1))))
    }

    /// When a message is given up.
    pub(super) fn end(&self, received: Timestamp) -> Timestamp {
        later(received, self.expire)
    }

    /// When its sender is told that it is late.
    pub(super) fn late(&self, received: Timestamp) -> Timestamp {
        later(received, self.late)
    }
}

pub(super) fn later(at: Timestamp, by: Duration) -> Timestamp {
    let ms = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_unix_ms(at.unix_ms().saturating_add(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_longest_and_end_with_the_message() {
        let schedule = Schedule::of(&config::Outbound {
            retry_seconds_min: 60,
            retry_seconds_max: 600,
            expire_seconds: 3_600,
            delay_notice_seconds: 1_800,
            ..config::Outbound::default()
        });
        let env = Env::system();
        let now = env.wall();
        for (tries, whole) in [(1, 60_000), (2, 120_000), (3, 240_000), (5, 600_000), (90, 600_000)]
        {
            let delay = schedule.next(&env, tries, now).unix_ms() - now.unix_ms();
            assert!((whole * 3 / 4..=whole + 100).contains(&delay), "{tries}: {delay}");
        }
        let old = Timestamp::from_unix_ms(now.unix_ms() - 3_590_000);
        assert_eq!(schedule.next(&env, 9, old), schedule.end(old));
        let over = Timestamp::from_unix_ms(now.unix_ms() - 4_000_000);
        assert!(schedule.next(&env, 9, over) > now);
    }
}
