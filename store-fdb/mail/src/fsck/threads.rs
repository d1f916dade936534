//! Thread keys that belong to nothing. That none is missing is checked with each email.

use kv::Transaction;

use super::{
    Damage, FsckError,
    emails::{Checked, check_pages, is_alive},
    walk::{Walk, stretch},
};
use crate::{
    AccountId, EmailId, StoreError, ThreadId,
    keys::{self, email::EmailMeta},
};

pub(super) async fn check(walk: &mut Walk, account: AccountId) -> Result<(), FsckError> {
    let (begin, _) = keys::thread::all_range(account);
    check_pages(walk, begin, |tx, from, rows| async move { page(&tx, account, &from, rows).await })
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
    let (_, end) = keys::thread::all_range(account);
    let read = stretch(tx, from.to_vec(), end, most).await?;
    let mut damages = Vec::new();
    for row in &read.rows {
        match keys::thread::ThreadKey::parse(account, &row.key) {
            Some(keys::thread::ThreadKey::MessageId(hash, email)) => {
                if !is_needed(tx, account, email, |meta| meta.thread_keys.contains(&hash)).await? {
                    damages.push(Damage::StrayThreadKey(account, hash, email));
                }
            }
            Some(keys::thread::ThreadKey::Member(thread, email)) => {
                if !is_member(tx, account, thread, email).await? {
                    damages.push(Damage::StrayThreadMember(account, thread, email));
                }
            }
            None => damages.push(Damage::Undecodable { family: "thread", key: row.key.to_vec() }),
        }
    }
    Ok(Checked { damages, rows: 0, next: read.next() })
}

/// Whether the email's meta asks for a key. An email that has lost its meta, or has one that
/// cannot be decoded, may need all that it has.
pub(super) async fn is_needed(
    tx: &Transaction,
    account: AccountId,
    email: EmailId,
    asks: impl Fn(&EmailMeta) -> bool,
) -> Result<bool, StoreError> {
    match tx.get(&keys::email::meta_key(account, email)).await? {
        Some(value) => Ok(keys::decode("email meta", &value).map_or(true, |meta| asks(&meta))),
        None => Ok(tx.get(&keys::email::state_key(account, email)).await?.is_some()),
    }
}

/// Whether the email is of the thread, by its state, or its meta where it has lost that.
pub(super) async fn is_member(
    tx: &Transaction,
    account: AccountId,
    thread: ThreadId,
    email: EmailId,
) -> Result<bool, StoreError> {
    match tx.get(&keys::email::state_key(account, email)).await? {
        Some(value) => Ok(keys::email::decode_state(&value)
            .map_or(true, |(_, state)| state.thread == thread.0)
            || is_needed(tx, account, email, |meta| meta.thread == thread.0).await?),
        None => {
            let value = tx.get(&keys::email::meta_key(account, email)).await?;
            let meta = value.map(|value| keys::decode::<EmailMeta>("email meta", &value));
            Ok(meta.is_some_and(|meta| meta.map_or(true, |meta| meta.thread == thread.0)))
        }
    }
}
