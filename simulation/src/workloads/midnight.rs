//! Days go by in an instant: what is done once a day is done, and what was let go yesterday is swept,
//! while all else goes on.
//!
//! After each jump every account's views are due to be written down, as after much change.
//!
//! Every clock jumps by half a day and somewhat, and the next jump comes a while later: no
//! operation that is under way lives through two of them.

use std::{sync::Arc, time::Duration};

use cluster::work::{self, Kind};
use env::BoxFuture;
use kv::Transaction;
use mail::AccountId;

use crate::{Share, What, Workload, World};

/// Two of them are more than the day for which bytes are kept that nobody needs.
const JUMP: Duration = Duration::from_hours(13);

/// Longer than any transaction is tried.
const BETWEEN: Duration = Duration::from_secs(75);

pub(super) const SHARE: Share = Share {
    name: "midnight",
    per_mille: 350,
    make: |random| Arc::new(Midnight { jumps: random.within(2..=5) }),
};

struct Midnight {
    jumps: u64,
}

impl Workload for Midnight {
    fn name(&self) -> &'static str {
        SHARE.name
    }

    fn run<'a>(&'a self, world: &'a World) -> BoxFuture<'a, ()> {
        Box::pin(async {
            let mut random = world.random("midnight");
            for _ in 0..self.jumps {
                world.rest(BETWEEN + random.up_to(BETWEEN)).await;
                if world.is_over() {
                    return;
                }
                world.facts().note("world", What::Note("half a day passes".to_owned()));
                world.pass(JUMP);
                for account in world.accounts() {
                    ask_for_checkpoints(world, account.id).await;
                }
            }
        })
    }
}

/// As a node asks for them once a log has grown long.
async fn ask_for_checkpoints(world: &World, account: AccountId) {
    let (zone, now) = (&account.0.to_string(), world.env().wall());
    let ask = |tx: Transaction| async move {
        work::enqueue_into_empty(&tx, Kind::ViewCheckpoint, zone, now, b"", &[]).await
    };
    world.db().run(ask).await.expect("nobody disturbs the world's own handle");
}
