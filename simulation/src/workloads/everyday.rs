//! What no store spares its clients: conflicts, commits of unknown result, transactions that are too
//! old; and now and then a process that dies and is started again, or one that loses the store for
//! a while.

use std::{sync::Arc, time::Duration};

use env::BoxFuture;
use kv::{Probability, Reach};

use crate::{NodeId, Share, What, Workload, World};

pub(super) const SHARE: Share =
    Share { name: "everyday", per_mille: 500, make: |_| Arc::new(Everyday) };

struct Everyday;

impl Workload for Everyday {
    fn name(&self) -> &'static str {
        SHARE.name
    }

    fn run<'a>(&'a self, world: &'a World) -> BoxFuture<'a, ()> {
        Box::pin(async {
            for node in world.nodes() {
                world.store_faults(node, |faults| {
                    faults.conflict = Probability::per_million(10_000);
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
                if random.chance(400) {
                    let reach = if random.chance(500) { Reach::CutOff } else { Reach::RepliesLost };
                    let fault = |what| world.facts().note("world", What::Fault(what));
                    fault(format!("{node} has lost the store: {reach:?}"));
                    world.store_faults(node, |faults| faults.reach = reach);
                    world
                        .rest(Duration::from_secs(8) + random.up_to(Duration::from_secs(20)))
                        .await;
                    world.store_faults(node, |faults| faults.reach = Reach::Connected);
                    fault(format!("{node} has the store again"));
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
