//! Makes a plan that fails smaller, as long as it still fails: fewer parts, fewer nodes, shorter.

use std::time::Duration;

use crate::Plan;

/// The shortest world that is tried.
const SHORTEST: Duration = Duration::from_secs(5);

/// Makes `plan` smaller while `fails` says that it still fails, in at most `tries` tries. `plan`
/// itself is known to fail.
pub fn shrink(plan: &Plan, tries: usize, fails: impl FnMut(&Plan) -> bool) -> Plan {
    let mut shrinking = Shrinking { best: plan.clone(), tries, fails };
    loop {
        let before = shrinking.best.clone();
        shrinking.shorten();
        shrinking.drop_parts();
        shrinking.drop_nodes();
        if shrinking.best == before || shrinking.tries == 0 {
            return shrinking.best;
        }
    }
}

struct Shrinking<F> {
    best: Plan,
    tries: usize,
    fails: F,
}

impl<F: FnMut(&Plan) -> bool> Shrinking<F> {
    /// Whether it is taken.
    fn propose(&mut self, plan: Plan) -> bool {
        if self.tries == 0 {
            return false;
        }
        self.tries -= 1;
        let fails = (self.fails)(&plan);
        if fails {
            self.best = plan;
        }
        fails
    }

    /// Half as long, again and again, and then a quarter shorter.
    fn shorten(&mut self) {
        for (times, of) in [(1, 2), (3, 4)] {
            loop {
                let seconds = self.best.duration.as_secs() * times / of;
                let duration = Duration::from_secs(seconds);
                let plan = Plan { duration, ..self.best.clone() };
                if duration < SHORTEST || !self.propose(plan) {
                    break;
                }
            }
        }
    }

    /// Many parts at once, then fewer, then one by one.
    fn drop_parts(&mut self) {
        let mut size = self.best.parts.len();
        while size > 0 {
            let mut first = 0;
            while first < self.best.parts.len() {
                let end = (first + size).min(self.best.parts.len());
                let chunk = self.best.parts[first..end].to_vec();
                let smaller = chunk.iter().fold(self.best.clone(), |plan, it| plan.leave_out(it));
                // What was taken makes place for the next.
                first += if self.propose(smaller) { 0 } else { size };
            }
            size /= 2;
        }
    }

    /// As few nodes as there can be.
    fn drop_nodes(&mut self) {
        for nodes in 1..self.best.nodes {
            if self.propose(Plan { nodes, ..self.best.clone() }) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Seed;

    fn plan() -> Plan {
        let parts = vec!["senders", "idlers", "kill", "pause", "skew", "cut-peers", "resets"];
        Plan { parts, ..Plan::draw(Seed(9), 5, Duration::from_mins(10)) }
    }

    #[test]
    fn what_the_failure_needs_is_left_and_nothing_else() {
        let fails = |plan: &Plan| {
            plan.parts.contains(&"senders")
                && plan.parts.contains(&"skew")
                && plan.nodes >= 2
                && plan.duration >= Duration::from_secs(70)
        };
        let smaller = shrink(&plan(), 200, fails);
        assert!(fails(&smaller));
        assert_eq!((smaller.nodes, &*smaller.parts), (2, &["senders", "skew"][..]));
        assert!(smaller.duration < Duration::from_secs(100), "{:?}", smaller.duration);
        assert_eq!(smaller.parts.len() + smaller.without.len(), plan().parts.len());
    }

    #[test]
    fn a_failure_that_needs_everything_is_left_and_tries_end() {
        let mut tries = 0;
        assert_eq!(shrink(&plan(), 200, |it| *it == plan()), plan());
        let smaller = shrink(&plan(), 3, |_| {
            tries += 1;
            true
        });
        assert_eq!(tries, 3);
        assert!(smaller.duration < plan().duration);
    }
}
