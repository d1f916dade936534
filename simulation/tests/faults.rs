//! Every fault does to a world what it says, and leaves it as it found it.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use blob::s3::model::BucketReach;
use env::Env;
use kv::{Faults, Probability, Reach};
use simulation::{
    Door, EPOCH, Latency, NodeId, NodeState, Seed, Setup, Simulation, What, World, faults,
};
use tokio::io::AsyncReadExt;

/// Long enough for some episodes of each fault.
const DURATION: Duration = Duration::from_mins(8);

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(20);

const LATENCY: Latency = Latency { min: Duration::from_micros(200), max: Duration::from_millis(2) };

/// What is going on, as far as it is no good health.
fn symptoms(world: &World) -> BTreeSet<&'static str> {
    let mut seen = BTreeSet::new();
    let network = world.network();
    let client = world.client_host("client").address();
    let mut down = 0;
    for node in world.nodes() {
        let host = world.host(node);
        let here = host.address();
        let mut note = |what, is_so| is_so && seen.insert(what);
        down += u8::from(!host.is_up());
        note("down", !host.is_up());
        note("paused", host.is_paused());
        note("draining", world.state(node) == NodeState::Draining);
        for peer in world.nodes().filter(|peer| *peer != node) {
            let there = world.host(peer).address();
            let (to, from) = (network.is_cut(here, there), network.is_cut(there, here));
            note("cut off from peers", to && from);
            note("cut off from peers, one way", to != from);
        }
        let (to, from) = (network.is_cut(here, client), network.is_cut(client, here));
        note("cut off from clients", to && from);
        note("cut off from clients, one way", to != from);
        note("slow", network.latency_between(here, client) != network.latency());
        let mut store = Faults::default();
        world.store_faults(node, |faults| store = faults.clone());
        note("store noisy", store.conflict > Probability::NEVER);
        note("store cut off", store.reach == Reach::CutOff);
        note("store deaf", store.reach == Reach::RepliesLost);
        note("watches lost", store.lost_watch > Probability::NEVER);
        let mut noisy = false;
        let mut reach = BucketReach::Connected;
        world.bucket_faults(node, |faults| {
            noisy = faults.refused > 0;
            reach = faults.reach;
        });
        note("bucket noisy", noisy);
        note("bucket cut off", reach == BucketReach::CutOff);
        note("bucket deaf", reach == BucketReach::RepliesLost);
        note("bucket refusing", reach == BucketReach::Refusing);
        note("renamed", world.node_name(node) != node.to_string());
        if host.is_up() {
            let shown = host.env().wall().unix_ms() - EPOCH.unix_ms();
            let world_ms = i64::try_from(world.now().since_start().as_millis()).expect("it fits");
            note("wrong clock", (shown - world_ms).abs() > 100);
        }
    }
    if down == world.setup().nodes {
        seen.insert("all down");
    }
    if !world.bucket().rotten().is_empty() {
        seen.insert("rotten");
    }
    if network.loss().per_mille > 0 && network.duplication() > 0 {
        seen.insert("datagrams lost and doubled");
    }
    if network.latency() != LATENCY {
        seen.insert("datagrams overtake");
    }
    seen
}

/// Plays one fault alone in a world of three nodes; what was seen of it, and the faults' own words.
fn suffer(name: &str, beside: impl AsyncFn(&World, &Env)) -> (BTreeSet<&'static str>, Vec<String>) {
    let simulation = Simulation::new(Seed(21), LATENCY);
    simulation.run(async {
        let setup = Setup { nodes: 3, duration: DURATION, ..Setup::default() };
        let world = Box::pin(World::start(&simulation, setup)).await;
        let client = world.client("client");
        let share = faults::ALL.iter().find(|share| share.name == name).expect("there is one");
        let fault = (share.make)(&mut world.random("test"));
        assert_eq!(fault.name(), name);
        let seen = RefCell::new(BTreeSet::new());
        let look = async {
            while !world.is_over() {
                seen.borrow_mut().extend(symptoms(&world));
                world.rest(LOOK).await;
            }
        };
        tokio::join!(biased; fault.run(&world), look, beside(&world, &client));
        let mut left = symptoms(&world);
        // A clock keeps what its drift has gained, a blob may rot for good, and a name stays.
        for stays in ["wrong clock", "rotten", "renamed"] {
            left.remove(stays);
        }
        assert_eq!(left, BTreeSet::new(), "{name} leaves something");
        world.calm();
        for node in world.nodes() {
            world.until_serving(node).await;
        }
        let words = world.facts().with(|facts| {
            let words = facts.iter().filter_map(|fact| match &fact.what {
                What::Fault(words) => Some(words.clone()),
                _ => None,
            });
            words.collect::<Vec<_>>()
        });
        let mut open = BTreeMap::<&str, i32>::new();
        for word in &words {
            let (what, which) = word.rsplit_once(": ").expect("it begins or ends");
            *open.entry(what).or_default() += if which == "begins" { 1 } else { -1 };
        }
        assert!(!words.is_empty() && open.values().all(|open| *open == 0), "{name}: {open:?}");
        (seen.into_inner(), words)
    })
}

fn check(name: &str, expected: &[&str]) {
    let (seen, words) = suffer(name, async |_, _| {});
    for what in expected {
        assert!(seen.contains(what), "{name} never made a node {what}: {seen:?} {words:#?}");
    }
}

#[test]
fn processes() {
    check("kill", &["down"]);
    check("outage", &["all down"]);
    check("pause", &["paused"]);
    check("rolling", &["draining", "down"]);
}

#[test]
fn network() {
    check("cut-peers", &["cut off from peers", "cut off from peers, one way"]);
    check("cut-clients", &["cut off from clients", "cut off from clients, one way"]);
    check("datagrams", &["datagrams lost and doubled", "datagrams overtake"]);
    check("slow-host", &["slow"]);
}

#[test]
fn stores() {
    check("store-noise", &["store noisy"]);
    check("store-away", &["store cut off", "store deaf"]);
    check("store-outage", &["store cut off", "store deaf"]);
    check("lost-watches", &["watches lost"]);
    check("bucket-noise", &["bucket noisy"]);
    check("bucket-away", &["bucket cut off", "bucket deaf", "bucket refusing"]);
}

/// The time that the last episode has to end by itself.
const LAST: Duration = Duration::from_secs(1);

#[test]
fn blobs_rot_for_good_or_for_a_while() {
    let left = RefCell::new(0);
    let (_, words) = suffer("rot", async |world, _| {
        for number in 0..40_u8 {
            world.blobs().put(&[number; 100]).await.expect("nothing is wrong");
        }
        world.until_deadline().await;
        world.env().sleep(LAST).await;
        *left.borrow_mut() = world.bucket().rotten().len();
    });
    let count = |what: &str| words.iter().filter(|word| word.contains(what)).count() / 2;
    let (for_good, for_a_while) = (count("rots for good"), count("is rotten for"));
    assert!(for_good > 0 && for_a_while > 0, "{words:#?}");
    assert_eq!(*left.borrow(), for_good, "{words:#?}");
}

#[test]
fn hosts_come_back_under_other_names() {
    let names = RefCell::new(BTreeSet::new());
    let (seen, words) = suffer("rename", async |world, _| {
        world.until_deadline().await;
        names.borrow_mut().extend(world.nodes().map(|node| world.node_name(node)));
    });
    assert!(seen.contains("renamed") && seen.contains("down"), "{words:#?}");
    assert_eq!(names.borrow().len(), 3, "no two have one name: {names:?}");
}

#[test]
fn clocks() {
    check("skew", &["wrong clock"]);
}

#[test]
fn streams_break_under_a_client() {
    let resets = RefCell::new(0_u32);
    let (_, words) = suffer("resets", async |world, client| {
        while !world.is_over() {
            let Ok(mut stream) = client.connect(world.door(NodeId(1), Door::Imap)).await else {
                world.rest(LOOK).await;
                continue;
            };
            let left = world.deadline().saturating_since(world.now());
            let mut bytes = Vec::new();
            if let Ok(Err(error)) = client.timeout(left, stream.read_to_end(&mut bytes)).await {
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
                *resets.borrow_mut() += 1;
            }
        }
    });
    assert!(*resets.borrow() > 0 && words.len() >= 2, "{words:#?}");
}

#[test]
fn a_recovery_makes_versions_leap() {
    let leaps = RefCell::new(0_u32);
    suffer("version-leap", async |world, _| {
        let version = async || world.db().begin().read_version().await.expect("the store answers");
        let mut before = version().await;
        while !world.is_over() {
            world.rest(LOOK).await;
            let now = version().await;
            *leaps.borrow_mut() += u32::from(now - before >= 100_000_000);
            before = now;
        }
    });
    assert!(*leaps.borrow() > 0);
}
