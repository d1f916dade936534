//! Who hears of an account's changes, across nodes.
//!
//! | key | value | lifecycle |
//! |---|---|---|
//! | (Interest, A, L) | empty | written when a listener's first session on A waits for changes, cleared some time after its last one has gone, or with the listener |
//! | (Interest, "l", L, A) | empty | always with (Interest, A, L): a listener's interests, to be found when it dies |
//! | (Inbox, L, versionstamp, A) | empty | written by each commit that changes A, cleared by L when it has read it |
//! | (Bell, L) | u64 LE | one added by each commit that writes to L's inbox; L watches it |
//!
//! Architecture invariant: a transaction that appends to A's log reads A's interests with
//! conflict and writes to each one's inbox. So of a commit and an interest one comes first: either
//! the commit tells the listener, or the listener's first look at the log sees the commit.
//!
//! A listener is one life of a node; this crate only needs to tell one from another.

use std::collections::BTreeMap;

use env::probe::Planted;
use kv::{
    AtomicOp, Prefetch, RangeQuery, Subspace, Transaction,
    tuple::{self, pack},
};

use crate::{
    AccountId, ModSeq, StoreError,
    keys::{range_of, split_integer},
    limits,
};

/// Something that hears of changes: one life of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerId(pub u64);

/// Who has to be told of one account's change, after the commit, so that they need not wait for
/// their bell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interested {
    /// The listeners; their inboxes name the account already.
    pub listeners: Vec<ListenerId>,
}

/// The key that a listener watches.
pub fn bell_key(listener: ListenerId) -> Vec<u8> {
    pack(&(Subspace::Bell as u64, listener.0))
}

fn interest_key(account: AccountId, listener: ListenerId) -> Vec<u8> {
    pack(&(Subspace::Interest as u64, account.0, listener.0))
}

fn of_listener_key(listener: ListenerId, account: AccountId) -> Vec<u8> {
    pack(&(Subspace::Interest as u64, "l", listener.0, account.0))
}

fn of_account(account: AccountId) -> RangeQuery {
    RangeQuery::prefix(&pack(&(Subspace::Interest as u64, account.0)))
}

fn of_listener(listener: ListenerId) -> RangeQuery {
    RangeQuery::prefix(&pack(&(Subspace::Interest as u64, "l", listener.0)))
}

fn inbox(listener: ListenerId) -> RangeQuery {
    RangeQuery::prefix(&pack(&(Subspace::Inbox as u64, listener.0)))
}

/// From this commit on, `listener` is told of each change of `account`.
pub fn listen(tx: &Transaction, account: AccountId, listener: ListenerId) {
    tx.set(&interest_key(account, listener), &[]);
    tx.set(&of_listener_key(listener, account), &[]);
}

/// From this commit on, `listener` is not told of changes of `account`.
pub fn unlisten(tx: &Transaction, account: AccountId, listener: ListenerId) {
    tx.clear(&interest_key(account, listener));
    tx.clear(&of_listener_key(listener, account));
}

/// Names what [`tell`] reads.
pub(crate) fn tell_ahead(ahead: &mut Prefetch, account: AccountId) {
    ahead.range(of_account(account));
}

/// Writes to the inboxes of all who listen to `account` that it changes. Part of
/// [`crate::AccountUnit::finish`].
///
/// # Errors
/// [`StoreError`].
pub async fn tell(tx: &Transaction, account: AccountId) -> Result<Interested, StoreError> {
    if env::probe::planted(Planted::DropInterestRead) {
        return Ok(Interested::default());
    }
    let rows = tx.range(of_account(account)).collect().await?;
    let mut listeners = Vec::with_capacity(rows.len());
    for row in rows {
        let (_, _, listener): (u64, u64, u64) = tuple::unpack(&row.key)
            .map_err(|_| StoreError::damaged("interest", "a key without its listener"))?;
        let stamp = tuple::Versionstamp::incomplete(0);
        let entry = (Subspace::Inbox as u64, listener, stamp, account.0);
        let key = tuple::pack_with_versionstamp(&entry);
        tx.atomic(&key, &[], AtomicOp::SetVersionstampedKey);
        tx.atomic(&bell_key(ListenerId(listener)), &1_u64.to_le_bytes(), AtomicOp::Add);
        listeners.push(ListenerId(listener));
    }
    Ok(Interested { listeners })
}

/// Whether a bounded transaction may have left something for the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remaining {
    /// Perhaps.
    Some,
    /// Nothing.
    None,
}

/// Takes the oldest entries out of an inbox: accounts that have changed, each once, with the version
/// of its newest change among them. Entries come with ascending versionstamps, so none that was
/// not read is cleared, and nothing conflicts.
///
/// # Errors
/// [`StoreError`].
pub async fn take_inbox(
    tx: &Transaction,
    listener: ListenerId,
) -> Result<(BTreeMap<AccountId, ModSeq>, Remaining), StoreError> {
    let limit = limits::INBOX_ENTRIES_PER_READ;
    let rows = tx.range(inbox(listener).limit(limit).snapshot()).collect().await?;
    let mut accounts = BTreeMap::new();
    for row in &rows {
        let (_, _, stamp, account): (u64, u64, tuple::Versionstamp, u64) = tuple::unpack(&row.key)
            .map_err(|_| StoreError::damaged("inbox", "a key without its account"))?;
        let version = stamp.as_bytes().first_chunk::<8>().map_or(0, |it| u64::from_be_bytes(*it));
        // Ascending: the last one stays.
        accounts.insert(AccountId(account), ModSeq(version));
        tx.clear(&row.key);
    }
    Ok((accounts, remaining(rows.len(), limit)))
}

/// Forgets some of a listener's interests. Its inbox is to be forgotten after the last of them,
/// in a later transaction: until then commits may still write to it.
///
/// # Errors
/// [`StoreError`].
pub async fn forget_interests(
    tx: &Transaction,
    listener: ListenerId,
) -> Result<Remaining, StoreError> {
    let limit = limits::INTERESTS_PER_TRANSACTION;
    let rows = tx.range(of_listener(listener).limit(limit)).collect().await?;
    for row in &rows {
        let (_, _, _, account): (u64, String, u64, u64) = tuple::unpack(&row.key)
            .map_err(|_| StoreError::damaged("interest", "a key without its account"))?;
        unlisten(tx, AccountId(account), listener);
    }
    Ok(remaining(rows.len(), limit))
}

/// Forgets some of a listener's inbox, and with the last of it the bell.
///
/// # Errors
/// [`StoreError`].
pub async fn forget_inbox(tx: &Transaction, listener: ListenerId) -> Result<Remaining, StoreError> {
    let limit = limits::INBOX_ENTRIES_PER_READ;
    let rows = tx.range(inbox(listener).limit(limit).snapshot()).collect().await?;
    for row in &rows {
        tx.clear(&row.key);
    }
    let remaining = remaining(rows.len(), limit);
    if remaining == Remaining::None {
        tx.clear(&bell_key(listener));
    }
    Ok(remaining)
}

/// Listeners that somebody's interest or inbox names, at or after `from`: what a check compares
/// with the nodes that there are. One of each family at most; call again behind the smaller.
///
/// # Errors
/// [`StoreError`].
pub async fn next_listener(
    tx: &Transaction,
    from: ListenerId,
) -> Result<Option<ListenerId>, StoreError> {
    let mut next: Option<ListenerId> = None;
    let families = [
        (pack(&(Subspace::Interest as u64, "l", from.0)), pack(&(Subspace::Interest as u64, "l"))),
        (pack(&(Subspace::Inbox as u64, from.0)), pack(&(Subspace::Inbox as u64,))),
        (pack(&(Subspace::Bell as u64, from.0)), pack(&(Subspace::Bell as u64,))),
    ];
    for (begin, family) in families {
        let (_, end) = range_of(family.clone());
        let rows = tx.range(RangeQuery::new(begin, end).limit(1).snapshot()).collect().await?;
        let Some(row) = rows.first() else { continue };
        let (listener, _) = split_integer(&row.key[family.len()..])
            .ok_or_else(|| StoreError::damaged("inbox", "a key without its listener"))?;
        let found = ListenerId(listener);
        next = Some(next.map_or(found, |held| held.min(found)));
    }
    Ok(next)
}

/// Interests of which only one of the two keys is there, among some of all, and the key from which
/// another transaction goes on. An account that tells a listener which does not list it would go on
/// for ever; one that a listener lists and that does not tell it lets it wait in vain.
///
/// # Errors
/// [`StoreError`].
pub async fn halves(
    tx: &Transaction,
    from: Option<&[u8]>,
) -> Result<(Vec<(AccountId, ListenerId)>, Option<Vec<u8>>), StoreError> {
    let (begin, end) = range_of(pack(&(Subspace::Interest as u64,)));
    let begin = from.map_or(begin, <[u8]>::to_vec);
    let query = RangeQuery::new(begin, end).limit(limits::INTERESTS_PER_TRANSACTION).snapshot();
    let rows = tx.range(query).next_page().await?.unwrap_or_default();
    let mut halves = Vec::new();
    for row in &rows {
        let (account, listener, other) = match tuple::unpack::<(u64, u64, u64)>(&row.key) {
            Ok((_, account, listener)) => {
                let (account, listener) = (AccountId(account), ListenerId(listener));
                (account, listener, of_listener_key(listener, account))
            }
            Err(_) => {
                let (_, _, listener, account): (u64, String, u64, u64) = tuple::unpack(&row.key)
                    .map_err(|_| StoreError::damaged("interest", "a key without its account"))?;
                let (account, listener) = (AccountId(account), ListenerId(listener));
                (account, listener, interest_key(account, listener))
            }
        };
        if tx.get_snapshot(&other).await?.is_none() {
            halves.push((account, listener));
        }
    }
    Ok((halves, rows.last().map(|row| [&row.key[..], &[0]].concat())))
}

/// Makes an interest whole of which only one key is there: its listener is told once too often at
/// worst.
///
/// # Errors
/// [`StoreError`].
pub async fn mend_half(
    tx: &Transaction,
    account: AccountId,
    listener: ListenerId,
) -> Result<(), StoreError> {
    let here = tx.get(&interest_key(account, listener)).await?.is_some();
    let there = tx.get(&of_listener_key(listener, account)).await?.is_some();
    if here != there {
        listen(tx, account, listener);
    }
    Ok(())
}

fn remaining(rows: usize, limit: usize) -> Remaining {
    if rows < limit { Remaining::None } else { Remaining::Some }
}

#[cfg(test)]
mod tests {
    use kv::Database;

    use super::*;

    const HERE: ListenerId = ListenerId(7);
    const THERE: ListenerId = ListenerId(300);

    async fn change(db: &Database, account: u64) -> Interested {
        db.run(|tx| async move { tell(&tx, AccountId(account)).await }).await.unwrap()
    }

    async fn taken(db: &Database, listener: ListenerId) -> Vec<u64> {
        let taken = db.run(|tx| async move { take_inbox(&tx, listener).await }).await;
        taken.unwrap().0.into_keys().map(|account| account.0).collect()
    }

    async fn listening(db: &Database, account: u64, listener: ListenerId) {
        db.run(|tx| async move {
            listen(&tx, AccountId(account), listener);
            Ok::<_, kv::Error>(())
        })
        .await
        .unwrap();
    }

    #[tokio::test]
    async fn a_change_reaches_those_who_listen_and_nobody_else() {
        let db = Database::memory(env::Env::system());
        listening(&db, 1, HERE).await;
        listening(&db, 1, THERE).await;
        listening(&db, 256, THERE).await;
        assert_eq!(change(&db, 1).await.listeners, [HERE, THERE]);
        assert_eq!(change(&db, 1).await.listeners, [HERE, THERE]);
        assert_eq!(change(&db, 256).await.listeners, [THERE]);
        assert_eq!(change(&db, 2).await.listeners, []);
        assert_eq!(taken(&db, HERE).await, [1]);
        assert_eq!(taken(&db, HERE).await, [] as [u64; 0]);
        assert_eq!(taken(&db, THERE).await, [1, 256]);
    }

    #[tokio::test]
    async fn a_commit_and_an_interest_do_not_miss_each_other() {
        let db = Database::memory(env::Env::system());
        let writer = db.begin();
        assert_eq!(tell(&writer, AccountId(1)).await.unwrap(), Interested::default());
        writer.set(b"a change", b"");
        listening(&db, 1, HERE).await;
        assert!(matches!(writer.commit().await, Err(kv::Error::Conflict)));
    }

    #[tokio::test]
    async fn a_listener_is_forgotten_whole() {
        let db = Database::memory(env::Env::system());
        let many = limits::INTERESTS_PER_TRANSACTION as u64 + 3;
        for account in 1..=many {
            listening(&db, account, HERE).await;
        }
        listening(&db, 5, THERE).await;
        change(&db, 5).await;
        let mut rounds = 1;
        while db.run(|tx| async move { forget_interests(&tx, HERE).await }).await.unwrap()
            == Remaining::Some
        {
            rounds += 1;
        }
        assert_eq!(rounds, 2);
        let inbox = db.run(|tx| async move { forget_inbox(&tx, HERE).await }).await.unwrap();
        assert_eq!(inbox, Remaining::None);
        let next = |from| db.run(move |tx| async move { next_listener(&tx, from).await });
        assert_eq!(next(ListenerId(0)).await.unwrap(), Some(THERE));
        assert_eq!(next(ListenerId(301)).await.unwrap(), None);
        assert_eq!(taken(&db, THERE).await, [5]);
    }
}
