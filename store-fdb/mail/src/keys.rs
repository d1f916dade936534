//! The keys and records of the mail store, one file a family.
//!
//! Every key is a FoundationDB tuple that begins with its [`kv::Subspace`] number, so `fdbcli`
//! reads it. Every value is a protobuf message. In the records of accounts, mailboxes, emails' states,
//! nodes' names, settings and the schema a field that this version does not know survives a rewrite
//! ([`encode_over`]). An email's meta is never rewritten, and copied byte for byte. Elsewhere a field
//! survives where a record is rewritten only by the version that owns it (design P10).

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

use env::probe::Planted;

use crate::StoreError;

/// Decodes a record, naming its family where it is damaged.
pub(crate) fn decode<M: prost::Message + Default>(
    family: &'static str,
    value: &[u8],
) -> Result<M, StoreError> {
    M::decode(value).map_err(|error| StoreError::damaged(family, error))
}

/// Encodes a record that is written over `before`, which a newer release may have written: top-level
/// fields that this one does not know are kept.
pub fn encode_over<M: prost::Message + Default>(record: &M, before: &[u8]) -> Vec<u8> {
    let mut bytes = record.encode_to_vec();
    bytes.extend_from_slice(&unknown_fields::<M>(before));
    bytes
}

/// The top-level fields of a stored record that this release does not know, as they are.
pub(crate) fn unknown_fields<M: prost::Message + Default>(stored: &[u8]) -> Vec<u8> {
    let mut unknown = Vec::new();
    if env::probe::planted(Planted::DropUnknownFields) {
        return unknown;
    }
    let mut fields = crate::record::Fields::new(stored);
    // What cannot be taken apart was refused when it was decoded.
    while let Ok(Some(field)) = fields.next() {
        // A field by itself is a message; one that is not known leaves nothing of itself. A known one
        // with its default value does neither, but is never written.
        if M::decode(field.whole).is_ok_and(|alone| alone.encoded_len() == 0) {
            unknown.extend_from_slice(field.whole);
        }
    }
    unknown
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

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::{account::Account, encode_over};

    #[test]
    fn what_a_newer_release_wrote_survives_a_rewrite() {
        let held = Account { name: "a@b".to_owned(), quota_bytes: 7, ..Account::default() };
        // Field 1000, a number; field 1001, a text.
        let newer = [&[0xc0, 0x3e, 0x07][..], &[0xca, 0x3e, 0x01, b'x'][..]].concat();
        let before = [&held.encode_to_vec()[..], &newer].concat();
        let changed = Account { quota_bytes: 0, description: "d".to_owned(), ..held };
        let once = encode_over(&changed, &before);
        assert_eq!(once, [&changed.encode_to_vec()[..], &newer].concat());
        assert_eq!(encode_over(&changed, &once), once, "again, it is there once");
        assert_eq!(Account::decode(&once[..]).unwrap(), changed);
        assert_eq!(encode_over(&changed, &[]), changed.encode_to_vec());
    }
}
