//! Every way in which what is read and what is written can lie to each other: points and ranges,
//! touching, inside, across, equal and apart.

use futures_util::stream::{self, StreamExt};
use kv::{AtomicOp, Error, Transaction};

use crate::Store;

/// Places between which ranges lie; a point is the place where a range begins.
const PLACES: u8 = 4;

/// Cases that run at the same time.
const AT_ONCE: usize = 32;

/// Places from the first up to but without the second.
#[derive(Debug, Clone, Copy)]
struct Extent(u8, u8);

#[derive(Debug, Clone, Copy)]
enum Read {
    Key,
    Forward,
    Reverse,
    Declared,
    Snapshot,
}

#[derive(Debug, Clone, Copy)]
enum Write {
    Set,
    Clear,
    Add,
    StampedValue,
    ClearRange,
    Declared,
}

fn points() -> impl Iterator<Item = Extent> + Clone {
    (0..PLACES).map(|place| Extent(place, place + 1))
}

fn ranges() -> impl Iterator<Item = Extent> + Clone {
    (0..=PLACES).flat_map(|begin| (begin..=PLACES).map(move |end| Extent(begin, end)))
}

fn reads() -> Vec<(Read, Extent)> {
    let kinds = [Read::Forward, Read::Reverse, Read::Declared, Read::Snapshot];
    let ranged = kinds.into_iter().flat_map(|kind| ranges().map(move |extent| (kind, extent)));
    points().map(|extent| (Read::Key, extent)).chain(ranged).collect()
}

fn writes() -> Vec<(Write, Extent)> {
    let pointed = [Write::Set, Write::Clear, Write::Add, Write::StampedValue];
    let ranged = [Write::ClearRange, Write::Declared];
    pointed
        .into_iter()
        .flat_map(|kind| points().map(move |extent| (kind, extent)))
        .chain(ranged.into_iter().flat_map(|kind| ranges().map(move |extent| (kind, extent))))
        .collect()
}

/// One case's keys.
struct Keys<'a> {
    store: &'a Store,
    case: usize,
}

impl Keys<'_> {
    fn at(&self, place: u8) -> Vec<u8> {
        self.store.key([&self.case.to_be_bytes()[..], &[place]].concat())
    }

    async fn read(&self, tx: &Transaction, read: Read, extent: Extent) {
        let (begin, end) = (self.at(extent.0), self.at(extent.1));
        let query = kv::RangeQuery::new(begin.clone(), end.clone());
        let query = match read {
            Read::Key => return drop(tx.get(&begin).await.unwrap()),
            Read::Declared => return tx.add_read_conflict_range(&begin, &end),
            Read::Forward => query,
            Read::Reverse => query.reverse(),
            Read::Snapshot => query.snapshot(),
        };
        tx.range(query).collect().await.unwrap();
    }

    fn write(&self, tx: &Transaction, write: Write, extent: Extent) {
        let (begin, end) = (self.at(extent.0), self.at(extent.1));
        match write {
            Write::Set => tx.set(&begin, b"new"),
            Write::Clear => tx.clear(&begin),
            Write::Add => tx.atomic(&begin, &[1], AtomicOp::Add),
            Write::StampedValue => {
                tx.atomic(&begin, &[0; 14], AtomicOp::SetVersionstampedValue);
            }
            Write::ClearRange => tx.clear_range(&begin, &end),
            Write::Declared => tx.add_write_conflict_range(&begin, &end),
        }
    }
}

pub(crate) async fn conflicts_are_exactly_the_overlaps(store: Store) {
    let mut cases = Vec::new();
    for read in reads() {
        cases.extend(writes().into_iter().map(|write| (read, write)));
    }
    let store = &store;
    let results =
        stream::iter(cases.into_iter().enumerate()).map(|(case, (read, write))| async move {
            let keys = Keys { store, case };
            // Every second place holds something.
            store
                .write(|tx| {
                    (0..PLACES).step_by(2).for_each(|place| tx.set(&keys.at(place), b"old"))
                })
                .await;
            let reader = store.db.begin();
            reader.read_version().await.unwrap();
            keys.read(&reader, read.0, read.1).await;
            reader.set(&keys.at(99), b"");
            store.write(|tx| keys.write(tx, write.0, write.1)).await;
            let committed = reader.commit().await.map(drop);
            let (Extent(begin, end), Extent(from, to)) = (read.1, write.1);
            let overlap = begin.max(from) < end.min(to) && !matches!(read.0, Read::Snapshot);
            let expected = if overlap { Err(Error::Conflict) } else { Ok(()) };
            assert_eq!(committed, expected, "{read:?} then {write:?}");
            u64::from(overlap)
        });
    let conflicts: u64 =
        results.buffer_unordered(AT_ONCE).fold(0, |sum, one| async move { sum + one }).await;
    assert_eq!(store.db.counts().conflicts, conflicts);
    assert!(conflicts > 500, "{conflicts} overlaps");
}
