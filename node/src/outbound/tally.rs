//! How TLS to a domain went (RFC 8460), counted for the report that it may want.
//!
//! | key | value | lifecycle |
//! |---|---|---|
//! | (TlsReport, day, domain, "c", policy, result, host) | sessions, atomic ADD | while mail is sent, where the domain has asked for reports; cleared with the report, or after two days |
//! | (TlsReport, day, domain, "p", policy) | [`PolicyShown`] | the same |
//!
//! A lane counts in memory and writes at its end. What a crash or a transaction that ran twice unseen makes
//! of it is some sessions too few or too many of a statistic; nothing hangs on it. A domain has at most
//! [`limits::TLS_REPORT_ROWS_MAX`] rows a day, and one for each result beyond.

use std::collections::{BTreeMap, BTreeSet};

use env::Timestamp;
use kv::{
    AtomicOp, RangeQuery, Subspace, Transaction,
    tuple::{self, pack},
};
use mail::StoreError;
use prost::Message;

use crate::{limits, metrics::TlsPolicyLabel};

/// Whose policy a session was under; numbers are in keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Policy {
    /// Nobody's.
    None = 0,
    /// The domain's TLSA records.
    Tlsa = 1,
    /// MTA-STS.
    Sts = 2,
}

impl Policy {
    /// RFC 8460 §4.4.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::None => "no-policy-found",
            Self::Tlsa => "tlsa",
            Self::Sts => "sts",
        }
    }

    /// As metrics call it.
    pub(super) fn label(self) -> TlsPolicyLabel {
        match self {
            Self::None => TlsPolicyLabel::None,
            Self::Tlsa => TlsPolicyLabel::Dane,
            Self::Sts => TlsPolicyLabel::MtaSts,
        }
    }

    fn of(number: u64) -> Option<Self> {
        [Self::None, Self::Tlsa, Self::Sts].into_iter().find(|it| *it as u64 == number)
    }
}

/// A session that went well.
pub(super) const SUCCESS: &str = "";

/// What a report says of a policy itself.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct PolicyShown {
    /// Its lines or records.
    #[prost(string, repeated, tag = "1")]
    pub(super) strings: Vec<String>,
    /// The hosts that it allows.
    #[prost(string, repeated, tag = "2")]
    pub(super) hosts: Vec<String>,
}

/// What was seen of one domain.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Sessions by policy, result and host.
    counts: BTreeMap<(Policy, &'static str, String), u64>,
    policies: BTreeMap<Policy, PolicyShown>,
}

/// What the store has of one domain's day.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Day {
    /// Sessions by policy, result and host.
    pub(super) counts: BTreeMap<(Policy, String, String), u64>,
    pub(super) policies: BTreeMap<Policy, PolicyShown>,
}

impl Tally {
    /// Counts a session.
    pub(super) fn count(&mut self, policy: Policy, result: &'static str, host: &str) {
        // A success needs no host: reports sum them up.
        let host = if result == SUCCESS { "" } else { host };
        *self.counts.entry((policy, result, host.to_owned())).or_default() += 1;
    }

    /// Shows a policy.
    pub(super) fn show(&mut self, policy: Policy, shown: impl FnOnce() -> PolicyShown) {
        self.policies.entry(policy).or_insert_with(shown);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }
}

/// The day of a time, counted from 1970.
pub(super) fn day_of(at: Timestamp) -> i64 {
    at.unix_seconds().div_euclid(86_400)
}

fn day_prefix(day: i64, domain: &str) -> Vec<u8> {
    pack(&(Subspace::TlsReport as u64, day, domain))
}

fn count_key(day: i64, domain: &str, policy: Policy, result: &str, host: &str) -> Vec<u8> {
    pack(&(Subspace::TlsReport as u64, day, domain, "c", policy as u64, result, host))
}

/// Adds what was seen to a day of a domain.
///
/// # Errors
/// [`StoreError`].
pub(super) async fn add(
    tx: &Transaction,
    day: i64,
    domain: &str,
    tally: &Tally,
) -> Result<(), StoreError> {
    let (begin, end) = tuple::range_of(day_prefix(day, domain));
    let query = RangeQuery::new(begin, end).limit(limits::TLS_REPORT_ROWS_MAX).snapshot();
    let rows = tx.range(query).collect().await?;
    let held: BTreeSet<&[u8]> = rows.iter().map(|row| &row.key[..]).collect();
    let mut room = limits::TLS_REPORT_ROWS_MAX.saturating_sub(held.len());
    for ((policy, result, host), count) in &tally.counts {
        let mut key = count_key(day, domain, *policy, result, host);
        if !held.contains(&key[..]) {
            match room.checked_sub(1) {
                Some(left) => room = left,
                None => key = count_key(day, domain, *policy, result, ""),
            }
        }
        tx.atomic(&key, &count.to_le_bytes(), AtomicOp::Add);
    }
    for (policy, shown) in &tally.policies {
        let key = pack(&(Subspace::TlsReport as u64, day, domain, "p", *policy as u64));
        tx.set(&key, &shown.encode_to_vec());
    }
    Ok(())
}

/// The first domain that something was counted of before a day, behind a place; the place behind it.
///
/// # Errors
/// [`StoreError`].
pub(super) async fn next(
    tx: &Transaction,
    before: i64,
    from: Option<Vec<u8>>,
) -> Result<Option<(i64, String, Vec<u8>)>, StoreError> {
    let (first, _) = tuple::range_of(pack(&(Subspace::TlsReport as u64,)));
    let end = pack(&(Subspace::TlsReport as u64, before));
    let query = RangeQuery::new(from.unwrap_or(first), end).limit(1).snapshot();
    let Some(row) = tx.range(query).collect().await?.into_iter().next() else { return Ok(None) };
    let damaged = |_| StoreError::damaged("TLS count", "a key without its domain");
    let (day, domain) = match tuple::unpack::<Key>(&row.key) {
        Ok((_, day, domain, ..)) => (day, domain),
        Err(_) => {
            let (_, day, domain, _, _): (u64, i64, String, String, u64) =
                tuple::unpack(&row.key).map_err(damaged)?;
            (day, domain)
        }
    };
    let (_, behind) = tuple::range_of(day_prefix(day, &domain));
    Ok(Some((day, domain, behind)))
}

/// (TlsReport, day, domain, "c", policy, result, host)
type Key = (u64, i64, String, String, u64, String, String);

/// All of one domain's day.
///
/// # Errors
/// [`StoreError`].
pub(super) async fn day(tx: &Transaction, day: i64, domain: &str) -> Result<Day, StoreError> {
    let (begin, end) = tuple::range_of(day_prefix(day, domain));
    let mut found = Day::default();
    for row in tx.range(RangeQuery::new(begin, end)).collect().await? {
        if let Ok((_, _, _, _, policy, result, host)) = tuple::unpack::<Key>(&row.key) {
            let Some(policy) = Policy::of(policy) else { continue };
            let count = <[u8; 8]>::try_from(&row.value[..]).map_or(0, u64::from_le_bytes);
            found.counts.insert((policy, result, host), count);
        } else if let Ok((_, _, _, _, policy)) =
            tuple::unpack::<(u64, i64, String, String, u64)>(&row.key)
        {
            let Some(policy) = Policy::of(policy) else { continue };
            let shown = PolicyShown::decode(row.value);
            let shown = shown.map_err(|error| StoreError::damaged("TLS policy shown", error))?;
            found.policies.insert(policy, shown);
        }
    }
    Ok(found)
}

/// Forgets one domain's day.
pub(super) fn forget(tx: &Transaction, day: i64, domain: &str) {
    let (begin, end) = tuple::range_of(day_prefix(day, domain));
    tx.clear_range(&begin, &end);
}

/// Forgets all days before one.
pub(super) fn forget_before(tx: &Transaction, day: i64) {
    let (begin, _) = tuple::range_of(pack(&(Subspace::TlsReport as u64,)));
    tx.clear_range(&begin, &pack(&(Subspace::TlsReport as u64, day)));
}

#[cfg(test)]
mod tests {
    use env::Env;
    use kv::Database;

    use super::*;

    async fn write(db: &Database, of: i64, domain: &str, tally: &Tally) {
        db.run(|tx| async move { add(&tx, of, domain, tally).await }).await.unwrap();
    }

    async fn read(db: &Database, of: i64, domain: &str) -> Day {
        db.run(|tx| async move { day(&tx, of, domain).await }).await.unwrap()
    }

    #[tokio::test]
    async fn sessions_are_counted_by_day_domain_policy_result_and_host() {
        let db = Database::memory(Env::system());
        let mut tally = Tally::default();
        tally.count(Policy::Tlsa, SUCCESS, "mx1.example.net");
        tally.count(Policy::Tlsa, SUCCESS, "mx2.example.net");
        tally.count(Policy::Tlsa, "validation-failure", "mx2.example.net");
        let shown = PolicyShown { strings: vec!["3 1 1 00".to_owned()], hosts: Vec::new() };
        tally.show(Policy::Tlsa, || shown.clone());
        write(&db, 7, "example.net", &tally).await;
        write(&db, 7, "example.net", &tally).await;
        write(&db, 8, "example.net", &tally).await;
        let found = read(&db, 7, "example.net").await;
        let key = |result: &str, host: &str| (Policy::Tlsa, result.to_owned(), host.to_owned());
        let expected = [(key("", ""), 4), (key("validation-failure", "mx2.example.net"), 2)].into();
        assert_eq!(found, Day { counts: expected, policies: [(Policy::Tlsa, shown)].into() });
        assert_eq!(read(&db, 7, "example.ne").await, Day::default());

        let following = |from| {
            let db = &db;
            async move {
                let from: &Option<Vec<u8>> = &from;
                db.run(|tx| async move { next(&tx, 8, from.clone()).await }).await.unwrap()
            }
        };
        let (of, domain, behind) = following(None).await.unwrap();
        assert_eq!((of, domain.as_str()), (7, "example.net"));
        assert_eq!(following(Some(behind)).await, None, "day 8 is not over");
        let drop = |tx: Transaction| async move {
            forget(&tx, 7, "example.net");
            Ok::<_, StoreError>(())
        };
        db.run(drop).await.unwrap();
        assert_eq!(following(None).await, None);
        assert_ne!(read(&db, 8, "example.net").await, Day::default());
        let drop = |tx: Transaction| async move {
            forget_before(&tx, 9);
            Ok::<_, StoreError>(())
        };
        db.run(drop).await.unwrap();
        assert_eq!(read(&db, 8, "example.net").await, Day::default());
    }

    #[tokio::test]
    async fn servers_that_always_have_another_name_fill_nothing() {
        let db = Database::memory(Env::system());
        for turn in 0..5 {
            let mut tally = Tally::default();
            for host in 0..limits::TLS_REPORT_ROWS_MAX / 2 {
                tally.count(Policy::Sts, "validation-failure", &format!("{turn}-{host}.example"));
            }
            write(&db, 1, "example.net", &tally).await;
        }
        let found = read(&db, 1, "example.net").await;
        assert_eq!(found.counts.len(), limits::TLS_REPORT_ROWS_MAX + 1);
        let sum = found.counts.values().sum::<u64>();
        assert_eq!(sum, 5 * (limits::TLS_REPORT_ROWS_MAX as u64 / 2));
    }
}
