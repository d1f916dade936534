//! Who needs a blob.
//!
//! | key | value | lifecycle |
//! |---|---|---|
//! | (BlobReference, id, owner…) | empty | written by the transaction that needs the blob, cleared by the one that needs it no more |
//! | (BlobDue, due ms, id) | empty | written whenever a reference goes; the sweeper looks at the blob when it is due, and clears it |
//! | (BlobDue, name) | the newest due ms, 8 bytes LE | written with every due entry, cleared with the last |
//! | (BlobDying, name) | since when, ms, 8 bytes LE | written by the sweeper when it has found no reference, cleared [`limits::ADOPT_WITHIN_MS`] later |
//! | (BlobDying, ms, name) | 1 byte: remove the bytes (0), or clear the mark (1) | what the sweeper does next about a dying blob, and when |
//!
//! Dropping a reference always writes the due entry and reads nothing, so two owners that let go
//! at once do not conflict; the sweeper finds out whether anybody is left.
//!
//! A first reference ([`adopt`]) reads the dying mark, so it and the sweeper's finding conflict. It
//! also refuses a blob that was put long ago: such a blob may have been swept and its mark be gone.
//! The mark outlives the bytes, so that a node whose clock is wrong by hours still meets it.

use bytes::Bytes;
use env::{
    Timestamp,
    probe::{self, Planted},
};
use kv::{
    AsKvError, AtomicOp, KeyValue, Prefetch, RangeQuery, Subspace, Transaction,
    tuple::{self, pack, unpack},
};

use crate::{BlobId, BlobName, limits};

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
    if age_ms > limits::ADOPT_WITHIN_MS || tx.get(&dying_key(&BlobName::of(&blob))).await?.is_some()
    {
        return Err(AdoptError::Gone(blob));
    }
    share(tx, blob, owner);
    Ok(())
}

/// What [`adopt`] will read.
pub fn adopt_ahead(ahead: &mut Prefetch, blob: BlobId) {
    ahead.key(dying_key(&BlobName::of(&blob)));
}

/// Adds a further reference, in a transaction that has read one that stands.
pub fn share(tx: &Transaction, blob: BlobId, owner: &Owner) {
    tx.set(&key(blob, owner), &[]);
}

/// Drops a reference; the blob is looked at after its grace time.
pub fn remove(tx: &Transaction, blob: BlobId, owner: &Owner, now: Timestamp) {
    tx.clear(&key(blob, owner));
    if probe::planted(Planted::ForgetDueBlob) {
        return;
    }
    let due = now.unix_ms().saturating_add(limits::GRACE_MS);
    tx.set(&due_key(due, &blob), &[]);
    let newest = u64::try_from(due).unwrap_or(0).to_le_bytes();
    tx.atomic(&newest_due_key(&BlobName::of(&blob)), &newest, AtomicOp::Max);
}

/// Whether `owner` has a reference.
///
/// # Errors
/// [`kv::Error`].
pub async fn exists(tx: &Transaction, blob: BlobId, owner: &Owner) -> Result<bool, kv::Error> {
    Ok(tx.get(&key(blob, owner)).await?.is_some())
}

/// References in the order of their keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Which blob is needed by whom.
    pub found: Vec<(BlobId, Owner)>,
    /// Keys that no release knows.
    pub unreadable: Vec<Bytes>,
    /// Where the next page begins; `None` after the last.
    pub next: Option<ReferenceCursor>,
}

/// The last reference of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceCursor(Bytes);

/// At most `limit` references after `after`, without a conflict.
///
/// # Errors
/// [`kv::Error`].
pub async fn page(
    tx: &Transaction,
    after: Option<&ReferenceCursor>,
    limit: usize,
) -> Result<Page, kv::Error> {
    let (first, end) = bounds(&Subspace::BlobReference.prefix(), &[]);
    let begin = after.map_or(first, |after| [&after.0[..], &[0]].concat());
    let limit = limit.max(1);
    let rows = tx.range(RangeQuery::new(begin, end).limit(limit).snapshot()).collect().await?;
    let next = rows.last().filter(|_| rows.len() == limit);
    let next = next.map(|row| ReferenceCursor(row.key.clone()));
    let (mut found, mut unreadable) = (Vec::new(), Vec::new());
    for row in rows {
        match parse(&row.key) {
            Some(reference) => found.push(reference),
            None => unreadable.push(row.key),
        }
    }
    Ok(Page { found, unreadable, next })
}

/// Whether anything needs the bytes under this name. The transaction conflicts with a first
/// reference.
pub(crate) async fn any(tx: &Transaction, name: &BlobName) -> Result<bool, kv::Error> {
    let (begin, end) = name_bounds(name, name);
    Ok(!tx.range(RangeQuery::new(begin, end).limit(1)).collect().await?.is_empty())
}

/// The referenced names after `after` (from `first` where there is none) up to `last`, without a
/// conflict: of at most `limit` references, and the name after which to go on where there are
/// more. Whatever owners a blob has beyond those are skipped.
pub(crate) async fn referenced(
    tx: &Transaction,
    first: &BlobName,
    after: Option<&BlobName>,
    last: &BlobName,
    limit: usize,
) -> Result<(Vec<BlobName>, Option<BlobName>), kv::Error> {
    let (first, end) = name_bounds(first, last);
    let begin = after.map_or(first, |after| name_bounds(after, after).1);
    let rows = tx.range(RangeQuery::new(begin, end).limit(limit).snapshot()).collect().await?;
    let id_of = |row: &KeyValue| Some(BlobName::of(&id_of(&row.key)?));
    let mut names: Vec<BlobName> = rows.iter().filter_map(id_of).collect();
    names.dedup();
    let next = names.last().copied().filter(|name| rows.len() == limit && name < last);
    Ok((names, next))
}

/// What is to be done about a dying blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Remove its bytes.
    Remove,
    /// They are gone: clear the mark.
    Forget,
}

impl Step {
    pub(crate) const fn to_bytes(self) -> [u8; 1] {
        match self {
            Self::Remove => [0],
            Self::Forget => [1],
        }
    }

    /// Removing twice is harmless, forgetting too early is not.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        if bytes == [1] { Self::Forget } else { Self::Remove }
    }
}

/// Marks what has no reference as dying, in a transaction that has read so; tells whether it was
/// not marked yet.
pub(crate) async fn mark_dying(
    tx: &Transaction,
    name: &BlobName,
    now: Timestamp,
) -> Result<bool, kv::Error> {
    let key = dying_key(name);
    if tx.get(&key).await?.is_some() {
        return Ok(false);
    }
    tx.set(&key, &u64::try_from(now.unix_ms()).unwrap_or(0).to_le_bytes());
    tx.set(&step_key(now.unix_ms(), name), &Step::Remove.to_bytes());
    Ok(true)
}

/// The time that a key of this module holds.
pub(crate) fn time_of(value: &[u8]) -> i64 {
    let ms = value.try_into().map_or(0, u64::from_le_bytes);
    i64::try_from(ms).unwrap_or(i64::MAX)
}

pub(crate) fn dying_key(name: &BlobName) -> Vec<u8> {
    pack(&(Subspace::BlobDying as u64, name.as_bytes()))
}

pub(crate) fn step_key(at_ms: i64, name: &BlobName) -> Vec<u8> {
    pack(&(Subspace::BlobDying as u64, at_ms.max(0), name.as_bytes()))
}

/// Steps that are to be taken by `now`.
pub(crate) fn steps_until(now: Timestamp) -> (Vec<u8>, Vec<u8>) {
    until(Subspace::BlobDying, now)
}

/// When the step was to be taken, and about what.
pub(crate) fn decode_step(row: &KeyValue) -> Option<(i64, BlobName)> {
    let (_, at, name): (u64, i64, tuple::Bytes<'_>) = unpack(&row.key).ok()?;
    Some((at, BlobName::from_slice(&name)?))
}

pub(crate) fn newest_due_key(name: &BlobName) -> Vec<u8> {
    pack(&(Subspace::BlobDue as u64, name.as_bytes()))
}

/// Entries that are due by `now`.
pub(crate) fn due_until(now: Timestamp) -> (Vec<u8>, Vec<u8>) {
    until(Subspace::BlobDue, now)
}

pub(crate) fn decode_due(row: &KeyValue) -> Option<(i64, BlobName)> {
    let (_, due, id): (u64, i64, tuple::Bytes<'_>) = unpack(&row.key).ok()?;
    Some((due, BlobName::of(&BlobId::from_slice(&id)?)))
}

fn due_key(due_ms: i64, blob: &BlobId) -> Vec<u8> {
    pack(&(Subspace::BlobDue as u64, due_ms.max(0), &blob.to_bytes()[..]))
}

/// Keys whose second element is a time up to `now`, inclusive.
fn until(family: Subspace, now: Timestamp) -> (Vec<u8>, Vec<u8>) {
    let end = now.unix_ms().max(0).saturating_add(1);
    (pack(&(family as u64, 0_i64)), pack(&(family as u64, end)))
}

/// All keys of references to the bytes under this name, begin and end.
pub(crate) fn range_of(name: &BlobName) -> (Vec<u8>, Vec<u8>) {
    name_bounds(name, name)
}

/// The references of the names from `first` to `last`.
fn name_bounds(first: &BlobName, last: &BlobName) -> (Vec<u8>, Vec<u8>) {
    let open = |name: &BlobName| {
        let mut key = pack(&(Subspace::BlobReference as u64, name.as_bytes()));
        // Without its terminator: the id goes on where the name ends.
        key.pop();
        key
    };
    (open(first), bounds(&open(last), &[]).1)
}

/// From `prefix` and `rest` to the end of what begins with `prefix`: nothing that does has so many
/// 0xff after it.
fn bounds(prefix: &[u8], rest: &[u8]) -> (Vec<u8>, Vec<u8>) {
    ([prefix, rest].concat(), [prefix, &[0xff; 64]].concat())
}

/// The blob of a reference, whoever its owner is.
fn id_of(key: &[u8]) -> Option<BlobId> {
    match &unpack::<Vec<tuple::Element<'_>>>(key).ok()?[..] {
        [_, tuple::Element::Bytes(id), ..] => BlobId::from_slice(id),
        _ => None,
    }
}

/// The blob and the owner of a reference's key; `None` for a key that is none.
pub fn parse(key: &[u8]) -> Option<(BlobId, Owner)> {
    type Email<'a> = (u64, tuple::Bytes<'a>, String, u64, u32);
    type Submission<'a> = (u64, tuple::Bytes<'a>, String, tuple::Bytes<'a>);
    if let Ok((_, id, kind, account, email)) = unpack::<Email<'_>>(key) {
        let owner = (kind == "e").then_some(Owner::Email(account, email))?;
        return Some((BlobId::from_slice(&id)?, owner));
    }
    let (_, id, kind, submission) = unpack::<Submission<'_>>(key).ok()?;
    let owner = (kind == "s").then_some(Owner::Submission(submission[..].try_into().ok()?))?;
    Some((BlobId::from_slice(&id)?, owner))
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
    if tx.get(&dying_key(&BlobName::of(&blob))).await?.is_some() {
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
        assert_eq!(parse(&dying_key(&BlobName::of(&blob))), None);
    }
}
