//! The embedded engine: one process, one directory.
//!
//! FoundationDB's shape in miniature. A transaction reads a snapshot that was published after
//! the last batch. Its commit goes to the one committer, a thread that takes everything that
//! waits, resolves conflicts, and writes one batch with one sync for all; while that batch is
//! synced the next one gathers.
//!
//! Invariants:
//! - A commit that was acknowledged is on the disk, and so is every large value that was put
//!   before it.
//! - After a failed write or sync nothing is committed any more until the directory is opened
//!   again: what the disk holds is unknown.
//! - Versions go on above everything that was ever handed out, restarts included.
//! - What was acknowledged and is not there any more is told by the open, with the file and the
//!   place; a torn last write is cut off.
//!
//! Deliberately absent: range tombstones. `fjall` has none, so clearing a range writes a mark for
//! every key in it.

mod acknowledged;
mod backup;
mod committer;
mod files;
mod format;
mod journal;
mod queue;
mod restore;
mod storage;
mod warmth;

use std::{
    io::Read,
    path::Path,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use env::Env;

use crate::{Database, Faults, LargeValues, OpenError, Result};

pub use backup::{Backup, BackupCounts, BackupError, Expand, Expansion, Moment, no_expansion};
use committer::Committer;
pub(crate) use queue::Queue;
pub use restore::{RestoreError, Restored};
use storage::{Storage, Unfinished};

/// How much memory and disk the engine may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmbeddedOptions {
    /// Blocks of files kept in memory.
    pub cache_bytes: u64,
    /// Newly written rows kept in memory before they go to files, for each of rows and large
    /// values.
    pub memtable_bytes: u64,
    /// Journals on disk before rows are moved to files; at least 64 MiB.
    pub journal_bytes: u64,
    /// Threads that move rows to files and merge them.
    pub worker_threads: usize,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self {
            cache_bytes: 32 * 1024 * 1024,
            memtable_bytes: 8 * 1024 * 1024,
            journal_bytes: 256 * 1024 * 1024,
            worker_threads: 2,
        }
    }
}

/// What the committer has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EmbeddedCounts {
    /// Batches written.
    pub batches: u64,
    /// Syncs of the journal.
    pub syncs: u64,
    /// Transactions in those batches.
    pub transactions: u64,
}

/// An open directory.
///
/// Dropping it and everything it gave out closes it too, in the background;
/// [`Embedded::close`] waits for that.
pub struct Embedded {
    queue: Arc<Queue>,
    env: Env,
}

impl std::fmt::Debug for Embedded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Embedded")
    }
}

impl Embedded {
    /// Opens the directory, creating it where there is none. Blocks while the journal is read.
    ///
    /// # Errors
    /// [`OpenError::Locked`] where another process has it open; otherwise as [`OpenError`] says.
    pub fn open(path: &Path, env: Env, options: EmbeddedOptions) -> Result<Self, OpenError> {
        Self::open_as(path, env, options, Unfinished::Refused)
    }

    fn open_as(
        path: &Path,
        env: Env,
        options: EmbeddedOptions,
        unfinished: Unfinished,
    ) -> Result<Self, OpenError> {
        let (storage, reserved) = Storage::open(path, &options, unfinished)?;
        let (queue, receiver) = Queue::new(env.clone(), &storage, reserved);
        let committer = Committer::new(storage, queue.core(), reserved);
        // A thread of its own rather than a place in the environment's pool: it lives as long
        // as the engine does, and a runtime that shuts down waits for its pool.
        std::thread::Builder::new()
            .name("kv-committer".into())
            .spawn(move || committer.run(&receiver))
            .map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
        Ok(Self { queue: Arc::new(queue), env })
    }

    /// A handle to the rows.
    pub fn database(&self) -> Database {
        Database::local(Arc::new(Arc::clone(&self.queue)), self.env.clone(), Faults::default())
    }

    /// A handle to the large values.
    pub fn large_values(&self) -> LargeValues {
        LargeValues::embedded(Arc::clone(&self.queue))
    }

    /// What makes backups.
    pub fn backups(&self) -> Backups {
        Backups { queue: Arc::clone(&self.queue), env: self.env.clone() }
    }

    /// Restores a backup for a directory that does not exist or is empty: everything is read and
    /// written when this returns, and gets its name with [`Restored::finish`]. `progress` is told
    /// after each part, a quarter of a megabyte or one large value.
    ///
    /// Versions go on above every one that the store of the backup can have handed out until now.
    /// That assumes that it was opened less than 300,000 times since, or less than every four seconds
    /// on average, and that its wall clock and this one are right within years.
    ///
    /// Blocks for as long as reading and writing everything takes; an async caller runs it with
    /// [`Env::run_blocking`].
    ///
    /// # Errors
    /// As [`RestoreError`] says. Nothing is at `path` then that was not there before.
    pub fn restore(
        path: &Path,
        backup: impl Read,
        env: &Env,
        mut progress: impl FnMut(BackupCounts),
    ) -> Result<Restored, RestoreError> {
        restore::restore(path, backup, env, &EmbeddedOptions::default(), &mut progress)
    }

    /// What the committer has done so far.
    pub fn counts(&self) -> EmbeddedCounts {
        let core = self.queue.core();
        EmbeddedCounts {
            batches: core.batches.load(Relaxed),
            syncs: core.syncs.load(Relaxed),
            transactions: core.transactions.load(Relaxed),
        }
    }

    /// Commits what waits, syncs, and lets go of the directory. Handles that are left get
    /// [`Error::EngineFailed`](crate::Error::EngineFailed); a transaction that is still reading
    /// and a backup that is not complete keep the directory locked until they are dropped.
    ///
    /// # Errors
    /// [`Error::EngineFailed`](crate::Error::EngineFailed) where the last sync failed.
    pub async fn close(self) -> Result<()> {
        self.queue.close().await
    }
}

/// Makes backups of an open directory.
#[derive(Clone)]
pub struct Backups {
    queue: Arc<Queue>,
    env: Env,
}

impl Backups {
    /// Begins a backup of this moment, with the further large values that `expand` tells behind
    /// each of those in the engine ([`no_expansion`] for none). A restore puts all of them into the
    /// engine. Commits go on meanwhile, up to
    /// [`limits::BACKUP_WRITES_BYTES_MAX`](crate::limits::BACKUP_WRITES_BYTES_MAX).
    ///
    /// # Errors
    /// [`Error::EngineFailed`](crate::Error::EngineFailed).
    pub async fn begin(&self, expand: Expand) -> Result<Backup> {
        Backup::begin(&self.queue, &self.env, expand).await
    }
}

impl std::fmt::Debug for Backups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Backups")
    }
}

#[cfg(test)]
mod tests;
