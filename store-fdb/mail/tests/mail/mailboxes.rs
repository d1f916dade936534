//! The mailbox tree.

use mail::{
    CopyMode, CreateError, DeleteError, ExpungeMode, MailboxId, NewMailbox, Progress, RenameError,
    Role, StoreError, Subscription, finish_delete, limits, mailbox_counts, mailbox_tree,
    remove_mailbox_contents,
    view::{View, ViewError},
};

use crate::fixture::{Fixture, email, new_mailbox, target, unit, unit_of};

async fn create(fixture: &Fixture, new: &NewMailbox) -> Result<MailboxId, CreateError> {
    let operation = fixture.operation();
    unit!(fixture, CreateError, |unit| mail::create_mailbox(&mut unit, new, operation).await)
}

async fn rename(
    fixture: &Fixture,
    mailbox: MailboxId,
    parent: Option<MailboxId>,
    name: &str,
) -> Result<(), RenameError> {
    let operation = fixture.operation();
    unit!(fixture, RenameError, |unit| mail::rename_mailbox(
        &mut unit, mailbox, parent, name, operation
    )
    .await)
}

async fn delete(fixture: &Fixture, mailbox: MailboxId) -> Result<(), DeleteError> {
    let operation = fixture.operation();
    unit!(fixture, DeleteError, |unit| mail::delete_mailbox(&mut unit, mailbox, operation).await)
}

#[tokio::test]
async fn an_account_starts_with_inbox_and_special_uses() {
    let fixture = Fixture::new().await;
    let tree = mailbox_tree(&fixture.db.begin(), fixture.account).await.unwrap();
    let names: Vec<_> = tree.iter().map(|mailbox| mailbox.name.as_str()).collect();
    assert_eq!(names, ["INBOX", "Archive", "Drafts", "Junk", "Sent", "Trash"]);
    assert!(tree.iter().all(|mailbox| mailbox.subscribed && mailbox.role.is_some()));
    assert_eq!(tree.by_path(["inBox"]).map(|held| held.role), Some(Some(Role::Inbox)));
    let inbox = mail::inbox(&fixture.db.begin(), fixture.account).await.unwrap();
    assert_eq!(inbox, Some(fixture.inbox().await));
    fixture.check().await;
}

#[tokio::test]
async fn names_are_checked_and_taken_once() {
    let fixture = &Fixture::new().await;
    let parent = fixture.create("parent").await;
    let long = "x".repeat(limits::MAILBOX_NAME_BYTES_MAX + 1);
    for bad in ["", "a/b", "a%", "*", "a\u{7}", &long] {
        let refused = create(fixture, &new_mailbox(bad, None)).await;
        assert!(matches!(refused, Err(CreateError::BadName(_))), "{bad:?}");
        let refused = rename(fixture, parent, None, bad).await;
        assert!(matches!(refused, Err(RenameError::BadName(_))), "{bad:?}");
    }
    for taken in ["parent", "inbox", "Sent"] {
        let refused = create(fixture, &new_mailbox(taken, None)).await;
        assert!(matches!(refused, Err(CreateError::Exists)), "{taken}");
    }
    // Below the top INBOX is a name as any other.
    create(fixture, &new_mailbox("inbox", Some(parent))).await.unwrap();
    create(fixture, &new_mailbox("INBOX", Some(parent))).await.unwrap();
    let refused = create(fixture, &new_mailbox("x", Some(MailboxId(99)))).await;
    assert!(matches!(refused, Err(CreateError::NoParent)));
    let refused =
        create(fixture, &NewMailbox { role: Some(Role::Sent), ..new_mailbox("s", None) }).await;
    assert!(matches!(refused, Err(CreateError::RoleTaken)));
    fixture.check().await;
}

#[tokio::test]
async fn a_creation_that_is_retried_is_done_once() {
    let fixture = &Fixture::new().await;
    let new = &new_mailbox("once", None);
    let operation = fixture.operation();
    let run = || async {
        unit!(fixture, CreateError, |unit| mail::create_mailbox(&mut unit, new, operation).await)
            .unwrap()
    };
    let first = run().await;
    let before = fixture.everything().await;
    assert_eq!(run().await, first);
    assert_eq!(fixture.everything().await, before);
}

#[tokio::test]
async fn a_rename_moves_the_whole_branch_and_makes_no_cycle() {
    let fixture = &Fixture::new().await;
    let a = fixture.create("a").await;
    let b = create(fixture, &new_mailbox("b", Some(a))).await.unwrap();
    let c = create(fixture, &new_mailbox("c", Some(b))).await.unwrap();
    for below in [a, b, c] {
        let refused = rename(fixture, a, Some(below), "a").await;
        assert!(matches!(refused, Err(RenameError::Cycle)));
    }
    rename(fixture, b, None, "bee").await.unwrap();
    let tree = mailbox_tree(&fixture.db.begin(), fixture.account).await.unwrap();
    assert_eq!(tree.path_of(c), ["bee", "c"]);
    assert!(tree.by_path(["a", "b"]).is_none() && !tree.has_children(a));
    rename(fixture, a, Some(c), "a").await.unwrap();
    rename(fixture, a, Some(c), "a").await.unwrap();
    assert!(matches!(rename(fixture, c, None, "bee").await, Err(RenameError::Exists)));
    assert!(matches!(rename(fixture, c, None, "iNbOx").await, Err(RenameError::Exists)));
    assert!(matches!(
        rename(fixture, c, Some(MailboxId(99)), "x").await,
        Err(RenameError::NoParent)
    ));
    assert!(matches!(rename(fixture, MailboxId(99), None, "x").await, Err(RenameError::NoMailbox)));
    fixture.check().await;
}

#[tokio::test]
async fn inbox_keeps_its_name_and_stays() {
    let fixture = &Fixture::new().await;
    let inbox = fixture.inbox().await;
    let a = fixture.create("a").await;
    for (parent, name) in [(None, "Old mail"), (Some(a), "INBOX")] {
        let refused = rename(fixture, inbox, parent, name).await;
        assert!(matches!(refused, Err(RenameError::Inbox)));
    }
    rename(fixture, inbox, None, "inbox").await.unwrap();
    assert!(matches!(delete(fixture, inbox).await, Err(DeleteError::Inbox)));
    let held = mail::inbox(&fixture.db.begin(), fixture.account).await.unwrap();
    assert_eq!(held, Some(inbox));
    fixture.check().await;
}

#[tokio::test]
async fn the_tree_has_a_bounded_depth() {
    let fixture = &Fixture::new().await;
    let mut parent = None;
    let mut all = Vec::new();
    for level in 0..limits::MAILBOX_DEPTH_MAX {
        parent = Some(create(fixture, &new_mailbox(&format!("{level}"), parent)).await.unwrap());
        all.extend(parent);
    }
    let refused = create(fixture, &new_mailbox("deeper", parent)).await;
    assert!(matches!(refused, Err(CreateError::TooMany)));
    let other = fixture.create("other").await;
    assert!(matches!(rename(fixture, all[0], Some(other), "0").await, Err(RenameError::TooDeep)));
    rename(fixture, all[1], Some(other), "1").await.unwrap();
    fixture.check().await;
}

#[tokio::test]
async fn subscriptions_are_set_and_setting_them_again_changes_nothing() {
    let fixture = &Fixture::new().await;
    let mailbox = fixture.create("list").await;
    for subscription in [Subscription::Subscribed, Subscription::Unsubscribed] {
        for run in 0..2 {
            let before = fixture.everything().await;
            let done = unit!(fixture, StoreError, |unit| mail::set_subscription(
                &mut unit,
                mailbox,
                subscription
            )
            .await);
            assert_eq!(done.unwrap(), Some(()));
            assert_eq!(fixture.everything().await == before, run == 1);
        }
        let tree = mailbox_tree(&fixture.db.begin(), fixture.account).await.unwrap();
        let subscribed = tree.by_id(mailbox).unwrap().subscribed;
        assert_eq!(subscribed, subscription == Subscription::Subscribed);
    }
    let done = unit!(fixture, StoreError, |unit| mail::set_subscription(
        &mut unit,
        MailboxId(99),
        Subscription::Subscribed
    )
    .await);
    assert_eq!(done.unwrap(), None);
    fixture.check().await;
}

#[tokio::test]
async fn a_name_never_gets_the_same_uidvalidity_twice() {
    let fixture = &Fixture::new().await;
    let mut last = 0;
    for _ in 0..5 {
        // The clock stands still, so it is the stored number that rises.
        let mailbox = fixture.create("phoenix").await;
        let tree = mailbox_tree(&fixture.db.begin(), fixture.account).await.unwrap();
        let validity = tree.by_id(mailbox).unwrap().uid_validity.0;
        assert!(validity > last);
        last = validity;
        delete(fixture, mailbox).await.unwrap();
    }
}

#[tokio::test]
async fn a_deleted_mailbox_is_gone_at_once_and_its_contents_in_bounded_steps() {
    let fixture = &Fixture::new().await;
    let inbox = fixture.inbox().await;
    let doomed = fixture.create("doomed").await;
    let count = limits::EMAILS_PER_UNIT_MAX + 100;
    let all = fixture.fill(doomed, count).await;
    fixture.copy(CopyMode::Copy, doomed, inbox, &all[..10]).await.unwrap();
    let child = create(fixture, &new_mailbox("child", Some(doomed))).await.unwrap();
    assert!(matches!(delete(fixture, doomed).await, Err(DeleteError::HasChildren)));
    delete(fixture, child).await.unwrap();
    let operation = fixture.operation();
    for _ in 0..2 {
        let done =
            unit!(fixture, DeleteError, |unit| mail::delete_mailbox(&mut unit, doomed, operation)
                .await);
        done.expect("a retry answers as the first run");
    }
    assert!(matches!(delete(fixture, doomed).await, Err(DeleteError::NoMailbox)));
    let refused = fixture.append_as(doomed, &email("\r\n", &[]), fixture.operation()).await;
    assert!(matches!(refused, Err(mail::AppendError::NoMailbox(_))));
    let opened = View::open(&fixture.db, fixture.account, doomed).await;
    assert!(matches!(opened, Err(ViewError::NoMailbox(_))));
    fixture.create("doomed").await;
    fixture.check().await;

    let step = async |after| {
        unit!(fixture, StoreError, |unit| remove_mailbox_contents(&mut unit, doomed, after).await)
            .unwrap()
    };
    let Progress::More(last) = step(None).await else { panic!("more than one step") };
    fixture.check().await;
    // Whoever started crashed here; another finds the mark and begins again.
    let tree = mailbox_tree(&fixture.db.begin(), fixture.account).await.unwrap();
    assert!(tree.deleting().contains(&doomed));
    assert_eq!(step(Some(last)).await, Progress::Done);
    let (mut after, mut steps) = (None, 0);
    while let Progress::More(last) = step(after).await {
        after = Some(last);
        steps += 1;
    }
    assert_eq!(steps, 0, "what is gone is not looked at again");
    let (db, account) = (&fixture.db, fixture.account);
    for mailbox in [doomed, child] {
        db.run(|tx| async move { finish_delete(&tx, account, mailbox).await }).await.unwrap();
    }
    let tree = mailbox_tree(&fixture.db.begin(), fixture.account).await.unwrap();
    assert_eq!(tree.deleting(), []);
    let counts = mailbox_counts(&fixture.db.begin(), fixture.account, doomed).await.unwrap();
    assert_eq!((counts.messages, counts.bytes, counts.uid_next), (0, 0, 1));
    assert_eq!(fixture.truth(inbox).await.len(), 10, "the copies stay");
    let usage = mail::usage(&fixture.db.begin(), fixture.account).await.unwrap();
    assert_eq!(usage.emails, 10);
    fixture.check().await;
}

#[tokio::test]
async fn one_unit_sees_its_own_deletion() {
    let fixture = &Fixture::new().await;
    let mailbox = fixture.create("here").await;
    let email = &email("\r\n", &[]);
    let tx = fixture.db.begin();
    let mut unit = unit_of(fixture, &tx);
    mail::append(&mut unit, mailbox, email, fixture.operation()).await.unwrap();
    mail::delete_mailbox(&mut unit, mailbox, fixture.operation()).await.unwrap();
    let refused = mail::append(&mut unit, mailbox, email, fixture.operation()).await;
    assert!(matches!(refused, Err(mail::AppendError::NoMailbox(_))));
}

#[tokio::test]
async fn an_append_and_a_deletion_at_once_do_not_both_commit() {
    let fixture = &Fixture::new().await;
    let mailbox = fixture.create("here").await;
    for append_first in [true, false] {
        let (appending, deleting) = (fixture.db.begin(), fixture.db.begin());
        let mut unit = unit_of(fixture, &appending);
        let email = email("\r\n", &[]);
        mail::append(&mut unit, mailbox, &email, fixture.operation()).await.unwrap();
        unit.finish().await.unwrap();
        let mut unit = unit_of(fixture, &deleting);
        mail::delete_mailbox(&mut unit, mailbox, fixture.operation()).await.unwrap();
        unit.finish().await.unwrap();
        if append_first {
            // Before the deletion an append is in order: the deletion's later steps see it.
            appending.commit().await.unwrap();
            drop(deleting);
        } else {
            deleting.commit().await.unwrap();
            assert_eq!(appending.commit().await.unwrap_err(), kv::Error::Conflict);
        }
    }
    let shown = fixture.truth(mailbox).await;
    assert_eq!(shown.len(), 1);
    let target = target(&fixture.append(fixture.inbox().await, &email("\r\n", &[])).await);
    fixture.expunge(fixture.inbox().await, ExpungeMode::All, &[target]).await;
    fixture.check().await;
}

#[tokio::test]
async fn what_a_newer_release_wrote_survives_a_subscription_and_a_new_name() {
    let fixture = Fixture::new().await;
    let mailbox = create(&fixture, &new_mailbox("a", None)).await.unwrap();
    let key = mail::keys::mailbox::key(fixture.account, mailbox);
    // Field 1000, a number.
    let newer = [0xc0, 0x3e, 0x07];
    let tx = fixture.db.begin();
    let before = tx.get(&key).await.unwrap().unwrap();
    tx.set(&key, &[&before[..], &newer].concat());
    tx.commit().await.unwrap();
    unit!(fixture, StoreError, |unit| mail::set_subscription(
        &mut unit,
        mailbox,
        Subscription::Subscribed
    )
    .await)
    .unwrap();
    rename(&fixture, mailbox, None, "b").await.unwrap();
    let after = fixture.db.begin().get(&key).await.unwrap().unwrap();
    assert!(after != before && after.ends_with(&newer), "{after:?}");
}
