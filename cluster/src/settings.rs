//! Settings that hold for all nodes, changed at run time.
//!
//! | key | value | lifecycle |
//! |---|---|---|
//! | (Setting, "current") | [`Record`] | from the first change on |
//! | (Setting, "h", version) | [`Change`] | one a change; the oldest go beyond [`limits::SETTING_CHANGES_MAX`] |
//!
//! Values are text; what names and values there are is the node's own knowledge. A change rings every
//! node's bell, and every heartbeat looks, so a change is in force everywhere within the time of
//! one heartbeat at most.

use std::collections::BTreeMap;

use env::{
    Timestamp,
    probe::{self, Planted},
};
use kv::{RangeQuery, Subspace, Transaction, tuple::pack};
use mail::StoreError;
use prost::Message;

use crate::{limits, membership::registry};

/// All settings that differ from their defaults.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Record {
    /// One more with each change.
    #[prost(uint64, tag = "1")]
    pub version: u64,
    /// Names and values.
    #[prost(btree_map = "string, string", tag = "2")]
    pub values: BTreeMap<String, String>,
}

/// One change.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Change {
    /// The version that it made.
    #[prost(uint64, tag = "1")]
    pub version: u64,
    /// What was changed.
    #[prost(string, tag = "2")]
    pub name: String,
    /// The value before; absent for the default.
    #[prost(string, optional, tag = "3")]
    pub before: Option<String>,
    /// The value after; absent for the default.
    #[prost(string, optional, tag = "4")]
    pub after: Option<String>,
    /// When, by the clock of the node that was asked.
    #[prost(int64, tag = "5")]
    pub at_ms: i64,
    /// Who asked, as far as that is known.
    #[prost(string, tag = "6")]
    pub by: String,
}

fn current_key() -> Vec<u8> {
    pack(&(Subspace::Setting as u64, "current"))
}

fn change_key(version: u64) -> Vec<u8> {
    pack(&(Subspace::Setting as u64, "h", version))
}

/// The settings; none are set before the first change. Takes part in no conflict.
///
/// # Errors
/// [`StoreError`].
pub async fn current(tx: &Transaction) -> Result<Record, StoreError> {
    decode(&tx.get_snapshot(&current_key()).await?.unwrap_or_default())
}

/// An empty record is none.
fn decode(value: &[u8]) -> Result<Record, StoreError> {
    Record::decode(value).map_err(|error| StoreError::damaged("settings", error))
}

/// Sets a setting to a value, or back to its default, and tells every node. What is as wanted
/// already makes no version.
///
/// # Errors
/// [`StoreError`].
pub async fn change(
    tx: &Transaction,
    name: &str,
    value: Option<&str>,
    by: &str,
    now: Timestamp,
) -> Result<Record, StoreError> {
    let stored = tx.get(&current_key()).await?.unwrap_or_default();
    let mut record = decode(&stored)?;
    let before = record.values.get(name).cloned();
    if before.as_deref() == value {
        return Ok(record);
    }
    match value {
        Some(value) => record.values.insert(name.to_owned(), value.to_owned()),
        None => record.values.remove(name),
    };
    if probe::planted(Planted::DropUnknownSettings) {
        record.values.retain(|held, _| held == name || held.starts_with("limits."));
    }
    record.version += 1;
    let change = Change {
        version: record.version,
        name: name.to_owned(),
        before,
        after: value.map(str::to_owned),
        at_ms: now.unix_ms(),
        by: by.to_owned(),
    };
    tx.set(&change_key(record.version), &change.encode_to_vec());
    if let Some(oldest) = record.version.checked_sub(limits::SETTING_CHANGES_MAX) {
        tx.clear(&change_key(oldest));
    }
    tx.set(&current_key(), &mail::keys::encode_over(&record, &stored));
    for (epoch, _) in registry::registered(tx).await? {
        registry::ring(tx, epoch);
    }
    Ok(record)
}

/// Changes, the newest first, at most `limit`.
///
/// # Errors
/// [`StoreError`].
pub async fn history(tx: &Transaction, limit: usize) -> Result<Vec<Change>, StoreError> {
    let prefix = pack(&(Subspace::Setting as u64, "h"));
    let query = RangeQuery::prefix(&prefix).reverse().limit(limit).snapshot();
    let rows = tx.range(query).collect().await?;
    let decode = |value: &[u8]| {
        Change::decode(value).map_err(|error| StoreError::damaged("setting change", error))
    };
    rows.iter().map(|row| decode(&row.value)).collect()
}

#[cfg(test)]
mod tests {
    use kv::Database;

    use super::*;

    async fn set(db: &Database, name: &str, value: Option<&str>) -> Record {
        let now = Timestamp::from_unix_ms(7);
        db.run(|tx| async move { change(&tx, name, value, "test", now).await }).await.unwrap()
    }

    #[tokio::test]
    async fn changes_are_numbered_and_kept() {
        let db = Database::memory(env::Env::system());
        assert_eq!(set(&db, "a", Some("1")).await.version, 1);
        assert_eq!(set(&db, "a", Some("1")).await.version, 1, "nothing changed");
        assert_eq!(set(&db, "b", Some("2")).await.version, 2);
        let record = set(&db, "a", None).await;
        assert_eq!(record.version, 3);
        assert_eq!(record.values, BTreeMap::from([("b".to_owned(), "2".to_owned())]));
        assert_eq!(db.run(|tx| async move { current(&tx).await }).await.unwrap(), record);
        let changes = db.run(|tx| async move { history(&tx, 2).await }).await.unwrap();
        assert_eq!(changes.iter().map(|change| change.version).collect::<Vec<_>>(), [3, 2]);
        assert_eq!((changes[0].before.as_deref(), &changes[0].after), (Some("1"), &None));
    }

    #[tokio::test]
    async fn what_a_newer_release_wrote_survives_a_change() {
        let db = Database::memory(env::Env::system());
        set(&db, "a", Some("1")).await;
        // Field 1000, a number.
        let newer = &[0xc0, 0x3e, 0x07][..];
        let mark = |tx: Transaction| async move {
            let stored = tx.get(&current_key()).await?.unwrap();
            tx.set(&current_key(), &[&stored, newer].concat());
            Ok::<_, kv::Error>(())
        };
        db.run(mark).await.unwrap();
        let record = set(&db, "a", Some("2")).await;
        assert_eq!(record.values, BTreeMap::from([("a".to_owned(), "2".to_owned())]));
        let read = |tx: Transaction| async move { tx.get(&current_key()).await };
        let stored = db.run(read).await.unwrap().unwrap();
        assert_eq!(stored, [&record.encode_to_vec()[..], newer].concat());
    }

    #[tokio::test]
    async fn history_is_bounded() {
        let db = Database::memory(env::Env::system());
        for turn in 0..limits::SETTING_CHANGES_MAX + 5 {
            set(&db, "a", Some(&turn.to_string())).await;
        }
        let changes = db.run(|tx| async move { history(&tx, 10_000).await }).await.unwrap();
        assert_eq!(changes.len() as u64, limits::SETTING_CHANGES_MAX);
    }
}
