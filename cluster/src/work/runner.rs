//! Claims zones that are due, and works on what is in them.
//!
//! One loop a kind. It looks at the zones that are due, claims some of them at random, and gives
//! each to a task that works through the zone's items and lets the zone go. A zone that has more
//! to do after [`limits::ZONE_TURN`] is let go as well, and is one of those that are due again. Where
//! more are due than one look takes, looks go round, so that each comes to its turn.
//!
//! Architecture invariants:
//! - An item is completed in a transaction that reads the fence and the item: never by a node whose
//!   epoch has ended, and never twice.
//! - A claim is let go on every way out but the epoch's end; after that it is settled by others.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use env::{
    BoxFuture, Env, Task, Timestamp,
    probe::{self, Observation, Planted},
};
use futures_util::{StreamExt, stream::FuturesUnordered};
use kv::{Database, Transaction, Versionstamp};
use tokio::sync::{Notify, watch};

use super::{
    Failures, Kind, item_key,
    zone::{self, Again, Claimed, Due, Item, LeftOff},
};
use crate::{ClusterError, Fence, Membership, limits};

/// What does one kind of work.
pub trait Worker: Send + Sync + 'static {
    /// The kind.
    fn kind(&self) -> Kind;

    /// Zones that this node works on at once; at least one.
    fn zones_at_once(&self) -> usize;

    /// Items of one zone that are worked on at once; at least one.
    fn items_at_once(&self) -> usize;

    /// Works on one item. `Err` says why it has to be tried again, later and later.
    fn work<'a>(&'a self, held: &'a Held, item: &'a Item) -> BoxFuture<'a, Result<Done, String>>;

    /// Works on a claimed zone until it has nothing due or the turn does not go on. A kind whose
    /// items have more in common than their zone does it in its own way, and lets each item's
    /// outcome be noted ([`Turn::note`], [`Turn::put_off`]).
    fn work_zone<'a>(&'a self, turn: &'a Turn) -> BoxFuture<'a, ()> {
        Box::pin(turn.items())
    }
}

/// What came of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// It is to be taken out.
    Finished,
    /// A transaction of the worker's own has taken it out, by [`Held::complete`].
    Completed,
    /// It is to come again.
    Again {
        /// When.
        due: Timestamp,
        /// As what.
        payload: Vec<u8>,
    },
}

/// An item that is to come again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutOff {
    /// As it was read.
    pub item: Item,
    /// When it is to come.
    pub due: Timestamp,
    /// As what.
    pub payload: Vec<u8>,
}

/// A claimed zone.
pub struct Held {
    /// The right to act on it.
    pub fence: Fence,
    /// The kind of its items.
    pub kind: Kind,
    /// Its name.
    pub zone: String,
    /// Nothing that was in it when it was claimed is due before, in milliseconds since 1970. Where
    /// something comes that is, the zone's record says so ([`zone::claimed_since`]).
    pub since_ms: i64,
}

/// Whether an item was there to be completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completion {
    /// It was, and this transaction takes it out.
    Ours,
    /// Somebody else has taken it out.
    Gone,
}

impl Held {
    /// Takes an item out, in a transaction that does more.
    ///
    /// # Errors
    /// [`ClusterError::Ended`] where the zone may be another node's by now.
    pub async fn complete(
        &self,
        tx: &Transaction,
        item: &Item,
    ) -> Result<Completion, ClusterError> {
        self.fence.check(tx).await?;
        let stands = zone::stands(tx, self.kind, &self.zone, item).await?;
        if !stands && !probe::planted(Planted::CompleteAgain) {
            env::sometimes!("somebody else had completed the item");
            return Ok(Completion::Gone);
        }
        super::remove(tx, self.kind, &self.zone, item.due, &item.id);
        Ok(Completion::Ours)
    }

    /// Tells a simulation that a transaction which completed an item has committed; none that wrote
    /// nothing did.
    pub fn completed(&self, commit: Option<Versionstamp>) {
        if let Some(stamp) = commit {
            probe::observe(|| Observation::CompletedClaim {
                epoch: self.fence.epoch().0,
                kind: self.kind.as_str(),
                version: stamp.version(),
            });
        }
    }

    /// Puts an item off, in a transaction that may do more.
    ///
    /// # Errors
    /// As [`Held::complete`].
    pub async fn put_off(
        &self,
        tx: &Transaction,
        item: &Item,
        due: Timestamp,
        payload: &[u8],
    ) -> Result<Completion, ClusterError> {
        let completion = self.complete(tx, item).await?;
        if completion == Completion::Ours {
            // The zone is ours: no pointer is needed before it is let go.
            tx.set(&item_key(self.kind, &self.zone, due.unix_ms(), &item.id), payload);
        }
        Ok(completion)
    }
}

/// What a kind of work is up to, for people and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lag {
    /// Zones that this node works on now.
    pub claimed: u64,
    /// Zones that were due at the last look, at most [`limits::ZONES_PER_SCAN`] of them counted.
    pub due: u64,
    /// Items that were worked on with success.
    pub done: u64,
    /// Tries that failed.
    pub failed: u64,
    /// Claims that another node was faster with.
    pub lost_races: u64,
}

/// What a runner's kinds are up to, for whoever asks from time to time: it keeps nothing of the
/// runner alive but these counts.
#[derive(Clone)]
pub struct Lags {
    kinds: Arc<[(Kind, Arc<Counters>)]>,
}

impl Lags {
    /// Each kind's counts at this moment.
    pub fn read(&self) -> Vec<(Kind, Lag)> {
        self.kinds.iter().map(|(kind, counters)| (*kind, counters.lag())).collect()
    }

    /// Zones that this node works on now.
    pub fn claimed(&self) -> u64 {
        self.kinds.iter().map(|(_, counters)| counters.claimed.load(Ordering::Relaxed)).sum()
    }
}

impl Counters {
    fn lag(&self) -> Lag {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Lag {
            claimed: read(&self.claimed),
            due: read(&self.due),
            done: read(&self.done),
            failed: read(&self.failed),
            lost_races: read(&self.lost_races),
        }
    }
}

#[derive(Default)]
struct Counters {
    claimed: AtomicU64,
    due: AtomicU64,
    done: AtomicU64,
    failed: AtomicU64,
    lost_races: AtomicU64,
}

/// How a node works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunnerSettings {
    /// How often it looks for zones that have come due.
    pub scan_period: Duration,
    /// How long one zone may go on before others get their turn.
    pub zone_turn: Duration,
}

impl Default for RunnerSettings {
    fn default() -> Self {
        Self { scan_period: limits::SCAN_PERIOD, zone_turn: limits::ZONE_TURN }
    }
}

/// A node's workers.
pub struct Runner {
    kinds: BTreeMap<Kind, Arc<Shared>>,
    loops: Vec<Task<()>>,
    stop: watch::Sender<bool>,
}

/// What the tasks of one kind share.
struct Shared {
    db: Database,
    env: Env,
    membership: Membership,
    settings: RunnerSettings,
    worker: Arc<dyn Worker>,
    counters: Arc<Counters>,
    /// Something has come due.
    nudge: Notify,
    stop: watch::Receiver<bool>,
}

impl Runner {
    /// Starts to work.
    pub fn start(
        db: &Database,
        env: &Env,
        membership: &Membership,
        settings: RunnerSettings,
        workers: Vec<Arc<dyn Worker>>,
    ) -> Self {
        let stop = watch::Sender::new(false);
        let mut kinds = BTreeMap::new();
        let mut loops = Vec::new();
        for worker in workers {
            let kind = worker.kind();
            let shared = Arc::new(Shared {
                db: db.clone(),
                env: env.clone(),
                membership: membership.clone(),
                settings,
                worker,
                counters: Arc::default(),
                nudge: Notify::new(),
                stop: stop.subscribe(),
            });
            loops.push(env.spawn("work", Scan::new(&shared).run()));
            kinds.insert(kind, shared);
        }
        Self { kinds, loops, stop }
    }

    /// Says that something of a kind has come due: it is looked for at once.
    pub fn nudge(&self, kind: Kind) {
        if let Some(shared) = self.kinds.get(&kind) {
            shared.nudge.notify_one();
        }
    }

    /// What each kind is up to.
    pub fn lags(&self) -> Lags {
        let kinds = self.kinds.iter();
        Lags { kinds: kinds.map(|(kind, it)| (*kind, Arc::clone(&it.counters))).collect() }
    }

    /// Claims nothing more, lets what is under way come to its next item's end, and lets all zones
    /// go.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        for ended in self.loops {
            let _ended = ended.await;
        }
    }
}

impl Shared {
    fn is_stopped(&self) -> bool {
        *self.stop.borrow()
    }

    /// A part of the scan period, so that nodes do not look all at once.
    fn period(&self) -> Duration {
        let whole = self.settings.scan_period;
        let micros = u64::try_from(whole.as_micros() / 2).unwrap_or(u64::MAX);
        whole / 2 + Duration::from_micros(self.env.random_below(micros))
    }
}

/// The loop that claims zones of one kind.
struct Scan {
    shared: Arc<Shared>,
    /// Zones whose tasks run.
    active: BTreeSet<String>,
    /// Where the last look left off, while more is due than one look takes.
    left_off: Option<LeftOff>,
    tasks: FuturesUnordered<BoxFuture<'static, String>>,
}

impl Scan {
    fn new(shared: &Arc<Shared>) -> Self {
        let (shared, tasks) = (Arc::clone(shared), FuturesUnordered::new());
        Self { shared, active: BTreeSet::new(), left_off: None, tasks }
    }

    async fn run(mut self) {
        let mut stop = self.shared.stop.clone();
        while !self.shared.is_stopped() {
            let wait = match self.look().await {
                Ok(wait) => wait,
                Err(error) => {
                    tracing::warn!(kind = self.shared.worker.kind().as_str(), %error, "no work");
                    limits::STORE_PAUSE
                }
            };
            let env = self.shared.env.clone();
            tokio::select! {
                biased;
                Some(zone) = self.tasks.next() => {
                    self.active.remove(&zone);
                    let claimed = self.active.len() as u64;
                    self.shared.counters.claimed.store(claimed, Ordering::Relaxed);
                }
                () = self.shared.nudge.notified() => {}
                _ = stop.wait_for(|stop| *stop) => {}
                () = env.sleep(wait) => {}
            }
        }
        while self.tasks.next().await.is_some() {}
        self.shared.counters.claimed.store(0, Ordering::Relaxed);
    }

    /// Claims zones that are due, as many as there is room for. Returns how long to wait before
    /// the next look.
    async fn look(&mut self) -> Result<Duration, ClusterError> {
        let shared = Arc::clone(&self.shared);
        let kind = shared.worker.kind();
        let fence = shared.membership.fence();
        let room = shared.worker.zones_at_once().max(1).saturating_sub(self.active.len());
        if room == 0 || !fence.is_live() {
            return Ok(shared.period());
        }
        let now = shared.env.wall();
        let limit = limits::ZONES_PER_SCAN;
        let from = self.left_off.as_ref();
        let due = shared.db.run(|tx| async move { zone::due(&tx, kind, now, from, limit).await });
        let Due { mut zones, next, left_off } = due.await?;
        self.left_off = left_off;
        shared.counters.due.store(zones.len() as u64, Ordering::Relaxed);
        zones.retain(|zone| !self.active.contains(zone));
        let mut claimed = 0;
        while claimed < room && !zones.is_empty() {
            let picked = usize::try_from(shared.env.random_below(zones.len() as u64)).unwrap_or(0);
            let zone = zones.swap_remove(picked);
            claimed += self.claim(&fence, zone, now).await;
        }
        let until_next = next.map(|next| next.unix_ms().saturating_sub(now.unix_ms()));
        let until_next =
            until_next.and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis);
        let period = shared.period();
        Ok(until_next.map_or(period, |until| until.min(period)))
    }

    /// Claims one zone and gives it to a task. Returns how many were claimed.
    async fn claim(&mut self, fence: &Fence, zone: String, now: Timestamp) -> usize {
        let shared = Arc::clone(&self.shared);
        let kind = shared.worker.kind();
        let named = &zone;
        let claim =
            shared.db.run(|tx| async move { zone::claim(&tx, fence, kind, named, now).await });
        let since_ms = match claim.await {
            Ok(Claimed::Ours { since_ms }) => Some(since_ms),
            Ok(Claimed::NotDue) => {
                shared.counters.lost_races.fetch_add(1, Ordering::Relaxed);
                env::sometimes!("another node was faster with a claim");
                return 0;
            }
            Err(ClusterError::Ended(_)) => return 0,
            Err(error) => {
                tracing::warn!(kind = kind.as_str(), zone, %error, "zone not claimed");
                // The commit may have gone through: let go of what may be ours.
                None
            }
        };
        let unknown = since_ms.is_none();
        let since_ms = since_ms.unwrap_or(i64::MIN);
        let held = Held { fence: fence.clone(), kind, zone, since_ms };
        self.active.insert(held.zone.clone());
        shared.counters.claimed.store(self.active.len() as u64, Ordering::Relaxed);
        let end = shared.env.monotonic() + shared.settings.zone_turn;
        let again = Mutex::new(None);
        let turn = Arc::new(Turn { shared: Arc::clone(&shared), held, end, again });
        self.tasks.push(Box::pin(async move {
            let mut unsaid = Again::AsItWas;
            if !unknown {
                let (worker, working) = (Arc::clone(&shared.worker), Arc::clone(&turn));
                let task =
                    shared.env.spawn("zone", async move { worker.work_zone(&working).await });
                match task.await {
                    Ok(()) => unsaid = Again::WithItems,
                    Err(_) => {
                        tracing::error!(zone = turn.held.zone, "a worker has panicked");
                        shared.counters.failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
            turn.release(unsaid).await;
            turn.held.zone.clone()
        }));
        1
    }
}

/// One node's turn at one zone.
pub struct Turn {
    shared: Arc<Shared>,
    held: Held,
    end: env::Monotonic,
    /// What the worker has said of when the zone is to come again.
    again: Mutex<Option<Timestamp>>,
}

impl Turn {
    async fn items(&self) {
        let shared = &self.shared;
        while self.goes_on() {
            let (kind, zone, now) = (self.held.kind, &self.held.zone, shared.env.wall());
            let items =
                shared.db.run(|tx| async move { zone::due_items(&tx, kind, zone, now).await });
            match items.await {
                Ok(items) if items.is_empty() => return,
                Ok(items) => {
                    let at_once = shared.worker.items_at_once().max(1);
                    futures_util::stream::iter(items)
                        .for_each_concurrent(at_once, |item| self.item(item))
                        .await;
                }
                Err(error) => {
                    tracing::warn!(zone, %error, "a zone's items cannot be read");
                    return;
                }
            }
        }
    }

    /// The zone.
    pub fn held(&self) -> &Held {
        &self.held
    }

    /// Whether anything more is to be begun: the node does not stop, has its epoch, and the turn
    /// is not over.
    pub fn goes_on(&self) -> bool {
        self.is_ours() && self.shared.env.monotonic() < self.end
    }

    /// Whether the zone may still be kept: the node does not stop, and has its epoch.
    pub fn is_ours(&self) -> bool {
        !self.shared.is_stopped() && self.held.fence.is_live()
    }

    /// Lets the zone come again at a time, though none of its items is due by then; or else with its
    /// first item. What was said last counts.
    pub fn come_again(&self, by: Option<Timestamp>) {
        *self.again.lock().unwrap_or_else(PoisonError::into_inner) = by;
    }

    /// Puts items off, all in one transaction; what is not there any more stays away. At most
    /// [`limits::ITEMS_PER_READ`] of them.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub async fn put_off(&self, items: &[PutOff]) -> Result<(), ClusterError> {
        let held = &self.held;
        let put_off = |tx| async move {
            for it in items {
                held.put_off(&tx, &it.item, it.due, &it.payload).await?;
            }
            Ok::<_, ClusterError>(())
        };
        held.completed(self.shared.db.run_versioned(put_off).await?.versionstamp);
        Ok(())
    }

    async fn item(&self, item: Item) {
        if self.goes_on() {
            self.note(&item, self.shared.worker.work(&self.held, &item)).await;
        }
    }

    /// Notes what comes of the work on one item.
    pub async fn note(&self, item: &Item, work: impl Future<Output = Result<Done, String>>) {
        let shared = &self.shared;
        probe::observe(|| Observation::ActedOnClaim {
            epoch: self.held.fence.epoch().0,
            kind: self.held.kind.as_str(),
        });
        let worked = work.await;
        let failed = worked.is_err();
        if let Err(reason) = &worked {
            let (kind, zone) = (self.held.kind.as_str(), &self.held.zone);
            tracing::warn!(kind, zone, failures = item.failures + 1, reason, "work failed");
        }
        match self.conclude(item, worked).await {
            Ok(()) => {
                let it = &shared.counters;
                let counter = if failed { &it.failed } else { &it.done };
                counter.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                tracing::warn!(zone = self.held.zone, %error, "work is not noted as done");
                // It is due as before: not at once again.
                shared.env.sleep(limits::STORE_PAUSE).await;
            }
        }
    }

    async fn conclude(
        &self,
        item: &Item,
        worked: Result<Done, String>,
    ) -> Result<(), ClusterError> {
        let (shared, held) = (&self.shared, &self.held);
        let now = shared.env.wall();
        let (due, payload, failures) = match worked {
            Ok(Done::Completed) => return Ok(()),
            Ok(Done::Finished) => {
                let complete = |tx| async move { held.complete(&tx, item).await };
                held.completed(shared.db.run_versioned(complete).await?.versionstamp);
                return Ok(());
            }
            Ok(Done::Again { due, payload }) => (due, payload, None),
            Err(reason) => {
                let count = item.failures.saturating_add(1);
                let delay = super::retry_delay(&shared.env, count).as_millis();
                let delay = i64::try_from(delay).unwrap_or(i64::MAX);
                let due = Timestamp::from_unix_ms(now.unix_ms().saturating_add(delay));
                let failures = Failures { count, last_ms: now.unix_ms(), reason };
                (due, item.payload.to_vec(), Some(failures))
            }
        };
        let (payload, failures) = (&payload[..], failures.as_ref());
        let put_off = |tx| async move {
            let completion = held.put_off(&tx, item, due, payload).await?;
            if let (Completion::Ours, Some(failures)) = (completion, failures) {
                super::note_failure(&tx, held.kind, &held.zone, &item.id, failures);
            }
            Ok::<_, ClusterError>(())
        };
        held.completed(shared.db.run_versioned(put_off).await?.versionstamp);
        Ok(())
    }

    /// Lets the zone go, however long the store does not let us, as long as it is ours.
    async fn release(&self, unsaid: Again) {
        let (shared, held) = (&self.shared, &self.held);
        let said = *self.again.lock().unwrap_or_else(PoisonError::into_inner);
        let again = match (unsaid, said) {
            (Again::WithItems, Some(by)) => Again::By(by),
            (unsaid, _) => unsaid,
        };
        loop {
            let release = shared.db.run(|tx| async move {
                zone::release(&tx, &held.fence, held.kind, &held.zone, again).await
            });
            match release.await {
                Ok(()) | Err(ClusterError::Ended(_)) => return,
                Err(error) => {
                    tracing::warn!(zone = held.zone, %error, "a zone is not let go");
                    shared.env.sleep(limits::STORE_PAUSE).await;
                }
            }
        }
    }
}
