//! Administrators: they drain nodes and take that back, forget names, and change settings.
//!
//! At most one node is drained at a time, and none at the end. Names are changed by the fault `rename`: a
//! node's name is in its file, and is read when it starts.

use std::{sync::Arc, time::Duration};

use env::BoxFuture;
use node::admin::cluster::{Wish, change_setting, forget, wish};

use crate::{NodeId, Random, Share, What, Workload, World};

/// Settings that hold nobody up, and what they are set to.
const SETTINGS: [(&str, &[&str]); 3] = [
    ("limits.message_bytes_max", &["20000000", "50000000"]),
    ("limits.recipients_max", &["500", "1000"]),
    ("limits.connections_max", &["5000", "9000"]),
];

pub(super) const SHARE: Share =
    Share { name: "administrators", per_mille: 400, make: |_| Arc::new(Administrators) };

struct Administrators;

impl Workload for Administrators {
    fn name(&self) -> &'static str {
        SHARE.name
    }

    fn run<'a>(&'a self, world: &'a World) -> BoxFuture<'a, ()> {
        Box::pin(async {
            let mut random = world.random("administrators");
            while !world.is_over() {
                let nodes = u64::from(world.setup().nodes);
                let node = NodeId(u8::try_from(random.within(1..=nodes)).unwrap_or(1));
                match random.below(3) {
                    0 if nodes > 1 => drain(world, &mut random, node).await,
                    1 => {
                        // Refused while it runs; a name that nobody has is gone.
                        let forgot = forget(&world.admin(), &world.node_name(node)).await.is_ok();
                        note(world, format!("forget {node}: {forgot}"));
                    }
                    _ => set(world, &mut random).await,
                }
                world.rest(Duration::from_secs(10) + random.up_to(Duration::from_secs(40))).await;
            }
        })
    }
}

async fn drain(world: &World, random: &mut Random, node: NodeId) {
    let (admin, name) = (world.admin(), world.node_name(node));
    note(world, format!("drain {node}"));
    if wish(&admin, &name, Wish::Drain).await.is_err() {
        // Its name is forgotten, and it has not registered since.
        return;
    }
    world.rest(Duration::from_secs(5) + random.up_to(Duration::from_secs(60))).await;
    note(world, format!("undrain {node}"));
    // A name that was forgotten meanwhile is drained no more.
    let _forgotten = wish(&admin, &name, Wish::Serve).await;
    env::sometimes!("administrators took a drain back");
}

async fn set(world: &World, random: &mut Random) {
    let (name, values) = random.pick(&SETTINGS).expect("there are some");
    let value = match random.chance(300) {
        true => None,
        false => random.pick(values).copied(),
    };
    note(world, format!("set {name} to {value:?}"));
    let changed = change_setting(&world.admin(), name, value, "an administrator").await;
    changed.expect("the value is allowed, and nobody disturbs it");
}

fn note(world: &World, what: String) {
    world.facts().note("administrators", What::Note(what));
}
