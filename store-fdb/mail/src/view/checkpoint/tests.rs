use std::{future::Future, pin::Pin, task::Poll};

use blob::{BlobHash, BlobId};
use env::{Env, Timestamp};
use kv::RangeQuery;

use super::*;
use crate::{
    AccountId, AccountUnit, ExpungeMode, KeywordSet, MailboxId, NewEmail, NewMailbox, OperationId,
    StoreTarget, append, create_mailbox, expunge,
    keys::account::Account,
    set_account_record,
    view::{Message, ViewChange, diff},
};

const ACCOUNT: AccountId = AccountId(1);
const NOW: Timestamp = Timestamp::from_unix_ms(1_700_000_000_000);

struct World {
    env: Env,
    db: Database,
    mailbox: MailboxId,
}

impl World {
    async fn new() -> Self {
        let env = Env::system();
        let db = Database::memory(env.clone());
        let tx = db.begin();
        set_account_record(&tx, ACCOUNT, &Account::default()).await.unwrap();
        let mut unit = AccountUnit::new(&tx, ACCOUNT, NOW);
        let new = NewMailbox { name: "m".to_owned(), parent: None, role: None, subscribed: false };
        let mailbox = create_mailbox(&mut unit, &new, OperationId::random(&env)).await.unwrap();
        unit.finish().await.unwrap();
        tx.commit().await.unwrap();
        Self { env, db, mailbox }
    }

    async fn append(&self, page: u32) -> StoreTarget {
        let mut scanner = message::Scanner::new(message::Limits::default());
        scanner.push(b"\r\n");
        let email = NewEmail::from_scan(
            BlobId::of_schema_0(BlobHash::of(b"\r\n")),
            &scanner.finish(),
            NOW,
            KeywordSet::default(),
        );
        let tx = self.db.begin();
        let next = keys::mailbox::next_uid_key(ACCOUNT, self.mailbox);
        let at = crate::unit::read_u32(&tx, &next).await.unwrap().unwrap_or(1);
        let first = page * limits::UIDS_PER_PAGE + 1;
        tx.set(&next, &at.max(first).to_le_bytes());
        let mut unit = AccountUnit::new(&tx, ACCOUNT, NOW);
        let operation = OperationId::random(&self.env);
        let done = append(&mut unit, self.mailbox, &email, operation).await.unwrap();
        unit.finish().await.unwrap();
        tx.commit().await.unwrap();
        StoreTarget { email: done.email, uid: done.uid }
    }

    async fn remove(&self, targets: &[StoreTarget]) {
        let tx = self.db.begin();
        let mut unit = AccountUnit::new(&tx, ACCOUNT, NOW);
        expunge(&mut unit, self.mailbox, ExpungeMode::All, targets).await.unwrap();
        unit.finish().await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn open(&self) -> View {
        View::open(&self.db, ACCOUNT, self.mailbox).await.unwrap()
    }

    async fn uids(&self, view: &View) -> Vec<u32> {
        let mut uids: Vec<u32> = Vec::new();
        loop {
            let next = u32::try_from(uids.len()).unwrap() + 1;
            let more: Vec<Message> = view.by_sequence(&self.db, next, u32::MAX).await.unwrap();
            if more.is_empty() {
                return uids;
            }
            uids.extend(more.iter().map(|one| one.row.uid.number()));
        }
    }

    /// The numbers of the pages that are stored.
    async fn stored_pages(&self) -> Vec<u32> {
        let (begin, end) = keys::view::page_range(ACCOUNT, self.mailbox);
        let rows = self.db.begin().range(RangeQuery::new(begin, end)).collect().await.unwrap();
        let number = |key: &[u8]| kv::tuple::unpack::<(u64, u64, u32, u32)>(key).unwrap().3;
        rows.iter().map(|row| number(&row.key)).collect()
    }
}

type Writing<'a> = Pin<Box<dyn Future<Output = Result<Checkpointed, ViewError>> + 'a>>;

/// Lets a writer go on until its handle has committed so many transactions.
async fn go_on(
    writing: &mut Writing<'_>,
    handle: &Database,
    commits: u64,
) -> Option<Result<Checkpointed, ViewError>> {
    std::future::poll_fn(|context| {
        if handle.counts().transactions_committed >= commits {
            return Poll::Ready(None);
        }
        let polled = writing.as_mut().poll(context);
        context.waker().wake_by_ref();
        polled.map(Some)
    })
    .await
}

/// One page a transaction, and the two writers stop and go on wherever they can.
#[tokio::test]
async fn of_two_writers_at_once_neither_puts_old_pages_under_a_new_header() {
    let (mut first_ends, mut second_ends) = (0, 0);
    for stops in (0..6).flat_map(|first| (0..6).map(move |second| (first, second))) {
        let world = World::new().await;
        let mut sent = Vec::new();
        for page in [0, 0, 0, 1, 1, 2] {
            sent.push(world.append(page).await);
        }
        let view = world.open().await;
        write_in_batches(&world.db, &view, 1).await.unwrap();
        let oldest = (world.open().await, world.uids(&view).await);
        world.remove(&[sent[0], sent[3]]).await;
        world.append(4).await;
        let slower = world.open().await;
        let of_slower = world.uids(&world.open().await).await;
        // Page 1 is empty now, and so is the new one.
        world.remove(&[sent[1], sent[4]]).await;
        world.append(5).await;
        let faster = world.open().await;
        let of_faster = world.uids(&world.open().await).await;

        let [quick, slow] =
            [(); 2].map(|()| world.db.handle_with_faults(world.env.clone(), kv::Faults::default()));
        let mut behind: Writing<'_> = Box::pin(write_in_batches(&slow, &slower, 1));
        let mut ahead: Writing<'_> = Box::pin(write_in_batches(&quick, &faster, 1));
        let mut ended = go_on(&mut ahead, &quick, stops.0).await;
        let cut = go_on(&mut behind, &slow, stops.1).await;
        second_ends += usize::from(matches!(cut, Some(Ok(Checkpointed::Written(_)))));
        drop(behind);
        if ended.is_none() {
            ended = go_on(&mut ahead, &quick, u64::MAX).await;
        }
        first_ends += usize::from(matches!(ended, Some(Ok(Checkpointed::Written(_)))));
        for (view, uids) in [(&oldest.0, &oldest.1), (&slower, &of_slower), (&faster, &of_faster)] {
            assert_eq!(&world.uids(view).await, uids, "{stops:?}");
        }
        assert_eq!(world.uids(&world.open().await).await, of_faster, "{stops:?}");
        let view = world.open().await;
        let change = diff(&world.db, &faster, &view).await.unwrap();
        assert_eq!(change, ViewChange::default(), "{stops:?}");
        // The next checkpoint that gets through leaves its own pages and no others.
        let Checkpointed::Written(view) = write_in_batches(&world.db, &view, 1).await.unwrap()
        else {
            panic!("nobody else writes");
        };
        let held: Vec<u32> = view.slots.iter().map(|slot| slot.number).collect();
        assert_eq!((world.stored_pages().await, held), (vec![0, 2, 4, 5], vec![0, 2, 4, 5]));
    }
    assert!(first_ends > 0 && second_ends > 0, "{first_ends} {second_ends}");
}

#[tokio::test]
async fn pages_of_a_writer_that_died_do_not_stay() {
    for stop in 0..4 {
        let world = World::new().await;
        let doomed = world.append(3).await;
        world.append(7).await;
        let view = world.open().await;
        let mut writing: Writing<'_> = Box::pin(write_in_batches(&world.db, &view, 1));
        go_on(&mut writing, &world.db, world.db.counts().transactions_committed + stop).await;
        drop(writing);
        world.remove(&[doomed]).await;
        let view = world.open().await;
        let written = write_in_batches(&world.db, &view, 1).await.unwrap();
        assert!(matches!(written, Checkpointed::Written(_)));
        assert_eq!(world.stored_pages().await, [7], "{stop}");
    }
}
