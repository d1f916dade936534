//! What the memory and the embedded engine provide to transactions.

use std::{future::Future, pin::Pin, sync::Arc};

use bytes::Bytes;

use super::resolver::Span;
use crate::{AtomicOp, Direction, KeyValue, Locality, Result, Versionstamp, watch::Registry};

pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A change, in the order in which the transaction made it.
#[derive(Debug, Clone)]
pub(crate) enum Mutation {
    Set(Bytes, Bytes),
    Clear(Bytes),
    ClearRange(Bytes, Bytes),
    Atomic(AtomicOp, Bytes, Bytes),
}

/// What a transaction asks to be committed.
#[derive(Debug, Default)]
pub(crate) struct CommitRequest {
    /// What the reads are checked from.
    pub(crate) read_version: u64,
    pub(crate) reads: Vec<Span>,
    /// Beside what the mutations write.
    pub(crate) writes: Vec<Span>,
    pub(crate) mutations: Vec<Mutation>,
    pub(crate) bytes: usize,
}

/// A page of a range, in the range's direction.
pub(crate) struct Rows {
    pub(crate) rows: Vec<KeyValue>,
    /// Whether the range goes on behind the last row.
    pub(crate) more: bool,
}

/// How much one page may hold; at least one row.
#[derive(Clone, Copy)]
pub(crate) struct PageLimits {
    pub(crate) rows: usize,
    pub(crate) bytes: usize,
}

/// Committed data as of one version.
pub(crate) trait Source: Send + Sync {
    fn get(&self, key: &[u8], version: u64) -> Result<Option<Bytes>>;
    /// `begin` is before `end`.
    fn range(
        &self,
        begin: &[u8],
        end: &[u8],
        direction: Direction,
        limits: PageLimits,
        version: u64,
    ) -> Result<Rows>;
}

/// What one transaction sees.
#[derive(Clone)]
pub(crate) struct View {
    pub(crate) version: u64,
    pub(crate) source: Arc<dyn Source>,
}

/// One local engine.
pub(crate) trait Store: Send + Sync + 'static {
    /// Everything committed by now. Later commits have higher versions than the view's.
    fn view(&self) -> Result<View>;
    /// The version that the clock stands at.
    fn now_version(&self) -> u64;
    /// Skips versions, so that every transaction that has begun is too old; where the engine can.
    fn leap(&self, versions: u64) {
        let _nowhere = versions;
    }
    /// Commits. A future that is dropped leaves the commit's result open.
    fn commit(&self, request: CommitRequest) -> BoxFuture<Result<Versionstamp>>;
    fn watches(&self) -> &Arc<Registry>;
    /// What [`crate::Database::locality`] says.
    fn locality(&self) -> Locality;
}
