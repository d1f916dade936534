//! The records of operations that were done: whether they can be read.

use kv::Transaction;

use super::{
    Damage, FsckError,
    emails::{Checked, check_pages, is_alive},
    walk::{Walk, stretch},
};
use crate::{AccountId, StoreError, keys, operation::Outcome};

pub(super) async fn check(walk: &mut Walk, account: AccountId) -> Result<(), FsckError> {
    let (begin, _) = keys::operation::range(account);
    check_pages(
        walk,
        begin,
        |tx, from, rows| async move { page(&tx, account, &from, rows * 2).await },
    )
    .await
}

async fn page(
    tx: &Transaction,
    account: AccountId,
    from: &[u8],
    most: usize,
) -> Result<Checked, StoreError> {
    if !is_alive(tx, account).await? {
        return Ok(Checked::GONE);
    }
    let (_, end) = keys::operation::range(account);
    let read = stretch(tx, from.to_vec(), end, most).await?;
    let family = "operation";
    let is_bad = |value: &[u8]| match value.split_first_chunk::<10>() {
        Some((_stamp, record)) => keys::decode::<Outcome>(family, record).is_err(),
        None => true,
    };
    let bad = read.rows.iter().filter(|row| is_bad(&row.value));
    let damages = bad.map(|row| Damage::Undecodable { family, key: row.key.to_vec() }).collect();
    Ok(Checked { damages, rows: 0, next: read.next() })
}
