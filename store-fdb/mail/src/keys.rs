//! The keys and records of the mail store, one file a family.
//!
//! Every key is a FoundationDB tuple that begins with its [`kv::Subspace`] number, so `fdbcli`
//! reads it. Every value is a protobuf message: a field that this version does not know survives
//! where a record is rewritten whole only by the version that owns the field (design P10).

pub mod account;
pub mod counter;
pub mod directory;
pub mod email;
pub mod log;
pub mod mailbox;
pub mod operation;
pub mod thread;
pub mod view;

pub(crate) use kv::tuple::range_of;

use crate::StoreError;

/// Decodes a record, naming its family where it is damaged.
pub(crate) fn decode<M: prost::Message + Default>(
    family: &'static str,
    value: &[u8],
) -> Result<M, StoreError> {
    M::decode(value).map_err(|error| StoreError::damaged(family, error))
}

/// The integer that a packed tuple begins with, and what follows it. Whole tuples are unpacked with
/// signed integers, which hashes do not fit.
pub(crate) fn split_integer(packed: &[u8]) -> Option<(u64, &[u8])> {
    // A tuple's integer begins with this plus the number of its bytes.
    const ZERO: u8 = 0x14;
    let (head, rest) = packed.split_first()?;
    let bytes = usize::from(head.checked_sub(ZERO)?);
    let mut wide = [0; 8];
    let place = wide.get_mut(8_usize.checked_sub(bytes)?..)?;
    let (integer, rest) = rest.split_at_checked(bytes)?;
    place.copy_from_slice(integer);
    Some((u64::from_be_bytes(wide), rest))
}

/// The integers after the family's number in a key: the account, then the mailbox, ….
pub(crate) fn integers(key: &[u8]) -> impl Iterator<Item = u64> {
    let mut rest = split_integer(key).map(|(_family, rest)| rest);
    std::iter::from_fn(move || {
        let (integer, behind) = split_integer(rest?)?;
        rest = Some(behind);
        Some(integer)
    })
}
