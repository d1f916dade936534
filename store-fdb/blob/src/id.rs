//! A blob's name.

use std::fmt;

use env::{Env, Timestamp};

/// BLAKE3-256 of a blob's bytes: what `b3sum` prints.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobHash([u8; 32]);

impl BlobHash {
    /// The hash of exactly `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// From the hash's bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The hash's bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Which object holds the bytes: random, so that no two puts ever share one and objects spread
/// evenly over a bucket, with the time of the put in its last six bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId([u8; 16]);

impl ObjectId {
    /// A new one, put now by this node's wall clock.
    pub(crate) fn draw(env: &Env) -> Self {
        let mut bytes: [u8; 16] = env.random_array();
        let ms = u64::try_from(env.wall().unix_ms()).unwrap_or(0);
        bytes[10..].copy_from_slice(&ms.to_be_bytes()[2..]);
        Self(bytes)
    }

    /// From an object's name.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// When its put began, by the wall clock of the node that did it.
    pub fn put_at(&self) -> Timestamp {
        let mut ms = [0; 8];
        ms[2..].copy_from_slice(&self.0[10..]);
        Timestamp::from_unix_ms(i64::try_from(u64::from_be_bytes(ms)).unwrap_or(i64::MAX))
    }
}

/// A blob: the object that holds it and the hash that its bytes are checked against.
///
/// The same bytes that are put twice are two blobs. Nothing that was removed is ever needed again
/// under the same name, so a removal cannot meet a put.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobId {
    // First, because keys and listings are ordered by it.
    object: Option<ObjectId>,
    hash: BlobHash,
}

impl BlobId {
    /// The blob in this object.
    pub const fn new(object: ObjectId, hash: BlobHash) -> Self {
        Self { object: Some(object), hash }
    }

    /// A blob of a store of schema 0, which named objects by their hash alone.
    pub const fn of_schema_0(hash: BlobHash) -> Self {
        Self { object: None, hash }
    }

    /// From a record's field: 48 bytes, or 32 in records of schema 0; `None` for another length.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        if let Ok(hash) = bytes.try_into() {
            return Some(Self::of_schema_0(BlobHash(hash)));
        }
        let (object, hash) = bytes.split_first_chunk::<16>()?;
        Some(Self::new(ObjectId(*object), BlobHash(hash.try_into().ok()?)))
    }

    /// For a record's field: the object's bytes, then the hash's.
    pub fn to_bytes(&self) -> Vec<u8> {
        let object = self.object.as_ref().map_or(&[][..], |object| object.as_bytes());
        [object, self.hash.as_bytes()].concat()
    }

    /// Where the bytes are; `None` in a store of schema 0.
    pub const fn object(&self) -> Option<ObjectId> {
        self.object
    }

    /// What the bytes hash to.
    pub const fn hash(&self) -> BlobHash {
        self.hash
    }
}

impl fmt::Display for BlobHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.object {
            Some(object) => write!(f, "{object}-{}", self.hash),
            None => self.hash.fmt(f),
        }
    }
}

impl fmt::Debug for BlobHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobHash({self})")
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectId({self})")
    }
}

impl fmt::Debug for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_both_schemas_are_read() {
        let hash = BlobHash::of(b"x");
        let new = BlobId::new(ObjectId::draw(&Env::system()), hash);
        for id in [new, BlobId::of_schema_0(hash)] {
            assert_eq!(BlobId::from_slice(&id.to_bytes()), Some(id));
            assert!(id.to_string().ends_with(&hash.to_string()));
        }
        for len in [0, 16, 31, 33, 47, 49] {
            assert_eq!(BlobId::from_slice(&vec![1; len]), None, "{len}");
        }
    }

    #[test]
    fn an_object_tells_when_it_was_put() {
        let env = Env::system();
        let before = env.wall();
        let object = ObjectId::draw(&env);
        assert!(before <= object.put_at() && object.put_at() <= env.wall());
        assert_ne!(object, ObjectId::draw(&env));
    }
}
