//! Reading: windows of an object, each checked against the blob's hash.

use bytes::Bytes;
use env::probe::{self, Planted};

use super::{
    S3,
    cache::{Fetched, Key, Part},
    layout,
    sign::Ask,
    unreadable,
};
use crate::{
    BlobError, BlobHash, BlobId, ObjectId,
    limits::{BLOB_BYTES_MAX, CHUNK_BYTES, WINDOW_BYTES},
    store::{Purpose, to_u64, to_usize},
    tree::{self, ChainingValue},
};

/// A blob whose reading has begun. What is here was checked.
pub(crate) enum Opened {
    /// At most one chunk: all of it.
    Whole(Bytes),
    /// More.
    Large(Object),
}

/// A large blob's object: its tree, which gives the blob's hash, and the window read last.
pub(crate) struct Object {
    object: ObjectId,
    total: u64,
    pub(crate) size: u64,
    chunks: Vec<ChainingValue>,
    window: Option<(u32, Bytes)>,
    ways: [Way; 2],
}

/// How a piece is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// From the cache, if it is there.
    CacheToo,
    /// From the service, and then into the cache, where it was wrong.
    PastTheCache,
    /// From the service, and the cache stays as it is.
    ServiceAlone,
}

impl Way {
    /// Once more where the first answer was wrong.
    const fn both(purpose: Purpose) -> [Self; 2] {
        match purpose {
            Purpose::Use => [Self::CacheToo, Self::PastTheCache],
            // What is cached tells nothing of the service, and a check would push out what is used.
            Purpose::Check => [Self::ServiceAlone, Self::ServiceAlone],
        }
    }
}

impl S3 {
    /// Begins to read at `start`.
    pub(crate) async fn open_blob(
        &self,
        id: BlobId,
        start: u64,
        purpose: Purpose,
    ) -> Result<Opened, BlobError> {
        // Only the embedded backend ever had others.
        let object = id.object().ok_or(BlobError::Missing(id))?;
        let ways = Way::both(purpose);
        for way in ways {
            match self.try_open(id, object, start, way).await? {
                Some(Opened::Large(object)) => {
                    return Ok(Opened::Large(Object { ways, ..object }));
                }
                Some(opened) => return Ok(opened),
                None => {}
            }
            env::sometimes!("a piece of a blob was not what was put");
            self.client.damaged.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        Err(BlobError::Damaged(id))
    }

    /// `None` where what was found is not the blob.
    async fn try_open(
        &self,
        id: BlobId,
        object: ObjectId,
        start: u64,
        way: Way,
    ) -> Result<Option<Opened>, BlobError> {
        let missing = BlobError::Missing(id);
        let mut number = if start < BLOB_BYTES_MAX { number_of(start) } else { 0 };
        let key = (object, Part::Window(number));
        let mut window = self.piece(key, 0, way).await?.ok_or(missing)?;
        if number > 0 && window.bytes.is_empty() {
            // The blob ends before; its beginning tells its length.
            number = 0;
            let first = self.piece((object, Part::Window(0)), 0, way).await?;
            window = first.ok_or(BlobError::Missing(id))?;
        }
        let Fetched { total, bytes } = window;
        let range = layout::window(number, total);
        let Some(size) = layout::size_of(total) else { return Ok(None) };
        if to_u64(bytes.len()) != range.end - range.start {
            return Ok(None);
        }
        if size == total {
            let is_right = BlobHash::of(&bytes) == id.hash() || probe::planted(Planted::TrustBytes);
            return Ok(is_right.then_some(Opened::Whole(bytes)));
        }
        let trailer = if range.start <= size && range.end == total {
            bytes.slice(to_usize(size - range.start)..)
        } else {
            let trailer = self.piece((object, Part::Trailer), total, way).await?;
            let trailer = trailer.ok_or(BlobError::Missing(id))?;
            if trailer.total != total {
                return Ok(None);
            }
            trailer.bytes
        };
        let (chunks, rest) = trailer.as_chunks::<32>();
        if !rest.is_empty()
            || to_u64(trailer.len()) != total - size
            || tree::root(chunks) != Some(id.hash())
        {
            return Ok(None);
        }
        let chunks = chunks.to_vec();
        let mut opened = Object { object, total, size, chunks, window: None, ways: [way; 2] };
        if !opened.is_right(number, &bytes) {
            return Ok(None);
        }
        opened.window = Some((number, bytes));
        Ok(Some(Opened::Large(opened)))
    }

    /// The window that holds `offset` of the blob, and where it begins: bytes of the blob alone.
    pub(crate) async fn window_at(
        &self,
        id: BlobId,
        object: &mut Object,
        offset: u64,
    ) -> Result<(u64, Bytes), BlobError> {
        let number = number_of(offset);
        let start = u64::from(number) * WINDOW_BYTES;
        let cut = |bytes: &Bytes, size: u64| {
            let end = to_usize((size - start).min(WINDOW_BYTES));
            (start, bytes.slice(..end.min(bytes.len())))
        };
        if let Some((held, bytes)) = &object.window
            && *held == number
        {
            return Ok(cut(bytes, object.size));
        }
        object.window = None;
        for way in object.ways {
            let key = (object.object, Part::Window(number));
            let found = self.piece(key, object.total, way).await?;
            let Fetched { total, bytes } = found.ok_or(BlobError::Missing(id))?;
            if total == object.total && object.is_right(number, &bytes) {
                let window = cut(&bytes, object.size);
                object.window = Some((number, bytes));
                return Ok(window);
            }
            env::sometimes!("a piece of a blob was not what was put");
            self.client.damaged.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        Err(BlobError::Damaged(id))
    }

    /// A piece, not yet checked; `None` where there is no such object. `total` is needed for a
    /// trailer.
    async fn piece(&self, key: Key, total: u64, way: Way) -> Result<Option<Fetched>, BlobError> {
        let fetch = || self.fetch(key, total);
        match (&self.cache, way) {
            (None, _) | (Some(_), Way::ServiceAlone) => fetch().await,
            (Some(cache), Way::CacheToo) => cache.fetch(key, fetch).await,
            (Some(cache), Way::PastTheCache) => {
                cache.forget(key).await;
                let fetched = fetch().await?;
                if let Some(fetched) = &fetched {
                    cache.put(key, fetched).await;
                }
                Ok(fetched)
            }
        }
    }

    async fn fetch(&self, key: Key, total: u64) -> Result<Option<Fetched>, BlobError> {
        let operation = "read";
        let (object, part) = key;
        let (first, end) = match part {
            Part::Window(number) => {
                let first = u64::from(number) * WINDOW_BYTES;
                (first, first + WINDOW_BYTES)
            }
            Part::Trailer => (layout::size_of(total).unwrap_or(total), total),
        };
        let ask = Ask::Get { first, last: end.saturating_sub(1).max(first) };
        let bound = to_usize(end.saturating_sub(first));
        let reply =
            self.client.call(operation, &self.key(object), &ask, Bytes::new(), bound).await?;
        match (reply.status, reply.total) {
            (404, _) if reply.code() == "NoSuchBucket" => Err(reply.refusal(operation)),
            (404, _) => Ok(None),
            // An empty object has no byte to ask for.
            (416, total) => Ok(Some(Fetched { total: total.unwrap_or(0), bytes: Bytes::new() })),
            (206, Some(total)) => Ok(Some(Fetched { total, bytes: reply.body })),
            // All of it, by a service that does not cut.
            (200, _) if first == 0 && matches!(part, Part::Window(_)) => {
                Ok(Some(Fetched { total: to_u64(reply.body.len()), bytes: reply.body }))
            }
            (200..300, _) => Err(unreadable(operation)),
            _ => Err(reply.refusal(operation)),
        }
    }
}

impl Object {
    /// Whether these are the bytes of window `number`. What of it is trailer was checked.
    fn is_right(&self, number: u32, bytes: &Bytes) -> bool {
        let range = layout::window(number, self.total);
        if to_u64(bytes.len()) != range.end - range.start {
            return false;
        }
        if probe::planted(Planted::TrustBytes) {
            return true;
        }
        let of_blob = to_usize(self.size.clamp(range.start, range.end) - range.start);
        let first = to_usize(range.start) / CHUNK_BYTES;
        bytes[..of_blob].chunks(CHUNK_BYTES).enumerate().all(|(index, chunk)| {
            let offset = range.start + to_u64(index * CHUNK_BYTES);
            self.chunks.get(first + index) == Some(&tree::chunk_value(offset, chunk))
        })
    }
}

fn number_of(offset: u64) -> u32 {
    u32::try_from(offset / WINDOW_BYTES).unwrap_or(u32::MAX)
}
