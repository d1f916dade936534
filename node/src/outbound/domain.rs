//! What the store knows of a domain whose servers cannot be reached, or that is held.
//!
//! | key | value | lifecycle |
//! |---|---|---|
//! | (Destination, domain) | [`DomainTrouble`] | from the first failure to reach any server of the domain until one is reached, or the queue has nothing for it; and while administrators hold it |

use cluster::{ClusterError, Fence};
use env::Timestamp;
use kv::{
    RangeQuery, Subspace, Transaction,
    tuple::{self, pack, range_of},
};
use mail::{StoreError, keys::encode_over};
use prost::Message;

/// A domain that could not be reached: its messages wait together.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct DomainTrouble {
    /// Failures in a row.
    #[prost(uint32, tag = "1")]
    pub(crate) failures: u32,
    /// When the first of them was, milliseconds since 1970.
    #[prost(int64, tag = "2")]
    pub(crate) since_ms: i64,
    /// When it is tried again, milliseconds since 1970.
    #[prost(int64, tag = "3")]
    pub(crate) retry_ms: i64,
    /// RFC 3463's code.
    #[prost(string, tag = "4")]
    pub(crate) status: String,
    /// Why, for people.
    #[prost(string, tag = "5")]
    pub(crate) reason: String,
    /// When administrators held it, milliseconds since 1970; 0 where they do not.
    #[prost(int64, tag = "6")]
    pub(crate) held_ms: i64,
    /// It is TLS that stands in the way: what goes without is sent all the same.
    #[prost(bool, tag = "7")]
    pub(crate) is_of_tls: bool,
}

/// (Destination, domain)
fn key(domain: &str) -> Vec<u8> {
    pack(&(Subspace::Destination as u64, domain))
}

/// What is known of a domain, if it is in trouble.
///
/// # Errors
/// [`StoreError`].
pub(crate) async fn trouble(
    tx: &Transaction,
    domain: &str,
) -> Result<Option<DomainTrouble>, StoreError> {
    let Some(value) = tx.get(&key(domain)).await? else { return Ok(None) };
    decode(&value).map(Some)
}

/// Notes a failure, or with `None` that all is well. Whether the domain is held stays as it is.
///
/// # Errors
/// [`ClusterError::Ended`] where the domain may be another node's by now.
pub(super) async fn note(
    tx: &Transaction,
    fence: &Fence,
    domain: &str,
    trouble: Option<&DomainTrouble>,
) -> Result<(), ClusterError> {
    fence.check(tx).await?;
    change(tx, domain, |held| {
        let held_ms = held.held_ms;
        *held = trouble.cloned().unwrap_or_default();
        held.held_ms = held_ms;
    })
    .await?;
    Ok(())
}

/// The domain is tried as soon as there is something for it: its back-off is over.
///
/// # Errors
/// [`StoreError`].
pub(super) async fn hurry(tx: &Transaction, domain: &str) -> Result<(), StoreError> {
    change(tx, domain, |trouble| trouble.retry_ms = 0).await
}

/// Holds a domain from `now` on: nothing of it leaves until it is released, what comes later included.
///
/// # Errors
/// [`StoreError`].
pub(crate) async fn hold(tx: &Transaction, domain: &str, now: Timestamp) -> Result<(), StoreError> {
    change(tx, domain, |trouble| {
        if trouble.held_ms == 0 {
            trouble.held_ms = now.unix_ms().max(1);
        }
    })
    .await
}

/// Holds a domain no longer.
///
/// # Errors
/// [`StoreError`].
pub(crate) async fn release(tx: &Transaction, domain: &str) -> Result<(), StoreError> {
    change(tx, domain, |trouble| trouble.held_ms = 0).await
}

/// Whether a domain is held. Takes part in no conflict.
///
/// # Errors
/// [`StoreError`].
pub(super) async fn is_held(tx: &Transaction, domain: &str) -> Result<bool, StoreError> {
    let Some(value) = tx.get_snapshot(&key(domain)).await? else { return Ok(false) };
    Ok(decode(&value)?.held_ms != 0)
}

/// Some of the domains with a record, and where to go on.
///
/// # Errors
/// [`StoreError`].
pub(crate) async fn some(
    tx: &Transaction,
    from: Option<&[u8]>,
    limit: usize,
) -> Result<(Vec<(String, DomainTrouble)>, Option<Vec<u8>>), StoreError> {
    let (begin, end) = range_of(pack(&(Subspace::Destination as u64,)));
    let begin = from.map_or(begin, <[u8]>::to_vec);
    let query = RangeQuery::new(begin, end).limit(limit).snapshot();
    let rows = tx.range(query).next_page().await?.unwrap_or_default();
    let next = rows.last().map(|row| [&row.key[..], &[0]].concat());
    let mut domains = Vec::with_capacity(rows.len());
    for row in rows {
        let (_, domain): (u64, String) = tuple::unpack(&row.key)
            .map_err(|_| StoreError::damaged("domain trouble", "a key without its domain"))?;
        domains.push((domain, decode(&row.value)?));
    }
    Ok((domains, next))
}

/// Rewrites a record; one that says nothing any more goes.
async fn change(
    tx: &Transaction,
    domain: &str,
    change: impl FnOnce(&mut DomainTrouble),
) -> Result<(), StoreError> {
    let key = key(domain);
    let before = tx.get(&key).await?.unwrap_or_default();
    let mut trouble = decode(&before)?;
    change(&mut trouble);
    match trouble.is_nothing() {
        true => tx.clear(&key),
        false => tx.set(&key, &encode_over(&trouble, &before)),
    }
    Ok(())
}

fn decode(value: &[u8]) -> Result<DomainTrouble, StoreError> {
    DomainTrouble::decode(value).map_err(|error| StoreError::damaged("domain trouble", error))
}

impl DomainTrouble {
    /// When it is tried again.
    pub(super) fn retry_at(&self) -> Timestamp {
        Timestamp::from_unix_ms(self.retry_ms)
    }

    /// Whether its servers could not be reached, and nothing has shown since that all waits are over.
    pub(crate) fn is_trouble(&self) -> bool {
        self.since_ms != 0
    }

    fn is_nothing(&self) -> bool {
        !self.is_trouble() && self.held_ms == 0
    }
}

#[cfg(test)]
mod tests {
    use env::Env;
    use kv::Database;

    use super::*;

    #[tokio::test]
    async fn a_hold_and_a_trouble_go_on_their_own() {
        let db = Database::memory(Env::system());
        let now = Timestamp::from_unix_ms(5);
        let run = |tx: Transaction| async move {
            let domain = "a.example";
            hold(&tx, domain, now).await?;
            hold(&tx, domain, Timestamp::from_unix_ms(9)).await?;
            let down =
                DomainTrouble { failures: 2, since_ms: 7, retry_ms: 99, ..Default::default() };
            change(&tx, domain, |held| *held = DomainTrouble { held_ms: held.held_ms, ..down })
                .await?;
            hurry(&tx, domain).await?;
            let found = trouble(&tx, domain).await?.unwrap_or_default();
            assert_eq!((found.held_ms, found.failures, found.retry_ms), (5, 2, 0));
            assert!(is_held(&tx, domain).await? && found.is_trouble());
            assert_eq!(some(&tx, None, 10).await?.0.len(), 1);
            release(&tx, domain).await?;
            assert!(!is_held(&tx, domain).await?);
            change(&tx, domain, |held| held.since_ms = 0).await?;
            assert_eq!(trouble(&tx, domain).await?, None, "what says nothing goes");
            Ok::<_, StoreError>(())
        };
        db.run(run).await.unwrap();
    }
}
