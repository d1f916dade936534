//! What only the embedded engine has: a directory, a journal, large values.

#![expect(clippy::unwrap_used, reason = "these are tests, though some helpers bear no attribute")]

use std::path::Path;

use bytes::Bytes;
use env::Env;
use futures_util::future::join_all;
use kv::{
    Database, Error, LargeValues, OpenError, RangeQuery, Versionstamp,
    embedded::{Embedded, EmbeddedOptions},
};

fn open(path: &Path) -> Result<Embedded, OpenError> {
    Embedded::open(path, Env::system(), EmbeddedOptions::default())
}

async fn set(db: &Database, key: &[u8], value: &[u8]) -> Versionstamp {
    let tx = db.begin();
    tx.set(key, value);
    tx.commit().await.unwrap().versionstamp.expect("it wrote")
}

async fn value(db: &Database, key: &[u8]) -> Option<Bytes> {
    db.begin().get(key).await.unwrap()
}

/// The directory as a crash now would leave it.
fn crashed(path: &Path) -> tempfile::TempDir {
    fn copy(from: &Path, to: &Path) {
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let target = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                std::fs::create_dir(&target).unwrap();
                copy(&entry.path(), &target);
            } else {
                std::fs::copy(entry.path(), &target).unwrap();
            }
        }
    }
    let directory = tempfile::tempdir().unwrap();
    copy(path, directory.path());
    directory
}

#[tokio::test]
async fn a_directory_that_is_opened_again_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let mut highest = 0;
    for round in 0..4_u8 {
        let embedded = open(directory.path()).unwrap();
        let db = embedded.database();
        let version = db.begin().read_version().await.unwrap();
        assert!(version > highest, "above every version of the runs before");
        for earlier in 0..round {
            assert_eq!(value(&db, &[earlier]).await.as_deref(), Some([earlier].as_slice()));
        }
        let stamp = set(&db, &[round], &[round]).await;
        assert!(stamp.version() > version);
        highest = db.begin().read_version().await.unwrap().max(stamp.version());
        drop(db);
        embedded.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_directory_has_one_owner() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path()).unwrap();
    match open(directory.path()) {
        Err(OpenError::Locked { path }) => assert_eq!(path, directory.path()),
        other => panic!("{other:?}"),
    }
    first.close().await.unwrap();
    open(directory.path()).unwrap().close().await.unwrap();
}

#[tokio::test]
async fn a_dropped_engine_lets_go_too() {
    let directory = tempfile::tempdir().unwrap();
    let embedded = open(directory.path()).unwrap();
    set(&embedded.database(), b"a", b"1").await;
    drop(embedded);
    // The committer ends in the background; opening waits a moment for the lock.
    let embedded = open(directory.path()).unwrap();
    assert_eq!(value(&embedded.database(), b"a").await.as_deref(), Some(b"1".as_slice()));
}

#[tokio::test]
async fn commits_that_wait_share_a_sync() {
    let directory = tempfile::tempdir().unwrap();
    let embedded = open(directory.path()).unwrap();
    let db = embedded.database();
    let before = embedded.counts();
    let stamps = join_all((0_u8..64).map(|number| {
        let db = &db;
        async move { set(db, &[number], b"").await }
    }))
    .await;
    let after = embedded.counts();
    assert_eq!(after.transactions - before.transactions, 64);
    let syncs = after.syncs - before.syncs;
    assert!((1..=32).contains(&syncs), "{syncs} syncs for 64 commits");
    let mut versions: Vec<_> = stamps.iter().map(Versionstamp::version).collect();
    versions.sort_unstable();
    versions.dedup();
    assert_eq!(versions.len() as u64, after.batches - before.batches, "a version a batch");
    let mut distinct = stamps.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), 64, "and a stamp a transaction");
}

#[tokio::test]
async fn a_crash_loses_nothing_that_was_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let embedded = open(directory.path()).unwrap();
    let (db, large) = (embedded.database(), embedded.large_values());
    let body = Bytes::from(vec![42; 300_000]);
    large.put(b"blob", body.clone()).await.unwrap();
    let stamp = set(&db, b"reference", b"blob").await;
    let crashed = crashed(directory.path());

    let recovered = open(crashed.path()).unwrap();
    let (db, large) = (recovered.database(), recovered.large_values());
    assert_eq!(value(&db, b"reference").await.as_deref(), Some(b"blob".as_slice()));
    assert_eq!(large.get(b"blob").await, Ok(Some(body)));
    assert!(set(&db, b"next", b"").await > stamp);
}

#[tokio::test]
async fn a_torn_last_write_is_cut_off() {
    let directory = tempfile::tempdir().unwrap();
    let embedded = open(directory.path()).unwrap();
    let db = embedded.database();
    set(&db, b"a", &[1; 5000]).await;
    let before_last = crashed(directory.path());
    set(&db, b"b", &[2; 5000]).await;
    let journal = |path: &Path| std::fs::read(path.join("0.jnl")).unwrap();
    let (before, after) = (journal(before_last.path()), journal(directory.path()));
    let used = |bytes: &[u8]| bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let (from, to) = (used(&before), used(&after));
    assert!(from + 40 < to, "the last commit takes {from}..{to}");
    // A write that stopped short at each of some places.
    for kept in [from + 1, from + 10, from + 30, (from + to) / 2, to - 1] {
        let torn = crashed(before_last.path());
        let mut bytes = after.clone();
        bytes[kept..].fill(0);
        std::fs::write(torn.path().join("0.jnl"), bytes).unwrap();
        let recovered = open(torn.path()).unwrap_or_else(|error| panic!("{kept}: {error}"));
        let db = recovered.database();
        assert!(value(&db, b"a").await.is_some(), "{kept}");
        assert_eq!(value(&db, b"b").await, None, "{kept}");
        set(&db, b"c", b"").await;
    }
}

/// A hole before what was written later is no torn write: it is told rather than guessed at.
#[tokio::test]
async fn a_damaged_journal_is_not_opened() {
    let directory = tempfile::tempdir().unwrap();
    let embedded = open(directory.path()).unwrap();
    let db = embedded.database();
    let value = Env::system().random_array::<3000>();
    set(&db, b"a", &value).await;
    set(&db, b"b", b"later").await;
    let damaged = crashed(directory.path());
    let journal = damaged.path().join("0.jnl");
    let mut bytes = std::fs::read(&journal).unwrap();
    let at = bytes.windows(value.len()).position(|window| window == value).unwrap();
    bytes[at + 1000..at + 1100].fill(0);
    std::fs::write(&journal, bytes).unwrap();
    assert!(matches!(open(damaged.path()), Err(OpenError::Corrupt { .. })));
}

#[tokio::test]
async fn a_closed_engine_refuses() {
    let directory = tempfile::tempdir().unwrap();
    let embedded = open(directory.path()).unwrap();
    let (db, large) = (embedded.database(), embedded.large_values());
    let tx = db.begin();
    let watch = tx.watch(b"a");
    tx.commit().await.unwrap();
    let late = db.begin();
    late.set(b"a", b"");
    embedded.close().await.unwrap();
    assert_eq!(watch.changed().await, Err(Error::Cancelled));
    assert!(matches!(late.commit().await, Err(Error::EngineFailed { .. })));
    assert!(matches!(db.begin().get(b"a").await, Err(Error::EngineFailed { .. })));
    assert!(matches!(large.put(b"a", Bytes::new()).await, Err(Error::EngineFailed { .. })));
    assert!(matches!(large.get(b"a").await, Err(Error::EngineFailed { .. })));
    // Handles that are left do not keep the directory.
    open(directory.path()).unwrap().close().await.unwrap();
}

/// The same for both engines.
async fn check_large_values(large: LargeValues) {
    let body = |number: u8| Bytes::from(vec![number; 1 + usize::from(number) * 3000]);
    assert_eq!(large.get(b"none").await, Ok(None));
    for number in 0..20 {
        large.put(&[b'k', number], body(number)).await.unwrap();
        assert_eq!(large.get(&[b'k', number]).await, Ok(Some(body(number))), "at once");
    }
    large.put(b"l", Bytes::new()).await.unwrap();
    large.put(&[b'k', 3], body(4)).await.unwrap();
    large.remove(&[b'k', 5]).await.unwrap();
    assert_eq!(large.get(&[b'k', 3]).await, Ok(Some(body(4))));
    assert_eq!(large.get(&[b'k', 5]).await, Ok(None));
    large.sync().await.unwrap();
    assert_eq!(large.get(&[b'k', 3]).await, Ok(Some(body(4))));
    assert_eq!(large.get(&[b'k', 5]).await, Ok(None));

    let mut keys: Vec<Bytes> = Vec::new();
    loop {
        let after = keys.last().cloned();
        let page = large.scan_prefix(b"k", after.as_deref(), 7).await.unwrap();
        assert!(page.len() <= 7);
        if page.is_empty() {
            break;
        }
        keys.extend(page);
    }
    let expected: Vec<_> =
        (0..20).filter(|number| *number != 5).map(|number| vec![b'k', number]).collect();
    assert_eq!(keys, expected);
    assert!(matches!(large.put(b"", Bytes::new()).await, Err(Error::KeyTooLarge { .. })));
    let too_large = Bytes::from(vec![0; kv::limits::LARGE_VALUE_BYTES_MAX + 1]);
    assert!(matches!(large.put(b"m", too_large).await, Err(Error::ValueTooLarge { .. })));
}

#[tokio::test]
async fn large_values_in_memory() {
    check_large_values(LargeValues::memory(Env::system())).await;
}

#[tokio::test]
async fn large_values_on_disk() {
    let directory = tempfile::tempdir().unwrap();
    let embedded = open(directory.path()).unwrap();
    check_large_values(embedded.large_values()).await;
    embedded.close().await.unwrap();
    let embedded = open(directory.path()).unwrap();
    let large = embedded.large_values();
    assert_eq!(large.scan_prefix(b"", None, 100).await.unwrap().len(), 20);
    assert_eq!(large.get(&[b'k', 19]).await.unwrap().unwrap().len(), 1 + 19 * 3000);
}

#[tokio::test]
async fn a_large_value_shares_the_sync_of_the_commit_behind_it() {
    let directory = tempfile::tempdir().unwrap();
    let embedded = open(directory.path()).unwrap();
    let (db, large) = (embedded.database(), embedded.large_values());
    let before = embedded.counts().syncs;
    for number in 0..10_u8 {
        large.put(&[number], Bytes::from_static(b"body")).await.unwrap();
    }
    // Written, since a scan sees them, but not worth a sync.
    assert_eq!(large.scan_prefix(b"", None, 100).await.unwrap().len(), 10);
    assert_eq!(embedded.counts().syncs, before);
    set(&db, b"reference", b"").await;
    assert_eq!(embedded.counts().syncs, before + 1);
    large.sync().await.unwrap();
    assert_eq!(embedded.counts().syncs, before + 1, "nothing was left to sync");
}

/// More than the memtables hold, so that files are written, merged and read.
#[tokio::test]
async fn rows_survive_the_way_through_the_files() {
    let directory = tempfile::tempdir().unwrap();
    let options = EmbeddedOptions { memtable_bytes: 256 * 1024, ..EmbeddedOptions::default() };
    let open = || Embedded::open(directory.path(), Env::system(), options).unwrap();
    let embedded = open();
    let db = embedded.database();
    for round in 0_u32..40 {
        let tx = db.begin();
        for number in 0..100_u32 {
            let key = ((round * 100 + number) % 1000).to_be_bytes();
            tx.set(&key, &[&round.to_be_bytes()[..], &[7; 1000]].concat());
        }
        tx.commit().await.unwrap();
    }
    let tx = db.begin();
    tx.clear_range(&500_u32.to_be_bytes(), &600_u32.to_be_bytes());
    tx.commit().await.unwrap();
    embedded.close().await.unwrap();
    let embedded = open();
    let tx = embedded.database().begin();
    let rows = tx.range(RangeQuery::new("", "\u{7f}")).collect().await.unwrap();
    assert_eq!(rows.len(), 900);
    for row in rows {
        let number = u32::from_be_bytes(row.key.as_ref().try_into().unwrap());
        let last_round = 30 + number / 100;
        assert_eq!(row.value[..4], last_round.to_be_bytes(), "the last round's value");
    }
}
