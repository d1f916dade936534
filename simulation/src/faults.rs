//! Faults, as workloads: what makes a world suffer. Each leaves the world as it found it.
//!
//! A fault is a row of episodes with quiet between them; when they come, whom they hit and how long
//! they last follows from the seed and the fault's name. Every episode is noted as
//! [`What::Fault`] when it begins and when it ends.
//!
//! Invariants:
//! - What an episode has changed it changes back, at the deadline at the latest; but what has rotted
//!   for good stays so, and is noted as [`What::Rotted`], and hosts keep the names that they were given.
//! - Only one episode at a time disturbs a node's process ([`World::disturb`]).
//!
//! Deliberately absent: nodes of two versions, of which the product has only one.

mod clocks;
mod names;
mod network;
mod processes;
mod stores;

pub(crate) use stores::BUCKET_NOISE;

use std::{sync::Arc, time::Duration};

use env::BoxFuture;

use crate::{NodeId, Random, Share, What, Workload, World};

/// Every fault. Their names are part of what replays a seed.
pub const ALL: &[Share] = &[
    share("kill", 450, |_| recurring(processes::Kill)),
    share("outage", 120, |_| recurring(processes::Outage)),
    share("pause", 300, |_| recurring(processes::Pause)),
    share("rolling", 250, |_| recurring(processes::Rolling)),
    share("rename", 250, |_| recurring(names::Rename)),
    share("cut-peers", 350, |_| recurring(network::CutPeers)),
    share("cut-clients", 250, |_| recurring(network::CutClients)),
    share("resets", 300, |_| recurring(network::Resets)),
    share("datagrams", 350, |_| recurring(network::DatagramStorm)),
    share("slow-host", 250, |_| recurring(network::SlowHost)),
    share("store-noise", 450, |_| recurring(stores::Noise)),
    share("store-away", 300, |_| recurring(stores::Away)),
    share("store-outage", 200, |_| recurring(stores::Outage)),
    share("lost-watches", 250, |_| recurring(stores::LostWatches)),
    share("version-leap", 250, |_| recurring(stores::VersionLeap)),
    share("bucket-noise", 350, |_| recurring(stores::BucketNoise)),
    share("bucket-away", 250, |_| recurring(stores::BucketAway)),
    share("rot", 250, |_| recurring(stores::Rot)),
    share("skew", 350, |_| recurring(clocks::Skew)),
];

const fn share(
    name: &'static str,
    per_mille: u64,
    make: fn(&mut Random) -> Arc<dyn Workload>,
) -> Share {
    Share { name, per_mille, make }
}

fn recurring(fault: impl Fault + 'static) -> Arc<dyn Workload> {
    Arc::new(Recurring(fault))
}

/// Something that goes wrong for a while, again and again.
trait Fault: Send + Sync {
    /// Its name in [`ALL`].
    fn name(&self) -> &'static str;

    /// How long it is quiet between two episodes, at most.
    fn quiet_max(&self) -> Duration {
        Duration::from_mins(1)
    }

    /// One episode.
    fn once<'a>(&'a self, world: &'a World, random: &'a mut Random) -> BoxFuture<'a, ()>;
}

struct Recurring<F>(F);

impl<F: Fault> Workload for Recurring<F> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn run<'a>(&'a self, world: &'a World) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let mut random = world.random(&format!("fault/{}", self.0.name()));
            loop {
                world.rest(random.up_to(self.0.quiet_max())).await;
                if world.is_over() {
                    return;
                }
                self.0.once(world, &mut random).await;
            }
        })
    }
}

/// Notes an episode's end when it is dropped.
struct Episode<'a> {
    world: &'a World,
    what: String,
}

/// Notes that an episode begins.
fn begin<'a>(world: &'a World, what: String) -> Episode<'a> {
    world.facts().note("fault", What::Fault(format!("{what}: begins")));
    Episode { world, what }
}

impl Drop for Episode<'_> {
    fn drop(&mut self) {
        self.world.facts().note("fault", What::Fault(format!("{}: ends", self.what)));
    }
}

/// One of the world's nodes.
fn any_node(world: &World, random: &mut Random) -> NodeId {
    let nodes: Vec<NodeId> = world.nodes().collect();
    *random.pick(&nodes).expect("a world has nodes")
}

/// One node, mostly; now and then all of them.
fn one_or_all(world: &World, random: &mut Random) -> Vec<NodeId> {
    let one = any_node(world, random);
    if random.chance(200) { world.nodes().collect() } else { vec![one] }
}

fn names(nodes: &[NodeId]) -> String {
    let names: Vec<String> = nodes.iter().map(ToString::to_string).collect();
    names.join(", ")
}

/// A duration from `least_ms` to `most_ms`, short ones more often than long ones.
fn lasting(random: &mut Random, least_ms: u64, most_ms: u64) -> Duration {
    let most = random.within(least_ms..=most_ms);
    Duration::from_millis(random.within(least_ms..=most))
}
