//! A large blob on its way in: parts, each sent when it is full.

use std::sync::Arc;

use ::s3::serde_types::{InitiateMultipartUploadResponse, Part};
use bytes::{Bytes, BytesMut};

use super::{client::Client, parse, sign::Ask};
use crate::{
    BlobError,
    limits::{PART_BYTES, S3_REPLY_BYTES_MAX},
    store::to_u64,
};

/// An object being written. Memory: one part of [`PART_BYTES`], which is freed when the service
/// has it.
pub(crate) struct Upload {
    client: Arc<Client>,
    key: String,
    part: BytesMut,
    total: u64,
    multipart: Option<Multipart>,
}

struct Multipart {
    id: String,
    parts: Vec<Part>,
}

impl Upload {
    pub(super) fn new(client: Arc<Client>, key: String) -> Self {
        Self { client, key, part: BytesMut::new(), total: 0, multipart: None }
    }

    /// Adds bytes.
    pub(crate) async fn push(&mut self, mut bytes: &[u8]) -> Result<(), BlobError> {
        while !bytes.is_empty() {
            // Sent only when more comes: what fits one part is one request.
            if self.part.len() == PART_BYTES {
                self.send_part().await?;
            }
            if self.part.capacity() == 0 {
                self.part.reserve(PART_BYTES);
            }
            let take = bytes.len().min(PART_BYTES - self.part.len());
            self.part.extend_from_slice(&bytes[..take]);
            self.total += to_u64(take);
            bytes = &bytes[take..];
        }
        Ok(())
    }

    /// Ends the object; it is there when this returns.
    pub(crate) async fn finish(&mut self) -> Result<(), BlobError> {
        if self.multipart.is_none() {
            let body = std::mem::take(&mut self.part).freeze();
            let reply = self.client.call("put", &self.key, &Ask::Put, body, S3_REPLY_BYTES_MAX);
            return reply.await?.done("put").map(drop);
        }
        self.send_part().await?;
        let operation = "complete an upload";
        let Some(Multipart { id, parts }) = &self.multipart else { return Ok(()) };
        let ask = Ask::Complete { upload: id.clone(), parts: parts.clone() };
        let reply =
            self.client.call(operation, &self.key, &ask, Bytes::new(), S3_REPLY_BYTES_MAX).await?;
        // An earlier try may have been done and its answer lost: then the upload is gone, and the
        // object is there.
        if reply.status >= 300 && !self.is_there().await? {
            return Err(reply.refusal(operation));
        }
        self.multipart = None;
        Ok(())
    }

    /// Takes back what was sent, if anything was. For a task of its own.
    pub(crate) fn abandon(&mut self) -> Option<impl Future<Output = ()> + Send + use<>> {
        let Multipart { id, .. } = self.multipart.take()?;
        let (client, key) = (Arc::clone(&self.client), std::mem::take(&mut self.key));
        Some(async move {
            if let Err(error) = client.abort(&key, &id).await {
                tracing::warn!(%error, "an abandoned upload stays until the sweeper finds it");
            }
        })
    }

    async fn is_there(&self) -> Result<bool, BlobError> {
        let head = self.client.call("look for a blob", &self.key, &Ask::Head, Bytes::new(), 0);
        let reply = head.await?;
        Ok(reply.status == 200 && reply.length == Some(self.total))
    }

    async fn send_part(&mut self) -> Result<(), BlobError> {
        let operation = "put a part";
        let mut multipart = match self.multipart.take() {
            Some(multipart) => multipart,
            None => Multipart { id: self.initiate().await?, parts: Vec::new() },
        };
        let number = u32::try_from(multipart.parts.len() + 1).map_err(|_| BlobError::TooLarge)?;
        let ask = Ask::PutPart { upload: multipart.id.clone(), number };
        // Back in its place before the wait: a caller that stops waiting abandons it.
        let body = std::mem::take(&mut self.part).freeze();
        let (client, key) = (Arc::clone(&self.client), self.key.clone());
        let parts = std::mem::take(&mut multipart.parts);
        self.multipart = Some(multipart);
        let reply = client.call(operation, &key, &ask, body, S3_REPLY_BYTES_MAX).await?;
        let reply = reply.done(operation)?;
        let etag = reply.etag.ok_or_else(|| super::unreadable(operation))?;
        if let Some(multipart) = &mut self.multipart {
            multipart.parts = parts;
            multipart.parts.push(Part { part_number: number, etag });
        }
        Ok(())
    }

    async fn initiate(&self) -> Result<String, BlobError> {
        let operation = "begin an upload";
        let reply = self
            .client
            .call(operation, &self.key, &Ask::Initiate, Bytes::new(), S3_REPLY_BYTES_MAX)
            .await?;
        let begun: InitiateMultipartUploadResponse =
            parse(operation, &reply.done(operation)?.body)?;
        Ok(begun.upload_id)
    }
}
