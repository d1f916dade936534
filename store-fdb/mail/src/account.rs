//! Accounts: creation, deletion, quota.

mod delete;

use env::Timestamp;
use kv::{AtomicOp, RangeQuery, Transaction};
use prost::Message;

use crate::{
    AccountId, AccountUnit, CreateError, NewMailbox, OperationId, Role, StoreError, create_mailbox,
    keys::{
        self,
        account::{Account, Credential},
        counter::AccountCounts,
        directory::Target,
    },
};

pub use delete::delete_account;

/// An account to be made.
#[derive(Debug, Clone)]
pub struct NewAccount {
    /// The login name, which is the primary address.
    pub address: crate::directory::Address,
    /// A person's name for it.
    pub description: String,
    /// Bytes; 0 is without limit.
    pub quota_bytes: u64,
    /// What proves the owner.
    pub credential: Credential,
}

/// Why an account was not made, or not removed.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// The address stands for something already.
    #[error("{0} exists")]
    Exists(String),
    /// The domain is not ours.
    #[error("the domain {0} does not exist")]
    NoDomain(String),
    /// A mailbox that every account has was refused.
    #[error(transparent)]
    Mailbox(#[from] CreateError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<kv::Error> for AccountError {
    fn from(error: kv::Error) -> Self {
        Self::Store(error.into())
    }
}

impl kv::AsKvError for AccountError {
    fn as_kv_error(&self) -> Option<&kv::Error> {
        match self {
            Self::Store(error) => error.as_kv_error(),
            Self::Mailbox(error) => error.as_kv_error(),
            Self::Exists(_) | Self::NoDomain(_) => None,
        }
    }
}

/// What an account holds of what it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountUsage {
    /// Bytes in use.
    pub bytes: u64,
    /// Emails.
    pub emails: u64,
    /// Bytes allowed; 0 is without limit.
    pub quota_bytes: u64,
}

/// The mailboxes that every account starts with.
const FIRST_MAILBOXES: [(&str, Role); 6] = [
    ("INBOX", Role::Inbox),
    ("Archive", Role::Archive),
    ("Drafts", Role::Drafts),
    ("Junk", Role::Junk),
    ("Sent", Role::Sent),
    ("Trash", Role::Trash),
];

/// Makes an account with INBOX and the mailboxes for special uses. A second run with the same
/// `operations` changes nothing and answers as the first.
///
/// # Errors
/// [`AccountError`].
pub async fn create_account(
    tx: &Transaction,
    new: &NewAccount,
    now: Timestamp,
    operations: &[OperationId; 6],
) -> Result<AccountId, AccountError> {
    let id = match crate::directory::record(tx, &new.address).await? {
        Some(Target::Account(id))
            if AccountUnit::new(tx, AccountId(id), now).outcome(operations[0]).await?.is_some() =>
        {
            return Ok(AccountId(id));
        }
        Some(_) => return Err(AccountError::Exists(new.address.to_string())),
        None => next_id(tx).await?,
    };
    if !crate::directory::is_local(tx, new.address.domain()).await? {
        return Err(AccountError::NoDomain(new.address.domain().to_owned()));
    }
    let record = Account {
        name: new.address.to_string(),
        description: new.description.clone(),
        quota_bytes: new.quota_bytes,
        created_ms: now.unix_ms(),
        login_disabled: false,
        deleting: false,
    };
    tx.set(&keys::account::key(id), &record.encode_to_vec());
    tx.set(&keys::account::credential_key(id), &new.credential.encode_to_vec());
    crate::directory::set_account(tx, &new.address, id);
    let mut unit = AccountUnit::new(tx, id, now);
    for ((name, role), operation) in FIRST_MAILBOXES.iter().zip(operations) {
        let mailbox = NewMailbox {
            name: (*name).to_owned(),
            parent: None,
            role: Some(*role),
            subscribed: true,
        };
        create_mailbox(&mut unit, &mailbox, *operation).await?;
    }
    unit.finish().await?;
    Ok(id)
}

async fn next_id(tx: &Transaction) -> Result<AccountId, StoreError> {
    let key = keys::account::next_id_key();
    let last = match tx.get(&key).await? {
        Some(value) => u64::from_le_bytes(
            value[..]
                .try_into()
                .map_err(|_| StoreError::damaged("account", "the next id is not 8 bytes"))?,
        ),
        None => 0,
    };
    tx.atomic(&key, &1_u64.to_le_bytes(), AtomicOp::Add);
    Ok(AccountId(last + 1))
}

/// The ids of the accounts after `after`, ascending, at most `limit`. A snapshot read.
///
/// # Errors
/// [`StoreError`].
pub async fn account_ids(
    tx: &Transaction,
    after: Option<AccountId>,
    limit: usize,
) -> Result<Vec<AccountId>, StoreError> {
    let (begin, end) = keys::account::range();
    let begin = after.map_or(begin, |after| keys::account::key(AccountId(after.0 + 1)));
    let rows = tx.range(RangeQuery::new(begin, end).limit(limit).snapshot()).collect().await?;
    let id = |key: &[u8]| {
        keys::account::account_of(key)
            .ok_or_else(|| StoreError::damaged("account", "a key without its id"))
    };
    rows.iter().map(|row| id(&row.key)).collect()
}

/// Reads an account's record.
///
/// # Errors
/// [`StoreError::NoAccount`] where it does not exist.
pub async fn account_record(tx: &Transaction, id: AccountId) -> Result<Account, StoreError> {
    let value = tx.get(&keys::account::key(id)).await?.ok_or(StoreError::NoAccount(id))?;
    keys::decode("account", &value)
}

/// Rewrites an account's record, and keeps what this release does not know of it.
///
/// # Errors
/// [`StoreError`].
pub async fn set_account_record(
    tx: &Transaction,
    id: AccountId,
    record: &Account,
) -> Result<(), StoreError> {
    let key = keys::account::key(id);
    let before = tx.get(&key).await?.unwrap_or_default();
    tx.set(&key, &keys::encode_over(record, &before));
    Ok(())
}

/// Reads what proves the owner.
///
/// # Errors
/// [`StoreError`].
pub async fn credential(tx: &Transaction, id: AccountId) -> Result<Option<Credential>, StoreError> {
    let value = tx.get(&keys::account::credential_key(id)).await?;
    value.map(|value| keys::decode("credential", &value)).transpose()
}

/// Sets what proves the owner.
pub fn set_credential(tx: &Transaction, id: AccountId, credential: &Credential) {
    tx.set(&keys::account::credential_key(id), &credential.encode_to_vec());
}

/// What the account holds, by the counters.
///
/// # Errors
/// [`StoreError`].
pub async fn usage(tx: &Transaction, id: AccountId) -> Result<AccountUsage, StoreError> {
    let counter_key = keys::counter::account_key(id);
    tx.prefetch(|ahead| {
        ahead.key(keys::account::key(id));
        ahead.key(counter_key.clone());
    })
    .await?;
    let record = account_record(tx, id).await?;
    let counter = tx.get(&counter_key).await?;
    let counts = AccountCounts::decode(counter.as_deref())?;
    Ok(AccountUsage {
        bytes: u64::try_from(counts.bytes).unwrap_or(0),
        emails: u64::try_from(counts.emails).unwrap_or(0),
        quota_bytes: record.quota_bytes,
    })
}
