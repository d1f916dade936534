//! References to blobs that nothing has. That none is missing is checked with each email.

use blob::{BlobId, Owner};
use kv::Transaction;

use super::{
    Damage, FsckError, Owners,
    emails::Checked,
    threads::is_needed,
    walk::{Walk, stretch},
};
use crate::{AccountId, EmailId, StoreError};

pub(super) async fn check(walk: &mut Walk) -> Result<(), FsckError> {
    let (mut from, _) = blob::references::range();
    let owners = walk.owners;
    loop {
        let begin = &from;
        let checked =
            walk.step(|tx, rows| async move { page(&tx, owners, begin, rows).await }).await?;
        walk.progress.blobs += checked.rows;
        walk.find_all(checked.damages).await?;
        match checked.next {
            Some(next) => from = next,
            None => return Ok(()),
        }
    }
}

async fn page(
    tx: &Transaction,
    owners: Owners,
    from: &[u8],
    most: usize,
) -> Result<Checked, StoreError> {
    let (_, end) = blob::references::range();
    let read = stretch(tx, from.to_vec(), end, most).await?;
    let mut damages = Vec::new();
    for row in &read.rows {
        match blob::references::parse(&row.key) {
            Some((blob, owner)) => {
                if !has(tx, owners, blob, owner).await? {
                    damages.push(Damage::StrayReference(blob, owner));
                }
            }
            None => damages
                .push(Damage::Undecodable { family: "blob reference", key: row.key.to_vec() }),
        }
    }
    Ok(Checked { damages, rows: read.rows.len() as u64, next: read.next() })
}

/// Whether the owner exists and has the blob. One whose record is lost in part or cannot be
/// decoded may have it: a reference too many costs space, one too few costs mail.
pub(super) async fn has(
    tx: &Transaction,
    owners: Owners,
    blob: BlobId,
    owner: Owner,
) -> Result<bool, StoreError> {
    match owner {
        Owner::Email(account, email) => {
            is_needed(tx, AccountId(account), EmailId(email), |meta| {
                BlobId::from_slice(&meta.blob).is_none_or(|held| held == blob)
            })
            .await
        }
        Owner::Submission(id) => {
            let Some(value) = tx.get(&(owners.submission_key)(&id)).await? else {
                return Ok(false);
            };
            Ok((owners.submission_blob)(&value).is_none_or(|held| held == blob))
        }
    }
}
