//! The memory engine: every key's versions of the last five seconds in one ordered map.
//!
//! Commits that wait at the same moment make one batch: whoever commits first gives way to the
//! other tasks once, and then commits for all.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard},
    task::Poll,
};

use bytes::Bytes;
use env::Env;
use tokio::sync::oneshot;

use super::{
    clock::VersionClock,
    sequencer::{Base, Changes, Sequencer},
    store::{BoxFuture, CommitRequest, PageLimits, Rows, Source, Store, View},
};
use crate::{
    Direction, Error, KeyValue, Locality, Result, Versionstamp,
    limits::{BATCH_TRANSACTIONS_MAX, TRANSACTION_LIFE_VERSIONS},
    watch::Registry,
};

/// The version that a new memory engine stands at: above zero, so that no version is zero.
const FIRST_VERSION: u64 = 1_000_000;

pub(crate) struct Memory {
    clock: VersionClock,
    shared: Arc<Shared>,
    waiting: Mutex<Vec<Waiting>>,
    watches: Arc<Registry>,
}

struct Waiting {
    request: CommitRequest,
    answer: oneshot::Sender<Result<Versionstamp>>,
}

#[derive(Default)]
struct Shared {
    data: Mutex<Data>,
}

#[derive(Default)]
struct Data {
    /// The newest version that is visible.
    version: u64,
    /// The oldest version that can still be read.
    oldest: u64,
    keys: BTreeMap<Bytes, Vec<Change>>,
    /// Changes that may be forgotten, by the version that replaced what came before.
    replaced: VecDeque<(u64, Bytes)>,
    sequencer: Sequencer,
}

/// A key's value from one version on. Ascending within a key.
struct Change {
    version: u64,
    value: Option<Bytes>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Data> {
        self.data.lock().expect("nothing panics while it holds the data")
    }
}

fn value_at(changes: &[Change], version: u64) -> Option<&Bytes> {
    let newer = changes.partition_point(|change| change.version <= version);
    changes[..newer].last().and_then(|change| change.value.as_ref())
}

impl Memory {
    pub(crate) fn new(env: Env) -> Arc<Self> {
        Arc::new(Self {
            clock: VersionClock::new(env, FIRST_VERSION),
            shared: Arc::new(Shared::default()),
            waiting: Mutex::default(),
            watches: Arc::default(),
        })
    }

    /// Commits everything that waits, one batch.
    fn commit_waiting(&self) {
        let waiting = {
            let mut queue = self.waiting.lock().expect("nothing panics while it holds the queue");
            let batch = queue.len().min(BATCH_TRANSACTIONS_MAX);
            queue.drain(..batch).collect::<Vec<_>>()
        };
        // Whoever no longer waits is not committed behind its back.
        let waiting: Vec<_> = waiting.into_iter().filter(|one| !one.answer.is_closed()).collect();
        if waiting.is_empty() {
            return;
        }
        let mut data = self.shared.lock();
        let version = self.clock.now().max(data.version + 1);
        let mut sequencer = std::mem::take(&mut data.sequencer);
        let outcome =
            sequencer.resolve(version, waiting.iter().map(|one| &one.request), &Newest(&data));
        data.sequencer = sequencer;
        let outcome = outcome.expect("reading memory does not fail");
        data.apply(version, &outcome.changes);
        drop(data);
        self.watches.tell(outcome.changes.keys());
        for (one, result) in waiting.into_iter().zip(outcome.results) {
            // Whoever dropped its commit meanwhile does not learn its result.
            let _dropped = one.answer.send(result);
        }
    }
}

impl Data {
    fn apply(&mut self, version: u64, changes: &Changes) {
        for (key, value) in changes {
            let history = self.keys.entry(key.clone()).or_default();
            history.push(Change { version, value: value.clone() });
            self.replaced.push_back((version, key.clone()));
        }
        self.version = version;
        self.oldest = self.oldest.max(version.saturating_sub(TRANSACTION_LIFE_VERSIONS));
        self.forget();
    }

    /// Forgets what no view can see any more.
    fn forget(&mut self) {
        let oldest = self.oldest;
        while let Some((_, key)) = self.replaced.pop_front_if(|(version, _)| *version <= oldest) {
            let Some(history) = self.keys.get_mut(&key) else { continue };
            let seen = history.partition_point(|change| change.version <= oldest);
            history.drain(..seen.saturating_sub(1));
            if matches!(&history[..], [Change { version, value: None }] if *version <= oldest) {
                self.keys.remove(&key);
            }
        }
    }

    fn check(&self, version: u64) -> Result<()> {
        if version < self.oldest { Err(Error::TooOld) } else { Ok(()) }
    }
}

struct Newest<'a>(&'a Data);

impl Base for Newest<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.0.keys.get(key).and_then(|changes| value_at(changes, u64::MAX)).cloned())
    }

    fn keys(&self, begin: &[u8], end: &[u8]) -> Result<Vec<Bytes>> {
        let inside = self.0.keys.range::<[u8], _>((Bound::Included(begin), Bound::Excluded(end)));
        Ok(inside
            .filter(|(_, changes)| value_at(changes, u64::MAX).is_some())
            .map(|(key, _)| key.clone())
            .collect())
    }
}

impl Source for Shared {
    fn get(&self, key: &[u8], version: u64) -> Result<Option<Bytes>> {
        let data = self.lock();
        data.check(version)?;
        Ok(data.keys.get(key).and_then(|changes| value_at(changes, version)).cloned())
    }

    fn range(
        &self,
        begin: &[u8],
        end: &[u8],
        direction: Direction,
        limits: PageLimits,
        version: u64,
    ) -> Result<Rows> {
        let data = self.lock();
        data.check(version)?;
        let inside = data.keys.range::<[u8], _>((Bound::Included(begin), Bound::Excluded(end)));
        let visible = |(key, changes): (&Bytes, &Vec<Change>)| {
            let value = value_at(changes, version)?.clone();
            Some(KeyValue { key: key.clone(), value })
        };
        Ok(match direction {
            Direction::Forward => page(inside.filter_map(visible), limits),
            Direction::Reverse => page(inside.rev().filter_map(visible), limits),
        })
    }
}

/// Takes a page off `rows`.
fn page(rows: impl Iterator<Item = KeyValue>, limits: PageLimits) -> Rows {
    let mut page = Rows { rows: Vec::new(), more: false };
    let mut bytes = 0;
    for row in rows {
        if page.rows.len() >= limits.rows || bytes >= limits.bytes {
            page.more = true;
            break;
        }
        bytes += row.key.len() + row.value.len();
        page.rows.push(row);
    }
    page
}

impl Store for Arc<Memory> {
    fn locality(&self) -> Locality {
        Locality::Network
    }

    fn view(&self) -> Result<View> {
        let mut data = self.shared.lock();
        // Time passes without commits too, and a view's age is told by its version.
        data.version = data.version.max(self.clock.now());
        let source: Arc<dyn Source> = self.shared.clone();
        Ok(View { version: data.version, source })
    }

    fn now_version(&self) -> u64 {
        self.clock.now()
    }

    fn leap(&self, versions: u64) {
        self.clock.leap(versions);
    }

    fn commit(&self, request: CommitRequest) -> BoxFuture<Result<Versionstamp>> {
        let memory = Arc::clone(self);
        Box::pin(async move {
            let (answer, mut result) = oneshot::channel();
            memory
                .waiting
                .lock()
                .expect("nothing panics while it holds the queue")
                .push(Waiting { request, answer });
            give_way().await;
            loop {
                match result.try_recv() {
                    Ok(result) => return result,
                    Err(oneshot::error::TryRecvError::Empty) => memory.commit_waiting(),
                    Err(oneshot::error::TryRecvError::Closed) => return Err(Error::CommitUnknown),
                }
            }
        })
    }

    fn watches(&self) -> &Arc<Registry> {
        &self.watches
    }
}

/// Lets every other ready task run once.
async fn give_way() {
    let mut given = Poll::Pending;
    std::future::poll_fn(|context| {
        context.waker().wake_by_ref();
        std::mem::replace(&mut given, Poll::Ready(()))
    })
    .await;
}
