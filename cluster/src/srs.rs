//! Secrets that rewritten senders of forwarded mail are made with.
//!
//! | key | value | lifecycle |
//! |---|---|---|
//! | (SrsSecret, number) | `rotating::Record` | made by the first node that forwards once the newest is too old; cleared when no address under it is taken any more |
//!
//! A secret is known for some time before addresses are made with it, so that every node takes them.

pub mod tokens;

use std::time::Duration;

use env::{Env, Timestamp};
use kv::{Subspace, Transaction, tuple::pack};
use mail::StoreError;
use zeroize::Zeroizing;

use crate::rotating::{Rotating, age};

/// How old the newest secret becomes before there is another.
pub const ROTATION: Duration = Duration::from_hours(24 * 30);

/// How long addresses are taken that were made with a secret at the end of its time: as long as bounces
/// come back, and a day for clocks that differ.
pub const TAKEN_FOR: Duration = Duration::from_hours(24 * 22);

/// How often a node that forwards reads the secrets again.
pub const LOOK_PERIOD: Duration = Duration::from_mins(1);

/// How long a secret is known before addresses are made with it: more than one look.
pub const MAKES_AFTER: Duration = Duration::from_mins(3);

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
    let rotating = Rotating {
        prefix: pack(&(Subspace::SrsSecret as u64,)),
        name: "SRS secret",
        rotation: ROTATION,
        kept: ROTATION + MAKES_AFTER + TAKEN_FOR,
    };
    let held = rotating.secrets(tx, now, fresh).await?;
    // The newest that everybody knows; where there is none, the first there was.
    let known = held.iter().rposition(|secret| age(now, secret.made) >= MAKES_AFTER);
    let mut secrets: Vec<_> = held.into_iter().map(|secret| secret.bytes).collect();
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
