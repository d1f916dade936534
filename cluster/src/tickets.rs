//! The keys of TLS session tickets: a client resumes on whichever node it meets next.
//!
//! | key | value | lifecycle |
//! |---|---|---|
//! | (Secret, "ticket", number) | `Record` | made by the first node that finds the newest too old; cleared once no ticket under it can be in use |
//!
//! Whoever reads the store can read these keys, as it can read the mail that they protect on its
//! way.

use std::time::Duration;

use env::{Env, Timestamp};
use kv::{
    RangeQuery, Subspace, Transaction,
    tuple::{self, pack},
};
use mail::StoreError;
use prost::Message;
use zeroize::Zeroizing;

/// How long a ticket can be resumed (RFC 8446 §4.6.1: at most seven days).
pub const TICKET_LIFE: Duration = Duration::from_hours(24);

/// How old the newest key becomes before there is another.
pub const ROTATION: Duration = Duration::from_hours(12);

/// How long a key is known before tickets are sealed with it, so that every node has it by then.
pub const SEALS_AFTER: Duration = Duration::from_mins(2);

/// How often a node looks for new keys: well within [`SEALS_AFTER`].
pub const LOOK_PERIOD: Duration = Duration::from_secs(30);

/// A key as it is stored.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Record {
    /// 32 random bytes.
    #[prost(bytes = "vec", tag = "1")]
    secret: Vec<u8>,
    /// When it was made, by its maker's clock, milliseconds since 1970.
    #[prost(int64, tag = "2")]
    made_ms: i64,
}

/// A key.
#[derive(Clone)]
pub struct TicketKey {
    /// Tells it from others; ascending.
    pub number: u64,
    /// Random.
    pub secret: Zeroizing<[u8; 32]>,
    /// When it was made, by its maker's clock.
    pub made: Timestamp,
}

impl std::fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TicketKey").field("number", &self.number).finish_non_exhaustive()
    }
}

/// The keys that tickets may be under, oldest first; makes one where the newest is too old, and
/// clears what no ticket is under any more.
///
/// # Errors
/// [`StoreError`].
pub async fn keys(db: &kv::Database, env: &Env) -> Result<Vec<TicketKey>, StoreError> {
    let now = env.wall();
    let fresh = Zeroizing::new(env.random_array::<32>());
    let fresh = &fresh;
    db.run(|tx| async move { rotated(&tx, now, fresh).await }).await
}

async fn rotated(
    tx: &Transaction,
    now: Timestamp,
    fresh: &Zeroizing<[u8; 32]>,
) -> Result<Vec<TicketKey>, StoreError> {
    let prefix = pack(&(Subspace::Secret as u64, "ticket"));
    let mut keys = Vec::new();
    for row in tx.range(RangeQuery::prefix(&prefix)).collect().await? {
        let damaged = |what: &str| StoreError::damaged("ticket key", what);
        let (_, _, number): (u64, String, u64) =
            tuple::unpack(&row.key).map_err(|_| damaged("a key without its number"))?;
        let record = Record::decode(&row.value[..])
            .map_err(|error| StoreError::damaged("ticket key", error))?;
        let secret = record.secret.try_into().map_err(|_| damaged("not 32 bytes"))?;
        let made = Timestamp::from_unix_ms(record.made_ms);
        if age(now, made) > ROTATION + TICKET_LIFE {
            tx.clear(&row.key);
        } else {
            keys.push(TicketKey { number, secret: Zeroizing::new(secret), made });
        }
    }
    let newest = keys.last().map(|key| (key.number, key.made));
    if newest.is_none_or(|(_, made)| age(now, made) >= ROTATION) {
        let key = TicketKey {
            // By the clock, so that a number is not used again once all keys have gone.
            number: newest
                .map_or(0, |(number, _)| number + 1)
                .max(u64::try_from(now.unix_ms()).unwrap_or(0)),
            secret: fresh.clone(),
            made: now,
        };
        let record = Record { secret: key.secret.to_vec(), made_ms: now.unix_ms() };
        tx.set(&pack(&(Subspace::Secret as u64, "ticket", key.number)), &record.encode_to_vec());
        keys.push(key);
    }
    Ok(keys)
}

/// Time from `made` to `now`; zero where `made` is in the future.
pub fn age(now: Timestamp, made: Timestamp) -> Duration {
    let ms = now.unix_ms().saturating_sub(made.unix_ms());
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use kv::Database;

    use super::*;

    const HOUR: i64 = 3_600_000;

    async fn numbers(db: &Database, hours: i64, fresh: u8) -> Vec<u64> {
        let fresh = &Zeroizing::new([fresh; 32]);
        let now = Timestamp::from_unix_ms(1_000 + hours * HOUR);
        let keys = db.run(|tx| async move { rotated(&tx, now, fresh).await }).await.unwrap();
        keys.into_iter().map(|key| key.number - 1_000).collect()
    }

    #[tokio::test]
    async fn keys_come_and_go() {
        let db = Database::memory(Env::system());
        let hour = u64::try_from(HOUR).unwrap();
        assert_eq!(numbers(&db, 0, 1).await, [0]);
        assert_eq!(numbers(&db, 11, 2).await, [0]);
        assert_eq!(numbers(&db, 12, 3).await, [0, 12 * hour]);
        assert_eq!(numbers(&db, 13, 4).await, [0, 12 * hour]);
        assert_eq!(numbers(&db, 30, 5).await, [0, 12 * hour, 30 * hour]);
        assert_eq!(numbers(&db, 37, 6).await, [12 * hour, 30 * hour]);
        assert_eq!(numbers(&db, 500, 7).await, [500 * hour]);
    }

    #[tokio::test]
    async fn two_who_make_the_first_key_agree() {
        let db = Database::memory(Env::system());
        let (one, two) = (db.begin(), db.begin());
        let now = Timestamp::from_unix_ms(1_000);
        rotated(&one, now, &Zeroizing::new([1; 32])).await.unwrap();
        rotated(&two, now, &Zeroizing::new([2; 32])).await.unwrap();
        one.commit().await.unwrap();
        assert!(matches!(two.commit().await, Err(kv::Error::Conflict)));
    }
}
