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

use crate::StoreError;

/// Decodes a record, naming its family where it is damaged.
pub(crate) fn decode<M: prost::Message + Default>(
    family: &'static str,
    value: &[u8],
) -> Result<M, StoreError> {
    M::decode(value).map_err(|error| StoreError::damaged(family, error))
}

/// The keys that begin with the packed tuple `prefix` and go on with a further element: what
/// FoundationDB calls the tuple's range.
pub(crate) fn range_of(prefix: Vec<u8>) -> (Vec<u8>, Vec<u8>) {
    let mut end = prefix.clone();
    let mut begin = prefix;
    begin.push(0x00);
    end.push(0xff);
    (begin, end)
}
