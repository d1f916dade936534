//! What there is to do: for each kind its zones, what is due, who has claimed what, what fails.

use std::collections::BTreeMap;

use cluster::{
    Epoch, Slice,
    membership::{registry, roll},
    work::{self, Kind, census, zone::ZoneState},
};
use env::Timestamp;
use kv::{Database, Transaction};
use mail::StoreError;
use serde::{Deserialize, Serialize};

use super::{Admin, AdminError, Page, PageQuery};
use crate::{
    hex::{hex, unhex},
    limits::{WORK_COUNT_MAX, WORK_GLANCE_MAX, WORK_WORST_MAX, WORK_ZONES_PER_PAGE},
};

/// A count that may not have been finished.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// How many were seen.
    pub count: u64,
    /// Whether there may be more.
    pub at_least: bool,
}

impl std::fmt::Display for Counted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sign = if self.at_least { ">=" } else { "" };
        f.pad(&format!("{sign}{}", self.count))
    }
}

/// How far behind a kind of work is, at one glance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkLag {
    /// Which kind.
    pub kind: String,
    /// Zones that are due and wait.
    pub due: Counted,
    /// For how long the first of them has waited.
    pub lag_ms: u64,
    /// Zones that a node works on.
    pub claimed: Counted,
    /// Items that have failed and are to be tried again.
    pub failing: Counted,
}

/// A node's share of a kind of work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimedBy {
    /// The node; `None` where nobody knows the epoch.
    pub node: Option<String>,
    /// Its epoch.
    pub epoch: u64,
    /// Zones that it works on.
    pub zones: u64,
}

/// An item that has failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailingItem {
    /// Its zone.
    pub zone: String,
    /// Its id in the zone, in hexadecimal digits.
    pub id: String,
    /// How often.
    pub count: u32,
    /// When the last time was, milliseconds since 1970.
    pub last_ms: i64,
    /// Why, the last time.
    pub reason: String,
}

/// A kind of work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkInfo {
    /// Which.
    pub kind: String,
    /// Zones that have something to do, now or later.
    pub zones: Counted,
    /// Who works on how many of them.
    pub claimed: Vec<ClaimedBy>,
    /// Whether there may be more claims than these.
    pub claimed_at_least: bool,
    /// Zones that are due and wait.
    pub due: Counted,
    /// When the first of them came due, milliseconds since 1970.
    pub oldest_due_ms: Option<i64>,
    /// Items, due or not.
    pub items: Counted,
    /// Items that have failed and are to be tried again.
    pub failing: Counted,
    /// Those of them that failed most often.
    pub worst: Vec<FailingItem>,
}

/// A zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneInfo {
    /// Its name.
    pub zone: String,
    /// When it is due, or came due before it was claimed, milliseconds since 1970; `None` where
    /// its record cannot be read.
    pub due_ms: Option<i64>,
    /// The epoch that works on it.
    pub epoch: Option<u64>,
    /// That epoch's node.
    pub node: Option<String>,
    /// Its items, due or not.
    pub items: Counted,
    /// Items of it that have failed.
    pub failing: Counted,
}

/// An item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemInfo {
    /// Its id in the zone, in hexadecimal digits.
    pub id: String,
    /// When it is due, milliseconds since 1970.
    pub due_ms: i64,
    /// How often it has failed.
    pub failures: u32,
    /// When it failed last.
    pub last_failed_ms: Option<i64>,
    /// Why it failed last.
    pub reason: Option<String>,
}

/// How far behind each kind of work is.
///
/// # Errors
/// [`AdminError::Unavailable`].
pub async fn lags(admin: &Admin) -> Result<Vec<WorkLag>, AdminError> {
    let claims = Claims::count(&admin.db, WORK_GLANCE_MAX).await?;
    let mut lags = Vec::new();
    for kind in Kind::ALL {
        let now = admin.env.wall();
        let (due, oldest) = due(&admin.db, kind, now, WORK_GLANCE_MAX).await?;
        let late = oldest.map_or(0, |oldest| now.unix_ms().saturating_sub(oldest));
        lags.push(WorkLag {
            kind: kind.as_str().to_owned(),
            due,
            lag_ms: u64::try_from(late).unwrap_or(0),
            claimed: claims.of(kind),
            failing: failing(&admin.db, kind, None, WORK_GLANCE_MAX, |_| {}).await?,
        });
    }
    Ok(lags)
}

/// Each kind of work.
///
/// # Errors
/// [`AdminError::Unavailable`].
pub async fn kinds(admin: &Admin) -> Result<Vec<WorkInfo>, AdminError> {
    let db = &admin.db;
    let nodes = node_names(db).await?;
    let claims = Claims::count(db, WORK_COUNT_MAX).await?;
    let mut kinds = Vec::new();
    for kind in Kind::ALL {
        let (due, oldest_due_ms) = due(db, kind, admin.env.wall(), WORK_COUNT_MAX).await?;
        let zones = count(
            WORK_COUNT_MAX,
            |from| async move {
                let from = from.as_deref();
                db.run(|tx| async move { census::zones(&tx, kind, from).await }).await
            },
            |_| {},
        );
        let zones = zones.await?;
        let mut worst = Vec::new();
        let failing = failing(db, kind, None, WORK_COUNT_MAX, |row| {
            worst.push(row);
            worst.sort_by_key(|it: &FailingItem| std::cmp::Reverse((it.count, it.last_ms)));
            worst.truncate(WORK_WORST_MAX);
        });
        let failing = failing.await?;
        let claimed = claims.by.iter().filter(|((of, _), _)| *of == kind as u64);
        let claimed = claimed.map(|((_, epoch), zones)| ClaimedBy {
            node: nodes.get(epoch).cloned(),
            epoch: epoch.0,
            zones: *zones,
        });
        kinds.push(WorkInfo {
            kind: kind.as_str().to_owned(),
            zones,
            claimed: claimed.collect(),
            claimed_at_least: claims.at_least,
            due,
            oldest_due_ms,
            items: item_count(db, kind, None, WORK_COUNT_MAX).await?,
            failing,
            worst,
        });
    }
    Ok(kinds)
}

/// One page of a kind's zones, by name; at most [`WORK_ZONES_PER_PAGE`].
///
/// # Errors
/// [`AdminError::NoKind`].
pub async fn zones(
    admin: &Admin,
    kind: &str,
    query: &PageQuery,
) -> Result<Page<ZoneInfo>, AdminError> {
    let (kind, db) = (parse(kind)?, &admin.db);
    let from = query.after.as_deref().map(|after| census::behind_zone(kind, after));
    let from = from.as_deref();
    let nodes = node_names(db).await?;
    let rows = query.rows().min(WORK_ZONES_PER_PAGE);
    let mut found = db.run(|tx| async move { census::zones(&tx, kind, from).await }).await?.rows;
    found.truncate(rows);
    let mut items = Vec::new();
    for (zone, state) in found {
        let (due_ms, by) = match state {
            Some(ZoneState::Waiting { due_ms }) => (Some(due_ms), None),
            Some(ZoneState::Claimed { due_ms, by }) => (Some(due_ms), Some(by)),
            None => (None, None),
        };
        items.push(ZoneInfo {
            due_ms,
            epoch: by.map(|by| by.0),
            node: by.and_then(|by| nodes.get(&by).cloned()),
            items: item_count(db, kind, Some(&zone), WORK_GLANCE_MAX).await?,
            failing: failing(db, kind, Some(&zone), WORK_GLANCE_MAX, |_| {}).await?,
            zone,
        });
    }
    // Pages of the store are cut by bytes, so a short one need not be the last: an empty one is.
    let next = items.last().map(|last| last.zone.clone());
    Ok(Page { items, next })
}

/// One page of a zone's items, those due first in front.
///
/// # Errors
/// [`AdminError::NoKind`], [`AdminError::Page`].
pub async fn items(
    admin: &Admin,
    kind: &str,
    zone: &str,
    query: &PageQuery,
) -> Result<Page<ItemInfo>, AdminError> {
    let kind = parse(kind)?;
    let from = query.after.as_deref().map(|after| {
        let place = after.split_once('-').and_then(|(due, id)| Some((due.parse().ok()?, id)));
        let place = place.and_then(|(due, id)| Some((due, unhex(id)?)));
        let (due_ms, id) = place.ok_or_else(|| AdminError::Page(after.to_owned()))?;
        Ok::<_, AdminError>([&cluster::work::item_key(kind, zone, due_ms, &id)[..], &[0]].concat())
    });
    let from = from.transpose()?;
    let (from, rows) = (from.as_deref(), query.rows());
    let read = |tx: Transaction| async move {
        let mut found = census::items(&tx, kind, Some(zone), from).await?;
        let more = found.next.is_some();
        found.rows.truncate(rows);
        let mut items = Vec::with_capacity(found.rows.len());
        for item in found.rows {
            let failures = work::failures(&tx, kind, zone, &item.id).await?;
            let has_failed = failures.count > 0;
            items.push(ItemInfo {
                id: hex(&item.id),
                due_ms: item.due_ms,
                failures: failures.count,
                last_failed_ms: has_failed.then_some(failures.last_ms),
                reason: has_failed.then_some(failures.reason),
            });
        }
        Ok::<_, StoreError>((items, more))
    };
    let (items, more) = admin.db.run(read).await?;
    let next = items.last().filter(|_| more).map(|last| format!("{}-{}", last.due_ms, last.id));
    Ok(Page { items, next })
}

fn parse(kind: &str) -> Result<Kind, AdminError> {
    let found = Kind::ALL.into_iter().find(|known| known.as_str() == kind);
    found.ok_or_else(|| AdminError::NoKind(kind.to_owned()))
}

/// The names of the epochs that are registered, or to be settled.
pub(in crate::admin) async fn node_names(
    db: &Database,
) -> Result<BTreeMap<Epoch, String>, AdminError> {
    let read = |tx: Transaction| async move {
        let registered = registry::registered(&tx).await?;
        let mut names: BTreeMap<_, _> =
            registered.into_iter().map(|(epoch, it)| (epoch, it.record.name)).collect();
        names.extend(registry::ended(&tx).await?.into_iter().map(|(it, record)| (it, record.name)));
        Ok::<_, StoreError>(names)
    };
    Ok(db.run(read).await?)
}

/// Claims of all nodes.
struct Claims {
    by: BTreeMap<(u64, Epoch), u64>,
    at_least: bool,
}

impl Claims {
    async fn count(db: &Database, max: u64) -> Result<Self, AdminError> {
        let mut by = BTreeMap::new();
        let counted = count(
            max,
            |from| async move {
                let from = from.as_deref();
                db.run(|tx| async move { roll::claims(&tx, from).await }).await
            },
            |claim| *by.entry((claim.kind, claim.epoch)).or_default() += 1,
        );
        let at_least = counted.await?.at_least;
        Ok(Self { by, at_least })
    }

    fn of(&self, kind: Kind) -> Counted {
        let counts = self.by.iter().filter(|((of, _), _)| *of == kind as u64);
        Counted { count: counts.map(|(_, zones)| zones).sum(), at_least: self.at_least }
    }
}

/// Zones that are due, and when the first came due.
async fn due(
    db: &Database,
    kind: Kind,
    now: Timestamp,
    max: u64,
) -> Result<(Counted, Option<i64>), AdminError> {
    let mut oldest = None;
    let before = now.unix_ms().saturating_add(1);
    let counted = count(
        max,
        |from| async move {
            let from = from.as_deref();
            let due = |tx: Transaction| async move {
                census::pointers(&tx, kind, Some(before), from).await
            };
            db.run(due).await
        },
        |(due_ms, _)| {
            oldest.get_or_insert(due_ms);
        },
    );
    let counted = counted.await?;
    Ok((counted, oldest))
}

async fn item_count(
    db: &Database,
    kind: Kind,
    zone: Option<&str>,
    max: u64,
) -> Result<Counted, AdminError> {
    let slice = |from: Option<Vec<u8>>| async move {
        let from = from.as_deref();
        db.run(|tx| async move { census::items(&tx, kind, zone, from).await }).await
    };
    count(max, slice, |_| {}).await
}

pub(super) async fn failing(
    db: &Database,
    kind: Kind,
    zone: Option<&str>,
    max: u64,
    mut each: impl FnMut(FailingItem) + Send,
) -> Result<Counted, AdminError> {
    let slice = |from: Option<Vec<u8>>| async move {
        let from = from.as_deref();
        db.run(|tx| async move { census::failing(&tx, kind, zone, from).await }).await
    };
    let each = |row: census::FailingRow| {
        each(FailingItem {
            zone: row.zone,
            id: hex(&row.id),
            count: row.failures.count,
            last_ms: row.failures.last_ms,
            reason: row.failures.reason,
        });
    };
    count(max, slice, each).await
}

/// Goes through a range slice by slice, each in a transaction of its own, up to `max` rows.
async fn count<T, Fut>(
    max: u64,
    slice: impl Fn(Option<Vec<u8>>) -> Fut + Send,
    mut each: impl FnMut(T) + Send,
) -> Result<Counted, AdminError>
where
    T: Send,
    Fut: Future<Output = Result<Slice<T>, StoreError>> + Send,
{
    let (mut counted, mut from) = (Counted::default(), None);
    loop {
        let Slice { rows, next } = slice(from).await?;
        for row in rows {
            if counted.count == max {
                counted.at_least = true;
                return Ok(counted);
            }
            counted.count += 1;
            each(row);
        }
        match next {
            Some(next) => from = Some(next),
            None => return Ok(counted),
        }
    }
}
