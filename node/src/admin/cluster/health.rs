//! How long store and blobs take to answer.

use std::time::Duration;

use blob::BlobStore;
use cluster::membership::roll;
use env::Env;
use kv::Transaction;
use mail::StoreError;
use serde::{Deserialize, Serialize};

use super::Admin;
use crate::limits::{BLOBS_SLOW, PROBE_TIME, PROBES, STORE_COMMIT_SLOW, STORE_READ_SLOW};

/// What came of a probe.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// How long the answer took.
    pub micros: u64,
    /// Why there was none.
    pub error: Option<String>,
}

/// How store and blobs answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// A transaction that reads one key.
    pub store_read: Probe,
    /// A transaction that writes one key.
    pub store_commit: Probe,
    /// A list of one blob; `None` where the blobs are not at hand.
    pub blobs: Option<Probe>,
}

impl Probe {
    /// As people read it.
    pub fn text(&self) -> String {
        match &self.error {
            Some(error) => format!("failing: {error}"),
            None => format!("{}.{} ms", self.micros / 1_000, self.micros % 1_000 / 100),
        }
    }

    /// Whether the answer took longer than `bound`.
    pub fn is_slower_than(&self, bound: Duration) -> bool {
        self.error.is_none() && u128::from(self.micros) > bound.as_micros()
    }
}

impl Health {
    /// What is wrong, in words.
    pub fn problems(&self) -> Vec<String> {
        let blobs = self.blobs.iter().map(|probe| ("the blob store", probe, BLOBS_SLOW));
        let probes = [
            ("the store's reads", &self.store_read, STORE_READ_SLOW),
            ("the store's commits", &self.store_commit, STORE_COMMIT_SLOW),
        ];
        let mut problems = Vec::new();
        for (what, probe, slow) in probes.into_iter().chain(blobs) {
            if probe.error.is_some() {
                problems.push(format!("{what}: {}", probe.text()));
            } else if probe.is_slower_than(slow) {
                problems.push(format!("{what}: slow, {}", probe.text()));
            }
        }
        problems
    }
}

/// How sure a probe has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Care {
    /// One try: the next look comes soon.
    Once,
    /// The best of several tries, where the first is slow.
    Thorough,
}

/// Asks store and blobs for something small.
pub(super) async fn probe(admin: &Admin, blobs: Option<&BlobStore>, care: Care) -> Health {
    let Admin { db, env } = admin;
    let read = || async { db.run(|tx| async move { roll::read_probe(&tx).await }).await };
    let commit = || async {
        let now_ms = env.wall().unix_ms();
        let write = |tx: Transaction| async move {
            roll::write_probe(&tx, now_ms);
            Ok::<_, StoreError>(())
        };
        db.run(write).await
    };
    Health {
        store_read: best(env, care, STORE_READ_SLOW, read).await,
        store_commit: best(env, care, STORE_COMMIT_SLOW, commit).await,
        blobs: match blobs {
            Some(blobs) => {
                let list = || async { blobs.list(None, 1).await.map(|_page| ()) };
                Some(best(env, care, BLOBS_SLOW, list).await)
            }
            None => None,
        },
    }
}

/// The quickest of the tries, of which there is only one where that is quick.
async fn best<E: std::fmt::Display, Fut: Future<Output = Result<(), E>> + Send>(
    env: &Env,
    care: Care,
    slow: Duration,
    ask: impl Fn() -> Fut + Send,
) -> Probe {
    let tries = if care == Care::Once { 1 } else { PROBES };
    let mut best: Option<Probe> = None;
    for _ in 0..tries {
        let begun = env.monotonic();
        let error = match env.timeout(PROBE_TIME, ask()).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_elapsed) => Some(format!("no answer within {} s", PROBE_TIME.as_secs())),
        };
        let took = env.monotonic().saturating_since(begun).as_micros();
        let probe = Probe { micros: u64::try_from(took).unwrap_or(u64::MAX), error };
        if probe.error.is_some() {
            return probe;
        }
        let is_slow = probe.is_slower_than(slow);
        if best.as_ref().is_none_or(|best| probe.micros < best.micros) {
            best = Some(probe);
        }
        if !is_slow {
            break;
        }
    }
    best.unwrap_or_default()
}
