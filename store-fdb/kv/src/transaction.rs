//! [`Transaction`]: one handle for every engine.

use std::sync::Arc;

use bytes::Bytes;

#[cfg(feature = "fdb")]
use crate::fdb::{FdbPages, FdbTransaction};
use crate::{
    AtomicOp, Isolation, KeyValue, Prefetch, RangeQuery, Result, Versionstamp, Watch,
    local::{LocalPages, LocalTransaction},
    range::successor,
};

/// What a transaction gave, and where in the order of commits it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed<T> {
    /// What the closure returned.
    pub value: T,
    /// The commit's place in the order; `None` where nothing was written.
    pub versionstamp: Option<Versionstamp>,
    /// The version that the transaction read at.
    pub read_version: u64,
}

impl<T> Committed<T> {
    /// The same commit with another value.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Committed<U> {
        Committed {
            value: change(self.value),
            versionstamp: self.versionstamp,
            read_version: self.read_version,
        }
    }
}

/// A transaction. A clone is another handle to the same one.
///
/// What returns nothing cannot fail at once: a key that is too large, for example, is reported
/// by the next operation that returns a result, the commit at the latest.
#[derive(Clone)]
pub struct Transaction {
    engine: Engine,
}

#[derive(Clone)]
enum Engine {
    Local(Arc<LocalTransaction>),
    #[cfg(feature = "fdb")]
    Fdb(Arc<FdbTransaction>),
}

impl std::fmt::Debug for Transaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Transaction")
    }
}

/// Calls the engine's method of the same name.
macro_rules! delegate {
    ($self:ident, $transaction:ident => $call:expr) => {
        match &$self.engine {
            Engine::Local($transaction) => $call,
            #[cfg(feature = "fdb")]
            Engine::Fdb($transaction) => $call,
        }
    };
}

impl Transaction {
    pub(crate) fn local(transaction: LocalTransaction) -> Self {
        Self { engine: Engine::Local(Arc::new(transaction)) }
    }

    #[cfg(feature = "fdb")]
    pub(crate) fn fdb(transaction: FdbTransaction) -> Self {
        Self { engine: Engine::Fdb(Arc::new(transaction)) }
    }

    /// The value of a key. The transaction conflicts with later changes to it.
    ///
    /// # Errors
    /// As [`Error`](crate::Error) lists them.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        delegate!(self, transaction => transaction.get(key, Isolation::Serializable).await)
    }

    /// The value of a key, without a conflict.
    ///
    /// # Errors
    /// As [`Error`](crate::Error) lists them.
    pub async fn get_snapshot(&self, key: &[u8]) -> Result<Option<Bytes>> {
        delegate!(self, transaction => transaction.get(key, Isolation::Snapshot).await)
    }

    /// Reads a range. The transaction conflicts with later changes to what was read of it.
    pub fn range(&self, query: RangeQuery) -> RangePages {
        let pages = match &self.engine {
            Engine::Local(transaction) => {
                Pages::Local(LocalPages::new(query), Arc::clone(transaction))
            }
            #[cfg(feature = "fdb")]
            Engine::Fdb(transaction) => Pages::Fdb(FdbPages::new(query), Arc::clone(transaction)),
        };
        RangePages { pages }
    }

    /// Reads what [`get`](Self::get) and [`range`](Self::range) are about to be asked for, all at
    /// once: where the store is another machine, that is one round trip instead of one a key. The
    /// transaction conflicts with later changes to it as if it had been read one by one. A store
    /// in this process answers each read at once; there `list` is not even called.
    ///
    /// # Errors
    /// As [`Error`](crate::Error) lists them.
    pub async fn prefetch(&self, list: impl FnOnce(&mut Prefetch)) -> Result<()> {
        match &self.engine {
            Engine::Local(_) => {
                drop(list);
                Ok(())
            }
            #[cfg(feature = "fdb")]
            Engine::Fdb(transaction) => {
                let mut ahead = Prefetch::default();
                list(&mut ahead);
                transaction.prefetch(ahead).await
            }
        }
    }

    /// Sets a key.
    pub fn set(&self, key: &[u8], value: &[u8]) {
        delegate!(self, transaction => transaction.set(key, value));
    }

    /// Clears a key.
    pub fn clear(&self, key: &[u8]) {
        delegate!(self, transaction => transaction.clear(key));
    }

    /// Clears the keys from `begin` up to but without `end`.
    ///
    /// The local engines write a mark for every key in the range; FoundationDB writes one in all.
    pub fn clear_range(&self, begin: &[u8], end: &[u8]) {
        delegate!(self, transaction => transaction.clear_range(begin, end));
    }

    /// Changes a value at commit, without a read and so without a conflict.
    pub fn atomic(&self, key: &[u8], operand: &[u8], op: AtomicOp) {
        delegate!(self, transaction => transaction.atomic(key, operand, op));
    }

    /// Conflicts with later changes to a key, as if it had been read.
    pub fn add_read_conflict_key(&self, key: &[u8]) {
        self.add_read_conflict_range(key, &successor(key));
    }

    /// Conflicts with later changes to a range, as if it had been read.
    pub fn add_read_conflict_range(&self, begin: &[u8], end: &[u8]) {
        delegate!(self, transaction => transaction.add_read_conflict(begin, end));
    }

    /// Makes those that read a key conflict, as if it had been written.
    pub fn add_write_conflict_key(&self, key: &[u8]) {
        self.add_write_conflict_range(key, &successor(key));
    }

    /// Makes those that read in a range conflict, as if it had been written.
    pub fn add_write_conflict_range(&self, begin: &[u8], end: &[u8]) {
        delegate!(self, transaction => transaction.add_write_conflict(begin, end));
    }

    /// The version that the transaction reads at.
    ///
    /// # Errors
    /// As [`Error`](crate::Error) lists them.
    pub async fn read_version(&self) -> Result<u64> {
        delegate!(self, transaction => transaction.read_version().await)
    }

    /// Watches a key for a change from what this transaction sees. The watch becomes live when
    /// the transaction commits, and outlives it.
    pub fn watch(&self, key: &[u8]) -> Watch {
        delegate!(self, transaction => transaction.watch(key))
    }

    /// The bytes that count against
    /// [`limits::TRANSACTION_BYTES_MAX`](crate::limits::TRANSACTION_BYTES_MAX): of mutations and
    /// conflict ranges, never less than FoundationDB counts.
    pub fn approximate_size(&self) -> usize {
        delegate!(self, transaction => transaction.approximate_size())
    }

    /// Commits. [`Database::run`](crate::Database::run) does it for its closure.
    ///
    /// # Errors
    /// As [`Error`](crate::Error) lists them; [`Error::UsedAfterCommit`](crate::Error) where
    /// another handle committed.
    pub async fn commit(self) -> Result<Committed<()>> {
        delegate!(self, transaction => transaction.commit().await)
    }
}

/// A range being read.
pub struct RangePages {
    pages: Pages,
}

enum Pages {
    Local(LocalPages, Arc<LocalTransaction>),
    #[cfg(feature = "fdb")]
    Fdb(FdbPages, Arc<FdbTransaction>),
}

impl std::fmt::Debug for RangePages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RangePages")
    }
}

impl RangePages {
    /// The next rows, at least one; `None` once the range or the limit is exhausted.
    ///
    /// # Errors
    /// As [`Error`](crate::Error) lists them.
    pub async fn next_page(&mut self) -> Result<Option<Vec<KeyValue>>> {
        match &mut self.pages {
            Pages::Local(pages, transaction) => pages.next_page(transaction).await,
            #[cfg(feature = "fdb")]
            Pages::Fdb(pages, transaction) => pages.next_page(transaction).await,
        }
    }

    /// All rows at once. For ranges that are known to be small or have a limit.
    ///
    /// # Errors
    /// As [`Error`](crate::Error) lists them.
    pub async fn collect(mut self) -> Result<Vec<KeyValue>> {
        let mut rows = Vec::new();
        while let Some(page) = self.next_page().await? {
            rows.extend(page);
        }
        Ok(rows)
    }
}
