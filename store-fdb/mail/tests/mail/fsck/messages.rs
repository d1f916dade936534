//! Damages of emails, their threads, their log.

use mail::{ExpungeMode, ModSeq, ThreadId, keys::email::EmailMeta};
use prost::Message;

use super::*;
use crate::fixture::state;

#[tokio::test]
async fn a_lost_meta() {
    let world = World::new().await;
    let account = world.fixture.account;
    plant!(world, |tx| tx.clear(&keys::email::meta_key(account, world.email())));
    world.needs_a_person(vec![Damage::NoMeta(account, world.email())]).await;
}

#[tokio::test]
async fn a_lost_state() {
    let world = World::new().await;
    let account = world.fixture.account;
    plant!(world, |tx| tx.clear(&keys::email::state_key(account, world.email())));
    let found = world.found().await;
    // The counters say what was lost; that they are mended is right as well: they are the fold.
    assert!(
        matches!(&found[..], [
            Damage::NoState(_, email),
            Damage::AccountCounters { .. },
            Damage::MailboxCounters { .. }
        ] if *email == world.email()),
        "{found:?}"
    );
    let (summary, _) = world.run(Mode::Repair).await;
    assert_eq!((summary.findings, summary.mended, summary.remaining), (3, 2, 1));
}

#[tokio::test]
async fn a_state_that_contradicts_its_meta() {
    let world = World::new().await;
    let account = world.fixture.account;
    let key = keys::email::meta_key(account, world.email());
    let value = world.fixture.db.begin().get(&key).await.unwrap().unwrap();
    let mut meta = EmailMeta::decode(&value[..]).unwrap();
    meta.size += 1;
    plant!(world, |tx| tx.set(&key, &meta.encode_to_vec()));
    world.needs_a_person(vec![Damage::StateAndMeta(account, world.email(), "size")]).await;
}

#[tokio::test]
async fn records_that_do_not_decode() {
    let world = World::new().await;
    let (account, inbox) = (world.fixture.account, world.inbox);
    for (family, key) in [
        ("email meta", keys::email::meta_key(account, world.email())),
        ("email state", keys::email::state_key(account, world.email())),
        ("mailbox", keys::mailbox::key(account, inbox)),
        ("next id", keys::mailbox::next_uid_key(account, inbox)),
        ("account", keys::account::key(account)),
        ("credential", keys::account::credential_key(account)),
        ("domain", keys::directory::domain_key("example.org")),
        ("address", keys::directory::address_key("example.org", "bob")),
        ("operation", {
            let (begin, end) = (pack(&(Subspace::Operation as u64,)), vec![0xff]);
            let query = kv::RangeQuery::new(begin, end).limit(1);
            world.fixture.db.begin().range(query).collect().await.unwrap()[0].key.to_vec()
        }),
    ] {
        let value = world.fixture.db.begin().get(&key).await.unwrap().unwrap();
        plant!(world, |tx| tx.set(&key, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"));
        world.needs_a_person(vec![Damage::Undecodable { family, key: key.clone() }]).await;
        plant!(world, |tx| tx.set(&key, &value));
        assert_eq!(world.found().await, [], "{family}");
    }
}

#[tokio::test]
async fn a_log_entry_that_does_not_decode() {
    let world = World::new().await;
    let account = world.fixture.account;
    let (modseq, _) = state(&world.fixture, world.email()).await.unwrap();
    let (begin, end) = keys::log::range_after(account, modseq.0 - 1);
    let rows = world.fixture.db.begin().range(kv::RangeQuery::new(begin, end)).collect().await;
    let key = rows.unwrap()[0].key.to_vec();
    plant!(world, |tx| tx.set(&key, b"\xff"));
    world
        .needs_a_person(vec![
            Damage::NoLogEntry(account, world.email(), modseq),
            Damage::Undecodable { family: "log", key },
        ])
        .await;
}

#[tokio::test]
async fn two_emails_at_one_uid() {
    let world = World::new().await;
    let account = world.fixture.account;
    let second = world.emails[1].email;
    // An append that took a UID again, with all that belongs to it.
    plant!(world, |tx| {
        tx.set(&keys::mailbox::next_uid_key(account, world.inbox), &1_u32.to_le_bytes());
    });
    let again = world.fixture.append(world.inbox, &email(&world.blobs, FIRST).await).await;
    plant!(world, |tx| {
        tx.set(&keys::mailbox::next_uid_key(account, world.inbox), &3_u32.to_le_bytes());
    });
    assert_eq!((again.uid, world.emails[0].uid), (uid(1), uid(1)));
    assert_ne!(again.email, second);
    let emails = [world.email(), again.email];
    let mailbox = world.inbox;
    world.needs_a_person(vec![Damage::UidTwice { account, mailbox, uid: 1, emails }]).await;
}

#[tokio::test]
async fn an_email_in_no_mailbox_and_in_one_that_is_not_there() {
    let world = World::new().await;
    let account = world.fixture.account;
    let (modseq, held) = state(&world.fixture, world.email()).await.unwrap();
    let key = keys::email::state_key(account, world.email());
    let other = MailboxId(99);
    // Under its old stamp, as a fault of the disk would leave it.
    let put = |places: Vec<keys::email::Membership>| {
        let state = keys::email::EmailState { memberships: places, ..held.clone() };
        let mut value = kv::Versionstamp::new(modseq.0, 0).as_bytes().to_vec();
        state.encode(&mut value).unwrap();
        value
    };
    let mut place = held.memberships[0];
    place.mailbox = other.0;
    plant!(world, |tx| tx.set(&key, &put(vec![place])));
    let found = world.found().await;
    assert!(
        matches!(&found[..], [
            Damage::NoSuchMailbox(_, email, mailbox),
            Damage::LogEntry(..),
            Damage::MailboxCounters { .. }
        ] if (*email, *mailbox) == (world.email(), other)),
        "{found:?}"
    );
    plant!(world, |tx| tx.set(&key, &put(Vec::new())));
    let found = world.found().await;
    assert!(
        matches!(&found[..], [
            Damage::NoPlace(_, email),
            Damage::LogEntry(..),
            Damage::AccountCounters { .. },
            Damage::MailboxCounters { .. }
        ] if *email == world.email()),
        "{found:?}"
    );
}

#[tokio::test]
async fn thread_keys_missing_and_stray() {
    let world = World::new().await;
    let (account, email) = (world.fixture.account, world.email());
    let thread = world.emails[0].thread;
    assert_eq!(thread, world.emails[1].thread);
    let member = keys::thread::member_key(account, thread, email);
    plant!(world, |tx| tx.clear(&member));
    world.mends(vec![Damage::NoThreadMember(account, thread, email)]).await;

    let meta = mail::email_meta(&world.fixture.db.begin(), account, email).await.unwrap().unwrap();
    let hash = meta.thread_keys[0];
    let key = keys::thread::key(account, hash, email);
    plant!(world, |tx| tx.clear(&key));
    world.mends(vec![Damage::NoThreadKey(account, hash, email)]).await;
    plant!(world, |tx| tx.set(&key, &77_u32.to_le_bytes()));
    world.mends(vec![Damage::NoThreadKey(account, hash, email)]).await;

    let (gone, other) = (EmailId(55), ThreadId(44));
    plant!(world, |tx| tx.set(&keys::thread::key(account, hash, gone), &[1, 0, 0, 0]));
    world.mends(vec![Damage::StrayThreadKey(account, hash, gone)]).await;
    plant!(world, |tx| tx.set(&keys::thread::key(account, hash ^ 1, email), &[1, 0, 0, 0]));
    world.mends(vec![Damage::StrayThreadKey(account, hash ^ 1, email)]).await;
    plant!(world, |tx| tx.set(&keys::thread::member_key(account, thread, gone), &[]));
    world.mends(vec![Damage::StrayThreadMember(account, thread, gone)]).await;
    plant!(world, |tx| tx.set(&keys::thread::member_key(account, other, email), &[]));
    world.mends(vec![Damage::StrayThreadMember(account, other, email)]).await;
    let kind = pack(&(Subspace::Thread as u64, account.0, "x"));
    plant!(world, |tx| tx.set(&kind, &[]));
    world.needs_a_person(vec![Damage::Undecodable { family: "thread", key: kind }]).await;
}

#[tokio::test]
async fn a_log_that_lacks_entries_or_contradicts() {
    let world = World::new().await;
    let (account, email) = (world.fixture.account, world.email());
    let (first, _) = state(&world.fixture, email).await.unwrap();
    let targets = world.targets();
    world.fixture.expunge(world.inbox, ExpungeMode::All, &targets[1..]).await;
    let request = mail::StoreRequest {
        mailbox: world.inbox,
        change: mail::KeywordChange::Add,
        keywords: crate::fixture::set(&["$seen"]),
        deleted: None,
        unchanged_since: None,
    };
    world.fixture.store(&request, &targets[..1]).await;
    let (last, _) = state(&world.fixture, email).await.unwrap();
    for lost in [first, last] {
        let (begin, _) = keys::log::range_after(account, lost.0 - 1);
        let (end, _) = keys::log::range_after(account, lost.0);
        let tx = world.fixture.db.begin();
        let row = tx.range(kv::RangeQuery::new(begin, end)).collect().await.unwrap().remove(0);
        plant!(world, |tx| tx.clear(&row.key));
        world.needs_a_person(vec![Damage::NoLogEntry(account, email, lost)]).await;
        let mut entry = keys::log::LogEntry::decode(&row.value[..]).unwrap();
        entry.emails[0].keywords_after.push("planted".to_owned());
        plant!(world, |tx| tx.set(&row.key, &entry.encode_to_vec()));
        world.needs_a_person(vec![Damage::LogEntry(account, email, lost)]).await;
        plant!(world, |tx| tx.set(&row.key, &row.value));
        assert_eq!(world.found().await, []);
    }
    // What was trimmed is not missed.
    let now = ModSeq(world.fixture.db.begin().read_version().await.unwrap());
    plant!(world, |tx| mail::trim_log(&tx, account, now).await.unwrap());
    assert_eq!(world.found().await, []);
}

#[tokio::test]
async fn an_email_that_the_log_says_is_gone() {
    let world = World::new().await;
    let (account, email) = (world.fixture.account, world.email());
    let before = world.fixture.everything().await;
    world.fixture.expunge(world.inbox, ExpungeMode::All, &world.targets()[..1]).await;
    let log = mail::changes_since(&world.fixture.db.begin(), account, ModSeq(0)).await.unwrap();
    let removal = log.entries.last().unwrap().0;
    let newer: Vec<Vec<u8>> =
        world.fixture.everything().await.iter().map(|row| row.key.to_vec()).collect();
    // Everything but the log as it was: a store that was put back in part.
    plant!(world, |tx| {
        for row in &before {
            tx.set(&row.key, &row.value);
        }
        for key in newer.iter().filter(|key| key.starts_with(&Subspace::BlobDue.prefix())) {
            tx.clear(key);
        }
    });
    world.needs_a_person(vec![Damage::LogEntry(account, email, removal)]).await;
}

#[tokio::test]
async fn a_duplicate_of_an_email_is_right() {
    let world = World::new().await;
    let targets = world.targets();
    let (inbox, copy) = (world.inbox, mail::CopyMode::Copy);
    world.fixture.copy(copy, inbox, inbox, &targets).await.unwrap();
    assert_eq!(world.found().await, []);
}
