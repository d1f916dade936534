//! Append: a new email becomes visible in one mailbox.

use std::sync::Arc;

use blob::BlobId;
use env::Timestamp;
use kv::{Prefetch, RangeQuery};
use prost::Message;

use crate::{
    AccountId, AccountUnit, EmailId, KeywordSet, MailboxId, ModSeq, OperationId, StoreError,
    ThreadId, Uid, UidValidity,
    error::store_error,
    interest,
    keys::{
        self,
        email::{EmailMeta, EmailState, Membership},
    },
    limits,
    operation::{self, Outcome, OutcomeRow},
    unit::decode_u32,
};

/// A message whose bytes are already in the blob store. One value serves all its recipients.
#[derive(Debug, Clone)]
pub struct NewEmail {
    /// The message's bytes.
    pub blob: BlobId,
    /// How many.
    pub size: u64,
    /// INTERNALDATE (RFC 9051 §2.3.3).
    pub received_at: Timestamp,
    /// Flags it starts with.
    pub keywords: KeywordSet,
    /// Whether it starts with `\\Deleted`, as an IMAP client may ask.
    pub deleted: bool,
    /// The encoded [`EmailMeta`] without the fields that differ between accounts.
    pub(crate) meta: Arc<[u8]>,
    /// Thread key hashes in the order to look them up.
    pub(crate) thread_lookups: Arc<[u64]>,
    /// Thread key hashes to write.
    pub(crate) thread_keys: Arc<[u64]>,
}

/// Where a new email became visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Its id.
    pub email: EmailId,
    /// Its thread.
    pub thread: ThreadId,
    /// Its UID.
    pub uid: Uid,
    /// The mailbox's UIDVALIDITY.
    pub uid_validity: UidValidity,
    /// Set where an earlier try of this operation had already committed: its MODSEQ.
    pub earlier: Option<ModSeq>,
}

/// Why a message was not appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The mailbox does not exist.
    #[error("mailbox {0} does not exist")]
    NoMailbox(MailboxId),
    /// The message does not fit.
    #[error("{size} bytes over {used} used exceed the quota of {quota}")]
    OverQuota {
        /// The message's bytes.
        size: u64,
        /// Bytes in use.
        used: u64,
        /// Bytes allowed.
        quota: u64,
    },
    /// More keywords than one email may have.
    #[error("more than {max} keywords", max = limits::KEYWORDS_PER_EMAIL_MAX)]
    TooManyKeywords,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
store_error!(AppendError);

/// Appends `email` to `mailbox`. A second run of the same `operation` changes nothing and answers
/// as the first. A refusal leaves the unit as it was, so that others may go on in it.
///
/// # Errors
/// [`AppendError`].
pub async fn append(
    unit: &mut AccountUnit,
    mailbox: MailboxId,
    email: &NewEmail,
    operation: OperationId,
) -> Result<Appended, AppendError> {
    if let Some((modseq, outcome)) = unit.outcome(operation).await? {
        return Ok(appended_before(modseq, &outcome)?);
    }
    if email.keywords.len() > limits::KEYWORDS_PER_EMAIL_MAX {
        return Err(AppendError::TooManyKeywords);
    }
    if unit.mailbox(mailbox).await?.is_none() {
        return Err(AppendError::NoMailbox(mailbox));
    }
    if let Err((used, quota)) = unit.take_quota(email.size).await? {
        return Err(AppendError::OverQuota { size: email.size, used, quota });
    }
    let (uid_validity, uid) =
        unit.assign_uid(mailbox).await?.ok_or(AppendError::NoMailbox(mailbox))?;
    let id = unit.assign_email().await?;
    let thread = find_thread(unit, email).await?.unwrap_or(ThreadId(id.0));
    unit.create_email(
        id,
        EmailState {
            memberships: vec![Membership { mailbox: mailbox.0, uid, deleted: email.deleted }],
            keywords: email.keywords.to_record(),
            thread: thread.0,
            size: email.size,
            received_ms: email.received_at.unix_ms(),
        },
    );
    let own = EmailMeta {
        thread: thread.0,
        received_ms: email.received_at.unix_ms(),
        ..EmailMeta::default()
    };
    // Protobuf: concatenated messages are merged, so the shared bytes are encoded only once.
    let mut meta = email.meta.to_vec();
    own.encode(&mut meta).expect("a Vec grows as needed");
    write_immutable(unit, id, thread, &Immutable { meta: &meta, thread_keys: &email.thread_keys });
    let owner = blob::Owner::Email(unit.account.0, id.0);
    blob::references::adopt(&unit.tx, email.blob, &owner, unit.now)
        .await
        .map_err(StoreError::from)?;
    let row = OutcomeRow { email: id.0, thread: thread.0, from_uid: 0, to_uid: uid };
    unit.record(
        operation,
        &Outcome { rows: vec![row], number: uid_validity.0, ..Outcome::default() },
    );
    let uid = Uid::new(uid).ok_or_else(|| StoreError::damaged("uid next", "zero"))?;
    Ok(Appended { email: id, thread, uid, uid_validity, earlier: None })
}

/// What [`append`] will read whichever the mailbox.
pub fn append_ahead(
    ahead: &mut Prefetch,
    account: AccountId,
    email: &NewEmail,
    operation: OperationId,
    now: Timestamp,
) {
    for key in operation::lookups(account, operation, now) {
        ahead.key(key);
    }
    ahead.key(keys::account::key(account));
    ahead.key(keys::mailbox::next_email_key(account));
    interest::tell_ahead(ahead, account);
    for hash in email.thread_lookups.iter() {
        ahead.range(thread_query(account, *hash));
    }
    blob::references::adopt_ahead(ahead, email.blob);
}

/// What [`append`] will read of the mailbox.
pub fn append_ahead_to(ahead: &mut Prefetch, account: AccountId, mailbox: MailboxId) {
    ahead.key(keys::mailbox::key(account, mailbox));
    ahead.key(keys::mailbox::next_uid_key(account, mailbox));
}

/// What is written of an email once and for all.
pub(crate) struct Immutable<'a> {
    /// The encoded [`EmailMeta`], complete.
    pub(crate) meta: &'a [u8],
    pub(crate) thread_keys: &'a [u64],
}

/// Meta and thread keys.
pub(crate) fn write_immutable(
    unit: &AccountUnit,
    id: EmailId,
    thread: ThreadId,
    email: &Immutable<'_>,
) {
    unit.tx.set(&keys::email::meta_key(unit.account, id), email.meta);
    for hash in email.thread_keys {
        unit.tx.set(&keys::thread::key(unit.account, *hash, id), &thread.0.to_le_bytes());
    }
    unit.tx.set(&keys::thread::member_key(unit.account, thread, id), &[]);
}

/// The thread of the first of the email's message ids that is known in the account.
async fn find_thread(unit: &AccountUnit, email: &NewEmail) -> Result<Option<ThreadId>, StoreError> {
    for hash in email.thread_lookups.iter() {
        let found = unit.tx.range(thread_query(unit.account, *hash)).collect().await?;
        if let Some(pair) = found.first() {
            return Ok(Some(ThreadId(decode_u32(&pair.value)?)));
        }
    }
    Ok(None)
}

fn thread_query(account: AccountId, hash: u64) -> RangeQuery {
    let (begin, end) = keys::thread::range(account, hash);
    RangeQuery::new(begin, end).limit(1)
}

fn appended_before(modseq: ModSeq, outcome: &Outcome) -> Result<Appended, StoreError> {
    let row = outcome.rows.first();
    row.and_then(|row| {
        Some(Appended {
            email: EmailId(row.email),
            thread: ThreadId(row.thread),
            uid: Uid::new(row.to_uid)?,
            uid_validity: UidValidity(outcome.number),
            earlier: Some(modseq),
        })
    })
    .ok_or_else(|| StoreError::damaged("operation", "an append without its row"))
}
