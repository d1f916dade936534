//! Accounts: who has mail here.

use std::num::NonZeroU64;

use kv::{RangeQuery, Transaction};
use mail::{
    AccountError, AccountId, NewAccount as NewRecord, OperationId, StoreError,
    directory::{self, Address},
    keys::{
        account::{self, Account},
        directory::Target,
    },
};
use prost::Message;
use serde::{Deserialize, Serialize};

use super::{Admin, AdminError, Page, PageQuery, Password, Run};
use crate::{limits::DESCRIPTION_BYTES_MAX, names};

/// An account to be made.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewAccount {
    /// The login name and primary address.
    pub address: String,
    /// What proves the owner.
    pub password: Password,
    /// A person's name for it.
    #[serde(default)]
    pub description: String,
    /// Bytes of mail it may hold; without limit where absent.
    #[serde(default)]
    pub quota_bytes: Option<NonZeroU64>,
}

/// An account, as an administrator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountInfo {
    /// Its number; never used again.
    pub id: u64,
    /// The login name and primary address.
    pub address: String,
    /// A person's name for it.
    pub description: String,
    /// What its owner may do.
    pub state: AccountState,
    /// Bytes of mail it may hold; without limit where absent.
    pub quota_bytes: Option<NonZeroU64>,
    /// Milliseconds since the Unix epoch.
    pub created_ms: i64,
}

/// An account with what it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountDetail {
    /// The account.
    #[serde(flatten)]
    pub info: AccountInfo,
    /// Bytes of mail in it.
    pub used_bytes: u64,
    /// Emails in it.
    pub emails: u64,
}

/// What an account's owner may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccountState {
    /// Log in and get mail.
    Enabled,
    /// Get mail, not log in.
    Disabled,
    /// Nothing: a removal was begun and cut off. Removing it again ends it.
    Deleting,
}

/// Whether an account's owner may log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Login {
    /// Yes.
    Enabled,
    /// No; mail is still taken in. Open sessions go on.
    Disabled,
}

impl AccountInfo {
    fn new(id: AccountId, record: Account) -> Self {
        let state = match (record.deleting, record.login_disabled) {
            (true, _) => AccountState::Deleting,
            (false, true) => AccountState::Disabled,
            (false, false) => AccountState::Enabled,
        };
        Self {
            id: id.0,
            address: record.name,
            description: record.description,
            state,
            quota_bytes: NonZeroU64::new(record.quota_bytes),
            created_ms: record.created_ms,
        }
    }
}

/// Makes an account with INBOX and the mailboxes for special uses.
///
/// # Errors
/// [`AdminError::Exists`], [`AdminError::Missing`] for the domain, [`AdminError::Name`],
/// [`AdminError::Password`], [`AdminError::PasswordShort`], [`AdminError::Description`].
pub async fn add(admin: &Admin, new: &NewAccount) -> Result<AccountInfo, AdminError> {
    if new.description.len() > DESCRIPTION_BYTES_MAX {
        return Err(AdminError::Description);
    }
    let record = &NewRecord {
        address: names::address(&new.address)?,
        description: new.description.clone(),
        quota_bytes: new.quota_bytes.map_or(0, NonZeroU64::get),
        credential: new.password.credential(&admin.env).await?,
    };
    let now = admin.env.wall();
    let operations = &std::array::from_fn(|_| OperationId::random(&admin.env));
    admin
        .run(async |tx, run| {
            let id = match mail::create_account(&tx, record, now, operations).await {
                Ok(id) => id,
                Err(AccountError::Exists(_)) if run == Run::Again => ours(&tx, record).await?,
                Err(error) => return Err(error.into()),
            };
            Ok(AccountInfo::new(id, mail::account_record(&tx, id).await?))
        })
        .await
}

/// The account that an earlier, unseen commit made. Its credential tells: salts are random.
async fn ours(tx: &Transaction, record: &NewRecord) -> Result<AccountId, AdminError> {
    let exists = || AdminError::Exists(record.address.to_string());
    let Some(Target::Account(id)) = directory::record(tx, &record.address).await? else {
        return Err(exists());
    };
    let id = AccountId(id);
    match mail::credential(tx, id).await? {
        Some(found) if found == record.credential => Ok(id),
        _ => Err(exists()),
    }
}

/// One page of the accounts, oldest first.
///
/// # Errors
/// [`AdminError::Page`].
pub async fn list(admin: &Admin, query: &PageQuery) -> Result<Page<AccountInfo>, AdminError> {
    let after = match &query.after {
        Some(text) => Some(text.parse().map_err(|_| AdminError::Page(text.clone()))?),
        None => None,
    };
    page(admin, after.map(AccountId), query.rows()).await
}

async fn page(
    admin: &Admin,
    after: Option<AccountId>,
    rows: usize,
) -> Result<Page<AccountInfo>, AdminError> {
    let found = admin.run(async |tx, _| Ok(records(&tx, after, rows).await?)).await?;
    let next = (found.len() == rows).then(|| found.last().map(|(id, _)| id.to_string())).flatten();
    let items = found.into_iter().map(|(id, record)| AccountInfo::new(id, record)).collect();
    Ok(Page { items, next })
}

async fn records(
    tx: &Transaction,
    after: Option<AccountId>,
    rows: usize,
) -> Result<Vec<(AccountId, Account)>, StoreError> {
    let (first, end) = account::range();
    let begin = after.map_or(first, |after| account::key(AccountId(after.0.saturating_add(1))));
    let damaged = |detail: String| StoreError::Damaged { family: "account", detail };
    let mut found = Vec::new();
    for row in tx.range(RangeQuery::new(begin, end).limit(rows).snapshot()).collect().await? {
        let id = account::account_of(&row.key)
            .ok_or_else(|| damaged("a key that is no account's".to_owned()))?;
        let record = Account::decode(row.value).map_err(|error| damaged(error.to_string()))?;
        found.push((id, record));
    }
    Ok(found)
}

/// One account, with what it holds.
///
/// # Errors
/// [`AdminError::Missing`], [`AdminError::OtherKind`].
pub async fn show(admin: &Admin, address: &str) -> Result<AccountDetail, AdminError> {
    let address = &names::address(address)?;
    admin
        .run(async |tx, _| {
            let id = find(&tx, address).await?;
            let record = mail::account_record(&tx, id).await?;
            let usage = mail::usage(&tx, id).await?;
            Ok(AccountDetail {
                info: AccountInfo::new(id, record),
                used_bytes: usage.bytes,
                emails: usage.emails,
            })
        })
        .await
}

/// Sets a new password. Open sessions go on.
///
/// # Errors
/// As [`show`]; [`AdminError::Password`], [`AdminError::PasswordShort`].
pub async fn set_password(
    admin: &Admin,
    address: &str,
    password: &Password,
) -> Result<(), AdminError> {
    let address = &names::address(address)?;
    let credential = &password.credential(&admin.env).await?;
    admin
        .run(async |tx, _| {
            mail::set_credential(&tx, find(&tx, address).await?, credential);
            Ok(())
        })
        .await
}

/// Sets how many bytes of mail the account may hold; `None` is without limit. An account that
/// holds more keeps it and gets no more.
///
/// # Errors
/// As [`show`].
pub async fn set_quota(
    admin: &Admin,
    address: &str,
    quota_bytes: Option<NonZeroU64>,
) -> Result<AccountInfo, AdminError> {
    let quota_bytes = quota_bytes.map_or(0, NonZeroU64::get);
    change(admin, address, |record| record.quota_bytes = quota_bytes).await
}

/// Says whether the account's owner may log in.
///
/// # Errors
/// As [`show`].
pub async fn set_login(
    admin: &Admin,
    address: &str,
    login: Login,
) -> Result<AccountInfo, AdminError> {
    change(admin, address, |record| record.login_disabled = login == Login::Disabled).await
}

async fn change(
    admin: &Admin,
    address: &str,
    change: impl Fn(&mut Account) + Send + Sync,
) -> Result<AccountInfo, AdminError> {
    let address = &names::address(address)?;
    let change = &change;
    admin
        .run(async |tx, _| {
            let id = find(&tx, address).await?;
            let mut record = mail::account_record(&tx, id).await?;
            change(&mut record);
            mail::set_account_record(&tx, id, &record).await?;
            Ok(AccountInfo::new(id, record))
        })
        .await
}

/// Removes an account and all its mail; goes on where an earlier removal was cut off.
///
/// # Errors
/// As [`show`].
pub async fn remove(admin: &Admin, address: &str) -> Result<(), AdminError> {
    let address = &names::address(address)?;
    let found = admin.run(async |tx, _| find(&tx, address).await).await;
    let id = match found {
        Err(AdminError::Missing(name)) => {
            half_removed(admin, address).await?.ok_or(AdminError::Missing(name))?
        }
        found => found?,
    };
    Ok(mail::delete_account(&admin.db, id, admin.env.wall()).await?)
}

/// The account that had the address when its removal was cut off.
async fn half_removed(admin: &Admin, address: &Address) -> Result<Option<AccountId>, AdminError> {
    let mut after = None;
    loop {
        let page = page(admin, after, crate::limits::ADMIN_PAGE_ROWS_MAX).await?;
        let half = |item: &&AccountInfo| {
            item.state == AccountState::Deleting && item.address == address.as_str()
        };
        if let Some(item) = page.items.iter().find(half) {
            return Ok(Some(AccountId(item.id)));
        }
        after = page.items.last().map(|item| AccountId(item.id));
        if page.next.is_none() {
            return Ok(None);
        }
    }
}

/// The number of the account with this address, primary or not.
pub(super) async fn id_of(admin: &Admin, address: &str) -> Result<AccountId, AdminError> {
    let address = &names::address(address)?;
    admin.run(async |tx, _| find(&tx, address).await).await
}

async fn find(tx: &Transaction, address: &Address) -> Result<AccountId, AdminError> {
    match directory::record(tx, address).await? {
        Some(Target::Account(id)) => Ok(AccountId(id)),
        Some(Target::Alias(_) | Target::Group(_)) => {
            Err(AdminError::OtherKind(address.to_string(), "an account"))
        }
        None => Err(AdminError::Missing(address.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use kv::{Faults, Probability};
    use mail::directory::ListKind;

    use super::{
        super::{domains, lists, tests::memory},
        *,
    };

    fn new(address: &str) -> NewAccount {
        NewAccount {
            address: address.to_owned(),
            password: Password::new("correct horse".to_owned()),
            description: String::new(),
            quota_bytes: None,
        }
    }

    async fn with_domain() -> Admin {
        let admin = memory();
        domains::add(&admin, "example.org").await.unwrap();
        admin
    }

    async fn credential(admin: &Admin, id: u64) -> mail::keys::account::Credential {
        let id = AccountId(id);
        let found = admin.run(async |tx, _| Ok(mail::credential(&tx, id).await?)).await;
        found.unwrap().expect("the account has a credential")
    }

    #[tokio::test]
    async fn an_account_is_made_shown_and_changed() {
        let admin = with_domain().await;
        let made = add(&admin, &new("Alice@Example.org")).await.unwrap();
        assert_eq!(made.address, "alice@example.org");
        assert_eq!((made.state, made.quota_bytes), (AccountState::Enabled, None));

        let quota = NonZeroU64::new(1_000_000);
        set_quota(&admin, "alice@example.org", quota).await.unwrap();
        let changed = set_login(&admin, "alice@example.org", Login::Disabled).await.unwrap();
        assert_eq!((changed.state, changed.quota_bytes), (AccountState::Disabled, quota));
        let shown = show(&admin, "alice@example.org").await.unwrap();
        assert_eq!((shown.info, shown.emails, shown.used_bytes), (changed, 0, 0));
        let changed = set_login(&admin, "alice@example.org", Login::Enabled).await.unwrap();
        assert_eq!(changed.state, AccountState::Enabled);

        let before = credential(&admin, made.id).await;
        let password = Password::new("battery staple".to_owned());
        set_password(&admin, "alice@example.org", &password).await.unwrap();
        assert_ne!(credential(&admin, made.id).await, before);
        assert!(!format!("{before:?}").contains("correct horse"));
    }

    #[tokio::test]
    async fn refusals_say_why() {
        let admin = with_domain().await;
        add(&admin, &new("alice@example.org")).await.unwrap();
        let twice = add(&admin, &new("alice@example.org")).await;
        assert!(matches!(twice, Err(AdminError::Exists(_))));
        let nowhere = add(&admin, &new("alice@example.com")).await;
        assert!(matches!(nowhere, Err(AdminError::Missing(_))));
        let short =
            NewAccount { password: Password::new("1234567".to_owned()), ..new("bob@example.org") };
        assert!(matches!(add(&admin, &short).await, Err(AdminError::PasswordShort)));
        let bell = NewAccount {
            password: Password::new("1234567\u{7}".to_owned()),
            ..new("bob@example.org")
        };
        assert!(matches!(add(&admin, &bell).await, Err(AdminError::Password(_))));
        let long = NewAccount { description: "x".repeat(256), ..new("bob@example.org") };
        assert!(matches!(add(&admin, &long).await, Err(AdminError::Description)));
        assert!(matches!(show(&admin, "bob@example.org").await, Err(AdminError::Missing(_))));
        let to = ["alice@example.org".to_owned()];
        lists::add(&admin, ListKind::Alias, "info@example.org", &to).await.unwrap();
        let alias = remove(&admin, "info@example.org").await;
        assert!(matches!(alias, Err(AdminError::OtherKind(_, "an account"))));
    }

    #[tokio::test]
    async fn accounts_are_paged() {
        let admin = with_domain().await;
        for name in ["a", "b", "c"] {
            add(&admin, &new(&format!("{name}@example.org"))).await.unwrap();
        }
        let first = list(&admin, &PageQuery { after: None, limit: Some(2) }).await.unwrap();
        assert_eq!(first.items.len(), 2);
        let rest = list(&admin, &PageQuery { after: first.next, limit: Some(2) }).await.unwrap();
        assert_eq!(rest.items[0].address, "c@example.org");
        assert_eq!((rest.items.len(), rest.next), (1, None));
        let bad = PageQuery { after: Some("x".to_owned()), limit: None };
        assert!(matches!(list(&admin, &bad).await, Err(AdminError::Page(_))));
    }

    #[tokio::test]
    async fn a_removed_account_is_gone_and_a_half_removed_one_can_be_removed_again() {
        let admin = with_domain().await;
        let made = add(&admin, &new("alice@example.org")).await.unwrap();
        // As a removal leaves it that was cut off after its first transaction.
        let address = Address::parse("alice@example.org").unwrap();
        let record = admin
            .run(async |tx, _| Ok(mail::account_record(&tx, AccountId(made.id)).await?))
            .await
            .unwrap();
        remove(&admin, "alice@example.org").await.unwrap();
        assert!(matches!(remove(&admin, "alice@example.org").await, Err(AdminError::Missing(_))));
        admin
            .run(async |tx, _| {
                let half = Account { deleting: true, ..record.clone() };
                Ok(mail::set_account_record(&tx, AccountId(made.id), &half).await?)
            })
            .await
            .unwrap();
        let half = list(&admin, &PageQuery::default()).await.unwrap();
        assert_eq!(half.items[0].state, AccountState::Deleting);
        assert_eq!(half_removed(&admin, &address).await.unwrap(), Some(AccountId(made.id)));
        remove(&admin, "alice@example.org").await.unwrap();
        assert_eq!(list(&admin, &PageQuery::default()).await.unwrap().items, []);
    }

    #[tokio::test]
    async fn an_unseen_commit_is_found_again() {
        let admin = with_domain().await;
        let faults =
            Faults { commit_unknown: Probability::per_million(500_000), ..Faults::default() };
        let faulty =
            Admin { db: admin.db.handle_with_faults(admin.env.clone(), faults), ..admin.clone() };
        for number in 0..20 {
            let made = add(&faulty, &new(&format!("user{number}@example.org"))).await.unwrap();
            assert_eq!(made.address, format!("user{number}@example.org"));
        }
        assert!(faulty.db.counts().commit_unknown > 0);
        assert_eq!(list(&admin, &PageQuery::default()).await.unwrap().items.len(), 20);
    }
}
