//! The commit sequencer: from a batch of waiting transactions to one set of changes.
//!
//! Transactions are taken in order: each is checked against everything accepted before it, the
//! same batch included, and its mutations are applied on top of theirs. All share one version.

use std::{collections::BTreeMap, ops::Bound};

use bytes::Bytes;

use super::{
    resolver::{Resolver, Span},
    store::{CommitRequest, Mutation},
};
use crate::{
    AtomicOp, Error, Result, Versionstamp,
    atomic::stamped,
    limits::{KEY_BYTES_MAX, SYSTEM_KEYS, TRANSACTION_LIFE_VERSIONS, VALUE_BYTES_MAX},
};

/// The newest committed data, below the batch.
pub(crate) trait Base {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>>;
    /// The keys from `begin` up to `end`.
    fn keys(&self, begin: &[u8], end: &[u8]) -> Result<Vec<Bytes>>;
}

/// Keys to their new values; `None` removes the key.
pub(crate) type Changes = BTreeMap<Bytes, Option<Bytes>>;

/// What became of a batch.
pub(crate) struct Outcome {
    /// In the order of the requests.
    pub(crate) results: Vec<Result<Versionstamp>>,
    pub(crate) changes: Changes,
}

#[derive(Default)]
pub(crate) struct Sequencer {
    resolver: Resolver,
}

impl Sequencer {
    /// Resolves a batch of at most 65,536 requests at `version`, which is above every earlier
    /// batch's.
    ///
    /// # Errors
    /// Where `base` cannot be read: nothing of the batch may be written then.
    pub(crate) fn resolve<'a>(
        &mut self,
        version: u64,
        requests: impl Iterator<Item = &'a CommitRequest>,
        base: &dyn Base,
    ) -> Result<Outcome> {
        self.resolver.expire(version);
        let mut batch = Batch { base, changes: Changes::new() };
        let mut results = Vec::new();
        let mut number = 0_u16;
        for request in requests {
            let stamp = Versionstamp::new(version, number);
            let checked = self.check(version, request).and_then(|()| stamp_all(request, &stamp));
            results.push(match checked {
                Ok(mutations) => {
                    for mutation in mutations {
                        self.resolver.record(&mutation.span(), version);
                        batch.apply(mutation)?;
                    }
                    for span in &request.writes {
                        self.resolver.record(span, version);
                    }
                    number = number.saturating_add(1);
                    Ok(stamp)
                }
                Err(refused) => Err(refused),
            });
        }
        Ok(Outcome { results, changes: batch.changes })
    }

    fn check(&self, version: u64, request: &CommitRequest) -> Result<()> {
        let read_version = request.read_version;
        if request.reads.is_empty() {
            return Ok(());
        }
        if version.saturating_sub(read_version) > TRANSACTION_LIFE_VERSIONS {
            return Err(Error::TooOld);
        }
        if request.reads.iter().any(|span| self.resolver.conflicts(span, read_version)) {
            return Err(Error::Conflict);
        }
        Ok(())
    }
}

/// A mutation whose stamp has been filled in.
enum Stamped<'a> {
    Plain(&'a Mutation),
    Set(Bytes, Bytes),
}

impl Stamped<'_> {
    fn span(&self) -> Span {
        match self {
            Self::Plain(Mutation::ClearRange(begin, end)) => {
                Span::Range(begin.clone(), end.clone())
            }
            Self::Plain(
                Mutation::Set(key, _) | Mutation::Clear(key) | Mutation::Atomic(_, key, _),
            )
            | Self::Set(key, _) => Span::Point(key.clone()),
        }
    }
}

/// Before anything of the request is applied, so that a bad one is refused as a whole.
fn stamp_all<'a>(request: &'a CommitRequest, stamp: &Versionstamp) -> Result<Vec<Stamped<'a>>> {
    let stamp_one = |mutation: &'a Mutation| match mutation {
        Mutation::Atomic(AtomicOp::SetVersionstampedKey, template, value) => {
            let key = stamped(template, stamp)?;
            if key.as_ref() >= SYSTEM_KEYS {
                return Err(Error::KeyOutsideLegalRange);
            }
            if key.len() > KEY_BYTES_MAX {
                return Err(Error::KeyTooLarge { bytes: key.len() });
            }
            Ok(Stamped::Set(key, value.clone()))
        }
        Mutation::Atomic(AtomicOp::SetVersionstampedValue, key, template) => {
            Ok(Stamped::Set(key.clone(), stamped(template, stamp)?))
        }
        plain => Ok(Stamped::Plain(plain)),
    };
    request.mutations.iter().map(stamp_one).collect()
}

struct Batch<'a> {
    base: &'a dyn Base,
    changes: Changes,
}

impl Batch<'_> {
    fn apply(&mut self, mutation: Stamped<'_>) -> Result<()> {
        match mutation {
            Stamped::Set(key, value) => {
                self.changes.insert(key, Some(value));
            }
            Stamped::Plain(Mutation::Set(key, value)) => {
                self.changes.insert(key.clone(), Some(value.clone()));
            }
            Stamped::Plain(Mutation::Clear(key)) => {
                self.changes.insert(key.clone(), None);
            }
            Stamped::Plain(Mutation::ClearRange(begin, end)) => {
                if begin < end {
                    for (_, value) in self
                        .changes
                        .range_mut::<Bytes, _>((Bound::Included(begin), Bound::Excluded(end)))
                    {
                        *value = None;
                    }
                    for key in self.base.keys(begin, end)? {
                        self.changes.insert(key, None);
                    }
                }
            }
            Stamped::Plain(Mutation::Atomic(op, key, operand)) => {
                let existing = match self.changes.get(key) {
                    Some(changed) => changed.clone(),
                    None => self.base.get(key)?,
                };
                let value = op.apply(existing.as_ref(), operand);
                debug_assert!(value.as_ref().is_none_or(|bytes| bytes.len() <= VALUE_BYTES_MAX));
                self.changes.insert(key.clone(), value);
            }
        }
        Ok(())
    }
}
