//! Everything that is stored, against everything that is referenced.
//!
//! | key | value | lifecycle |
//! |---|---|---|
//! | (Meta, "blob scan") | [`ScanRecord`] | written with every page; a restart, or another node, goes on there |

use std::time::Duration;

use bytes::Bytes;
use env::Timestamp;
use kv::{Database, Subspace, Transaction, tuple::pack};
use prost::Message;

use super::{Progress, Share, SweepError, Sweeper, Swept};
use crate::{
    BlobError, BlobName, ListCursor, binding,
    limits::{GRACE_MS, SWEEP_LIST, SWEEP_PAGE, SWEEP_REFERENCES},
    references,
    store::to_u64,
};

/// How far the scan has come.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct ScanRecord {
    /// Where the next page begins; absent where no scan is under way or none of it is done.
    #[prost(bytes = "vec", optional, tag = "1")]
    cursor: Option<Vec<u8>>,
    /// Whether a scan is under way.
    #[prost(bool, tag = "2")]
    under_way: bool,
    /// When the last one ended, in milliseconds since 1970.
    #[prost(int64, tag = "3")]
    ended_ms: i64,
    /// Of the one under way: blobs that were old enough to be judged.
    #[prost(uint64, tag = "4")]
    judged: u64,
    /// Of the one under way: those that nobody seemed to need.
    #[prost(uint64, tag = "5")]
    orphans: u64,
}

impl ScanRecord {
    fn ended(now: Timestamp) -> Self {
        Self { ended_ms: now.unix_ms(), ..Self::default() }
    }
}

impl Sweeper {
    /// Looks at up to `pages` pages of a scan, where one is under way or it is time.
    pub(super) async fn scan(
        &self,
        now: Timestamp,
        pages: usize,
        swept: &mut Swept,
    ) -> Result<Progress, SweepError> {
        let mut is_ours = false;
        for _ in 0..pages {
            let record = self.db.run(|tx| async move { read(&tx).await }).await?;
            if !record.under_way && rests(&record, now, self.settings.scan_interval) {
                return Ok(Progress::Done);
            }
            if !is_ours {
                self.verify_binding().await?;
                is_ours = true;
            }
            if !record.under_way {
                let before = Timestamp::from_unix_ms(now.unix_ms().saturating_sub(GRACE_MS));
                let uploads = self.blobs.abort_uploads(before);
                swept.uploads += self.call("abort uploads", uploads).await?;
            }
            let next = self.scan_page(&record, now, swept).await?;
            let (record, next) = (&record, &next);
            self.db.run(|tx| async move { advance(&tx, record, next).await }).await?;
            if !next.under_way {
                swept.scans += 1;
                return Ok(Progress::Done);
            }
        }
        Ok(Progress::More)
    }

    async fn verify_binding(&self) -> Result<(), SweepError> {
        let patience = self.settings.call_time_max;
        match self.env.timeout(patience, binding::verify(&self.db, &self.blobs)).await {
            Ok(verified) => Ok(verified?),
            Err(elapsed) => {
                let operation = "look for the bucket's mark";
                Err(BlobError::Unavailable { operation, reason: elapsed.to_string() }.into())
            }
        }
    }

    /// Looks at one page, and marks what nobody needs of it; tells how far the scan is then.
    async fn scan_page(
        &self,
        record: &ScanRecord,
        now: Timestamp,
        swept: &mut Swept,
    ) -> Result<ScanRecord, SweepError> {
        let after = record.cursor.clone().map(|it| ListCursor::from_bytes(Bytes::from(it)));
        let page = self.call("list", self.blobs.list(after.as_ref(), SWEEP_LIST)).await?;
        swept.scanned += to_u64(page.names.len());
        let old: Vec<BlobName> = page.names.into_iter().filter(|name| is_old(name, now)).collect();
        let orphans = find_orphans(&self.db, &old, now).await?;
        let share = Share {
            judged: record.judged.saturating_add(to_u64(old.len())),
            orphans: record.orphans.saturating_add(to_u64(orphans.len())),
        };
        if share.is_implausible() {
            let end = &ScanRecord::ended(now);
            self.db.run(|tx| async move { advance(&tx, record, end).await }).await?;
            return Err(SweepError::Implausible(share));
        }
        let marked = mark_orphans(&self.db, &orphans, now).await?;
        swept.marked += marked;
        swept.orphans += marked;
        Ok(match page.next {
            Some(next) => ScanRecord {
                cursor: Some(next.as_bytes().to_vec()),
                under_way: true,
                ended_ms: record.ended_ms,
                judged: share.judged,
                orphans: share.orphans,
            },
            None => ScanRecord::ended(now),
        })
    }
}

fn scan_key() -> Vec<u8> {
    pack(&(Subspace::Meta as u64, "blob scan"))
}

/// An unreadable record is none: a scan from the beginning harms nothing.
async fn read(tx: &Transaction) -> Result<ScanRecord, kv::Error> {
    let value = tx.get(&scan_key()).await?;
    Ok(value.and_then(|value| ScanRecord::decode(value).ok()).unwrap_or_default())
}

/// Unless another sweeper has come further.
async fn advance(tx: &Transaction, from: &ScanRecord, to: &ScanRecord) -> Result<(), kv::Error> {
    if read(tx).await? == *from {
        tx.set(&scan_key(), &to.encode_to_vec());
    }
    Ok(())
}

/// A scan that ended in the future ended under another clock; it counts like one in the past.
fn rests(record: &ScanRecord, now: Timestamp, interval: Duration) -> bool {
    let since = u128::from(now.unix_ms().abs_diff(record.ended_ms));
    record.ended_ms != 0 && since < interval.as_millis()
}

/// Blobs of schema 0 do not tell; nothing puts them any more.
fn is_old(name: &BlobName, now: Timestamp) -> bool {
    name.put_at().is_none_or(|put_at| now.unix_ms().saturating_sub(put_at.unix_ms()) > GRACE_MS)
}

/// Those of the ascending `names` that nothing needs and that are not marked yet.
async fn find_orphans(
    db: &Database,
    names: &[BlobName],
    now: Timestamp,
) -> Result<Vec<BlobName>, kv::Error> {
    let mut orphans = Vec::new();
    for names in unreferenced(db, names).await?.chunks(SWEEP_PAGE) {
        let found = db.run(|tx| async move {
            let mut found = Vec::new();
            for name in names {
                let is_marked = tx.get(&references::dying_key(name)).await?.is_some();
                if !is_marked && is_orphan(&tx, name, now).await? {
                    found.push(*name);
                }
            }
            Ok::<_, kv::Error>(found)
        });
        orphans.extend(found.await?);
    }
    Ok(orphans)
}

/// Marks those of `names` that nothing needs; tells how many.
pub(crate) async fn mark_orphans(
    db: &Database,
    names: &[BlobName],
    now: Timestamp,
) -> Result<u64, kv::Error> {
    let mut orphans = 0;
    for names in names.chunks(SWEEP_PAGE) {
        orphans += db
            .run(|tx| async move {
                let mut marked = 0;
                for name in names {
                    if is_orphan(&tx, name, now).await?
                        && references::mark_dying(&tx, name, now).await?
                    {
                        env::sometimes!("a scan found a blob that nobody ever needed");
                        marked += 1;
                    }
                }
                Ok::<u64, kv::Error>(marked)
            })
            .await?;
    }
    Ok(orphans)
}

/// Whether nothing needs it and no due entry will see to it. An entry that should have been looked
/// at a grace time ago was lost.
pub(crate) async fn is_orphan(
    tx: &Transaction,
    name: &BlobName,
    now: Timestamp,
) -> Result<bool, kv::Error> {
    let newest = tx.get(&references::newest_due_key(name)).await?;
    let newest = newest.map(|newest| references::time_of(&newest));
    let awaited = newest.is_some_and(|due| due.saturating_add(GRACE_MS) > now.unix_ms());
    Ok(!awaited && !references::any(tx, name).await?)
}

/// Those of the ascending `names` that have no reference, by reads without conflict.
async fn unreferenced(db: &Database, names: &[BlobName]) -> Result<Vec<BlobName>, kv::Error> {
    let (Some(first), Some(last)) = (names.first(), names.last()) else { return Ok(Vec::new()) };
    let mut left = Vec::new();
    let mut names = names.iter().peekable();
    let mut after = None;
    loop {
        let begin = after.as_ref();
        let (referenced, next) = db
            .run(|tx| async move {
                references::referenced(&tx, first, begin, last, SWEEP_REFERENCES).await
            })
            .await?;
        for needed in referenced {
            while let Some(name) = names.next_if(|name| **name < needed) {
                left.push(*name);
            }
            names.next_if(|name| **name == needed);
        }
        match next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    left.extend(names);
    Ok(left)
}
