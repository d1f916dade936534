//! Where large values are read: on the calling task, or where it may block.
//!
//! A value that was read or written lately comes from the system's memory within microseconds,
//! and a hop to another thread and back would cost more than the read. A cold one waits for the
//! disk, and would keep a thread from its other tasks. Which it will be is not known before, but
//! reads come in runs: what one read took tells what the next will take.

use std::{
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use crate::limits::{LARGE_READ_SLOW, LARGE_READS_COLD};

/// What the last reads took.
#[derive(Default)]
pub(super) struct Warmth {
    /// Reads that are still to go where they may block. A hint, so races do not matter.
    cold: AtomicU32,
}

impl Warmth {
    /// Whether the next read is made on the calling task, and told of by [`Warmth::note`].
    pub(super) fn is_warm(&self) -> bool {
        let cold = self.cold.load(Relaxed);
        if cold > 0 {
            self.cold.store(cold - 1, Relaxed);
        }
        cold == 0
    }

    /// Notes what a read on the calling task took.
    pub(super) fn note(&self, took: Duration) {
        if took >= LARGE_READ_SLOW {
            self.cold.store(LARGE_READS_COLD, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slow_read_sends_those_behind_it_where_they_may_block() {
        let warmth = Warmth::default();
        for _ in 0..3 {
            assert!(warmth.is_warm());
            warmth.note(LARGE_READ_SLOW - Duration::from_nanos(1));
        }
        assert!(warmth.is_warm());
        warmth.note(LARGE_READ_SLOW);
        for _ in 0..LARGE_READS_COLD {
            assert!(!warmth.is_warm());
        }
        assert!(warmth.is_warm(), "once in a while it is tried again");
    }
}
