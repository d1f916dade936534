//! What other servers were given: for P1, that nothing is missing; for P7, that nothing came twice but
//! where the answer to it was lost.

use std::{collections::BTreeMap, time::Duration};

use env::{Monotonic, probe::Observation};

use crate::{Fact, NodeEvent, Property, RemoteDid, Violation, What};

/// A message, and one of those whom it is for.
pub(super) type Copy = (String, String);

/// How long after an answer a node that has died, or lost its epoch, may not have noted it: as long as the
/// store is away, and somewhat. One that was found dead while it waited for the answer may not note it at all.
const NOTED_WITHIN: Duration = Duration::from_mins(3);

/// A copy that another server has taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Delivery {
    /// When the server had all of it.
    received: Monotonic,
    /// When it answered.
    at: Monotonic,
    from: String,
    /// Whether the sender went on after the answer.
    is_heard: bool,
}

/// Every copy that another server has taken, in order.
pub(super) fn deliveries(facts: &[Fact]) -> BTreeMap<Copy, Vec<Delivery>> {
    let mut deliveries: BTreeMap<Copy, Vec<Delivery>> = BTreeMap::new();
    let mut received: BTreeMap<(&str, &str, &str), Monotonic> = BTreeMap::new();
    for fact in facts {
        let What::Remote { token, recipient, from, did } = &fact.what else { continue };
        // Reports have a subject that others have too.
        if !token.chars().all(|it| it.is_ascii_alphanumeric()) {
            continue;
        }
        let of_copy = deliveries.entry((token.clone(), recipient.clone())).or_default();
        match did {
            RemoteDid::Received => {
                received.insert((token, recipient, from), fact.at);
            }
            RemoteDid::Accepted | RemoteDid::AcceptedSilently => {
                let begun = received.remove(&(&**token, &**recipient, &**from));
                let received = begun.unwrap_or(fact.at);
                let (at, from) = (fact.at, from.clone());
                of_copy.push(Delivery { received, at, from, is_heard: false });
            }
            RemoteDid::Heard => {
                let last = of_copy.iter_mut().rev().find(|delivery| delivery.from == *from);
                if let Some(delivery) = last {
                    delivery.is_heard = true;
                }
            }
            RemoteDid::Deferred => {}
        }
    }
    deliveries.retain(|_, of_copy| !of_copy.is_empty());
    deliveries
}

/// When nodes ended, and when their epochs did, by their machines' names.
fn ends(facts: &[Fact]) -> BTreeMap<String, Vec<Monotonic>> {
    let mut machines = BTreeMap::new();
    for fact in facts {
        if let What::Observed(Observation::ActedOnClaim { epoch, .. }) = &fact.what {
            machines.insert(*epoch, fact.host.to_string());
        }
    }
    let mut ends: BTreeMap<String, Vec<Monotonic>> = BTreeMap::new();
    for fact in facts {
        let machine = match &fact.what {
            What::Node(NodeEvent::Crashed | NodeEvent::Ended(_)) => Some(fact.host.to_string()),
            // Who ended the epoch before may not have seen that commit.
            What::Observed(Observation::Registered { .. }) => Some(fact.host.to_string()),
            What::Observed(Observation::EpochEnded { epoch, .. }) => machines.get(epoch).cloned(),
            _ => None,
        };
        if let Some(machine) = machine {
            ends.entry(machine).or_default().push(fact.at);
        }
    }
    ends
}

/// Copies that came more than once although the answers to more than one were heard by nodes that lived on.
pub(super) fn duplicates(facts: &[Fact]) -> Vec<Violation> {
    let ends = ends(facts);
    let is_noted = |delivery: &Delivery| {
        let soon = delivery.received..=delivery.at + NOTED_WITHIN;
        let ends = ends.get(&delivery.from).into_iter().flatten();
        delivery.is_heard && !ends.into_iter().any(|end| soon.contains(end))
    };
    let mut found = Vec::new();
    for ((token, recipient), of_copy) in deliveries(facts) {
        if of_copy.len() < 2 {
            continue;
        }
        env::sometimes!("another server got a message twice");
        // Which of them is the one too many cannot be told: an answer may come late.
        for delivery in of_copy.iter().filter(|delivery| is_noted(delivery)).skip(1) {
            let from = &delivery.from;
            let what = format!("{recipient} got {token} again, from {from}, and nothing was lost");
            found.push(Violation::at(Property::P7, delivery.at, what));
        }
    }
    found
}
