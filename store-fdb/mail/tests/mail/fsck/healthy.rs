//! A store that is right stays so to a check, whatever happens to it meanwhile.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use mail::{
    AccountId, AppendError, CopyMode, ExpungeMode, KeywordChange, Progress, StoreError,
    StoreRequest, keys::counter::MailboxTotals,
};

use super::*;
use crate::{
    environment::Random,
    fixture::{new_account, new_mailbox, set, state, unit},
};

/// Work that goes on while a check runs, until the flag says that enough was checked.
struct Traffic<'a> {
    fixture: Fixture,
    blobs: &'a BlobStore,
    random: &'a Random,
    enough: &'a AtomicBool,
}

impl Traffic<'_> {
    async fn run(&self) -> usize {
        let mut done = 0;
        while !self.enough.load(Relaxed) {
            self.one().await;
            done += 1;
            tokio::task::yield_now().await;
        }
        done
    }

    async fn one(&self) {
        let fixture = &self.fixture;
        let inbox = fixture.inbox().await;
        let account = fixture.account;
        let text = format!("Message-ID: <{}@x>\r\n\r\nx\r\n", self.random.below(50));
        let tree = mail::mailbox_tree(&fixture.db.begin(), account).await.unwrap();
        let ids: Vec<MailboxId> = tree.iter().map(|mailbox| mailbox.id).collect();
        let mailbox = *self.random.pick(&ids).unwrap();
        let some = self.some(inbox).await;
        match self.random.below(10) {
            0..=3 => {
                let email = email(self.blobs, &text).await;
                // The mailbox may be gone by now.
                let (email, operation) = (&email, fixture.operation());
                let done = unit!(fixture, AppendError, |unit| mail::append(
                    &mut unit, mailbox, email, operation
                )
                .await);
                assert!(matches!(done, Ok(_) | Err(AppendError::NoMailbox(_))), "{done:?}");
            }
            4 => {
                let request = StoreRequest {
                    mailbox: inbox,
                    change: KeywordChange::Add,
                    keywords: set(&["$seen"]),
                    deleted: self.random.chance(50).then_some(mail::Deleted),
                    unchanged_since: None,
                };
                fixture.store(&request, &some).await;
            }
            5 => {
                let mode = if self.random.chance(50) { CopyMode::Move } else { CopyMode::Copy };
                let _the_target_may_be_gone = fixture.copy(mode, inbox, mailbox, &some).await;
            }
            6 => drop(fixture.expunge(inbox, ExpungeMode::All, &some).await),
            7 => {
                let new = new_mailbox(&format!("m{}", self.random.below(5)), None);
                let (new, operation) = (&new, fixture.operation());
                let _it_may_exist = unit!(fixture, mail::CreateError, |unit| {
                    mail::create_mailbox(&mut unit, new, operation).await
                });
            }
            8 => self.delete_mailbox(mailbox).await,
            _ => {
                let address = format!("temporary{}@example.org", self.random.below(1_000_000));
                let account = new_account(&fixture.db, &fixture.env, &address, 0).await;
                let other = Fixture { account, ..fixture.clone() };
                let inbox = other.inbox().await;
                for _ in 0..3 {
                    other.append(inbox, &email(self.blobs, &text).await).await;
                }
                mail::delete_account(&fixture.db, account, NOW).await.unwrap();
            }
        }
    }

    /// Some messages of the mailbox, old and new.
    async fn some(&self, mailbox: MailboxId) -> Vec<StoreTarget> {
        let mut some = Vec::new();
        for _ in 0..1 + self.random.below(5) {
            let email = EmailId(1 + u32::try_from(self.random.below(1_400)).unwrap());
            let Some((_, state)) = state(&self.fixture, email).await else { continue };
            let place = state.memberships.iter().find(|place| place.mailbox == mailbox.0);
            some.extend(place.map(|place| StoreTarget { email, uid: uid(place.uid) }));
        }
        some
    }

    async fn delete_mailbox(&self, mailbox: MailboxId) {
        let fixture = &self.fixture;
        let operation = fixture.operation();
        let deleted = unit!(fixture, mail::DeleteError, |unit| mail::delete_mailbox(
            &mut unit, mailbox, operation
        )
        .await);
        if deleted.is_err() {
            return;
        }
        let mut after = None;
        loop {
            tokio::task::yield_now().await;
            let progress = unit!(fixture, StoreError, |unit| mail::remove_mailbox_contents(
                &mut unit, mailbox, after
            )
            .await)
            .unwrap();
            match progress {
                Progress::More(last) => after = Some(last),
                Progress::Done => break,
            }
        }
        let account = fixture.account;
        fixture
            .db
            .run(|tx| async move { mail::finish_delete(&tx, account, mailbox).await })
            .await
            .unwrap();
    }
}

/// So many messages that a sum takes several stretches, with bytes that exist.
async fn fill(world: &World) {
    for at in 0..3 {
        let email = email(&world.blobs, &format!("Message-ID: <fill{at}@x>\r\n\r\n")).await;
        let operations: Vec<_> = (0..400).map(|_| world.fixture.operation()).collect();
        let (email, operations, inbox) = (&email, &operations, world.inbox);
        unit!(world.fixture, AppendError, |unit| {
            for operation in operations {
                mail::append(&mut unit, inbox, email, *operation).await?;
            }
            Ok::<_, AppendError>(())
        })
        .unwrap();
    }
}

/// Checks in the middle of traffic.
async fn checks_in_traffic(world: &World, checks: usize, mode: Mode) -> (Summary, Vec<Event>) {
    let (random, enough) = (Random::new(42), AtomicBool::new(false));
    let traffic = || Traffic {
        fixture: world.fixture.clone(),
        blobs: &world.blobs,
        random: &random,
        enough: &enough,
    };
    let check = async {
        let (mut summary, mut events) = (Summary::default(), Vec::new());
        for _ in 0..checks {
            let done = world.run(mode).await;
            summary = done.0;
            events.extend(done.1);
        }
        enough.store(true, Relaxed);
        (summary, events)
    };
    let (a, b, c) = (traffic(), traffic(), traffic());
    let (checked, a, b, c) = tokio::join!(check, a.run(), b.run(), c.run());
    assert!(a + b + c > checks * 10, "only {} changes meanwhile", a + b + c);
    checked
}

#[tokio::test]
async fn nothing_is_found_while_everything_changes() {
    let world = World::new().await;
    fill(&world).await;
    let (summary, events) = checks_in_traffic(&world, 6, Mode::Check).await;
    assert_eq!(found(&events), []);
    assert_eq!(summary.busy, 0);
    world.fixture.check().await;
}

#[tokio::test]
async fn a_wrong_counter_is_found_and_mended_while_everything_changes() {
    let world = World::new().await;
    fill(&world).await;
    let (account, mailbox) = (world.fixture.account, world.inbox);
    let key = keys::counter::mailbox_key(account, mailbox);
    let wrong = MailboxTotals { unseen: 3, ..MailboxTotals::default() };
    plant!(world, |tx| tx.atomic(&key, &wrong.operand(), AtomicOp::Add));
    let (summary, events) = checks_in_traffic(&world, 1, Mode::Repair).await;
    let found = found(&events);
    let [Damage::MailboxCounters { stored, fold, .. }] = &found[..] else { panic!("{found:?}") };
    assert_eq!(stored.unseen - fold.unseen, 3);
    assert_eq!((summary.mended, summary.remaining), (1, 0));
    world.fixture.check().await;
}

#[tokio::test]
async fn faults_of_the_store_are_no_damage() {
    let world = World::new().await;
    world.fixture.db.faults().set(kv::Faults {
        conflict: kv::Probability::per_million(50_000),
        commit_unknown: kv::Probability::per_million(50_000),
        too_old: kv::Probability::per_million(50_000),
        ..kv::Faults::default()
    });
    let key = keys::counter::account_key(world.fixture.account);
    for _ in 0..5 {
        assert_eq!(world.found().await, []);
    }
    let tx = world.fixture.db.handle_with_faults(world.fixture.env.clone(), Default::default());
    let tx = tx.begin();
    tx.set(&key, &[9; 16]);
    tx.commit().await.unwrap();
    let (summary, _) = world.run(Mode::Repair).await;
    assert_eq!((summary.mended, summary.remaining), (1, 0));
}

#[tokio::test]
async fn an_account_with_many_emails_is_read_in_many_steps() {
    let world = World::new().await;
    let before = world.fixture.db.counts();
    world.fixture.fill(world.inbox, 2_000).await;
    let one = world.found().await;
    assert!(matches!(one[..], [Damage::NoBlob(..)]), "{one:?}");
    let cost = world.fixture.db.counts() - before;
    assert!(cost.transactions_read_only > 50, "{cost:?}");
    let account: AccountId = world.fixture.account;
    plant!(world, |tx| tx.set(&keys::counter::account_key(account), &[0; 16]));
    let found = world.found().await;
    assert!(
        matches!(found[..], [Damage::AccountCounters { fold, .. }, Damage::NoBlob(..)]
            if fold.emails == 2_002),
        "{found:?}"
    );
}

#[tokio::test]
async fn an_account_that_cannot_be_caught_up_with_is_told_as_busy() {
    let world = World::new().await;
    let (enough, account) = (AtomicBool::new(false), world.fixture.account);
    let key = keys::counter::account_key(account);
    plant!(world, |tx| tx.set(&key, &[0; 16]));
    // Whatever sum is begun, the log behind it is gone before its end.
    let trim = async {
        while !enough.load(Relaxed) {
            let tx = world.fixture.db.begin();
            let now = mail::ModSeq(tx.read_version().await.unwrap());
            mail::trim_log(&tx, account, now).await.unwrap();
            tx.commit().await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let check = async {
        let checked = world.run(Mode::Check).await;
        enough.store(true, Relaxed);
        checked
    };
    let ((summary, events), ()) = tokio::join!(check, trim);
    assert_eq!(found(&events), [], "what is not certain is not told");
    assert_eq!((summary.busy, summary.remaining), (1, 0));
    assert!(events.contains(&Event::Busy(account)));
    assert!(matches!(world.found().await[..], [Damage::AccountCounters { .. }]));
}
