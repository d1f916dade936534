//! A process that stands still past its time-to-live, with work in hand, and then goes on: it
//! commits nothing that it had claimed (P6). Two runtimes stand for two processes; one of them is
//! blocked as SIGSTOP would block it, heartbeat and all.

use std::{
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use cluster::{
    ClusterError, Membership, NodeName, Registration, Standing,
    work::{self, Done, Held, Kind, Runner, RunnerSettings, Worker, zone::Item},
};
use env::{BoxFuture, Env};
use kv::Database;

const TIME_TO_LIVE: Duration = Duration::from_millis(500);
const KIND: Kind = Kind::Outbound;
const PATIENCE: Duration = Duration::from_secs(60);

async fn join(db: &Database, env: &Env, name: &str) -> Membership {
    let registration = Registration {
        name: NodeName::parse(name).expect("a name"),
        release: "1".to_owned(),
        address: String::new(),
        certificate: Vec::new(),
        admin_address: String::new(),
        time_to_live: TIME_TO_LIVE,
    };
    Membership::join(db.clone(), env.clone(), registration).await.expect("the store lets it join")
}

/// Blocks its whole runtime with an item in hand until it may go on, then completes the item in a
/// transaction of its own.
struct Sleeper {
    db: Database,
    began: mpsc::Sender<()>,
    go_on: Mutex<mpsc::Receiver<()>>,
    result: mpsc::Sender<Result<(), String>>,
}

impl Sleeper {
    fn sleep(&self) {
        let go_on = self.go_on.lock().expect("nobody panics with it");
        go_on.recv_timeout(PATIENCE).expect("the test lets it go on");
    }
}

impl Worker for Sleeper {
    fn kind(&self) -> Kind {
        KIND
    }

    fn zones_at_once(&self) -> usize {
        1
    }

    fn items_at_once(&self) -> usize {
        1
    }

    fn work<'a>(&'a self, held: &'a Held, item: &'a Item) -> BoxFuture<'a, Result<Done, String>> {
        Box::pin(async move {
            assert!(held.fence.is_live());
            self.began.send(()).expect("the test waits");
            self.sleep();
            assert!(!held.fence.is_live(), "it would act once more");
            let complete = |tx: kv::Transaction| async move {
                held.complete(&tx, item).await?;
                tx.set(b"done by the sleeper", b"");
                Ok::<_, ClusterError>(())
            };
            let result = self.db.run(complete).await.map_err(|error| error.to_string());
            self.result.send(result.clone()).expect("the test waits");
            result.map(|()| Done::Completed)
        })
    }
}

/// Completes what it finds.
struct Diligent {
    did: mpsc::Sender<Vec<u8>>,
}

impl Worker for Diligent {
    fn kind(&self) -> Kind {
        KIND
    }

    fn zones_at_once(&self) -> usize {
        1
    }

    fn items_at_once(&self) -> usize {
        1
    }

    fn work<'a>(&'a self, _held: &'a Held, item: &'a Item) -> BoxFuture<'a, Result<Done, String>> {
        self.did.send(item.id.clone()).expect("the test waits");
        Box::pin(std::future::ready(Ok(Done::Finished)))
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

#[test]
fn who_slept_through_its_death_commits_nothing() {
    let env = Env::system();
    let db = Database::memory(env.clone());
    let (began, has_begun) = mpsc::channel();
    let (wake, go_on) = mpsc::channel();
    let (result, sleepers_result) = mpsc::channel();
    let sleeper = {
        let (db, env) = (db.clone(), env.clone());
        thread::spawn(move || {
            runtime().block_on(async {
                let member = join(&db, &env, "sleeper").await;
                let worker = Sleeper { db: db.clone(), began, go_on: Mutex::new(go_on), result };
                let workers: Vec<Arc<dyn Worker>> = vec![Arc::new(worker)];
                let before = member.fence().epoch();
                let runner = Runner::start(&db, &env, &member, RunnerSettings::default(), workers);
                db.run(|tx| {
                    let now = env.wall();
                    async move { work::enqueue(&tx, KIND, "zone", now, b"item", b"").await }
                })
                .await
                .unwrap();
                // It joins again once it has found out.
                let mut standing = member.standing();
                let again = standing
                    .wait_for(|it| matches!(it, Standing::Member(epoch) if *epoch != before));
                assert!(again.await.is_ok());
                runner.stop().await;
                member.leave().await.unwrap();
            });
        })
    };
    has_begun.recv_timeout(PATIENCE).unwrap();
    let (did, done) = mpsc::channel();
    runtime().block_on(async {
        let member = join(&db, &env, "diligent").await;
        let workers: Vec<Arc<dyn Worker>> = vec![Arc::new(Diligent { did })];
        let runner = Runner::start(&db, &env, &member, RunnerSettings::default(), workers);
        let taken_over = env.run_blocking(move || done.recv_timeout(PATIENCE)).await;
        assert_eq!(taken_over.unwrap().unwrap(), b"item");
        wake.send(()).unwrap();
        let result = env.run_blocking(move || sleepers_result.recv_timeout(PATIENCE)).await;
        let error = result.unwrap().unwrap().unwrap_err();
        assert!(error.contains("has ended"), "{error}");
        runner.stop().await;
        let found = db.run(|tx| async move { tx.get(b"done by the sleeper").await }).await;
        assert_eq!(found.unwrap(), None);
        member.leave().await.unwrap();
    });
    sleeper.join().unwrap();
}
