//! Zones: who works on one, and when the next may.
//!
//! A zone's record is its pointer's due time where it waits, and that with the claiming epoch
//! where it is worked on. Each step of a zone's life is one transaction that reads the record
//! with conflict, so two workers never hold one zone.

use env::Timestamp;
use kv::{RangeQuery, Transaction};
use mail::StoreError;

use super::{Kind, item_key, orders, pointer_key, zone_key};
use crate::{ClusterError, Epoch, Fence, Slice, limits, membership::registry, slice::slice};

/// A zone's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZoneState {
    /// A pointer in the index stands for it.
    Waiting {
        /// When it is due, milliseconds since 1970.
        due_ms: i64,
    },
    /// A node works on it. There is no pointer.
    Claimed {
        /// When it came due.
        due_ms: i64,
        /// The claiming epoch.
        by: Epoch,
    },
}

impl ZoneState {
    pub(super) fn encode(self) -> Vec<u8> {
        match self {
            Self::Waiting { due_ms } => due_ms.to_le_bytes().to_vec(),
            Self::Claimed { due_ms, by } => {
                [due_ms.to_le_bytes(), by.0.to_le_bytes()].as_flattened().to_vec()
            }
        }
    }

    /// A record of 8 bytes is a waiting zone's, one of 16 a claimed one's.
    pub(super) fn decode(value: &[u8]) -> Result<Self, StoreError> {
        let number = |bytes: &[u8]| bytes.try_into().map(i64::from_le_bytes).ok();
        let state = match value.split_at_checked(8) {
            Some((due, [])) => number(due).map(|due_ms| Self::Waiting { due_ms }),
            Some((due, by)) => number(due)
                .zip(by.try_into().ok().map(u64::from_le_bytes))
                .map(|(due_ms, by)| Self::Claimed { due_ms, by: Epoch(by) }),
            None => None,
        };
        state.ok_or_else(|| StoreError::damaged("zone", format!("{} bytes", value.len())))
    }
}

/// What is known of a zone; `None` where it has nothing to do.
///
/// # Errors
/// [`StoreError`].
pub async fn state(
    tx: &Transaction,
    kind: Kind,
    zone: &str,
) -> Result<Option<ZoneState>, StoreError> {
    state_of(tx, kind as u64, zone).await
}

pub(super) async fn state_of(
    tx: &Transaction,
    kind: u64,
    zone: &str,
) -> Result<Option<ZoneState>, StoreError> {
    let value = tx.get(&zone_key(kind, zone)).await?;
    value.map(|value| ZoneState::decode(&value)).transpose()
}

/// The last pointer that a look at due zones came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOff(Vec<u8>);

/// What a look at due zones found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Due {
    /// Zones that are due, in the order of their pointers.
    pub zones: Vec<String>,
    /// When the next one will be, where the look came to it.
    pub next: Option<Timestamp>,
    /// Where the look left off, if there may be more than it could take.
    pub left_off: Option<LeftOff>,
}

/// Zones that are due at `now`, at most `limit`: from where the last look left off, round to there, so
/// that zones which have waited long and have much to do do not hide the others. Takes part in no
/// conflict: a claim looks again.
///
/// # Errors
/// [`StoreError`].
pub async fn due(
    tx: &Transaction,
    kind: Kind,
    now: Timestamp,
    left_off: Option<&LeftOff>,
    limit: usize,
) -> Result<Due, StoreError> {
    let (begin, end) = super::pointer_range(kind);
    let mut due = Due::default();
    let Some(LeftOff(last)) = left_off else {
        read_due(tx, begin, end, now, limit, &mut due).await?;
        return Ok(due);
    };
    let behind = [last, &[0][..]].concat();
    read_due(tx, behind.clone(), end, now, limit, &mut due).await?;
    if due.zones.len() < limit {
        read_due(tx, begin, behind, now, limit, &mut due).await?;
    }
    Ok(due)
}

/// Adds the zones of a stretch of pointers, until there are `limit`.
async fn read_due(
    tx: &Transaction,
    begin: Vec<u8>,
    end: Vec<u8>,
    now: Timestamp,
    limit: usize,
    due: &mut Due,
) -> Result<(), StoreError> {
    let room = limit.saturating_sub(due.zones.len());
    let rows = tx.range(RangeQuery::new(begin, end).limit(room).snapshot()).collect().await?;
    for row in rows {
        let (due_ms, zone) = super::parse_pointer(&row.key)?;
        if due_ms > now.unix_ms() {
            let next = Timestamp::from_unix_ms(due_ms);
            due.next = Some(due.next.map_or(next, |other| other.min(next)));
            return Ok(());
        }
        due.zones.push(zone);
        due.left_off = (due.zones.len() >= limit).then(|| LeftOff(row.key.to_vec()));
    }
    Ok(())
}

/// What came of a try to claim a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claimed {
    /// It is ours, and nothing that is in it is due before.
    Ours {
        /// In milliseconds since 1970.
        since_ms: i64,
    },
    /// Another node was first, or it is not due any more.
    NotDue,
}

/// From when on the items of a zone are due whose record has this time: what took long to come is due
/// before it came, and is not worth a change of the record.
pub(super) fn since(due_ms: i64) -> i64 {
    due_ms.saturating_sub(limits::LATE_ITEM_MS)
}

/// From when on the items of a claimed zone are due, those that have come since included; `None` for
/// one that is not claimed.
///
/// # Errors
/// [`StoreError`].
pub async fn claimed_since(
    tx: &Transaction,
    kind: Kind,
    zone: &str,
) -> Result<Option<i64>, StoreError> {
    match state(tx, kind, zone).await? {
        Some(ZoneState::Claimed { due_ms, .. }) => Ok(Some(since(due_ms))),
        _ => Ok(None),
    }
}

/// Claims a zone that is due. A claim of our own whose commit was not seen counts as ours.
///
/// # Errors
/// [`ClusterError`].
pub async fn claim(
    tx: &Transaction,
    fence: &Fence,
    kind: Kind,
    zone: &str,
    now: Timestamp,
) -> Result<Claimed, ClusterError> {
    fence.check(tx).await?;
    match state(tx, kind, zone).await? {
        Some(ZoneState::Waiting { due_ms }) if due_ms <= now.unix_ms() => {
            let by = fence.epoch();
            env::sometimes!("claimed a zone");
            tx.clear(&pointer_key(kind as u64, due_ms, zone));
            tx.set(&zone_key(kind as u64, zone), &ZoneState::Claimed { due_ms, by }.encode());
            tx.set(&registry::claim_key(by, kind as u64, zone), &[]);
            Ok(Claimed::Ours { since_ms: since(due_ms) })
        }
        Some(ZoneState::Claimed { by, due_ms }) if by == fence.epoch() => {
            Ok(Claimed::Ours { since_ms: since(due_ms) })
        }
        _ => Ok(Claimed::NotDue),
    }
}

/// When a zone that is let go comes again, at the latest. With its first item it comes in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// With its first item.
    WithItems,
    /// At a time at which there is something to be done for all of its items together.
    By(Timestamp),
    /// At once: nobody knows what was left undone.
    AsItWas,
}

/// Lets a zone go: it waits for its first item, or has nothing to do. Where it is due already it stays
/// so: a clock of ours that is fast must not hide it from the others.
///
/// # Errors
/// [`ClusterError`].
pub async fn release(
    tx: &Transaction,
    fence: &Fence,
    kind: Kind,
    zone: &str,
    again: Again,
) -> Result<(), ClusterError> {
    fence.check(tx).await?;
    hand_back(tx, kind as u64, zone, fence.epoch(), again).await?;
    tx.clear(&registry::claim_key(fence.epoch(), kind as u64, zone));
    Ok(())
}

/// Gives a claimed zone a pointer again where it has items, due when its first item is or before, as
/// `again` says, and at once where it has orders. One that `by` has not claimed stays as it is. `kind` is a number: what an ended node claimed may be of a kind that
/// only a newer release knows.
pub(crate) async fn hand_back(
    tx: &Transaction,
    kind: u64,
    zone: &str,
    by: Epoch,
    again: Again,
) -> Result<(), StoreError> {
    let claimed_ms = match state_of(tx, kind, zone).await? {
        Some(ZoneState::Claimed { by: held, due_ms }) if held == by => due_ms,
        _ => return Ok(()),
    };
    match first_due(tx, kind, zone).await? {
        Some(first_ms) => {
            let has_orders = orders::any(tx, kind, zone).await?;
            let due_ms = match again {
                _ if has_orders => first_ms.min(claimed_ms),
                Again::WithItems => first_ms,
                Again::By(at) => first_ms.min(at.unix_ms()),
                Again::AsItWas => first_ms.min(claimed_ms),
            };
            env::sometimes!("let go of a zone that has more to do");
            tx.set(&zone_key(kind, zone), &ZoneState::Waiting { due_ms }.encode());
            tx.set(&pointer_key(kind, due_ms, zone), &[]);
        }
        None => {
            tx.clear(&zone_key(kind, zone));
            orders::forget(tx, kind, zone);
        }
    }
    Ok(())
}

/// The bug that a simulation plants ([`env::probe::Planted::TrustOwnClock`]): hides a zone until a
/// clock's time.
pub(crate) async fn hide_until(
    tx: &Transaction,
    kind: u64,
    zone: &str,
    until: Timestamp,
) -> Result<(), StoreError> {
    let until_ms = until.unix_ms();
    match state_of(tx, kind, zone).await? {
        Some(ZoneState::Waiting { due_ms }) if due_ms < until_ms => {
            tx.clear(&pointer_key(kind, due_ms, zone));
            tx.set(&zone_key(kind, zone), &ZoneState::Waiting { due_ms: until_ms }.encode());
            tx.set(&pointer_key(kind, until_ms, zone), &[]);
        }
        _ => {}
    }
    Ok(())
}

/// When a zone's first item is due. Conflicts with an earlier one that comes meanwhile.
pub(super) async fn first_due(
    tx: &Transaction,
    kind: u64,
    zone: &str,
) -> Result<Option<i64>, StoreError> {
    let (begin, end) = super::zone_item_range(kind, zone);
    let rows = tx.range(RangeQuery::new(begin, end).limit(1)).collect().await?;
    rows.first().map(|row| Ok(super::parse_item(&row.key)?.due_ms)).transpose()
}

/// An item as it lies in its zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// When it came due.
    pub due: Timestamp,
    /// Its id in the zone.
    pub id: Vec<u8>,
    /// What its kind makes of it.
    pub payload: bytes::Bytes,
    /// How often it has failed.
    pub failures: u32,
}

/// The items of a zone that are due, at most [`limits::ITEMS_PER_READ`]. A snapshot: whoever
/// completes one looks again.
///
/// # Errors
/// [`StoreError`].
pub async fn due_items(
    tx: &Transaction,
    kind: Kind,
    zone: &str,
    now: Timestamp,
) -> Result<Vec<Item>, StoreError> {
    let mut items = first_items(tx, kind, zone, limits::ITEMS_PER_READ).await?;
    items.retain(|item| item.due <= now);
    for item in &mut items {
        item.failures = super::failures(tx, kind, zone, &item.id).await?.count;
    }
    Ok(items)
}

/// The first items of a zone, due or not, at most `limit`, for a kind that counts failures by
/// itself: [`Item::failures`] is 0. A snapshot, as [`due_items`].
///
/// # Errors
/// [`StoreError`].
pub async fn first_items(
    tx: &Transaction,
    kind: Kind,
    zone: &str,
    limit: usize,
) -> Result<Vec<Item>, StoreError> {
    items_since(tx, kind, zone, super::zone_item_range(kind as u64, zone).0, limit).await
}

/// As [`first_items`], from a key on ([`super::item_key`]): what has been taken out before it is not
/// passed over again, which costs a store that notes removals much.
///
/// # Errors
/// [`StoreError`].
pub async fn items_since(
    tx: &Transaction,
    kind: Kind,
    zone: &str,
    begin: Vec<u8>,
    limit: usize,
) -> Result<Vec<Item>, StoreError> {
    let (_, end) = super::zone_item_range(kind as u64, zone);
    let rows = tx.range(RangeQuery::new(begin, end).limit(limit).snapshot()).collect().await?;
    let item = |row: kv::KeyValue| {
        let key = super::parse_item(&row.key)?;
        let due = Timestamp::from_unix_ms(key.due_ms);
        Ok(Item { due, id: key.id, payload: row.value, failures: 0 })
    };
    rows.into_iter().map(item).collect()
}

/// Some items with their zones, of one zone or of all of a kind, in the order of their keys: by zone,
/// then by due time. A snapshot; [`Item::failures`] is 0.
///
/// # Errors
/// [`StoreError`].
pub async fn items_from(
    tx: &Transaction,
    kind: Kind,
    zone: Option<&str>,
    from: Option<&[u8]>,
) -> Result<Slice<(String, Item)>, StoreError> {
    let range = match zone {
        Some(zone) => super::zone_item_range(kind as u64, zone),
        None => super::item_range(kind),
    };
    slice(tx, range, from, |row| {
        let super::ItemKey { zone, due_ms, id } = super::parse_item(&row.key)?;
        let due = Timestamp::from_unix_ms(due_ms);
        Ok((zone, Item { due, id, payload: row.value, failures: 0 }))
    })
    .await
}

/// One item, where it is known when it is due. A snapshot; [`Item::failures`] is 0.
///
/// # Errors
/// [`StoreError`].
pub async fn item(
    tx: &Transaction,
    kind: Kind,
    zone: &str,
    due: Timestamp,
    id: &[u8],
) -> Result<Option<Item>, StoreError> {
    let payload = tx.get_snapshot(&item_key(kind, zone, due.unix_ms(), id)).await?;
    Ok(payload.map(|payload| Item { due, id: id.to_vec(), payload, failures: 0 }))
}

/// Whether an item is still there, with conflict: whoever completes it does so once.
///
/// # Errors
/// [`StoreError`].
pub async fn stands(
    tx: &Transaction,
    kind: Kind,
    zone: &str,
    item: &Item,
) -> Result<bool, StoreError> {
    let key = item_key(kind, zone, item.due.unix_ms(), &item.id);
    Ok(tx.get(&key).await?.is_some())
}

#[cfg(test)]
mod tests {
    use env::Env;
    use kv::Database;

    use super::*;
    use crate::work::enqueue;

    const KIND: Kind = Kind::Outbound;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_unix_ms(ms)
    }

    #[tokio::test]
    async fn a_zone_comes_again_with_its_first_item_or_before() {
        let cases = [
            (Again::WithItems, 1_000),
            (Again::By(at(600)), 600),
            (Again::By(at(5_000)), 1_000),
            (Again::AsItWas, 5),
        ];
        for (again, expected) in cases {
            let db = Database::memory(Env::system());
            let by = Epoch(7);
            let run = |tx: Transaction| async move {
                enqueue(&tx, KIND, "z", at(1_000), b"a", b"").await?;
                tx.clear(&pointer_key(1, 1_000, "z"));
                tx.set(&zone_key(1, "z"), &ZoneState::Claimed { due_ms: 5, by }.encode());
                hand_back(&tx, 1, "z", by, again).await?;
                assert_eq!(
                    state(&tx, KIND, "z").await?,
                    Some(ZoneState::Waiting { due_ms: expected })
                );
                assert!(tx.get(&pointer_key(1, expected, "z")).await?.is_some());
                Ok::<_, StoreError>(())
            };
            db.run(run).await.unwrap();
        }
    }

    #[tokio::test]
    async fn what_is_due_before_all_others_shows_in_a_claimed_zones_record() {
        let db = Database::memory(Env::system());
        let run = |tx: Transaction| async move {
            let claimed = ZoneState::Claimed { due_ms: 100_000, by: Epoch(7) };
            tx.set(&zone_key(1, "z"), &claimed.encode());
            let known = 100_000 - limits::LATE_ITEM_MS;
            for (due, expected) in
                [(100_001, known), (known, known), (known - 1, known - 1 - limits::LATE_ITEM_MS)]
            {
                enqueue(&tx, KIND, "z", at(due), b"a", b"").await?;
                assert_eq!(claimed_since(&tx, KIND, "z").await?, Some(expected), "{due}");
            }
            Ok::<_, StoreError>(())
        };
        db.run(run).await.unwrap();
    }

    #[tokio::test]
    async fn items_are_read_from_a_key_on() {
        let db = Database::memory(Env::system());
        let run = |tx: Transaction| async move {
            for ms in [10, 20, 30] {
                enqueue(&tx, KIND, "z", at(ms), b"a", b"").await?;
            }
            let begin = super::super::item_key(KIND, "z", 20, &[]);
            let found = items_since(&tx, KIND, "z", begin, 10).await?;
            assert_eq!(found.iter().map(|it| it.due).collect::<Vec<_>>(), [at(20), at(30)]);
            assert_eq!(first_items(&tx, KIND, "z", 10).await?.len(), 3);
            Ok::<_, StoreError>(())
        };
        db.run(run).await.unwrap();
    }
}
