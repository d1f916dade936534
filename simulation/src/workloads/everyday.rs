//! What no store spares its clients: conflicts, commits of unknown result, transactions that are too
//! old; and now and then a process that dies and is started again, or one that loses the store for
//! a while.

use std::{sync::Arc, time::Duration};

use env::BoxFuture;
use kv::{Probability, Reach};

use crate::{NodeId, Share, What, Workload, World};

pub(super) const SHARE: Share =
    Share { name: "everyday", per_mille: 500, make: |_| Arc::new(Everyday) };

/// Of a node's commits, how many meet a conflict that nobody else is part of.
const CONFLICTS: Probability = Probability::per_million(10_000);

struct Everyday;

impl Workload for Everyday {
    fn name(&self) -> &'static str {
        SHARE.name
    }

    fn run<'a>(&'a self, world: &'a World) -> BoxFuture<'a, ()> {
        Box::pin(async {
            for node in world.nodes() {
                world.store_faults(node, |faults| {
                    faults.conflict = CONFLICTS;
                    faults.commit_unknown = Probability::per_million(10_000);
                    faults.too_old = Probability::per_million(1_000);
                });
            }
            let mut random = world.random("everyday");
            while !world.is_over() {
                world.rest(Duration::from_secs(20) + random.up_to(Duration::from_secs(60))).await;
                let nodes = u64::from(world.setup().nodes);
                let node = NodeId(u8::try_from(random.within(1..=nodes)).unwrap_or(1));
                if !world.serving().contains(&node) {
                    continue;
                }
                if random.chance(600) {
                    let trouble = random.below(3);
                    lose_store(world, node, trouble, random.up_to(Duration::from_secs(20))).await;
                    continue;
                }
                world.facts().note("world", What::Fault(format!("{node} dies")));
                world.crash_node(node);
                world.rest(random.up_to(Duration::from_secs(12))).await;
                world.until_down(node).await;
                world.start_node(node);
            }
        })
    }
}

/// A node reaches the store no more, hears nothing of it, or can read it and not write to it.
async fn lose_store(world: &World, node: NodeId, trouble: u64, more: Duration) {
    let fault = |what: &str| {
        world.facts().note("world", What::Fault(format!("{node} {what}")));
    };
    fault(
        ["is cut off from the store", "hears nothing of the store", "can write nothing"]
            [usize::try_from(trouble % 3).unwrap_or(0)],
    );
    world.store_faults(node, |faults| match trouble {
        0 => faults.reach = Reach::CutOff,
        1 => faults.reach = Reach::RepliesLost,
        _ => faults.conflict = Probability::ALWAYS,
    });
    world.rest(Duration::from_secs(12) + more).await;
    world.store_faults(node, |faults| {
        faults.reach = Reach::Connected;
        faults.conflict = CONFLICTS;
    });
    fault("has the store again");
}
