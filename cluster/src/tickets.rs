//! The keys of TLS session tickets: a client resumes on whichever node it meets next.
//!
//! | key | value | lifecycle |
//! |---|---|---|
//! | (Secret, "ticket", number) | `rotating::Record` | made by the first node that finds the newest too old; cleared once no ticket under it can be in use |
//!
//! Whoever reads the store can read these keys, as it can read the mail that they protect on its
//! way.

use std::time::Duration;

use env::{Env, Timestamp};
use kv::{Subspace, Transaction, tuple::pack};
use mail::StoreError;
use zeroize::Zeroizing;

pub use crate::rotating::age;
use crate::rotating::{Rotating, Secret};

/// How long a ticket can be resumed (RFC 8446 §4.6.1: at most seven days).
pub const TICKET_LIFE: Duration = Duration::from_hours(24);

/// How old the newest key becomes before there is another.
pub const ROTATION: Duration = Duration::from_hours(12);

/// How long a key is known before tickets are sealed with it, so that every node has it by then.
pub const SEALS_AFTER: Duration = Duration::from_mins(2);

/// How often a node looks for new keys: well within [`SEALS_AFTER`].
pub const LOOK_PERIOD: Duration = Duration::from_secs(30);

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
    let rotating = Rotating {
        prefix: pack(&(Subspace::Secret as u64, "ticket")),
        name: "ticket key",
        rotation: ROTATION,
        kept: ROTATION + TICKET_LIFE,
    };
    let mut keys = Vec::new();
    for Secret { number, bytes, made } in rotating.secrets(tx, now, fresh).await? {
        let secret = <[u8; 32]>::try_from(&bytes[..])
            .map_err(|_| StoreError::damaged("ticket key", "not 32 bytes"))?;
        keys.push(TicketKey { number, secret: Zeroizing::new(secret), made });
    }
    Ok(keys)
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
