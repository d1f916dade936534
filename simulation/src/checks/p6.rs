//! P6: nobody acts on a claim after its epoch ended.
//!
//! Ends that the world has seen are compared with what nodes and workers did: what they began
//! afterwards by time, what they completed by the order of commits.

use std::collections::BTreeMap;

use env::{BoxFuture, Monotonic, probe::Observation};

use crate::{Check, Fact, Property, Violation, What, World};

pub(super) struct Claims;

/// When an epoch ended.
struct End {
    /// Somebody knew by then.
    at: Monotonic,
    version: u64,
}

impl Check for Claims {
    fn name(&self) -> &'static str {
        "claims"
    }

    fn property(&self) -> Property {
        Property::P6
    }

    fn check<'a>(&'a self, world: &'a World) -> BoxFuture<'a, Vec<Violation>> {
        Box::pin(async { world.facts().with(look) })
    }
}

fn look(facts: &[Fact]) -> Vec<Violation> {
    let mut ends: BTreeMap<u64, End> = BTreeMap::new();
    for fact in facts {
        if let What::Observed(Observation::EpochEnded { epoch, version }) = fact.what {
            ends.insert(epoch, End { at: fact.at, version });
        }
    }
    let mut found = Vec::new();
    for fact in facts {
        let what = match fact.what {
            What::Observed(Observation::ActedOnClaim { epoch, kind }) => {
                ends.get(&epoch).filter(|end| end.at < fact.at).map(|_| {
                    format!("{} began {kind} under epoch {epoch}, which had ended", fact.host)
                })
            }
            What::Observed(Observation::CompletedClaim { epoch, kind, version }) => {
                ends.get(&epoch).filter(|end| end.version < version).map(|end| {
                    let ended = end.version;
                    format!("{kind} completed at {version} under epoch {epoch}, ended at {ended}")
                })
            }
            _ => None,
        };
        found.extend(what.map(|what| Violation::at(Property::P6, fact.at, what)));
    }
    found
}
