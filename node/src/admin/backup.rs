//! A backup of a node's stores: one moment of everything, message bytes included.
//!
//! For the embedded engine alone. A FoundationDB cluster and an S3 bucket have tools of their own.

use blob::BlobStore;
use kv::embedded::Backups;

pub use kv::embedded::{Backup as BackupStream, BackupCounts, BackupError};

/// Makes backups.
#[derive(Clone)]
pub struct Backup {
    backups: Backups,
    blobs: BlobStore,
}

impl std::fmt::Debug for Backup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Backup")
    }
}

impl Backup {
    /// Of an embedded engine and the blobs beside it.
    pub fn new(backups: Backups, blobs: BlobStore) -> Self {
        Self { backups, blobs }
    }

    /// Begins one, of this moment.
    ///
    /// # Errors
    /// [`kv::Error`].
    pub async fn begin(&self) -> Result<BackupStream, kv::Error> {
        self.backups.begin(self.blobs.expand_backup()).await
    }
}
