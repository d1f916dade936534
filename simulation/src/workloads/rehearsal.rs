//! Claimed work that takes its time, on machines of its own that die, stand still and lose the
//! store: a rehearsal, because the nodes' own work is over before anything can go wrong with it.
//!
//! Three members of the cluster work on [`Kind::Rehearsal`]. An item takes seconds, and leaves
//! its effect in the transaction that completes it. One member at a time is in trouble, so the
//! others are there to take over.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use cluster::{
    ClusterError, Membership, NodeName, Registration,
    work::{self, Completion, Done, Held, Kind, Runner, RunnerSettings, Worker, zone::Item},
};
use env::{BoxFuture, Env};
use kv::{AtomicOp, Database, Probability, RangeQuery, Reach, Subspace, Transaction, tuple::pack};
use mail::StoreError;

use crate::{Host, NodeId, Random, Share, What, WorkStep, Workload, World};

/// Members that work.
const MEMBERS: usize = 3;

/// Zones; each member has room for all of them.
const ZONES: u64 = 5;

/// The longest time that most items take.
const ITEM_TIME_MAX: Duration = Duration::from_millis(1_500);

/// The longest time that a few take: as long as it takes to find a worker dead, and somewhat more.
const LONG_ITEM_TIME_MAX: Duration = Duration::from_secs(9);

/// Of a thousand items, how many are long.
const LONG_PER_MILLE: u64 = 200;

/// A trouble that lasts so long counts as the worker's end: by then others have to have taken over.
const GONE_TIME: Duration = Duration::from_secs(11);

/// How long the items that are left at the deadline may take.
const FINISH_TIME: Duration = Duration::from_secs(120);

/// How far ahead the wall clock of a node is in half of the worlds, which does not rehearse and gives back what
/// dead members had claimed: nothing may hang on it but how long bytes are kept, which P5 allows an hour for.
const CLOCK_AHEAD_MS_MAX: u64 = 45 * 60_000;

pub(super) const SHARE: Share =
    Share { name: "rehearsal", per_mille: 600, make: |_| Arc::new(Rehearsal) };

struct Rehearsal;

impl Workload for Rehearsal {
    fn name(&self) -> &'static str {
        SHARE.name
    }

    fn run<'a>(&'a self, world: &'a World) -> BoxFuture<'a, ()> {
        Box::pin(async {
            let mut random = world.random("rehearsal");
            let mut members = Vec::new();
            for number in 1..=MEMBERS {
                members.push(Member::begin(world, format!("worker-{number}")).await);
            }
            if random.chance(500) {
                let node = random.within(1..=u64::from(world.setup().nodes));
                let node = NodeId(u8::try_from(node).unwrap_or(1));
                let ahead_ms = i64::try_from(random.below(CLOCK_AHEAD_MS_MAX)).unwrap_or(0);
                world.host(node).skew(0, ahead_ms);
            }
            let queueing = world.env().spawn("queueing", queue(world.clone(), random.split()));
            while !world.is_over() {
                world.rest(Duration::from_secs(2) + random.up_to(Duration::from_secs(12))).await;
                let picked = usize::try_from(random.below(MEMBERS as u64)).unwrap_or(0);
                members[picked].trouble(world, &mut random).await;
            }
            // A panic is told by the world.
            let queued = queueing.await.unwrap_or(0);
            let end = world.env().monotonic() + FINISH_TIME;
            while world.env().monotonic() < end && done(world).await < queued {
                world.env().sleep(Duration::from_secs(1)).await;
            }
            for member in members {
                member.end().await;
            }
        })
    }
}

/// One member of the cluster.
struct Member {
    name: String,
    host: Host,
    db: Database,
    membership: Membership,
    runner: Runner,
}

impl Member {
    async fn begin(world: &World, name: String) -> Self {
        let host = world.client_host(&name);
        Self::on(world, host, name).await
    }

    async fn on(world: &World, host: Host, name: String) -> Self {
        let env = host.env();
        let mut store = world.setup().store.clone();
        store.conflict = Probability::per_million(10_000);
        store.commit_unknown = Probability::per_million(20_000);
        let db = world.db().handle_with_faults(env.clone(), store);
        let registration = Registration {
            name: NodeName::parse(&name).expect("it is a name"),
            release: "rehearsal".to_owned(),
            address: String::new(),
            certificate: Vec::new(),
            admin_address: String::new(),
            time_to_live: cluster::limits::TIME_TO_LIVE,
        };
        let membership = Membership::join(db.clone(), env.clone(), registration)
            .await
            .expect("its store works while it joins");
        let worker = Rehearse { world: world.clone(), db: db.clone(), env, name: name.clone() };
        let settings =
            RunnerSettings { zone_turn: Duration::from_secs(30), ..RunnerSettings::default() };
        let runner = Runner::start(&db, &host.env(), &membership, settings, vec![Arc::new(worker)]);
        Self { name, host, db, membership, runner }
    }

    /// Goes through one trouble, up to its end.
    async fn trouble(&mut self, world: &World, random: &mut Random) {
        let epoch = self.membership.fence().epoch().0;
        let long = Duration::from_secs(5) + random.up_to(Duration::from_secs(12));
        let name = self.name.clone();
        let fault = |what: &str| {
            world.facts().note(&name, What::Fault(format!("{name} {what}")));
        };
        let gone = || {
            if long >= GONE_TIME {
                world.facts().note(&name, What::WorkerGone { epoch });
            }
        };
        match random.below(4) {
            0 => {
                fault("dies");
                gone();
                self.host.crash();
                world.env().sleep(long).await;
                self.host.restart();
                *self = Self::on(world, self.host.clone(), self.name.clone()).await;
            }
            1 => {
                fault("stands still");
                gone();
                self.host.pause();
                world.env().sleep(long).await;
                self.host.resume();
            }
            2 => {
                fault("is cut off from the store");
                gone();
                self.db.faults().update(|faults| faults.reach = Reach::CutOff);
                world.env().sleep(long).await;
                self.db.faults().update(|faults| faults.reach = Reach::Connected);
            }
            _ => {
                fault("hears nothing of the store");
                self.db.faults().update(|faults| faults.reach = Reach::RepliesLost);
                world.env().sleep(long / 3).await;
                self.db.faults().update(|faults| faults.reach = Reach::Connected);
            }
        }
        fault("is well again");
    }

    async fn end(self) {
        self.runner.stop().await;
        // Where that fails the others find it dead.
        let _found_dead = self.membership.leave().await;
    }
}

/// What a member does with an item.
struct Rehearse {
    world: World,
    db: Database,
    env: Env,
    name: String,
}

impl Rehearse {
    fn note(&self, held: &Held, item: u64, step: WorkStep) {
        let (zone, epoch) = (held.zone.clone(), held.fence.epoch().0);
        self.world.facts().note(&self.name, What::Work { item, zone, epoch, step });
    }
}

impl Worker for Rehearse {
    fn kind(&self) -> Kind {
        Kind::Rehearsal
    }

    fn zones_at_once(&self) -> usize {
        usize::try_from(ZONES).unwrap_or(usize::MAX)
    }

    fn items_at_once(&self) -> usize {
        2
    }

    fn work<'a>(&'a self, held: &'a Held, item: &'a Item) -> BoxFuture<'a, Result<Done, String>> {
        Box::pin(async move {
            let number = item.id[..].try_into().map_or(0, u64::from_be_bytes);
            self.note(held, number, WorkStep::Begun);
            let is_long = self.env.random_below(1_000) < LONG_PER_MILLE;
            let most = if is_long { LONG_ITEM_TIME_MAX } else { ITEM_TIME_MAX };
            let micros = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
            self.env.sleep(Duration::from_micros(self.env.random_below(micros))).await;
            let complete = |tx: Transaction| async move {
                let completion = held.complete(&tx, item).await?;
                if completion == Completion::Ours {
                    tx.atomic(&effect_key(number), &1_u64.to_le_bytes(), AtomicOp::Add);
                    tx.set(&doer_key(number), &held.fence.epoch().0.to_le_bytes());
                }
                Ok::<_, ClusterError>(completion)
            };
            match self.db.run_versioned(complete).await {
                Ok(committed) => {
                    held.completed(committed.versionstamp);
                    let done = committed.value == Completion::Ours;
                    self.note(held, number, if done { WorkStep::Done } else { WorkStep::Failed });
                    Ok(Done::Completed)
                }
                Err(error) => {
                    self.note(held, number, WorkStep::Failed);
                    Err(error.to_string())
                }
            }
        })
    }
}

/// Puts items down until the deadline; returns how many.
async fn queue(world: World, mut random: Random) -> u64 {
    let mut queued = 0;
    while !world.is_over() {
        for _ in 0..random.within(2..=8) {
            queued += 1;
            enqueue(&world, queued, random.below(ZONES)).await;
        }
        world.rest(Duration::from_secs(1) + random.up_to(Duration::from_secs(4))).await;
    }
    queued
}

async fn enqueue(world: &World, item: u64, zone: u64) {
    let (zone, due) = (&format!("rehearsal-{zone}"), world.env().wall());
    world.facts().note(
        "rehearsal",
        What::Work { item, zone: zone.clone(), epoch: 0, step: WorkStep::Queued },
    );
    let id = &item.to_be_bytes();
    let enqueue = |tx| async move {
        work::enqueue(&tx, Kind::Rehearsal, zone, due, id, &[]).await?;
        Ok::<_, StoreError>(())
    };
    world.db().run(enqueue).await.expect("nobody disturbs the world's own handle");
}

/// How often an item has had its effect.
fn effect_key(item: u64) -> Vec<u8> {
    pack(&(Subspace::Work as u64, Kind::Rehearsal as u64, "x", item))
}

/// Which epoch it was.
fn doer_key(item: u64) -> Vec<u8> {
    pack(&(Subspace::Work as u64, Kind::Rehearsal as u64, "y", item))
}

/// What is known of an item's effect.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Effect {
    /// How often it was done.
    pub times: u64,
    /// The epoch that did it last.
    pub epoch: u64,
}

/// The effects of all items that were done.
pub async fn effects(world: &World) -> BTreeMap<u64, Effect> {
    let mut effects: BTreeMap<u64, Effect> = BTreeMap::new();
    for family in ["x", "y"] {
        let prefix = &pack(&(Subspace::Work as u64, Kind::Rehearsal as u64, family));
        let read =
            |tx: Transaction| async move { tx.range(RangeQuery::prefix(prefix)).collect().await };
        let rows: Result<_, kv::Error> = world.db().run(read).await;
        for row in rows.expect("nobody disturbs the world's own handle") {
            let key: Result<(u64, u64, String, u64), _> = kv::tuple::unpack(&row.key);
            let (Ok((_, _, _, item)), Ok(value)) = (key, row.value[..].try_into()) else {
                continue;
            };
            let effect = effects.entry(item).or_default();
            let value = u64::from_le_bytes(value);
            if family == "x" { effect.times = value } else { effect.epoch = value }
        }
    }
    effects
}

async fn done(world: &World) -> u64 {
    effects(world).await.len() as u64
}
