use bytes::Bytes;

use super::*;
use crate::{
    BlobFaults, BlobHash, ObjectId,
    limits::{BLOB_BYTES_MAX, CHUNK_BYTES},
    testing::cut_off,
    tree::{self, ChainingValue},
};

/// A store over a map in memory, and the map.
async fn store() -> (BlobStore, LargeValues) {
    let env = Env::system();
    let values = LargeValues::memory(env.clone());
    (BlobStore::embedded(values.clone(), env).await.unwrap(), values)
}

/// A store of each backend, and what has to stay as long as it.
async fn stores() -> Vec<(BlobStore, Box<dyn std::any::Any>)> {
    let (embedded, values) = store().await;
    #[cfg_attr(not(feature = "s3"), expect(unused_mut, reason = "there is no other"))]
    let mut stores: Vec<(_, Box<dyn std::any::Any>)> = vec![(embedded, Box::new(values))];
    #[cfg(feature = "s3")]
    {
        let server = crate::s3::tests::server::Server::start().await;
        stores.push((server.store().await, Box::new(server)));
        let (server, folder) =
            (crate::s3::tests::server::Server::start().await, tempfile::tempdir().unwrap());
        // Too small for everything: it is always at work.
        let cache = crate::s3::CacheSettings {
            folder: folder.path().join("cache"),
            bytes_max: 600_000,
            files_max: 3,
        };
        stores.push((server.cached(cache).await, Box::new((server, folder))));
    }
    stores
}

fn bytes(len: usize) -> Vec<u8> {
    // No period of the chunk's length: chunks differ from each other.
    (0..len).map(|i| u8::try_from((i / 251 + i * 7) % 256).unwrap()).collect()
}

const LENGTHS: [usize; 8] = [
    0,
    1,
    CHUNK_BYTES - 1,
    CHUNK_BYTES,
    CHUNK_BYTES + 1,
    2 * CHUNK_BYTES,
    2 * CHUNK_BYTES + 1,
    5 * CHUNK_BYTES - 3,
];

/// A name for bytes that were not put.
fn name(bytes: &[u8]) -> BlobId {
    BlobId::new(ObjectId::draw(&Env::system()), BlobHash::of(bytes))
}

async fn keys(values: &LargeValues, prefix: &[u8]) -> Vec<Bytes> {
    values.scan_prefix(prefix, None, 1_000).await.unwrap()
}

async fn all_keys(values: &LargeValues) -> usize {
    keys(values, b"h").await.len() + keys(values, b"d").await.len() + keys(values, b"s").await.len()
}

async fn read(store: &BlobStore, id: BlobId, range: Range<u64>) -> Result<Vec<u8>, BlobError> {
    store.read_to_vec(id, range, usize::MAX).await
}

#[tokio::test]
async fn every_range_of_every_length_comes_back() {
    for (store, _kept) in stores().await {
        for len in LENGTHS {
            check_ranges(&store, len).await;
        }
    }
    let (store, values) = store().await;
    store.put(&bytes(2 * CHUNK_BYTES)).await.unwrap();
    assert_eq!(keys(&values, b"s").await, [] as [Bytes; 0], "no upload is left open");
}

async fn check_ranges(store: &BlobStore, len: usize) {
    let whole = bytes(len);
    let id = store.put(&whole).await.unwrap();
    assert_eq!(id.hash(), BlobHash::of(&whole));
    let edges = [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, len / 2, len, len + 9];
    for start in edges {
        for end in edges.into_iter().chain([usize::MAX]) {
            let range = to_u64(start)..to_u64(end);
            let expected = whole.get(start.min(len)..end.min(len)).map_or(&[][..], |range| range);
            let reader = store.read(id, range.clone()).await.unwrap();
            assert_eq!(reader.remaining(), to_u64(expected.len()), "{len}: {range:?}");
            let found = read(store, id, range.clone()).await.unwrap();
            assert!(found == expected, "{len}: {range:?}");
        }
    }
}

#[tokio::test]
async fn the_way_the_bytes_come_does_not_matter() {
    for (store, _kept) in stores().await {
        let whole = bytes(3 * CHUNK_BYTES + 5);
        for step in [1_000, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES + 1] {
            let mut writer = store.writer();
            for piece in whole.chunks(step) {
                writer.write(piece).await.unwrap();
                assert!(writer.buffer.len() <= CHUNK_BYTES, "one chunk of memory at most");
            }
            assert_eq!(writer.size(), to_u64(whole.len()));
            let id = writer.finish().await.unwrap();
            assert_eq!(id.hash(), BlobHash::of(&whole), "{step}");
            assert!(read(&store, id, 0..u64::MAX).await.unwrap() == whole);
        }
    }
}

#[tokio::test]
async fn every_backend_puts_lists_and_removes_alike() {
    for (store, _kept) in stores().await {
        let mut names = Vec::new();
        for len in [0, 1, CHUNK_BYTES + 1, 5, 6, 7] {
            let (first, second) =
                (store.put(&bytes(len)).await.unwrap(), store.put(&bytes(len)).await.unwrap());
            assert!(first != second && first.hash() == second.hash());
            names.extend([BlobName::of(&first), BlobName::of(&second)]);
            assert_eq!(store.verify(first).await.unwrap(), to_u64(len));
        }
        names.sort_unstable();
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = store.list(after.as_ref(), 5).await.unwrap();
            assert!(page.names.len() <= 5);
            found.extend(page.names);
            let Some(next) = page.next else { break };
            after = Some(next);
        }
        assert_eq!(found, names);
        for (index, name) in names.iter().enumerate() {
            let page = store.list(store.cursor_before(name).as_ref(), 100).await.unwrap();
            assert_eq!(page.names, names[index..]);
            assert!(store.exists(name).await.unwrap());
            store.remove(name).await.unwrap();
            store.remove(name).await.unwrap();
            assert!(!store.exists(name).await.unwrap());
        }
        let missing = name(b"never put");
        let found = read(&store, missing, 0..1).await;
        assert!(matches!(found, Err(BlobError::Missing(id)) if id == missing));
        let mut writer = store.writer();
        writer.size = BLOB_BYTES_MAX;
        assert!(matches!(writer.write(b"x").await, Err(BlobError::TooLarge)));
        let id = store.put(&bytes(100)).await.unwrap();
        let refused = store.read_to_vec(id, 0..100, 99).await;
        assert!(matches!(refused, Err(BlobError::TooLarge)));
        let counts = store.counts();
        assert_eq!((counts.puts, counts.bytes_written), (13, 2 * (to_u64(CHUNK_BYTES) + 20) + 100));
    }
}

#[tokio::test]
async fn a_reader_holds_one_chunk_and_counts_add_up() {
    let (store, _) = store().await;
    let whole = bytes(2 * CHUNK_BYTES + 10);
    let id = store.put(&whole).await.unwrap();
    let mut reader = store.read(id, 5..to_u64(whole.len())).await.unwrap();
    let mut sizes = Vec::new();
    while let Some(piece) = reader.next().await.unwrap() {
        sizes.push(piece.len());
    }
    assert_eq!(sizes, [CHUNK_BYTES - 5, CHUNK_BYTES, 10]);
    let small = store.put(b"small").await.unwrap();
    assert_eq!(read(&store, small, 1..3).await.unwrap(), b"ma");
    let expected = BlobCounts {
        puts: 2,
        reads: 2,
        bytes_written: to_u64(whole.len()) + 5,
        bytes_read: to_u64(whole.len()) - 5 + 2,
    };
    assert_eq!(store.counts(), expected);
    let refused = store.read_to_vec(id, 0..100, 99).await;
    assert!(matches!(refused, Err(BlobError::TooLarge)));
    let missing = name(b"never put");
    assert!(
        matches!(read(&store, missing, 0..1).await, Err(BlobError::Missing(id)) if id == missing)
    );
}

#[tokio::test]
async fn more_than_the_largest_blob_is_refused_without_being_kept() {
    let (store, values) = store().await;
    let mut writer = store.writer();
    writer.size = BLOB_BYTES_MAX - 1;
    writer.write(b"x").await.unwrap();
    assert!(matches!(writer.write(b"x").await, Err(BlobError::TooLarge)));
    drop(writer);
    assert_eq!(all_keys(&values).await, 0);
}

/// Everything that is handed out was checked: either it is right, or there is an error.
async fn check_damaged(store: &BlobStore, id: BlobId, whole: &[u8], what: &str) {
    assert!(matches!(read(store, id, 0..u64::MAX).await, Err(BlobError::Damaged(_))), "{what}");
    for start in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, 2 * CHUNK_BYTES, 2 * CHUNK_BYTES + 8] {
        let range = to_u64(start)..to_u64(start) + 2;
        if let Ok(found) = read(store, id, range).await {
            let end = (start + 2).min(whole.len());
            let expected = whole.get(start.min(end)..end).unwrap();
            assert!(expected.starts_with(&found), "{what}: wrong bytes at {start}");
        }
    }
}

#[tokio::test]
async fn any_changed_or_lost_byte_is_reported_and_never_served() {
    for len in [10, 2 * CHUNK_BYTES + 9] {
        let whole = bytes(len);
        let (store, values) = store().await;
        let id = store.put(&whole).await.unwrap();
        for prefix in [b"h", b"d"] {
            for key in keys(&values, prefix).await {
                let right = values.get(&key).await.unwrap().unwrap();
                let places = [0, 1, 2, right.len() / 2, right.len() - 1];
                for place in places {
                    let mut wrong = right.to_vec();
                    wrong[place] ^= 0x10;
                    values.put(&key, wrong.into()).await.unwrap();
                    check_damaged(&store, id, &whole, &format!("{len}: byte {place}")).await;
                }
                for cut in [0, 1, right.len() - 1] {
                    values.put(&key, right.slice(..cut)).await.unwrap();
                    check_damaged(&store, id, &whole, &format!("{len}: cut to {cut}")).await;
                }
                let longer = [&right[..], b"x"].concat();
                values.put(&key, longer.into()).await.unwrap();
                check_damaged(&store, id, &whole, &format!("{len}: longer")).await;
                if prefix == b"d" {
                    values.remove(&key).await.unwrap();
                    check_damaged(&store, id, &whole, &format!("{len}: lost chunk")).await;
                }
                values.put(&key, right).await.unwrap();
            }
        }
        assert_eq!(read(&store, id, 0..u64::MAX).await.unwrap(), whole);
    }
}

#[tokio::test]
async fn the_same_bytes_put_twice_are_two_blobs() {
    let (store, values) = store().await;
    for len in [10, 2 * CHUNK_BYTES + 9] {
        let whole = bytes(len);
        let (first, second) = (store.put(&whole).await.unwrap(), store.put(&whole).await.unwrap());
        assert!(first != second && first.hash() == second.hash());
        store.remove(&BlobName::of(&first)).await.unwrap();
        store.remove(&BlobName::of(&first)).await.unwrap();
        assert!(matches!(read(&store, first, 0..1).await, Err(BlobError::Missing(_))));
        assert_eq!(read(&store, second, 0..u64::MAX).await.unwrap(), whole, "{len}");
        store.remove(&BlobName::of(&second)).await.unwrap();
        assert_eq!(all_keys(&values).await, 0);
    }
}

#[tokio::test]
async fn blobs_of_schema_0_are_read_and_removed() {
    let (store, values) = store().await;
    let (small, large) = (bytes(10), bytes(CHUNK_BYTES + 1));
    let hash = BlobHash::of(&small);
    let key = [&b"h"[..], hash.as_bytes()].concat();
    values.put(&key, [&b"\0"[..], &small].concat().into()).await.unwrap();
    let chunked = store.put(&large).await.unwrap();
    let new_key = [&b"h"[..], &chunked.to_bytes()].concat();
    let header = values.get(&new_key).await.unwrap().unwrap();
    values.remove(&new_key).await.unwrap();
    let old_key = [&b"h"[..], chunked.hash().as_bytes()].concat();
    values.put(&old_key, header).await.unwrap();
    for (hash, whole) in [(hash, small), (chunked.hash(), large)] {
        let id = BlobId::of_schema_0(hash);
        assert_eq!(read(&store, id, 0..u64::MAX).await.unwrap(), whole);
        store.remove(&BlobName::of(&id)).await.unwrap();
    }
    assert_eq!(all_keys(&values).await, 0);
}

/// Lets the tasks behind the store get done.
async fn until_keys(values: &LargeValues, count: usize) {
    for _ in 0..10_000 {
        if all_keys(values).await == count {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("{} keys, not {count}", all_keys(values).await);
}

#[tokio::test]
async fn an_abandoned_writer_leaves_nothing() {
    let (store, values) = store().await;
    for len in [10, CHUNK_BYTES + 1, 3 * CHUNK_BYTES + 1] {
        let mut writer = store.writer();
        writer.write(&bytes(len)).await.unwrap();
        drop(writer);
        until_keys(&values, 0).await;
    }
    assert_eq!(store.counts().puts, 0);
}

/// A session that times out while its message is being stored: whatever is there is whole.
#[tokio::test]
async fn a_put_that_nobody_waits_for_any_more_leaves_a_whole_blob_or_nothing() {
    let whole = bytes(2 * CHUNK_BYTES + 1);
    for polls in 0..50 {
        let (store, values) = store().await;
        let done = cut_off(store.put(&whole), polls).await.is_some();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        match &keys(&values, b"h").await[..] {
            [key] => {
                let id = BlobId::from_slice(&key[1..]).unwrap();
                let found = read(&store, id, 0..u64::MAX).await.unwrap();
                assert_eq!((found == whole, all_keys(&values).await), (true, 4));
            }
            found => assert_eq!((found.len(), all_keys(&values).await), (0, 0), "{polls}"),
        }
        if done {
            return;
        }
    }
    panic!("a put ends");
}

/// What a store looks like after a crash at any write: every subset of writes that came in order.
#[tokio::test]
async fn opening_clears_what_a_crash_left_and_nothing_else() {
    let (original, values) = store().await;
    let kept = original.put(&bytes(CHUNK_BYTES + 7)).await.unwrap();
    let whole = bytes(2 * CHUNK_BYTES + 1);
    let object = ObjectId::from_bytes([7; 16]);
    #[cfg_attr(not(feature = "s3"), expect(irrefutable_let_patterns, reason = "there is no other"))]
    let Backend::Embedded(embedded) = &*original.backend else { panic!("it is embedded") };
    let id = BlobId::new(object, BlobHash::of(&whole));
    let chunks: Vec<ChainingValue> = whole
        .chunks(CHUNK_BYTES)
        .enumerate()
        .map(|(i, chunk)| tree::chunk_value(to_u64(i * CHUNK_BYTES), chunk))
        .collect();
    let stand = all_keys(&values).await;
    let upload = [&b"s"[..], object.as_bytes()].concat();
    // Cut off while the chunks came.
    for stored in 1..=chunks.len() {
        for (number, chunk) in (0..).zip(whole.chunks(CHUNK_BYTES).take(stored)) {
            let chunk = Bytes::copy_from_slice(chunk);
            embedded.put_chunk(object, number, chunk).await.unwrap();
        }
        let store = BlobStore::embedded(values.clone(), Env::system()).await.unwrap();
        assert_eq!(all_keys(&values).await, stand, "{stored} chunks");
        assert!(read(&store, kept, 0..u64::MAX).await.is_ok());
    }
    // Cut off between marker and header, and between header and the marker's end.
    for header in [false, true] {
        for (number, chunk) in (0..).zip(whole.chunks(CHUNK_BYTES)) {
            let chunk = Bytes::copy_from_slice(chunk);
            embedded.put_chunk(object, number, chunk).await.unwrap();
        }
        if header {
            let size = to_u64(whole.len());
            embedded.put_header(id, object, size, &chunks).await.unwrap();
        }
        values.put(&upload, id.to_bytes().into()).await.unwrap();
        let store = BlobStore::embedded(values.clone(), Env::system()).await.unwrap();
        assert_eq!(keys(&values, b"s").await.len(), 0);
        if header {
            assert_eq!(read(&store, id, 0..u64::MAX).await.unwrap(), whole);
        } else {
            assert_eq!(all_keys(&values).await, stand);
        }
    }
    // Cut off in the middle of a removal: the header is gone, the chunks are not yet.
    let key = [&b"h"[..], &id.to_bytes()].concat();
    values.put(&upload, id.to_bytes().into()).await.unwrap();
    values.remove(&key).await.unwrap();
    BlobStore::embedded(values.clone(), Env::system()).await.unwrap();
    assert_eq!(all_keys(&values).await, stand);
    // A marker that is none.
    values.put(b"s", Bytes::new()).await.unwrap();
    let store = BlobStore::embedded(values.clone(), Env::system()).await.unwrap();
    assert_eq!(all_keys(&values).await, stand);
    assert!(read(&store, kept, 0..u64::MAX).await.is_ok());
}

#[tokio::test]
async fn references_are_added_and_dropped_with_a_due_time() {
    use crate::{
        Owner,
        limits::{ADOPT_WITHIN_MS, GRACE_MS},
        references::{self, AdoptError},
    };
    let db = kv::Database::memory(Env::system());
    let id = name(b"x");
    let put_at = id.object().unwrap().put_at();
    let owners = [Owner::Email(1, 2), Owner::Email(1, 3), Owner::Submission([9; 16])];
    let tx = db.begin();
    references::adopt(&tx, id, &owners[0], put_at).await.unwrap();
    owners[1..].iter().for_each(|owner| references::share(&tx, id, owner));
    tx.commit().await.unwrap();
    let now = env::Timestamp::from_unix_ms(5);
    let tx = db.begin();
    references::remove(&tx, id, &owners[0], now);
    tx.commit().await.unwrap();
    let tx = db.begin();
    for (owner, there) in owners.iter().zip([false, true, true]) {
        assert_eq!(references::exists(&tx, id, owner).await.unwrap(), there);
    }
    let (begin, end) = references::due_until(Timestamp::from_unix_ms(5 + GRACE_MS));
    let due = tx.range(kv::RangeQuery::new(begin, end)).collect().await.unwrap();
    let newest = tx.get(&references::newest_due_key(&BlobName::of(&id))).await.unwrap().unwrap();
    assert_eq!(references::time_of(&newest), 5 + GRACE_MS);
    let (_, at, name): (i64, i64, kv::tuple::Bytes<'_>) = kv::tuple::unpack(&due[0].key).unwrap();
    assert_eq!((due.len(), at), (1, 5 + GRACE_MS));
    assert_eq!(BlobId::from_slice(&name), Some(id));

    let late = env::Timestamp::from_unix_ms(put_at.unix_ms() + ADOPT_WITHIN_MS + 1);
    let refused = references::adopt(&tx, id, &owners[0], late).await;
    assert_eq!(refused, Err(AdoptError::Gone(id)));
    tx.set(&references::dying_key(&BlobName::of(&id)), &[]);
    let refused = references::adopt(&tx, id, &owners[0], put_at).await;
    assert_eq!(refused, Err(AdoptError::Gone(id)));
}

#[tokio::test]
async fn a_listing_tells_every_name_once_in_order_and_from_anywhere() {
    let (store, values) = store().await;
    let mut names = Vec::new();
    for len in [0, 1, CHUNK_BYTES + 1, 5, 6, 7] {
        names.push(BlobName::of(&store.put(&bytes(len)).await.unwrap()));
    }
    let old = BlobName::Hash(BlobHash::of(b"old"));
    values.put(&[b"h", old.as_bytes()].concat(), b"\0old".as_slice().into()).await.unwrap();
    names.push(old);
    // What is no name is left out.
    values.put(b"hother", Bytes::new()).await.unwrap();
    names.sort_unstable();
    for limit in [1, 2, 3, 7, 8, 100] {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = store.list(after.as_ref(), limit).await.unwrap();
            assert!(page.names.len() <= limit);
            found.extend(page.names);
            let Some(next) = page.next else { break };
            after = Some(ListCursor::from_bytes(Bytes::copy_from_slice(next.as_bytes())));
        }
        assert_eq!(found, names, "{limit}");
    }
    for (index, name) in names.iter().enumerate() {
        let page = store.list(store.cursor_before(name).as_ref(), 100).await.unwrap();
        assert_eq!(page.names, names[index..]);
        assert!(store.exists(name).await.unwrap());
        store.remove(name).await.unwrap();
        assert!(!store.exists(name).await.unwrap());
    }
    assert_eq!(store.abort_uploads(Timestamp::from_unix_ms(i64::MAX)).await.unwrap(), 0);
    assert_eq!(store.cursor_before(&BlobName::Object(ObjectId::from_bytes([0; 16]))), None);
}

#[tokio::test]
async fn verifying_reads_every_byte() {
    let (store, values) = store().await;
    let id = store.put(&bytes(2 * CHUNK_BYTES + 9)).await.unwrap();
    assert_eq!(store.verify(id).await.unwrap(), to_u64(2 * CHUNK_BYTES + 9));
    let key = keys(&values, b"d").await.pop().unwrap();
    values.remove(&key).await.unwrap();
    assert!(matches!(store.verify(id).await, Err(BlobError::Damaged(it)) if it == id));
    assert!(matches!(store.verify(name(b"x")).await, Err(BlobError::Missing(_))));
}

#[tokio::test]
async fn faults_reach_every_call_and_no_other_handle() {
    let (store, values) = store().await;
    let id = store.put(b"x").await.unwrap();
    let other = store.handle(Env::system());
    store.faults().set(BlobFaults { refused: BlobFaults::ALWAYS, ..BlobFaults::default() });
    let failed = |result: Result<(), BlobError>| {
        assert!(matches!(result, Err(BlobError::Unavailable { .. })), "{result:?}");
    };
    let it = BlobName::of(&id);
    failed(store.put(b"y").await.map(drop));
    failed(store.put(&bytes(CHUNK_BYTES + 1)).await.map(drop));
    failed(store.read(id, 0..1).await.map(drop));
    failed(store.list(None, 1).await.map(drop));
    failed(store.exists(&it).await.map(drop));
    failed(store.remove(&it).await);
    failed(store.abort_uploads(Timestamp::default()).await.map(drop));
    assert_eq!(read(&other, id, 0..9).await.unwrap(), b"x");
    store.faults().set(BlobFaults { reply_lost: BlobFaults::ALWAYS, ..BlobFaults::default() });
    failed(store.remove(&it).await);
    assert!(!other.exists(&it).await.unwrap(), "it was done");
    store.faults().set(BlobFaults { stalled: BlobFaults::ALWAYS, ..BlobFaults::default() });
    assert!(cut_off(store.list(None, 1), 100).await.is_none());
    store.faults().set(BlobFaults::default());
    assert_eq!(store.list(None, 1).await.unwrap().names, []);
    until_keys(&values, 0).await;
}
