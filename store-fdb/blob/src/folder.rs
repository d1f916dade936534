//! Large blobs' chunks in files of their own.
//!
//! The embedded engine's tree would write every byte twice and hold megabytes of them in memory.
//! A large blob is written once, read in order and removed whole: a file's life. Its header stays
//! with the engine, and is written only after the file is on the disk.
//!
//! | path | content |
//! |---|---|
//! | `xx/object` | the blob's bytes; `object` is the object's id in hex, `xx` its first two digits |
//!
//! Deliberately absent: temporary names. The engine has a mark for each file that has no header
//! yet, durable before the file exists, and a crash's leftovers are found by it.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use env::Env;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::{BlobError, ObjectId, limits::CHUNK_BYTES, store::to_u64};

/// Locks over all objects: two objects rarely share one, and more would only take memory.
const STRIPES: usize = 64;

pub(crate) struct Folder {
    path: PathBuf,
    env: Env,
    /// Held by whatever changes a file of the stripe until it is done, also where the caller has
    /// stopped waiting: an upload that is taken back must not be written to afterwards.
    stripes: Vec<Arc<Mutex<()>>>,
}

impl Folder {
    pub(crate) async fn open(path: &Path, env: Env) -> Result<Self, BlobError> {
        let stripes = (0..STRIPES).map(|_| Arc::default()).collect();
        let folder = Self { path: path.to_owned(), env, stripes };
        folder.blocking("create", folder.path.clone(), create_folder).await?;
        Ok(folder)
    }

    /// Writes chunk `number` into the object's file.
    pub(crate) async fn put(
        &self,
        object: ObjectId,
        number: u32,
        chunk: Bytes,
    ) -> Result<(), BlobError> {
        let changing = self.changing(object).await;
        self.blocking("write", self.file(object), move |path| {
            let _changing = changing;
            if number == 0 {
                create_folder(path.parent().expect("an object's file is in a folder"))?;
            }
            let mut options = OpenOptions::new();
            let file = options.write(true).create(number == 0).mode(0o600).open(path)?;
            file.write_all_at(&chunk, u64::from(number) * to_u64(CHUNK_BYTES))
        })
        .await
    }

    /// Makes the object's file durable, and its name.
    pub(crate) async fn sync(&self, object: ObjectId) -> Result<(), BlobError> {
        let root = self.path.clone();
        self.blocking("sync", self.file(object), move |path| {
            File::open(path)?.sync_all()?;
            File::open(path.parent().expect("an object's file is in a folder"))?.sync_all()?;
            // The inner folder may be new, too.
            File::open(root)?.sync_all()
        })
        .await
    }

    /// Chunk `number`, not yet checked; `None` where the file or the chunk is not there.
    pub(crate) async fn get(
        &self,
        object: ObjectId,
        number: u32,
    ) -> Result<Option<Bytes>, BlobError> {
        self.blocking("read", self.file(object), move |path| read_chunk(path, number)).await
    }

    /// The object's file, opened by the calling thread, which may block; `None` where there is none.
    pub(crate) fn open_file(&self, object: ObjectId) -> io::Result<Option<ObjectFile>> {
        match File::open(self.file(object)) {
            Ok(file) => Ok(Some(ObjectFile { size: file.metadata()?.len(), file })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Bytes of the object's file; `None` where there is none.
    pub(crate) async fn length(&self, object: ObjectId) -> Result<Option<u64>, BlobError> {
        self.blocking("look at", self.file(object), |path| match std::fs::metadata(path) {
            Ok(about) => Ok(Some(about.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        })
        .await
    }

    /// Removes the object's file; one that is not there is removed.
    pub(crate) async fn remove(&self, object: ObjectId) -> Result<(), BlobError> {
        let changing = self.changing(object).await;
        self.blocking("remove", self.file(object), move |path| {
            let _changing = changing;
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                Ok(()) | Err(_) => Ok(()),
            }
        })
        .await
    }

    async fn changing(&self, object: ObjectId) -> OwnedMutexGuard<()> {
        let stripe = usize::from(object.as_bytes()[0]) % STRIPES;
        Arc::clone(&self.stripes[stripe]).lock_owned().await
    }

    fn file(&self, object: ObjectId) -> PathBuf {
        let name = object.to_string();
        self.path.join(&name[..2]).join(name)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        operation: &'static str,
        path: PathBuf,
        work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T, BlobError> {
        let unavailable = |reason| BlobError::Unavailable { operation, reason };
        let ended = self.env.run_blocking(move || {
            let done = work(&path);
            done.map_err(|error| format!("{}: {error}", path.display()))
        });
        ended.await.map_err(|error| unavailable(error.to_string()))?.map_err(unavailable)
    }
}

/// An object's file that is open: it is there to the end, removed or not.
pub(crate) struct ObjectFile {
    file: File,
    size: u64,
}

impl ObjectFile {
    /// Its bytes when it was opened.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The chunks of its first `size` bytes; an error where it has become shorter.
    pub(crate) fn chunks(self, size: u64) -> impl Iterator<Item = io::Result<Bytes>> {
        let numbers = 0..u32::try_from(size.div_ceil(to_u64(CHUNK_BYTES))).unwrap_or(u32::MAX);
        numbers.map(move |number| {
            let left = size - u64::from(number) * to_u64(CHUNK_BYTES);
            let chunk = read_chunk_of(&self.file, number)?;
            match to_u64(chunk.len()) == left.min(to_u64(CHUNK_BYTES)) {
                true => Ok(chunk),
                false => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            }
        })
    }
}

fn read_chunk(path: &Path, number: u32) -> io::Result<Option<Bytes>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Some(read_chunk_of(&file, number)?).filter(|chunk| !chunk.is_empty()))
}

/// The bytes of chunk `number` that the file has.
fn read_chunk_of(file: &File, number: u32) -> io::Result<Bytes> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let offset = u64::from(number) * to_u64(CHUNK_BYTES);
    let mut filled = 0;
    while filled < chunk.len() {
        match file.read_at(&mut chunk[filled..], offset + to_u64(filled)) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    chunk.truncate(filled);
    Ok(chunk.into())
}

fn create_folder(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(test)]
mod tests {
    use kv::LargeValues;

    use super::*;
    use crate::{BlobId, BlobStore};

    struct Store {
        blobs: BlobStore,
        values: LargeValues,
        directory: tempfile::TempDir,
    }

    impl Store {
        async fn new() -> Self {
            let values = LargeValues::memory(Env::system());
            let directory = tempfile::tempdir().unwrap();
            let blobs = open(&values, directory.path()).await;
            Self { blobs, values, directory }
        }

        /// Every file there is.
        fn files(&self) -> Vec<PathBuf> {
            let entries = |path: &Path| -> Vec<PathBuf> {
                std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect()
            };
            entries(self.directory.path()).iter().flat_map(|inner| entries(inner)).collect()
        }

        async fn keys(&self, prefix: &[u8]) -> usize {
            self.values.scan_prefix(prefix, None, 1_000).await.unwrap().len()
        }

        async fn read(&self, id: BlobId) -> Result<Vec<u8>, BlobError> {
            self.blobs.read_to_vec(id, 0..u64::MAX, usize::MAX).await
        }

        /// Lets the tasks behind the store get done.
        async fn until_empty(&self) {
            while self.files() != [] as [PathBuf; 0] || self.keys(b"s").await > 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    async fn open(values: &LargeValues, path: &Path) -> BlobStore {
        BlobStore::embedded_with_files(values.clone(), path, Env::system()).await.unwrap()
    }

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|i| u8::try_from((i / 251 + i * 7) % 256).unwrap()).collect()
    }

    #[tokio::test]
    async fn large_blobs_are_files_and_small_ones_are_not() {
        let store = Store::new().await;
        for len in [1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, 3 * CHUNK_BYTES - 5] {
            let whole = bytes(len);
            let id = store.blobs.put(&whole).await.unwrap();
            assert_eq!(store.files().len(), usize::from(len > CHUNK_BYTES), "{len}");
            assert_eq!((store.keys(b"d").await, store.keys(b"s").await), (0, 0));
            assert_eq!(store.read(id).await.unwrap(), whole);
            let middle = to_u64(len / 2)..to_u64(len / 2 + 7).min(to_u64(len));
            let found = store.blobs.read_to_vec(id, middle.clone(), 7).await.unwrap();
            assert_eq!(to_u64(found.len()), middle.end - middle.start);
            store.blobs.remove(&crate::BlobName::of(&id)).await.unwrap();
            assert!(matches!(store.read(id).await, Err(BlobError::Missing(_))));
            assert_eq!(store.files(), [] as [PathBuf; 0]);
        }
    }

    #[tokio::test]
    async fn a_damaged_or_missing_file_is_told() {
        let store = Store::new().await;
        let whole = bytes(2 * CHUNK_BYTES + 9);
        let id = store.blobs.put(&whole).await.unwrap();
        let file = store.files().remove(0);
        let mut changed = whole.clone();
        changed[CHUNK_BYTES + 3] ^= 1;
        let longer = [&whole[..], b"x"].concat();
        for wrong in [&changed[..], &longer, &whole[..whole.len() - 1], &whole[..CHUNK_BYTES], b""]
        {
            std::fs::write(&file, wrong).unwrap();
            assert!(matches!(store.read(id).await, Err(BlobError::Damaged(_))));
        }
        std::fs::remove_file(&file).unwrap();
        assert!(matches!(store.read(id).await, Err(BlobError::Damaged(_))));
        std::fs::write(&file, &whole).unwrap();
        assert_eq!(store.read(id).await.unwrap(), whole);
    }

    /// A check reads no more than the header, and sees it all the same.
    #[tokio::test]
    async fn a_check_sees_a_file_that_is_lost_or_of_another_length() {
        let store = Store::new().await;
        for len in [2 * CHUNK_BYTES, 2 * CHUNK_BYTES + 9] {
            let whole = bytes(len);
            let id = store.blobs.put(&whole).await.unwrap();
            let file = store.files().remove(0);
            let longer = [&whole[..], b"x"].concat();
            for wrong in [&longer[..], &whole[..len - 1], &whole[..CHUNK_BYTES], b""] {
                std::fs::write(&file, wrong).unwrap();
                let checked = store.blobs.check(id).await;
                assert!(matches!(checked, Err(BlobError::Damaged(it)) if it == id), "{len}");
            }
            std::fs::remove_file(&file).unwrap();
            assert!(matches!(store.blobs.check(id).await, Err(BlobError::Damaged(_))));
            // Among the values, from the release before, one chunk is missing.
            let chunks = whole.chunks(CHUNK_BYTES).zip(0_u32..);
            for (chunk, number) in chunks {
                assert!(matches!(store.blobs.check(id).await, Err(BlobError::Damaged(_))));
                let object = id.object().unwrap();
                let key = [b"d", &object.as_bytes()[..], &number.to_be_bytes()].concat();
                store.values.put(&key, Bytes::copy_from_slice(chunk)).await.unwrap();
            }
            assert_eq!(store.blobs.check(id).await.unwrap().remaining(), to_u64(len));
            store.blobs.remove(&crate::BlobName::of(&id)).await.unwrap();
        }
    }

    #[tokio::test]
    async fn large_blobs_among_the_values_are_read_where_they_are() {
        let store = Store::new().await;
        let whole = bytes(2 * CHUNK_BYTES + 9);
        let before = BlobStore::embedded(store.values.clone(), Env::system()).await.unwrap();
        let id = before.put(&whole).await.unwrap();
        assert_eq!((store.files().len(), store.keys(b"d").await), (0, 3));
        assert_eq!(store.read(id).await.unwrap(), whole);
        store.blobs.remove(&crate::BlobName::of(&id)).await.unwrap();
        assert_eq!(store.keys(b"d").await, 0);
    }

    #[tokio::test]
    async fn opening_clears_files_that_have_no_header() {
        let store = Store::new().await;
        let kept = store.blobs.put(&bytes(CHUNK_BYTES + 1)).await.unwrap();
        let mut writer = store.blobs.writer();
        writer.write(&bytes(3 * CHUNK_BYTES)).await.unwrap();
        assert_eq!((store.files().len(), store.keys(b"s").await), (2, 1));
        // As a crash leaves it: nobody takes the upload back.
        std::mem::forget(writer);
        open(&store.values, store.directory.path()).await;
        assert_eq!((store.files().len(), store.keys(b"s").await), (1, 0));
        assert!(store.read(kept).await.is_ok());
    }

    #[tokio::test]
    async fn a_backup_of_the_engine_holds_the_files() {
        use kv::embedded::{Embedded, EmbeddedOptions};
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let engine = |name: &str| {
            Embedded::open(&path(name), Env::system(), EmbeddedOptions::default()).unwrap()
        };
        let embedded = engine("store");
        let blobs = open(&embedded.large_values(), &path("blobs")).await;
        let (small, large) = (bytes(100), bytes(3 * CHUNK_BYTES + 7));
        let ids = [blobs.put(&small).await.unwrap(), blobs.put(&large).await.unwrap()];
        embedded.large_values().sync().await.unwrap();
        let mut backup = embedded.backups().begin(blobs.expand_backup()).await.unwrap();
        let mut file = Vec::new();
        while let Some(chunk) = backup.next_chunk().await.unwrap() {
            file.extend_from_slice(&chunk);
        }
        let built = Embedded::restore(&path("restored"), &file[..], &Env::system(), |_| {});
        built.unwrap().finish().unwrap();
        let restored = engine("restored");
        let blobs = open(&restored.large_values(), &path("no-files")).await;
        for (id, whole) in ids.into_iter().zip([small, large]) {
            assert_eq!(blobs.read_to_vec(id, 0..u64::MAX, usize::MAX).await.unwrap(), whole);
        }
    }

    /// What a backup of the engine says of these blobs, after something happened to their files.
    async fn backed_up(
        embedded: &kv::embedded::Embedded,
        blobs: &BlobStore,
    ) -> Result<(), kv::embedded::BackupError> {
        let mut backup = embedded.backups().begin(blobs.expand_backup()).await.unwrap();
        while backup.next_chunk().await?.is_some() {}
        Ok(())
    }

    #[tokio::test]
    async fn a_backup_without_a_blob_s_bytes_fails_and_names_it() {
        use kv::embedded::{BackupError, Embedded, EmbeddedOptions};
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let embedded =
            Embedded::open(&path("store"), Env::system(), EmbeddedOptions::default()).unwrap();
        let (db, values) = (embedded.database(), embedded.large_values());
        let before = BlobStore::embedded(values.clone(), Env::system()).await.unwrap();
        let among_the_values = before.put(&bytes(2 * CHUNK_BYTES)).await.unwrap();
        let blobs = open(&values, &path("blobs")).await;
        let whole = bytes(3 * CHUNK_BYTES + 7);
        let id = blobs.put(&whole).await.unwrap();
        let refer = async |id: BlobId| {
            let tx = db.begin();
            crate::references::share(&tx, id, &crate::Owner::Email(1, 2));
            tx.commit().await.unwrap();
        };
        refer(among_the_values).await;
        backed_up(&embedded, &blobs).await.unwrap();
        let object = id.object().unwrap().to_string();
        let file = path("blobs").join(&object[..2]).join(&object);
        let short = &whole[..whole.len() - 1];
        for damaged in [Some(short), Some(&whole[..2 * CHUNK_BYTES]), Some(&[]), None] {
            match damaged {
                Some(bytes) => std::fs::write(&file, bytes).unwrap(),
                None => std::fs::remove_file(&file).unwrap(),
            }
            // What nobody needs may be on its way out.
            backed_up(&embedded, &blobs).await.unwrap();
            refer(id).await;
            let told = backed_up(&embedded, &blobs).await.expect_err("it is incomplete");
            let BackupError::Outside { reason } = told else { panic!("{told}") };
            assert!(reason.contains(&id.to_string()), "{reason}");
            let tx = db.begin();
            crate::references::remove(&tx, id, &crate::Owner::Email(1, 2), Env::system().wall());
            tx.commit().await.unwrap();
        }
        refer(id).await;
        std::fs::write(&file, &whole).unwrap();
        backed_up(&embedded, &blobs).await.unwrap();
        // Chunks among the values that are gone are told, too.
        let key = values.scan_prefix(b"d", None, 1).await.unwrap().remove(0);
        values.remove(&key).await.unwrap();
        let told = backed_up(&embedded, &blobs).await.expect_err("it is incomplete");
        assert!(told.to_string().contains(&among_the_values.to_string()), "{told}");
    }

    /// A put that is given up at any of its awaits leaves a whole blob or nothing.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_put_that_nobody_waits_for_leaves_a_whole_blob_or_nothing() {
        let whole = bytes(2 * CHUNK_BYTES + 1);
        for polls in 1..200 {
            let store = Store::new().await;
            let mut put = Box::pin(store.blobs.put(&whole));
            let mut polled = 0;
            let done = std::future::poll_fn(|context| {
                polled += 1;
                match put.as_mut().poll(context) {
                    std::task::Poll::Pending if polled < polls => std::task::Poll::Pending,
                    result => std::task::Poll::Ready(result.is_ready()),
                }
            })
            .await;
            drop(put);
            if done {
                return;
            }
            // The header comes, or all goes.
            while store.keys(b"h").await == 0
                && (store.files() != [] as [PathBuf; 0] || store.keys(b"s").await > 0)
            {
                tokio::task::yield_now().await;
            }
            let headers = store.values.scan_prefix(b"h", None, 2).await.unwrap();
            match headers.first() {
                Some(key) => {
                    let id = BlobId::from_slice(&key[1..]).unwrap();
                    assert_eq!(store.read(id).await.unwrap(), whole, "{polls}");
                }
                None => store.until_empty().await,
            }
        }
        panic!("a put ends");
    }
}
