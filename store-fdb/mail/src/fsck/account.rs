//! One account: its emails, its threads, its log, its sums, its views.

use kv::{RangeQuery, Transaction};

use super::{
    Damage, FsckError, emails, history, operations, sum, threads, views,
    walk::{Walk, stretch},
};
use crate::{
    AccountId, StoreError,
    directory::{self, Address},
    keys::{self, account::Account, directory::Target},
};

/// How many accounts there are.
pub(super) async fn count(walk: &mut Walk) -> Result<u64, FsckError> {
    let (mut from, end) = keys::account::range();
    let mut count = 0;
    loop {
        let (begin, end) = (&from, &end);
        let (found, next) = walk
            .step(|tx, rows| async move {
                let read = stretch(&tx, begin.clone(), end.clone(), rows).await?;
                Ok((read.rows.len() as u64, read.next()))
            })
            .await?;
        count += found;
        match next {
            Some(next) => from = next,
            None => return Ok(count),
        }
    }
}

/// The first account after `after`.
pub(super) async fn next(
    walk: &mut Walk,
    after: Option<AccountId>,
) -> Result<Option<AccountId>, FsckError> {
    let (first, end) = keys::account::range();
    let begin = &after.map_or(first, |account| super::walk::after(&keys::account::key(account)));
    let end = &end;
    walk.step(|tx, _| async move {
        let query = RangeQuery::new(begin.clone(), end.clone()).limit(1).snapshot();
        let rows = tx.range(query).collect().await?;
        let id = |row: &kv::KeyValue| {
            keys::account::account_of(&row.key)
                .ok_or_else(|| StoreError::damaged("account", "a key that is no account's"))
        };
        rows.first().map(id).transpose()
    })
    .await
}

/// Checks all that is the account's alone. One that is being deleted is left to its deletion.
pub(super) async fn check(walk: &mut Walk, account: AccountId) -> Result<(), FsckError> {
    let damages = walk.step(|tx, _| async move { check_record(&tx, account).await }).await?;
    walk.find_all(damages).await?;
    emails::check(walk, account).await?;
    threads::check(walk, account).await?;
    history::check(walk, account).await?;
    sum::check(walk, account).await?;
    operations::check(walk, account).await?;
    views::check(walk, account).await
}

/// The account's record and what leads to it.
async fn check_record(tx: &Transaction, account: AccountId) -> Result<Vec<Damage>, StoreError> {
    let key = keys::account::key(account);
    let Some(value) = tx.get_snapshot(&key).await? else { return Ok(Vec::new()) };
    let Ok(record) = keys::decode::<Account>("account", &value) else {
        return Ok(vec![Damage::Undecodable { family: "account", key }]);
    };
    if record.deleting {
        return Ok(Vec::new());
    }
    let mut damages = Vec::new();
    let leads_here = match Address::parse(&record.name) {
        Ok(address) => match directory::record(tx, &address).await {
            Ok(target) => target == Some(Target::Account(account.0)),
            // Told where the directory is checked.
            Err(StoreError::Damaged { .. }) => true,
            Err(error) => return Err(error),
        },
        Err(_) => false,
    };
    if !leads_here {
        damages.push(Damage::NoAddress(account, record.name));
    }
    if let Err(StoreError::Damaged { family, .. }) = crate::credential(tx, account).await {
        let key = keys::account::credential_key(account);
        damages.push(Damage::Undecodable { family, key });
    }
    Ok(damages)
}
