//! What nodes leave in the store: interests, inboxes and bells of listeners, claims, zones and
//! pointers, failures, orders, blocks.
//!
//! Each look is one transaction over the record and what it stands for, so nothing is told that
//! the nodes change meanwhile; each mending looks again. An epoch's number is never used twice, so
//! what belongs to one that is neither registered nor to be settled belongs to nobody for ever.
//! The items of the outbound queue are checked in [`super::queue`], with their submissions.

use ::cluster::{
    Epoch, Slice,
    membership::{registry, roll, roll::Claim},
    work::{
        Kind, census,
        check::{self, ZoneFault},
        orders,
    },
};
use kv::Transaction;
use mail::{
    AccountId, ListenerId,
    fsck::{FsckError, Mode, Options, Parts},
    interest::{self, Remaining},
};

use super::{Cure, Finding, Line, Summary, Teller, step};
use crate::{guard::block, hex::hex, limits::FSCK_CLUSTER_DAMAGES_MAX};

/// Something wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Damage {
    /// Interests, an inbox or a bell of nobody.
    Listener(ListenerId),
    /// An account tells a listener, or a listener lists an account, and not both.
    HalfInterest(AccountId, ListenerId),
    Zone(Kind, String, ZoneFault),
    /// A zone's record cannot be read.
    Unreadable(Kind, String),
    /// A pointer that is not its zone's.
    Pointer(Kind, i64, String),
    /// An epoch lists a zone that it has not claimed.
    Claim(Claim),
    /// Failures of an item that is not there.
    Failures(Kind, String, Vec<u8>),
    /// An order about a zone that has nothing to do: nobody would obey.
    Order(Kind, String, Vec<u8>),
    Blocks(block::Fault),
}

/// Checks what nodes leave; mends it where the options say so.
pub(super) async fn check(
    parts: &Parts,
    options: Options,
    teller: &Teller<'_>,
    summary: &mut Summary,
) -> Result<(), FsckError> {
    let walk = Walk { parts, options };
    let found = walk.found().await?;
    for damage in &found {
        summary.findings += 1;
        teller.tell(Line::Finding(damage.finding())).await?;
    }
    if found.len() >= FSCK_CLUSTER_DAMAGES_MAX {
        summary.unchecked += 1;
        let detail = format!(
            "what is behind the first {} damages of the nodes' records: mend these first",
            found.len()
        );
        teller.tell(Line::Unchecked { account: None, detail }).await?;
    }
    let mut remaining = found.len();
    if options.mode == Mode::Repair && !found.is_empty() {
        for damage in found.iter().filter(|damage| damage.is_repairable()) {
            walk.mend(damage).await?;
        }
        let left = walk.found().await?;
        for damage in found.iter().filter(|damage| damage.is_repairable()) {
            let finding = damage.finding();
            let line = match left.contains(damage) {
                true => Line::NotMended { finding, reason: "it is there again".to_owned() },
                false => {
                    summary.mended += 1;
                    tracing::info!(code = finding.code, detail = finding.detail, "mended");
                    Line::Mended(finding)
                }
            };
            teller.tell(line).await?;
        }
        remaining = left.len();
    }
    summary.remaining += remaining as u64;
    Ok(())
}

struct Walk<'a> {
    parts: &'a Parts,
    options: Options,
}

impl Walk<'_> {
    async fn found(&self) -> Result<Vec<Damage>, FsckError> {
        let mut found = Vec::new();
        self.listeners(&mut found).await?;
        self.interests(&mut found).await?;
        self.claims(&mut found).await?;
        for kind in Kind::ALL {
            self.zones(kind, &mut found).await?;
            self.pointers(kind, &mut found).await?;
            self.failures(kind, &mut found).await?;
            self.orders(kind, &mut found).await?;
        }
        let blocks = |tx: Transaction| async move { block::fault(&tx).await };
        let blocks = step(self.parts, self.options.speed, blocks).await?;
        found.extend(blocks.map(Damage::Blocks));
        found.truncate(FSCK_CLUSTER_DAMAGES_MAX);
        Ok(found)
    }

    async fn listeners(&self, found: &mut Vec<Damage>) -> Result<(), FsckError> {
        let mut from = ListenerId(0);
        while found.len() < FSCK_CLUSTER_DAMAGES_MAX {
            let look = |tx: Transaction| async move {
                let Some(listener) = interest::next_listener(&tx, from).await? else {
                    return Ok(None);
                };
                Ok(Some((listener, registry::is_known(&tx, listener.into()).await?)))
            };
            let Some((listener, is_known)) = step(self.parts, self.options.speed, look).await?
            else {
                break;
            };
            if !is_known {
                found.push(Damage::Listener(listener));
            }
            let Some(next) = listener.0.checked_add(1) else { break };
            from = ListenerId(next);
        }
        Ok(())
    }

    async fn interests(&self, found: &mut Vec<Damage>) -> Result<(), FsckError> {
        let mut from: Option<Vec<u8>> = None;
        while found.len() < FSCK_CLUSTER_DAMAGES_MAX {
            let begin = from.as_deref();
            let look = |tx: Transaction| async move { interest::halves(&tx, begin).await };
            let (halves, next) = step(self.parts, self.options.speed, look).await?;
            found.extend(halves.into_iter().map(|(account, it)| Damage::HalfInterest(account, it)));
            match next {
                Some(next) => from = Some(next),
                None => break,
            }
        }
        Ok(())
    }

    async fn claims(&self, found: &mut Vec<Damage>) -> Result<(), FsckError> {
        let mut from: Option<Vec<u8>> = None;
        while found.len() < FSCK_CLUSTER_DAMAGES_MAX {
            let begin = from.as_deref();
            let look = |tx: Transaction| async move {
                let Slice { rows, next } = roll::claims(&tx, begin).await?;
                let mut stray = Vec::new();
                for claim in rows {
                    if !check::claim_stands(&tx, &claim).await? {
                        stray.push(claim);
                    }
                }
                Ok((stray, next))
            };
            let (stray, next) = step(self.parts, self.options.speed, look).await?;
            found.extend(stray.into_iter().map(Damage::Claim));
            match next {
                Some(next) => from = Some(next),
                None => break,
            }
        }
        Ok(())
    }

    /// Zones by their records, and those that have items and no record.
    async fn zones(&self, kind: Kind, found: &mut Vec<Damage>) -> Result<(), FsckError> {
        let mut from: Option<Vec<u8>> = None;
        while found.len() < FSCK_CLUSTER_DAMAGES_MAX {
            let begin = from.as_deref();
            let look = |tx: Transaction| async move {
                let Slice { rows, next } = census::zones(&tx, kind, begin).await?;
                let mut damages = Vec::new();
                for (zone, state) in rows {
                    if state.is_none() {
                        damages.push(Damage::Unreadable(kind, zone));
                    } else if let Some(fault) = check::zone_fault(&tx, kind, &zone).await? {
                        damages.push(Damage::Zone(kind, zone, fault));
                    }
                }
                Ok((damages, next))
            };
            let (damages, next) = step(self.parts, self.options.speed, look).await?;
            found.extend(damages.into_iter().filter(|damage| !is_of_queue(damage)));
            match next {
                Some(next) => from = Some(next),
                None => break,
            }
        }
        let mut after: Option<String> = None;
        while kind != Kind::Outbound && found.len() < FSCK_CLUSTER_DAMAGES_MAX {
            let behind = after.as_deref();
            let look = |tx: Transaction| async move {
                let Some(zone) = census::next_zone_with_items(&tx, kind, behind).await? else {
                    return Ok(None);
                };
                let is_known = ::cluster::work::zone::state(&tx, kind, &zone).await?.is_some();
                Ok(Some((zone, is_known)))
            };
            let Some((zone, is_known)) = step(self.parts, self.options.speed, look).await? else {
                break;
            };
            if !is_known {
                found.push(Damage::Zone(kind, zone.clone(), ZoneFault::NoPointer));
            }
            after = Some(zone);
        }
        Ok(())
    }

    async fn pointers(&self, kind: Kind, found: &mut Vec<Damage>) -> Result<(), FsckError> {
        let mut from: Option<Vec<u8>> = None;
        while found.len() < FSCK_CLUSTER_DAMAGES_MAX {
            let begin = from.as_deref();
            let look = |tx: Transaction| async move {
                let Slice { rows, next } = census::pointers(&tx, kind, None, begin).await?;
                let mut stray = Vec::new();
                for (due_ms, zone) in rows {
                    if !check::pointer_stands(&tx, kind, due_ms, &zone).await? {
                        stray.push(Damage::Pointer(kind, due_ms, zone));
                    }
                }
                Ok((stray, next))
            };
            let (stray, next) = step(self.parts, self.options.speed, look).await?;
            found.extend(stray);
            match next {
                Some(next) => from = Some(next),
                None => break,
            }
        }
        Ok(())
    }

    async fn failures(&self, kind: Kind, found: &mut Vec<Damage>) -> Result<(), FsckError> {
        let mut from: Option<Vec<u8>> = None;
        while found.len() < FSCK_CLUSTER_DAMAGES_MAX {
            let begin = from.as_deref();
            let read =
                |tx: Transaction| async move { census::failing(&tx, kind, None, begin).await };
            let Slice { rows, next } = step(self.parts, self.options.speed, read).await?;
            for row in rows {
                let item = &row;
                let look = |tx: Transaction| async move {
                    check::failures_stand(&tx, kind, &item.zone, &item.id).await
                };
                if step(self.parts, self.options.speed, look).await? == Some(false) {
                    found.push(Damage::Failures(kind, row.zone, row.id));
                }
            }
            match next {
                Some(next) => from = Some(next),
                None => break,
            }
        }
        Ok(())
    }

    async fn orders(&self, kind: Kind, found: &mut Vec<Damage>) -> Result<(), FsckError> {
        let mut from: Option<Vec<u8>> = None;
        while found.len() < FSCK_CLUSTER_DAMAGES_MAX {
            let begin = from.as_deref();
            let look = |tx: Transaction| async move {
                let Slice { rows, next } = orders::of_kind(&tx, kind, begin).await?;
                let mut stray = Vec::new();
                for (zone, id) in rows {
                    if !orders::stands(&tx, kind, &zone).await? {
                        stray.push(Damage::Order(kind, zone, id));
                    }
                }
                Ok((stray, next))
            };
            let (stray, next) = step(self.parts, self.options.speed, look).await?;
            found.extend(stray);
            match next {
                Some(next) => from = Some(next),
                None => break,
            }
        }
        Ok(())
    }

    async fn mend(&self, damage: &Damage) -> Result<(), FsckError> {
        let now = self.parts.env.wall();
        if let Damage::Listener(listener) = damage {
            return self.forget(*listener).await;
        }
        step(self.parts, self.options.speed, |tx| async move {
            match damage {
                Damage::HalfInterest(account, listener) => {
                    if registry::is_known(&tx, (*listener).into()).await? {
                        return interest::mend_half(&tx, *account, *listener).await;
                    }
                    interest::unlisten(&tx, *account, *listener);
                    Ok(())
                }
                Damage::Zone(kind, zone, _) => check::mend_zone(&tx, *kind, zone, now).await,
                Damage::Pointer(kind, due_ms, zone) => {
                    check::mend_pointer(&tx, *kind, *due_ms, zone).await
                }
                Damage::Claim(claim) => check::mend_claim(&tx, claim).await,
                Damage::Failures(kind, zone, id) => {
                    check::mend_failures(&tx, *kind, zone, id).await
                }
                Damage::Order(kind, zone, id) => orders::mend(&tx, *kind, zone, id).await,
                Damage::Blocks(_) => block::mend(&tx).await,
                Damage::Listener(_) | Damage::Unreadable(..) => Ok(()),
            }
        })
        .await
    }

    /// Takes all of a listener away that is nobody's, as the settler does of an ended epoch.
    async fn forget(&self, listener: ListenerId) -> Result<(), FsckError> {
        let epoch = Epoch::from(listener);
        let interests = |tx: Transaction| async move {
            match registry::is_known(&tx, epoch).await? {
                true => Ok(Remaining::None),
                false => interest::forget_interests(&tx, listener).await,
            }
        };
        while step(self.parts, self.options.speed, interests).await? == Remaining::Some {}
        // In later transactions: a commit that read an interest is over before it is gone.
        let inbox = |tx: Transaction| async move {
            match registry::is_known(&tx, epoch).await? {
                true => Ok(Remaining::None),
                false => interest::forget_inbox(&tx, listener).await,
            }
        };
        while step(self.parts, self.options.speed, inbox).await? == Remaining::Some {}
        Ok(())
    }
}

/// Whether the check of the queue tells it.
fn is_of_queue(damage: &Damage) -> bool {
    matches!(damage, Damage::Zone(Kind::Outbound, _, fault) if matches!(
        fault,
        ZoneFault::NoPointer
    ))
}

impl Damage {
    fn is_repairable(&self) -> bool {
        !matches!(self, Self::Unreadable(..))
    }

    fn finding(&self) -> Finding {
        let (code, detail) = match self {
            Self::Listener(ListenerId(number)) => (
                "orphaned_listener",
                format!("listener {number} is told of changes and is no node"),
            ),
            Self::HalfInterest(account, listener) => (
                "half_interest",
                format!(
                    "the interest of listener {} in account {account} is there by half",
                    listener.0
                ),
            ),
            Self::Zone(kind, zone, fault) => {
                let zone = format!("zone {zone} of kind {}", kind.as_str());
                match fault {
                    ZoneFault::UnknownClaim(epoch) => (
                        "unknown_claim",
                        format!("{zone} is claimed by epoch {epoch}, which nobody knows"),
                    ),
                    ZoneFault::UnlistedClaim(epoch) => (
                        "unlisted_claim",
                        format!("{zone} is claimed by epoch {epoch}, which does not list it"),
                    ),
                    ZoneFault::NoPointer => {
                        ("no_pointer", format!("{zone} has items, and nothing points to it"))
                    }
                    ZoneFault::Idle => ("idle_zone", format!("{zone} waits, and has no items")),
                }
            }
            Self::Unreadable(kind, zone) => (
                "undecodable",
                format!("the record of zone {zone} of kind {} cannot be read", kind.as_str()),
            ),
            Self::Pointer(kind, due_ms, zone) => (
                "stray_pointer",
                format!(
                    "a pointer of kind {} to zone {zone}, due {due_ms}, is not the zone's",
                    kind.as_str()
                ),
            ),
            Self::Claim(Claim { epoch, kind, zone }) => (
                "stray_claim",
                format!("epoch {epoch} lists zone {zone} of kind {kind} and has not claimed it"),
            ),
            Self::Order(kind, zone, id) => (
                "orphaned_order",
                format!(
                    "an order about {} of zone {zone} of kind {}, which has nothing to do",
                    if id.is_empty() { "all".to_owned() } else { format!("item {}", hex(id)) },
                    kind.as_str()
                ),
            ),
            Self::Failures(kind, zone, id) => {
                let id = hex(id);
                (
                    "orphaned_failures",
                    format!(
                        "failures of item {id} of zone {zone} of kind {}, which is not there",
                        kind.as_str()
                    ),
                )
            }
            Self::Blocks(block::Fault { unreadable, said, found }) => (
                "blocks",
                format!(
                    "{} blocks cannot be read; of {said} that are said to be there {found} are",
                    unreadable.len()
                ),
            ),
        };
        let remedy = if self.is_repairable() { Cure::Repair } else { Cure::Person };
        Finding { code: code.to_owned(), account: None, detail, remedy }
    }
}

#[cfg(test)]
mod tests;
