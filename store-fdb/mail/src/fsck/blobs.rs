//! P5: each reference's blob exists, its header is what its name says and what stands behind it is
//! as long as it should be, or, at [`Depth::Bytes`], all of its bytes are right; and nothing is kept
//! that nobody has needed for longer than the sweeper takes.
//!
//! A blob is not read in a transaction, so one that is not there is looked for again in the
//! references before it is told: what nothing needs any more may go.

use blob::{
    BlobError, BlobId, BlobReader, Owner,
    audit::{Audit, AuditError, Depth, Finding},
    sweep::{SCAN_INTERVAL, Share},
};
use kv::Transaction;

use super::{
    Damage, FsckError, Owners,
    references::has,
    walk::{Walk, stretch},
};
use crate::{
    AccountId, StoreError,
    keys::{self, email::EmailMeta},
    limits,
};

/// Whose blobs to check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    Everybody,
    Account(AccountId),
}

struct Page {
    needed: Vec<(BlobId, Owner)>,
    next: Option<Vec<u8>>,
}

pub(super) async fn check(walk: &mut Walk, whose: Whose) -> Result<(), FsckError> {
    let (mut from, _) = range(whose);
    let mut last = None;
    loop {
        let begin = &from;
        let page =
            walk.step(|tx, rows| async move { page(&tx, whose, begin, rows / 4).await }).await?;
        let mut needed = page.needed;
        // Those of one blob follow each other.
        needed.retain(|(blob, _)| last.replace(*blob) != Some(*blob));
        for few in needed.chunks(limits::FSCK_BLOBS_AT_ONCE) {
            check_few(walk, few).await?;
        }
        match page.next {
            Some(next) => from = next,
            None => break,
        }
    }
    match whose {
        Whose::Everybody => check_orphans(walk).await,
        Whose::Account(_) => Ok(()),
    }
}

/// What nobody needs. References to nothing have been told of already.
///
/// Where nearly all look like it, the references are at fault: that is told, and what was told of
/// single blobs is not mended.
async fn check_orphans(walk: &mut Walk) -> Result<(), FsckError> {
    blob::binding::verify(&walk.db, &walk.blobs).await?;
    let (env, db, blobs) = (walk.env.clone(), walk.db.clone(), walk.blobs.clone());
    let mut audit = Audit::new(env, db, blobs, Depth::Names, SCAN_INTERVAL);
    loop {
        let begun = walk.env.monotonic();
        let step = audit.next_step().await.map_err(|error| match error {
            AuditError::Kv(error) => FsckError::from(error),
            AuditError::Blob(error) => FsckError::Blob(error),
        })?;
        let Some(step) = step else { break };
        walk.rest_after(walk.env.monotonic().saturating_since(begun)).await;
        walk.tell_progress()?;
        for finding in step.findings {
            if let Finding::Orphan { name, .. } = finding {
                walk.find(Damage::Orphan(name)).await?;
            }
        }
    }
    if audit.share().is_implausible() {
        walk.found.retain(|damage| !matches!(damage, Damage::Orphan(_)));
        let Share { judged, orphans } = audit.share();
        walk.find(Damage::TooManyOrphans { judged, orphans }).await?;
    }
    Ok(())
}

fn range(whose: Whose) -> (Vec<u8>, Vec<u8>) {
    match whose {
        Whose::Everybody => blob::references::range(),
        Whose::Account(account) => keys::email::meta_range(account),
    }
}

async fn page(
    tx: &Transaction,
    whose: Whose,
    from: &[u8],
    most: usize,
) -> Result<Page, StoreError> {
    let (_, end) = range(whose);
    let read = stretch(tx, from.to_vec(), end, most).await?;
    let needed = |row: &kv::KeyValue| match whose {
        Whose::Everybody => blob::references::parse(&row.key),
        Whose::Account(account) => {
            let meta: EmailMeta = keys::decode("email meta", &row.value).ok()?;
            let owner = Owner::Email(account.0, keys::email::email_of(&row.key)?.0);
            Some((BlobId::from_slice(&meta.blob)?, owner))
        }
    };
    Ok(Page { needed: read.rows.iter().filter_map(needed).collect(), next: read.next() })
}

async fn check_few(walk: &mut Walk, few: &[(BlobId, Owner)]) -> Result<(), FsckError> {
    let blobs: Vec<_> = few.iter().map(|(blob, _)| *blob).collect();
    let checked = walk.check_blobs(&blobs).await;
    for ((blob, owner), checked) in few.iter().zip(checked) {
        conclude(walk, *blob, *owner, checked).await?;
        walk.progress.blobs += 1;
    }
    Ok(())
}

async fn conclude(
    walk: &mut Walk,
    blob: BlobId,
    owner: Owner,
    checked: Result<BlobReader, BlobError>,
) -> Result<(), FsckError> {
    let checked = match checked {
        Ok(reader) if walk.depth == Depth::Bytes => walk.read_blob(reader).await?,
        checked => checked.map(drop),
    };
    let damage = match checked {
        Ok(()) => return Ok(()),
        Err(BlobError::Missing(_)) => Damage::NoBlob(blob, owner),
        Err(BlobError::Damaged(_) | BlobError::TooLarge) => Damage::BlobDamaged(blob, owner),
        Err(BlobError::Backend(error)) => return Err(error.into()),
        Err(error @ (BlobError::Unavailable { .. } | BlobError::Refused { .. })) => {
            return Err(FsckError::Blob(error));
        }
    };
    let owners: Owners = walk.owners;
    let is_needed = walk.step(|tx, _| async move { has(&tx, owners, blob, owner).await }).await?;
    if is_needed { walk.find(damage).await } else { Ok(()) }
}
