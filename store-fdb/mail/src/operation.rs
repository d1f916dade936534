//! Operation ids: an operation that is not idempotent finds out whether it has run before.

use bytes::Bytes;
use env::{Timestamp, probe::Planted};
use kv::{AtomicOp, RangeQuery, Transaction, Versionstamp};
use prost::Message;

use crate::{
    AccountId, AccountUnit, ModSeq, OperationId, StoreError, interest::Remaining, keys, limits,
};

const DAY_MS: i64 = 86_400_000;

/// What an operation did, kept so that a retry can answer as the first try would have.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Outcome {
    /// One row an affected message, in the operation's own meaning.
    #[prost(message, repeated, tag = "1")]
    pub rows: Vec<OutcomeRow>,
    /// The target's UIDVALIDITY, or another number of the operation's.
    #[prost(uint32, tag = "2")]
    pub number: u32,
    /// UIDs that the operation could not act on.
    #[prost(uint32, repeated, tag = "3")]
    pub refused: Vec<u32>,
    /// UIDs that were not there any more.
    #[prost(uint32, repeated, tag = "4")]
    pub gone: Vec<u32>,
}

/// One affected message.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct OutcomeRow {
    /// The email.
    #[prost(uint32, tag = "1")]
    pub email: u32,
    /// Its thread.
    #[prost(uint32, tag = "2")]
    pub thread: u32,
    /// Its UID in the source mailbox.
    #[prost(uint32, tag = "3")]
    pub from_uid: u32,
    /// Its UID in the target mailbox.
    #[prost(uint32, tag = "4")]
    pub to_uid: u32,
}

impl AccountUnit {
    /// What `operation` did, where an earlier try of it committed, at most
    /// [`limits::OPERATION_LIFE_MS`] ago.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn outcome(
        &self,
        operation: OperationId,
    ) -> Result<Option<(ModSeq, Outcome)>, StoreError> {
        let Some(value) = self.recorded(operation).await? else { return Ok(None) };
        let (stamp, record) = value
            .split_first_chunk::<10>()
            .ok_or_else(|| StoreError::damaged("operation", "shorter than its stamp"))?;
        let modseq = ModSeq(Versionstamp::from_bytes(*stamp).version());
        Ok(Some((modseq, keys::decode("operation", record)?)))
    }

    async fn recorded(&self, operation: OperationId) -> Result<Option<Bytes>, StoreError> {
        if env::probe::planted(Planted::ForgetOperationId) {
            return Ok(None);
        }
        for key in lookups(self.account, operation, self.now) {
            if let Some(value) = self.tx.get(&key).await? {
                env::sometimes!("an operation had committed unseen");
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// Records what `operation` does, in the same transaction that does it.
    pub fn record(&self, operation: OperationId, outcome: &Outcome) {
        let key = keys::operation::key(self.account, self.day(), operation);
        let value = keys::email::stamped(outcome.encode_to_vec());
        self.tx.atomic(&key, &value, AtomicOp::SetVersionstampedValue);
    }

    fn day(&self) -> u32 {
        day_of(self.now)
    }
}

fn day_of(now: Timestamp) -> u32 {
    u32::try_from(now.unix_ms().div_euclid(DAY_MS)).unwrap_or(0)
}

/// Sweeps records of operations that no retry can ask for any more at `now`, as many as one
/// transaction bears. Returns whether there may be more.
///
/// # Errors
/// [`StoreError`].
pub async fn sweep_operations(
    tx: &Transaction,
    account: AccountId,
    now: Timestamp,
) -> Result<Remaining, StoreError> {
    let (begin, end) = keys::operation::range_before(account, day_of(now).saturating_sub(1));
    let limit = limits::OPERATIONS_PER_SWEEP;
    let query = RangeQuery::new(begin, end).limit(limit).snapshot();
    let rows = tx.range(query).collect().await?;
    for row in &rows {
        tx.clear(&row.key);
    }
    if !rows.is_empty() {
        env::sometimes!("swept operation ids");
    }
    Ok(if rows.len() < limit { Remaining::None } else { Remaining::Some })
}

/// Where the operation can have been recorded.
pub(crate) fn lookups(
    account: AccountId,
    operation: OperationId,
    now: Timestamp,
) -> impl Iterator<Item = Vec<u8>> {
    let today = day_of(now);
    // The first try may have been before midnight.
    let since_midnight = now.unix_ms().rem_euclid(DAY_MS);
    let yesterday = today.checked_sub(1).filter(|_| since_midnight < limits::OPERATION_LIFE_MS);
    let days = std::iter::once(today).chain(yesterday);
    days.map(move |day| keys::operation::key(account, day, operation))
}
