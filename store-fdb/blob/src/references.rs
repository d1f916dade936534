//! Who needs a blob.
//!
//! | key | value | lifecycle |
//! |---|---|---|
//! | (BlobReference, id, owner…) | empty | written by the transaction that needs the blob, cleared by the one that needs it no more |
//! | (BlobDue, due ms, id) | empty | written whenever a reference goes; the sweeper looks at the blob when it is due, and clears it |
//! | (BlobDying, id) | empty | written by the sweeper when it has found no reference, cleared when the bytes are gone |
//!
//! Dropping a reference always writes the due entry and reads nothing, so two owners that let go
//! at once do not conflict; the sweeper finds out whether anybody is left.
//!
//! A first reference ([`adopt`]) reads the dying mark, so it and the sweeper's finding conflict. It
//! also refuses a blob that was put long ago: such a blob may have been swept and its mark be gone.

use env::Timestamp;
use kv::{AsKvError, Subspace, Transaction, tuple::pack};

use crate::{BlobId, limits};

/// Something that needs a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// Email of an account: account id, email id.
    Email(u64, u32),
    /// A message in the outbound queue, by its id.
    Submission([u8; 16]),
}

/// Why a first reference was not added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdoptError {
    /// The blob was swept, or may have been: its bytes have to be put again.
    #[error("blob {0} has waited too long for its first reference")]
    Gone(BlobId),
    /// The store failed.
    #[error(transparent)]
    Kv(#[from] kv::Error),
}

impl AsKvError for AdoptError {
    fn as_kv_error(&self) -> Option<&kv::Error> {
        match self {
            Self::Gone(_) => None,
            Self::Kv(error) => Some(error),
        }
    }
}

/// Adds the first reference to a blob that was put.
///
/// # Errors
/// [`AdoptError::Gone`] where the sweeper has begun with the blob, or it was put more than
/// [`limits::ADOPT_WITHIN_MS`] before `now`.
pub async fn adopt(
    tx: &Transaction,
    blob: BlobId,
    owner: &Owner,
    now: Timestamp,
) -> Result<(), AdoptError> {
    let age_ms = blob.object().map_or(0, |o| now.unix_ms().saturating_sub(o.put_at().unix_ms()));
    if age_ms > limits::ADOPT_WITHIN_MS || tx.get(&dying_key(blob)).await?.is_some() {
        return Err(AdoptError::Gone(blob));
    }
    share(tx, blob, owner);
    Ok(())
}

/// Adds a further reference, in a transaction that has read one that stands.
pub fn share(tx: &Transaction, blob: BlobId, owner: &Owner) {
    tx.set(&key(blob, owner), &[]);
}

/// Drops a reference; the blob is looked at after its grace time.
pub fn remove(tx: &Transaction, blob: BlobId, owner: &Owner, now: Timestamp) {
    tx.clear(&key(blob, owner));
    let due = now.unix_ms().saturating_add(limits::GRACE_MS);
    tx.set(&pack(&(Subspace::BlobDue as u64, due, &blob.to_bytes()[..])), &[]);
}

/// Whether `owner` has a reference.
///
/// # Errors
/// [`kv::Error`].
pub async fn exists(tx: &Transaction, blob: BlobId, owner: &Owner) -> Result<bool, kv::Error> {
    Ok(tx.get(&key(blob, owner)).await?.is_some())
}

pub(crate) fn dying_key(blob: BlobId) -> Vec<u8> {
    pack(&(Subspace::BlobDying as u64, &blob.to_bytes()[..]))
}

fn key(blob: BlobId, owner: &Owner) -> Vec<u8> {
    let id = &blob.to_bytes()[..];
    match owner {
        Owner::Email(account, email) => {
            pack(&(Subspace::BlobReference as u64, id, "e", *account, *email))
        }
        Owner::Submission(submission) => {
            pack(&(Subspace::BlobReference as u64, id, "s", &submission[..]))
        }
    }
}

/// Adds a reference that was lost, for a check that has just found the blob and its owner.
///
/// # Errors
/// [`AdoptError::Gone`] where the sweeper has begun with the blob.
pub async fn restore(tx: &Transaction, blob: BlobId, owner: &Owner) -> Result<(), AdoptError> {
    if tx.get(&dying_key(blob)).await?.is_some() {
        return Err(AdoptError::Gone(blob));
    }
    share(tx, blob, owner);
    Ok(())
}

/// Every reference, in the order of the blobs' names.
pub fn range() -> (Vec<u8>, Vec<u8>) {
    let mut begin = pack(&(Subspace::BlobReference as u64,));
    let mut end = begin.clone();
    begin.push(0x00);
    end.push(0xff);
    (begin, end)
}

/// The blob and the owner of a reference's key; `None` for a key that is none.
pub fn parse(key: &[u8]) -> Option<(BlobId, Owner)> {
    use kv::tuple::{Bytes, unpack};
    if let Ok((_, id, kind, account, email)) = unpack::<(u64, Bytes<'_>, String, u64, u32)>(key) {
        let owner = Owner::Email(account, email);
        return (kind == "e").then_some((BlobId::from_slice(&id)?, owner));
    }
    let (_, id, kind, submission): (u64, Bytes<'_>, String, Bytes<'_>) = unpack(key).ok()?;
    let owner = Owner::Submission(submission[..].try_into().ok()?);
    (kind == "s").then_some((BlobId::from_slice(&id)?, owner))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_are_written() {
        let blob = BlobId::from_slice(&[7; 48]).unwrap();
        for owner in
            [Owner::Email(1, 2), Owner::Email(1 << 40, u32::MAX), Owner::Submission([9; 16])]
        {
            assert_eq!(parse(&key(blob, &owner)), Some((blob, owner)));
        }
        assert_eq!(parse(&dying_key(blob)), None);
    }
}
