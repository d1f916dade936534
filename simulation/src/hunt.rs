//! Looks for planted bugs: the proof that the checks find what they are there for.

use env::probe::Planted;

use crate::{Plan, Seed, Violation, play};

/// A planted bug that was found.
#[derive(Debug, Clone)]
pub struct Caught {
    /// The bug.
    pub bug: Planted,
    /// The world that found it.
    pub plan: Plan,
    /// How many seeds it took, this one included.
    pub seeds: u64,
    /// What was found, and is not found without the bug.
    pub violations: Vec<Violation>,
}

/// Plants a bug into the worlds of one seed after the other until one of them has a violation that
/// it does not have without the bug; none where `seeds` were not enough.
pub fn hunt(bug: Planted, first: Seed, seeds: u64, sound: impl Fn(Seed) -> Plan) -> Option<Caught> {
    (0..seeds).find_map(|number| {
        let sound = sound(Seed(first.0.wrapping_add(number)));
        let plan = Plan { planted: Some(bug), ..sound.clone() };
        let mut violations = play(&plan).violations;
        if violations.is_empty() {
            return None;
        }
        let without = play(&sound).violations;
        violations.retain(|found| without.iter().all(|other| other.property != found.property));
        let caught = !violations.is_empty();
        caught.then(|| Caught { bug, plan, seeds: number + 1, violations })
    })
}
