//! Injected faults: what a backend can do to its callers, by chance and on command.
//!
//! Randomness comes from the store's [`Env`] alone, so that a seed replays its faults.

use std::sync::{Arc, Mutex, MutexGuard};

use env::Env;

use crate::BlobError;

/// Which faults a store injects, each so many times in a million calls of the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BlobFaults {
    /// A call fails and nothing was done.
    pub refused: u32,
    /// A call is done and fails all the same.
    pub reply_lost: u32,
    /// A call never ends and nothing was done.
    pub stalled: u32,
}

impl BlobFaults {
    /// Often enough to be every time.
    pub const ALWAYS: u32 = 1_000_000;
}

/// Changes a store's faults while it is in use.
#[derive(Debug, Clone, Default)]
pub struct BlobFaultHandle {
    faults: Arc<Mutex<BlobFaults>>,
}

impl BlobFaultHandle {
    /// Injects `faults` from now on.
    pub fn set(&self, faults: BlobFaults) {
        *self.lock() = faults;
    }

    /// What is injected now.
    pub fn faults(&self) -> BlobFaults {
        *self.lock()
    }

    /// Makes a call of the backend, or not, or does not tell.
    pub(crate) async fn call<T>(
        &self,
        env: &Env,
        operation: &'static str,
        call: impl Future<Output = Result<T, BlobError>>,
    ) -> Result<T, BlobError> {
        let faults = self.faults();
        if faults == BlobFaults::default() {
            return call.await;
        }
        let happens =
            |per_million| env.random_below(u64::from(BlobFaults::ALWAYS)) < u64::from(per_million);
        let fault = BlobError::Unavailable { operation, reason: "injected fault".to_owned() };
        if happens(faults.stalled) {
            std::future::pending::<()>().await;
        }
        if happens(faults.refused) {
            return Err(fault);
        }
        let done = call.await?;
        if happens(faults.reply_lost) { Err(fault) } else { Ok(done) }
    }

    fn lock(&self) -> MutexGuard<'_, BlobFaults> {
        self.faults.lock().expect("nothing panics while it holds the faults")
    }
}
