//! Reading a range page by page, with the transaction's own writes laid over it.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use bytes::Bytes;

use super::{LocalTransaction, store::PageLimits, write_map::Stopped};
use crate::{
    Direction, Error, Isolation, KeyValue, RangeQuery, Result, limits::SYSTEM_KEYS,
    range::successor,
};

/// A range being read. What is left of the query is in `query`.
pub(crate) struct LocalPages {
    query: RangeQuery,
    progress: Progress,
}

enum Progress {
    Reading,
    Done,
}

impl LocalPages {
    pub(crate) fn new(query: RangeQuery) -> Self {
        Self { query, progress: Progress::Reading }
    }

    /// The next rows; `None` once the range or the limit is exhausted.
    pub(crate) async fn next_page(
        &mut self,
        transaction: &Arc<LocalTransaction>,
    ) -> Result<Option<Vec<KeyValue>>> {
        transaction.lock().usable()?;
        let legal = |key: &Bytes| **key <= *SYSTEM_KEYS;
        if !legal(&self.query.begin) || !legal(&self.query.end) {
            return Err(Error::KeyOutsideLegalRange);
        }
        while matches!(self.progress, Progress::Reading) {
            if self.query.begin >= self.query.end || self.query.limit == Some(0) {
                break;
            }
            transaction.noted(transaction.faults.before_read().await)?;
            let page = transaction.noted(self.read(transaction))?;
            if !page.is_empty() {
                return Ok(Some(page));
            }
        }
        self.progress = Progress::Done;
        Ok(None)
    }

    /// Reads one page, which is empty where all of its rows were cleared.
    fn read(&mut self, transaction: &LocalTransaction) -> Result<Vec<KeyValue>> {
        let query = &mut self.query;
        let view = transaction.view()?;
        let rows_max = query.limit.unwrap_or(usize::MAX);
        let limits = PageLimits { rows: rows_max, bytes: query.page_bytes };
        let stored =
            view.source.range(&query.begin, &query.end, query.direction, limits, view.version)?;
        let (mut begin, mut end) = (query.begin.clone(), query.end.clone());
        if let (true, Some(last)) = (stored.more, stored.rows.last()) {
            match query.direction {
                Direction::Forward => end = successor(&last.key),
                Direction::Reverse => begin = last.key.clone(),
            }
        }
        let merged = {
            let mut state = transaction.lock();
            state.usable()?;
            let merged =
                state.writes.merge(&begin, &end, stored.rows, query.direction, rows_max)?;
            if query.isolation == Isolation::Serializable {
                if state.writes.is_empty() {
                    state.add_read_range(merged.begin.clone(), merged.end.clone());
                } else {
                    for (begin, end) in state.writes.dependent(&merged.begin, &merged.end) {
                        state.add_read_range(begin, end);
                    }
                }
            }
            merged
        };
        if !stored.more && merged.stopped == Stopped::AtEnd {
            self.progress = Progress::Done;
        }
        match query.direction {
            Direction::Forward => query.begin = merged.end,
            Direction::Reverse => query.end = merged.begin,
        }
        if let Some(limit) = &mut query.limit {
            *limit -= merged.rows.len();
        }
        let bytes: usize = merged.rows.iter().map(|row| row.key.len() + row.value.len()).sum();
        transaction.counters.range_reads.fetch_add(1, Relaxed);
        transaction.counters.rows_read.fetch_add(merged.rows.len() as u64, Relaxed);
        transaction.counters.bytes_read.fetch_add(bytes as u64, Relaxed);
        Ok(merged.rows)
    }
}
