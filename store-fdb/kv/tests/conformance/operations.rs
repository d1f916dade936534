//! Single operations, and what a transaction sees.

use kv::{Error, RangeQuery};

use crate::Store;

pub(crate) async fn what_is_committed_is_read(store: Store) {
    assert_eq!(store.value("a").await, None);
    store.fill(&[("a", "1"), ("b", "2")]).await;
    assert_eq!(store.value("a").await, Some(b"1".to_vec()));
    store.fill(&[("a", "3")]).await;
    store.write(|tx| tx.clear(&store.key("b"))).await;
    assert_eq!(store.rows().await, [("a".into(), "3".into())]);
    // Within one transaction the last write wins.
    store
        .write(|tx| {
            tx.set(&store.key("a"), b"x");
            tx.clear(&store.key("a"));
            tx.set(&store.key("a"), b"y");
            tx.set(&store.key("c"), b"z");
            tx.clear(&store.key("c"));
        })
        .await;
    assert_eq!(store.rows().await, [("a".into(), "y".into())]);
}

pub(crate) async fn a_cleared_range_is_half_open(store: Store) {
    store.fill(&[("a", ""), ("b", ""), ("bb", ""), ("c", ""), ("d", "")]).await;
    store.write(|tx| tx.clear_range(&store.key("b"), &store.key("c"))).await;
    let names: Vec<_> = store.rows().await.into_iter().map(|row| row.0).collect();
    assert_eq!(names, ["a", "c", "d"]);
    // What is set after the clear stays, what is set before it goes.
    store
        .write(|tx| {
            tx.set(&store.key("e"), b"");
            tx.clear_range(&store.key(""), &store.key("f"));
            tx.set(&store.key("c"), b"new");
        })
        .await;
    assert_eq!(store.rows().await, [("c".into(), "new".into())]);
    store.write(|tx| tx.clear_range(&store.key("c"), &store.key("c"))).await;
    assert_eq!(store.rows().await.len(), 1, "an empty range clears nothing");
}

pub(crate) async fn empty_keys_and_values_exist(store: Store) {
    store.fill(&[("v", "")]).await;
    assert_eq!(store.value("v").await, Some(Vec::new()));
    let tx = store.db.begin();
    tx.set(b"", b"empty");
    assert_eq!(tx.get(b"").await.unwrap().as_deref(), Some(b"empty".as_slice()));
    tx.commit().await.unwrap();
    let tx = store.db.begin();
    let first = tx.range(RangeQuery::new("", "\x01").limit(1)).collect().await.unwrap();
    assert_eq!((&*first[0].key, &*first[0].value), (b"".as_slice(), b"empty".as_slice()));
    tx.clear(b"");
    tx.commit().await.unwrap();
    assert_eq!(store.db.begin().get(b"").await.unwrap(), None);
}

pub(crate) async fn a_transaction_sees_one_moment(store: Store) {
    store.fill(&[("a", "old"), ("b", "old")]).await;
    let tx = store.db.begin();
    assert_eq!(tx.get(&store.key("a")).await.unwrap().as_deref(), Some(b"old".as_slice()));
    for round in 0..20 {
        store.fill(&[("a", "new"), ("b", "new"), (&format!("c{round}"), "new")]).await;
    }
    store.write(|tx| tx.clear(&store.key("a"))).await;
    assert_eq!(tx.get(&store.key("b")).await.unwrap().as_deref(), Some(b"old".as_slice()));
    let rows = tx.range(store.all()).collect().await.unwrap();
    assert_eq!(store.named(&rows), [("a".into(), "old".into()), ("b".into(), "old".into())]);
    assert_eq!(store.rows().await.len(), 21);
}

pub(crate) async fn nothing_of_a_dropped_transaction_remains(store: Store) {
    let tx = store.db.begin();
    tx.set(&store.key("a"), b"1");
    assert_eq!(tx.get(&store.key("a")).await.unwrap().as_deref(), Some(b"1".as_slice()));
    assert_eq!(store.value("a").await, None, "not before the commit");
    drop(tx);
    assert_eq!(store.value("a").await, None);
}

pub(crate) async fn a_committed_transaction_cannot_be_used(store: Store) {
    let tx = store.db.begin();
    tx.set(&store.key("a"), b"1");
    let other = tx.clone();
    tx.commit().await.unwrap();
    other.set(&store.key("a"), b"2");
    assert_eq!(other.get(&store.key("a")).await, Err(Error::UsedAfterCommit));
    assert_eq!(other.read_version().await, Err(Error::UsedAfterCommit));
    let mut pages = other.range(store.all());
    assert_eq!(pages.next_page().await, Err(Error::UsedAfterCommit));
    assert_eq!(other.commit().await, Err(Error::UsedAfterCommit));
    assert_eq!(store.value("a").await, Some(b"1".to_vec()));
}

pub(crate) async fn read_versions_never_go_back(store: Store) {
    let mut last = 0;
    for round in 0..20 {
        let tx = store.db.begin();
        tx.set(&store.key("a"), &[round]);
        let stamp = tx.commit().await.unwrap().versionstamp.expect("it wrote");
        assert!(stamp.version() > last, "a commit comes after every earlier read");
        let version = store.db.begin().read_version().await.unwrap();
        assert!(version >= stamp.version(), "a read comes after every earlier commit");
        last = version;
    }
}

pub(crate) async fn counts_tell_what_was_done(store: Store) {
    store.fill(&[("a", "1"), ("b", "22")]).await;
    let before = store.db.counts();
    let tx = store.db.begin();
    tx.get(&store.key("a")).await.unwrap();
    tx.range(store.all()).collect().await.unwrap();
    tx.set(&store.key("c"), b"333");
    tx.atomic(&store.key("d"), &[1], kv::AtomicOp::Add);
    tx.clear(&store.key("a"));
    tx.clear_range(&store.key("x"), &store.key("y"));
    tx.commit().await.unwrap();
    store.db.begin().commit().await.unwrap();
    let did = store.db.counts() - before;
    assert_eq!((did.transactions_committed, did.transactions_read_only), (1, 1));
    assert_eq!((did.keys_read, did.rows_read, did.keys_written), (1, 2, 2));
    assert!(did.range_reads >= 1);
    assert_eq!((did.keys_cleared, did.ranges_cleared), (1, 1));
    let key = store.key("a").len() as u64;
    assert_eq!(did.bytes_written, 2 * key + 3 + 1);
    assert_eq!(did.bytes_read, 3 * key + 1 + 1 + 2);
    let dropped = store.db.begin();
    dropped.set(&store.key("never"), b"");
    drop(dropped);
    assert_eq!((store.db.counts() - before).keys_written, 2, "only commits count");
}
