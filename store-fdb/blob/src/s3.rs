//! Blobs in an S3-compatible service.
//!
//! An object is named `<prefix><32 hex digits of the object id>`. A blob of at most one chunk is
//! stored as it is. A larger one is followed by a trailer of its chunks' chaining values, 32 bytes
//! each; how long that is follows from the object's length alone (`layout.rs`), so a read needs
//! neither a second object nor a lookup.
//!
//! | what | requests |
//! |---|---|
//! | put up to one part of 5 MiB | 1 PUT |
//! | put more | 1 POST, a PUT a part, 1 POST |
//! | read up to one window of 512 KiB | 1 GET |
//! | read more | a GET a window, 1 GET for the trailer |
//! | list 1,000 names, remove one | 1 |
//! | look at the bucket's mark, put it | 1 |
//!
//! Architecture invariants:
//! - No byte is handed out that was not checked against the blob's hash; what is wrong is asked
//!   for once more, past the cache, before it is an error.
//! - Every request has a time limit, a bound on its answer, and a bounded number of tries; at most
//!   [`S3Settings::requests_max`] are under way.
//! - A put is acknowledged when the service has said that it has it all.
//! - Credentials reach no log and no `Debug`.
//!
//! Deliberately absent: [`Env`]'s network. `reqwest` opens the sockets, so a simulation injects its
//! faults above ([`BlobFaults`](crate::BlobFaults)); proxies from the environment; redirects.

mod cache;
mod client;
mod layout;
mod mark;
#[cfg(feature = "model")]
pub mod model;
mod object;
mod settings;
mod sign;
mod upload;

use std::sync::Arc;

use ::s3::serde_types::{ListBucketResult, ListMultipartUploadsResult};
use bytes::Bytes;
use env::{Env, Timestamp};

pub use client::S3Counts;
pub(crate) use object::{Object, Opened};
pub use settings::{
    AddressStyle, CacheSettings, Credentials, CredentialsError, Retries, S3Settings, TimeLimits,
};
pub(crate) use upload::Upload;

use self::{
    cache::{Cache, Fetched, Part},
    client::Client,
    sign::Ask,
};
use crate::{
    BlobError, BlobId, BlobName, ListCursor, ListPage, ObjectId,
    limits::{S3_LIST_BYTES_MAX, S3_LIST_MAX, S3_REPLY_BYTES_MAX},
    store::to_u64,
};

/// The backend.
pub(crate) struct S3 {
    client: Arc<Client>,
    cache: Option<Arc<Cache>>,
    bucket: String,
    prefix: String,
}

impl S3 {
    pub(crate) async fn open(settings: S3Settings, env: Env) -> Result<Self, BlobError> {
        let cache = match settings.cache.clone() {
            Some(cache) => Some(Arc::new(Cache::open(cache, env.clone()).await?)),
            None => None,
        };
        let (bucket, prefix) = (settings.bucket.clone(), settings.prefix.clone());
        Ok(Self { client: Arc::new(Client::new(settings, env)?), cache, bucket, prefix })
    }

    /// On a model of a service, without a cache.
    #[cfg(feature = "model")]
    pub(crate) fn on_model(link: model::BucketLink, env: Env) -> Self {
        let client = Arc::new(Client::of_model(link, env));
        Self { client, cache: None, bucket: "model".to_owned(), prefix: String::new() }
    }

    pub(crate) fn counts(&self) -> S3Counts {
        let mut counts = self.client.counts();
        if let Some(cache) = &self.cache {
            cache.count(&mut counts);
        }
        counts
    }

    #[cfg(test)]
    pub(crate) async fn cache_settled(&self) {
        if let Some(cache) = &self.cache {
            cache.settled().await;
        }
    }

    fn key(&self, object: ObjectId) -> String {
        format!("{}{object}", self.prefix)
    }

    pub(crate) fn upload(&self, object: ObjectId) -> Upload {
        Upload::new(Arc::clone(&self.client), self.key(object))
    }

    /// Puts a blob of at most one chunk, into the cache too: what was just delivered is read soon.
    pub(crate) async fn put_whole(&self, id: BlobId, bytes: Bytes) -> Result<(), BlobError> {
        let Some(object) = id.object() else { return Err(BlobError::Missing(id)) };
        self.client
            .call("put", &self.key(object), &Ask::Put, bytes.clone(), S3_REPLY_BYTES_MAX)
            .await?
            .done("put")?;
        if let Some(cache) = &self.cache {
            let fetched = Fetched { total: to_u64(bytes.len()), bytes };
            cache.put_behind((object, Part::Window(0)), fetched);
        }
        Ok(())
    }

    pub(crate) async fn exists(&self, name: &BlobName) -> Result<bool, BlobError> {
        let BlobName::Object(object) = name else { return Ok(false) };
        let reply = self
            .client
            .call("look for a blob", &self.key(*object), &Ask::Head, Bytes::new(), 0)
            .await?;
        Ok(reply.status != 404 && reply.done("look for a blob").map(|_| true)?)
    }

    pub(crate) async fn remove(&self, name: &BlobName) -> Result<(), BlobError> {
        let BlobName::Object(object) = name else { return Ok(()) };
        let key = self.key(*object);
        let reply = self
            .client
            .call("remove", &key, &Ask::Delete, Bytes::new(), S3_REPLY_BYTES_MAX)
            .await?;
        if reply.status == 404 && reply.code() == "NoSuchBucket" {
            return Err(reply.refusal("remove"));
        }
        if reply.status != 404 {
            reply.done("remove")?;
        }
        Ok(())
    }

    pub(crate) async fn list(
        &self,
        after: Option<&ListCursor>,
        limit: usize,
    ) -> Result<ListPage, BlobError> {
        let after = after.map(|after| String::from_utf8_lossy(after.as_bytes()).into_owned());
        let ask = Ask::List {
            prefix: self.prefix.clone(),
            after: after.map(|after| format!("{}{after}", self.prefix)),
            limit: limit.clamp(1, S3_LIST_MAX),
        };
        let reply = self.client.call("list", "/", &ask, Bytes::new(), S3_LIST_BYTES_MAX).await?;
        let page: ListBucketResult = parse("list", &reply.done("list")?.body)?;
        let rests = page.contents.iter().filter_map(|one| one.key.strip_prefix(&self.prefix));
        let names = rests.clone().filter_map(|rest| Some(BlobName::Object(object_of(rest)?)));
        let last = rests.clone().next_back().filter(|_| page.is_truncated);
        let next = last.map(|last| ListCursor::from_bytes(Bytes::copy_from_slice(last.as_bytes())));
        if page.is_truncated && next.is_none() {
            return Err(unreadable("list"));
        }
        Ok(ListPage { names: names.collect(), next })
    }

    /// In hexadecimal digits: the one before the name's last that is not zero, and what is after
    /// every digit.
    pub(crate) fn cursor_before(name: &BlobName) -> Option<ListCursor> {
        let mut bytes = name.as_bytes().to_vec();
        let above_zero = bytes.iter().rposition(|byte| *byte != 0)?;
        bytes.truncate(above_zero + 1);
        bytes[above_zero] -= 1;
        let mut key: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        key.push('~');
        Some(ListCursor::from_bytes(key.into()))
    }

    /// Aborts multipart uploads whose put began before `before`.
    pub(crate) async fn abort_uploads(&self, before: Timestamp) -> Result<u64, BlobError> {
        let (mut aborted, mut marker) = (0, None);
        loop {
            let ask = Ask::Uploads { prefix: self.prefix.clone(), marker, limit: S3_LIST_MAX };
            let operation = "list uploads";
            let reply =
                self.client.call(operation, "/", &ask, Bytes::new(), S3_LIST_BYTES_MAX).await?;
            let page: ListMultipartUploadsResult = parse(operation, &reply.done(operation)?.body)?;
            for upload in &page.uploads {
                let object = upload.key.strip_prefix(&self.prefix).and_then(object_of);
                if object.is_some_and(|object| object.put_at() < before) {
                    self.client.abort(&upload.key, &upload.id).await?;
                    aborted += 1;
                }
            }
            match page.next_marker.filter(|_| page.is_truncated) {
                Some(key) => marker = Some((key, page.next_upload_id_marker)),
                None => return Ok(aborted),
            }
        }
    }
}

/// The object of a key without its prefix: lower-case hexadecimal digits, as they are written.
fn object_of(hex: &str) -> Option<ObjectId> {
    let digits = hex.as_bytes();
    let lower = |digit: &u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(digit);
    if digits.len() != 32 || !digits.iter().all(lower) {
        return None;
    }
    Some(ObjectId::from_bytes(u128::from_str_radix(hex, 16).ok()?.to_be_bytes()))
}

fn parse<T: serde::de::DeserializeOwned>(
    operation: &'static str,
    body: &[u8],
) -> Result<T, BlobError> {
    let text = std::str::from_utf8(body).map_err(|_| unreadable(operation))?;
    quick_xml::de::from_str(text).map_err(|_| unreadable(operation))
}

fn unreadable(operation: &'static str) -> BlobError {
    BlobError::Unavailable { operation, reason: "the answer cannot be read".to_owned() }
}

#[cfg(test)]
pub(crate) mod tests;
