//! Secrets that rewritten senders of forwarded mail are made with.
//!
//! | key | value | lifecycle |
//! |---|---|---|
//! | (SrsSecret, number) | `Record` | made by the first node that forwards once the newest is too old; cleared when no address under it is taken any more |
//!
//! A secret is known for some time before addresses are made with it, so that every node takes them.

pub mod tokens;

use std::time::Duration;

use env::{Env, Timestamp};
use kv::{
    RangeQuery, Subspace, Transaction,
    tuple::{self, pack},
};
use mail::StoreError;
use prost::Message;
use zeroize::Zeroizing;

use crate::tickets::age;

/// How old the newest secret becomes before there is another.
pub const ROTATION: Duration = Duration::from_hours(24 * 30);

/// How long addresses are taken that were made with a secret at the end of its time: as long as bounces
/// come back, and a day for clocks that differ.
pub const TAKEN_FOR: Duration = Duration::from_hours(24 * 22);

/// How often a node that forwards reads the secrets again.
pub const LOOK_PERIOD: Duration = Duration::from_mins(1);

/// How long a secret is known before addresses are made with it: more than one look.
pub const MAKES_AFTER: Duration = Duration::from_mins(3);

/// A secret as it is stored.
#[derive(Clone, PartialEq, Eq, prost::Message)]
#[prost(skip_debug)]
struct Record {
    /// 32 random bytes.
    #[prost(bytes = "vec", tag = "1")]
    secret: Vec<u8>,
    /// When it was made, by its maker's clock, milliseconds since 1970.
    #[prost(int64, tag = "2")]
    made_ms: i64,
}

/// The secrets that addresses are taken under; the first one makes them. Makes one where the newest is
/// too old, and clears what has had its time.
///
/// # Errors
/// [`StoreError`].
pub async fn secrets(db: &kv::Database, env: &Env) -> Result<Vec<Zeroizing<Vec<u8>>>, StoreError> {
    let now = env.wall();
    let fresh = Zeroizing::new(env.random_array::<32>());
    let fresh = &fresh;
    db.run(|tx| async move { rotated(&tx, now, fresh).await }).await
}

async fn rotated(
    tx: &Transaction,
    now: Timestamp,
    fresh: &Zeroizing<[u8; 32]>,
) -> Result<Vec<Zeroizing<Vec<u8>>>, StoreError> {
    let prefix = pack(&(Subspace::SrsSecret as u64,));
    let mut held = Vec::new();
    for row in tx.range(RangeQuery::prefix(&prefix)).collect().await? {
        let (_, number): (u64, u64) = tuple::unpack(&row.key)
            .map_err(|_| StoreError::damaged("SRS secret", "a key without its number"))?;
        let record = Record::decode(&row.value[..])
            .map_err(|error| StoreError::damaged("SRS secret", error))?;
        let made = Timestamp::from_unix_ms(record.made_ms);
        if age(now, made) > ROTATION + MAKES_AFTER + TAKEN_FOR {
            tx.clear(&row.key);
        } else {
            held.push((number, made, Zeroizing::new(record.secret)));
        }
    }
    let newest = held.last().map(|(number, made, _)| (*number, *made));
    if newest.is_none_or(|(_, made)| age(now, made) >= ROTATION) {
        // By the clock, so that a number is not used again once all secrets have gone.
        let number = newest.map_or(0, |(number, _)| number + 1);
        let number = number.max(u64::try_from(now.unix_ms()).unwrap_or(0));
        let record = Record { secret: fresh.to_vec(), made_ms: now.unix_ms() };
        let value = Zeroizing::new(record.encode_to_vec());
        tx.set(&pack(&(Subspace::SrsSecret as u64, number)), &value);
        held.push((number, now, Zeroizing::new(fresh.to_vec())));
    }
    // The newest that everybody knows; where there is none, the first there was.
    let known = held.iter().rposition(|(_, made, _)| age(now, *made) >= MAKES_AFTER);
    let mut secrets: Vec<_> = held.into_iter().map(|(_, _, secret)| secret).collect();
    let makes = secrets.remove(known.unwrap_or(0));
    secrets.insert(0, makes);
    Ok(secrets)
}

#[cfg(test)]
mod tests {
    use kv::Database;

    use super::*;

    async fn first_bytes(db: &Database, hours: i64, fresh: u8) -> Vec<u8> {
        let fresh = &Zeroizing::new([fresh; 32]);
        let now = Timestamp::from_unix_ms(1_000 + hours * 3_600_000);
        let secrets = db.run(|tx| async move { rotated(&tx, now, fresh).await }).await.unwrap();
        secrets.iter().map(|secret| secret[0]).collect()
    }

    #[tokio::test]
    async fn secrets_come_and_go_and_make_once_they_are_known() {
        let db = Database::memory(Env::system());
        assert_eq!(first_bytes(&db, 0, 1).await, [1]);
        assert_eq!(first_bytes(&db, 24 * 29, 2).await, [1]);
        assert_eq!(first_bytes(&db, 24 * 30, 3).await, [1, 3]);
        assert_eq!(first_bytes(&db, 24 * 30 + 1, 4).await, [3, 1]);
        assert_eq!(first_bytes(&db, 24 * 52, 5).await, [3, 1]);
        assert_eq!(first_bytes(&db, 24 * 52 + 1, 5).await, [3]);
        assert_eq!(first_bytes(&db, 24 * 500, 6).await, [6]);
    }
}
