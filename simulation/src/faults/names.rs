//! What administrators do to nodes' names: a host comes back under another one, whose old name is
//! forgotten, left, or another host's at once.

use std::time::Duration;

use env::BoxFuture;
use node::admin::cluster::forget;

use super::{Fault, begin, lasting};
use crate::{NodeId, Random, Turn, What, World};

/// How long nodes are waited for that end, and that serve again: the longest drain and the longest
/// start, and some.
const PATIENCE: Duration = Duration::from_mins(2);

/// How long an administrator tries to forget a name: while a killed node is not yet found dead, the
/// name is refused to be forgotten.
const FORGET_TIME: Duration = Duration::from_secs(20);

/// How often.
const FORGET_PAUSE: Duration = Duration::from_secs(2);

/// Nodes come back under other names. Their names stay as they are then.
pub(super) struct Rename;

impl Fault for Rename {
    fn name(&self) -> &'static str {
        "rename"
    }

    fn quiet_max(&self) -> Duration {
        Duration::from_mins(3)
    }

    fn once<'a>(&'a self, world: &'a World, random: &'a mut Random) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let mut turns: Vec<Turn> = world.nodes().filter_map(|it| world.disturb(it)).collect();
            let (who, names) = plan(world, random, &mut turns);
            if who.is_empty() {
                return;
            }
            let words: Vec<String> =
                who.iter().zip(&names).map(|(node, name)| format!("{node} as {name}")).collect();
            let _episode = begin(world, format!("renamed: {}", words.join(", ")));
            let before: Vec<String> = who.iter().map(|node| world.node_name(*node)).collect();
            for node in &who {
                end(world, random, *node).await;
            }
            if random.chance(500) {
                world.rest(lasting(random, 100, 12_000)).await;
            }
            for (node, name) in who.iter().zip(names) {
                world.rename_node(*node, name);
                world.start_node(*node);
            }
            env::sometimes!("a host came back under another name");
            let is_taken = |name: &String| world.nodes().any(|it| world.node_name(it) == *name);
            if before.iter().any(is_taken) {
                env::sometimes!("a host took the name of another");
            }
            for old in before.iter().filter(|old| !is_taken(old)) {
                if random.chance(600) {
                    forget_in_time(world, old).await;
                }
            }
            for node in who {
                let _in_time = world.env().timeout(PATIENCE, world.until_serving(node)).await;
            }
        })
    }
}

/// Whom it befalls, and what they are called then. Keeps their turns alone.
fn plan(world: &World, random: &mut Random, turns: &mut Vec<Turn>) -> (Vec<NodeId>, Vec<String>) {
    let begins_at = usize::try_from(random.below(turns.len() as u64)).unwrap_or(0);
    turns.rotate_left(begins_at);
    let how = random.below(3);
    turns.truncate(if how == 0 { 1 } else { 2 });
    let who: Vec<NodeId> = turns.iter().map(Turn::node).collect();
    let fresh = |random: &mut Random| format!("renamed-{:08x}", random.any() >> 32);
    let names = match who[..] {
        [] => Vec::new(),
        [_] => vec![fresh(random)],
        // The second takes the first one's name: one that is free, or one that changes hands.
        [first, second, ..] => {
            let own = if how == 1 { fresh(random) } else { world.node_name(second) };
            vec![own, world.node_name(first)]
        }
    };
    (who, names)
}

/// Drains a node, or kills it.
async fn end(world: &World, random: &mut Random, node: NodeId) {
    let is_drained =
        random.chance(500) && world.env().timeout(PATIENCE, world.drain_node(node)).await.is_ok();
    if !is_drained {
        world.crash_node(node);
    }
    world.until_down(node).await;
}

async fn forget_in_time(world: &World, name: &str) {
    let until = world.now() + FORGET_TIME;
    while world.now() < until {
        if forget(&world.admin(), name).await.is_ok() {
            env::sometimes!("the old name of a renamed host was forgotten");
            world.facts().note("fault", What::Note(format!("{name} is forgotten")));
            return;
        }
        world.env().sleep(FORGET_PAUSE).await;
    }
}
