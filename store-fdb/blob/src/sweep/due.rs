//! Blobs whose grace time is over.

use env::{
    Timestamp,
    probe::{self, Planted},
};
use kv::{RangeQuery, Transaction};

use super::{SweepError, Sweeper, Swept};
use crate::{
    limits::SWEEP_PAGE,
    references::{self, due_until},
};

/// What became of a page of due entries.
#[derive(Default)]
pub(super) struct Looked {
    entries: usize,
    kept: u64,
    pub(super) marked: u64,
    unreadable: u64,
}

impl Sweeper {
    /// Looks at every blob that is due by `now`.
    pub(super) async fn due(&self, now: Timestamp, swept: &mut Swept) -> Result<(), SweepError> {
        loop {
            let looked = self.db.run(|tx| async move { look(&tx, now).await }).await?;
            swept.kept += looked.kept;
            swept.marked += looked.marked;
            if looked.unreadable > 0 {
                tracing::warn!(count = looked.unreadable, "due entries that no release knows");
            }
            if looked.entries < SWEEP_PAGE {
                return Ok(());
            }
        }
    }
}

/// Looks at the first entries that are due, and clears them.
pub(super) async fn look(tx: &Transaction, now: Timestamp) -> Result<Looked, kv::Error> {
    let (begin, end) = due_until(now);
    let rows = tx.range(RangeQuery::new(begin, end).limit(SWEEP_PAGE)).collect().await?;
    let mut looked = Looked { entries: rows.len(), ..Looked::default() };
    for row in rows {
        tx.clear(&row.key);
        // A scan finds what an unreadable entry meant.
        let Some((due, name)) = references::decode_due(&row) else {
            looked.unreadable += 1;
            continue;
        };
        let newest_key = references::newest_due_key(&name);
        let newest = tx.get(&newest_key).await?.map(|newest| references::time_of(&newest));
        if newest.is_some_and(|newest| newest > due) {
            // Somebody has let go since: the grace time counts from there.
            looked.kept += 1;
            continue;
        }
        tx.clear(&newest_key);
        let is_needed =
            !probe::planted(Planted::SweepWithoutMark) && references::any(tx, &name).await?;
        if !is_needed && references::mark_dying(tx, &name, now).await? {
            env::sometimes!("marked a blob that nobody needs");
            looked.marked += 1;
        } else {
            looked.kept += 1;
        }
    }
    Ok(looked)
}
