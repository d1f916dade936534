//! A disk without room: every caller learns of it, and nothing that was acknowledged is lost.

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use env::Env;
use futures_util::future::join_all;
use kv::{
    Database, Error,
    embedded::{Embedded, EmbeddedOptions},
};

/// A file system in memory, of a size of our own.
struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    /// `None`, visibly, where none may be mounted.
    fn mount(megabytes: u32) -> Option<Self> {
        let disk = Self { folder: tempfile::tempdir().unwrap() };
        let mounted =
            disk.run("mount", &["-t", "tmpfs", "-o", &format!("size={megabytes}M"), "tmpfs"]);
        if !mounted {
            std::mem::forget(disk);
            let _told = writeln!(std::io::stderr(), "skipped: a full disk (cannot mount a tmpfs)");
            return None;
        }
        Some(disk)
    }

    fn grow(&self, megabytes: u32) {
        assert!(self.run("mount", &["-o", &format!("remount,size={megabytes}M")]));
    }

    fn run(&self, program: &str, arguments: &[&str]) -> bool {
        let ran = Command::new(program)
            .args(arguments)
            .arg(self.folder.path())
            .stderr(Stdio::null())
            .status();
        ran.is_ok_and(|status| status.success())
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a thread of the engine may still be closing its files.
        self.run("umount", &["-l"]);
    }
}

async fn set(db: &Database, key: &[u8], value: &[u8]) -> Result<(), Error> {
    let tx = db.begin();
    tx.set(key, value);
    tx.commit().await.map(drop)
}

/// Random, so that nothing makes it smaller.
fn value() -> Vec<u8> {
    Env::system().random_array::<20_000>().to_vec()
}

async fn fill_until_it_fails(memtable_bytes: u64) {
    const WRITERS: u8 = 16;
    let Some(disk) = Disk::mount(24) else { return };
    let path = disk.path().join("store");
    let options = EmbeddedOptions { memtable_bytes, ..EmbeddedOptions::default() };
    let embedded = Embedded::open(&path, Env::system(), options).unwrap();
    let (db, large) = (&embedded.database(), &embedded.large_values());
    let writers = (0..WRITERS).map(|writer| async move {
        let mut acknowledged = Vec::new();
        for number in 0_u32.. {
            let key = [&[writer][..], &number.to_be_bytes()].concat();
            match set(db, &key, &value()).await {
                Ok(()) => acknowledged.push(key),
                Err(error) => return (acknowledged, error),
            }
        }
        unreachable!("no disk is endless")
    });
    let ended = Env::system().timeout(Duration::from_secs(60), join_all(writers)).await;
    let ended = ended.expect("every caller that waits is told");
    let mut unknown = 0;
    for (_, error) in &ended {
        match error {
            Error::CommitUnknown => unknown += 1,
            other => assert!(matches!(other, Error::EngineFailed { .. }), "{other}"),
        }
    }
    assert!(unknown > 0, "a batch was on its way");
    // Nothing more until it is opened again, but reads.
    assert!(matches!(set(db, b"later", b"").await, Err(Error::EngineFailed { .. })));
    let put = large.put(b"later", bytes::Bytes::from_static(b"x")).await;
    assert!(matches!(put, Err(Error::EngineFailed { .. })));
    let acknowledged: Vec<_> = ended.into_iter().flat_map(|(keys, _)| keys).collect();
    assert!(acknowledged.len() > 100, "{} commits", acknowledged.len());
    let first = db.begin().get(&acknowledged[0]).await.unwrap();
    assert!(first.is_some(), "reads go on");
    assert!(embedded.close().await.is_err());

    disk.grow(200);
    let embedded = Embedded::open(&path, Env::system(), options).unwrap();
    let db = embedded.database();
    for key in &acknowledged {
        let stored = db.begin().get(key).await.unwrap();
        assert_eq!(stored.map(|value| value.len()), Some(20_000), "{key:?} was acknowledged");
    }
    set(&db, b"later", b"").await.unwrap();
    embedded.close().await.unwrap();
}

/// The journal has no room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_fails_every_commit_that_waits() {
    fill_until_it_fails(64 * 1024 * 1024).await;
}

/// Rows on their way to files have none, while commits go on beside them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_fails_the_work_in_the_background() {
    fill_until_it_fails(512 * 1024).await;
}
