//! [`Database`]: a handle to a store, and the one retry loop.

use std::{
    future::Future,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use env::Env;

#[cfg(feature = "fdb")]
use crate::fdb::FdbDatabase;
use crate::{
    AsKvError, Committed, Counts, Error, FaultHandle, Faults, Transaction,
    counts::Counters,
    faults::Injector,
    limits::{RETRY_DELAY_MAX, RETRY_DELAY_MIN, RETRY_TIME_MAX},
    local::{LocalTransaction, memory::Memory, store::Store},
};

/// How long [`Database::run`] goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Time from the first run after which no further one begins.
    pub time_max: Duration,
    /// Whether a run that is under way when that time is over goes on to its own end.
    pub at_end: AtEnd,
}

/// What becomes of a run that is under way at the end of [`RetryPolicy::time_max`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AtEnd {
    /// It goes on: a commit that a busy store takes long over counts.
    #[default]
    Finish,
    /// It fails with [`Error::TimedOut`], where the store is a cluster that may never answer.
    GiveUp,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { time_max: RETRY_TIME_MAX, at_end: AtEnd::default() }
    }
}

impl RetryPolicy {
    /// For whoever has no more time than this.
    pub const fn within(time_max: Duration) -> Self {
        Self { time_max, at_end: AtEnd::GiveUp }
    }
}

/// What a handle's transactions give way to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Priority {
    /// Nothing.
    #[default]
    Normal,
    /// Everything else, where the store is busy: on FoundationDB batch priority, with the tag
    /// `background`. The local engines make no difference.
    Background,
}

/// A handle to a store. Clones share counters and faults.
#[derive(Clone)]
pub struct Database {
    engine: Engine,
    env: Env,
    retry: RetryPolicy,
    priority: Priority,
    counters: Arc<Counters>,
    faults: Arc<Injector>,
}

/// Where a store's engine is, which decides what a transaction costs beside what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Locality {
    /// In this process: function calls, and a disk that all who wait share.
    Process,
    /// Behind a network: each transaction is several messages between processes.
    Network,
}

#[derive(Clone)]
enum Engine {
    Local(Arc<dyn Store>),
    #[cfg(feature = "fdb")]
    Fdb(FdbDatabase),
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Database")
    }
}

impl Database {
    /// A new, empty store in memory.
    pub fn memory(env: Env) -> Self {
        Self::memory_with_faults(env, Faults::default())
    }

    /// A new, empty store in memory, behind a handle that injects faults.
    pub fn memory_with_faults(env: Env, faults: Faults) -> Self {
        Self::local(Arc::new(Memory::new(env.clone())), env, faults)
    }

    pub(crate) fn local(store: Arc<dyn Store>, env: Env, faults: Faults) -> Self {
        Self::new(Engine::Local(store), env, faults)
    }

    #[cfg(feature = "fdb")]
    pub(crate) fn fdb(database: FdbDatabase, env: Env) -> Self {
        Self::new(Engine::Fdb(database), env, Faults::default())
    }

    fn new(engine: Engine, env: Env, faults: Faults) -> Self {
        let faults = Injector::new(env.clone(), faults);
        let (retry, priority) = (RetryPolicy::default(), Priority::default());
        Self { engine, env, retry, priority, counters: Arc::default(), faults }
    }

    /// Another handle to the same store, with counters and faults of its own: one node's.
    pub fn handle_with_faults(&self, env: Env, faults: Faults) -> Self {
        Self {
            retry: self.retry,
            priority: self.priority,
            ..Self::new(self.engine.clone(), env, faults)
        }
    }

    /// The same handle with another retry policy.
    pub fn with_retry(&self, retry: RetryPolicy) -> Self {
        Self { retry, ..self.clone() }
    }

    /// Another handle with the same faults, whose transactions are counted by themselves.
    pub fn counted_apart(&self) -> Self {
        Self { counters: Arc::default(), ..self.clone() }
    }

    /// The same handle, whose transactions give way to others or do not.
    pub fn with_priority(&self, priority: Priority) -> Self {
        Self { priority, ..self.clone() }
    }

    /// Where the engine is. The memory engine stands in for a cluster, and says so.
    pub fn locality(&self) -> Locality {
        match &self.engine {
            Engine::Local(store) => store.locality(),
            #[cfg(feature = "fdb")]
            Engine::Fdb(_) => Locality::Network,
        }
    }

    /// Changes the faults of this handle and its clones. The fdb engine injects none.
    pub fn faults(&self) -> FaultHandle {
        self.faults.handle()
    }

    /// Skips versions on the memory engine, for all handles, as a recovery of a FoundationDB cluster
    /// does: what has begun is too old. Other engines go on as they are.
    pub fn leap_versions(&self, versions: u64) {
        match &self.engine {
            Engine::Local(store) => store.leap(versions),
            #[cfg(feature = "fdb")]
            Engine::Fdb(_) => {}
        }
    }

    /// What this handle and its clones have done.
    pub fn counts(&self) -> Counts {
        self.counters.snapshot()
    }

    /// Begins a transaction. For what the retry loop is not made for; nearly everything else
    /// goes through [`Database::run`].
    pub fn begin(&self) -> Transaction {
        self.begin_within(self.retry.time_max)
    }

    /// The same with so much of the retry policy's time left.
    fn begin_within(&self, left: Duration) -> Transaction {
        #[cfg(not(feature = "fdb"))]
        let _for_clusters_alone = left;
        match &self.engine {
            Engine::Local(store) => Transaction::local(LocalTransaction::new(
                Arc::clone(store),
                Arc::clone(&self.counters),
                Arc::clone(&self.faults),
            )),
            #[cfg(feature = "fdb")]
            Engine::Fdb(database) => {
                let time_max = (self.retry.at_end == AtEnd::GiveUp).then_some(left);
                let counters = Arc::clone(&self.counters);
                Transaction::fdb(database.begin(counters, self.priority, time_max))
            }
        }
    }

    /// Runs `body` in a transaction and commits it, again and again while that can succeed.
    ///
    /// The closure can run several times, and can have committed unseen. It does no IO but the
    /// store's, sends nothing, reads no clock; where running twice would be wrong, it checks an
    /// operation id.
    ///
    /// # Errors
    /// An error that is none of the store's, at once and without a commit; a fatal one of the
    /// store; the last retryable one once [`RetryPolicy::time_max`] is over.
    pub async fn run<T, E, F, Fut>(&self, body: F) -> Result<T, E>
    where
        F: FnMut(Transaction) -> Fut + Send,
        Fut: Future<Output = Result<T, E>> + Send,
        E: From<Error> + AsKvError,
    {
        Ok(self.run_versioned(body).await?.value)
    }

    /// [`Database::run`], telling where the commit stands in the order of commits.
    ///
    /// # Errors
    /// As [`Database::run`].
    pub async fn run_versioned<T, E, F, Fut>(&self, mut body: F) -> Result<Committed<T>, E>
    where
        F: FnMut(Transaction) -> Fut + Send,
        Fut: Future<Output = Result<T, E>> + Send,
        E: From<Error> + AsKvError,
    {
        let begun = self.env.monotonic();
        let mut delay_max = RETRY_DELAY_MIN;
        loop {
            let elapsed = self.env.monotonic().saturating_since(begun);
            let transaction = self.begin_within(self.retry.time_max.saturating_sub(elapsed));
            let error = match body(transaction.clone()).await {
                Ok(value) => match transaction.commit().await {
                    Ok(committed) => return Ok(committed.map(|()| value)),
                    Err(error) => E::from(error),
                },
                Err(error) => error,
            };
            let again = error.as_kv_error().is_some_and(Error::is_retryable);
            let elapsed = self.env.monotonic().saturating_since(begun);
            if !again || elapsed >= self.retry.time_max {
                return Err(error);
            }
            note_retry(error.as_kv_error());
            drop(error);
            self.env.sleep(self.jittered(delay_max)).await;
            delay_max = (delay_max * 2).min(RETRY_DELAY_MAX);
            self.counters.retries.fetch_add(1, Relaxed);
        }
    }

    /// A random part of `delay_max`, so that those who met do not meet again.
    fn jittered(&self, delay_max: Duration) -> Duration {
        let micros = u64::try_from(delay_max.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(1 + self.env.random_below(micros))
    }
}

/// Names what a simulation has to have met.
fn note_retry(error: Option<&Error>) {
    match error {
        Some(Error::Conflict) => env::sometimes!("a transaction was tried again after a conflict"),
        Some(Error::CommitUnknown) => {
            env::sometimes!("a transaction was tried again after a commit of unknown result");
        }
        Some(Error::TooOld) => env::sometimes!("a transaction was too old and was tried again"),
        Some(_) | None => {}
    }
}
