//! Message bytes, named by the object that holds them and checked by their BLAKE3-256 hash.
//!
//! `put` first, then the transaction that references: a blob that nothing references is swept
//! after a grace time, so a crash between the two leaves no damage. Reads are ranged, and every
//! byte that is handed out has been checked against the hash that names the blob.
//!
//! - [`BlobStore`] is what everything else uses; its backend is private.
//! - [`references`] holds the keys that say who needs a blob.
//! - [`binding`] keeps one store's bucket from being taken for another's.
//! - [`sweep`] removes what nobody needs; [`audit`] checks that nothing else is gone.
//!
//! Deliberately absent: any knowledge of what the bytes mean.

pub mod audit;
mod backend;
pub mod binding;
mod embedded;
mod error;
mod faults;
mod folder;
mod id;
pub mod limits;
mod name;
pub mod references;
#[cfg(feature = "s3")]
pub mod s3;
mod store;
pub mod sweep;
#[cfg(test)]
mod testing;
mod tree;

pub use error::BlobError;
pub use faults::{BlobFaultHandle, BlobFaults};
pub use id::{BlobHash, BlobId, ObjectId};
pub use name::{BlobName, ListCursor, ListPage};
pub use references::Owner;
pub use store::{BlobCounts, BlobReader, BlobStore, BlobWriter};
