//! Versionstamps.

use kv::{AtomicOp, Error, RangeQuery, Versionstamp, tuple};

use crate::Store;

fn log(store: &Store) -> tuple::Subspace {
    tuple::Subspace::from_bytes(store.key("log"))
}

pub(crate) async fn stamps_sort_as_commits_do(store: Store) {
    let (log, store) = (&log(&store), &store);
    let append = |number: u8| async move {
        let tx = store.db.begin();
        let key = log.pack_with_versionstamp(&tuple::Versionstamp::incomplete(0));
        tx.atomic(&key, &[number], AtomicOp::SetVersionstampedKey);
        let template = [&[0xaa; 13][..], &2_u32.to_le_bytes()].concat();
        tx.atomic(&store.key([b'v', number]), &template, AtomicOp::SetVersionstampedValue);
        tx.commit().await.unwrap().versionstamp.expect("it wrote")
    };
    let mut stamps: Vec<Versionstamp> = Vec::new();
    for number in 0..5 {
        stamps.push(append(number).await);
    }
    assert!(stamps.is_sorted_by(|left, right| left.version() < right.version()));
    // Waiting at the same time, they may share a version, but never a stamp.
    stamps.extend(futures_util::future::join_all((5..40).map(append)).await);
    let rows = store.db.begin().range(RangeQuery::prefix(log.bytes())).collect().await.unwrap();
    assert_eq!(rows.len(), stamps.len());
    let mut in_order = stamps.clone();
    in_order.sort_unstable();
    for (row, stamp) in rows.iter().zip(&in_order) {
        let number = row.value[0];
        assert_eq!(stamps[usize::from(number)], *stamp);
        let key: tuple::Versionstamp = log.unpack(&row.key).unwrap();
        assert_eq!(key, tuple::complete(stamp, 0));
        let value = store.db.begin().get(&store.key([b'v', number])).await.unwrap().unwrap();
        assert_eq!(*value, [&[0xaa; 2][..], stamp.as_bytes(), &[0xaa]].concat());
    }
}

pub(crate) async fn several_stamps_of_one_transaction(store: Store) {
    let log = log(&store);
    let tx = store.db.begin();
    for user_version in [2, 0, 1] {
        let stamp = tuple::Versionstamp::incomplete(user_version);
        let key = log.pack_with_versionstamp(&stamp);
        tx.atomic(&key, &user_version.to_be_bytes(), AtomicOp::SetVersionstampedKey);
    }
    let stamp = tx.commit().await.unwrap().versionstamp.expect("it wrote");
    let rows = store.db.begin().range(RangeQuery::prefix(log.bytes())).collect().await.unwrap();
    let expected: Vec<_> =
        (0_u16..3).map(|user_version| log.pack(&tuple::complete(&stamp, user_version))).collect();
    assert_eq!(rows.iter().map(|row| row.key.to_vec()).collect::<Vec<_>>(), expected);
    // Who reads the log conflicts with who appends to it.
    let reader = store.db.begin();
    reader.range(RangeQuery::prefix(log.bytes())).collect().await.unwrap();
    reader.set(&store.key("other"), b"");
    store
        .write(|tx| {
            let key = log.pack_with_versionstamp(&tuple::Versionstamp::incomplete(0));
            tx.atomic(&key, b"", AtomicOp::SetVersionstampedKey);
        })
        .await;
    assert_eq!(reader.commit().await.map(drop), Err(Error::Conflict));
}

pub(crate) async fn bad_offsets_are_refused(store: Store) {
    let bad = |offset: u32| [store.key("k").as_slice(), &offset.to_le_bytes()].concat();
    for (key, value, op) in [
        (bad(0xffff_fff0), vec![], AtomicOp::SetVersionstampedKey),
        (bad(1), vec![], AtomicOp::SetVersionstampedKey),
        (store.key("k"), vec![1, 0], AtomicOp::SetVersionstampedValue),
        (store.key("k"), [[0; 9].as_slice(), &[0; 4]].concat(), AtomicOp::SetVersionstampedValue),
    ] {
        let tx = store.db.begin();
        tx.set(&store.key("other"), b"");
        tx.atomic(&key, &value, op);
        assert_eq!(tx.commit().await.map(drop), Err(Error::InvalidVersionstampOffset));
    }
    assert_eq!(store.rows().await, [], "nothing of a refused transaction is written");
}
