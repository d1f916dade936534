//! Deletion of an account and of all that it holds.

use env::Timestamp;
use kv::{Database, RangeQuery, Subspace, Transaction, tuple::pack};

use crate::{
    AccountId, StoreError,
    directory::{self, Address},
    keys::{self, account::Account, directory::Target, email::EmailMeta},
    limits::{DELETED_EMAILS_PER_TRANSACTION, DELETED_ROWS_PER_TRANSACTION},
};

/// The families that hold an account's data and nothing else. Emails' meta is not among them:
/// each row of it holds on to a blob. Credentials and the record itself have one key each.
const FAMILIES: [Subspace; 9] = [
    Subspace::EmailState,
    Subspace::Mailbox,
    Subspace::Next,
    Subspace::Log,
    Subspace::ViewHeader,
    Subspace::ViewPage,
    Subspace::Thread,
    Subspace::Counter,
    Subspace::Operation,
];

/// Removes an account: first its address, so that no mail and no login finds it, then its data
/// in bounded transactions, then its record. The blobs go when their grace time is over.
///
/// After an error, or a crash, running it again goes on. An account that does not exist (any
/// more) is no error.
///
/// # Errors
/// [`StoreError`].
pub async fn delete_account(
    db: &Database,
    account: AccountId,
    now: Timestamp,
) -> Result<(), StoreError> {
    if !db.run(async |tx: Transaction| mark(&tx, account).await).await? {
        return Ok(());
    }
    loop {
        while db.run(async |tx: Transaction| delete_emails(&tx, account, now).await).await? {}
        for family in FAMILIES {
            while db.run(async |tx: Transaction| clear_rows(&tx, family, account).await).await? {}
        }
        if db.run(async |tx: Transaction| finish(&tx, account).await).await? {
            return Ok(());
        }
    }
}

/// Clears the address and the credential and marks the record; `false` where there is none.
async fn mark(tx: &Transaction, account: AccountId) -> Result<bool, StoreError> {
    let mut record = match super::account_record(tx, account).await {
        Ok(record) => record,
        Err(StoreError::NoAccount(_)) => return Ok(false),
        Err(error) => return Err(error),
    };
    if let Ok(address) = Address::parse(&record.name)
        && directory::record(tx, &address).await? == Some(Target::Account(account.0))
    {
        directory::clear_account(tx, &address);
    }
    tx.clear(&keys::account::credential_key(account));
    record = Account { login_disabled: true, deleting: true, ..record };
    super::set_account_record(tx, account, &record).await?;
    Ok(true)
}

/// Lets go of some emails' blobs; `true` where there may be more.
async fn delete_emails(
    tx: &Transaction,
    account: AccountId,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let (begin, end) = keys::email::meta_range(account);
    let query = RangeQuery::new(begin, end).limit(DELETED_EMAILS_PER_TRANSACTION).snapshot();
    let Some(rows) = tx.range(query).next_page().await? else { return Ok(false) };
    for row in &rows {
        let email = keys::email::email_of(&row.key)
            .ok_or_else(|| StoreError::damaged("email meta", "a key that is no email's"))?;
        let meta: EmailMeta = keys::decode("email meta", &row.value)?;
        if let Some(blob) = blob::BlobId::from_slice(&meta.blob) {
            blob::references::remove(tx, blob, &blob::Owner::Email(account.0, email.0), now);
        }
        // One state a meta: the email is whole, or it is gone.
        tx.clear(&keys::email::state_key(account, email));
        tx.clear(&row.key);
    }
    Ok(true)
}

/// Clears some rows of one family; `true` where there may be more. A clear of the whole range
/// would be one mutation, but the local engines write a mark for each of its keys.
async fn clear_rows(
    tx: &Transaction,
    family: Subspace,
    account: AccountId,
) -> Result<bool, StoreError> {
    let (begin, end) = family_range(family, account);
    let query = RangeQuery::new(begin, end).limit(DELETED_ROWS_PER_TRANSACTION).snapshot();
    let Some(rows) = tx.range(query).next_page().await? else { return Ok(false) };
    for row in &rows {
        tx.clear(&row.key);
    }
    Ok(!rows.is_empty())
}

/// Clears the record, unless an append that had begun before the mark has left something; then
/// `false`. Later ones conflict with the record's end, and find no account when they run again.
async fn finish(tx: &Transaction, account: AccountId) -> Result<bool, StoreError> {
    let mut ranges = vec![keys::email::meta_range(account)];
    ranges.extend(FAMILIES.map(|family| family_range(family, account)));
    for (begin, end) in ranges {
        if !tx.range(RangeQuery::new(begin, end).limit(1)).collect().await?.is_empty() {
            return Ok(false);
        }
    }
    tx.clear(&keys::account::key(account));
    Ok(true)
}

/// Every key of a family that belongs to the account, the family's own key for it included.
fn family_range(family: Subspace, account: AccountId) -> (Vec<u8>, Vec<u8>) {
    let begin = pack(&(family as u64, account.0));
    let mut end = begin.clone();
    end.push(0xff);
    (begin, end)
}

#[cfg(test)]
mod tests {
    use blob::{BlobId, Owner};
    use env::Env;
    use kv::{AtomicOp, Faults, Probability};
    use prost::Message;

    use super::*;
    use crate::{
        AccountError, NewAccount, OperationId, create_account,
        keys::{account::Credential, email::EmailState},
    };

    const NOW: Timestamp = Timestamp::from_unix_ms(1_700_000_000_000);

    /// A new account with that many emails, each with the same blob.
    async fn account_with_emails(db: &Database, name: &str, emails: u32) -> AccountId {
        let env = Env::system();
        let new = NewAccount {
            address: Address::parse(name).unwrap(),
            description: String::new(),
            quota_bytes: 0,
            credential: Credential::default(),
        };
        let operations = std::array::from_fn(|_| OperationId::random(&env));
        db.run(async |tx: Transaction| {
            match directory::add_domain(&tx, new.address.domain(), NOW).await {
                Ok(()) | Err(directory::DirectoryError::Exists(_)) => {}
                Err(error) => panic!("{error}"),
            }
            let id = create_account(&tx, &new, NOW, &operations).await?;
            for email in (1..=emails).map(crate::EmailId) {
                let meta = EmailMeta { blob: blob().to_bytes(), ..EmailMeta::default() };
                tx.set(&keys::email::meta_key(id, email), &meta.encode_to_vec());
                let state = keys::email::encode_state(&EmailState::default(), &[]);
                let key = keys::email::state_key(id, email);
                tx.atomic(&key, &state, AtomicOp::SetVersionstampedValue);
                blob::references::share(&tx, blob(), &Owner::Email(id.0, email.0));
            }
            Ok::<_, AccountError>(id)
        })
        .await
        .unwrap()
    }

    fn blob() -> BlobId {
        BlobId::from_slice(&[7; 32]).unwrap()
    }

    async fn rows(db: &Database) -> Vec<kv::KeyValue> {
        db.run(async |tx: Transaction| {
            tx.range(RangeQuery::new(vec![], vec![0xff])).collect().await
        })
        .await
        .unwrap()
    }

    /// Everything that is left of an account, but for blobs' due entries.
    async fn left_of(db: &Database, account: AccountId) -> usize {
        let mine = |row: &kv::KeyValue| {
            FAMILIES
                .into_iter()
                .chain([Subspace::EmailMeta, Subspace::Account, Subspace::Credential])
                .any(|family| row.key.starts_with(&pack(&(family as u64, account.0))))
        };
        rows(db).await.iter().filter(|row| mine(row)).count()
    }

    #[tokio::test]
    async fn nothing_is_left_and_the_neighbour_keeps_everything() {
        let db = Database::memory(Env::system());
        let many = u32::try_from(DELETED_EMAILS_PER_TRANSACTION).unwrap() * 2 + 1;
        let alice = account_with_emails(&db, "alice@example.org", many).await;
        let bob = account_with_emails(&db, "bob@example.org", 3).await;
        let bobs = left_of(&db, bob).await;
        let before = db.counts();
        delete_account(&db, alice, NOW).await.unwrap();
        let cost = db.counts() - before;
        assert!(cost.transactions_committed > 3, "bounded transactions: {cost:?}");
        assert_eq!(left_of(&db, alice).await, 0);
        assert_eq!(left_of(&db, bob).await, bobs);
        db.run(async |tx: Transaction| {
            let (address, owner) =
                (Address::parse("alice@example.org").unwrap(), |id| Owner::Email(id, 1));
            assert_eq!(directory::record(&tx, &address).await?, None);
            assert!(!blob::references::exists(&tx, blob(), &owner(alice.0)).await?);
            assert!(blob::references::exists(&tx, blob(), &owner(bob.0)).await?);
            Ok::<_, StoreError>(())
        })
        .await
        .unwrap();
        let due = pack(&(Subspace::BlobDue as u64,));
        // One entry for all that let go at once, and the newest time beside it.
        assert_eq!(rows(&db).await.iter().filter(|row| row.key.starts_with(&due)).count(), 2);
        delete_account(&db, alice, NOW).await.expect("deleting twice is no error");
    }

    #[tokio::test]
    async fn an_id_is_not_used_again() {
        let db = Database::memory(Env::system());
        let first = account_with_emails(&db, "alice@example.org", 1).await;
        delete_account(&db, first, NOW).await.unwrap();
        let second = account_with_emails(&db, "alice@example.org", 1).await;
        assert!(second > first);
    }

    #[tokio::test]
    async fn an_interrupted_deletion_goes_on() {
        let db = Database::memory(Env::system());
        let alice = account_with_emails(&db, "alice@example.org", 5).await;
        assert!(db.run(async |tx: Transaction| mark(&tx, alice).await).await.unwrap());
        let record =
            db.run(async |tx: Transaction| crate::account_record(&tx, alice).await).await.unwrap();
        assert!(record.deleting && record.login_disabled);
        // The name is free at once, and what has it now is none of the deletion's business.
        let new = account_with_emails(&db, "alice@example.org", 1).await;
        delete_account(&db, alice, NOW).await.unwrap();
        assert_eq!(left_of(&db, alice).await, 0);
        let address = Address::parse("alice@example.org").unwrap();
        let now =
            db.run(async |tx: Transaction| directory::record(&tx, &address).await).await.unwrap();
        assert_eq!(now, Some(Target::Account(new.0)));
    }

    #[tokio::test]
    async fn unknown_commits_and_conflicts_change_nothing() {
        let env = Env::system();
        let db = Database::memory(env.clone());
        let alice = account_with_emails(&db, "alice@example.org", 200).await;
        let faults = Faults {
            conflict: Probability::per_million(200_000),
            commit_unknown: Probability::per_million(200_000),
            ..Faults::default()
        };
        let faulty = db.handle_with_faults(env, faults);
        delete_account(&faulty, alice, NOW).await.unwrap();
        assert_eq!(left_of(&db, alice).await, 0);
    }
}
