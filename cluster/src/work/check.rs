//! What must hold of zones, pointers, claims and failures, looked at and mended one by one.
//!
//! Each look and each mending is one transaction over the record and what it stands for, so what
//! the work changes meanwhile is never told, and a mending never undoes it. Nothing here touches
//! an item: what is to be done is done, once more at worst.

use env::Timestamp;
use kv::Transaction;
use mail::StoreError;

use super::{
    Kind, census, failures_key, pointer_key,
    zone::{self, Again, ZoneState},
    zone_key,
};
use crate::{
    Epoch, limits,
    membership::{
        registry::{self, claim_key},
        roll::Claim,
    },
};

/// What does not hold of a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ZoneFault {
    /// An epoch has claimed it that is neither registered nor to be settled: nobody would come.
    UnknownClaim(Epoch),
    /// An epoch has claimed it and does not list it: it would not be returned at the epoch's end.
    UnlistedClaim(Epoch),
    /// It has items, and nothing points to it: nobody would come.
    NoPointer,
    /// It waits, and has nothing to do.
    Idle,
}

/// What does not hold of a zone, if anything. Its record must be readable.
///
/// # Errors
/// [`StoreError`].
pub async fn zone_fault(
    tx: &Transaction,
    kind: Kind,
    zone: &str,
) -> Result<Option<ZoneFault>, StoreError> {
    let number = kind as u64;
    match zone::state(tx, kind, zone).await? {
        Some(ZoneState::Claimed { by, .. }) => {
            if !registry::is_known(tx, by).await? {
                return Ok(Some(ZoneFault::UnknownClaim(by)));
            }
            let listed = tx.get(&claim_key(by, number, zone)).await?.is_some();
            Ok((!listed).then_some(ZoneFault::UnlistedClaim(by)))
        }
        Some(ZoneState::Waiting { due_ms }) => {
            if zone::first_due(tx, number, zone).await?.is_none() {
                return Ok(Some(ZoneFault::Idle));
            }
            let pointer = tx.get(&pointer_key(number, due_ms, zone)).await?;
            Ok(pointer.is_none().then_some(ZoneFault::NoPointer))
        }
        None => {
            let first = zone::first_due(tx, number, zone).await?;
            Ok(first.is_some().then_some(ZoneFault::NoPointer))
        }
    }
}

/// Mends what does not hold of a zone at this transaction's time.
///
/// # Errors
/// [`StoreError`].
pub async fn mend_zone(
    tx: &Transaction,
    kind: Kind,
    zone: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    let number = kind as u64;
    match zone_fault(tx, kind, zone).await? {
        None => {}
        Some(ZoneFault::UnknownClaim(by)) => {
            zone::hand_back(tx, number, zone, by, Again::AsItWas).await?;
            tx.clear(&claim_key(by, number, zone));
        }
        Some(ZoneFault::UnlistedClaim(by)) => tx.set(&claim_key(by, number, zone), &[]),
        Some(ZoneFault::NoPointer) => super::restore_pointer(tx, kind, zone, now).await?,
        Some(ZoneFault::Idle) => {
            if let Some(ZoneState::Waiting { due_ms }) = zone::state(tx, kind, zone).await? {
                tx.clear(&pointer_key(number, due_ms, zone));
            }
            tx.clear(&zone_key(number, zone));
            super::orders::forget(tx, number, zone);
        }
    }
    Ok(())
}

/// Whether a pointer is its zone's: others make workers look in vain, again and again.
///
/// # Errors
/// [`StoreError`].
pub async fn pointer_stands(
    tx: &Transaction,
    kind: Kind,
    due_ms: i64,
    zone: &str,
) -> Result<bool, StoreError> {
    Ok(zone::state(tx, kind, zone).await? == Some(ZoneState::Waiting { due_ms }))
}

/// Takes a pointer away that is not its zone's.
///
/// # Errors
/// [`StoreError`].
pub async fn mend_pointer(
    tx: &Transaction,
    kind: Kind,
    due_ms: i64,
    zone: &str,
) -> Result<(), StoreError> {
    if !pointer_stands(tx, kind, due_ms, zone).await? {
        tx.clear(&pointer_key(kind as u64, due_ms, zone));
    }
    Ok(())
}

/// Whether an epoch has the zone that it lists.
///
/// # Errors
/// [`StoreError`].
pub async fn claim_stands(tx: &Transaction, claim: &Claim) -> Result<bool, StoreError> {
    let state = zone::state_of(tx, claim.kind, &claim.zone).await?;
    Ok(matches!(state, Some(ZoneState::Claimed { by, .. }) if by == claim.epoch))
}

/// Takes a zone off the list of an epoch that does not have it.
///
/// # Errors
/// [`StoreError`].
pub async fn mend_claim(tx: &Transaction, claim: &Claim) -> Result<(), StoreError> {
    if !claim_stands(tx, claim).await? {
        tx.clear(&claim_key(claim.epoch, claim.kind, &claim.zone));
    }
    Ok(())
}

/// Whether the item that failures are noted for is there; `None` where its zone has more than
/// [`limits::ITEMS_PER_SEARCH`].
///
/// # Errors
/// [`StoreError`].
pub async fn failures_stand(
    tx: &Transaction,
    kind: Kind,
    zone: &str,
    id: &[u8],
) -> Result<Option<bool>, StoreError> {
    // An item that is put off has its key changed, and its failures with it: one conflicts.
    if tx.get(&failures_key(kind, zone, id)).await?.is_none() {
        return Ok(Some(true));
    }
    let (mut from, mut seen) = (None, 0);
    while seen < limits::ITEMS_PER_SEARCH {
        let some = census::items(tx, kind, Some(zone), from.as_deref()).await?;
        seen += some.rows.len();
        if some.rows.iter().any(|item| item.id == id) {
            return Ok(Some(true));
        }
        match some.next {
            Some(next) => from = Some(next),
            None => return Ok(Some(false)),
        }
    }
    Ok(None)
}

/// Takes away the failures of an item that is not there.
///
/// # Errors
/// [`StoreError`].
pub async fn mend_failures(
    tx: &Transaction,
    kind: Kind,
    zone: &str,
    id: &[u8],
) -> Result<(), StoreError> {
    if failures_stand(tx, kind, zone, id).await? == Some(false) {
        tx.clear(&failures_key(kind, zone, id));
    }
    Ok(())
}
