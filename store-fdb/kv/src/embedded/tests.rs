//! Failures that no test can make a disk do.

use futures_util::future::join_all;

use super::*;
use crate::Error;

/// Which batch fails, and when.
pub(super) struct Injected {
    /// Batches of at least so many commits.
    pub(super) commits_min: usize,
    pub(super) moment: Moment,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// As a write that fails: nothing reaches the journal.
    BeforeTheWrite,
    /// As a sync that fails: everything may be in the journal.
    AfterTheWrite,
}

/// Nothing in a test makes a disk fail, so its failure is told to the engine.
#[tokio::test]
async fn after_a_failure_nothing_is_committed_until_it_is_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    let open =
        || Embedded::open(directory.path(), Env::system(), EmbeddedOptions::default()).unwrap();
    let embedded = open();
    let (db, large) = (embedded.database(), embedded.large_values());
    let set = |db: &Database| {
        let tx = db.begin();
        tx.set(b"a", b"1");
        tx.commit()
    };
    set(&db).await.unwrap();
    let failure = Error::engine_failed("the disk is gone");
    embedded.queue.core().fail(failure.clone());
    for _ in 0..2 {
        assert_eq!(set(&db).await.map(drop), Err(failure.clone()));
    }
    assert_eq!(large.put(b"a", bytes::Bytes::new()).await, Err(failure.clone()));
    assert_eq!(large.sync().await, Err(failure.clone()));
    assert!(db.begin().get(b"a").await.unwrap().is_some(), "reads go on");
    assert_eq!(embedded.close().await, Err(failure));
    set(&open().database()).await.unwrap();
}

/// A batch that fails fails for everyone in it, and whoever waits behind it.
#[tokio::test]
async fn a_failed_batch_fails_every_commit_in_it() {
    const TOGETHER: usize = 8;
    for moment in [Moment::BeforeTheWrite, Moment::AfterTheWrite] {
        let directory = tempfile::tempdir().unwrap();
        let open =
            || Embedded::open(directory.path(), Env::system(), EmbeddedOptions::default()).unwrap();
        let embedded = open();
        let db = &embedded.database();
        let injected = Injected { commits_min: TOGETHER, moment };
        *embedded.queue.core().injected.lock().unwrap() = Some(injected);
        let commits = (0_u32..64).map(|writer| async move {
            for round in 0_u32.. {
                let tx = db.begin();
                tx.set(&[writer.to_be_bytes(), round.to_be_bytes()].concat(), b"");
                if let Err(error) = tx.commit().await {
                    return (round, error);
                }
            }
            unreachable!("a batch of eight comes")
        });
        let ended = join_all(commits).await;
        let unknown = ended.iter().filter(|(_, error)| *error == Error::CommitUnknown).count();
        assert!(unknown >= TOGETHER, "{unknown} were in the batch");
        let refused =
            ended.iter().filter(|(_, error)| *error == Error::engine_failed("injected")).count();
        assert_eq!(unknown + refused, 64, "{moment:?}");
        assert!(embedded.close().await.is_err());

        // What was acknowledged is there; of the rest, those of one batch or nobody.
        let db = open().database();
        let mut applied = 0;
        for (writer, (rounds, error)) in (0_u32..).zip(ended) {
            let tx = db.begin();
            for round in 0..=rounds {
                let key = [writer.to_be_bytes(), round.to_be_bytes()].concat();
                let there = tx.get(&key).await.unwrap().is_some();
                if round < rounds {
                    assert!(there, "{writer} {round} was acknowledged");
                } else if there {
                    assert_eq!(error, Error::CommitUnknown);
                    applied += 1;
                }
            }
        }
        let expected = if moment == Moment::AfterTheWrite { unknown } else { 0 };
        assert_eq!(applied, expected, "{moment:?}");
    }
}

/// Waits until somebody waits for a lock on the file, as the system tells.
#[cfg(target_os = "linux")]
fn wait_for_a_waiter(lock: &std::fs::File, ended: impl Fn() -> bool) {
    use std::os::unix::fs::MetadataExt;
    let inode = format!(":{} ", lock.metadata().unwrap().ino());
    let waits = |line: &str| line.contains("-> FLOCK") && line.contains(&inode);
    while !std::fs::read_to_string("/proc/locks").unwrap().lines().any(waits) {
        assert!(!ended(), "it did not wait for its turn");
        std::thread::yield_now();
    }
}

/// What one process sees and cuts off is never what another one is writing: it waits until the
/// other has the store open, and then leaves it alone.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn two_that_open_at_once_do_not_check_what_the_other_writes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let open = || Embedded::open(path, Env::system(), EmbeddedOptions::default());
    open().unwrap().close().await.unwrap();
    let file = |name| std::fs::File::options().write(true).open(path.join(name)).unwrap();
    // Another process has begun to open the store, and a third one comes.
    let opening = file("opening.lock");
    opening.lock().unwrap();
    let journal = path.join("0.jnl");
    let torn = std::thread::scope(|threads| {
        let third = threads.spawn(open);
        wait_for_a_waiter(&opening, || third.is_finished());
        // The other has opened it, and is in the middle of a write.
        let lock = file("lock");
        lock.lock().unwrap();
        let mut torn = std::fs::read(&journal).unwrap();
        torn.extend([1, 9, 9]);
        std::fs::write(&journal, &torn).unwrap();
        opening.unlock().unwrap();
        let told = third.join().unwrap();
        assert!(matches!(told, Err(OpenError::Locked { .. })), "{told:?}");
        torn
    });
    assert!(std::fs::read(&journal).unwrap() == torn, "nothing is cut off");
    // Nobody has it open any more: it was a torn write.
    open().unwrap();
    assert!(std::fs::read(&journal).unwrap() != torn);
}
