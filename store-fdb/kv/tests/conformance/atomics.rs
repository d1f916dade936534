//! Atomic operations, each at the edges of its widths.

use kv::AtomicOp::{
    self, Add, AppendIfFits, BitAnd, BitOr, BitXor, ByteMax, ByteMin, CompareAndClear, Max, Min,
};

use crate::Store;

/// Operation, stored value, operand, result.
type Case = (AtomicOp, Option<&'static [u8]>, &'static [u8], Option<&'static [u8]>);

const CASES: &[Case] = &[
    (Add, None, &[1, 0], Some(&[1, 0])),
    (Add, Some(&[]), &[5], Some(&[5])),
    (Add, Some(&[1]), &[], Some(&[])),
    (Add, Some(&[0xff, 0]), &[1, 0], Some(&[0, 1])),
    (Add, Some(&[0xff, 0xff]), &[1, 0], Some(&[0, 0])),
    (Add, Some(&[0xff]), &[1, 0, 0], Some(&[0, 1, 0])),
    (Add, Some(&[1, 2, 3]), &[1], Some(&[2])),
    (Add, Some(&[0xff, 2, 3]), &[1], Some(&[0])),
    (
        Add,
        Some(&[10, 0, 0, 0, 0, 0, 0, 0]),
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        Some(&[9, 0, 0, 0, 0, 0, 0, 0]),
    ),
    (BitAnd, None, &[0b1100], Some(&[0b1100])),
    (BitAnd, Some(&[]), &[0b1100], Some(&[0])),
    (BitAnd, Some(&[0b1010]), &[0b1100], Some(&[0b1000])),
    (BitAnd, Some(&[0xff]), &[0xff, 0xff], Some(&[0xff, 0])),
    (BitAnd, Some(&[0xff, 0xff]), &[0x0f], Some(&[0x0f])),
    (BitOr, None, &[1], Some(&[1])),
    (BitOr, Some(&[0b1010]), &[0b1100], Some(&[0b1110])),
    (BitOr, Some(&[1]), &[2, 4], Some(&[3, 4])),
    (BitOr, Some(&[1, 9]), &[2], Some(&[3])),
    (BitXor, None, &[1], Some(&[1])),
    (BitXor, Some(&[0b1010]), &[0b1100], Some(&[0b0110])),
    (BitXor, Some(&[1]), &[1, 4], Some(&[0, 4])),
    (BitXor, Some(&[1, 9]), &[2], Some(&[3])),
    (Max, None, &[0], Some(&[0])),
    (Max, Some(&[0, 1]), &[0xff, 0], Some(&[0, 1])),
    (Max, Some(&[0xff]), &[0, 1], Some(&[0, 1])),
    (Max, Some(&[0xff]), &[1, 0], Some(&[0xff, 0])),
    (Max, Some(&[5, 1]), &[4], Some(&[5])),
    (Max, Some(&[3, 1]), &[4], Some(&[4])),
    (Max, Some(&[7]), &[], Some(&[])),
    (Min, None, &[9], Some(&[9])),
    (Min, Some(&[]), &[9], Some(&[0])),
    (Min, Some(&[0, 1]), &[0xff, 0], Some(&[0xff, 0])),
    (Min, Some(&[0xff]), &[0, 1], Some(&[0xff, 0])),
    (Min, Some(&[3, 1]), &[4], Some(&[3])),
    (Min, Some(&[5, 0]), &[4], Some(&[4])),
    (ByteMax, None, b"a", Some(b"a")),
    (ByteMax, Some(b"b"), b"ab", Some(b"b")),
    (ByteMax, Some(b"a"), b"ab", Some(b"ab")),
    (ByteMin, None, b"a", Some(b"a")),
    (ByteMin, Some(b"b"), b"ab", Some(b"ab")),
    (ByteMin, Some(b"a"), b"ab", Some(b"a")),
    (ByteMin, Some(b""), b"ab", Some(b"")),
    (CompareAndClear, None, b"a", None),
    (CompareAndClear, Some(b"a"), b"a", None),
    (CompareAndClear, Some(b"a"), b"ab", Some(b"a")),
    (CompareAndClear, Some(b""), b"", None),
    (AppendIfFits, None, b"a", Some(b"a")),
    (AppendIfFits, Some(b"a"), b"bc", Some(b"abc")),
    (AppendIfFits, Some(b"a"), b"", Some(b"a")),
];

pub(crate) async fn every_operation_at_its_edges(store: Store) {
    for (op, stored, operand, expected) in CASES {
        let case = format!("{op:?} of {operand:?} over {stored:?}");
        let key = store.key("k");
        let lay = |tx: &kv::Transaction| match stored {
            Some(value) => tx.set(&key, value),
            None => tx.clear(&key),
        };
        // Read in the same transaction over the stored value, and applied by the commit.
        store.write(lay).await;
        let tx = store.db.begin();
        tx.atomic(&key, operand, *op);
        assert_eq!(tx.get(&key).await.unwrap().as_deref(), *expected, "{case}, before the commit");
        let rows = tx.range(store.all()).collect().await.unwrap();
        let in_range = rows.first().map(|row| &*row.value);
        assert_eq!(in_range, *expected, "{case}, in a range");
        tx.commit().await.unwrap();
        assert_eq!(store.value("k").await.as_deref(), *expected, "{case}, committed");
        // Without a read, over a value of the same transaction.
        store
            .write(|tx| {
                lay(tx);
                tx.atomic(&key, operand, *op);
            })
            .await;
        assert_eq!(store.value("k").await.as_deref(), *expected, "{case}, over an own write");
    }
    // As long as a value may be, and one byte more.
    let key = store.key("long");
    store.write(|tx| tx.set(&key, &vec![b'x'; kv::limits::VALUE_BYTES_MAX - 1])).await;
    for _ in 0..2 {
        store.write(|tx| tx.atomic(&key, b"y", AppendIfFits)).await;
        let value = store.value("long").await.unwrap();
        assert_eq!((value.len(), value.last()), (kv::limits::VALUE_BYTES_MAX, Some(&b'y')));
    }
}

pub(crate) async fn operations_apply_in_order(store: Store) {
    let key = store.key("k");
    store.write(|tx| tx.set(&key, &[10])).await;
    let tx = store.db.begin();
    tx.atomic(&key, &[5], Add);
    tx.atomic(&key, &[12], Min);
    tx.atomic(&key, &[1], BitOr);
    assert_eq!(tx.get(&key).await.unwrap().as_deref(), Some([13].as_slice()));
    tx.clear(&key);
    tx.atomic(&key, &[7], Add);
    tx.atomic(&key, &[7], CompareAndClear);
    assert_eq!(tx.get(&key).await.unwrap(), None);
    tx.atomic(&key, &[3], Add);
    tx.commit().await.unwrap();
    assert_eq!(store.value("k").await, Some(vec![3]));
}

pub(crate) async fn concurrent_additions_all_count(store: Store) {
    let key = &store.key("sum");
    let before = store.db.counts();
    let adders = (0..64).map(|_| async {
        let tx = store.db.begin();
        tx.atomic(key, &1_u64.to_le_bytes(), Add);
        tx.commit().await.unwrap();
    });
    futures_util::future::join_all(adders).await;
    assert_eq!(store.value("sum").await, Some(64_u64.to_le_bytes().to_vec()));
    assert_eq!((store.db.counts() - before).conflicts, 0, "blind writes never conflict");
}
