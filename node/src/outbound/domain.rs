//! What the store knows of a domain whose servers cannot be reached.
//!
//! | key | value | lifecycle |
//! |---|---|---|
//! | (Destination, domain) | [`DomainTrouble`] | from the first failure to reach any server of the domain until one is reached, or the queue has nothing for it |

use cluster::{ClusterError, Fence};
use env::Timestamp;
use kv::{Subspace, Transaction, tuple::pack};
use mail::StoreError;
use prost::Message;

/// A domain that could not be reached: its messages wait together.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct DomainTrouble {
    /// Failures in a row.
    #[prost(uint32, tag = "1")]
    pub(crate) failures: u32,
    /// When the first of them was, milliseconds since 1970.
    #[prost(int64, tag = "2")]
    pub(crate) since_ms: i64,
    /// When it is tried again, milliseconds since 1970.
    #[prost(int64, tag = "3")]
    pub(crate) retry_ms: i64,
    /// RFC 3463's code.
    #[prost(string, tag = "4")]
    pub(crate) status: String,
    /// Why, for people.
    #[prost(string, tag = "5")]
    pub(crate) reason: String,
}

/// (Destination, domain)
fn key(domain: &str) -> Vec<u8> {
    pack(&(Subspace::Destination as u64, domain))
}

/// What is known of a domain, if it is in trouble.
///
/// # Errors
/// [`StoreError`].
pub(crate) async fn trouble(
    tx: &Transaction,
    domain: &str,
) -> Result<Option<DomainTrouble>, StoreError> {
    let Some(value) = tx.get(&key(domain)).await? else { return Ok(None) };
    let trouble = DomainTrouble::decode(value);
    trouble.map(Some).map_err(|error| StoreError::damaged("domain trouble", error))
}

/// Notes a failure, or with `None` that all is well.
///
/// # Errors
/// [`ClusterError::Ended`] where the domain may be another node's by now.
pub(super) async fn note(
    tx: &Transaction,
    fence: &Fence,
    domain: &str,
    trouble: Option<&DomainTrouble>,
) -> Result<(), ClusterError> {
    fence.check(tx).await?;
    match trouble {
        Some(trouble) => tx.set(&key(domain), &trouble.encode_to_vec()),
        None => tx.clear(&key(domain)),
    }
    Ok(())
}

impl DomainTrouble {
    /// When it is tried again.
    pub(super) fn retry_at(&self) -> Timestamp {
        Timestamp::from_unix_ms(self.retry_ms)
    }
}
