//! Who needs a blob.
//!
//! | key | value | lifecycle |
//! |---|---|---|
//! | (BlobReference, id, owner…) | empty | written by the transaction that needs the blob, cleared by the one that needs it no more |
//! | (BlobDue, due ms, id) | empty | written whenever a reference goes; the sweeper looks at the blob when it is due, and clears it |
//!
//! Dropping a reference always writes the due entry and reads nothing, so two owners that let go
//! at once do not conflict; the sweeper finds out whether anybody is left.

use env::Timestamp;
use kv::{Subspace, Transaction, tuple::pack};

use crate::{BlobId, limits};

/// Something that needs a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// Email of an account: account id, email id.
    Email(u64, u32),
    /// A message in the outbound queue, by its id.
    Submission([u8; 16]),
}

/// Adds a reference.
pub fn add(tx: &Transaction, blob: BlobId, owner: &Owner) {
    tx.set(&key(blob, owner), &[]);
}

/// Drops a reference; the blob is looked at after its grace time.
pub fn remove(tx: &Transaction, blob: BlobId, owner: &Owner, now: Timestamp) {
    tx.clear(&key(blob, owner));
    let due = now.unix_ms().saturating_add(limits::GRACE_MS);
    tx.set(&pack(&(Subspace::BlobDue as u64, due, &blob.as_bytes()[..])), &[]);
}

/// Whether `owner` has a reference.
///
/// # Errors
/// [`kv::Error`].
pub async fn exists(tx: &Transaction, blob: BlobId, owner: &Owner) -> Result<bool, kv::Error> {
    Ok(tx.get(&key(blob, owner)).await?.is_some())
}

fn key(blob: BlobId, owner: &Owner) -> Vec<u8> {
    let id = &blob.as_bytes()[..];
    match owner {
        Owner::Email(account, email) => {
            pack(&(Subspace::BlobReference as u64, id, "e", *account, *email))
        }
        Owner::Submission(submission) => {
            pack(&(Subspace::BlobReference as u64, id, "s", &submission[..]))
        }
    }
}
