//! FoundationDB's tuple encoding, so that any FoundationDB tool can read our keys.
//!
//! A 12-byte [`Versionstamp`] of this module is the commit's ten bytes
//! ([`crate::Versionstamp`]) and two bytes of the user's own, for several stamps in one
//! transaction.

pub use foundationdb_tuple::{
    Bytes, Element, PackError, PackResult, Subspace, TupleDepth, TuplePack, TupleUnpack,
    Versionstamp, VersionstampOffset, pack, pack_into, pack_into_with_versionstamp, unpack,
};

/// Packs a tuple that holds one incomplete [`Versionstamp`], with the four offset bytes that
/// [`AtomicOp::SetVersionstampedKey`](crate::AtomicOp::SetVersionstampedKey) expects.
///
/// # Panics
/// Where the tuple holds more than one incomplete versionstamp, which no store can complete.
pub fn pack_with_versionstamp<T: TuplePack>(tuple: &T) -> Vec<u8> {
    foundationdb_tuple::pack_with_versionstamp(tuple)
}

/// The keys that begin with the packed tuple `prefix` and go on with a further element: what
/// FoundationDB calls the tuple's range.
pub fn range_of(prefix: Vec<u8>) -> (Vec<u8>, Vec<u8>) {
    let (mut begin, mut end) = (prefix.clone(), prefix);
    begin.push(0x00);
    end.push(0xff);
    (begin, end)
}

/// The complete tuple versionstamp of a commit, with the user's own two bytes.
pub fn complete(stamp: &crate::Versionstamp, user_version: u16) -> Versionstamp {
    Versionstamp::complete(*stamp.as_bytes(), user_version)
}
