//! Combining: requests for one account that wait at the same time share a transaction.
//!
//! Each account that has requests has one runner, a task of its own, so that a client that hangs
//! up in the middle delays nobody. While one transaction is under way the next batch gathers.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard},
};

use blob::BlobStore;
use env::Env;
use kv::Database;
use mail::AccountId;
use tokio::sync::{oneshot, watch};
use tracing::Instrument;

use super::{DeliverError, Delivered, Request, batch};
use crate::{announce::Announcer, limits};

/// Takes requests; cloning is one reference count.
#[derive(Clone)]
pub struct Deliverer {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) db: Database,
    pub(super) blobs: BlobStore,
    pub(super) env: Env,
    pub(super) announcer: Announcer,
    /// Requests that wait for their account's runner; an account with a runner has an entry.
    waiting: Mutex<HashMap<AccountId, Vec<Waiting>>>,
    /// Runners at work.
    runners: watch::Sender<usize>,
}

/// A request and whoever waits for its result.
pub(super) struct Waiting {
    pub(super) request: Request,
    pub(super) answer: oneshot::Sender<Result<Delivered, DeliverError>>,
}

impl Deliverer {
    /// A deliverer over a node's store.
    pub fn new(db: Database, blobs: BlobStore, env: Env, announcer: Announcer) -> Self {
        let (waiting, runners) = (Mutex::default(), watch::Sender::new(0));
        Self { shared: Arc::new(Shared { db, blobs, env, announcer, waiting, runners }) }
    }

    /// Appends and enqueues, and answers when that is durable. Goes on to its end even where the
    /// caller stops waiting.
    ///
    /// # Errors
    /// [`DeliverError`]: nothing was done.
    pub async fn submit(&self, request: Request) -> Result<Delivered, DeliverError> {
        // A message without local recipients has no account to wait for.
        let account = request.appends.first().map(|append| append.account);
        let (answer, result) = oneshot::channel();
        let waiting = Waiting { request, answer };
        let start = {
            let mut map = self.shared.waiting();
            match account.map(|account| map.entry(account)) {
                Some(Entry::Occupied(mut queue)) => {
                    queue.get_mut().push(waiting);
                    None
                }
                Some(Entry::Vacant(vacant)) => {
                    vacant.insert(Vec::new());
                    Some(vec![waiting])
                }
                None => Some(vec![waiting]),
            }
        };
        if let Some(first) = start {
            let runner = Runner::new(&self.shared, account);
            // Its lines carry the id of the session whose message came first.
            let running = runner.run(first).instrument(tracing::Span::current());
            self.shared.env.spawn("deliver", running).detach();
        }
        result.await.unwrap_or(Err(DeliverError::Stopping))
    }

    /// Waits until no delivery is under way.
    pub async fn finished(&self) {
        let mut runners = self.shared.runners.subscribe();
        let _no_sender_left = runners.wait_for(|runners| *runners == 0).await;
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, HashMap<AccountId, Vec<Waiting>>> {
        self.waiting.lock().expect("no code panics while it holds this")
    }
}

/// What runs an account's batches.
struct Runner {
    shared: Arc<Shared>,
    /// The account whose requests wait for this runner.
    account: Option<AccountId>,
}

impl Runner {
    fn new(shared: &Arc<Shared>, account: Option<AccountId>) -> Self {
        shared.runners.send_modify(|runners| *runners += 1);
        Self { shared: Arc::clone(shared), account }
    }

    /// Runs batches until nothing waits.
    async fn run(mut self, first: Vec<Waiting>) {
        let mut batch = first;
        loop {
            batch::run(&self.shared, batch).await;
            match self.next() {
                Some(next) => batch = next,
                None => return,
            }
        }
    }

    /// The next batch; at the end the account is let go of under the same lock.
    fn next(&mut self) -> Option<Vec<Waiting>> {
        let mut map = self.shared.waiting();
        let account = self.account?;
        match map.get_mut(&account) {
            Some(queue) if !queue.is_empty() => Some(take(queue)),
            _ => {
                map.remove(&account);
                self.account = None;
                None
            }
        }
    }
}

/// A runner that is cut off in the middle leaves nobody waiting for it.
impl Drop for Runner {
    fn drop(&mut self) {
        if let Some(account) = self.account {
            self.shared.waiting().remove(&account);
        }
        self.shared.runners.send_modify(|runners| *runners -= 1);
    }
}

/// As many requests as one transaction takes.
fn take(queue: &mut Vec<Waiting>) -> Vec<Waiting> {
    let mut appends = 0;
    let fitting = queue.iter().take_while(|waiting| {
        appends += waiting.request.appends.len();
        appends <= limits::APPENDS_PER_TRANSACTION_MAX
    });
    let count = fitting.count().clamp(1, limits::REQUESTS_PER_TRANSACTION_MAX).min(queue.len());
    queue.drain(..count).collect()
}
