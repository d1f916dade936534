//! Blobs that were marked: first their bytes go, later the mark.

use bytes::Bytes;
use env::Timestamp;
use futures_util::{StreamExt, stream};
use kv::{RangeQuery, Transaction};

use super::{SweepError, Sweeper, Swept};
use crate::{
    BlobName,
    limits::{ADOPT_WITHIN_MS, SWEEP_PAGE, SWEEP_REMOVALS},
    references::{self, Step},
};

/// A step that is to be taken.
struct Entry {
    key: Bytes,
    name: BlobName,
    step: Step,
}

impl Sweeper {
    /// Takes every step that is to be taken by `now`. A blob that cannot be removed keeps none of
    /// the others from it.
    pub(super) async fn dying(&self, now: Timestamp, swept: &mut Swept) -> Result<(), SweepError> {
        let (begin, end) = references::steps_until(now);
        let mut begin = Bytes::from(begin);
        let mut failed = None;
        loop {
            let range = RangeQuery::new(begin.clone(), end.clone()).limit(SWEEP_PAGE).snapshot();
            let range = &range;
            let rows =
                self.db.run(|tx| async move { tx.range(range.clone()).collect().await }).await?;
            let full = rows.len() == SWEEP_PAGE;
            if let Some(last) = rows.last() {
                begin = [&last.key[..], &[0]].concat().into();
            }
            let entries = rows.into_iter().filter_map(|row| {
                let (_, name) = references::decode_step(&row)?;
                Some(Entry { key: row.key, name, step: Step::from_bytes(&row.value) })
            });
            if let Err(error) = self.take_steps(entries.collect(), now, swept).await {
                swept.errors += 1;
                failed.get_or_insert(error);
            }
            if !full {
                return failed.map_or(Ok(()), Err);
            }
        }
    }

    async fn take_steps(
        &self,
        entries: Vec<Entry>,
        now: Timestamp,
        swept: &mut Swept,
    ) -> Result<(), SweepError> {
        let mut taken = Vec::new();
        let mut failed = None;
        let remove = |entry: Entry| async move {
            let removed = match entry.step {
                Step::Remove => self.call("remove", self.blobs.remove(&entry.name)).await,
                Step::Forget => Ok(()),
            };
            removed.map(|()| entry)
        };
        let mut removals = stream::iter(entries).map(remove).buffer_unordered(SWEEP_REMOVALS);
        while let Some(removed) = removals.next().await {
            match removed {
                Ok(entry) => taken.push(entry),
                Err(error) => failed = Some(error),
            }
        }
        drop(removals);
        let taken = &taken;
        let (removed, forgotten) =
            self.db.run(|tx| async move { record(&tx, taken, now).await }).await?;
        swept.removed += removed;
        swept.forgotten += forgotten;
        failed.map_or(Ok(()), |error| Err(error.into()))
    }
}

/// Writes down which steps were taken and what comes next. Another sweeper may have done so.
async fn record(
    tx: &Transaction,
    taken: &[Entry],
    now: Timestamp,
) -> Result<(u64, u64), kv::Error> {
    let (mut removed, mut forgotten) = (0, 0);
    for Entry { key, name, step } in taken {
        if tx.get(key).await?.is_none() {
            continue;
        }
        tx.clear(key);
        let dying_key = references::dying_key(name);
        match step {
            Step::Remove => {
                let since = tx.get(&dying_key).await?;
                let since = since.map_or(now.unix_ms(), |since| references::time_of(&since));
                let at = since.saturating_add(ADOPT_WITHIN_MS);
                tx.set(&references::step_key(at, name), &Step::Forget.to_bytes());
                env::sometimes!("removed a blob that nobody needs");
                removed += 1;
            }
            Step::Forget => {
                tx.clear(&dying_key);
                env::sometimes!("forgot the mark of a removed blob");
                forgotten += 1;
            }
        }
    }
    Ok((removed, forgotten))
}
