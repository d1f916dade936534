//! Which transactions conflict, and which do not.

use kv::{AtomicOp, Error, RangeQuery, Transaction};

use crate::Store;

/// How one transaction reads.
#[derive(Debug, Clone, Copy)]
enum Read {
    Key(&'static str),
    Range(&'static str, &'static str),
    SnapshotKey(&'static str),
    SnapshotRange(&'static str, &'static str),
    Nothing,
}

/// How another writes after that.
#[derive(Debug, Clone, Copy)]
enum Write {
    Set(&'static str),
    Clear(&'static str),
    ClearRange(&'static str, &'static str),
    Add(&'static str),
    Declared(&'static str, &'static str),
}

const CONFLICTING: &[(Read, Write)] = &[
    (Read::Key("b"), Write::Set("b")),
    (Read::Key("b"), Write::Clear("b")),
    (Read::Key("b"), Write::Add("b")),
    (Read::Key("b"), Write::ClearRange("b", "c")),
    (Read::Key("b"), Write::ClearRange("a", "b0")),
    (Read::Key("b"), Write::Declared("a", "c")),
    // A key that is not there was read too.
    (Read::Key("missing"), Write::Set("missing")),
    (Read::Range("b", "d"), Write::Set("b")),
    (Read::Range("b", "d"), Write::Set("c5")),
    (Read::Range("b", "d"), Write::Clear("c")),
    (Read::Range("b", "d"), Write::ClearRange("a", "b0")),
    (Read::Range("b", "d"), Write::ClearRange("c9", "z")),
    (Read::Range("b", "d"), Write::ClearRange("b5", "b6")),
    (Read::Range("b", "d"), Write::ClearRange("a", "z")),
    (Read::Range("b", "d"), Write::Declared("b", "b0")),
];

const PEACEFUL: &[(Read, Write)] = &[
    (Read::Key("b"), Write::Set("a")),
    (Read::Key("b"), Write::Set("b0")),
    (Read::Key("b"), Write::ClearRange("a", "b")),
    (Read::Key("b"), Write::ClearRange("b0", "c")),
    (Read::Range("b", "d"), Write::Set("a")),
    (Read::Range("b", "d"), Write::Set("d")),
    (Read::Range("b", "d"), Write::ClearRange("a", "b")),
    (Read::Range("b", "d"), Write::ClearRange("d", "e")),
    (Read::Range("d", "b"), Write::Set("c")),
    (Read::SnapshotKey("b"), Write::Set("b")),
    (Read::SnapshotRange("b", "d"), Write::Set("c")),
    (Read::Nothing, Write::Set("b")),
];

impl Read {
    async fn perform(self, store: &Store, tx: &Transaction) {
        match self {
            Self::Key(name) => drop(tx.get(&store.key(name)).await.unwrap()),
            Self::SnapshotKey(name) => drop(tx.get_snapshot(&store.key(name)).await.unwrap()),
            Self::Range(begin, end) => {
                drop(tx.range(store.range(begin, end)).collect().await.unwrap());
            }
            Self::SnapshotRange(begin, end) => {
                drop(tx.range(store.range(begin, end).snapshot()).collect().await.unwrap());
            }
            Self::Nothing => {}
        }
    }
}

impl Write {
    fn perform(self, store: &Store, tx: &Transaction) {
        match self {
            Self::Set(name) => tx.set(&store.key(name), b"new"),
            Self::Clear(name) => tx.clear(&store.key(name)),
            Self::ClearRange(begin, end) => tx.clear_range(&store.key(begin), &store.key(end)),
            Self::Add(name) => tx.atomic(&store.key(name), &[1], AtomicOp::Add),
            Self::Declared(begin, end) => {
                tx.add_write_conflict_range(&store.key(begin), &store.key(end));
            }
        }
    }
}

pub(crate) async fn exactly_the_overlapping_ones(store: Store) {
    let conflicting = CONFLICTING.iter().map(|case| (case, Err(Error::Conflict)));
    let peaceful = PEACEFUL.iter().map(|case| (case, Ok(())));
    for ((read, write), expected) in conflicting.chain(peaceful) {
        store.fill(&[("a", "1"), ("b", "1"), ("c", "1"), ("d", "1")]).await;
        let reader = store.db.begin();
        reader.read_version().await.unwrap();
        read.perform(&store, &reader).await;
        reader.set(&store.key("other"), b"");
        store.write(|writer| write.perform(&store, writer)).await;
        let committed = reader.commit().await.map(drop);
        assert_eq!(committed, expected, "{read:?} then {write:?}");
    }
    assert_eq!(store.db.counts().conflicts, CONFLICTING.len() as u64);
}

/// Reads with `query`, lets another write `name`, and commits.
async fn check_range(store: &Store, query: RangeQuery, name: &str, expected: Result<(), Error>) {
    store.fill(&[("a", ""), ("b", ""), ("c", ""), ("d", "")]).await;
    let tx = store.db.begin();
    tx.range(query.clone()).next_page().await.unwrap();
    tx.set(&store.key("other"), b"");
    store.fill(&[(name, "new")]).await;
    assert_eq!(tx.commit().await.map(drop), expected, "{query:?}, {name}");
    store.write(|tx| tx.clear_range(&store.key("a"), &store.key("z"))).await;
}

pub(crate) async fn a_limited_range_conflicts_where_it_read(store: Store) {
    let forward = || store.range("a", "e").limit(2);
    let reverse = || store.range("a", "e").limit(2).reverse();
    check_range(&store, forward(), "a5", Err(Error::Conflict)).await;
    check_range(&store, forward(), "b", Err(Error::Conflict)).await;
    check_range(&store, forward(), "b0", Ok(())).await;
    check_range(&store, forward(), "d", Ok(())).await;
    check_range(&store, reverse(), "c", Err(Error::Conflict)).await;
    check_range(&store, reverse(), "d5", Err(Error::Conflict)).await;
    check_range(&store, reverse(), "b5", Ok(())).await;
    check_range(&store, reverse(), "a", Ok(())).await;
}

pub(crate) async fn own_writes_are_read_without_conflict(store: Store) {
    let key = |name: &str| store.key(name);
    store.fill(&[("a", "1"), ("b", "1"), ("c", "1")]).await;
    // Values that the transaction determined itself, by every way.
    let tx = store.db.begin();
    tx.read_version().await.unwrap();
    tx.set(&key("a"), b"own");
    tx.clear(&key("b"));
    tx.atomic(&key("b"), &[1], AtomicOp::Add);
    tx.clear_range(&key("c"), &key("d"));
    for name in ["a", "b", "c", "c5"] {
        tx.get(&key(name)).await.unwrap();
    }
    assert_eq!(tx.range(store.range("c", "d")).collect().await.unwrap(), []);
    store.fill(&[("a", "2"), ("b", "2"), ("c", "2"), ("c5", "2")]).await;
    tx.commit().await.unwrap();
    assert_eq!(store.rows().await, [("a".into(), "own".into()), ("b".into(), "\x01".into())]);
    // An atomic operation alone does not read, but reading its result does.
    for (reads, expected) in [(false, Ok(())), (true, Err(Error::Conflict))] {
        let tx = store.db.begin();
        tx.read_version().await.unwrap();
        tx.atomic(&key("b"), &[1], AtomicOp::Add);
        if reads {
            tx.get(&key("b")).await.unwrap();
        }
        store.fill(&[("b", "x")]).await;
        assert_eq!(tx.commit().await.map(drop), expected);
    }
    // A range over an own key still reads what is around it.
    let tx = store.db.begin();
    tx.set(&key("m"), b"");
    tx.range(store.range("l", "n")).collect().await.unwrap();
    store.fill(&[("l5", "")]).await;
    assert_eq!(tx.commit().await.map(drop), Err(Error::Conflict));
    let tx = store.db.begin();
    tx.set(&key("m"), b"");
    tx.range(store.range("l", "n")).collect().await.unwrap();
    store.fill(&[("m", "other")]).await;
    tx.commit().await.unwrap();
    // And with a limit, only up to the row that met it.
    for (name, expected) in [("p2", Ok(())), ("p0", Err(Error::Conflict))] {
        store.fill(&[("p2", "1")]).await;
        let tx = store.db.begin();
        tx.set(&key("p1"), b"own");
        let rows = tx.range(store.range("p", "q").limit(1)).collect().await.unwrap();
        assert_eq!(store.named(&rows), [("p1".into(), "own".into())]);
        store.fill(&[(name, "2")]).await;
        assert_eq!(tx.commit().await.map(drop), expected, "{name}");
        store.write(|tx| tx.clear(&key("p1"))).await;
    }
}

pub(crate) async fn declared_conflicts_count(store: Store) {
    let key = |name: &str| store.key(name);
    let tx = store.db.begin();
    tx.read_version().await.unwrap();
    tx.add_read_conflict_key(&key("a"));
    tx.set(&key("other"), b"");
    store.fill(&[("a", "")]).await;
    assert_eq!(tx.commit().await.map(drop), Err(Error::Conflict));

    let reader = store.db.begin();
    reader.get(&key("a")).await.unwrap();
    reader.set(&key("other"), b"");
    let declares = store.db.begin();
    declares.add_write_conflict_key(&key("a"));
    assert!(declares.commit().await.unwrap().versionstamp.is_some());
    assert_eq!(reader.commit().await.map(drop), Err(Error::Conflict));

    // Who only reads has nothing to lose.
    let reader = store.db.begin();
    reader.get(&key("a")).await.unwrap();
    store.fill(&[("a", "again")]).await;
    assert_eq!(reader.commit().await.unwrap().versionstamp, None);
}

pub(crate) async fn write_skew_is_refused(store: Store) {
    let (left, right) = (store.db.begin(), store.db.begin());
    for tx in [&left, &right] {
        assert_eq!(tx.range(store.range("a", "c")).collect().await.unwrap(), []);
    }
    left.set(&store.key("a"), b"");
    right.set(&store.key("b"), b"");
    let (left, right) = futures_util::future::join(left.commit(), right.commit()).await;
    let refused = [left, right].into_iter().filter_map(Result::err).collect::<Vec<_>>();
    assert_eq!(refused, [Error::Conflict], "exactly one of them");
}
