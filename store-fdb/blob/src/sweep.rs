//! Removes the bytes that nothing needs.
//!
//! Three walks, each in bounded transactions, each harmless when others do the same at once:
//! - `due` looks at the blobs whose grace time is over and marks those without a reference as
//!   dying;
//! - `dying` removes the bytes of marked blobs, and clears the mark
//!   [`limits::ADOPT_WITHIN_MS`](crate::limits::ADOPT_WITHIN_MS) after it was set;
//! - `scan` looks at everything that is stored and marks what has waited for its first reference
//!   for longer than the grace time: its transaction never came.
//!
//! A scan marks nothing in a bucket that is not bound to the store ([`crate::binding`]), and nothing
//! where nearly all that it has looked at seems to be needed by nobody ([`Share`]): then the
//! references are at fault, and a person is told.
//!
//! Architecture invariants:
//! - A blob is marked only in a transaction that reads that it has no reference, and a first
//!   reference only comes in one that reads that there is no mark: one of the two commits.
//! - Bytes are removed only while the mark stands. Whatever is cut off is found again: a due entry
//!   goes with the marking, a step goes when the next one is written.
//!
//! A scan of N objects costs N/1,000 listings, at least N/1,000 reads of references and one
//! commit for each, and five reads for each object without a reference; the bucket's mark is
//! looked at every 16,000 objects.
//!
//! Deliberately absent: a lock. Two sweepers do some work twice.

mod due;
mod dying;
mod scan;
mod share;

pub(crate) use scan::{is_orphan, mark_orphans};
pub use share::Share;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use env::{Env, Timestamp};
use kv::Database;

use crate::{
    BlobError, BlobStore,
    binding::BindError,
    limits::{SWEEP_BACKOFF_MAX, SWEEP_BACKOFF_MIN, SWEEP_SCAN_PAGES},
};

/// How long after a scan of everything has ended the next one usually begins.
pub const SCAN_INTERVAL: Duration = Duration::from_hours(24);

/// How a sweeper works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SweepSettings {
    /// How long it rests when nothing is left to do.
    pub due_interval: Duration,
    /// How long after a scan of everything has ended the next one begins.
    pub scan_interval: Duration,
    /// How long one call of the blob store may take.
    pub call_time_max: Duration,
}

impl Default for SweepSettings {
    /// Every minute; all of it every day; five minutes a call, which is more than S3's retries
    /// take.
    fn default() -> Self {
        Self {
            due_interval: Duration::from_mins(1),
            scan_interval: SCAN_INTERVAL,
            call_time_max: Duration::from_mins(5),
        }
    }
}

/// Why a sweeper stopped short. It goes on where it was.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// The store failed.
    #[error(transparent)]
    Kv(#[from] kv::Error),
    /// The blob store failed.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The bucket is not this store's, or not known to be.
    #[error("no orphan is looked for: {0}")]
    Binding(#[from] BindError),
    /// Nearly everything seems to be needed by nobody. The scan has ended; the next one comes in
    /// its time.
    #[error(
        "nobody seems to need {} of {} blobs, so none was marked for removal: are the references \
         this bucket's, and all there?", .0.orphans, .0.judged
    )]
    Implausible(Share),
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Due blobs that somebody needs, or that somebody has let go later.
    pub kept: u64,
    /// Blobs found to be needed by nobody, and marked.
    pub marked: u64,
    /// Of those, how many never had a reference or had lost their due entry.
    pub orphans: u64,
    /// Blobs whose bytes were removed.
    pub removed: u64,
    /// Marks that were cleared.
    pub forgotten: u64,
    /// Stored names that were looked at.
    pub scanned: u64,
    /// Scans that came to their end.
    pub scans: u64,
    /// Uploads that were taken back.
    pub uploads: u64,
    /// Calls and transactions that failed.
    pub errors: u64,
}

impl std::ops::AddAssign for Swept {
    fn add_assign(&mut self, other: Self) {
        self.kept += other.kept;
        self.marked += other.marked;
        self.orphans += other.orphans;
        self.removed += other.removed;
        self.forgotten += other.forgotten;
        self.scanned += other.scanned;
        self.scans += other.scans;
        self.uploads += other.uploads;
        self.errors += other.errors;
    }
}

#[derive(Default)]
struct Counters {
    kept: AtomicU64,
    marked: AtomicU64,
    orphans: AtomicU64,
    removed: AtomicU64,
    forgotten: AtomicU64,
    scanned: AtomicU64,
    scans: AtomicU64,
    uploads: AtomicU64,
    errors: AtomicU64,
}

/// Counts what a sweeper does, for the metrics. Clones count together.
#[derive(Clone, Default)]
pub struct SweepCounts {
    counters: std::sync::Arc<Counters>,
}

impl SweepCounts {
    /// What has been done so far.
    pub fn swept(&self) -> Swept {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let it = &self.counters;
        Swept {
            kept: read(&it.kept),
            marked: read(&it.marked),
            orphans: read(&it.orphans),
            removed: read(&it.removed),
            forgotten: read(&it.forgotten),
            scanned: read(&it.scanned),
            scans: read(&it.scans),
            uploads: read(&it.uploads),
            errors: read(&it.errors),
        }
    }

    fn add(&self, swept: &Swept) {
        let add = |counter: &AtomicU64, more| counter.fetch_add(more, Ordering::Relaxed);
        let it = &self.counters;
        add(&it.kept, swept.kept);
        add(&it.marked, swept.marked);
        add(&it.orphans, swept.orphans);
        add(&it.removed, swept.removed);
        add(&it.forgotten, swept.forgotten);
        add(&it.scanned, swept.scanned);
        add(&it.scans, swept.scans);
        add(&it.uploads, swept.uploads);
        add(&it.errors, swept.errors);
    }
}

/// Whether there is more to do at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// There is.
    More,
    /// There is not.
    Done,
}

/// Removes the bytes that nothing needs. Any number of them may run on one store.
pub struct Sweeper {
    env: Env,
    db: Database,
    blobs: BlobStore,
    settings: SweepSettings,
    counts: SweepCounts,
}

impl Sweeper {
    /// A sweeper over the references in `db` and the bytes in `blobs`.
    pub fn new(env: Env, db: Database, blobs: BlobStore, settings: SweepSettings) -> Self {
        Self { env, db, blobs, settings, counts: SweepCounts::default() }
    }

    /// What it has done, now and later.
    pub fn counts(&self) -> SweepCounts {
        self.counts.clone()
    }

    /// Works until it is dropped. A failure is logged and the work goes on later.
    pub async fn run(self) {
        let mut backoff = SWEEP_BACKOFF_MIN;
        loop {
            let mut swept = Swept::default();
            let turn = self.turn(self.env.wall(), SWEEP_SCAN_PAGES, &mut swept).await;
            let delay = match turn {
                Ok(Progress::More) => Duration::ZERO,
                Ok(Progress::Done) => {
                    backoff = SWEEP_BACKOFF_MIN;
                    self.settings.due_interval
                }
                Err(error) => {
                    tracing::warn!(%error, "the blob sweeper goes on later");
                    let delay = backoff;
                    backoff = (backoff * 2).min(SWEEP_BACKOFF_MAX);
                    delay
                }
            };
            if swept.removed + swept.uploads > 0 {
                let Swept { removed, orphans, uploads, .. } = swept;
                tracing::info!(removed, orphans, uploads, "blobs that nothing needed were removed");
            }
            self.env.sleep(self.jittered(delay)).await;
        }
    }

    /// One bounded round, as [`Sweeper::run`] does them. Returns whether there is more to do at
    /// once.
    ///
    /// # Errors
    /// The first failure; what does not hang on it was done all the same.
    pub async fn round(&self, now: Timestamp) -> Result<Progress, SweepError> {
        self.turn(now, SWEEP_SCAN_PAGES, &mut Swept::default()).await
    }

    /// Does everything that is to be done by `now`, a whole scan included where it is time.
    ///
    /// # Errors
    /// The first failure; what does not hang on it was done all the same.
    pub async fn pass(&self, now: Timestamp) -> Result<Swept, SweepError> {
        let mut swept = Swept::default();
        while self.turn(now, SWEEP_SCAN_PAGES, &mut swept).await? == Progress::More {}
        Ok(swept)
    }

    /// All that is due, then some of the scan, then the bytes of all that is marked. The first
    /// failure of the three does not keep the others from their work.
    async fn turn(
        &self,
        now: Timestamp,
        scan_pages: usize,
        total: &mut Swept,
    ) -> Result<Progress, SweepError> {
        let mut swept = Swept::default();
        let due = self.due(now, &mut swept).await;
        let scan = self.scan(now, scan_pages, &mut swept).await;
        let dying = self.dying(now, &mut swept).await;
        let failed = [due.is_err(), scan.is_err(), dying.is_err()];
        swept.errors += crate::store::to_u64(failed.into_iter().filter(|failed| *failed).count());
        self.counts.add(&swept);
        *total += swept;
        due?;
        dying?;
        scan
    }

    /// Awaits a call of the blob store for a bounded time.
    async fn call<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, BlobError>>,
    ) -> Result<T, BlobError> {
        match self.env.timeout(self.settings.call_time_max, call).await {
            Ok(done) => done,
            Err(elapsed) => Err(BlobError::Unavailable { operation, reason: elapsed.to_string() }),
        }
    }

    /// About `delay`: between three quarters and five quarters of it.
    fn jittered(&self, delay: Duration) -> Duration {
        let half_ms = u64::try_from(delay.as_millis() / 2).unwrap_or(u64::MAX);
        delay * 3 / 4 + Duration::from_millis(self.env.random_below(half_ms))
    }
}

#[cfg(test)]
mod tests;
