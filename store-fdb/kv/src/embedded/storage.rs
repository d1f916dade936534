//! The directory: three `fjall` keyspaces over one journal.
//!
//! | keyspace | key | value |
//! |---|---|---|
//! | `rows` | `k` and the key | the value |
//! | `large` | the key | a large value, kept outside the tree |
//! | `meta` | `format` | format number, 4 bytes big-endian |
//! | `meta` | `reserved` | no version above this was handed out, 8 bytes big-endian |
//!
//! A row's key is tagged because FoundationDB allows the empty key and `fjall` does not.

use std::path::Path;

use bytes::{BufMut, Bytes, BytesMut};
use fjall::{Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode, Readable};

use super::EmbeddedOptions;
use crate::{
    Direction, Error, KeyValue, OpenError, Result,
    limits::VERSIONS_RESERVED,
    local::{
        sequencer::Base,
        store::{PageLimits, Rows, Source},
    },
};

const FORMAT: u32 = 1;
const FORMAT_KEY: &[u8] = b"format";
const RESERVED_KEY: &[u8] = b"reserved";
const ROW_TAG: u8 = b'k';

/// Values below this stay in the tree: reading them elsewhere would cost a second access.
const SEPARATION_BYTES: u32 = 4096;

/// Memory of the large values' memtable: a chunk lies there only until it is on disk, and the
/// journal has it already.
const LARGE_MEMTABLE_BYTES: u64 = 4 * 1024 * 1024;

/// Size of the files that hold large values: the unit in which removed ones are collected.
const LARGE_FILE_BYTES: u64 = 64 * 1024 * 1024;

pub(super) struct Storage {
    pub(super) database: fjall::Database,
    pub(super) rows: Keyspace,
    pub(super) large: Keyspace,
    meta: Keyspace,
}

impl From<fjall::Error> for Error {
    fn from(error: fjall::Error) -> Self {
        Self::engine_failed(error)
    }
}

impl Storage {
    /// Opens the directory and reserves versions: all from the returned one on are new.
    pub(super) fn open(path: &Path, options: &EmbeddedOptions) -> Result<(Self, u64), OpenError> {
        let open_error = |error| open_error(path, error);
        let database = fjall::Database::builder(path)
            .cache_size(options.cache_bytes)
            .max_journaling_size(options.journal_bytes.max(64 * 1024 * 1024))
            .worker_threads(options.worker_threads.max(1))
            .open()
            .map_err(open_error)?;
        let plain = || KeyspaceCreateOptions::default().max_memtable_size(options.memtable_bytes);
        let separated = || {
            let separation = KvSeparationOptions::default()
                .separation_threshold(SEPARATION_BYTES)
                .file_target_size(LARGE_FILE_BYTES);
            plain().max_memtable_size(LARGE_MEMTABLE_BYTES).with_kv_separation(Some(separation))
        };
        let storage = Self {
            rows: database.keyspace("rows", plain).map_err(open_error)?,
            large: database.keyspace("large", separated).map_err(open_error)?,
            meta: database.keyspace("meta", plain).map_err(open_error)?,
            database,
        };
        let corrupt =
            |reason: &str| OpenError::Corrupt { path: path.to_owned(), reason: reason.to_owned() };
        if let Some(found) = storage.meta.get(FORMAT_KEY).map_err(open_error)? {
            let found =
                <[u8; 4]>::try_from(&*found).map_err(|_| corrupt("format is not a number"))?;
            let found = u32::from_be_bytes(found);
            if found != FORMAT {
                return Err(OpenError::FormatUnknown {
                    path: path.to_owned(),
                    found,
                    known: FORMAT,
                });
            }
        }
        let reserved = match storage.meta.get(RESERVED_KEY).map_err(open_error)? {
            Some(bytes) => u64::from_be_bytes(
                <[u8; 8]>::try_from(&*bytes).map_err(|_| corrupt("version is not a number"))?,
            ),
            None => VERSIONS_RESERVED,
        };
        let mut batch = storage.database.batch().durability(Some(PersistMode::SyncAll));
        batch.insert(&storage.meta, FORMAT_KEY, FORMAT.to_be_bytes());
        storage.reserve(&mut batch, reserved + VERSIONS_RESERVED);
        batch.commit().map_err(open_error)?;
        Ok((storage, reserved))
    }

    /// Records that versions up to `reserved` may be handed out.
    pub(super) fn reserve(&self, batch: &mut fjall::OwnedWriteBatch, reserved: u64) {
        batch.insert(&self.meta, RESERVED_KEY, reserved.to_be_bytes());
    }

    /// The rows as they are now.
    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot { snapshot: self.database.snapshot(), rows: self.rows.clone() }
    }
}

fn open_error(path: &Path, error: fjall::Error) -> OpenError {
    let path = path.to_owned();
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
        Ok(self.snapshot.get(&self.rows, tagged(key))?.map(Bytes::from))
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
            let (key, value) = row.into_inner()?;
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
            .map(|row| Ok(Bytes::from(row.key()?).slice(1..)))
            .collect()
    }
}
