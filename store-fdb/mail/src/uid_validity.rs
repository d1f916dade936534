//! UIDVALIDITY (RFC 9051 §2.3.1.1): which one a new mailbox gets, and new ones for all after a
//! restore.
//!
//! A new mailbox gets the time in seconds, or one above the last of its account where that is
//! higher, so that a name never gets the same twice.
//!
//! After a restore UIDs are given out again that the original gave to other messages since the
//! backup, so every mailbox needs a UIDVALIDITY above whatever the original, or an earlier restore
//! of the same backup, showed to anybody. What they showed is not in the backup, but it is bounded:
//! a clock that advances a second each second, and one more for each mailbox that an account made
//! faster than that. So [`renew`] sets the store's clock ([`ValidityClock`]) ahead by
//! [`limits::UID_VALIDITY_LEAP`] and begins there in each account. It holds as long as
//!
//! - wall clocks of the original and of the restore are right within days, and
//! - since the backup no account made a million mailboxes more than seconds passed.
//!
//! Two restores of one backup give a mailbox different values where a second lies between them;
//! another mailbox that was renamed to its name meanwhile, where as many seconds do as the account
//! has mailboxes.

use env::Timestamp;
use kv::{AsKvError, Database, RangeQuery, Transaction};
use prost::Message;

use crate::{
    AccountId, AccountUnit, MailboxId, StoreError, UidValidity,
    keys::{
        self,
        account::Account,
        log::MailboxChangeKind,
        mailbox::{MailboxRecord, ValidityClock},
    },
    limits,
    schema::SchemaError,
    unit::{decode_u32, read_u32},
};

/// What has been renewed so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Renewed {
    /// Accounts.
    pub accounts: u64,
    /// Their mailboxes.
    pub mailboxes: u64,
}

/// Why not every mailbox got a new UIDVALIDITY.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// The store belongs to a newer release.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// 32 bits have room for some two thousand restores of restores.
    #[error("account {0} has no UIDVALIDITY left")]
    UsedUp(AccountId),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<kv::Error> for RenewError {
    fn from(error: kv::Error) -> Self {
        Self::Store(error.into())
    }
}

impl AsKvError for RenewError {
    fn as_kv_error(&self) -> Option<&kv::Error> {
        match self {
            Self::Schema(error) => error.as_kv_error(),
            Self::Store(error) => error.as_kv_error(),
            Self::UsedUp(_) => None,
        }
    }
}

/// The UIDVALIDITY of a mailbox that the unit makes.
pub(crate) async fn next(unit: &AccountUnit) -> Result<UidValidity, StoreError> {
    let key = keys::mailbox::last_uid_validity_key(unit.account);
    let last = read_u32(&unit.tx, &key).await?.unwrap_or(0);
    let after =
        last.checked_add(1).ok_or_else(|| StoreError::damaged("UIDVALIDITY", "all are used up"))?;
    let next = clock(&unit.tx).await?.at(unit.now).max(after);
    unit.tx.set(&key, &next.to_le_bytes());
    Ok(UidValidity(next))
}

async fn clock(tx: &Transaction) -> Result<ValidityClock, StoreError> {
    match tx.get(&keys::mailbox::validity_clock_key()).await? {
        Some(value) => keys::decode("UIDVALIDITY clock", &value),
        None => Ok(ValidityClock::default()),
    }
}

impl ValidityClock {
    fn at(self, now: Timestamp) -> u32 {
        let shown = now.unix_seconds().saturating_add(i64::from(self.ahead_seconds));
        // Zero is no UIDVALIDITY.
        u32::try_from(shown.max(1)).unwrap_or(u32::MAX)
    }
}

/// Gives every mailbox a new, higher UIDVALIDITY that no client was ever shown. For a store that
/// was just restored of a backup begun at `created`, and that nobody else has open. Transactions of
/// bounded rows; `progress` is told after each. Cut off in the middle it is to be begun anew with
/// the restore; another run only gives higher ones.
///
/// What cannot be decoded is left as it is, for nobody can open it, and told in the log.
///
/// # Errors
/// [`RenewError`].
pub async fn renew(
    db: &Database,
    created: Timestamp,
    now: Timestamp,
    mut progress: impl FnMut(Renewed) + Send,
) -> Result<Renewed, RenewError> {
    crate::schema::open(db).await?;
    let leap = Leap::make(db, created, now).await?;
    let mut renewed = Renewed::default();
    let (mut begin, end) = keys::account::range();
    loop {
        let query = RangeQuery::new(begin.clone(), end.clone())
            .limit(limits::RENEWED_ROWS_PER_TRANSACTION)
            .snapshot();
        let query = &query;
        let rows = db
            .run(|tx| async move { Ok::<_, RenewError>(tx.range(query.clone()).collect().await?) })
            .await?;
        let Some(last) = rows.last() else { return Ok(renewed) };
        begin = [&last.key[..], &[0]].concat();
        for row in &rows {
            let Some(account) = keys::account::account_of(&row.key) else { continue };
            // Nobody gets to see the mailboxes of one that is being deleted.
            if Account::decode(&row.value[..]).is_ok_and(|record| record.deleting) {
                continue;
            }
            renewed.accounts += 1;
            renew_account(db, account, leap, now, |mailboxes| {
                renewed.mailboxes += mailboxes;
                progress(renewed);
            })
            .await?;
        }
    }
}

/// How far everything goes up.
#[derive(Debug, Clone, Copy)]
struct Leap {
    /// Above what any account of the original was given by the clock.
    clock: u32,
    /// Above an account's last in the backup.
    seconds: u32,
}

impl Leap {
    /// Sets the store's clock ahead.
    async fn make(db: &Database, created: Timestamp, now: Timestamp) -> Result<Self, RenewError> {
        // Read outside the transaction that writes, which may run twice.
        let before = db.run(|tx| async move { clock(&tx).await }).await?;
        let passed = now.unix_seconds().saturating_sub(created.unix_seconds());
        let within = |seconds: i64| u32::try_from(seconds.max(0)).unwrap_or(u32::MAX);
        // A clock that went back since the backup is taken to stand where it was.
        let stood = limits::UID_VALIDITY_LEAP.saturating_add(within(passed.saturating_neg()));
        let after = ValidityClock { ahead_seconds: before.ahead_seconds.saturating_add(stood) };
        let value = &after.encode_to_vec();
        db.run(|tx| async move {
            tx.set(&keys::mailbox::validity_clock_key(), value);
            Ok::<_, RenewError>(())
        })
        .await?;
        let seconds = limits::UID_VALIDITY_LEAP.saturating_add(within(passed));
        Ok(Self { clock: after.at(now), seconds })
    }

    /// Above everything that the original has shown of an account whose last was this.
    fn above(self, last: u32) -> Option<u32> {
        last.checked_add(self.seconds).map(|above| above.max(self.clock))
    }
}

async fn renew_account(
    db: &Database,
    account: AccountId,
    leap: Leap,
    now: Timestamp,
    mut progress: impl FnMut(u64) + Send,
) -> Result<(), RenewError> {
    let last_key = &keys::mailbox::last_uid_validity_key(account);
    let last = db.run(|tx| async move { Ok::<_, RenewError>(tx.get(last_key).await?) }).await?;
    // One that cannot be decoded was never handed out again either.
    let last = last.and_then(|value| decode_u32(&value).ok()).unwrap_or(0);
    let mut next = leap.above(last).ok_or(RenewError::UsedUp(account))?;
    let (begin, end) = keys::mailbox::range(account);
    let mut begin = Some(begin);
    while let Some(from) = begin {
        let query = RangeQuery::new(from, end.clone()).limit(limits::RENEWED_ROWS_PER_TRANSACTION);
        let query = &query;
        let step = db.run(|tx| renew_some(tx, account, query.clone(), next, now)).await?;
        progress(u64::from(step.next - next));
        (begin, next) = (step.begin, step.next);
    }
    Ok(())
}

/// Where one transaction stopped.
struct Step {
    begin: Option<Vec<u8>>,
    next: u32,
}

/// Gives some mailboxes the numbers from `next` on; the same ones where it runs again.
async fn renew_some(
    tx: Transaction,
    account: AccountId,
    query: RangeQuery,
    mut next: u32,
    now: Timestamp,
) -> Result<Step, RenewError> {
    let rows = tx.range(query).collect().await?;
    let mut unit = AccountUnit::new(&tx, account, now);
    for row in &rows {
        let id: Option<MailboxId> = keys::mailbox::mailbox_of(&row.key);
        let record = MailboxRecord::decode(&row.value[..]);
        let (Some(id), Ok(mut record)) = (id, record) else {
            tracing::warn!(%account, key = ?row.key, "a damaged mailbox keeps its UIDVALIDITY");
            continue;
        };
        if record.deleting {
            continue;
        }
        record.uid_validity = next;
        unit.write_mailbox(id, &record);
        unit.note_mailbox(id, MailboxChangeKind::Updated);
        next = next.checked_add(1).ok_or(RenewError::UsedUp(account))?;
    }
    unit.finish().await?;
    let last = next - 1;
    tx.set(&keys::mailbox::last_uid_validity_key(account), &last.to_le_bytes());
    let full = rows.len() == limits::RENEWED_ROWS_PER_TRANSACTION;
    let begin = rows.last().filter(|_| full).map(|row| [&row.key[..], &[0]].concat());
    Ok(Step { begin, next })
}
