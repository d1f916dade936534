//! The log, followed back: each change names the version of the one before it, and says what the
//! email was then.

use std::collections::BTreeMap;

use kv::{RangeQuery, Transaction};

use super::{
    Damage, FsckError,
    emails::{Checked, check_pages, is_alive},
    walk::{Walk, after, stretch},
};
use crate::{
    AccountId, EmailId, ModSeq, StoreError,
    keys::{
        self,
        log::{EmailChange, LogEntry},
    },
    limits,
};

/// Entries of one transaction's log, by version; the last few are kept.
pub(super) struct Entries {
    account: AccountId,
    horizon: u64,
    held: BTreeMap<u64, Vec<EmailChange>>,
}

impl Entries {
    pub(super) async fn new(tx: &Transaction, account: AccountId) -> Result<Self, StoreError> {
        let horizon = crate::log::horizon(tx, account).await?.0;
        Ok(Self { account, horizon, held: BTreeMap::new() })
    }

    /// The log is whole above this version.
    pub(super) fn horizon(&self) -> u64 {
        self.horizon
    }

    /// What the log says of the email at exactly this version.
    pub(super) async fn change(
        &mut self,
        tx: &Transaction,
        version: u64,
        email: EmailId,
    ) -> Result<Option<&EmailChange>, StoreError> {
        if !self.held.contains_key(&version) {
            if self.held.len() >= limits::FSCK_VERSIONS_HELD {
                self.held.clear();
            }
            let (begin, _) = keys::log::range_after(self.account, version.saturating_sub(1));
            let (end, _) = keys::log::range_after(self.account, version);
            let rows = tx.range(RangeQuery::new(begin, end).snapshot()).collect().await?;
            // An entry that cannot be decoded is told by whoever reads the log in its order.
            let changes = rows
                .iter()
                .filter_map(|row| keys::decode::<LogEntry>("log", &row.value).ok())
                .flat_map(|entry| entry.emails)
                .collect();
            self.held.insert(version, changes);
        }
        let changes = self.held.get(&version).map_or(&[][..], Vec::as_slice);
        Ok(changes.iter().find(|change| change.email == email.0))
    }
}

/// Checks every entry of the account's log.
pub(super) async fn check(walk: &mut Walk, account: AccountId) -> Result<(), FsckError> {
    let (begin, _) = keys::log::range_after(account, 0);
    check_pages(
        walk,
        begin,
        |tx, from, rows| async move { page(&tx, account, &from, rows / 4).await },
    )
    .await
}

async fn page(
    tx: &Transaction,
    account: AccountId,
    from: &[u8],
    most: usize,
) -> Result<Checked, StoreError> {
    if !is_alive(tx, account).await? {
        return Ok(Checked::GONE);
    }
    let (_, end) = keys::log::range_after(account, 0);
    let read = stretch(tx, from.to_vec(), end, most).await?;
    let mut entries = Entries::new(tx, account).await?;
    let mut damages = Vec::new();
    let mut changes = 0;
    for (at, row) in read.rows.iter().enumerate() {
        let decoded = keys::decode::<LogEntry>("log", &row.value).ok();
        let (Some(version), Some(entry)) = (keys::log::version_of(&row.key), decoded) else {
            damages.push(Damage::Undecodable { family: "log", key: row.key.to_vec() });
            continue;
        };
        changes += entry.emails.len();
        for change in &entry.emails {
            let found = check_change(tx, account, &mut entries, version, change).await?;
            damages.extend(found);
        }
        if changes >= limits::FSCK_CHANGES_PER_STEP {
            let next = (at + 1 < read.rows.len() || read.is_cut).then(|| after(&row.key));
            return Ok(Checked { damages, rows: 0, next });
        }
    }
    Ok(Checked { damages, rows: 0, next: read.next() })
}

async fn check_change(
    tx: &Transaction,
    account: AccountId,
    entries: &mut Entries,
    version: u64,
    change: &EmailChange,
) -> Result<Option<Damage>, StoreError> {
    let email = EmailId(change.email);
    let here = Damage::LogEntry(account, email, ModSeq(version));
    let is_new = change.before.is_empty();
    if is_new != (change.modseq_before == 0) || change.modseq_before >= version {
        return Ok(Some(here));
    }
    if change.modseq_before > entries.horizon() {
        let before = ModSeq(change.modseq_before);
        match entries.change(tx, before.0, email).await? {
            None => return Ok(Some(Damage::NoLogEntry(account, email, before))),
            Some(earlier) => {
                let agrees = earlier.after == change.before
                    && earlier.keywords_after == change.keywords_before;
                if !agrees {
                    return Ok(Some(Damage::LogEntry(account, email, before)));
                }
            }
        }
    }
    // The state is the email's last change, so it is never older than one. Where they are of the
    // same version, the check of emails compares them.
    let Some(value) = tx.get_snapshot(&keys::email::state_key(account, email)).await? else {
        return Ok(None);
    };
    let Ok((stamp, _)) = keys::email::decode_state(&value) else { return Ok(None) };
    let contradicts = stamp.version() < version || change.after.is_empty();
    Ok(contradicts.then_some(here))
}
