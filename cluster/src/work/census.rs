//! What there is to do, for people: zones, their items, what failed. In bounded transactions that
//! take part in no conflict, so that looking never disturbs the work.

use kv::{
    Subspace, Transaction,
    tuple::{self, pack, range_of},
};
use mail::StoreError;
use prost::Message;

use super::{
    Failures, Kind, item_range, parse_item, parse_pointer, pointer_key, zone::ZoneState,
    zone_item_range,
};
use crate::{Slice, slice::slice};

/// A zone and its record; `None` where that cannot be read.
pub type ZoneRow = (String, Option<ZoneState>);

/// Some of a kind's zones, in order of their names.
///
/// # Errors
/// [`StoreError`].
pub async fn zones(
    tx: &Transaction,
    kind: Kind,
    from: Option<&[u8]>,
) -> Result<Slice<ZoneRow>, StoreError> {
    slice(tx, super::zone_range(kind), from, |row| {
        let (_, _, _, zone): (u64, u64, String, String) = tuple::unpack(&row.key)
            .map_err(|_| StoreError::damaged("zone", "a key without its name"))?;
        Ok((zone, ZoneState::decode(&row.value).ok()))
    })
    .await
}

/// The key from which [`zones`] goes on behind a zone.
pub fn behind_zone(kind: Kind, zone: &str) -> Vec<u8> {
    [&super::zone_key(kind as u64, zone)[..], &[0]].concat()
}

/// The key from which items go on behind a zone's.
pub fn behind_items(kind: Kind, zone: &str) -> Vec<u8> {
    zone_item_range(kind as u64, zone).1
}

/// Some of a kind's pointers that are due before `before_ms`, or all: when, and which zone, those
/// due first in front.
///
/// # Errors
/// [`StoreError`].
pub async fn pointers(
    tx: &Transaction,
    kind: Kind,
    before_ms: Option<i64>,
    from: Option<&[u8]>,
) -> Result<Slice<(i64, String)>, StoreError> {
    let (begin, end) = super::pointer_range(kind);
    let end = before_ms.map_or(end, |before| pointer_key(kind as u64, before, ""));
    slice(tx, (begin, end), from, |row| parse_pointer(&row.key)).await
}

/// An item without what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemRow {
    /// Its zone.
    pub zone: String,
    /// When it is due, milliseconds since 1970.
    pub due_ms: i64,
    /// Its id in the zone.
    pub id: Vec<u8>,
}

/// Some of the items of a kind, or of one zone of it.
///
/// # Errors
/// [`StoreError`].
pub async fn items(
    tx: &Transaction,
    kind: Kind,
    zone: Option<&str>,
    from: Option<&[u8]>,
) -> Result<Slice<ItemRow>, StoreError> {
    let range = match zone {
        Some(zone) => zone_item_range(kind as u64, zone),
        None => item_range(kind),
    };
    slice(tx, range, from, |row| {
        let super::ItemKey { zone, due_ms, id } = parse_item(&row.key)?;
        Ok(ItemRow { zone, due_ms, id })
    })
    .await
}

/// The first zone behind `after` that has an item.
///
/// # Errors
/// [`StoreError`].
pub async fn next_zone_with_items(
    tx: &Transaction,
    kind: Kind,
    after: Option<&str>,
) -> Result<Option<String>, StoreError> {
    let from = after.map(|zone| zone_item_range(kind as u64, zone).1);
    Ok(items(tx, kind, None, from.as_deref()).await?.rows.into_iter().next().map(|it| it.zone))
}

/// An item that has failed, as noted.
#[derive(Debug, Clone, PartialEq)]
pub struct FailingRow {
    /// Its zone.
    pub zone: String,
    /// Its id in the zone.
    pub id: Vec<u8>,
    /// How often, and how.
    pub failures: Failures,
}

/// Some of the items of a kind, or of one zone of it, that have failed.
///
/// # Errors
/// [`StoreError`].
pub async fn failing(
    tx: &Transaction,
    kind: Kind,
    zone: Option<&str>,
    from: Option<&[u8]>,
) -> Result<Slice<FailingRow>, StoreError> {
    let family = match zone {
        Some(zone) => pack(&(Subspace::Work as u64, kind as u64, "f", zone)),
        None => pack(&(Subspace::Work as u64, kind as u64, "f")),
    };
    slice(tx, range_of(family), from, |row| {
        type Failing<'a> = (u64, u64, String, String, tuple::Bytes<'a>);
        let (_, _, _, zone, id): Failing<'_> = tuple::unpack(&row.key)
            .map_err(|_| StoreError::damaged("work failures", "a key without its item"))?;
        let failures = Failures::decode(row.value)
            .map_err(|error| StoreError::damaged("work failures", error))?;
        Ok(FailingRow { zone, id: id.to_vec(), failures })
    })
    .await
}

#[cfg(test)]
mod tests {
    use env::{Env, Timestamp};
    use kv::Database;

    use super::*;
    use crate::work::enqueue;

    #[tokio::test]
    async fn a_range_of_any_length_is_read_slice_by_slice() {
        let db = Database::memory(Env::system());
        for batch in 0..5_u32 {
            db.run(|tx| async move {
                for number in 0..500_u32 {
                    let id = (batch * 500 + number).to_be_bytes();
                    let zone = if batch == 4 { "b" } else { "a" };
                    let due = Timestamp::from_unix_ms(i64::from(number));
                    enqueue(&tx, Kind::Outbound, zone, due, &id, &[1; 100]).await?;
                }
                Ok::<_, StoreError>(())
            })
            .await
            .unwrap();
        }
        let (mut from, mut seen, mut slices) = (None::<Vec<u8>>, 0, 0);
        loop {
            let begin = from.as_deref();
            let some = db.run(|tx| async move { items(&tx, Kind::Outbound, None, begin).await });
            let some = some.await.unwrap();
            (seen, slices) = (seen + some.rows.len(), slices + 1);
            match some.next {
                Some(next) => from = Some(next),
                None => break,
            }
        }
        assert_eq!(seen, 2_500);
        assert!(slices > 3, "{slices} transactions");
        let look = |tx: Transaction| async move {
            let first = next_zone_with_items(&tx, Kind::Outbound, None).await?;
            let second = next_zone_with_items(&tx, Kind::Outbound, Some("a")).await?;
            let none = next_zone_with_items(&tx, Kind::Outbound, Some("b")).await?;
            let due = pointers(&tx, Kind::Outbound, Some(0), None).await?.rows;
            let all = pointers(&tx, Kind::Outbound, None, None).await?.rows;
            Ok::<_, StoreError>((first, second, none, due.len(), all.len()))
        };
        let (first, second, none, due, all) = db.run(look).await.unwrap();
        assert_eq!((first.as_deref(), second.as_deref(), none), (Some("a"), Some("b"), None));
        assert_eq!((due, all), (0, 2), "nothing is due before 1970");
    }
}
