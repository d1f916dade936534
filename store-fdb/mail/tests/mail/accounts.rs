//! Accounts.

use kv::{Database, Faults, Probability};
use mail::{
    AccountError, AccountId, CreateError, StoreError, create_account,
    directory::{self, Address},
};

use crate::fixture::{Fixture, NOW, account_of, new_account, new_mailbox, operations, unit};

#[tokio::test]
async fn an_account_is_made_once_however_often_the_commit_is_unknown() {
    let fixture = Fixture::new().await;
    let new = &account_of("eve@example.org", 0);
    let operations = &operations(&fixture.env);
    let run = |db: Database| async move {
        db.run(|tx| async move { create_account(&tx, new, NOW, operations).await }).await
    };
    // Each commit's answer is lost with even odds, for as long as it takes.
    let faults = Faults { commit_unknown: Probability::per_million(800_000), ..Faults::default() };
    let flaky = fixture.db.handle_with_faults(fixture.env.clone(), faults);
    let first = run(flaky.clone()).await.unwrap();
    let before = fixture.everything().await;
    assert_eq!(run(fixture.db.clone()).await.unwrap(), first, "a later retry answers alike");
    assert_eq!(fixture.everything().await, before);
    let others = &crate::fixture::operations(&fixture.env);
    let refused =
        fixture.db.run(|tx| async move { create_account(&tx, new, NOW, others).await }).await;
    assert!(matches!(refused, Err(AccountError::Exists(_))), "another operation is another try");
    let found = mail::fold::check_account(&fixture.db.begin(), first).await.unwrap();
    assert_eq!(found, []);
}

#[tokio::test]
async fn accounts_need_a_domain_and_ids_are_not_used_again() {
    let fixture = Fixture::new().await;
    let (new, operations) = (&account_of("eve@elsewhere.org", 0), &operations(&fixture.env));
    let refused =
        fixture.db.run(|tx| async move { create_account(&tx, new, NOW, operations).await }).await;
    assert!(matches!(refused, Err(AccountError::NoDomain(domain)) if domain == "elsewhere.org"));
    let eve = new_account(&fixture.db, &fixture.env, "eve@example.org", 5).await;
    assert_eq!((fixture.account, eve), (AccountId(1), AccountId(2)));
    let record = mail::account_record(&fixture.db.begin(), eve).await.unwrap();
    assert_eq!((record.name.as_str(), record.quota_bytes), ("eve@example.org", 5));
    assert_eq!(record.created_ms, NOW.unix_ms());
    mail::delete_account(&fixture.db, eve, NOW).await.unwrap();
    let ann = new_account(&fixture.db, &fixture.env, "eve@example.org", 0).await;
    assert_eq!(ann, AccountId(3));
}

#[tokio::test]
async fn nothing_is_made_in_an_account_that_is_gone() {
    let fixture = Fixture::new().await;
    mail::delete_account(&fixture.db, fixture.account, NOW).await.unwrap();
    let before = fixture.everything().await;
    let (new, operation) = (&new_mailbox("late", None), fixture.operation());
    let refused =
        unit!(fixture, CreateError, |unit| mail::create_mailbox(&mut unit, new, operation).await);
    assert!(matches!(refused, Err(CreateError::Store(StoreError::NoAccount(_)))));
    assert_eq!(fixture.everything().await, before);
    let address = Address::parse("bob@example.org").unwrap();
    assert_eq!(directory::login(&fixture.db.begin(), &address).await.unwrap(), None);
}

#[tokio::test]
async fn credentials_and_records_come_back() {
    let fixture = Fixture::new().await;
    let credential =
        mail::keys::account::Credential { argon2: "$argon2id$".to_owned(), ..Default::default() };
    let tx = fixture.db.begin();
    mail::set_credential(&tx, fixture.account, &credential);
    let mut record = mail::account_record(&tx, fixture.account).await.unwrap();
    record.quota_bytes = 17;
    mail::set_account_record(&tx, fixture.account, &record).await.unwrap();
    tx.commit().await.unwrap();
    let tx = fixture.db.begin();
    assert_eq!(mail::credential(&tx, fixture.account).await.unwrap(), Some(credential));
    assert_eq!(mail::usage(&tx, fixture.account).await.unwrap().quota_bytes, 17);
    assert_eq!(mail::credential(&tx, AccountId(9)).await.unwrap(), None);
    assert!(matches!(
        mail::account_record(&tx, AccountId(9)).await,
        Err(StoreError::NoAccount(AccountId(9)))
    ));
}
