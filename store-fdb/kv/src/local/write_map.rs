//! Read-your-writes: what a transaction has written so far, laid over what it reads.
//!
//! As FoundationDB does: a key whose value the transaction itself determined is read without
//! the store and without a conflict; an atomic operation over a value that is not known yet
//! waits until the key is read; a key or value with an uncommitted versionstamp cannot be read.

use std::{cmp::Ordering, collections::BTreeMap, ops::Bound};

use bytes::Bytes;

use super::range_set::RangeSet;
use crate::{AtomicOp, Direction, Error, KeyValue, Result, range::successor};

#[derive(Default)]
pub(super) struct WriteMap {
    keys: BTreeMap<Bytes, Written>,
    /// Cleared ranges; a key in `keys` was written after its range was cleared.
    cleared: RangeSet,
    /// Where keys with uncommitted versionstamps can be.
    unreadable: RangeSet,
}

/// What a transaction did to a key.
#[derive(Clone)]
enum Written {
    /// Determined by the transaction alone.
    Known(Option<Bytes>),
    /// To be applied to the stored value, in order.
    Pending(Vec<(AtomicOp, Bytes)>),
    /// A versionstamped value.
    Unreadable,
}

/// How a key is to be read.
pub(super) enum Lookup {
    /// This is its value; the store is not asked.
    Known(Option<Bytes>),
    /// The store's value, with these applied (none where the key was not written).
    Stored(Vec<(AtomicOp, Bytes)>),
    /// It cannot be read before the commit.
    Unreadable,
}

/// A stretch of a range with the transaction's own writes in it.
pub(super) struct Merged {
    pub(super) rows: Vec<KeyValue>,
    /// What was read: all of the stretch, or up to the row that met the limit.
    pub(super) begin: Bytes,
    pub(super) end: Bytes,
    pub(super) stopped: Stopped,
}

/// Why a stretch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stopped {
    AtEnd,
    AtLimit,
}

impl WriteMap {
    pub(super) fn set(&mut self, key: &Bytes, value: &Bytes) {
        self.write(key, Written::Known(Some(value.clone())));
    }

    pub(super) fn clear(&mut self, key: &Bytes) {
        self.unreadable.remove(key, &successor(key));
        self.keys.insert(key.clone(), Written::Known(None));
    }

    pub(super) fn clear_range(&mut self, begin: &Bytes, end: &Bytes) {
        if begin >= end {
            return;
        }
        let covered: Vec<Bytes> = self.written_in(begin, end).map(|(key, _)| key.clone()).collect();
        for key in covered {
            self.keys.remove(&key);
        }
        self.unreadable.remove(begin, end);
        self.cleared.insert(begin, end);
    }

    /// Any operation but the versionstamped ones.
    pub(super) fn atomic(&mut self, key: &Bytes, op: AtomicOp, operand: &Bytes) {
        let written = match self.lookup(key) {
            Lookup::Known(value) => Written::Known(op.apply(value.as_ref(), operand)),
            Lookup::Unreadable => Written::Unreadable,
            Lookup::Stored(_) => {
                // In place, so that many operations on one key stay linear.
                if let Some(Written::Pending(pending)) = self.keys.get_mut(key) {
                    pending.push((op, operand.clone()));
                    return;
                }
                Written::Pending(vec![(op, operand.clone())])
            }
        };
        self.write(key, written);
    }

    pub(super) fn versionstamped_value(&mut self, key: &Bytes) {
        self.write(key, Written::Unreadable);
    }

    /// A versionstamped key will lie somewhere from `begin` up to `end`.
    pub(super) fn versionstamped_key(&mut self, begin: &Bytes, end: &Bytes) {
        self.unreadable.insert(begin, end);
    }

    /// A value once unreadable stays so until it is cleared, as in FoundationDB.
    fn write(&mut self, key: &Bytes, written: Written) {
        match self.keys.get_mut(key) {
            Some(Written::Unreadable) => {}
            Some(slot) => *slot = written,
            None => {
                self.keys.insert(key.clone(), written);
            }
        }
    }

    pub(super) fn lookup(&self, key: &[u8]) -> Lookup {
        if self.unreadable.contains(key) {
            return Lookup::Unreadable;
        }
        match self.keys.get(key) {
            Some(Written::Unreadable) => Lookup::Unreadable,
            Some(Written::Known(value)) => Lookup::Known(value.clone()),
            Some(Written::Pending(pending)) => Lookup::Stored(pending.clone()),
            None if self.cleared.contains(key) => Lookup::Known(None),
            None => Lookup::Stored(Vec::new()),
        }
    }

    /// Lays the writes over `stored`, which is everything that is stored from `begin` up to
    /// `end`, in `direction`; stops after `limit` rows.
    ///
    /// # Errors
    /// [`Error::AccessedUnreadable`] where what is read holds an uncommitted versionstamp.
    pub(super) fn merge(
        &self,
        begin: &Bytes,
        end: &Bytes,
        stored: Vec<KeyValue>,
        direction: Direction,
        limit: usize,
    ) -> Result<Merged> {
        let mut own: Box<dyn Iterator<Item = (&Bytes, &Written)>> = match direction {
            Direction::Forward => Box::new(self.written_in(begin, end)),
            Direction::Reverse => Box::new(self.written_in(begin, end).rev()),
        };
        let mut own = std::iter::from_fn(move || own.next()).peekable();
        let mut stored = stored.into_iter().peekable();
        let mut rows = Vec::new();
        let mut stopped = Stopped::AtEnd;
        loop {
            let (row, written) = match (stored.peek(), own.peek()) {
                (None, None) => break,
                _ if rows.len() >= limit => {
                    stopped = Stopped::AtLimit;
                    break;
                }
                (Some(_), None) => (stored.next(), None),
                (None, Some(_)) => (None, own.next()),
                (Some(row), Some((key, _))) => {
                    let order = match direction {
                        Direction::Forward => row.key.cmp(key),
                        Direction::Reverse => row.key.cmp(key).reverse(),
                    };
                    match order {
                        Ordering::Less => (stored.next(), None),
                        Ordering::Equal => (stored.next(), own.next()),
                        Ordering::Greater => (None, own.next()),
                    }
                }
            };
            rows.extend(self.merge_one(row, written)?);
        }
        let (mut begin, mut end) = (begin.clone(), end.clone());
        if let (Stopped::AtLimit, Some(last)) = (stopped, rows.last()) {
            match direction {
                Direction::Forward => end = successor(&last.key),
                Direction::Reverse => begin = last.key.clone(),
            }
        }
        if self.unreadable.overlapping(&begin, &end).next().is_some() {
            return Err(Error::AccessedUnreadable);
        }
        Ok(Merged { rows, begin, end, stopped })
    }

    /// One key's row: as stored, as written, or both.
    fn merge_one(
        &self,
        stored: Option<KeyValue>,
        written: Option<(&Bytes, &Written)>,
    ) -> Result<Option<KeyValue>> {
        let Some((key, written)) = written else {
            return Ok(stored.filter(|row| !self.cleared.contains(&row.key)));
        };
        let value = match written {
            Written::Known(value) => value.clone(),
            Written::Unreadable => return Err(Error::AccessedUnreadable),
            Written::Pending(pending) => apply_all(stored.map(|row| row.value), pending),
        };
        Ok(value.map(|value| KeyValue { key: key.clone(), value }))
    }

    /// The parts of `begin..end` whose content comes from the store: what a read of it conflicts
    /// with.
    pub(super) fn dependent(&self, begin: &Bytes, end: &Bytes) -> Vec<(Bytes, Bytes)> {
        let cleared =
            self.cleared.overlapping(begin, end).map(|(left, right)| (left.clone(), right.clone()));
        let known = self.written_in(begin, end).filter_map(|(key, written)| match written {
            Written::Known(_) | Written::Unreadable => Some((key.clone(), successor(key))),
            Written::Pending(_) => None,
        });
        let mut independent: Vec<(Bytes, Bytes)> = cleared.chain(known).collect();
        independent.sort();
        let mut parts = Vec::new();
        let mut at = begin.clone();
        for (left, right) in independent {
            if at < left {
                parts.push((at.clone(), left));
            }
            at = at.max(right);
        }
        if at < *end {
            parts.push((at, end.clone()));
        }
        parts
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.cleared.is_empty() && self.unreadable.is_empty()
    }

    fn written_in(
        &self,
        begin: &[u8],
        end: &[u8],
    ) -> impl DoubleEndedIterator<Item = (&Bytes, &Written)> {
        let end = end.max(begin);
        self.keys.range::<[u8], _>((Bound::Included(begin), Bound::Excluded(end)))
    }
}

/// The stored value with the pending operations applied.
pub(super) fn apply_all(stored: Option<Bytes>, pending: &[(AtomicOp, Bytes)]) -> Option<Bytes> {
    pending.iter().fold(stored, |value, (op, operand)| op.apply(value.as_ref(), operand))
}
