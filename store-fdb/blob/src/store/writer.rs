//! Streaming in.

use std::sync::{Arc, atomic::Ordering};

use bytes::{Bytes, BytesMut};

use super::{BlobStore, to_u64};
use crate::{
    BlobError, BlobHash, BlobId, ObjectId,
    backend::Backend,
    embedded::Embedded,
    limits::{BLOB_BYTES_MAX, CHUNK_BYTES},
    tree::{self, ChainingValue},
};

#[cfg(feature = "s3")]
use crate::s3::Upload;

/// A blob being written. Dropped unfinished, it takes back what it has stored.
///
/// Holds at most one chunk of [`CHUNK_BYTES`] in memory; on S3 also one part of
/// [`PART_BYTES`](crate::limits::PART_BYTES), once it has more than a chunk.
pub struct BlobWriter {
    store: BlobStore,
    object: ObjectId,
    pub(super) buffer: BytesMut,
    chunks: Vec<ChainingValue>,
    pub(super) size: u64,
    #[cfg(feature = "s3")]
    upload: Option<Upload>,
}

impl BlobWriter {
    pub(super) fn new(store: BlobStore) -> Self {
        let object = ObjectId::draw(&store.env);
        #[cfg(feature = "s3")]
        let upload = match &*store.backend {
            Backend::Embedded(_) => None,
            Backend::S3(s3) => Some(s3.upload(object)),
        };
        Self {
            store,
            object,
            buffer: BytesMut::new(),
            chunks: Vec::new(),
            size: 0,
            #[cfg(feature = "s3")]
            upload,
        }
    }

    /// Bytes so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// [`BlobError::TooLarge`], or the backend's; the writer is then of no more use.
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<(), BlobError> {
        self.size += to_u64(bytes.len());
        if self.size > BLOB_BYTES_MAX {
            return Err(BlobError::TooLarge);
        }
        while !bytes.is_empty() {
            // A full buffer is stored only when more comes: the last chunk is never empty, and
            // a blob of one chunk is stored whole.
            if self.buffer.len() == CHUNK_BYTES {
                self.store_chunk().await?;
            }
            let take = bytes.len().min(CHUNK_BYTES - self.buffer.len());
            self.buffer.extend_from_slice(&bytes[..take]);
            bytes = &bytes[take..];
        }
        Ok(())
    }

    /// Ends the blob. It is durable as soon as a later commit is.
    ///
    /// # Errors
    /// The backend's.
    pub async fn finish(mut self) -> Result<BlobId, BlobError> {
        let (counters, size) = (Arc::clone(&self.store.counters), self.size);
        let id = if self.chunks.is_empty() {
            let id = BlobId::new(self.object, BlobHash::of(&self.buffer));
            self.put_whole(id).await?;
            id
        } else {
            self.store_chunk().await?;
            let hash = tree::root(&self.chunks).expect("two chunks at least were stored");
            let id = BlobId::new(self.object, hash);
            self.name_object(id).await?;
            id
        };
        counters.puts.fetch_add(1, Ordering::Relaxed);
        counters.bytes_written.fetch_add(size, Ordering::Relaxed);
        Ok(id)
    }

    async fn put_whole(&mut self, id: BlobId) -> Result<(), BlobError> {
        let bytes = self.buffer.split().freeze();
        let BlobStore { backend, env, faults, .. } = &self.store;
        let put = async {
            match &**backend {
                Backend::Embedded(embedded) => Ok(embedded.put_whole(id, &bytes).await?),
                #[cfg(feature = "s3")]
                Backend::S3(s3) => s3.put_whole(id, bytes).await,
            }
        };
        faults.call(env, "put", put).await
    }

    /// Gives the stored chunks their name.
    async fn name_object(&mut self, id: BlobId) -> Result<(), BlobError> {
        let store = self.store.clone();
        let name = async {
            match &*store.backend {
                Backend::Embedded(_) => self.put_header(id).await,
                #[cfg(feature = "s3")]
                Backend::S3(_) => self.end_upload().await,
            }
        };
        store.faults.call(&store.env, "put", name).await
    }

    /// In a task of its own: a caller that stops waiting must not leave it half done, with a
    /// header over chunks that the writer's drop takes back.
    async fn put_header(&mut self, id: BlobId) -> Result<(), BlobError> {
        let (store, object, size) = (self.store.clone(), self.object, self.size);
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let env = self.store.env.clone();
        // The object is the task's from here on.
        let chunks = std::mem::take(&mut self.chunks);
        env.spawn("blob-name", async move {
            let named = match &*store.backend {
                Backend::Embedded(embedded) => embedded.put_header(id, object, size, &chunks).await,
                #[cfg(feature = "s3")]
                Backend::S3(_) => Ok(()),
            };
            // Nobody hears it where the caller stopped waiting; the blob is whole all the same.
            let _unheard = sender.send(named);
        })
        .detach();
        match receiver.await {
            Ok(named) => named,
            Err(_) => Err(BlobError::Backend(kv::Error::Cancelled)),
        }
    }

    /// The chunks' tree, then the end.
    #[cfg(feature = "s3")]
    async fn end_upload(&mut self) -> Result<(), BlobError> {
        let Some(upload) = &mut self.upload else { return Ok(()) };
        for value in &self.chunks {
            upload.push(value).await?;
        }
        upload.finish().await
    }

    async fn store_chunk(&mut self) -> Result<(), BlobError> {
        let chunk = std::mem::take(&mut self.buffer).freeze();
        let number = u32::try_from(self.chunks.len()).map_err(|_| BlobError::TooLarge)?;
        let offset = u64::from(number) * to_u64(CHUNK_BYTES);
        self.chunks.push(tree::chunk_value(offset, &chunk));
        let store = self.store.clone();
        let put = self.put_chunk(number, chunk.clone());
        store.faults.call(&store.env, "put", put).await?;
        // Where the backend has not kept it, the next chunk takes its memory: what one thread
        // allocates and another frees is slow to come back.
        if let Ok(mut buffer) = chunk.try_into_mut() {
            buffer.clear();
            self.buffer = buffer;
        }
        Ok(())
    }

    async fn put_chunk(&mut self, number: u32, chunk: Bytes) -> Result<(), BlobError> {
        match &*self.store.backend {
            Backend::Embedded(embedded) => embedded.put_chunk(self.object, number, chunk).await,
            #[cfg(feature = "s3")]
            Backend::S3(_) => match &mut self.upload {
                Some(upload) => upload.push(&chunk).await,
                None => Ok(()),
            },
        }
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        #[cfg(feature = "s3")]
        if let Some(upload) = &mut self.upload {
            if let Some(abandoned) = upload.abandon() {
                self.store.env.spawn("blob-abandon", abandoned).detach();
            }
            return;
        }
        // Chunks that were named are no longer the writer's.
        if self.chunks.is_empty() {
            return;
        }
        let (store, object) = (self.store.clone(), self.object);
        let chunks = self.chunks.len();
        let env = self.store.env.clone();
        env.spawn("blob-abandon", async move {
            match &*store.backend {
                Backend::Embedded(embedded) => abandon(embedded, object, chunks).await,
                #[cfg(feature = "s3")]
                Backend::S3(_) => {}
            }
        })
        .detach();
    }
}

async fn abandon(embedded: &Embedded, object: ObjectId, chunks: usize) {
    if let Err(error) = embedded.abandon(object, chunks).await {
        tracing::warn!(%error, "an abandoned upload stays until the next start");
    }
}
