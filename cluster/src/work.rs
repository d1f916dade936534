//! Deferred work: items live in zones, and a pointer for each zone that has any lives in an index
//! ordered by due time.
//!
//! | key | value | lifecycle |
//! |---|---|---|
//! | (Work, kind, "i", zone, due ms, id) | the item | written by whoever defers work, cleared when it is done |
//! | (Work, kind, "z", zone) | the pointer's due ms, i64 LE | with the pointer |
//! | (Work, kind, "d", due ms, zone) | empty | when a zone gets its first item or an earlier one; moved by the worker that claimed the zone |
//!
//! Invariant: a zone with items has a pointer that is due no later than its first item. A writer
//! reads the pointer with conflict, and a worker that takes a pointer away reads the zone's items
//! with conflict, so one of the two runs again.

use env::Timestamp;
use kv::{Subspace, Transaction, tuple::pack};

/// What kind of work; numbers are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A message for other servers; the zone is the destination's domain.
    Outbound = 1,
}

/// Defers an item. Writing the same item again changes nothing.
///
/// # Errors
/// [`kv::Error`].
pub async fn enqueue(
    tx: &Transaction,
    kind: Kind,
    zone: &str,
    due: Timestamp,
    id: &[u8],
    item: &[u8],
) -> Result<(), kv::Error> {
    let due_ms = due.unix_ms();
    tx.set(&item_key(kind, zone, due_ms, id), item);
    let zone_key = zone_key(kind, zone);
    let held = tx.get(&zone_key).await?;
    let held_ms = held.and_then(|value| value[..].try_into().ok()).map(i64::from_le_bytes);
    if held_ms.is_some_and(|held_ms| held_ms <= due_ms) {
        return Ok(());
    }
    if let Some(held_ms) = held_ms {
        tx.clear(&pointer_key(kind, held_ms, zone));
    }
    tx.set(&zone_key, &due_ms.to_le_bytes());
    tx.set(&pointer_key(kind, due_ms, zone), &[]);
    Ok(())
}

/// (Work, kind, "i", zone, due, id)
pub fn item_key(kind: Kind, zone: &str, due_ms: i64, id: &[u8]) -> Vec<u8> {
    pack(&(Subspace::Work as u64, kind as u64, "i", zone, due_ms, id))
}

/// (Work, kind, "z", zone)
pub fn zone_key(kind: Kind, zone: &str) -> Vec<u8> {
    pack(&(Subspace::Work as u64, kind as u64, "z", zone))
}

/// (Work, kind, "d", due, zone)
pub fn pointer_key(kind: Kind, due_ms: i64, zone: &str) -> Vec<u8> {
    pack(&(Subspace::Work as u64, kind as u64, "d", due_ms, zone))
}

/// All of (Work, kind, "i", …)
pub fn item_range(kind: Kind) -> (Vec<u8>, Vec<u8>) {
    let mut begin = pack(&(Subspace::Work as u64, kind as u64, "i"));
    let mut end = begin.clone();
    begin.push(0x00);
    end.push(0xff);
    (begin, end)
}

/// The zone of an [`item_key`]; `None` for a key that is none.
pub fn zone_of(key: &[u8]) -> Option<String> {
    type Item<'a> = (u64, u64, String, String, i64, kv::tuple::Bytes<'a>);
    let (_, _, _, zone, _, _): Item<'_> = kv::tuple::unpack(key).ok()?;
    Some(zone)
}

/// Whether a zone's pointer stands: the zone knows when it is due, and the index has it there.
///
/// # Errors
/// [`kv::Error`].
pub async fn has_pointer(tx: &Transaction, kind: Kind, zone: &str) -> Result<bool, kv::Error> {
    let due = tx.get(&zone_key(kind, zone)).await?;
    let Some(due_ms) = due.and_then(|value| value[..].try_into().ok()).map(i64::from_le_bytes)
    else {
        return Ok(false);
    };
    Ok(tx.get(&pointer_key(kind, due_ms, zone)).await?.is_some())
}

/// Gives a zone that has items and no pointer one that is due at once.
///
/// # Errors
/// [`kv::Error`].
pub async fn restore_pointer(
    tx: &Transaction,
    kind: Kind,
    zone: &str,
    now: Timestamp,
) -> Result<(), kv::Error> {
    if !has_pointer(tx, kind, zone).await? {
        tx.set(&zone_key(kind, zone), &now.unix_ms().to_le_bytes());
        tx.set(&pointer_key(kind, now.unix_ms(), zone), &[]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use kv::{Database, RangeQuery};

    use super::*;

    #[tokio::test]
    async fn a_zone_points_at_its_earliest_item() {
        let db = Database::memory(env::Env::system());
        for (due, id) in [(500, b"a"), (900, b"b"), (100, b"c"), (100, b"c")] {
            let due = Timestamp::from_unix_ms(due);
            db.run(|tx| async move {
                enqueue(&tx, Kind::Outbound, "example.com", due, id, b"item").await
            })
            .await
            .unwrap();
        }
        let keys = db
            .run(|tx| async move {
                let all = RangeQuery::prefix(&Subspace::Work.prefix());
                tx.range(all).collect().await
            })
            .await
            .unwrap();
        let keys: Vec<_> = keys.iter().map(|pair| pair.key.to_vec()).collect();
        let item = |due, id| item_key(Kind::Outbound, "example.com", due, id);
        let mut expected = vec![
            item(100, b"c"),
            item(500, b"a"),
            item(900, b"b"),
            pointer_key(Kind::Outbound, 100, "example.com"),
            zone_key(Kind::Outbound, "example.com"),
        ];
        expected.sort();
        assert_eq!(keys, expected);
    }
}
