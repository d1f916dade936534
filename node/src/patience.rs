//! Bounds of what somebody waits for.

use std::future::Future;

use blob::BlobError;
use env::Env;

use crate::limits::BLOB_PATIENCE;

/// One step of writing a message's bytes, within [`BLOB_PATIENCE`]: a blob service that takes a
/// request and then hangs is tried again for longer than a sender waits. The writer is then of no
/// more use.
///
/// # Errors
/// The step's, and [`BlobError::Unavailable`] where the time is over.
pub(crate) async fn blob_step<T>(
    env: &Env,
    step: impl Future<Output = Result<T, BlobError>>,
) -> Result<T, BlobError> {
    env.timeout(BLOB_PATIENCE, step).await.unwrap_or_else(|env::Elapsed| {
        let reason = format!("not done within {} s", BLOB_PATIENCE.as_secs());
        Err(BlobError::Unavailable { operation: "put", reason })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::testing::World;

    #[tokio::test]
    async fn a_step_that_hangs_is_given_up() {
        // Under the test's clock a sleep is over at once.
        let env = Env::new(World::new().await.clock.clone());
        let hangs = std::future::pending::<Result<(), BlobError>>();
        let told = blob_step(&env, hangs).await.unwrap_err();
        assert_eq!(told.to_string(), "blob store: put: not done within 60 s");
        assert_eq!(blob_step(&env, async { Ok(7) }).await.unwrap(), 7);
        let refused = blob_step(&env, async { Err::<(), _>(BlobError::TooLarge) }).await;
        assert!(matches!(refused, Err(BlobError::TooLarge)));
    }
}
