use super::*;
use crate::testing::cut_off;

fn key(n: u8) -> Key {
    (ObjectId::from_bytes([n; 16]), Part::Window(0))
}

fn piece() -> Fetched {
    Fetched { total: 1_000, bytes: Bytes::from(vec![7; 1_000]) }
}

const FILE_BYTES: u64 = 1_008;

/// A cache on a runtime whose one thread for blocking work does it in the order of its coming.
fn with_cache<F: Future<Output = ()>>(test: impl FnOnce(Cache) -> F) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let settings = CacheSettings {
        folder: folder.path().to_owned(),
        bytes_max: 10 * FILE_BYTES,
        files_max: 100,
    };
    runtime.block_on(async {
        test(Cache::open(settings, Env::system()).await.unwrap()).await;
    });
}

/// Bytes and files: those that are counted are those that are there, and within their bound.
async fn check(cache: &Cache) -> u64 {
    cache.env.run_blocking(|| ()).await.expect("what was begun is done");
    let files = fs::read_dir(&cache.settings.folder).unwrap().map(Result::unwrap);
    let lengths: Vec<u64> = files.map(|file| file.metadata().unwrap().len()).collect();
    let mut counts = S3Counts::default();
    cache.count(&mut counts);
    assert_eq!(
        (counts.cache_bytes, counts.cache_files),
        (lengths.iter().sum(), to_u64(lengths.len()))
    );
    assert!(counts.cache_bytes <= cache.settings.bytes_max, "{counts:?}");
    let index = cache.index();
    assert_eq!((index.taken_bytes, index.taken_files), (0, 0));
    counts.cache_files
}

/// Leaves while what it wants done blocks, and then lets that be done.
async fn leave<T>(cache: &Cache, wanted: impl Future<Output = T>) {
    let (release, gate) = std::sync::mpsc::channel::<()>();
    let busy = cache.env.run_blocking(move || gate.recv());
    assert!(cut_off(busy, 1).await.is_none());
    assert!(cut_off(wanted, 1).await.is_none(), "the one thread is busy");
    drop(release);
}

#[test]
fn what_is_written_for_readers_who_left_is_counted() {
    with_cache(|cache| async move {
        for n in 0..50 {
            leave(&cache, cache.put(key(n), &piece())).await;
            assert_eq!(check(&cache).await, u64::from(n + 1).min(10));
        }
        for n in 40..45 {
            leave(&cache, cache.forget(key(n))).await;
        }
        assert_eq!(check(&cache).await, 5);
        leave(&cache, cache.fetch(key(9), async || Ok(Some(piece())))).await;
        assert_eq!(check(&cache).await, 6);
    });
}

/// More at once than fits: what finds no room is not kept.
#[test]
fn what_is_being_written_has_its_room() {
    with_cache(|cache| async move {
        let piece = piece();
        futures_util::future::join_all((0..30).map(|n| cache.put(key(n), &piece))).await;
        assert_eq!(check(&cache).await, 10);
    });
}

#[test]
fn what_cannot_be_removed_stays_counted() {
    with_cache(|cache| async move {
        for n in 0..10 {
            cache.put(key(n), &piece()).await;
        }
        // A folder where the oldest file was, as if its removal failed.
        let oldest = cache.settings.folder.join(file_name(key(0)));
        fs::remove_file(&oldest).unwrap();
        fs::create_dir(&oldest).unwrap();
        cache.put(key(20), &piece()).await;
        cache.forget(key(0)).await;
        let mut counts = S3Counts::default();
        cache.count(&mut counts);
        assert_eq!((counts.cache_files, counts.cache_errors), (10, 2));
        fs::remove_dir(&oldest).unwrap();
        fs::write(&oldest, [0; FILE_BYTES as usize]).unwrap();
        assert_eq!(check(&cache).await, 10);
    });
}

/// A file that came anew while a reader looked for the evicted one.
#[test]
fn a_reader_that_is_late_forgets_no_newer_file() {
    let mut index = Index::default();
    index.insert(key(1), 5);
    let used = index.touch(key(1)).unwrap();
    index.insert(key(1), 7);
    index.remove_as_of(key(1), used);
    assert_eq!((index.bytes, index.files.len()), (7, 1));
    let used = index.touch(key(1)).unwrap();
    index.remove_as_of(key(1), used);
    assert_eq!((index.bytes, index.files.len()), (0, 0));
}
