//! Which nodes there are, and whether this one still counts.
//!
//! A node registers with a new [`Epoch`] and writes a heartbeat [`limits::BEATS_PER_LIFE`] times in
//! its time-to-live. Everyone looks at everyone's heartbeat; one that stands still for its
//! time-to-live, by the looker's own monotonic clock, is declared dead in a transaction that
//! ends its epoch, and what it held is settled by whoever sees it.
//!
//! Architecture invariants:
//! - A transaction that completes claimed work calls [`Fence::check`]: after the epoch's end it
//!   does not commit (P6).
//! - [`Fence::is_live`] turns false before anybody can declare the node dead, as long as
//!   monotonic clocks differ by less than a fifth. It is for what no transaction can guard: the
//!   moment before a message's final dot.
//! - A node whose epoch was ended by its heart standing still registers again, with a new epoch.
//!   One whose name was taken by another process does not: it ends.
//!
//! Deliberately absent: a leader, a quorum of nodes, comparison of wall clocks. The store decides.

pub mod registry;
pub mod roll;

mod observer;
mod settle;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use env::{
    Env, Monotonic, Task, Timestamp,
    probe::{self, Observation, Planted},
};
use kv::{Committed, Database, RetryPolicy, Transaction};
use tokio::{
    sync::{Notify, watch},
    try_join,
};

use self::{
    observer::Observer,
    registry::{Activity, Beat, End, Ended, NameRecord, NodeRecord, Registered, Wish},
};
use crate::{ClusterError, Epoch, NodeName, certificates, dkim, limits, settings};

/// The nodes that are registered.
pub type Roster = BTreeMap<Epoch, Registered>;

/// What a node registers with.
#[derive(Debug, Clone)]
pub struct Registration {
    /// Its name.
    pub name: NodeName,
    /// Its release.
    pub release: String,
    /// Where other nodes reach it.
    pub address: String,
    /// What it shows to them.
    pub certificate: Vec<u8>,
    /// Where its administration listens.
    pub admin_address: String,
    /// How long its heartbeat may stand still; kept within
    /// [`limits::TIME_TO_LIVE_MIN`] and [`limits::TIME_TO_LIVE_MAX`].
    pub time_to_live: Duration,
}

/// Where a node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is registered, as far as it knows.
    Member(Epoch),
    /// Its epoch was ended and it has no other yet.
    Lost,
    /// Another process has its name: it is to end.
    Superseded,
}

/// A node's membership. Cloning is one reference count; the heartbeat ends with
/// [`Membership::leave`] or with the last clone.
#[derive(Clone)]
pub struct Membership {
    shared: Arc<Shared>,
    pulse: Arc<Task<()>>,
}

struct Shared {
    db: Database,
    env: Env,
    registration: Registration,
    /// Tells this process from another of the same name.
    instance: Vec<u8>,
    life: Mutex<Arc<Life>>,
    standing: watch::Sender<Standing>,
    roster: watch::Sender<Arc<Roster>>,
    wish: watch::Sender<Wish>,
    settings: watch::Sender<Arc<settings::Record>>,
    certificates: watch::Sender<u64>,
    dkim_keys: watch::Sender<u64>,
    shown: Mutex<Shown>,
    /// Asks for a heartbeat now.
    hurry: Notify,
}

/// What heartbeats say of the node.
#[derive(Debug, Clone, Copy)]
struct Shown {
    activity: Activity,
    sessions: u64,
    claims: u64,
    certificate_until_ms: i64,
}

/// One epoch, and until when the node may rely on it.
struct Life {
    env: Env,
    epoch: Epoch,
    /// Microseconds of this environment's monotonic clock.
    trusted_until_us: AtomicU64,
}

/// The right to act on what an epoch has claimed.
#[derive(Clone)]
pub struct Fence {
    life: Arc<Life>,
}

impl Fence {
    /// The epoch.
    pub fn epoch(&self) -> Epoch {
        self.life.epoch
    }

    /// Reads, with conflict, that the epoch lasts. To be called by every transaction that
    /// completes claimed work.
    ///
    /// # Errors
    /// [`ClusterError::Ended`] where it does not.
    pub async fn check(&self, tx: &Transaction) -> Result<(), ClusterError> {
        if probe::planted(Planted::SkipEpochCheck) {
            return Ok(());
        }
        registry::check(tx, self.life.epoch).await
    }

    /// Whether nobody can have taken over yet, by this node's own clock.
    pub fn is_live(&self) -> bool {
        let now = micros(self.life.env.monotonic());
        if probe::planted(Planted::TrustForever) {
            return true;
        }
        now < self.life.trusted_until_us.load(Ordering::Acquire)
    }
}

fn micros(at: Monotonic) -> u64 {
    micros_of(at.since_start())
}

fn micros_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Life {
    fn new(env: &Env, epoch: Epoch) -> Arc<Self> {
        Arc::new(Self { env: env.clone(), epoch, trusted_until_us: AtomicU64::new(0) })
    }

    /// A heartbeat that was begun at `begun` has reached the store.
    fn renew(&self, begun: Monotonic, time_to_live: Duration) {
        let trusted = time_to_live * limits::TRUSTED_TENTHS / 10;
        self.trusted_until_us.fetch_max(micros(begun + trusted), Ordering::AcqRel);
    }

    fn end(&self) {
        self.trusted_until_us.store(0, Ordering::Release);
    }
}

impl Membership {
    /// Registers a node and keeps it alive.
    ///
    /// # Errors
    /// [`ClusterError`] where the store does not let it register.
    pub async fn join(
        db: Database,
        env: Env,
        mut registration: Registration,
    ) -> Result<Self, ClusterError> {
        registration.time_to_live =
            registration.time_to_live.clamp(limits::TIME_TO_LIVE_MIN, limits::TIME_TO_LIVE_MAX);
        registration.certificate.truncate(limits::CERTIFICATE_BYTES_MAX);
        let shared = Arc::new(Shared {
            life: Mutex::new(Life::new(&env, Epoch(0))),
            instance: env.random_array::<16>().to_vec(),
            db,
            env: env.clone(),
            registration,
            standing: watch::Sender::new(Standing::Lost),
            roster: watch::Sender::new(Arc::default()),
            wish: watch::Sender::new(Wish::Serve),
            settings: watch::Sender::default(),
            certificates: watch::Sender::new(0),
            dkim_keys: watch::Sender::new(0),
            shown: Mutex::new(Shown {
                activity: Activity::Starting,
                sessions: 0,
                claims: 0,
                certificate_until_ms: 0,
            }),
            hurry: Notify::new(),
        });
        shared.register().await?;
        // The first look, so that whoever joins knows the roster and its own wish at once.
        let mut pulse = Pulse::new(&shared);
        pulse.beat().await?;
        let pulse = env.spawn("membership", pulse.run());
        Ok(Self { shared, pulse: Arc::new(pulse) })
    }

    /// The node's name.
    pub fn name(&self) -> &NodeName {
        &self.shared.registration.name
    }

    /// Where the node stands, now and later.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.shared.standing.subscribe()
    }

    /// The right to act under the present epoch.
    pub fn fence(&self) -> Fence {
        Fence { life: self.shared.life() }
    }

    /// Who is registered, as of the last look.
    pub fn roster(&self) -> watch::Receiver<Arc<Roster>> {
        self.shared.roster.subscribe()
    }

    /// What administrators want of this node.
    pub fn wish(&self) -> watch::Receiver<Wish> {
        self.shared.wish.subscribe()
    }

    /// The settings that hold for all nodes, as of the last look.
    pub fn settings(&self) -> watch::Receiver<Arc<settings::Record>> {
        self.shared.settings.subscribe()
    }

    /// The number of the last change of the certificates in the store, as of the last look.
    pub fn certificates(&self) -> watch::Receiver<u64> {
        self.shared.certificates.subscribe()
    }

    /// The number of the last change of the keys that domains sign with, as of the last look.
    pub fn dkim_keys(&self) -> watch::Receiver<u64> {
        self.shared.dkim_keys.subscribe()
    }

    /// Says what the node does, from the next heartbeat on, which comes at once.
    pub fn show_activity(&self, activity: Activity) {
        self.shared.shown().activity = activity;
        self.hurry();
    }

    /// Says how much the node does, from the next heartbeat on.
    pub fn show_load(&self, sessions: u64, claims: u64) {
        let mut shown = self.shared.shown();
        (shown.sessions, shown.claims) = (sessions, claims);
    }

    /// Says until when the certificate in the node's own files is good, from the next heartbeat on;
    /// `None` where there are no such files.
    pub fn show_certificate(&self, until: Option<Timestamp>) {
        self.shared.shown().certificate_until_ms = until.map_or(0, Timestamp::unix_ms);
    }

    /// Brings the next heartbeat, and with it the next look at the store, forward to now.
    pub fn hurry(&self) {
        self.shared.hurry.notify_one();
    }

    /// Ends the epoch and settles what it held. The node must have stopped acting on its claims.
    ///
    /// # Errors
    /// [`ClusterError`]; the others will find the node dead.
    pub async fn leave(self) -> Result<(), ClusterError> {
        self.pulse.abort();
        let life = self.shared.life();
        life.end();
        let (db, epoch) = (&self.shared.db, life.epoch);
        let now_ms = self.shared.env.wall().unix_ms();
        let end = move |tx| async move { registry::end(&tx, epoch, End::Left, now_ms).await };
        note_end(epoch, &db.run_versioned(end).await?);
        settle::settle(&self.shared.env, db, epoch).await?;
        Ok(())
    }
}

impl Shared {
    fn life(&self) -> Arc<Life> {
        self.life.lock().expect("no code panics while it holds this").clone()
    }

    fn shown(&self) -> std::sync::MutexGuard<'_, Shown> {
        self.shown.lock().expect("no code panics while it holds this")
    }

    fn next_beat(&self, count: u64) -> Beat {
        let shown = *self.shown();
        Beat {
            count,
            time_to_live_ms: u64::try_from(self.registration.time_to_live.as_millis())
                .unwrap_or(u64::MAX),
            activity: shown.activity as i32,
            sessions: shown.sessions,
            claims: shown.claims,
            wall_ms: self.env.wall().unix_ms(),
            certificate_until_ms: shown.certificate_until_ms,
        }
    }

    /// Takes a new epoch.
    async fn register(&self) -> Result<(), ClusterError> {
        let it = &self.registration;
        let record = NodeRecord {
            name: it.name.to_string(),
            release: it.release.clone(),
            address: it.address.clone(),
            certificate: it.certificate.clone(),
            since_ms: self.env.wall().unix_ms(),
            admin_address: it.admin_address.clone(),
            instance: self.instance.clone(),
        };
        let (record, first) = (&record, self.next_beat(0));
        let begun = self.env.monotonic();
        let epoch = self
            .db
            .run(move |tx| async move { registry::register(&tx, record, first).await })
            .await?;
        probe::observe(|| Observation::Registered { epoch: epoch.0 });
        let life = Life::new(&self.env, epoch);
        life.renew(begun, it.time_to_live);
        *self.life.lock().expect("no code panics while it holds this") = life;
        self.standing.send_replace(Standing::Member(epoch));
        tracing::info!(%epoch, name = %it.name, "registered");
        Ok(())
    }
}

/// Tells a simulation of an epoch that a transaction has ended.
fn note_end(epoch: Epoch, committed: &Committed<Ended>) {
    if let (Ended::Now, Some(stamp)) = (committed.value, committed.versionstamp) {
        probe::observe(|| Observation::EpochEnded { epoch: epoch.0, version: stamp.version() });
    }
}

/// What one look at the store found.
struct Look {
    own: NameRecord,
    nodes: Roster,
    ended: Vec<Epoch>,
    settings: settings::Record,
    certificates: u64,
    dkim_keys: u64,
}

/// The loop of heartbeats and looks.
struct Pulse {
    shared: Arc<Shared>,
    observer: Observer,
    count: u64,
    settling: Option<Task<()>>,
}

impl Pulse {
    fn new(shared: &Arc<Shared>) -> Self {
        let (shared, gap_max) = (Arc::clone(shared), shared.registration.time_to_live / 2);
        let observer = Observer::new(gap_max);
        Self { shared, observer, count: 0, settling: None }
    }

    async fn run(mut self) {
        let env = self.shared.env.clone();
        let period = self.shared.registration.time_to_live / limits::BEATS_PER_LIFE;
        loop {
            let begun = env.monotonic();
            match self.beat().await {
                Ok(()) => {}
                Err(ClusterError::Ended(epoch)) => {
                    if self.lost(epoch).await == Standing::Superseded {
                        return;
                    }
                }
                Err(error) => tracing::warn!(%error, "no heartbeat"),
            }
            let next = begun + period;
            tokio::select! {
                biased;
                () = env.sleep_until(next) => {}
                () = self.shared.hurry.notified() => {}
            }
        }
    }

    /// One heartbeat and one look at the others.
    async fn beat(&mut self) -> Result<(), ClusterError> {
        let shared = Arc::clone(&self.shared);
        let life = shared.life();
        self.count += 1;
        let beat = shared.next_beat(self.count);
        let (env, epoch, name) = (&shared.env, life.epoch, &shared.registration.name);
        let begun = env.monotonic();
        // A try that has outlived the trust it would renew is not worth going on with.
        let time_max = shared.registration.time_to_live / limits::BEATS_PER_LIFE;
        let db = shared.db.with_retry(RetryPolicy { time_max, ..RetryPolicy::default() });
        let look = db.run(move |tx| async move {
            let own = registry::beat(&tx, epoch, name, beat).await?;
            let nodes = registry::registered(&tx).await?.into_iter().collect();
            let ended = registry::ended(&tx).await?.into_iter().map(|(epoch, _)| epoch).collect();
            let (settings, certificates, dkim_keys) =
                try_join!(settings::current(&tx), certificates::version(&tx), dkim::version(&tx))?;
            Ok::<_, ClusterError>(Look { own, nodes, ended, settings, certificates, dkim_keys })
        });
        let whole = shared.registration.time_to_live;
        let look = env.timeout(whole, look).await.map_err(|_| kv::Error::Unavailable)??;
        life.renew(begun, shared.registration.time_to_live);
        let wish = if look.own.drain { Wish::Drain } else { Wish::Serve };
        shared.wish.send_if_modified(|held| std::mem::replace(held, wish) != wish);
        shared.settings.send_if_modified(|held| {
            let changed = held.version != look.settings.version;
            if changed {
                *held = Arc::new(look.settings);
            }
            changed
        });
        let version = look.certificates;
        shared.certificates.send_if_modified(|held| std::mem::replace(held, version) != version);
        let version = look.dkim_keys;
        shared.dkim_keys.send_if_modified(|held| std::mem::replace(held, version) != version);
        let overdue = self.observer.look(begun, env.monotonic(), &look.nodes, epoch);
        shared.roster.send_replace(Arc::new(look.nodes));
        let mut ended = look.ended;
        for dead in overdue {
            if self.bury(dead).await? == Ended::Now {
                ended.push(dead.epoch);
            }
        }
        self.settle(ended);
        Ok(())
    }

    async fn bury(&self, dead: observer::Overdue) -> Result<Ended, ClusterError> {
        let now_ms = self.shared.env.wall().unix_ms();
        let observer::Overdue { epoch, count } = dead;
        let declared = self.shared.db.run_versioned(move |tx| async move {
            registry::declare_dead(&tx, epoch, count, now_ms).await
        });
        let declared = declared.await?;
        note_end(epoch, &declared);
        let ended = declared.value;
        if ended == Ended::Now {
            env::sometimes!("declared a node dead");
            tracing::warn!(%epoch, "a node's heartbeat stood still: declared dead");
        }
        Ok(ended)
    }

    /// Settles what ended epochs held, beside the heartbeats. What is left when that fails is
    /// found by the next look.
    fn settle(&mut self, ended: Vec<Epoch>) {
        let busy = self.settling.as_ref().is_some_and(|task| !task.is_finished());
        if busy || ended.is_empty() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        self.settling = Some(self.shared.env.spawn("settle", async move {
            // Everyone sees the same ends at about the same time, and one is enough.
            let delay = shared.env.random_below(micros_of(limits::SETTLE_DELAY_MAX));
            shared.env.sleep(Duration::from_micros(delay)).await;
            for epoch in ended {
                match settle::settle(&shared.env, &shared.db, epoch).await {
                    Ok(claims) => {
                        if claims > 0 {
                            env::sometimes!("gave back what a dead node had claimed");
                        }
                        tracing::info!(%epoch, claims, "what an ended epoch held is settled");
                    }
                    Err(error) => tracing::warn!(%epoch, %error, "an ended epoch is not settled"),
                }
            }
        }));
    }

    /// The epoch is over: takes another, unless another process has the name.
    async fn lost(&mut self, epoch: Epoch) -> Standing {
        let shared = &self.shared;
        shared.life().end();
        shared.standing.send_replace(Standing::Lost);
        tracing::error!(%epoch, "this node was declared dead");
        env::sometimes!("lived on after being declared dead");
        let name = &shared.registration.name;
        let held = shared.db.run(move |tx| async move { registry::name(&tx, name).await }).await;
        let held = match held {
            Ok(held) => held,
            Err(error) => {
                tracing::warn!(%error, "cannot see who has this node's name");
                return Standing::Lost;
            }
        };
        // Another epoch under the same instance is a registration whose answer was lost.
        if held.is_some_and(|held| held.instance != shared.instance) {
            tracing::error!(%name, "another process has this node's name");
            shared.standing.send_replace(Standing::Superseded);
            return Standing::Superseded;
        }
        if let Err(error) = shared.register().await {
            tracing::warn!(%error, "cannot register again");
            return Standing::Lost;
        }
        Standing::Member(shared.life().epoch)
    }
}
