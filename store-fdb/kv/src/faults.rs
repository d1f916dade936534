//! Fault injection: everything that a store can do to its callers, by chance and on command.
//!
//! Randomness and time come from the handle's [`Env`] alone, so that a seed replays its faults.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use env::Env;

use crate::{Error, Result, limits::UNREACHABLE_WAIT};

/// How often something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Probability(u32);

impl Probability {
    /// It does not happen.
    pub const NEVER: Self = Self(0);
    /// It happens every time.
    pub const ALWAYS: Self = Self(1_000_000);

    /// It happens `times` in a million; at most every time.
    pub const fn per_million(times: u32) -> Self {
        Self(if times > 1_000_000 { 1_000_000 } else { times })
    }
}

/// What reaches the store and what comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reach {
    /// Everything.
    #[default]
    Connected,
    /// Nothing: operations wait for some seconds and fail.
    CutOff,
    /// Requests arrive, replies do not: a commit is done and its result unknown.
    RepliesLost,
}

/// Which faults a database handle injects.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Faults {
    /// A commit is refused with [`Error::Conflict`].
    pub conflict: Probability,
    /// A commit's result is unknown; a coin decides whether it was applied.
    pub commit_unknown: Probability,
    /// A read is refused with [`Error::TooOld`].
    pub too_old: Probability,
    /// A read is refused with [`Error::FutureVersion`].
    pub future_version: Probability,
    /// A read takes up to [`Faults::slow_read_max`].
    pub slow_read: Probability,
    /// How long a slow read takes at most.
    pub slow_read_max: Duration,
    /// How long a commit takes at least: half of it before it happens, half after.
    pub commit_time_min: Duration,
    /// How long a commit takes at most.
    pub commit_time_max: Duration,
    /// A watch is never told.
    pub lost_watch: Probability,
    /// Whether the store can be reached.
    pub reach: Reach,
}

/// Changes a database handle's faults while it is in use.
#[derive(Clone)]
pub struct FaultHandle {
    injector: Arc<Injector>,
}

impl FaultHandle {
    /// Injects `faults` from now on.
    pub fn set(&self, faults: Faults) {
        *self.injector.lock() = faults;
    }

    /// The faults being injected.
    pub fn faults(&self) -> Faults {
        self.injector.lock().clone()
    }

    /// Changes some of the faults.
    pub fn update(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.injector.lock());
    }

    /// Injects nothing from now on.
    pub fn clear(&self) {
        self.set(Faults::default());
    }
}

/// A database handle's faults.
pub(crate) struct Injector {
    env: Env,
    faults: Mutex<Faults>,
}

impl Injector {
    pub(crate) fn new(env: Env, faults: Faults) -> Arc<Self> {
        Arc::new(Self { env, faults: Mutex::new(faults) })
    }

    pub(crate) fn handle(self: &Arc<Self>) -> FaultHandle {
        FaultHandle { injector: Arc::clone(self) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Faults> {
        self.faults.lock().expect("nothing panics while it holds the faults")
    }

    fn happens(&self, probability: Probability) -> bool {
        // No draw where nothing is asked for: production pays nothing.
        probability > Probability::NEVER
            && self.env.random_below(1_000_000) < u64::from(probability.0)
    }

    /// Waits while `refused` says so, for some seconds.
    async fn reached(&self, refused: impl Fn(Reach) -> bool, error: Error) -> Result<()> {
        let deadline = self.env.monotonic() + UNREACHABLE_WAIT;
        while refused(self.lock().reach) {
            if self.env.monotonic() >= deadline {
                return Err(error);
            }
            self.env.sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Half of the time that a commit takes.
    async fn half_a_commit(&self, faults: &Faults) {
        if faults.commit_time_max > Duration::ZERO {
            let spread = faults.commit_time_max.saturating_sub(faults.commit_time_min);
            let spread = u64::try_from(spread.as_micros()).unwrap_or(u64::MAX - 1);
            let jitter = Duration::from_micros(self.env.random_below(spread + 1));
            self.env.sleep((faults.commit_time_min + jitter) / 2).await;
        }
    }

    pub(crate) async fn before_read(&self) -> Result<()> {
        let faults = self.lock().clone();
        if faults == Faults::default() {
            return Ok(());
        }
        self.reached(|reach| reach != Reach::Connected, Error::Unavailable).await?;
        if self.happens(faults.slow_read) {
            let most = u64::try_from(faults.slow_read_max.as_micros()).unwrap_or(u64::MAX);
            self.env.sleep(Duration::from_micros(self.env.random_below(most))).await;
        }
        if self.happens(faults.too_old) {
            return Err(Error::TooOld);
        }
        if self.happens(faults.future_version) { Err(Error::FutureVersion) } else { Ok(()) }
    }

    pub(crate) async fn before_commit(&self) -> Result<()> {
        let faults = self.lock().clone();
        self.half_a_commit(&faults).await;
        // The client cannot tell a request that was lost from a reply that was.
        self.reached(|reach| reach == Reach::CutOff, Error::CommitUnknown).await?;
        if self.happens(faults.conflict) {
            return Err(Error::Conflict);
        }
        // Half of the unknown commits are not applied; the other half are told after.
        if self.happens(Probability(faults.commit_unknown.0 / 2)) {
            return Err(Error::CommitUnknown);
        }
        Ok(())
    }

    pub(crate) async fn after_commit(&self) -> Result<()> {
        let faults = self.lock().clone();
        self.half_a_commit(&faults).await;
        self.reached(|reach| reach != Reach::Connected, Error::CommitUnknown).await?;
        // Of those that came this far, so that both halves are as likely.
        let half = u64::from(faults.commit_unknown.0 / 2);
        let rest = half * 1_000_000 / (1_000_000 - half);
        if self.happens(Probability(u32::try_from(rest).unwrap_or(u32::MAX))) {
            return Err(Error::CommitUnknown);
        }
        Ok(())
    }

    pub(crate) fn loses_watch(&self) -> bool {
        let probability = self.lock().lost_watch;
        self.happens(probability)
    }
}
