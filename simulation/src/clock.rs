//! Virtual time: Tokio's paused clock, which jumps to the next timer when nothing else can run.
//!
//! Timers have Tokio's grain of a millisecond: a shorter sleep takes one.

#![expect(
    clippy::disallowed_methods,
    reason = "this file is the backend's clock; Tokio's is the one that jumps"
)]

use std::{pin::Pin, time::Duration};

use env::{Monotonic, Timestamp};
use tokio::{
    runtime::Handle,
    time::{Instant, Sleep},
};

/// What every wall clock shows at virtual time zero: 2030-01-01T00:00:00Z.
pub const EPOCH: Timestamp = Timestamp::from_unix_seconds(1_893_456_000);

/// The world's clock.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    runtime: Handle,
    start: Instant,
}

impl Clock {
    pub(crate) fn new(runtime: Handle) -> Self {
        let start = {
            let _inside = runtime.enter();
            Instant::now()
        };
        Self { runtime, start }
    }

    pub(crate) fn now(&self) -> Monotonic {
        // Outside the runtime, `Instant::now` is the machine's.
        let _inside = self.runtime.enter();
        Monotonic::from_start(Instant::now() - self.start)
    }

    pub(crate) fn wall(&self) -> Timestamp {
        let elapsed = self.now().since_start().as_millis();
        let elapsed = i64::try_from(elapsed).expect("a simulation takes less than an aeon");
        Timestamp::from_unix_ms(EPOCH.unix_ms().saturating_add(elapsed))
    }

    pub(crate) fn sleep(&self, duration: Duration) -> Pin<Box<Sleep>> {
        let _inside = self.runtime.enter();
        Box::pin(tokio::time::sleep(duration))
    }

    pub(crate) fn sleep_until(&self, deadline: Monotonic) -> Pin<Box<Sleep>> {
        let _inside = self.runtime.enter();
        Box::pin(tokio::time::sleep_until(self.start + deadline.since_start()))
    }

    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }
}
