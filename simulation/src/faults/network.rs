//! What happens between hosts: cuts in one direction or both, resets, storms, slowness.

use std::{net::IpAddr, time::Duration};

use env::BoxFuture;

use super::{Fault, any_node, begin, lasting};
use crate::{Latency, Loss, Random, World};

/// Which direction is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Both,
    From,
    To,
}

impl Direction {
    fn any(random: &mut Random) -> Self {
        *random.pick(&[Self::Both, Self::From, Self::To]).expect("there are three")
    }
}

/// Cuts `host` off from the others for a while.
async fn cut(world: &World, host: IpAddr, others: &[IpAddr], which: Direction, lasts: Duration) {
    let network = world.network();
    let pairs = others.iter().flat_map(|other| [(host, *other), (*other, host)]);
    let wanted = |pair: &(IpAddr, IpAddr)| match which {
        Direction::Both => true,
        Direction::From => pair.0 == host,
        Direction::To => pair.1 == host,
    };
    let pairs: Vec<_> = pairs.filter(wanted).collect();
    for (from, to) in &pairs {
        network.cut(*from, *to);
    }
    world.rest(lasts).await;
    for (from, to) in pairs {
        network.heal(from, to);
    }
}

/// A node is cut off from one of its peers, or from all.
pub(super) struct CutPeers;

impl Fault for CutPeers {
    fn name(&self) -> &'static str {
        "cut-peers"
    }

    fn once<'a>(&'a self, world: &'a World, random: &'a mut Random) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let node = any_node(world, random);
            let peers = world.nodes().filter(|peer| *peer != node);
            let mut peers: Vec<IpAddr> = peers.map(|peer| world.host(peer).address()).collect();
            let which = Direction::any(random);
            let lasts = lasting(random, 200, 60_000);
            if random.chance(500) {
                peers = random.pick(&peers).copied().into_iter().collect();
            }
            let what =
                format!("cut {node} off from {} peers, {which:?}, for {lasts:?}", peers.len());
            let _episode = begin(world, what);
            cut(world, world.host(node).address(), &peers, which, lasts).await;
        })
    }
}

/// A node is cut off from every client.
pub(super) struct CutClients;

impl Fault for CutClients {
    fn name(&self) -> &'static str {
        "cut-clients"
    }

    fn once<'a>(&'a self, world: &'a World, random: &'a mut Random) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let node = any_node(world, random);
            let which = Direction::any(random);
            let lasts = lasting(random, 200, 40_000);
            let clients: Vec<IpAddr> = world.clients().iter().map(crate::Host::address).collect();
            let _episode =
                begin(world, format!("cut {node} off from clients, {which:?}, for {lasts:?}"));
            cut(world, world.host(node).address(), &clients, which, lasts).await;
        })
    }
}

/// Streams break, those between a node and one other host.
pub(super) struct Resets;

impl Fault for Resets {
    fn name(&self) -> &'static str {
        "resets"
    }

    fn quiet_max(&self) -> Duration {
        Duration::from_secs(20)
    }

    fn once<'a>(&'a self, world: &'a World, random: &'a mut Random) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let node = world.host(any_node(world, random));
            let mut others = world.clients();
            others.extend(world.nodes().map(|peer| world.host(peer)));
            let Some(other) = random.pick(&others) else { return };
            let broken = world.network().reset_streams(node.address(), other.address());
            if broken > 0 {
                let (node, other) = (node.name(), other.name());
                drop(begin(world, format!("reset streams of {node} and {other}")));
            }
        })
    }
}

/// Datagrams are lost, arrive twice, and overtake each other.
pub(super) struct DatagramStorm;

impl Fault for DatagramStorm {
    fn name(&self) -> &'static str {
        "datagrams"
    }

    fn once<'a>(&'a self, world: &'a World, random: &'a mut Random) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let network = world.network();
            let loss = if random.chance(100) { 1000 } else { random.below(300) };
            let twice = random.below(200);
            let spread = Duration::from_millis(random.below(150));
            let lasts = lasting(random, 1_000, 60_000);
            let what = format!(
                "datagrams: {loss} of 1000 lost, {twice} twice, {spread:?} apart, for {lasts:?}"
            );
            let _episode = begin(world, what);
            let calm = network.latency();
            network.set_loss(Loss { per_mille: loss });
            network.set_duplication(twice);
            network.set_latency(Latency { max: calm.max + spread, ..calm });
            world.rest(lasts).await;
            network.set_loss(Loss::NONE);
            network.set_duplication(0);
            network.set_latency(calm);
        })
    }
}

/// Everything that goes to a node or comes from it takes long.
pub(super) struct SlowHost;

impl Fault for SlowHost {
    fn name(&self) -> &'static str {
        "slow-host"
    }

    fn once<'a>(&'a self, world: &'a World, random: &'a mut Random) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let node = any_node(world, random);
            let most = Duration::from_millis(random.within(50..=2_000));
            let lasts = lasting(random, 1_000, 60_000);
            let _episode = begin(world, format!("{node} is up to {most:?} away for {lasts:?}"));
            let network = world.network();
            let here = world.host(node).address();
            let mut others = world.clients();
            others.extend(world.nodes().filter(|peer| *peer != node).map(|peer| world.host(peer)));
            let set = |latency| {
                for other in &others {
                    network.set_latency_between(here, other.address(), latency);
                    network.set_latency_between(other.address(), here, latency);
                }
            };
            set(Some(Latency { min: most / 4, max: most }));
            world.rest(lasts).await;
            set(None);
        })
    }
}
