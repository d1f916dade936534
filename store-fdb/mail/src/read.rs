//! Reading single emails.

use futures_util::future::try_join_all;
use kv::{RangeQuery, Transaction};

use crate::{
    AccountId, EmailId, MetaRecord, ModSeq, StoreError,
    keys::{
        self,
        email::{EmailMeta, EmailState},
    },
};

/// The immutable part of an email; `None` where it does not exist.
///
/// # Errors
/// [`StoreError`].
pub async fn email_meta(
    tx: &Transaction,
    account: AccountId,
    email: EmailId,
) -> Result<Option<EmailMeta>, StoreError> {
    // What never changes needs no conflict.
    let value = tx.get_snapshot(&keys::email::meta_key(account, email)).await?;
    value.map(|value| keys::decode("email meta", &value)).transpose()
}

/// The immutable parts of emails, not yet decoded; `None` for those that do not exist.
///
/// Emails that lie close together are read as one range: it reads at most as many others.
///
/// # Errors
/// [`StoreError`].
pub async fn email_records(
    tx: &Transaction,
    account: AccountId,
    emails: &[EmailId],
) -> Result<Vec<Option<MetaRecord>>, StoreError> {
    let ascending = emails.is_sorted_by(|a, b| a < b);
    if let ([first, .., last], true) = (emails, ascending)
        && usize::try_from(last.0 - first.0).is_ok_and(|span| span < 2 * emails.len())
    {
        return records_between(tx, account, emails, (*first, *last)).await;
    }
    let read = |email: &EmailId| {
        let key = keys::email::meta_key(account, *email);
        async move { tx.get_snapshot(&key).await }
    };
    let values = try_join_all(emails.iter().map(read)).await?;
    Ok(values.into_iter().map(|value| value.map(MetaRecord::new)).collect())
}

/// The records of `emails`, which ascend from the first to the last.
async fn records_between(
    tx: &Transaction,
    account: AccountId,
    emails: &[EmailId],
    (first, last): (EmailId, EmailId),
) -> Result<Vec<Option<MetaRecord>>, StoreError> {
    let begin = keys::email::meta_key(account, first);
    let (_, end) = keys::range_of(keys::email::meta_key(account, last));
    let mut found = vec![None; emails.len()];
    let mut wanted = emails.iter().enumerate().peekable();
    let mut pages = tx.range(RangeQuery::new(begin, end).snapshot());
    while let Some(rows) = pages.next_page().await? {
        for row in rows {
            let email = keys::email::email_of(&row.key)
                .ok_or_else(|| StoreError::damaged("email meta", "a bad key"))?;
            while wanted.next_if(|(_, next)| **next < email).is_some() {}
            if let Some((place, _)) = wanted.next_if(|(_, next)| **next == email) {
                found[place] = Some(MetaRecord::new(row.value));
            }
        }
    }
    Ok(found)
}

/// The mutable part of an email with its MODSEQ; `None` where it does not exist.
///
/// # Errors
/// [`StoreError`].
pub async fn email_state(
    tx: &Transaction,
    account: AccountId,
    email: EmailId,
) -> Result<Option<(ModSeq, EmailState)>, StoreError> {
    let Some(value) = tx.get(&keys::email::state_key(account, email)).await? else {
        return Ok(None);
    };
    let (stamp, state) = keys::email::decode_state(&value)?;
    Ok(Some((ModSeq(stamp.version()), state)))
}
