//! Combining: requests that wait at the same time share a transaction.
//!
//! Lanes take what waits, each as much as one transaction holds, and what comes meanwhile gathers.
//! So a busy node commits seldom and much at once, and a request that comes alone goes at once. An
//! account is in one lane at a time, because two transactions would conflict on its counters.
//!
//! How many lanes there are, and how many accounts share a transaction, follows from what a
//! transaction costs the store ([`Combining`]). Where accounts share, a lane tries once: what did not
//! commit goes on by account, outside of the lanes, so that an account that is in conflict with
//! another node delays nobody else.
//!
//! All of it runs in tasks of its own, so that a client that hangs up in the middle delays nobody.

use std::{
    collections::{BTreeMap, HashMap, VecDeque, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard},
};

use blob::BlobStore;
use env::Env;
use kv::{Database, Locality};
use mail::AccountId;
use tokio::sync::{oneshot, watch};
use tracing::Instrument;

use super::{
    DeliverError, Delivered, Request,
    batch::{self, Report, Tries},
};
use crate::{announce::Announcer, limits, signing::Signing};

/// Which requests share a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Combining {
    /// Those of one account, which has a lane to itself as long as something waits for it. Best where a transaction costs little
    /// beside what it holds, and threads can make several ready at once.
    ByAccount,
    /// Those of all accounts, in [`limits::DELIVERY_LANES`] lanes. Best where each transaction is
    /// several messages between processes.
    AcrossAccounts,
}

impl Combining {
    /// What fits a store.
    pub fn of(db: &Database) -> Self {
        match db.locality() {
            Locality::Process => Self::ByAccount,
            Locality::Network => Self::AcrossAccounts,
        }
    }

    fn lanes_max(self) -> usize {
        match self {
            Self::ByAccount => usize::MAX,
            Self::AcrossAccounts => limits::DELIVERY_LANES,
        }
    }

    fn tries(self) -> Tries {
        match self {
            Self::ByAccount => Tries::Many,
            Self::AcrossAccounts => Tries::One,
        }
    }
}

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
    pub(super) signing: Signing,
    combining: Combining,
    queues: Mutex<Queues>,
    /// Tasks at work.
    tasks: watch::Sender<usize>,
}

/// A request and whoever waits for its result.
pub(super) struct Waiting {
    pub(super) request: Request,
    pub(super) answer: oneshot::Sender<Result<Delivered, DeliverError>>,
    /// What a run that may have committed unseen has reported: the next one says the same.
    pub(super) report: Option<Report>,
}

impl Waiting {
    /// The account that it waits for; a message without local recipients has none.
    fn account(&self) -> Option<AccountId> {
        self.request.appends.first().map(|append| append.account)
    }
}

/// What waits, by account.
#[derive(Default)]
struct Queues {
    /// An account that is being worked on has an entry, even where nothing waits for it.
    accounts: HashMap<AccountId, Vec<Waiting>>,
    /// Accounts that something waits for and nobody works on, the longest waiting first.
    ready: VecDeque<AccountId>,
    lanes: usize,
}

impl Queues {
    /// Tells whether the account is ready by that: otherwise whoever works on it, or is about to,
    /// will find this too.
    fn push(&mut self, account: AccountId, waiting: Waiting) -> bool {
        match self.accounts.entry(account) {
            Entry::Occupied(mut queue) => {
                queue.get_mut().push(waiting);
                false
            }
            Entry::Vacant(vacant) => {
                vacant.insert(vec![waiting]);
                self.ready.push_back(account);
                true
            }
        }
    }

    /// What a lane does next, having done with `held`. An empty batch: nothing, and it ends.
    fn next(&mut self, combining: Combining, held: Vec<AccountId>) -> Batch {
        let mut batch = Batch::default();
        match (combining, &held[..]) {
            (Combining::ByAccount, [own, ..]) => {
                if batch.take(*own, self.accounts.entry(*own).or_default()) == 0 {
                    self.accounts.remove(own);
                }
            }
            (Combining::ByAccount, []) => {
                if let Some(first) = self.ready.pop_front() {
                    batch.take(first, self.accounts.entry(first).or_default());
                }
            }
            (Combining::AcrossAccounts, _) => {
                self.release(held);
                while let Some(account) = self.ready.front()
                    && batch.take(*account, self.accounts.entry(*account).or_default()) > 0
                {
                    self.ready.pop_front();
                }
            }
        }
        batch
    }

    /// Gives accounts back.
    fn release(&mut self, accounts: Vec<AccountId>) {
        for account in accounts {
            match self.accounts.get(&account) {
                Some(queue) if !queue.is_empty() => self.ready.push_back(account),
                _ => drop(self.accounts.remove(&account)),
            }
        }
    }
}

/// What one transaction takes.
#[derive(Default)]
struct Batch {
    requests: Vec<Waiting>,
    appends: usize,
    /// Whose requests they are: its lane's until it asks for more.
    accounts: Vec<AccountId>,
}

impl Batch {
    /// Takes what fits of an account's requests, and tells how many those are. A request that is
    /// too large for any company goes alone.
    fn take(&mut self, account: AccountId, queue: &mut Vec<Waiting>) -> usize {
        let places = limits::REQUESTS_PER_TRANSACTION_MAX - self.requests.len();
        let mut appends = self.appends;
        let fitting = queue.iter().take(places).take_while(|waiting| {
            appends += waiting.request.appends.len();
            appends <= limits::APPENDS_PER_TRANSACTION_MAX
        });
        let count = fitting.count().max(usize::from(self.requests.is_empty())).min(queue.len());
        if count > 0 {
            self.appends +=
                queue[..count].iter().map(|waiting| waiting.request.appends.len()).sum::<usize>();
            self.requests.extend(queue.drain(..count));
            self.accounts.push(account);
        }
        count
    }
}

impl Deliverer {
    /// A deliverer over a node's store.
    pub(crate) fn new(
        db: Database,
        blobs: BlobStore,
        env: Env,
        announcer: Announcer,
        combining: Combining,
        signing: Signing,
    ) -> Self {
        let (queues, tasks) = (Mutex::default(), watch::Sender::new(0));
        let shared = Shared { db, blobs, env, announcer, signing, combining, queues, tasks };
        Self { shared: Arc::new(shared) }
    }

    /// Appends and enqueues, and answers when that is durable. Goes on to its end even where the
    /// caller stops waiting.
    ///
    /// # Errors
    /// [`DeliverError`]: nothing was done.
    pub async fn submit(&self, request: Request) -> Result<Delivered, DeliverError> {
        let (answer, result) = oneshot::channel();
        let waiting = Waiting { request, answer, report: None };
        match waiting.account() {
            Some(account) => {
                let is_ready = self.shared.queues().push(account, waiting);
                if is_ready {
                    self.shared.open_lane();
                }
            }
            None => self.shared.go_on(vec![waiting], Vec::new()),
        }
        result.await.unwrap_or(Err(DeliverError::Stopping))
    }

    /// Waits until no delivery is under way.
    pub async fn finished(&self) {
        let mut tasks = self.shared.tasks.subscribe();
        let _no_sender_left = tasks.wait_for(|tasks| *tasks == 0).await;
    }
}

impl Shared {
    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().expect("no code panics while it holds this")
    }

    /// A further lane, where something is ready and not all are open.
    fn open_lane(self: &Arc<Self>) {
        let mut queues = self.queues();
        if queues.ready.is_empty() || queues.lanes >= self.combining.lanes_max() {
            return;
        }
        queues.lanes += 1;
        drop(queues);
        let mut lane =
            Lane { task: Working::new(self), state: LaneState::Open, accounts: Vec::new() };
        let run = async move { while lane.run_batch().await {} };
        // Its lines carry the id of the session whose message came first.
        self.env.spawn("deliver", run.instrument(tracing::Span::current())).detach();
    }

    /// Runs requests to their end, then gives their accounts back.
    fn go_on(self: &Arc<Self>, batch: Vec<Waiting>, accounts: Vec<AccountId>) {
        let straggler = Straggler { task: Working::new(self), accounts };
        let run = async move {
            let left = batch::run(&straggler.task.shared, batch, Tries::Many).await;
            debug_assert!(left.is_empty(), "who may try again answers everybody");
        };
        self.env.spawn("deliver", run.instrument(tracing::Span::current())).detach();
    }
}

/// A task that [`Deliverer::finished`] waits for.
struct Working {
    shared: Arc<Shared>,
}

impl Working {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.tasks.send_modify(|tasks| *tasks += 1);
        Self { shared: Arc::clone(shared) }
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.shared.tasks.send_modify(|tasks| *tasks -= 1);
    }
}

/// Takes what waits, one transaction after the other.
struct Lane {
    task: Working,
    state: LaneState,
    /// Accounts that this lane works on.
    accounts: Vec<AccountId>,
}

#[derive(PartialEq, Eq)]
enum LaneState {
    Open,
    /// It found nothing to do.
    Closed,
}

impl Lane {
    /// Tells whether there was something to do.
    async fn run_batch(&mut self) -> bool {
        let shared = Arc::clone(&self.task.shared);
        let requests = {
            let mut queues = shared.queues();
            let batch = queues.next(shared.combining, std::mem::take(&mut self.accounts));
            if batch.requests.is_empty() {
                // Under the same lock: what comes from here on opens a lane.
                queues.lanes -= 1;
                self.state = LaneState::Closed;
                return false;
            }
            self.accounts = batch.accounts;
            batch.requests
        };
        let mut left: BTreeMap<AccountId, Vec<Waiting>> = BTreeMap::new();
        for waiting in batch::run(&shared, requests, shared.combining.tries()).await {
            let account = waiting.account().expect("queues hold what has an account");
            left.entry(account).or_default().push(waiting);
        }
        for (account, requests) in left {
            self.accounts.retain(|held| *held != account);
            shared.go_on(requests, vec![account]);
        }
        true
    }
}

/// A lane that is cut off in the middle leaves nobody waiting for it.
impl Drop for Lane {
    fn drop(&mut self) {
        if self.state == LaneState::Closed {
            return;
        }
        let mut guard = self.task.shared.queues();
        let queues = &mut *guard;
        queues.lanes -= 1;
        for account in &self.accounts {
            queues.accounts.remove(account);
        }
        if queues.lanes == 0 {
            for account in queues.ready.drain(..) {
                queues.accounts.remove(&account);
            }
        }
    }
}

/// What a lane could not commit at once.
struct Straggler {
    task: Working,
    accounts: Vec<AccountId>,
}

impl Drop for Straggler {
    fn drop(&mut self) {
        let accounts = std::mem::take(&mut self.accounts);
        self.task.shared.queues().release(accounts);
        self.task.shared.open_lane();
    }
}
