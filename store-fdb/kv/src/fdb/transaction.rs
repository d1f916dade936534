//! A transaction of the client library, behind the interface of ours.

use std::sync::{Arc, Mutex, MutexGuard, atomic::Ordering::Relaxed};

use bytes::Bytes;
use foundationdb::{
    FdbResult, KeySelector, RangeOption,
    future::FdbValues,
    options::{ConflictRangeType, MutationType, StreamingMode},
};

use super::error;
use crate::{
    AtomicOp, Committed, Counts, Direction, Error, Isolation, KeyValue, RangeQuery, Result,
    Versionstamp, Watch,
    atomic::stamp_position,
    check::{self, Reachable, Tally},
    counts::Counters,
    limits::{SYSTEM_KEYS, TRANSACTION_BYTES_MAX},
    range::successor,
};

/// One transaction. Shared by reference; every method takes `&self`.
///
/// The client's futures own what they need, so the lock is held only while one is made.
pub(crate) struct FdbTransaction {
    counters: Arc<Counters>,
    state: Mutex<State>,
}

struct State {
    /// Absent once committed, or where the client could not begin one.
    transaction: Result<foundationdb::Transaction>,
    /// The first error of an operation that returns nothing.
    deferred: Option<Error>,
    tally: Tally,
}

impl State {
    fn usable(&self) -> Result<&foundationdb::Transaction> {
        let transaction = self.transaction.as_ref().map_err(Error::clone)?;
        self.deferred.as_ref().map_or(Ok(transaction), |error| Err(error.clone()))
    }

    /// Records an operation that returns nothing, or its refusal.
    fn record(
        &mut self,
        operation: impl FnOnce(&foundationdb::Transaction, &mut Tally) -> Result<()>,
    ) {
        let Self { transaction, deferred, tally } = self;
        let (Ok(transaction), None) = (transaction, &deferred) else { return };
        *deferred = if tally.bytes > TRANSACTION_BYTES_MAX {
            Some(Error::TransactionTooLarge)
        } else {
            operation(transaction, tally).err()
        };
    }
}

impl FdbTransaction {
    pub(super) fn new(
        transaction: Result<foundationdb::Transaction>,
        counters: Arc<Counters>,
    ) -> Self {
        let state = State { transaction, deferred: None, tally: Tally::default() };
        Self { counters, state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds a transaction's state")
    }

    pub(crate) async fn read_version(&self) -> Result<u64> {
        let version = self.lock().usable()?.get_read_version();
        unsigned(version.await)
    }

    pub(crate) async fn get(&self, key: &[u8], isolation: Isolation) -> Result<Option<Bytes>> {
        let read = {
            let state = self.lock();
            let transaction = state.usable()?;
            if check::readable_key(key)? == Reachable::No {
                return Ok(None);
            }
            transaction.get(key, isolation == Isolation::Snapshot)
        };
        let value = read.await.map_err(error)?.map(|slice| Bytes::copy_from_slice(&slice));
        if isolation == Isolation::Serializable {
            self.lock().tally.conflict_key(key);
        }
        self.counters.keys_read.fetch_add(1, Relaxed);
        let bytes = key.len() + value.as_ref().map_or(0, Bytes::len);
        self.counters.bytes_read.fetch_add(bytes as u64, Relaxed);
        Ok(value)
    }

    pub(crate) fn set(&self, key: &[u8], value: &[u8]) {
        self.lock().record(|transaction, tally| {
            check::writable_key(key)?;
            check::value(value)?;
            transaction.set(key, value);
            tally.set(key, value);
            Ok(())
        });
    }

    pub(crate) fn clear(&self, key: &[u8]) {
        self.lock().record(|transaction, tally| {
            if check::readable_key(key)? == Reachable::Yes {
                transaction.clear(key);
                tally.clear(key);
            }
            Ok(())
        });
    }

    pub(crate) fn clear_range(&self, begin: &[u8], end: &[u8]) {
        self.lock().record(|transaction, tally| {
            let (begin, end) = check::range(begin, end)?;
            if begin < end {
                transaction.clear_range(&begin, &end);
                tally.clear_range(&begin, &end);
            }
            Ok(())
        });
    }

    pub(crate) fn atomic(&self, key: &[u8], operand: &[u8], op: AtomicOp) {
        self.lock().record(|transaction, tally| {
            check::writable_key(key)?;
            check::value(operand)?;
            match op {
                AtomicOp::SetVersionstampedKey => drop(stamp_position(key)?),
                AtomicOp::SetVersionstampedValue => drop(stamp_position(operand)?),
                _ => {}
            }
            transaction.atomic_op(key, operand, mutation_type(op));
            tally.set(key, operand);
            Ok(())
        });
    }

    pub(crate) fn add_read_conflict(&self, begin: &[u8], end: &[u8]) {
        self.add_conflict(begin, end, ConflictRangeType::Read);
    }

    pub(crate) fn add_write_conflict(&self, begin: &[u8], end: &[u8]) {
        self.add_conflict(begin, end, ConflictRangeType::Write);
    }

    fn add_conflict(&self, begin: &[u8], end: &[u8], kind: ConflictRangeType) {
        self.lock().record(|transaction, tally| {
            let (begin, end) = check::range(begin, end)?;
            if begin < end {
                transaction.add_conflict_range(&begin, &end, kind).map_err(error)?;
                tally.conflict_range(&begin, &end);
            }
            Ok(())
        });
    }

    pub(crate) fn watch(&self, key: &[u8]) -> Watch {
        let state = self.lock();
        match state.usable().and_then(|transaction| {
            check::writable_key(key)?;
            Ok(transaction.watch(key))
        }) {
            Ok(watch) => Watch::remote(Box::pin(async move { watch.await.map_err(error) })),
            Err(refused) => Watch::refused(refused),
        }
    }

    pub(crate) fn approximate_size(&self) -> usize {
        self.lock().tally.bytes
    }

    pub(crate) async fn commit(&self) -> Result<Committed<()>> {
        let (transaction, counts) = {
            let mut state = self.lock();
            state.usable()?;
            let ended = Err(Error::UsedAfterCommit);
            let transaction = std::mem::replace(&mut state.transaction, ended)?;
            (transaction, state.tally.counts)
        };
        // The commit takes a read version too; this is the same one.
        let read_version = unsigned(transaction.get_read_version().await)?;
        // It has to be asked for before the commit, and is ready after it.
        let stamp = transaction.get_versionstamp();
        let committed = match transaction.commit().await {
            Ok(committed) => committed,
            Err(refused) => return Err(self.refused(error(refused.into()))),
        };
        if committed.committed_version().map_err(error)? < 0 {
            self.counters.transactions_read_only.fetch_add(1, Relaxed);
            return Ok(Committed { value: (), versionstamp: None, read_version });
        }
        self.counters.add(&Counts { transactions_committed: 1, ..counts });
        // Without its stamp the caller does not know where its commit stands, and must ask again.
        let stamp = stamp.await.map_err(|_| Error::CommitUnknown)?;
        let stamp = <[u8; 10]>::try_from(&*stamp).map_err(|_| Error::CommitUnknown)?;
        let versionstamp = Some(Versionstamp::from_bytes(stamp));
        Ok(Committed { value: (), versionstamp, read_version })
    }

    fn refused(&self, error: Error) -> Error {
        match error {
            Error::Conflict => {
                self.counters.conflicts.fetch_add(1, Relaxed);
                error
            }
            // A commit that timed out may have arrived before.
            Error::CommitUnknown | Error::TimedOut => {
                self.counters.commit_unknown.fetch_add(1, Relaxed);
                Error::CommitUnknown
            }
            other => other,
        }
    }
}

fn unsigned(version: FdbResult<i64>) -> Result<u64> {
    // FoundationDB's versions are never negative.
    Ok(version.map_err(error)?.unsigned_abs())
}

fn mutation_type(op: AtomicOp) -> MutationType {
    match op {
        AtomicOp::Add => MutationType::Add,
        AtomicOp::BitAnd => MutationType::BitAnd,
        AtomicOp::BitOr => MutationType::BitOr,
        AtomicOp::BitXor => MutationType::BitXor,
        AtomicOp::Max => MutationType::Max,
        AtomicOp::Min => MutationType::Min,
        AtomicOp::ByteMax => MutationType::ByteMax,
        AtomicOp::ByteMin => MutationType::ByteMin,
        AtomicOp::CompareAndClear => MutationType::CompareAndClear,
        AtomicOp::AppendIfFits => MutationType::AppendIfFits,
        AtomicOp::SetVersionstampedKey => MutationType::SetVersionstampedKey,
        AtomicOp::SetVersionstampedValue => MutationType::SetVersionstampedValue,
    }
}

/// A range being read. What is left of the query is in `query`.
pub(crate) struct FdbPages {
    query: RangeQuery,
    progress: Progress,
}

#[derive(PartialEq, Eq)]
enum Progress {
    Reading,
    Done,
}

impl FdbPages {
    pub(crate) fn new(query: RangeQuery) -> Self {
        Self { query, progress: Progress::Reading }
    }

    /// The next rows; `None` once the range or the limit is exhausted.
    pub(crate) async fn next_page(
        &mut self,
        transaction: &FdbTransaction,
    ) -> Result<Option<Vec<KeyValue>>> {
        transaction.lock().usable()?;
        if *self.query.begin > *SYSTEM_KEYS || *self.query.end > *SYSTEM_KEYS {
            return Err(Error::KeyOutsideLegalRange);
        }
        while self.progress == Progress::Reading {
            let query = &self.query;
            if query.begin >= query.end || query.limit == Some(0) {
                break;
            }
            let options = RangeOption {
                begin: KeySelector::first_greater_or_equal(&*query.begin),
                end: KeySelector::first_greater_or_equal(&*query.end),
                limit: query.limit,
                target_bytes: query.page_bytes,
                mode: StreamingMode::WantAll,
                reverse: query.direction == Direction::Reverse,
                ..RangeOption::default()
            };
            let snapshot = query.isolation == Isolation::Snapshot;
            let read = transaction.lock().usable()?.get_range(&options, 1, snapshot);
            let values = read.await.map_err(error)?;
            let rows = self.advance(&values, transaction);
            if !rows.is_empty() {
                return Ok(Some(rows));
            }
        }
        self.progress = Progress::Done;
        Ok(None)
    }

    /// The rows that came, and the query behind them.
    fn advance(&mut self, values: &FdbValues, transaction: &FdbTransaction) -> Vec<KeyValue> {
        let copy = Bytes::copy_from_slice;
        let rows: Vec<KeyValue> = values
            .iter()
            .map(|row| KeyValue { key: copy(row.key()), value: copy(row.value()) })
            .collect();
        let (mut begin, mut end) = (self.query.begin.clone(), self.query.end.clone());
        match (rows.last(), self.query.direction) {
            (Some(last), Direction::Forward) if values.more() => end = successor(&last.key),
            (Some(last), Direction::Reverse) if values.more() => begin = last.key.clone(),
            _ => self.progress = Progress::Done,
        }
        if self.query.isolation == Isolation::Serializable {
            transaction.lock().tally.conflict_range(&begin, &end);
        }
        match self.query.direction {
            Direction::Forward => self.query.begin = end,
            Direction::Reverse => self.query.end = begin,
        }
        if let Some(limit) = &mut self.query.limit {
            *limit = limit.saturating_sub(rows.len());
        }
        let bytes: usize = rows.iter().map(|row| row.key.len() + row.value.len()).sum();
        transaction.counters.range_reads.fetch_add(1, Relaxed);
        transaction.counters.rows_read.fetch_add(rows.len() as u64, Relaxed);
        transaction.counters.bytes_read.fetch_add(bytes as u64, Relaxed);
        rows
    }
}
