//! Every file of a store, damaged in every way: told with its name, or without consequence; never
//! served.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use env::Env;
use kv::{
    Error, OpenError, RangeQuery,
    embedded::{Embedded, EmbeddedOptions},
};

type Content = BTreeMap<Vec<u8>, Vec<u8>>;

fn options() -> EmbeddedOptions {
    EmbeddedOptions { memtable_bytes: 64 * 1024, ..EmbeddedOptions::default() }
}

fn open(path: &Path) -> Result<Embedded, OpenError> {
    Embedded::open(path, Env::system(), options())
}

/// A store with files of every kind.
async fn build(path: &Path) -> Content {
    let mut content = Content::new();
    for round in 0..3_u8 {
        let embedded = open(path).unwrap();
        let (db, large) = (embedded.database(), embedded.large_values());
        for number in 0..120_u8 {
            let noise = Env::system().random_array::<900>();
            let body = [&noise[..], &[number; 6000]].concat();
            let tx = db.begin();
            tx.set(&[b'r', number], &noise);
            if number % 7 == round {
                tx.clear(&[b'r', number]);
                content.remove([b'r', number].as_slice());
            } else {
                content.insert(vec![b'r', number], noise.to_vec());
            }
            if number % 4 == 0 {
                large.put(&[b'L', number], Bytes::from(body.clone())).await.unwrap();
                content.insert(vec![b'L', number], body);
            }
            tx.commit().await.unwrap();
        }
        embedded.close().await.unwrap();
    }
    // Large values go to files of their own only with more of them.
    let embedded = open(path).unwrap();
    let large = embedded.large_values();
    for number in 0..60_u8 {
        let body = Env::system().random_array::<100_000>();
        large.put(&[b'M', number], Bytes::copy_from_slice(&body)).await.unwrap();
        content.insert(vec![b'M', number], body.to_vec());
    }
    large.sync().await.unwrap();
    embedded.close().await.unwrap();
    // Opened once more, its journals are as short as they can be.
    open(path).unwrap().close().await.unwrap();
    content
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(&file, target).unwrap();
    }
    for folder in ["tables", "blobs"] {
        for keyspace in 0..4 {
            let place = format!("keyspaces/{keyspace}/{folder}");
            if from.join(&place).is_dir() {
                std::fs::create_dir_all(to.join(place)).unwrap();
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Damage {
    Flipped(usize),
    Cut(usize),
    Gone,
}

fn damages(bytes: usize) -> Vec<Damage> {
    let mut damages = vec![Damage::Gone, Damage::Cut(0)];
    if bytes > 0 {
        let places = (0..20).map(|place| place * (bytes - 1) / 19);
        let ends = [0, 1, 5, 13, 20, bytes / 2, bytes.saturating_sub(20), bytes - 1];
        let mut places: Vec<_> = places.chain(ends).filter(|place| *place < bytes).collect();
        places.sort_unstable();
        places.dedup();
        damages.extend(places.into_iter().map(Damage::Flipped));
        damages.extend([bytes / 2, bytes - 1].map(Damage::Cut));
    }
    damages
}

fn inflict(file: &Path, damage: Damage) {
    let mut bytes = std::fs::read(file).unwrap();
    match damage {
        Damage::Gone => return std::fs::remove_file(file).unwrap(),
        Damage::Flipped(at) => bytes[at] ^= 1 << (at % 8),
        Damage::Cut(kept) => bytes.truncate(kept),
    }
    std::fs::write(file, bytes).unwrap();
}

/// What became of a damaged store.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// The open named a file.
    ToldAtOpen(PathBuf),
    /// A read failed.
    ToldAtRead(String),
    /// Everything is there.
    Harmless,
    /// Something else is there than was written.
    Served(String),
}

async fn read_all(embedded: &Embedded) -> Result<Content, Error> {
    let (db, large) = (embedded.database(), embedded.large_values());
    let mut content = Content::new();
    for direction in [false, true] {
        let mut query = RangeQuery::new("", "\u{7f}");
        if direction {
            query = query.reverse();
        }
        let rows = db.begin().range(query).collect().await?;
        content.extend(rows.iter().map(|row| (row.key.to_vec(), row.value.to_vec())));
    }
    for key in large.scan_prefix(b"", None, 10_000).await? {
        let value = large.get(&key).await?;
        content.insert(key.to_vec(), value.map(|value| value.to_vec()).unwrap_or_default());
    }
    // Single keys take another way than ranges.
    for number in 0..120_u8 {
        let value = db.begin().get(&[b'r', number]).await?;
        let ranged = content.get([b'r', number].as_slice());
        assert_eq!(value.as_deref(), ranged.map(Vec::as_slice));
    }
    Ok(content)
}

async fn verdict(path: &Path, content: &Content) -> Verdict {
    let embedded = match open(path) {
        Ok(embedded) => embedded,
        Err(
            OpenError::Corrupt { path: told, .. }
            | OpenError::Io { path: told, .. }
            | OpenError::FormatUnknown { path: told, .. },
        ) => return Verdict::ToldAtOpen(told),
        Err(other) => panic!("{other}"),
    };
    match read_all(&embedded).await {
        Ok(read) if read == *content => Verdict::Harmless,
        Ok(read) => {
            let differ = content.iter().filter(|(key, value)| read.get(*key) != Some(value));
            let more = read.len() as isize - content.len() as isize;
            Verdict::Served(format!("{} differ, {more} more", differ.count()))
        }
        Err(error) => Verdict::ToldAtRead(error.to_string()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_told_and_never_served() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("store");
    let content = Box::pin(build(&store)).await;
    let (mut served, mut cases) = (Vec::new(), 0);
    let mut kinds: BTreeMap<String, BTreeMap<String, u32>> = BTreeMap::new();
    for file in files(&store) {
        let name = file.strip_prefix(&store).unwrap();
        let kind = name.to_string_lossy().replace(|c: char| c.is_ascii_digit(), "N");
        for damage in damages(usize::try_from(file.metadata().unwrap().len()).unwrap()) {
            // Hundreds of copies: in memory, where there is such a place, nothing is synced.
            let copied = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
            let path = copied.path().join("store");
            copy(&store, &path);
            inflict(&path.join(name), damage);
            let verdict = verdict(&path, &content).await;
            cases += 1;
            let told = match &verdict {
                Verdict::ToldAtOpen(told) if *told == path.join(name) => "open, file".to_owned(),
                Verdict::ToldAtOpen(told) => {
                    assert!(told.starts_with(&path), "{name:?} {damage:?} {told:?}");
                    "open, folder".to_owned()
                }
                Verdict::ToldAtRead(error) => {
                    assert!(
                        error.contains(&*path.to_string_lossy()),
                        "{name:?} {damage:?} {error}"
                    );
                    "read".to_owned()
                }
                Verdict::Harmless => "harmless".to_owned(),
                Verdict::Served(what) => {
                    served.push(format!("{} {damage:?}: {what}", name.display()));
                    "SERVED".to_owned()
                }
            };
            *kinds.entry(kind.clone()).or_default().entry(told).or_default() += 1;
        }
    }
    for (kind, told) in &kinds {
        println!("{kind}: {told:?}");
    }
    println!("{cases} cases");
    assert_eq!(served, Vec::<String>::new());
}
