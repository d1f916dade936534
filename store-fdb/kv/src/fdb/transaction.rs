//! A transaction of the client library, behind the interface of ours.

use std::sync::{Arc, Mutex, MutexGuard, atomic::Ordering::Relaxed};

use bytes::Bytes;
use foundationdb::{
    FdbResult, KeySelector, RangeOption,
    future::{FdbSlice, FdbValues},
    options::{ConflictRangeType, MutationType, StreamingMode},
};
use futures_util::{FutureExt, future::BoxFuture};

use super::{
    error,
    remembered::{Moment, Remembered},
};
use crate::{
    AtomicOp, Committed, Counts, Direction, Error, Isolation, KeyValue, Prefetch, RangeQuery,
    Result, Versionstamp, Watch,
    atomic::{stamp_position, stamped_with},
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
    /// The first read that failed: whoever went on without an answer must not commit.
    failed_read: Option<Error>,
    /// The version that is read at, asked for with the first read, so that nobody waits for it.
    version: Option<BoxFuture<'static, FdbResult<i64>>>,
    /// Whether a commit does anything.
    effect: Effect,
    remembered: Remembered,
    tally: Tally,
}

#[derive(PartialEq, Eq)]
enum Effect {
    /// Nothing was written, watched or declared to be.
    Nothing,
    Something,
}

impl State {
    fn new(transaction: Result<foundationdb::Transaction>) -> Self {
        Self {
            transaction,
            deferred: None,
            failed_read: None,
            version: None,
            effect: Effect::Nothing,
            remembered: Remembered::default(),
            tally: Tally::default(),
        }
    }

    fn usable(&self) -> Result<&foundationdb::Transaction> {
        let transaction = self.transaction.as_ref().map_err(Error::clone)?;
        self.deferred.as_ref().map_or(Ok(transaction), |error| Err(error.clone()))
    }

    /// For a read.
    fn reading(&mut self) -> Result<&foundationdb::Transaction> {
        let Self { transaction, version, .. } = self;
        if let (Ok(transaction), None) = (transaction, &version) {
            *version = Some(transaction.get_read_version().boxed());
        }
        self.usable()
    }

    /// Records an operation that returns nothing, or its refusal.
    fn record(
        &mut self,
        operation: impl FnOnce(&foundationdb::Transaction, &mut Tally, &mut Remembered) -> Result<()>,
    ) {
        let Self { transaction, deferred, tally, remembered, effect, .. } = self;
        let (Ok(transaction), None) = (transaction, &deferred) else { return };
        *effect = Effect::Something;
        *deferred = if tally.bytes > TRANSACTION_BYTES_MAX {
            Some(Error::TransactionTooLarge)
        } else {
            operation(transaction, tally, remembered).err()
        };
    }
}

impl FdbTransaction {
    pub(super) fn new(
        transaction: Result<foundationdb::Transaction>,
        counters: Arc<Counters>,
    ) -> Self {
        Self { counters, state: Mutex::new(State::new(transaction)) }
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
            let mut state = self.lock();
            state.usable()?;
            if check::readable_key(key)? == Reachable::No {
                return Ok(None);
            }
            if let Some(value) = state.remembered.key(key) {
                return Ok(value.clone());
            }
            let snapshot = isolation == Isolation::Snapshot;
            (state.remembered.moment(), state.reading()?.get(key, snapshot))
        };
        self.answer(key, isolation, read).await
    }

    /// Keeps the error of a read for the commit.
    fn noted<T>(&self, read: FdbResult<T>) -> Result<T> {
        read.map_err(error).inspect_err(|error| {
            self.lock().failed_read.get_or_insert_with(|| error.clone());
        })
    }

    /// Waits for a read's answer, and notes it.
    async fn answer(
        &self,
        key: &[u8],
        isolation: Isolation,
        (begun, read): (Moment, impl Future<Output = FdbResult<Option<FdbSlice>>>),
    ) -> Result<Option<Bytes>> {
        let value = self.noted(read.await)?.map(|slice| Bytes::copy_from_slice(&slice));
        if isolation == Isolation::Serializable {
            let mut state = self.lock();
            state.tally.conflict_key(key);
            state.remembered.keep_key(begun, key, &value);
        }
        self.counters.keys_read.fetch_add(1, Relaxed);
        let bytes = key.len() + value.as_ref().map_or(0, Bytes::len);
        self.counters.bytes_read.fetch_add(bytes as u64, Relaxed);
        Ok(value)
    }

    /// Asks for everything at once, so that all of it takes one round trip.
    pub(crate) async fn prefetch(&self, ahead: Prefetch) -> Result<()> {
        let (begun, keys, ranges) = {
            let mut state = self.lock();
            let begun = state.remembered.moment();
            state.reading()?;
            let transaction = state.usable()?;
            let mut keys = Vec::with_capacity(ahead.keys.len());
            for key in ahead.keys {
                if check::readable_key(&key)? == Reachable::Yes
                    && state.remembered.key(&key).is_none()
                {
                    let read = transaction.get(&key, false);
                    keys.push((key, read));
                }
            }
            let is_new = |query: &RangeQuery| state.remembered.range(query).is_none();
            let ranges = ahead.ranges.into_values().filter(is_new);
            let ranges = ranges.map(|query| FdbPages::ahead(query, transaction));
            (begun, keys, ranges.collect::<Result<Vec<_>>>()?)
        };
        for (key, read) in keys {
            self.answer(&key, Isolation::Serializable, (begun, read)).await?;
        }
        for (pages, read) in ranges {
            pages.keep(begun, read, self).await?;
        }
        Ok(())
    }

    pub(crate) fn set(&self, key: &[u8], value: &[u8]) {
        self.lock().record(|transaction, tally, remembered| {
            check::writable_key(key)?;
            check::value(value)?;
            transaction.set(key, value);
            remembered.key_written(key);
            tally.set(key, value);
            Ok(())
        });
    }

    pub(crate) fn clear(&self, key: &[u8]) {
        self.lock().record(|transaction, tally, remembered| {
            if check::readable_key(key)? == Reachable::Yes {
                transaction.clear(key);
                remembered.key_written(key);
                tally.clear(key);
            }
            Ok(())
        });
    }

    pub(crate) fn clear_range(&self, begin: &[u8], end: &[u8]) {
        self.lock().record(|transaction, tally, remembered| {
            let (begin, end) = check::range(begin, end)?;
            if begin < end {
                transaction.clear_range(&begin, &end);
                remembered.range_written(&begin, &end);
                tally.clear_range(&begin, &end);
            }
            Ok(())
        });
    }

    pub(crate) fn atomic(&self, key: &[u8], operand: &[u8], op: AtomicOp) {
        self.lock().record(|transaction, tally, remembered| {
            check::writable_key(key)?;
            check::value(operand)?;
            match op {
                AtomicOp::SetVersionstampedKey => {
                    let last = stamped_with(key, &[0xff; 10])?;
                    remembered.range_written(&stamped_with(key, &[0; 10])?, &successor(&last));
                }
                AtomicOp::SetVersionstampedValue => {
                    stamp_position(operand)?;
                    remembered.key_written(key);
                }
                _ => remembered.key_written(key),
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
        self.lock().record(|transaction, tally, _| {
            let (begin, end) = check::range(begin, end)?;
            if begin < end {
                transaction.add_conflict_range(&begin, &end, kind).map_err(error)?;
                tally.conflict_range(&begin, &end);
            }
            Ok(())
        });
    }

    pub(crate) fn watch(&self, key: &[u8]) -> Watch {
        let mut state = self.lock();
        state.effect = Effect::Something;
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
        let (transaction, state) = {
            let mut state = self.lock();
            state.usable()?;
            let ended = State::new(Err(Error::UsedAfterCommit));
            let mut state = std::mem::replace(&mut *state, ended);
            (std::mem::replace(&mut state.transaction, Err(Error::UsedAfterCommit))?, state)
        };
        if let Some(error) = state.failed_read {
            return Err(error);
        }
        let read_version = unsigned(match state.version {
            Some(version) => version.await,
            // The commit takes a read version too; this is the same one.
            None => transaction.get_read_version().await,
        })?;
        if state.effect == Effect::Nothing {
            // The client would not ask the cluster either, but take its time to say so.
            self.counters.transactions_read_only.fetch_add(1, Relaxed);
            return Ok(Committed { value: (), versionstamp: None, read_version });
        }
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
        self.counters.add(&Counts { transactions_committed: 1, ..state.tally.counts });
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
        check_ends(&self.query)?;
        while self.progress == Progress::Reading {
            let query = &self.query;
            if query.begin >= query.end || query.limit == Some(0) {
                break;
            }
            let read = {
                let mut state = transaction.lock();
                if let Some(rows) = state.remembered.range(query) {
                    self.progress = Progress::Done;
                    return Ok((!rows.is_empty()).then(|| rows.clone()));
                }
                read_page(state.reading()?, query)
            };
            let values = transaction.noted(read.await)?;
            let rows = self.advance(&values, transaction);
            if !rows.is_empty() {
                return Ok(Some(rows));
            }
        }
        self.progress = Progress::Done;
        Ok(None)
    }

    /// Begins to read the first page ahead.
    fn ahead(
        query: RangeQuery,
        transaction: &foundationdb::Transaction,
    ) -> Result<(Self, impl Future<Output = FdbResult<FdbValues>> + use<>)> {
        check_ends(&query)?;
        let read = read_page(transaction, &query);
        Ok((Self::new(query), read))
    }

    /// Keeps what was read ahead, where that is all.
    async fn keep(
        mut self,
        begun: Moment,
        read: impl Future<Output = FdbResult<FdbValues>>,
        transaction: &FdbTransaction,
    ) -> Result<()> {
        let values = transaction.noted(read.await)?;
        let query = self.query.clone();
        let rows = self.advance(&values, transaction);
        if self.progress == Progress::Done || self.query.limit == Some(0) {
            transaction.lock().remembered.keep_range(begun, &query, &rows);
        }
        Ok(())
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

fn check_ends(query: &RangeQuery) -> Result<()> {
    let is_legal = *query.begin <= *SYSTEM_KEYS && *query.end <= *SYSTEM_KEYS;
    if is_legal { Ok(()) } else { Err(Error::KeyOutsideLegalRange) }
}

fn read_page(
    transaction: &foundationdb::Transaction,
    query: &RangeQuery,
) -> impl Future<Output = FdbResult<FdbValues>> + use<> {
    let options = RangeOption {
        begin: KeySelector::first_greater_or_equal(&*query.begin),
        end: KeySelector::first_greater_or_equal(&*query.end),
        limit: query.limit,
        target_bytes: query.page_bytes,
        mode: StreamingMode::WantAll,
        reverse: query.direction == Direction::Reverse,
        ..RangeOption::default()
    };
    transaction.get_range(&options, 1, query.isolation == Isolation::Snapshot)
}
