//! What was read, in a folder: bounded in bytes and files, the least recently used goes first.
//!
//! A file is eight bytes of the object's length, then the piece. Nothing in it is believed: the
//! reader checks it against the blob's hash, and has it fetched again where it is wrong, such as
//! one that a crash left half written.
//!
//! Deliberately absent: syncing, and other processes in the same folder.

mod behind;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fs, io,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use env::Env;
use tokio::sync::OnceCell;

use self::behind::Behind;
use super::{CacheSettings, client::S3Counts, object_of};
use crate::{BlobError, ObjectId, store::to_u64};

/// Which piece of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Window(u32),
    Trailer,
}

pub(super) type Key = (ObjectId, Part);

/// A piece, and the length of the object that it is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fetched {
    pub(super) total: u64,
    pub(super) bytes: Bytes,
}

/// Bytes before a piece.
const HEADER_BYTES: usize = 8;

pub(super) struct Cache {
    env: Env,
    settings: CacheSettings,
    index: Mutex<Index>,
    flights: Mutex<BTreeMap<Key, Flight>>,
    behind: Behind,
    hits: AtomicU64,
    misses: AtomicU64,
    errors: AtomicU64,
    failing: AtomicBool,
}

/// A fetch that others may join.
type Flight = Arc<OnceCell<Option<Fetched>>>;

/// What is in the folder, by key and by the order of its use.
#[derive(Default)]
struct Index {
    files: BTreeMap<Key, (u64, u64)>,
    order: BTreeMap<u64, Key>,
    clock: u64,
    bytes: u64,
}

impl Index {
    fn touch(&mut self, key: Key) -> bool {
        let Some((_, used)) = self.files.get_mut(&key) else { return false };
        self.clock += 1;
        self.order.remove(used);
        *used = self.clock;
        self.order.insert(self.clock, key);
        true
    }

    fn remove(&mut self, key: Key) -> bool {
        let Some((bytes, used)) = self.files.remove(&key) else { return false };
        self.order.remove(&used);
        self.bytes -= bytes;
        true
    }

    fn insert(&mut self, key: Key, bytes: u64) {
        self.remove(key);
        self.clock += 1;
        self.files.insert(key, (bytes, self.clock));
        self.order.insert(self.clock, key);
        self.bytes += bytes;
    }

    /// Takes out the oldest until `more` bytes and one file fit.
    fn make_room(&mut self, more: u64, settings: &CacheSettings) -> Vec<Key> {
        let mut out = Vec::new();
        while self.bytes + more > settings.bytes_max || self.files.len() >= settings.files_max {
            let Some((_, key)) = self.order.first_key_value().map(|(used, key)| (*used, *key))
            else {
                break;
            };
            self.remove(key);
            out.push(key);
        }
        out
    }
}

impl Cache {
    pub(super) async fn open(settings: CacheSettings, env: Env) -> Result<Self, BlobError> {
        let of = settings.clone();
        let index = env.run_blocking(move || read_folder(&of)).await;
        let failed = |reason: String| BlobError::Unavailable {
            operation: "open the cache",
            reason: format!("{}: {reason}", settings.folder.display()),
        };
        let index = index
            .map_err(|ended| failed(ended.to_string()))?
            .map_err(|error| failed(error.to_string()))?;
        Ok(Self {
            env,
            settings,
            index: Mutex::new(index),
            flights: Mutex::default(),
            behind: Behind::default(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            failing: AtomicBool::new(false),
        })
    }

    pub(super) fn count(&self, counts: &mut S3Counts) {
        let index = self.index();
        counts.cache_hits = self.hits.load(Relaxed);
        counts.cache_misses = self.misses.load(Relaxed);
        counts.cache_errors = self.errors.load(Relaxed);
        counts.cache_bytes = index.bytes;
        counts.cache_files = to_u64(index.files.len());
    }

    /// The piece from the folder, or from whoever is fetching it, or by `fetch`.
    pub(super) async fn fetch<F: Future<Output = Result<Option<Fetched>, BlobError>>>(
        self: &Arc<Self>,
        key: Key,
        fetch: impl FnOnce() -> F,
    ) -> Result<Option<Fetched>, BlobError> {
        let cell = Arc::clone(self.flights().entry(key).or_default());
        let flight = Leaving { cache: self, key, cell };
        let mut asked = false;
        let fetched = flight
            .cell
            .get_or_try_init(|| async {
                if let Some(fetched) = self.read(key).await {
                    return Ok(Some(fetched));
                }
                asked = true;
                self.misses.fetch_add(1, Relaxed);
                let fetched = fetch().await?;
                if let Some(fetched) = &fetched {
                    self.put(key, fetched).await;
                }
                Ok(fetched)
            })
            .await
            .cloned();
        if !asked && fetched.is_ok() {
            self.hits.fetch_add(1, Relaxed);
        }
        fetched
    }

    /// Keeps a piece, as far as it fits.
    pub(super) async fn put(self: &Arc<Self>, key: Key, fetched: &Fetched) {
        self.keep(vec![(key, fetched.clone())]).await;
    }

    async fn keep(self: &Arc<Self>, pieces: Vec<(Key, Fetched)>) {
        let cache = Arc::clone(self);
        let kept = self.env.run_blocking(move || {
            pieces.iter().try_for_each(|(key, piece)| cache.keep_one(*key, piece))
        });
        let kept = kept.await;
        self.succeeded(kept);
    }

    /// To be called where it may block.
    fn keep_one(&self, key: Key, piece: &Fetched) -> io::Result<()> {
        let bytes = to_u64(HEADER_BYTES + piece.bytes.len());
        if bytes > self.settings.bytes_max || self.settings.files_max == 0 {
            return Ok(());
        }
        let path = |key| self.settings.folder.join(file_name(key));
        let out = self.index().make_room(bytes, &self.settings);
        out.into_iter().try_for_each(|key| remove(&path(key)))?;
        write(&path(key), piece).inspect_err(|_| {
            // What cannot be removed either is found to be wrong when it is read.
            let _left = fs::remove_file(path(key));
        })?;
        self.index().insert(key, bytes);
        Ok(())
    }

    /// Drops a piece that was wrong.
    pub(super) async fn forget(&self, key: Key) {
        if self.index().remove(key) {
            let path = self.settings.folder.join(file_name(key));
            let removed = self.env.run_blocking(move || remove(&path)).await;
            self.succeeded(removed);
        }
    }

    async fn read(&self, key: Key) -> Option<Fetched> {
        if let Some(piece) = self.behind.get(key) {
            return Some(piece);
        }
        if !self.index().touch(key) {
            return None;
        }
        let path = self.settings.folder.join(file_name(key));
        let read = self.env.run_blocking(move || fs::read(path)).await;
        let bytes = match read {
            Ok(Ok(bytes)) => Bytes::from(bytes),
            failed => {
                self.index().remove(key);
                // A file that is gone was evicted meanwhile.
                if !matches!(&failed, Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound) {
                    self.succeeded(failed.map(|read| read.map(drop)));
                }
                return None;
            }
        };
        let total = u64::from_be_bytes(*bytes.first_chunk::<HEADER_BYTES>()?);
        Some(Fetched { total, bytes: bytes.slice(HEADER_BYTES..) })
    }

    /// Counts a failure, and tells of the first of many.
    fn succeeded(&self, done: Result<io::Result<()>, env::TaskEnded>) -> bool {
        let error = match done {
            Ok(Ok(())) => {
                self.failing.store(false, Relaxed);
                return true;
            }
            Ok(Err(error)) => error.to_string(),
            Err(ended) => ended.to_string(),
        };
        self.errors.fetch_add(1, Relaxed);
        if !self.failing.swap(true, Relaxed) {
            let folder = self.settings.folder.display();
            tracing::warn!(%folder, error, "the blob cache fails; blobs come from the service");
        }
        false
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().expect("nothing panics while it holds the index")
    }

    fn flights(&self) -> MutexGuard<'_, BTreeMap<Key, Flight>> {
        self.flights.lock().expect("nothing panics while it holds the flights")
    }
}

/// Forgets a flight when the last of those who wait for it leaves.
struct Leaving<'a> {
    cache: &'a Cache,
    key: Key,
    cell: Flight,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        let mut flights = self.cache.flights();
        if let Entry::Occupied(entry) = flights.entry(self.key)
            && Arc::ptr_eq(entry.get(), &self.cell)
            && Arc::strong_count(&self.cell) == 2
        {
            entry.remove();
        }
    }
}

fn file_name((object, part): Key) -> String {
    match part {
        Part::Window(number) => format!("{object}-{number:x}"),
        Part::Trailer => format!("{object}-t"),
    }
}

fn key_of(file_name: &str) -> Option<Key> {
    let (object, part) = file_name.split_once('-')?;
    let part = match part {
        "t" => Part::Trailer,
        number => Part::Window(u32::from_str_radix(number, 16).ok()?),
    };
    let key = (object_of(object)?, part);
    (self::file_name(key) == file_name).then_some(key)
}

/// What an earlier run left, the oldest first; what an older release left half written is removed.
fn read_folder(settings: &CacheSettings) -> io::Result<Index> {
    make_folder(&settings.folder)?;
    let mut found = Vec::new();
    for file in fs::read_dir(&settings.folder)? {
        let file = file?;
        let name = file.file_name();
        let Some(name) = name.to_str() else { continue };
        if name.ends_with(".tmp") {
            remove(&file.path())?;
        } else if let Some(key) = key_of(name) {
            let about = file.metadata()?;
            found.push((about.modified()?, key, about.len()));
        }
    }
    found.sort_unstable();
    let mut index = Index::default();
    for (_, key, bytes) in found {
        for out in index.make_room(bytes, settings) {
            remove(&settings.folder.join(file_name(out)))?;
        }
        if bytes > settings.bytes_max || settings.files_max == 0 {
            remove(&settings.folder.join(file_name(key)))?;
        } else {
            index.insert(key, bytes);
        }
    }
    Ok(index)
}

/// For this user alone: it holds people's mail.
fn make_folder(folder: &std::path::Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(folder)
}

fn write(path: &std::path::Path, fetched: &Fetched) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.write(true).create(true).truncate(true).open(path)?;
    io::Write::write_all(&mut file, &fetched.total.to_be_bytes())?;
    io::Write::write_all(&mut file, &fetched.bytes)
}

fn remove(path: &std::path::Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
