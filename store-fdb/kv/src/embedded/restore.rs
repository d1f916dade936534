//! Restore: a backup becomes a directory, whole or not at all.
//!
//! The store is built in `NAME.restoring` beside the target, marked as unfinished, which no other
//! open accepts. Whoever restores may change it there ([`Restored::open`]). It gets its name by one
//! rename, when everything is on the disk and the backup's end was read; the mark goes along and is
//! removed last. A crash leaves a folder of either name with the mark in it, or an empty one. The
//! next restore takes it away, unless the restore that made it still runs and holds the mark's lock.

use std::{
    fs::{File, TryLockError},
    io::Read,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use env::{Env, Timestamp};

use super::{
    BackupCounts, Embedded, EmbeddedOptions,
    format::{FrameReader, Kind, Totals},
    storage::{Durability, RESTORING_MARK, Storage, Unfinished, in_use},
};
use crate::{
    Error, OpenError,
    limits::{
        RESTORE_BATCH_BYTES, RESTORE_LEAP, RESTORE_RESTART_FACTOR, RESTORE_VERSION_MAX,
        VERSIONS_PER_SECOND,
    },
};

/// Why a backup was not restored. Nothing is left where the store should be.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// There is something already.
    #[error("{} is not empty", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// What is to be built beside the target is there, and no earlier restore left it.
    #[error("{} is in the way, and no unfinished restore", path.display())]
    InTheWay {
        /// The folder.
        path: PathBuf,
    },
    /// Another restore into the same place has not ended.
    #[error("another restore is writing to {}", path.display())]
    Running {
        /// The folder.
        path: PathBuf,
    },
    /// The file is something else.
    #[error("this is not a backup")]
    NotABackup,
    /// The backup was written by a newer release.
    #[error("the backup has format {found}, and this release knows {known}")]
    FormatUnknown {
        /// The format found.
        found: u32,
        /// The newest format that this release knows.
        known: u32,
    },
    /// The backup ends too early.
    #[error("the backup is cut off after byte {bytes}")]
    CutOff {
        /// Bytes that were whole.
        bytes: u64,
    },
    /// The backup is not what was written.
    #[error("the backup is damaged after byte {bytes}: {reason}")]
    Damaged {
        /// Bytes that were whole.
        bytes: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// The backup cannot be read.
    #[error("cannot read the backup")]
    Read(#[source] std::io::Error),
    /// The operating system refused.
    #[error("cannot write {}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
    /// The new store cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The new store cannot be written.
    #[error(transparent)]
    Store(#[from] Error),
}

impl From<fjall::Error> for RestoreError {
    fn from(error: fjall::Error) -> Self {
        Self::Store(error.into())
    }
}

/// A backup's store, built beside the place where it is to be. Dropped unfinished, it is taken
/// away.
#[must_use = "it is not where it is to be until it is finished"]
#[derive(Debug)]
pub struct Restored {
    place: Place,
    target: PathBuf,
    env: Env,
    options: EmbeddedOptions,
    counts: BackupCounts,
    created: Timestamp,
}

impl Restored {
    /// What the backup held.
    pub fn counts(&self) -> BackupCounts {
        self.counts
    }

    /// When the backup was begun, by the clock of whoever made it.
    pub fn created(&self) -> Timestamp {
        self.created
    }

    /// Opens the store where it was built, for what has to change before anybody else sees it. To be
    /// closed before [`Restored::finish`].
    ///
    /// # Errors
    /// As [`Embedded::open`].
    pub fn open(&self) -> Result<Embedded, OpenError> {
        let building = &self.place.building;
        Embedded::open_as(building, self.env.clone(), self.options, Unfinished::Accepted)
    }

    /// Gives the store its name. Blocks.
    ///
    /// # Errors
    /// As [`RestoreError`] says. Nothing that opens is where the store should be then, and another
    /// restore takes over what is.
    pub fn finish(self) -> Result<(), RestoreError> {
        if in_use(&self.place.building) {
            return Err(OpenError::Locked { path: self.place.building.clone() }.into());
        }
        self.place.finish(&self.target)
    }
}

/// Restores a backup. As [`Embedded::restore`](super::Embedded::restore).
pub(super) fn restore(
    target: &Path,
    reader: impl Read,
    env: &Env,
    options: &EmbeddedOptions,
    progress: &mut dyn FnMut(BackupCounts),
) -> Result<Restored, RestoreError> {
    let mut frames = FrameReader::new(reader)?;
    make_room(target)?;
    let place = Place::make(target)?;
    let (created, counts) = fill(&place.building, &mut frames, env, options, progress)?;
    let (target, env, options) = (target.to_owned(), env.clone(), *options);
    Ok(Restored { place, target, env, options, counts, created })
}

/// Takes away what an earlier restore left in the target; anything else must not be there.
fn make_room(target: &Path) -> Result<(), RestoreError> {
    match contents(target)? {
        Contents::Nothing | Contents::Empty => Ok(()),
        Contents::Unfinished(_mark) => take_away(target).map_err(at(target)),
        Contents::Other => Err(RestoreError::NotEmpty { path: target.to_owned() }),
    }
}

/// What is where a restore wants to write.
enum Contents {
    Nothing,
    Empty,
    /// What a restore left that is not running any more. Its mark, locked.
    Unfinished(File),
    Other,
}

fn contents(folder: &Path) -> Result<Contents, RestoreError> {
    use std::io::ErrorKind;
    match std::fs::read_dir(folder) {
        Ok(mut entries) => {
            if entries.next().is_none() {
                return Ok(Contents::Empty);
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Contents::Nothing),
        Err(error) if error.kind() == ErrorKind::NotADirectory => return Ok(Contents::Other),
        Err(source) => return Err(at(folder)(source)),
    }
    let mark = folder.join(RESTORING_MARK);
    match File::open(&mark) {
        Ok(found) => {
            lock(&found, &mark, folder)?;
            Ok(Contents::Unfinished(found))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Contents::Other),
        Err(source) => Err(at(&mark)(source)),
    }
}

/// Takes the mark, which whoever restores holds as long as it runs.
fn lock(mark: &File, path: &Path, folder: &Path) -> Result<(), RestoreError> {
    match mark.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(RestoreError::Running { path: folder.to_owned() }),
        Err(TryLockError::Error(source)) => Err(at(path)(source)),
    }
}

/// Removes an unfinished restore. The mark goes last: what is left in between is one still.
fn take_away(folder: &Path) -> std::io::Result<()> {
    tracing::info!(folder = %folder.display(), "removing an unfinished restore");
    let mark = folder.join(RESTORING_MARK);
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        } else if entry.path() != mark {
            std::fs::remove_file(entry.path())?;
        }
    }
    File::open(folder)?.sync_all()?;
    std::fs::remove_file(&mark)?;
    std::fs::remove_dir(folder)
}

/// The folder that the store is built in; taken away with this unless it got its name.
#[derive(Debug)]
struct Place {
    building: PathBuf,
    progress: Progress,
    /// Locked until the restore ends, however it ends.
    _mark: File,
}

#[derive(Debug, PartialEq, Eq)]
enum Progress {
    Building,
    Named,
}

impl Place {
    fn make(target: &Path) -> Result<Self, RestoreError> {
        let named = target.file_name().ok_or_else(|| RestoreError::Io {
            path: target.to_owned(),
            source: std::io::Error::other("it has no name"),
        })?;
        let mut name = named.to_owned();
        name.push(".restoring");
        let building = target.with_file_name(name);
        match contents(&building)? {
            // A restore that ended before it had made its mark leaves an empty one.
            Contents::Nothing | Contents::Empty => {}
            Contents::Unfinished(_mark) => take_away(&building).map_err(at(&building))?,
            Contents::Other => return Err(RestoreError::InTheWay { path: building }),
        }
        std::fs::create_dir_all(&building).map_err(at(&building))?;
        let path = building.join(RESTORING_MARK);
        let mark = File::create_new(&path).map_err(at(&path))?;
        lock(&mark, &path, &building)?;
        mark.sync_all().map_err(at(&path))?;
        sync_folder(&building)?;
        Ok(Self { building, progress: Progress::Building, _mark: mark })
    }

    /// Gives the whole store its name. The mark goes along and is removed last: at every moment
    /// there is a store, or something that is known as an unfinished restore.
    fn finish(mut self, target: &Path) -> Result<(), RestoreError> {
        sync_folder(&self.building)?;
        std::fs::rename(&self.building, target).map_err(at(target))?;
        self.progress = Progress::Named;
        match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => sync_folder(parent)?,
            _ => sync_folder(Path::new("."))?,
        }
        let mark = target.join(RESTORING_MARK);
        std::fs::remove_file(&mark).map_err(at(&mark))?;
        sync_folder(target)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.progress == Progress::Named {
            return;
        }
        if let Err(error) = take_away(&self.building) {
            tracing::warn!(folder = %self.building.display(), %error, "an unfinished restore stays");
        }
    }
}

fn at(path: &Path) -> impl FnOnce(std::io::Error) -> RestoreError {
    let path = path.to_owned();
    move |source| RestoreError::Io { path, source }
}

fn sync_folder(path: &Path) -> Result<(), RestoreError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(at(path))
}

/// Writes everything that the backup has into a new store, and syncs it.
fn fill<R: Read>(
    building: &Path,
    frames: &mut FrameReader<R>,
    env: &Env,
    options: &EmbeddedOptions,
    progress: &mut dyn FnMut(BackupCounts),
) -> Result<(Timestamp, BackupCounts), RestoreError> {
    let (Kind::Begin, begin) = frames.frame()? else {
        return Err(frames.damaged("it does not begin as one"));
    };
    let Ok(begin) = <[u8; 16]>::try_from(begin) else {
        return Err(frames.damaged("its begin is of the wrong length"));
    };
    let (reserved, created) = begin.split_at(8);
    let reserved = u64::from_be_bytes(reserved.try_into().expect("it was split at eight"));
    let created_ms = i64::from_be_bytes(created.try_into().expect("it was split at eight"));
    let Some(first) = first_version(reserved, created_ms, env) else {
        return Err(frames.damaged("no version is left above its own"));
    };
    let mut storage = Storage::create(building, options)?;
    storage.begin_with_version(first)?;
    let mut totals = Totals::default();
    loop {
        let (kind, payload) = frames.frame()?;
        let expected = match kind {
            Kind::Begin => return Err(frames.damaged("it begins twice")),
            Kind::End => payload == totals.encode(),
            Kind::Rows | Kind::Large => write(&mut storage, kind, payload, &mut totals)?,
        };
        if !expected {
            return Err(frames.damaged("its parts do not fit together"));
        }
        let counts = BackupCounts {
            rows: totals.rows,
            large_values: totals.large_values,
            bytes: frames.bytes(),
        };
        progress(counts);
        if kind == Kind::End {
            frames.end()?;
            storage.sync_all()?;
            return Ok((Timestamp::from_unix_ms(created_ms), counts));
        }
    }
}

/// A version above every one that the store can have handed out between the backup and now, as far
/// as the wall clocks and the number of its openings are within [`RESTORE_LEAP`] and
/// [`RESTORE_RESTART_FACTOR`]; `None` where no such version is left.
fn first_version(reserved: u64, created_ms: i64, env: &Env) -> Option<u64> {
    let elapsed_ms = u64::try_from(env.wall().unix_ms().saturating_sub(created_ms)).unwrap_or(0);
    let elapsed = elapsed_ms.checked_mul(VERSIONS_PER_SECOND / 1000)?;
    let openings = elapsed.checked_mul(RESTORE_RESTART_FACTOR)?;
    let first = reserved.checked_add(RESTORE_LEAP)?.checked_add(openings)?;
    (first <= RESTORE_VERSION_MAX).then_some(first)
}

/// Writes a frame's entries; tells whether they fill it exactly.
fn write(
    storage: &mut Storage,
    kind: Kind,
    mut payload: &[u8],
    totals: &mut Totals,
) -> Result<bool, RestoreError> {
    let keyspace = match kind {
        Kind::Large => storage.large.clone(),
        _ => storage.rows.clone(),
    };
    let mut batch = storage.batch();
    let mut bytes = 0;
    while !payload.is_empty() {
        let Some((key, value, rest)) = entry(payload) else { return Ok(false) };
        bytes += key.len() + value.len();
        batch.insert(&keyspace, Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
        totals.count(kind);
        payload = rest;
        if bytes >= RESTORE_BATCH_BYTES {
            let full = std::mem::replace(&mut batch, storage.batch());
            storage.write(full, Durability::Buffered)?;
            bytes = 0;
        }
    }
    storage.write(batch, Durability::Buffered)?;
    Ok(true)
}

/// The first key and value, and what follows them.
fn entry(payload: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let length = |bytes: [u8; 4]| usize::try_from(u32::from_be_bytes(bytes)).ok();
    let (key_bytes, rest) = payload.split_first_chunk::<4>()?;
    let (value_bytes, rest) = rest.split_first_chunk::<4>()?;
    let (key, rest) = rest.split_at_checked(length(*key_bytes)?)?;
    let (value, rest) = rest.split_at_checked(length(*value_bytes)?)?;
    (!key.is_empty() && key.len() <= usize::from(u16::MAX)).then_some((key, value, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::VERSIONS_RESERVED;

    #[test]
    fn versions_begin_above_what_many_openings_skip() {
        let env = Env::system();
        let now = env.wall().unix_ms();
        let reserved = 1 << 44;
        let first = |created_ms| first_version(reserved, created_ms, &env).unwrap();
        assert!(first(now) > reserved + 300_000 * VERSIONS_RESERVED);
        // A year, and an opening every four seconds of it.
        let year_ms: u64 = 365 * 86_400_000;
        let skipped = year_ms / 4000 * VERSIONS_RESERVED + year_ms * (VERSIONS_PER_SECOND / 1000);
        assert!(first(now - i64::try_from(year_ms).unwrap()) > reserved + skipped);
        // A clock that stood at nothing, or went back.
        assert!(first(0) > reserved && first(now + 1_000_000) > reserved);
        // Whatever a backup says, there are versions left to go on with.
        assert_eq!(first_version(u64::MAX, now, &env), None);
        assert_eq!(first_version(RESTORE_VERSION_MAX, now, &env), None);
        assert_eq!(first_version(reserved, i64::MIN, &env), None);
    }
}
