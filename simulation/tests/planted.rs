//! Every check is shown to fail: a bug is planted, and the check that exists for it notices within so
//! many seeds; the same seeds are clean without it.

use std::time::Duration;

use env::probe::Planted;
use simulation::{Plan, Property, Seed, play};

/// A bug, the property that it breaks, the parts that the world needs for it, and how many seeds it
/// takes at most.
struct Case {
    bug: Planted,
    property: Property,
    parts: &'static [&'static str],
    seeds: u64,
}

const fn case(
    bug: Planted,
    property: Property,
    parts: &'static [&'static str],
    seeds: u64,
) -> Case {
    Case { bug, property, parts, seeds }
}

/// Part A: delivery, counters, bytes, work, bounds, releases.
const CASES: &[Case] = &[
    case(
        Planted::AcceptUnstored,
        Property::P1,
        &["delivery", "quota", "store-noise", "store-away"],
        12,
    ),
    case(Planted::DropReport, Property::P1, &["quota"], 2),
    case(Planted::ForgetDelivered, Property::P7, &["delivery", "peers"], 4),
    case(Planted::ForgetDeferred, Property::P1, &["delivery", "peers"], 8),
    case(Planted::GiveUpConclusion, Property::P7, &["delivery", "peers", "store-outage"], 20),
    case(Planted::CountBySnapshot, Property::P4, &["tidy"], 20),
    case(Planted::ForgetUsage, Property::P4, &["quota"], 8),
    case(Planted::SweepWithoutMark, Property::P5, &["tidy", "midnight"], 3),
    case(Planted::ForgetDueBlob, Property::P5, &["tidy"], 2),
    case(Planted::SkipEpochCheck, Property::P6, &["rehearsal"], 8),
    case(Planted::TrustForever, Property::P6, &["rehearsal"], 8),
    case(Planted::KeepDeadClaims, Property::P7, &["rehearsal"], 4),
    case(Planted::CompleteAgain, Property::P7, &["rehearsal"], 8),
    case(Planted::TrustOwnClock, Property::P7, &["rehearsal"], 20),
    case(Planted::AdmitEverybody, Property::P9, &["hostile"], 3),
    case(Planted::TrustPeers, Property::P9, &["hostile"], 3),
    case(Planted::LeaveTasks, Property::P9, &["tidy"], 2),
    case(Planted::TrustBytes, Property::P5, &["delivery", "rot"], 3),
    // What is kept is sound, so readers alone can notice.
    case(Planted::TrustBytes, Property::P5, &["delivery", "readers", "bucket-noise"], 4),
    case(Planted::PassOverUnknownKinds, Property::P10, &["newer"], 2),
    case(Planted::DropUnknownFields, Property::P10, &["newer"], 1),
    case(Planted::DropUnknownSettings, Property::P10, &["newer", "administrators"], 3),
];

const DURATION: Duration = Duration::from_mins(4);

fn plan(case: &Case, seed: u64) -> Plan {
    let mut plan = Plan::draw(Seed(seed), 3, DURATION);
    plan.parts = case.parts.to_vec();
    plan
}

/// The seed by which the bug was caught.
fn caught(case: &Case) -> Option<u64> {
    (1..=case.seeds).find(|seed| {
        let plan = Plan { planted: Some(case.bug), ..plan(case, *seed) };
        let outcome = play(&plan);
        outcome.violations.iter().any(|violation| violation.property == case.property)
    })
}

#[test]
fn every_planted_bug_is_found_within_its_seeds() {
    let mut missed = Vec::new();
    for case in CASES {
        let found = caught(case);
        println!("{:?} breaks {}: seed {found:?} of {}", case.bug, case.property, case.seeds);
        if found.is_none() {
            missed.push(case.bug);
        }
    }
    assert_eq!(missed, [], "nobody noticed these");
}

#[test]
fn the_same_seeds_are_clean_without_the_bugs() {
    let mut worlds: Vec<(&[&str], u64)> = Vec::new();
    for case in CASES {
        for seed in 1..=case.seeds {
            if worlds.contains(&(case.parts, seed)) {
                continue;
            }
            worlds.push((case.parts, seed));
            let outcome = play(&plan(case, seed));
            assert!(outcome.is_clean(), "{:?}, seed {seed}: {:#?}", case.parts, outcome.violations);
        }
    }
}
