//! Ranges that no one transaction could read: by cursor, over several, while others write.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use bytes::Bytes;
use futures_util::future::{join, join_all};
use kv::{Direction, Error, RangeQuery};

use crate::Store;

/// Rows that stay from beginning to end.
const STAYING: u32 = 3000;

fn name(number: u32) -> String {
    format!("{number:06}")
}

/// Reads everything, `rows` rows a transaction, each after a further write; what it saw, in its
/// order.
async fn read_all(
    store: &Store,
    direction: Direction,
    rows: usize,
    writes: &AtomicU32,
) -> Vec<String> {
    let (mut begin, mut end) = (Bytes::from(store.key("")), Bytes::from(store.key("z")));
    let mut seen = Vec::new();
    loop {
        let mut query = RangeQuery::new(begin.clone(), end.clone()).limit(rows).page_bytes(2000);
        if direction == Direction::Reverse {
            query = query.reverse();
        }
        let query = &query;
        let page = store.db.run(|tx| async move { tx.range(query.clone()).collect().await }).await;
        let page = page.unwrap();
        let Some(last) = page.last() else { return seen };
        match direction {
            Direction::Forward => begin = [&last.key[..], &[0]].concat().into(),
            Direction::Reverse => end = last.key.clone(),
        }
        seen.extend(page.iter().map(|row| store.name(&row.key)));
        let written = writes.load(Relaxed);
        while writes.load(Relaxed) == written {
            tokio::task::yield_now().await;
        }
    }
}

pub(crate) async fn a_cursor_misses_none_and_sees_none_twice(store: Store) {
    for part in 0..3 {
        store
            .write(|tx| {
                for number in (part * STAYING / 3)..((part + 1) * STAYING / 3) {
                    tx.set(&store.key(name(number)), b"stays");
                }
            })
            .await;
    }
    let (store, stop, writes) = (&store, &AtomicBool::new(false), &AtomicU32::new(0));
    let writers = (0..4_u32).map(|writer| async move {
        let mut number = writer * 701;
        while !stop.load(Relaxed) {
            number = (number * 7 + 13) % STAYING;
            let (stays, passing) = (store.key(name(number)), store.key(name(number) + "+"));
            let (stays, passing) = (&stays, &passing);
            store
                .db
                .run(|tx| async move {
                    tx.set(stays, b"changed");
                    match tx.get(passing).await? {
                        Some(_) => tx.clear(passing),
                        None => tx.set(passing, b"comes and goes"),
                    }
                    Ok::<_, Error>(())
                })
                .await
                .unwrap();
            writes.fetch_add(1, Relaxed);
        }
    });
    let readers = async {
        for (direction, rows) in
            [(Direction::Forward, 100), (Direction::Reverse, 100), (Direction::Forward, 37)]
        {
            let seen = read_all(store, direction, rows, writes).await;
            let in_order = seen.is_sorted_by(|left, right| match direction {
                Direction::Forward => left < right,
                Direction::Reverse => left > right,
            });
            assert!(in_order, "nothing is seen twice");
            let staying = seen.iter().filter(|name| !name.ends_with('+')).count();
            assert_eq!(staying, STAYING as usize, "nothing is missed");
        }
        stop.store(true, Relaxed);
    };
    join(join_all(writers), readers).await;
}
