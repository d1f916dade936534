use kv::LargeValues;

use super::*;
use crate::{
    Owner,
    s3::{
        S3Settings,
        tests::server::{Fault, Server},
    },
    sweep::{SweepError, SweepSettings, Sweeper},
};

const OWNER: Owner = Owner::Email(1, 2);

fn store() -> Database {
    Database::memory(Env::system())
}

async fn bind(db: &Database, blobs: &BlobStore) -> Result<(), BindError> {
    super::bind(db, blobs, &Env::system()).await
}

async fn id_of(db: &Database) -> StoreId {
    db.run(|tx| async move { read(&tx).await }).await.unwrap().expect("it has been made").0
}

/// Blobs that the store refers to, put before there were marks.
async fn referenced(db: &Database, blobs: &BlobStore, count: u8) -> Vec<BlobName> {
    let mut names = Vec::new();
    for n in 0..count {
        let (id, now) = (blobs.put(&[n]).await.unwrap(), Env::system().wall());
        db.run(|tx| async move { references::adopt(&tx, id, &OWNER, now).await }).await.unwrap();
        names.push(BlobName::of(&id));
    }
    names
}

fn refused(bound: Result<(), BindError>, expected: &[&str]) -> String {
    let told = bound.expect_err("the bucket is not this store's").to_string();
    for words in expected {
        assert!(told.contains(words), "no {words:?} in {told:?}");
    }
    told
}

#[tokio::test]
async fn an_empty_bucket_is_bound_once_and_to_one_store() {
    let server = Server::start().await;
    let (ours, theirs, blobs) = (store(), store(), server.store().await);
    for _ in 0..2 {
        bind(&ours, &blobs).await.unwrap();
        verify(&ours, &blobs).await.unwrap();
        assert_eq!(server.marks(), [format!("rookery-store-{}", id_of(&ours).await)]);
    }
    server.asked();
    bind(&ours, &blobs).await.unwrap();
    assert_eq!(server.asked().len(), 1, "later it is one look");
    let before = server.marks();
    let told = refused(
        bind(&theirs, &blobs).await,
        &[
            "bucket \"mail\" with prefix \"some/place/\" belongs to store",
            "a bucket or a prefix of its own",
        ],
    );
    for id in [id_of(&ours).await, id_of(&theirs).await] {
        assert!(told.contains(&id.to_string()), "{told}");
    }
    assert_eq!(server.marks(), before, "nothing was changed");
    // Another prefix of the same bucket is another place.
    let settings = S3Settings { prefix: "other/".to_owned(), ..server.settings() };
    let elsewhere = BlobStore::s3(settings, Env::system()).await.unwrap();
    bind(&theirs, &elsewhere).await.unwrap();
    // And this store is bound to the first alone.
    refused(bind(&ours, &elsewhere).await, &["belongs to store"]);
}

#[tokio::test]
async fn the_mark_is_no_blob() {
    let server = Server::start().await;
    let (db, blobs) = (store(), server.store().await);
    bind(&db, &blobs).await.unwrap();
    assert_eq!(blobs.list(None, 10).await.unwrap().names, []);
    let names = referenced(&db, &blobs, 3).await;
    let mut listed = blobs.list(None, 10).await.unwrap().names;
    listed.sort_unstable_by_key(|name| names.iter().position(|other| other == name));
    assert_eq!(listed, names);
}

#[tokio::test]
async fn nodes_that_start_at_once_agree() {
    let server = Server::start().await;
    let db = store();
    let nodes = [server.store().await, server.store().await, server.store().await];
    let binding = nodes.iter().map(|blobs| bind(&db, blobs));
    for bound in futures_util::future::join_all(binding).await {
        bound.unwrap();
    }
    assert_eq!(server.marks().len(), 1);
}

/// Two stores that find an empty bucket at once: whatever is answered first, at most one binds it.
#[tokio::test]
async fn two_stores_at_once_never_both_bind() {
    for round in 0..20 {
        let server = Server::start().await;
        let (a, b) = (store(), store());
        let (to_a, to_b) = (server.store().await, server.store().await);
        let (first, second) = tokio::join!(bind(&a, &to_a), bind(&b, &to_b));
        assert!(first.is_err() || second.is_err(), "{round}");
        for bound in [first, second] {
            if let Err(error) = bound {
                let is_told = matches!(error, BindError::Shared { .. } | BindError::Foreign { .. });
                assert!(is_told, "{error}");
            }
        }
    }
}

#[tokio::test]
async fn a_bucket_with_two_marks_is_nobodys_until_one_is_removed() {
    let server = Server::start().await;
    let (ours, blobs) = (store(), server.store().await);
    bind(&ours, &blobs).await.unwrap();
    let theirs = StoreId([7; 16]);
    blobs.put_mark(theirs).await.unwrap();
    let mark = blobs.place().unwrap().mark(theirs);
    for bound in [bind(&ours, &blobs).await, verify(&ours, &blobs).await] {
        refused(bound, &["claimed by store", &theirs.to_string(), &mark]);
    }
    server.remove(&mark);
    verify(&ours, &blobs).await.unwrap();
}

#[tokio::test]
async fn a_store_from_before_is_bound_where_its_messages_are() {
    let server = Server::start().await;
    let (db, blobs) = (store(), server.store().await);
    let names = referenced(&db, &blobs, 40).await;
    // A sound store may have lost some.
    for name in &names[..5] {
        blobs.remove(name).await.unwrap();
    }
    bind(&db, &blobs).await.unwrap();
    verify(&db, &blobs).await.unwrap();
}

#[tokio::test]
async fn a_store_from_before_is_not_bound_elsewhere() {
    let (server, other) = (Server::start().await, Server::start().await);
    let (db, blobs) = (store(), server.store().await);
    let mut names = referenced(&db, &blobs, 200).await;
    let elsewhere = other.store().await;
    refused(bind(&db, &elsewhere).await, &["it holds 0", "put an empty object"]);
    elsewhere.put(b"another store's").await.unwrap();
    refused(bind(&db, &elsewhere).await, &["it holds 0"]);
    assert_eq!(other.marks(), [] as [String; 0]);
    // A copy that was cut off: the first third of all names.
    names.sort_unstable();
    for name in &names[60..] {
        blobs.remove(name).await.unwrap();
    }
    refused(bind(&db, &blobs).await, &["messages of this store"]);
}

#[tokio::test]
async fn a_bucket_that_lost_its_mark_is_refused_until_a_person_marks_it() {
    let server = Server::start().await;
    let (db, blobs) = (store(), server.store().await);
    bind(&db, &blobs).await.unwrap();
    referenced(&db, &blobs, 3).await;
    let mark = blobs.place().unwrap().mark(id_of(&db).await);
    server.remove(&mark);
    refused(bind(&db, &blobs).await, &["has no mark", "was bound to one", &mark]);
    refused(verify(&db, &blobs).await, &["has no mark"]);
    // A bucket that was emptied, too: there was mail.
    let empty = Server::start().await;
    refused(bind(&db, &empty.store().await).await, &["has no mark"]);
    server.place_object(&mark, b"");
    bind(&db, &blobs).await.unwrap();
    verify(&db, &blobs).await.unwrap();
}

#[tokio::test]
async fn a_bucket_full_of_unknown_messages_is_refused() {
    let server = Server::start().await;
    let (db, blobs) = (store(), server.store().await);
    blobs.put(b"whose?").await.unwrap();
    refused(bind(&db, &blobs).await, &["knows none of them"]);
    assert_eq!(server.marks(), [] as [String; 0]);
}

/// A node that died between any two requests of its first start: the next start binds.
#[tokio::test]
async fn a_binding_that_was_cut_off_goes_on() {
    let mut polls = 0;
    loop {
        let server = Server::start().await;
        let (db, blobs) = (store(), server.store().await);
        let cut = crate::testing::cut_off(bind(&db, &blobs), polls).await;
        bind(&db, &blobs).await.unwrap();
        verify(&db, &blobs).await.unwrap();
        if cut.is_some() {
            assert!(polls > 5, "it has that many awaits");
            return;
        }
        // Each poll of a socket is one; the requests are what matters.
        polls = polls * 5 / 4 + 1;
    }
}

#[tokio::test]
async fn a_bound_store_starts_without_the_service_and_a_new_one_does_not() {
    let server = Server::start().await;
    let (db, blobs) = (store(), server.store().await);
    server.always(Some(Fault::Status(503, "SlowDown")));
    assert!(matches!(bind(&db, &blobs).await, Err(BindError::Blob(_))));
    server.always(None);
    bind(&db, &blobs).await.unwrap();
    server.always(Some(Fault::Status(503, "SlowDown")));
    bind(&db, &blobs).await.unwrap();
    assert!(matches!(verify(&db, &blobs).await, Err(BindError::Blob(_))));
    // A refusal does not pass.
    server.always(Some(Fault::Status(403, "AccessDenied")));
    assert!(matches!(bind(&db, &blobs).await, Err(BindError::Blob(_))));
}

#[tokio::test]
async fn blobs_beside_the_keys_need_no_mark() {
    let (db, env) = (store(), Env::system());
    let blobs = BlobStore::embedded(LargeValues::memory(env.clone()), env).await.unwrap();
    bind(&db, &blobs).await.unwrap();
    verify(&db, &blobs).await.unwrap();
    assert!(db.run(|tx| async move { read(&tx).await }).await.unwrap().is_none());
}

/// The gravest that can happen: a sweeper on a bucket that is another store's.
#[tokio::test]
async fn a_sweeper_touches_no_bucket_but_its_own() {
    let server = Server::start().await;
    let (ours, theirs, blobs) = (store(), store(), server.store().await);
    bind(&theirs, &blobs).await.unwrap();
    let names = referenced(&theirs, &blobs, 3).await;
    let settings =
        SweepSettings { scan_interval: std::time::Duration::ZERO, ..SweepSettings::default() };
    let sweeper = Sweeper::new(Env::system(), ours.clone(), blobs.clone(), settings);
    let later =
        env::Timestamp::from_unix_ms(Env::system().wall().unix_ms() + 2 * crate::limits::GRACE_MS);
    for _ in 0..2 {
        let swept = sweeper.pass(later).await;
        assert!(matches!(swept, Err(SweepError::Binding(_))), "{swept:?}");
        // With an id, too.
        assert!(bind(&ours, &blobs).await.is_err());
    }
    for name in &names {
        assert!(blobs.exists(name).await.unwrap());
    }
}
