//! What every engine checks before it accepts an operation, and how sizes are counted.

use bytes::Bytes;

use crate::{
    Counts, Error, Result,
    limits::{
        CONFLICT_RANGE_OVERHEAD_BYTES, KEY_BYTES_MAX, MUTATION_OVERHEAD_BYTES, SYSTEM_KEYS,
        VALUE_BYTES_MAX,
    },
};

/// Whether a key that is read or cleared can hold anything at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reachable {
    Yes,
    /// It is longer than any key that can be set.
    No,
}

pub(crate) fn readable_key(key: &[u8]) -> Result<Reachable> {
    if key >= SYSTEM_KEYS {
        return Err(Error::KeyOutsideLegalRange);
    }
    Ok(if key.len() > KEY_BYTES_MAX { Reachable::No } else { Reachable::Yes })
}

pub(crate) fn writable_key(key: &[u8]) -> Result<()> {
    match readable_key(key)? {
        Reachable::Yes => Ok(()),
        Reachable::No => Err(Error::KeyTooLarge { bytes: key.len() }),
    }
}

pub(crate) fn value(value: &[u8]) -> Result<()> {
    if value.len() > VALUE_BYTES_MAX {
        return Err(Error::ValueTooLarge { bytes: value.len() });
    }
    Ok(())
}

/// A range's ends, cut to where they separate the same legal keys.
pub(crate) fn range(begin: &[u8], end: &[u8]) -> Result<(Bytes, Bytes)> {
    if begin > SYSTEM_KEYS || end > SYSTEM_KEYS {
        return Err(Error::KeyOutsideLegalRange);
    }
    if begin > end {
        return Err(Error::InvertedRange);
    }
    let cut = |key: &[u8]| Bytes::copy_from_slice(&key[..key.len().min(KEY_BYTES_MAX + 1)]);
    Ok((cut(begin), cut(end)))
}

/// What a transaction has accumulated against
/// [`TRANSACTION_BYTES_MAX`](crate::limits::TRANSACTION_BYTES_MAX), and what it will have done
/// once it commits.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) bytes: usize,
    pub(crate) counts: Counts,
}

impl Tally {
    /// A key set, or changed by an atomic operation.
    pub(crate) fn set(&mut self, key: &[u8], value: &[u8]) {
        let written = key.len() + value.len();
        self.counts.keys_written += 1;
        self.counts.bytes_written += written as u64;
        self.bytes += written + MUTATION_OVERHEAD_BYTES;
        self.conflict_key(key);
    }

    pub(crate) fn clear(&mut self, key: &[u8]) {
        self.counts.keys_cleared += 1;
        self.bytes += 2 * key.len() + 1 + MUTATION_OVERHEAD_BYTES;
        self.conflict_key(key);
    }

    pub(crate) fn clear_range(&mut self, begin: &[u8], end: &[u8]) {
        self.counts.ranges_cleared += 1;
        self.bytes += begin.len() + end.len() + MUTATION_OVERHEAD_BYTES;
        self.conflict_range(begin, end);
    }

    /// A key read or written: as a range, its own length and that of its successor.
    pub(crate) fn conflict_key(&mut self, key: &[u8]) {
        self.bytes += 2 * key.len() + 1 + CONFLICT_RANGE_OVERHEAD_BYTES;
    }

    pub(crate) fn conflict_range(&mut self, begin: &[u8], end: &[u8]) {
        self.bytes += begin.len() + end.len() + CONFLICT_RANGE_OVERHEAD_BYTES;
    }
}
