//! Checks P5 on a store in use: no reference points to nothing, and nothing is kept that nobody
//! needs.
//!
//! References and stored names are both read in the order of their bytes, a page at a time, and
//! merged. What looks wrong is looked at again, so that a put or a sweeper at work is no finding:
//! the bytes first and then the reference, because bytes never come back under the same name.
//!
//! Deliberately absent: whether an owner exists. Whoever knows owners reads
//! [`references::page`].

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use env::{Env, Timestamp};
use kv::Database;

use crate::{
    BlobError, BlobId, BlobName, BlobStore, ListCursor, Owner,
    limits::{AUDIT_VERIFY, GRACE_MS, SWEEP_LIST, SWEEP_REFERENCES},
    references::{self, ReferenceCursor},
    store::to_u64,
    sweep::{Share, is_orphan, mark_orphans},
};

/// How closely to look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Depth {
    /// Whether the bytes are there.
    #[default]
    Names,
    /// Also whether they are right: reads everything.
    Bytes,
}

/// Something wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A reference points to nothing.
    MissingBlob {
        /// What is needed.
        id: BlobId,
        /// By whom.
        owner: Owner,
    },
    /// A reference points to bytes that are not the blob's.
    Damaged {
        /// What is needed.
        id: BlobId,
    },
    /// Nobody needs it, and a sweeper should have found it by now.
    Orphan {
        /// What is kept.
        name: BlobName,
        /// Since when, by the clock of the node that put it.
        put_at: Option<Timestamp>,
    },
    /// A reference that no release knows.
    UnreadableReference {
        /// Its key.
        key: Bytes,
    },
}

/// How far an audit has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AuditProgress {
    /// References looked at.
    pub references: u64,
    /// Stored names looked at.
    pub names: u64,
    /// Blobs read.
    pub verified: u64,
}

/// One step's outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditStep {
    /// How far the audit has come, this step included.
    pub progress: AuditProgress,
    /// What this step found.
    pub findings: Vec<Finding>,
}

/// Why a step failed. It may be tried again.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The store failed.
    #[error(transparent)]
    Kv(#[from] kv::Error),
    /// The blob store failed.
    #[error(transparent)]
    Blob(#[from] BlobError),
}

/// Rows of one side that wait for the other's.
struct Side<T, C> {
    rows: VecDeque<T>,
    after: Option<C>,
    ended: bool,
}

impl<T, C> Default for Side<T, C> {
    fn default() -> Self {
        Self { rows: VecDeque::new(), after: None, ended: false }
    }
}

/// An audit under way. Memory: a page of each side.
pub struct Audit {
    env: Env,
    db: Database,
    blobs: BlobStore,
    depth: Depth,
    scan_interval_ms: i64,
    references: Side<(BlobId, Owner), ReferenceCursor>,
    names: Side<BlobName, ListCursor>,
    verify: VecDeque<BlobId>,
    /// The last that was queued: its references may go on.
    queued: Option<BlobId>,
    /// Kept here until a step succeeds, so that one that fails loses none.
    findings: Vec<Finding>,
    suspects: Suspects,
    share: Share,
    progress: AuditProgress,
}

/// What looked wrong and is to be looked at again.
#[derive(Default)]
struct Suspects {
    missing: VecDeque<(BlobId, Owner)>,
    orphans: VecDeque<BlobName>,
    unreadable: VecDeque<Bytes>,
}

impl Audit {
    /// An audit of all references and all bytes. What sweepers that scan every `scan_interval`
    /// had no time to find is no finding.
    pub fn new(
        env: Env,
        db: Database,
        blobs: BlobStore,
        depth: Depth,
        scan_interval: std::time::Duration,
    ) -> Self {
        Self {
            env,
            db,
            blobs,
            depth,
            scan_interval_ms: i64::try_from(scan_interval.as_millis()).unwrap_or(i64::MAX),
            references: Side::default(),
            names: Side::default(),
            verify: VecDeque::new(),
            queued: None,
            findings: Vec::new(),
            suspects: Suspects::default(),
            share: Share::default(),
            progress: AuditProgress::default(),
        }
    }

    /// Goes on; `None` at the end. A step is one page of each side, or some blobs read.
    ///
    /// # Errors
    /// [`AuditError`]; the next call tries the same again.
    pub async fn next_step(&mut self) -> Result<Option<AuditStep>, AuditError> {
        if self.verify.is_empty() && self.suspects.is_empty() {
            if self.is_at_end() {
                return Ok(None);
            }
            self.fill().await?;
            self.merge();
        }
        self.look_again().await?;
        self.read_some().await?;
        let findings = std::mem::take(&mut self.findings);
        Ok(Some(AuditStep { progress: self.progress, findings }))
    }

    /// How much of what is old enough to be judged seems to be needed by nobody, as far as the
    /// audit has come.
    pub fn share(&self) -> Share {
        self.share
    }

    fn is_at_end(&self) -> bool {
        self.references.ended
            && self.names.ended
            && self.references.rows.is_empty()
            && self.names.rows.is_empty()
    }

    /// A page of each side that has run out.
    async fn fill(&mut self) -> Result<(), AuditError> {
        if self.references.rows.is_empty() && !self.references.ended {
            let after = self.references.after.as_ref();
            let page = self
                .db
                .run(|tx| async move { references::page(&tx, after, SWEEP_REFERENCES).await })
                .await?;
            self.progress.references += to_u64(page.found.len() + page.unreadable.len());
            self.suspects.unreadable.extend(page.unreadable);
            self.references.rows.extend(page.found);
            self.references.ended = page.next.is_none();
            self.references.after = page.next;
        }
        if self.names.rows.is_empty() && !self.names.ended {
            let page = self.blobs.list(self.names.after.as_ref(), SWEEP_LIST).await?;
            self.progress.names += to_u64(page.names.len());
            self.names.rows.extend(page.names);
            self.names.ended = page.next.is_none();
            self.names.after = page.next;
        }
        Ok(())
    }

    /// Takes off both sides what can be told apart until one of them runs out.
    fn merge(&mut self) {
        let now = self.env.wall();
        loop {
            let name = self.names.rows.front();
            let needed = self.references.rows.front().map(|(id, _)| BlobName::of(id));
            match (name, needed) {
                (Some(name), Some(needed)) if *name == needed => {
                    while let Some((id, _)) =
                        self.references.rows.pop_front_if(|(id, _)| BlobName::of(id) == needed)
                    {
                        if self.depth == Depth::Bytes && self.queued != Some(id) {
                            self.queued = Some(id);
                            self.verify.push_back(id);
                        }
                    }
                    // Its further references may be on the next page.
                    if self.references.rows.is_empty() && !self.references.ended {
                        return;
                    }
                    self.share.judged += u64::from(self.is_overdue(&needed, now));
                    self.names.rows.pop_front();
                }
                (Some(name), Some(needed)) if *name > needed => {
                    self.suspects.missing.extend(self.references.rows.pop_front());
                }
                (None, Some(_)) if self.names.ended => {
                    self.suspects.missing.extend(self.references.rows.pop_front());
                }
                (Some(_), Some(_)) => self.suspects.orphans.extend(self.names.rows.pop_front()),
                (Some(_), None) if self.references.ended => {
                    self.suspects.orphans.extend(self.names.rows.pop_front());
                }
                (None | Some(_), None) | (None, Some(_)) => return,
            }
        }
    }

    async fn look_again(&mut self) -> Result<(), AuditError> {
        let keys = self.suspects.unreadable.drain(..);
        self.findings.extend(keys.map(|key| Finding::UnreadableReference { key }));
        let mut there = BTreeSet::new();
        while let Some((id, owner)) = self.suspects.missing.front().copied() {
            let name = BlobName::of(&id);
            if there.contains(&name) || self.blobs.exists(&name).await? {
                there.insert(name);
            } else {
                let owner = &owner;
                let stands = self
                    .db
                    .run(|tx| async move { references::exists(&tx, id, owner).await })
                    .await?;
                if stands {
                    self.findings.push(Finding::MissingBlob { id, owner: *owner });
                }
            }
            self.suspects.missing.pop_front();
        }
        let now = self.env.wall();
        while let Some(name) = self.suspects.orphans.front().copied() {
            let is_overdue = self.is_overdue(&name, now);
            let is_orphan = is_overdue && self.stands_alone(&name, now).await?;
            self.share += Share { judged: u64::from(is_overdue), orphans: u64::from(is_orphan) };
            if is_orphan {
                self.findings.push(Finding::Orphan { name, put_at: name.put_at() });
            }
            self.suspects.orphans.pop_front();
        }
        Ok(())
    }

    fn is_overdue(&self, name: &BlobName, now: Timestamp) -> bool {
        let allowed = GRACE_MS.saturating_add(self.scan_interval_ms);
        let age = |put_at: Timestamp| now.unix_ms().saturating_sub(put_at.unix_ms());
        name.put_at().is_none_or(|put_at| age(put_at) > allowed)
    }

    async fn stands_alone(&self, name: &BlobName, now: Timestamp) -> Result<bool, AuditError> {
        let alone = self
            .db
            .run(|tx| async move {
                let marked = tx.get(&references::dying_key(name)).await?.is_some();
                Ok::<_, kv::Error>(!marked && is_orphan(&tx, name, now).await?)
            })
            .await?;
        Ok(alone && self.blobs.exists(name).await?)
    }

    async fn read_some(&mut self) -> Result<(), AuditError> {
        for _ in 0..AUDIT_VERIFY {
            let Some(id) = self.verify.front().copied() else { return Ok(()) };
            match self.blobs.verify(id).await {
                // Missing: let go and swept since, or the next audit's finding.
                Ok(_) | Err(BlobError::Missing(_)) => {}
                Err(BlobError::Damaged(_)) => self.findings.push(Finding::Damaged { id }),
                Err(error) => return Err(error.into()),
            }
            self.progress.verified += 1;
            self.verify.pop_front();
        }
        Ok(())
    }
}

impl Suspects {
    fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.orphans.is_empty() && self.unreadable.is_empty()
    }
}

/// Marks an orphan as dying, where it still is one; a sweeper removes it. Tells whether it did.
/// To be called where [`crate::binding::verify`] has just succeeded and [`Audit::share`] is
/// plausible at the audit's end.
///
/// # Errors
/// [`kv::Error`].
pub async fn repair_orphan(
    db: &Database,
    name: BlobName,
    now: Timestamp,
) -> Result<bool, kv::Error> {
    Ok(mark_orphans(db, &[name], now).await? == 1)
}

#[cfg(test)]
mod tests;
