//! Ranges: pages, limits, directions.

use kv::{KeyValue, RangePages};

use crate::Store;

async fn pages(mut range: RangePages) -> Vec<Vec<KeyValue>> {
    let mut pages = Vec::new();
    while let Some(page) = range.next_page().await.unwrap() {
        assert!(!page.is_empty(), "a page holds at least one row");
        pages.push(page);
    }
    assert_eq!(range.next_page().await, Ok(None), "an end stays an end");
    pages
}

pub(crate) async fn pages_in_both_directions(store: Store) {
    let names: Vec<String> = (0..100).map(|number| format!("{number:03}")).collect();
    store
        .write(|tx| {
            for name in &names {
                tx.set(&store.key(name), name.as_bytes());
            }
        })
        .await;
    for page_bytes in [1, 50, 1000, 1_000_000] {
        let tx = store.db.begin();
        let read = |query| async { pages(tx.range(query)).await.concat() };
        let forward = read(store.all().page_bytes(page_bytes)).await;
        let forward: Vec<_> = forward.iter().map(|row| store.name(&row.key)).collect();
        assert_eq!(forward, names);
        let reverse = read(store.all().page_bytes(page_bytes).reverse()).await;
        let reverse: Vec<_> = reverse.iter().rev().map(|row| store.name(&row.key)).collect();
        assert_eq!(reverse, names);
        let part = read(store.range("010", "020").page_bytes(page_bytes)).await;
        assert_eq!(store.named(&part).len(), 10);
    }
}

pub(crate) async fn limits_and_page_sizes(store: Store) {
    store.fill(&[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")]).await;
    let tx = store.db.begin();
    // Own writes in the middle of what is stored.
    tx.clear(&store.key("b"));
    tx.set(&store.key("bb"), b"own");
    tx.set(&store.key("z"), b"own");
    for (limit, forward, reverse) in [
        (0, vec![], vec![]),
        (1, vec!["a"], vec!["z"]),
        (3, vec!["a", "bb", "c"], vec!["z", "d", "c"]),
        (5, vec!["a", "bb", "c", "d", "z"], vec!["z", "d", "c", "bb", "a"]),
        (9, vec!["a", "bb", "c", "d", "z"], vec!["z", "d", "c", "bb", "a"]),
    ] {
        let names = |rows: Vec<KeyValue>| -> Vec<String> {
            rows.iter().map(|row| store.name(&row.key)).collect()
        };
        let query = || store.all().limit(limit);
        assert_eq!(names(tx.range(query()).collect().await.unwrap()), forward);
        assert_eq!(names(tx.range(query().reverse()).collect().await.unwrap()), reverse);
        let small = query().page_bytes(1);
        assert_eq!(names(tx.range(small).collect().await.unwrap()), forward);
    }
    assert_eq!(tx.range(store.range("c", "c")).collect().await, Ok(vec![]));
    assert_eq!(tx.range(store.range("d", "a")).collect().await, Ok(vec![]));
}

pub(crate) async fn a_large_range_comes_in_bounded_pages(store: Store) {
    const ROWS: usize = 3000;
    for part in 0..3 {
        store
            .write(|tx| {
                for number in (part * ROWS / 3)..((part + 1) * ROWS / 3) {
                    tx.set(&store.key(format!("{number:06}")), &[7; 1000]);
                }
            })
            .await;
    }
    let tx = store.db.begin();
    let pages = pages(tx.range(store.all())).await;
    assert!(pages.len() > 10, "{} pages", pages.len());
    for page in &pages {
        let bytes: usize = page.iter().map(|row| row.key.len() + row.value.len()).sum();
        assert!(bytes < 4 * kv::limits::PAGE_BYTES_DEFAULT, "a page of {bytes} bytes");
    }
    let rows = pages.concat();
    assert_eq!(rows.len(), ROWS);
    assert!(rows.is_sorted_by(|left, right| left.key < right.key));
    store.write(|tx| tx.clear_range(&store.key("0"), &store.key("9"))).await;
    assert_eq!(store.rows().await, []);
}
