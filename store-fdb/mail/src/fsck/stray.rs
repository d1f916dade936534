//! Keys of accounts that do not exist. A deletion clears an account's record last, in a
//! transaction that sees that nothing else is left.

use kv::{RangeQuery, Subspace, Transaction, tuple::pack};

use super::{Damage, Family, FsckError, walk::Walk};
use crate::{AccountId, StoreError, keys};

/// The families whose keys' second element is an account.
pub(super) const FAMILIES: [Family; 11] = [
    Family { subspace: Subspace::EmailMeta, name: "email meta" },
    Family { subspace: Subspace::EmailState, name: "email state" },
    Family { subspace: Subspace::Mailbox, name: "mailbox" },
    Family { subspace: Subspace::Next, name: "next id" },
    Family { subspace: Subspace::Log, name: "log" },
    Family { subspace: Subspace::ViewHeader, name: "view header" },
    Family { subspace: Subspace::ViewPage, name: "view page" },
    Family { subspace: Subspace::Thread, name: "thread" },
    Family { subspace: Subspace::Counter, name: "counter" },
    Family { subspace: Subspace::Operation, name: "operation" },
    Family { subspace: Subspace::Credential, name: "credential" },
];

pub(super) async fn check(walk: &mut Walk) -> Result<(), FsckError> {
    for family in FAMILIES {
        let mut from = Some(AccountId(0));
        while let Some(first) = from {
            let (damages, next) = walk
                .step(|tx, rows| async move { some(&tx, family, first, rows / 2).await })
                .await?;
            walk.find_all(damages).await?;
            from = next;
        }
    }
    let damages = walk.step(|tx, _| async move { next_account(&tx).await }).await?;
    walk.find_all(damages).await
}

/// Looks at some accounts that have keys of a family, from one to the next.
async fn some(
    tx: &Transaction,
    family: Family,
    mut from: AccountId,
    most: usize,
) -> Result<(Vec<Damage>, Option<AccountId>), StoreError> {
    let mut damages = Vec::new();
    for _ in 0..most {
        let begin = pack(&(family.subspace as u64, from.0));
        let (_, end) = keys::range_of(pack(&(family.subspace as u64,)));
        let query = RangeQuery::new(begin, end).limit(1).snapshot();
        let rows = tx.range(query).collect().await?;
        let Some(row) = rows.first() else { return Ok((damages, None)) };
        let Some(account) = account_of(&row.key) else {
            let key = row.key.to_vec();
            damages.push(Damage::Undecodable { family: family.name, key });
            return Ok((damages, None));
        };
        if tx.get_snapshot(&keys::account::key(account)).await?.is_none() {
            damages.push(Damage::StrayKeys { account, family });
        }
        match account.0.checked_add(1) {
            Some(next) => from = AccountId(next),
            None => return Ok((damages, None)),
        }
    }
    Ok((damages, Some(from)))
}

/// The account in a key whose second element it is.
pub(super) fn account_of(key: &[u8]) -> Option<AccountId> {
    keys::integers(key).next().map(AccountId)
}

/// The id that is given out next is above all that are.
async fn next_account(tx: &Transaction) -> Result<Vec<Damage>, StoreError> {
    let key = keys::account::next_id_key();
    let (begin, end) = keys::account::range();
    let query = RangeQuery::new(begin, end).limit(1).reverse().snapshot();
    let rows = tx.range(query).collect().await?;
    let Some(highest) = rows.first().and_then(|row| keys::account::account_of(&row.key)) else {
        return Ok(Vec::new());
    };
    let stored = tx.get_snapshot(&key).await?;
    let last = match stored.as_deref().map(<[u8; 8]>::try_from) {
        Some(Ok(bytes)) => u64::from_le_bytes(bytes),
        Some(Err(_)) => return Ok(vec![Damage::Undecodable { family: "account", key }]),
        None => 0,
    };
    Ok((last < highest.0).then_some(Damage::NextAccount { last, highest }).into_iter().collect())
}
