//! The store's face: put, stream in, stream out.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use env::Env;
use kv::LargeValues;

use crate::{
    BlobHash, BlobId, ObjectId,
    embedded::{Embedded, Stored},
    limits::{BLOB_BYTES_MAX, CHUNK_BYTES},
    tree::{self, ChainingValue},
};

/// Why a blob could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// No such blob.
    #[error("blob {0} does not exist")]
    Missing(BlobId),
    /// The stored bytes are not those that the name says. They are not handed out.
    #[error("blob {0} is damaged")]
    Damaged(BlobId),
    /// More than [`BLOB_BYTES_MAX`].
    #[error("a blob has at most {BLOB_BYTES_MAX} bytes")]
    TooLarge,
    /// The backend failed; trying again later may help.
    #[error("blob store: {0}")]
    Backend(#[from] kv::Error),
}

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

/// Blobs. Cloning is two reference counts.
#[derive(Clone)]
pub struct BlobStore {
    backend: Arc<Embedded>,
    env: Env,
    counters: Arc<Counters>,
}

impl BlobStore {
    /// Blobs beside the embedded engine's keys, in the same journal: a put that was begun before
    /// a commit is durable when the commit is. Clears what uploads left that a crash cut off.
    ///
    /// # Errors
    /// [`BlobError::Backend`].
    pub async fn embedded(values: LargeValues, env: Env) -> Result<Self, BlobError> {
        let backend = Arc::new(Embedded::open(values).await?);
        Ok(Self { backend, env, counters: Arc::default() })
    }

    /// Writes a blob that is in memory.
    ///
    /// # Errors
    /// [`BlobError::TooLarge`], [`BlobError::Backend`].
    pub async fn put(&self, bytes: &[u8]) -> Result<BlobId, BlobError> {
        let mut writer = self.writer();
        writer.write(bytes).await?;
        writer.finish().await
    }

    /// Begins a blob whose bytes are still to come.
    pub fn writer(&self) -> BlobWriter {
        BlobWriter {
            store: self.clone(),
            object: ObjectId::draw(&self.env),
            buffer: BytesMut::new(),
            chunks: Vec::new(),
            size: 0,
        }
    }

    /// Begins to read bytes `range` of a blob; what lies beyond its end is left out, and a range
    /// that ends before it begins is empty.
    ///
    /// # Errors
    /// [`BlobError::Missing`], [`BlobError::Backend`].
    pub async fn read(&self, id: BlobId, range: Range<u64>) -> Result<BlobReader, BlobError> {
        let stored = self.backend.stored(id).await?.ok_or(BlobError::Missing(id))?;
        self.counters.reads.fetch_add(1, Ordering::Relaxed);
        // Whole small blobs and the hash tree of large ones are checked here, once a read.
        let end = match &stored {
            Stored::Whole(bytes) if BlobHash::of(bytes) == id.hash() => to_u64(bytes.len()),
            Stored::Chunked(header) if header.root() == Some(id.hash()) => header.size,
            Stored::Whole(_) | Stored::Chunked(_) => return Err(BlobError::Damaged(id)),
        };
        let next = range.start.min(end);
        let end = range.end.clamp(next, end);
        Ok(BlobReader { store: self.clone(), id, stored, next, end })
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

    /// Removes a blob's bytes. For the sweeper, which knows that nothing needs it.
    ///
    /// # Errors
    /// [`BlobError::Backend`].
    pub async fn remove(&self, id: BlobId) -> Result<(), BlobError> {
        Ok(self.backend.remove(id).await?)
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

/// A blob being written. Holds at most one chunk in memory. Dropped unfinished, it takes back
/// what it has stored.
pub struct BlobWriter {
    store: BlobStore,
    object: ObjectId,
    buffer: BytesMut,
    chunks: Vec<ChainingValue>,
    size: u64,
}

impl BlobWriter {
    /// Bytes so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// [`BlobError::TooLarge`], [`BlobError::Backend`]; the writer is then of no more use.
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
    /// [`BlobError::Backend`].
    pub async fn finish(mut self) -> Result<BlobId, BlobError> {
        let (counters, size) = (Arc::clone(&self.store.counters), self.size);
        let id = if self.chunks.is_empty() {
            let id = BlobId::new(self.object, BlobHash::of(&self.buffer));
            self.store.backend.put_whole(id, &self.buffer).await?;
            id
        } else {
            self.store_chunk().await?;
            self.name_object().await?
        };
        counters.puts.fetch_add(1, Ordering::Relaxed);
        counters.bytes_written.fetch_add(size, Ordering::Relaxed);
        Ok(id)
    }

    /// Gives the chunks their name, in a task of its own: a caller that stops waiting must not
    /// leave it half done, with a header over chunks that the writer's drop takes back.
    async fn name_object(mut self) -> Result<BlobId, BlobError> {
        let hash = tree::root(&self.chunks).expect("two chunks at least were stored");
        let id = BlobId::new(self.object, hash);
        let (backend, object, size) = (Arc::clone(&self.store.backend), self.object, self.size);
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let env = self.store.env.clone();
        // The object is the task's from here on.
        let chunks = std::mem::take(&mut self.chunks);
        env.spawn("blob-name", async move {
            let named = backend.put_header(id, object, size, &chunks).await;
            // Nobody hears it where the caller stopped waiting; the blob is whole all the same.
            let _unheard = sender.send(named);
        })
        .detach();
        match receiver.await {
            Ok(named) => Ok(named.map(|()| id)?),
            Err(_) => Err(BlobError::Backend(kv::Error::Cancelled)),
        }
    }

    async fn store_chunk(&mut self) -> Result<(), BlobError> {
        let chunk = self.buffer.split().freeze();
        let number = u32::try_from(self.chunks.len()).map_err(|_| BlobError::TooLarge)?;
        let offset = u64::from(number) * to_u64(CHUNK_BYTES);
        self.chunks.push(tree::chunk_value(offset, &chunk));
        Ok(self.store.backend.put_chunk(self.object, number, chunk).await?)
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        // Chunks that were named are no longer the writer's.
        if self.chunks.is_empty() {
            return;
        }
        let (backend, object) = (Arc::clone(&self.store.backend), self.object);
        let chunks = self.chunks.len();
        self.store
            .env
            .spawn("blob-abandon", async move {
                if let Err(error) = backend.abandon(object, chunks).await {
                    tracing::warn!(%error, "an abandoned upload stays until the next start");
                }
            })
            .detach();
    }
}

/// A blob being read, chunk by chunk, each checked.
pub struct BlobReader {
    store: BlobStore,
    id: BlobId,
    stored: Stored,
    next: u64,
    end: u64,
}

impl BlobReader {
    /// Bytes that are still to come.
    pub fn remaining(&self) -> u64 {
        self.end - self.next
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// [`BlobError`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, BlobError> {
        if self.next >= self.end {
            return Ok(None);
        }
        let bytes = match &self.stored {
            Stored::Whole(bytes) => bytes.slice(to_usize(self.next)..to_usize(self.end)),
            Stored::Chunked(header) => {
                let chunk_bytes = to_u64(CHUNK_BYTES);
                let number = u32::try_from(self.next / chunk_bytes).unwrap_or(u32::MAX);
                let start = u64::from(number) * chunk_bytes;
                let chunk = self.store.backend.chunk(header.object, number).await?;
                let chunk = chunk.ok_or(BlobError::Damaged(self.id))?;
                let expected = header.chunks.get(to_usize(u64::from(number)));
                let whole = to_u64(chunk.len()) == (header.size - start).min(chunk_bytes);
                if !whole || expected != Some(&tree::chunk_value(start, &chunk)) {
                    return Err(BlobError::Damaged(self.id));
                }
                let end = self.end.min(start + chunk_bytes) - start;
                chunk.slice(to_usize(self.next - start)..to_usize(end))
            }
        };
        self.next += to_u64(bytes.len());
        self.store.counters.bytes_read.fetch_add(to_u64(bytes.len()), Ordering::Relaxed);
        Ok(Some(bytes))
    }
}

pub(crate) fn to_u64(len: usize) -> u64 {
    u64::try_from(len).expect("a usize fits 64 bits on every machine we run on")
}

fn to_usize(len: u64) -> usize {
    usize::try_from(len).expect("offsets within a chunk or a blob in memory")
}

#[cfg(test)]
mod tests;
