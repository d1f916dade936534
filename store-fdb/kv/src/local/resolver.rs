//! Conflict detection: which keys were written at which version, for the life of a transaction.
//!
//! Point writes and range writes are kept apart: most writes are points, and a point costs one
//! map entry. Range writes form a step function from keys to versions.
//!
//! Invariant: for a read version no older than [`limits::TRANSACTION_LIFE`], every later write is
//! found. Entries older than that are dropped, so memory is bounded by the writes of five
//! seconds.
//!
//! [`limits::TRANSACTION_LIFE`]: crate::limits::TRANSACTION_LIFE

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
};

use bytes::Bytes;

use crate::{limits::TRANSACTION_LIFE_VERSIONS, range::successor};

/// Keys that a transaction read or wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Span {
    /// One key.
    Point(Bytes),
    /// The keys from the first up to but without the second.
    Range(Bytes, Bytes),
}

#[derive(Default)]
pub(crate) struct Resolver {
    points: BTreeMap<Bytes, u64>,
    /// The version at which the keys from here to the next entry were last range-written.
    steps: BTreeMap<Bytes, u64>,
    /// What may be dropped, by the version after whose window it may.
    expiry: VecDeque<(u64, Expiring)>,
}

enum Expiring {
    Point(Bytes),
    Step(Bytes),
}

impl Resolver {
    /// Whether a key of `span` was written after `read_version`.
    pub(crate) fn conflicts(&self, span: &Span, read_version: u64) -> bool {
        match span {
            Span::Point(key) => {
                self.points.get(key).is_some_and(|version| *version > read_version)
                    || self.step_at(key) > read_version
            }
            Span::Range(begin, end) if begin >= end => false,
            Span::Range(begin, end) => {
                let inside = (Bound::Included(begin), Bound::Excluded(end));
                self.step_at(begin) > read_version
                    || self
                        .steps
                        .range::<Bytes, _>(inside)
                        .any(|(_, version)| *version > read_version)
                    || self
                        .points
                        .range::<Bytes, _>(inside)
                        .any(|(_, version)| *version > read_version)
            }
        }
    }

    /// Records a write of `span` at `version`, which no earlier write exceeds.
    pub(crate) fn record(&mut self, span: &Span, version: u64) {
        match span {
            Span::Point(key) => {
                self.points.insert(key.clone(), version);
                self.expiry.push_back((version, Expiring::Point(key.clone())));
            }
            Span::Range(begin, end) if begin >= end => {}
            Span::Range(begin, end) if **end == *successor(begin) => {
                self.record(&Span::Point(begin.clone()), version);
            }
            Span::Range(begin, end) => {
                let after = self.step_at(end);
                let covered: Vec<Bytes> = self
                    .steps
                    .range::<Bytes, _>((Bound::Included(begin), Bound::Excluded(end)))
                    .map(|(key, _)| key.clone())
                    .collect();
                for key in covered {
                    self.steps.remove(&key);
                }
                self.steps.insert(begin.clone(), version);
                self.steps.entry(end.clone()).or_insert(after);
                self.expiry.push_back((version, Expiring::Step(begin.clone())));
                self.expiry.push_back((version, Expiring::Step(end.clone())));
            }
        }
    }

    /// Drops what no transaction alive at `version` can conflict with.
    pub(crate) fn expire(&mut self, version: u64) {
        let oldest = version.saturating_sub(TRANSACTION_LIFE_VERSIONS);
        while let Some((_, expiring)) = self.expiry.pop_front_if(|(written, _)| *written < oldest) {
            match expiring {
                Expiring::Point(key) => {
                    if self.points.get(&key).is_some_and(|version| *version < oldest) {
                        self.points.remove(&key);
                    }
                }
                Expiring::Step(key) => {
                    // A step between two expired stretches separates nothing any more.
                    let before = self
                        .steps
                        .range::<Bytes, _>((Bound::Unbounded, Bound::Excluded(&key)))
                        .next_back()
                        .map_or(0, |(_, version)| *version);
                    if before < oldest
                        && self.steps.get(&key).is_some_and(|version| *version < oldest)
                    {
                        self.steps.remove(&key);
                    }
                }
            }
        }
    }

    fn step_at(&self, key: &Bytes) -> u64 {
        self.steps
            .range::<Bytes, _>((Bound::Unbounded, Bound::Included(key)))
            .next_back()
            .map_or(0, |(_, version)| *version)
    }

    #[cfg(test)]
    fn entries(&self) -> usize {
        self.points.len() + self.steps.len() + self.expiry.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(number: u8) -> Bytes {
        Bytes::from(vec![number])
    }

    fn span(begin: u8, length: u8) -> Span {
        if length == 0 {
            Span::Point(key(begin))
        } else {
            Span::Range(key(begin), key(begin + length))
        }
    }

    proptest! {
        /// Against a plain list of writes.
        #[test]
        fn it_finds_exactly_the_later_writes(
            writes in proptest::collection::vec((0_u8..20, 0_u8..6), 0..40),
            begin in 0_u8..20, length in 0_u8..6, read in 0_u64..41, expire in 0_u64..41,
        ) {
            let mut resolver = Resolver::default();
            // Versions a fifth of a life apart, so that expiry happens on the way.
            let apart = TRANSACTION_LIFE_VERSIONS / 5;
            for (at, (begin, length)) in (1_u64..).zip(&writes) {
                resolver.record(&span(*begin, *length), at * apart);
                resolver.expire(at.min(expire) * apart);
            }
            let read_version = read.max(expire.saturating_sub(5)) * apart;
            // A range here covers the one-byte keys inside it.
            let covered = |begin: u8, length: u8| begin..begin + length.max(1);
            let expected = (1_u64..).zip(&writes).any(|(at, write)| {
                at * apart > read_version
                    && covered(write.0, write.1).any(|k| covered(begin, length).contains(&k))
            });
            prop_assert_eq!(resolver.conflicts(&span(begin, length), read_version), expected);
        }
    }

    #[test]
    fn what_is_older_than_a_transaction_can_be_is_dropped() {
        let mut resolver = Resolver::default();
        for version in 1..1000_u64 {
            resolver.record(&span(u8::try_from(version % 200).unwrap(), 0), version);
            resolver.record(&span(u8::try_from(version % 190).unwrap(), 3), version);
        }
        resolver.expire(1001 + TRANSACTION_LIFE_VERSIONS);
        assert_eq!(resolver.entries(), 0);
    }
}
