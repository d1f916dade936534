//! The proof that state, log, counters and views say the same.
//!
//! [`check_account`] reads an account whole, in one transaction, so it is for tests and for
//! accounts that fit one; `rookery fsck` does the same in bounded steps.

use std::collections::{BTreeMap, BTreeSet};

use kv::{RangeQuery, Transaction};

use crate::{
    AccountId, MailboxId, StoreError,
    keys::{
        self,
        counter::{AccountCounts, MailboxTotals},
        email::{EmailMeta, EmailState, Membership},
        log::LogEntry,
    },
    mailbox_tree,
    unit::{decode_u32, is_seen, read_u32, tally},
};

/// One thing that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Discrepancy(pub String);

/// What an email's log entries say it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Folded {
    memberships: BTreeSet<(u32, u32, bool)>,
    keywords: BTreeSet<String>,
    modseq: u64,
}

/// Everything of an account that can contradict itself.
struct Account {
    /// The log is whole above this version.
    horizon: u64,
    states: BTreeMap<u32, (u64, EmailState)>,
    metas: BTreeMap<u32, EmailMeta>,
    log: Vec<(u64, LogEntry)>,
}

/// Compares the account's state with the fold of its log and with its counters, and checks that
/// UIDs are unique, below the counter, and ascend with the log (P2, P4). Empty: all holds. Of a
/// log that was trimmed, what is left is checked.
///
/// # Errors
/// [`StoreError`].
pub async fn check_account(
    tx: &Transaction,
    account: AccountId,
) -> Result<Vec<Discrepancy>, StoreError> {
    let held = read(tx, account).await?;
    let mut found = Vec::new();
    check_fold(&held, &mut found);
    check_uids(tx, account, &held, &mut found).await?;
    check_counters(tx, account, &held, &mut found).await?;
    check_metas(tx, account, &held, &mut found).await?;
    check_names(tx, account, &mut found).await?;
    Ok(found.into_iter().map(Discrepancy).collect())
}

async fn read(tx: &Transaction, account: AccountId) -> Result<Account, StoreError> {
    let mut held = Account {
        horizon: crate::log::horizon(tx, account).await?.0,
        states: BTreeMap::new(),
        metas: BTreeMap::new(),
        log: Vec::new(),
    };
    let email_of = |key: &[u8]| {
        keys::email::email_of(key).ok_or_else(|| StoreError::damaged("email", "a bad key"))
    };
    let (begin, end) = keys::email::state_range(account);
    for pair in tx.range(RangeQuery::new(begin, end).snapshot()).collect().await? {
        let (stamp, state) = keys::email::decode_state(&pair.value)?;
        held.states.insert(email_of(&pair.key)?.0, (stamp.version(), state));
    }
    let (begin, end) = keys::email::meta_range(account);
    for pair in tx.range(RangeQuery::new(begin, end).snapshot()).collect().await? {
        let meta = keys::decode("email meta", &pair.value)?;
        held.metas.insert(email_of(&pair.key)?.0, meta);
    }
    let (begin, end) = keys::log::range_after(account, 0);
    for pair in tx.range(RangeQuery::new(begin, end).snapshot()).collect().await? {
        let version = keys::log::version_of(&pair.key)
            .ok_or_else(|| StoreError::damaged("log", "a bad key"))?;
        held.log.push((version, keys::decode("log", &pair.value)?));
    }
    Ok(held)
}

fn check_fold(held: &Account, found: &mut Vec<String>) {
    let mut folded: BTreeMap<u32, Folded> = BTreeMap::new();
    for (version, entry) in &held.log {
        for change in &entry.emails {
            let before = folded.remove(&change.email);
            let says = (!change.before.is_empty()).then(|| Folded {
                memberships: places(&change.before),
                keywords: change.keywords_before.iter().cloned().collect(),
                modseq: change.modseq_before,
            });
            // What was there before the horizon the log tells only when it changes.
            let is_older =
                before.is_none() && says.as_ref().is_some_and(|says| says.modseq <= held.horizon);
            if before != says && !is_older {
                found.push(format!("email {}: log at {version} begins elsewhere", change.email));
            }
            if !change.after.is_empty() {
                let after = Folded {
                    memberships: places(&change.after),
                    keywords: change.keywords_after.iter().cloned().collect(),
                    modseq: *version,
                };
                folded.insert(change.email, after);
            }
        }
    }
    let states: BTreeMap<u32, Folded> = held
        .states
        .iter()
        .map(|(email, (modseq, state))| {
            let folded = Folded {
                memberships: places(&state.memberships),
                keywords: state.keywords.iter().cloned().collect(),
                modseq: *modseq,
            };
            (*email, folded)
        })
        .collect();
    let emails: BTreeSet<_> = folded.keys().chain(states.keys()).collect();
    for email in emails {
        let (says, is) = (folded.get(email), states.get(email));
        let is_older = says.is_none() && is.is_some_and(|is| is.modseq <= held.horizon);
        if says != is && !is_older {
            found.push(format!("email {email}: log says {says:?}, state says {is:?}",));
        }
    }
}

/// P2: in the order of the log, each mailbox's new UIDs ascend; none comes back.
async fn check_uids(
    tx: &Transaction,
    account: AccountId,
    held: &Account,
    found: &mut Vec<String>,
) -> Result<(), StoreError> {
    let mut highest: BTreeMap<u32, (u64, u32)> = BTreeMap::new();
    let mut given: BTreeSet<(u32, u32)> = BTreeSet::new();
    for (version, entry) in &held.log {
        for change in &entry.emails {
            let before = places(&change.before);
            let is_new = |m: &&Membership| {
                !before.iter().any(|(mailbox, uid, _)| (*mailbox, *uid) == (m.mailbox, m.uid))
            };
            for place in change.after.iter().filter(is_new) {
                if !given.insert((place.mailbox, place.uid)) {
                    found.push(format!("mailbox {}: UID {} twice", place.mailbox, place.uid));
                }
                let last = highest.entry(place.mailbox).or_insert((*version, 0));
                if last.0 < *version && place.uid < last.1 {
                    let Membership { mailbox, uid, .. } = place;
                    found.push(format!("mailbox {mailbox}: UID {uid} became visible late"));
                }
                *last = (*version, last.1.max(place.uid));
            }
        }
    }
    let mut held_now: BTreeSet<(u32, u32)> = BTreeSet::new();
    for place in held.states.values().flat_map(|(_, state)| &state.memberships) {
        if !held_now.insert((place.mailbox, place.uid)) {
            found.push(format!("mailbox {}: two emails at UID {}", place.mailbox, place.uid));
        }
        let last = highest.entry(place.mailbox).or_insert((0, 0));
        last.1 = last.1.max(place.uid);
    }
    for (mailbox, (_, uid)) in highest {
        let key = keys::mailbox::next_uid_key(account, MailboxId(mailbox));
        let alive = tx.get_snapshot(&keys::mailbox::key(account, MailboxId(mailbox))).await?;
        let next = read_u32(tx, &key).await?.unwrap_or(1);
        if alive.is_some() && next <= uid {
            found.push(format!("mailbox {mailbox}: next UID {next} is not above {uid}"));
        }
    }
    Ok(())
}

async fn check_counters(
    tx: &Transaction,
    account: AccountId,
    held: &Account,
    found: &mut Vec<String>,
) -> Result<(), StoreError> {
    let mut counts = AccountCounts::default();
    let mut totals: BTreeMap<u32, MailboxTotals> = BTreeMap::new();
    for (_, state) in held.states.values() {
        let size = i64::try_from(state.size).unwrap_or(i64::MAX);
        counts.bytes += size;
        counts.emails += 1;
        for place in &state.memberships {
            let one = tally(place, is_seen(&state.keywords), size);
            let sum = totals.entry(place.mailbox).or_default();
            sum.total += one.total;
            sum.unseen += one.unseen;
            sum.deleted += one.deleted;
            sum.bytes += one.bytes;
        }
    }
    let stored = tx.get_snapshot(&keys::counter::account_key(account)).await?;
    let stored = AccountCounts::decode(stored.as_deref())?;
    if stored != counts {
        found.push(format!("account: counters say {stored:?}, the fold says {counts:?}"));
    }
    let tree = mailbox_tree(tx, account).await?;
    let all: BTreeSet<u32> =
        totals.keys().copied().chain(tree.iter().map(|mailbox| mailbox.id.0)).collect();
    for mailbox in all {
        let key = keys::counter::mailbox_key(account, MailboxId(mailbox));
        let stored = MailboxTotals::decode(tx.get_snapshot(&key).await?.as_deref())?;
        let fold = totals.get(&mailbox).copied().unwrap_or_default();
        if stored != fold {
            found.push(format!("mailbox {mailbox}: counters say {stored:?}, fold {fold:?}"));
        }
    }
    Ok(())
}

/// Each state has its meta, its thread membership and its blob reference; no meta stands alone.
async fn check_metas(
    tx: &Transaction,
    account: AccountId,
    held: &Account,
    found: &mut Vec<String>,
) -> Result<(), StoreError> {
    let states: BTreeSet<u32> = held.states.keys().copied().collect();
    let metas: BTreeSet<u32> = held.metas.keys().copied().collect();
    for email in states.symmetric_difference(&metas) {
        found.push(format!("email {email}: has only one of state and meta"));
    }
    for (email, meta) in &held.metas {
        let thread = crate::ThreadId(meta.thread);
        let key = keys::thread::member_key(account, thread, crate::EmailId(*email));
        if tx.get_snapshot(&key).await?.is_none() {
            found.push(format!("email {email}: not in its thread"));
        }
        let referenced = match blob::BlobId::from_slice(&meta.blob) {
            Some(id) => {
                let owner = blob::Owner::Email(account.0, *email);
                blob::references::exists(tx, id, &owner).await?
            }
            None => false,
        };
        if !referenced {
            found.push(format!("email {email}: its blob is not referenced"));
        }
    }
    Ok(())
}

/// The index of names says what the mailboxes' records say.
async fn check_names(
    tx: &Transaction,
    account: AccountId,
    found: &mut Vec<String>,
) -> Result<(), StoreError> {
    let tree = mailbox_tree(tx, account).await?;
    let mut records = BTreeSet::new();
    for mailbox in tree.iter() {
        let key = keys::mailbox::name_key(account, mailbox.parent, &mailbox.name);
        records.insert((key, mailbox.id.0));
    }
    let mut index = BTreeSet::new();
    let (begin, end) = keys::mailbox::name_range(account);
    for pair in tx.range(RangeQuery::new(begin, end).snapshot()).collect().await? {
        index.insert((pair.key.to_vec(), decode_u32(&pair.value)?));
    }
    for (_, mailbox) in records.symmetric_difference(&index) {
        found.push(format!("mailbox {mailbox}: name and index differ"));
    }
    Ok(())
}

fn places(memberships: &[Membership]) -> BTreeSet<(u32, u32, bool)> {
    memberships.iter().map(|m| (m.mailbox, m.uid, m.deleted)).collect()
}
