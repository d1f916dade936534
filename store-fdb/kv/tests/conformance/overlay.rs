//! Read-your-writes, against a model.

use std::collections::BTreeMap;

use kv::{AtomicOp, Error, RangeQuery, Transaction, tuple};
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};

use crate::Store;

#[derive(Debug, Clone)]
enum Step {
    Set(u8, u8),
    Clear(u8),
    ClearRange(u8, u8),
    Add(u8, u8),
    CompareAndClear(u8, u8),
    Get(u8),
    Range {
        begin: u8,
        end: u8,
        limit: usize,
        reverse: bool,
        page_bytes: usize,
    },
    /// One of the ranges that were asked for ahead.
    Ahead(u8),
}

const KEYS: u8 = 12;

fn step() -> impl Strategy<Value = Step> {
    let range = (0..KEYS, 0..=KEYS, 1_usize..8, any::<bool>(), 1_usize..60).prop_map(
        |(begin, end, limit, reverse, page_bytes)| Step::Range {
            begin,
            end,
            limit,
            reverse,
            page_bytes,
        },
    );
    prop_oneof![
        (0..KEYS, 0_u8..4).prop_map(|(key, value)| Step::Set(key, value)),
        (0..KEYS).prop_map(Step::Clear),
        (0..KEYS, 0_u8..4)
            .prop_map(|(begin, length)| Step::ClearRange(begin, (begin + length).min(KEYS))),
        (0..KEYS, 0_u8..4).prop_map(|(key, value)| Step::Add(key, value)),
        (0..KEYS, 0_u8..4).prop_map(|(key, value)| Step::CompareAndClear(key, value)),
        (0..KEYS).prop_map(Step::Get),
        range,
        (0..KEYS / AHEAD).prop_map(Step::Ahead),
    ]
}

/// Keys of a range that is asked for ahead.
const AHEAD: u8 = 3;

fn ahead(store: &Store, number: u8) -> RangeQuery {
    let (begin, end) = (store.key([number * AHEAD]), store.key([(number + 1) * AHEAD]));
    let query = RangeQuery::new(begin, end).limit(2);
    if number == 0 { query.reverse() } else { query }
}

type Model = BTreeMap<u8, u8>;

/// Does one step to both, and compares what a reading step sees.
async fn check_step(store: &Store, tx: &Transaction, model: &mut Model, step: &Step) {
    let key = |number: u8| store.key([number]);
    match *step {
        Step::Set(number, value) => {
            tx.set(&key(number), &[value]);
            model.insert(number, value);
        }
        Step::Clear(number) => {
            tx.clear(&key(number));
            model.remove(&number);
        }
        Step::ClearRange(begin, end) => {
            tx.clear_range(&key(begin), &key(end));
            model.retain(|number, _| !(begin..end).contains(number));
        }
        Step::Add(number, value) => {
            tx.atomic(&key(number), &[value], AtomicOp::Add);
            let sum = model.get(&number).map_or(value, |stored| stored.wrapping_add(value));
            model.insert(number, sum);
        }
        Step::CompareAndClear(number, value) => {
            tx.atomic(&key(number), &[value], AtomicOp::CompareAndClear);
            if model.get(&number) == Some(&value) {
                model.remove(&number);
            }
        }
        Step::Get(number) => {
            let value = tx.get(&key(number)).await.unwrap().map(|value| value[0]);
            assert_eq!(value, model.get(&number).copied(), "{step:?}");
        }
        Step::Range { begin, end, limit, reverse, page_bytes } => {
            let mut query =
                RangeQuery::new(key(begin), key(end)).limit(limit).page_bytes(page_bytes);
            if reverse {
                query = query.reverse();
            }
            let rows = tx.range(query).collect().await.unwrap();
            let rows: Vec<_> =
                rows.iter().map(|row| (*row.key.last().unwrap(), row.value[0])).collect();
            let inside = model.range(begin..end.max(begin)).map(|(key, value)| (*key, *value));
            let expected: Vec<_> = if reverse {
                inside.rev().take(limit).collect()
            } else {
                inside.take(limit).collect()
            };
            assert_eq!(rows, expected, "{step:?}");
        }
        Step::Ahead(number) => {
            let rows = tx.range(ahead(store, number)).collect().await.unwrap();
            let rows: Vec<u8> = rows.iter().map(|row| row.value[0]).collect();
            let inside = model.range(number * AHEAD..(number + 1) * AHEAD).map(|(_, value)| *value);
            let expected: Vec<u8> =
                if number == 0 { inside.rev().take(2).collect() } else { inside.take(2).collect() };
            assert_eq!(rows, expected, "{step:?}");
        }
    }
}

/// Random transactions over what the earlier ones left.
pub(crate) async fn reads_agree_with_a_model(store: Store) {
    let mut runner = TestRunner::default();
    let mut model = Model::new();
    for round in 0..150 {
        let steps = proptest::collection::vec(step(), 1..25).new_tree(&mut runner).unwrap();
        let steps = steps.current();
        let tx = store.db.begin();
        if round % 2 == 0 {
            let list = |list: &mut kv::Prefetch| {
                (0..KEYS).for_each(|number| list.key(store.key([number])));
                (0..KEYS / AHEAD).for_each(|number| list.range(ahead(&store, number)));
            };
            tx.prefetch(list).await.unwrap();
        }
        for step in &steps {
            check_step(&store, &tx, &mut model, step).await;
        }
        tx.commit().await.unwrap();
        let rows = store.db.begin().range(store.all()).collect().await.unwrap();
        let rows: Model = rows.iter().map(|row| (*row.key.last().unwrap(), row.value[0])).collect();
        assert_eq!(rows, model, "committed after {steps:?}");
    }
}

/// Reading ahead changes neither what is seen nor what conflicts.
pub(crate) async fn what_is_read_ahead_is_of_one_moment_and_conflicts(store: Store) {
    store.fill(&[("a", "old"), ("b1", "old")]).await;
    for (changed, expected) in
        [("a", Err(Error::Conflict)), ("b2", Err(Error::Conflict)), ("c", Ok(()))]
    {
        let tx = store.db.begin();
        tx.read_version().await.unwrap();
        let list = |list: &mut kv::Prefetch| {
            list.key(store.key("a"));
            list.range(store.range("b", "c"));
        };
        tx.prefetch(list).await.unwrap();
        let before = store.value(changed).await;
        store.fill(&[(changed, "new")]).await;
        for _ in 0..2 {
            let seen = tx.get(&store.key("a")).await.unwrap();
            if changed == "a" {
                assert_eq!(seen.map(|value| value.to_vec()), before);
            }
            let rows = tx.range(store.range("b", "c")).collect().await.unwrap();
            assert_eq!(store.named(&rows), [("b1".into(), "old".into())]);
        }
        tx.set(&store.key("z"), b"");
        assert_eq!(tx.commit().await.map(drop), expected, "{changed}");
        store.write(|tx| tx.clear(&store.key("b2"))).await;
    }
    let tx = store.db.begin();
    let refused = tx.prefetch(|list| list.key(b"\xff".to_vec())).await;
    assert!(matches!(refused, Ok(()) | Err(Error::KeyOutsideLegalRange)));
}

pub(crate) async fn uncommitted_stamps_cannot_be_read(store: Store) {
    let unreadable = Err(Error::AccessedUnreadable);
    let stamped = tuple::Subspace::from_bytes(store.key("log"))
        .pack_with_versionstamp(&tuple::Versionstamp::incomplete(0));
    let template = [&[0; 10][..], &0_u32.to_le_bytes()].concat();

    let tx = store.db.begin();
    let list = |list: &mut kv::Prefetch| {
        list.key(store.key("v"));
        list.range(store.range("u", "w"));
    };
    tx.prefetch(list).await.unwrap();
    tx.atomic(&store.key("v"), &template, AtomicOp::SetVersionstampedValue);
    assert_eq!(tx.get(&store.key("v")).await, unreadable);
    assert_eq!(
        tx.range(store.range("u", "w")).collect().await.map(drop),
        unreadable.clone().map(drop)
    );
    assert_eq!(tx.range(store.range("w", "z")).collect().await, Ok(vec![]));
    assert_eq!(tx.get(&store.key("v0")).await, Ok(None));
    tx.clear(&store.key("v"));
    assert_eq!(tx.get(&store.key("v")).await, Ok(None), "a clear makes it readable");

    let tx = store.db.begin();
    tx.atomic(&stamped, b"entry", AtomicOp::SetVersionstampedKey);
    let log = RangeQuery::prefix(&store.key("log"));
    assert_eq!(tx.range(log.clone()).collect().await.map(drop), unreadable.clone().map(drop));
    assert_eq!(tx.range(store.range("m", "z")).collect().await, Ok(vec![]));
    let reverse = tx.range(log.reverse().limit(1)).collect().await;
    assert_eq!(reverse.map(drop), unreadable.clone().map(drop));
    // A read that failed makes the commit fail as well, read-only or not.
    assert_eq!(tx.commit().await.map(drop), unreadable.clone().map(drop));
    assert_eq!(store.rows().await, []);
}

/// What a range read over own versionstamped writes gives, and what it does not.
pub(crate) async fn ranges_stop_before_uncommitted_stamps(store: Store) {
    let unreadable = Err(Error::AccessedUnreadable);
    let stamped = tuple::Subspace::from_bytes(store.key("m"))
        .pack_with_versionstamp(&tuple::Versionstamp::incomplete(0));
    store.fill(&[("a", "1"), ("b", "2"), ("x", "3"), ("y", "4")]).await;
    let names = |names: &[&str]| Ok(names.iter().map(ToString::to_string).collect::<Vec<_>>());
    // What is stamped, the range, its limit, whether from its end, and what comes.
    let cases = [
        ("key", ("a", "z"), 1, false, names(&["a"])),
        ("key", ("a", "z"), 2, false, names(&["a", "b"])),
        ("key", ("a", "z"), 3, false, unreadable.clone()),
        ("key", ("a", "z"), 1, true, names(&["y"])),
        ("key", ("a", "z"), 2, true, names(&["y", "x"])),
        ("key", ("a", "z"), 3, true, unreadable.clone()),
        ("key", ("a", "m"), 9, false, names(&["a", "b"])),
        ("key", ("n", "z"), 9, false, names(&["x", "y"])),
        ("value", ("a", "z"), 1, false, names(&["a"])),
        ("value", ("a", "z"), 2, false, unreadable.clone()),
        ("value", ("a", "b"), 9, false, names(&["a"])),
        ("value", ("a", "z"), 2, true, names(&["y", "x"])),
        ("value", ("a", "z"), 3, true, unreadable),
    ];
    for (what, (begin, end), limit, from_end, expected) in cases {
        for snapshot in [false, true] {
            let tx = store.db.begin();
            match what {
                "key" => tx.atomic(&stamped, b"entry", AtomicOp::SetVersionstampedKey),
                _ => tx.atomic(&store.key("b"), &[0; 14], AtomicOp::SetVersionstampedValue),
            }
            let mut query = store.range(begin, end).limit(limit);
            if from_end {
                query = query.reverse();
            }
            if snapshot {
                query = query.snapshot();
            }
            let case = format!("{what} {begin}..{end} {limit} {from_end} {snapshot}");
            let got = tx.range(query).collect().await;
            let got = got.map(|rows| rows.iter().map(|row| store.name(&row.key)).collect());
            assert_eq!(got, expected, "{case}");
            let committed = tx.commit().await.map(drop);
            assert_eq!(committed, expected.clone().map(drop), "{case}");
            store.write(|tx| tx.clear_range(&store.key("m"), &store.key("n"))).await;
            store.fill(&[("b", "2")]).await;
        }
    }
}

/// Mutations over a versionstamped value of the same transaction.
pub(crate) async fn only_a_clear_makes_a_stamped_value_readable(store: Store) {
    let key = &store.key("v");
    let lay = || {
        let tx = store.db.begin();
        tx.atomic(key, &[0; 14], AtomicOp::SetVersionstampedValue);
        tx
    };
    let unreadable = Err(Error::AccessedUnreadable);
    let tx = lay();
    tx.set(key, b"set");
    assert_eq!(tx.get(key).await, unreadable);
    let tx = lay();
    tx.atomic(key, &[1], AtomicOp::Add);
    assert_eq!(tx.get(key).await, unreadable);
    let tx = lay();
    tx.clear(key);
    tx.atomic(key, &[1], AtomicOp::Add);
    assert_eq!(tx.get(key).await.unwrap().as_deref(), Some([1].as_slice()));
    let tx = lay();
    tx.clear_range(key, &store.key("w"));
    tx.set(key, b"set");
    assert_eq!(tx.get(key).await.unwrap().as_deref(), Some(b"set".as_slice()));
    tx.commit().await.unwrap();
    // What cannot be read is written all the same: the last write wins.
    let tx = lay();
    tx.set(key, b"last");
    tx.commit().await.unwrap();
    assert_eq!(store.value("v").await.as_deref(), Some(b"last".as_slice()));
    let tx = lay();
    tx.atomic(key, b"!", AtomicOp::AppendIfFits);
    let stamp = tx.commit().await.unwrap().versionstamp.expect("it wrote");
    assert_eq!(store.value("v").await, Some([stamp.as_bytes(), b"!".as_slice()].concat()));
}
