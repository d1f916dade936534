//! When a world was calm: no fault in force, and none a short while ago.
//!
//! A fault's beginning is a [`What::Fault`] whose words end with [`BEGINS`], its end one with [`ENDS`]. What
//! befalls a workload's own members of the cluster has neither, and disturbs nobody else.

use std::time::Duration;

use env::Monotonic;

use crate::{Fact, What};

/// How the words of a fault's beginning end.
const BEGINS: &str = ": begins";

/// How the words of a fault's end end.
const ENDS: &str = ": ends";

/// How long a fault has its effect: a node is declared dead, registers again, and every connection
/// of the mesh comes back.
const AFTERMATH: Duration = Duration::from_secs(30);

/// The unquiet stretches of a world.
pub(super) struct Calm {
    /// When something happened, and how many faults were in force from then on.
    turns: Vec<(Monotonic, u32)>,
}

impl Calm {
    pub(super) fn of(facts: &[Fact]) -> Self {
        let mut in_force = 0_u32;
        let mut turns = Vec::new();
        for fact in facts {
            match &fact.what {
                What::Fault(text) if text.ends_with(ENDS) => in_force = in_force.saturating_sub(1),
                What::Fault(text) if text.ends_with(BEGINS) => in_force += 1,
                What::Node(_) => {}
                _ => continue,
            }
            turns.push((fact.at, in_force));
        }
        Self { turns }
    }

    /// Whether nothing disturbed the world from well before `from` until `to`.
    pub(super) fn holds(&self, from: Monotonic, to: Monotonic) -> bool {
        let before = self.turns.iter().rfind(|(at, _)| *at + AFTERMATH <= from);
        let between = self.turns.iter().any(|(at, _)| *at + AFTERMATH > from && *at <= to);
        !between && before.is_none_or(|(_, in_force)| *in_force == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_no_calm_and_neither_is_the_time_after_it() {
        let at = |seconds| Monotonic::from_start(Duration::from_secs(seconds));
        let fault = |seconds, text: &str| Fact {
            at: at(seconds),
            host: "world".into(),
            what: What::Fault(text.to_owned()),
        };
        let calm = Calm::of(&[fault(100, "a cut: begins"), fault(200, "a cut: ends")]);
        assert!(calm.holds(at(50), at(99)));
        assert!(!calm.holds(at(50), at(100)));
        assert!(!calm.holds(at(150), at(160)));
        assert!(!calm.holds(at(229), at(240)));
        assert!(calm.holds(at(230), at(240)));
    }
}
