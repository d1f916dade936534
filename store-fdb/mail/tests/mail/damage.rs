//! The checks can fail: what is planted is found.

use kv::{AtomicOp, RangeQuery};
use mail::{
    ExpungeMode, StoreError,
    fold::check_account,
    keys,
    keys::{counter::MailboxTotals, view::ViewPage},
    view::{View, ViewError, write_checkpoint},
};
use prost::Message;

use crate::fixture::{Fixture, email, listing, target};

async fn found(fixture: &Fixture) -> Vec<String> {
    let found = check_account(&fixture.db.begin(), fixture.account).await.unwrap();
    found.into_iter().map(|one| one.0).collect()
}

#[tokio::test]
async fn a_wrong_counter_is_found() {
    let fixture = Fixture::new().await;
    let inbox = fixture.inbox().await;
    fixture.append(inbox, &email("\r\n", &[])).await;
    let tx = fixture.db.begin();
    let key = keys::counter::mailbox_key(fixture.account, inbox);
    let one = MailboxTotals { unseen: -1, ..MailboxTotals::default() };
    tx.atomic(&key, &one.operand(), AtomicOp::Add);
    tx.commit().await.unwrap();
    let found = found(&fixture).await;
    assert!(matches!(&found[..], [one] if one.contains("counters say")), "{found:?}");
}

#[tokio::test]
async fn a_lost_log_entry_is_found() {
    let fixture = Fixture::new().await;
    let inbox = fixture.inbox().await;
    let done = fixture.append(inbox, &email("\r\n", &[])).await;
    fixture.expunge(inbox, ExpungeMode::All, &[target(&done)]).await;
    let (begin, end) = keys::log::range_after(fixture.account, 0);
    let log = fixture.db.begin().range(RangeQuery::new(begin, end)).collect().await.unwrap();
    for lost in &log[1..] {
        let tx = fixture.db.begin();
        tx.clear(&lost.key);
        tx.commit().await.unwrap();
        let found = found(&fixture).await;
        assert!(found.iter().any(|one| one.contains("log")), "{found:?}");
        let tx = fixture.db.begin();
        tx.set(&lost.key, &lost.value);
        tx.commit().await.unwrap();
        fixture.check().await;
    }
}

#[tokio::test]
async fn a_uid_that_comes_late_or_again_is_found() {
    let fixture = Fixture::new().await;
    let inbox = fixture.inbox().await;
    fixture.append(inbox, &email("\r\n", &[])).await;
    fixture.append(inbox, &email("\r\n", &[])).await;
    let tx = fixture.db.begin();
    let next = keys::mailbox::next_uid_key(fixture.account, inbox);
    tx.set(&next, &1_u32.to_le_bytes());
    tx.commit().await.unwrap();
    assert!(found(&fixture).await.iter().any(|one| one.contains("not above")));
    fixture.append(inbox, &email("\r\n", &[])).await;
    let found = found(&fixture).await;
    assert!(found.iter().any(|one| one.contains("twice")), "{found:?}");
    assert!(found.iter().any(|one| one.contains("late")), "{found:?}");
    assert!(found.iter().any(|one| one.contains("two emails")), "{found:?}");
}

#[tokio::test]
async fn lost_indexes_are_found() {
    let fixture = Fixture::new().await;
    let inbox = fixture.inbox().await;
    let email = email("\r\n", &[]);
    let done = fixture.append(inbox, &email).await;
    let account = fixture.account;
    for (key, word) in [
        (keys::email::meta_key(account, done.email), "only one of"),
        (keys::thread::member_key(account, done.thread, done.email), "thread"),
        (keys::mailbox::name_key(account, None, "INBOX"), "index"),
        (keys::email::state_key(account, done.email), "log says"),
    ] {
        let value = fixture.db.begin().get(&key).await.unwrap().unwrap();
        let tx = fixture.db.begin();
        tx.clear(&key);
        tx.commit().await.unwrap();
        let found = found(&fixture).await;
        assert!(found.iter().any(|one| one.contains(word)), "{word}: {found:?}");
        let tx = fixture.db.begin();
        tx.set(&key, &value);
        tx.commit().await.unwrap();
    }
    let tx = fixture.db.begin();
    blob::references::remove(
        &tx,
        email.blob,
        &blob::Owner::Email(account.0, done.email.0),
        crate::fixture::NOW,
    );
    tx.commit().await.unwrap();
    assert!(found(&fixture).await.iter().any(|one| one.contains("not referenced")));
}

/// Changes a mailbox's stored first page.
async fn damage(fixture: &Fixture, change: impl FnOnce(&mut ViewPage)) {
    let inbox = fixture.inbox().await;
    let tx = fixture.db.begin();
    let key = keys::view::page_key(fixture.account, inbox, 0);
    let mut page = ViewPage::decode(&tx.get(&key).await.unwrap().unwrap()[..]).unwrap();
    change(&mut page);
    tx.set(&key, &page.encode_to_vec());
    tx.commit().await.unwrap();
}

async fn checkpointed() -> Fixture {
    let fixture = Fixture::new().await;
    let inbox = fixture.inbox().await;
    fixture.fill(inbox, 5).await;
    write_checkpoint(&fixture.db, &fixture.open(inbox).await).await.unwrap();
    fixture
}

#[tokio::test]
async fn a_wrong_page_is_found_by_comparison() {
    let fixture = checkpointed().await;
    let inbox = fixture.inbox().await;
    damage(&fixture, |page| page.sizes[2] += 1).await;
    let served = listing(&fixture.db, &fixture.open(inbox).await).await.unwrap();
    assert_ne!(served, fixture.truth(inbox).await, "a page is believed where it can be right");
    fixture.forget_history(inbox).await;
    let rebuilt = listing(&fixture.db, &fixture.open(inbox).await).await.unwrap();
    assert_eq!(rebuilt, fixture.truth(inbox).await, "and is never the truth");
}

#[tokio::test]
async fn a_page_that_cannot_be_right_is_reported_and_not_served() {
    type Change = fn(&mut ViewPage);
    let changes: [Change; 7] = [
        |page| page.sizes.truncate(4),
        |page| page.uid_offsets[0] = 9,
        |page| page.uid_offsets[4] = 2_048,
        |page| page.flags[1] = 1,
        |page| page.flag_sets.clear(),
        |page| {
            for column in [&mut page.uid_offsets, &mut page.emails, &mut page.threads] {
                column.pop();
            }
            page.modseq_deltas.pop();
            page.received_deltas.pop();
            page.sizes.pop();
            page.flags.pop();
        },
        |page| *page = ViewPage { as_of: page.as_of, ..ViewPage::default() },
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let fixture = checkpointed().await;
        damage(&fixture, change).await;
        let view = fixture.open(fixture.inbox().await).await;
        assert_eq!(view.exists(), 5);
        let served = listing(&fixture.db, &view).await;
        let damaged = matches!(served, Err(ViewError::Store(StoreError::Damaged { .. })));
        assert!(damaged, "{number}: {served:?}");
    }
}

#[tokio::test]
async fn a_header_that_cannot_be_right_is_reported() {
    let fixture = checkpointed().await;
    let inbox = fixture.inbox().await;
    let key = keys::view::header_key(fixture.account, inbox);
    let value = fixture.db.begin().get(&key).await.unwrap().unwrap();
    let right = keys::view::ViewHeader::decode(&value[..]).unwrap();
    type Change = fn(&mut keys::view::ViewHeader);
    let changes: [Change; 4] = [
        |header| header.pages[0].number = u32::MAX,
        |header| header.pages[0].count = 2_049,
        |header| header.pages[0].unseen = 6,
        |header| header.pages.push(header.pages[0]),
    ];
    for change in changes {
        let mut header = right.clone();
        change(&mut header);
        let tx = fixture.db.begin();
        tx.set(&key, &header.encode_to_vec());
        tx.commit().await.unwrap();
        let opened = View::open(&fixture.db, fixture.account, inbox).await;
        assert!(matches!(opened, Err(ViewError::Store(StoreError::Damaged { .. }))));
    }
}
