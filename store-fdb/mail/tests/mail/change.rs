//! STORE, COPY, MOVE and EXPUNGE.

use mail::{
    CopyError, CopyMode, Deleted, ExpungeMode, KeywordChange, MailboxId, ModSeq, Role, StoreError,
    StoreOutcome, StoreRequest, StoreTarget, Uid, limits, mailbox_counts,
};

use crate::fixture::{Fixture, email, set, state, target, targets, unit};

fn request(mailbox: MailboxId, change: KeywordChange, keywords: &[&str]) -> StoreRequest {
    StoreRequest { mailbox, change, keywords: set(keywords), deleted: None, unchanged_since: None }
}

async fn flags(fixture: &Fixture, mailbox: MailboxId) -> Vec<(Vec<String>, bool)> {
    let shown = fixture.truth(mailbox).await;
    shown
        .into_iter()
        .map(|one| {
            let keywords = one.row.flags.keywords.iter().map(|held| held.as_str().to_owned());
            (keywords.collect(), one.row.flags.deleted)
        })
        .collect()
}

#[tokio::test]
async fn keywords_are_added_removed_and_replaced() {
    let fixture = Fixture::new().await;
    let inbox = fixture.inbox().await;
    let done = fixture.append(inbox, &email("\r\n", &["$seen", "a"])).await;
    let all = [target(&done)];
    for (change, keywords, deleted, expected) in [
        (KeywordChange::Add, &["b", "a"][..], None, (&["$seen", "a", "b"][..], false)),
        (KeywordChange::Remove, &["$seen", "x"], None, (&["a", "b"], false)),
        (KeywordChange::Add, &[], Some(Deleted), (&["a", "b"], true)),
        (KeywordChange::Add, &["c"], None, (&["a", "b", "c"], true)),
        (KeywordChange::Remove, &["c"], Some(Deleted), (&["a", "b"], false)),
        (KeywordChange::Replace, &["$seen"], Some(Deleted), (&["$seen"], true)),
        (KeywordChange::Replace, &[], None, (&[], false)),
    ] {
        let request = StoreRequest { deleted, ..request(inbox, change, keywords) };
        let outcome = fixture.store(&request, &all).await;
        assert_eq!(outcome.stored, [done.uid]);
        let expected = (expected.0.iter().map(|text| (*text).to_owned()).collect(), expected.1);
        assert_eq!(flags(&fixture, inbox).await, [expected], "{change:?} {keywords:?}");
        fixture.check().await;
        let before = fixture.everything().await;
        fixture.store(&request, &all).await;
        assert_eq!(fixture.everything().await, before, "a second run changes nothing");
    }
}

#[tokio::test]
async fn deleted_belongs_to_one_mailbox_and_keywords_to_the_email() {
    let fixture = Fixture::new().await;
    let (inbox, archive) = (fixture.inbox().await, fixture.mailbox(Role::Archive).await);
    let done = fixture.append(inbox, &email("\r\n", &[])).await;
    fixture.copy(CopyMode::Copy, inbox, archive, &[target(&done)]).await.unwrap();
    let change = request(inbox, KeywordChange::Add, &["$seen"]);
    let change = StoreRequest { deleted: Some(Deleted), ..change };
    fixture.store(&change, &[target(&done)]).await;
    let seen = vec!["$seen".to_owned()];
    assert_eq!(flags(&fixture, inbox).await, [(seen.clone(), true)]);
    assert_eq!(flags(&fixture, archive).await, [(seen, false)]);
    for (mailbox, deleted) in [(inbox, 1), (archive, 0)] {
        let counts = mailbox_counts(&fixture.db.begin(), fixture.account, mailbox).await.unwrap();
        assert_eq!((counts.messages, counts.unseen, counts.deleted), (1, 0, deleted));
    }
    fixture.check().await;
}

#[tokio::test]
async fn unchanged_since_leaves_alone_what_changed_and_a_retry_answers_alike() {
    let fixture = &Fixture::new().await;
    let inbox = fixture.inbox().await;
    let all = &fixture.fill(inbox, 3).await[..];
    let (then, _) = state(fixture, all[0].email).await.unwrap();
    fixture.store(&request(inbox, KeywordChange::Add, &["early"]), &all[1..2]).await;
    let conditional = &StoreRequest {
        unchanged_since: Some(then),
        ..request(inbox, KeywordChange::Add, &["late"])
    };
    let operation = fixture.operation();
    let gone = StoreTarget { uid: Uid::new(77).unwrap(), ..all[0] };
    let wanted = &[all[0], all[1], all[2], gone][..];
    let run = || async {
        unit!(fixture, StoreError, |unit| mail::store_keywords(
            &mut unit,
            conditional,
            wanted,
            operation
        )
        .await)
        .unwrap()
    };
    let first = run().await;
    let expected = StoreOutcome {
        stored: vec![all[0].uid, all[2].uid],
        modified: vec![all[1].uid],
        gone: vec![gone.uid],
        refused: Vec::new(),
    };
    assert_eq!(first, expected);
    let before = fixture.everything().await;
    assert_eq!(run().await, expected, "guarded by its operation id");
    assert_eq!(fixture.everything().await, before);
    let zero = StoreRequest { unchanged_since: Some(ModSeq(0)), ..conditional.clone() };
    assert_eq!(fixture.store(&zero, all).await.modified.len(), 3, "RFC 7162 §3.1.3");
    fixture.check().await;
}

#[tokio::test]
async fn too_many_keywords_are_refused_one_by_one() {
    let fixture = Fixture::new().await;
    let inbox = fixture.inbox().await;
    let all = fixture.fill(inbox, 2).await;
    let names: Vec<String> = (0..limits::KEYWORDS_PER_EMAIL_MAX).map(|i| format!("k{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let full = request(inbox, KeywordChange::Add, &names);
    assert_eq!(fixture.store(&full, &all[..1]).await.stored, [all[0].uid]);
    let outcome = fixture.store(&request(inbox, KeywordChange::Add, &["more"]), &all).await;
    assert_eq!((outcome.refused, outcome.stored), (vec![all[0].uid], vec![all[1].uid]));
    fixture.check().await;
}

#[tokio::test]
async fn a_copy_is_a_membership_and_a_second_one_an_email_of_its_own() {
    let fixture = &Fixture::new().await;
    let (inbox, archive) = (fixture.inbox().await, fixture.mailbox(Role::Archive).await);
    let source = email("Message-ID: <1@x>\r\nSubject: s\r\n\r\nbody", &["$seen"]);
    let done = fixture.append(inbox, &source).await;
    let all = [target(&done)];
    let first = fixture.copy(CopyMode::Copy, inbox, archive, &all).await.unwrap();
    assert_eq!(first.pairs, [(done.uid, Uid::MIN)]);
    let (_, held) = state(fixture, done.email).await.unwrap();
    assert_eq!(held.memberships.len(), 2, "one email in two mailboxes");
    let usage = mail::usage(&fixture.db.begin(), fixture.account).await.unwrap();
    assert_eq!((usage.emails, usage.bytes), (1, source.size), "which costs no quota");
    // Again, and within the mailbox itself: IMAP wants another message.
    for (to, expected_emails) in [(archive, 2), (inbox, 3)] {
        let copied = fixture.copy(CopyMode::Copy, inbox, to, &all).await.unwrap();
        assert_eq!(copied.pairs, [(done.uid, Uid::new(2).unwrap())]);
        let shown = fixture.truth(to).await;
        assert_eq!(shown.len(), 2);
        assert_ne!(shown[0].row.email, shown[1].row.email);
        assert_eq!(shown[0].row.thread, shown[1].row.thread);
        assert_eq!(shown[0].row.flags, shown[1].row.flags);
        let usage = mail::usage(&fixture.db.begin(), fixture.account).await.unwrap();
        assert_eq!(usage.emails, expected_emails);
        let tx = fixture.db.begin();
        let meta =
            async |email| mail::email_meta(&tx, fixture.account, email).await.unwrap().unwrap();
        assert_eq!(meta(shown[0].row.email).await, meta(shown[1].row.email).await);
        fixture.check().await;
    }
    // The copies live on without the first.
    fixture.expunge(inbox, ExpungeMode::All, &targets(&fixture.truth(inbox).await)).await;
    assert_eq!(fixture.truth(archive).await.len(), 2);
    fixture.check().await;
}

#[tokio::test]
async fn a_copy_over_quota_or_into_nothing_copies_nothing() {
    let email = email("Subject: s\r\n\r\n", &[]);
    let fixture = Fixture::with_quota(email.size).await;
    let inbox = fixture.inbox().await;
    let done = fixture.append(inbox, &email).await;
    let before = fixture.everything().await;
    let refused = fixture.copy(CopyMode::Copy, inbox, inbox, &[target(&done)]).await;
    assert!(matches!(refused, Err(CopyError::OverQuota)));
    let refused = fixture.copy(CopyMode::Move, inbox, MailboxId(99), &[target(&done)]).await;
    assert!(matches!(refused, Err(CopyError::NoMailbox(MailboxId(99)))));
    assert_eq!(fixture.everything().await, before);
}

#[tokio::test]
async fn a_move_is_all_or_nothing_and_keeps_the_email() {
    let fixture = Fixture::new().await;
    let (inbox, archive) = (fixture.inbox().await, fixture.mailbox(Role::Archive).await);
    let all = fixture.fill(inbox, 3).await;
    let gone = StoreTarget { uid: Uid::new(50).unwrap(), ..all[0] };
    let wanted = [all[2], gone, all[0]];
    let moved = fixture.copy(CopyMode::Move, inbox, archive, &wanted).await.unwrap();
    let uid = |number| Uid::new(number).unwrap();
    assert_eq!(moved.pairs, [(uid(3), uid(1)), (uid(1), uid(2))]);
    assert_eq!(moved.gone, [uid(50)]);
    assert_eq!(fixture.truth(inbox).await.len(), 1);
    let shown: Vec<_> = fixture.truth(archive).await.iter().map(|one| one.row.email).collect();
    assert_eq!(shown, [all[2].email, all[0].email]);
    // Into the mailbox it is in: a new UID for the same email.
    let there = targets(&fixture.truth(archive).await);
    let again = fixture.copy(CopyMode::Move, archive, archive, &there[..1]).await.unwrap();
    assert_eq!(again.pairs, [(uid(1), uid(3))]);
    let shown: Vec<_> =
        fixture.truth(archive).await.iter().map(|one| (one.row.uid, one.row.email)).collect();
    assert_eq!(shown, [(uid(2), all[0].email), (uid(3), all[2].email)]);
    fixture.check().await;
}

/// The target has the email already: the moved one must not melt into it.
#[tokio::test]
async fn a_move_to_where_the_email_is_already_makes_a_second_message() {
    let fixture = Fixture::new().await;
    let (inbox, archive) = (fixture.inbox().await, fixture.mailbox(Role::Archive).await);
    let done = fixture.append(inbox, &email("\r\n", &["$flagged"])).await;
    fixture.copy(CopyMode::Copy, inbox, archive, &[target(&done)]).await.unwrap();
    fixture.copy(CopyMode::Move, inbox, archive, &[target(&done)]).await.unwrap();
    assert_eq!(fixture.truth(inbox).await, []);
    assert_eq!(fixture.truth(archive).await.len(), 2);
    fixture.check().await;
}

#[tokio::test]
async fn a_retried_copy_or_move_is_done_once() {
    let fixture = &Fixture::new().await;
    let (inbox, archive) = (fixture.inbox().await, fixture.mailbox(Role::Archive).await);
    for mode in [CopyMode::Copy, CopyMode::Move] {
        let all = &fixture.fill(inbox, 2).await[..];
        let operation = fixture.operation();
        let run = || async {
            unit!(fixture, CopyError, |unit| mail::copy(
                &mut unit, mode, inbox, archive, all, operation
            )
            .await)
            .unwrap()
        };
        let first = run().await;
        let before = fixture.everything().await;
        let second = run().await;
        assert_eq!(fixture.everything().await, before);
        assert_eq!(second.pairs, first.pairs);
        assert_eq!((first.earlier, second.earlier.is_some()), (None, true));
        assert_eq!(second.uid_validity, first.uid_validity);
    }
    fixture.check().await;
}

#[tokio::test]
async fn an_email_is_in_a_bounded_number_of_mailboxes() {
    let fixture = Fixture::new().await;
    let inbox = fixture.inbox().await;
    let done = fixture.append(inbox, &email("\r\n", &[])).await;
    for i in 1..limits::MEMBERSHIPS_PER_EMAIL_MAX {
        let to = fixture.create(&format!("m{i}")).await;
        fixture.copy(CopyMode::Copy, inbox, to, &[target(&done)]).await.unwrap();
    }
    let to = fixture.create("one too many").await;
    let refused = fixture.copy(CopyMode::Copy, inbox, to, &[target(&done)]).await;
    assert!(matches!(refused, Err(CopyError::TooManyMailboxes)));
    // The largest change that one email can make still fits a log entry.
    let long = |c: char| -> Vec<String> {
        (0..limits::KEYWORDS_PER_EMAIL_MAX)
            .map(|i| format!("{c}{i:0>width$}", width = limits::KEYWORD_BYTES_MAX - 1))
            .collect()
    };
    let all = fixture.fill(inbox, 3).await;
    for c in ['a', 'b'] {
        let keywords = long(c);
        let keywords: Vec<&str> = keywords.iter().map(String::as_str).collect();
        let change = request(inbox, KeywordChange::Replace, &keywords);
        let all = [target(&done), all[0], all[1], all[2]];
        assert_eq!(fixture.store(&change, &all).await.stored.len(), 4);
    }
    fixture.check().await;
}

#[tokio::test]
async fn expunge_removes_what_its_mode_says() {
    let fixture = Fixture::new().await;
    let (inbox, archive) = (fixture.inbox().await, fixture.mailbox(Role::Archive).await);
    let all = fixture.fill(inbox, 3).await;
    fixture.copy(CopyMode::Copy, inbox, archive, &all[..1]).await.unwrap();
    let change = StoreRequest { deleted: Some(Deleted), ..request(inbox, KeywordChange::Add, &[]) };
    fixture.store(&change, &all[..2]).await;
    let elsewhere = StoreTarget { uid: Uid::new(9).unwrap(), ..all[2] };
    let removed = fixture.expunge(inbox, ExpungeMode::Deleted, &all).await;
    assert_eq!(removed, [all[0].uid, all[1].uid]);
    assert_eq!(fixture.expunge(inbox, ExpungeMode::All, &[elsewhere]).await, []);
    assert_eq!(fixture.expunge(inbox, ExpungeMode::Deleted, &all).await, [], "a second run");
    assert!(state(&fixture, all[0].email).await.is_some(), "another mailbox holds it");
    assert_eq!(state(&fixture, all[1].email).await, None);
    fixture.check().await;
    assert_eq!(fixture.expunge(inbox, ExpungeMode::All, &all).await, [all[2].uid]);
    assert_eq!(fixture.truth(inbox).await, []);
    fixture.check().await;
}
