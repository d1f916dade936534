//! Range queries, and the byte-string arithmetic of keys.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes, BytesMut};

use crate::limits::{PAGE_BYTES_DEFAULT, SYSTEM_KEYS};

/// A row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// Its key.
    pub key: Bytes,
    /// Its value.
    pub value: Bytes,
}

/// Which end of a range is read first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Ascending keys.
    Forward,
    /// Descending keys.
    Reverse,
}

/// Whether a read takes part in conflict detection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// A change to what was read makes the commit fail.
    Serializable,
    /// A change to what was read goes unnoticed.
    Snapshot,
}

/// The keys from `begin` up to but without `end`, and how to read them. An end at or before its
/// begin is an empty range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeQuery {
    pub(crate) begin: Bytes,
    pub(crate) end: Bytes,
    pub(crate) limit: Option<usize>,
    pub(crate) direction: Direction,
    pub(crate) isolation: Isolation,
    pub(crate) page_bytes: usize,
}

impl RangeQuery {
    /// The keys from `begin` up to but without `end`.
    pub fn new(begin: impl Into<Bytes>, end: impl Into<Bytes>) -> Self {
        Self {
            begin: begin.into(),
            end: end.into(),
            limit: None,
            direction: Direction::Forward,
            isolation: Isolation::Serializable,
            page_bytes: PAGE_BYTES_DEFAULT,
        }
    }

    /// The keys that begin with `prefix`, itself included.
    pub fn prefix(prefix: &[u8]) -> Self {
        Self::new(Bytes::copy_from_slice(prefix), prefix_end(prefix))
    }

    /// At most `rows` rows in all.
    pub fn limit(mut self, rows: usize) -> Self {
        self.limit = Some(rows);
        self
    }

    /// The last key first.
    pub fn reverse(mut self) -> Self {
        self.direction = Direction::Reverse;
        self
    }

    /// Without taking part in conflict detection.
    pub fn snapshot(mut self) -> Self {
        self.isolation = Isolation::Snapshot;
        self
    }

    /// About `bytes` of keys and values a page; a page holds at least one row.
    pub fn page_bytes(mut self, bytes: usize) -> Self {
        self.page_bytes = bytes.max(1);
        self
    }
}

/// What a transaction is about to read.
#[derive(Debug, Default)]
pub struct Prefetch {
    pub(crate) keys: BTreeSet<Vec<u8>>,
    pub(crate) ranges: BTreeMap<Bytes, RangeQuery>,
}

impl Prefetch {
    /// A key that [`Transaction::get`](crate::Transaction::get) will be asked for.
    pub fn key(&mut self, key: Vec<u8>) {
        self.keys.insert(key);
    }

    /// A range that [`Transaction::range`](crate::Transaction::range) will be asked for, in these
    /// words and not as a snapshot. Only what fits one page is kept, and of two ranges that
    /// overlap one.
    pub fn range(&mut self, query: RangeQuery) {
        self.ranges.insert(query.begin.clone(), query);
    }
}

/// The first key after every key that begins with `prefix`.
pub(crate) fn prefix_end(prefix: &[u8]) -> Bytes {
    match prefix.iter().rposition(|byte| *byte != 0xff) {
        Some(last) => {
            let mut end = prefix[..=last].to_vec();
            end[last] += 1;
            end.into()
        }
        None => Bytes::from_static(SYSTEM_KEYS),
    }
}

/// The first key after `key`.
pub(crate) fn successor(key: &[u8]) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.put_slice(key);
    next.put_u8(0);
    next.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_range_ends_right_after_its_last_key() {
        assert_eq!(prefix_end(b"a"), b"b".as_slice());
        assert_eq!(prefix_end(b"a\xff\xff"), b"b".as_slice());
        assert_eq!(prefix_end(b""), b"\xff".as_slice());
        assert_eq!(prefix_end(b"\xff"), b"\xff".as_slice());
        assert_eq!(successor(b"a"), b"a\0".as_slice());
    }
}
