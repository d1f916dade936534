//! Sets of message numbers: [`SequenceSet`] as clients write it, with `*`, and [`IdSet`] of known
//! numbers.
//!
//! Architecture invariant: a set is stored as sorted, disjoint, non-adjacent ranges and is never
//! expanded, so that `1:4294967295` costs as much as `1`.

use std::fmt;
use std::ops::RangeInclusive;

/// Numbers 1..=4294967295 as sorted, disjoint, non-adjacent ranges; may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct IdSet {
    ranges: Vec<(u32, u32)>,
}

impl IdSet {
    /// The empty set.
    pub const fn new() -> Self {
        Self { ranges: Vec::new() }
    }

    /// Adds one number. Zero is not a message number and is left out.
    pub fn insert(&mut self, id: u32) {
        self.insert_range(id..=id);
    }

    /// Adds a range; zero is left out, an empty range adds nothing.
    pub fn insert_range(&mut self, range: RangeInclusive<u32>) {
        let (mut first, mut last) = ((*range.start()).max(1), *range.end());
        if first > last {
            return;
        }
        // In ascending order, the usual case, this is a push or an extension of the last range.
        let from = match self.ranges.last() {
            Some(&(_, end)) if end.saturating_add(1) < first => self.ranges.len(),
            _ => self.ranges.partition_point(|&(_, end)| end.saturating_add(1) < first),
        };
        let to = from
            + self.ranges[from..].partition_point(|&(start, _)| start <= last.saturating_add(1));
        if from < to {
            first = first.min(self.ranges[from].0);
            last = last.max(self.ranges[to - 1].1);
        }
        self.ranges.splice(from..to, [(first, last)]);
    }

    /// Whether the number is in the set.
    pub fn contains(&self, id: u32) -> bool {
        let at = self.ranges.partition_point(|&(_, end)| end < id);
        self.ranges.get(at).is_some_and(|&(start, _)| start <= id)
    }

    /// How many numbers are in the set.
    pub fn len(&self) -> u64 {
        self.ranges.iter().map(|&(start, end)| u64::from(end - start) + 1).sum()
    }

    /// Whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The smallest number.
    pub fn first(&self) -> Option<u32> {
        self.ranges.first().map(|range| range.0)
    }

    /// The largest number.
    pub fn last(&self) -> Option<u32> {
        self.ranges.last().map(|range| range.1)
    }

    /// The ranges in ascending order.
    pub fn ranges(&self) -> impl DoubleEndedIterator<Item = RangeInclusive<u32>> + '_ {
        self.ranges.iter().map(|&(start, end)| start..=end)
    }

    /// The numbers in ascending order. Only for sets that were built from messages that exist.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.ranges().flatten()
    }
}

impl FromIterator<u32> for IdSet {
    fn from_iter<I: IntoIterator<Item = u32>>(ids: I) -> Self {
        let mut set = Self::new();
        set.extend(ids);
        set
    }
}

impl Extend<u32> for IdSet {
    fn extend<I: IntoIterator<Item = u32>>(&mut self, ids: I) {
        for id in ids {
            self.insert(id);
        }
    }
}

impl fmt::Display for IdSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, &(start, end)) in self.ranges.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match start == end {
                true => write!(f, "{comma}{start}")?,
                false => write!(f, "{comma}{start}:{end}")?,
            }
        }
        Ok(())
    }
}

/// The part of a [`SequenceSet`] that reaches to `*`, the largest number in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Tail {
    /// `*`
    Last,
    /// `n:*`, in either order.
    From(u32),
}

/// `sequence-set` of RFC 9051 §9 without `$`: never empty, normalised.
///
/// Two sets that select the same messages of every mailbox compare equal, save for `*` beside
/// ranges that may or may not hold the last message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SequenceSet {
    ids: IdSet,
    tail: Option<Tail>,
}

impl SequenceSet {
    /// The set of these known numbers, `None` when there are none.
    pub fn from_ids(ids: IdSet) -> Option<Self> {
        (!ids.is_empty()).then_some(Self { ids, tail: None })
    }

    /// `first:*`; zero counts as one.
    pub fn from_onwards(first: u32) -> Self {
        Self { ids: IdSet::new(), tail: Some(Tail::From(first.max(1))) }
    }

    /// `*`, the last message.
    pub fn last_message() -> Self {
        Self { ids: IdSet::new(), tail: Some(Tail::Last) }
    }

    /// Reads `1,3:5,7:*`. `None` when that is not a sequence set.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut set = Self { ids: IdSet::new(), tail: None };
        let mut ranges = Vec::new();
        for part in text.split(|&byte| byte == b',') {
            let mut ends = part.splitn(2, |&byte| byte == b':');
            let first = number_or_last(ends.next()?)?;
            let last = match ends.next() {
                Some(last) => number_or_last(last)?,
                None => first,
            };
            match (first, last) {
                (Some(a), Some(b)) => ranges.push((a.min(b), a.max(b))),
                (Some(from), None) | (None, Some(from)) => set.reach(Tail::From(from)),
                (None, None) => set.reach(Tail::Last),
            }
        }
        // In ascending order each insertion is at the end, whatever order the client chose.
        ranges.sort_unstable();
        for (first, last) in ranges {
            set.ids.insert_range(first..=last);
        }
        set.normalise();
        Some(set)
    }

    fn reach(&mut self, tail: Tail) {
        self.tail = Some(match (self.tail, tail) {
            (Some(Tail::From(a)), Tail::From(b)) => Tail::From(a.min(b)),
            (Some(Tail::From(a)), Tail::Last) | (_, Tail::From(a)) => Tail::From(a),
            (_, Tail::Last) => Tail::Last,
        });
    }

    /// Ranges that touch `n:*` become part of it: above the largest number in use nothing exists.
    fn normalise(&mut self) {
        if let Some(Tail::From(mut from)) = self.tail {
            while let Some(&(start, end)) = self.ids.ranges.last() {
                if end.saturating_add(1) < from {
                    break;
                }
                from = from.min(start);
                self.ids.ranges.pop();
            }
            self.tail = Some(Tail::From(from));
        }
    }

    /// Whether the set selects `id` in a mailbox whose largest number is `max`.
    pub fn contains(&self, id: u32, max: u32) -> bool {
        id != 0
            && id <= max
            && (self.ids.contains(id)
                || match self.tail {
                    Some(Tail::Last) => id == max,
                    Some(Tail::From(from)) => id >= from.min(max),
                    None => false,
                })
    }

    /// The numbers up to `max`, the largest number in use, with `*` replaced. Empty for `max == 0`.
    pub fn resolve(&self, max: u32) -> IdSet {
        let mut ids = IdSet::new();
        for range in self.ids.ranges() {
            if *range.start() > max {
                break;
            }
            ids.insert_range(*range.start()..=(*range.end()).min(max));
        }
        match self.tail {
            Some(Tail::Last) => ids.insert(max),
            Some(Tail::From(from)) if max > 0 => ids.insert_range(from.min(max)..=max),
            _ => {}
        }
        ids
    }

    /// The largest number written out. Above the number of messages it makes a command on sequence
    /// numbers BAD; UIDs that are not there are skipped silently (RFC 9051 §6.4.9).
    pub fn largest_number(&self) -> Option<u32> {
        self.ids.last()
    }
}

impl fmt::Display for SequenceSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ids.fmt(f)?;
        let comma = if self.ids.is_empty() { "" } else { "," };
        match self.tail {
            Some(Tail::Last) => write!(f, "{comma}*"),
            Some(Tail::From(from)) => write!(f, "{comma}{from}:*"),
            None => Ok(()),
        }
    }
}

/// Outer `None`: not a number. Inner `None`: `*`.
fn number_or_last(text: &[u8]) -> Option<Option<u32>> {
    if text == b"*" {
        return Some(None);
    }
    if text.is_empty() || text[0] == b'0' || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok().map(Some)
}

/// The messages that a command is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageSet {
    /// `$`: the result that a SEARCH saved (RFC 9051 §6.4.4.1), empty where none did.
    Saved,
    /// Numbers.
    Set(SequenceSet),
}

impl fmt::Display for MessageSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Saved => f.write_str("$"),
            Self::Set(set) => set.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, normal: &str, max: u32, resolved: &str) {
        let set = SequenceSet::parse(text.as_bytes()).expect(text);
        assert_eq!(set.to_string(), normal, "{text}");
        assert_eq!(set.resolve(max).to_string(), resolved, "{text} up to {max}");
    }

    #[test]
    fn sets_are_normalised_and_resolved() {
        check("1", "1", 10, "1");
        check("5:3,4,6", "3:6", 10, "3:6");
        check("2,4:7,9,12:*", "2,4:7,9,12:*", 15, "2,4:7,9,12:15");
        check("*:4,5:7", "4:*", 10, "4:10");
        check("*:4,5:7", "4:*", 2, "2");
        check("1:3,4:*", "1:*", 0, "");
        check("*,3", "3,*", 9, "3,9");
        check("1:4294967295", "1:4294967295", 3, "1:3");
        check("4294967295:*", "4294967295:*", 3, "3");
        check("7:9", "7:9", 8, "7:8");
    }

    #[test]
    fn what_is_no_set_is_refused() {
        for text in ["", "0", "1,", ",1", "1:", ":1", "01", "1:2:3", "-1", "4294967296", "**", "$"]
        {
            assert_eq!(SequenceSet::parse(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_id_set_is_a_set(ranges in prop::collection::vec((1u32..60, 0u32..6), 0..40)) {
            let mut ids = IdSet::new();
            let mut model = BTreeSet::new();
            for (start, extra) in ranges {
                ids.insert_range(start..=start + extra);
                model.extend(start..=start + extra);
            }
            prop_assert_eq!(ids.iter().collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(ids.len(), model.len() as u64);
            for id in 0..70 {
                prop_assert_eq!(ids.contains(id), model.contains(&id));
            }
            let gaps = ids.ranges.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0);
            prop_assert!(gaps);
        }

        #[test]
        fn parse_and_display_agree(
            parts in prop::collection::vec((prop::option::weighted(0.9, 1u32..50), prop::option::weighted(0.9, 1u32..50)), 1..12),
            max in 0u32..60,
        ) {
            let word = |n: Option<u32>| n.map_or("*".to_owned(), |n| n.to_string());
            let text = parts.iter().map(|&(a, b)| format!("{}:{}", word(a), word(b))).collect::<Vec<_>>().join(",");
            let set = SequenceSet::parse(text.as_bytes()).expect("a set");
            prop_assert_eq!(&SequenceSet::parse(set.to_string().as_bytes()).expect("a set"), &set);
            let resolved = set.resolve(max);
            for id in 0..60 {
                let wanted = id != 0 && id <= max && parts.iter().any(|&(a, b)| {
                    let (a, b) = (a.unwrap_or(max), b.unwrap_or(max));
                    (a.min(b)..=a.max(b)).contains(&id)
                });
                prop_assert_eq!(set.contains(id, max), wanted);
                prop_assert_eq!(resolved.contains(id), wanted);
            }
        }
    }
}
