//! Combining: requests for one account that wait at the same time share a transaction.
//!
//! Each account that has requests has one runner, a task of its own, so that a client that hangs
//! up in the middle delays nobody. While one transaction is under way the next batch gathers.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use blob::BlobStore;
use env::Env;
use kv::Database;
use mail::{AccountId, view::ViewCache};
use tokio::sync::oneshot;

use super::{DeliverError, Delivered, Request, batch};
use crate::{hub::Hub, limits};

/// Takes requests; cloning is one reference count.
#[derive(Clone)]
pub struct Deliverer {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) db: Database,
    pub(super) blobs: BlobStore,
    pub(super) env: Env,
    hub: Hub,
    views: ViewCache,
    /// Requests that wait for their account's runner; an account with a runner has an entry.
    waiting: Mutex<HashMap<AccountId, Vec<Waiting>>>,
}

/// A request and whoever waits for its result.
pub(super) struct Waiting {
    pub(super) request: Request,
    pub(super) answer: oneshot::Sender<Result<Delivered, DeliverError>>,
}

impl Deliverer {
    /// A deliverer over a node's store.
    pub fn new(db: Database, blobs: BlobStore, env: Env, hub: Hub, views: ViewCache) -> Self {
        let waiting = Mutex::default();
        Self { shared: Arc::new(Shared { db, blobs, env, hub, views, waiting }) }
    }

    /// Appends and enqueues, and answers when that is durable. Goes on to its end even where the
    /// caller stops waiting.
    ///
    /// # Errors
    /// [`DeliverError`]: nothing was done.
    pub async fn submit(&self, request: Request) -> Result<Delivered, DeliverError> {
        // A message without local recipients has no account to wait for.
        let account = request.appends.first().map_or(AccountId(0), |append| append.account);
        let (answer, result) = oneshot::channel();
        let waiting = Waiting { request, answer };
        let start = {
            let mut map = self.shared.waiting.lock().expect("no code panics while it holds this");
            match map.get_mut(&account) {
                Some(queue) if account != AccountId(0) => {
                    queue.push(waiting);
                    None
                }
                _ if account == AccountId(0) => Some(vec![waiting]),
                _ => {
                    map.insert(account, Vec::new());
                    Some(vec![waiting])
                }
            }
        };
        if let Some(first) = start {
            let shared = Arc::clone(&self.shared);
            self.shared
                .env
                .spawn("deliver", async move { run_account(&shared, account, first).await })
                .detach();
        }
        result.await.unwrap_or(Err(DeliverError::Stopping))
    }
}

/// Runs batches of one account until nothing waits.
async fn run_account(shared: &Shared, account: AccountId, first: Vec<Waiting>) {
    let mut batch = first;
    loop {
        for touched in batch::run(shared, batch).await {
            shared.hub.ring(touched);
            shared.views.note_commit(touched);
        }
        let mut map = shared.waiting.lock().expect("no code panics while it holds this");
        let Some(queue) = map.get_mut(&account) else { return };
        if queue.is_empty() {
            map.remove(&account);
            return;
        }
        batch = take(queue);
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
