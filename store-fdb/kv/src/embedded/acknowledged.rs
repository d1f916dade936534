//! How far commits were acknowledged: the number of the last batch that was synced, in a file of
//! its own beside the journal.
//!
//! It is written after each sync and not synced itself, which costs about a microsecond. It never
//! claims more than is on the disk; a crash of the process leaves it exact, and a crash of the
//! machine leaves it some seconds behind. So a journal that was cut off, damaged at its end or
//! taken away is told from one whose last write was torn.
//!
//! Two places are written by turns, each in a sector of its own, so that a torn write leaves the
//! one before.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use xxhash_rust::xxh3::xxh3_64;

use super::storage::corrupt;
use crate::OpenError;

const FILE_NAME: &str = "acknowledged";

/// What a disk writes at once or not at all.
const SECTOR_BYTES: u64 = 512;

pub(super) struct Acknowledged {
    file: File,
    batch: u64,
}

impl Acknowledged {
    /// Where the file lies in the directory.
    pub(super) fn path(directory: &Path) -> PathBuf {
        directory.join(FILE_NAME)
    }

    /// A new file, on the disk: nothing was acknowledged yet.
    pub(super) fn create(directory: &Path) -> Result<Self, OpenError> {
        let path = Self::path(directory);
        let io = |source| OpenError::Io { path: path.clone(), source };
        std::fs::create_dir_all(directory).map_err(io)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .map_err(io)?;
        let mut created = Self { file, batch: 0 };
        for place in 0..2 {
            created.write_at(place, 0).map_err(io)?;
        }
        created.sync().map_err(io)?;
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(io)?;
        Ok(created)
    }

    /// The file of a directory; `None` where it has none.
    pub(super) fn open(directory: &Path) -> Result<Option<Self>, OpenError> {
        let path = Self::path(directory);
        let mut file = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(OpenError::Io { path, source }),
        };
        let mut bytes = Vec::new();
        Read::by_ref(&mut file)
            .take(2 * SECTOR_BYTES)
            .read_to_end(&mut bytes)
            .map_err(|source| OpenError::Io { path: path.clone(), source })?;
        let batch = bytes.chunks(sector()).filter_map(read_place).max();
        let batch = batch.ok_or_else(|| corrupt(&path, "neither of its two checksums is right"))?;
        Ok(Some(Self { file, batch }))
    }

    /// The last batch that was acknowledged.
    pub(super) fn batch(&self) -> u64 {
        self.batch
    }

    /// Notes that every batch up to this one is on the disk.
    pub(super) fn write(&mut self, batch: u64) -> std::io::Result<()> {
        self.write_at(batch % 2, batch)?;
        self.batch = batch;
        Ok(())
    }

    pub(super) fn sync(&self) -> std::io::Result<()> {
        self.file.sync_all()
    }

    fn write_at(&mut self, place: u64, batch: u64) -> std::io::Result<()> {
        let number = batch.to_be_bytes();
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&number);
        bytes[8..].copy_from_slice(&xxh3_64(&number).to_be_bytes());
        self.file.seek(SeekFrom::Start(place * SECTOR_BYTES))?;
        self.file.write_all(&bytes)
    }
}

fn sector() -> usize {
    usize::try_from(SECTOR_BYTES).expect("a sector is small")
}

fn read_place(bytes: &[u8]) -> Option<u64> {
    let (number, rest) = bytes.split_first_chunk::<8>()?;
    let (checksum, _) = rest.split_first_chunk::<8>()?;
    (xxh3_64(number) == u64::from_be_bytes(*checksum)).then(|| u64::from_be_bytes(*number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_write_leaves_the_one_before() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Acknowledged::open(directory.path()).unwrap().is_none());
        let mut file = Acknowledged::create(directory.path()).unwrap();
        for batch in 1..=7 {
            file.write(batch).unwrap();
        }
        let reopen = || Acknowledged::open(directory.path());
        assert_eq!(reopen().unwrap().unwrap().batch(), 7);
        let path = Acknowledged::path(directory.path());
        let whole = std::fs::read(&path).unwrap();
        for at in 512..528 {
            let mut torn = whole.clone();
            torn[at] ^= 1;
            std::fs::write(&path, &torn).unwrap();
            assert_eq!(reopen().unwrap().unwrap().batch(), 6);
            torn[at - 512] ^= 1;
            std::fs::write(&path, &torn).unwrap();
            assert!(matches!(reopen(), Err(OpenError::Corrupt { path: told, .. }) if told == path));
        }
    }
}
