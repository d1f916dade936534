//! Pieces on their way into the folder: a put does not wait for them, and a read finds them here.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::sync::watch;

use super::{Cache, Fetched, Key};
use crate::limits::{S3_CACHE_BEHIND_BYTES_MAX, S3_CACHE_BEHIND_PIECES};

pub(super) struct Behind {
    waiting: Mutex<Waiting>,
    writer: watch::Sender<Writer>,
}

#[derive(Default)]
struct Waiting {
    pieces: BTreeMap<Key, Fetched>,
    bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writer {
    Resting,
    AtWork,
}

impl Default for Behind {
    fn default() -> Self {
        Self { waiting: Mutex::default(), writer: watch::Sender::new(Writer::Resting) }
    }
}

impl Behind {
    pub(super) fn get(&self, key: Key) -> Option<Fetched> {
        self.waiting().pieces.get(&key).cloned()
    }

    /// Takes a piece, where it is new and there is room for it; tells what the writer was doing.
    fn take(&self, key: Key, piece: Fetched) -> Option<Writer> {
        let mut waiting = self.waiting();
        let bytes = waiting.bytes + piece.bytes.len();
        if bytes > S3_CACHE_BEHIND_BYTES_MAX || waiting.pieces.contains_key(&key) {
            return None;
        }
        waiting.bytes = bytes;
        waiting.pieces.insert(key, piece);
        Some(self.writer.send_replace(Writer::AtWork))
    }

    /// What to write next; it stays where a read finds it. Nothing puts the writer to rest.
    fn next(&self) -> Vec<(Key, Fetched)> {
        let waiting = self.waiting();
        if waiting.pieces.is_empty() {
            self.writer.send_replace(Writer::Resting);
        }
        let next = waiting.pieces.iter().take(S3_CACHE_BEHIND_PIECES);
        next.map(|(key, piece)| (*key, piece.clone())).collect()
    }

    fn done(&self, keys: &[Key]) {
        let mut waiting = self.waiting();
        for key in keys {
            if let Some(piece) = waiting.pieces.remove(key) {
                waiting.bytes -= piece.bytes.len();
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("nothing panics while it holds what waits")
    }
}

impl Cache {
    /// Keeps a piece, but lets nobody wait for it. Where too much is on its way already it is not
    /// kept: it can be asked for again.
    pub(in crate::s3) fn put_behind(self: &Arc<Self>, key: Key, piece: Fetched) {
        if self.behind.take(key, piece) != Some(Writer::Resting) {
            return;
        }
        let cache = Arc::clone(self);
        let write = async move {
            loop {
                let next = cache.behind.next();
                if next.is_empty() {
                    return;
                }
                let keys: Vec<Key> = next.iter().map(|(key, _)| *key).collect();
                cache.keep(next).await;
                cache.behind.done(&keys);
            }
        };
        self.env.spawn("blob-cache", write).detach();
    }

    /// Waits until nothing is on its way.
    #[cfg(test)]
    pub(in crate::s3) async fn settled(&self) {
        let mut writer = self.behind.writer.subscribe();
        writer.wait_for(|writer| *writer == Writer::Resting).await.expect("the cache has it");
    }
}
