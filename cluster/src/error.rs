//! What can go wrong in a transaction of the cluster's.

use kv::AsKvError;
use mail::StoreError;

use crate::Epoch;

/// Why a transaction of the cluster's did not commit.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The store refused or failed, or holds what cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The node's epoch has ended: others may have taken over what it had claimed.
    #[error("epoch {0} of this node has ended")]
    Ended(Epoch),
}

impl From<kv::Error> for ClusterError {
    fn from(error: kv::Error) -> Self {
        Self::Store(error.into())
    }
}

impl AsKvError for ClusterError {
    fn as_kv_error(&self) -> Option<&kv::Error> {
        match self {
            Self::Store(error) => error.as_kv_error(),
            Self::Ended(_) => None,
        }
    }
}
