//! Damages of what is no account's own: accounts, addresses, references, blobs.

use mail::{
    AccountId,
    fsck::Family,
    keys::directory::{AddressRecord, Target},
};
use prost::Message;

use super::*;

#[tokio::test]
async fn keys_of_no_account() {
    let world = World::new().await;
    let gone = AccountId(77);
    let stray = |subspace, name| {
        vec![Damage::StrayKeys { account: gone, family: Family { subspace, name } }]
    };
    for (subspace, name, key) in [
        (Subspace::Counter, "counter", keys::counter::account_key(gone)),
        (Subspace::Log, "log", keys::log::horizon_key(gone)),
        (Subspace::Next, "next id", keys::mailbox::next_email_key(gone)),
        (Subspace::Credential, "credential", keys::account::credential_key(gone)),
        (Subspace::Thread, "thread", keys::thread::key(gone, 1, EmailId(1))),
        (Subspace::Operation, "operation", pack(&(Subspace::Operation as u64, gone.0, 5_u32))),
        (Subspace::ViewHeader, "view header", keys::view::header_key(gone, MailboxId(1))),
        (Subspace::ViewPage, "view page", keys::view::page_key(gone, MailboxId(1), 0)),
    ] {
        plant!(world, |tx| tx.set(&key, &[0; 8]));
        world.mends(stray(subspace, name)).await;
    }
    for (subspace, name, key) in [
        (Subspace::EmailMeta, "email meta", keys::email::meta_key(gone, EmailId(1))),
        (Subspace::EmailState, "email state", keys::email::state_key(gone, EmailId(1))),
        (Subspace::Mailbox, "mailbox", keys::mailbox::key(gone, MailboxId(1))),
    ] {
        plant!(world, |tx| tx.set(&key, &[0; 12]));
        world.needs_a_person(stray(subspace, name)).await;
        plant!(world, |tx| tx.clear(&key));
    }
}

#[tokio::test]
async fn an_account_whose_record_is_lost_keeps_everything() {
    let world = World::new().await;
    let account = world.fixture.account;
    let key = keys::account::key(account);
    let record = world.fixture.db.begin().get(&key).await.unwrap().unwrap();
    plant!(world, |tx| tx.clear(&key));
    let before = world.fixture.everything().await;
    let (summary, events) = world.run(Mode::Repair).await;
    let families =
        found(&events).iter().filter(|one| matches!(one, Damage::StrayKeys { .. })).count();
    assert!(families >= 9, "{events:?}");
    assert!(found(&events).contains(&Damage::StrayAddress("bob@example.org".to_owned(), account)));
    assert_eq!((summary.mended, summary.findings), (0, summary.remaining));
    assert_eq!(world.fixture.everything().await, before);
    plant!(world, |tx| tx.set(&key, &record));
    assert_eq!(world.found().await, []);
}

#[tokio::test]
async fn an_account_and_its_address() {
    let world = World::new().await;
    let account = world.fixture.account;
    let key = keys::directory::address_key("example.org", "bob");
    let name = "bob@example.org".to_owned();
    plant!(world, |tx| tx.clear(&key));
    world.mends(vec![Damage::NoAddress(account, name.clone())]).await;
    let nobody = AddressRecord { target: Some(Target::Account(99)) };
    plant!(world, |tx| tx.set(&key, &nobody.encode_to_vec()));
    let expected =
        vec![Damage::NoAddress(account, name.clone()), Damage::StrayAddress(name, AccountId(99))];
    world.check(expected.clone(), expected).await;
}

#[tokio::test]
async fn an_alias_to_nothing_is_worth_knowing() {
    let world = World::new().await;
    let address = |text: &str| mail::directory::Address::parse(text).unwrap();
    let alias = |name: &str, members: &[&str]| {
        let name = address(name);
        let members: Vec<_> = members.iter().map(|one| address(one)).collect();
        let db = world.fixture.db.clone();
        async move {
            let (name, members) = (&name, &members);
            db.run(|tx| async move {
                let kind = mail::directory::ListKind::Alias;
                mail::directory::add_list(&tx, name, kind, members).await
            })
            .await
            .unwrap();
        }
    };
    alias("info@example.org", &["gone@example.org"]).await;
    alias("good@example.org", &["gone@example.org", "bob@example.org"]).await;
    alias("far@example.org", &["someone@example.com"]).await;
    let (summary, events) = world.run(Mode::Check).await;
    assert_eq!(found(&events), [Damage::DeadAlias("info@example.org".to_owned())]);
    assert_eq!((summary.findings, summary.remaining, summary.notes), (0, 0, 1));
}

#[tokio::test]
async fn an_account_id_that_would_be_given_out_again() {
    let world = World::new().await;
    plant!(world, |tx| tx.set(&keys::account::next_id_key(), &0_u64.to_le_bytes()));
    world.mends(vec![Damage::NextAccount { last: 0, highest: world.fixture.account }]).await;
}

#[tokio::test]
async fn references_missing_and_stray() {
    let world = World::new().await;
    let (blob, owner) = (world.blob, world.owner());
    plant!(world, |tx| blob::references::remove(&tx, blob, &owner, NOW));
    world.mends(vec![Damage::NoReference(blob, owner)]).await;
    for owner in [
        Owner::Email(world.fixture.account.0, 66),
        Owner::Email(99, 1),
        Owner::Email(world.fixture.account.0, world.emails[1].email.0),
        Owner::Submission([6; 16]),
    ] {
        plant!(world, |tx| blob::references::share(&tx, blob, &owner));
        world.mends(vec![Damage::StrayReference(blob, owner)]).await;
    }
    let due = Subspace::BlobDue.prefix();
    let everything = world.fixture.everything().await;
    assert!(everything.iter().any(|row| row.key.starts_with(&due)), "the sweeper looks at it");
    // A submission that has the blob.
    let id = [5; 16];
    plant!(world, |tx| {
        tx.set(&submission_key(&id), &blob.to_bytes());
        blob::references::share(&tx, blob, &Owner::Submission(id));
    });
    assert_eq!(world.found().await, []);
    let key = pack(&(Subspace::BlobReference as u64, "x"));
    plant!(world, |tx| tx.set(&key, &[]));
    world.needs_a_person(vec![Damage::Undecodable { family: "blob reference", key }]).await;
}

#[tokio::test]
async fn an_email_that_lost_its_meta_keeps_its_bytes() {
    let world = World::new().await;
    let account = world.fixture.account;
    plant!(world, |tx| tx.clear(&keys::email::meta_key(account, world.email())));
    world.run(Mode::Repair).await;
    let tx = world.fixture.db.begin();
    assert!(blob::references::exists(&tx, world.blob, &world.owner()).await.unwrap());
}

#[tokio::test]
async fn a_reference_to_a_blob_that_is_lost_is_not_restored() {
    let world = World::new().await;
    let (blob, owner) = (world.blob, world.owner());
    world.blobs.remove(&BlobName::of(&blob)).await.unwrap();
    world.needs_a_person(vec![Damage::NoBlob(blob, owner)]).await;
    plant!(world, |tx| blob::references::remove(&tx, blob, &owner, NOW));
    let expected = vec![Damage::NoReference(blob, owner)];
    world.check(expected.clone(), expected).await;
    let key = submission_key(&[5; 16]);
    plant!(world, |tx| {
        tx.set(&key, &no_blob().to_bytes());
        blob::references::share(&tx, no_blob(), &Owner::Submission([5; 16]));
    });
    assert!(world.found().await.contains(&Damage::NoBlob(no_blob(), Owner::Submission([5; 16]))));
}

/// Put long ago by somebody whose transaction never came, and missed by every sweeper since.
#[tokio::test]
async fn bytes_that_nobody_needs() {
    let world = World::new().await;
    let mut object = [9; 16];
    object[10..].copy_from_slice(&NOW.unix_ms().to_be_bytes()[2..]);
    let orphan = BlobId::new(ObjectId::from_bytes(object), BlobHash::of(b"x"));
    let key = [&b"h"[..], &orphan.to_bytes()].concat();
    world.values.put(&key, bytes::Bytes::from_static(b"\0x")).await.unwrap();
    // As young as the messages: a transaction may still be on its way.
    world.blobs.put(b"young").await.unwrap();
    world.mends(vec![Damage::Orphan(BlobName::of(&orphan))]).await;
}

/// References that were lost, or blobs of another store's: a repair marks none of them.
#[tokio::test]
async fn more_bytes_that_nobody_needs_than_can_be() {
    let world = World::new().await;
    let mut object = [9; 16];
    object[10..].copy_from_slice(&NOW.unix_ms().to_be_bytes()[2..]);
    let mut expected = Vec::new();
    for n in 0..200_u8 {
        object[1] = n;
        let orphan = BlobId::new(ObjectId::from_bytes(object), BlobHash::of(b"x"));
        let key = [&b"h"[..], &orphan.to_bytes()].concat();
        world.values.put(&key, bytes::Bytes::from_static(b"\0x")).await.unwrap();
        expected.push(Damage::Orphan(BlobName::of(&orphan)));
    }
    // The messages' two blobs are as young as their transactions.
    expected.push(Damage::TooManyOrphans { judged: 200, orphans: 200 });
    let (summary, events) = world.run(Mode::Repair).await;
    let found = events.iter().filter_map(|event| match event {
        Event::Found(damage) => Some(damage.clone()),
        _ => None,
    });
    assert_eq!(found.collect::<Vec<_>>(), expected);
    assert_eq!((summary.mended, summary.remaining), (0, 201));
    let dying = Subspace::BlobDying.prefix();
    let everything = world.fixture.everything().await;
    assert!(!everything.iter().any(|row| row.key.starts_with(&dying)), "none is marked");
}
