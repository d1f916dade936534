//! A message as other servers are sent it: its signatures, then its stored bytes.

use blob::{BlobError, BlobReader};
use bytes::Bytes;

/// What is still to be sent of a message.
pub(super) struct Content {
    prepend: Option<Bytes>,
    stored: BlobReader,
}

impl Content {
    /// These fields, and the rest of a blob.
    pub(super) fn new(prepend: &[u8], stored: BlobReader) -> Self {
        let prepend = (!prepend.is_empty()).then(|| Bytes::copy_from_slice(prepend));
        Self { prepend, stored }
    }

    /// The next piece; `None` after the last.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, BlobError> {
        match self.prepend.take() {
            Some(fields) => Ok(Some(fields)),
            None => self.stored.next().await,
        }
    }
}
