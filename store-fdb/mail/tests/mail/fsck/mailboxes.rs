//! Damages of counters, numbers, mailboxes and views.

use mail::{
    keys::{
        counter::{AccountCounts, MailboxTotals},
        mailbox::MailboxRecord,
    },
    view::write_checkpoint,
};
use prost::Message;

use super::*;

async fn totals(world: &World) -> MailboxTotals {
    let key = keys::counter::mailbox_key(world.fixture.account, world.inbox);
    MailboxTotals::decode(world.fixture.db.begin().get(&key).await.unwrap().as_deref()).unwrap()
}

#[tokio::test]
async fn each_of_a_mailboxs_counters() {
    let world = World::new().await;
    let (account, mailbox) = (world.fixture.account, world.inbox);
    let fold = totals(&world).await;
    let key = keys::counter::mailbox_key(account, mailbox);
    let none = MailboxTotals::default();
    for wrong in [
        MailboxTotals { total: 1, ..none },
        MailboxTotals { unseen: -1, ..none },
        MailboxTotals { deleted: 2, ..none },
        MailboxTotals { bytes: -7, ..none },
    ] {
        plant!(world, |tx| tx.atomic(&key, &wrong.operand(), AtomicOp::Add));
        let stored = totals(&world).await;
        assert_ne!(stored, fold);
        world.mends(vec![Damage::MailboxCounters { account, mailbox, stored, fold }]).await;
        assert_eq!(totals(&world).await, fold);
    }
    plant!(world, |tx| tx.set(&key, &[1, 2, 3]));
    world.mends(vec![Damage::Undecodable { family: "counter", key }]).await;
    assert_eq!(totals(&world).await, fold);
}

#[tokio::test]
async fn an_accounts_counters() {
    let world = World::new().await;
    let account = world.fixture.account;
    let key = keys::counter::account_key(account);
    let stored = world.fixture.db.begin().get(&key).await.unwrap();
    let fold = AccountCounts::decode(stored.as_deref()).unwrap();
    for wrong in [AccountCounts { bytes: 5, emails: 0 }, AccountCounts { bytes: 0, emails: -1 }] {
        plant!(world, |tx| tx.atomic(&key, &wrong.operand(), AtomicOp::Add));
        let stored =
            AccountCounts { bytes: fold.bytes + wrong.bytes, emails: fold.emails + wrong.emails };
        world.mends(vec![Damage::AccountCounters { account, stored, fold }]).await;
    }
}

#[tokio::test]
async fn numbers_that_would_be_given_out_again() {
    let world = World::new().await;
    let (account, mailbox) = (world.fixture.account, world.inbox);
    plant!(world, |tx| {
        tx.set(&keys::mailbox::next_uid_key(account, mailbox), &2_u32.to_le_bytes());
    });
    world.mends(vec![Damage::NextUid { account, mailbox, next: 2, highest: 2 }]).await;
    plant!(world, |tx| tx.clear(&keys::mailbox::next_email_key(account)));
    world.mends(vec![Damage::NextEmail { account, next: 1, highest: 2 }]).await;
    plant!(world, |tx| {
        tx.set(&keys::mailbox::next_mailbox_key(account), &3_u32.to_le_bytes());
    });
    world.mends(vec![Damage::NextMailbox { account, next: 3, highest: 6 }]).await;
    let done = world.fixture.append(mailbox, &email(&world.blobs, "\r\n").await).await;
    assert_eq!((done.uid, done.email), (uid(3), EmailId(3)));
}

#[tokio::test]
async fn the_index_of_names() {
    let world = World::new().await;
    let (account, inbox) = (world.fixture.account, world.inbox);
    let key = keys::mailbox::name_key(account, None, "INBOX");
    plant!(world, |tx| tx.clear(&key));
    world.mends(vec![Damage::NoName(account, inbox)]).await;
    plant!(world, |tx| tx.set(&key, &99_u32.to_le_bytes()));
    let stray = |mailbox, key| Damage::StrayName { account, mailbox, key };
    world.mends(vec![stray(MailboxId(99), key.clone())]).await;
    assert_eq!(mail::inbox(&world.fixture.db.begin(), account).await.unwrap(), Some(inbox));
    let nothing = keys::mailbox::name_key(account, Some(inbox), "nothing");
    plant!(world, |tx| tx.set(&nothing, &inbox.0.to_le_bytes()));
    world.mends(vec![stray(inbox, nothing)]).await;
}

#[tokio::test]
async fn what_follows_from_a_damaged_record_is_not_mended() {
    let world = World::new().await;
    let (account, inbox) = (world.fixture.account, world.inbox);
    let other = keys::mailbox::key(account, world.fixture.create("other").await);
    plant!(world, |tx| {
        tx.clear(&keys::mailbox::name_key(account, None, "INBOX"));
        tx.set(&other, b"\xff");
    });
    let expected =
        vec![Damage::Undecodable { family: "mailbox", key: other }, Damage::NoName(account, inbox)];
    world.check(expected.clone(), expected).await;
}

async fn change(world: &World, mailbox: MailboxId, change: impl FnOnce(&mut MailboxRecord)) {
    let key = keys::mailbox::key(world.fixture.account, mailbox);
    let value = world.fixture.db.begin().get(&key).await.unwrap().unwrap();
    let mut record = MailboxRecord::decode(&value[..]).unwrap();
    change(&mut record);
    plant!(world, |tx| tx.set(&key, &record.encode_to_vec()));
}

#[tokio::test]
async fn mailboxes_of_one_name_and_below_nothing() {
    let world = World::new().await;
    let account = world.fixture.account;
    let (a, b) = (world.fixture.create("a").await, world.fixture.create("b").await);
    change(&world, b, |record| record.name = "a".to_owned()).await;
    plant!(world, |tx| tx.clear(&keys::mailbox::name_key(account, None, "b")));
    world.needs_a_person(vec![Damage::NameTwice(account, [a, b])]).await;
    change(&world, b, |record| {
        record.name = "b".to_owned();
        record.parent = Some(77);
    })
    .await;
    plant!(world, |tx| {
        let key = keys::mailbox::name_key(account, Some(MailboxId(77)), "b");
        tx.set(&key, &b.0.to_le_bytes());
    });
    world.needs_a_person(vec![Damage::NoParent(account, b, MailboxId(77))]).await;
}

#[tokio::test]
async fn what_is_left_of_no_mailbox() {
    let world = World::new().await;
    let (account, gone) = (world.fixture.account, MailboxId(88));
    plant!(world, |tx| {
        let one = MailboxTotals { total: 1, ..MailboxTotals::default() };
        tx.set(&keys::counter::mailbox_key(account, gone), &one.operand());
    });
    world.mends(vec![Damage::StrayCounters(account, gone)]).await;
    plant!(world, |tx| tx.set(&keys::mailbox::next_uid_key(account, gone), &[1, 0, 0, 0]));
    world.mends(vec![Damage::StrayNextUid(account, gone)]).await;
    plant!(world, |tx| tx.set(&keys::view::page_key(account, gone, 0), &[]));
    world.mends(vec![Damage::View(account, gone)]).await;
}

#[tokio::test]
async fn a_mailbox_whose_record_is_lost_keeps_what_it_has() {
    let world = World::new().await;
    let (account, inbox) = (world.fixture.account, world.inbox);
    plant!(world, |tx| tx.clear(&keys::mailbox::key(account, inbox)));
    let found = world.found().await;
    assert!(
        matches!(
            &found[..],
            [
                Damage::NoSuchMailbox(..),
                Damage::NoSuchMailbox(..),
                Damage::StrayName { .. },
                Damage::View(..)
            ]
        ),
        "{found:?}"
    );
    world.run(Mode::Repair).await;
    let tx = world.fixture.db.begin();
    for key in
        [keys::counter::mailbox_key(account, inbox), keys::mailbox::next_uid_key(account, inbox)]
    {
        assert!(tx.get(&key).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn a_mailbox_that_is_being_deleted_is_right() {
    let world = World::new().await;
    let (fixture, inbox) = (&world.fixture, world.inbox);
    let other = fixture.create("other").await;
    fixture.copy(mail::CopyMode::Move, inbox, other, &world.targets()).await.unwrap();
    let operation = fixture.operation();
    crate::fixture::unit!(fixture, mail::DeleteError, |unit| mail::delete_mailbox(
        &mut unit, other, operation
    )
    .await)
    .unwrap();
    assert_eq!(world.found().await, []);
}

#[tokio::test]
async fn a_checkpoint_that_cannot_be_read() {
    let world = World::new().await;
    let (account, inbox) = (world.fixture.account, world.inbox);
    let checkpoint = async || {
        let view = world.fixture.open(inbox).await;
        write_checkpoint(&world.fixture.db, &view).await.unwrap();
    };
    checkpoint().await;
    assert_eq!(world.found().await, []);
    for key in [
        keys::view::header_key(account, inbox),
        keys::view::page_key(account, inbox, 0),
        keys::view::page_key(account, inbox, 5),
    ] {
        plant!(world, |tx| tx.set(&key, b"\xff\xff"));
        world.mends(vec![Damage::View(account, inbox)]).await;
        let view = world.fixture.open(inbox).await;
        let listed = crate::fixture::listing(&world.fixture.db, &view).await.unwrap();
        assert_eq!(listed, world.fixture.truth(inbox).await);
        checkpoint().await;
    }
}
