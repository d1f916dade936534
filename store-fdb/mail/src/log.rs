//! Reading an account's log.

use kv::{AtomicOp, RangeQuery, Transaction};

use crate::{
    AccountId, ModSeq, StoreError,
    interest::Remaining,
    keys::{self, log::LogEntry},
    limits,
};

/// A stretch of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct LogPage {
    /// Entries with the version of their commit, oldest first. The entries of one version are
    /// all here or none is.
    pub entries: Vec<(ModSeq, LogEntry)>,
    /// Where the next stretch begins; `None` where this was the last.
    pub more_after: Option<ModSeq>,
    /// The log has been trimmed up to here: a cursor below it has missed entries.
    pub horizon: ModSeq,
}

impl LogPage {
    /// Whether a reader that stood at `cursor` can go on.
    pub fn reaches(&self, cursor: ModSeq) -> bool {
        cursor >= self.horizon
    }
}

/// What changed after `after`, at most about [`limits::LOG_ENTRIES_PER_READ`] entries. A snapshot
/// read: entries are only ever added behind it.
///
/// # Errors
/// [`StoreError`].
pub async fn changes_since(
    tx: &Transaction,
    account: AccountId,
    after: ModSeq,
) -> Result<LogPage, StoreError> {
    let most = Most { entries: limits::LOG_ENTRIES_PER_READ, bytes: limits::LOG_BYTES_PER_READ };
    read(tx, account, after, most).await
}

/// Drops the entries up to `version`. The caller knows that no checkpoint and no cursor stands
/// below it.
///
/// # Errors
/// [`StoreError`].
pub async fn trim_log(
    tx: &Transaction,
    account: AccountId,
    version: ModSeq,
) -> Result<(), StoreError> {
    if version <= horizon(tx, account).await? {
        return Ok(());
    }
    let (begin, end) = keys::log::range_up_to(account, version.0);
    tx.clear_range(&begin, &end);
    // MAX: two that trim at once do not conflict, and the horizon never goes back.
    tx.atomic(&keys::log::horizon_key(account), &version.0.to_le_bytes(), AtomicOp::Max);
    Ok(())
}

/// Drops the oldest entries up to `version`, as many as one transaction bears. Returns whether
/// there may be more.
///
/// # Errors
/// [`StoreError`].
pub async fn trim_log_some(
    tx: &Transaction,
    account: AccountId,
    version: ModSeq,
) -> Result<Remaining, StoreError> {
    let (begin, end) = keys::log::range_up_to(account, version.0);
    let limit = limits::LOG_TRIM_ENTRIES;
    let rows = tx.range(RangeQuery::new(begin, end).limit(limit).snapshot()).collect().await?;
    let Some(last) = rows.last() else { return Ok(Remaining::None) };
    let last = keys::log::version_of(&last.key)
        .ok_or_else(|| StoreError::damaged("log", "a key without its versionstamp"))?;
    trim_log(tx, account, ModSeq(last)).await?;
    Ok(if rows.len() < limit { Remaining::None } else { Remaining::Some })
}

/// Whether the log has entries up to `version`.
///
/// # Errors
/// [`StoreError`].
pub async fn reaches_below(
    tx: &Transaction,
    account: AccountId,
    version: ModSeq,
) -> Result<bool, StoreError> {
    let (begin, end) = keys::log::range_up_to(account, version.0);
    Ok(!tx.range(RangeQuery::new(begin, end).limit(1).snapshot()).collect().await?.is_empty())
}

pub(crate) async fn horizon(tx: &Transaction, account: AccountId) -> Result<ModSeq, StoreError> {
    let Some(value) = tx.get_snapshot(&keys::log::horizon_key(account)).await? else {
        return Ok(ModSeq(0));
    };
    let bytes = value[..]
        .try_into()
        .map_err(|_| StoreError::damaged("log horizon", format!("{} bytes", value.len())))?;
    Ok(ModSeq(u64::from_le_bytes(bytes)))
}

/// How much one read takes at most, but for a single version that is larger.
#[derive(Debug, Clone, Copy)]
struct Most {
    entries: usize,
    bytes: usize,
}

async fn read(
    tx: &Transaction,
    account: AccountId,
    after: ModSeq,
    most: Most,
) -> Result<LogPage, StoreError> {
    let horizon = horizon(tx, account).await?;
    let (begin, end) = keys::log::range_after(account, after.0);
    let mut pages = tx.range(RangeQuery::new(begin, end).limit(most.entries).snapshot());
    let mut entries = Vec::new();
    let mut bytes = 0;
    let mut full = false;
    while !full && let Some(pairs) = pages.next_page().await? {
        for pair in pairs {
            let version = keys::log::version_of(&pair.key)
                .ok_or_else(|| StoreError::damaged("log", "a key without its versionstamp"))?;
            bytes += pair.value.len();
            entries.push((ModSeq(version), keys::decode("log", &pair.value)?));
        }
        full = entries.len() >= most.entries || bytes >= most.bytes;
    }
    if !full {
        return Ok(LogPage { entries, more_after: None, horizon });
    }
    // The last version may go on behind the limit: leave it to the next page, unless it is all.
    let last = entries.last().map_or(after, |(version, _)| *version);
    if entries.first().is_some_and(|(version, _)| *version == last) {
        let more = Most { entries: most.entries * 2, bytes: most.bytes * 2 };
        return Box::pin(read(tx, account, after, more)).await;
    }
    entries.retain(|(version, _)| *version < last);
    let more_after = entries.last().map(|(version, _)| *version);
    Ok(LogPage { entries, more_after, horizon })
}
