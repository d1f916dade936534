//! Seeing that a node is dead: its heartbeat stands still by one's own monotonic clock.
//!
//! Architecture invariants:
//! - No two nodes' clocks are compared. A count that was seen at the end of one look and is still
//!   the same at the begin of a later one stood still for at least the time between them.
//! - Time in which the looker could not look does not count: where the store was away, nobody
//!   could write a heartbeat either.

use std::{collections::BTreeMap, time::Duration};

use env::Monotonic;

use super::registry::Registered;
use crate::Epoch;

/// What one node has seen of the others.
#[derive(Debug)]
pub(super) struct Observer {
    seen: BTreeMap<Epoch, Seen>,
    /// When the last look ended.
    last: Monotonic,
    /// Looks that lie further apart begin to watch anew.
    gap_max: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    count: u64,
    since: Monotonic,
}

/// A node whose heartbeat has stood still for its time-to-live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Overdue {
    pub(super) epoch: Epoch,
    /// The count at which it stands.
    pub(super) count: u64,
}

impl Observer {
    /// An observer that has seen nothing, for looks that are to lie much less than `gap_max`
    /// apart.
    pub(super) fn new(gap_max: Duration) -> Self {
        Self { seen: BTreeMap::new(), last: Monotonic::default(), gap_max }
    }

    /// Takes in what a look from `begun` to `ended` found. Epochs that are not registered any
    /// more are forgotten.
    pub(super) fn look(
        &mut self,
        begun: Monotonic,
        ended: Monotonic,
        nodes: &BTreeMap<Epoch, Registered>,
        own: Epoch,
    ) -> Vec<Overdue> {
        if begun.saturating_since(self.last) > self.gap_max {
            self.seen.clear();
        }
        self.last = ended;
        self.seen.retain(|epoch, _| nodes.contains_key(epoch));
        let mut overdue = Vec::new();
        for (epoch, node) in nodes.iter().filter(|(epoch, _)| **epoch != own) {
            let count = node.beat.count;
            let seen = self.seen.entry(*epoch).or_insert(Seen { count, since: ended });
            if seen.count != count {
                *seen = Seen { count, since: ended };
            }
            let time_to_live = Duration::from_millis(node.beat.time_to_live_ms);
            if begun.saturating_since(seen.since) >= time_to_live && begun > seen.since {
                overdue.push(Overdue { epoch: *epoch, count });
            }
        }
        overdue
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::registry::{Beat, NodeRecord};

    fn nodes(counts: &[(u64, u64)]) -> BTreeMap<Epoch, Registered> {
        let node = |count| Registered {
            record: NodeRecord::default(),
            beat: Beat { count, time_to_live_ms: 5_000, ..Beat::default() },
        };
        counts.iter().map(|(epoch, count)| (Epoch(*epoch), node(*count))).collect()
    }

    fn look(observer: &mut Observer, seconds: (u64, u64), counts: &[(u64, u64)]) -> Vec<u64> {
        let at = |seconds| Monotonic::from_start(Duration::from_secs(seconds));
        let overdue = observer.look(at(seconds.0), at(seconds.1), &nodes(counts), Epoch(1));
        overdue.into_iter().map(|overdue| overdue.epoch.0).collect()
    }

    #[test]
    fn a_heartbeat_that_stands_still_is_overdue() {
        let mut observer = Observer::new(Duration::from_secs(4));
        assert_eq!(look(&mut observer, (0, 1), &[(1, 0), (2, 7), (3, 7)]), [] as [u64; 0]);
        assert_eq!(look(&mut observer, (5, 5), &[(1, 0), (2, 7), (3, 8)]), [] as [u64; 0]);
        assert_eq!(look(&mut observer, (6, 6), &[(1, 0), (2, 7), (3, 8)]), [2]);
        assert_eq!(look(&mut observer, (9, 9), &[(1, 0), (3, 8)]), [] as [u64; 0]);
        assert_eq!(look(&mut observer, (10, 10), &[(1, 0), (3, 8)]), [3]);
    }

    #[test]
    fn a_look_that_took_long_counts_for_the_node_that_was_looked_at() {
        let mut observer = Observer::new(Duration::from_secs(4));
        look(&mut observer, (0, 20), &[(2, 7)]);
        // Begun before the first look had ended: it may have seen the same moment.
        assert_eq!(look(&mut observer, (1, 21), &[(2, 7)]), [] as [u64; 0]);
        assert_eq!(look(&mut observer, (24, 24), &[(2, 7)]), [] as [u64; 0]);
        assert_eq!(look(&mut observer, (25, 25), &[(2, 7)]), [2]);
    }

    #[test]
    fn time_without_a_look_does_not_count() {
        let mut observer = Observer::new(Duration::from_secs(2));
        look(&mut observer, (0, 0), &[(2, 7)]);
        look(&mut observer, (2, 2), &[(2, 7)]);
        // The store was away.
        assert_eq!(look(&mut observer, (40, 40), &[(2, 7)]), [] as [u64; 0]);
        assert_eq!(look(&mut observer, (42, 42), &[(2, 7)]), [] as [u64; 0]);
        assert_eq!(look(&mut observer, (44, 44), &[(2, 7)]), [] as [u64; 0]);
        assert_eq!(look(&mut observer, (45, 45), &[(2, 7)]), [2]);
    }
}
