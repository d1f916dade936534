//! The checkpoints of views: whether they can be read. What they say is not compared, because
//! they are written anew as mail arrives, and are never the truth.

use kv::{RangeQuery, Subspace, Transaction, tuple::pack};

use super::{Damage, FsckError, emails::is_alive, walk::Walk};
use crate::{
    AccountId, MailboxId, StoreError, keys,
    view::{ViewError, check_header, check_page},
};

pub(super) async fn check(walk: &mut Walk, account: AccountId) -> Result<(), FsckError> {
    let mut from = Some(MailboxId(0));
    while let Some(first) = from {
        let mailbox = walk.step(|tx, _| async move { next(&tx, account, first).await }).await?;
        let Some(mailbox) = mailbox else { return Ok(()) };
        if !is_good(walk, account, mailbox).await? {
            walk.find(Damage::View(account, mailbox)).await?;
        }
        from = mailbox.0.checked_add(1).map(MailboxId);
    }
    Ok(())
}

/// The first mailbox from `from` on that has a header or a page.
async fn next(
    tx: &Transaction,
    account: AccountId,
    from: MailboxId,
) -> Result<Option<MailboxId>, StoreError> {
    if !is_alive(tx, account).await? {
        return Ok(None);
    }
    let mut first: Option<MailboxId> = None;
    for subspace in [Subspace::ViewHeader, Subspace::ViewPage] {
        let begin = pack(&(subspace as u64, account.0, from.0));
        let (_, end) = keys::range_of(pack(&(subspace as u64, account.0)));
        let rows = tx.range(RangeQuery::new(begin, end).limit(1).snapshot()).collect().await?;
        let Some(row) = rows.first() else { continue };
        let mailbox = keys::integers(&row.key).nth(1).map(u32::try_from);
        if let Some(Ok(mailbox)) = mailbox {
            let mailbox = MailboxId(mailbox);
            first = Some(first.map_or(mailbox, |held| held.min(mailbox)));
        }
    }
    Ok(first)
}

enum Seen {
    Good(Option<u32>),
    Bad,
}

async fn is_good(
    walk: &mut Walk,
    account: AccountId,
    mailbox: MailboxId,
) -> Result<bool, FsckError> {
    let mut from = Some(0);
    while let Some(first) = from {
        let seen =
            walk.step(|tx, _| async move { one_page(&tx, account, mailbox, first).await }).await?;
        match seen {
            Seen::Good(next) => from = next,
            Seen::Bad => return Ok(false),
        }
    }
    Ok(true)
}

/// The header, and the first page from `from` on. All that concerns one mailbox's checkpoint is
/// there or gone together with its record.
async fn one_page(
    tx: &Transaction,
    account: AccountId,
    mailbox: MailboxId,
    from: u32,
) -> Result<Seen, StoreError> {
    let (_, end) = keys::view::page_range(account, mailbox);
    let begin = keys::view::page_key(account, mailbox, from);
    let rows = tx.range(RangeQuery::new(begin, end).limit(1).snapshot()).collect().await?;
    let header = tx.get_snapshot(&keys::view::header_key(account, mailbox)).await?;
    if rows.is_empty() && header.is_none() {
        return Ok(Seen::Good(None));
    }
    if tx.get_snapshot(&keys::mailbox::key(account, mailbox)).await?.is_none() {
        return Ok(Seen::Bad);
    }
    match check_header(tx, account, mailbox).await {
        Err(StoreError::Damaged { .. }) => return Ok(Seen::Bad),
        other => other?,
    }
    let Some(row) = rows.first() else { return Ok(Seen::Good(None)) };
    let number = keys::integers(&row.key).nth(2).and_then(|number| u32::try_from(number).ok());
    let Some(number) = number else { return Ok(Seen::Bad) };
    match check_page(tx, account, mailbox, number).await {
        Ok(()) => Ok(Seen::Good(number.checked_add(1))),
        Err(ViewError::Store(error @ StoreError::Kv(_))) => Err(error),
        Err(_) => Ok(Seen::Bad),
    }
}
