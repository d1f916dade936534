//! Streaming out.

use std::{ops::Range, sync::atomic::Ordering};

use bytes::Bytes;

use super::{BlobStore, to_u64, to_usize};
use crate::{
    BlobError, BlobHash, BlobId,
    backend::Backend,
    embedded::{Embedded, Header, Stored},
    limits::CHUNK_BYTES,
    tree,
};

#[cfg(feature = "s3")]
use crate::s3::{Object, Opened};

/// What a blob is read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// For its bytes, from wherever they come soonest.
    Use,
    /// To see whether they are where they are kept: past caches, and all that can be told at once.
    Check,
}

/// A blob being read, piece by piece, each checked before it is handed out.
pub struct BlobReader {
    store: BlobStore,
    id: BlobId,
    source: Source,
    next: u64,
    end: u64,
}

/// Where the bytes come from. What it holds was checked.
enum Source {
    /// All of it is here.
    Whole(Bytes),
    /// Chunks of the embedded backend.
    Chunks(Header),
    /// Windows of an object in S3.
    #[cfg(feature = "s3")]
    Windows(Object),
}

impl BlobReader {
    pub(super) async fn open(
        store: BlobStore,
        id: BlobId,
        range: Range<u64>,
        purpose: Purpose,
    ) -> Result<Self, BlobError> {
        let open = async {
            match &*store.backend {
                Backend::Embedded(embedded) => open_embedded(embedded, id, purpose).await,
                #[cfg(feature = "s3")]
                Backend::S3(s3) => Ok(match s3.open_blob(id, range.start, purpose).await? {
                    Opened::Whole(bytes) => Source::Whole(bytes),
                    Opened::Large(object) => Source::Windows(object),
                }),
            }
        };
        let source = store.faults.call(&store.env, "read", open).await?;
        store.counters.reads.fetch_add(1, Ordering::Relaxed);
        let end = match &source {
            Source::Whole(bytes) => to_u64(bytes.len()),
            Source::Chunks(header) => header.size,
            #[cfg(feature = "s3")]
            Source::Windows(object) => object.size,
        };
        let next = range.start.min(end);
        let end = range.end.clamp(next, end);
        Ok(Self { store, id, source, next, end })
    }

    /// Bytes that are still to come.
    pub fn remaining(&self) -> u64 {
        self.end - self.next
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// [`BlobError::Damaged`], or the backend's.
    pub async fn next(&mut self) -> Result<Option<Bytes>, BlobError> {
        if self.next >= self.end {
            return Ok(None);
        }
        let BlobStore { backend, env, faults, .. } = &self.store;
        let (id, next, end) = (self.id, self.next, self.end);
        let (start, piece) = match (&mut self.source, &**backend) {
            (Source::Whole(bytes), _) => (0, bytes.clone()),
            (Source::Chunks(header), Backend::Embedded(embedded)) => {
                faults.call(env, "read", embedded_chunk(embedded, id, header, next)).await?
            }
            #[cfg(feature = "s3")]
            (Source::Windows(object), Backend::S3(s3)) => {
                faults.call(env, "read", s3.window_at(id, object, next)).await?
            }
            #[cfg(feature = "s3")]
            (Source::Chunks(_) | Source::Windows(_), _) => return Err(BlobError::Damaged(id)),
        };
        let end = end.min(start + to_u64(piece.len()));
        let bytes = piece.slice(to_usize(next - start)..to_usize(end - start));
        self.next += to_u64(bytes.len());
        self.store.counters.bytes_read.fetch_add(to_u64(bytes.len()), Ordering::Relaxed);
        Ok(Some(bytes))
    }
}

/// Whole small blobs and the hash tree of large ones are checked here, once a read.
async fn open_embedded(
    embedded: &Embedded,
    id: BlobId,
    purpose: Purpose,
) -> Result<Source, BlobError> {
    match embedded.stored(id).await?.ok_or(BlobError::Missing(id))? {
        Stored::Whole(bytes) if BlobHash::of(&bytes) == id.hash() => Ok(Source::Whole(bytes)),
        Stored::Chunked(header) if header.root() == Some(id.hash()) => {
            if purpose == Purpose::Check && !embedded.has_chunks(&header).await? {
                return Err(BlobError::Damaged(id));
            }
            Ok(Source::Chunks(header))
        }
        Stored::Whole(_) | Stored::Chunked(_) => Err(BlobError::Damaged(id)),
    }
}

/// The chunk that holds `offset`, and where it begins.
async fn embedded_chunk(
    embedded: &Embedded,
    id: BlobId,
    header: &Header,
    offset: u64,
) -> Result<(u64, Bytes), BlobError> {
    let chunk_bytes = to_u64(CHUNK_BYTES);
    let number = u32::try_from(offset / chunk_bytes).unwrap_or(u32::MAX);
    let start = u64::from(number) * chunk_bytes;
    let chunk = embedded.chunk(header.object, number).await?.ok_or(BlobError::Damaged(id))?;
    let expected = header.chunks.get(to_usize(u64::from(number)));
    let whole = to_u64(chunk.len()) == (header.size - start).min(chunk_bytes);
    if !whole || expected != Some(&tree::chunk_value(start, &chunk)) {
        return Err(BlobError::Damaged(id));
    }
    Ok((start, chunk))
}
