//! Versions: about a million a second, never back.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use env::{Env, Monotonic};

use crate::limits::VERSIONS_PER_SECOND;

/// A version for every moment since the engine was opened.
pub(crate) struct VersionClock {
    env: Env,
    opened: Monotonic,
    base: u64,
    leapt: AtomicU64,
}

impl VersionClock {
    /// A clock that stands at `base` now.
    pub(crate) fn new(env: Env, base: u64) -> Self {
        Self { opened: env.monotonic(), env, base, leapt: AtomicU64::new(0) }
    }

    /// The version of this moment.
    pub(crate) fn now(&self) -> u64 {
        let elapsed = self.env.monotonic().saturating_since(self.opened).as_nanos();
        let versions = elapsed / u128::from(1_000_000_000 / VERSIONS_PER_SECOND);
        let leapt = self.leapt.load(Relaxed);
        let base = self.base.saturating_add(leapt);
        base.saturating_add(u64::try_from(versions).unwrap_or(u64::MAX))
    }

    /// Skips so many versions, as a recovery of the store does.
    pub(crate) fn leap(&self, versions: u64) {
        self.leapt.fetch_add(versions, Relaxed);
    }
}
