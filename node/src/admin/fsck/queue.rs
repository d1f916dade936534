//! The outbound queue: each submission has its items, its blob's reference; each item its
//! submission, and its zone a pointer.
//!
//! An item and its submission are read in one transaction. Whether a submission lacks items is
//! known only after all items were read, in many transactions; so what seems to lack some is told
//! only when a second pass finds the same, over a record that has not changed: whoever finishes an
//! item rewrites the record in the same transaction.

use std::collections::{BTreeMap, BTreeSet};

use blob::{BlobId, Owner, references::AdoptError};
use cluster::work::{self, Kind};
use kv::{RangeQuery, Transaction};
use mail::{
    StoreError,
    fsck::{FsckError, Mode, Options, Parts},
};
use prost::Message;

use super::{Cure, Finding, Line, Summary, Teller, step, store};
use crate::{
    deliver::outbound::{
        OutboundItem, SubmissionRecord, submission_key, submission_of, submission_range,
    },
    hex::hex,
    limits::{FSCK_QUEUE_HELD_MAX, FSCK_QUEUE_ROWS, FSCK_SUBMISSIONS_MAX},
};

type Id = [u8; 16];

/// Something wrong with the queue.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Damage {
    Undecodable(&'static str, Vec<u8>),
    /// A submission has other items than its record says.
    Items {
        submission: Id,
        items: u32,
        expected: u32,
    },
    /// An item's submission does not exist.
    NoSubmission {
        zone: String,
        submission: Id,
    },
    /// A zone with items has no pointer, so nobody would come for them.
    NoPointer(String),
    /// The reference that keeps a submission's blob is missing.
    NoReference(Id, BlobId),
}

/// Checks the queue; mends it where the options say so.
pub(super) async fn check(
    parts: &Parts,
    options: Options,
    teller: &Teller<'_>,
    summary: &mut Summary,
) -> Result<(), FsckError> {
    let walk = Walk { parts, options };
    let mut found = walk.find(Some(teller), summary).await?;
    summary.findings += found.count;
    while options.mode == Mode::Repair && !found.repairable.is_empty() {
        let held = std::mem::take(&mut found.repairable);
        let mut mended = 0;
        for damage in &held {
            let finding = damage.finding();
            let line = match walk.mend(damage).await? {
                Ok(()) => {
                    mended += 1;
                    tracing::info!(code = finding.code, detail = finding.detail, "mended");
                    Line::Mended(finding)
                }
                Err(reason) => {
                    tracing::warn!(code = finding.code, reason, "not mended");
                    Line::NotMended { finding, reason }
                }
            };
            teller.tell(line).await?;
        }
        summary.mended += mended;
        found = walk.find(None, summary).await?;
        // What was not held is mended in a further round.
        if mended == 0 || held.len() < FSCK_QUEUE_HELD_MAX {
            break;
        }
    }
    summary.remaining += found.count;
    Ok(())
}

/// Findings: told as they come, counted, and only those held that may be mended.
#[derive(Default)]
struct Found<'a> {
    teller: Option<&'a Teller<'a>>,
    count: u64,
    /// At most [`FSCK_QUEUE_HELD_MAX`].
    repairable: Vec<Damage>,
}

impl Found<'_> {
    async fn add(&mut self, damage: Damage) -> Result<(), FsckError> {
        self.count += 1;
        if let Some(teller) = self.teller {
            teller.tell(Line::Finding(damage.finding())).await?;
        }
        if damage.is_repairable() && self.repairable.len() < FSCK_QUEUE_HELD_MAX {
            self.repairable.push(damage);
        }
        Ok(())
    }
}

/// What one pass saw of submissions whose items are not as many as their records say.
struct Pass {
    /// What the record says, and what was found.
    items: BTreeMap<Id, (u32, u32)>,
    is_whole: bool,
}

/// The items of one zone that were seen: one that was put off while they were read comes twice.
struct Zone {
    name: String,
    seen: BTreeSet<Id>,
}

struct Walk<'a> {
    parts: &'a Parts,
    options: Options,
}

impl Walk<'_> {
    async fn find<'a>(
        &self,
        teller: Option<&'a Teller<'a>>,
        summary: &mut Summary,
    ) -> Result<Found<'a>, FsckError> {
        let mut found = Found { teller, ..Found::default() };
        let first = self.pass(&mut found).await?;
        summary.unchecked += u64::from(!first.is_whole);
        if !first.items.is_empty() {
            // What it finds else has been told.
            let second = self.pass(&mut Found::default()).await?.items;
            for (submission, (expected, items)) in first.items {
                if second.get(&submission) == Some(&(expected, items)) {
                    found.add(Damage::Items { submission, items, expected }).await?;
                }
            }
        }
        Ok(found)
    }

    async fn pass(&self, found: &mut Found<'_>) -> Result<Pass, FsckError> {
        let mut pass = Pass { items: BTreeMap::new(), is_whole: true };
        let (mut from, _) = submission_range();
        loop {
            let begin = &from;
            let (rows, next) =
                step(
                    self.parts,
                    self.options.speed,
                    |tx| async move { submissions(&tx, begin).await },
                )
                .await?;
            for row in rows {
                if let Some(damage) = row.damage {
                    found.add(damage).await?;
                }
                let Some((id, expected)) = row.says else { continue };
                if pass.items.len() < FSCK_SUBMISSIONS_MAX {
                    pass.items.insert(id, (expected, 0));
                } else {
                    pass.is_whole = false;
                }
            }
            match next {
                Some(next) => from = next,
                None => break,
            }
        }
        let (mut from, _) = work::item_range(Kind::Outbound);
        let mut zone: Option<Zone> = None;
        loop {
            let begin = &from;
            let (rows, next) =
                step(self.parts, self.options.speed, |tx| async move { items(&tx, begin).await })
                    .await?;
            for row in rows {
                item(row, &mut zone, &mut pass, found).await?;
            }
            match next {
                Some(next) => from = next,
                None => break,
            }
        }
        pass.items.retain(|_, (expected, items)| expected != items);
        Ok(pass)
    }

    /// Mends one. A zone's pointer follows from its items, a reference from the record.
    async fn mend(&self, damage: &Damage) -> Result<Result<(), String>, FsckError> {
        let now = self.parts.env.wall();
        if let Damage::NoReference(_, blob) = damage
            && let Err(error) = self.parts.blobs.check(*blob).await
        {
            return Ok(Err(error.to_string()));
        }
        let mended = self.parts.db.run(|tx| async move {
            match damage {
                Damage::NoPointer(zone) => {
                    work::restore_pointer(&tx, Kind::Outbound, zone, now).await?;
                }
                Damage::NoReference(id, blob) => {
                    if tx.get(&submission_key(id)).await?.is_none() {
                        return Ok(Ok(()));
                    }
                    match blob::references::restore(&tx, *blob, &Owner::Submission(*id)).await {
                        Ok(()) => {}
                        Err(AdoptError::Kv(error)) => return Err(store(error)),
                        Err(error @ AdoptError::Gone(_)) => return Ok(Err(error.to_string())),
                    }
                }
                Damage::Undecodable(..) | Damage::Items { .. } | Damage::NoSubmission { .. } => {
                    return Ok(Err("it needs a person".to_owned()));
                }
            }
            Ok::<_, StoreError>(Ok(()))
        });
        Ok(mended.await?)
    }
}

/// Counts an item for its submission, and tells what is wrong with it, once.
async fn item(
    row: ItemRow,
    zone: &mut Option<Zone>,
    pass: &mut Pass,
    found: &mut Found<'_>,
) -> Result<(), FsckError> {
    let (mut is_first_of_zone, mut is_first) = (true, true);
    if let Some((name, id)) = row.of {
        is_first_of_zone = zone.as_ref().is_none_or(|zone| zone.name != name);
        if is_first_of_zone {
            *zone = Some(Zone { name, seen: BTreeSet::new() });
        }
        if let Some(zone) = zone
            && zone.seen.len() < FSCK_SUBMISSIONS_MAX
        {
            is_first = zone.seen.insert(id);
            if is_first && let Some((_, items)) = pass.items.get_mut(&id) {
                *items += 1;
            }
        }
    }
    for damage in row.damages {
        let is_told = match damage {
            Damage::NoPointer(_) => !is_first_of_zone,
            Damage::NoSubmission { .. } => !is_first,
            _ => false,
        };
        if !is_told {
            found.add(damage).await?;
        }
    }
    Ok(())
}

struct SubmissionRow {
    damage: Option<Damage>,
    says: Option<(Id, u32)>,
}

async fn read(
    tx: &Transaction,
    from: &[u8],
    end: Vec<u8>,
) -> Result<(Vec<kv::KeyValue>, Option<Vec<u8>>), StoreError> {
    let query = RangeQuery::new(from.to_vec(), end).limit(FSCK_QUEUE_ROWS).snapshot();
    // One page holds about 64 KiB, whatever the rows' size.
    let rows = tx.range(query).next_page().await.map_err(store)?.unwrap_or_default();
    let next = rows.last().map(|row| [&row.key[..], &[0]].concat());
    Ok((rows, next))
}

async fn submissions(
    tx: &Transaction,
    from: &[u8],
) -> Result<(Vec<SubmissionRow>, Option<Vec<u8>>), StoreError> {
    let (rows, next) = read(tx, from, submission_range().1).await?;
    let mut seen = Vec::with_capacity(rows.len());
    for row in rows {
        let decoded = SubmissionRecord::decode(&row.value[..]).ok().and_then(|record| {
            Some((submission_of(&row.key)?, BlobId::from_slice(&record.blob)?, record.domains_left))
        });
        let Some((id, blob, domains_left)) = decoded else {
            let damage = Some(Damage::Undecodable("submission", row.key.to_vec()));
            seen.push(SubmissionRow { damage, says: None });
            continue;
        };
        let is_kept =
            blob::references::exists(tx, blob, &Owner::Submission(id)).await.map_err(store)?;
        let damage = (!is_kept).then_some(Damage::NoReference(id, blob));
        seen.push(SubmissionRow { damage, says: Some((id, domains_left)) });
    }
    Ok((seen, next))
}

struct ItemRow {
    damages: Vec<Damage>,
    of: Option<(String, Id)>,
}

async fn items(
    tx: &Transaction,
    from: &[u8],
) -> Result<(Vec<ItemRow>, Option<Vec<u8>>), StoreError> {
    let (rows, next) = read(tx, from, work::item_range(Kind::Outbound).1).await?;
    let mut seen = Vec::with_capacity(rows.len());
    let mut last_zone = None;
    for row in rows {
        let zone = work::zone_of(&row.key);
        let submission = OutboundItem::decode(&row.value[..])
            .ok()
            .and_then(|item| Id::try_from(&item.submission[..]).ok());
        let (Some(zone), Some(submission)) = (zone, submission) else {
            let damages = vec![Damage::Undecodable("queue item", row.key.to_vec())];
            seen.push(ItemRow { damages, of: None });
            continue;
        };
        let mut damages = Vec::new();
        if last_zone.as_ref() != Some(&zone) {
            if !work::is_tended(tx, Kind::Outbound, &zone).await? {
                damages.push(Damage::NoPointer(zone.clone()));
            }
            last_zone = Some(zone.clone());
        }
        if tx.get_snapshot(&submission_key(&submission)).await?.is_none() {
            damages.push(Damage::NoSubmission { zone: zone.clone(), submission });
        }
        seen.push(ItemRow { damages, of: Some((zone, submission)) });
    }
    Ok((seen, next))
}

impl Damage {
    fn is_repairable(&self) -> bool {
        matches!(self, Self::NoPointer(_) | Self::NoReference(..))
    }

    fn finding(&self) -> Finding {
        let (code, detail) = match self {
            Self::Undecodable(family, key) => {
                ("undecodable", format!("{family} record at {} cannot be decoded", hex(key)))
            }
            Self::Items { submission, items, expected } => (
                "submission_items",
                format!(
                    "submission {} has {items} items, and is to have {expected}",
                    hex(submission)
                ),
            ),
            Self::NoSubmission { zone, submission } => (
                "no_submission",
                format!("an item for {zone} is of {}, which does not exist", hex(submission)),
            ),
            Self::NoPointer(zone) => {
                ("no_pointer", format!("zone {zone} has items, and nothing points to it"))
            }
            Self::NoReference(submission, blob) => (
                "no_reference",
                format!("submission {} does not keep its blob {blob}", hex(submission)),
            ),
        };
        let remedy = if self.is_repairable() { Cure::Repair } else { Cure::Person };
        Finding { code: code.to_owned(), account: None, detail, remedy }
    }
}

#[cfg(test)]
mod tests;
