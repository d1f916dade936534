//! What waits for the committer, and what it shares with the transactions.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, RwLock,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
};

use bytes::Bytes;
use env::Env;
use fjall::Keyspace;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::{
    backup::Everything,
    storage::{Snapshot, Storage, unreadable},
    warmth::Warmth,
};
use crate::{
    Error, Locality, Result, Versionstamp,
    limits::{QUEUED_BYTES_MAX, VERSIONS_RESERVED},
    local::{
        clock::VersionClock,
        store::{BoxFuture, CommitRequest, Source, Store, View},
    },
    watch::Registry,
};

/// Queued bytes are counted in units of this many.
const PERMIT_BYTES: usize = 1024;

/// The callers' side: dropped by the last of them, which ends the committer.
pub(crate) struct Queue {
    core: Arc<Core>,
    sender: mpsc::Sender<Message>,
    room: Arc<Semaphore>,
    warmth: Warmth,
    env: Env,
}

/// What callers and committer share.
pub(super) struct Core {
    clock: VersionClock,
    /// No version above this may be handed out yet.
    pub(super) reserved: AtomicU64,
    published: Mutex<Published>,
    /// Present while the directory is open.
    large: RwLock<Option<Keyspace>>,
    /// Large values on their way to the keyspace.
    pending: Mutex<Pending>,
    /// Why nothing can be committed any more.
    failed: OnceLock<Error>,
    pub(super) watches: Arc<Registry>,
    pub(super) batches: AtomicU64,
    pub(super) syncs: AtomicU64,
    pub(super) transactions: AtomicU64,
    /// Bytes of keys and values in all batches.
    pub(super) written_bytes: AtomicU64,
    /// A disk that fails.
    #[cfg(test)]
    pub(super) injected: Mutex<Option<super::tests::Injected>>,
}

/// What a new transaction sees.
struct Published {
    version: u64,
    progress: Progress,
    /// Present while the directory is open.
    snapshot: Option<Arc<Snapshot>>,
}

/// Whether a batch has a version already that is not visible yet.
#[derive(PartialEq, Eq)]
enum Progress {
    Idle,
    InFlight,
}

#[derive(Default)]
pub(super) struct Pending {
    last_number: u64,
    values: BTreeMap<Bytes, Put>,
}

/// A large value put, or removed (`None`).
#[derive(Clone)]
pub(super) struct Put {
    pub(super) number: u64,
    pub(super) value: Option<Bytes>,
}

pub(super) enum Message {
    Commit {
        request: CommitRequest,
        answer: Answer<Versionstamp>,
        room: OwnedSemaphorePermit,
    },
    Put {
        key: Bytes,
        put: Put,
        room: OwnedSemaphorePermit,
    },
    /// Answered once everything before it is written, and for [`Settle::Synced`] synced.
    Settle {
        settle: Settle,
        answer: Answer<()>,
    },
    /// Answered with a snapshot of everything before it.
    Snapshot {
        answer: Answer<Everything>,
    },
    Close {
        answer: Answer<()>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settle {
    Written,
    Synced,
}

pub(super) type Answer<T> = oneshot::Sender<Result<T>>;

impl Core {
    fn published(&self) -> MutexGuard<'_, Published> {
        self.published.lock().expect("nothing panics while it holds what is published")
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().expect("nothing panics while it holds the pending values")
    }

    /// The clock, which stands still rather than pass what is reserved.
    fn now(&self) -> u64 {
        self.clock.now().min(self.reserved.load(Ordering::Acquire))
    }

    /// The next batch's version, and what the batch goes on top of.
    pub(super) fn begin_batch(&self) -> Result<(u64, Arc<Snapshot>)> {
        let now = self.now();
        let mut published = self.published();
        let snapshot = published.snapshot.clone().ok_or_else(closed)?;
        published.progress = Progress::InFlight;
        Ok((now.max(published.version + 1), snapshot))
    }

    /// Makes a batch visible.
    pub(super) fn publish(&self, version: u64, snapshot: Snapshot) {
        let mut published = self.published();
        *published =
            Published { version, progress: Progress::Idle, snapshot: Some(Arc::new(snapshot)) };
    }

    /// Lets go of the published snapshot for another of the same version. A snapshot keeps every
    /// memtable since in memory, also those that hold large values alone and are long on disk.
    pub(super) fn renew(&self, snapshot: Snapshot) {
        let mut published = self.published();
        if published.snapshot.is_some() {
            published.snapshot = Some(Arc::new(snapshot));
        }
    }

    /// A batch wrote nothing that could be seen.
    pub(super) fn abandon_batch(&self) {
        self.published().progress = Progress::Idle;
    }

    /// Puts that are in the keyspace now need no other copy.
    pub(super) fn settle(&self, keys: &BTreeMap<Bytes, Put>) {
        let mut pending = self.pending();
        for (key, put) in keys {
            if pending.values.get(key).is_some_and(|newest| newest.number == put.number) {
                pending.values.remove(key);
            }
        }
    }

    pub(super) fn fail(&self, error: Error) {
        // The first failure is the one that matters.
        let _earlier = self.failed.set(error);
    }

    pub(super) fn usable(&self) -> Result<()> {
        self.failed.get().map_or(Ok(()), |error| Err(error.clone()))
    }

    /// Lets go of every file.
    pub(super) fn close(&self) {
        self.fail(closed());
        self.published().snapshot = None;
        *self.large.write().expect("nothing panics while it holds the keyspace") = None;
        self.watches.cancel_all();
    }

    fn large(&self) -> Result<Keyspace> {
        let large = self.large.read().expect("nothing panics while it holds the keyspace");
        large.clone().ok_or_else(closed)
    }
}

fn closed() -> Error {
    Error::engine_failed("the engine is closed")
}

impl Queue {
    /// A queue and its other end. Versions from `first` up to a reservation are free.
    pub(super) fn new(env: Env, storage: &Storage, first: u64) -> (Self, mpsc::Receiver<Message>) {
        let (sender, receiver) = mpsc::channel();
        let core = Core {
            clock: VersionClock::new(env.clone(), first),
            reserved: AtomicU64::new(first + VERSIONS_RESERVED),
            published: Mutex::new(Published {
                version: first,
                progress: Progress::Idle,
                snapshot: Some(Arc::new(storage.snapshot())),
            }),
            large: RwLock::new(Some(storage.large.clone())),
            pending: Mutex::default(),
            failed: OnceLock::new(),
            watches: Arc::default(),
            batches: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            transactions: AtomicU64::new(0),
            written_bytes: AtomicU64::new(0),
            #[cfg(test)]
            injected: Mutex::default(),
        };
        let room = Arc::new(Semaphore::new(QUEUED_BYTES_MAX / PERMIT_BYTES));
        let warmth = Warmth::default();
        (Self { core: Arc::new(core), sender, room, warmth, env }, receiver)
    }

    pub(super) fn core(&self) -> Arc<Core> {
        Arc::clone(&self.core)
    }

    fn send(&self, message: Message) -> Result<()> {
        self.sender.send(message).map_err(|_| {
            let gone = Error::engine_failed("the committer is gone");
            self.core.usable().err().unwrap_or(gone)
        })
    }

    /// Waits until the queue has room for `bytes`.
    async fn room_for(&self, bytes: usize) -> OwnedSemaphorePermit {
        let permits = u32::try_from(bytes.min(QUEUED_BYTES_MAX - PERMIT_BYTES) / PERMIT_BYTES + 1)
            .expect("the queue's units fit 32 bits");
        let room = Arc::clone(&self.room).acquire_many_owned(permits).await;
        room.expect("the semaphore is never closed")
    }

    async fn committed(&self, request: CommitRequest) -> Result<Versionstamp> {
        self.core.usable()?;
        let room = self.room_for(request.bytes).await;
        let (answer, result) = oneshot::channel();
        self.send(Message::Commit { request, answer, room })?;
        // A committer that panicked may have written before.
        result.await.unwrap_or(Err(Error::CommitUnknown))
    }

    /// Puts (or removes) a large value.
    pub(crate) async fn put(&self, key: &[u8], value: Option<Bytes>) -> Result<()> {
        self.core.usable()?;
        let room = self.room_for(key.len() + value.as_ref().map_or(0, Bytes::len)).await;
        let key = Bytes::copy_from_slice(key);
        // The queue's order is the numbers' order: both are taken under the one lock.
        let mut pending = self.core.pending();
        pending.last_number += 1;
        let put = Put { number: pending.last_number, value };
        self.send(Message::Put { key: key.clone(), put: put.clone(), room })?;
        pending.values.insert(key, put);
        Ok(())
    }

    /// The newest large value of a key.
    pub(crate) async fn large_value(&self, key: &[u8]) -> Result<Option<Bytes>> {
        // Before the keyspace is asked: a value leaves this map after it arrived there.
        if let Some(put) = self.core.pending().values.get(key) {
            return Ok(put.value.clone());
        }
        let large = self.core.large()?;
        let value = if self.warmth.is_warm() {
            let begun = self.env.monotonic();
            let read = large.get(key);
            self.warmth.note(self.env.monotonic().saturating_since(begun));
            read.map_err(|error| unreadable(&large, error))?
        } else {
            let key = Bytes::copy_from_slice(key);
            let read = move || large.get(key).map_err(|error| unreadable(&large, error));
            self.env.run_blocking(read).await.map_err(Error::engine_failed)??
        };
        Ok(value.map(Bytes::from))
    }

    /// Keys of large values that begin with `prefix`, those after `after` only.
    pub(crate) async fn large_keys(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Bytes>> {
        self.settled(Settle::Written).await?;
        let large = self.core.large()?;
        let begin = match after {
            Some(after) if after >= prefix => std::ops::Bound::Excluded(after.to_vec()),
            _ => std::ops::Bound::Included(prefix.to_vec()),
        };
        let prefix = prefix.to_vec();
        let scan = move || {
            large
                .range((begin, std::ops::Bound::Unbounded))
                .map(|row| Ok(Bytes::from(row.key().map_err(|error| unreadable(&large, error))?)))
                .take_while(|key| key.as_ref().map_or(true, |key| key.starts_with(&prefix)))
                .take(limit)
                .collect()
        };
        self.env.run_blocking(scan).await.map_err(Error::engine_failed)?
    }

    /// Waits until everything sent before is written or synced.
    pub(super) async fn settled(&self, settle: Settle) -> Result<()> {
        self.core.usable()?;
        let (answer, result) = oneshot::channel();
        self.send(Message::Settle { settle, answer })?;
        result.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Makes everything durable that was put before.
    pub(crate) async fn sync(&self) -> Result<()> {
        self.settled(Settle::Synced).await
    }

    /// A snapshot of everything that was sent before.
    pub(super) async fn everything(&self) -> Result<Everything> {
        self.core.usable()?;
        let (answer, result) = oneshot::channel();
        self.send(Message::Snapshot { answer })?;
        result.await.unwrap_or_else(|_| Err(closed()))
    }

    pub(super) async fn close(&self) -> Result<()> {
        let (answer, result) = oneshot::channel();
        self.send(Message::Close { answer })?;
        result.await.unwrap_or_else(|_| Err(closed()))
    }
}

impl Store for Arc<Queue> {
    fn locality(&self) -> Locality {
        Locality::Process
    }

    fn view(&self) -> Result<View> {
        let now = self.core.now();
        let mut published = self.core.published();
        // Time passes without commits too, but never past a batch that is not visible yet.
        if published.progress == Progress::Idle {
            published.version = published.version.max(now);
        }
        let source: Arc<dyn Source> = published.snapshot.clone().ok_or_else(closed)?;
        Ok(View { version: published.version, source })
    }

    fn now_version(&self) -> u64 {
        self.core.now()
    }

    fn commit(&self, request: CommitRequest) -> BoxFuture<Result<Versionstamp>> {
        let queue = Arc::clone(self);
        Box::pin(async move { queue.committed(request).await })
    }

    fn watches(&self) -> &Arc<Registry> {
        &self.core.watches
    }
}
