//! Values beside the transactions: for blobs, which no transaction could hold.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use env::Env;

use crate::{
    Error, Result,
    embedded::Queue,
    limits::{LARGE_KEY_BYTES_MAX, LARGE_SCAN_KEYS_MAX, LARGE_VALUE_BYTES_MAX},
};

/// A map of large values, written to the same journal as the embedded engine's commits.
///
/// A value that was put is durable once any later commit is, or after [`LargeValues::sync`]; it
/// is readable at once. Clones are handles to the same map.
#[derive(Clone)]
pub struct LargeValues {
    engine: Engine,
}

#[derive(Clone)]
enum Engine {
    Memory(Arc<Mutex<BTreeMap<Bytes, Bytes>>>),
    Embedded(Arc<Queue>),
}

impl std::fmt::Debug for LargeValues {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LargeValues")
    }
}

fn lock(
    values: &Mutex<BTreeMap<Bytes, Bytes>>,
) -> std::sync::MutexGuard<'_, BTreeMap<Bytes, Bytes>> {
    values.lock().expect("nothing panics while it holds the values")
}

fn check_key(key: &[u8]) -> Result<()> {
    if key.is_empty() || key.len() > LARGE_KEY_BYTES_MAX {
        return Err(Error::KeyTooLarge { bytes: key.len() });
    }
    Ok(())
}

impl LargeValues {
    /// A new, empty map in memory.
    pub fn memory(_env: Env) -> Self {
        Self { engine: Engine::Memory(Arc::default()) }
    }

    pub(crate) fn embedded(queue: Arc<Queue>) -> Self {
        Self { engine: Engine::Embedded(queue) }
    }

    /// Puts a value, replacing any that is there.
    ///
    /// # Errors
    /// [`Error::KeyTooLarge`] (also for an empty key), [`Error::ValueTooLarge`],
    /// [`Error::EngineFailed`].
    pub async fn put(&self, key: &[u8], value: Bytes) -> Result<()> {
        check_key(key)?;
        if value.len() > LARGE_VALUE_BYTES_MAX {
            return Err(Error::ValueTooLarge { bytes: value.len() });
        }
        match &self.engine {
            Engine::Memory(values) => {
                lock(values).insert(Bytes::copy_from_slice(key), value);
                Ok(())
            }
            Engine::Embedded(queue) => queue.put(key, Some(value)).await,
        }
    }

    /// The value of a key.
    ///
    /// # Errors
    /// [`Error::EngineFailed`].
    pub async fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        match &self.engine {
            Engine::Memory(values) => Ok(lock(values).get(key).cloned()),
            Engine::Embedded(_) if check_key(key).is_err() => Ok(None),
            Engine::Embedded(queue) => queue.large_value(key).await,
        }
    }

    /// Removes a key. As durable as [`LargeValues::put`].
    ///
    /// # Errors
    /// [`Error::EngineFailed`].
    pub async fn remove(&self, key: &[u8]) -> Result<()> {
        check_key(key)?;
        match &self.engine {
            Engine::Memory(values) => {
                lock(values).remove(key);
                Ok(())
            }
            Engine::Embedded(queue) => queue.put(key, None).await,
        }
    }

    /// At most `limit` keys that begin with `prefix`, ascending, those after `after` only.
    ///
    /// # Errors
    /// [`Error::EngineFailed`].
    pub async fn scan_prefix(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Bytes>> {
        let limit = limit.min(LARGE_SCAN_KEYS_MAX);
        let begin = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        match &self.engine {
            Engine::Memory(values) => Ok(lock(values)
                .range::<[u8], _>((begin, Bound::Unbounded))
                .map(|(key, _)| key)
                .take_while(|key| key.starts_with(prefix))
                .take(limit)
                .cloned()
                .collect()),
            Engine::Embedded(queue) => queue.large_keys(prefix, after, limit).await,
        }
    }

    /// Makes everything durable that was put or removed before.
    ///
    /// # Errors
    /// [`Error::EngineFailed`].
    pub async fn sync(&self) -> Result<()> {
        match &self.engine {
            Engine::Memory(_) => Ok(()),
            Engine::Embedded(queue) => queue.sync().await,
        }
    }
}
