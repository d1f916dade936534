//! The directory: three `fjall` keyspaces over one journal.
//!
//! | keyspace | key | value |
//! |---|---|---|
//! | `rows` | `k` and the key | the value |
//! | `large` | the key | a large value, kept outside the tree |
//! | `meta` | `format` | format number, 4 bytes big-endian |
//! | `meta` | `reserved` | no version above this was handed out, 8 bytes big-endian |
//! | `meta` | `synced` | the last batch that was synced before the last batch, 8 bytes big-endian, written with every batch |
//! | `meta` | `batch` | the last batch's [`Record`], written with every batch |
//!
//! A row's key is tagged because FoundationDB allows the empty key and `fjall` does not.
//!
//! Beside them lies the file [`Acknowledged`]. Before `fjall` opens the directory, [`journal`] and
//! [`files`] check what it would pass over in silence.

use std::{
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
};

use bytes::{BufMut, Bytes, BytesMut};
use fjall::{Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode, Readable};

use super::{
    EmbeddedOptions,
    acknowledged::Acknowledged,
    files,
    journal::{self, BATCH_KEY, Record, SYNCED_KEY},
};
use crate::{
    Direction, Error, KeyValue, OpenError, Result,
    limits::VERSIONS_RESERVED,
    local::{
        sequencer::Base,
        store::{PageLimits, Rows, Source},
    },
};

/// Format 1 had no batch records, and format 2 did not note with them what was synced; they are
/// brought forward when they are opened. The check of the journal relies on it that no older release
/// goes on with a store.
const FORMAT: u32 = 3;
const FORMAT_KEY: &[u8] = b"format";
const RESERVED_KEY: &[u8] = b"reserved";
const ROW_TAG: u8 = b'k';

/// Values below this stay in the tree: reading them elsewhere would cost a second access.
const SEPARATION_BYTES: u32 = 4096;

/// Memory of the large values' memtable: a chunk lies there only until it is on disk, and the
/// journal has it already.
const LARGE_MEMTABLE_BYTES: u64 = 4 * 1024 * 1024;

/// Memory of the memtable of versions and batch records: every batch leaves one there.
const META_MEMTABLE_BYTES: u64 = 1024 * 1024;

/// The file by which `fjall` knows a directory.
const VERSION_MARK: &str = "version";

/// The file that `fjall` locks.
const LOCK_FILE: &str = "lock";

/// Ours, of whoever is about to open the directory.
const OPENING_LOCK_FILE: &str = "opening.lock";

/// In a directory while a backup is restored into it.
pub(super) const RESTORING_MARK: &str = "restoring";

/// Size of the files that hold large values: the unit in which removed ones are collected.
const LARGE_FILE_BYTES: u64 = 64 * 1024 * 1024;

pub(super) struct Storage {
    pub(super) database: fjall::Database,
    pub(super) rows: Keyspace,
    pub(super) large: Keyspace,
    meta: Keyspace,
    acknowledged: Acknowledged,
    /// The last batch's number.
    batch: u64,
    /// Every batch so far has a lower sequence number.
    sequence_next: u64,
}

/// Whether a store may be opened that a restore has not finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unfinished {
    /// By everybody else.
    Refused,
    /// By that restore.
    Accepted,
}

/// Whether what is written is on the disk when the write returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    /// With the operating system: a crash of the machine may lose it.
    Buffered,
    /// On the disk, and acknowledged.
    Synced,
}

impl Durability {
    fn mode(self) -> PersistMode {
        match self {
            Self::Buffered => PersistMode::Buffer,
            Self::Synced => PersistMode::SyncData,
        }
    }
}

impl From<fjall::Error> for Error {
    fn from(error: fjall::Error) -> Self {
        Self::engine_failed(error)
    }
}

impl Storage {
    /// Opens the directory and reserves versions: all from the returned one on are new.
    pub(super) fn open(
        path: &Path,
        options: &EmbeddedOptions,
        unfinished: Unfinished,
    ) -> Result<(Self, u64), OpenError> {
        if unfinished == Unfinished::Refused && path.join(RESTORING_MARK).exists() {
            return Err(corrupt(path, "a restore into it did not finish; it has to be run again"));
        }
        let mut storage = Self::recover(path, options)?;
        let reserved = match storage.meta.get(RESERVED_KEY).map_err(|error| at(path, error))? {
            Some(bytes) => u64::from_be_bytes(
                <[u8; 8]>::try_from(&*bytes)
                    .map_err(|_| corrupt(path, "version is not a number"))?,
            ),
            None => VERSIONS_RESERVED,
        };
        storage
            .begin_with_version(reserved + VERSIONS_RESERVED)
            .map_err(|error| at(path, error))?;
        Ok((storage, reserved))
    }

    /// A new store in a folder that holds the mark of a restore and nothing else.
    pub(super) fn create(path: &Path, options: &EmbeddedOptions) -> Result<Self, OpenError> {
        let acknowledged = Acknowledged::create(path)?;
        let keyspaces = Keyspaces::open(path, options).map_err(|error| at(path, error))?;
        Self::complete(path, keyspaces, Some(acknowledged), None)
    }

    /// Opens the directory, creating it where there is none, and finds every acknowledged batch
    /// in it.
    fn recover(path: &Path, options: &EmbeddedOptions) -> Result<Self, OpenError> {
        let _opening = lock_opening(path)?;
        let version_mark = path.join(VERSION_MARK);
        let acknowledged = match Acknowledged::open(path)? {
            found if version_mark.exists() => found,
            // `fjall` would begin a new store over the old one.
            Some(found) if found.batch() > 0 => {
                return Err(corrupt(&version_mark, "it is missing"));
            }
            _ => Some(Acknowledged::create(path)?),
        };
        let checked = match &acknowledged {
            // Nothing is checked that another process is about to change.
            Some(acknowledged) if !in_use(path) => {
                if acknowledged.batch() > 0 {
                    files::check_versions(path)?;
                }
                journal::check(path, acknowledged.batch())?
            }
            _ => None,
        };
        // Files that pass these checks can be damaged further in, and `fjall` panics on some.
        let opened = std::panic::catch_unwind(AssertUnwindSafe(|| Keyspaces::open(path, options)));
        let keyspaces = match opened {
            Ok(Ok(keyspaces)) => keyspaces,
            Ok(Err(fjall::Error::Locked)) => {
                return Err(OpenError::Locked { path: path.to_owned() });
            }
            Ok(Err(error)) => return Err(files::blame(path).unwrap_or_else(|| at(path, error))),
            Err(_panic) => {
                let unknown = || corrupt(path, "the storage engine cannot read its files");
                return Err(files::blame(path).unwrap_or_else(unknown));
            }
        };
        Self::complete(path, keyspaces, acknowledged, checked)
    }

    /// Checks what was recovered against what was acknowledged.
    fn complete(
        path: &Path,
        keyspaces: Keyspaces,
        acknowledged: Option<Acknowledged>,
        checked: Option<u64>,
    ) -> Result<Self, OpenError> {
        let Keyspaces { database, rows, large, meta } = keyspaces;
        let get = |key| meta.get(key).map_err(|error| at(path, error));
        let format = match get(FORMAT_KEY)? {
            Some(found) => u32::from_be_bytes(
                <[u8; 4]>::try_from(&*found)
                    .map_err(|_| corrupt(path, "format is not a number"))?,
            ),
            None => 0,
        };
        if format > FORMAT {
            let path = path.to_owned();
            return Err(OpenError::FormatUnknown { path, found: format, known: FORMAT });
        }
        let batch = match get(BATCH_KEY)? {
            Some(bytes) => {
                Record::decode(&bytes)
                    .ok_or_else(|| corrupt(path, "a batch record has the wrong length"))?
                    .batch
            }
            None => 0,
        };
        let acknowledged = match acknowledged {
            Some(acknowledged) => acknowledged,
            None if batch > 0 => return Err(corrupt(&Acknowledged::path(path), "it is missing")),
            None => Acknowledged::create(path)?,
        };
        let expected = acknowledged.batch().max(checked.unwrap_or(0));
        if batch < expected {
            let reason = format!("batch {expected} was written, but the last one here is {batch}");
            return Err(corrupt(path, reason));
        }
        let sequence_next = database.snapshot().seqno();
        Ok(Self { database, rows, large, meta, acknowledged, batch, sequence_next })
    }

    /// Records that versions up to `reserved` may be handed out, as the first batch.
    pub(super) fn begin_with_version(&mut self, reserved: u64) -> Result<(), fjall::Error> {
        let mut batch = self.batch();
        batch.insert(&self.meta, FORMAT_KEY, FORMAT.to_be_bytes());
        self.reserve(&mut batch, reserved);
        self.write(batch, Durability::Synced)
    }

    /// Records that versions up to `reserved` may be handed out.
    pub(super) fn reserve(&self, batch: &mut fjall::OwnedWriteBatch, reserved: u64) {
        batch.insert(&self.meta, RESERVED_KEY, reserved.to_be_bytes());
    }

    /// The highest version that may have been handed out as of `snapshot`.
    pub(super) fn reserved(&self, snapshot: &fjall::Snapshot) -> Result<u64> {
        let bytes = snapshot.get(&self.meta, RESERVED_KEY)?;
        let bytes = bytes.and_then(|bytes| <[u8; 8]>::try_from(&*bytes).ok());
        bytes.map(u64::from_be_bytes).ok_or_else(|| Error::engine_failed("no version is reserved"))
    }

    /// A batch to be filled and written.
    pub(super) fn batch(&self) -> fjall::OwnedWriteBatch {
        self.database.batch()
    }

    /// Writes a batch and its record.
    pub(super) fn write(
        &mut self,
        batch: fjall::OwnedWriteBatch,
        durability: Durability,
    ) -> Result<(), fjall::Error> {
        let mut batch = batch.durability(Some(durability.mode()));
        let record = Record { batch: self.batch + 1, sequence_min: self.sequence_next };
        batch.insert(&self.meta, SYNCED_KEY, self.acknowledged.batch().to_be_bytes());
        // The last item: where the check of the journal looks for it.
        batch.insert(&self.meta, BATCH_KEY, record.encode());
        batch.commit()?;
        self.batch = record.batch;
        self.sequence_next = self.database.snapshot().seqno();
        self.acknowledge(durability)
    }

    /// Syncs what was written before.
    pub(super) fn sync(&mut self) -> Result<(), fjall::Error> {
        self.database.persist(PersistMode::SyncData)?;
        self.acknowledge(Durability::Synced)
    }

    /// Syncs everything, for the last time.
    pub(super) fn sync_all(&mut self) -> Result<(), fjall::Error> {
        self.database.persist(PersistMode::SyncAll)?;
        self.acknowledge(Durability::Synced)?;
        Ok(self.acknowledged.sync()?)
    }

    fn acknowledge(&mut self, durability: Durability) -> Result<(), fjall::Error> {
        match durability {
            Durability::Buffered => Ok(()),
            Durability::Synced => Ok(self.acknowledged.write(self.batch)?),
        }
    }

    /// The rows as they are now.
    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot { snapshot: self.database.snapshot(), rows: self.rows.clone() }
    }
}

/// What `fjall` opens.
struct Keyspaces {
    database: fjall::Database,
    rows: Keyspace,
    large: Keyspace,
    meta: Keyspace,
}

impl Keyspaces {
    fn open(path: &Path, options: &EmbeddedOptions) -> Result<Self, fjall::Error> {
        let database = fjall::Database::builder(path)
            .cache_size(options.cache_bytes)
            .max_journaling_size(options.journal_bytes.max(64 * 1024 * 1024))
            .worker_threads(options.worker_threads.max(1))
            .open()?;
        let plain = || KeyspaceCreateOptions::default().max_memtable_size(options.memtable_bytes);
        let separated = || {
            let separation = KvSeparationOptions::default()
                .separation_threshold(SEPARATION_BYTES)
                .file_target_size(LARGE_FILE_BYTES);
            plain().max_memtable_size(LARGE_MEMTABLE_BYTES).with_kv_separation(Some(separation))
        };
        let small = || plain().max_memtable_size(META_MEMTABLE_BYTES);
        Ok(Self {
            rows: database.keyspace("rows", plain)?,
            large: database.keyspace("large", separated)?,
            meta: database.keyspace("meta", small)?,
            database,
        })
    }
}

/// Held while a process opens the directory, until `fjall`'s own lock stands: what the checks see
/// and cut off must not be another process's writing.
fn lock_opening(path: &Path) -> Result<std::fs::File, OpenError> {
    let lock = path.join(OPENING_LOCK_FILE);
    let io = |source| OpenError::Io { path: lock.clone(), source };
    std::fs::create_dir_all(path).map_err(io)?;
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(&lock);
    let file = file.map_err(io)?;
    file.lock().map_err(io)?;
    Ok(file)
}

/// Whether a process has the directory open.
pub(super) fn in_use(path: &Path) -> bool {
    let lock = std::fs::OpenOptions::new().read(true).write(true).open(path.join(LOCK_FILE));
    lock.is_ok_and(|lock| matches!(lock.try_lock(), Err(std::fs::TryLockError::WouldBlock)))
}

pub(super) fn corrupt(path: &Path, reason: impl Into<String>) -> OpenError {
    OpenError::Corrupt { path: path.to_owned(), reason: reason.into() }
}

/// The engine's error in our words.
fn at(path: &Path, error: fjall::Error) -> OpenError {
    let path: PathBuf = path.to_owned();
    match error {
        fjall::Error::Locked => OpenError::Locked { path },
        fjall::Error::Io(source) => OpenError::Io { path, source },
        other => OpenError::Corrupt { path, reason: other.to_string() },
    }
}

/// A row's key in the keyspace.
pub(super) fn tagged(key: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(key.len() + 1);
    bytes.put_u8(ROW_TAG);
    bytes.put_slice(key);
    bytes.freeze()
}

/// The rows as of one batch.
pub(super) struct Snapshot {
    snapshot: fjall::Snapshot,
    rows: Keyspace,
}

impl Snapshot {
    fn value(&self, key: &[u8]) -> Result<Option<Bytes>> {
        let value = self.snapshot.get(&self.rows, tagged(key));
        Ok(value.map_err(|error| unreadable(&self.rows, error))?.map(Bytes::from))
    }
}

impl Source for Snapshot {
    fn get(&self, key: &[u8], _version: u64) -> Result<Option<Bytes>> {
        self.value(key)
    }

    fn range(
        &self,
        begin: &[u8],
        end: &[u8],
        direction: Direction,
        limits: PageLimits,
        _version: u64,
    ) -> Result<Rows> {
        let mut inside = self.snapshot.range(&self.rows, tagged(begin)..tagged(end));
        let mut page = Rows { rows: Vec::new(), more: false };
        let mut bytes = 0;
        loop {
            let next = match direction {
                Direction::Forward => inside.next(),
                Direction::Reverse => inside.next_back(),
            };
            let Some(row) = next else { return Ok(page) };
            if page.rows.len() >= limits.rows || bytes >= limits.bytes {
                page.more = true;
                return Ok(page);
            }
            let (key, value) = row.into_inner().map_err(|error| unreadable(&self.rows, error))?;
            let row = KeyValue { key: Bytes::from(key).slice(1..), value: value.into() };
            bytes += row.key.len() + row.value.len();
            page.rows.push(row);
        }
    }
}

impl Base for Snapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.value(key)
    }

    fn keys(&self, begin: &[u8], end: &[u8]) -> Result<Vec<Bytes>> {
        self.snapshot
            .range(&self.rows, tagged(begin)..tagged(end))
            .map(|row| {
                let key = row.key().map_err(|error| unreadable(&self.rows, error))?;
                Ok(Bytes::from(key).slice(1..))
            })
            .collect()
    }
}

/// A failed read, with the folder that it was of.
pub(super) fn unreadable(keyspace: &Keyspace, error: fjall::Error) -> Error {
    Error::engine_failed(format!("{} ({}): {error}", keyspace.path().display(), keyspace.name()))
}
