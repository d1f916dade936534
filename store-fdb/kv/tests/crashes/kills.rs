//! A writing process is killed again and again: what it acknowledged is there, and nothing by half.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
};

use bytes::Bytes;
use env::Env;
use futures_util::future::join_all;
use kv::{
    RangeQuery,
    embedded::{Embedded, EmbeddedOptions},
};

const ROUNDS: u64 = 32;
const WRITERS: u64 = 4;

/// Rows of one transaction.
const ROWS: u8 = 5;

/// Tells the test that it is the writing process, and the first of its numbers.
const CHILD: &str = "ROOKERY_KV_KILLED_FROM";
const DIRECTORY: &str = "ROOKERY_KV_KILLED_IN";

/// Small memtables, so that kills meet rows on their way to files, and files being merged.
fn open(path: &Path) -> Embedded {
    let options = EmbeddedOptions { memtable_bytes: 256 * 1024, ..EmbeddedOptions::default() };
    Embedded::open(path, Env::system(), options).unwrap()
}

fn key(number: u64, row: u8) -> Vec<u8> {
    [&number.to_be_bytes()[..], &[row]].concat()
}

fn value(number: u64, row: u8) -> Vec<u8> {
    key(number, row).repeat(1 + usize::try_from(number % 97).unwrap())
}

fn body(number: u64) -> Bytes {
    number.to_be_bytes().repeat(100 + usize::try_from(number * 31 % 2000).unwrap()).into()
}

/// Writes until it is killed.
async fn write_for_ever(path: &Path, first: u64) {
    let embedded = open(path);
    let (db, large) = (&embedded.database(), &embedded.large_values());
    let writers = (0..WRITERS).map(|writer| async move {
        for number in (first + writer..).step_by(usize::try_from(WRITERS).unwrap()) {
            large.put(&number.to_be_bytes(), body(number)).await.unwrap();
            let tx = db.begin();
            for row in 0..ROWS {
                tx.set(&key(number, row), &value(number, row));
            }
            tx.commit().await.unwrap();
            // Whole lines, past the test runner's capture.
            let mut out = std::io::stdout().lock();
            writeln!(out, "\nacknowledged {number}").unwrap();
            out.flush().unwrap();
        }
    });
    join_all(writers).await;
}

/// Runs a writing process and kills it after some acknowledgements; all of them.
fn killed(path: &Path, first: u64, kill_after: u64) -> Vec<u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crashes::kills::kills_lose_nothing_that_was_acknowledged"])
        .args(["--nocapture", "--test-threads", "1"])
        .env(CHILD, first.to_string())
        .env(DIRECTORY, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged = Vec::new();
    for line in lines {
        let Ok(line) = line else { break };
        if kill_after == 0 {
            // While it opens the store: it has said no more than that it runs.
            child.kill().unwrap();
        }
        if let Some(number) = line.strip_prefix("acknowledged ").and_then(|n| n.parse().ok()) {
            acknowledged.push(number);
            if acknowledged.len() as u64 == kill_after {
                child.kill().unwrap();
            }
        }
    }
    let status = child.wait().unwrap();
    assert!(status.code().is_none(), "it was killed rather than ended: {status}");
    acknowledged
}

/// Every number that is there, none by half, from `first` on.
async fn found(embedded: &Embedded, first: u64) -> BTreeSet<u64> {
    let (db, large) = (embedded.database(), embedded.large_values());
    let mut found = BTreeSet::new();
    let mut begin = key(first, 0);
    loop {
        let query = RangeQuery::new(begin.clone(), "\u{7f}").limit(1000 * usize::from(ROWS));
        let rows = db.begin().range(query).collect().await.unwrap();
        let Some(last) = rows.last() else { return found };
        begin = [&last.key[..], &[0]].concat();
        for rows in rows.chunks(usize::from(ROWS)) {
            let number = u64::from_be_bytes(rows[0].key[..8].try_into().unwrap());
            let expected: Vec<_> =
                (0..ROWS).map(|row| (key(number, row), value(number, row))).collect();
            let rows: Vec<_> =
                rows.iter().map(|row| (row.key.to_vec(), row.value.to_vec())).collect();
            assert_eq!(rows, expected, "no half of {number}");
            let stored = large.get(&number.to_be_bytes()).await.unwrap();
            assert_eq!(stored, Some(body(number)), "the large value of {number}");
            found.insert(number);
        }
    }
}

#[tokio::test]
async fn kills_lose_nothing_that_was_acknowledged() {
    if let (Ok(first), Some(path)) = (std::env::var(CHILD), std::env::var_os(DIRECTORY)) {
        write_for_ever(Path::new(&path), first.parse().unwrap()).await;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let (mut all, mut first) = (BTreeSet::new(), 0);
    for round in 0..ROUNDS {
        let kill_after = if round % 8 == 7 { 0 } else { Env::system().random_below(250) };
        let acknowledged = killed(&path, first, kill_after);
        assert!(acknowledged.len() as u64 >= kill_after);
        let embedded = open(&path);
        let found = found(&embedded, first).await;
        for number in acknowledged {
            assert!(found.contains(&number), "round {round}: {number} was acknowledged");
        }
        first = found.last().map_or(first, |last| last + 100);
        all.extend(found);
        if round % 2 == 0 {
            embedded.close().await.unwrap();
        }
    }
    // Later rounds took away nothing of the earlier ones.
    assert_eq!(found(&open(&path), 0).await, all);
    assert!(all.len() > 1000, "{} transactions", all.len());
}
