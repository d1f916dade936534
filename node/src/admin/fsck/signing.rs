//! Keys that domains sign by: each domain that has some is one of ours, and its keys can be read. Senders that
//! forwarding keeps: each can be read, and goes in its time.

use ::cluster::{dkim, srs::tokens};
use kv::Transaction;
use mail::{
    StoreError, directory,
    fsck::{FsckError, Mode, Options, Parts},
};

use super::{Cure, Finding, Line, Summary, Teller, step};
use crate::limits::{FSCK_CLUSTER_DAMAGES_MAX, SRS_TOKEN_DAYS};

/// Days are numbered since 1970.
const DAY_SECONDS: i64 = 86_400;

/// Domains that are looked at in one transaction, with up to sixteen keys each.
const DOMAINS_PER_STEP: usize = 20;

/// Something wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Damage {
    /// Keys of a domain that is not ours.
    Orphaned(String),
    /// Keys that cannot be read.
    Unreadable(String, String),
    /// A kept sender that cannot be read: the day and the id of its token.
    UnreadableSender(u64, String),
    /// Kept senders of a day that should have gone.
    OldSenders(u64),
}

/// Days behind its time that a kept sender is late: the sweep has whole hours, and stands still while no
/// node runs.
const LATE_DAYS: u64 = 2;

/// Checks the keys; mends it where the options say so.
pub(super) async fn check(
    parts: &Parts,
    options: Options,
    teller: &Teller<'_>,
    summary: &mut Summary,
) -> Result<(), FsckError> {
    for damage in found(parts, options).await? {
        let finding = damage.finding();
        summary.findings += 1;
        teller.tell(Line::Finding(finding.clone())).await?;
        if options.mode != Mode::Repair || finding.remedy != Cure::Repair {
            summary.remaining += 1;
            continue;
        }
        let damage = &damage;
        let mend = |tx: Transaction| async move { damage.mend(&tx).await };
        step(parts, options.speed, mend).await?;
        summary.mended += 1;
        tracing::info!(code = finding.code, detail = finding.detail, "mended");
        teller.tell(Line::Mended(finding)).await?;
    }
    Ok(())
}

async fn found(parts: &Parts, options: Options) -> Result<Vec<Damage>, FsckError> {
    let mut found = Vec::new();
    let mut after: Option<String> = None;
    while found.len() < FSCK_CLUSTER_DAMAGES_MAX {
        let behind = after.as_deref();
        let look = |tx: Transaction| async move {
            let domains = dkim::domains(&tx, behind, DOMAINS_PER_STEP).await?;
            let mut damages = Vec::new();
            for domain in &domains {
                if !directory::is_local(&tx, domain).await? {
                    damages.push(Damage::Orphaned(domain.clone()));
                    continue;
                }
                match dkim::keys(&tx, domain).await {
                    Ok(_) => {}
                    Err(StoreError::Kv(error)) => return Err(StoreError::Kv(error)),
                    Err(error) => {
                        damages.push(Damage::Unreadable(domain.clone(), error.to_string()));
                    }
                }
            }
            Ok((domains, damages))
        };
        let (domains, damages) = step(parts, options.speed, look).await?;
        found.extend(damages);
        match domains.into_iter().last() {
            Some(last) => after = Some(last),
            None => break,
        }
    }
    senders(parts, options, &mut found).await?;
    Ok(found)
}

/// What is wrong with kept senders, behind what else was found.
async fn senders(
    parts: &Parts,
    options: Options,
    found: &mut Vec<Damage>,
) -> Result<(), FsckError> {
    let today = u64::try_from(parts.env.wall().unix_seconds() / DAY_SECONDS).unwrap_or(0);
    let oldest = today.saturating_sub(SRS_TOKEN_DAYS + LATE_DAYS);
    let mut after = None;
    while found.len() < FSCK_CLUSTER_DAMAGES_MAX {
        let behind = after.as_ref();
        let look = |tx: Transaction| async move { tokens::some(&tx, behind).await };
        let rows = step(parts, options.speed, look).await?;
        for (day, id, read) in &rows {
            let damage = match read {
                _ if *day < oldest => Damage::OldSenders(*day),
                Ok(()) => continue,
                Err(_) => Damage::UnreadableSender(*day, id.clone()),
            };
            if found.last() != Some(&damage) {
                found.push(damage);
            }
        }
        match rows.into_iter().next_back() {
            Some((day, id, _)) => after = Some((day, id)),
            None => break,
        }
    }
    Ok(())
}

impl Damage {
    /// Mends what a repair may.
    async fn mend(&self, tx: &Transaction) -> Result<(), StoreError> {
        match self {
            // The domain may have come back meanwhile.
            Self::Orphaned(domain) if directory::is_local(tx, domain).await? => {}
            Self::Orphaned(domain) => dkim::forget(tx, domain).await?,
            Self::UnreadableSender(day, id) => tokens::forget(tx, (*day, id)),
            Self::OldSenders(day) => tokens::forget_before(tx, *day + 1),
            Self::Unreadable(..) => {}
        }
        Ok(())
    }

    fn finding(&self) -> Finding {
        let (code, detail, remedy) = match self {
            Self::Orphaned(domain) => (
                "orphaned_dkim_keys",
                format!("there are keys to sign for {domain}, which is no domain here"),
                Cure::Repair,
            ),
            Self::Unreadable(domain, error) => (
                "unreadable_dkim_keys",
                format!("the keys of {domain} cannot be read: {error}"),
                Cure::Person,
            ),
            Self::UnreadableSender(day, id) => (
                "unreadable_srs_sender",
                format!("the sender of a forward that is kept as {id} of day {day} cannot be read"),
                Cure::Repair,
            ),
            Self::OldSenders(day) => (
                "old_srs_senders",
                format!("senders of forwards of day {day} are kept though their time is over"),
                Cure::Repair,
            ),
        };
        Finding { code: code.to_owned(), account: None, detail, remedy }
    }
}

#[cfg(test)]
mod tests;
