//! What stands beside an account's emails: counters, mailboxes, the index of their names, and the
//! numbers handed out; all read at the version of the sum that they are compared with.

use std::collections::BTreeMap;

use kv::{KeyValue, RangeQuery, Transaction};

use super::{Damage, emails::mailbox_record, sum::Sum};
use crate::{
    AccountId, MailboxId, StoreError,
    keys::{
        self,
        counter::{AccountCounts, MailboxTotals},
        mailbox::{MailboxRecord, NextKey},
    },
    unit::decode_u32,
};

/// Compares; at most [`crate::limits::MAILBOXES_MAX`] rows of each kind.
pub(super) async fn check(
    tx: &Transaction,
    account: AccountId,
    sum: &Sum,
) -> Result<Vec<Damage>, StoreError> {
    let mut damages = Vec::new();
    let records = records(tx, account, &mut damages).await?;
    names(tx, account, &records, &mut damages).await?;
    numbers(tx, account, &records, sum, &mut damages).await?;
    counters(tx, account, &records, sum, &mut damages).await?;
    Ok(damages)
}

async fn all(
    tx: &Transaction,
    (begin, end): (Vec<u8>, Vec<u8>),
) -> Result<Vec<KeyValue>, StoreError> {
    Ok(tx.range(RangeQuery::new(begin, end).snapshot()).collect().await?)
}

/// Every mailbox's record; `None` of one that cannot be decoded.
async fn records(
    tx: &Transaction,
    account: AccountId,
    damages: &mut Vec<Damage>,
) -> Result<BTreeMap<u32, Option<MailboxRecord>>, StoreError> {
    let mut records = BTreeMap::new();
    for row in all(tx, keys::mailbox::range(account)).await? {
        let record = mailbox_record(&row.value);
        let id = keys::mailbox::mailbox_of(&row.key);
        if record.is_none() || id.is_none() {
            damages.push(Damage::Undecodable { family: "mailbox", key: row.key.to_vec() });
        }
        if let Some(MailboxId(id)) = id {
            records.insert(id, record);
        }
    }
    for (id, record) in live(&records) {
        // One that cannot be decoded may be the parent.
        let stands = |parent: &u32| {
            records.get(parent).is_some_and(|p| p.as_ref().is_none_or(|parent| !parent.deleting))
        };
        if let Some(parent) = record.parent.filter(|parent| !stands(parent)) {
            damages.push(Damage::NoParent(account, MailboxId(id), MailboxId(parent)));
        }
    }
    Ok(records)
}

fn live(
    records: &BTreeMap<u32, Option<MailboxRecord>>,
) -> impl Iterator<Item = (u32, &MailboxRecord)> {
    records
        .iter()
        .filter_map(|(id, record)| Some((*id, record.as_ref().filter(|record| !record.deleting)?)))
}

fn name_key(account: AccountId, record: &MailboxRecord) -> Vec<u8> {
    keys::mailbox::name_key(account, record.parent.map(MailboxId), &record.name)
}

async fn names(
    tx: &Transaction,
    account: AccountId,
    records: &BTreeMap<u32, Option<MailboxRecord>>,
    damages: &mut Vec<Damage>,
) -> Result<(), StoreError> {
    let mut expected: BTreeMap<Vec<u8>, Vec<u32>> = BTreeMap::new();
    for (id, record) in live(records) {
        expected.entry(name_key(account, record)).or_default().push(id);
    }
    for ids in expected.values() {
        if let [a, b, ..] = ids[..] {
            damages.push(Damage::NameTwice(account, [MailboxId(a), MailboxId(b)]));
        }
    }
    for row in all(tx, keys::mailbox::name_range(account)).await? {
        let key = row.key.to_vec();
        let points_to = decode_u32(&row.value).ok();
        let ids = expected.remove(&key);
        let is_right = points_to.is_some_and(|id| {
            ids.as_ref().is_some_and(|ids| ids.contains(&id))
                // The name of a record that cannot be decoded is not known.
                || matches!(records.get(&id), Some(None))
        });
        if !is_right {
            let mailbox = MailboxId(points_to.unwrap_or(0));
            damages.push(Damage::StrayName { account, mailbox, key });
        }
    }
    let missing = expected.values().filter_map(|ids| ids.first());
    damages.extend(missing.map(|id| Damage::NoName(account, MailboxId(*id))));
    Ok(())
}

async fn numbers(
    tx: &Transaction,
    account: AccountId,
    records: &BTreeMap<u32, Option<MailboxRecord>>,
    sum: &Sum,
    damages: &mut Vec<Damage>,
) -> Result<(), StoreError> {
    let (mut next_email, mut next_mailbox) = (1, 1);
    let mut next_uids: BTreeMap<u32, u32> = BTreeMap::new();
    for row in all(tx, keys::mailbox::next_range(account)).await? {
        let (Some(which), Ok(next)) = (NextKey::parse(&row.key), decode_u32(&row.value)) else {
            damages.push(Damage::Undecodable { family: "next id", key: row.key.to_vec() });
            if let Some(NextKey::Uid(mailbox)) = NextKey::parse(&row.key) {
                next_uids.insert(mailbox.0, u32::MAX);
            }
            continue;
        };
        match which {
            NextKey::Email => next_email = next,
            NextKey::Mailbox => next_mailbox = next,
            NextKey::UidValidity => {}
            NextKey::Uid(mailbox) => {
                next_uids.insert(mailbox.0, next);
                if !records.contains_key(&mailbox.0) && !sum.holds(mailbox) {
                    damages.push(Damage::StrayNextUid(account, mailbox));
                }
            }
        }
    }
    if next_email <= sum.highest_email {
        let highest = sum.highest_email;
        damages.push(Damage::NextEmail { account, next: next_email, highest });
    }
    if let Some((&highest, _)) = records.last_key_value()
        && next_mailbox <= highest
    {
        damages.push(Damage::NextMailbox { account, next: next_mailbox, highest });
    }
    for (mailbox, _) in live(records) {
        let highest = sum.highest_uids.get(&mailbox).copied().unwrap_or(0);
        let next = next_uids.get(&mailbox).copied().unwrap_or(1);
        if next <= highest {
            let mailbox = MailboxId(mailbox);
            damages.push(Damage::NextUid { account, mailbox, next, highest });
        }
    }
    Ok(())
}

async fn counters(
    tx: &Transaction,
    account: AccountId,
    records: &BTreeMap<u32, Option<MailboxRecord>>,
    sum: &Sum,
    damages: &mut Vec<Damage>,
) -> Result<(), StoreError> {
    let mut stored_totals: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
    for row in all(tx, keys::counter::mailboxes_range(account)).await? {
        let Some(mailbox) = keys::counter::mailbox_of(&row.key) else {
            damages.push(Damage::Undecodable { family: "counter", key: row.key.to_vec() });
            continue;
        };
        // Where emails say that they are in it, the mailbox is what was lost.
        if records.contains_key(&mailbox.0) {
            stored_totals.insert(mailbox.0, row.value.to_vec());
        } else if !sum.holds(mailbox) {
            damages.push(Damage::StrayCounters(account, mailbox));
        }
    }
    if !sum.is_whole {
        return Ok(());
    }
    let key = keys::counter::account_key(account);
    match AccountCounts::decode(tx.get_snapshot(&key).await?.as_deref()) {
        Ok(stored) if stored != sum.counts => {
            damages.push(Damage::AccountCounters { account, stored, fold: sum.counts });
        }
        Ok(_) => {}
        Err(_) => damages.push(Damage::Undecodable { family: "counter", key }),
    }
    for mailbox in records.keys() {
        let fold = sum.mailboxes.get(mailbox).copied().unwrap_or_default();
        let mailbox = MailboxId(*mailbox);
        match MailboxTotals::decode(stored_totals.get(&mailbox.0).map(Vec::as_slice)) {
            Ok(stored) if stored != fold => {
                damages.push(Damage::MailboxCounters { account, mailbox, stored, fold });
            }
            Ok(_) => {}
            Err(_) => {
                let key = keys::counter::mailbox_key(account, mailbox);
                damages.push(Damage::Undecodable { family: "counter", key });
            }
        }
    }
    Ok(())
}

/// Sets the counters to the sum. The caller's transaction conflicts with every change of the
/// account since the sum; the reads here make it conflict with whoever adds to a counter.
pub(super) async fn set_counters(
    tx: &Transaction,
    account: AccountId,
    sum: &Sum,
) -> Result<(), StoreError> {
    let key = keys::counter::account_key(account);
    if tx.get(&key).await?.as_deref() != Some(&sum.counts.operand()) {
        tx.set(&key, &sum.counts.operand());
    }
    for row in all(tx, keys::mailbox::range(account)).await? {
        let Some(mailbox) = keys::mailbox::mailbox_of(&row.key) else { continue };
        // Not there any more when this commits: its counters must not come back.
        tx.add_read_conflict_key(&row.key);
        let key = keys::counter::mailbox_key(account, mailbox);
        let fold = sum.mailboxes.get(&mailbox.0).copied().unwrap_or_default();
        let stored = tx.get(&key).await?;
        if MailboxTotals::decode(stored.as_deref()).ok() != Some(fold) {
            tx.set(&key, &fold.operand());
        }
    }
    Ok(())
}
