//! What the salts of names that do not exist are made from: every node answers alike for them, so
//! that nobody learns by asking two which names there are.
//!
//! | key | value | lifecycle |
//! |---|---|---|
//! | (Secret, "salt") | 32 random bytes | made by the first node; never changes |

use env::Env;
use kv::{Database, Subspace, tuple::pack};
use mail::StoreError;
use zeroize::Zeroizing;

/// The key; makes it where there is none.
///
/// # Errors
/// [`StoreError`].
pub async fn salt_key(db: &Database, env: &Env) -> Result<Zeroizing<[u8; 32]>, StoreError> {
    let fresh = &Zeroizing::new(env.random_array::<32>());
    db.run(|tx| async move {
        let key = pack(&(Subspace::Secret as u64, "salt"));
        let Some(held) = tx.get(&key).await? else {
            tx.set(&key, &fresh[..]);
            return Ok(fresh.clone());
        };
        let held = held[..].try_into().map_err(|_| StoreError::damaged("salt", "not 32 bytes"))?;
        Ok(Zeroizing::new(held))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_asks_gets_the_same() {
        let env = Env::system();
        let db = Database::memory(env.clone());
        let first = salt_key(&db, &env).await.unwrap();
        assert_eq!(salt_key(&db, &env).await.unwrap(), first);
        assert_ne!(salt_key(&Database::memory(env.clone()), &env).await.unwrap(), first);
    }
}
