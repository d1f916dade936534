//! The store's face: put, stream in, stream out, list, verify, remove.

mod reader;
mod writer;

use std::{
    ops::Range,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use env::{Env, Timestamp};
use kv::LargeValues;

pub use reader::BlobReader;
pub(crate) use reader::Purpose;
pub use writer::BlobWriter;

use crate::{
    BlobError, BlobFaultHandle, BlobId, BlobName, ListCursor, ListPage,
    backend::Backend,
    binding::{Place, StoreId},
    embedded::Embedded,
    folder::Folder,
};

#[cfg(feature = "s3")]
use crate::s3::{S3, S3Counts, S3Settings};

/// What has been done with blobs since the store was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BlobCounts {
    /// Blobs written.
    pub puts: u64,
    /// Blobs that a read was begun on.
    pub reads: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Bytes read.
    pub bytes_read: u64,
}

#[derive(Default)]
struct Counters {
    puts: AtomicU64,
    reads: AtomicU64,
    bytes_written: AtomicU64,
    bytes_read: AtomicU64,
}

/// Blobs. Cloning is some reference counts.
#[derive(Clone)]
pub struct BlobStore {
    backend: Arc<Backend>,
    env: Env,
    counters: Arc<Counters>,
    faults: BlobFaultHandle,
}

impl BlobStore {
    /// Blobs beside the embedded engine's keys, in the same journal: a put that was begun before
    /// a commit is durable when the commit is. Clears what uploads left that a crash cut off.
    ///
    /// # Errors
    /// [`BlobError::Backend`].
    pub async fn embedded(values: LargeValues, env: Env) -> Result<Self, BlobError> {
        Ok(Self::new(Backend::Embedded(Embedded::open(values, None).await?), env))
    }

    /// The same, with large blobs in files of their own below `folder`, which is created where it
    /// is missing. They are on the disk when their put ends. Large blobs among the values, from
    /// the release before, are read where they are.
    ///
    /// # Errors
    /// [`BlobError::Backend`], [`BlobError::Unavailable`].
    pub async fn embedded_with_files(
        values: LargeValues,
        folder: &Path,
        env: Env,
    ) -> Result<Self, BlobError> {
        let folder = Folder::open(folder, env.clone()).await?;
        Ok(Self::new(Backend::Embedded(Embedded::open(values, Some(folder)).await?), env))
    }

    /// Blobs in an S3-compatible service. Sends nothing yet.
    ///
    /// # Errors
    /// [`BlobError::Unavailable`] where the settings or the cache's folder are not usable.
    #[cfg(feature = "s3")]
    pub async fn s3(settings: S3Settings, env: Env) -> Result<Self, BlobError> {
        let backend = Backend::S3(Box::new(S3::open(settings, env.clone()).await?));
        Ok(Self::new(backend, env))
    }

    /// Blobs in a model of an S3-compatible service, for simulations.
    #[cfg(feature = "model")]
    pub fn on_model(link: crate::s3::model::BucketLink, env: Env) -> Self {
        Self::new(Backend::S3(Box::new(S3::on_model(link, env.clone()))), env)
    }

    pub(crate) fn new(backend: Backend, env: Env) -> Self {
        let (counters, faults) = (Arc::default(), BlobFaultHandle::default());
        Self { backend: Arc::new(backend), env, counters, faults }
    }

    /// Another handle to the same blobs, with counters and faults of its own: one node's.
    pub fn handle(&self, env: Env) -> Self {
        let (counters, faults) = (Arc::default(), BlobFaultHandle::default());
        Self { backend: Arc::clone(&self.backend), env, counters, faults }
    }

    /// Changes the faults of this handle and its clones.
    pub fn faults(&self) -> BlobFaultHandle {
        self.faults.clone()
    }

    /// For [`kv::embedded::Backups::begin`]: the bytes of blobs that are in files, so that
    /// a backup of the engine holds every blob that it refers to. A backup that would lack bytes of
    /// one fails and names it. A bucket is not in it.
    pub fn expand_backup(&self) -> kv::embedded::Expand {
        let backend = Arc::clone(&self.backend);
        Box::new(move |moment, key, value| match &*backend {
            Backend::Embedded(embedded) => embedded.expand(moment, key, value),
            #[cfg(feature = "s3")]
            Backend::S3(_) => Box::new(std::iter::empty()),
        })
    }

    /// Writes a blob that is in memory.
    ///
    /// # Errors
    /// [`BlobError::TooLarge`], or the backend's.
    pub async fn put(&self, bytes: &[u8]) -> Result<BlobId, BlobError> {
        let mut writer = self.writer();
        writer.write(bytes).await?;
        writer.finish().await
    }

    /// Begins a blob whose bytes are still to come.
    pub fn writer(&self) -> BlobWriter {
        BlobWriter::new(self.clone())
    }

    /// Begins to read bytes `range` of a blob; what lies beyond its end is left out, and a range
    /// that ends before it begins is empty.
    ///
    /// # Errors
    /// [`BlobError::Missing`], [`BlobError::Damaged`], or the backend's.
    pub async fn read(&self, id: BlobId, range: Range<u64>) -> Result<BlobReader, BlobError> {
        BlobReader::open(self.clone(), id, range, Purpose::Use).await
    }

    /// Begins to check a blob: as far as can be told without its bytes, which the reader checks
    /// when it is read to its end. Past any cache, and a large blob's file has to be as long as it
    /// should be.
    ///
    /// # Errors
    /// [`BlobError::Missing`], [`BlobError::Damaged`], or the backend's.
    pub async fn check(&self, id: BlobId) -> Result<BlobReader, BlobError> {
        BlobReader::open(self.clone(), id, 0..u64::MAX, Purpose::Check).await
    }

    /// Reads bytes `range` of a blob into memory.
    ///
    /// # Errors
    /// [`BlobError`]; [`BlobError::TooLarge`] where there are more than `max` bytes.
    pub async fn read_to_vec(
        &self,
        id: BlobId,
        range: Range<u64>,
        max: usize,
    ) -> Result<Vec<u8>, BlobError> {
        let mut reader = self.read(id, range).await?;
        if reader.remaining() > to_u64(max) {
            return Err(BlobError::TooLarge);
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = reader.next().await? {
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    /// Reads all of a blob and checks it, a piece at a time; tells how many bytes it has.
    ///
    /// # Errors
    /// [`BlobError::Missing`], [`BlobError::Damaged`], or the backend's.
    pub async fn verify(&self, id: BlobId) -> Result<u64, BlobError> {
        let mut reader = self.check(id).await?;
        let size = reader.remaining();
        while reader.next().await?.is_some() {}
        Ok(size)
    }

    /// A page of at most `limit` names, ascending. What was put or removed meanwhile may be in it
    /// or not.
    ///
    /// # Errors
    /// The backend's.
    pub async fn list(
        &self,
        after: Option<&ListCursor>,
        limit: usize,
    ) -> Result<ListPage, BlobError> {
        let list = async {
            match &*self.backend {
                Backend::Embedded(embedded) => Ok(embedded.list(after, limit).await?),
                #[cfg(feature = "s3")]
                Backend::S3(s3) => s3.list(after, limit).await,
            }
        };
        self.faults.call(&self.env, "list", list).await
    }

    /// Where a listing begins that tells `name` first, if it is there.
    pub fn cursor_before(&self, name: &BlobName) -> Option<ListCursor> {
        match &*self.backend {
            Backend::Embedded(_) => Embedded::cursor_before(name),
            #[cfg(feature = "s3")]
            Backend::S3(_) => S3::cursor_before(name),
        }
    }

    /// Whether there are bytes under this name.
    ///
    /// # Errors
    /// The backend's.
    pub async fn exists(&self, name: &BlobName) -> Result<bool, BlobError> {
        let exists = async {
            match &*self.backend {
                Backend::Embedded(embedded) => Ok(embedded.header_key_of(name).await?.is_some()),
                #[cfg(feature = "s3")]
                Backend::S3(s3) => s3.exists(name).await,
            }
        };
        self.faults.call(&self.env, "look for a blob", exists).await
    }

    /// Removes the bytes under this name, if there are any. For the sweeper, which knows that
    /// nothing needs them.
    ///
    /// # Errors
    /// The backend's.
    pub async fn remove(&self, name: &BlobName) -> Result<(), BlobError> {
        let remove = async {
            match &*self.backend {
                Backend::Embedded(embedded) => Ok(embedded.remove(name).await?),
                #[cfg(feature = "s3")]
                Backend::S3(s3) => s3.remove(name).await,
            }
        };
        self.faults.call(&self.env, "remove", remove).await
    }

    /// Where the blobs are, where that is a bucket.
    pub(crate) fn place(&self) -> Option<Place> {
        match &*self.backend {
            Backend::Embedded(_) => None,
            #[cfg(feature = "s3")]
            Backend::S3(s3) => Some(s3.place()),
        }
    }

    /// The stores that have marked the bucket; none where there is no bucket.
    pub(crate) async fn marks(&self) -> Result<Vec<StoreId>, BlobError> {
        let marks = async {
            match &*self.backend {
                Backend::Embedded(_) => Ok(Vec::new()),
                #[cfg(feature = "s3")]
                Backend::S3(s3) => s3.marks().await,
            }
        };
        self.faults.call(&self.env, "look for the bucket's mark", marks).await
    }

    /// Marks the bucket, if there is one.
    pub(crate) async fn put_mark(&self, id: StoreId) -> Result<(), BlobError> {
        let put = async {
            match &*self.backend {
                Backend::Embedded(_) => {
                    let _unneeded = id;
                    Ok(())
                }
                #[cfg(feature = "s3")]
                Backend::S3(s3) => s3.put_mark(id).await,
            }
        };
        self.faults.call(&self.env, "mark the bucket", put).await
    }

    /// Takes back uploads that were begun before `before` and never ended; tells how many.
    ///
    /// # Errors
    /// The backend's.
    pub async fn abort_uploads(&self, before: Timestamp) -> Result<u64, BlobError> {
        let abort = async {
            match &*self.backend {
                // It clears them when it is opened: there is but one process, which ended.
                Backend::Embedded(_) => {
                    let _unneeded = before;
                    Ok(0)
                }
                #[cfg(feature = "s3")]
                Backend::S3(s3) => s3.abort_uploads(before).await,
            }
        };
        self.faults.call(&self.env, "abort uploads", abort).await
    }

    /// What the S3 backend has done so far, for all handles; `None` for another backend.
    #[cfg(feature = "s3")]
    pub fn s3_counts(&self) -> Option<S3Counts> {
        match &*self.backend {
            Backend::Embedded(_) => None,
            Backend::S3(s3) => Some(s3.counts()),
        }
    }

    /// Waits until what was put is in the cache.
    #[cfg(all(test, feature = "s3"))]
    pub(crate) async fn cache_settled(&self) {
        if let Backend::S3(s3) = &*self.backend {
            s3.cache_settled().await;
        }
    }

    /// What has been done so far.
    pub fn counts(&self) -> BlobCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        BlobCounts {
            puts: read(&self.counters.puts),
            reads: read(&self.counters.reads),
            bytes_written: read(&self.counters.bytes_written),
            bytes_read: read(&self.counters.bytes_read),
        }
    }
}

pub(crate) fn to_u64(len: usize) -> u64 {
    u64::try_from(len).expect("a usize fits 64 bits on every machine we run on")
}

pub(crate) fn to_usize(len: u64) -> usize {
    usize::try_from(len).expect("offsets within a chunk or a blob in memory")
}

#[cfg(test)]
mod tests;
