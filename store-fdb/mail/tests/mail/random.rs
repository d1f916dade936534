//! Many clients on one account, on a store that refuses, forgets and loses answers.
//!
//! What must hold afterwards: state, log, counters and views say the same; UIDs ascended; every
//! UID that the log gave out was acknowledged to exactly one operation, which is what operation
//! ids are for; and each client that heard nothing but diffs knows the server's state.
//!
//! `MAIL_RANDOM_SEED` replays one seed, `MAIL_RANDOM_RUNS` says how many seeds to try.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    sync::{Arc, Mutex, MutexGuard},
};

use env::Timestamp;
use kv::{AsKvError, Faults, Probability};
use mail::{
    AppendError, Appended, CopyError, CopyMode, CreateError, DeleteError, Deleted, ExpungeMode,
    KeywordChange, MailboxId, ModSeq, NewEmail, NewMailbox, Progress, RenameError, StoreError,
    StoreRequest, StoreTarget, Uid, changes_since, keys,
    keys::{email::EmailState, log::LogEntry},
    mailbox_tree,
    view::{View, ViewCache, ViewError, diff, write_checkpoint},
};

use crate::{
    environment::{Random, seeded},
    fixture::{Client, Fixture, check_view, email, listing, set, unit},
};

const CLIENTS: usize = 4;
const STEPS: usize = 60;

/// Messages received from here on nobody copies, moves or removes.
const PRECIOUS_MS: i64 = 1 << 45;

const KEYWORDS: [&str; 6] = ["$seen", "$flagged", "$answered", "$draft", "work", "later"];

/// What the clients were told, and what the log told.
#[derive(Default)]
struct Ledger {
    acknowledged: BTreeMap<(MailboxId, Uid), usize>,
    created: usize,
    /// Operations that ended without an answer.
    unanswered: usize,
    precious: BTreeMap<i64, (MailboxId, Appended)>,
    next_marker: i64,
    /// The log so far, read before it is trimmed.
    log: Vec<(ModSeq, LogEntry)>,
    synced: usize,
    checkpoints: usize,
    appended: usize,
}

struct World {
    fixture: Fixture,
    random: Random,
    cache: ViewCache,
    emails: Vec<NewEmail>,
    inbox: MailboxId,
    trims: bool,
    ledger: Mutex<Ledger>,
}

/// A view and what the client made of it.
struct Held {
    view: Arc<View>,
    client: Client,
}

struct ReportSeed(u64);

impl Drop for ReportSeed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with MAIL_RANDOM_SEED={}", self.0);
        }
    }
}

#[test]
fn whatever_clients_do_everything_says_the_same() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().unwrap());
    let seeds = match number("MAIL_RANDOM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("MAIL_RANDOM_RUNS").unwrap_or(8),
    };
    let (mut synced, mut checkpoints, mut appended, mut conflicts, mut unknown) = (0, 0, 0, 0, 0);
    let runs = seeds.end - seeds.start;
    for seed in seeds {
        let _report = ReportSeed(seed);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (ledger, counts) = runtime.block_on(one_run(seed));
        synced += ledger.synced;
        checkpoints += ledger.checkpoints;
        appended += ledger.appended;
        conflicts += counts.conflicts;
        unknown += counts.commit_unknown;
    }
    // Past the test runner's capture: the figures are to be seen.
    let _told = writeln!(
        std::io::stderr(),
        "{runs} runs: {appended} appends, {synced} syncs, {checkpoints} checkpoints, \
         {conflicts} conflicts, {unknown} unknown commits"
    );
    if runs > 1 {
        assert!(synced > 0 && checkpoints > 0 && conflicts > 0 && unknown > 0, "too tame");
    }
}

#[test]
fn a_seed_replays_to_the_byte() {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(one_run(1))
    };
    let ((first, first_counts), (second, second_counts)) = (run(), run());
    assert!(first.log == second.log && first_counts == second_counts);
}

async fn one_run(seed: u64) -> (Ledger, kv::Counts) {
    let env = seeded(seed);
    let fixture = Fixture::on(env.clone(), if seed.is_multiple_of(3) { 1 << 40 } else { 0 }).await;
    let random = Random::new(seed ^ 0x5eed);
    let inbox = fixture.inbox().await;
    start_late(&fixture, &random).await;
    let world = Arc::new(World {
        cache: ViewCache::new(fixture.db.clone(), env.clone(), random.below(2) * 10_000),
        emails: emails(),
        inbox,
        trims: seed.is_multiple_of(2),
        random,
        fixture,
        ledger: Mutex::default(),
    });
    world.fixture.db.faults().set(Faults {
        conflict: Probability::per_million(60_000),
        commit_unknown: Probability::per_million(60_000),
        too_old: Probability::per_million(5_000),
        ..Faults::default()
    });
    let clients: Vec<_> =
        (0..CLIENTS).map(|_| env.spawn("client", client(Arc::clone(&world)))).collect();
    let mut held = Vec::new();
    for client in clients {
        held.push(client.await.unwrap());
    }
    world.fixture.db.faults().clear();
    finish(&world, held).await;
    let world = Arc::into_inner(world).unwrap();
    (world.ledger.into_inner().unwrap(), world.fixture.db.counts())
}

/// UIDs begin right before a page's end, so that few messages span pages.
async fn start_late(fixture: &Fixture, random: &Random) {
    let tree = mailbox_tree(&fixture.db.begin(), fixture.account).await.unwrap();
    let tx = fixture.db.begin();
    for mailbox in tree.iter() {
        let next = 2_040 + u32::try_from(random.below(8)).unwrap();
        tx.set(&keys::mailbox::next_uid_key(fixture.account, mailbox.id), &next.to_le_bytes());
    }
    tx.commit().await.unwrap();
}

fn emails() -> Vec<NewEmail> {
    let texts = [
        "Message-ID: <a@x>\r\nSubject: hello\r\n\r\nfirst\r\n",
        "Message-ID: <b@x>\r\nReferences: <a@x>\r\nSubject: Re: hello\r\n\r\nsecond\r\n",
        "Message-ID: <c@x>\r\nReferences: <a@x> <b@x>\r\nSubject: other\r\n\r\nthird\r\n",
        "Message-ID: <d@x>\r\nReferences: <c@x>\r\nSubject: other\r\n\r\nfourth\r\n",
        "Subject: no id\r\n\r\nfifth, which is longer than all the others\r\n",
    ];
    texts.iter().map(|text| email(text, &[])).collect()
}

async fn client(world: Arc<World>) -> BTreeMap<MailboxId, Held> {
    let mut held = BTreeMap::new();
    for _ in 0..STEPS {
        match world.random.below(100) {
            0..25 => world.append().await,
            25..40 => world.store(&held).await,
            40..50 => world.copy(CopyMode::Copy, &held).await,
            50..58 => world.copy(CopyMode::Move, &held).await,
            58..66 => world.expunge(&held).await,
            66..72 => world.change_mailboxes().await,
            72..88 => world.sync(&mut held).await,
            88..94 => world.checkpoint(&held).await,
            94..97 => world.jump().await,
            _ => world.trim().await,
        }
    }
    held
}

/// Panics where the store says that something is damaged: nothing here damages anything.
fn passing(error: &(impl std::error::Error + AsKvError)) {
    assert!(error.as_kv_error().is_some(), "{error}");
}

fn view_error(error: &ViewError) {
    match error {
        ViewError::NoMailbox(_) | ViewError::TooOld(_) => {}
        ViewError::PageTooLarge(_) | ViewError::Store(_) => passing(error),
    }
}

impl World {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap()
    }

    fn acknowledge(&self, mailbox: MailboxId, uids: impl IntoIterator<Item = Uid>) {
        let mut ledger = self.ledger();
        for uid in uids {
            *ledger.acknowledged.entry((mailbox, uid)).or_default() += 1;
        }
    }

    fn unanswered(&self, error: &(impl std::error::Error + AsKvError)) {
        passing(error);
        self.ledger().unanswered += 1;
    }

    async fn any_mailbox(&self) -> MailboxId {
        let account = self.fixture.account;
        let tree = self.fixture.db.run(|tx| async move { mailbox_tree(&tx, account).await }).await;
        let Ok(tree) = tree else { return self.inbox };
        let ids: Vec<MailboxId> = tree.iter().map(|mailbox| mailbox.id).collect();
        // Most of the time the same few, so that clients meet.
        if self.random.chance(50) { self.inbox } else { *self.random.pick(&ids).unwrap() }
    }

    fn any_keywords(&self) -> mail::KeywordSet {
        let picked: Vec<&str> = KEYWORDS.into_iter().filter(|_| self.random.chance(35)).collect();
        set(&picked)
    }

    async fn append(&self) {
        let precious = self.random.chance(30);
        let mailbox = if precious { self.inbox } else { self.any_mailbox().await };
        let count = 1 + self.random.below(3);
        let emails: Vec<NewEmail> = (0..count).map(|_| self.any_email(precious)).collect();
        let operations: Vec<_> = (0..count).map(|_| self.fixture.operation()).collect();
        let (emails, operations) = (&emails, &operations);
        let done = unit!(self.fixture, AppendError, |unit| {
            let mut done = Vec::new();
            for (email, operation) in emails.iter().zip(operations) {
                done.push(mail::append(&mut unit, mailbox, email, *operation).await?);
            }
            Ok::<_, AppendError>(done)
        });
        match done {
            Ok(done) => {
                self.acknowledge(mailbox, done.iter().map(|one| one.uid));
                let mut ledger = self.ledger();
                ledger.appended += done.len();
                if precious {
                    for (email, one) in emails.iter().zip(done) {
                        ledger.precious.insert(email.received_at.unix_ms(), (mailbox, one));
                    }
                }
            }
            Err(AppendError::NoMailbox(_)) => {}
            Err(error) => self.unanswered(&error),
        }
    }

    fn any_email(&self, precious: bool) -> NewEmail {
        let mut ledger = self.ledger();
        ledger.next_marker += 1;
        let marker = ledger.next_marker + if precious { PRECIOUS_MS } else { 0 };
        let mut email = self.random.pick(&self.emails).unwrap().clone();
        email.received_at = Timestamp::from_unix_ms(marker);
        email.keywords = self.any_keywords();
        email.deleted = self.random.chance(10);
        email
    }

    /// Some messages of a mailbox, as an old view or a new one has them.
    async fn targets(
        &self,
        held: &BTreeMap<MailboxId, Held>,
        precious_too: bool,
    ) -> Option<(MailboxId, ModSeq, Vec<StoreTarget>)> {
        let mailbox = self.any_mailbox().await;
        let (as_of, messages) = match held.get(&mailbox) {
            Some(held) if self.random.chance(70) => {
                (held.view.as_of(), held.client.messages.clone())
            }
            _ => {
                let view = self.view(mailbox).await?;
                let listed = listing(&self.fixture.db, &view).await;
                (view.as_of(), listed.inspect_err(view_error).ok()?)
            }
        };
        let usable: Vec<StoreTarget> = messages
            .iter()
            .filter(|one| precious_too || one.row.received_ms < PRECIOUS_MS)
            .map(|one| StoreTarget { email: one.row.email, uid: one.row.uid })
            .collect();
        let count = 1 + self.random.below(4);
        let mut targets: Vec<StoreTarget> =
            (0..count).filter_map(|_| self.random.pick(&usable).copied()).collect();
        targets.sort_by_key(|target| target.uid);
        targets.dedup();
        Some((mailbox, as_of, targets))
    }

    async fn store(&self, held: &BTreeMap<MailboxId, Held>) {
        let Some((mailbox, as_of, targets)) = self.targets(held, true).await else { return };
        let changes = [KeywordChange::Add, KeywordChange::Remove, KeywordChange::Replace];
        let request = StoreRequest {
            mailbox,
            change: *self.random.pick(&changes).unwrap(),
            keywords: self.any_keywords(),
            deleted: self.random.chance(30).then_some(Deleted),
            unchanged_since: self.random.chance(30).then_some(as_of),
        };
        let operation = self.fixture.operation();
        let (request, targets) = (&request, &targets[..]);
        let done = unit!(self.fixture, StoreError, |unit| mail::store_keywords(
            &mut unit, request, targets, operation
        )
        .await);
        if let Err(error) = done {
            passing(&error);
        }
    }

    async fn copy(&self, mode: CopyMode, held: &BTreeMap<MailboxId, Held>) {
        let Some((from, _, targets)) = self.targets(held, false).await else { return };
        let (to, operation, targets) =
            (self.any_mailbox().await, self.fixture.operation(), &targets[..]);
        let done = unit!(self.fixture, CopyError, |unit| mail::copy(
            &mut unit, mode, from, to, targets, operation
        )
        .await);
        match done {
            Ok(copied) => self.acknowledge(to, copied.pairs.into_iter().map(|(_, uid)| uid)),
            Err(CopyError::NoMailbox(_)) => {}
            Err(error) => self.unanswered(&error),
        }
    }

    async fn expunge(&self, held: &BTreeMap<MailboxId, Held>) {
        let Some((mailbox, _, targets)) = self.targets(held, false).await else { return };
        let mode = if self.random.chance(50) { ExpungeMode::All } else { ExpungeMode::Deleted };
        let targets = &targets[..];
        let done = unit!(self.fixture, StoreError, |unit| mail::expunge(
            &mut unit, mailbox, mode, targets
        )
        .await);
        if let Err(error) = done {
            passing(&error);
        }
    }

    async fn change_mailboxes(&self) {
        let mailbox = self.any_mailbox().await;
        let parent = self.random.chance(30).then_some(self.any_mailbox().await);
        let name = format!("m{}", self.random.below(6));
        let operation = self.fixture.operation();
        match self.random.below(4) {
            0 | 1 => {
                let new = NewMailbox { name, parent, role: None, subscribed: false };
                let new = &new;
                let done = unit!(self.fixture, CreateError, |unit| mail::create_mailbox(
                    &mut unit, new, operation
                )
                .await);
                match done {
                    Ok(_) => self.ledger().created += 1,
                    Err(CreateError::Store(error)) => self.unanswered(&error),
                    Err(_) => {}
                }
            }
            2 => {
                let name = &name;
                let done = unit!(self.fixture, RenameError, |unit| mail::rename_mailbox(
                    &mut unit, mailbox, parent, name, operation
                )
                .await);
                if let Err(RenameError::Store(error)) = done {
                    passing(&error);
                }
            }
            _ => {
                let done = unit!(self.fixture, DeleteError, |unit| mail::delete_mailbox(
                    &mut unit, mailbox, operation
                )
                .await);
                if let Err(DeleteError::Store(error)) = &done {
                    passing(error);
                }
                // The rest is left to whoever comes by, as after a crash.
                if done.is_ok() && self.random.chance(50) {
                    self.finish_deletions().await;
                }
            }
        }
    }

    async fn finish_deletions(&self) {
        let (db, account) = (&self.fixture.db, self.fixture.account);
        let tree = db.run(|tx| async move { mailbox_tree(&tx, account).await }).await;
        let Ok(tree) = tree else { return };
        for mailbox in tree.deleting().iter().copied() {
            let mut after = None;
            loop {
                let progress = unit!(self.fixture, StoreError, |unit| {
                    mail::remove_mailbox_contents(&mut unit, mailbox, after).await
                });
                match progress {
                    Ok(Progress::More(email)) => after = Some(email),
                    Ok(Progress::Done) => break,
                    Err(error) => return passing(&error),
                }
            }
            let done =
                db.run(|tx| async move { mail::finish_delete(&tx, account, mailbox).await }).await;
            if let Err(error) = done {
                passing(&error);
            }
        }
    }

    /// A view of now, by one of the ways to get one.
    async fn view(&self, mailbox: MailboxId) -> Option<Arc<View>> {
        let view = if self.random.chance(50) {
            self.cache.view(self.fixture.account, mailbox).await
        } else {
            View::open(&self.fixture.db, self.fixture.account, mailbox).await.map(Arc::new)
        };
        view.inspect_err(view_error).ok()
    }

    async fn sync(&self, held: &mut BTreeMap<MailboxId, Held>) {
        let mailbox = self.any_mailbox().await;
        let old = held.remove(&mailbox);
        let advanced = match &old {
            Some(old) if self.random.chance(50) => {
                let advanced = old.view.advance(&self.fixture.db).await;
                advanced.inspect_err(view_error).ok().map(Arc::new)
            }
            _ => self.view(mailbox).await,
        };
        let Some(view) = advanced else { return };
        if let Ok(new) = self.told(old, view).await.inspect_err(view_error) {
            self.ledger().synced += 1;
            held.insert(mailbox, new);
        }
    }

    /// What the client knows after it heard the way from the old view to the new one.
    async fn told(&self, old: Option<Held>, view: Arc<View>) -> Result<Held, ViewError> {
        let db = &self.fixture.db;
        let shown = listing(db, &view).await?;
        let Some(mut held) = old else {
            return Ok(Held { view, client: Client { messages: shown } });
        };
        let change = diff(db, &held.view, &view).await?;
        held.client.hear(db, &change, &view).await?;
        assert_eq!(held.client.messages, shown, "the client learnt something else");
        Ok(Held { view, ..held })
    }

    async fn checkpoint(&self, held: &BTreeMap<MailboxId, Held>) {
        let mailbox = self.any_mailbox().await;
        let done = match held.get(&mailbox) {
            _ if self.random.chance(10) => {
                self.cache.checkpoint_account(self.fixture.account).await
            }
            Some(held) if self.random.chance(40) => {
                write_checkpoint(&self.fixture.db, &held.view).await.map(drop)
            }
            _ => match self.view(mailbox).await {
                Some(view) => write_checkpoint(&self.fixture.db, &view).await.map(drop),
                None => return,
            },
        };
        match done {
            Ok(()) => self.ledger().checkpoints += 1,
            Err(error) => view_error(&error),
        }
    }

    /// As if a mailbox had had many more messages.
    async fn jump(&self) {
        let mailbox = self.any_mailbox().await;
        let far = u32::try_from(self.random.below(3_000)).unwrap();
        let key = &keys::mailbox::next_uid_key(self.fixture.account, mailbox);
        let record = &keys::mailbox::key(self.fixture.account, mailbox);
        let done: Result<(), kv::Error> = self
            .fixture
            .db
            .run(|tx| async move {
                let next = tx.get(key).await?;
                if tx.get(record).await?.is_some() {
                    let next =
                        next.map_or(1, |next| u32::from_le_bytes(next[..].try_into().unwrap()));
                    tx.set(key, &(next + far).to_le_bytes());
                }
                Ok(())
            })
            .await;
        if let Err(error) = done {
            passing(&error);
        }
    }

    async fn trim(&self) {
        if !self.trims {
            return;
        }
        let Ok(read) = self.read_log().await else { return };
        let (db, account) = (&self.fixture.db, self.fixture.account);
        let done = db.run(|tx| async move { mail::trim_log(&tx, account, read).await }).await;
        if let Err(error) = done {
            passing(&error);
        }
    }

    /// Reads on in the log, and tells how far it has been read.
    async fn read_log(&self) -> Result<ModSeq, StoreError> {
        let account = self.fixture.account;
        loop {
            let after = self.ledger().log.last().map_or(ModSeq(0), |(version, _)| *version);
            let page = self
                .fixture
                .db
                .run(|tx| async move { changes_since(&tx, account, after).await })
                .await?;
            let mut ledger = self.ledger();
            let known = ledger.log.last().map_or(ModSeq(0), |(version, _)| *version);
            if known != after {
                continue;
            }
            let more = page.more_after.is_some();
            // Somebody may have trimmed since, but only what is in the ledger.
            ledger.log.extend(page.entries);
            if !more {
                return Ok(ledger.log.last().map_or(ModSeq(0), |(version, _)| *version));
            }
        }
    }
}

async fn finish(world: &World, clients: Vec<BTreeMap<MailboxId, Held>>) {
    let fixture = &world.fixture;
    world.finish_deletions().await;
    world.read_log().await.unwrap();
    fixture.check().await;
    check_exactly_once(world);
    check_precious(world).await;
    let mut truths = BTreeMap::new();
    let tree = mailbox_tree(&fixture.db.begin(), fixture.account).await.unwrap();
    assert_eq!(tree.deleting(), []);
    for mailbox in tree.iter().map(|mailbox| mailbox.id) {
        let truth = fixture.truth(mailbox).await;
        check_view(&fixture.db, &fixture.open(mailbox).await, &truth, "opened").await;
        let shared = world.cache.view(fixture.account, mailbox).await.unwrap();
        check_view(&fixture.db, &shared, &truth, "shared").await;
        let counts =
            mail::mailbox_counts(&fixture.db.begin(), fixture.account, mailbox).await.unwrap();
        check_counts(counts, &truth);
        truths.insert(mailbox, truth);
    }
    for (mailbox, held) in clients.into_iter().flatten() {
        let view = match held.view.advance(&fixture.db).await {
            Ok(view) => Arc::new(view),
            Err(ViewError::NoMailbox(_)) => {
                assert!(!truths.contains_key(&mailbox));
                continue;
            }
            // Only a log that was trimmed does not lead on from an old view.
            Err(ViewError::TooOld(_)) if world.trims => continue,
            Err(error) => panic!("{error}"),
        };
        let advanced = check_advanced(world, held, view, &truths[&mailbox]).await;
        assert!(world.trims || advanced.is_ok(), "{:?}", advanced.err());
    }
    for (mailbox, truth) in &truths {
        fixture.forget_history(*mailbox).await;
        check_view(&fixture.db, &fixture.open(*mailbox).await, truth, "rebuilt").await;
    }
}

/// P4, told apart from the fold's own arithmetic: what STATUS says is what is shown.
fn check_counts(counts: mail::MailboxCounts, truth: &[mail::view::Message]) {
    let unseen = truth.iter().filter(|one| !one.row.flags.keywords.is_seen()).count();
    let deleted = truth.iter().filter(|one| one.row.flags.deleted).count();
    let expected = [
        truth.len() as u64,
        unseen as u64,
        deleted as u64,
        truth.iter().map(|one| one.row.size).sum(),
    ];
    assert_eq!([counts.messages, counts.unseen, counts.deleted, counts.bytes], expected);
}

async fn check_advanced(
    world: &World,
    held: Held,
    view: Arc<View>,
    truth: &[mail::view::Message],
) -> Result<(), ViewError> {
    let held = world.told(Some(held), view).await.inspect_err(view_error)?;
    assert_eq!(held.client.messages, truth, "a client did not converge");
    check_view(&world.fixture.db, &held.view, truth, "advanced").await;
    Ok(())
}

/// Each UID that the log gave out was one operation's answer, and each answer is in the log.
fn check_exactly_once(world: &World) {
    let ledger = world.ledger();
    let mut given: BTreeMap<(MailboxId, Uid), usize> = BTreeMap::new();
    let mut created = 0;
    for (_, entry) in &ledger.log {
        let kind = keys::log::MailboxChangeKind::Created as i32;
        created += entry.mailboxes.iter().filter(|change| change.kind == kind).count();
        for change in &entry.emails {
            let before: BTreeSet<_> =
                change.before.iter().map(|place| (place.mailbox, place.uid)).collect();
            for place in &change.after {
                if !before.contains(&(place.mailbox, place.uid)) {
                    let uid = Uid::new(place.uid).unwrap();
                    *given.entry((MailboxId(place.mailbox), uid)).or_default() += 1;
                }
            }
        }
    }
    assert!(given.values().all(|times| *times == 1), "a UID was given twice");
    for (place, times) in &ledger.acknowledged {
        assert_eq!((*times, given.get(place)), (1, Some(&1)), "{place:?} was acknowledged");
    }
    if ledger.unanswered == 0 {
        assert_eq!(given, ledger.acknowledged, "something was done twice");
        // Six stand there from the start.
        assert_eq!(created, ledger.created + 6, "a mailbox was made twice");
    }
}

async fn check_precious(world: &World) {
    let (db, precious) = (&world.fixture.db, world.ledger().precious.clone());
    let (begin, end) = keys::email::state_range(world.fixture.account);
    let rows = db.begin().range(kv::RangeQuery::new(begin, end)).collect().await.unwrap();
    let mut found: BTreeMap<i64, Vec<(mail::EmailId, EmailState)>> = BTreeMap::new();
    for pair in rows {
        let (_, state) = keys::email::decode_state(&pair.value).unwrap();
        let email = keys::email::email_of(&pair.key).unwrap();
        found.entry(state.received_ms).or_default().push((email, state));
    }
    for (marker, (mailbox, appended)) in &precious {
        let [(email, state)] = &found[marker][..] else { panic!("{marker} is not there once") };
        assert_eq!(*email, appended.email);
        let places: Vec<_> =
            state.memberships.iter().map(|place| (place.mailbox, place.uid)).collect();
        assert_eq!(places, [(mailbox.0, appended.uid.number())]);
    }
}
