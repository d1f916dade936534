//! A store that is in two minds: some commits are refused, and of some nobody learns what came.
//!
//! A fault, and here only because retries are what operation ids are for.

use std::sync::Arc;

use env::BoxFuture;
use kv::Probability;

use crate::{Share, What, Workload, World};

/// The workload's share.
pub(super) const SHARE: Share = Share { name: "doubt", per_mille: 250, make: |_| Arc::new(Doubt) };

struct Doubt;

impl Workload for Doubt {
    fn name(&self) -> &'static str {
        SHARE.name
    }

    fn run<'a>(&'a self, world: &'a World) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let note = |text: &str| world.facts().note("world", What::Fault(text.to_owned()));
            note("commits in doubt: begins");
            for node in world.nodes() {
                world.store_faults(node, |faults| {
                    faults.commit_unknown = Probability::per_million(40_000);
                    faults.conflict = Probability::per_million(40_000);
                });
            }
            world.until_deadline().await;
            let calm = world.setup().store.clone();
            for node in world.nodes() {
                world.store_faults(node, |faults| {
                    faults.commit_unknown = calm.commit_unknown;
                    faults.conflict = calm.conflict;
                });
            }
            note("commits in doubt: ends");
        })
    }
}
