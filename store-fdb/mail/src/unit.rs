//! One account's changes in one transaction.
//!
//! Operations change emails in memory through [`AccountUnit::email`]; [`AccountUnit::finish`]
//! compares before and after and writes all that follows from it: state, counters, UID counters,
//! thread keys, blob references, and the log. Nothing else writes those families, which is why
//! counters equal the fold of the state (P4) and every change is in the log.

use std::collections::{BTreeMap, btree_map::Entry};

use bytes::Bytes;
use env::{
    Timestamp,
    probe::{self, Planted},
};
use kv::{AtomicOp, Transaction};
use prost::Message;

use crate::{
    AccountId, EmailId, Interested, MailboxId, StoreError, ThreadId, UidValidity, interest,
    keys::{
        self,
        account::Account,
        counter::{AccountCounts, MailboxTotals},
        email::{EmailMeta, EmailState, Membership},
        log::{EmailChange, LogEntry, MailboxChange, MailboxChangeKind},
        mailbox::MailboxRecord,
    },
    limits,
};

/// Everything that one transaction changes in one account.
pub struct AccountUnit {
    pub(crate) tx: Transaction,
    pub(crate) account: AccountId,
    pub(crate) now: Timestamp,
    emails: BTreeMap<EmailId, Touched>,
    mailboxes: BTreeMap<MailboxId, LoadedMailbox>,
    next_email: Option<u32>,
    usage: Option<Usage>,
    mailbox_changes: BTreeMap<MailboxId, MailboxChangeKind>,
}

struct Touched {
    modseq_before: u64,
    before: EmailState,
    after: EmailState,
    /// What a newer release has written into the state.
    newer: Vec<u8>,
}

struct LoadedMailbox {
    record: MailboxRecord,
    /// As it was stored.
    value: Bytes,
    next_uid: Option<u32>,
}

/// Quota and what is used of it, this unit's additions included.
struct Usage {
    quota_bytes: u64,
    bytes: i64,
}

impl AccountUnit {
    /// A unit of `account` in `tx`; a transaction has at most one unit of each account, because
    /// what a unit has written cannot be read before the commit. `now` is read before the retry
    /// loop, so that every attempt uses the same.
    pub fn new(tx: &Transaction, account: AccountId, now: Timestamp) -> Self {
        Self {
            tx: tx.clone(),
            account,
            now,
            emails: BTreeMap::new(),
            mailboxes: BTreeMap::new(),
            next_email: None,
            usage: None,
            mailbox_changes: BTreeMap::new(),
        }
    }

    /// The account.
    pub fn account(&self) -> AccountId {
        self.account
    }

    /// Emails this unit has touched so far; at most [`limits::EMAILS_PER_UNIT_MAX`] make sense.
    pub fn touched(&self) -> usize {
        self.emails.len()
    }

    /// The email's state, to look at and to change. `None` where it does not exist.
    pub(crate) async fn email(
        &mut self,
        email: EmailId,
    ) -> Result<Option<&mut EmailState>, StoreError> {
        let touched = match self.emails.entry(email) {
            Entry::Occupied(held) => held.into_mut(),
            Entry::Vacant(vacant) => {
                let key = keys::email::state_key(self.account, email);
                let value = if env::probe::planted(Planted::StateOutsideTransaction) {
                    self.tx.get_snapshot(&key).await?
                } else {
                    self.tx.get(&key).await?
                };
                let Some(value) = value else { return Ok(None) };
                let (stamp, state) = keys::email::decode_state(&value)?;
                vacant.insert(Touched {
                    modseq_before: stamp.version(),
                    newer: keys::email::newer_fields(&state, &value),
                    before: state.clone(),
                    after: state,
                })
            }
        };
        Ok((!touched.after.memberships.is_empty()).then_some(&mut touched.after))
    }

    /// The MODSEQ that the email had before this unit.
    pub(crate) fn modseq_before(&self, email: EmailId) -> u64 {
        self.emails.get(&email).map_or(0, |touched| touched.modseq_before)
    }

    /// Adds a new email.
    pub(crate) fn create_email(&mut self, email: EmailId, state: EmailState) {
        let before = EmailState {
            thread: state.thread,
            size: state.size,
            received_ms: state.received_ms,
            ..EmailState::default()
        };
        let touched = Touched { modseq_before: 0, before, after: state, newer: Vec::new() };
        self.emails.insert(email, touched);
    }

    /// The mailbox's record; `None` where it does not exist or is being deleted. The read
    /// conflicts with a deletion.
    pub(crate) async fn mailbox(
        &mut self,
        mailbox: MailboxId,
    ) -> Result<Option<&MailboxRecord>, StoreError> {
        Ok(self.load_mailbox(mailbox).await?.map(|loaded| &loaded.record))
    }

    async fn load_mailbox(
        &mut self,
        mailbox: MailboxId,
    ) -> Result<Option<&mut LoadedMailbox>, StoreError> {
        let loaded = match self.mailboxes.entry(mailbox) {
            Entry::Occupied(held) => held.into_mut(),
            Entry::Vacant(vacant) => {
                let key = keys::mailbox::key(self.account, mailbox);
                let Some(value) = self.tx.get(&key).await? else { return Ok(None) };
                let record = keys::decode("mailbox", &value)?;
                vacant.insert(LoadedMailbox { record, value, next_uid: None })
            }
        };
        Ok((!loaded.record.deleting).then_some(loaded))
    }

    /// Writes a mailbox's record, so that later operations of this unit see it.
    pub(crate) fn write_mailbox(&mut self, mailbox: MailboxId, record: &MailboxRecord) {
        let before = self.mailboxes.get(&mailbox).map_or(&[][..], |loaded| &loaded.value);
        let value = keys::encode_over(record, before);
        self.tx.set(&keys::mailbox::key(self.account, mailbox), &value);
        if let Some(loaded) = self.mailboxes.get_mut(&mailbox) {
            loaded.record = record.clone();
        }
    }

    /// Hands out the next UID of a mailbox that exists.
    pub(crate) async fn assign_uid(
        &mut self,
        mailbox: MailboxId,
    ) -> Result<Option<(UidValidity, u32)>, StoreError> {
        let key = keys::mailbox::next_uid_key(self.account, mailbox);
        let tx = self.tx.clone();
        let Some(loaded) = self.load_mailbox(mailbox).await? else { return Ok(None) };
        let uid = match loaded.next_uid {
            Some(uid) => uid,
            None if env::probe::planted(Planted::UidOutsideTransaction) => {
                let value = tx.get_snapshot(&key).await?;
                value.map(|value| decode_u32(&value)).transpose()?.unwrap_or(1)
            }
            None => read_u32(&tx, &key).await?.unwrap_or(1),
        };
        let next = uid
            .checked_add(1)
            .ok_or_else(|| StoreError::damaged("uid next", "all UIDs are used up"))?;
        loaded.next_uid = Some(next);
        Ok(Some((UidValidity(loaded.record.uid_validity), uid)))
    }

    /// Hands out the account's next email id.
    pub(crate) async fn assign_email(&mut self) -> Result<EmailId, StoreError> {
        let next = match self.next_email {
            Some(next) => next,
            None => {
                read_u32(&self.tx, &keys::mailbox::next_email_key(self.account)).await?.unwrap_or(1)
            }
        };
        let after = next
            .checked_add(1)
            .ok_or_else(|| StoreError::damaged("email next", "all email ids are used up"))?;
        self.next_email = Some(after);
        Ok(EmailId(next))
    }

    /// Takes `size` bytes from the quota.
    ///
    /// # Errors
    /// Inner `Err((used, quota))` where they do not fit.
    pub(crate) async fn take_quota(
        &mut self,
        size: u64,
    ) -> Result<Result<(), (u64, u64)>, StoreError> {
        let usage = match &mut self.usage {
            Some(usage) => usage,
            None => {
                let record = live_account(&self.tx, self.account).await?;
                // Only a limit makes the count matter; without one appends need not conflict.
                let counts = if record.quota_bytes == 0 {
                    AccountCounts::default()
                } else {
                    let counter = self.tx.get(&keys::counter::account_key(self.account)).await?;
                    AccountCounts::decode(counter.as_deref())?
                };
                self.usage.insert(Usage { quota_bytes: record.quota_bytes, bytes: counts.bytes })
            }
        };
        let used = u64::try_from(usage.bytes).unwrap_or(0);
        if usage.quota_bytes != 0 && used.saturating_add(size) > usage.quota_bytes {
            env::sometimes!("a mailbox was full");
            return Ok(Err((used, usage.quota_bytes)));
        }
        if !probe::planted(Planted::ForgetUsage) {
            usage.bytes = usage.bytes.saturating_add_unsigned(size);
        }
        Ok(Ok(()))
    }

    pub(crate) fn note_mailbox(&mut self, mailbox: MailboxId, kind: MailboxChangeKind) {
        self.mailbox_changes
            .entry(mailbox)
            .and_modify(|held| {
                // Created and then renamed in one transaction is still created.
                if *held != MailboxChangeKind::Created || kind == MailboxChangeKind::Destroyed {
                    *held = kind;
                }
            })
            .or_insert(kind);
    }

    /// Writes what follows from the changes: state, counters, references, the log, and the inboxes
    /// of those who listen, who are to be woken after the commit. A unit that changed nothing
    /// writes nothing.
    ///
    /// # Errors
    /// [`StoreError`]; the transaction must then not commit.
    pub async fn finish(self) -> Result<Interested, StoreError> {
        let mut log = LogWriter::new(&self.tx, self.account);
        let mut account_delta = AccountCounts::default();
        let mut mailbox_deltas: BTreeMap<MailboxId, MailboxTotals> = BTreeMap::new();
        for (email, touched) in &self.emails {
            // Made and removed by this very unit: nobody saw it, but it has written its keys.
            if touched.before.memberships.is_empty() && touched.after.memberships.is_empty() {
                destroy(&self.tx, self.account, *email, &touched.before, self.now).await?;
                continue;
            }
            if touched.before == touched.after {
                continue;
            }
            count(touched, &mut account_delta, &mut mailbox_deltas);
            if touched.after.memberships.is_empty() {
                destroy(&self.tx, self.account, *email, &touched.before, self.now).await?;
            } else {
                self.tx.atomic(
                    &keys::email::state_key(self.account, *email),
                    &keys::email::encode_state(&touched.after, &touched.newer),
                    AtomicOp::SetVersionstampedValue,
                );
            }
            log.email(touched.change(*email));
        }
        for (mailbox, kind) in &self.mailbox_changes {
            log.mailbox(MailboxChange { mailbox: mailbox.0, kind: *kind as i32 });
        }
        log.flush();
        let wrote = log.order > 0;
        if probe::planted(Planted::CountBySnapshot) {
            let key = keys::counter::account_key(self.account);
            let held = AccountCounts::decode(self.tx.get_snapshot(&key).await?.as_deref())?;
            let bytes = held.bytes + account_delta.bytes;
            let emails = held.emails + account_delta.emails;
            self.tx.set(&key, &AccountCounts { bytes, emails }.operand());
            account_delta = AccountCounts::default();
        }
        self.write_counters(account_delta, &mailbox_deltas);
        if wrote { interest::tell(&self.tx, self.account).await } else { Ok(Interested::default()) }
    }

    fn write_counters(
        &self,
        account_delta: AccountCounts,
        mailbox_deltas: &BTreeMap<MailboxId, MailboxTotals>,
    ) {
        if account_delta != AccountCounts::default() {
            let key = keys::counter::account_key(self.account);
            self.tx.atomic(&key, &account_delta.operand(), AtomicOp::Add);
        }
        for (mailbox, delta) in mailbox_deltas {
            if *delta != MailboxTotals::default() {
                let key = keys::counter::mailbox_key(self.account, *mailbox);
                self.tx.atomic(&key, &delta.operand(), AtomicOp::Add);
            }
        }
        if let Some(next) = self.next_email {
            self.tx.set(&keys::mailbox::next_email_key(self.account), &next.to_le_bytes());
        }
        for (mailbox, loaded) in &self.mailboxes {
            if let Some(next) = loaded.next_uid {
                let key = keys::mailbox::next_uid_key(self.account, *mailbox);
                self.tx.set(&key, &next.to_le_bytes());
            }
        }
    }
}

impl Touched {
    fn change(&self, email: EmailId) -> EmailChange {
        EmailChange {
            email: email.0,
            thread: self.after.thread,
            size: self.after.size,
            received_ms: self.after.received_ms,
            modseq_before: self.modseq_before,
            before: self.before.memberships.clone(),
            after: self.after.memberships.clone(),
            keywords_before: self.before.keywords.clone(),
            keywords_after: self.after.keywords.clone(),
        }
    }
}

/// The record of an account that is not being deleted. The read conflicts with a deletion.
pub(crate) async fn live_account(
    tx: &Transaction,
    account: AccountId,
) -> Result<Account, StoreError> {
    let value = tx.get(&keys::account::key(account)).await?;
    let value = value.ok_or(StoreError::NoAccount(account))?;
    let record: Account = keys::decode("account", &value)?;
    if record.deleting { Err(StoreError::NoAccount(account)) } else { Ok(record) }
}

/// Adds the difference that one email makes to the counters.
fn count(
    touched: &Touched,
    account: &mut AccountCounts,
    mailboxes: &mut BTreeMap<MailboxId, MailboxTotals>,
) {
    for (state, sign) in [(&touched.before, -1), (&touched.after, 1)] {
        let size = i64::try_from(state.size).unwrap_or(i64::MAX);
        if !state.memberships.is_empty() {
            account.bytes += sign * size;
            account.emails += sign;
        }
        for membership in &state.memberships {
            let totals = mailboxes.entry(MailboxId(membership.mailbox)).or_default();
            let one = tally(membership, is_seen(&state.keywords), size);
            totals.total += sign * one.total;
            totals.unseen += sign * one.unseen;
            totals.deleted += sign * one.deleted;
            totals.bytes += sign * one.bytes;
        }
    }
}

/// What one message adds to its mailbox's totals.
pub(crate) fn tally(membership: &Membership, seen: bool, size: i64) -> MailboxTotals {
    MailboxTotals {
        total: 1,
        unseen: i64::from(!seen),
        deleted: i64::from(membership.deleted),
        bytes: size,
    }
}

pub(crate) fn is_seen(keywords: &[String]) -> bool {
    keywords.iter().any(|keyword| keyword == crate::Keyword::SEEN)
}

/// Clears what an email leaves when no mailbox holds it any more.
async fn destroy(
    tx: &Transaction,
    account: AccountId,
    email: EmailId,
    state: &EmailState,
    now: Timestamp,
) -> Result<(), StoreError> {
    let meta_key = keys::email::meta_key(account, email);
    if let Some(value) = tx.get(&meta_key).await? {
        let meta: EmailMeta = keys::decode("email meta", &value)?;
        for hash in &meta.thread_keys {
            tx.clear(&keys::thread::key(account, *hash, email));
        }
        if let Some(blob) = blob::BlobId::from_slice(&meta.blob) {
            blob::references::remove(tx, blob, &blob::Owner::Email(account.0, email.0), now);
        }
    }
    tx.clear(&meta_key);
    tx.clear(&keys::thread::member_key(account, ThreadId(state.thread), email));
    tx.clear(&keys::email::state_key(account, email));
    Ok(())
}

/// Splits the changes over as many entries as the value limit asks for.
struct LogWriter<'a> {
    tx: &'a Transaction,
    account: AccountId,
    entry: LogEntry,
    bytes: usize,
    order: u16,
}

impl<'a> LogWriter<'a> {
    fn new(tx: &'a Transaction, account: AccountId) -> Self {
        Self { tx, account, entry: LogEntry::default(), bytes: 0, order: 0 }
    }

    fn email(&mut self, change: EmailChange) {
        self.make_room(change.encoded_len());
        self.entry.emails.push(change);
    }

    fn mailbox(&mut self, change: MailboxChange) {
        self.make_room(change.encoded_len());
        self.entry.mailboxes.push(change);
    }

    /// Counts a change in, with its tag and length; ends the entry that it would not fit into.
    fn make_room(&mut self, encoded_len: usize) {
        let bytes = encoded_len + 8;
        if self.bytes + bytes > limits::LOG_ENTRY_BYTES_MAX {
            self.flush();
        }
        self.bytes += bytes;
    }

    fn flush(&mut self) {
        let entry = std::mem::take(&mut self.entry);
        self.bytes = 0;
        if entry == LogEntry::default() {
            return;
        }
        let key = keys::log::key_for_commit(self.account, self.order);
        self.tx.atomic(&key, &entry.encode_to_vec(), AtomicOp::SetVersionstampedKey);
        self.order += 1;
    }
}

/// Reads a 32-bit number.
pub(crate) async fn read_u32(tx: &Transaction, key: &[u8]) -> Result<Option<u32>, StoreError> {
    tx.get(key).await?.map(|value| decode_u32(&value)).transpose()
}

pub(crate) fn decode_u32(value: &[u8]) -> Result<u32, StoreError> {
    let bytes: [u8; 4] = value
        .try_into()
        .map_err(|_| StoreError::damaged("number", format!("{} bytes", value.len())))?;
    Ok(u32::from_le_bytes(bytes))
}
