//! A set of keys as disjoint ranges.

use std::{collections::BTreeMap, ops::Bound};

use bytes::Bytes;

/// Disjoint, merged, non-empty ranges: begin → end.
#[derive(Default)]
pub(super) struct RangeSet {
    ranges: BTreeMap<Bytes, Bytes>,
}

impl RangeSet {
    /// Adds the keys from `begin` up to `end`.
    pub(super) fn insert(&mut self, begin: &Bytes, end: &Bytes) {
        if begin >= end {
            return;
        }
        let (mut begin, mut end) = (begin.clone(), end.clone());
        // What touches the new range becomes one with it.
        while let Some((left, right)) = self
            .ranges
            .range::<Bytes, _>((Bound::Unbounded, Bound::Included(&end)))
            .next_back()
            .filter(|(_, right)| **right >= begin)
            .map(|(left, right)| (left.clone(), right.clone()))
        {
            self.ranges.remove(&left);
            begin = begin.min(left);
            end = end.max(right);
        }
        self.ranges.insert(begin, end);
    }

    /// Removes the keys from `begin` up to `end`.
    pub(super) fn remove(&mut self, begin: &Bytes, end: &Bytes) {
        let touched: Vec<(Bytes, Bytes)> = self
            .overlapping(begin, end)
            .map(|(left, right)| (left.clone(), right.clone()))
            .collect();
        for (left, right) in touched {
            self.ranges.remove(&left);
            if *end < right {
                self.ranges.insert(end.clone(), right);
            }
            if left < *begin {
                self.ranges.insert(left, begin.clone());
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    pub(super) fn contains(&self, key: &[u8]) -> bool {
        self.ranges
            .range::<[u8], _>((Bound::Unbounded, Bound::Included(key)))
            .next_back()
            .is_some_and(|(_, end)| key < &**end)
    }

    /// The ranges that share a key with `begin..end`, ascending.
    pub(super) fn overlapping<'a>(
        &'a self,
        begin: &'a [u8],
        end: &'a [u8],
    ) -> impl Iterator<Item = (&'a Bytes, &'a Bytes)> + 'a {
        let first = self
            .ranges
            .range::<[u8], _>((Bound::Unbounded, Bound::Included(begin)))
            .next_back()
            .filter(|(_, right)| &***right > begin)
            .map_or(begin, |(left, _)| left);
        // An inverted pair of bounds would panic; an empty range overlaps nothing.
        let last = if begin < end { end } else { first };
        self.ranges.range::<[u8], _>((Bound::Included(first), Bound::Excluded(last.max(first))))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(changes in proptest::collection::vec(
            (any::<bool>(), 0_u8..20, 0_u8..20), 0..30))
        {
            let key = |number: u8| Bytes::from(vec![number]);
            let mut set = RangeSet::default();
            let mut model = BTreeSet::new();
            for (insert, begin, end) in changes {
                if insert {
                    set.insert(&key(begin), &key(end));
                    model.extend(begin..end);
                } else {
                    set.remove(&key(begin), &key(end));
                    model.retain(|number| !(begin..end).contains(number));
                }
                for number in 0..20 {
                    prop_assert_eq!(set.contains(&[number]), model.contains(&number));
                    for end in 0..20 {
                        prop_assert_eq!(
                            set.overlapping(&[number], &[end]).next().is_some(),
                            (number..end).any(|inside| model.contains(&inside))
                        );
                    }
                }
            }
        }
    }
}
