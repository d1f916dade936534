//! The account's log: paging, trimming, and that it says what happened.

use mail::{
    CopyMode, KeywordChange, ModSeq, Role, StoreRequest, changes_since,
    keys::log::{LogEntry, MailboxChangeKind},
    limits, trim_log,
};

use crate::fixture::{Fixture, email, set, state, target};

async fn whole(fixture: &Fixture) -> (Vec<(ModSeq, LogEntry)>, usize) {
    let (mut entries, mut pages, mut after) = (Vec::new(), 0, ModSeq(0));
    loop {
        let page = changes_since(&fixture.db.begin(), fixture.account, after).await.unwrap();
        pages += 1;
        entries.extend(page.entries);
        match page.more_after {
            Some(more) => {
                assert!(more > after, "a page leads on");
                after = more;
            }
            None => return (entries, pages),
        }
    }
}

/// Writes `count` entries of one version, as that many transactions of one batch would.
async fn entries_of_one_version(fixture: &Fixture, count: u16, padding: usize) {
    let tx = fixture.db.begin();
    for order in 0..count {
        let mut entry = LogEntry::default();
        entry.emails.push(mail::keys::log::EmailChange {
            email: 1_000_000 + u32::from(order),
            keywords_after: vec!["x".repeat(padding)],
            ..Default::default()
        });
        let key = mail::keys::log::key_for_commit(fixture.account, order);
        let value = prost::Message::encode_to_vec(&entry);
        tx.atomic(&key, &value, kv::AtomicOp::SetVersionstampedKey);
    }
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_long_log_is_read_in_pages_that_split_no_version() {
    let fixture = Fixture::new().await;
    let limit = u16::try_from(limits::LOG_ENTRIES_PER_READ).unwrap();
    // One version across the first page's end, and one larger than a page.
    for count in [limit - 10, 30, 2 * limit + 7, 1] {
        entries_of_one_version(&fixture, count, 0).await;
    }
    let (entries, pages) = whole(&fixture).await;
    assert_eq!(entries.len(), usize::from(3 * limit) + 28 + 1, "the account's creation is one");
    assert!(pages >= 3);
    let mut after = ModSeq(0);
    loop {
        let page = changes_since(&fixture.db.begin(), fixture.account, after).await.unwrap();
        let here = |version: ModSeq| entries.iter().filter(|(held, _)| *held == version).count();
        for (version, _) in &page.entries {
            let found = page.entries.iter().filter(|(held, _)| held == version).count();
            assert_eq!(found, here(*version), "a version is whole or not there");
            if found > 100 {
                break;
            }
        }
        let Some(more) = page.more_after else { break };
        after = more;
    }
}

#[tokio::test]
async fn a_read_is_bounded_in_bytes() {
    let fixture = Fixture::new().await;
    let padding = 50_000;
    let count = 2 * limits::LOG_BYTES_PER_READ / padding;
    for _ in 0..count {
        entries_of_one_version(&fixture, 1, padding).await;
    }
    let page = changes_since(&fixture.db.begin(), fixture.account, ModSeq(0)).await.unwrap();
    assert!(page.more_after.is_some());
    assert!(page.entries.len() * padding < limits::LOG_BYTES_PER_READ + 200_000);
    assert_eq!(whole(&fixture).await.0.len(), count + 1);
}

#[tokio::test]
async fn the_log_tells_before_and_after() {
    let fixture = Fixture::new().await;
    let (inbox, archive) = (fixture.inbox().await, fixture.mailbox(Role::Archive).await);
    let done = fixture.append(inbox, &email("\r\n", &["a"])).await;
    let (appended_at, _) = state(&fixture, done.email).await.unwrap();
    fixture.copy(CopyMode::Move, inbox, archive, &[target(&done)]).await.unwrap();
    let (log, _) = whole(&fixture).await;
    let kinds = log[0].1.mailboxes.iter().map(|change| change.kind);
    assert_eq!(kinds.collect::<Vec<_>>(), [MailboxChangeKind::Created as i32; 6]);
    let [(_, first), (_, second)] = &log[1..] else { panic!("two entries") };
    let (append, moved) = (&first.emails[0], &second.emails[0]);
    assert_eq!((append.before.len(), append.after[0].mailbox), (0, inbox.0));
    assert_eq!((append.modseq_before, moved.modseq_before), (0, appended_at.0));
    assert_eq!((moved.before[0].mailbox, moved.after[0].mailbox), (inbox.0, archive.0));
    assert_eq!(
        (&moved.keywords_before, &moved.keywords_after),
        (&moved.keywords_after, &append.keywords_after)
    );
    assert_eq!(moved.thread, done.thread.0);
}

#[tokio::test]
async fn many_changes_of_one_transaction_span_entries_of_one_version() {
    let fixture = Fixture::new().await;
    let inbox = fixture.inbox().await;
    let all = fixture.fill(inbox, 400).await;
    let names: Vec<String> = (0..20).map(|i| format!("{i:0>200}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let request = StoreRequest {
        mailbox: inbox,
        change: KeywordChange::Add,
        keywords: set(&names),
        deleted: None,
        unchanged_since: None,
    };
    let (before, _) = whole(&fixture).await;
    fixture.store(&request, &all).await;
    let (log, _) = whole(&fixture).await;
    let new = &log[before.len()..];
    assert!(new.len() > 20, "1.6 MB of changes in values of 60 kB");
    assert!(new.iter().all(|(version, _)| *version == new[0].0));
    let changes: usize = new.iter().map(|(_, entry)| entry.emails.len()).sum();
    assert_eq!(changes, 400);
    fixture.check().await;
}

#[tokio::test]
async fn trimming_moves_the_horizon_and_never_back() {
    let fixture = Fixture::new().await;
    let inbox = fixture.inbox().await;
    for _ in 0..5 {
        fixture.append(inbox, &email("\r\n", &[])).await;
    }
    let (log, _) = whole(&fixture).await;
    let (second, fourth) = (log[2].0, log[4].0);
    // Two that trim at once; the one that goes less far commits last.
    let (far, near) = (fixture.db.begin(), fixture.db.begin());
    trim_log(&far, fixture.account, fourth).await.unwrap();
    trim_log(&near, fixture.account, second).await.unwrap();
    far.commit().await.unwrap();
    near.commit().await.unwrap();
    let page = changes_since(&fixture.db.begin(), fixture.account, second).await.unwrap();
    assert_eq!(page.horizon, fourth);
    assert!(!page.reaches(second) && page.reaches(fourth));
    assert_eq!(page.entries, log[5..]);
    let before = fixture.everything().await;
    let tx = fixture.db.begin();
    trim_log(&tx, fixture.account, second).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(fixture.everything().await, before);
    fixture.check().await;
}
