//! Views: what they cost, and that nothing makes them wrong.

use std::{future::Future, pin::pin, task::Poll};

use kv::Counts;
use mail::{
    CopyMode, ExpungeMode, KeywordChange, MailboxId, ModSeq, Role, StoreRequest, StoreTarget, Uid,
    keys, limits, trim_log,
    view::{Checkpointed, Growth, Message, View, ViewCache, ViewError, diff, write_checkpoint},
};
use prost::Message as _;

use crate::fixture::{Client, Fixture, check_view, email, listing, set, target, targets, to_usize};

/// What the store was asked for, in keys and rows.
fn reads(counts: Counts) -> u64 {
    counts.keys_read + counts.rows_read
}

async fn written(fixture: &Fixture, view: &View) -> View {
    match write_checkpoint(&fixture.db, view).await.unwrap() {
        Checkpointed::Written(view) => view,
        Checkpointed::Superseded => panic!("nobody else writes"),
    }
}

async fn checkpoint(fixture: &Fixture, mailbox: MailboxId) -> View {
    written(fixture, &fixture.open(mailbox).await).await
}

async fn jump(fixture: &Fixture, mailbox: MailboxId, next: u32) {
    let tx = fixture.db.begin();
    tx.set(&keys::mailbox::next_uid_key(fixture.account, mailbox), &next.to_le_bytes());
    tx.commit().await.unwrap();
}

async fn add_keywords(
    fixture: &Fixture,
    mailbox: MailboxId,
    keywords: &[&str],
    targets: &[StoreTarget],
) {
    let request = StoreRequest {
        mailbox,
        change: KeywordChange::Add,
        keywords: set(keywords),
        deleted: None,
        unchanged_since: None,
    };
    for targets in targets.chunks(limits::EMAILS_PER_UNIT_MAX) {
        assert_eq!(fixture.store(&request, targets).await.stored.len(), targets.len());
    }
}

#[tokio::test]
async fn select_costs_the_same_for_a_large_mailbox_and_a_small_one() {
    let fixture = Fixture::new().await;
    let (small, large) = (fixture.inbox().await, fixture.mailbox(Role::Archive).await);
    let mut costs = Vec::new();
    fixture.fill(small, 100).await;
    fixture.fill(large, 10_000).await;
    for mailbox in [small, large] {
        checkpoint(&fixture, mailbox).await;
    }
    fixture.append(small, &email("\r\n", &[])).await;
    fixture.append(large, &email("\r\n", &[])).await;
    for (mailbox, count) in [(small, 101), (large, 10_001)] {
        // One entry of the log stands behind each checkpoint.
        checkpoint(&fixture, mailbox).await;
        let before = fixture.db.counts();
        let view = fixture.open(mailbox).await;
        assert_eq!(
            (view.exists(), view.unseen(), view.uid_next().number()),
            (count, count, count + 1)
        );
        costs.push(reads(fixture.db.counts() - before));
        // Record, header, horizon; no page.
        assert!(costs[costs.len() - 1] <= 4, "{costs:?}");
        let before = fixture.db.counts();
        let shown = view.by_sequence(&fixture.db, count, count).await.unwrap();
        assert_eq!(shown[0].row.uid.number(), count);
        let cost = reads(fixture.db.counts() - before);
        assert!((1..=2).contains(&cost), "one page and the header: {cost}");
        let before = fixture.db.counts();
        view.by_sequence(&fixture.db, count, count).await.unwrap();
        assert_eq!(reads(fixture.db.counts() - before), 0, "a loaded page costs nothing");
    }
    assert_eq!(costs[0], costs[1]);
}

#[tokio::test]
async fn a_new_mailbox_costs_little_however_old_the_account() {
    let fixture = Fixture::new().await;
    let inbox = fixture.inbox().await;
    for _ in 0..200 {
        fixture.append(inbox, &email("\r\n", &[])).await;
    }
    let fresh = fixture.create("fresh").await;
    let before = fixture.db.counts();
    let view = fixture.open(fresh).await;
    assert_eq!((view.exists(), view.uid_next(), view.highest_modseq()), (0, Uid::MIN, ModSeq(1)));
    assert!(reads(fixture.db.counts() - before) <= 5);
}

#[tokio::test]
async fn a_client_follows_by_what_diffs_tell() {
    let fixture = Fixture::new().await;
    let (inbox, archive) = (fixture.inbox().await, fixture.mailbox(Role::Archive).await);
    jump(&fixture, inbox, 2_045).await;
    let all = fixture.fill(inbox, 8).await;
    let old = fixture.open(inbox).await;
    let mut client = Client { messages: listing(&fixture.db, &old).await.unwrap() };
    assert!(diff(&fixture.db, &old, &old).await.unwrap().is_empty());
    fixture.append(archive, &email("\r\n", &[])).await;
    let same = old.advance(&fixture.db).await.unwrap();
    assert!(diff(&fixture.db, &old, &same).await.unwrap().is_empty(), "another mailbox's");

    add_keywords(&fixture, inbox, &["$seen"], &[all[0], all[7]]).await;
    fixture.expunge(inbox, ExpungeMode::All, &[all[1], all[3], all[6]]).await;
    fixture.copy(CopyMode::Copy, inbox, archive, &[all[2]]).await.unwrap();
    let done = fixture.append(inbox, &email("\r\n", &[])).await;
    let new = old.advance(&fixture.db).await.unwrap();
    let change = diff(&fixture.db, &old, &new).await.unwrap();
    let gone: Vec<_> = change.expunged.iter().map(|(number, _)| *number).collect();
    assert_eq!(gone, [7, 4, 2], "highest first");
    assert_eq!(change.exists, Some(6));
    let changed: Vec<_> = change.changed.iter().map(|one| one.row.uid).collect();
    // The copy has a MODSEQ of its own, so the source shows as changed too.
    assert_eq!(changed, [all[0].uid, all[2].uid, all[7].uid]);
    client.hear(&fixture.db, &change, &new).await.unwrap();
    let truth = fixture.truth(inbox).await;
    assert_eq!(client.messages, truth);
    check_view(&fixture.db, &new, &truth, "advanced").await;
    assert_eq!(new.last_uid(&fixture.db).await.unwrap(), Some(done.uid));
    // All gone.
    fixture.expunge(inbox, ExpungeMode::All, &targets(&truth)).await;
    let empty = new.advance(&fixture.db).await.unwrap();
    let change = diff(&fixture.db, &new, &empty).await.unwrap();
    client.hear(&fixture.db, &change, &empty).await.unwrap();
    assert_eq!((client.messages.len(), change.exists), (0, None));
    check_view(&fixture.db, &empty, &[], "empty").await;
    assert!(empty.highest_modseq() > new.highest_modseq());
}

#[tokio::test]
async fn ranges_stop_at_pages_and_go_on() {
    let fixture = Fixture::new().await;
    let inbox = fixture.inbox().await;
    for first in [2_047, 6_143, 20_000] {
        jump(&fixture, inbox, first).await;
        fixture.fill(inbox, 4).await;
    }
    let view = checkpoint(&fixture, inbox).await;
    check_view(&fixture.db, &view, &fixture.truth(inbox).await, "sparse").await;
    let uid = |number| Uid::new(number).unwrap();
    let stretch = view.by_uid(&fixture.db, uid(9_000), uid(18_000)).await.unwrap();
    assert_eq!((stretch.messages.len(), stretch.covered), (0, uid(18_000)));
    let stretch = view.by_uid(&fixture.db, uid(1), uid(u32::MAX)).await.unwrap();
    assert_eq!((stretch.messages.len(), stretch.covered), (2, uid(2_048)));
    let numbers: Vec<_> = view.by_sequence(&fixture.db, 2, 9).await.unwrap();
    assert_eq!(numbers.iter().map(|one| one.sequence).collect::<Vec<_>>(), [2]);
    for (first, last) in [(0, 5), (5, 4), (13, 20)] {
        assert_eq!(view.by_sequence(&fixture.db, first, last).await.unwrap(), []);
    }
}

#[tokio::test]
async fn of_two_checkpoints_one_is_superseded() {
    let fixture = Fixture::new().await;
    let inbox = fixture.inbox().await;
    fixture.fill(inbox, 3).await;
    let (first, second) = (fixture.open(inbox).await, fixture.open(inbox).await);
    let settled = written(&fixture, &first).await;
    assert_eq!((settled.tail(), settled.as_of()), (0, first.as_of()));
    fixture.fill(inbox, 1).await;
    let later = second.advance(&fixture.db).await.unwrap();
    let before = fixture.everything().await;
    let outcome = write_checkpoint(&fixture.db, &later).await.unwrap();
    assert!(matches!(outcome, Checkpointed::Superseded));
    assert_eq!(fixture.everything().await, before);
    // The same again is an unknown commit's retry.
    written(&fixture, &first).await;
    let next = settled.advance(&fixture.db).await.unwrap();
    written(&fixture, &next).await;
    check_view(&fixture.db, &fixture.open(inbox).await, &fixture.truth(inbox).await, "").await;
}

#[tokio::test]
async fn an_old_view_is_read_back_from_newer_checkpoints() {
    let fixture = Fixture::new().await;
    let (inbox, archive) = (fixture.inbox().await, fixture.mailbox(Role::Archive).await);
    jump(&fixture, inbox, 2_040).await;
    let all = fixture.fill(inbox, 20).await;
    checkpoint(&fixture, inbox).await;
    add_keywords(&fixture, inbox, &["a"], &all[3..6]).await;
    // Neither loads a row yet; one stands on the checkpoint, one on the log behind it.
    let mut old: Vec<(View, Vec<Message>)> = Vec::new();
    for round in 0..3 {
        old.push((fixture.open(inbox).await, fixture.truth(inbox).await));
        add_keywords(&fixture, inbox, &[&format!("k{round}"), "$seen"], &all[round..12]).await;
        fixture.expunge(inbox, ExpungeMode::All, &all[12 + round..14 + round]).await;
        fixture.copy(CopyMode::Move, inbox, archive, &all[17 + round..18 + round]).await.unwrap();
        fixture.fill(inbox, 2).await;
        old.push((fixture.open(inbox).await, fixture.truth(inbox).await));
        checkpoint(&fixture, inbox).await;
    }
    fixture.expunge(inbox, ExpungeMode::All, &all).await;
    checkpoint(&fixture, inbox).await;
    for (view, truth) in &old {
        check_view(&fixture.db, view, truth, "read back").await;
    }
    let now = fixture.open(inbox).await;
    for (view, truth) in old {
        let mut client = Client { messages: truth };
        let change = diff(&fixture.db, &view, &now).await.unwrap();
        client.hear(&fixture.db, &change, &now).await.unwrap();
        assert_eq!(client.messages, fixture.truth(inbox).await);
    }
}

/// Runs `future` up to its `polls`-th await, as a node does that dies there.
async fn cut_off(future: impl Future, polls: usize) -> bool {
    let mut future = pin!(future);
    let mut polled = 0;
    std::future::poll_fn(|context| {
        polled += 1;
        if polled > polls {
            return Poll::Ready(false);
        }
        match future.as_mut().poll(context) {
            Poll::Ready(_) => Poll::Ready(true),
            Poll::Pending => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
        }
    })
    .await
}

/// Gives messages so many different keywords that their page takes a transaction of its own.
async fn weigh(fixture: &Fixture, mailbox: MailboxId, targets: &[StoreTarget], letter: char) {
    for (number, target) in targets.iter().enumerate() {
        let names: Vec<String> = (0..limits::KEYWORDS_PER_EMAIL_MAX - 4)
            .map(|i| format!("{letter}{number}.{i:0>150}"))
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        add_keywords(fixture, mailbox, &names, &[*target]).await;
    }
}

#[tokio::test]
async fn a_checkpoint_that_is_cut_off_anywhere_leaves_every_view_right() {
    const HEAVY: usize = limits::CHECKPOINT_BYTES_MAX / 9_000 + 1;
    let mut completed = 0;
    for polls in 0.. {
        let fixture = Fixture::new().await;
        let inbox = fixture.inbox().await;
        let mut all = Vec::new();
        for first in [1_u32, 2_049, 4_097, 6_145] {
            jump(&fixture, inbox, first).await;
            all.push(fixture.fill(inbox, 3).await);
        }
        checkpoint(&fixture, inbox).await;
        let oldest = (fixture.open(inbox).await, fixture.truth(inbox).await);
        // The first page grows beyond a transaction, the second one empties.
        let heavy = fixture.fill(inbox, HEAVY).await;
        weigh(&fixture, inbox, &heavy, 'a').await;
        add_keywords(&fixture, inbox, &["b"], &all[1]).await;
        let slower = (fixture.open(inbox).await, fixture.truth(inbox).await);
        fixture.expunge(inbox, ExpungeMode::All, &all[1]).await;
        add_keywords(&fixture, inbox, &["c"], &all[0]).await;
        add_keywords(&fixture, inbox, &["c"], &heavy[..1]).await;
        let faster = (fixture.open(inbox).await, fixture.truth(inbox).await);
        let done = cut_off(write_checkpoint(&fixture.db, &faster.0), polls).await;
        completed += usize::from(done);
        // A slower writer comes behind; it must not put old pages over new ones.
        let _outcome = write_checkpoint(&fixture.db, &slower.0).await.unwrap();
        for (view, truth) in [&oldest, &slower, &faster] {
            check_view(&fixture.db, view, truth, "after the cut").await;
            let advanced = view.advance(&fixture.db).await.unwrap();
            check_view(&fixture.db, &advanced, &faster.1, "advanced").await;
        }
        check_view(&fixture.db, &fixture.open(inbox).await, &faster.1, "opened").await;
        fixture.fill(inbox, 1).await;
        let truth = fixture.truth(inbox).await;
        checkpoint(&fixture, inbox).await;
        check_view(&fixture.db, &fixture.open(inbox).await, &truth, "checkpointed").await;
        let header = keys::view::header_key(fixture.account, inbox);
        let header = fixture.db.begin().get(&header).await.unwrap().unwrap();
        let header = keys::view::ViewHeader::decode(&header[..]).unwrap();
        assert_eq!(header.writing_as_of, 0);
        if completed == 2 {
            assert!(polls > 3, "several transactions");
            break;
        }
    }
}

#[tokio::test]
async fn a_mailbox_whose_log_is_gone_is_rebuilt_and_gets_a_checkpoint_again() {
    let fixture = Fixture::new().await;
    let inbox = fixture.inbox().await;
    let all = fixture.fill(inbox, 30).await;
    let first = checkpoint(&fixture, inbox).await;
    let loaded = fixture.open(inbox).await;
    listing(&fixture.db, &loaded).await.unwrap();
    fixture.expunge(inbox, ExpungeMode::All, &all[..3]).await;
    let told = fixture.open(inbox).await.highest_modseq();
    // Trimmed below the checkpoint, which no trimmer should do.
    let horizon = fixture.open(inbox).await.as_of();
    let tx = fixture.db.begin();
    trim_log(&tx, fixture.account, horizon).await.unwrap();
    tx.commit().await.unwrap();
    assert!(matches!(first.advance(&fixture.db).await, Err(ViewError::TooOld(_))));
    let truth = fixture.truth(inbox).await;
    let rebuilt = fixture.open(inbox).await;
    check_view(&fixture.db, &rebuilt, &truth, "rebuilt").await;
    assert!(rebuilt.highest_modseq() >= told, "HIGHESTMODSEQ went back");
    assert_eq!(rebuilt.uid_next().number(), 31);
    // A client that was shown the old view still learns what went.
    let mut client = Client { messages: listing(&fixture.db, &loaded).await.unwrap() };
    let change = diff(&fixture.db, &loaded, &rebuilt).await.unwrap();
    client.hear(&fixture.db, &change, &rebuilt).await.unwrap();
    assert_eq!(client.messages, truth);
    written(&fixture, &rebuilt).await;
    let before = fixture.db.counts();
    check_view(&fixture.db, &fixture.open(inbox).await, &truth, "opened").await;
    assert!(reads(fixture.db.counts() - before) < 10, "no state was read");
    let cache = ViewCache::new(fixture.db.clone(), fixture.env.clone(), 1 << 20);
    let shared = cache.view(fixture.account, inbox).await.unwrap();
    check_view(&fixture.db, &shared, &truth, "shared").await;
}

#[tokio::test]
async fn pages_with_very_many_keywords_are_stored_in_parts_or_not_at_all() {
    let fixture = Fixture::new().await;
    let inbox = fixture.inbox().await;
    let all = fixture.fill(inbox, 500).await;
    weigh(&fixture, inbox, &all[..20], 'a').await;
    checkpoint(&fixture, inbox).await;
    let (begin, end) = keys::view::page_parts_range(fixture.account, inbox, 0);
    let parts = fixture.db.begin().range(kv::RangeQuery::new(begin, end)).collect().await.unwrap();
    assert!(parts.len() > 1);
    let truth = fixture.truth(inbox).await;
    check_view(&fixture.db, &fixture.open(inbox).await, &truth, "in parts").await;
    // Fewer again: no part of the old record stays.
    fixture.expunge(inbox, ExpungeMode::All, &all[..20]).await;
    checkpoint(&fixture, inbox).await;
    let truth = fixture.truth(inbox).await;
    check_view(&fixture.db, &fixture.open(inbox).await, &truth, "in one part").await;
    weigh(&fixture, inbox, &all[20..], 'b').await;
    let view = fixture.open(inbox).await;
    let refused = write_checkpoint(&fixture.db, &view).await;
    assert!(matches!(refused, Err(ViewError::PageTooLarge(0))));
    let truth = fixture.truth(inbox).await;
    check_view(&fixture.db, &fixture.open(inbox).await, &truth, "without").await;
}

#[tokio::test]
async fn the_cache_keeps_its_budget_and_its_answers() {
    let fixture = Fixture::new().await;
    let inbox = fixture.inbox().await;
    let archive = fixture.mailbox(Role::Archive).await;
    fixture.fill(inbox, 300).await;
    fixture.fill(archive, 300).await;
    for mailbox in [inbox, archive] {
        checkpoint(&fixture, mailbox).await;
    }
    let cache = ViewCache::new(fixture.db.clone(), fixture.env.clone(), 20_000);
    for round in 0..600 {
        let mailbox = if round % 2 == 0 { inbox } else { archive };
        let view = cache.view(fixture.account, mailbox).await.unwrap();
        if round % 50 < 2 {
            fixture.append(mailbox, &email("\r\n", &["$seen"])).await;
            let view = cache.view(fixture.account, mailbox).await.unwrap();
            let truth = fixture.truth(mailbox).await;
            check_view(&fixture.db, &view, &truth, "shared").await;
        }
        assert!(view.exists() >= 300);
    }
    // Rows that the checkpoint does not have stay until it has them.
    cache.checkpoint_account(fixture.account).await.unwrap();
    for _ in 0..256 {
        cache.view(fixture.account, inbox).await.unwrap();
    }
    let stats = cache.stats();
    assert!(stats.loaded_bytes <= 20_000, "{stats:?}");
    assert_eq!(stats.views, 6, "one for each mailbox of the round");
    for mailbox in [inbox, archive] {
        let view = cache.view(fixture.account, mailbox).await.unwrap();
        check_view(&fixture.db, &view, &fixture.truth(mailbox).await, "after sweeps").await;
    }
}

async fn checkpointed_at(fixture: &Fixture, mailbox: MailboxId) -> u64 {
    let key = keys::view::header_key(fixture.account, mailbox);
    let value = fixture.db.begin().get(&key).await.unwrap().unwrap();
    keys::view::ViewHeader::decode(&value[..]).unwrap().as_of
}

/// Gives the tasks behind the cache time to get done.
async fn until_checkpointed(fixture: &Fixture, mailbox: MailboxId, after: u64) {
    for _ in 0..100_000 {
        if checkpointed_at(fixture, mailbox).await > after {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("no checkpoint came");
}

#[tokio::test]
async fn checkpoints_follow_the_logs_growth() {
    let fixture = Fixture::new().await;
    let (inbox, archive) = (fixture.inbox().await, fixture.mailbox(Role::Archive).await);
    let cache = ViewCache::new(fixture.db.clone(), fixture.env.clone(), 1 << 20);
    let first = checkpointed_at(&fixture, archive).await;
    fixture.append(inbox, &email("\r\n", &[])).await;
    for _ in 1..limits::LOG_TAIL_CHECKPOINT {
        assert_eq!(cache.note_commit(fixture.account), Growth::Small);
    }
    assert_eq!(cache.note_commit(fixture.account), Growth::CheckpointDue);
    assert_eq!(cache.note_commit(fixture.account), Growth::Small);
    cache.checkpoint_account(fixture.account).await.unwrap();
    assert!(checkpointed_at(&fixture, archive).await > first);
    // Growth that another node made is seen by whoever selects.
    let second = checkpointed_at(&fixture, inbox).await;
    for _ in 0..limits::LOG_TAIL_CHECKPOINT {
        fixture.append(archive, &email("\r\n", &[])).await;
    }
    assert!(fixture.open(inbox).await.tail() >= limits::LOG_TAIL_CHECKPOINT);
    cache.view(fixture.account, inbox).await.unwrap();
    until_checkpointed(&fixture, inbox, second).await;
    let opened = fixture.open(inbox).await;
    assert!(opened.tail() < limits::LOG_TAIL_CHECKPOINT);
    assert_eq!(to_usize(opened.exists()), 1);
}

#[tokio::test]
async fn a_shared_view_ends_with_its_mailbox() {
    let fixture = &Fixture::new().await;
    let mailbox = fixture.create("short").await;
    let done = fixture.append(mailbox, &email("\r\n", &[])).await;
    let cache = ViewCache::new(fixture.db.clone(), fixture.env.clone(), 1 << 20);
    let view = cache.view(fixture.account, mailbox).await.unwrap();
    assert_eq!(targets(&listing(&fixture.db, &view).await.unwrap()), [target(&done)]);
    let operation = fixture.operation();
    crate::fixture::unit!(fixture, mail::DeleteError, |unit| mail::delete_mailbox(
        &mut unit, mailbox, operation
    )
    .await)
    .unwrap();
    let shared = cache.view(fixture.account, mailbox).await;
    assert!(matches!(shared, Err(ViewError::NoMailbox(_))));
    let outcome = write_checkpoint(&fixture.db, &view).await;
    assert!(outcome.is_ok(), "a mark is no end: the contents are still being removed");
    cache.checkpoint_account(fixture.account).await.unwrap();
}
