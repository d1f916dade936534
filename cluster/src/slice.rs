//! Reading a range of any length in bounded transactions.

use kv::{KeyValue, RangeQuery, Transaction};
use mail::StoreError;

use crate::limits;

/// Some rows of a range, and where to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice<T> {
    /// The rows, in the order of their keys.
    pub rows: Vec<T>,
    /// The key from which another transaction goes on; `None` where there was nothing left.
    pub next: Option<Vec<u8>>,
}

/// Reads some of the range from `from`, or else from its begin. Takes part in no conflict.
pub(crate) async fn slice<T>(
    tx: &Transaction,
    (begin, end): (Vec<u8>, Vec<u8>),
    from: Option<&[u8]>,
    row: impl Fn(KeyValue) -> Result<T, StoreError>,
) -> Result<Slice<T>, StoreError> {
    let begin = from.map_or(begin, <[u8]>::to_vec);
    if begin >= end {
        return Ok(Slice { rows: Vec::new(), next: None });
    }
    let query = RangeQuery::new(begin, end).limit(limits::ROWS_PER_SLICE).snapshot();
    let rows = tx.range(query).next_page().await?.unwrap_or_default();
    let next = rows.last().map(|row| [&row.key[..], &[0]].concat());
    Ok(Slice { rows: rows.into_iter().map(row).collect::<Result<_, _>>()?, next })
}
