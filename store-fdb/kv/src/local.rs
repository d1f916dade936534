//! Transactions of the engines in this process, memory and embedded.
//!
//! A transaction is a view (a version and the data as of it), the writes so far, and what was
//! read. Reads of stored data happen in place on the calling task: memory and a warm LSM tree
//! answer in microseconds, and a hop to another thread would cost more than most reads.
//!
//! Invariant: the state's lock is never held across an await, nor while the store is read.

pub(crate) mod clock;
pub(crate) mod memory;
mod pages;
mod range_set;
pub(crate) mod resolver;
pub(crate) mod sequencer;
pub(crate) mod store;
mod write_map;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, atomic::Ordering::Relaxed},
};

use bytes::Bytes;

pub(crate) use pages::LocalPages;
use resolver::Span;
use store::{CommitRequest, Mutation, Store, View};
use write_map::{Lookup, WriteMap, apply_all};

use crate::{
    AtomicOp, Committed, Counts, Error, Isolation, Result,
    atomic::{stamp_position, stamped_with},
    check::{self, Reachable, Tally},
    counts::Counters,
    faults::Injector,
    limits::{TRANSACTION_BYTES_MAX, TRANSACTION_LIFE_VERSIONS},
    range::successor,
    watch::{Delivery, Dormant, Watch},
};

/// One transaction. Shared by reference; every method takes `&self`.
pub(crate) struct LocalTransaction {
    store: Arc<dyn Store>,
    counters: Arc<Counters>,
    faults: Arc<Injector>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Why the transaction can no longer be used, once it cannot.
    ended: Option<Error>,
    /// The first error of an operation that returns nothing; told by the next that does.
    deferred: Option<Error>,
    /// The first read that failed. As in FoundationDB, the commit fails with it too: whoever went
    /// on without an answer must not commit.
    failed_read: Option<Error>,
    view: Option<View>,
    writes: WriteMap,
    mutations: Vec<Mutation>,
    read_keys: BTreeSet<Bytes>,
    read_ranges: Vec<(Bytes, Bytes)>,
    write_spans: Vec<Span>,
    watches: Vec<Dormant>,
    tally: Tally,
}

impl State {
    fn usable(&self) -> Result<()> {
        match self.ended.as_ref().or(self.deferred.as_ref()) {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// Records an operation that returns nothing, or its refusal.
    fn record(&mut self, operation: impl FnOnce(&mut Self) -> Result<()>) {
        if self.usable().is_err() {
            return;
        }
        // What no commit would accept is not kept either, so that a transaction's memory is
        // bounded.
        let recorded = if self.tally.bytes > TRANSACTION_BYTES_MAX {
            Err(Error::TransactionTooLarge)
        } else {
            operation(self)
        };
        self.deferred = recorded.err();
    }

    fn add_mutation(&mut self, mutation: Mutation) {
        match &mutation {
            Mutation::Set(key, value) => self.tally.set(key, value),
            Mutation::Atomic(_, key, operand) => self.tally.set(key, operand),
            Mutation::Clear(key) => self.tally.clear(key),
            Mutation::ClearRange(begin, end) => self.tally.clear_range(begin, end),
        }
        self.mutations.push(mutation);
    }

    fn add_read_key(&mut self, key: &Bytes) {
        if self.read_keys.insert(key.clone()) {
            self.tally.conflict_key(key);
        }
    }

    fn add_read_range(&mut self, begin: Bytes, end: Bytes) {
        if begin >= end {
            return;
        }
        // Page after page of one range is one range.
        if let Some((last_begin, last_end)) = self.read_ranges.last_mut() {
            if *last_end == begin {
                *last_end = end;
                return;
            }
            if *last_begin == end {
                *last_begin = begin;
                return;
            }
        }
        self.tally.conflict_range(&begin, &end);
        self.read_ranges.push((begin, end));
    }
}

impl LocalTransaction {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        counters: Arc<Counters>,
        faults: Arc<Injector>,
    ) -> Self {
        Self { store, counters, faults, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds a transaction's state")
    }

    /// The view, taken by the first read.
    fn view(&self) -> Result<View> {
        let taken = {
            let state = self.lock();
            state.usable()?;
            state.view.clone()
        };
        let view = match taken {
            Some(view) => view,
            None => {
                let fresh = self.store.view()?;
                self.lock().view.get_or_insert(fresh).clone()
            }
        };
        if self.store.now_version().saturating_sub(view.version) > TRANSACTION_LIFE_VERSIONS {
            return Err(Error::TooOld);
        }
        Ok(view)
    }

    pub(crate) async fn read_version(&self) -> Result<u64> {
        self.lock().usable()?;
        self.faults.before_read().await?;
        Ok(self.view()?.version)
    }

    pub(crate) async fn get(&self, key: &[u8], isolation: Isolation) -> Result<Option<Bytes>> {
        self.lock().usable()?;
        if check::readable_key(key)? == Reachable::No {
            return Ok(None);
        }
        self.noted(self.read_key(key, isolation).await)
    }

    /// Keeps the error of a read for the commit.
    fn noted<T>(&self, read: Result<T>) -> Result<T> {
        if let Err(error) = &read {
            self.lock().failed_read.get_or_insert_with(|| error.clone());
        }
        read
    }

    async fn read_key(&self, key: &[u8], isolation: Isolation) -> Result<Option<Bytes>> {
        let pending = {
            let mut state = self.lock();
            state.usable()?;
            match state.writes.lookup(key) {
                Lookup::Known(value) => return Ok(value),
                Lookup::Unreadable => return Err(Error::AccessedUnreadable),
                Lookup::Stored(pending) => {
                    if isolation == Isolation::Serializable {
                        state.add_read_key(&Bytes::copy_from_slice(key));
                    }
                    pending
                }
            }
        };
        self.faults.before_read().await?;
        let view = self.view()?;
        let stored = view.source.get(key, view.version)?;
        self.counters.keys_read.fetch_add(1, Relaxed);
        let bytes = key.len() + stored.as_ref().map_or(0, Bytes::len);
        self.counters.bytes_read.fetch_add(bytes as u64, Relaxed);
        Ok(apply_all(stored, &pending))
    }

    pub(crate) fn set(&self, key: &[u8], value: &[u8]) {
        self.lock().record(|state| {
            check::writable_key(key)?;
            check::value(value)?;
            let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
            state.writes.set(&key, &value);
            state.add_mutation(Mutation::Set(key, value));
            Ok(())
        });
    }

    pub(crate) fn clear(&self, key: &[u8]) {
        self.lock().record(|state| {
            if check::readable_key(key)? == Reachable::Yes {
                let key = Bytes::copy_from_slice(key);
                state.writes.clear(&key);
                state.add_mutation(Mutation::Clear(key));
            }
            Ok(())
        });
    }

    pub(crate) fn clear_range(&self, begin: &[u8], end: &[u8]) {
        self.lock().record(|state| {
            let (begin, end) = check::range(begin, end)?;
            if begin < end {
                state.writes.clear_range(&begin, &end);
                state.add_mutation(Mutation::ClearRange(begin, end));
            }
            Ok(())
        });
    }

    pub(crate) fn atomic(&self, key: &[u8], operand: &[u8], op: AtomicOp) {
        self.lock().record(|state| {
            check::writable_key(key)?;
            check::value(operand)?;
            let (key, operand) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(operand));
            match op {
                AtomicOp::SetVersionstampedKey => {
                    // No commit can have a version at or below what the transaction sees.
                    let version = state.view.as_ref().map_or(0, |view| view.version);
                    let mut first = [0; 10];
                    first[..8].copy_from_slice(&version.to_be_bytes());
                    let begin = stamped_with(&key, &first)?;
                    let end = successor(&stamped_with(&key, &[0xff; 10])?);
                    state.writes.versionstamped_key(&begin, &end);
                }
                AtomicOp::SetVersionstampedValue => {
                    stamp_position(&operand)?;
                    state.writes.versionstamped_value(&key);
                }
                _ => state.writes.atomic(&key, op, &operand),
            }
            state.add_mutation(Mutation::Atomic(op, key, operand));
            Ok(())
        });
    }

    pub(crate) fn add_read_conflict(&self, begin: &[u8], end: &[u8]) {
        self.lock().record(|state| {
            let (begin, end) = check::range(begin, end)?;
            // As in FoundationDB, without what the transaction determined itself before.
            for (begin, end) in state.writes.dependent(&begin, &end) {
                state.add_read_range(begin, end);
            }
            Ok(())
        });
    }

    pub(crate) fn add_write_conflict(&self, begin: &[u8], end: &[u8]) {
        self.lock().record(|state| {
            let (begin, end) = check::range(begin, end)?;
            if begin < end {
                state.tally.conflict_range(&begin, &end);
                state.write_spans.push(Span::Range(begin, end));
            }
            Ok(())
        });
    }

    pub(crate) fn watch(&self, key: &[u8]) -> Watch {
        self.try_watch(key).unwrap_or_else(Watch::refused)
    }

    fn try_watch(&self, key: &[u8]) -> Result<Watch> {
        check::writable_key(key)?;
        let view = self.view()?;
        let looked_up = self.lock().writes.lookup(key);
        let expected = match looked_up {
            Lookup::Known(value) => Some(value),
            Lookup::Unreadable => None,
            Lookup::Stored(pending) => {
                Some(apply_all(view.source.get(key, view.version)?, &pending))
            }
        };
        let delivery = if self.faults.loses_watch() { Delivery::Lost } else { Delivery::Told };
        let (watch, dormant) =
            self.store.watches().open(Bytes::copy_from_slice(key), expected, delivery)?;
        self.lock().watches.push(dormant);
        Ok(watch)
    }

    pub(crate) fn approximate_size(&self) -> usize {
        self.lock().tally.bytes
    }

    pub(crate) async fn commit(&self) -> Result<Committed<()>> {
        let state = {
            let mut state = self.lock();
            state.usable()?;
            State {
                ended: None,
                ..std::mem::replace(
                    &mut *state,
                    State { ended: Some(Error::UsedAfterCommit), ..State::default() },
                )
            }
        };
        if let Some(error) = state.failed_read {
            return Err(error);
        }
        if state.tally.bytes > TRANSACTION_BYTES_MAX {
            return Err(Error::TransactionTooLarge);
        }
        let watches = state.watches;
        let read_version = state.view.as_ref().map(|view| view.version);
        if state.mutations.is_empty() && state.write_spans.is_empty() {
            self.counters.transactions_read_only.fetch_add(1, Relaxed);
            let read_version = match read_version {
                Some(version) => version,
                None => self.store.view()?.version,
            };
            self.activate(watches);
            return Ok(Committed { value: (), versionstamp: None, read_version });
        }
        // A blind write has seen nothing, so any view will do for its report. A declared read
        // conflict without a read counts from here.
        let read_version = match read_version {
            Some(version) => version,
            None => self.store.view()?.version,
        };
        let points = state.read_keys.into_iter().map(Span::Point);
        let ranges = state.read_ranges.into_iter().map(|(begin, end)| Span::Range(begin, end));
        let request = CommitRequest {
            read_version,
            reads: points.chain(ranges).collect(),
            writes: state.write_spans,
            mutations: state.mutations,
            bytes: state.tally.bytes,
        };
        let counts = Counts { transactions_committed: 1, ..state.tally.counts };
        let committed = self.submit(request).await;
        match &committed {
            Ok(_) => self.counters.add(&counts),
            Err(Error::Conflict) => drop(self.counters.conflicts.fetch_add(1, Relaxed)),
            Err(Error::CommitUnknown) => drop(self.counters.commit_unknown.fetch_add(1, Relaxed)),
            Err(_) => {}
        }
        let versionstamp = Some(committed?);
        self.activate(watches);
        Ok(Committed { value: (), versionstamp, read_version })
    }

    async fn submit(&self, request: CommitRequest) -> Result<crate::Versionstamp> {
        self.faults.before_commit().await?;
        let stamp = self.store.commit(request).await?;
        self.faults.after_commit().await?;
        Ok(stamp)
    }

    fn activate(&self, watches: Vec<Dormant>) {
        for dormant in watches {
            self.store.watches().activate(dormant, |key| {
                let view = self.store.view()?;
                view.source.get(key, view.version)
            });
        }
    }
}
