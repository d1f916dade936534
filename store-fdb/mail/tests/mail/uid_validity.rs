//! New UIDVALIDITYs after a restore.

use std::collections::BTreeMap;

use env::Timestamp;
use kv::Database;
use mail::{
    AccountId, MailboxTree, Role,
    keys::log::MailboxChangeKind,
    limits, mailbox_tree,
    uid_validity::{Renewed, renew},
};

use crate::fixture::{Fixture, NOW, email, new_account, new_mailbox, unit};

/// What clients were shown: by account and path, every UIDVALIDITY.
#[derive(Default)]
struct Shown(BTreeMap<(AccountId, Vec<String>), Vec<u32>>);

impl Shown {
    fn paths(account: AccountId, tree: &MailboxTree) -> Vec<((AccountId, Vec<String>), u32)> {
        let path = |id| tree.path_of(id).into_iter().map(str::to_owned).collect();
        let each = tree.iter().map(|one| ((account, path(one.id)), one.uid_validity.0));
        each.collect()
    }

    async fn show(&mut self, db: &Database, account: AccountId) {
        let tree = mailbox_tree(&db.begin(), account).await.unwrap();
        for (path, validity) in Self::paths(account, &tree) {
            self.0.entry(path).or_default().push(validity);
        }
    }

    /// Whether every mailbox has one above all that its path was ever shown with.
    async fn all_are_new(&self, db: &Database, account: AccountId) {
        let tree = mailbox_tree(&db.begin(), account).await.unwrap();
        let mut distinct = std::collections::BTreeSet::new();
        for (path, validity) in Self::paths(account, &tree) {
            let before = self.0.get(&path).and_then(|all| all.iter().max());
            assert!(before.is_none_or(|before| validity > *before), "{path:?} {validity}");
            assert!(distinct.insert(validity), "renamed, it would be known: {path:?}");
        }
    }
}

fn later(seconds: i64) -> Timestamp {
    Timestamp::from_unix_seconds(NOW.unix_seconds() + seconds)
}

/// A copy of the store, as of a backup.
async fn copy(fixture: &Fixture) -> Fixture {
    let db = Database::memory(fixture.env.clone());
    let rows = &fixture.everything().await;
    db.run(|tx| async move {
        for row in rows {
            tx.set(&row.key, &row.value);
        }
        Ok::<_, kv::Error>(())
    })
    .await
    .unwrap();
    Fixture { db, ..fixture.clone() }
}

async fn renewed(fixture: &Fixture, created: Timestamp, now: Timestamp) -> Renewed {
    let mut told = Renewed::default();
    let done = renew(&fixture.db, created, now, |progress| told = progress).await.unwrap();
    assert_eq!(told, done);
    fixture.check().await;
    done
}

async fn remove(fixture: &Fixture, mailbox: mail::MailboxId) {
    let operation = fixture.operation();
    unit!(fixture, mail::DeleteError, |unit| mail::delete_mailbox(&mut unit, mailbox, operation)
        .await)
    .unwrap();
}

#[tokio::test]
async fn every_mailbox_gets_one_that_no_client_was_shown() {
    let original = &Fixture::new().await;
    let other = new_account(&original.db, &original.env, "anna@example.org", 0).await;
    let inbox = original.inbox().await;
    original.append(inbox, &email("Subject: a\r\n\r\n", &[])).await;
    original.create("kept").await;
    let backup = copy(original).await;

    // After the backup, mailboxes come and go, faster than a second each, under names that stand
    // in the backup too.
    let mut shown = Shown::default();
    for _ in 0..200 {
        shown.show(&original.db, original.account).await;
        let kept = mailbox_tree(&original.db.begin(), original.account).await.unwrap();
        remove(original, kept.by_path(["kept"]).unwrap().id).await;
        original.create("kept").await;
    }
    shown.show(&original.db, original.account).await;
    shown.show(&original.db, other).await;

    let restored = &copy(&backup).await;
    let before = restored.open(inbox).await;
    let done = renewed(restored, NOW, later(10)).await;
    assert_eq!(done, Renewed { accounts: 2, mailboxes: 13 });
    for account in [restored.account, other] {
        shown.all_are_new(&restored.db, account).await;
        shown.show(&restored.db, account).await;
    }
    // The messages are the same, and the change is in the log.
    let after = restored.open(inbox).await;
    assert!(after.uid_validity() > before.uid_validity());
    assert_eq!(restored.truth(inbox).await, backup.truth(inbox).await);
    let log = mail::changes_since(&restored.db.begin(), other, before.as_of()).await.unwrap();
    let changes = log.entries.iter().flat_map(|(_, entry)| &entry.mailboxes);
    assert_eq!(changes.filter(|change| change.kind() == MailboxChangeKind::Updated).count(), 6);

    // New mailboxes and accounts go on above.
    let new = restored.create("kept again").await;
    let tree = mailbox_tree(&restored.db.begin(), restored.account).await.unwrap();
    let highest = tree.iter().map(|one| one.uid_validity).max();
    assert_eq!(tree.by_id(new).map(|one| one.uid_validity), highest);
    shown.show(&restored.db, restored.account).await;
    let later_account = new_account(&restored.db, &restored.env, "late@example.org", 0).await;
    let ahead = mailbox_tree(&restored.db.begin(), later_account).await.unwrap();
    let leap = limits::UID_VALIDITY_LEAP + u32::try_from(NOW.unix_seconds()).unwrap();
    assert!(ahead.by_role(Role::Inbox).unwrap().uid_validity.0 >= leap);

    // The same backup restored once more, and what was restored backed up and restored.
    let again = &copy(&backup).await;
    renewed(again, NOW, later(10 + 60)).await;
    shown.all_are_new(&again.db, again.account).await;
    for restore in 0..3 {
        let next = &copy(restored).await;
        renewed(next, later(60), later(120 + 60 * restore)).await;
        shown.all_are_new(&next.db, next.account).await;
        shown.show(&next.db, next.account).await;
    }
}

/// In an account whose last is far ahead of the time, and where the clock went back.
#[tokio::test]
async fn what_is_ahead_of_the_clock_goes_up_all_the_same() {
    let fixture = &Fixture::new().await;
    let account = fixture.account;
    let ahead = u32::try_from(NOW.unix_seconds()).unwrap() + 50_000_000;
    fixture
        .db
        .run(|tx| async move {
            let key = mail::keys::mailbox::last_uid_validity_key(account);
            tx.set(&key, &ahead.to_le_bytes());
            Ok::<_, kv::Error>(())
        })
        .await
        .unwrap();
    fixture.create("far ahead").await;
    let mut shown = Shown::default();
    shown.show(&fixture.db, account).await;
    for now in [later(-100), later(5), later(6)] {
        let restored = &copy(fixture).await;
        renewed(restored, NOW, now).await;
        shown.all_are_new(&restored.db, account).await;
        shown.show(&restored.db, account).await;
    }
}

#[tokio::test]
async fn many_mailboxes_are_renewed_in_several_transactions() {
    let fixture = &Fixture::new().await;
    let more = limits::RENEWED_ROWS_PER_TRANSACTION + 10;
    let names: Vec<_> = (0..more).map(|number| format!("folder {number}")).collect();
    for names in names.chunks(50) {
        let operations: Vec<_> = names.iter().map(|_| fixture.operation()).collect();
        let (names, operations) = (&names, &operations);
        unit!(fixture, mail::CreateError, |unit| {
            for (name, operation) in names.iter().zip(operations) {
                let new = new_mailbox(name, None);
                mail::create_mailbox(&mut unit, &new, *operation).await?;
            }
            Ok::<_, mail::CreateError>(())
        })
        .unwrap();
    }
    // One is being deleted: nobody sees it any more, and it stays so.
    let tree = mailbox_tree(&fixture.db.begin(), fixture.account).await.unwrap();
    remove(fixture, tree.by_path(["folder 7"]).unwrap().id).await;
    let mut shown = Shown::default();
    shown.show(&fixture.db, fixture.account).await;
    let committed = fixture.db.counts().transactions_committed;
    let done = renewed(fixture, NOW, later(1)).await;
    assert!(fixture.db.counts().transactions_committed >= committed + 3);
    assert_eq!(done.mailboxes, u64::try_from(more - 1 + 6).unwrap());
    shown.all_are_new(&fixture.db, fixture.account).await;
    let tree = mailbox_tree(&fixture.db.begin(), fixture.account).await.unwrap();
    assert_eq!(tree.deleting().len(), 1);
}

#[tokio::test]
async fn used_up_numbers_are_told() {
    let fixture = &Fixture::new().await;
    let account = fixture.account;
    fixture
        .db
        .run(|tx| async move {
            let key = mail::keys::mailbox::last_uid_validity_key(account);
            tx.set(&key, &(u32::MAX - 100).to_le_bytes());
            Ok::<_, kv::Error>(())
        })
        .await
        .unwrap();
    let told = renew(&fixture.db, NOW, later(1), |_| {}).await;
    assert!(matches!(told, Err(mail::uid_validity::RenewError::UsedUp(found)) if found == account));
}
