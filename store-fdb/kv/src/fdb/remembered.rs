//! What a transaction has read, so that reading it again costs no round trip.
//!
//! The client library remembers it too, but every question to it crosses to its network thread and
//! back, which is most of a read's cost where the server is near.
//!
//! Invariant: only reads that take part in conflict detection are kept, and none that the
//! transaction has written since: what is answered from here is what the client would answer.

use std::{collections::BTreeMap, ops::Bound};

use bytes::Bytes;

use crate::{Direction, KeyValue, RangeQuery, limits::REMEMBERED_BYTES_MAX};

/// Reads of one transaction.
#[derive(Default)]
pub(super) struct Remembered {
    keys: BTreeMap<Bytes, Option<Bytes>>,
    /// By where they begin; no two overlap, so a key is in at most one.
    ranges: BTreeMap<Bytes, KnownRange>,
    bytes: usize,
    writes: u64,
}

struct KnownRange {
    end: Bytes,
    limit: Option<usize>,
    direction: Direction,
    rows: Vec<KeyValue>,
}

/// How many writes had been made when a read was begun.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment(u64);

impl Remembered {
    /// To be taken as a read begins.
    pub(super) fn moment(&self) -> Moment {
        Moment(self.writes)
    }

    /// The value of a key, where it is known.
    pub(super) fn key(&self, key: &[u8]) -> Option<&Option<Bytes>> {
        self.keys.get(key)
    }

    /// All rows of a range, where they are known.
    pub(super) fn range(&self, query: &RangeQuery) -> Option<&Vec<KeyValue>> {
        let known = self.ranges.get(&query.begin)?;
        let same = known.end == query.end
            && known.limit == query.limit
            && known.direction == query.direction;
        same.then_some(&known.rows)
    }

    /// Keeps what a read gave that was begun at `moment`, unless something was written meanwhile.
    pub(super) fn keep_key(&mut self, moment: Moment, key: &[u8], value: &Option<Bytes>) {
        let bytes = key.len() + value.as_ref().map_or(0, Bytes::len);
        if self.takes(moment, bytes) {
            self.keys.insert(Bytes::copy_from_slice(key), value.clone());
        }
    }

    /// The same for all rows of a range.
    pub(super) fn keep_range(&mut self, moment: Moment, query: &RangeQuery, rows: &[KeyValue]) {
        let of_row = |row: &KeyValue| row.key.len() + row.value.len();
        let bytes = query.begin.len() + query.end.len() + rows.iter().map(of_row).sum::<usize>();
        let before = self.ranges.range::<Bytes, _>(..&query.end).next_back();
        let is_apart = before.is_none_or(|(_, known)| known.end <= query.begin);
        if is_apart && query.begin < query.end && self.takes(moment, bytes) {
            let known = KnownRange {
                end: query.end.clone(),
                limit: query.limit,
                direction: query.direction,
                rows: rows.to_vec(),
            };
            self.ranges.insert(query.begin.clone(), known);
        }
    }

    fn takes(&mut self, moment: Moment, bytes: usize) -> bool {
        let takes = moment == self.moment() && self.bytes + bytes <= REMEMBERED_BYTES_MAX;
        if takes {
            self.bytes += bytes;
        }
        takes
    }

    /// Forgets what a write of this key changes.
    pub(super) fn key_written(&mut self, key: &[u8]) {
        self.writes += 1;
        self.keys.remove(key);
        let before = (Bound::Unbounded, Bound::Included(key));
        if let Some((begin, known)) = self.ranges.range::<[u8], _>(before).next_back()
            && *key < *known.end
        {
            let begin = begin.clone();
            self.ranges.remove(&begin);
        }
    }

    /// Forgets what a write anywhere in this range changes.
    pub(super) fn range_written(&mut self, begin: &[u8], end: &[u8]) {
        self.writes += 1;
        self.keys.retain(|key, _| **key < *begin || *end <= **key);
        self.ranges.retain(|first, known| *known.end <= *begin || *end <= **first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(begin: &'static str, end: &'static str) -> RangeQuery {
        RangeQuery::new(begin, end)
    }

    fn filled() -> Remembered {
        let mut remembered = Remembered::default();
        let now = remembered.moment();
        for key in ["a", "b", "c"] {
            remembered.keep_key(now, key.as_bytes(), &Some("v".into()));
        }
        remembered.keep_range(now, &query("b", "d"), &[]);
        remembered.keep_range(now, &query("d", "f"), &[]);
        remembered
    }

    /// Which of the keys and ranges of [`filled`] are still known.
    fn known(remembered: &Remembered) -> String {
        let keys = ["a", "b", "c"].map(|key| remembered.key(key.as_bytes()).map_or("", |_| key));
        let ranges = [("b", "d"), ("d", "f")]
            .map(|(begin, end)| remembered.range(&query(begin, end)).map_or("", |_| "+"));
        [keys.concat(), ranges.concat()].join(" ")
    }

    #[test]
    fn a_write_makes_forget_what_it_changes() {
        let after = |write: &dyn Fn(&mut Remembered)| {
            let mut remembered = filled();
            write(&mut remembered);
            known(&remembered)
        };
        assert_eq!(known(&filled()), "abc ++");
        assert_eq!(after(&|it| it.key_written(b"a")), "bc ++");
        assert_eq!(after(&|it| it.key_written(b"c")), "ab +");
        assert_eq!(after(&|it| it.key_written(b"e")), "abc +");
        assert_eq!(after(&|it| it.key_written(b"f")), "abc ++");
        assert_eq!(after(&|it| it.range_written(b"b", b"c")), "ac +");
        assert_eq!(after(&|it| it.range_written(b"c\0", b"e")), "abc ");
        assert_eq!(after(&|it| it.range_written(b"", b"z")), " ");
    }

    #[test]
    fn an_answer_that_a_write_overtook_is_not_kept() {
        let mut remembered = Remembered::default();
        let begun = remembered.moment();
        remembered.key_written(b"x");
        remembered.keep_key(begun, b"a", &None);
        remembered.keep_range(begun, &query("b", "d"), &[]);
        assert_eq!(known(&remembered), " ");
    }

    #[test]
    fn another_question_about_a_known_range_is_not_answered() {
        let remembered = filled();
        assert!(remembered.range(&query("b", "d").limit(1)).is_none());
        assert!(remembered.range(&query("b", "d").reverse()).is_none());
        assert!(remembered.range(&query("b", "c")).is_none());
    }

    #[test]
    fn ranges_that_overlap_are_not_both_kept() {
        let mut remembered = filled();
        for (begin, end) in [("a", "c"), ("c", "e"), ("a", "z"), ("e", "g"), ("b", "d")] {
            remembered.keep_range(remembered.moment(), &query(begin, end).limit(1), &[]);
            assert!(remembered.range(&query(begin, end).limit(1)).is_none(), "{begin} to {end}");
        }
    }

    #[test]
    fn it_is_bounded() {
        let mut remembered = Remembered::default();
        let value = Some(Bytes::from(vec![0; REMEMBERED_BYTES_MAX / 2]));
        for key in ["a", "b", "c"] {
            remembered.keep_key(remembered.moment(), key.as_bytes(), &value);
        }
        assert_eq!(known(&remembered), "a ");
    }
}
