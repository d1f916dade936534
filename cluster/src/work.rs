//! Deferred work: items live in zones, and a pointer for each zone that has any lives in an index
//! ordered by due time. Nodes claim zones, not items.
//!
//! | key | value | lifecycle |
//! |---|---|---|
//! | (Work, kind, "i", zone, due ms, id) | the item | written by whoever defers work, cleared when it is done |
//! | (Work, kind, "z", zone) | [`zone::ZoneState`] | while the zone has items or a claim |
//! | (Work, kind, "d", due ms, zone) | empty | when a zone gets its first item or an earlier one; cleared by the claim |
//! | (Work, kind, "f", zone, id) | [`Failures`] | from an item's first failure until it is done |
//! | (Work, kind, "o", zone, id) | an order | from when it is given until it is obeyed, or the zone has nothing to do: [`orders`] |
//!
//! Invariant: a zone with items is claimed, or has a pointer that is due no later than its first
//! item or its last release. A writer reads the zone's record with conflict, and so does whoever
//! claims or releases it, with the zone's first item; so one of the two runs again.

pub mod census;
pub mod check;
pub mod orders;
mod runner;
pub mod zone;

use env::Timestamp;
use kv::{
    Subspace, Transaction,
    tuple::{self, pack, range_of},
};
use mail::StoreError;
use prost::Message;

pub use runner::{Completion, Done, Held, Lag, Lags, PutOff, Runner, RunnerSettings, Turn, Worker};
use zone::ZoneState;

use crate::limits;

/// What kind of work; numbers are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A message for other servers; the zone is the destination's domain.
    Outbound = 1,
    /// Bytes that nothing needs; one zone.
    BlobSweep = 2,
    /// Old entries of accounts' logs; a zone is a share of the accounts.
    LogTrim = 3,
    /// Operation ids that nobody asks for any more; a zone is a share of the accounts.
    OperationSweep = 4,
    /// Views that would take long to build; the zone is the account.
    ViewCheckpoint = 5,
    /// Nothing: what a simulation's own workers do. No node has it, and no list of kinds.
    Rehearsal = 6,
    /// Reports of TLS to other domains, and policies of theirs that have expired; one zone.
    TlsReports = 7,
    /// Telling domains what came in their name; one zone.
    DmarcReports = 9,
    /// A domain's keys for signing; a zone is a share of the domains, an item is a domain.
    DkimRotation = 8,
    /// What abuse control keeps for a time: counters, greylist entries, blocks; one zone.
    GuardSweep = 10,
}

impl Kind {
    /// Every kind of work that nodes do.
    pub const ALL: [Self; 9] = [
        Self::Outbound,
        Self::BlobSweep,
        Self::LogTrim,
        Self::OperationSweep,
        Self::ViewCheckpoint,
        Self::TlsReports,
        Self::DmarcReports,
        Self::DkimRotation,
        Self::GuardSweep,
    ];

    /// Its name, as people write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::BlobSweep => "blob-sweep",
            Self::LogTrim => "log-trim",
            Self::OperationSweep => "operation-sweep",
            Self::ViewCheckpoint => "view-checkpoint",
            Self::Rehearsal => "rehearsal",
            Self::TlsReports => "tls-reports",
            Self::DmarcReports => "dmarc-reports",
            Self::DkimRotation => "dkim-rotation",
            Self::GuardSweep => "guard-sweep",
        }
    }
}

/// How often an item has failed, and how.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Failures {
    /// Tries that failed.
    #[prost(uint32, tag = "1")]
    pub count: u32,
    /// When the last one did.
    #[prost(int64, tag = "2")]
    pub last_ms: i64,
    /// Why the last one did, for people.
    #[prost(string, tag = "3")]
    pub reason: String,
}

/// Defers an item. Writing the same item again changes nothing.
///
/// # Errors
/// [`StoreError`].
pub async fn enqueue(
    tx: &Transaction,
    kind: Kind,
    zone: &str,
    due: Timestamp,
    id: &[u8],
    item: &[u8],
) -> Result<(), StoreError> {
    let due_ms = due.unix_ms();
    tx.set(&item_key(kind, zone, due_ms, id), item);
    match zone::state(tx, kind, zone).await? {
        // Whoever has claimed it finds the item before it lets the zone go, and one that is due
        // before what it knows of when it looks again.
        Some(ZoneState::Claimed { due_ms: held_ms, .. }) if zone::since(held_ms) <= due_ms => {
            return Ok(());
        }
        Some(ZoneState::Claimed { by, .. }) => {
            tx.set(&zone_key(kind as u64, zone), &ZoneState::Claimed { due_ms, by }.encode());
            return Ok(());
        }
        Some(ZoneState::Waiting { due_ms: held_ms }) if held_ms <= due_ms => return Ok(()),
        Some(ZoneState::Waiting { due_ms: held_ms }) => {
            tx.clear(&pointer_key(kind as u64, held_ms, zone));
        }
        None => {}
    }
    tx.set(&zone_key(kind as u64, zone), &ZoneState::Waiting { due_ms }.encode());
    tx.set(&pointer_key(kind as u64, due_ms, zone), &[]);
    Ok(())
}

/// Defers an item unless its zone has something to do already, claimed or not.
///
/// # Errors
/// [`StoreError`].
pub async fn enqueue_into_empty(
    tx: &Transaction,
    kind: Kind,
    zone: &str,
    due: Timestamp,
    id: &[u8],
    item: &[u8],
) -> Result<(), StoreError> {
    match zone::state(tx, kind, zone).await? {
        Some(_) => Ok(()),
        None => enqueue(tx, kind, zone, due, id, item).await,
    }
}

/// Takes an item out: it is done.
pub(crate) fn remove(tx: &Transaction, kind: Kind, zone: &str, due: Timestamp, id: &[u8]) {
    tx.clear(&item_key(kind, zone, due.unix_ms(), id));
    tx.clear(&failures_key(kind, zone, id));
}

/// (Work, kind, "i", zone, due, id)
pub fn item_key(kind: Kind, zone: &str, due_ms: i64, id: &[u8]) -> Vec<u8> {
    pack(&(Subspace::Work as u64, kind as u64, "i", zone, due_ms, id))
}

/// (Work, kind, "z", zone)
pub fn zone_key(kind: u64, zone: &str) -> Vec<u8> {
    pack(&(Subspace::Work as u64, kind, "z", zone))
}

/// (Work, kind, "d", due, zone)
pub fn pointer_key(kind: u64, due_ms: i64, zone: &str) -> Vec<u8> {
    pack(&(Subspace::Work as u64, kind, "d", due_ms, zone))
}

fn failures_key(kind: Kind, zone: &str, id: &[u8]) -> Vec<u8> {
    pack(&(Subspace::Work as u64, kind as u64, "f", zone, id))
}

/// All of (Work, kind, "i", …)
pub fn item_range(kind: Kind) -> (Vec<u8>, Vec<u8>) {
    range_of(pack(&(Subspace::Work as u64, kind as u64, "i")))
}

/// All of (Work, kind, "d", …)
fn pointer_range(kind: Kind) -> (Vec<u8>, Vec<u8>) {
    range_of(pack(&(Subspace::Work as u64, kind as u64, "d")))
}

/// All of (Work, kind, "z", …)
pub fn zone_range(kind: Kind) -> (Vec<u8>, Vec<u8>) {
    range_of(pack(&(Subspace::Work as u64, kind as u64, "z")))
}

/// All of (Work, kind, "i", zone, …)
fn zone_item_range(kind: u64, zone: &str) -> (Vec<u8>, Vec<u8>) {
    range_of(pack(&(Subspace::Work as u64, kind, "i", zone)))
}

/// When a [`pointer_key`] is due, in milliseconds since 1970, and its zone.
fn parse_pointer(key: &[u8]) -> Result<(i64, String), StoreError> {
    let (_, _, _, due_ms, zone): (u64, u64, String, i64, String) = tuple::unpack(key)
        .map_err(|_| StoreError::damaged("zone pointer", "a key without its zone"))?;
    Ok((due_ms, zone))
}

struct ItemKey {
    zone: String,
    due_ms: i64,
    id: Vec<u8>,
}

fn parse_item(key: &[u8]) -> Result<ItemKey, StoreError> {
    type Item<'a> = (u64, u64, String, String, i64, tuple::Bytes<'a>);
    let (_, _, _, zone, due_ms, id): Item<'_> = tuple::unpack(key)
        .map_err(|_| StoreError::damaged("work item", "a key without its zone"))?;
    Ok(ItemKey { zone, due_ms, id: id.to_vec() })
}

/// The zone of an [`item_key`]; `None` for a key that is none.
pub fn zone_of(key: &[u8]) -> Option<String> {
    parse_item(key).ok().map(|item| item.zone)
}

/// How often one item has failed, and how; a count of 0 where it has not. Takes part in no
/// conflict.
///
/// # Errors
/// [`StoreError`].
pub async fn failures(
    tx: &Transaction,
    kind: Kind,
    zone: &str,
    id: &[u8],
) -> Result<Failures, StoreError> {
    let value = tx.get_snapshot(&failures_key(kind, zone, id)).await?;
    let Some(value) = value else { return Ok(Failures::default()) };
    Failures::decode(value).map_err(|error| StoreError::damaged("work failures", error))
}

pub(crate) fn note_failure(
    tx: &Transaction,
    kind: Kind,
    zone: &str,
    id: &[u8],
    failures: &Failures,
) {
    tx.set(&failures_key(kind, zone, id), &failures.encode_to_vec());
}

/// How long to wait after so many failures in a row: twice as long after each, between
/// [`limits::RETRY_DELAY_MIN`] and [`limits::RETRY_DELAY_MAX`], and a random part of it less.
pub fn retry_delay(env: &env::Env, failures: u32) -> std::time::Duration {
    let doubled = limits::RETRY_DELAY_MIN.saturating_mul(1 << failures.saturating_sub(1).min(20));
    let whole = doubled.min(limits::RETRY_DELAY_MAX);
    let micros = u64::try_from(whole.as_micros() / 2).unwrap_or(u64::MAX);
    whole / 2 + std::time::Duration::from_micros(env.random_below(micros))
}

/// Whether a zone with items is looked after: it has a pointer that the index has too, or an
/// epoch that is registered, or is about to be settled, has claimed it.
///
/// # Errors
/// [`StoreError`].
pub async fn is_tended(tx: &Transaction, kind: Kind, zone: &str) -> Result<bool, StoreError> {
    match zone::state(tx, kind, zone).await? {
        Some(ZoneState::Waiting { due_ms }) => {
            Ok(tx.get(&pointer_key(kind as u64, due_ms, zone)).await?.is_some())
        }
        Some(ZoneState::Claimed { by, .. }) => crate::membership::registry::is_known(tx, by).await,
        None => Ok(false),
    }
}

/// Gives a zone that has items and is not looked after a pointer that is due at once.
///
/// # Errors
/// [`StoreError`].
pub async fn restore_pointer(
    tx: &Transaction,
    kind: Kind,
    zone: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    if !is_tended(tx, kind, zone).await? {
        let due_ms = now.unix_ms();
        tx.set(&zone_key(kind as u64, zone), &ZoneState::Waiting { due_ms }.encode());
        tx.set(&pointer_key(kind as u64, due_ms, zone), &[]);
    }
    Ok(())
}
