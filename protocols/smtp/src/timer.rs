//! When the peer must have done something.
//!
//! Invariant: time never goes back, and a later deadline is announced only once the earlier one
//! has come: a busy session announces seldom.

use std::time::Duration;

#[derive(Debug, Default)]
pub(crate) struct Timer {
    now: Duration,
    waiting_since: Duration,
    announced: Option<Duration>,
}

impl Timer {
    pub(crate) fn observe(&mut self, now: Duration) {
        self.now = self.now.max(now);
    }

    /// The peer did what it was waited for.
    pub(crate) fn restart(&mut self) {
        self.waiting_since = self.now;
    }

    /// When the peer's patience bound ends.
    pub(crate) fn after(&self, timeout: Duration) -> Duration {
        self.waiting_since.saturating_add(timeout)
    }

    /// The announced time has come, if it has; whether `deadline` has, too.
    pub(crate) fn reached(&mut self, deadline: Duration) -> bool {
        if self.announced.is_some_and(|at| at <= self.now) {
            self.announced = None;
        }
        deadline <= self.now
    }

    /// What to announce, if no announcement as early stands.
    pub(crate) fn announce(&mut self, deadline: Duration) -> Option<Duration> {
        if self.announced.is_some_and(|at| at <= deadline) {
            return None;
        }
        self.announced = Some(deadline);
        self.announced
    }
}
