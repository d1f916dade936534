//! Append: refusals, operation ids, threads, quota.

use mail::{
    AppendError, ExpungeMode, MailboxId, Role, StoreError, ThreadId, Uid, limits, mailbox_counts,
};

use crate::fixture::{Fixture, email, set, state, target, unit, unit_of};

#[tokio::test]
async fn a_refusal_leaves_the_unit_as_it_was() {
    let fixture = &Fixture::with_quota(1_000).await;
    let inbox = fixture.inbox().await;
    let fits = &email("Subject: fits\r\n\r\n", &["$seen"]);
    let large = &email(&format!("Subject: large\r\n\r\n{}", "x".repeat(1_000)), &[]);
    let mut many = fits.clone();
    many.keywords = (0..=limits::KEYWORDS_PER_EMAIL_MAX)
        .map(|i| mail::Keyword::new(&format!("k{i}")).unwrap())
        .collect();
    let many = &many;
    let operations = &crate::fixture::operations(&fixture.env);
    let done = unit!(fixture, StoreError, |unit| {
        let first = mail::append(&mut unit, inbox, fits, operations[0]).await.unwrap();
        let refused = mail::append(&mut unit, inbox, large, operations[1]).await;
        assert!(
            matches!(refused, Err(AppendError::OverQuota { used, quota: 1_000, .. }) if used == fits.size),
        );
        let refused = mail::append(&mut unit, MailboxId(99), fits, operations[2]).await;
        assert!(matches!(refused, Err(AppendError::NoMailbox(MailboxId(99)))));
        let refused = mail::append(&mut unit, inbox, many, operations[3]).await;
        assert!(matches!(refused, Err(AppendError::TooManyKeywords)));
        let second = mail::append(&mut unit, inbox, fits, operations[4]).await.unwrap();
        Ok::<_, StoreError>((first, second))
    });
    let (first, second) = done.unwrap();
    assert_eq!((first.uid.number(), second.uid.number()), (1, 2), "no UID was wasted");
    assert_eq!((first.email.0, second.email.0), (1, 2), "no id was wasted");
    let counts = mailbox_counts(&fixture.db.begin(), fixture.account, inbox).await.unwrap();
    assert_eq!((counts.messages, counts.unseen, counts.uid_next), (2, 0, 3));
    assert_eq!(counts.bytes, 2 * fits.size);
    let usage = mail::usage(&fixture.db.begin(), fixture.account).await.unwrap();
    assert_eq!((usage.bytes, usage.emails, usage.quota_bytes), (2 * fits.size, 2, 1_000));
    fixture.check().await;
}

#[tokio::test]
async fn the_quota_counts_what_the_unit_itself_added_and_frees_what_goes() {
    let email = email("Subject: one\r\n\r\n", &[]);
    let fixture = &Fixture::with_quota(2 * email.size).await;
    let inbox = fixture.inbox().await;
    let first = fixture.append(inbox, &email).await;
    fixture.append(inbox, &email).await;
    let refused = fixture.append_as(inbox, &email, fixture.operation()).await;
    assert!(matches!(refused, Err(AppendError::OverQuota { .. })));
    fixture.expunge(inbox, ExpungeMode::All, &[target(&first)]).await;
    fixture.append(inbox, &email).await;
    fixture.check().await;
}

#[tokio::test]
async fn a_second_run_changes_nothing_and_answers_alike() {
    let fixture = &Fixture::new().await;
    let inbox = fixture.inbox().await;
    let email = &email("Subject: once\r\n\r\n", &[]);
    let operation = fixture.operation();
    let first = fixture.append_as(inbox, email, operation).await.unwrap();
    let before = fixture.everything().await;
    let second = fixture.append_as(inbox, email, operation).await.unwrap();
    assert_eq!(fixture.everything().await, before);
    let (modseq, _) = state(fixture, first.email).await.unwrap();
    assert_eq!(second, mail::Appended { earlier: Some(modseq), ..first });
    assert_eq!(first.earlier, None);
}

/// The retry of an operation begun before midnight, by a caller that reads the clock again.
#[tokio::test]
async fn midnight_does_not_make_an_operation_new() {
    let fixture = &Fixture::new().await;
    let inbox = fixture.inbox().await;
    let email = &email("Subject: once\r\n\r\n", &[]);
    let operation = fixture.operation();
    const DAY_MS: i64 = 86_400_000;
    let midnight = 19_676 * DAY_MS;
    let mut uids = Vec::new();
    for now in [midnight - 1, midnight, midnight + limits::OPERATION_LIFE_MS - 1] {
        let now = env::Timestamp::from_unix_ms(now);
        let tx = fixture.db.begin();
        let mut unit = mail::AccountUnit::new(&tx, fixture.account, now);
        uids.push(mail::append(&mut unit, inbox, email, operation).await.unwrap().uid.number());
        unit.finish().await.unwrap();
        tx.commit().await.unwrap();
    }
    assert_eq!(uids, [1, 1, 1]);
    // Two days later the record is swept.
    let tx = fixture.db.begin();
    let later = env::Timestamp::from_unix_ms(midnight + DAY_MS);
    let swept = mail::sweep_operations(&tx, fixture.account, later).await.unwrap();
    assert_eq!(swept, mail::interest::Remaining::None);
    tx.commit().await.unwrap();
    let tx = fixture.db.begin();
    let now = env::Timestamp::from_unix_ms(midnight);
    let unit = mail::AccountUnit::new(&tx, fixture.account, now);
    assert_eq!(unit.outcome(operation).await.unwrap(), None);
}

#[tokio::test]
async fn replies_join_their_thread_in_whatever_order_they_come() {
    let original = email("Message-ID: <1@x>\r\nSubject: lunch\r\n\r\n", &[]);
    let reply = email(
        "Message-ID: <2@x>\r\nIn-Reply-To: <1@x>\r\nReferences: <1@x>\r\nSubject: Re: lunch\r\n\r\n",
        &[],
    );
    let second_reply = email(
        "Message-ID: <3@x>\r\nReferences: <1@x> <2@x>\r\nSubject: Re: Re: lunch\r\n\r\n",
        &[],
    );
    let changed =
        email("Message-ID: <4@x>\r\nReferences: <1@x> <2@x>\r\nSubject: dinner\r\n\r\n", &[]);
    let stranger = email("Message-ID: <5@x>\r\nSubject: lunch\r\n\r\n", &[]);
    for order in [[&original, &reply, &second_reply], [&second_reply, &reply, &original]] {
        let fixture = Fixture::new().await;
        let inbox = fixture.inbox().await;
        let mut threads = Vec::new();
        for email in order {
            threads.push(fixture.append(inbox, email).await.thread);
        }
        assert_eq!(threads, [ThreadId(1); 3]);
        let other = fixture.append(inbox, &changed).await;
        assert_eq!(other.thread.0, other.email.0, "another subject is another thread");
        let other = fixture.append(inbox, &stranger).await;
        assert_eq!(other.thread.0, other.email.0, "a subject alone is no thread");
        fixture.check().await;
    }
}

#[tokio::test]
async fn a_thread_outlives_its_first_email_and_ends_with_its_last() {
    let fixture = Fixture::new().await;
    let inbox = fixture.inbox().await;
    let original = email("Message-ID: <1@x>\r\nSubject: lunch\r\n\r\n", &[]);
    let reply = email("Message-ID: <2@x>\r\nReferences: <1@x>\r\nSubject: lunch\r\n\r\n", &[]);
    let first = fixture.append(inbox, &original).await;
    let second = fixture.append(inbox, &reply).await;
    fixture.expunge(inbox, ExpungeMode::All, &[target(&first)]).await;
    let again = fixture.append(inbox, &original).await;
    assert_eq!(again.thread, first.thread);
    fixture.expunge(inbox, ExpungeMode::All, &[target(&second), target(&again)]).await;
    let anew = fixture.append(inbox, &original).await;
    assert_eq!(anew.thread.0, anew.email.0);
    fixture.check().await;
}

#[tokio::test]
async fn what_one_unit_makes_and_removes_leaves_nothing() {
    let fixture = Fixture::new().await;
    let inbox = fixture.inbox().await;
    let without_keywords = email("Message-ID: <1@x>\r\nSubject: gone\r\n\r\n", &[]);
    let with_keywords = email("Message-ID: <2@x>\r\nSubject: gone\r\n\r\n", &["$seen"]);
    for email in [without_keywords, with_keywords] {
        let tx = fixture.db.begin();
        let mut unit = unit_of(&fixture, &tx);
        let done = mail::append(&mut unit, inbox, &email, fixture.operation()).await.unwrap();
        mail::expunge(&mut unit, inbox, ExpungeMode::All, &[target(&done)]).await.unwrap();
        unit.finish().await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(state(&fixture, done.email).await, None);
        fixture.check().await;
    }
    let next = fixture.append(inbox, &email("Message-ID: <1@x>\r\n\r\n", &[])).await;
    assert_eq!((next.thread.0, next.uid.number()), (3, 3), "no thread, and no UID again");
}

#[tokio::test]
async fn two_appends_at_once_get_different_uids() {
    let fixture = Fixture::new().await;
    let inbox = fixture.inbox().await;
    let email = &email("Subject: race\r\n\r\n", &[]);
    let (first, second) = (fixture.db.begin(), fixture.db.begin());
    for tx in [&first, &second] {
        let mut unit = unit_of(&fixture, tx);
        let done = mail::append(&mut unit, inbox, email, fixture.operation()).await.unwrap();
        assert_eq!(done.uid, Uid::MIN);
        unit.finish().await.unwrap();
    }
    first.commit().await.unwrap();
    assert_eq!(second.commit().await.unwrap_err(), kv::Error::Conflict);
    assert_eq!(fixture.append(inbox, email).await.uid.number(), 2);
}

#[tokio::test]
async fn the_meta_record_holds_what_fetch_needs() {
    let fixture = Fixture::new().await;
    let trash = fixture.mailbox(Role::Trash).await;
    let text = "From: Ann <ann@x>\r\nSubject: hi\r\nX-Long: no\r\n\r\nbody text\r\n";
    let mut new = email(text, &["$seen"]);
    new.deleted = true;
    let done = fixture.append(trash, &new).await;
    let meta = mail::email_meta(&fixture.db.begin(), fixture.account, done.email).await;
    let meta = meta.unwrap().unwrap();
    assert_eq!(meta.blob, crate::fixture::blob_of(text).to_bytes());
    assert_eq!((meta.size, meta.thread), (text.len() as u64, done.thread.0));
    assert_eq!(meta.received_ms, new.received_at.unix_ms());
    assert_eq!(meta.preview, "body text");
    let kept: Vec<_> = meta.headers.iter().map(|field| field.raw.is_some()).collect();
    assert_eq!(kept, [true, true, false], "trace and X- fields have only their places");
    let structure = mail::structure(&meta).unwrap();
    assert_eq!(structure.envelope.subject.as_deref(), Some("hi"));
    assert_eq!(structure.envelope.sender, structure.envelope.from);
    let (_, state) = state(&fixture, done.email).await.unwrap();
    assert!(state.memberships[0].deleted);
    assert_eq!(set(&["$seen"]).len(), state.keywords.len());
    fixture.check().await;
}

/// Whether they are read one by one or as a range.
#[tokio::test]
async fn records_come_in_the_order_asked_for() {
    let fixture = &Fixture::new().await;
    let inbox = fixture.inbox().await;
    let mut appended = Vec::new();
    for number in 0..6 {
        let email = email(&format!("Subject: {number}\r\n\r\n"), &[]);
        appended.push(fixture.append(inbox, &email).await);
    }
    fixture.expunge(inbox, ExpungeMode::All, &[target(&appended[2])]).await;
    let ids: Vec<_> = appended.iter().map(|appended| appended.email).collect();
    let gone = mail::EmailId(1_000);
    for asked in [
        vec![],
        vec![ids[1]],
        vec![ids[2]],
        ids.clone(),
        vec![ids[1], ids[4], ids[5]],
        vec![ids[0], ids[2], gone],
        ids.iter().rev().copied().collect(),
        vec![ids[3], ids[3]],
        vec![gone],
    ] {
        let tx = fixture.db.begin();
        let found = mail::email_records(&tx, fixture.account, &asked).await.unwrap();
        assert_eq!(found.len(), asked.len());
        for (email, record) in asked.iter().zip(found) {
            let whole = mail::email_meta(&tx, fixture.account, *email).await.unwrap();
            let blob = record.map(|record| record.decode(&[mail::MetaPart::Blob]).unwrap());
            let both = |meta: mail::keys::email::EmailMeta| (meta.blob, meta.size);
            assert_eq!(blob.map(both), whole.map(both), "{email} of {asked:?}");
        }
    }
}
