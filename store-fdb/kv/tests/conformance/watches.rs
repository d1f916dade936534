//! Watches.

use std::time::Duration;

use env::Env;
use kv::{AtomicOp, Error, Watch, limits::WATCHES_MAX};

use crate::Store;

/// Far longer than a change takes to be told, so that a lost one fails the test.
const PATIENCE: Duration = Duration::from_secs(20);

async fn told(watch: Watch) -> Result<(), Error> {
    Env::system().timeout(PATIENCE, watch.changed()).await.expect("the watch is told in time")
}

/// A committed watch of the key.
async fn watch(store: &Store, name: &str) -> Watch {
    let tx = store.db.begin();
    let watch = tx.watch(&store.key(name));
    tx.commit().await.unwrap();
    watch
}

pub(crate) async fn a_watch_is_told_of_a_change(store: Store) {
    store.fill(&[("a", "1")]).await;
    let mut changed = Box::pin(watch(&store, "a").await.changed());
    store.fill(&[("b", "1")]).await;
    let quiet = Env::system().timeout(Duration::from_millis(50), &mut changed).await;
    assert!(quiet.is_err(), "another key's change is not told");
    store.fill(&[("a", "2")]).await;
    assert_eq!(Env::system().timeout(PATIENCE, changed).await, Ok(Ok(())));
}

pub(crate) async fn a_change_before_the_commit_is_told(store: Store) {
    store.fill(&[("a", "1")]).await;
    let tx = store.db.begin();
    tx.get_snapshot(&store.key("a")).await.unwrap();
    let watch = tx.watch(&store.key("a"));
    store.fill(&[("a", "2")]).await;
    tx.commit().await.unwrap();
    assert_eq!(told(watch).await, Ok(()));
}

pub(crate) async fn a_watch_of_a_dropped_transaction_is_cancelled(store: Store) {
    let tx = store.db.begin();
    let dropped = tx.watch(&store.key("a"));
    drop(tx);
    assert_eq!(told(dropped).await, Err(Error::Cancelled));

    let tx = store.db.begin();
    tx.get(&store.key("a")).await.unwrap();
    let refused = tx.watch(&store.key("a"));
    tx.set(&store.key("b"), b"");
    store.fill(&[("a", "1")]).await;
    assert_eq!(tx.commit().await.map(drop), Err(Error::Conflict));
    assert!(told(refused).await.is_err());
}

pub(crate) async fn every_kind_of_write_is_told(store: Store) {
    let key = store.key("a");
    let template = [&[0; 10][..], &0_u32.to_le_bytes()].concat();
    let writes: [&(dyn Fn(&kv::Transaction) + Sync); 5] = [
        &|tx| tx.set(&key, b"set"),
        &|tx| tx.atomic(&key, &[1], AtomicOp::Add),
        &|tx| tx.clear(&key),
        &|tx| tx.atomic(&key, &template, AtomicOp::SetVersionstampedValue),
        &|tx| tx.clear_range(&store.key("0"), &store.key("z")),
    ];
    for write in writes {
        let watch = watch(&store, "a").await;
        store.write(write).await;
        assert_eq!(told(watch).await, Ok(()));
    }
}

/// Each waiter writes what the next one waits for.
pub(crate) async fn waiters_are_woken_in_a_chain(store: Store) {
    let mut watches = Vec::new();
    for number in 0..20 {
        watches.push(watch(&store, &format!("{number:02}")).await);
    }
    let waiters = watches.into_iter().enumerate().map(|(number, watch)| {
        let store = &store;
        async move {
            told(watch).await.unwrap();
            store.fill(&[(&format!("{:02}", number + 1), "rung")]).await;
        }
    });
    let first = store.fill(&[("00", "rung")]);
    futures_util::future::join(futures_util::future::join_all(waiters), first).await;
    assert_eq!(store.rows().await.len(), 21);
}

pub(crate) async fn watches_are_bounded(store: Store) {
    let tx = store.db.begin();
    let key = |number: usize| store.key(number.to_be_bytes());
    let mut watches: Vec<Watch> = (0..WATCHES_MAX).map(|number| tx.watch(&key(number))).collect();
    tx.commit().await.unwrap();
    let tx = store.db.begin();
    assert_eq!(told(tx.watch(&key(0))).await, Err(Error::TooManyWatches));
    drop(tx);
    // They all work, and what ends gives its place back.
    let (first, last) = (watches.swap_remove(0), watches.pop().expect("there are many"));
    store.write(|tx| tx.clear_range(&key(0), &key(WATCHES_MAX))).await;
    store.write(|tx| tx.set(&key(0), b"")).await;
    assert_eq!(told(first).await, Ok(()));
    drop((last, watches));
    let again = watch(&store, "again").await;
    store.fill(&[("again", "")]).await;
    assert_eq!(told(again).await, Ok(()));
}

/// A value that is written again as it was may be told or not; one that changed and changed back
/// before anybody looked, too. A watch must end with the next real change.
pub(crate) async fn a_rewritten_value_loses_no_watch(store: Store) {
    store.fill(&[("a", "1")]).await;
    let watch = watch(&store, "a").await;
    store.fill(&[("a", "1")]).await;
    store.fill(&[("a", "2")]).await;
    assert_eq!(told(watch).await, Ok(()));
}

/// A watch sees what its own transaction writes as what is there.
pub(crate) async fn a_watch_over_an_own_write_waits_for_the_next(store: Store) {
    let tx = store.db.begin();
    tx.set(&store.key("a"), b"own");
    let watch = tx.watch(&store.key("a"));
    tx.commit().await.unwrap();
    let mut changed = Box::pin(watch.changed());
    let quiet = Env::system().timeout(Duration::from_millis(100), &mut changed).await;
    assert!(quiet.is_err(), "its own write is no change");
    store.fill(&[("a", "other")]).await;
    assert_eq!(Env::system().timeout(PATIENCE, changed).await, Ok(Ok(())));
}
