//! `rookery fsck`'s checks: each planted damage is found, exactly it, and mended where that is safe.

mod healthy;
mod mailboxes;
mod messages;
mod outside;

use blob::{BlobHash, BlobId, BlobName, BlobStore, ObjectId, Owner};
use kv::{AtomicOp, LargeValues, Subspace, tuple::pack};
use mail::{
    Appended, EmailId, KeywordSet, MailboxId, NewEmail, StoreTarget, Uid,
    fsck::{Damage, Event, Mode, Options, Owners, Parts, Remedy, Speed, Summary, fsck},
    keys,
};
use tokio::sync::mpsc;

use crate::fixture::{Fixture, NOW, target};

/// A store with an account that has two messages of one thread, bytes included.
pub(crate) struct World {
    pub(crate) fixture: Fixture,
    pub(crate) blobs: BlobStore,
    values: LargeValues,
    pub(crate) inbox: MailboxId,
    pub(crate) emails: Vec<Appended>,
    pub(crate) blob: BlobId,
}

/// Changes keys behind the store's back.
macro_rules! plant {
    ($world:expr, |$tx:ident| $body:expr) => {{
        let $tx = $world.fixture.db.begin();
        $body;
        $tx.commit().await.unwrap();
    }};
}
use plant;

/// The submissions of these tests: the blob's name alone.
pub(crate) const OWNERS: Owners = Owners { submission_key, submission_blob: BlobId::from_slice };

fn submission_key(id: &[u8; 16]) -> Vec<u8> {
    pack(&(Subspace::Submission as u64, &id[..]))
}

const FIRST: &str = "Message-ID: <a@x>\r\nSubject: hello\r\n\r\nfirst\r\n";
const SECOND: &str =
    "Message-ID: <b@x>\r\nReferences: <a@x>\r\nSubject: Re: hello\r\n\r\nsecond\r\n";

pub(crate) async fn email(blobs: &BlobStore, text: &str) -> NewEmail {
    let blob = blobs.put(text.as_bytes()).await.unwrap();
    let mut scanner = message::Scanner::new(message::Limits::default());
    scanner.push(text.as_bytes());
    NewEmail::from_scan(blob, &scanner.finish(), NOW, KeywordSet::default())
}

impl World {
    async fn new() -> Self {
        let fixture = Fixture::new().await;
        let env = fixture.env.clone();
        let values = LargeValues::memory(env.clone());
        let blobs = BlobStore::embedded(values.clone(), env).await.unwrap();
        let inbox = fixture.inbox().await;
        let (first, second) = (email(&blobs, FIRST).await, email(&blobs, SECOND).await);
        let blob = first.blob;
        let emails =
            vec![fixture.append(inbox, &first).await, fixture.append(inbox, &second).await];
        Self { fixture, blobs, values, inbox, emails, blob }
    }

    fn targets(&self) -> Vec<StoreTarget> {
        self.emails.iter().map(target).collect()
    }

    fn email(&self) -> EmailId {
        self.emails[0].email
    }

    fn owner(&self) -> Owner {
        Owner::Email(self.fixture.account.0, self.email().0)
    }

    pub(crate) async fn run(&self, mode: Mode) -> (Summary, Vec<Event>) {
        run(&self.fixture, &self.blobs, Options { mode, ..options() }).await
    }

    /// What is found, in order.
    async fn found(&self) -> Vec<Damage> {
        found(&self.run(Mode::Check).await.1)
    }

    /// What is there is found, exactly it; a check changes nothing; a repair mends it, and then
    /// nothing is found.
    #[track_caller]
    fn mends(&self, expected: Vec<Damage>) -> impl Future<Output = ()> {
        self.check(expected, Vec::new())
    }

    /// The same for what a repair leaves alone.
    async fn needs_a_person(&self, expected: Vec<Damage>) {
        assert!(expected.iter().all(|one| one.remedy() == Remedy::Person));
        self.check(expected.clone(), expected).await;
    }

    async fn check(&self, expected: Vec<Damage>, remaining: Vec<Damage>) {
        let before = self.fixture.everything().await;
        let (summary, events) = self.run(Mode::Check).await;
        assert_eq!(found(&events), expected);
        assert_eq!((summary.findings, summary.remaining), (count(&expected), count(&expected)));
        assert_eq!(self.fixture.everything().await, before, "a check writes nothing");
        let (summary, events) = self.run(Mode::Repair).await;
        assert_eq!(found(&events), expected);
        let mended: Vec<Damage> = events
            .iter()
            .filter_map(|event| match event {
                Event::Mended(damage) => Some(damage.clone()),
                _ => None,
            })
            .collect();
        let to_mend: Vec<Damage> =
            expected.iter().filter(|one| !remaining.contains(one)).cloned().collect();
        assert_eq!(mended, to_mend);
        assert_eq!(summary.remaining, count(&remaining));
        assert_eq!(self.found().await, remaining);
        let once = self.fixture.everything().await;
        self.run(Mode::Repair).await;
        assert_eq!(self.fixture.everything().await, once, "a second repair changes nothing");
    }
}

fn count(damages: &[Damage]) -> u64 {
    damages.len() as u64
}

pub(crate) fn options() -> Options {
    Options { speed: Speed::new(100).unwrap(), ..Options::default() }
}

pub(crate) fn found(events: &[Event]) -> Vec<Damage> {
    let found = events.iter().filter_map(|event| match event {
        Event::Found(damage) => Some(damage.clone()),
        _ => None,
    });
    found.collect()
}

pub(crate) async fn run(
    fixture: &Fixture,
    blobs: &BlobStore,
    options: Options,
) -> (Summary, Vec<Event>) {
    let parts = Parts {
        db: fixture.db.clone(),
        blobs: blobs.clone(),
        env: fixture.env.clone(),
        owners: OWNERS,
    };
    let (events, mut heard) = mpsc::channel(16);
    let hear = async {
        let mut all = Vec::new();
        while let Some(event) = heard.recv().await {
            all.push(event);
        }
        all
    };
    let (summary, events) = tokio::join!(fsck(parts, options, events), hear);
    (summary.unwrap(), events)
}

#[tokio::test]
async fn nothing_is_found_in_a_store_that_is_right() {
    let world = World::new().await;
    let (summary, events) = world.run(Mode::Check).await;
    assert_eq!(found(&events), []);
    assert_eq!((summary.accounts, summary.emails, summary.remaining), (1, 2, 0));
    let last = events.iter().rev().find_map(|event| match event {
        Event::Progress(progress) => Some(*progress),
        _ => None,
    });
    let last = last.unwrap();
    assert_eq!((last.accounts_done, last.accounts_total, last.emails), (1, 1, 2));
    assert_eq!(last.blobs, 4, "two references, two blobs");
}

#[tokio::test]
async fn one_account_can_be_checked_alone() {
    let world = World::new().await;
    let (db, env) = (&world.fixture.db, &world.fixture.env);
    let other = crate::fixture::new_account(db, env, "carol@example.org", 0).await;
    plant!(world, |tx| {
        tx.set(&keys::counter::account_key(other), &[1; 16]);
        world.blobs.remove(&BlobName::of(&world.blob)).await.unwrap();
    });
    let account = Some(world.fixture.account);
    let (summary, events) =
        run(&world.fixture, &world.blobs, Options { account, ..options() }).await;
    assert_eq!(found(&events), [Damage::NoBlob(world.blob, world.owner())]);
    assert_eq!(summary.accounts, 1);
    let account = Some(other);
    let (_, events) = run(&world.fixture, &world.blobs, Options { account, ..options() }).await;
    assert!(matches!(found(&events)[..], [Damage::AccountCounters { .. }]), "{events:?}");
}

#[tokio::test]
async fn a_check_that_nobody_hears_ends() {
    let world = World::new().await;
    let (events, heard) = mpsc::channel(1);
    drop(heard);
    let parts = Parts {
        db: world.fixture.db.clone(),
        blobs: world.blobs.clone(),
        env: world.fixture.env.clone(),
        owners: OWNERS,
    };
    let ended = fsck(parts, options(), events).await;
    assert!(matches!(ended, Err(mail::fsck::FsckError::Stopped)), "{ended:?}");
}

/// A blob that was never put.
fn no_blob() -> BlobId {
    BlobId::new(ObjectId::from_bytes([3; 16]), BlobHash::from_bytes([4; 32]))
}

fn uid(number: u32) -> Uid {
    Uid::new(number).unwrap()
}
