//! Work is done once, by whoever is there to do it.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use cluster::{
    ClusterError, Membership,
    work::{
        self, Completion, Done, Held, Kind, Runner, RunnerSettings, Worker,
        zone::{self, Item},
    },
};
use env::{BoxFuture, Env, Timestamp};
use kv::{AtomicOp, Database, Probability, RangeQuery, Subspace};

use crate::{Machine, play, sees};

const KIND: Kind = Kind::Outbound;

/// Counts each item in the transaction that completes it.
struct Counter {
    db: Database,
    env: Env,
    takes: Duration,
}

fn count_key(zone: &str, id: &[u8]) -> Vec<u8> {
    [b"done/", zone.as_bytes(), b"/", id].concat()
}

impl Worker for Counter {
    fn kind(&self) -> Kind {
        KIND
    }

    fn zones_at_once(&self) -> usize {
        3
    }

    fn items_at_once(&self) -> usize {
        2
    }

    fn work<'a>(&'a self, held: &'a Held, item: &'a Item) -> BoxFuture<'a, Result<Done, String>> {
        Box::pin(async move {
            let takes = u64::try_from(self.takes.as_micros()).expect("hours at most");
            self.env.sleep(Duration::from_micros(self.env.random_below(takes))).await;
            let count = |tx: kv::Transaction| async move {
                if held.complete(&tx, item).await? == Completion::Ours {
                    let key = count_key(&held.zone, &item.id);
                    tx.atomic(&key, &1_u64.to_le_bytes(), AtomicOp::Add);
                }
                Ok::<_, ClusterError>(())
            };
            self.db.run(count).await.map_err(|error| error.to_string())?;
            Ok(Done::Completed)
        })
    }
}

fn counting(machine: &Machine, member: &Membership, takes: Duration) -> Runner {
    let worker = Counter { db: machine.db.clone(), env: machine.env.clone(), takes };
    start(machine, member, Arc::new(worker))
}

fn start(machine: &Machine, member: &Membership, worker: Arc<dyn Worker>) -> Runner {
    let settings = RunnerSettings { zone_turn: Duration::from_secs(2), ..Default::default() };
    Runner::start(&machine.db, &machine.env, member, settings, vec![worker])
}

async fn enqueue(db: &Database, zone: &str, due: Timestamp, id: &[u8]) {
    db.run(|tx| async move { work::enqueue(&tx, KIND, zone, due, id, b"item").await })
        .await
        .expect("the store takes it");
}

async fn rows(db: &Database, prefix: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let query = RangeQuery::prefix(prefix);
    let rows = db.run(|tx| {
        let query = query.clone();
        async move { tx.range(query).collect().await }
    });
    rows.await
        .expect("the store answers")
        .into_iter()
        .map(|row| (row.key.to_vec(), row.value.to_vec()))
        .collect()
}

/// Waits until nothing is left to do.
async fn finished(env: &Env, db: &Database) {
    while !rows(db, &Subspace::Work.prefix()).await.is_empty() {
        env.sleep(Duration::from_millis(100)).await;
    }
}

#[test]
fn each_item_is_done_once_whoever_dies_and_whatever_the_store_does() {
    for seed in 0..12 {
        play(seed, |world| {
            let machines = [world.machine(), world.machine(), world.machine()];
            let (env, db) = (world.env.clone(), world.db.clone());
            async move {
                for machine in &machines {
                    machine.faults.update(|faults| {
                        faults.conflict = Probability::per_million(30_000);
                        faults.commit_unknown = Probability::per_million(30_000);
                        faults.too_old = Probability::per_million(5_000);
                    });
                }
                for item in 0..240_u16 {
                    let zone = format!("zone{}.example", item % 20);
                    enqueue(&db, &zone, env.wall(), &item.to_be_bytes()).await;
                }
                let takes = Duration::from_millis(900);
                let mut members = Vec::new();
                let mut runners = Vec::new();
                for (machine, name) in machines.iter().zip(["one", "two", "three"]) {
                    let member = machine.join(name).await;
                    runners.push(counting(machine, &member, takes));
                    members.push(member);
                }
                env.sleep(Duration::from_secs(2)).await;
                // One dies, one is cut off for a while.
                drop((runners.remove(0), members.remove(0)));
                machines[1].cut_off();
                env.sleep(Duration::from_secs(10)).await;
                machines[1].reconnect();
                finished(&env, &db).await;
                let done = rows(&db, b"done/").await;
                assert_eq!(done.len(), 240, "seed {seed}");
                for (key, count) in done {
                    let key = String::from_utf8_lossy(&key).into_owned();
                    assert_eq!(count, 1_u64.to_le_bytes(), "seed {seed}: {key}");
                }
                for runner in runners {
                    runner.stop().await;
                }
            }
        });
    }
}

#[test]
fn a_dead_nodes_zones_are_taken_over_within_the_time_to_live_and_a_scan() {
    play(3, |world| {
        let (here, there, env) = (world.machine(), world.machine(), world.env.clone());
        let db = world.db.clone();
        async move {
            let one = here.join("one").await;
            let two = there.join("two").await;
            enqueue(&db, "a.example", env.wall(), b"1").await;
            // Claims it, and would take an hour.
            let long = counting(&there, &two, Duration::from_hours(1));
            loop {
                let state =
                    db.run(|tx| async move { zone::state(&tx, KIND, "a.example").await }).await;
                match state.unwrap() {
                    Some(zone::ZoneState::Claimed { by, .. }) => {
                        assert_eq!(by, two.fence().epoch());
                        break;
                    }
                    _ => env.sleep(Duration::from_millis(50)).await,
                }
            }
            sees(&one, &["one", "two"]).await;
            let runner = counting(&here, &one, Duration::from_millis(1));
            drop((long, two));
            let died = env.monotonic();
            finished(&env, &db).await;
            let took = env.monotonic() - died;
            assert!(took < Duration::from_secs(9), "{took:?}");
            runner.stop().await;
        }
    });
}

#[test]
fn a_fast_clock_does_not_keep_a_dead_nodes_work_from_the_others() {
    for seed in 0..6 {
        play(seed, |world| {
            let (here, there, env) = (world.machine(), world.machine(), world.env.clone());
            let fast = world.fast_machine(Duration::from_hours(2));
            let db = world.db.clone();
            async move {
                // Has no worker, and gives back what others had claimed as well as anybody.
                let _settles = fast.join("fast").await;
                let one = here.join("one").await;
                let two = there.join("two").await;
                enqueue(&db, "a.example", env.wall(), b"1").await;
                let long = counting(&there, &two, Duration::from_hours(1));
                env.sleep(Duration::from_secs(2)).await;
                let claimed =
                    db.run(|tx| async move { zone::state(&tx, KIND, "a.example").await }).await;
                assert!(
                    matches!(claimed, Ok(Some(zone::ZoneState::Claimed { .. }))),
                    "{claimed:?}"
                );
                let runner = counting(&here, &one, Duration::from_millis(1));
                drop((long, two));
                let died = env.monotonic();
                finished(&env, &db).await;
                let took = env.monotonic() - died;
                assert!(took < Duration::from_secs(9), "seed {seed}: {took:?}");
                runner.stop().await;
            }
        });
    }
}

#[test]
fn a_fast_clock_does_not_keep_from_the_others_what_its_node_lets_go_of() {
    for seed in 0..6 {
        play(seed, |world| {
            let (here, env) = (world.machine(), world.env.clone());
            let fast = world.fast_machine(Duration::from_hours(2));
            let db = world.db.clone();
            async move {
                for item in 0..100_u16 {
                    enqueue(&db, "a.example", env.wall(), &item.to_be_bytes()).await;
                }
                let hasty = fast.join("fast").await;
                let runner = counting(&fast, &hasty, Duration::from_millis(200));
                env.sleep(Duration::from_secs(1)).await;
                runner.stop().await;
                drop(hasty);
                let done = rows(&db, b"done/").await.len();
                assert!(done > 0 && done < 100, "seed {seed}: {done}");
                let one = here.join("one").await;
                let runner = counting(&here, &one, Duration::from_millis(1));
                let begun = env.monotonic();
                finished(&env, &db).await;
                let took = env.monotonic() - begun;
                assert!(took < Duration::from_secs(9), "seed {seed}: {took:?}");
                runner.stop().await;
            }
        });
    }
}

#[test]
fn zones_that_have_waited_long_do_not_hide_those_behind_them() {
    // So many that the first zones to be done are so when nearly all is done.
    const ITEMS: u16 = 100;
    play(7, |world| {
        let (here, env, db) = (world.machine(), world.env.clone(), world.db.clone());
        async move {
            let early = env.wall();
            let many = cluster::limits::ZONES_PER_SCAN + 6;
            for zone in 0..many {
                for item in 0..ITEMS {
                    let zone = format!("large{zone}.example");
                    enqueue(&db, &zone, early, &item.to_be_bytes()).await;
                }
            }
            let later = Timestamp::from_unix_ms(early.unix_ms() + 1);
            enqueue(&db, "small.example", later, b"1").await;
            let one = here.join("one").await;
            let runner = counting(&here, &one, Duration::from_secs(1));
            while rows(&db, b"done/small").await.is_empty() {
                env.sleep(Duration::from_millis(50)).await;
            }
            let large = rows(&db, b"done/large").await.len();
            let all = usize::from(ITEMS) * many;
            assert!(large < all / 2, "{large} of {all} others went before");
            runner.stop().await;
        }
    });
}

/// Fails until it has been tried so often, and notes when.
struct Stubborn {
    env: Env,
    tries: AtomicUsize,
    times: Mutex<Vec<u64>>,
}

impl Worker for Stubborn {
    fn kind(&self) -> Kind {
        KIND
    }

    fn zones_at_once(&self) -> usize {
        1
    }

    fn items_at_once(&self) -> usize {
        1
    }

    fn work<'a>(&'a self, _held: &'a Held, item: &'a Item) -> BoxFuture<'a, Result<Done, String>> {
        Box::pin(async move {
            let tries = self.tries.fetch_add(1, Ordering::SeqCst);
            assert_eq!(item.failures as usize, tries);
            self.times
                .lock()
                .expect("nobody panics with it")
                .push(self.env.monotonic().since_start().as_secs());
            if tries < 5 { Err("not yet".to_owned()) } else { Ok(Done::Finished) }
        })
    }
}

#[test]
fn what_fails_is_tried_again_later_and_later() {
    play(4, |world| {
        let (here, env, db) = (world.machine(), world.env.clone(), world.db.clone());
        async move {
            let one = here.join("one").await;
            let worker = Arc::new(Stubborn {
                env: here.env.clone(),
                tries: AtomicUsize::new(0),
                times: Mutex::default(),
            });
            let runner = start(&here, &one, worker.clone());
            enqueue(&db, "a.example", env.wall(), b"1").await;
            runner.nudge(KIND);
            finished(&env, &db).await;
            let times = worker.times.lock().unwrap().clone();
            assert_eq!(times.len(), 6);
            let total = times[5] - times[0];
            // 1 + 2 + 4 + 8 + 16 seconds, each at least half of it, and a scan each.
            assert!((15..=40).contains(&total), "{times:?}");
            runner.stop().await;
        }
    });
}

#[test]
fn a_zone_that_has_much_to_do_does_not_keep_the_others_waiting() {
    play(5, |world| {
        let (here, env, db) = (world.machine(), world.env.clone(), world.db.clone());
        async move {
            let large = env.wall();
            for item in 0..600_u16 {
                enqueue(&db, "large.example", large, &item.to_be_bytes()).await;
            }
            for zone in 0..6 {
                let later = Timestamp::from_unix_ms(large.unix_ms() + 1);
                enqueue(&db, &format!("small{zone}.example"), later, b"1").await;
            }
            let one = here.join("one").await;
            let runner = counting(&here, &one, Duration::from_millis(100));
            let begun = env.monotonic();
            let small = loop {
                let done = rows(&db, b"done/small").await.len();
                if done == 6 {
                    break env.monotonic() - begun;
                }
                env.sleep(Duration::from_millis(50)).await;
            };
            assert!(small < Duration::from_secs(10), "{small:?}");
            assert!(rows(&db, b"done/large").await.len() < 600);
            finished(&env, &db).await;
            runner.stop().await;
        }
    });
}

#[test]
fn a_runner_that_stops_leaves_nothing_claimed() {
    play(6, |world| {
        let (here, env, db) = (world.machine(), world.env.clone(), world.db.clone());
        async move {
            for item in 0..100_u16 {
                let zone = format!("zone{}.example", item % 5);
                enqueue(&db, &zone, env.wall(), &item.to_be_bytes()).await;
            }
            let one = here.join("one").await;
            let runner = counting(&here, &one, Duration::from_millis(200));
            env.sleep(Duration::from_secs(2)).await;
            runner.stop().await;
            let done = rows(&db, b"done/").await.len();
            assert!(done > 0 && done < 100, "{done}");
            for zone in 0..5 {
                let zone = format!("zone{zone}.example");
                let zone = &zone;
                let state = db.run(|tx| async move { zone::state(&tx, KIND, zone).await }).await;
                let state = state.unwrap();
                assert!(!matches!(state, Some(zone::ZoneState::Claimed { .. })), "{state:?}");
            }
        }
    });
}
