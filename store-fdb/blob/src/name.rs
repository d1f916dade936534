//! What a listing of the backend tells of a blob: where its bytes are.

use bytes::Bytes;
use env::Timestamp;

use crate::{BlobHash, BlobId, ObjectId};

/// Where a blob's bytes are: the beginning of [`BlobId::to_bytes`]. No two blobs share one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum BlobName {
    /// An object.
    Object(ObjectId),
    /// A blob of a store of schema 0.
    Hash(BlobHash),
}

impl BlobName {
    /// Where this blob's bytes are.
    pub const fn of(id: &BlobId) -> Self {
        match id.object() {
            Some(object) => Self::Object(object),
            None => Self::Hash(id.hash()),
        }
    }

    /// From [`BlobName::as_bytes`]; `None` for another length than 16 and 32.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        match bytes.try_into() {
            Ok(object) => Some(Self::Object(ObjectId::from_bytes(object))),
            Err(_) => Some(Self::Hash(BlobHash::from_bytes(bytes.try_into().ok()?))),
        }
    }

    /// The first bytes of the blob's id.
    pub const fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Object(object) => object.as_bytes(),
            Self::Hash(hash) => hash.as_bytes(),
        }
    }

    /// Whether the blob's bytes are here.
    pub fn holds(&self, id: &BlobId) -> bool {
        Self::of(id) == *self
    }

    /// When the put began, by the wall clock of the node that did it; unknown in schema 0.
    pub fn put_at(&self) -> Option<Timestamp> {
        match self {
            Self::Object(object) => Some(object.put_at()),
            Self::Hash(_) => None,
        }
    }
}

/// In the order of the ids' bytes, so that a listing and the references can be merged.
impl Ord for BlobName {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl PartialOrd for BlobName {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl std::fmt::Display for BlobName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Object(object) => object.fmt(f),
            Self::Hash(hash) => hash.fmt(f),
        }
    }
}

impl std::fmt::Debug for BlobName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BlobName({self})")
    }
}

/// Where a listing goes on. The backend's own; it may be stored and used by another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListCursor(Bytes);

impl ListCursor {
    /// From [`ListCursor::as_bytes`].
    pub fn from_bytes(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// For keeping.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A page of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListPage {
    /// Ascending. May be empty though more pages follow: what is not a blob is left out.
    pub names: Vec<BlobName>,
    /// Where the next page begins; `None` after the last.
    pub next: Option<ListCursor>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_beginning_of_its_ids() {
        let hash = BlobHash::of(b"x");
        let object = ObjectId::from_bytes([7; 16]);
        for id in [BlobId::new(object, hash), BlobId::of_schema_0(hash)] {
            let name = BlobName::of(&id);
            assert!(name.holds(&id) && id.to_bytes().starts_with(name.as_bytes()));
            assert_eq!(BlobName::from_slice(name.as_bytes()), Some(name));
        }
        let other = BlobId::new(ObjectId::from_bytes([8; 16]), hash);
        assert!(!BlobName::Object(object).holds(&other));
        assert!(!BlobName::Hash(hash).holds(&other));
        assert!(BlobName::of(&other) > BlobName::Object(object));
        for len in [0, 15, 17, 31, 33, 48] {
            assert_eq!(BlobName::from_slice(&vec![1; len]), None, "{len}");
        }
    }
}
