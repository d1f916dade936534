use std::time::Duration;

use super::*;
use crate::{
    BlobHash, BlobStore, Owner,
    limits::{ADOPT_WITHIN_MS, CHUNK_BYTES, GRACE_MS, PART_BYTES, WINDOW_BYTES},
    sweep::{SweepSettings, Sweeper},
};

mod garage;
pub(crate) mod server;
mod services;
use server::{Fault, Server};

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from((i / 251 + i * 7) % 256).unwrap()).collect()
}

async fn read(store: &BlobStore, id: BlobId) -> Result<Vec<u8>, BlobError> {
    store.read_to_vec(id, 0..u64::MAX, usize::MAX).await
}

const SMALL: usize = 10;
const WINDOW: usize = 4 * CHUNK_BYTES;

fn large() -> usize {
    PART_BYTES + 2 * CHUNK_BYTES + 5
}

#[tokio::test]
async fn each_size_costs_the_requests_that_it_should() {
    let server = Server::start().await;
    let store = server.store().await;
    let (post, part) = (["POST uploads"], "PUT partNumber");
    // What fits one part with its trailer.
    let one = PART_BYTES - 40 * 32;
    for (len, parts, gets) in [
        (0, 0, 1),
        (SMALL, 0, 1),
        (CHUNK_BYTES, 0, 1),
        (CHUNK_BYTES + 1, 0, 1),
        (WINDOW - 5 * 32, 0, 1),
        (WINDOW, 0, 2),
        (WINDOW + 1, 0, 3),
        (one, 0, 11),
        (PART_BYTES, 2, 11),
        (large(), 2, 12),
    ] {
        let whole = bytes(len);
        let id = store.put(&whole).await.unwrap();
        let asked = server.asked();
        if parts == 0 {
            assert_eq!(asked, ["PUT"], "{len}");
        } else {
            let end = "POST uploadId";
            let expected = [&post[..], &vec![part; parts], &[end]].concat();
            assert_eq!(asked, expected, "{len}");
        }
        assert_eq!(id.hash(), BlobHash::of(&whole));
        assert!(read(&store, id).await.unwrap() == whole, "{len}");
        assert_eq!(server.asked(), vec!["GET"; gets], "{len}");
        // From the middle: that window and the trailer.
        let middle = crate::store::to_u64(len / 2);
        let found = store.read_to_vec(id, middle..middle + 3, 3).await.unwrap();
        assert_eq!(found, whole[len / 2..(len / 2 + 3).min(len)]);
        assert!(server.asked().len() <= 2, "{len}");
        // From beyond the end.
        let past = store.read(id, (1 << 30)..u64::MAX).await.unwrap();
        assert_eq!(past.remaining(), 0);
        server.asked();
    }
    assert_eq!((server.uploads(), server.objects().len()), (0, 10));
    let counts = store.s3_counts().unwrap();
    assert_eq!((counts.retries, counts.failures, counts.damaged), (0, 0, 0));
}

#[tokio::test]
async fn an_object_is_its_bytes_and_its_tree() {
    let server = Server::start().await;
    let store = server.store().await;
    let id = store.put(&bytes(SMALL)).await.unwrap();
    let path = &server.objects()[0];
    assert_eq!(path.file_name().unwrap().to_str().unwrap(), id.object().unwrap().to_string());
    assert_eq!(std::fs::read(path).unwrap(), bytes(SMALL));
    store.remove(&BlobName::of(&id)).await.unwrap();
    store.remove(&BlobName::of(&id)).await.expect("removing twice is no error");
    store.put(&bytes(large())).await.unwrap();
    let stored = std::fs::read(&server.objects()[0]).unwrap();
    assert_eq!(stored[..large()], bytes(large()));
    assert_eq!(stored.len(), large() + 43 * 32);
}

#[tokio::test]
async fn damage_of_any_kind_is_never_served() {
    let server = Server::start().await;
    let store = server.store().await;
    for len in [SMALL, CHUNK_BYTES, 2 * CHUNK_BYTES + 9, WINDOW + CHUNK_BYTES] {
        let whole = bytes(len);
        let id = store.put(&whole).await.unwrap();
        let path = server.objects()[0].clone();
        let right = std::fs::read(&path).unwrap();
        let mut variants = Vec::new();
        for place in [0, right.len() / 2, right.len() - 33.min(right.len()), right.len() - 1] {
            let mut wrong = right.clone();
            wrong[place] ^= 0x10;
            variants.push(wrong);
        }
        variants.extend([0, 1, len / 2, right.len() - 1].map(|cut| right[..cut].to_vec()));
        variants.push([&right[..], b"x"].concat());
        variants.push(vec![7; right.len()]);
        for wrong in variants {
            std::fs::write(&path, &wrong).unwrap();
            let damaged = read(&store, id).await;
            assert!(matches!(damaged, Err(BlobError::Damaged(it)) if it == id), "{len}");
            assert!(store.verify(id).await.is_err());
            let some = crate::store::to_u64(len / 2);
            if let Ok(found) = store.read_to_vec(id, some..some + 2, 2).await {
                assert!(whole[len / 2..].starts_with(&found), "{len}");
            }
        }
        std::fs::write(&path, &right).unwrap();
        assert_eq!(read(&store, id).await.unwrap(), whole);
        store.remove(&BlobName::of(&id)).await.unwrap();
    }
}

/// One fault, or two: the answer is right all the same, and each costs one more request.
#[tokio::test]
async fn what_passes_is_tried_again() {
    let server = Server::start().await;
    let store = server.store().await;
    let passing = [
        Fault::Refused,
        Fault::AnswerLost,
        Fault::Status(500, "InternalError"),
        Fault::Status(503, "SlowDown"),
        Fault::Status(429, "TooManyRequests"),
        Fault::Status(400, "RequestTimeout"),
        Fault::Cut,
    ];
    for len in [SMALL, WINDOW + 9, large()] {
        let whole = bytes(len);
        // A put's answer has no middle.
        for fault in passing.iter().filter(|fault| **fault != Fault::Cut) {
            // Each request of a put in turn.
            for step in 0..if len == large() { 4 } else { 1 } {
                let before = store.s3_counts().unwrap();
                let faults = vec![Fault::None; step].into_iter();
                server.next(faults.chain([fault.clone(), fault.clone()]));
                let id = store.put(&whole).await.unwrap_or_else(|e| panic!("{fault:?} {step} {e}"));
                let after = store.s3_counts().unwrap();
                let retries = after.retries - before.retries;
                assert_eq!(retries, 2, "{len} {fault:?} {step}");
                server.next([]);
                assert!(read(&store, id).await.unwrap() == whole);
            }
        }
        let id = store.put(&whole).await.unwrap();
        for fault in passing.clone() {
            server.next([fault.clone(), fault.clone()]);
            assert!(read(&store, id).await.unwrap() == whole, "{len} {fault:?}");
            server.next([fault.clone()]);
            assert_eq!(store.list(None, 1).await.unwrap().names.len(), 1, "{fault:?}");
        }
        for fault in [Fault::WrongByte, Fault::Shorter, Fault::Longer] {
            server.next([fault.clone()]);
            assert!(read(&store, id).await.unwrap() == whole, "{len} {fault:?}");
        }
        for fault in passing.clone() {
            server.next([fault.clone(), fault.clone()]);
            store.remove(&BlobName::of(&id)).await.unwrap();
            server.next([]);
        }
        assert!(!store.exists(&BlobName::of(&id)).await.unwrap());
    }
    server.next([Fault::None, Fault::None, Fault::None, Fault::ErrorInOk]);
    let id = store.put(&bytes(large())).await.unwrap();
    assert!(read(&store, id).await.unwrap() == bytes(large()));
    assert_eq!(store.s3_counts().unwrap().failures, 0);
}

/// Faults that do not end: a typed error after as many tries as there may be, in bounded time.
#[tokio::test]
async fn what_does_not_pass_is_a_typed_error_in_bounded_time() {
    let server = Server::start().await;
    let ms = Duration::from_millis;
    let mut settings = server.settings();
    settings.time_limits = TimeLimits { connect: ms(500), request: ms(400), stall: ms(200) };
    let store = BlobStore::s3(settings, Env::system()).await.unwrap();
    let ids = [store.put(&bytes(SMALL)).await.unwrap(), store.put(&bytes(WINDOW)).await.unwrap()];
    for fault in [
        Fault::Refused,
        Fault::Stalled,
        Fault::StalledMidBody,
        Fault::Cut,
        Fault::WrongByte,
        Fault::Shorter,
        Fault::Longer,
        Fault::Status(500, "InternalError"),
        Fault::Status(503, "SlowDown"),
        Fault::Status(403, "AccessDenied"),
        Fault::Status(404, "NoSuchBucket"),
        Fault::Status(301, "PermanentRedirect"),
    ] {
        let name = BlobName::of(&store.put(b"to be removed").await.unwrap());
        server.always(Some(fault.clone()));
        let begun = Env::system().monotonic();
        let mut results = vec![
            store.put(&bytes(SMALL)).await.map(drop),
            store.put(&bytes(large())).await.map(drop),
            store.list(None, 10).await.map(drop),
            store.remove(&name).await,
            store.abort_uploads(Timestamp::from_unix_ms(i64::MAX)).await.map(drop),
        ];
        for id in ids {
            let found = read(&store, id).await;
            assert!(found.is_err(), "{fault:?}");
            results.push(found.map(drop));
        }
        let took = Env::system().monotonic() - begun;
        assert!(took < Duration::from_secs(20), "{fault:?} {took:?}");
        let refused = matches!(fault, Fault::Status(301 | 403 | 404, _));
        for result in results {
            match result {
                Ok(()) => assert!(!refused, "{fault:?}"),
                Err(BlobError::Unavailable { reason, .. }) => {
                    assert!(!refused, "{fault:?} {reason}");
                }
                Err(BlobError::Refused { status, code, .. }) => {
                    assert!(refused, "{fault:?}");
                    assert_eq!(
                        fault,
                        Fault::Status(
                            status,
                            match &*code {
                                "AccessDenied" => "AccessDenied",
                                "NoSuchBucket" => "NoSuchBucket",
                                "PermanentRedirect" => "PermanentRedirect",
                                other => panic!("{other}"),
                            }
                        )
                    );
                }
                Err(BlobError::Damaged(_)) => {
                    assert!(matches!(fault, Fault::WrongByte | Fault::Shorter), "{fault:?}");
                }
                Err(error) => panic!("{fault:?} {error}"),
            }
        }
        server.always(None);
        assert_eq!(read(&store, ids[0]).await.expect("all is well again"), bytes(SMALL));
    }
}

#[tokio::test]
async fn nobody_there_and_nothing_usable_are_told() {
    let server = Server::start().await;
    let mut settings = server.settings();
    settings.endpoint = "http://127.0.0.1:1".to_owned();
    let store = BlobStore::s3(settings.clone(), Env::system()).await.unwrap();
    let error = store.put(b"x").await.unwrap_err().to_string();
    assert!(error.contains("no connection") && error.contains("tried 3 times"), "{error}");
    assert_eq!(store.s3_counts().unwrap().requests, 3);
    for endpoint in ["", "ftp://host", "host", "http://host/path", "http://"] {
        let settings = S3Settings { endpoint: endpoint.to_owned(), ..settings.clone() };
        assert!(BlobStore::s3(settings, Env::system()).await.is_err(), "{endpoint}");
    }
    let mut settings = server.settings();
    settings.credentials = Credentials::new("AKIATEST".to_owned(), "wrong".to_owned());
    assert!(!format!("{settings:?}").contains("wrong"));
    let store = BlobStore::s3(settings, Env::system()).await.unwrap();
    let refused = store.put(b"x").await;
    assert!(
        matches!(&refused, Err(BlobError::Refused { status: 403, code, .. })
            if code == "SignatureDoesNotMatch"),
        "{refused:?}"
    );
}

#[tokio::test]
async fn an_abandoned_upload_is_taken_back_at_once_or_by_the_sweeper() {
    let server = Server::start().await;
    let store = server.store().await;
    let mut writer = store.writer();
    writer.write(&bytes(2 * PART_BYTES + 1)).await.unwrap();
    assert_eq!(server.uploads(), 1);
    drop(writer);
    for _ in 0..1_000 {
        if server.uploads() == 0 {
            break;
        }
        Env::system().sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(server.uploads(), 0, "{:?}", server.asked());
    // Three that nobody takes back, in two pages.
    for _ in 0..3 {
        let mut writer = store.writer();
        writer.write(&bytes(PART_BYTES + CHUNK_BYTES + 1)).await.unwrap();
        // As a crash does.
        std::mem::forget(writer);
    }
    assert_eq!(server.uploads(), 3);
    let now = Env::system().wall();
    assert_eq!(
        store.abort_uploads(Timestamp::from_unix_ms(now.unix_ms() - 60_000)).await.unwrap(),
        0
    );
    let later = Timestamp::from_unix_ms(now.unix_ms() + 60_000);
    let aborted = store.abort_uploads(later).await.unwrap();
    assert_eq!((aborted, server.objects().len()), (3, 0));
}

#[tokio::test]
async fn sweeping_on_s3_removes_what_nothing_needs() {
    let server = Server::start().await;
    let env = Env::system();
    let (store, db) = (server.store().await, kv::Database::memory(env.clone()));
    crate::binding::bind(&db, &store, &env).await.unwrap();
    let owner = &Owner::Email(1, 1);
    let mut ids = Vec::new();
    for n in 0..6_u8 {
        ids.push(store.put(&[n]).await.unwrap());
    }
    let now = env.wall();
    let tx = db.begin();
    for id in &ids[..4] {
        crate::references::adopt(&tx, *id, owner, now).await.unwrap();
    }
    for id in &ids[..2] {
        crate::references::remove(&tx, *id, owner, now);
    }
    tx.commit().await.unwrap();
    let mut writer = store.writer();
    writer.write(&bytes(PART_BYTES + CHUNK_BYTES + 1)).await.unwrap();
    std::mem::forget(writer);
    let settings = SweepSettings { scan_interval: Duration::ZERO, ..SweepSettings::default() };
    let sweeper = Sweeper::new(env, db.clone(), store.clone(), settings);
    let at = |ms: i64| Timestamp::from_unix_ms(now.unix_ms() + ms);
    assert_eq!(sweeper.pass(at(GRACE_MS - 60_000)).await.unwrap().removed, 0);
    server.next([Fault::None, Fault::Status(503, "SlowDown")]);
    let swept = sweeper.pass(at(GRACE_MS + 60_000)).await.unwrap();
    assert_eq!((swept.removed, swept.orphans, swept.uploads), (4, 2, 1));
    assert_eq!((server.objects().len(), server.uploads()), (2, 0));
    assert_eq!(sweeper.pass(at(GRACE_MS + 120_000 + ADOPT_WITHIN_MS)).await.unwrap().forgotten, 4);
    for id in &ids[2..4] {
        assert_eq!(store.verify(*id).await.unwrap(), 1);
    }
}

#[tokio::test]
async fn a_listing_leaves_out_what_is_not_ours() {
    let server = Server::start().await;
    let store = server.store().await;
    let mut names = Vec::new();
    for n in 0..7_u8 {
        names.push(BlobName::of(&store.put(&[n]).await.unwrap()));
    }
    names.sort_unstable();
    let folder = server.objects()[0].parent().unwrap().to_owned();
    let not_ours =
        ["0", "readme", "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF", "+0000000000000000000000000000000"];
    for name in not_ours {
        std::fs::write(folder.join(name), b"").unwrap();
    }
    for limit in [1, 2, 3, 100] {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = store.list(after.as_ref(), limit).await.unwrap();
            found.extend(page.names);
            let Some(next) = page.next else { break };
            after = Some(next);
        }
        assert_eq!(found, names, "{limit}");
    }
    for (index, name) in names.iter().enumerate() {
        let page = store.list(store.cursor_before(name).as_ref(), 100).await.unwrap();
        assert_eq!(page.names, names[index..]);
    }
}

fn cache(folder: &tempfile::TempDir, bytes_max: u64, files_max: usize) -> CacheSettings {
    CacheSettings { folder: folder.path().join("cache"), bytes_max, files_max }
}

#[tokio::test]
async fn the_cache_saves_requests_and_survives_a_restart() {
    let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
    let settings = cache(&folder, 1 << 30, 1_000);
    let store = server.cached(settings.clone()).await;
    let small = store.put(&bytes(SMALL)).await.unwrap();
    let big = store.put(&bytes(large())).await.unwrap();
    server.asked();
    for _ in 0..2 {
        assert_eq!(read(&store, small).await.unwrap(), bytes(SMALL));
    }
    assert_eq!(server.asked(), [] as [&str; 0], "written through");
    store.cache_settled().await;
    assert!(read(&store, big).await.unwrap() == bytes(large()));
    assert_eq!(server.asked().len(), 12);
    let again = server.cached(settings.clone()).await;
    for store in [&store, &again] {
        assert!(read(store, big).await.unwrap() == bytes(large()));
        assert_eq!(read(store, small).await.unwrap(), bytes(SMALL));
    }
    assert_eq!(server.asked(), [] as [&str; 0]);
    let counts = again.s3_counts().unwrap();
    assert_eq!((counts.cache_hits, counts.cache_misses, counts.cache_files), (13, 0, 13));

    // Wrong, short and unreadable files are fetched anew, and put right.
    for file in std::fs::read_dir(&settings.folder).unwrap().map(Result::unwrap) {
        let right = std::fs::read(file.path()).unwrap();
        for wrong in [
            right[..right.len() - 1].to_vec(),
            right[..4].to_vec(),
            Vec::new(),
            [&right[..right.len() - 1], &[!right[right.len() - 1]]].concat(),
            [&[!right[0]], &right[1..]].concat(),
        ] {
            std::fs::write(file.path(), wrong).unwrap();
            assert!(read(&again, big).await.unwrap() == bytes(large()));
            assert_eq!(read(&again, small).await.unwrap(), bytes(SMALL));
        }
        assert!(std::fs::read(file.path()).unwrap() == right, "{:?}", file.path());
    }
    assert_eq!(again.s3_counts().unwrap().cache_files, 13);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(&settings.folder).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}

/// What is lost or damaged at the service is found, whatever the cache has.
#[tokio::test]
async fn a_check_asks_the_service_and_leaves_the_cache() {
    let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
    let store = server.cached(cache(&folder, 1 << 30, 1_000)).await;
    for len in [SMALL, large()] {
        let id = store.put(&bytes(len)).await.unwrap();
        assert!(read(&store, id).await.unwrap() == bytes(len));
        store.cache_settled().await;
        let cached = store.s3_counts().unwrap().cache_files;
        assert_eq!(store.verify(id).await.unwrap(), crate::store::to_u64(len));
        assert_eq!(store.s3_counts().unwrap().cache_files, cached);
        let path = server.objects().remove(0);
        let right = std::fs::read(&path).unwrap();
        let mut wrong = right.clone();
        wrong[len / 2] ^= 1;
        std::fs::write(&path, wrong).unwrap();
        assert!(matches!(store.verify(id).await, Err(BlobError::Damaged(_))), "{len}");
        assert_eq!(store.check(id).await.is_ok(), len > SMALL, "the bytes are not looked at yet");
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(store.check(id).await, Err(BlobError::Missing(_))));
        assert!(read(&store, id).await.unwrap() == bytes(len), "the cache has it still");
        // A wrong answer on the way is asked for once more.
        std::fs::write(&path, right).unwrap();
        server.next([Fault::WrongByte]);
        store.verify(id).await.unwrap();
        store.remove(&BlobName::of(&id)).await.unwrap();
    }
}

#[tokio::test]
async fn the_cache_is_bounded_in_bytes_and_in_files() {
    let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
    let on_disk = |settings: &CacheSettings| {
        let files = std::fs::read_dir(&settings.folder).unwrap().map(Result::unwrap);
        let lengths: Vec<u64> = files.map(|file| file.metadata().unwrap().len()).collect();
        (lengths.len(), lengths.iter().sum::<u64>())
    };
    let settings = cache(&folder, 3 * 1_008, 100);
    let store = server.cached(settings.clone()).await;
    let mut ids = Vec::new();
    for n in 0..10_u8 {
        ids.push(store.put(&[n; 1_000]).await.unwrap());
        // The first is used again and again, and stays.
        server.asked();
        assert_eq!(read(&store, ids[0]).await.unwrap(), [0; 1_000]);
        assert_eq!(server.asked(), [] as [&str; 0], "{n}");
        store.cache_settled().await;
        assert!(on_disk(&settings).1 <= settings.bytes_max);
    }
    assert_eq!(on_disk(&settings), (3, 3 * 1_008));
    assert_eq!(store.s3_counts().unwrap().cache_bytes, 3 * 1_008);
    std::fs::write(settings.folder.join("0123.tmp"), b"half").unwrap();
    std::fs::write(settings.folder.join("other"), b"not ours").unwrap();

    // A smaller one after a restart; the half-written file goes, and what is not ours stays.
    let settings = CacheSettings { files_max: 2, ..settings };
    let store = server.cached(settings.clone()).await;
    assert_eq!(on_disk(&settings).0, 3);
    assert_eq!(store.s3_counts().unwrap().cache_files, 2);
    for id in &ids {
        assert_eq!(read(&store, *id).await.unwrap().len(), 1_000);
        assert!(store.s3_counts().unwrap().cache_files <= 2);
    }
    // None at all.
    for (bytes_max, files_max) in [(0, 10), (1_000_000, 0)] {
        let store = server.cached(CacheSettings { bytes_max, files_max, ..settings.clone() }).await;
        assert_eq!(read(&store, ids[0]).await.unwrap(), [0; 1_000]);
        assert_eq!(store.s3_counts().unwrap().cache_files, 0);
    }
}

#[tokio::test]
async fn many_who_miss_the_same_piece_share_one_request() {
    let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
    let writer = server.store().await;
    let id = writer.put(&bytes(SMALL)).await.unwrap();
    let store = server.cached(cache(&folder, 1 << 20, 10)).await;
    server.asked();
    let reads = (0..50).map(|_| read(&store, id));
    for found in futures_util::future::join_all(reads).await {
        assert_eq!(found.unwrap(), bytes(SMALL));
    }
    assert_eq!(server.asked(), ["GET"]);
    let counts = store.s3_counts().unwrap();
    assert_eq!((counts.cache_misses, counts.cache_hits), (1, 49));

    // One who leaves does not take the others with it; one who fails does not either.
    let other = writer.put(b"other").await.unwrap();
    server.next([Fault::Status(403, "AccessDenied")]);
    let (first, second) = tokio::join!(read(&store, other), read(&store, other));
    assert!(first.is_err() != second.is_err(), "the second asks for itself");
    let third = writer.put(b"third").await.unwrap();
    server.next([Fault::Stalled]);
    let mut leaving = Box::pin(read(&store, third));
    assert!(Env::system().timeout(Duration::from_millis(50), &mut leaving).await.is_err());
    let staying = read(&store, third);
    let leave = async { drop(leaving) };
    let (found, ()) = tokio::join!(staying, leave);
    assert_eq!(found.unwrap(), b"third");
}

#[tokio::test]
async fn a_cache_that_fails_costs_requests_alone() {
    let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
    let settings = cache(&folder, 1 << 20, 10);
    let store = server.cached(settings.clone()).await;
    std::fs::remove_dir_all(&settings.folder).unwrap();
    let id = store.put(&bytes(SMALL)).await.unwrap();
    store.cache_settled().await;
    assert_eq!(read(&store, id).await.unwrap(), bytes(SMALL));
    assert!(store.s3_counts().unwrap().cache_errors > 0);
    // A folder that cannot be one.
    std::fs::write(&settings.folder, b"").unwrap();
    let failed =
        BlobStore::s3(S3Settings { cache: Some(settings), ..server.settings() }, Env::system());
    assert!(matches!(failed.await.map(drop), Err(BlobError::Unavailable { .. })));
}

/// More requests than may be under way at once: each has its turn.
#[tokio::test]
async fn requests_under_way_are_bounded() {
    let server = Server::start().await;
    let store = server.store().await;
    let blobs: Vec<Vec<u8>> = (0..40_u8).map(|n| vec![n; 100]).collect();
    let puts = blobs.iter().map(|blob| store.put(blob));
    for (put, blob) in futures_util::future::join_all(puts).await.into_iter().zip(&blobs) {
        assert_eq!(read(&store, put.unwrap()).await.unwrap(), *blob);
    }
    assert_eq!(WINDOW_BYTES, crate::store::to_u64(WINDOW));
}
