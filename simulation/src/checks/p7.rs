//! P7: a dead node's work is taken over within the time-to-live plus one scan, and no item is done
//! twice.
//!
//! Held against the workload `rehearsal`, whose other members look on undisturbed, and against what
//! other servers were given (`remote.rs`).

use std::{collections::BTreeMap, time::Duration};

use cluster::limits::{BEATS_PER_LIFE, SCAN_PERIOD, SETTLE_DELAY_MAX, TIME_TO_LIVE};
use env::{BoxFuture, Monotonic};

use super::remote;
use crate::{
    Check, Fact, Property, Violation, What, WorkStep, World,
    workloads::{Effect, effects},
};

/// What transactions take, and their retries.
const STORE_TIME: Duration = Duration::from_millis(1_500);

/// From a node's last step until others work in its zones: its last heartbeat may be seen a look
/// late, and its age a look late.
fn within() -> Duration {
    TIME_TO_LIVE + 2 * (TIME_TO_LIVE / BEATS_PER_LIFE) + SETTLE_DELAY_MAX + SCAN_PERIOD + STORE_TIME
}

pub(super) struct TakenOver;

impl Check for TakenOver {
    fn name(&self) -> &'static str {
        "taken over"
    }

    fn property(&self) -> Property {
        Property::P7
    }

    fn check<'a>(&'a self, world: &'a World) -> BoxFuture<'a, Vec<Violation>> {
        Box::pin(async {
            let effects = effects(world).await;
            world.facts().with(|facts| {
                let mut found = once(facts, &effects);
                found.extend(in_time(facts, &effects, world.deadline()));
                found.extend(remote::duplicates(facts));
                found
            })
        })
    }
}

fn once(facts: &[Fact], effects: &BTreeMap<u64, Effect>) -> Vec<Violation> {
    let mut found = Vec::new();
    for fact in facts {
        if let What::Work { item, step: WorkStep::Queued, zone, .. } = &fact.what {
            let times = effects.get(item).map_or(0, |effect| effect.times);
            if times != 1 {
                let what = format!("item {item} of {zone} was done {times} times");
                found.push(Violation::at(Property::P7, fact.at, what));
            }
        }
    }
    found
}

fn in_time(facts: &[Fact], effects: &BTreeMap<u64, Effect>, deadline: Monotonic) -> Vec<Violation> {
    let mut found = Vec::new();
    // Items that are worked on: by whom, and where.
    let mut under_way: BTreeMap<u64, (u64, String)> = BTreeMap::new();
    for (place, fact) in facts.iter().enumerate() {
        match &fact.what {
            What::Work { item, zone, epoch, step: WorkStep::Begun } => {
                under_way.insert(*item, (*epoch, zone.clone()));
            }
            What::Work { item, step: WorkStep::Done | WorkStep::Failed, .. } => {
                under_way.remove(item);
            }
            What::WorkerGone { epoch } if fact.at + within() < deadline => {
                let held = under_way.iter().filter(|(item, (by, _))| {
                    // Its last commit may have gone through unseen.
                    by == epoch && effects.get(item).is_none_or(|effect| effect.epoch != *epoch)
                });
                let later = &facts[place..];
                for (item, (_, zone)) in held {
                    if !is_taken_over(later, zone, *epoch, fact.at + within()) {
                        let what = format!("item {item} of {zone} waits for its dead worker");
                        found.push(Violation::at(Property::P7, fact.at, what));
                    }
                }
                under_way.retain(|_, (by, _)| by != epoch);
            }
            _ => {}
        }
    }
    found
}

fn is_taken_over(later: &[Fact], wanted: &str, dead: u64, until: Monotonic) -> bool {
    later.iter().take_while(|fact| fact.at <= until).any(|fact| match &fact.what {
        What::Work { zone, epoch, step: WorkStep::Begun, .. } => zone == wanted && *epoch != dead,
        _ => false,
    })
}
