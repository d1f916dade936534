//! TLS certificates that all nodes show.
//!
//! | key | value | lifecycle |
//! |---|---|---|
//! | (Secret, "certificate", name) | `Record` | from its adding until it is removed, or replaced under the same name |
//! | (Secret, "certificates") | `Changes` | from the first change on |
//!
//! Names are the administrator's; what hosts a certificate is for, it says itself, and whoever shows
//! it reads that. A change rings every node's bell, and every heartbeat looks at the number, so a
//! certificate is in use everywhere within the time of one heartbeat at most.
//!
//! Whoever reads the store can read the private keys, as it can read the mail that they protect on
//! its way. They are in no `Debug`.

use std::fmt;

use bytes::Bytes;
use env::Timestamp;
use kv::{
    Database, Subspace, Transaction,
    tuple::{self, pack},
};
use mail::StoreError;
use prost::Message;
use zeroize::Zeroizing;

use crate::{Slice, limits, membership::registry, slice::slice};

/// A certificate as it is stored.
#[derive(Clone, PartialEq, Eq, prost::Message)]
#[prost(skip_debug)]
struct Record {
    /// DER; the server's own first, then its issuers'.
    #[prost(bytes = "vec", repeated, tag = "1")]
    chain: Vec<Vec<u8>>,
    /// The private key, DER: PKCS #8, PKCS #1 or SEC 1.
    #[prost(bytes = "vec", tag = "2")]
    key: Vec<u8>,
    /// When it was added, by the clock of whoever was asked, milliseconds since 1970.
    #[prost(int64, tag = "3")]
    added_ms: i64,
    /// The number of the change that wrote it.
    #[prost(uint64, tag = "4")]
    version: u64,
}

/// A certificate with its private key.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    /// What administrators call it.
    pub name: String,
    /// DER; the server's own first, then its issuers'.
    pub chain: Vec<Vec<u8>>,
    /// The private key, DER.
    pub key: Zeroizing<Vec<u8>>,
    /// When it was added, by the clock of whoever was asked.
    pub added: Timestamp,
    /// Of the change that wrote it: equal numbers are one certificate.
    pub version: u64,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("name", &self.name).finish_non_exhaustive()
    }
}

/// All certificates at one version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Certificates {
    /// The number of the last change.
    pub version: u64,
    /// By name.
    pub all: Vec<Certificate>,
}

/// What came of an adding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// There was none of this name.
    New,
    /// It took the place of another.
    Replaced,
    /// There are [`limits::CERTIFICATES_MAX`] already.
    TooMany,
}

/// What came of a removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    /// It is gone.
    Yes,
    /// There was none of this name.
    Unknown,
}

fn version_key() -> Vec<u8> {
    pack(&(Subspace::Secret as u64, "certificates"))
}

fn key_of(name: &str) -> Vec<u8> {
    pack(&(Subspace::Secret as u64, "certificate", name))
}

/// What has happened to them.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
struct Changes {
    /// How many changes there were.
    #[prost(uint64, tag = "1")]
    version: u64,
    /// How many certificates there are.
    #[prost(uint64, tag = "2")]
    count: u64,
}

fn changes(value: Option<Bytes>) -> Result<Changes, StoreError> {
    let Some(value) = value else { return Ok(Changes::default()) };
    Changes::decode(value).map_err(|error| StoreError::damaged("certificates", error))
}

/// The number of the last change; 0 before the first. Takes part in no conflict.
///
/// # Errors
/// [`StoreError`].
pub async fn version(tx: &Transaction) -> Result<u64, StoreError> {
    Ok(changes(tx.get_snapshot(&version_key()).await?)?.version)
}

/// Notes a change, after which there are `count`, and tells every node.
async fn changed(tx: &Transaction, before: Changes, count: u64) -> Result<u64, StoreError> {
    let version = before.version + 1;
    tx.set(&version_key(), &Changes { version, count }.encode_to_vec());
    for (epoch, _) in registry::registered(tx).await? {
        registry::ring(tx, epoch);
    }
    Ok(version)
}

/// Adds a certificate, or puts it in the place of the one that has its name. Whether it is any good
/// is for the caller to check; its bytes have to fit [`limits::CERTIFICATE_RECORD_BYTES_MAX`].
///
/// # Errors
/// [`StoreError`].
pub async fn add(
    tx: &Transaction,
    name: &str,
    chain: &[Vec<u8>],
    key: &Zeroizing<Vec<u8>>,
    now: Timestamp,
) -> Result<Added, StoreError> {
    let before = changes(tx.get(&version_key()).await?)?;
    let held = tx.get(&key_of(name)).await?;
    if held.is_none() && before.count >= limits::CERTIFICATES_MAX as u64 {
        return Ok(Added::TooMany);
    }
    let count = before.count + u64::from(held.is_none());
    let version = changed(tx, before, count).await?;
    let record =
        Record { chain: chain.to_vec(), key: key.to_vec(), added_ms: now.unix_ms(), version };
    tx.set(&key_of(name), &Zeroizing::new(record.encode_to_vec()));
    Ok(if held.is_some() { Added::Replaced } else { Added::New })
}

/// Removes a certificate.
///
/// # Errors
/// [`StoreError`].
pub async fn remove(tx: &Transaction, name: &str) -> Result<Removed, StoreError> {
    if tx.get(&key_of(name)).await?.is_none() {
        return Ok(Removed::Unknown);
    }
    let before = changes(tx.get(&version_key()).await?)?;
    changed(tx, before, before.count.saturating_sub(1)).await?;
    tx.clear(&key_of(name));
    Ok(Removed::Yes)
}

/// All certificates, read in transactions of bounded rows; what is changed meanwhile is read again.
///
/// # Errors
/// [`StoreError`].
pub async fn all(db: &Database) -> Result<Certificates, StoreError> {
    'again: loop {
        let mut found = Certificates::default();
        let mut from = None;
        loop {
            let start = from.as_deref();
            let (version, page) = db.run(|tx| async move { page(&tx, start).await }).await?;
            if start.is_none() {
                found.version = version;
            } else if version != found.version {
                continue 'again;
            }
            found.all.extend(page.rows);
            match page.next {
                Some(next) => from = Some(next),
                None => return Ok(found),
            }
        }
    }
}

/// Some of them, from a key on, and the version that they are of.
async fn page(
    tx: &Transaction,
    from: Option<&[u8]>,
) -> Result<(u64, Slice<Certificate>), StoreError> {
    let version = version(tx).await?;
    let family = pack(&(Subspace::Secret as u64, "certificate"));
    let range = (family.clone(), [&family[..], &[0xff]].concat());
    let page = slice(tx, range, from, |row| {
        let (_, _, name): (u64, String, String) = tuple::unpack(&row.key)
            .map_err(|_| StoreError::damaged("certificate", "a key without its name"))?;
        let record =
            Record::decode(row.value).map_err(|error| StoreError::damaged("certificate", error))?;
        Ok(Certificate {
            name,
            chain: record.chain,
            key: Zeroizing::new(record.key),
            added: Timestamp::from_unix_ms(record.added_ms),
            version: record.version,
        })
    });
    Ok((version, page.await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn put(db: &Database, name: &str, key: u8) -> Added {
        let (chain, key) = (&[vec![1, 2], vec![3]], &Zeroizing::new(vec![key]));
        let now = Timestamp::from_unix_ms(7);
        db.run(|tx| async move { add(&tx, name, chain, key, now).await }).await.unwrap()
    }

    #[tokio::test]
    async fn certificates_come_and_go_and_each_change_counts() {
        let db = Database::memory(env::Env::system());
        assert_eq!(all(&db).await.unwrap(), Certificates::default());
        assert_eq!(put(&db, "b", 1).await, Added::New);
        assert_eq!(put(&db, "a", 2).await, Added::New);
        assert_eq!(put(&db, "b", 3).await, Added::Replaced);
        let held = all(&db).await.unwrap();
        assert_eq!(held.version, 3);
        let told: Vec<_> =
            held.all.iter().map(|it| (&*it.name, it.key.to_vec(), it.version)).collect();
        assert_eq!(told, [("a", vec![2], 2), ("b", vec![3], 3)]);
        assert_eq!(held.all[0].chain, [vec![1, 2], vec![3]]);
        let gone = |name| db.run(move |tx| async move { remove(&tx, name).await });
        assert_eq!(gone("a").await.unwrap(), Removed::Yes);
        assert_eq!(gone("a").await.unwrap(), Removed::Unknown);
        let held = all(&db).await.unwrap();
        assert_eq!((held.version, held.all.len()), (4, 1));
    }

    #[tokio::test]
    async fn their_number_has_a_bound_and_all_are_read() {
        let db = Database::memory(env::Env::system());
        for number in 0..limits::CERTIFICATES_MAX {
            assert_eq!(put(&db, &format!("c{number:04}"), 1).await, Added::New);
        }
        assert_eq!(put(&db, "more", 1).await, Added::TooMany);
        assert_eq!(put(&db, "c0007", 2).await, Added::Replaced);
        let held = all(&db).await.unwrap().all;
        assert_eq!(held.len(), limits::CERTIFICATES_MAX);
        assert!(held.is_sorted_by_key(|it| it.name.clone()));
    }

    #[tokio::test]
    async fn no_key_is_shown() {
        let db = Database::memory(env::Env::system());
        put(&db, "a", 0xab).await;
        let shown = format!("{:?}", all(&db).await.unwrap());
        assert!(shown.contains("\"a\"") && !shown.contains("171"), "{shown}");
    }
}
