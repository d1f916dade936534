//! Failed logins, counted in the store, so that all nodes slow a guesser together.
//!
//! Three counts decide: of the network, of the account from that network (the pair), and of the
//! account from anywhere. All three delay the answer to a *failed* attempt; the first two, over a
//! limit, refuse further attempts unchecked. The third never refuses: else anyone could lock a
//! stranger's account. So a stranger's failures cost an account's owner nothing, and an owner
//! behind the same network as a guesser is refused with it, for at most about an hour.
//!
//! A success takes nothing off any count: a guesser who has one account of his own could reset
//! the count of his network with it.
//!
//! The count is over the last hour, estimated from two buckets of a wall-clock hour each. An
//! unknown commit can count a failure twice; that errs on the safe side and needs no operation
//! id. Reads are snapshots: many logins at once never conflict.

use std::time::Duration;

use env::Timestamp;
use futures_util::future::try_join_all;
use kv::{AtomicOp, Database, RangeQuery, Transaction};
use mail::StoreError;

use super::{
    keys::{self, Network, Subject},
    limits,
};

const HOUR_SECONDS: u64 = 3600;

/// A point in time, as the counters see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hour {
    number: u64,
    seconds: u64,
}

impl Hour {
    pub(super) fn at(now: Timestamp) -> Self {
        // Before 1970 there is no clock at all, and one bucket is as good as another.
        let seconds = u64::try_from(now.unix_seconds()).unwrap_or(0);
        Self { number: seconds / HOUR_SECONDS, seconds: seconds % HOUR_SECONDS }
    }

    fn remaining(self) -> Duration {
        Duration::from_secs(HOUR_SECONDS - self.seconds)
    }

    /// The last hour's count: this bucket, and the part of the one before that the last 60
    /// minutes cover.
    fn estimate(self, this: u64, before: u64) -> u64 {
        let part = before.saturating_mul(HOUR_SECONDS - self.seconds) / HOUR_SECONDS;
        this.saturating_add(part)
    }
}

/// Failures of the last hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failures {
    network: u64,
    pair: u64,
    account: u64,
}

impl Failures {
    /// Reads the counts.
    pub(super) async fn read(
        tx: &Transaction,
        hour: Hour,
        network: Network,
        subject: Subject,
    ) -> Result<Self, StoreError> {
        let before = hour.number.saturating_sub(1);
        let keys = [hour.number, before].map(|hour| counter_keys(hour, network, subject));
        let values =
            try_join_all(keys.as_flattened().iter().map(|key| tx.get_snapshot(key))).await?;
        let counts: Vec<u64> =
            values.iter().map(|value| count(value.as_deref())).collect::<Result<_, _>>()?;
        let at = |kind: usize| hour.estimate(counts[kind], counts[kind + KINDS]);
        Ok(Self { network: at(0), pair: at(1), account: at(2) })
    }

    /// Whether the next attempt is refused unchecked, and for about how long.
    pub(super) fn refused(self, hour: Hour) -> Option<Duration> {
        let over =
            self.network >= limits::NETWORK_FAILURES_MAX || self.pair >= limits::PAIR_FAILURES_MAX;
        over.then(|| hour.remaining())
    }

    /// How long the answer to a further failure is held back.
    pub(super) fn delay(self) -> Duration {
        [
            (self.network, limits::NETWORK_FAILURES_FREE),
            (self.pair, limits::PAIR_FAILURES_FREE),
            (self.account, limits::ACCOUNT_FAILURES_FREE),
        ]
        .into_iter()
        .map(|(failures, free)| delay_after(failures, free))
        .max()
        .unwrap_or_default()
    }
}

/// No delay for the first `free` failures, then one that doubles.
fn delay_after(failures: u64, free: u64) -> Duration {
    let Some(doublings) = failures.checked_sub(free) else { return Duration::ZERO };
    let factor = u32::try_from(doublings).ok().and_then(|n| 1_u32.checked_shl(n));
    factor
        .and_then(|factor| limits::DELAY_FIRST.checked_mul(factor))
        .map_or(limits::DELAY_MAX, |delay| delay.min(limits::DELAY_MAX))
}

const KINDS: usize = 3;

fn counter_keys(hour: u64, network: Network, subject: Subject) -> [Vec<u8>; KINDS] {
    [
        keys::network_key(hour, network),
        keys::pair_key(hour, network, subject),
        keys::subject_key(hour, subject),
    ]
}

fn count(value: Option<&[u8]>) -> Result<u64, StoreError> {
    let Some(value) = value else { return Ok(0) };
    let bytes = value.try_into().map_err(|_| StoreError::Damaged {
        family: "rate counter",
        detail: "is not 8 bytes".to_owned(),
    })?;
    Ok(u64::from_le_bytes(bytes))
}

/// Counts one failure.
pub(super) async fn record(
    db: &Database,
    hour: Hour,
    network: Network,
    subject: Subject,
) -> Result<(), StoreError> {
    let keys = counter_keys(hour.number, network, subject);
    db.run(|tx| {
        for key in &keys {
            tx.atomic(key, &1_u64.to_le_bytes(), AtomicOp::Add);
        }
        async { Ok(()) }
    })
    .await
}

/// Removes the buckets that no estimate reads any more; one more than that is kept for nodes
/// whose clocks are behind. Returns how many counters went.
pub(super) async fn sweep(db: &Database, now: Hour) -> Result<usize, StoreError> {
    let (begin, end) = keys::range_before(now.number.saturating_sub(2));
    let mut swept = 0;
    loop {
        let page = db
            .run(|tx| {
                let (begin, end) = (&begin, &end);
                async move {
                    let query = RangeQuery::new(begin.clone(), end.clone())
                        .limit(limits::SWEEP_KEYS_MAX)
                        .snapshot();
                    let rows = tx.range(query).collect().await?;
                    for row in &rows {
                        tx.clear(&row.key);
                    }
                    Ok::<_, StoreError>(rows.len())
                }
            })
            .await?;
        swept += page;
        if page < limits::SWEEP_KEYS_MAX {
            return Ok(swept);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_from_the_first_that_is_not_free() {
        let delays: Vec<u64> = (0..9).map(|n| delay_after(n, 2).as_secs()).collect();
        assert_eq!(delays, [0, 0, 1, 2, 4, 8, 15, 15, 15]);
        assert_eq!(delay_after(u64::MAX, 2), limits::DELAY_MAX);
    }

    #[test]
    fn the_bucket_before_fades() {
        let at = |seconds: i64| Hour::at(Timestamp::from_unix_seconds(7200 + seconds));
        assert_eq!(at(0).estimate(1, 10), 11);
        assert_eq!(at(1800).estimate(1, 10), 6);
        assert_eq!(at(3599).estimate(1, 10), 1);
        assert_eq!(at(1800).remaining(), Duration::from_secs(1800));
    }

    #[test]
    fn strangers_never_lock_an_account() {
        let hour = Hour::at(Timestamp::from_unix_seconds(0));
        let failures = |network, pair, account| Failures { network, pair, account };
        assert_eq!(failures(0, 0, u64::MAX).refused(hour), None);
        assert_eq!(failures(0, 0, u64::MAX).delay(), limits::DELAY_MAX);
        assert!(failures(0, limits::PAIR_FAILURES_MAX, 0).refused(hour).is_some());
        assert!(failures(limits::NETWORK_FAILURES_MAX, 0, 0).refused(hour).is_some());
    }
}
