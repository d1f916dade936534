//! Domains and addresses.

use kv::Transaction;

use super::{
    Damage, FsckError,
    emails::{Checked, is_alive},
    walk::{Walk, stretch},
};
use crate::{
    AccountId, StoreError,
    directory::{Address, ResolveError, resolve},
    keys::{
        self,
        directory::{AddressRecord, Domain, Target},
    },
};

/// Rows for which an alias is followed as far as it goes.
const ALIASES_PER_STEP_SHARE: usize = 8;

pub(super) async fn check(walk: &mut Walk) -> Result<(), FsckError> {
    let (mut from, _) = keys::directory::domain_range();
    loop {
        let begin = &from;
        let checked = walk.step(|tx, rows| async move { domains(&tx, begin, rows).await }).await?;
        walk.find_all(checked.damages).await?;
        match checked.next {
            Some(next) => from = next,
            None => break,
        }
    }
    let (mut from, _) = keys::directory::address_range(None);
    loop {
        let begin = &from;
        let checked =
            walk.step(|tx, rows| async move {
                addresses(&tx, begin, rows / ALIASES_PER_STEP_SHARE).await
            })
            .await?;
        walk.find_all(checked.damages).await?;
        match checked.next {
            Some(next) => from = next,
            None => return Ok(()),
        }
    }
}

async fn domains(tx: &Transaction, from: &[u8], most: usize) -> Result<Checked, StoreError> {
    let (_, end) = keys::directory::domain_range();
    let read = stretch(tx, from.to_vec(), end, most).await?;
    let bad = |row: &&kv::KeyValue| {
        kv::tuple::unpack::<(u64, String, String)>(&row.key).is_err()
            || keys::decode::<Domain>("domain", &row.value).is_err()
    };
    let damages = read
        .rows
        .iter()
        .filter(bad)
        .map(|row| Damage::Undecodable { family: "domain", key: row.key.to_vec() })
        .collect();
    Ok(Checked { damages, rows: 0, next: read.next() })
}

async fn addresses(tx: &Transaction, from: &[u8], most: usize) -> Result<Checked, StoreError> {
    let (_, end) = keys::directory::address_range(None);
    let read = stretch(tx, from.to_vec(), end, most.max(1)).await?;
    let mut damages = Vec::new();
    for row in &read.rows {
        let address = kv::tuple::unpack::<(u64, String, String, String)>(&row.key)
            .ok()
            .and_then(|(_, _, domain, local)| Address::parse(&format!("{local}@{domain}")).ok());
        let target = keys::decode::<AddressRecord>("address", &row.value)
            .ok()
            .and_then(|record| record.target);
        let (Some(address), Some(target)) = (address, target) else {
            damages.push(Damage::Undecodable { family: "address", key: row.key.to_vec() });
            continue;
        };
        match target {
            Target::Account(id) => {
                let account = AccountId(id);
                // The address goes in the transaction that marks the account.
                let is_lost = !is_alive(tx, account).await? && !is_unreadable(tx, account).await?;
                if is_lost {
                    damages.push(Damage::StrayAddress(address.to_string(), account));
                }
            }
            Target::Alias(_) => match resolve(tx, &address).await {
                Err(ResolveError::Unknown(_)) => {
                    damages.push(Damage::DeadAlias(address.to_string()));
                }
                Err(ResolveError::Store(error @ StoreError::Kv(_))) => return Err(error),
                Ok(_) | Err(_) => {}
            },
            Target::Group(_) => {}
        }
    }
    Ok(Checked { damages, rows: 0, next: read.next() })
}

/// The account is there, with a record that is told elsewhere.
async fn is_unreadable(tx: &Transaction, account: AccountId) -> Result<bool, StoreError> {
    let value = tx.get_snapshot(&keys::account::key(account)).await?;
    Ok(value
        .is_some_and(|value| keys::decode::<keys::account::Account>("account", &value).is_err()))
}
