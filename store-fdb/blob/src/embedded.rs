//! Blobs beside the embedded engine's keys.
//!
//! | key | value | lifecycle |
//! |---|---|---|
//! | `h` object hash, or `h` hash in a store of schema 0 | `0` and the bytes, for up to one chunk; else `1` and [`HeaderRecord`] | written by `finish`, cleared by the sweeper |
//! | `d` object, n (u32 BE) | chunk n, where there is no [`Folder`] or was none | written as the bytes come, cleared with the header |
//! | `s` object | empty; the id once it is known | from the first chunk until the header stands, and again while chunks are removed: what a crash cut off is found by it |

use std::io;

use bytes::Bytes;
use kv::{
    LargeValues,
    embedded::{Expansion, Moment},
};
use prost::Message;

use crate::{
    BlobError, BlobHash, BlobId, BlobName, ListCursor, ListPage, ObjectId,
    folder::{Folder, ObjectFile},
    limits::CHUNK_BYTES,
    references,
    store::to_u64,
    tree::{self, ChainingValue},
};

const WHOLE: u8 = 0;
const CHUNKED: u8 = 1;

/// Keys looked at in one go while leftovers are cleared.
const SCAN_KEYS: usize = 1_000;

/// Names in one page of a listing.
const LIST_KEYS_MAX: usize = 1_000;

/// Bytes of the longest id.
const NAME_BYTES_MAX: usize = 48;

pub(crate) struct Embedded {
    values: LargeValues,
    /// Where large blobs' chunks go; without it, into the values. Read from both.
    folder: Option<Folder>,
}

/// What stands under a blob's name.
pub(crate) enum Stored {
    Whole(Bytes),
    Chunked(Header),
}

/// A large blob's header.
pub(crate) struct Header {
    pub(crate) object: ObjectId,
    pub(crate) size: u64,
    pub(crate) chunks: Vec<ChainingValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HeaderRecord {
    #[prost(bytes = "vec", tag = "1")]
    object: Vec<u8>,
    #[prost(uint64, tag = "2")]
    size: u64,
    /// The chunks' chaining values, 32 bytes each.
    #[prost(bytes = "vec", tag = "3")]
    chunks: Vec<u8>,
}

impl Header {
    pub(crate) fn root(&self) -> Option<BlobHash> {
        let chunks = self.size.div_ceil(to_u64(CHUNK_BYTES));
        (to_u64(self.chunks.len()) == chunks).then(|| tree::root(&self.chunks)).flatten()
    }

    fn from_record(record: &HeaderRecord) -> Option<Self> {
        let (chunks, rest) = record.chunks.as_chunks::<32>();
        if !rest.is_empty() {
            return None;
        }
        let object = ObjectId::from_bytes(record.object[..].try_into().ok()?);
        Some(Self { object, size: record.size, chunks: chunks.to_vec() })
    }
}

impl Embedded {
    pub(crate) async fn open(
        values: LargeValues,
        folder: Option<Folder>,
    ) -> Result<Self, BlobError> {
        let store = Self { values, folder };
        store.clear_leftovers().await?;
        Ok(store)
    }

    /// What stands under the name, not yet checked. A header that does not decode counts as an
    /// empty blob, whose hash the caller finds to be another.
    pub(crate) async fn stored(&self, id: BlobId) -> Result<Option<Stored>, kv::Error> {
        let Some(value) = self.values.get(&header_key(id)).await? else { return Ok(None) };
        let nowhere = ObjectId::from_bytes([0; 16]);
        let damaged = Stored::Chunked(Header { object: nowhere, size: 0, chunks: Vec::new() });
        Ok(Some(match value.first() {
            Some(&WHOLE) => Stored::Whole(value.slice(1..)),
            Some(&CHUNKED) => HeaderRecord::decode(&value[1..])
                .ok()
                .and_then(|record| Header::from_record(&record))
                .map_or(damaged, Stored::Chunked),
            _ => damaged,
        }))
    }

    pub(crate) async fn chunk(
        &self,
        object: ObjectId,
        number: u32,
    ) -> Result<Option<Bytes>, BlobError> {
        if let Some(folder) = &self.folder
            && let Some(chunk) = folder.get(object, number).await?
        {
            return Ok(Some(chunk));
        }
        Ok(self.values.get(&chunk_key(object, number)).await?)
    }

    /// Whether as many bytes, or as many chunks, stand behind a header as it says.
    pub(crate) async fn has_chunks(&self, header: &Header) -> Result<bool, BlobError> {
        if let Some(folder) = &self.folder
            && let Some(length) = folder.length(header.object).await?
        {
            return Ok(length == header.size);
        }
        let prefix = [b"d", &header.object.as_bytes()[..]].concat();
        let chunks = self.values.scan_prefix(&prefix, None, header.chunks.len() + 1).await?;
        Ok(chunks.len() == header.chunks.len())
    }

    pub(crate) async fn put_whole(&self, id: BlobId, bytes: &[u8]) -> Result<(), kv::Error> {
        let mut value = Vec::with_capacity(bytes.len() + 1);
        value.push(WHOLE);
        value.extend_from_slice(bytes);
        self.values.put(&header_key(id), value.into()).await
    }

    pub(crate) async fn put_chunk(
        &self,
        object: ObjectId,
        number: u32,
        chunk: Bytes,
    ) -> Result<(), BlobError> {
        if number == 0 {
            self.values.put(&upload_key(object), Bytes::new()).await?;
        }
        match &self.folder {
            Some(folder) => {
                if number == 0 {
                    self.values.sync().await?;
                }
                folder.put(object, number, chunk).await
            }
            None => Ok(self.values.put(&chunk_key(object, number), chunk).await?),
        }
    }

    /// Names the object whose chunks have been put.
    pub(crate) async fn put_header(
        &self,
        id: BlobId,
        object: ObjectId,
        size: u64,
        chunks: &[ChainingValue],
    ) -> Result<(), BlobError> {
        if let Some(folder) = &self.folder
            && let Err(error) = folder.sync(object).await
        {
            // Nobody else knows of it any more.
            self.abandon(object, chunks.len()).await?;
            return Err(error);
        }
        self.values.put(&upload_key(object), id.to_bytes().into()).await?;
        let record =
            HeaderRecord { object: object.as_bytes().to_vec(), size, chunks: chunks.concat() };
        let mut value = vec![CHUNKED];
        record.encode(&mut value).expect("a Vec grows as needed");
        self.values.put(&header_key(id), value.into()).await?;
        Ok(self.values.remove(&upload_key(object)).await?)
    }

    /// The chunks that stand behind a header, where they are in a file: for a backup, which takes
    /// them among the values.
    pub(crate) fn expand(&self, moment: &Moment<'_>, key: &[u8], value: &[u8]) -> Expansion {
        let header = match (key.first(), value.split_first()) {
            (Some(b'h'), Some((&CHUNKED, record))) => HeaderRecord::decode(record).ok(),
            _ => None,
        };
        let header = header.as_ref().and_then(Header::from_record);
        let (Some(id), Some(header)) = (id_of(key), header) else {
            return Box::new(std::iter::empty());
        };
        let Header { object, size, .. } = header;
        match self.whole_file(moment, id, &header) {
            Ok(None) => Box::new(std::iter::empty()),
            Ok(Some(file)) => {
                let named = move |error| io::Error::other(format!("blob {id}: {error}"));
                let chunks = (0..).zip(file.chunks(size));
                let chunks = chunks.map(move |(number, chunk)| {
                    Ok((chunk_key(object, number), chunk.map_err(named)?))
                });
                Box::new(chunks)
            }
            Err(error) => Box::new(std::iter::once(Err(error))),
        }
    }

    /// The file of a blob; none where its chunks are values, or nobody needs it.
    fn whole_file(
        &self,
        moment: &Moment<'_>,
        id: BlobId,
        header: &Header,
    ) -> io::Result<Option<ObjectFile>> {
        let file =
            self.folder.as_ref().map(|folder| folder.open_file(header.object)).transpose()?;
        let found = match file.flatten() {
            Some(file) if file.size() == header.size => return Ok(Some(file)),
            Some(file) => format!("its file has {} bytes, not {}", file.size(), header.size),
            None => "its bytes are missing".to_owned(),
        };
        let mut among_the_values = true;
        for number in (0..).take(header.chunks.len()) {
            let key = chunk_key(header.object, number);
            among_the_values &= moment.has_large_value(&key).map_err(io::Error::other)?;
        }
        if among_the_values {
            return Ok(None);
        }
        // What nobody needs is removed at any time.
        let (begin, end) = references::range_of(&BlobName::of(&id));
        match moment.has_row(&begin, &end).map_err(io::Error::other)? {
            true => Err(io::Error::other(format!("blob {id}: {found}"))),
            false => Ok(None),
        }
    }

    /// At most `limit` names after `after`.
    pub(crate) async fn list(
        &self,
        after: Option<&ListCursor>,
        limit: usize,
    ) -> Result<ListPage, kv::Error> {
        let after = after.map(|cursor| [b"h", cursor.as_bytes()].concat());
        // The store's own bound, so that a short page is the last.
        let limit = limit.clamp(1, LIST_KEYS_MAX);
        let keys = self.values.scan_prefix(b"h", after.as_deref(), limit).await?;
        let last = keys.last().filter(|_| keys.len() == limit).map(|key| key.slice(1..));
        let names = keys.iter().filter_map(|key| Some(BlobName::of(&id_of(key)?))).collect();
        Ok(ListPage { names, next: last.map(ListCursor::from_bytes) })
    }

    /// The greatest key before all that begin with the name: nothing is between a key and the
    /// same key with its last byte one less and as many 0xff as no key has.
    pub(crate) fn cursor_before(name: &BlobName) -> Option<ListCursor> {
        let mut before = name.as_bytes().to_vec();
        let above_zero = before.iter().rposition(|byte| *byte != 0)?;
        before.truncate(above_zero + 1);
        before[above_zero] -= 1;
        before.resize(before.len() + NAME_BYTES_MAX, 0xff);
        Some(ListCursor::from_bytes(before.into()))
    }

    /// The key that names the bytes.
    pub(crate) async fn header_key_of(&self, name: &BlobName) -> Result<Option<Bytes>, kv::Error> {
        let prefix = [b"h", name.as_bytes()].concat();
        let keys = self.values.scan_prefix(&prefix, None, 2).await?;
        Ok(keys.into_iter().find(|key| id_of(key).is_some_and(|id| name.holds(&id))))
    }

    pub(crate) async fn remove(&self, name: &BlobName) -> Result<(), BlobError> {
        let Some(key) = self.header_key_of(name).await? else { return Ok(()) };
        let Some(id) = id_of(&key) else { return Ok(()) };
        match self.stored(id).await? {
            Some(Stored::Chunked(header)) => {
                // Found again after a crash; kept while the header still stands.
                self.values.put(&upload_key(header.object), id.to_bytes().into()).await?;
                self.values.remove(&header_key(id)).await?;
                self.remove_chunks(header.object).await?;
                Ok(self.values.remove(&upload_key(header.object)).await?)
            }
            Some(Stored::Whole(_)) => Ok(self.values.remove(&header_key(id)).await?),
            None => Ok(()),
        }
    }

    /// Takes back the first `chunks` chunks of an upload that has no header.
    pub(crate) async fn abandon(&self, object: ObjectId, chunks: usize) -> Result<(), BlobError> {
        match &self.folder {
            Some(folder) => folder.remove(object).await?,
            None => {
                for number in (0..).take(chunks) {
                    self.values.remove(&chunk_key(object, number)).await?;
                }
            }
        }
        Ok(self.values.remove(&upload_key(object)).await?)
    }

    async fn remove_chunks(&self, object: ObjectId) -> Result<(), BlobError> {
        if let Some(folder) = &self.folder {
            folder.remove(object).await?;
        }
        let mut prefix = vec![b'd'];
        prefix.extend_from_slice(object.as_bytes());
        loop {
            let keys = self.values.scan_prefix(&prefix, None, SCAN_KEYS).await?;
            if keys.is_empty() {
                return Ok(());
            }
            for key in keys {
                self.values.remove(&key).await?;
            }
        }
    }

    async fn clear_leftovers(&self) -> Result<(), BlobError> {
        loop {
            let uploads = self.values.scan_prefix(b"s", None, SCAN_KEYS).await?;
            if uploads.is_empty() {
                return Ok(());
            }
            for key in uploads {
                let named = self.values.get(&key).await?;
                let object = key.get(1..).and_then(|object| object.try_into().ok());
                if let Some(object) = object.map(ObjectId::from_bytes) {
                    let id = named.and_then(|id| BlobId::from_slice(&id));
                    if !self.is_object_of(id, object).await? {
                        self.remove_chunks(object).await?;
                    }
                }
                self.values.remove(&key).await?;
            }
        }
    }

    async fn is_object_of(&self, id: Option<BlobId>, object: ObjectId) -> Result<bool, kv::Error> {
        let Some(id) = id else { return Ok(false) };
        let stored = self.stored(id).await?;
        Ok(matches!(stored, Some(Stored::Chunked(header)) if header.object == object))
    }
}

fn id_of(key: &[u8]) -> Option<BlobId> {
    BlobId::from_slice(key.get(1..)?)
}

fn header_key(id: BlobId) -> Vec<u8> {
    let mut key = vec![b'h'];
    key.extend_from_slice(&id.to_bytes());
    key
}

fn chunk_key(object: ObjectId, number: u32) -> Vec<u8> {
    let mut key = vec![b'd'];
    key.extend_from_slice(object.as_bytes());
    key.extend_from_slice(&number.to_be_bytes());
    key
}

fn upload_key(object: ObjectId) -> Vec<u8> {
    let mut key = vec![b's'];
    key.extend_from_slice(object.as_bytes());
    key
}
