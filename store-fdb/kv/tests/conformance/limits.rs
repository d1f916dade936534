//! Limits, each at its last allowed byte and one beyond.

use kv::{
    AtomicOp, Error, RangeQuery,
    limits::{KEY_BYTES_MAX, TRANSACTION_BYTES_MAX, TRANSACTION_LIFE, VALUE_BYTES_MAX},
};

use crate::Store;

pub(crate) async fn keys_and_values_at_their_edges(store: Store) {
    let long = |bytes: usize| {
        let mut key = store.key("");
        key.resize(bytes, b'k');
        key
    };
    let (fits, exceeds) = (long(KEY_BYTES_MAX), long(KEY_BYTES_MAX + 1));
    store.write(|tx| tx.set(&fits, &vec![1; VALUE_BYTES_MAX])).await;
    let tx = store.db.begin();
    assert_eq!(tx.get(&fits).await.unwrap().unwrap().len(), VALUE_BYTES_MAX);
    assert_eq!(tx.get(&exceeds).await, Ok(None), "nothing can be there");
    store.write(|tx| tx.clear(&exceeds)).await;

    let check = |write: &(dyn Fn(&kv::Transaction) + Sync), expected: Error| {
        let tx = store.db.begin();
        write(&tx);
        async move { assert_eq!(tx.commit().await.map(drop), Err(expected)) }
    };
    let key_too_large = Error::KeyTooLarge { bytes: KEY_BYTES_MAX + 1 };
    let value_too_large = Error::ValueTooLarge { bytes: VALUE_BYTES_MAX + 1 };
    let value = vec![0; VALUE_BYTES_MAX + 1];
    let key = store.key("k");
    check(&|tx| tx.set(&exceeds, b""), key_too_large.clone()).await;
    check(&|tx| tx.atomic(&exceeds, b"", AtomicOp::Add), key_too_large).await;
    check(&|tx| tx.set(&key, &value), value_too_large.clone()).await;
    check(&|tx| tx.atomic(&key, &value, AtomicOp::BitOr), value_too_large).await;
    // The first error is the one that is told, and by reads too.
    let tx = store.db.begin();
    tx.set(&key, &value);
    tx.set(&key, b"fits");
    assert!(matches!(tx.get(&key).await, Err(Error::ValueTooLarge { .. })));
}

pub(crate) async fn transactions_at_their_edge(store: Store) {
    let tx = store.db.begin();
    assert_eq!(tx.approximate_size(), 0);
    let mut number = 0_u32;
    while tx.approximate_size() + VALUE_BYTES_MAX + 1000 < TRANSACTION_BYTES_MAX {
        tx.set(&store.key(number.to_be_bytes()), &vec![0; VALUE_BYTES_MAX]);
        number += 1;
    }
    let key = store.key(number.to_be_bytes());
    let probe = store.db.begin();
    probe.set(&key, b"");
    let overhead = probe.approximate_size();
    tx.set(&key, &vec![0; TRANSACTION_BYTES_MAX - tx.approximate_size() - overhead]);
    assert_eq!(tx.approximate_size(), TRANSACTION_BYTES_MAX);
    tx.commit().await.unwrap();
    assert!(number > 90, "nearly ten megabytes of values fit");

    let tx = store.db.begin();
    for number in 0..101_u32 {
        tx.set(&store.key(number.to_be_bytes()), &vec![1; VALUE_BYTES_MAX]);
    }
    assert_eq!(tx.commit().await.map(drop), Err(Error::TransactionTooLarge));
    let rows = store.db.begin().range(store.all().limit(1)).collect().await.unwrap();
    assert_eq!(rows[0].value[0], 0, "nothing of it was written");
}

pub(crate) async fn system_keys_are_out_of_reach(store: Store) {
    let outside = Err(Error::KeyOutsideLegalRange);
    let tx = store.db.begin();
    assert_eq!(tx.get(b"\xff").await, outside);
    assert_eq!(
        store.db.begin().range(RangeQuery::new("a", &b"\xff\x01"[..])).collect().await.map(drop),
        outside.clone().map(drop)
    );
    for write in [
        &(|tx: &kv::Transaction| tx.set(b"\xff", b"")) as &(dyn Fn(&kv::Transaction) + Sync),
        &|tx| tx.clear(b"\xff\xff"),
        &|tx| tx.clear_range(b"a", b"\xff\x01"),
        &|tx| tx.atomic(b"\xffx", b"", AtomicOp::Add),
    ] {
        let tx = store.db.begin();
        write(&tx);
        assert_eq!(tx.commit().await.map(drop), outside.clone().map(drop));
    }
    // Up to them everything is legal.
    let tx = store.db.begin();
    tx.range(RangeQuery::new(store.key("z"), &b"\xff"[..]).limit(1)).collect().await.unwrap();
    tx.commit().await.unwrap();
}

pub(crate) async fn inverted_ranges_are_refused(store: Store) {
    let (begin, end) = (store.key("b"), store.key("a"));
    for write in [
        &(|tx: &kv::Transaction| tx.clear_range(&begin, &end)) as &(dyn Fn(&_) + Sync),
        &|tx: &kv::Transaction| tx.add_read_conflict_range(&begin, &end),
        &|tx: &kv::Transaction| tx.add_write_conflict_range(&begin, &end),
    ] {
        let tx = store.db.begin();
        tx.set(&store.key("c"), b"");
        write(&tx);
        assert_eq!(tx.commit().await.map(drop), Err(Error::InvertedRange));
    }
}

pub(crate) async fn old_transactions_are_refused(store: Store) {
    store.fill(&[("a", "1")]).await;
    let [reads_again, writes, only_read, blind] = [(); 4].map(|()| store.db.begin());
    for tx in [&reads_again, &writes, &only_read] {
        tx.get(&store.key("a")).await.unwrap();
    }
    blind.set(&store.key("b"), b"blind");
    writes.set(&store.key("c"), b"never");
    let over = TRANSACTION_LIFE + TRANSACTION_LIFE / 4;
    env::Env::system().sleep(over).await;
    // Other keys than before: FoundationDB's client may answer from what it has read. Its storage
    // forgets old versions in its own time, some moments after the transaction's life is over.
    let mut attempts = 0;
    let read = loop {
        attempts += 1;
        let read = reads_again.get(&store.key(format!("z{attempts}"))).await;
        if read.is_err() || attempts == 30 {
            break read;
        }
        env::Env::system().sleep(TRANSACTION_LIFE / 50).await;
    };
    assert_eq!(read, Err(Error::TooOld));
    assert_eq!(reads_again.range(store.all()).collect().await, Err(Error::TooOld));
    assert_eq!(writes.commit().await.map(drop), Err(Error::TooOld));
    only_read.commit().await.unwrap();
    blind.commit().await.unwrap();
    assert_eq!(store.rows().await, [("a".into(), "1".into()), ("b".into(), "blind".into())]);
}
