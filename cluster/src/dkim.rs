//! Keys that domains sign their mail with (RFC 6376), and when somebody looks after them again.
//!
//! | key | value | lifecycle |
//! |---|---|---|
//! | (DkimKey, "changes") | `Changes` | from the first change on |
//! | (DkimKey, "d", domain) | `Care` | from the domain's first key until the domain is removed |
//! | (DkimKey, "k", domain, number) | `Record` | from the making of the key until some time after its retirement, or the domain's removal |
//! | (Work, DkimRotation, "i", share, due, domain) | `Turn` | one that counts for each domain with keys; others go when they are due |
//!
//! What states a key goes through, and when, is the node's to decide. A change rings every node's bell,
//! and every heartbeat looks at the number, as with certificates.
//!
//! Whoever reads the store can read the private keys, as it can read the mail. They are in no `Debug`.
//! A retired key has none any more: what it has signed is verified by the public half.

use std::fmt;

use bytes::Bytes;
use env::Timestamp;
use kv::{
    RangeQuery, Subspace, Transaction,
    tuple::{self, pack},
};
use mail::{StoreError, keys::encode_over};
use prost::Message;
use zeroize::Zeroizing;

use crate::{
    limits::{DKIM_KEYS_PER_DOMAIN_MAX, DKIM_SHARES},
    membership::registry,
    work::{self, Kind},
};

/// By what a key signs; numbers are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum Algorithm {
    /// RSA over SHA-256.
    Rsa = 0,
    /// Ed25519 over SHA-256 (RFC 8463).
    Ed25519 = 1,
}

impl Algorithm {
    /// As people write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rsa => "rsa",
            Self::Ed25519 => "ed25519",
        }
    }
}

/// Where a key stands; numbers are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum State {
    /// Its record is to be published, and has not been seen.
    Wanted = 0,
    /// DNS has its record.
    Seen = 1,
    /// It signs.
    InUse = 2,
    /// It signs no more, and its record stays for what it has signed.
    Retired = 3,
}

impl State {
    /// As people write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wanted => "wanted",
            Self::Seen => "seen",
            Self::InUse => "in-use",
            Self::Retired => "retired",
        }
    }
}

/// What DNS said of a key's record; numbers are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum Found {
    /// Nobody has looked.
    Unknown = 0,
    /// It is there.
    There = 1,
    /// The name has no text.
    Missing = 2,
    /// The name has another text.
    Other = 3,
    /// It could not be asked.
    Unasked = 4,
}

impl Found {
    /// As people write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::There => "there",
            Self::Missing => "missing",
            Self::Other => "other",
            Self::Unasked => "unasked",
        }
    }
}

/// A key as it is stored.
#[derive(Clone, PartialEq, Eq, prost::Message)]
#[prost(skip_debug)]
struct Record {
    #[prost(string, tag = "1")]
    selector: String,
    #[prost(enumeration = "Algorithm", tag = "2")]
    algorithm: i32,
    #[prost(bytes = "vec", tag = "3")]
    pkcs8: Vec<u8>,
    #[prost(string, tag = "4")]
    text: String,
    #[prost(enumeration = "State", tag = "5")]
    state: i32,
    #[prost(int64, tag = "6")]
    made_ms: i64,
    #[prost(int64, tag = "7")]
    state_since_ms: i64,
    #[prost(int64, optional, tag = "8")]
    published_ms: Option<i64>,
    #[prost(int64, optional, tag = "9")]
    looked_ms: Option<i64>,
    #[prost(enumeration = "Found", tag = "10")]
    found: i32,
    #[prost(string, tag = "11")]
    trouble: String,
}

/// A key.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    /// Tells it from the domain's others; ascending.
    pub number: u64,
    /// The first label of the name that its record goes under.
    pub selector: String,
    /// By what it signs.
    pub algorithm: Algorithm,
    /// The private key, PKCS#8 (DER); empty once it is retired.
    pub pkcs8: Zeroizing<Vec<u8>>,
    /// The text of its record.
    pub text: String,
    /// Where it stands.
    pub state: State,
    /// When it was made, by its maker's clock.
    pub made: Timestamp,
    /// Since when it stands there.
    pub since: Timestamp,
    /// When its record was last sent to the name server, where one is set and it took it.
    pub published: Option<Timestamp>,
    /// When DNS was last asked.
    pub looked: Option<Timestamp>,
    /// What it said.
    pub found: Found,
    /// Why the name server did not take the record, for people; empty where it did.
    pub trouble: String,
    /// As it is stored, for what a newer release has written; empty for a new one.
    stored: Bytes,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Key");
        shown.field("selector", &self.selector).field("state", &self.state).finish_non_exhaustive()
    }
}

impl Key {
    /// A new key, whose record is to be published.
    pub fn new(
        number: u64,
        selector: String,
        algorithm: Algorithm,
        pkcs8: Zeroizing<Vec<u8>>,
        text: String,
        now: Timestamp,
    ) -> Self {
        Self {
            number,
            selector,
            algorithm,
            pkcs8,
            text,
            state: State::Wanted,
            made: now,
            since: now,
            published: None,
            looked: None,
            found: Found::Unknown,
            trouble: String::new(),
            stored: Bytes::new(),
        }
    }

    /// The name that its record goes under.
    pub fn record_name(&self, domain: &str) -> String {
        format!("{}._domainkey.{domain}", self.selector)
    }

    fn decode(number: u64, stored: Bytes) -> Result<Self, StoreError> {
        let damaged = |what: &str| StoreError::damaged("DKIM key", what);
        let record = Record::decode(stored.clone())
            .map_err(|error| StoreError::damaged("DKIM key", error))?;
        let at = Timestamp::from_unix_ms;
        Ok(Self {
            number,
            algorithm: Algorithm::try_from(record.algorithm)
                .map_err(|_| damaged("an unknown algorithm"))?,
            state: State::try_from(record.state).map_err(|_| damaged("an unknown state"))?,
            found: Found::try_from(record.found).unwrap_or(Found::Unknown),
            selector: record.selector,
            pkcs8: Zeroizing::new(record.pkcs8),
            text: record.text,
            made: at(record.made_ms),
            since: at(record.state_since_ms),
            published: record.published_ms.map(at),
            looked: record.looked_ms.map(at),
            trouble: record.trouble,
            stored,
        })
    }

    fn record(&self) -> Record {
        Record {
            selector: self.selector.clone(),
            algorithm: self.algorithm as i32,
            pkcs8: self.pkcs8.to_vec(),
            text: self.text.clone(),
            state: self.state as i32,
            made_ms: self.made.unix_ms(),
            state_since_ms: self.since.unix_ms(),
            published_ms: self.published.map(Timestamp::unix_ms),
            looked_ms: self.looked.map(Timestamp::unix_ms),
            found: self.found as i32,
            trouble: self.trouble.clone(),
        }
    }
}

/// What has happened to the keys.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
struct Changes {
    /// How many changes there were.
    #[prost(uint64, tag = "1")]
    version: u64,
}

/// Who looks after a domain's keys.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
struct Care {
    /// The number of the item that counts.
    #[prost(uint64, tag = "1")]
    turn: u64,
}

/// An item of the work queue.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
struct Turn {
    /// Its number.
    #[prost(uint64, tag = "1")]
    turn: u64,
}

fn version_key() -> Vec<u8> {
    pack(&(Subspace::DkimKey as u64, "changes"))
}

fn care_key(domain: &str) -> Vec<u8> {
    pack(&(Subspace::DkimKey as u64, "d", domain))
}

fn key_key(domain: &str, number: u64) -> Vec<u8> {
    pack(&(Subspace::DkimKey as u64, "k", domain, number))
}

fn keys_of(domain: &str) -> Vec<u8> {
    pack(&(Subspace::DkimKey as u64, "k", domain))
}

/// The number of the last change; 0 before the first. Takes part in no conflict.
///
/// # Errors
/// [`StoreError`].
pub async fn version(tx: &Transaction) -> Result<u64, StoreError> {
    let value = tx.get_snapshot(&version_key()).await?.unwrap_or_default();
    let changes =
        Changes::decode(value).map_err(|error| StoreError::damaged("DKIM keys", error))?;
    Ok(changes.version)
}

/// Notes that what signs for some domain is another key now, and tells every node.
async fn changed(tx: &Transaction) -> Result<(), StoreError> {
    let before = tx.get(&version_key()).await?.unwrap_or_default();
    let changes =
        Changes::decode(before).map_err(|error| StoreError::damaged("DKIM keys", error))?;
    let changes = Changes { version: changes.version + 1 };
    tx.set(&version_key(), &changes.encode_to_vec());
    for (epoch, _) in registry::registered(tx).await? {
        registry::ring(tx, epoch);
    }
    Ok(())
}

/// A domain's keys, oldest first.
///
/// # Errors
/// [`StoreError`].
pub async fn keys(tx: &Transaction, domain: &str) -> Result<Vec<Key>, StoreError> {
    let query = RangeQuery::prefix(&keys_of(domain)).limit(DKIM_KEYS_PER_DOMAIN_MAX);
    let mut found = Vec::new();
    for row in tx.range(query).collect().await? {
        let (_, _, _, number): (u64, String, String, u64) = tuple::unpack(&row.key)
            .map_err(|_| StoreError::damaged("DKIM key", "a key without its number"))?;
        found.push(Key::decode(number, row.value)?);
    }
    Ok(found)
}

/// Writes a domain's keys: those that are in `after` and not in `before` or are different there, and
/// removes those that are in `before` alone. Nodes are told where another key signs.
///
/// # Errors
/// [`StoreError`].
pub async fn write(
    tx: &Transaction,
    domain: &str,
    before: &[Key],
    after: &[Key],
) -> Result<(), StoreError> {
    for gone in before.iter().filter(|key| after.iter().all(|it| it.number != key.number)) {
        tx.clear(&key_key(domain, gone.number));
    }
    for key in after.iter().filter(|key| !before.contains(key)) {
        let value = Zeroizing::new(encode_over(&key.record(), &key.stored));
        tx.set(&key_key(domain, key.number), &value);
    }
    let signing = |keys: &[Key]| -> Vec<u64> {
        let used = keys.iter().filter(|key| key.state == State::InUse);
        used.map(|key| key.number).collect()
    };
    if signing(before) != signing(after) { changed(tx).await } else { Ok(()) }
}

/// Whether anybody looks after a domain's keys.
///
/// # Errors
/// [`StoreError`].
pub async fn is_tended(tx: &Transaction, domain: &str) -> Result<bool, StoreError> {
    Ok(tx.get(&care_key(domain)).await?.is_some())
}

/// Has a domain's keys looked after at `due`, in place of whenever they would have been.
///
/// # Errors
/// [`StoreError`].
pub async fn tend(tx: &Transaction, domain: &str, due: Timestamp) -> Result<(), StoreError> {
    let before = tx.get(&care_key(domain)).await?.unwrap_or_default();
    let care = Care::decode(before.clone())
        .map_err(|error| StoreError::damaged("care of DKIM keys", error))?;
    let turn = care.turn + 1;
    tx.set(&care_key(domain), &encode_over(&Care { turn }, &before));
    let item = Turn { turn }.encode_to_vec();
    work::enqueue(tx, Kind::DkimRotation, &share(domain), due, domain.as_bytes(), &item).await
}

/// Whether an item of the work queue is the one that counts for its domain: others are left over from
/// before it was due earlier.
///
/// # Errors
/// [`StoreError`].
pub async fn counts(tx: &Transaction, domain: &str, item: &[u8]) -> Result<bool, StoreError> {
    let Some(care) = tx.get(&care_key(domain)).await? else { return Ok(false) };
    let damaged = |error| StoreError::damaged("care of DKIM keys", error);
    let care = Care::decode(care).map_err(damaged)?;
    let turn = Turn::decode(item).map_err(damaged)?;
    Ok(care.turn == turn.turn)
}

/// Removes all keys of a domain, which is removed itself.
///
/// # Errors
/// [`StoreError`].
pub async fn forget(tx: &Transaction, domain: &str) -> Result<(), StoreError> {
    let (begin, end) = tuple::range_of(keys_of(domain));
    tx.clear_range(&begin, &end);
    // Its item finds that it does not count.
    tx.clear(&care_key(domain));
    changed(tx).await
}

/// Some of the domains that have keys, after `after`.
///
/// # Errors
/// [`StoreError`].
pub async fn domains(
    tx: &Transaction,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<String>, StoreError> {
    let (first, end) = tuple::range_of(pack(&(Subspace::DkimKey as u64, "d")));
    let begin = after.map_or(first, |after| [&care_key(after)[..], &[0]].concat());
    let rows = tx.range(RangeQuery::new(begin, end).limit(limit).snapshot()).collect().await?;
    let name = |row: kv::KeyValue| {
        let (_, _, domain): (u64, String, String) = tuple::unpack(&row.key)
            .map_err(|_| StoreError::damaged("care of DKIM keys", "a key without its domain"))?;
        Ok(domain)
    };
    rows.into_iter().map(name).collect()
}

/// The zone that looks after a domain's keys.
fn share(domain: &str) -> String {
    // FNV-1a: the same on every node and in every release.
    let hash = domain.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    (hash % DKIM_SHARES).to_string()
}

#[cfg(test)]
mod tests {
    use kv::Database;

    use super::*;

    fn key(number: u64, state: State) -> Key {
        let now = Timestamp::from_unix_ms(7);
        let secret = Zeroizing::new(vec![0xab; 3]);
        let mut key = Key::new(
            number,
            format!("s{number}"),
            Algorithm::Ed25519,
            secret,
            "v=DKIM1".to_owned(),
            now,
        );
        key.state = state;
        key
    }

    async fn put(db: &Database, after: &[Key]) -> u64 {
        db.run(|tx| async move {
            let before = keys(&tx, "a.example").await?;
            write(&tx, "a.example", &before, after).await?;
            version(&tx).await
        })
        .await
        .unwrap();
        db.run(|tx| async move { version(&tx).await }).await.unwrap()
    }

    #[tokio::test]
    async fn nodes_are_told_where_another_key_signs_and_not_otherwise() {
        let db = Database::memory(env::Env::system());
        assert_eq!(put(&db, &[key(1, State::Wanted)]).await, 0);
        assert_eq!(put(&db, &[key(1, State::InUse)]).await, 1);
        assert_eq!(put(&db, &[key(1, State::InUse), key(2, State::Seen)]).await, 1);
        assert_eq!(put(&db, &[key(1, State::Retired), key(2, State::InUse)]).await, 2);
        assert_eq!(put(&db, &[key(2, State::InUse)]).await, 2);
        let held = db.run(|tx| async move { keys(&tx, "a.example").await }).await.unwrap();
        assert_eq!(held.len(), 1);
        assert_eq!(
            (held[0].number, held[0].state, &held[0].pkcs8[..]),
            (2, State::InUse, &[0xab; 3][..])
        );
        assert!(!format!("{held:?}").contains("171"));
        db.run(|tx| async move { forget(&tx, "a.example").await }).await.unwrap();
        let held = db.run(|tx| async move { keys(&tx, "a.example").await }).await.unwrap();
        assert_eq!(held, []);
    }

    #[tokio::test]
    async fn the_last_item_counts() {
        let db = Database::memory(env::Env::system());
        for turn in 1..=2 {
            let due = Timestamp::from_unix_ms(turn);
            db.run(|tx| async move { tend(&tx, "a.example", due).await }).await.unwrap();
        }
        let counted = |turn| {
            let item = Turn { turn }.encode_to_vec();
            let db = db.clone();
            async move {
                let item = &item;
                db.run(|tx| async move { counts(&tx, "a.example", item).await }).await.unwrap()
            }
        };
        assert!(!counted(1).await);
        assert!(counted(2).await);
        let named = db.run(|tx| async move { domains(&tx, None, 9).await }).await.unwrap();
        assert_eq!(named, ["a.example"]);
        db.run(|tx| async move { forget(&tx, "a.example").await }).await.unwrap();
        assert!(!counted(2).await);
    }
}
