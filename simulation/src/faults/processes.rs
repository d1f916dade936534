//! What happens to processes: they end at any await, stand still, and are replaced one by one.

use std::time::Duration;

use env::BoxFuture;

use super::{Fault, any_node, begin, lasting};
use crate::{NodeId, NodeState, Random, World};

/// How many steps of its tasks a node that is to be killed may still make: more than one delivery
/// takes, so that every await of it is met.
const STEPS_LEFT_MAX: u64 = 3_000;

/// How long a node that is to be killed is waited for, and one that is to serve again: the longest
/// drain and the longest start, and some.
const PATIENCE: Duration = Duration::from_mins(2);

/// Kills one node before any step of its tasks, and starts it again some time later.
pub(super) struct Kill;

impl Fault for Kill {
    fn name(&self) -> &'static str {
        "kill"
    }

    fn once<'a>(&'a self, world: &'a World, random: &'a mut Random) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let node = any_node(world, random);
            let steps = random.within(1..=STEPS_LEFT_MAX);
            // As long as a restart takes, or as long as a death takes to be declared and longer.
            let away = match random.chance(500) {
                true => lasting(random, 0, 3_000),
                false => lasting(random, 5_000, 60_000),
            };
            let Some(_turn) = world.disturb(node) else { return };
            if world.state(node) == NodeState::Down {
                return;
            }
            let _episode = begin(world, format!("kill {node} after {steps} steps for {away:?}"));
            world.crash_node_after(node, steps);
            kill_for(world, node, away).await;
        })
    }
}

/// Waits for a node that is to be killed, and starts it after `away`.
async fn kill_for(world: &World, node: NodeId, away: Duration) {
    if world.env().timeout(PATIENCE, world.until_down(node)).await.is_err() {
        // It made too few steps.
        world.crash_node(node);
        world.until_down(node).await;
    }
    world.rest(away).await;
    world.start_node(node);
}

/// The power fails for every node, which come back in any order.
pub(super) struct Outage;

impl Fault for Outage {
    fn name(&self) -> &'static str {
        "outage"
    }

    fn quiet_max(&self) -> Duration {
        Duration::from_mins(4)
    }

    fn once<'a>(&'a self, world: &'a World, random: &'a mut Random) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let turns: Vec<_> = world.nodes().filter_map(|node| world.disturb(node)).collect();
            let _episode = begin(world, "outage of every node".to_owned());
            let mut back: Vec<(Duration, NodeId)> = Vec::new();
            for turn in &turns {
                world.crash_node(turn.node());
                back.push((lasting(random, 0, 20_000), turn.node()));
            }
            back.sort_unstable();
            let begun = world.now();
            for (after, node) in back {
                world.until_down(node).await;
                world.rest(after.saturating_sub(world.now().saturating_since(begun))).await;
                world.start_node(node);
            }
        })
    }
}

/// One node's process stands still, as one that is stopped, or whose machine swaps.
pub(super) struct Pause;

impl Fault for Pause {
    fn name(&self) -> &'static str {
        "pause"
    }

    fn once<'a>(&'a self, world: &'a World, random: &'a mut Random) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let node = any_node(world, random);
            let lasts = match random.chance(600) {
                true => lasting(random, 20, 4_000),
                // Longer than an epoch lives: others take over what it has.
                false => lasting(random, 8_000, 45_000),
            };
            let Some(_turn) = world.disturb(node) else { return };
            let _episode = begin(world, format!("pause {node} for {lasts:?}"));
            let host = world.host(node);
            host.pause();
            world.rest(lasts).await;
            host.resume();
        })
    }
}

/// Every node is drained and started again, one after the other, as for an upgrade.
pub(super) struct Rolling;

impl Fault for Rolling {
    fn name(&self) -> &'static str {
        "rolling"
    }

    fn quiet_max(&self) -> Duration {
        Duration::from_mins(3)
    }

    fn once<'a>(&'a self, world: &'a World, random: &'a mut Random) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let _episode = begin(world, "rolling restart".to_owned());
            for node in world.nodes() {
                let down_for = lasting(random, 200, 5_000);
                if world.is_over() {
                    return;
                }
                let Some(_turn) = world.disturb(node) else { continue };
                let _step = begin(world, format!("drain {node}"));
                if world.env().timeout(PATIENCE, world.drain_node(node)).await.is_err() {
                    // As a service manager does with one that does not end.
                    world.crash_node(node);
                    world.until_down(node).await;
                }
                world.rest(down_for).await;
                world.start_node(node);
                let _in_time = world.env().timeout(PATIENCE, world.until_serving(node)).await;
            }
        })
    }
}
