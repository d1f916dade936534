//! What concerns one email, read together: state, meta, thread keys, blob reference, the mailboxes
//! that it is in, and the log's entry of its last change.

use std::collections::BTreeMap;

use blob::{BlobId, Owner};
use kv::Transaction;

use super::{
    Damage, FsckError,
    history::Entries,
    walk::{Walk, stretch},
};
use crate::{
    AccountId, EmailId, MailboxId, ModSeq, StoreError, ThreadId,
    keys::{
        self,
        account::Account,
        email::{EmailMeta, EmailState},
        log::EmailChange,
        mailbox::MailboxRecord,
    },
    unit::decode_u32,
};

/// Whether an account is there to be checked. Read in every transaction of its check, because
/// an account that is being deleted goes in several.
pub(super) async fn is_alive(tx: &Transaction, account: AccountId) -> Result<bool, StoreError> {
    let Some(value) = tx.get_snapshot(&keys::account::key(account)).await? else {
        return Ok(false);
    };
    // A record that cannot be decoded is told by whoever lists the accounts.
    Ok(keys::decode::<Account>("account", &value).is_ok_and(|record| !record.deleting))
}

/// What one step found.
pub(super) struct Checked {
    pub(super) damages: Vec<Damage>,
    pub(super) rows: u64,
    /// Where to go on; `None` at the end, or where the account is gone.
    pub(super) next: Option<Vec<u8>>,
}

impl Checked {
    pub(super) const GONE: Self = Self { damages: Vec::new(), rows: 0, next: None };
}

/// Goes through a range of keys from `begin` on, a page a step, and tells what each page found.
/// `page` gets where to begin and the number of rows that a step may read.
pub(super) async fn check_pages<F, Fut>(
    walk: &mut Walk,
    begin: Vec<u8>,
    page: F,
) -> Result<(), FsckError>
where
    F: Fn(Transaction, Vec<u8>, usize) -> Fut + Send + Sync,
    Fut: Future<Output = Result<Checked, StoreError>> + Send,
{
    let mut from = begin;
    loop {
        let checked = walk.step(|tx, rows| page(tx, from.clone(), rows)).await?;
        walk.progress.emails += checked.rows;
        walk.find_all(checked.damages).await?;
        match checked.next {
            Some(next) => from = next,
            None => return Ok(()),
        }
    }
}

/// Checks every email of the account.
pub(super) async fn check(walk: &mut Walk, account: AccountId) -> Result<(), FsckError> {
    let (begin, _) = keys::email::state_range(account);
    check_pages(
        walk,
        begin,
        |tx, from, rows| async move { page(&tx, account, &from, rows / 2).await },
    )
    .await
}

/// An email's rows; `Err` of one that cannot be decoded.
#[derive(Default)]
struct Rows {
    state: Option<Result<(u64, EmailState), ()>>,
    meta: Option<Result<EmailMeta, ()>>,
}

/// Checks the emails from the state key `from` on.
async fn page(
    tx: &Transaction,
    account: AccountId,
    from: &[u8],
    most: usize,
) -> Result<Checked, StoreError> {
    if !is_alive(tx, account).await? {
        return Ok(Checked::GONE);
    }
    let mut damages = Vec::new();
    let mut emails: BTreeMap<u32, Rows> = BTreeMap::new();
    let (_, end) = keys::email::state_range(account);
    let states = stretch(tx, from.to_vec(), end, most).await?;
    let (first_meta, end) = keys::email::meta_range(account);
    let first = keys::email::email_of(from)
        .map_or(first_meta, |email| keys::email::meta_key(account, email));
    let metas = stretch(tx, first, end, most).await?;
    for row in &states.rows {
        let family = "email state";
        let Some(EmailId(email)) = email_of(&row.key, family, &mut damages) else { continue };
        let decoded = keys::email::decode_state(&row.value)
            .map(|(stamp, state)| (stamp.version(), state))
            .map_err(|_| damages.push(Damage::Undecodable { family, key: row.key.to_vec() }));
        emails.entry(email).or_default().state = Some(decoded);
    }
    for row in &metas.rows {
        let family = "email meta";
        let Some(EmailId(email)) = email_of(&row.key, family, &mut damages) else { continue };
        let decoded = keys::decode(family, &row.value)
            .map_err(|_| damages.push(Damage::Undecodable { family, key: row.key.to_vec() }));
        emails.entry(email).or_default().meta = Some(decoded);
    }
    // Of what was cut, only what both have reached is known whole.
    let reached = [(&states, true), (&metas, false)]
        .into_iter()
        .filter(|(read, _)| read.is_cut)
        .filter_map(|(read, _)| {
            read.rows.iter().rev().find_map(|row| keys::email::email_of(&row.key))
        })
        .min();
    let next = match reached {
        Some(EmailId(last)) => {
            let beyond = last.checked_add(1);
            if let Some(beyond) = beyond {
                let unknown = emails.split_off(&beyond);
                let known = |key: &[u8]| {
                    keys::email::email_of(key).is_none_or(|email| !unknown.contains_key(&email.0))
                };
                damages
                    .retain(|one| !matches!(one, Damage::Undecodable { key, .. } if !known(key)));
            }
            beyond.map(|beyond| keys::email::state_key(account, EmailId(beyond)))
        }
        None if states.is_cut || metas.is_cut => {
            return Err(StoreError::damaged("email", "a stretch of keys that are no email's"));
        }
        None => None,
    };
    let mut page = Page {
        tx,
        account,
        mailboxes: BTreeMap::new(),
        entries: Entries::new(tx, account).await?,
        damages,
    };
    for (email, rows) in &emails {
        page.email(EmailId(*email), rows).await?;
    }
    Ok(Checked { damages: page.damages, rows: emails.len() as u64, next })
}

fn email_of(key: &[u8], family: &'static str, damages: &mut Vec<Damage>) -> Option<EmailId> {
    let email = keys::email::email_of(key);
    if email.is_none() {
        damages.push(Damage::Undecodable { family, key: key.to_vec() });
    }
    email
}

struct Page<'a> {
    tx: &'a Transaction,
    account: AccountId,
    /// Whether a mailbox exists, those that are being deleted included.
    mailboxes: BTreeMap<u32, bool>,
    entries: Entries,
    damages: Vec<Damage>,
}

impl Page<'_> {
    async fn email(&mut self, email: EmailId, rows: &Rows) -> Result<(), StoreError> {
        let account = self.account;
        match (&rows.state, &rows.meta) {
            (Some(_), None) => self.damages.push(Damage::NoMeta(account, email)),
            (None, Some(_)) => self.damages.push(Damage::NoState(account, email)),
            _ => {}
        }
        if let (Some(Ok((_, state))), Some(Ok(meta))) = (&rows.state, &rows.meta) {
            for (differs, field) in [
                (state.thread != meta.thread, "thread"),
                (state.size != meta.size, "size"),
                (state.received_ms != meta.received_ms, "time of receipt"),
            ] {
                if differs {
                    self.damages.push(Damage::StateAndMeta(account, email, field));
                }
            }
        }
        if let Some(Ok((modseq, state))) = &rows.state {
            self.places(email, state).await?;
            self.last_entry(email, *modseq, state).await?;
        }
        if let Some(Ok(meta)) = &rows.meta {
            self.keys_of(email, meta).await?;
        }
        Ok(())
    }

    async fn places(&mut self, email: EmailId, state: &EmailState) -> Result<(), StoreError> {
        if state.memberships.is_empty() {
            self.damages.push(Damage::NoPlace(self.account, email));
        }
        for place in &state.memberships {
            let mailbox = MailboxId(place.mailbox);
            let exists = match self.mailboxes.get(&mailbox.0) {
                Some(exists) => *exists,
                None => {
                    let key = keys::mailbox::key(self.account, mailbox);
                    let exists = self.tx.get_snapshot(&key).await?.is_some();
                    self.mailboxes.insert(mailbox.0, exists);
                    exists
                }
            };
            if !exists {
                self.damages.push(Damage::NoSuchMailbox(self.account, email, mailbox));
            }
        }
        Ok(())
    }

    /// The log has the change that made the state what it is.
    async fn last_entry(
        &mut self,
        email: EmailId,
        modseq: u64,
        state: &EmailState,
    ) -> Result<(), StoreError> {
        if modseq <= self.entries.horizon() {
            return Ok(());
        }
        let says = |change: &EmailChange| {
            change.after == state.memberships && change.keywords_after == state.keywords
        };
        let damage = match self.entries.change(self.tx, modseq, email).await? {
            Some(change) if says(change) => return Ok(()),
            Some(_) => Damage::LogEntry(self.account, email, ModSeq(modseq)),
            None => Damage::NoLogEntry(self.account, email, ModSeq(modseq)),
        };
        self.damages.push(damage);
        Ok(())
    }

    /// What the meta says that there is: thread keys and the blob's reference.
    async fn keys_of(&mut self, email: EmailId, meta: &EmailMeta) -> Result<(), StoreError> {
        let (tx, account) = (self.tx, self.account);
        let thread = ThreadId(meta.thread);
        let key = keys::thread::member_key(account, thread, email);
        if tx.get_snapshot(&key).await?.is_none() {
            self.damages.push(Damage::NoThreadMember(account, thread, email));
        }
        for hash in &meta.thread_keys {
            let value = tx.get_snapshot(&keys::thread::key(account, *hash, email)).await?;
            if value.and_then(|value| decode_u32(&value).ok()) != Some(thread.0) {
                self.damages.push(Damage::NoThreadKey(account, *hash, email));
            }
        }
        let Some(blob) = BlobId::from_slice(&meta.blob) else {
            let key = keys::email::meta_key(account, email);
            self.damages.push(Damage::Undecodable { family: "email meta", key });
            return Ok(());
        };
        let owner = Owner::Email(account.0, email.0);
        if !blob::references::exists(tx, blob, &owner).await? {
            self.damages.push(Damage::NoReference(blob, owner));
        }
        Ok(())
    }
}

/// A mailbox's record, where it can be decoded.
pub(super) fn mailbox_record(value: &[u8]) -> Option<MailboxRecord> {
    keys::decode("mailbox", value).ok()
}
