//! The keyspaces' files, checked by name.
//!
//! Each keyspace folder has a file `current` that names a version file `vN` and holds its
//! checksum; the version file lists the table files (`tables/N`) and the files of large values
//! (`blobs/N`), each with a checksum of the whole file. `fjall` checks blocks as it reads them, but
//! never the version file, and clears away a folder whose `current` is missing.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use xxhash_rust::xxh3::Xxh3;

use super::storage::corrupt;
use crate::OpenError;

/// Folders that every store has: `fjall`'s own, and the three keyspaces.
const KEYSPACES: u64 = 4;

/// A damaged file of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Damage {
    path: PathBuf,
    /// What is wrong with it.
    reason: String,
}

/// Checks what decides which files belong to the store: a few small files.
pub(super) fn check_versions(directory: &Path) -> Result<(), OpenError> {
    for keyspace in 0..KEYSPACES {
        version_file(&folder(directory, keyspace))
            .map_err(|Damage { path, reason }| OpenError::Corrupt { path, reason })?;
    }
    Ok(())
}

/// The first damaged file, as an error.
pub(super) fn blame(directory: &Path) -> Option<OpenError> {
    check_files(directory).into_iter().next().map(|Damage { path, reason }| corrupt(&path, reason))
}

/// Reads every file of a store's keyspaces and compares it with its checksum: as long as reading
/// all of them takes, without much memory. Blocks.
///
/// For a store that nobody writes to: files come and go otherwise. The journal is checked by every
/// open.
fn check_files(directory: &Path) -> Vec<Damage> {
    let mut damages = Vec::new();
    for keyspace in 0..KEYSPACES {
        let folder = folder(directory, keyspace);
        match version_file(&folder).and_then(|version| listed(&folder, &version)) {
            Ok(listed) => damages.extend(listed.iter().filter_map(|file| file.check().err())),
            Err(damage) => damages.push(damage),
        }
    }
    damages
}

fn folder(directory: &Path, keyspace: u64) -> PathBuf {
    directory.join("keyspaces").join(keyspace.to_string())
}

fn damage(path: &Path, reason: impl ToString) -> Damage {
    Damage { path: path.to_owned(), reason: reason.to_string() }
}

/// The keyspace's version file, which is whole.
fn version_file(folder: &Path) -> Result<PathBuf, Damage> {
    let current = folder.join("current");
    let bytes = std::fs::read(&current).map_err(|error| damage(&current, error))?;
    // The version's number, its checksum, and the checksum's kind.
    let bytes = <[u8; 25]>::try_from(bytes)
        .map_err(|bytes| damage(&current, format!("it has {} bytes, not 25", bytes.len())))?;
    let (number, rest) = bytes.split_at(8);
    let (checksum, kind) = rest.split_at(16);
    if kind != [0] {
        return Err(damage(&current, "its checksum is of no known kind"));
    }
    let number = u64::from_le_bytes(number.try_into().expect("it was split at eight"));
    let checksum = u128::from_le_bytes(checksum.try_into().expect("it was split at sixteen"));
    let path = folder.join(format!("v{number}"));
    Listed { path, checksum }.check()
}

/// A file and the checksum that it must have.
struct Listed {
    path: PathBuf,
    checksum: u128,
}

impl Listed {
    fn check(&self) -> Result<PathBuf, Damage> {
        let told = |error: std::io::Error| damage(&self.path, error);
        let mut file = File::open(&self.path).map_err(told)?;
        let mut hash = Xxh3::new();
        let mut buffer = vec![0; 256 * 1024];
        loop {
            match file.read(&mut buffer).map_err(told)? {
                0 if hash.digest128() == self.checksum => return Ok(self.path.clone()),
                0 => return Err(damage(&self.path, "its checksum is wrong")),
                read => hash.update(&buffer[..read]),
            }
        }
    }
}

/// The files that a version file lists.
fn listed(folder: &Path, version: &Path) -> Result<Vec<Listed>, Damage> {
    let told = |error: sfa::Error| damage(version, format!("{error:?}"));
    let reader = sfa::Reader::new(version).map_err(told)?;
    let section = |name: &[u8]| {
        let section =
            reader.toc().section(name).ok_or_else(|| damage(version, "a section is missing"))?;
        let mut bytes = Vec::new();
        let content = section.buf_reader(version);
        content
            .and_then(|mut content| content.read_to_end(&mut bytes))
            .map_err(|error| damage(version, error))?;
        Ok(bytes)
    };
    let short = || damage(version, "a list in it is too short");
    let mut files = Vec::new();
    let bytes = section(b"tables")?;
    let mut numbers = Numbers(&bytes);
    for _level in 0..numbers.byte().ok_or_else(short)? {
        for _run in 0..numbers.byte().ok_or_else(short)? {
            for _table in 0..numbers.four().ok_or_else(short)? {
                files.push(numbers.file(&folder.join("tables")).ok_or_else(short)?);
                // The sequence number that the table's rows are to have.
                numbers.eight().ok_or_else(short)?;
            }
        }
    }
    let bytes = section(b"blob_files")?;
    let mut numbers = Numbers(&bytes);
    for _file in 0..numbers.four().ok_or_else(short)? {
        files.push(numbers.file(&folder.join("blobs")).ok_or_else(short)?);
    }
    Ok(files)
}

/// Little-endian numbers, one after the other.
struct Numbers<'a>(&'a [u8]);

impl Numbers<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn four(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn eight(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    /// A file's number, its checksum's kind, and the checksum.
    fn file(&mut self, folder: &Path) -> Option<Listed> {
        let number = self.eight()?;
        let _kind = self.byte()?;
        let checksum = u128::from_le_bytes(self.take()?);
        Some(Listed { path: folder.join(number.to_string()), checksum })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use env::Env;

    use super::*;
    use crate::embedded::{Embedded, EmbeddedOptions};

    /// A store whose rows and large values are in files.
    async fn build(path: &Path) {
        let options = EmbeddedOptions { memtable_bytes: 64 * 1024, ..EmbeddedOptions::default() };
        let open = || Embedded::open(path, Env::system(), options).unwrap();
        for _ in 0..2 {
            let embedded = open();
            for number in 0..60_u8 {
                let body = Env::system().random_array::<100_000>();
                embedded
                    .large_values()
                    .put(&[number], Bytes::copy_from_slice(&body))
                    .await
                    .unwrap();
                let tx = embedded.database().begin();
                tx.set(&[number], &body[..9_000]);
                tx.commit().await.unwrap();
            }
            embedded.close().await.unwrap();
        }
        open().close().await.unwrap();
    }

    #[tokio::test]
    async fn a_damaged_file_is_found() {
        let directory = tempfile::tempdir().unwrap();
        Box::pin(build(directory.path())).await;
        assert_eq!(check_files(directory.path()), []);
        let mut kinds = std::collections::BTreeSet::new();
        for keyspace in 0..KEYSPACES {
            let folder = folder(directory.path(), keyspace);
            let version = version_file(&folder).unwrap();
            let listed = listed(&folder, &version).unwrap().into_iter().map(|file| file.path);
            for file in listed.chain([version, folder.join("current")]) {
                let kind = file.parent().unwrap().file_name().unwrap();
                kinds.insert(kind.to_string_lossy().into_owned());
                let whole = std::fs::read(&file).unwrap();
                let mut damaged = whole.clone();
                damaged[whole.len() / 2] ^= 1;
                for bytes in [Some(damaged), Some(whole[1..].to_vec()), None] {
                    match bytes {
                        Some(bytes) => std::fs::write(&file, bytes).unwrap(),
                        None => std::fs::remove_file(&file).unwrap(),
                    }
                    let found = check_files(directory.path());
                    // What names a version names another one where it is damaged.
                    let named = found[0].path == file || file.ends_with("current");
                    assert!(found.len() == 1 && named, "{file:?} {found:?}");
                    assert!(matches!(
                        blame(directory.path()),
                        Some(OpenError::Corrupt { path, .. }) if path == found[0].path
                    ));
                }
                std::fs::write(&file, whole).unwrap();
            }
        }
        assert!(kinds.contains("tables") && kinds.contains("blobs"), "{kinds:?}");
    }
}
