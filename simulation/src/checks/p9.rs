//! P9: every buffer has a bound and a hostile peer cannot exceed it, as far as a peer can see it; and a
//! node has no more tasks than its connections and its own work are worth ([`watch`]). That no peer
//! causes a panic is told by the world itself.

use env::BoxFuture;

use crate::{
    Check, NodeId, Property, Violation, What, World,
    limits::{
        TASKS_AT_REST, TASKS_AT_WORK, TASKS_LOOK_PERIOD, TASKS_OF_A_NODE, TASKS_PER_CONNECTION,
        TASKS_PER_PEER,
    },
};

pub(super) struct Bounds;

impl Check for Bounds {
    fn name(&self) -> &'static str {
        "bounds"
    }

    fn property(&self) -> Property {
        Property::P9
    }

    fn check<'a>(&'a self, world: &'a World) -> BoxFuture<'a, Vec<Violation>> {
        Box::pin(async {
            for node in world.nodes() {
                look(world, node, "tasks of a node at rest", TASKS_AT_REST);
            }
            world.facts().with(|facts| {
                let beyond = facts.iter().filter_map(|fact| match fact.what {
                    What::Bound { what, reached, most } if reached > most => {
                        let what = format!("{}: {what}: {reached}, at most {most}", fact.host);
                        Some(Violation::at(Property::P9, fact.at, what))
                    }
                    _ => None,
                });
                beyond.collect()
            })
        })
    }
}

/// Looks at every node's tasks until the deadline.
pub(crate) async fn watch(world: World) {
    while !world.is_over() {
        for node in world.nodes() {
            look(&world, node, "tasks of a node at work", TASKS_AT_WORK);
        }
        world.rest(TASKS_LOOK_PERIOD).await;
    }
}

/// Notes a node that has more tasks than it keeps, its peers and connections are worth, and `besides`.
fn look(world: &World, node: NodeId, what: &'static str, besides: u64) {
    let host = world.host(node);
    let tasks = host.tasks();
    let connections = world.network().connections_of(host.address()) as u64;
    let peers = world.nodes().count() as u64 - 1;
    let own = TASKS_OF_A_NODE + TASKS_PER_PEER * peers;
    let most = own + TASKS_PER_CONNECTION * connections + besides;
    let reached = tasks.values().sum();
    if reached > most {
        let names = format!("{connections} connections, {tasks:?}");
        world.facts().note(&host.name(), What::Note(names));
        world.facts().note(&host.name(), What::Bound { what, reached, most });
    }
}
