//! Orders: what people want done with a zone, or with one of its items.
//!
//! Nobody but the claim's holder may move or remove an item, for it may be in flight. So whoever wants
//! something done with one writes an order, which makes the zone due; the worker that claims the
//! zone obeys before it works. What an order says is its kind's business.
//!
//! Invariant: a zone that has orders has items, and a pointer that is due or a claim.

use bytes::Bytes;
use env::Timestamp;
use kv::{
    RangeQuery, Subspace, Transaction,
    tuple::{self, pack, range_of},
};
use mail::StoreError;

use super::{Completion, Held, Kind, pointer_key, zone, zone::ZoneState, zone_key};
use crate::{ClusterError, Slice, slice::slice};

/// An order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The item's id; empty where it is about the whole zone.
    pub id: Vec<u8>,
    /// What it says.
    pub value: Bytes,
}

/// What came of giving an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Given {
    /// It stands.
    Yes,
    /// The zone has nothing to do, so there is nothing to order.
    NothingThere,
}

/// (Work, kind, "o", zone, id)
fn order_key(kind: u64, zone: &str, id: &[u8]) -> Vec<u8> {
    pack(&(Subspace::Work as u64, kind, "o", zone, id))
}

/// All of (Work, kind, "o", zone, …)
fn zone_order_range(kind: u64, zone: &str) -> (Vec<u8>, Vec<u8>) {
    range_of(pack(&(Subspace::Work as u64, kind, "o", zone)))
}

/// The order that stands about an item, or with an empty id about a zone. With conflict, so that
/// whoever adds to it loses nothing.
///
/// # Errors
/// [`StoreError`].
pub async fn standing(
    tx: &Transaction,
    kind: Kind,
    zone: &str,
    id: &[u8],
) -> Result<Option<Bytes>, StoreError> {
    Ok(tx.get(&order_key(kind as u64, zone, id)).await?)
}

/// Gives an order about an item, or with an empty id about the whole zone, in place of one that
/// stands. A zone that waits becomes due.
///
/// # Errors
/// [`StoreError`].
pub async fn give(
    tx: &Transaction,
    kind: Kind,
    zone: &str,
    id: &[u8],
    order: &[u8],
    now: Timestamp,
) -> Result<Given, StoreError> {
    let number = kind as u64;
    match zone::state(tx, kind, zone).await? {
        None => return Ok(Given::NothingThere),
        // Whoever has claimed it finds the order when it lets the zone go.
        Some(ZoneState::Claimed { .. }) => {}
        Some(ZoneState::Waiting { due_ms }) if due_ms <= now.unix_ms() => {}
        Some(ZoneState::Waiting { due_ms: held_ms }) => {
            let due_ms = now.unix_ms();
            tx.clear(&pointer_key(number, held_ms, zone));
            tx.set(&zone_key(number, zone), &ZoneState::Waiting { due_ms }.encode());
            tx.set(&pointer_key(number, due_ms, zone), &[]);
        }
    }
    tx.set(&order_key(number, zone, id), order);
    Ok(Given::Yes)
}

/// The first orders of a zone, the one about the whole zone in front. A snapshot: whoever has obeyed
/// one looks again.
///
/// # Errors
/// [`StoreError`].
pub async fn first(
    tx: &Transaction,
    kind: Kind,
    zone: &str,
    limit: usize,
) -> Result<Vec<Order>, StoreError> {
    let (begin, end) = zone_order_range(kind as u64, zone);
    let rows = tx.range(RangeQuery::new(begin, end).limit(limit).snapshot()).collect().await?;
    let order = |row: kv::KeyValue| {
        let (_, id) = parse(&row.key)?;
        Ok(Order { id, value: row.value })
    };
    rows.into_iter().map(order).collect()
}

/// Some of the orders of a kind: zones, and items' ids.
///
/// # Errors
/// [`StoreError`].
pub async fn of_kind(
    tx: &Transaction,
    kind: Kind,
    from: Option<&[u8]>,
) -> Result<Slice<(String, Vec<u8>)>, StoreError> {
    let range = range_of(pack(&(Subspace::Work as u64, kind as u64, "o")));
    slice(tx, range, from, |row| parse(&row.key)).await
}

/// Whether an order has a zone that somebody will come to.
///
/// # Errors
/// [`StoreError`].
pub async fn stands(tx: &Transaction, kind: Kind, zone: &str) -> Result<bool, StoreError> {
    Ok(zone::state(tx, kind, zone).await?.is_some())
}

/// Takes an order away whose zone has nothing to do.
///
/// # Errors
/// [`StoreError`].
pub async fn mend(tx: &Transaction, kind: Kind, zone: &str, id: &[u8]) -> Result<(), StoreError> {
    if !stands(tx, kind, zone).await? {
        tx.clear(&order_key(kind as u64, zone, id));
    }
    Ok(())
}

/// Whether a zone has orders. Conflicts with one that comes meanwhile.
pub(super) async fn any(tx: &Transaction, kind: u64, zone: &str) -> Result<bool, StoreError> {
    let (begin, end) = zone_order_range(kind, zone);
    let rows = tx.range(RangeQuery::new(begin, end).limit(1)).collect().await?;
    Ok(!rows.is_empty())
}

/// Forgets the orders of a zone that has nothing to do any more.
pub(super) fn forget(tx: &Transaction, kind: u64, zone: &str) {
    let (begin, end) = zone_order_range(kind, zone);
    tx.clear_range(&begin, &end);
}

fn parse(key: &[u8]) -> Result<(String, Vec<u8>), StoreError> {
    type Parsed<'a> = (u64, u64, String, String, tuple::Bytes<'a>);
    let (_, _, _, zone, id): Parsed<'_> = tuple::unpack(key)
        .map_err(|_| StoreError::damaged("work order", "a key without its zone"))?;
    Ok((zone, id.to_vec()))
}

impl Held {
    /// Takes away an order that was obeyed, or with `rest` leaves what is left of it. One that was
    /// changed meanwhile stays as it is, to be obeyed again.
    ///
    /// # Errors
    /// [`ClusterError::Ended`] where the zone may be another node's by now.
    pub async fn obeyed(
        &self,
        tx: &Transaction,
        order: &Order,
        rest: Option<&[u8]>,
    ) -> Result<Completion, ClusterError> {
        self.fence.check(tx).await?;
        let key = order_key(self.kind as u64, &self.zone, &order.id);
        if tx.get(&key).await?.as_ref() != Some(&order.value) {
            return Ok(Completion::Gone);
        }
        match rest {
            Some(rest) => tx.set(&key, rest),
            None => tx.clear(&key),
        }
        Ok(Completion::Ours)
    }
}

#[cfg(test)]
mod tests {
    use env::Env;
    use kv::Database;

    use super::*;
    use crate::Epoch;
    use crate::work::{
        enqueue,
        zone::{Again, hand_back},
    };

    const KIND: Kind = Kind::Outbound;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_unix_ms(ms)
    }

    #[tokio::test]
    async fn an_order_makes_a_zone_due_and_keeps_it_so() {
        let db = Database::memory(Env::system());
        let epoch = Epoch(7);
        let run = |tx: Transaction| async move {
            let nothing = give(&tx, KIND, "z", b"a", b"x", at(5)).await?;
            assert_eq!(nothing, Given::NothingThere);
            enqueue(&tx, KIND, "z", at(1_000), b"a", b"").await?;
            assert_eq!(give(&tx, KIND, "z", b"a", b"x", at(5)).await?, Given::Yes);
            let state = zone::state(&tx, KIND, "z").await?;
            assert_eq!(state, Some(ZoneState::Waiting { due_ms: 5 }));
            assert!(tx.get(&pointer_key(1, 5, "z")).await?.is_some());
            assert!(tx.get(&pointer_key(1, 1_000, "z")).await?.is_none());

            // One that comes while the zone is claimed makes it due when it is let go.
            tx.clear(&pointer_key(1, 5, "z"));
            let claimed = ZoneState::Claimed { due_ms: 5, by: epoch };
            tx.set(&zone_key(1, "z"), &claimed.encode());
            give(&tx, KIND, "z", b"", b"y", at(9)).await?;
            let orders = first(&tx, KIND, "z", 10).await?;
            let ids: Vec<_> = orders.iter().map(|order| order.id.clone()).collect();
            assert_eq!(ids, [b"".to_vec(), b"a".to_vec()]);
            hand_back(&tx, 1, "z", epoch, Again::WithItems).await?;
            let state = zone::state(&tx, KIND, "z").await?;
            assert_eq!(state, Some(ZoneState::Waiting { due_ms: 5 }));

            // With the last item the orders go.
            tx.clear(&pointer_key(1, 5, "z"));
            tx.set(&zone_key(1, "z"), &claimed.encode());
            super::super::remove(&tx, KIND, "z", at(1_000), b"a");
            hand_back(&tx, 1, "z", epoch, Again::WithItems).await?;
            assert_eq!(zone::state(&tx, KIND, "z").await?, None);
            assert_eq!(of_kind(&tx, KIND, None).await?.rows, []);
            Ok::<_, StoreError>(())
        };
        db.run(run).await.unwrap();
    }
}
