//! Injected faults, on the memory engine.

#![expect(clippy::unwrap_used, reason = "these are tests, though some helpers bear no attribute")]

use std::time::Duration;

use env::Env;
use kv::{AtomicOp, Database, Error, Faults, Probability, Reach, RetryPolicy, limits};

fn memory(faults: Faults) -> Database {
    Database::memory_with_faults(Env::system(), faults)
}

fn often() -> Probability {
    Probability::per_million(250_000)
}

async fn count(db: &Database) -> u64 {
    let value = db.begin().get(b"count").await.unwrap();
    value.map_or(0, |bytes| u64::from_le_bytes(bytes.as_ref().try_into().unwrap()))
}

#[tokio::test]
async fn an_unknown_commit_was_applied_or_not() {
    let db = memory(Faults { commit_unknown: Probability::ALWAYS, ..Faults::default() });
    for _ in 0..200 {
        let tx = db.begin();
        tx.atomic(b"count", &1_u64.to_le_bytes(), AtomicOp::Add);
        assert_eq!(tx.commit().await.map(drop), Err(Error::CommitUnknown));
    }
    let applied = count(&db).await;
    assert!((50..150).contains(&applied), "{applied} of 200 were applied");
    assert_eq!(db.counts().commit_unknown, 200);
}

#[tokio::test]
async fn an_operation_id_makes_a_run_count_once() {
    let faults = Faults { commit_unknown: often(), conflict: often(), ..Faults::default() };
    let db = memory(faults);
    let mut naive_runs = 0;
    for operation in 0_u64..100 {
        let id = &[b"operation".as_slice(), &operation.to_be_bytes()].concat();
        db.run(|tx| async move {
            if tx.get(id).await?.is_some() {
                return Ok(());
            }
            tx.set(id, b"");
            tx.atomic(b"count", &1_u64.to_le_bytes(), AtomicOp::Add);
            Ok::<_, Error>(())
        })
        .await
        .unwrap();
        db.run(|tx| {
            naive_runs += 1;
            async move {
                tx.atomic(b"naive", &1_u64.to_le_bytes(), AtomicOp::Add);
                Ok::<_, Error>(())
            }
        })
        .await
        .unwrap();
    }
    assert_eq!(count(&db).await, 100);
    let naive = db.begin().get(b"naive").await.unwrap().unwrap();
    let naive = u64::from_le_bytes(naive.as_ref().try_into().unwrap());
    assert!((101..=naive_runs).contains(&naive), "without an id {naive} of 100 were counted");
}

#[tokio::test]
async fn the_retry_loop_gives_up_in_time() {
    let db = memory(Faults { conflict: Probability::ALWAYS, ..Faults::default() })
        .with_retry(RetryPolicy { time_max: Duration::from_millis(100), ..Default::default() });
    let write = |tx: kv::Transaction| async move {
        tx.set(b"a", b"");
        Ok::<_, Error>(())
    };
    assert_eq!(db.run(write).await, Err(Error::Conflict));
    let counts = db.counts();
    assert!(counts.retries > 2, "{} retries", counts.retries);
    assert_eq!(counts.conflicts, counts.retries + 1);
    db.faults().clear();
    assert_eq!(db.run(write).await, Ok(()));
}

#[tokio::test]
async fn reads_are_refused_or_slow() {
    let db = memory(Faults { too_old: Probability::ALWAYS, ..Faults::default() });
    assert_eq!(db.begin().get(b"a").await, Err(Error::TooOld));
    assert_eq!(db.begin().range(kv::RangeQuery::prefix(b"a")).collect().await, Err(Error::TooOld));
    db.faults().set(Faults {
        slow_read: Probability::ALWAYS,
        slow_read_max: Duration::from_millis(50),
        ..Faults::default()
    });
    let env = Env::system();
    let begun = env.monotonic();
    for _ in 0..10 {
        assert_eq!(db.begin().get(b"a").await, Ok(None));
    }
    assert!(env.monotonic() - begun > Duration::from_millis(10), "ten reads of up to 50 ms");
}

#[tokio::test]
async fn a_lost_watch_is_never_told() {
    let db = memory(Faults { lost_watch: Probability::ALWAYS, ..Faults::default() });
    let tx = db.begin();
    let lost = tx.watch(b"a");
    tx.commit().await.unwrap();
    db.faults().clear();
    let tx = db.begin();
    let told = tx.watch(b"a");
    tx.commit().await.unwrap();
    let tx = db.begin();
    tx.set(b"a", b"");
    tx.commit().await.unwrap();
    assert_eq!(told.changed().await, Ok(()));
    let waited = Env::system().timeout(Duration::from_millis(50), lost.changed()).await;
    assert!(waited.is_err(), "nobody tells it");
}

#[tokio::test]
async fn one_node_is_cut_off_and_comes_back() {
    let db = memory(Faults::default());
    let node = |reach| db.handle_with_faults(Env::system(), Faults { reach, ..Faults::default() });
    let (cut_off, unanswered, healed) =
        (node(Reach::CutOff), node(Reach::RepliesLost), node(Reach::CutOff));
    let write = |db: &Database, key: &'static [u8]| {
        let tx = db.begin();
        tx.set(key, b"");
        tx.commit()
    };
    let healing = healed.begin();
    let heal = async {
        Env::system().sleep(Duration::from_millis(100)).await;
        healed.faults().clear();
    };
    let lost = cut_off.begin();
    let (read, lost, unknown, healing, ()) = tokio::join!(
        lost.get(b"a"),
        write(&cut_off, b"lost"),
        write(&unanswered, b"unanswered"),
        healing.get(b"a"),
        heal,
    );
    assert_eq!(read, Err(Error::Unavailable));
    assert_eq!(lost.map(drop), Err(Error::CommitUnknown));
    assert_eq!(unknown.map(drop), Err(Error::CommitUnknown));
    assert_eq!(healing, Ok(None));
    assert_eq!(db.begin().get(b"lost").await, Ok(None));
    assert!(db.begin().get(b"unanswered").await.unwrap().is_some());
}

#[tokio::test]
async fn watches_are_bounded_and_give_their_place_back() {
    let db = memory(Faults::default());
    let tx = db.begin();
    let mut watches: Vec<_> = (0..limits::WATCHES_MAX).map(|_| tx.watch(b"a")).collect();
    assert_eq!(tx.watch(b"a").changed().await, Err(Error::TooManyWatches));
    watches.truncate(limits::WATCHES_MAX - 2);
    let kept = [tx.watch(b"a"), tx.watch(b"b")];
    assert_eq!(tx.watch(b"a").changed().await, Err(Error::TooManyWatches));
    tx.commit().await.unwrap();
    drop(watches);
    let tx = db.begin();
    tx.set(b"a", b"");
    tx.set(b"b", b"");
    tx.commit().await.unwrap();
    for watch in kept {
        assert_eq!(watch.changed().await, Ok(()));
    }
    let tx = db.begin();
    let all: Vec<_> = (0..limits::WATCHES_MAX).map(|_| tx.watch(b"a")).collect();
    assert_eq!(all.len(), limits::WATCHES_MAX);
}
