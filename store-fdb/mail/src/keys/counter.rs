//! Counters, changed by atomic ADD only.
//!
//! | key | value | lifecycle |
//! |---|---|---|
//! | (Counter, A) | [`AccountCounts`]: 2 × u64 LE | added to by each change; cleared with the account |
//! | (Counter, A, M) | [`MailboxTotals`]: 4 × u64 LE | added to by each change; cleared with the mailbox |
//!
//! One ADD changes all the fields of a key. The operand is the sum of each field's delta shifted
//! to its place, as one wide two's complement number, so a borrow out of one field is paid back
//! by the next addition: the fields are right whenever each true count is not negative.

use kv::{Subspace, tuple::pack};

use crate::{AccountId, MailboxId, StoreError};

/// What an account holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct AccountCounts {
    /// Bytes of all emails, each once however many mailboxes hold it.
    pub bytes: i64,
    /// Emails.
    pub emails: i64,
}

/// What a mailbox holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct MailboxTotals {
    /// Messages.
    pub total: i64,
    /// Messages without `$seen`.
    pub unseen: i64,
    /// Messages with `\Deleted`.
    pub deleted: i64,
    /// Bytes (RFC 8438 `STATUS=SIZE`).
    pub bytes: i64,
}

/// (Counter, A)
pub fn account_key(account: AccountId) -> Vec<u8> {
    pack(&(Subspace::Counter as u64, account.0))
}

/// (Counter, A, M)
pub fn mailbox_key(account: AccountId, mailbox: MailboxId) -> Vec<u8> {
    pack(&(Subspace::Counter as u64, account.0, mailbox.0))
}

/// All of (Counter, A, …), without the account's own.
pub fn mailboxes_range(account: AccountId) -> (Vec<u8>, Vec<u8>) {
    super::range_of(account_key(account))
}

/// The mailbox of a [`mailbox_key`].
pub fn mailbox_of(key: &[u8]) -> Option<MailboxId> {
    let (_, _, mailbox): (u64, u64, u32) = kv::tuple::unpack(key).ok()?;
    Some(MailboxId(mailbox))
}

impl AccountCounts {
    /// The operand of an ADD.
    pub fn operand(self) -> Vec<u8> {
        wide([self.bytes, self.emails])
    }

    /// From a stored value; absent is zero.
    ///
    /// # Errors
    /// [`StoreError::Damaged`].
    pub fn decode(value: Option<&[u8]>) -> Result<Self, StoreError> {
        let [bytes, emails] = fields(value)?;
        Ok(Self { bytes, emails })
    }
}

impl MailboxTotals {
    /// The operand of an ADD.
    pub fn operand(self) -> Vec<u8> {
        wide([self.total, self.unseen, self.deleted, self.bytes])
    }

    /// From a stored value; absent is zero.
    ///
    /// # Errors
    /// [`StoreError::Damaged`].
    pub fn decode(value: Option<&[u8]>) -> Result<Self, StoreError> {
        let [total, unseen, deleted, bytes] = fields(value)?;
        Ok(Self { total, unseen, deleted, bytes })
    }
}

/// Σ deltaᵢ·2^(64·i) in two's complement, little-endian.
fn wide<const N: usize>(deltas: [i64; N]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8 * N);
    let mut borrow = 0_i128;
    for delta in deltas {
        let sum = i128::from(delta) + borrow;
        let low = u64::try_from(sum.rem_euclid(1 << 64)).expect("a remainder below 2^64");
        bytes.extend_from_slice(&low.to_le_bytes());
        borrow = sum.div_euclid(1 << 64);
    }
    bytes
}

fn fields<const N: usize>(value: Option<&[u8]>) -> Result<[i64; N], StoreError> {
    let Some(value) = value else { return Ok([0; N]) };
    if value.len() != 8 * N {
        return Err(StoreError::damaged("counter", format!("{} bytes", value.len())));
    }
    let mut fields = [0; N];
    for (field, bytes) in fields.iter_mut().zip(value.chunks_exact(8)) {
        *field = i64::from_le_bytes(bytes.try_into().expect("chunks of eight"));
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 256-bit little-endian addition with wrap-around, as FoundationDB's ADD does it.
    fn add(a: &[u8], b: &[u8]) -> Vec<u8> {
        let mut carry = 0_u16;
        a.iter()
            .zip(b)
            .map(|(a, b)| {
                let sum = u16::from(*a) + u16::from(*b) + carry;
                carry = sum >> 8;
                sum.to_le_bytes()[0]
            })
            .collect()
    }

    proptest::proptest! {
        #[test]
        fn fields_add_up_whatever_the_order(deltas: Vec<[i32; 4]>) {
            let mut base = [1_i64 << 40; 4];
            let mut value = wide(base);
            for delta in deltas.iter().map(|delta| delta.map(i64::from)) {
                value = add(&value, &wide(delta));
                for (field, delta) in base.iter_mut().zip(delta) {
                    *field += delta;
                }
            }
            proptest::prop_assert_eq!(fields::<4>(Some(&value)).unwrap(), base);
        }
    }
}
