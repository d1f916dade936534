//! What the embedded engine takes of memory, and how many commits a second it makes.
//!
//! `cargo run --release -p kv --example embedded_memory -- CACHE_MIB MEMTABLE_KIB WORKERS SECONDS`:
//! opens a new store, then lets 64 writers commit for some seconds, with the resident memory after
//! each step; then, in a process of its own, what opening what was written takes.

#![expect(clippy::print_stdout, reason = "its figures are what it is for")]

use std::{path::Path, time::Duration};

use bytes::Bytes;
use env::Env;
use futures_util::future::join_all;
use kv::embedded::{Embedded, EmbeddedOptions};

const WRITERS: u32 = 64;

/// Names the store that a second process opens.
const AGAIN: &str = "EMBEDDED_MEMORY_AGAIN";

fn print_resident(moment: &str) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let lines = status
        .lines()
        .filter(|line| ["VmRSS", "RssAnon", "Threads"].iter().any(|field| line.starts_with(field)));
    let fields: Vec<_> =
        lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    println!("{moment}: {}", fields.join(", "));
}

fn options() -> (EmbeddedOptions, u64) {
    let mut arguments =
        std::env::args().skip(1).filter_map(|argument| argument.parse::<u64>().ok());
    let defaults = EmbeddedOptions::default();
    let mut next = |default: u64| arguments.next().unwrap_or(default);
    let options = EmbeddedOptions {
        cache_bytes: next(defaults.cache_bytes >> 20) << 20,
        memtable_bytes: next(defaults.memtable_bytes >> 10) << 10,
        worker_threads: usize::try_from(next(defaults.worker_threads as u64)).unwrap_or(1),
        ..defaults
    };
    (options, next(3))
}

async fn run(path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let env = &Env::system();
    let (options, seconds) = options();
    print_resident("begun");
    let embedded = Embedded::open(path, env.clone(), options)?;
    print_resident("opened");
    let (db, large) = (&embedded.database(), &embedded.large_values());
    let begun = env.monotonic();
    let writers = (0..WRITERS).map(|writer| async move {
        let mut commits = 0_u32;
        let body = Bytes::from(vec![7; 8000]);
        while env.monotonic() - begun < Duration::from_secs(seconds) {
            let key = [writer.to_be_bytes(), commits.to_be_bytes()].concat();
            large.put(&key, body.clone()).await?;
            let tx = db.begin();
            for row in 0..8_u8 {
                tx.set(&[&key[..], &[row]].concat(), &[row; 150]);
            }
            tx.commit().await?;
            commits += 1;
        }
        Ok::<_, kv::Error>(commits)
    });
    let commits: u32 = join_all(writers).await.into_iter().sum::<Result<_, _>>()?;
    let batches = embedded.counts().batches;
    println!("{} commits a second in {} batches", u64::from(commits) / seconds.max(1), batches);
    print_resident("written");
    env.sleep(Duration::from_secs(1)).await;
    print_resident("rested");
    embedded.close().await?;
    print_resident("closed");
    let again = std::process::Command::new(std::env::current_exe()?)
        .args(std::env::args().skip(1))
        .env(AGAIN, path)
        .status()?;
    if again.success() { Ok(()) } else { Err("the second process failed".into()) }
}

/// Opens what another process wrote, and closes it.
async fn run_again(path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let embedded = Embedded::open(path, Env::system(), options().0)?;
    print_resident("opened again");
    embedded.close().await?;
    print_resident("closed again");
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if let Some(path) = std::env::var_os(AGAIN) {
        return runtime.block_on(run_again(Path::new(&path)));
    }
    let folder = std::env::temp_dir().join(format!("embedded-memory-{}", std::process::id()));
    let done = runtime.block_on(run(&folder));
    std::fs::remove_dir_all(&folder)?;
    done
}
