//! What administrators see of the registry, in bounded transactions, and how long the store takes.

use kv::{Subspace, Transaction, tuple};
use mail::StoreError;

use super::registry::{self, NameRecord};
use crate::{Epoch, NodeName, Slice, slice::slice};

/// Names behind `after`, in order, as far as one transaction goes. Takes part in no conflict.
///
/// # Errors
/// [`StoreError`].
pub async fn names(
    tx: &Transaction,
    after: Option<&NodeName>,
    limit: usize,
) -> Result<Vec<(NodeName, NameRecord)>, StoreError> {
    let range = tuple::pack(&(Subspace::Node as u64, "n"));
    let from = after.map(|after| [&registry::name_key(after.as_str())[..], &[0]].concat());
    let mut named = slice(tx, tuple::range_of(range), from.as_deref(), |row| {
        let (_, _, name): (u64, String, String) = tuple::unpack(&row.key)
            .map_err(|_| StoreError::damaged("node name", "a key without its name"))?;
        let name = NodeName::parse(&name).map_err(|e| StoreError::damaged("node name", e))?;
        Ok((name, registry::decode("node name", &row.value)?))
    })
    .await?
    .rows;
    named.truncate(limit);
    Ok(named)
}

/// A zone of work that an epoch has claimed, by the epoch's own list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// Who.
    pub epoch: Epoch,
    /// A [`crate::work::Kind`], or one of a newer release.
    pub kind: u64,
    /// The zone.
    pub zone: String,
}

/// Some of all claims. Takes part in no conflict.
///
/// # Errors
/// [`StoreError`].
pub async fn claims(tx: &Transaction, from: Option<&[u8]>) -> Result<Slice<Claim>, StoreError> {
    let range = tuple::pack(&(Subspace::Node as u64, "c"));
    slice(tx, tuple::range_of(range), from, |row| {
        let (_, _, epoch, kind, zone): (u64, String, u64, u64, String) = tuple::unpack(&row.key)
            .map_err(|_| StoreError::damaged("claim", "a key without its zone"))?;
        Ok(Claim { epoch: Epoch(epoch), kind, zone })
    })
    .await
}

/// Reads what [`write_probe`] writes: a transaction with it takes as long as the store takes for
/// a read.
///
/// # Errors
/// [`StoreError`].
pub async fn read_probe(tx: &Transaction) -> Result<(), StoreError> {
    tx.get_snapshot(&probe_key()).await?;
    Ok(())
}

/// Writes what nothing depends on: a transaction with it takes as long as the store takes for a
/// commit, and conflicts with nothing.
pub fn write_probe(tx: &Transaction, now_ms: i64) {
    tx.set(&probe_key(), &now_ms.to_le_bytes());
}

fn probe_key() -> Vec<u8> {
    tuple::pack(&(Subspace::Node as u64, "probe"))
}
