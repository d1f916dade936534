//! What can go wrong with blobs.

use crate::{BlobId, limits::BLOB_BYTES_MAX};

/// Why a blob could not be written, read, listed or removed.
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
    /// The embedded engine failed; trying again later may help.
    #[error("blob store: {0}")]
    Backend(#[from] kv::Error),
    /// The blob service did not answer, not in time, or not in its own words, however often it
    /// was asked; trying again later may help.
    #[error("blob store: {operation}: {reason}")]
    Unavailable {
        /// What was wanted of it.
        operation: &'static str,
        /// What it did instead. Holds no secret and no word of the service's but its error code.
        reason: String,
    },
    /// The blob service refused, and will again until somebody changes it or the configuration.
    #[error("blob store: {operation}: refused with status {status} {code}")]
    Refused {
        /// What was wanted of it.
        operation: &'static str,
        /// HTTP status.
        status: u16,
        /// S3's error code; empty where there was none.
        code: String,
    },
}
