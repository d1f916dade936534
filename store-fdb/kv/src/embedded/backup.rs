//! Backup: one moment of the store, streamed while commits go on.
//!
//! Everything comes from one snapshot of all keyspaces, taken between two batches: the rows of
//! every transaction or none, and every large value that they refer to, because it was put before
//! them. A thread of its own reads it and hands out chunks through a short channel, so that
//! nothing blocks the runtime.
//!
//! While the snapshot is held, `fjall` keeps in memory whatever is written after it. That is
//! bounded by [`BACKUP_WRITES_BYTES_MAX`], beyond which the thread lets go of the snapshot, the
//! backup ends with an error and the store goes on. The bound holds whatever the taker does: a
//! thread that waits for it looks at the bound every [`BACKUP_CHECK_TIME`].

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    thread::Thread,
};

use bytes::{BufMut, Bytes, BytesMut};
use env::Env;
use fjall::{Keyspace, Readable};
use tokio::sync::mpsc::{self, error::TrySendError};

use super::{
    format::{FrameWriter, Kind, Totals},
    queue::{Core, Queue},
    storage::{Storage, tagged, unreadable},
};
use crate::{
    Error, Result,
    limits::{
        BACKUP_CHECK_TIME, BACKUP_CHUNK_BYTES, BACKUP_CHUNKS_WAITING_MAX, BACKUP_WRITES_BYTES_MAX,
    },
};

/// Tells which further large values one of them, by its key and value, stands for: what is kept
/// outside the engine and belongs into the backup. Called on the backup's thread; may block.
pub type Expand = Box<dyn FnMut(&Moment<'_>, &[u8], &[u8]) -> Expansion + Send>;

/// Further large values, key and value. An error ends the backup: what is missing and is needed is
/// one, and its words name it.
pub type Expansion = Box<dyn Iterator<Item = std::io::Result<(Vec<u8>, Bytes)>>>;

/// For a store whose large values stand for themselves.
pub fn no_expansion() -> Expand {
    Box::new(|_, _, _| Box::new(std::iter::empty()))
}

/// The moment of the store that a backup holds.
pub struct Moment<'a>(&'a Everything);

impl Moment<'_> {
    /// Whether the engine itself holds a large value.
    ///
    /// # Errors
    /// [`Error::EngineFailed`].
    pub fn has_large_value(&self, key: &[u8]) -> Result<bool> {
        let held = self.0.snapshot.contains_key(&self.0.large, key);
        held.map_err(|error| unreadable(&self.0.large, error))
    }

    /// Whether there is a row from `begin` up to `end`.
    ///
    /// # Errors
    /// [`Error::EngineFailed`].
    pub fn has_row(&self, begin: &[u8], end: &[u8]) -> Result<bool> {
        let mut rows = self.0.snapshot.range(&self.0.rows, tagged(begin)..tagged(end));
        let first = rows.next().map(fjall::Guard::key).transpose();
        Ok(first.map_err(|error| unreadable(&self.0.rows, error))?.is_some())
    }
}

impl std::fmt::Debug for Moment<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Moment")
    }
}

/// Why a backup ended early.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackupError {
    /// So much was written meanwhile that holding on to one moment would take too much memory.
    #[error("more than {BACKUP_WRITES_BYTES_MAX} bytes were written while the backup ran")]
    Overtaken,
    /// What a large value stands for could not be read.
    #[error("what is kept outside the store could not be read: {reason}")]
    Outside {
        /// What the system said.
        reason: String,
    },
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] Error),
}

/// What a backup or a restore has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BackupCounts {
    /// Rows.
    pub rows: u64,
    /// Large values.
    pub large_values: u64,
    /// Bytes of the backup.
    pub bytes: u64,
}

/// A backup being made. Dropping it ends it.
pub struct Backup {
    chunks: mpsc::Receiver<Result<Chunk, BackupError>>,
    counts: BackupCounts,
    progress: Progress,
    /// To be woken when there is room for a chunk.
    reader: Thread,
}

impl Drop for Backup {
    fn drop(&mut self) {
        self.chunks.close();
        self.reader.unpark();
    }
}

#[derive(PartialEq, Eq)]
enum Progress {
    Reading,
    Done,
}

struct Chunk {
    bytes: Bytes,
    counts: BackupCounts,
    progress: Progress,
}

impl std::fmt::Debug for Backup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backup").field("counts", &self.counts).finish_non_exhaustive()
    }
}

/// One moment of all keyspaces.
pub(super) struct Everything {
    snapshot: fjall::Snapshot,
    rows: Keyspace,
    large: Keyspace,
    /// No version above this is in the snapshot.
    reserved: u64,
}

impl Everything {
    pub(super) fn of(storage: &Storage) -> Result<Self> {
        let snapshot = storage.database.snapshot();
        Ok(Self {
            reserved: storage.reserved(&snapshot)?,
            snapshot,
            rows: storage.rows.clone(),
            large: storage.large.clone(),
        })
    }
}

impl Backup {
    pub(super) async fn begin(queue: &Queue, env: &Env, expand: Expand) -> Result<Self> {
        let core = queue.core();
        let written_before = core.written_bytes.load(Relaxed);
        let everything = queue.everything().await?;
        let (sender, chunks) = mpsc::channel(BACKUP_CHUNKS_WAITING_MAX);
        let reader = Reader {
            core,
            written_before,
            everything,
            sender,
            frames: FrameWriter::new(),
            totals: Totals::default(),
            page: BytesMut::new(),
            expand,
        };
        let created_ms = env.wall().unix_ms();
        // A thread of its own rather than a place in the environment's pool: a taker may be slow
        // for hours, and a runtime that shuts down waits for its pool.
        let thread = std::thread::Builder::new()
            .name("kv-backup".into())
            .spawn(move || reader.run(created_ms))
            .map_err(Error::engine_failed)?;
        let (counts, progress) = (BackupCounts::default(), Progress::Reading);
        let reader = thread.thread().clone();
        Ok(Self { chunks, counts, progress, reader })
    }

    /// The next bytes of the backup, to be written one after the other; `None` once it is
    /// complete. A backup that was cut off before does not restore.
    ///
    /// # Errors
    /// As [`BackupError`] says; the backup is over then.
    pub async fn next_chunk(&mut self) -> Result<Option<Bytes>, BackupError> {
        if self.progress == Progress::Done {
            return Ok(None);
        }
        let ended = || Err(Error::engine_failed("the backup's thread ended").into());
        let chunk = self.chunks.recv().await.unwrap_or_else(ended)?;
        self.reader.unpark();
        self.counts = chunk.counts;
        self.progress = chunk.progress;
        Ok(Some(chunk.bytes))
    }

    /// What the chunks so far hold.
    pub fn counts(&self) -> BackupCounts {
        self.counts
    }
}

/// The thread's side.
struct Reader {
    core: Arc<Core>,
    written_before: u64,
    everything: Everything,
    sender: mpsc::Sender<Result<Chunk, BackupError>>,
    frames: FrameWriter,
    totals: Totals,
    page: BytesMut,
    expand: Expand,
}

/// Why the thread stops.
enum Stop {
    Failed(BackupError),
    /// Nobody wants the backup any more.
    Dropped,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error.into())
    }
}

impl Reader {
    fn run(mut self, created_ms: i64) {
        let written = self.write(created_ms);
        let sender = self.sender.clone();
        // The snapshot goes before its taker is waited for.
        drop(self);
        if let Err(Stop::Failed(error)) = written {
            // Whoever dropped the backup meanwhile does not want to know.
            let _dropped = sender.blocking_send(Err(error));
        }
    }

    fn write(&mut self, created_ms: i64) -> Result<(), Stop> {
        let mut begin = BytesMut::new();
        begin.put_u64(self.everything.reserved);
        begin.put_i64(created_ms);
        let head = self.frames.header();
        self.send(head, Progress::Reading)?;
        self.send_frame(Kind::Begin, &begin, Progress::Reading)?;
        self.write_keyspace(Kind::Rows)?;
        self.write_keyspace(Kind::Large)?;
        let end = self.totals.encode();
        self.send_frame(Kind::End, &end, Progress::Done)
    }

    fn write_keyspace(&mut self, kind: Kind) -> Result<(), Stop> {
        let keyspace = match kind {
            Kind::Large => self.everything.large.clone(),
            _ => self.everything.rows.clone(),
        };
        for entry in self.everything.snapshot.iter(&keyspace) {
            let (key, value) = entry.into_inner().map_err(|error| unreadable(&keyspace, error))?;
            self.write_entry(kind, &key, &value)?;
            if kind == Kind::Large {
                for further in (self.expand)(&Moment(&self.everything), &key, &value) {
                    let (key, value) = further
                        .map_err(|error| BackupError::Outside { reason: error.to_string() })
                        .map_err(Stop::Failed)?;
                    self.write_entry(kind, &key, &value)?;
                }
            }
        }
        self.send_page(kind)
    }

    fn write_entry(&mut self, kind: Kind, key: &[u8], value: &[u8]) -> Result<(), Stop> {
        self.check_bound()?;
        let length = |part: &[u8]| u32::try_from(part.len()).expect("fjall's limit is 32 bits");
        self.page.put_u32(length(key));
        self.page.put_u32(length(value));
        self.page.put_slice(key);
        self.page.put_slice(value);
        self.totals.count(kind);
        match self.page.len() >= BACKUP_CHUNK_BYTES {
            true => self.send_page(kind),
            false => Ok(()),
        }
    }

    fn send_page(&mut self, kind: Kind) -> Result<(), Stop> {
        if self.page.is_empty() {
            return Ok(());
        }
        let page = self.page.split();
        self.send_frame(kind, &page, Progress::Reading)
    }

    fn send_frame(&mut self, kind: Kind, payload: &[u8], progress: Progress) -> Result<(), Stop> {
        let frame = self.frames.frame(kind, payload);
        self.send(frame, progress)
    }

    /// Fails where holding on to the snapshot costs too much.
    fn check_bound(&self) -> Result<(), Stop> {
        let written = self.core.written_bytes.load(Relaxed) - self.written_before;
        match written > BACKUP_WRITES_BYTES_MAX {
            true => Err(Stop::Failed(BackupError::Overtaken)),
            false => Ok(()),
        }
    }

    fn send(&mut self, bytes: Bytes, progress: Progress) -> Result<(), Stop> {
        let counts = BackupCounts {
            rows: self.totals.rows,
            large_values: self.totals.large_values,
            bytes: self.frames.bytes(),
        };
        let mut chunk = Ok(Chunk { bytes, counts, progress });
        loop {
            self.check_bound()?;
            chunk = match self.sender.try_send(chunk) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Closed(_)) => return Err(Stop::Dropped),
                Err(TrySendError::Full(back)) => back,
            };
            // The taker wakes it.
            std::thread::park_timeout(BACKUP_CHECK_TIME);
        }
    }
}
