//! Waiting, for commands that look again and again.

use std::time::Duration;

use env::{Env, Monotonic};

use crate::error::CliError;

/// What waits.
pub(crate) struct Pause {
    runtime: tokio::runtime::Runtime,
    env: Env,
}

impl Pause {
    pub(crate) fn new() -> Result<Self, CliError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| CliError::Process { what: "a runtime", reason: error.to_string() })?;
        Ok(Self { runtime, env: Env::system() })
    }

    pub(crate) fn sleep(&self, time: Duration) {
        self.runtime.block_on(self.env.sleep(time));
    }

    pub(crate) fn now(&self) -> Monotonic {
        self.env.monotonic()
    }
}
