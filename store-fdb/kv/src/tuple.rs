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

/// The complete tuple versionstamp of a commit, with the user's own two bytes.
pub fn complete(stamp: &crate::Versionstamp, user_version: u16) -> Versionstamp {
    Versionstamp::complete(*stamp.as_bytes(), user_version)
}
