//! How many bare transactions a second a FoundationDB server commits: the measure for a node on it.
//!
//! `cargo run --release -p kv --features fdb --example fdb_commits -- CLUSTER_FILE KEYS SECONDS`:
//! 64 writers, each transaction with KEYS keys (12 where not said) of 100 bytes that nobody else
//! writes, for SECONDS (10 where not said).

#[cfg(feature = "fdb")]
#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
#[expect(clippy::print_stdout, reason = "its figures are what it is for")]
async fn main() {
    use std::{path::Path, time::Duration};

    use futures_util::future::join_all;

    const WRITERS: u32 = 64;

    let mut arguments = std::env::args().skip(1);
    let cluster = arguments.next().expect("a cluster file");
    let mut number = |default: u32| {
        arguments.next().and_then(|argument| argument.parse().ok()).unwrap_or(default)
    };
    let (keys, seconds) = (number(12), number(10));
    let env = env::Env::system();
    let db = kv::fdb::open(Some(Path::new(&cluster)), env.clone()).expect("the cluster opens");
    let end = env.monotonic() + Duration::from_secs(seconds.into());
    let writers = (0..WRITERS).map(|writer| {
        let (db, env) = (db.clone(), env.clone());
        async move {
            let mut committed = 0_u32;
            while env.monotonic() < end {
                let tx = db.begin();
                for key in 0..keys {
                    tx.set(format!("bench/{writer}/{committed}/{key}").as_bytes(), &[7; 100]);
                }
                tx.commit().await.expect("nobody else writes these keys");
                committed += 1;
            }
            committed
        }
    });
    let committed: u32 = join_all(writers).await.into_iter().sum();
    println!("{} transactions of {keys} keys a second", committed / seconds.max(1));
    kv::fdb::stop();
}

#[cfg(not(feature = "fdb"))]
fn main() {}
