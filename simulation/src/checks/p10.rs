//! P10: nodes of version N and N+1 run side by side, as far as the workload `newer` plays the
//! newer one: what it wrote is read, what this release does not know is kept where it rewrites a
//! record, and what the newer node had claimed is given back when it dies.

use cluster::{settings, work};
use env::BoxFuture;
use kv::{RangeQuery, Transaction, tuple};

use crate::{
    Check, Property, Violation, What, World,
    workloads::{FUTURE_KIND, FUTURE_SETTING, FUTURE_ZONE, marked},
};

pub(super) struct SideBySide;

impl Check for SideBySide {
    fn name(&self) -> &'static str {
        "side by side"
    }

    fn property(&self) -> Property {
        Property::P10
    }

    fn check<'a>(&'a self, world: &'a World) -> BoxFuture<'a, Vec<Violation>> {
        Box::pin(async {
            let took_part = world.facts().with(|facts| {
                let died = |what: &What| matches!(what, What::Fault(it) if it == "newer-1 dies");
                facts.iter().any(|fact| died(&fact.what))
            });
            if !took_part {
                return Vec::new();
            }
            let mut found = Vec::new();
            let mut tell = |what: String| found.push(Violation::new(Property::P10, what));
            for record in marked(world).await {
                if !record.is_kept {
                    tell(format!("{} has lost a newer release's field", record.what));
                }
            }
            let current = |tx: Transaction| async move { settings::current(&tx).await };
            let (name, value) = FUTURE_SETTING;
            match world.db().run(current).await {
                Ok(current) if current.values.get(name).is_some_and(|held| held == value) => {}
                Ok(_) => tell(format!("the setting {name} of a newer release is lost")),
                Err(error) => tell(format!("settings: {error}")),
            }
            if !waits(world).await {
                tell(format!("{FUTURE_ZONE}, which a newer node had claimed, is not given back"));
            }
            found
        })
    }
}

/// Whether the newer node's zone has a pointer again.
async fn waits(world: &World) -> bool {
    let zone = work::zone_key(FUTURE_KIND, FUTURE_ZONE);
    let pointers = tuple::pack(&(kv::Subspace::Work as u64, FUTURE_KIND, "d"));
    let (zone, pointers) = (&zone, &pointers);
    let look = |tx: Transaction| async move {
        let record = tx.get(zone).await?;
        let pointers = tx.range(RangeQuery::prefix(pointers)).collect().await?;
        Ok::<_, kv::Error>((record, pointers.len()))
    };
    let (record, pointers) = world.db().run(look).await.expect("nobody disturbs it");
    // A waiting zone's record is its due time alone.
    record.is_some_and(|record| record.len() == 8) && pointers == 1
}
