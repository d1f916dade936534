//! Keys that domains sign by: each domain that has some is one of ours, and its keys can be read.

use ::cluster::dkim;
use kv::Transaction;
use mail::{
    StoreError, directory,
    fsck::{FsckError, Mode, Options, Parts},
};

use super::{Cure, Finding, Line, Summary, Teller, step};
use crate::limits::FSCK_CLUSTER_DAMAGES_MAX;

/// Domains that are looked at in one transaction, with up to sixteen keys each.
const DOMAINS_PER_STEP: usize = 20;

/// Something wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Damage {
    /// Keys of a domain that is not ours.
    Orphaned(String),
    /// Keys that cannot be read.
    Unreadable(String, String),
}

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
        let Damage::Orphaned(domain) = &damage else {
            summary.remaining += 1;
            continue;
        };
        if options.mode != Mode::Repair {
            summary.remaining += 1;
            continue;
        }
        let mend = |tx: Transaction| async move {
            // The domain may have come back meanwhile.
            if directory::is_local(&tx, domain).await? {
                Ok(())
            } else {
                dkim::forget(&tx, domain).await
            }
        };
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
    Ok(found)
}

impl Damage {
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
        };
        Finding { code: code.to_owned(), account: None, detail, remedy }
    }
}

#[cfg(test)]
mod tests;
