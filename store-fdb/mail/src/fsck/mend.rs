//! Mending what follows from what is right.
//!
//! [`crate::AccountUnit`] writes these families so that they agree; this writes them where they do
//! not, which no unit can, because a unit writes differences to what it takes for right. So each
//! repair here reads, in the transaction that mends and with conflict, both what it changes and
//! what that follows from; it mends nothing that is right by then, and running it again changes
//! nothing. None of them writes an email's state or meta, and none changes what a client sees of an
//! email: so none is in the log.

use blob::{BlobId, Owner, references::AdoptError};
use env::Timestamp;
use kv::{AtomicOp, RangeQuery, Subspace, Transaction, tuple::pack};

use super::{
    Damage, Event, FsckError, Owners, references, stray, sum,
    threads::{is_member, is_needed},
    walk::Walk,
};
use crate::{
    AccountId, EmailId, MailboxId, StoreError,
    directory::{self, Address},
    keys::{self, email::EmailMeta},
    limits::DELETED_ROWS_PER_TRANSACTION,
    mailbox_tree,
    unit::{decode_u32, live_account},
};

/// What became of a repair.
type Mended = Result<(), String>;

/// Mends each; tells what became of it; the number of those that were mended.
pub(super) async fn mend_all(walk: &mut Walk, damages: Vec<Damage>) -> Result<u64, FsckError> {
    let mut mended = 0;
    if damages.iter().any(|damage| matches!(damage, Damage::Orphan(_))) {
        // The check may have taken long.
        blob::binding::verify(&walk.db, &walk.blobs).await?;
    }
    // One repair sets all of an account's counters.
    let mut counters: Option<(AccountId, Mended)> = None;
    for damage in damages {
        let account = counters_of(&damage);
        let outcome = match (&counters, account) {
            (Some((held, outcome)), Some(account)) if *held == account => outcome.clone(),
            (_, Some(account)) => {
                let outcome = if sum::mend(walk, account).await? {
                    Ok(())
                } else {
                    Err("the account changes too fast, or holds what cannot be read".to_owned())
                };
                counters = Some((account, outcome.clone()));
                outcome
            }
            (_, None) => mend(walk, &damage).await?,
        };
        match outcome {
            Ok(()) => {
                mended += 1;
                walk.summary.mended += 1;
                tracing::info!(code = damage.code(), account = ?damage.account(), %damage, "mended");
                walk.tell(Event::Mended(damage)).await?;
            }
            Err(reason) => {
                tracing::warn!(code = damage.code(), %damage, reason, "not mended");
                walk.tell(Event::NotMended(damage, reason)).await?;
            }
        }
    }
    Ok(mended)
}

/// The account whose counters are to be set.
fn counters_of(damage: &Damage) -> Option<AccountId> {
    match damage {
        Damage::Undecodable { family: "counter", key } => stray::account_of(key),
        damage if damage.is_counter() => damage.account(),
        _ => None,
    }
}

async fn mend(walk: &mut Walk, damage: &Damage) -> Result<Mended, FsckError> {
    if let Damage::NoReference(blob, _) = damage
        && let Err(error) = walk.check_blob(*blob).await
    {
        return Ok(Err(error.to_string()));
    }
    if let Damage::StrayKeys { account, family } = damage {
        return clear_family(walk, *account, family.subspace).await;
    }
    let (now, owners) = (walk.env.wall(), walk.owners);
    if let Damage::Orphan(name) = damage {
        // Marked, it is the sweeper's; where somebody needs it by now, all is right.
        blob::audit::repair_orphan(&walk.db, *name, now).await?;
        return Ok(Ok(()));
    }
    match walk.db.run(|tx| async move { mend_one(&tx, damage, owners, now).await }).await {
        Ok(mended) => Ok(mended),
        // With the account its damages are gone.
        Err(StoreError::NoAccount(_)) => Ok(Ok(())),
        // What the repair follows from is damaged itself.
        Err(error @ (StoreError::Damaged { .. } | StoreError::BlobGone(_))) => {
            Ok(Err(error.to_string()))
        }
        Err(error @ StoreError::Kv(_)) => Err(error.into()),
    }
}

async fn mend_one(
    tx: &Transaction,
    damage: &Damage,
    owners: Owners,
    now: Timestamp,
) -> Result<Mended, StoreError> {
    match damage {
        Damage::NoThreadMember(account, _, email) | Damage::NoThreadKey(account, _, email) => {
            thread_keys(tx, *account, *email).await
        }
        Damage::StrayThreadMember(account, thread, email) => {
            if !is_member(tx, *account, *thread, *email).await? {
                tx.clear(&keys::thread::member_key(*account, *thread, *email));
            }
            Ok(Ok(()))
        }
        Damage::StrayThreadKey(account, hash, email) => {
            let asks = |meta: &EmailMeta| meta.thread_keys.contains(hash);
            if !is_needed(tx, *account, *email, asks).await? {
                tx.clear(&keys::thread::key(*account, *hash, *email));
            }
            Ok(Ok(()))
        }
        Damage::NextUid { account, mailbox, highest, .. } => {
            let record = tx.get(&keys::mailbox::key(*account, *mailbox)).await?;
            if record.is_none() {
                return Ok(Ok(()));
            }
            raise(tx, &keys::mailbox::next_uid_key(*account, *mailbox), *highest).await
        }
        Damage::NextEmail { account, highest, .. } => {
            live_account(tx, *account).await?;
            raise(tx, &keys::mailbox::next_email_key(*account), *highest).await
        }
        Damage::NextMailbox { account, highest, .. } => {
            live_account(tx, *account).await?;
            raise(tx, &keys::mailbox::next_mailbox_key(*account), *highest).await
        }
        Damage::NextAccount { highest, .. } => {
            let key = keys::account::next_id_key();
            tx.atomic(&key, &highest.0.to_le_bytes(), AtomicOp::Max);
            Ok(Ok(()))
        }
        Damage::NoName(account, mailbox) => name(tx, *account, *mailbox).await,
        Damage::StrayName { account, key, .. } => stray_name(tx, *account, key).await,
        Damage::StrayCounters(account, mailbox) => {
            let key = keys::counter::mailbox_key(*account, *mailbox);
            clear_of_no_mailbox(tx, *account, *mailbox, &key).await
        }
        Damage::StrayNextUid(account, mailbox) => {
            let key = keys::mailbox::next_uid_key(*account, *mailbox);
            clear_of_no_mailbox(tx, *account, *mailbox, &key).await
        }
        Damage::View(account, mailbox) => {
            // Without a checkpoint a view is built from the log or the states.
            let header = keys::view::header_key(*account, *mailbox);
            tx.add_read_conflict_key(&header);
            tx.clear(&header);
            let (begin, end) = keys::view::page_range(*account, *mailbox);
            tx.clear_range(&begin, &end);
            Ok(Ok(()))
        }
        Damage::NoAddress(account, name) => address(tx, *account, name).await,
        Damage::NoReference(blob, owner) => reference(tx, owners, *blob, *owner).await,
        Damage::StrayReference(blob, owner) => {
            if !references::has(tx, owners, *blob, *owner).await? {
                blob::references::remove(tx, *blob, owner, now);
            }
            Ok(Ok(()))
        }
        _ => Ok(Err("it needs a person".to_owned())),
    }
}

/// Writes the thread keys that an email's meta names.
async fn thread_keys(
    tx: &Transaction,
    account: AccountId,
    email: EmailId,
) -> Result<Mended, StoreError> {
    let Some(value) = tx.get(&keys::email::meta_key(account, email)).await? else {
        return Ok(Ok(()));
    };
    let meta: EmailMeta = keys::decode("email meta", &value)?;
    let thread = crate::ThreadId(meta.thread);
    for hash in &meta.thread_keys {
        tx.set(&keys::thread::key(account, *hash, email), &thread.0.to_le_bytes());
    }
    tx.set(&keys::thread::member_key(account, thread, email), &[]);
    Ok(Ok(()))
}

/// Puts a counter above what has been given out.
async fn raise(tx: &Transaction, key: &[u8], highest: u32) -> Result<Mended, StoreError> {
    let stored = tx.get(key).await?;
    let next = stored.as_deref().map(decode_u32).transpose()?.unwrap_or(1);
    let Some(above) = highest.checked_add(1) else {
        return Ok(Err("all numbers are used up".to_owned()));
    };
    if next < above {
        tx.set(key, &above.to_le_bytes());
    }
    Ok(Ok(()))
}

/// Writes a mailbox's name into the index.
async fn name(
    tx: &Transaction,
    account: AccountId,
    mailbox: MailboxId,
) -> Result<Mended, StoreError> {
    let tree = mailbox_tree(tx, account).await?;
    let Some(held) = tree.by_id(mailbox) else { return Ok(Ok(())) };
    let key = keys::mailbox::name_key(account, held.parent, &held.name);
    match tx.get(&key).await?.as_deref().map(decode_u32) {
        Some(Ok(other)) if other != mailbox.0 && tree.by_id(MailboxId(other)).is_some() => {
            Ok(Err("another mailbox has the name".to_owned()))
        }
        _ => {
            tx.set(&key, &mailbox.0.to_le_bytes());
            Ok(Ok(()))
        }
    }
}

/// Points an entry of the index to the mailbox of that name, or clears it where there is none.
async fn stray_name(
    tx: &Transaction,
    account: AccountId,
    key: &[u8],
) -> Result<Mended, StoreError> {
    let tree = mailbox_tree(tx, account).await?;
    tx.add_read_conflict_key(key);
    let of_name =
        tree.iter().find(|held| keys::mailbox::name_key(account, held.parent, &held.name) == key);
    match of_name {
        Some(held) => tx.set(key, &held.id.0.to_le_bytes()),
        None => tx.clear(key),
    }
    Ok(Ok(()))
}

async fn clear_of_no_mailbox(
    tx: &Transaction,
    account: AccountId,
    mailbox: MailboxId,
    key: &[u8],
) -> Result<Mended, StoreError> {
    // Ids are not used again, so it does not come back.
    if tx.get(&keys::mailbox::key(account, mailbox)).await?.is_none() {
        tx.clear(key);
    }
    Ok(Ok(()))
}

/// Leads an account's name to it.
async fn address(tx: &Transaction, account: AccountId, name: &str) -> Result<Mended, StoreError> {
    let record = match live_account(tx, account).await {
        Ok(record) => record,
        Err(StoreError::NoAccount(_)) => return Ok(Ok(())),
        Err(error) => return Err(error),
    };
    let Some(address) = Address::parse(&record.name).ok().filter(|_| record.name == name) else {
        return Ok(Err(format!("{} is no address", record.name)));
    };
    if directory::record(tx, &address).await?.is_some() {
        return Ok(Err("the address stands for something else".to_owned()));
    }
    if !directory::is_local(tx, address.domain()).await? {
        return Ok(Err(format!("the domain {} does not exist", address.domain())));
    }
    directory::set_account(tx, &address, account);
    Ok(Ok(()))
}

/// Keeps a blob for what has it. The caller has found the blob.
async fn reference(
    tx: &Transaction,
    owners: Owners,
    blob: BlobId,
    owner: Owner,
) -> Result<Mended, StoreError> {
    if !references::has(tx, owners, blob, owner).await? {
        return Ok(Ok(()));
    }
    match blob::references::restore(tx, blob, &owner).await {
        Ok(()) => Ok(Ok(())),
        Err(AdoptError::Gone(_)) => Ok(Err("the blob is being removed".to_owned())),
        Err(AdoptError::Kv(error)) => Err(error.into()),
    }
}

/// Clears the keys of a family that holds no mail, of an account that is gone whole.
async fn clear_family(
    walk: &Walk,
    account: AccountId,
    family: Subspace,
) -> Result<Mended, FsckError> {
    loop {
        let step = walk
            .db
            .run(|tx| async move {
                if tx.get(&keys::account::key(account)).await?.is_some() {
                    return Ok::<_, StoreError>(Ok(false));
                }
                for mail in stray::FAMILIES.iter().filter(|family| family.holds_mail()) {
                    let query = RangeQuery::prefix(&pack(&(mail.subspace as u64, account.0)));
                    if !tx.range(query.limit(1)).collect().await?.is_empty() {
                        let reason = "the account has lost its record, and still holds mail";
                        return Ok(Err(reason.to_owned()));
                    }
                }
                let query = RangeQuery::prefix(&pack(&(family as u64, account.0)));
                let rows = tx.range(query.limit(DELETED_ROWS_PER_TRANSACTION)).collect().await?;
                rows.iter().for_each(|row| tx.clear(&row.key));
                Ok(Ok(!rows.is_empty()))
            })
            .await?;
        match step {
            Ok(true) => {}
            Ok(false) => return Ok(Ok(())),
            Err(reason) => return Ok(Err(reason)),
        }
    }
}
