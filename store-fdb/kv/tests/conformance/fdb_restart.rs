//! What a client sees of a FoundationDB server that goes away and comes back.

use std::time::Duration;

use env::Env;
use kv::{Database, Error};

use crate::server::Server;

/// Far longer than a server takes to come back and a client to find it.
const PATIENCE: Duration = Duration::from_secs(60);

async fn set(db: &Database, value: &'static [u8]) -> Result<(), Error> {
    db.run(|tx| async move {
        tx.set(b"watched", value);
        Ok(())
    })
    .await
}

/// Sets it as soon as the cluster takes it.
async fn set_eventually(db: &Database, value: &'static [u8]) {
    let deadline = Env::system().monotonic();
    while let Err(error) = set(db, value).await {
        let waited = Env::system().monotonic() - deadline;
        assert!(waited < PATIENCE, "{error}");
    }
}

/// A watch is told of a change, or fails so that its owner sets it again: never is it just quiet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_survives_a_restart() {
    let Some(mut server) = Server::start() else { return };
    let db = kv::fdb::open(Some(&server.cluster()), Env::system()).unwrap();
    set_eventually(&db, b"before").await;
    let tx = db.begin();
    let watch = tx.watch(b"watched");
    tx.commit().await.unwrap();
    server.restart();
    set_eventually(&db, b"after").await;
    let told = Env::system().timeout(PATIENCE, watch.changed()).await.expect("it is not quiet");
    match &told {
        Ok(()) => {}
        Err(error) => assert!(error.is_retryable(), "{error}"),
    }
    println!("after a restart the watch gave {told:?}");
    let value = db.begin().get(b"watched").await.unwrap();
    assert_eq!(value.as_deref(), Some(b"after".as_slice()));
}

/// What a loop of transactions does over a restart: each increment counts once or is reported.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_goes_on_over_a_restart() {
    let Some(mut server) = Server::start() else { return };
    let db = kv::fdb::open(Some(&server.cluster()), Env::system()).unwrap();
    set_eventually(&db, b"ready").await;
    let counting = async {
        let mut counted = 0_u64;
        for number in 0_u64..400 {
            let id = &[b"operation".as_slice(), &number.to_be_bytes()].concat();
            let run = || {
                db.run(|tx| async move {
                    if tx.get(id).await?.is_none() {
                        tx.set(id, b"");
                        tx.atomic(b"count", &1_u64.to_le_bytes(), kv::AtomicOp::Add);
                    }
                    Ok::<_, Error>(())
                })
            };
            // A client's own time-out is no answer; its owner asks again, with the same id.
            while run().await.is_err() {}
            counted += 1;
        }
        counted
    };
    let restarting = async {
        Env::system().sleep(Duration::from_millis(300)).await;
        tokio::task::block_in_place(|| server.restart());
    };
    let (counted, ()) = futures_util::future::join(counting, restarting).await;
    let value = db.begin().get(b"count").await.unwrap().unwrap();
    assert_eq!(u64::from_le_bytes(value.as_ref().try_into().unwrap()), counted);
}
