//! How many claims and wake-ups a second three nodes reach on one store, and what those cost.
//!
//! `cargo run --release -p cluster --features fdb --example rates -- [CLUSTER_FILE]`: on FoundationDB
//! where a cluster file is named (and nothing else is in it), otherwise on the memory engine.
//!
//! Claims: 20,000 zones with an item each come due at once; three nodes claim them, do nothing, and
//! let them go. Wake-ups: 100,000 accounts, a session of one of three nodes on each; transactions
//! change 20 accounts each, picked at random; every wake-up is counted where it arrives, and no node
//! may hear of an account that only another listens to.
#![expect(clippy::print_stdout, reason = "its figures are what it is for")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use cluster::{
    Membership, NodeName, Registration,
    wake::{Ears, Hear, Heard, Watching},
    work::{self, Done, Held, Kind, Runner, RunnerSettings, Worker, zone::Item},
};
use env::{BoxFuture, Env};
use futures_util::future::join_all;
use kv::{Counts, Database};
use mail::{AccountId, StoreError, interest};

const NODES: u64 = 3;
const ZONES: u64 = 20_000;
const ZONES_PER_TRANSACTION: u64 = 100;
const ACCOUNTS: u64 = 100_000;
const ACCOUNTS_PER_TRANSACTION: usize = 20;
const WRITERS: usize = 16;
const WRITING: Duration = Duration::from_secs(10);
const PERIOD: Duration = Duration::from_millis(20);

#[tokio::main]
async fn main() {
    let env = Env::system();
    let db = open(&env);
    let mut members = Vec::new();
    for number in 1..=NODES {
        let db = db.counted_apart();
        members.push((join(&db, &env, number).await, db));
    }
    claims(&env, &db, &members).await;
    wake_ups(&env, &db, &members).await;
    for (member, _) in members {
        member.leave().await.expect("the store lets it leave");
    }
    #[cfg(feature = "fdb")]
    kv::fdb::stop();
}

fn open(env: &Env) -> Database {
    match std::env::args().nth(1) {
        #[cfg(feature = "fdb")]
        Some(file) => kv::fdb::open(Some(std::path::Path::new(&file)), env.clone())
            .expect("the cluster opens"),
        #[cfg(not(feature = "fdb"))]
        Some(_) => panic!("this was built without FoundationDB"),
        None => Database::memory(env.clone()),
    }
}

async fn join(db: &Database, env: &Env, number: u64) -> Membership {
    let registration = Registration {
        name: NodeName::parse(&format!("node-{number}")).expect("a name"),
        release: "1".to_owned(),
        address: String::new(),
        certificate: Vec::new(),
        admin_address: String::new(),
        time_to_live: Duration::from_secs(5),
    };
    Membership::join(db.clone(), env.clone(), registration).await.expect("the store lets it join")
}

/// Does nothing, quickly.
struct Idler {
    done: Arc<AtomicU64>,
}

impl Worker for Idler {
    fn kind(&self) -> Kind {
        Kind::Outbound
    }

    fn zones_at_once(&self) -> usize {
        64
    }

    fn items_at_once(&self) -> usize {
        1
    }

    fn work<'a>(&'a self, _held: &'a Held, _item: &'a Item) -> BoxFuture<'a, Result<Done, String>> {
        self.done.fetch_add(1, Relaxed);
        Box::pin(std::future::ready(Ok(Done::Finished)))
    }
}

async fn claims(env: &Env, db: &Database, members: &[(Membership, Database)]) {
    let due = env.wall();
    for first in (0..ZONES).step_by(usize::try_from(ZONES_PER_TRANSACTION).expect("it is small")) {
        db.run(|tx| async move {
            for zone in first..first + ZONES_PER_TRANSACTION {
                let zone = format!("{zone}.example");
                work::enqueue(&tx, Kind::Outbound, &zone, due, b"item", b"").await?;
            }
            Ok::<_, StoreError>(())
        })
        .await
        .expect("the store takes it");
    }
    let done = Arc::new(AtomicU64::new(0));
    let before = counts(members);
    let begun = env.monotonic();
    let runners: Vec<Runner> = members
        .iter()
        .map(|(member, db)| {
            let idler = Arc::new(Idler { done: Arc::clone(&done) });
            let settings = RunnerSettings::default();
            Runner::start(db, env, member, settings, vec![idler as Arc<dyn Worker>])
        })
        .collect();
    while done.load(Relaxed) < ZONES {
        env.sleep(PERIOD).await;
    }
    let took = (env.monotonic() - begun).as_secs_f64();
    let spent = counts(members);
    for runner in runners {
        runner.stop().await;
    }
    println!(
        "claims: {ZONES} zones by {NODES} nodes in {took:.1} s, {:.0} a second; a zone took {:.2} \
         transactions that write, {:.2} conflicts",
        ZONES as f64 / took,
        (spent.0 - before.0) as f64 / ZONES as f64,
        (spent.1 - before.1) as f64 / ZONES as f64,
    );
}

/// Transactions that wrote, and conflicts.
fn counts(members: &[(Membership, Database)]) -> (u64, u64) {
    let all = members.iter().map(|(_, db)| db.counts());
    all.fold((0, 0), |(committed, conflicts), counts: Counts| {
        (committed + counts.transactions_committed, conflicts + counts.conflicts)
    })
}

async fn wake_ups(env: &Env, db: &Database, members: &[(Membership, Database)]) {
    let heard: Vec<Arc<AtomicU64>> = members.iter().map(|_| Arc::default()).collect();
    let foreign = Arc::new(AtomicU64::new(0));
    let mut ears = Vec::new();
    for (number, (member, db)) in members.iter().enumerate() {
        let (heard, foreign) = (Arc::clone(&heard[number]), Arc::clone(&foreign));
        let hear: Hear = Arc::new(move |what| match what {
            Heard::Changed(account, _) if account.0 % NODES == number as u64 => {
                heard.fetch_add(1, Relaxed);
            }
            _ => drop(foreign.fetch_add(1, Relaxed)),
        });
        ears.push(Ears::open(db, env, member, Watching::Bell, hear));
    }
    let begun = env.monotonic();
    let interests: Vec<_> = (0..ACCOUNTS)
        .map(|account| ears[(account % NODES) as usize].listen(AccountId(account)))
        .collect();
    for interest in &interests {
        interest.heard().await;
    }
    let took = (env.monotonic() - begun).as_secs_f64();
    println!("interests: {ACCOUNTS} written in {took:.1} s");
    let begun = env.monotonic();
    let end = begun + WRITING;
    let writers = (0..WRITERS).map(|_| async {
        let mut told = 0;
        while env.monotonic() < end {
            let mut accounts: Vec<u64> =
                (0..ACCOUNTS_PER_TRANSACTION).map(|_| env.random_below(ACCOUNTS)).collect();
            accounts.sort_unstable();
            accounts.dedup();
            let accounts = &accounts;
            db.run(|tx| async move {
                for account in accounts {
                    interest::tell(&tx, AccountId(*account)).await?;
                }
                Ok::<_, StoreError>(())
            })
            .await
            .expect("the store takes it");
            told += accounts.len() as u64;
        }
        told
    });
    let told: u64 = join_all(writers).await.into_iter().sum();
    let total = || heard.iter().map(|heard| heard.load(Relaxed)).sum::<u64>();
    let at_end = total();
    // Changes of one account that are read together are one wake-up.
    let mut last = u64::MAX;
    while total() != last {
        last = total();
        env.sleep(2 * cluster::limits::INBOX_PERIOD).await;
    }
    let seconds = WRITING.as_secs_f64();
    println!(
        "wake-ups: {told} changes told, {last} wake-ups; {:.0} a second, {:.0} a node; {} of \
         another node's",
        at_end as f64 / seconds,
        at_end as f64 / seconds / NODES as f64,
        foreign.load(Relaxed),
    );
}
