//! How a check goes through a store: in small steps, with pauses, telling what it finds.
//!
//! A step is one transaction at one version. How many rows it may read adapts to the store, and
//! after each step the check rests in proportion to the step's work, so that a store at work
//! stays at work.

use std::{collections::HashSet, future::Future, time::Duration};

use blob::{BlobError, BlobId, BlobReader, BlobStore, audit::Depth};
use bytes::Bytes;
use env::Env;
use futures_util::future::join_all;
use kv::{AsKvError, Database, KeyValue, RangeQuery, RetryPolicy, Transaction};
use tokio::sync::mpsc;

use super::{Damage, Event, FsckError, Owners, Progress, Remedy, Speed, Summary};
use crate::{StoreError, limits};

/// First and longest rest after a step that failed and can be tried again.
const RETRY_REST: [Duration; 2] = [Duration::from_millis(5), Duration::from_secs(1)];

/// Shorter rests are put together: a timer counts in milliseconds.
const REST_MIN: Duration = Duration::from_millis(5);

/// A check on its way.
pub(super) struct Walk {
    /// With the usual patience; for repairs.
    pub(super) db: Database,
    once: Database,
    pub(super) blobs: BlobStore,
    pub(super) env: Env,
    pub(super) owners: Owners,
    events: mpsc::Sender<Event>,
    speed: Speed,
    pub(super) depth: Depth,
    rows: usize,
    /// Rest that is due and too short to be worth a timer.
    due: Duration,
    pub(super) progress: Progress,
    pub(super) summary: Summary,
    /// What this check of the account or phase has found.
    pub(super) found: Vec<Damage>,
    /// How much it has found, what is not kept included.
    pub(super) found_count: u64,
    /// What has been told already, by the check before a repair.
    pub(super) told: HashSet<Damage>,
}

impl Walk {
    pub(super) fn new(
        parts: super::Parts,
        options: super::Options,
        events: mpsc::Sender<Event>,
    ) -> Self {
        Self {
            once: parts
                .db
                .with_retry(RetryPolicy { time_max: Duration::ZERO, ..RetryPolicy::default() }),
            db: parts.db,
            blobs: parts.blobs,
            env: parts.env,
            owners: parts.owners,
            events,
            speed: options.speed,
            depth: options.depth,
            rows: limits::FSCK_ROWS_MAX / 4,
            due: Duration::ZERO,
            progress: Progress::default(),
            summary: Summary::default(),
            found: Vec::new(),
            found_count: 0,
            told: HashSet::new(),
        }
    }

    /// Runs one transaction that only reads. `body` gets the number of rows that it may read.
    pub(super) async fn step<T, F, Fut>(&mut self, mut body: F) -> Result<T, FsckError>
    where
        F: FnMut(Transaction, usize) -> Fut + Send,
        Fut: Future<Output = Result<T, StoreError>> + Send,
    {
        let mut rest = RETRY_REST[0];
        for attempt in 1.. {
            let begun = self.env.monotonic();
            let rows = self.rows;
            let done = self.once.run(|tx| body(tx, rows)).await;
            let took = self.env.monotonic().saturating_since(begun);
            match done {
                Ok(value) => {
                    self.adapt(took);
                    self.rest_after(took).await;
                    self.tell_progress()?;
                    return Ok(value);
                }
                Err(error) => {
                    let again = error.as_kv_error().is_some_and(kv::Error::is_retryable);
                    if !again || attempt >= limits::FSCK_TRIES_MAX {
                        return Err(error.into());
                    }
                }
            }
            self.rows = (self.rows / 2).max(limits::FSCK_ROWS_MIN);
            self.env.sleep(rest).await;
            rest = (rest * 2).min(RETRY_REST[1]);
        }
        unreachable!("the attempts end by returning")
    }

    /// Begins to check a blob, and rests.
    pub(super) async fn check_blob(&mut self, blob: BlobId) -> Result<BlobReader, BlobError> {
        let mut checked = self.check_blobs(&[blob]).await;
        checked.pop().expect("one was asked for")
    }

    /// Begins to check blobs, at most [`limits::FSCK_BLOBS_AT_ONCE`] of them, all at once: where
    /// they are far away, most of the time is their answer's way. Rests afterwards.
    pub(super) async fn check_blobs(
        &mut self,
        blobs: &[BlobId],
    ) -> Vec<Result<BlobReader, BlobError>> {
        let begun = self.env.monotonic();
        let checked = join_all(blobs.iter().map(|blob| self.blobs.check(*blob))).await;
        let took = self.env.monotonic().saturating_since(begun);
        self.rest_after(took).await;
        checked
    }

    /// Reads a blob to its end, and rests between its pieces.
    pub(super) async fn read_blob(
        &mut self,
        mut reader: BlobReader,
    ) -> Result<Result<(), BlobError>, FsckError> {
        loop {
            let begun = self.env.monotonic();
            let piece = match reader.next().await {
                Ok(Some(piece)) => piece,
                Ok(None) => return Ok(Ok(())),
                Err(error) => return Ok(Err(error)),
            };
            self.progress.bytes += piece.len() as u64;
            let took = self.env.monotonic().saturating_since(begun);
            self.rest_after(took).await;
            self.tell_progress()?;
        }
    }

    pub(super) async fn rest_after(&mut self, worked: Duration) {
        self.due += self.speed.rest_after(worked);
        if self.due >= REST_MIN {
            self.env.sleep(std::mem::take(&mut self.due)).await;
        } else {
            // Whoever shares the thread gets a turn.
            tokio::task::yield_now().await;
        }
    }

    fn adapt(&mut self, took: Duration) {
        let slow = Duration::from_millis(limits::FSCK_STEP_MS);
        if took > slow {
            self.rows = (self.rows / 2).max(limits::FSCK_ROWS_MIN);
        } else if took < slow / 4 {
            self.rows = (self.rows * 2).min(limits::FSCK_ROWS_MAX);
        }
    }

    /// Whoever listens may miss a progress, and nothing else.
    pub(super) fn tell_progress(&self) -> Result<(), FsckError> {
        match self.events.try_send(Event::Progress(self.progress)) {
            Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(FsckError::Stopped),
        }
    }

    /// Tells something; waits for a slow listener, though not for ever.
    pub(super) async fn tell(&self, event: Event) -> Result<(), FsckError> {
        let patience = Duration::from_millis(limits::FSCK_LISTENER_MS);
        match self.env.timeout(patience, self.events.send(event)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(FsckError::Stopped),
        }
    }

    pub(super) async fn find(&mut self, damage: Damage) -> Result<(), FsckError> {
        if damage.remedy() == Remedy::Nothing {
            self.summary.notes += u64::from(!self.told.contains(&damage));
        } else {
            self.found_count += 1;
        }
        if !self.told.contains(&damage) {
            self.summary.findings += u64::from(damage.remedy() != Remedy::Nothing);
            self.tell(Event::Found(damage.clone())).await?;
        }
        if self.found.len() < limits::FSCK_FINDINGS_HELD_MAX {
            self.found.push(damage);
        }
        Ok(())
    }

    pub(super) async fn find_all(
        &mut self,
        damages: impl IntoIterator<Item = Damage>,
    ) -> Result<(), FsckError> {
        for damage in damages {
            self.find(damage).await?;
        }
        Ok(())
    }
}

/// Rows of a stretch of a range.
pub(super) struct Stretch {
    pub(super) rows: Vec<KeyValue>,
    /// The range may go on behind them.
    pub(super) is_cut: bool,
}

impl Stretch {
    /// Where the next stretch begins; `None` where this was the last.
    pub(super) fn next(&self) -> Option<Vec<u8>> {
        self.rows.last().filter(|_| self.is_cut).map(|row| after(&row.key))
    }
}

/// Reads at most `most` rows, and about [`limits::FSCK_BYTES_PER_STEP`]. A snapshot read: nothing
/// is decided by it in this transaction but what it shows together.
pub(super) async fn stretch(
    tx: &Transaction,
    begin: impl Into<Bytes>,
    end: impl Into<Bytes>,
    most: usize,
) -> Result<Stretch, StoreError> {
    let mut pages = tx.range(RangeQuery::new(begin, end).limit(most).snapshot());
    let mut rows = Vec::new();
    let mut bytes = 0;
    while let Some(page) = pages.next_page().await? {
        bytes += page.iter().map(|row| row.key.len() + row.value.len()).sum::<usize>();
        rows.extend(page);
        if rows.len() >= most || bytes >= limits::FSCK_BYTES_PER_STEP {
            return Ok(Stretch { rows, is_cut: true });
        }
    }
    Ok(Stretch { rows, is_cut: false })
}

/// The first key after `key`.
pub(super) fn after(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}
