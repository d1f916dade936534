//! Many at once: invariants that only strict serializability keeps.

use futures_util::future::{join, join_all};
use kv::{Error, RangePages};

use crate::Store;

const ACCOUNTS: u64 = 5;
const EACH: u64 = 100;

fn number(bytes: Option<impl AsRef<[u8]>>) -> u64 {
    bytes.map_or(0, |bytes| u64::from_le_bytes(bytes.as_ref().try_into().unwrap()))
}

fn name(account: u64) -> String {
    format!("{account}")
}

async fn sum(mut range: RangePages) -> Result<u64, Error> {
    let mut sum = 0;
    while let Some(page) = range.next_page().await? {
        sum += page.iter().map(|row| number(Some(&row.value))).sum::<u64>();
    }
    Ok(sum)
}

pub(crate) async fn transfers_keep_the_sum(store: Store) {
    store
        .write(|tx| {
            for account in 0..ACCOUNTS {
                tx.set(&store.key(name(account)), &EACH.to_le_bytes());
            }
        })
        .await;
    let store = &store;
    let transfers = (0_u64..8).map(|task| async move {
        for round in 0..15 {
            let from = &store.key(name((task + round) % ACCOUNTS));
            let to = &store.key(name((task * 3 + round * 7 + 1) % ACCOUNTS));
            let amount = (task + round) % 9;
            store
                .db
                .run(|tx| async move {
                    let available = number(tx.get(from).await?);
                    let taken = amount.min(available);
                    tx.set(from, &(available - taken).to_le_bytes());
                    // Read after the write: both may be the same account.
                    let there = number(tx.get(to).await?);
                    tx.set(to, &(there + taken).to_le_bytes());
                    Ok::<_, Error>(())
                })
                .await
                .unwrap();
        }
    });
    let audits = (0..8).map(|_| async move {
        for _ in 0..10 {
            let audit =
                |tx: kv::Transaction| async move { sum(tx.range(store.all().page_bytes(1))).await };
            assert_eq!(store.db.run(audit).await, Ok(ACCOUNTS * EACH));
        }
    });
    join(join_all(transfers), join_all(audits)).await;
    assert_eq!(sum(store.db.begin().range(store.all())).await, Ok(ACCOUNTS * EACH));
}

/// Every increment gets a number of its own, as UIDs do.
pub(crate) async fn unique_counters_lose_nothing(store: Store) {
    let key = &store.key("next");
    let store = &store;
    let tasks = (0..12).map(|_| async move {
        let mut drawn = Vec::new();
        for _ in 0..10 {
            let draw = store.db.run(|tx| async move {
                let next = number(tx.get(key).await?);
                tx.set(key, &(next + 1).to_le_bytes());
                Ok::<_, Error>(next)
            });
            drawn.push(draw.await.unwrap());
        }
        assert!(drawn.is_sorted(), "one task's numbers ascend");
        drawn
    });
    let mut drawn = join_all(tasks).await.concat();
    drawn.sort_unstable();
    assert_eq!(drawn, (0..120).collect::<Vec<_>>());
}

/// What one transaction writes together is seen together, at any read version.
pub(crate) async fn readers_see_whole_batches(store: Store) {
    let store = &store;
    let writers = (0_u8..8).map(|writer| async move {
        for round in 0..10 {
            store
                .write(|tx| {
                    for part in 0..5 {
                        tx.set(&store.key([writer, part]), &[round]);
                    }
                })
                .await;
        }
    });
    let readers = (0..4).map(|_| async move {
        let mut last = 0;
        for _ in 0..20 {
            let tx = store.db.begin();
            let version = tx.read_version().await.unwrap();
            assert!(version >= last);
            last = version;
            let rows = tx.range(store.all().page_bytes(1)).collect().await.unwrap();
            for chunk in rows.chunks(5) {
                assert_eq!(chunk.len(), 5);
                assert!(chunk.iter().all(|row| row.value == chunk[0].value));
            }
        }
    });
    join(join_all(writers), join_all(readers)).await;
}
