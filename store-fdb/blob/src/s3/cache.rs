//! What was read, in a folder: bounded in bytes and files, the least recently used goes first.
//!
//! A file is eight bytes of the object's length, then the piece. Nothing in it is believed: the
//! reader checks it against the blob's hash, and has it fetched again where it is wrong, such as
//! one that a crash left half written.
//!
//! Architecture invariant: every file is counted. Room is taken before a file is written, and what
//! writes or removes it counts it, wherever that runs: the reader that wanted it may be gone by
//! then. A file that cannot be removed stays counted.
//!
//! Deliberately absent: syncing, and other processes in the same folder.

mod behind;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fs, io,
    path::{Path, PathBuf},
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
    index: Arc<Mutex<Index>>,
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
    /// Taken for files that are being written.
    taken_bytes: u64,
    taken_files: usize,
}

impl Index {
    /// Tells when the file was used: now.
    fn touch(&mut self, key: Key) -> Option<u64> {
        let (_, used) = self.files.get_mut(&key)?;
        self.clock += 1;
        self.order.remove(used);
        *used = self.clock;
        self.order.insert(self.clock, key);
        Some(self.clock)
    }

    fn remove(&mut self, key: Key) -> Option<u64> {
        let (bytes, used) = self.files.remove(&key)?;
        self.order.remove(&used);
        self.bytes -= bytes;
        Some(bytes)
    }

    /// Removes the file as it was at that time, and no later one of the key.
    fn remove_as_of(&mut self, key: Key, used: u64) {
        if self.files.get(&key).is_some_and(|(_, latest)| *latest == used) {
            self.remove(key);
        }
    }

    fn insert(&mut self, key: Key, bytes: u64) {
        self.remove(key);
        self.clock += 1;
        self.files.insert(key, (bytes, self.clock));
        self.order.insert(self.clock, key);
        self.bytes += bytes;
    }

    /// Takes out the oldest until `more` bytes and one file fit; `None` where they never do.
    fn make_room(&mut self, more: u64, settings: &CacheSettings) -> Option<Vec<(Key, u64)>> {
        if self.taken_bytes + more > settings.bytes_max || self.taken_files >= settings.files_max {
            return None;
        }
        let mut out = Vec::new();
        while self.bytes + self.taken_bytes + more > settings.bytes_max
            || self.files.len() + self.taken_files >= settings.files_max
        {
            let (_, key) = self.order.first_key_value().map(|(used, key)| (*used, *key))?;
            out.extend(self.remove(key).map(|bytes| (key, bytes)));
        }
        Some(out)
    }
}

/// Room for a file, from when it is taken until the file stands or is given up.
struct Room {
    index: Arc<Mutex<Index>>,
    folder: PathBuf,
    bytes: u64,
    /// What has to go first.
    out: Vec<(Key, u64)>,
}

impl Room {
    fn take(index: &Arc<Mutex<Index>>, bytes: u64, settings: &CacheSettings) -> Option<Self> {
        let mut held = lock(index);
        let out = held.make_room(bytes, settings)?;
        held.taken_bytes += bytes;
        held.taken_files += 1;
        let (index, folder) = (Arc::clone(index), settings.folder.clone());
        Some(Self { index, folder, bytes, out })
    }

    /// Writes the file, and counts it. Blocks.
    fn fill(mut self, key: Key, temporary: &Path, fetched: &Fetched) -> io::Result<()> {
        while let Some((out, _)) = self.out.last() {
            remove(&self.folder.join(file_name(*out)))?;
            self.out.pop();
        }
        write(temporary, fetched)
            .and_then(|()| fs::rename(temporary, self.folder.join(file_name(key))))
            .inspect_err(|_| {
                // What cannot be removed either is removed when the folder is opened.
                let _left = fs::remove_file(temporary);
            })?;
        lock(&self.index).insert(key, self.bytes);
        Ok(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut index = lock(&self.index);
        index.taken_bytes -= self.bytes;
        index.taken_files -= 1;
        for (key, bytes) in self.out.drain(..) {
            // It stands there still.
            if !index.files.contains_key(&key) {
                index.insert(key, bytes);
            }
        }
    }
}

fn lock(index: &Mutex<Index>) -> MutexGuard<'_, Index> {
    index.lock().expect("nothing panics while it holds the index")
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
            index: Arc::new(Mutex::new(index)),
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
        &self,
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
    pub(super) async fn put(&self, key: Key, fetched: &Fetched) {
        self.keep(vec![(key, fetched.clone())]).await;
    }

    async fn keep(&self, pieces: Vec<(Key, Fetched)>) {
        let (index, settings) = (Arc::clone(&self.index), self.settings.clone());
        let temporary: Vec<String> = pieces
            .iter()
            .map(|_| format!("{:016x}.tmp", self.env.random_below(u64::MAX)))
            .collect();
        let keep = move || {
            pieces.iter().zip(temporary).try_for_each(|((key, piece), temporary)| {
                let bytes = to_u64(HEADER_BYTES + piece.bytes.len());
                match Room::take(&index, bytes, &settings) {
                    Some(room) => room.fill(*key, &settings.folder.join(temporary), piece),
                    None => Ok(()),
                }
            })
        };
        let kept = self.env.run_blocking(keep).await;
        self.succeeded(kept);
    }

    /// Drops a piece that was wrong.
    pub(super) async fn forget(&self, key: Key) {
        let Some(used) = self.index().touch(key) else { return };
        let path = self.settings.folder.join(file_name(key));
        let index = Arc::clone(&self.index);
        let removing = move || remove(&path).map(|()| lock(&index).remove_as_of(key, used));
        let removed = self.env.run_blocking(removing).await;
        self.succeeded(removed);
    }

    async fn read(&self, key: Key) -> Option<Fetched> {
        if let Some(piece) = self.behind.get(key) {
            return Some(piece);
        }
        let used = self.index().touch(key)?;
        let path = self.settings.folder.join(file_name(key));
        let read = self.env.run_blocking(move || fs::read(path)).await;
        let bytes = match read {
            Ok(Ok(bytes)) => Bytes::from(bytes),
            // It was evicted meanwhile.
            Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
                self.index().remove_as_of(key, used);
                return None;
            }
            failed => {
                self.succeeded(failed.map(|read| read.map(drop)));
                return None;
            }
        };
        let total = u64::from_be_bytes(*bytes.first_chunk::<HEADER_BYTES>()?);
        Some(Fetched { total, bytes: bytes.slice(HEADER_BYTES..) })
    }

    /// Counts a failure, and tells of the first of many.
    fn succeeded(&self, done: Result<io::Result<()>, env::TaskEnded>) {
        let error = match done {
            Ok(Ok(())) => {
                self.failing.store(false, Relaxed);
                return;
            }
            Ok(Err(error)) => error.to_string(),
            Err(ended) => ended.to_string(),
        };
        self.errors.fetch_add(1, Relaxed);
        if !self.failing.swap(true, Relaxed) {
            let folder = self.settings.folder.display();
            tracing::warn!(%folder, error, "the blob cache fails; blobs come from the service");
        }
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        lock(&self.index)
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
        match index.make_room(bytes, settings) {
            Some(out) => {
                for (out, _) in out {
                    remove(&settings.folder.join(file_name(out)))?;
                }
                index.insert(key, bytes);
            }
            None => remove(&settings.folder.join(file_name(key)))?,
        }
    }
    Ok(index)
}

/// For this user alone: it holds people's mail.
fn make_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(folder)
}

fn write(path: &Path, fetched: &Fetched) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.write(true).create(true).truncate(true).open(path)?;
    io::Write::write_all(&mut file, &fetched.total.to_be_bytes())?;
    io::Write::write_all(&mut file, &fetched.bytes)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
