//! Reading single emails.

use kv::Transaction;

use crate::{
    AccountId, EmailId, ModSeq, StoreError,
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
