//! Backup and restore of the embedded engine.

#![expect(clippy::unwrap_used, reason = "these are tests, though some helpers bear no attribute")]

use std::{
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use bytes::Bytes;
use env::Env;
use futures_util::future::{join, join_all};
use kv::{
    AtomicOp, Database, Error, LargeValues, RangeQuery, Versionstamp,
    embedded::{Backup, BackupCounts, BackupError, Embedded, EmbeddedOptions, RestoreError},
    limits::BACKUP_WRITES_BYTES_MAX,
};

const ACCOUNTS: u64 = 40;
const EACH: u64 = 1000;
const WRITERS: u64 = 8;

fn open(path: &Path) -> Embedded {
    Embedded::open(path, Env::system(), EmbeddedOptions::default()).unwrap()
}

fn restore(path: &Path, backup: &[u8]) -> Result<BackupCounts, RestoreError> {
    let restored = Embedded::restore(path, backup, &Env::system(), |_| {})?;
    let counts = restored.counts();
    restored.finish().map(|()| counts)
}

async fn taken(embedded: &Embedded) -> Vec<u8> {
    let mut backup = embedded.backups().begin(kv::embedded::no_expansion()).await.unwrap();
    let mut bytes = Vec::new();
    while let Some(chunk) = backup.next_chunk().await.unwrap() {
        bytes.extend(chunk);
    }
    assert_eq!(backup.counts().bytes, bytes.len() as u64);
    bytes
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes.try_into().unwrap())
}

fn account(number: u64) -> Vec<u8> {
    [b"account".as_slice(), &number.to_be_bytes()].concat()
}

async fn set(db: &Database, key: &[u8], value: &[u8]) -> Versionstamp {
    let tx = db.begin();
    tx.set(key, value);
    tx.commit().await.unwrap().versionstamp.expect("it wrote")
}

fn note(count: u64) -> Vec<u8> {
    [b"note".as_slice(), &count.to_be_bytes()].concat()
}

/// Moves some between two accounts, and notes the transfer by a row that names a large value. A
/// writer's older note goes: its row first, then its value.
async fn transfer(db: &Database, large: &LargeValues, writer: u64, round: u64) {
    let count = round * WRITERS + writer;
    let name = note(count);
    let body =
        Bytes::from([name.repeat(500), vec![0; usize::try_from(count % 9000).unwrap()]].concat());
    large.put(&name, body).await.unwrap();
    let (from, to) = (&account(count % ACCOUNTS), &account(count * 7 % ACCOUNTS));
    let (name, old) = (&name, count.checked_sub(5 * WRITERS).map(note));
    let cleared = old.as_deref();
    db.run(|tx| async move {
        let available = number(&tx.get(from).await?.expect("it is there"));
        let taken = available.min(count % 13);
        tx.set(from, &(available - taken).to_be_bytes());
        let there = number(&tx.get(to).await?.expect("it is there"));
        tx.set(to, &(there + taken).to_be_bytes());
        tx.set(name, b"");
        if let Some(old) = cleared {
            tx.clear(old);
        }
        tx.atomic(b"transfers", &1_u64.to_le_bytes(), AtomicOp::Add);
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
    if let Some(old) = old {
        large.remove(&old).await.unwrap();
    }
}

/// The sum of the accounts, how many transfers there were, and how many notes there are, each with
/// its large value.
async fn check(db: &Database, large: &LargeValues) -> (u64, u64, u64) {
    let accounts = db.begin().range(RangeQuery::prefix(b"account")).collect().await.unwrap();
    let sum = accounts.iter().map(|row| number(&row.value)).sum();
    let notes = db.begin().range(RangeQuery::prefix(b"note")).collect().await.unwrap();
    for note in &notes {
        let value = large.get(&note.key).await.unwrap().expect("what a row names is there");
        assert!(value.starts_with(&note.key.repeat(500)));
    }
    let transfers = db.begin().get(b"transfers").await.unwrap().unwrap();
    (sum, u64::from_le_bytes(transfers.as_ref().try_into().unwrap()), notes.len() as u64)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_one_moment_while_commits_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let embedded = open(directory.path());
    let (db, large) = (&embedded.database(), &embedded.large_values());
    let tx = db.begin();
    for number in 0..ACCOUNTS {
        tx.set(&account(number), &EACH.to_be_bytes());
    }
    tx.set(b"", b"the empty key");
    // What comes after the notes, so that they change before the large values are read.
    for number in 0..95_u8 {
        tx.set(&[b'z', number], &vec![number; 100_000]);
    }
    tx.commit().await.unwrap();
    let (count, stop) = (&AtomicU64::new(0), &AtomicBool::new(false));
    let writers = (0..WRITERS).map(|writer| async move {
        for round in 0.. {
            if stop.load(Relaxed) {
                break;
            }
            count.fetch_add(1, Relaxed);
            transfer(db, large, writer, round).await;
        }
    });
    let backups = async {
        let mut backups = Vec::new();
        for _ in 0..5 {
            let begun = count.load(Relaxed);
            while count.load(Relaxed) < begun + 100 {
                tokio::task::yield_now().await;
            }
            let counts = count.load(Relaxed);
            backups.push((counts, taken(&embedded).await, count.load(Relaxed)));
        }
        stop.store(true, Relaxed);
        backups
    };
    let (_, backups) = join(join_all(writers), backups).await;
    for (before, backup, after) in backups {
        let target = tempfile::tempdir().unwrap();
        let path = target.path().join("restored");
        let mut told = Vec::new();
        let built = Embedded::restore(&path, &*backup, &Env::system(), |counts| told.push(counts));
        let built = built.unwrap();
        let counts = built.counts();
        built.finish().unwrap();
        assert_eq!((counts.bytes, told.last()), (backup.len() as u64, Some(&counts)));
        let restored = open(&path);
        let (sum, transfers, notes) = check(&restored.database(), &restored.large_values()).await;
        assert_eq!(sum, ACCOUNTS * EACH, "no transfer is there by half");
        // Those that had begun may not have been there yet.
        let moment = before.saturating_sub(WRITERS)..=after;
        assert!(moment.contains(&transfers), "{before} {transfers} {after}");
        assert_eq!(counts.rows, ACCOUNTS + 1 + 95 + 1 + notes);
        assert!(counts.large_values >= notes);
        let empty = restored.database().begin().get(b"").await.unwrap();
        assert_eq!(empty.as_deref(), Some(b"the empty key".as_slice()));
    }
}

#[tokio::test]
async fn versions_go_on_above_everything_handed_out() {
    let directory = tempfile::tempdir().unwrap();
    let embedded = open(directory.path());
    set(&embedded.database(), b"a", b"").await;
    let backup = taken(&embedded).await;
    embedded.close().await.unwrap();
    let mut highest = 0;
    // The store goes on after its backup, through restarts, each of which skips versions.
    for _ in 0..150 {
        let embedded = open(directory.path());
        highest = set(&embedded.database(), b"a", b"").await.version();
        embedded.close().await.unwrap();
    }
    let target = tempfile::tempdir().unwrap();
    restore(target.path(), &backup).unwrap();
    let restored = open(target.path());
    let read = restored.database().begin().read_version().await.unwrap();
    assert!(read > highest, "{read} is above {highest}");
    assert!(set(&restored.database(), b"a", b"").await.version() > highest);
    // And a backup of what was restored restores again.
    let again = tempfile::tempdir().unwrap();
    restore(again.path(), &taken(&restored).await).unwrap();
    let version = open(again.path()).database().begin().read_version().await.unwrap();
    assert!(version > restored.database().begin().read_version().await.unwrap());
}

#[tokio::test]
async fn every_flipped_byte_and_every_cut_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let embedded = open(directory.path());
    let (db, large) = (embedded.database(), embedded.large_values());
    for number in 0..2_u8 {
        large.put(&[number], Bytes::from(vec![number; 9])).await.unwrap();
        set(&db, &[b'r', number], &[number; 3]).await;
    }
    let backup = taken(&embedded).await;
    // Hundreds of stores are begun here: in memory, where there is such a place, nothing is synced.
    let target = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let path = target.path().join("store");
    let refused = |bytes: &[u8]| {
        let error = restore(&path, bytes).expect_err("it is not what was written");
        assert!(!path.exists() && !target.path().join("store.restoring").exists());
        error
    };
    for at in 0..backup.len() {
        let mut flipped = backup.clone();
        flipped[at] ^= 1 << (at % 8);
        match refused(&flipped) {
            RestoreError::NotABackup => assert!(at < 8, "{at}"),
            RestoreError::FormatUnknown { .. } => assert!((8..12).contains(&at), "{at}"),
            RestoreError::Damaged { .. } | RestoreError::CutOff { .. } => assert!(at >= 12, "{at}"),
            other => panic!("{at}: {other}"),
        }
    }
    for kept in 0..backup.len() {
        let error = refused(&backup[..kept]);
        assert!(matches!(error, RestoreError::CutOff { bytes } if bytes <= kept as u64), "{kept}");
    }
    assert!(matches!(refused(&[&backup[..], b"x"].concat()), RestoreError::Damaged { .. }));
    assert!(matches!(refused(b"From a@b\n and so on"), RestoreError::NotABackup));
    restore(&path, &backup).unwrap();
}

#[tokio::test]
async fn only_an_empty_place_is_restored_into() {
    let directory = tempfile::tempdir().unwrap();
    let embedded = open(directory.path());
    let backup = taken(&embedded).await;
    let not_empty = |path: &Path| {
        let told = restore(path, &backup).expect_err("something is there");
        assert!(matches!(told, RestoreError::NotEmpty { path: told } if told == path));
    };
    not_empty(directory.path());
    let target = tempfile::tempdir().unwrap();
    let file = target.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    not_empty(&file);
    // What an unfinished restore left opens as nothing and is replaced; what it did not, stays.
    let (path, building) = (target.path().join("store"), target.path().join("store.restoring"));
    std::fs::create_dir(&building).unwrap();
    std::fs::write(building.join("mine"), "mine").unwrap();
    let told = restore(&path, &backup).expect_err("it may be somebody's");
    assert!(matches!(told, RestoreError::InTheWay { path } if path == building));
    std::fs::write(building.join("restoring"), "").unwrap();
    assert!(Embedded::open(&building, Env::system(), EmbeddedOptions::default()).is_err());
    restore(&path, &backup).unwrap();
    assert!(!building.exists());
    open(&path);
}

#[tokio::test]
async fn a_crash_in_the_middle_of_a_restore_leaves_no_store() {
    /// Gives a backup and looks at the folder on the way, as a crash then would leave it.
    struct Watched<'a> {
        backup: &'a [u8],
        building: &'a Path,
        seen: usize,
    }
    impl std::io::Read for Watched<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            if self.building.exists() {
                let opened =
                    Embedded::open(self.building, Env::system(), EmbeddedOptions::default());
                assert!(opened.is_err());
                self.seen += 1;
            }
            let most = buffer.len().min(100);
            self.backup.read(&mut buffer[..most])
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let embedded = open(directory.path());
    set(&embedded.database(), b"a", &[1; 1000]).await;
    let backup = taken(&embedded).await;
    let target = tempfile::tempdir().unwrap();
    let (path, building) = (target.path().join("store"), target.path().join("store.restoring"));
    let mut watched = Watched { backup: &backup, building: &building, seen: 0 };
    let built = Embedded::restore(&path, &mut watched, &Env::system(), |_| {}).unwrap();
    assert!(watched.seen > 10);
    // What is changed before it gets its name is changed for everybody.
    assert!(!path.exists());
    let unfinished = built.open().unwrap();
    set(&unfinished.database(), b"a", b"changed").await;
    unfinished.close().await.unwrap();
    let other = Embedded::open(&building, Env::system(), EmbeddedOptions::default());
    assert!(other.is_err(), "to others it does not open");
    built.finish().unwrap();
    let value = open(&path).database().begin().get(b"a").await.unwrap();
    assert_eq!(value.as_deref(), Some(b"changed".as_slice()));
    assert!(!building.exists());
}

/// Whatever a restore leaves that ends at any of its steps, another one takes over, and nothing
/// opens before.
#[tokio::test]
async fn a_crash_at_any_step_leaves_what_another_restore_takes_over() {
    let directory = tempfile::tempdir().unwrap();
    let embedded = open(directory.path());
    set(&embedded.database(), b"a", b"1").await;
    let backup = taken(&embedded).await;
    let target = tempfile::tempdir().unwrap();
    let (path, building) = (target.path().join("store"), target.path().join("store.restoring"));
    let whole = target.path().join("whole");
    restore(&whole, &backup).unwrap();
    let mark = |folder: &Path| std::fs::write(folder.join("restoring"), "").unwrap();
    // A step that may be left, and where.
    let steps: [(&str, &dyn Fn()); 6] = [
        ("the folder is made", &|| std::fs::create_dir(&building).unwrap()),
        ("the mark is made", &|| {
            std::fs::create_dir(&building).unwrap();
            mark(&building);
        }),
        ("everything is there", &|| {
            copy(&whole, &building);
            mark(&building);
        }),
        ("a part is taken away again", &|| {
            copy(&whole, &building);
            std::fs::remove_dir_all(building.join("keyspaces")).unwrap();
            mark(&building);
        }),
        ("it has its name, and the mark", &|| {
            copy(&whole, &path);
            mark(&path);
        }),
        ("it has its name, and is being taken away", &|| {
            std::fs::create_dir(&path).unwrap();
            mark(&path);
        }),
    ];
    for (step, leave) in steps {
        leave();
        for folder in
            [&path, &building].into_iter().filter(|folder| folder.join("restoring").exists())
        {
            let opened = Embedded::open(folder, Env::system(), EmbeddedOptions::default());
            assert!(opened.is_err(), "{step}: {}", folder.display());
        }
        restore(&path, &backup).unwrap_or_else(|error| panic!("{step}: {error}"));
        assert!(!building.exists() && !path.join("restoring").exists(), "{step}");
        let opened = open(&path);
        assert!(opened.database().begin().get(b"a").await.unwrap().is_some(), "{step}");
        opened.close().await.unwrap();
        std::fs::remove_dir_all(&path).unwrap();
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

/// One that still runs is not taken for one that was left.
#[tokio::test]
async fn two_restores_into_one_place_do_not_meet() {
    let directory = tempfile::tempdir().unwrap();
    let embedded = open(directory.path());
    set(&embedded.database(), b"a", b"1").await;
    let backup = taken(&embedded).await;
    let target = tempfile::tempdir().unwrap();
    let path = target.path().join("store");
    let first = Embedded::restore(&path, &*backup, &Env::system(), |_| {}).unwrap();
    let told = restore(&path, &backup).expect_err("one runs");
    assert!(matches!(told, RestoreError::Running { .. }), "{told}");
    first.finish().unwrap();
    assert!(matches!(restore(&path, &backup), Err(RestoreError::NotEmpty { .. })));
    assert!(open(&path).database().begin().get(b"a").await.unwrap().is_some());
}

#[tokio::test]
async fn a_restore_that_is_given_up_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let embedded = open(directory.path());
    set(&embedded.database(), b"a", b"").await;
    let backup = taken(&embedded).await;
    let target = tempfile::tempdir().unwrap();
    let path = target.path().join("store");
    let nothing = || std::fs::read_dir(target.path()).unwrap().next().is_none();
    drop(Embedded::restore(&path, &*backup, &Env::system(), |_| {}).unwrap());
    assert!(nothing());
    // Nor does it get its name while somebody writes to it.
    let built = Embedded::restore(&path, &*backup, &Env::system(), |_| {}).unwrap();
    let unfinished = built.open().unwrap();
    let told = built.finish().expect_err("it is open");
    assert!(matches!(told, RestoreError::Open(kv::OpenError::Locked { .. })), "{told}");
    assert!(!path.exists());
    drop(unfinished.close().await);
}

#[tokio::test]
async fn a_backup_that_is_overtaken_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let embedded = open(directory.path());
    let (db, large) = (embedded.database(), embedded.large_values());
    for number in 0..100_u8 {
        large.put(&[number], Bytes::from(vec![number; 100_000])).await.unwrap();
    }
    let mut backup = embedded.backups().begin(kv::embedded::no_expansion()).await.unwrap();
    assert!(backup.next_chunk().await.unwrap().is_some());
    write_beyond_the_bound(&large).await;
    large.sync().await.unwrap();
    is_overtaken(&mut backup).await;
    assert!(backup.next_chunk().await.is_err(), "it stays so");
    set(&db, b"a", b"the store goes on").await;
    // One that is dropped lets go of the store.
    drop(embedded.backups().begin(kv::embedded::no_expansion()).await.unwrap());
    embedded.close().await.unwrap();
}

/// More than a backup keeps while it is under way.
async fn write_beyond_the_bound(large: &LargeValues) {
    let body = Bytes::from(vec![0; 8 * 1024 * 1024]);
    for _ in 0..=BACKUP_WRITES_BYTES_MAX / body.len() as u64 {
        large.put(b"again", body.clone()).await.unwrap();
    }
}

async fn is_overtaken(backup: &mut Backup) {
    let error = loop {
        match backup.next_chunk().await {
            Ok(chunk) => assert!(chunk.is_some(), "it cannot become complete"),
            Err(error) => break error,
        }
    };
    assert_eq!(error, BackupError::Overtaken);
}

/// What is held in memory for a backup is bounded however slowly it is taken.
#[tokio::test]
async fn a_taker_that_stands_still_ends_the_backup() {
    let directory = tempfile::tempdir().unwrap();
    let embedded = open(directory.path());
    let (db, large) = (embedded.database(), embedded.large_values());
    for number in 0..100_u8 {
        large.put(&[number], Bytes::from(vec![number; 100_000])).await.unwrap();
    }
    let mut backup = embedded.backups().begin(kv::embedded::no_expansion()).await.unwrap();
    write_beyond_the_bound(&large).await;
    set(&db, b"a", b"the store goes on").await;
    embedded.close().await.unwrap();
    // A backup that goes on keeps the directory locked; this one lets go, though nobody takes it.
    let env = Env::system();
    let freed = async {
        while let Err(error) =
            Embedded::open(directory.path(), env.clone(), EmbeddedOptions::default())
        {
            assert!(matches!(error, kv::OpenError::Locked { .. }), "{error}");
            tokio::task::yield_now().await;
        }
    };
    env.timeout(std::time::Duration::from_secs(60), freed).await.expect("it is let go of");
    is_overtaken(&mut backup).await;
}
