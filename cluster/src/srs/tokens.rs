//! Senders of forwarded mail that are too long to stand in the rewritten address: kept for as long as
//! bounces come back, under the token that the address has.
//!
//! | key | value | lifecycle |
//! |---|---|---|
//! | (SrsToken, "t", day, id) | `Record` | with the first forward of that sender that day; cleared with its day by [`forget_before`] |
//! | (SrsToken, "n", day, domain) | tokens of a forwarding domain, 8 bytes, by atomic addition | as they |
//!
//! The id follows from the sender, the domain and the day (`origin::Srs`), so that who writes a token
//! again, or does not know whether it was written, writes the same one. Days are numbered since 1970.

use kv::{
    AtomicOp, RangeQuery, Subspace, Transaction,
    tuple::{self, pack},
};
use mail::StoreError;
use prost::Message;

/// Tokens that one transaction of [`some`] reads: a sender has up to 320 bytes.
pub const ROWS_MAX: usize = 500;

/// A sender as it is kept.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Record {
    /// The envelope's sender as the message came with it.
    #[prost(string, tag = "1")]
    sender: String,
    /// The domain that forwards.
    #[prost(string, tag = "2")]
    domain: String,
}

/// Whether a sender is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It is.
    Yes,
    /// The domain has as many that day as it may.
    TooMany,
}

/// Keeps a sender whose mail `domain` forwards; at most `most` of a day and domain.
///
/// # Errors
/// [`StoreError`].
pub async fn keep(
    tx: &Transaction,
    (day, id): (u64, &str),
    sender: &str,
    domain: &str,
    most: u64,
) -> Result<Kept, StoreError> {
    let (key, number) = (token_key(day, id), number_key(day, domain));
    if tx.get(&key).await?.is_some() {
        return Ok(Kept::Yes);
    }
    let held = tx.get_snapshot(&number).await?;
    let held = held.and_then(|value| value[..].try_into().ok()).map_or(0, u64::from_le_bytes);
    if held >= most {
        return Ok(Kept::TooMany);
    }
    let record = Record { sender: sender.to_owned(), domain: domain.to_owned() };
    tx.set(&key, &record.encode_to_vec());
    tx.atomic(&number, &1_u64.to_le_bytes(), AtomicOp::Add);
    Ok(Kept::Yes)
}

/// The sender that is kept under a token for `domain`; `None` where there is none, or not any more.
///
/// # Errors
/// [`StoreError`].
pub async fn sender(
    tx: &Transaction,
    (day, id): (u64, &str),
    domain: &str,
) -> Result<Option<String>, StoreError> {
    let value = tx.get_snapshot(&token_key(day, id)).await?;
    let record = value.map(|value| decode(&value)).transpose()?;
    Ok(record.filter(|record| record.domain == domain).map(|record| record.sender))
}

/// Forgets what is of days before `day`.
pub fn forget_before(tx: &Transaction, day: u64) {
    for family in ["t", "n"] {
        let (begin, _) = tuple::range_of(pack(&(Subspace::SrsToken as u64, family)));
        tx.clear_range(&begin, &pack(&(Subspace::SrsToken as u64, family, day)));
    }
}

/// Forgets one.
pub fn forget(tx: &Transaction, (day, id): (u64, &str)) {
    tx.clear(&token_key(day, id));
}

/// A token, and whether its sender can be read.
pub type Found = (u64, String, Result<(), StoreError>);

/// Tokens behind one that was seen, at most [`ROWS_MAX`] of them.
///
/// # Errors
/// [`StoreError`]: a key that is no token's.
pub async fn some(
    tx: &Transaction,
    after: Option<&(u64, String)>,
) -> Result<Vec<Found>, StoreError> {
    let (begin, end) = tuple::range_of(pack(&(Subspace::SrsToken as u64, "t")));
    let begin = after.map_or(begin, |(day, id)| [token_key(*day, id), vec![0]].concat());
    let query = RangeQuery::new(begin, end).limit(ROWS_MAX).snapshot();
    let mut found = Vec::new();
    for row in tx.range(query).collect().await? {
        let (_, _, day, id): (u64, String, u64, String) = tuple::unpack(&row.key)
            .map_err(|_| StoreError::damaged("SRS token", "a key without its day"))?;
        found.push((day, id, decode(&row.value).map(|_| ())));
    }
    Ok(found)
}

fn decode(value: &[u8]) -> Result<Record, StoreError> {
    Record::decode(value).map_err(|error| StoreError::damaged("SRS token", error))
}

fn token_key(day: u64, id: &str) -> Vec<u8> {
    pack(&(Subspace::SrsToken as u64, "t", day, id))
}

fn number_key(day: u64, domain: &str) -> Vec<u8> {
    pack(&(Subspace::SrsToken as u64, "n", day, domain))
}

#[cfg(test)]
mod tests {
    use env::Env;
    use kv::Database;

    use super::*;

    async fn kept(db: &Database, token: (u64, &str), sender: &str, domain: &str) -> Kept {
        db.run(|tx| async move { keep(&tx, token, sender, domain, 2).await }).await.unwrap()
    }

    async fn found(db: &Database, token: (u64, &str), domain: &str) -> Option<String> {
        db.run(|tx| async move { sender(&tx, token, domain).await }).await.unwrap()
    }

    #[tokio::test]
    async fn senders_are_kept_up_to_a_number_and_for_a_time() {
        let db = Database::memory(Env::system());
        for _ in 0..3 {
            assert_eq!(kept(&db, (5, "a"), "x@y.example", "one.example").await, Kept::Yes);
        }
        assert_eq!(kept(&db, (5, "b"), "y@y.example", "one.example").await, Kept::Yes);
        assert_eq!(kept(&db, (5, "c"), "z@y.example", "one.example").await, Kept::TooMany);
        assert_eq!(kept(&db, (5, "d"), "z@y.example", "two.example").await, Kept::Yes);
        assert_eq!(kept(&db, (6, "e"), "z@y.example", "one.example").await, Kept::Yes);
        let known = Some("x@y.example".to_owned());
        assert_eq!(found(&db, (5, "a"), "one.example").await, known);
        assert_eq!(found(&db, (5, "a"), "two.example").await, None);
        assert_eq!(found(&db, (5, "c"), "one.example").await, None);
        let forget = |tx| async move {
            forget_before(&tx, 6);
            Ok::<_, StoreError>(())
        };
        db.run(forget).await.unwrap();
        assert_eq!(found(&db, (5, "a"), "one.example").await, None);
        assert!(found(&db, (6, "e"), "one.example").await.is_some());
        let rows = RangeQuery::prefix(&Subspace::SrsToken.prefix());
        let rows = db.begin().range(rows).collect().await.unwrap();
        assert_eq!(rows.len(), 2, "the counter of the day goes with it");
    }
}
