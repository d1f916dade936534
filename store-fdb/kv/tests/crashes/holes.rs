//! A power cut leaves any pages of what was not synced.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use env::Env;
use kv::{
    OpenError,
    embedded::{Embedded, EmbeddedOptions},
};

const PAGE: usize = 4096;

fn open(path: &Path) -> Result<Embedded, OpenError> {
    Embedded::open(path, Env::system(), EmbeddedOptions::default())
}

/// The store as a power cut leaves it that lets every page reach the disk.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
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

/// What no compression makes shorter.
fn value(number: u8) -> Bytes {
    let mut state = u32::from(number);
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    });
    noise.take(3 * PAGE).collect()
}

fn newest_journal(store: &Path) -> PathBuf {
    let entries = std::fs::read_dir(store).unwrap().map(|entry| entry.unwrap().path());
    let journals = entries.filter(|path| path.extension().is_some_and(|end| end == "jnl"));
    journals.max().unwrap()
}

/// Takes back a page in the middle of a value.
fn lose_a_page(journal: &Path, number: u8) {
    let mut bytes = std::fs::read(journal).unwrap();
    let begin = &value(number)[..32];
    // The rest of the file is zeros.
    let at = bytes[..1 << 20].windows(32).position(|window| window == begin).unwrap();
    let page = at.next_multiple_of(PAGE);
    bytes[page..page + PAGE].fill(0);
    std::fs::write(journal, bytes).unwrap();
}

async fn commit(embedded: &Embedded, key: &[u8]) {
    let tx = embedded.database().begin();
    tx.set(key, b"");
    tx.commit().await.unwrap();
}

/// Values that are written, each in a batch of its own, and not synced.
async fn put_unsynced(embedded: &Embedded, numbers: std::ops::RangeInclusive<u8>) {
    let large = embedded.large_values();
    for number in numbers {
        large.put(&[number], value(number)).await.unwrap();
        // Answered when it is written.
        large.scan_prefix(&[number], None, 1).await.unwrap();
    }
}

#[tokio::test]
async fn what_a_power_cut_left_in_any_order_is_cut_off_behind_what_was_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let embedded = open(&path("store")).unwrap();
    commit(&embedded, b"first").await;
    put_unsynced(&embedded, 101..=106).await;
    copy(&path("store"), &path("cut"));
    let journal = newest_journal(&path("cut"));
    lose_a_page(&journal, 103);
    let cut = open(&path("cut")).unwrap();
    assert!(cut.database().begin().get(b"first").await.unwrap().is_some());
    for number in 101..=106 {
        let found = cut.large_values().get(&[number]).await.unwrap();
        assert_eq!(found, (number < 103).then(|| value(number)), "{number}");
    }
    // It goes on, and what it acknowledges stays.
    commit(&cut, b"after").await;
    cut.close().await.unwrap();
    assert!(open(&path("cut")).unwrap().database().begin().get(b"after").await.unwrap().is_some());

    // Once a commit behind it was acknowledged, the same page is damage: by the file that says so,
    // and where that is older than the power cut, by what was written since.
    let stale = std::fs::read(path("store").join("acknowledged")).unwrap();
    commit(&embedded, b"second").await;
    put_unsynced(&embedded, 107..=108).await;
    for noted in [true, false] {
        let damaged = path(if noted { "noted" } else { "stale" });
        copy(&path("store"), &damaged);
        if !noted {
            std::fs::write(damaged.join("acknowledged"), &stale).unwrap();
        }
        let journal = newest_journal(&damaged);
        lose_a_page(&journal, 103);
        let before = std::fs::read(&journal).unwrap();
        match open(&damaged) {
            Err(OpenError::Corrupt { path, reason }) => {
                assert!(path == journal && reason.contains("was acknowledged"), "{reason}");
            }
            other => panic!("{other:?}"),
        }
        assert!(std::fs::read(&journal).unwrap() == before, "nothing is changed");
        // Behind the acknowledged commit it is none.
        let damaged = path(if noted { "noted behind" } else { "stale behind" });
        copy(&path("store"), &damaged);
        lose_a_page(&newest_journal(&damaged), 107);
        let cut = open(&damaged).unwrap();
        assert!(cut.database().begin().get(b"second").await.unwrap().is_some());
        assert_eq!(cut.large_values().get(&[106]).await.unwrap(), Some(value(106)));
        assert_eq!(cut.large_values().get(&[108]).await.unwrap(), None);
    }
}
