//! What can go wrong below every operation.

use blob::{BlobId, references::AdoptError};
use kv::AsKvError;

use crate::AccountId;

/// A failure of the store itself, as opposed to a refusal in an operation's own words.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The key-value store refused or failed.
    #[error(transparent)]
    Kv(#[from] kv::Error),
    /// A record cannot be decoded. Never repaired silently; `rookery fsck` tells where.
    #[error("damaged {family} record: {detail}")]
    Damaged {
        /// The key family.
        family: &'static str,
        /// What does not decode.
        detail: String,
    },
    /// The message's bytes were put too long ago and may have been swept: they have to be put again.
    #[error("blob {0} has waited too long for its first reference")]
    BlobGone(BlobId),
    /// The account does not exist (any more).
    #[error("account {0} does not exist")]
    NoAccount(AccountId),
}

impl StoreError {
    /// A record of `family` that cannot be decoded.
    pub fn damaged(family: &'static str, detail: impl std::fmt::Display) -> Self {
        Self::Damaged { family, detail: detail.to_string() }
    }
}

impl From<AdoptError> for StoreError {
    fn from(error: AdoptError) -> Self {
        match error {
            AdoptError::Gone(blob) => Self::BlobGone(blob),
            AdoptError::Kv(error) => Self::Kv(error),
        }
    }
}

impl AsKvError for StoreError {
    fn as_kv_error(&self) -> Option<&kv::Error> {
        match self {
            Self::Kv(error) => Some(error),
            Self::Damaged { .. } | Self::BlobGone(_) | Self::NoAccount(_) => None,
        }
    }
}

/// Implements the conversions that [`kv::Database::run`] needs for an operation's error enum
/// whose `Store` variant wraps a [`StoreError`].
macro_rules! store_error {
    ($error:ty) => {
        impl From<kv::Error> for $error {
            fn from(error: kv::Error) -> Self {
                Self::Store(error.into())
            }
        }

        impl kv::AsKvError for $error {
            fn as_kv_error(&self) -> Option<&kv::Error> {
                match self {
                    Self::Store(error) => kv::AsKvError::as_kv_error(error),
                    _ => None,
                }
            }
        }
    };
}
pub(crate) use store_error;
